"""The Triton kernels in Triton's interpreter, on the CPU, against the literal definitions.

They run in a process of their own: `interpreter.py`.
"""

import functools
import math

import pytest
import torch
from compare import assert_close_gradients, assert_close_values, value_and_grad
from reference import pairwise
from test_objective import row_weights, rows
from test_terms import (
    ALL,
    ALL_OPTIONS,
    CASES,
    NOT_OF_A_BODY,
    body_of,
    call,
    check_objective,
    expected,
    expected_of_all,
    has_exact_kinks,
    objective_reference,
    poses,
    standing,
    weights_of,
)

import structloss
from structloss import skeletons

RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-5}
DEFAULT = {"mpjpe": 1.0, "depth_ranking_joints": 0.7, "depth_ranking_frames": 2.5}
objective = functools.partial(structloss.objective, backend="triton")
ranking_hinge = functools.partial(structloss.ranking_hinge, backend="triton")


pytest.importorskip("triton")
pytestmark = pytest.mark.interpreted


def module():
    from structloss.ops import triton_impl

    return triton_impl


@pytest.fixture
def by_torch_sort(monkeypatch):
    """Rows over time go through torch.sort, a few at a time."""
    monkeypatch.setattr(module(), "LONGEST_SORTED_ROW", 0)
    monkeypatch.setattr(module(), "_SORT_BYTES", 3 * 200 * 13)


def check_term(case, kind, weights, shape):
    name, options = CASES[case]
    for reduction, dtype in (("mean", torch.float64), ("sum", torch.float32)):
        pred, target, weight, value, gradient = expected(case, kind, weights, shape, reduction)
        found, found_gradient = value_and_grad(
            functools.partial(call, name),
            pred.to(dtype),
            target.to(dtype),
            weight=None if weight is None else weight.to(dtype),
            reduction=reduction,
            backend="triton",
            **options,
        )
        assert found.dtype == found_gradient.dtype == dtype and found.dim() == 0
        assert_close_values(found, value, relative=RELATIVE[dtype], absolute=1e-15, what=reduction)
        assert_close_gradients(found_gradient, gradient, relative=RELATIVE[dtype], what=reduction)


def check_rows(pred, target, weight, dtypes=RELATIVE):
    # The default reduction also where weights scale it.
    for reduction in ("mean", "sum") if weight is not None else ("sum",):
        value, gradient = value_and_grad(pairwise.ranking_hinge, pred, target, weight, reduction)
        for dtype, relative in dtypes.items():
            found, found_gradient = value_and_grad(
                ranking_hinge,
                pred.to(dtype),
                target.to(dtype),
                weight=None if weight is None else weight.to(dtype),
                reduction=reduction,
            )
            assert found.dtype == found_gradient.dtype == dtype and found_gradient.is_contiguous()
            assert_close_values(found, value, relative=relative, absolute=1e-15, what=f"{dtype}, {reduction}")
            assert_close_gradients(found_gradient, gradient, relative=relative, what=f"{dtype}, {reduction}")


def values_and_grad(pred, target, weight):
    """Values of all terms and the gradient of their total, for a prediction with its own strides."""
    leaf = pred.detach().requires_grad_()
    result = objective(leaf, target, ALL, weight=weight, options=ALL_OPTIONS)
    (gradient,) = torch.autograd.grad(result.total, leaf)
    return torch.stack(list(result.terms.values())), gradient


class TestInterpreted:
    @pytest.mark.check
    def test_it_serves_cpu_tensors(self):
        assert structloss.backends()["triton"]
        pred, target = poses(1, 2, 17)
        with pytest.raises(structloss.errors.BackendError, match="256 joints"):
            objective(torch.zeros(1, 1, 257, 3), torch.zeros(1, 1, 257, 3), {"mpjpe": 1.0})
        assert objective(pred, target, {"mpjpe": 1.0}).total > 0

    @pytest.mark.parametrize("case", CASES)
    def test_every_term(self, case):
        check_term(case, "random", "real", (2, 5, 17))

    @pytest.mark.parametrize("number, case", list(enumerate(CASES)))
    def test_kinks_and_masks(self, number, case):
        kinds = [("coincident", "none"), ("random", "mask"), ("grid", "none"), ("random", "padding")]
        kind, weights = kinds[number % 4]
        if kind == "grid" and not has_exact_kinks(case):
            kind = "coincident"
        check_term(case, kind, weights, (1, 4, 17))

    # 33 frames of two clips: three blocks of joints, the last one not full.
    @pytest.mark.parametrize("frames, weights", [(2, "none"), (33, "real")])
    def test_all_terms_at_once(self, frames, weights):
        pred, target, weight, reference = expected_of_all(frames, weights)
        dtypes = {torch.float64: 1e-12} if frames < 33 else {torch.float32: 1e-5}
        check_objective(
            pred, target, ALL, reference, dtypes=dtypes, weight=weight, options=ALL_OPTIONS, backend="triton"
        )

    @pytest.mark.parametrize("joints, weights", [(1, "real"), (5, "none"), (5, "real"), (18, "mask")])
    def test_any_number_of_joints(self, joints, weights):
        pred, target = (torch.randn(2, 7, joints, 3).double() for _ in range(2))
        if joints == 5:  # ties in depth, joints without error and at rest
            pred, target = (pred * 2).round() / 2, (target * 2).round() / 2
        weight = weights_of(2, 7, joints, kind=weights)
        chosen = {name: ALL[name] for name in NOT_OF_A_BODY}
        factors = {"joint_weight": torch.rand(joints).tolist()}
        options = {"weighted_mpjpe": factors, "temporal_consistency": factors}
        for reduction in ("mean", "sum"):
            reference = objective_reference(pred, target, chosen, weight, reduction, options)
            check_objective(
                pred, target, chosen, reference, dtypes={torch.float64: 1e-12}, weight=weight, options=options,
                reduction=reduction, backend="triton",
            )  # fmt: skip

    @pytest.mark.parametrize("name", skeletons.names())
    def test_every_skeleton(self, name):
        skeleton = skeletons.get(name)
        pred, target = poses(1, 3, skeleton.num_joints)
        weight = weights_of(1, 3, skeleton.num_joints, kind="real")
        chosen = {term: lam for term, lam in ALL.items() if structloss.TERMS[term].needs_skeleton}
        reference = objective_reference(pred, target, chosen, weight, body=body_of(skeleton))
        check_objective(
            pred, target, chosen, reference, dtypes={torch.float64: 1e-12}, weight=weight, skeleton=name,
            backend="triton",
        )  # fmt: skip

    def test_straight_limbs_are_clamped_and_tiny_bones_have_no_angle(self):
        pred, target = poses(1, 3, 17)
        for a, b, c, way in ((1, 2, 3, 1), (4, 5, 6, -1)):  # dyadic steps: straight to the last bit, or folded back
            pred[..., b, :] = pred[..., a, :] = (pred[..., a, :] * 8).round() / 8
            pred[..., b, :] += torch.tensor([0.25, -0.5, 1.0])
            pred[..., c, :] = pred[..., b, :] + way * torch.tensor([0.125, -0.25, 0.5])
        pred[..., 10, :] = pred[..., 9, :] = 0
        pred[..., 10, 1] = 4e-9
        for name in ("bone_angle", "bone_angle_velocity"):
            reference = objective_reference(pred, target, {name: 1.0})
            found = value_and_grad(objective, pred, target, {name: 1.0})
            assert_close_values(found[0], reference[0], relative=1e-12, what=name)
            assert_close_gradients(found[1], reference[2], relative=1e-12, what=name)
            assert (found[1][..., [3, 6, 10], :] == 0).all(), name

    @pytest.mark.parametrize("bend", [2e-4, 6e-4])
    def test_nearly_straight_limbs_are_clamped(self, bend):
        """Below 4.5e-4 rad the angle stands still; above it moves."""
        pred = torch.zeros(1, 1, 17, 3, dtype=torch.float64)
        pred[..., 1, 0] = 1
        pred[..., 2, :] = torch.tensor([2.0, bend, 0.0])
        weight = (torch.arange(17) < 3).double()
        _, gradient = value_and_grad(objective, pred, poses(1, 1, 17)[1], {"bone_angle": 1.0}, weight=weight)
        assert (gradient == 0).all() == (bend < 4.4e-4)

    # ---- ranking of rows: sizes around the padding to powers of two

    @pytest.mark.parametrize("n", [1, 2, 3, 31, 33, 64, 65])
    @pytest.mark.parametrize(
        "kind, weights", [("random", "none"), ("ties", "none"), ("ties", "real"), ("random", "mask")]
    )
    def test_rows(self, n, kind, weights):
        pred, target = rows(n, kind)
        check_rows(pred, target, row_weights(n, weights), {torch.float32: 1e-5})

    @pytest.mark.parametrize(
        "kind", ["constant pred", "constant target", "equal", "reversed", "outlier", "signed zeros"]
    )
    def test_special_rows(self, kind):
        pred, target = rows(13, kind)
        for weights in ("none", "padding"):
            check_rows(pred, target, row_weights(13, weights), {torch.float32: 1e-5})
        if kind == "signed zeros":
            check_rows(target, pred, None, {torch.float32: 1e-5})

    @pytest.mark.parametrize("weights", ["none", "real"])
    def test_float64_rows(self, weights):
        for kind in ("random", "ties"):
            check_rows(*rows(33, kind), row_weights(33, weights), {torch.float64: 1e-12})

    @pytest.mark.parametrize("weights", ["none", "real", "mask"])
    def test_rows_by_torch_sort(self, weights, by_torch_sort):
        for kind in ("random", "ties"):
            check_rows(*rows(13, kind, batch=5), row_weights(13, weights, batch=5))
        pred, target = poses(2, 13, 5)
        weight = weights_of(2, 13, 5, kind=weights)
        reference = objective_reference(pred, target, {"depth_ranking_frames": 2.0}, weight)
        check_objective(pred, target, {"depth_ranking_frames": 2.0}, reference, weight=weight, backend="triton")
        pred, target = (x.detach().clone() for x in (pred, target))
        pred[0, 3, 2, 2] = math.nan
        result, gradient = value_and_grad(objective, pred.float(), target.float(), {"depth_ranking_frames": 1.0})
        assert result.isnan() and gradient[0, :, 2, 2].isnan().all()
        gradient[0, :, 2, 2] = 0
        assert gradient.isfinite().all()

    @pytest.mark.parametrize("n", [1024, 1025])
    def test_the_longest_row_in_registers_and_the_next(self, n):
        pred, target = rows(n, "ties", batch=1)
        value, gradient = pairwise.ranking_hinge_by_blocks(pred[0], target[0])
        found, found_gradient = value_and_grad(ranking_hinge, pred.float(), target.float(), reduction="sum")
        assert_close_values(found, value, relative=1e-5)
        assert_close_gradients(found_gradient[0], gradient, relative=1e-5)

    def test_more_rows_than_programs(self, monkeypatch):
        """Each program ranks several blocks of rows, in the same scratch memory."""
        monkeypatch.setattr(module(), "_ROW_PROGRAMS", 2)
        monkeypatch.setattr(module(), "_ROW_ELEMENTS", 16)
        for weights in ("none", "real"):
            pred, target = rows(5, "ties", batch=7)
            check_rows(pred, target, row_weights(5, weights, batch=7), {torch.float32: 1e-5})

    @pytest.mark.parametrize("where", ["pred", "target"])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_nan_rows(self, where, weighted):
        pred, target = (x.float() for x in rows(17, "random"))
        (pred if where == "pred" else target)[1, 8] = math.nan
        weight = torch.rand(3, 17) + 0.1 if weighted else None
        value, gradient = value_and_grad(ranking_hinge, pred, target, weight=weight, reduction="sum")
        assert value.isnan() and gradient[1].isnan().all() and gradient[[0, 2]].isfinite().all()
        if weighted:
            weight[1, 8] = 0
            value, gradient = value_and_grad(ranking_hinge, pred, target, weight=weight)
            assert value.isfinite() and gradient.isfinite().all() and gradient[1, 8] == 0

    def test_infinite_rows(self):
        pred, target = (x.float() for x in rows(17, "random"))
        target[0, 0], target[0, 1] = math.inf, -math.inf  # an order like any other
        assert_close_values(ranking_hinge(pred, target), pairwise.ranking_hinge(pred.double(), target), relative=1e-5)
        pred[0, 0], pred[1, 1] = math.inf, -math.inf
        assert not ranking_hinge(pred, target).isfinite()

    # ---- dtypes, strides, weights of terms

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_types_are_computed_in_float32(self, dtype):
        pred, target = (x.to(dtype) for x in poses(1, 3, 17))
        weight = weights_of(1, 3, 17, kind="real").to(dtype)
        single = [x.float() for x in (pred, target, weight)]
        value, gradient = value_and_grad(objective, *single[:2], ALL, weight=single[2])
        for other in (target, single[1]) if dtype == torch.bfloat16 else (target,):
            found, found_gradient = value_and_grad(objective, pred, other, ALL, weight=weight)
            assert found.dtype == torch.float32 and found_gradient.dtype == dtype
            assert found == value and torch.equal(found_gradient, gradient.to(dtype))

    def test_mixed_precisions(self):
        """A target or weight of another precision is converted to that of the prediction."""
        pred, target = poses(1, 7, 17)
        weight = weights_of(1, 7, 17, kind="real").float()
        single = value_and_grad(objective, pred.float(), target.float(), DEFAULT, weight=weight)
        mixed = value_and_grad(objective, pred.float(), target, DEFAULT, weight=weight.double())
        assert mixed[0] == single[0] and mixed[0].dtype == torch.float32 and torch.equal(mixed[1], single[1])
        double = value_and_grad(objective, pred, target, DEFAULT, weight=weight.double())
        mixed = value_and_grad(objective, pred, target.float(), DEFAULT, weight=weight)
        assert mixed[0] == double[0] and mixed[0].dtype == torch.float64 and torch.equal(mixed[1], double[1])

    @pytest.mark.parametrize("wide", [False, True])
    def test_strides(self, wide, monkeypatch):
        pred, target = (x.float() for x in poses(2, 3, 17))
        weight = weights_of(2, 3, 17, kind="real").float()
        values, gradient = values_and_grad(pred, target, weight)
        if wide:  # 64-bit offsets
            monkeypatch.setattr(module(), "_is_wide", lambda *tensors: True)
        strided_target = torch.randn(2, 6, 17, 4)[:, ::2, :, :3].copy_(target)
        strided_weight = weight.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        transposed = pred.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        for strided in (transposed if wide else torch.cat([pred, pred], -1)[..., :3],):
            assert not strided.is_contiguous()
            found, found_gradient = values_and_grad(strided, strided_target, strided_weight)
            assert torch.equal(found, values) and torch.equal(found_gradient, gradient)

    def test_lambdas_may_be_a_tensor(self):
        pred, target = poses(1, 3, 17)
        lambdas = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in ALL.items()}
        leaf, plain = pred.clone().requires_grad_(), pred.clone().requires_grad_()
        result = objective(leaf, target, lambdas, options=ALL_OPTIONS)
        (3 * result.total).backward()
        given = objective(plain, target, ALL, options=ALL_OPTIONS)
        (3 * given.total).backward()
        assert_close_values(result.total, given.total, relative=1e-15)
        assert_close_gradients(leaf.grad, plain.grad, relative=1e-15)
        for name, lam in lambdas.items():
            assert_close_values(lam.grad, 3 * given.terms[name], relative=1e-14, what=name)

    def test_values_without_a_gradient(self):
        pred, target = poses(1, 3, 17)
        with_gradient = objective(pred.clone().requires_grad_(), target, ALL)
        for reordered in (ALL, dict(reversed(ALL.items()))):
            result = objective(pred, target, reordered)
            assert list(result.terms) == list(reordered) and not result.total.requires_grad
            assert all(torch.equal(value, with_gradient.terms[name]) for name, value in result.terms.items())
        _, _, gradient = module().objective(pred, target, None, [1.0], ("mpjpe",), "h36m", "", "mean", False)
        assert gradient.shape == (0,)

    def test_a_term_of_weight_zero_is_reported_and_adds_nothing(self):
        pred, target = poses(1, 5, 17)
        weights = dict.fromkeys(ALL, 0.0) | {"velocity": 1.0}
        total, gradient = value_and_grad(objective, pred, target, weights)
        value, alone = value_and_grad(objective, pred, target, {"velocity": 1.0})
        assert total == value and torch.equal(gradient, alone)

    # ---- what is empty, hidden or not finite

    @pytest.mark.parametrize("shape", [(0, 5, 17), (2, 0, 17)])
    def test_empty_is_zero(self, shape):
        pred = torch.zeros(*shape, 3)
        for weight in (None, torch.ones(shape)):
            value, gradient = value_and_grad(objective, pred, pred, ALL, weight=weight)
            assert value == 0 and gradient.shape == pred.shape
        value, gradient = value_and_grad(objective, torch.zeros(2, 3, 0, 3), torch.zeros(2, 3, 0, 3), DEFAULT)
        assert value == 0 and gradient.numel() == 0
        assert ranking_hinge(pred[..., 0, 0], pred[..., 0, 0]) == 0

    def test_no_weight_at_all_is_zero(self):
        pred, target = poses(1, 4, 17)
        value, gradient = value_and_grad(objective, pred * math.nan, target, ALL, weight=torch.zeros(1, 4, 17))
        assert value == 0 and (gradient == 0).all()

    def test_what_has_no_weight_has_no_effect_at_all(self):
        pred, target = (x.float() for x in poses(2, 4, 17))
        weight = weights_of(2, 4, 17, kind="real").float()
        weight[0, 3, 15] = weight[1, :, 3] = weight[1, 2] = weight[0, 0, 2] = 0
        results = []
        for pred_junk, target_junk in ((0.0, 0.0), (math.nan, math.inf)):
            junk_pred, junk_target = pred.clone(), target.clone()
            junk_pred[weight == 0], junk_target[weight == 0] = pred_junk, target_junk
            results.append(values_and_grad(junk_pred, junk_target, weight))
        assert (results[0][0] > 0).all() and (results[0][1][weight == 0] == 0).all()
        for values, gradient in results[1:]:
            assert torch.equal(values, results[0][0]) and torch.equal(gradient, results[0][1])

    @pytest.mark.parametrize(
        "value, where, frame, channel",
        [(math.nan, "pred", 0, 2), (math.nan, "target", 3, 0), (math.nan, "target", 2, 2), (math.inf, "pred", 3, 1)],
    )
    def test_nothing_plausible_comes_of_what_is_not_finite(self, value, where, frame, channel):
        pred, target = (x.float() for x in poses(2, 4, 17))
        where_to = (pred if where == "pred" else target)[1, frame, 15]
        if math.isnan(value):
            where_to[channel] = value
        else:
            where_to[:] = value
        for name, found in objective(pred, target, ALL).terms.items():
            looked_at = where == "pred" or structloss.TERMS[name].needs_target
            if looked_at and name.startswith("depth_ranking_"):
                looked_at = channel == 2 if math.isnan(value) else where == "pred"
                if not looked_at:
                    continue
            assert found.isfinite() != looked_at, name

    # ---- rounding and order

    @pytest.mark.parametrize("unit", [1.0, 1000.0], ids=["metres", "millimetres"])
    def test_float32_survives_a_root_offset(self, unit):
        target = standing(2, 9) + torch.tensor([0.3, -0.8, 5.0])
        pred = ((target + 0.001 * torch.randn(2, 9, 17, 3).double()) * unit).float()
        target = (target * unit).float()
        options = {"illegal_angle": {"scale": 1 / unit}}
        for name in ALL if unit == 1 else ("mpjpe", "velocity", "bone_ratio", *DEFAULT):
            chosen = {name: options[name]} if name in options else {}
            reference = objective_reference(pred.double(), target.double(), {name: 1.0}, options=chosen)
            check_objective(
                pred, target, {name: 1.0}, reference, dtypes={torch.float32: 1e-5}, options=chosen, backend="triton"
            )

    def test_the_same_bits_every_time(self):
        pred, target = (x.float() for x in poses(2, 16, 17))
        weight = weights_of(2, 16, 17, kind="real").float()
        results = [value_and_grad(objective, pred, target, DEFAULT, weight=weight) for _ in range(2)]
        assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])

    def test_gradcheck(self):
        pred, target = poses(1, 3, 17)
        weight = torch.rand(1, 3, 17).double() + 0.1
        lam = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
        names = ("n_mpjpe", "depth_ranking_frames", "bone_ratio", "velocity")
        assert torch.autograd.gradcheck(
            lambda p, lam: objective(p, target, {**{n: ALL[n] for n in names}, "velocity": lam}, weight=weight).total,
            (pred.requires_grad_(), lam),
            fast_mode=True,
        )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("by", [1.0, 0.0, -2.5])
    def test_the_gradient_is_scaled_in_place(self, by, dtype):
        grad = torch.randn(7, 301, 3, dtype=dtype)
        expected = grad * by
        assert module().scale_(grad, torch.tensor(by, dtype=dtype)) is grad
        assert torch.equal(grad, expected)
