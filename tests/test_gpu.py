"""The fused GPU backends against the float64 definitions, and as citizens of CUDA: streams, graphs, no waiting.

GPU_TESTS=cuda:triton tests one backend alone; GPU_TESTS=cpu:torch,cpp tries the tests themselves without a GPU.
"""

import functools
import math
import os
import warnings

import pytest
import torch
from compare import assert_close_gradients, assert_close_values, value_and_grad
from reference import pairwise, terms
from test_objective import row_weights, rows
from test_terms import (
    ALL,
    ALL_OPTIONS,
    CASES,
    NOT_OF_A_BODY,
    body_of,
    call,
    has_exact_kinks,
    poses,
    standing,
    weights_of,
)

import structloss
from structloss import skeletons
from structloss.ops.backend import resolve

DEVICE, _, CHOSEN = os.environ.get("GPU_TESTS", "cuda:triton,cuda").partition(":")
ON_GPU = DEVICE == "cuda"
NAMES = CHOSEN.split(",")
_STATUS = structloss.backends()
BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(not _STATUS[name], reason=_STATUS[name].reason)) for name in NAMES
]
pytestmark = [pytest.mark.gpu] if ON_GPU else []
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="tries the tests on the CPU")

RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-5}
HALF_TYPES = (torch.bfloat16, torch.float16)
EVERY_CASE = CASES | {name: (name, {}) for name in ("depth_ranking_joints", "depth_ranking_frames")}
RANKING = {"mpjpe": 1.0, "depth_ranking_joints": 0.7, "depth_ranking_frames": 2.5}
# Of limbs that are nearly equal or straight, rounding may tell another side of the kink. One joint in so many may be.
KINK_SHARE = 10_000
# A definition holds so many pairs at once; longer rows go block by block.
PAIRS_AT_ONCE = 1 << 24
LONGEST = 65_536 if ON_GPU else 6_000


def on(x, dtype=None):
    """`x` on the tested device; None stays None."""
    return None if x is None else x.to(DEVICE, dtype)


# ---- the definitions ---------------------------------------------------------------------------------------------


def hinge_by_rows(p, d, w):
    """Unreduced hinge of rows [R, N] and its gradient, some rows at a time; weights of very long rows are 0 or 1."""
    total, gradient = torch.zeros((), dtype=torch.float64), torch.zeros_like(p)
    at_once = PAIRS_AT_ONCE // max(p.shape[-1], 1) ** 2
    if at_once == 0:
        for r in range(len(p)):
            seen = torch.ones_like(p[r], dtype=torch.bool) if w is None else w[r] > 0
            value, gradient[r, seen] = pairwise.ranking_hinge_by_blocks(p[r, seen], d[r, seen])
            total += value
        return total, gradient
    for start in range(0, len(p), at_once):
        some = slice(start, start + at_once)
        weight = None if w is None else w[some]
        value, gradient[some] = value_and_grad(
            lambda x, some=some, weight=weight: pairwise.ranking_hinge_rows(x, d[some], weight).sum(), p[some]
        )
        total += value
    return total, gradient


def ranking_term(name, pred, target, weight, reduction):
    """Value and gradient of L_S or L_T, whatever the length of the rows."""
    pred, target, weight = (
        (pred, target, None) if weight is None else terms.present(pred, target, weight)  # hidden joints: 0, weight 0
    )
    over_frames = name == "depth_ranking_frames"
    channels = (pred[..., 2], target[..., 2], weight)
    p, d, w = (None if x is None else (x.transpose(-1, -2) if over_frames else x) for x in channels)
    flat = (None if x is None else x.reshape(-1, x.shape[-1]) for x in (p, d, w))
    total, g = hinge_by_rows(*flat)
    pairs = float(p.numel() * p.shape[-1]) if w is None else float(w.sum(-1).square().sum())
    scale = 1.0 if reduction == "sum" else (1 / pairs if pairs else 0.0)
    g = scale * g.reshape(p.shape)
    gradient = torch.zeros_like(pred)
    gradient[..., 2] = g.transpose(-1, -2) if over_frames else g
    return scale * total, gradient


def definition(pred, target, weights, weight=None, reduction="mean", options=None, body=terms.H36M):
    """Total, terms and gradient in float64; long clips where they are fastest."""
    device = DEVICE if pred.numel() > 8_000 else "cpu"
    with torch.device(device):
        pred, target, weight = (None if x is None else x.to(device, torch.float64) for x in (pred, target, weight))
        total, values, gradient = torch.zeros((), dtype=torch.float64), {}, torch.zeros_like(pred)
        for name, lam in weights.items():
            if name.startswith("depth_ranking_"):
                values[name], g = ranking_term(name, pred, target, weight, reduction)
            else:
                function = functools.partial(terms.term, name, body=body, **(options or {}).get(name, {}))
                values[name], g = value_and_grad(
                    lambda p, f=function: f(p, target=target, weight=weight, reduction=reduction) + 0 * p.sum(), pred
                )
            total, gradient = total + lam * values[name], gradient + lam * g
    return on(total), {name: on(value) for name, value in values.items()}, on(gradient)


def without_worst(found, expected, count):
    """Both gradients [..., 3] without the `count` joints that differ most."""
    found, expected = found.double().flatten(0, -2), expected.flatten(0, -2)
    assert torch.isfinite(found).all()
    kept = torch.linalg.vector_norm(found - expected, dim=-1).argsort()[: len(found) - count]
    return found[kept], expected[kept]


def check(pred, target, weights, *, backend, weight=None, dtypes=RELATIVE, expected=None, reduction="mean", **keywords):
    """The objective of `weights` against its definition, in every dtype; poses are float64 and exact in each."""
    body = keywords.pop("body", terms.H36M)
    if expected is None:
        expected = definition(pred, target, weights, weight, reduction, keywords.get("options"), body)
    total, values, gradient = expected
    for dtype, relative in dtypes.items():
        leaf = on(pred, dtype).requires_grad_()
        found = structloss.objective(
            leaf,
            on(target, dtype),
            weights,
            weight=on(weight, dtype),
            reduction=reduction,
            backend=backend,
            **keywords,
        )
        (found_gradient,) = torch.autograd.grad(found.total, leaf)
        compare(found, found_gradient, total, values, gradient, relative, f"{dtype}, {tuple(pred.shape)}")


def compare(found, found_gradient, total, values, gradient, relative, what):
    """An Objective and its gradient with what was expected."""
    assert found.total.device.type == found_gradient.device.type == DEVICE and found.total.dim() == 0
    for name, value in found.terms.items():
        assert_close_values(value, values[name], relative=relative, absolute=1e-15, what=f"{name}, {what}")
    assert_close_values(found.total, total, relative=relative, absolute=1e-15, what=f"total, {what}")
    assert found_gradient.shape == gradient.shape, what
    if not gradient.numel():
        return
    if count := gradient[..., 0].numel() // KINK_SHARE:
        found_gradient, gradient = without_worst(found_gradient, gradient, count)
    assert_close_gradients(found_gradient, gradient, relative=relative, what=what)


def identical(first, second):
    """Bit by bit, NaN included."""
    as_bits = {8: torch.int64, 4: torch.int32, 2: torch.int16}
    return all(
        torch.equal(a.contiguous().view(as_bits[a.itemsize]), b.contiguous().view(as_bits[b.itemsize]))
        for a, b in zip(first, second, strict=True)
    )


def run(pred, target, weights, *, backend, **keywords):
    """Total, values [K] and gradient of one call."""
    leaf = pred.detach().requires_grad_()
    found = structloss.objective(leaf, target, weights, backend=backend, **keywords)
    (gradient,) = torch.autograd.grad(found.total, leaf)
    return found.total.detach(), torch.stack(list(found.terms.values())), gradient


def clips(*shape, dtype=torch.float32, seed=0):
    """Predicted and true poses and real weights on the tested device."""
    torch.manual_seed(seed)
    pred, target = poses(*shape)
    return on(pred, dtype), on(target, dtype), on(weights_of(*shape, kind="real"), dtype)


# ---- availability ------------------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize("backend", NAMES)
def test_is_available(backend):
    assert _STATUS[backend], _STATUS[backend].reason


@needs_gpu
def test_auto_chooses_a_fused_backend():
    assert resolve("auto", torch.device("cuda", 0), tuple(structloss.TERMS), 17) in ("cuda", "triton")


def test_uninitialised_memory_is_poisoned():
    """Otherwise the comparisons below could miss an element that a kernel doesn't write."""
    for dtype in (*RELATIVE, *HALF_TYPES):
        assert torch.empty(5000, dtype=dtype, device=DEVICE).isnan().all()


# ---- terms and dtypes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", EVERY_CASE)
def test_every_term(case, backend):
    name, options = EVERY_CASE[case]
    kinds = [("random", "none"), ("random", "mask"), ("random", "padding"), ("random", "real"), ("coincident", "real")]
    if has_exact_kinks(case):
        kinds += [("grid", "none"), ("grid", "real")]
    for kind, weights in kinds:
        pred, target = poses(3, 13, 17, kind=kind)
        weight = weights_of(3, 13, 17, kind=weights)
        for reduction in ("mean", "sum"):
            keywords = {"weight": weight, "reduction": reduction, "options": {name: options}, "backend": backend}
            check(pred, target, {name: 0.75}, **keywords)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [case for case in EVERY_CASE if "line" not in case])
def test_half_types_are_computed_in_float32(case, backend):
    """The value as exact as in float32, the gradient rounded once."""
    name, options = EVERY_CASE[case]
    for dtype in HALF_TYPES:
        for kind in ("none", "real"):
            pred, target = (0.4 * x.to(dtype) for x in poses(3, 33, 17))
            weight = weights_of(3, 33, 17, kind=kind)
            weight = None if weight is None else weight.to(dtype)
            _, values, gradient = definition(pred, target, {name: 1.0}, weight, "sum", {name: options})
            lam = 1 / float(gradient.abs().max())  # float16 has few digits below 1e-4
            leaf = on(pred).requires_grad_()
            result = structloss.objective(
                leaf,
                on(target),
                {name: lam},
                weight=on(weight),
                options={name: options},
                reduction="sum",
                backend=backend,
            )
            (found_gradient,) = torch.autograd.grad(result.total, leaf)
            found = result.terms[name]
            assert found.dtype == torch.float32 and found_gradient.dtype == dtype
            what = f"{dtype}, weights {kind}"
            assert_close_values(found, values[name], relative=1e-5, what=what)
            relative = torch.finfo(dtype).eps / 2 + 2e-5
            assert_close_gradients(found_gradient, lam * gradient, relative=relative, what=what)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("target_dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_target_and_weight_may_have_another_dtype(target_dtype, backend):
    pred, target, weight = (x.bfloat16() for x in clips(2, 27, 17))
    mask = weight > 0.3
    expected = run(pred, target, RANKING, weight=mask.to(pred.dtype), backend=backend)
    found = run(pred, target.to(target_dtype), RANKING, weight=mask, backend=backend)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_loss_scaling_keeps_small_float16_gradients(backend):
    pred, target, _ = clips(4, 243, 17, dtype=torch.float16)
    leaf = pred.clone().requires_grad_()
    (structloss.depth_ranking(leaf, target, over="frames", backend=backend) * 65536).backward()
    _, _, expected = definition(pred, target, {"depth_ranking_frames": 65536.0})
    assert_close_gradients(leaf.grad, expected, relative=1e-3)


# ---- sizes -------------------------------------------------------------------------------------------------------

FRAMES = [1, 2, 3, 27, 31, 32, 33, 243, 256, 257, 1000, 1025, 2049, 4096]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("frames", FRAMES if ON_GPU else FRAMES[:9])
def test_all_terms_at_any_number_of_frames(frames, backend):
    batch = 3 if frames < 500 else 1
    pred, target = poses(batch, frames, 17)
    for kind in ("none", "real", "mask", "padding") if frames < 300 else ("none", "real"):
        weight = weights_of(batch, frames, 17, kind=kind)
        check(pred, target, ALL, weight=weight, options=ALL_OPTIONS, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("masked", [False, True])
def test_very_long_clips(masked, backend):
    joints = 2
    pred, target = poses(1, LONGEST, joints)
    target[:, ::5] = target[:, :1]  # ties
    weight = weights_of(1, LONGEST, joints, kind="mask") if masked else None
    check(pred, target, {name: ALL[name] for name in NOT_OF_A_BODY}, weight=weight, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("joints", [1, 2, 16, 17, 68, 133, 256])
def test_terms_without_a_body_take_any_number_of_joints(joints, backend):
    factors = {"joint_weight": torch.rand(joints).tolist()}
    options = {"weighted_mpjpe": factors, "temporal_consistency": factors}
    for frames, kind in ((11, "real"), (40, "none")):
        pred, target = (torch.randn(2, frames, joints, 3).double() for _ in range(2))
        weight = weights_of(2, frames, joints, kind=kind)
        weights = {name: ALL[name] for name in NOT_OF_A_BODY}
        for reduction in ("mean", "sum"):
            check(pred, target, weights, weight=weight, options=options, reduction=reduction, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", skeletons.names())
def test_every_skeleton(name, backend):
    skeleton = skeletons.get(name)
    for frames, kind in ((5, "none"), (33, "real")):
        pred, target = poses(2, frames, skeleton.num_joints)
        weight = weights_of(2, frames, skeleton.num_joints, kind=kind)
        keywords = {"weight": weight, "skeleton": name, "body": body_of(skeleton), "backend": backend}
        check(pred, target, ALL, **keywords)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1), (300, 27), (700, 1), (2, 3, 9), (2, 1, 3, 7), (33, 243)])
def test_any_number_of_clips(shape, backend):
    pred, target = poses(*shape, 17)
    check(pred, target, RANKING | {"velocity": 1.5, "limb_variance": 0.9}, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 243, 17), (2, 0, 17), (2, 27, 0), (0, 0, 0), (0, 3, 27, 17)])
def test_empty_is_zero(shape, backend):
    pred = torch.zeros(*shape, 3, device=DEVICE)
    weights = ALL if shape[-1] == 17 else {name: ALL[name] for name in NOT_OF_A_BODY}
    for weight in (None, torch.ones(shape, device=DEVICE)):
        for reduction in ("mean", "sum"):
            keywords = {"weight": weight, "reduction": reduction, "backend": backend}
            value, values, gradient = run(pred, pred, weights, **keywords)
            assert value == 0 and (values == 0).all() and gradient.shape == pred.shape
    assert structloss.ranking_hinge(pred[..., 0], pred[..., 0], backend=backend) == 0


# ---- rows --------------------------------------------------------------------------------------------------------

ROW_KINDS = ["random", "ties", "constant pred", "constant target", "equal", "reversed", "outlier", "signed zeros"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", FRAMES if ON_GPU else FRAMES[:11])
def test_ranking_hinge(n, backend):
    weightings = ("none", "mask", "padding", "real")
    for k, kind in enumerate(ROW_KINDS):
        for weights in weightings if n < 1000 else (weightings[k % 4],):
            pred, target = rows(n, kind)
            weight = row_weights(n, weights)
            weight = None if weight is None else weight.float().double()
            with torch.device(DEVICE):
                total, gradient = hinge_by_rows(on(pred), on(target), on(weight))
            pairs = float(pred.numel() * n) if weight is None else float(weight.sum(-1).square().sum())
            for reduction, scale in (("sum", 1.0), ("mean", 1 / pairs if pairs else 0.0)):
                for dtype, relative in RELATIVE.items():
                    keywords = {"weight": on(weight, dtype), "reduction": reduction, "backend": backend}
                    value, found = value_and_grad(
                        structloss.ranking_hinge, on(pred, dtype), on(target, dtype), **keywords
                    )
                    what = f"{kind}, weights {weights}, {reduction}, {dtype}"
                    assert value.dtype == found.dtype == dtype
                    assert_close_values(value, scale * total, relative=relative, absolute=1e-15, what=what)
                    assert_close_gradients(found, scale * gradient, relative=relative, what=what)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["random", "ties", "constant pred"])
@pytest.mark.parametrize("weights", ["none", "mask"])
def test_ranking_hinge_of_very_long_rows(kind, weights, backend):
    n = LONGEST + 1
    pred, target = rows(n, kind, batch=1)
    weight = row_weights(n, weights, batch=1)
    with torch.device(DEVICE):
        total, gradient = hinge_by_rows(on(pred), on(target), on(weight))
    for dtype, relative in RELATIVE.items():
        keywords = {"weight": on(weight, dtype), "reduction": "sum", "backend": backend}
        value, found = value_and_grad(structloss.ranking_hinge, on(pred, dtype), on(target, dtype), **keywords)
        assert_close_values(value, total, relative=relative, absolute=1e-15, what=str(dtype))
        assert_close_gradients(found, gradient, relative=relative, what=str(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [17, 243, 1500])
def test_many_rows_and_expanded_rows(n, backend):
    pred, target = (on(x) for x in rows(n, "random", batch=70))
    with torch.device(DEVICE):
        total, gradient = hinge_by_rows(pred, target, None)
    keywords = {"reduction": "sum", "backend": backend}
    value, found = value_and_grad(structloss.ranking_hinge, pred, target, **keywords)
    assert_close_values(value, total, relative=1e-12)
    assert_close_gradients(found, gradient, relative=1e-12)
    leaf = pred[:1].expand(70, n).detach().requires_grad_()
    value = structloss.ranking_hinge(leaf, target[:1].expand(70, n), **keywords)
    (found,) = torch.autograd.grad(value, leaf)
    with torch.device(DEVICE):
        total, gradient = hinge_by_rows(pred[:1], target[:1], None)
    assert_close_values(value, 70 * total, relative=1e-12)
    assert_close_gradients(found, gradient.expand(70, n), relative=1e-12)


# ---- what is not finite, hidden or far away ----------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", EVERY_CASE)
def test_nan_gives_nan(case, backend):
    name, options = EVERY_CASE[case]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for where in ("pred",) if name in terms.WITHOUT_TARGET else ("pred", "target"):
            for frame, channel in ((0, 2), (5, 0), (8, 2)) if name in NOT_OF_A_BODY else ((8, 1),):
                pred, target, _ = clips(2, 9, 17, dtype=dtype)
                channel = 2 if name.startswith("depth_ranking") else channel
                (pred if where == "pred" else target)[1, frame, 15, channel] = math.nan
                found = call(name, pred, target, backend=backend, **options)
                assert found.isnan(), f"{where}, {dtype}, frame {frame}, channel {channel}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [17, 243, 1025, 4096])
def test_nan_in_a_row_stays_in_the_row(n, backend):
    for where in (0, 1):
        for dtype in RELATIVE:
            both = [on(x, dtype) for x in rows(n, "random")]
            both[where][1, n // 2] = math.nan
            value, gradient = value_and_grad(structloss.ranking_hinge, *both, reduction="sum", backend=backend)
            assert value.isnan()
            assert gradient[1].isnan().all(), "the row of the NaN has no gradient"
            assert gradient[[0, 2]].isfinite().all(), "the other rows keep theirs"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", EVERY_CASE)
def test_infinities_end_and_give_no_plausible_number(case, backend):
    name, options = EVERY_CASE[case]
    for value in (math.inf, -math.inf):
        pred, target, _ = clips(2, 9, 17)
        pred[0, 3, 15] = value
        found, _ = value_and_grad(functools.partial(call, name), pred, target, backend=backend, **options)
        assert not found.isfinite(), value


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [17, 243, 1025, 5000])
def test_infinite_depths_are_ordered_like_others(n, backend):
    pred, target = rows(n, "random")
    target[0, 0], target[0, 1] = math.inf, -math.inf
    with torch.device(DEVICE):
        total, gradient = hinge_by_rows(on(pred), on(target), None)
    for dtype, relative in RELATIVE.items():
        value, found = value_and_grad(
            structloss.ranking_hinge, on(pred, dtype), on(target, dtype), reduction="sum", backend=backend
        )
        assert_close_values(value, total, relative=relative)
        assert_close_gradients(found, gradient, relative=relative)
    pred[0, 0], pred[1, 1] = math.inf, -math.inf
    value, _ = value_and_grad(structloss.ranking_hinge, on(pred), on(target), backend=backend)
    assert not value.isfinite()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("frames", [9, 243, 1500])
def test_what_has_no_weight_has_no_effect_at_all(frames, backend):
    pred, target, weight = clips(2, frames, 17)
    weight[0, 4, 15] = weight[1, :, 3] = weight[1, 8] = 0
    hidden = weight == 0
    results = []
    for pred_junk, target_junk in ((0.0, 0.0), (math.nan, math.nan), (math.inf, -math.inf), (1e30, math.nan)):
        pred[hidden], target[hidden] = pred_junk, target_junk
        results.append(run(pred, target, ALL, weight=weight, options=ALL_OPTIONS, backend=backend))
    assert results[0][0] > 0 and (results[0][2][hidden] == 0).all()
    for other in results[1:]:
        assert identical(other, results[0])
    nothing = run(pred, target, ALL, weight=torch.zeros_like(weight), backend=backend)
    assert all((x == 0).all() for x in nothing)


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_drops_out(backend):
    for frames, pad in ((40, 9), (243, 13), (1000, 100)):
        pred, target, _ = clips(2, frames, 17, dtype=torch.float64)
        junk = torch.full((2, pad, 17, 3), math.nan, dtype=torch.float64, device=DEVICE)
        weight = (torch.arange(frames + pad, device=DEVICE) < frames)[:, None]
        keywords = {"reduction": "sum", "backend": backend}
        expected = run(pred, target, ALL, **keywords)
        found = run(torch.cat([pred, junk], 1), torch.cat([target, junk], 1), ALL, weight=weight, **keywords)
        for k, name in enumerate(ALL):
            assert_close_values(found[1][k], expected[1][k], relative=1e-12, what=name)
        assert_close_gradients(found[2][:, :frames], expected[2], relative=1e-12)
        assert (found[2][:, frames:] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_everything_in_one_point_and_a_perfect_prediction(backend):
    for dtype in RELATIVE:
        _, target, weight = clips(2, 35, 17, dtype=dtype)
        flat = torch.zeros_like(target)
        for name in {"n_mpjpe", "limb_length", "bone_angle", "bone_angle_velocity", *terms.WITHOUT_TARGET}:
            value, gradient = value_and_grad(functools.partial(call, name), flat, target, backend=backend)
            assert value.isfinite() and (gradient == 0).all(), name
        for name in set(ALL) - terms.WITHOUT_TARGET:
            for w in (None, weight):
                value, gradient = value_and_grad(
                    functools.partial(call, name), target, target, weight=w, backend=backend
                )
                assert value == 0 and (gradient == 0).all(), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("unit", [1.0, 1000.0], ids=["metres", "millimetres"])
@pytest.mark.parametrize("case", [case for case in EVERY_CASE if "scale" not in case and "line" not in case])
def test_float32_survives_a_root_offset(case, unit, backend):
    """A nearly right prediction five metres from the origin: a millimetre loss must not drown in the offset."""
    name, options = EVERY_CASE[case]
    if name == "illegal_angle":
        options = {**options, "scale": 1 / unit}
        if not options.get("normalize_bones"):
            options = {**options, "tolerance": options.get("tolerance", 0) / 100}
    target = standing(4, 81) + torch.tensor([0.3, -0.8, 5.0])
    pred = target + 0.001 * torch.randn(4, 81, 17, 3).double()
    pred, target = ((x * unit).float().double() for x in (pred, target))
    for kind in ("none", "real"):
        weight = weights_of(4, 81, 17, kind=kind)
        weight = None if weight is None else weight.float().double()
        keywords = {"weight": weight, "options": {name: options}, "backend": backend}
        check(pred, target, {name: 1.0}, dtypes={torch.float32: 1e-5}, **keywords)


# ---- strides -----------------------------------------------------------------------------------------------------


def at_offset(x, offset):
    """A copy of `x` that begins `offset` elements after an aligned address."""
    return torch.zeros(x.numel() + offset, dtype=x.dtype, device=x.device)[offset:].view(x.shape).copy_(x)


def inside(x, axis, before, after, step=1):
    """A copy of `x` as every `step`-th slice along `axis` of something larger."""
    sizes = list(x.shape)
    sizes[axis] = before + sizes[axis] * step + after
    wide = torch.full(sizes, math.nan, dtype=x.dtype, device=x.device)
    view = wide.narrow(axis, before, x.shape[axis] * step)
    index = [slice(None)] * x.dim()
    index[axis] = slice(None, None, step)
    view[tuple(index)] = x
    return view[tuple(index)]


LAYOUTS = {
    "transposed": lambda x: x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim()))),
    "frames of more": lambda x: inside(x, 1, 3, 2),
    "every second frame": lambda x: inside(x, 1, 0, 1, step=2),
    "joints of more": lambda x: inside(x, 2, 1, 2),
    "every second clip": lambda x: inside(x, 0, 1, 1, step=2),
    "channels of more": lambda x: inside(x, x.dim() - 1, 0, 1),
    "one element off": lambda x: at_offset(x, 1),
    "three elements off": lambda x: at_offset(x, 3),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("frames", [33, 1100])
def test_strides_and_offsets(frames, layout, backend):
    lay_out = LAYOUTS[layout]
    for dtype in (torch.float32, torch.bfloat16) if frames < 100 else (torch.float32,):
        pred, target, weight = clips(2, frames, 17, dtype=dtype)
        expected = run(pred, target, ALL, weight=weight, options=ALL_OPTIONS, backend=backend)
        for some in ((0,), (1,), (2,), (0, 1, 2)):
            tensors = [lay_out(x) if k in some else x for k, x in enumerate((pred, target, weight))]
            assert layout.endswith("off") or not tensors[some[0]].is_contiguous(), "the test's own premise"
            found = run(tensors[0], tensors[1], ALL, weight=tensors[2], options=ALL_OPTIONS, backend=backend)
            for a, b in zip(found[:2], expected[:2], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=0)
            relative = torch.finfo(dtype).eps if dtype in HALF_TYPES else 1e-5
            assert_close_gradients(found[2], expected[2], relative=relative, what=f"{layout} of {some}, {dtype}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_expanded_inputs(backend):
    pred, target, weight = clips(3, 33, 17)
    for p, t, w in (
        (pred, target[:1].expand(3, 33, 17, 3), weight[:1].expand(3, 33, 17)),
        (pred, target[:, :1].expand(3, 33, 17, 3), weight[:, :, :1].expand(3, 33, 17)),
        (pred[:, :1].expand(3, 33, 17, 3), target, weight),
    ):
        expected = run(p.contiguous(), t.contiguous(), ALL, weight=w.contiguous(), backend=backend)
        for found, wanted in zip(run(p, t, ALL, weight=w, backend=backend), expected, strict=True):
            assert_close_gradients(found, wanted, relative=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_input_is_never_written(backend):
    for frames in (33, 1500):
        inputs = clips(2, frames, 17)
        kept = [x.clone() for x in inputs]
        run(*inputs[:2], ALL, weight=inputs[2], options=ALL_OPTIONS, backend=backend)
        assert identical(inputs, kept)


# ---- autograd ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_lambdas_may_be_tensors_and_receive_their_terms(backend):
    for frames in (27, 1100):
        pred, target, weight = clips(2, frames, 17)
        keywords = {"weight": weight, "options": ALL_OPTIONS, "backend": backend}
        expected = run(pred, target, ALL, **keywords)
        lambdas = {name: torch.tensor(value, device=DEVICE, requires_grad=True) for name, value in ALL.items()}
        leaf = pred.clone().requires_grad_()
        result = structloss.objective(leaf, target, lambdas | {"mpjpe": 1.0}, **keywords)
        (3 * result.total).backward()
        assert_close_values(result.total, expected[0], relative=1e-5)
        assert_close_gradients(leaf.grad, 3 * expected[2], relative=1e-5)
        for name in set(ALL) - {"mpjpe"}:
            assert_close_values(lambdas[name].grad, 3 * result.terms[name], relative=1e-6, what=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("frames", [27, 243, 1500])
def test_without_gradient(frames, backend):
    pred, target, weight = clips(2, frames, 17)
    for keywords in ({}, {"weight": weight}):
        keywords |= {"options": ALL_OPTIONS, "backend": backend}
        total, values, _ = run(pred, target, ALL, **keywords)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                found = structloss.objective(pred.clone().requires_grad_(), target, ALL, **keywords)
            assert not found.total.requires_grad
            # Without a gradient another kernel may run, which may add in another order.
            torch.testing.assert_close(found.total, total, rtol=1e-6, atol=0)
            torch.testing.assert_close(torch.stack(list(found.terms.values())), values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backward_twice_and_scaled(dtype, backend):
    """A kept graph gives the same gradients again, and no call spoils what was saved."""
    pred, target, _ = clips(2, 243, 17, dtype=dtype)
    leaf = (pred.clone() * 1.0).requires_grad_()
    lam = torch.tensor(0.7, device=DEVICE, requires_grad=True)
    total = structloss.objective(leaf, target, RANKING | {"mpjpe": lam}, backend=backend).total
    tripled = total * 3

    def gradients(of, keep=True):
        return torch.autograd.grad(of, (leaf, lam), retain_graph=keep)

    first = [x.clone() for x in gradients(total)]
    total.backward(retain_graph=True)
    leaf.grad.mul_(0)  # what was handed out belongs to the caller
    for _ in range(2):
        for found, expected in zip(gradients(tripled), first, strict=True):
            torch.testing.assert_close(found, 3 * expected, rtol=torch.finfo(dtype).eps, atol=0)
        assert identical(gradients(total), first)
    twice = torch.autograd.grad(total + tripled, (leaf, lam), retain_graph=True)
    for found, expected in zip(twice, first, strict=True):
        torch.testing.assert_close(found, 4 * expected, rtol=torch.finfo(dtype).eps, atol=0)
    assert identical(gradients(total, keep=False), first)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_leaves_the_dtypes_to_us(backend):
    pred, target, _ = clips(2, 27, 17)
    expected = run(pred, target, ALL, backend=backend)
    half = run(pred.bfloat16(), target, ALL, backend=backend)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert identical(run(pred, target, ALL, backend=backend), expected)
        under = run(pred.bfloat16(), target, ALL, backend=backend)
    assert under[0].dtype == torch.float32 and under[2].dtype == torch.bfloat16
    assert identical(under, half)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("need_grad", [False, True])
def test_opcheck(need_grad, backend):
    pred, target, weight = clips(2, 9, 17)
    lam = torch.rand(2, device=DEVICE)
    for given in (weight, None):
        args = (pred, target, given, None if given is None else lam, [1.0, 2.0], "mpjpe,depth_ranking_frames", "", "")
        torch.library.opcheck(torch.ops.structloss.objective.default, (*args, "mean", need_grad, backend))
        depths = [None if x is None else x.reshape(-1, 17) for x in (pred[..., 2], target[..., 2], given)]
        torch.library.opcheck(torch.ops.structloss.ranking_hinge.default, (*depths, "sum", need_grad, backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(64, 243, 17), (3, 1025, 17), (1, 4096, 17), (2, 27, 133)])
def test_bitwise_the_same_again_and_again(shape, backend):
    weights = ALL if shape[2] == 17 else {name: ALL[name] for name in NOT_OF_A_BODY}
    pred, target, weight = clips(*shape)
    for keywords in ({}, {"weight": weight, "reduction": "sum"}):
        first = run(pred, target, weights, backend=backend, **keywords)
        for k in range(4):
            run(pred[:1, : 5 + k], target[:1, : 5 + k], weights, backend=backend)  # leaves something else behind
            assert identical(run(pred, target, weights, backend=backend, **keywords), first)


# ---- torch.compile -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_into_one_graph(backend):
    torch._dynamo.reset()

    def step(pred, target, weight, lam):
        weights = {**ALL, "depth_ranking_joints": lam}
        found = structloss.objective(pred, target, weights, weight=weight, options=ALL_OPTIONS, backend=backend)
        hinge = structloss.ranking_hinge(pred[..., 0], target[..., 0], backend=backend)
        return found.total * 2 + hinge

    compiled = torch.compile(step, fullgraph=True)
    for batch in (2, 3, 5):
        pred, target, weight = clips(batch, 27, 17)
        results = []
        for function in (step, compiled):
            leaf, lam = pred.clone().requires_grad_(), torch.tensor(0.7, device=DEVICE, requires_grad=True)
            value = function(leaf, target, weight, lam)
            results.append((value.detach(), *torch.autograd.grad(value, (leaf, lam))))
        for eager, graph in zip(*results, strict=True):
            assert_close_gradients(graph, eager, relative=1e-5)


@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_to_cuda_graphs(backend):
    """mode="reduce-overhead" on changing inputs, and it does record graphs."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()

    def step(pred, target):
        return structloss.objective(pred, target, ALL, backend=backend).total

    compiled = torch.compile(step, fullgraph=True, mode="reduce-overhead")
    for seed in range(5):
        torch.compiler.cudagraph_mark_step_begin()
        pred, target, _ = clips(2, 243, 17, seed=seed)
        leaf = pred.clone().requires_grad_()
        value = compiled(leaf, target)
        (gradient,) = torch.autograd.grad(value, leaf)
        expected = run(pred, target, ALL, backend=backend)
        assert_close_values(value, expected[0], relative=1e-5, what=f"call {seed}")
        assert_close_gradients(gradient.clone(), expected[2], relative=1e-5, what=f"call {seed}")
    assert counters["inductor"]["cudagraph_skips"] == 0


# ---- CUDA --------------------------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("frames", [243, 1500])
def test_on_a_second_stream(frames, backend):
    """The kernels wait for what their own stream still has to do, not for the default stream."""
    pred, target, weight = clips(8, frames, 17)
    keywords = {"weight": weight, "options": ALL_OPTIONS, "backend": backend}
    expected = run(pred, target, ALL, **keywords)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late_pred, late_target = (torch.full_like(x, math.nan) for x in (pred, target))
        torch.cuda._sleep(50_000_000)  # tens of milliseconds, long after the kernels are enqueued
        late_pred.copy_(pred)
        late_target.copy_(target)
        found = run(late_pred, late_target, ALL, **keywords)
    torch.cuda.current_stream().wait_stream(stream)
    assert identical(found, expected)


@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("frames", [27, 243, 1500])
@pytest.mark.parametrize("learned", [False, True])
def test_captured_in_a_cuda_graph(learned, frames, backend):
    """Forward and backward, replayed on inputs that changed."""
    pred, target, weight = clips(4, frames, 17)
    leaf = pred.clone().requires_grad_()
    lam = torch.tensor(0.7, device=DEVICE, requires_grad=True) if learned else 0.7
    keywords = {"weight": weight, "options": ALL_OPTIONS, "backend": backend}

    def step():
        found = structloss.objective(leaf, target, ALL | {"mpjpe": lam}, **keywords)
        (gradient,) = torch.autograd.grad(found.total, leaf)
        return found.total.detach(), torch.stack(list(found.terms.values())), gradient

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    for seed in (1, 2, 3):
        new = clips(4, frames, 17, seed=seed)
        with torch.no_grad():
            for static, changed in zip((leaf, target, weight), new, strict=True):
                static.copy_(changed)
        for x in recorded:
            x.fill_(math.nan)
        graph.replay()
        found = [x.clone() for x in recorded]
        assert identical(found, step()), f"replay {seed}"
        check(*(x.double() for x in new[:2]), ALL | {"mpjpe": 0.7}, weight=new[2].double(), options=ALL_OPTIONS,
              backend=backend, dtypes={torch.float32: 1e-5})  # fmt: skip


@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_never_waits_for_the_gpu(dtype, backend):
    """Neither through torch nor on its own: a sleeping GPU does not hold back the host."""
    lam = torch.tensor(0.7, device=DEVICE, requires_grad=True)
    for frames in (27, 243, 1500):
        pred, target, weight = clips(4, frames, 17, dtype=dtype)
        leaf = pred.clone().requires_grad_()

        def step(leaf=leaf, target=target, weight=weight):
            for given in (None, weight):
                keywords = {"weight": given, "options": ALL_OPTIONS, "backend": backend}
                total = structloss.objective(leaf, target, ALL | {"mpjpe": lam}, **keywords).total
                depths = structloss.ranking_hinge(leaf[..., 2], target[..., 2], weight=given, backend=backend)
                torch.autograd.grad(total + depths, (leaf, lam))

        step()
        torch.cuda.synchronize()
        finished = torch.cuda.Event()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
            try:
                torch.cuda._sleep(2_000_000_000)  # about a second
                step()
                finished.record()
                assert not finished.query(), "the host waited for the GPU"
            finally:
                torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()


@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_is_that_of_the_gradient(backend):
    """No tensor of pairs; and without gradient, none of its size either."""
    pred, target, _ = clips(256, 243, 17)
    size = pred.numel() * pred.element_size()

    def peak(function):
        function()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def without():
        with torch.no_grad():
            return structloss.objective(pred, target, ALL, backend=backend)

    assert peak(lambda: run(pred, target, ALL, backend=backend)) <= 3 * size + (4 << 20)
    assert peak(without) < size


@needs_gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_on_a_device_that_is_not_the_current_one(backend):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    for frames in (27, 1500):
        pred, target, weight = clips(2, frames, 17)
        keywords = {"options": ALL_OPTIONS, "backend": backend}
        expected = run(pred, target, ALL, weight=weight, **keywords)
        other = [x.to("cuda:1") for x in (pred, target, weight)]
        found = run(*other[:2], ALL, weight=other[2], **keywords)
        assert torch.cuda.current_device() == 0 and all(x.device.index == 1 for x in found)
        for a, b in zip(found, expected, strict=True):
            assert_close_gradients(a.to(b.device), b, relative=1e-6)


@needs_gpu
def test_pure_pytorch_on_the_gpu():
    """What serves where no fused backend can."""
    pred, target = poses(2, 81, 17)
    check(pred, target, ALL, weight=weights_of(2, 81, 17, kind="real"), options=ALL_OPTIONS, backend="torch")
