"""Values and gradients of the operators against the literal pairwise definition, in every backend."""

import math

import pytest
import torch
from backends import BACKENDS, FAST
from compare import assert_close_gradients, assert_close_values, hinge_and_grad, value_and_grad
from hypothesis import given
from hypothesis import strategies as st
from reference import pairwise

import structloss
from structloss.ops.torch_terms.ranking import _stable_sort

RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-5}
ALL = {"mpjpe": 1.0, "depth_ranking_joints": 0.7, "depth_ranking_frames": 2.5}


def rows(n, kind, batch=3):
    pred = torch.randn(batch, n, dtype=torch.float64)
    target = pred + torch.randn(batch, n, dtype=torch.float64)
    if kind == "ties":
        pred, target = (pred * 3).round() / 3, (target * 3).round() / 3
    elif kind == "constant pred":
        pred = torch.zeros_like(pred)
    elif kind == "constant target":
        target = torch.ones_like(target)
    elif kind == "equal":
        pred = target.clone()
    elif kind == "reversed":
        pred = -target
    elif kind == "outlier":  # everything else falls into few codes
        pred[:, -1], target[:, 0] = 2000.0, -30.0
    elif kind == "signed zeros":
        pred = torch.where(torch.rand_like(pred) < 0.5, 0.0, -0.0)
    return pred.float().double(), target.float().double()


def row_weights(n, kind, batch=3):
    if kind == "none":
        return None
    if kind == "mask":
        return (torch.rand(batch, n) > 0.3).double()
    if kind == "padding":
        return (torch.arange(n) < max(1, n // 2)).double().expand(batch, n)
    return torch.rand(batch, n).double() * (torch.rand(batch, n) > 0.2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weights", ["none", "mask", "padding", "real"])
@pytest.mark.parametrize(
    "kind", ["random", "ties", "constant pred", "constant target", "equal", "reversed", "outlier", "signed zeros"]
)
# Lengths on both sides of the vector width, of powers of two and of others.
@pytest.mark.parametrize("n", [1, 2, 3, 8, 17, 31, 33, 243, 319, 320, 321, 400])
def test_ranking_hinge(n, kind, weights, backend):
    pred, target = rows(n, kind)
    weight = row_weights(n, weights)
    for reduction in ("mean", "sum"):
        value, gradient = value_and_grad(pairwise.ranking_hinge, pred, target, weight, reduction)
        for dtype, relative in RELATIVE.items():
            found, found_gradient = hinge_and_grad(dtype, pred, target, weight, reduction=reduction, backend=backend)
            what = f"{dtype}, {reduction}"
            assert found.dtype == found_gradient.dtype == dtype
            assert_close_values(found, value, relative=relative, absolute=1e-15, what=what)
            assert_close_gradients(found_gradient, gradient, relative=relative, what=what)


def test_the_sort_of_float32_on_the_cpu_is_the_stable_one():
    """Of every size of number, both zeros being equal; the sorted integers tell ties as the sorted values do."""
    info = torch.finfo(torch.float32)
    edges = [0.0, -0.0, info.tiny, -info.tiny, info.max, info.min, 1e-45, -1e-45, float("inf"), -float("inf"), 1.0]
    x = torch.cat([torch.tensor(edges * 3), torch.randn(200), (torch.randn(200) * 3).round()])
    x = torch.stack([x, -x, x.flip(0), torch.zeros_like(x)])
    found, order = _stable_sort(x)
    values, expected = x.sort(dim=-1, stable=True)
    assert torch.equal(order, expected)
    assert torch.equal(found[:, 1:] == found[:, :-1], values[:, 1:] == values[:, :-1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weights", ["none", "mask", "real"])
@pytest.mark.parametrize("n", [4, 17, 243])
def test_few_ties(n, weights, backend):
    """In prediction, target or both, at a row's ends and across rows."""
    pred, target = rows(n, "random")
    pred[0, 1], target[0, -1] = pred[0, 0], target[0, -2]
    pred[1, :2], target[1, :2] = pred[1].max() + 1, target[1].min() - 1
    pred[2, -1] = pred[2].max() + 1
    pred[0, -1], target[2, -1], target[2, 0] = pred[2, -1], target[0, -1], target[1, 0]
    for p, d in ((pred, target), (pred[:1], target[:1])):
        weight = row_weights(n, weights, len(p))
        value, gradient = value_and_grad(pairwise.ranking_hinge, p, d, weight, "sum")
        for dtype, relative in RELATIVE.items():
            found, found_gradient = value_and_grad(
                structloss.ranking_hinge,
                p.to(dtype),
                d.to(dtype),
                weight=None if weight is None else weight.to(dtype),
                reduction="sum",
                backend=backend,
            )
            assert_close_values(found, value, relative=relative, absolute=1e-15, what=str(dtype))
            assert_close_gradients(found_gradient, gradient, relative=relative, what=str(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["random", "ties"])
@pytest.mark.parametrize("n", [1024, 4095, 4097, 5000])
def test_ranking_hinge_of_long_rows(n, kind, backend):
    pred, target = rows(n, kind, batch=1)
    value, gradient = pairwise.ranking_hinge_by_blocks(pred[0], target[0])
    for dtype, relative in RELATIVE.items():
        found, found_gradient = value_and_grad(
            structloss.ranking_hinge, pred.to(dtype), target.to(dtype), reduction="sum", backend=backend
        )
        assert_close_values(found, value, relative=relative, what=str(dtype))
        assert_close_gradients(found_gradient[0], gradient, relative=relative, what=str(dtype))


def test_the_block_oracle_equals_the_literal_one():
    pred, target = rows(50, "ties", batch=1)
    value, gradient = value_and_grad(pairwise.ranking_hinge, pred, target, None, "sum")
    by_blocks = pairwise.ranking_hinge_by_blocks(pred[0], target[0], block=7)
    assert_close_values(by_blocks[0], value, relative=1e-14)
    assert_close_gradients(by_blocks[1], gradient[0], relative=1e-14)


def poses(*shape, ties=False):
    pred = torch.randn(*shape, 3, dtype=torch.float64)
    target = pred + 0.5 * torch.randn(*shape, 3, dtype=torch.float64)
    if ties:
        pred, target = (pred * 4).round() / 4, (target * 4).round() / 4
        pred[..., ::3, :] = target[..., ::3, :]  # joints without any error
    return pred.float().double(), target.float().double()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 17), (3, 2, 5), (2, 31, 17), (2, 33, 17), (2, 2, 64, 3)])
@pytest.mark.parametrize("weights", ["none", "mask", "real"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    "terms",
    [("mpjpe",), ("depth_ranking_joints",), ("depth_ranking_frames",), tuple(ALL), ("depth_ranking_frames", "mpjpe")],
    ids="+".join,
)
def test_objective(terms, ties, weights, shape, backend):
    pred, target = poses(*shape, ties=ties)
    weight = None
    if weights != "none":
        weight = torch.rand(shape).double()
        weight = (weight > 0.3).double() if weights == "mask" else weight * (weight > 0.2)
        weight.view(-1)[0] = 1.0
    lambdas = {name: ALL[name] for name in terms}
    for reduction in ("mean", "sum"):
        reference = pred.clone().requires_grad_()
        value, parts = pairwise.objective(reference, target, lambdas, weight, reduction)
        (gradient,) = torch.autograd.grad(value, reference)
        for dtype, relative in RELATIVE.items():
            found = structloss.objective(
                leaf := pred.to(dtype).requires_grad_(),
                target.to(dtype),
                lambdas,
                weight=None if weight is None else weight.to(dtype),
                reduction=reduction,
                backend=backend,
            )
            (found_gradient,) = torch.autograd.grad(found.total, leaf)
            assert_close_values(found.total, value, relative=relative, absolute=1e-15)
            assert_close_gradients(found_gradient, gradient, relative=relative)
            assert list(found.terms) == list(terms)
            for name in terms:
                assert_close_values(found.terms[name], parts[name], relative=relative, absolute=1e-15, what=name)
                assert not found.terms[name].requires_grad


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("over", ["joints", "frames"])
def test_single_functions_are_the_terms_of_the_objective(over, backend):
    pred, target = poses(2, 27, 17)
    weight = torch.rand(2, 27, 17).double()
    terms = structloss.objective(pred, target, ALL, weight=weight, backend=backend).terms
    alone = structloss.depth_ranking(pred, target, over=over, weight=weight, backend=backend)
    assert alone == terms[f"depth_ranking_{over}"]
    assert structloss.mpjpe(pred, target, weight=weight, backend=backend) == terms["mpjpe"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_drops_out_exactly(backend):
    """A padded clip gives the loss and gradient of the clip without padding, whatever the padding holds."""
    pred, target = poses(2, 40, 17)
    pad = torch.full((2, 9, 17, 3), float("nan"), dtype=torch.float64)
    weight = torch.cat([torch.ones(2, 40, 17), torch.zeros(2, 9, 17)], 1).double()
    value, gradient = value_and_grad(structloss.objective, pred, target, ALL, backend=backend)
    padded, padded_gradient = value_and_grad(
        structloss.objective,
        torch.cat([pred, pad], 1),
        torch.cat([target, pad], 1),
        ALL,
        weight=weight,
        backend=backend,
    )
    assert_close_values(padded, value, relative=1e-14)
    assert_close_gradients(padded_gradient[:, :40], gradient, relative=1e-14)
    assert (padded_gradient[:, 40:] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_may_be_boolean_and_broadcast(backend):
    pred, target = poses(2, 27, 17)
    mask = torch.rand(2, 27, 1) > 0.4
    expected = structloss.objective(pred, target, ALL, weight=mask.expand(2, 27, 17).double(), backend="torch").total
    found = structloss.objective(pred, target, ALL, weight=mask, backend=backend).total
    assert_close_values(found, expected, relative=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("where", ["pred", "target"])
@pytest.mark.parametrize("n", [17, 243, 400])
def test_nan_gives_nan(n, where, backend):
    pred, target = rows(n, "random")
    (pred if where == "pred" else target)[1, n // 2] = float("nan")
    for dtype in RELATIVE:
        value, gradient = value_and_grad(
            structloss.ranking_hinge, pred.to(dtype), target.to(dtype), reduction="sum", backend=backend
        )
        assert math.isnan(value)
        assert gradient[1].isnan().all(), "the row of the NaN has no gradient"
        assert gradient[[0, 2]].isfinite().all(), "the other rows keep theirs"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("where", ["pred", "target"])
def test_nan_in_a_pose_gives_nan(where, backend):
    for term in ALL:
        pred, target = poses(2, 40, 17)
        (pred if where == "pred" else target)[1, 35, 3] = float("nan")
        assert structloss.objective(pred, target, {term: 1.0}, backend=backend).total.isnan(), term


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [17, 243, 400, 5000])
def test_infinities_end_and_give_no_plausible_number(n, backend):
    pred, target = rows(n, "random")
    pred[0, 0], pred[1, 1] = float("inf"), -float("inf")
    value, _ = value_and_grad(structloss.ranking_hinge, pred, target, backend=backend)
    assert not value.isfinite()
    pred, target = rows(n, "random")
    target[0, 0], target[0, 1] = float("inf"), -float("inf")  # an order like any other
    if n <= 400:
        assert_close_values(
            structloss.ranking_hinge(pred, target, backend=backend),
            pairwise.ranking_hinge(pred, target),
            relative=1e-12,
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("offset, unit", [(5.0, 1.0), (5000.0, 1000.0)], ids=["metres", "millimetres"])
def test_float32_survives_a_root_offset(offset, unit, backend):
    """A nearly right prediction far from the origin: a millimetre loss must not drown in the offset."""
    target = torch.randn(2, 243, 17, 3).double().cumsum(1) * 0.02 * unit + offset
    pred = target + 0.001 * unit * torch.randn_like(target)
    pred, target = pred.float(), target.float()
    for over in ("joints", "frames"):
        expected, gradient = value_and_grad(pairwise.depth_ranking, pred.double(), target.double(), over)
        found, found_gradient = value_and_grad(structloss.depth_ranking, pred, target, over=over, backend=backend)
        assert_close_values(found, expected, relative=1e-5)
        assert_close_gradients(found_gradient, gradient, relative=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(dtype, backend):
    pred, target = (x.to(dtype) for x in poses(2, 27, 17))
    value, gradient = value_and_grad(structloss.objective, pred, target, ALL, backend=backend)
    expected, expected_gradient = value_and_grad(
        structloss.objective, pred.float(), target.float(), ALL, backend=backend
    )
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    assert value == expected
    assert torch.equal(gradient, expected_gradient.to(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
def test_loss_scaling_keeps_small_float16_gradients(backend):
    """The gradient is kept in float32 until the loss scale is applied."""
    pred, target = (x.half() for x in poses(4, 243, 17))
    leaf = pred.clone().requires_grad_()
    (structloss.depth_ranking(leaf, target, over="frames", backend=backend) * 65536).backward()
    _, expected = value_and_grad(structloss.depth_ranking, pred.float(), target.float(), over="frames", backend=backend)
    assert_close_gradients(leaf.grad, expected * 65536, relative=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 243, 17), (2, 0, 17), (2, 27, 0), (0, 0, 0), (0, 3, 27, 17)])
def test_empty_is_zero(shape, backend):
    pred, target = torch.zeros(*shape, 3), torch.zeros(*shape, 3)
    value, gradient = value_and_grad(structloss.objective, pred, target, ALL, backend=backend)
    assert value == 0 and gradient.shape == pred.shape
    value, _ = value_and_grad(structloss.objective, pred, target, ALL, weight=torch.ones(shape), backend=backend)
    assert value == 0
    assert structloss.ranking_hinge(pred[..., 0], target[..., 0], backend=backend) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_weight_at_all_is_zero(backend):
    pred, target = poses(2, 27, 17)
    value, gradient = value_and_grad(
        structloss.objective, pred, target, ALL, weight=torch.zeros(2, 27, 17), backend=backend
    )
    assert value == 0 and (gradient == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides(backend):
    pred, target = poses(3, 29, 17)
    weight = torch.rand(3, 29, 17).double()
    expected, gradient = value_and_grad(structloss.objective, pred, target, ALL, weight=weight, backend="torch")
    wide = torch.randn(3, 58, 17, 4, dtype=torch.float64)
    strided_target = torch.as_strided(wide, pred.shape, wide[:, ::2, :, :3].stride()).copy_(target)
    strided_weight = weight.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for strided in (
        pred.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        pred.flip(1).contiguous().flip(1),
        torch.cat([pred, pred], -1)[..., :3],
    ):
        leaf = strided.requires_grad_()
        value = structloss.objective(leaf, strided_target, ALL, weight=strided_weight, backend=backend).total
        (found,) = torch.autograd.grad(value, leaf)
        assert_close_values(value, expected, relative=1e-13)
        assert_close_gradients(found, gradient, relative=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_expanded_rows(backend):
    pred, target = rows(243, "random", batch=1)
    found = structloss.ranking_hinge(pred.expand(4, 243), target.expand(4, 243), backend=backend)
    assert_close_values(found, pairwise.ranking_hinge(pred, target), relative=1e-12)


@pytest.mark.skipif(not structloss.backends()["cpp"], reason="no compiled module")
@pytest.mark.parametrize("shape", [(1, 243, 17), (3, 700, 17), (9, 100, 17)])
def test_cpp_is_bitwise_the_same_for_any_number_of_threads(shape):
    pred, target = (x.float() for x in poses(*shape))
    weight = torch.rand(shape)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 1, 2):
            torch.set_num_threads(count)
            results.append(value_and_grad(structloss.objective, pred, target, ALL, weight=weight, backend="cpp"))
    finally:
        torch.set_num_threads(threads)
    for value, gradient in results[1:]:
        assert value == results[0][0] and torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("backend", FAST)
def test_gradcheck(backend):
    pred, target = poses(2, 9, 5)
    weight = torch.rand(2, 9, 5).double() + 0.1
    pred.requires_grad_()
    lam = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)

    def total(pred, lam):
        weights = {"mpjpe": 1.0, "depth_ranking_joints": lam, "depth_ranking_frames": 2.0}
        return structloss.objective(pred, target, weights, weight=weight, backend=backend).total

    assert torch.autograd.gradcheck(total, (pred, lam))
    assert torch.autograd.gradcheck(
        lambda p: structloss.ranking_hinge(p, target[..., 0], weight=weight, reduction="sum", backend=backend),
        pred.detach()[..., 0].requires_grad_(),
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_of_lambda_is_the_value_of_its_term(backend):
    pred, target = poses(2, 27, 17)
    lam = torch.tensor(0.5, requires_grad=True)
    weights = {"mpjpe": 1.0, "depth_ranking_frames": lam}
    result = structloss.objective(pred.float(), target.float(), weights, backend=backend)
    (3 * result.total).backward()
    assert_close_values(lam.grad, 3 * result.terms["depth_ranking_frames"], relative=1e-6)


@given(data=st.data())
def test_any_shape_mask_and_ties(data):
    batch = data.draw(st.lists(st.integers(0, 3), max_size=2))
    frames, joints = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 20))
    levels = data.draw(st.sampled_from([1, 2, 5, 1000]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    shape = (*batch, frames, joints, 3)
    pred, target = (torch.randint(levels, shape, generator=generator).double() / 7 for _ in range(2))
    weight = None
    if data.draw(st.booleans()):
        weight = torch.randint(3, shape[:-1], generator=generator).double() / data.draw(st.sampled_from([1, 2, 3]))
    terms = data.draw(st.lists(st.sampled_from(list(ALL)), min_size=1, unique=True))
    lambdas = {name: ALL[name] for name in terms}
    leaf = pred.clone().requires_grad_()
    found = {}
    for backend in ("torch", "cpp") if structloss.backends()["cpp"] else ("torch",):
        result = structloss.objective(leaf, target, lambdas, weight=weight, backend=backend)
        found[backend] = result.total.detach(), torch.autograd.grad(result.total, leaf)[0]
    if pred.numel() == 0 or (weight is not None and weight.sum() == 0):
        expected, gradient = torch.zeros(()), torch.zeros_like(pred)
    else:
        reference = pred.clone().requires_grad_()
        expected, _ = pairwise.objective(reference, target, lambdas, weight)
        (gradient,) = torch.autograd.grad(expected, reference)
    for backend, (value, grad) in found.items():
        assert_close_values(value, expected.detach(), relative=1e-12, absolute=1e-15, what=backend)
        if gradient.numel():
            torch.testing.assert_close(grad, gradient, rtol=1e-11, atol=1e-15)
