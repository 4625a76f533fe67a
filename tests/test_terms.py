"""Every loss term against its literal definition, in value and gradient, in every backend."""

import copy
import functools
import math
import pickle

import pytest
import torch
from backends import BACKENDS, FAST
from compare import assert_close_gradients, assert_close_values, value_and_grad
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import terms

import structloss
from structloss import skeletons

RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-5}

# MixSTE's joint weights, in the order of Human3.6M.
MIXSTE = (1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4)
CASES = {
    "mpjpe": ("mpjpe", {}),
    "weighted_mpjpe": ("weighted_mpjpe", {}),
    "weighted_mpjpe, joints": ("weighted_mpjpe", {"joint_weight": MIXSTE}),
    "n_mpjpe": ("n_mpjpe", {}),
    "velocity": ("velocity", {}),
    "temporal_consistency": ("temporal_consistency", {}),
    "temporal_consistency, joints": ("temporal_consistency", {"joint_weight": MIXSTE}),
    "limb_length": ("limb_length", {}),
    "limb_variance": ("limb_variance", {}),
    "bone_angle": ("bone_angle", {}),
    "bone_angle, all": ("bone_angle", {"pairs": "all"}),
    "bone_angle_velocity": ("bone_angle_velocity", {}),
    "bone_angle_velocity, all": ("bone_angle_velocity", {"pairs": "all"}),
    "bone_symmetry": ("bone_symmetry", {}),
    "bone_symmetry, six": ("bone_symmetry", {"pairs": "six"}),
    "bone_symmetry, all": ("bone_symmetry", {"pairs": "all"}),
    "bone_symmetry, squared": ("bone_symmetry", {"squared": True}),
    "bone_symmetry, six squared": ("bone_symmetry", {"pairs": "six", "squared": True}),
    "illegal_angle": ("illegal_angle", {}),
    "illegal_angle, left-handed": ("illegal_angle", {"handedness": "left"}),
    "illegal_angle, tolerance": ("illegal_angle", {"tolerance": 0.25}),
    "illegal_angle, scale": ("illegal_angle", {"scale": 0.5}),
    "illegal_angle, scale tolerance": ("illegal_angle", {"scale": 0.5, "tolerance": 0.0625, "handedness": "left"}),
    "illegal_angle, on the line": ("illegal_angle", {"scale": 3.0}),  # most excesses are above 20
    "illegal_angle, unit": ("illegal_angle", {"normalize_bones": True}),
    "illegal_angle, unit tolerance": ("illegal_angle", {"normalize_bones": True, "tolerance": 0.2, "scale": 7.0}),
    "bone_ratio": ("bone_ratio", {}),
    "bone_ratio, paper": ("bone_ratio", {"form": "paper"}),
}
# Weights that bring the terms of a random pose to the same order of magnitude.
ALL = {
    "mpjpe": 1.0,
    "weighted_mpjpe": 0.8,
    "n_mpjpe": 0.5,
    "velocity": 1.5,
    "temporal_consistency": 0.7,
    "depth_ranking_joints": 2.0,
    "depth_ranking_frames": 2.5,
    "bone_symmetry": 0.2,
    "illegal_angle": 0.01,
    "bone_ratio": 0.3,
    "limb_length": 1.2,
    "limb_variance": 0.9,
    "bone_angle": 1.1,
    "bone_angle_velocity": 0.6,
}
ALL_OPTIONS = {
    "weighted_mpjpe": {"joint_weight": MIXSTE},
    "bone_symmetry": {"pairs": "six"},
    "illegal_angle": {"tolerance": 0.05, "normalize_bones": True},
    "bone_angle_velocity": {"pairs": "all"},
}
NOT_OF_A_BODY = [name for name in ALL if name not in terms.OF_A_BODY]


def call(name, pred, target, **keywords):
    """The public function of a term, without the target where it takes none."""
    if name.startswith("depth_ranking_"):
        return structloss.depth_ranking(pred, target, over=name.removeprefix("depth_ranking_"), **keywords)
    function = getattr(structloss, name)
    return function(pred, **keywords) if name in terms.WITHOUT_TARGET else function(pred, target, **keywords)


def poses(*shape, kind="random"):
    """Predicted and target poses [..., 3] in float64 that are exact in float32; `shape` is [..., T, 17]."""
    pred = torch.randn(*shape, 3, dtype=torch.float64)
    target = pred + 0.5 * torch.randn(*shape, 3, dtype=torch.float64)
    if kind == "grid":  # equal lengths and coplanar bones, exactly
        pred, target = (pred * 4).round() / 4, (target * 4).round() / 4
        pred[..., ::3, :] = target[..., ::3, :]
    if kind == "coincident":
        pred[..., 3, :] = pred[..., 2, :]
        pred[..., 12, :] = pred[..., 13, :] = pred[..., 11, :]
        target[..., 6, :] = target[..., 5, :]
        pred[..., ::4, :, :] = 0  # a whole body in one point
        pred[..., 1::4, :, :] = target[..., 1::4, :, :]
        for pose in (pred, target):  # a body at rest
            still = pose[..., 3::4, :, :]
            still.copy_(pose[..., 2::4, :, :][..., : still.shape[-3], :, :])
    return pred.float().double(), target.float().double()


def weights_of(*shape, kind):
    if kind == "none":
        return None
    if kind == "mask":
        return (torch.rand(shape) > 0.2).double()
    if kind == "padding":
        frames = torch.arange(shape[-2])
        return (frames < max(1, shape[-2] // 2)).double()[:, None].expand(shape)
    return torch.rand(shape).double() * (torch.rand(shape) > 0.15)


def reference_value_and_grad(name, pred, target, weight, reduction="mean", body=terms.H36M, **options):
    return value_and_grad(lambda p: terms.term(name, p, target, weight, reduction, body, **options) + 0 * p.sum(), pred)


@functools.cache
def expected(case, kind, weights, shape, reduction):
    name, options = CASES[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pred, target = poses(*shape, kind=kind)
        weight = weights_of(*shape, kind=weights)
    return pred, target, weight, *reference_value_and_grad(name, pred, target, weight, reduction, **options)


def check_case(case, kind, weights, shape, backend):
    name, options = CASES[case]
    for reduction in ("mean", "sum"):
        pred, target, weight, value, gradient = expected(case, kind, weights, shape, reduction)
        for dtype, relative in RELATIVE.items():
            found, found_gradient = value_and_grad(
                functools.partial(call, name),
                pred.to(dtype),
                target.to(dtype),
                weight=None if weight is None else weight.to(dtype),
                reduction=reduction,
                backend=backend,
                **options,
            )
            what = f"{dtype}, {reduction}"
            assert found.dtype == found_gradient.dtype == dtype and found.dim() == 0
            assert_close_values(found, value, relative=relative, absolute=1e-15, what=what)
            assert_close_gradients(found_gradient, gradient, relative=relative, what=what)


# Between equal angles, and of coplanar unit bones, rounding decides on which side of the kink a pose on a grid is; both
# have tests of their own below.
def has_exact_kinks(case):
    return not case.startswith("bone_angle") and "unit" not in case


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "case, kind, weights",
    [
        (case, kind, weights)
        for case in CASES
        for kind, weights in (
            *(("random", weights) for weights in ("none", "mask", "real", "padding")),
            *(("grid", weights) for weights in ("none", "real") if has_exact_kinks(case)),
            *(("coincident", weights) for weights in ("none", "real")),
        )
    ],
)
def test_against_the_definition(case, kind, weights, backend):
    check_case(case, kind, weights, (3, 13, 17), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(2, 1, 17), (1, 2, 17), (2, 17), (2, 1, 3, 7, 17)])
@pytest.mark.parametrize("case", CASES)
def test_shapes(case, shape, backend):
    check_case(case, "random", "real", shape, backend)


def test_the_cases_cover_every_term_and_option():
    assert list(terms.FUNCTIONS) == list(structloss.TERMS) == list(ALL)
    assert {name for name, _ in CASES.values()} | {"depth_ranking_joints", "depth_ranking_frames"} == set(ALL)
    for name, term in structloss.TERMS.items():
        assert term.needs_target == (name not in terms.WITHOUT_TARGET)
        assert term.needs_skeleton == (name in terms.OF_A_BODY)
        used = {option for other, options in CASES.values() if other == name for option in options}
        # Ranking terms have their own tests: test_objective.py, and of the resolution test_resolution.py.
        assert used == set(term.options) - {"resolution"}, name


def objective_reference(pred, target, weights, weight=None, reduction="mean", options=None, body=terms.H36M):
    """Total, terms and gradient by definition."""
    leaf = pred.clone().requires_grad_()
    total, values = terms.objective(leaf, target, weights, weight, reduction, options, body)
    (gradient,) = torch.autograd.grad(total + 0 * leaf.sum(), leaf)
    return total.detach(), {name: value.detach() for name, value in values.items()}, gradient


def check_objective(pred, target, weights, expected, *, dtypes=RELATIVE, weight=None, **keywords):
    total, values, gradient = expected
    for dtype, relative in dtypes.items():
        leaf = pred.to(dtype).requires_grad_()
        found = structloss.objective(
            leaf,
            None if target is None else target.to(dtype),
            weights,
            weight=None if weight is None else weight.to(dtype),
            **keywords,
        )
        (found_gradient,) = torch.autograd.grad(found.total, leaf)
        assert list(found.terms) == list(weights)
        for name, value in found.terms.items():
            assert_close_values(value, values[name], relative=relative, absolute=1e-15, what=f"{name}, {dtype}")
            assert value.dtype == dtype and not value.requires_grad
        assert_close_values(found.total, total, relative=relative, absolute=1e-15, what=str(dtype))
        assert found_gradient.shape == gradient.shape and found_gradient.dtype == dtype
        if gradient.numel():
            assert_close_gradients(found_gradient, gradient, relative=relative, what=str(dtype))


@functools.cache
def expected_of_all(frames, weights):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pred, target = poses(2, frames, 17)
        weight = weights_of(2, frames, 17, kind=weights)
    return pred, target, weight, objective_reference(pred, target, ALL, weight, options=ALL_OPTIONS)


# One frame to either side of sizes that a kernel may work in blocks of, and primes.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 243])
def test_all_terms_at_once_for_any_number_of_frames(frames, backend):
    for weights in ("none", "real") if frames < 20 else ("real",):
        pred, target, weight, reference = expected_of_all(frames, weights)
        check_objective(pred, target, ALL, reference, weight=weight, options=ALL_OPTIONS, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("joints", [1, 2, 7, 16, 18, 133])
def test_terms_without_a_body_take_any_number_of_joints(joints, backend):
    pred, target = poses(2, 11, 1)
    pred, target = (x + torch.randn(2, 11, joints, 3).float().double() for x in (pred, target))
    pred, target = pred.float().double(), target.float().double()
    weight = weights_of(2, 11, joints, kind="real")
    weights = {name: ALL[name] for name in NOT_OF_A_BODY}
    factors = {"joint_weight": torch.rand(joints).tolist()}
    options = {"weighted_mpjpe": factors, "temporal_consistency": factors}
    for reduction in ("mean", "sum"):
        reference = objective_reference(pred, target, weights, weight, reduction, options)
        check_objective(
            pred, target, weights, reference, weight=weight, options=options, reduction=reduction, backend=backend
        )


def body_of(skeleton):
    """The reference's description of a registered skeleton."""
    bones = tuple((parent, child) for child, parent in skeleton.bones)
    angles = tuple((i, j) for i in range(len(bones)) for j in range(i + 1, len(bones)) if set(bones[i]) & set(bones[j]))
    symmetric = {name: tuple((right, left) for left, right in pairs) for name, pairs in skeleton.symmetric_groups}
    lengths = {
        "legs": (terms.UPPER_LEG, terms.LOWER_LEG) * 2,
        "arms": (terms.UPPER_ARM, terms.LOWER_ARM) * 2,
        "hips": (terms.HIP,) * 2,
        "shoulders": (terms.SHOULDER,) * 2,
    }
    pairs = {"four": symmetric["limbs"], "all": sum(symmetric.values(), ())}
    if "girdle" in symmetric:
        pairs["six"] = symmetric["limbs"] + symmetric["girdle"]
    return terms.Body(
        bones=bones,
        angles={"all": angles, "published": tuple(p for p in angles if skeleton.name != "h36m" or p != (8, 10))},
        symmetric=pairs,
        hinges=tuple((h.c, h.s, h.e, h.w, float(-h.legal_sign)) for h in skeleton.hinges),
        groups=tuple(tuple(zip(bones, lengths[name], strict=True)) for name, bones in skeleton.bone_groups),
    )


def test_the_registered_human36m_body_is_the_one_written_out():
    body = body_of(skeletons.get("h36m"))
    assert body.bones == terms.H36M.bones
    assert body.hinges == terms.H36M.hinges
    for pairs in ("published", "all"):
        assert set(body.angles[pairs]) == set(terms.H36M.angles[pairs])
        assert len(body.angles[pairs]) == len(terms.H36M.angles[pairs]) == {"published": 18, "all": 19}[pairs]

    def undirected(pairs):
        return {tuple(frozenset(bone) for bone in pair) for pair in pairs}

    for pairs in ("four", "six", "all"):
        assert undirected(body.symmetric[pairs]) == undirected(terms.H36M.symmetric[pairs])
    for found, written in zip(body.groups, terms.H36M.groups, strict=True):
        assert found[0][1] == written[0][1]
        assert {(frozenset(b), mm) for b, mm in found} == {(frozenset(b), mm) for b, mm in written}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [case for case, (name, _) in CASES.items() if name in terms.OF_A_BODY])
@pytest.mark.parametrize("name", skeletons.names())
def test_every_skeleton(name, case, backend):
    skeleton = skeletons.get(name)
    term, options = CASES[case]
    if options.get("pairs") == "six" and name in ("coco", "h3wb"):
        options = {**options, "pairs": "all"}  # no girdle there
    pred, target = poses(2, 4, skeleton.num_joints)
    weight = weights_of(2, 4, skeleton.num_joints, kind="real")
    value, gradient = reference_value_and_grad(term, pred, target, weight, body=body_of(skeleton), **options)
    assert value > 0
    for dtype, relative in RELATIVE.items():
        found, found_gradient = value_and_grad(
            functools.partial(call, term),
            pred.to(dtype),
            target.to(dtype),
            weight=weight.to(dtype),
            skeleton=name,
            backend=backend,
            **options,
        )
        assert_close_values(found, value, relative=relative, what=str(dtype))
        assert_close_gradients(found_gradient, gradient, relative=relative, what=str(dtype))


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_terms_at_once_on_every_skeleton(backend):
    for name in skeletons.names():
        skeleton = skeletons.get(name)
        pred, target = poses(2, 5, skeleton.num_joints)
        reference = objective_reference(pred, target, ALL, body=body_of(skeleton))
        check_objective(pred, target, ALL, reference, skeleton=name, backend=backend)


# Kinks: what is exactly equal, straight or coincident has the gradient that convention gives it.


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", RELATIVE)
def test_everything_in_one_point_has_no_gradient(dtype, backend):
    _, target = poses(2, 6, 17)
    pred = torch.zeros_like(target)
    # The others compare joint by joint, or let tied depths pass half of the gradient.
    for name in {"n_mpjpe", "limb_length", "bone_angle", "bone_angle_velocity", *terms.WITHOUT_TARGET}:
        value, gradient = value_and_grad(
            functools.partial(call, name), pred.to(dtype), target.to(dtype), backend=backend
        )
        assert value.isfinite(), name
        assert (gradient == 0).all(), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", RELATIVE)
def test_a_perfect_prediction_has_no_loss_and_no_gradient(dtype, backend):
    pred, _ = poses(2, 9, 17)
    for name in [name for name in ALL if name not in terms.WITHOUT_TARGET]:
        for weights in ("none", "real"):
            weight = weights_of(2, 9, 17, kind=weights)
            value, gradient = value_and_grad(
                functools.partial(call, name),
                pred.to(dtype),
                pred.to(dtype),
                weight=None if weight is None else weight.to(dtype),
                backend=backend,
            )
            assert value == 0, name
            assert (gradient == 0).all(), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_straight_limbs_are_clamped_and_tiny_bones_have_no_angle(backend):
    for dtype, relative in RELATIVE.items():
        pred, target = poses(2, 5, 17)
        # dyadic steps: straight to the last bit, forwards and folded back
        for a, b, c, sign in ((1, 2, 3, 1), (4, 5, 6, -1), (11, 12, 13, 1), (14, 15, 16, 1)):
            pred[..., b, :] = pred[..., a, :] = (pred[..., a, :] * 8).round() / 8
            pred[..., b, :] += torch.tensor([0.25, -0.5, 1.0])
            pred[..., c, :] = pred[..., b, :] + sign * torch.tensor([0.125, -0.25, 0.5])
        for tiny in (0.0, 4e-9, 1e-30):
            pred[..., 10, :] = pred[..., 9, :] = 0
            pred[..., 10, 1] = tiny
            pred[..., 8, :] = torch.tensor([0.5, -0.25, 0.125])
            pred = pred.float().double()
            for name in ("bone_angle", "bone_angle_velocity"):
                value, gradient = reference_value_and_grad(name, pred, target, None, pairs="all")
                assert (gradient[..., 10, :] == 0).all(), "the test's own premise"
                found, found_gradient = value_and_grad(
                    functools.partial(call, name), pred.to(dtype), target.to(dtype), pairs="all", backend=backend
                )
                what = f"{name}, {dtype}, {tiny}"
                assert_close_values(found, value, relative=relative, what=what)
                assert_close_gradients(found_gradient, gradient, relative=relative, what=what)
                assert (found_gradient[..., [3, 6, 10, 13, 16], :] == 0).all(), what


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bend", [2e-4, 6e-4])
def test_nearly_straight_limbs_are_clamped_up_to_a_cosine_of_a_ten_millionth_from_one(bend, backend):
    """Below 4.5e-4 rad the angle stands still; above it moves, steeply."""
    pred = torch.zeros(1, 2, 17, 3, dtype=torch.float64)
    pred[..., 1, 0] = 1
    pred[..., 2, :] = torch.tensor([2.0, bend, 0.0])
    weight = torch.zeros(17).double()
    weight[:3] = 1
    _, target = poses(1, 2, 17)
    for name in ("bone_angle", "bone_angle_velocity"):
        value, gradient = reference_value_and_grad(name, pred.float().double(), target, weight.expand(1, 2, 17))
        assert (gradient == 0).all() == (bend < 4.4e-4), "the test's own premise"
        for dtype, relative in RELATIVE.items():
            found, found_gradient = value_and_grad(
                functools.partial(call, name),
                *(pred.float().to(dtype), target.to(dtype)),
                weight=weight,
                backend=backend,
            )
            assert_close_values(found, value, relative=relative, what=f"{name}, {dtype}")
            # The cosine is known to 1e-16 of 1, the distance from 1, which its slope goes with, to 1e-9 of itself.
            steep = max(relative, 1e-8)
            assert_close_gradients(found_gradient, gradient, relative=steep, what=f"{name}, {dtype}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("normalize", [False, True])
def test_a_hinge_on_its_limit_has_no_gradient(normalize, backend):
    """Right elbow with E = -1, a multiple of the tolerance's unit, and a straight arm with E = 0."""
    pred = torch.zeros(1, 1, 17, 3, dtype=torch.float64)
    pred[..., 14, 0], pred[..., 15, :], pred[..., 16, :] = 1, torch.tensor([1.0, 1, 0]), torch.tensor([1.0, 1, -1])
    weight = torch.zeros(1, 1, 17)
    weight[..., [8, 14, 15, 16]] = 1
    keywords = {"weight": weight, "normalize_bones": normalize, "backend": backend}
    for tolerance in (0.0, 0.5, 1.0, 2.0):
        value, gradient = value_and_grad(structloss.illegal_angle, pred, tolerance=tolerance, **keywords)
        u = max(1 - tolerance, 0)
        assert_close_values(value, u * math.exp(u), relative=1e-15)
        if u == 0:
            assert (gradient == 0).all()
        elif not normalize:  # right angles are the unit triple product's maximum, without a slope of their own
            assert (gradient != 0).any()
    legal, gradient = value_and_grad(structloss.illegal_angle, pred, handedness="left", **keywords)
    assert legal == 0 and (gradient == 0).all()
    pred[..., 16, :] = torch.tensor([1.0, 2, 0])
    straight, gradient = value_and_grad(structloss.illegal_angle, pred, **keywords)
    assert straight == 0 and (gradient == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_illegal_angle_continues_linearly_above_twenty(backend):
    pred = torch.zeros(1, 1, 17, 3, dtype=torch.float64)
    weight = torch.zeros(1, 1, 17)
    weight[..., [8, 14, 15, 16]] = 1
    for volume in (19.5, 20.0, 20.5, 1e7, 2.0**40):
        pred[..., 14, 0], pred[..., 15, :] = 1, torch.tensor([1.0, 1, 0])
        pred[..., 16, :] = torch.tensor([1.0, 1, -volume])
        value, gradient = value_and_grad(structloss.illegal_angle, pred, weight=weight, backend=backend)
        limited = min(volume, 20)
        slope = (1 + limited) * math.exp(limited)
        assert_close_values(value, limited * math.exp(limited) + slope * (volume - limited), relative=1e-14)
        assert_close_values(gradient[0, 0, 16, 2], -slope, relative=1e-14)
        single, single_gradient = value_and_grad(structloss.illegal_angle, pred.float(), weight=weight, backend=backend)
        assert_close_values(single, value, relative=1e-5)
        assert_close_gradients(single_gradient, gradient, relative=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bone_seen_once_has_no_variance(backend):
    """Rows with fewer than two weighted frames don't count, neither in the sum nor in the mean."""
    pred, _ = poses(2, 6, 17)
    weight = torch.zeros(2, 6, 17).double()
    weight[0, :, [0, 1]] = 1.0  # the right hip of the first clip: the one row that counts
    weight[0, 3, [4, 5]] = 0.7
    weight[1, 2] = 1.0
    lengths = (pred[0, :, 0] - pred[0, :, 1]).norm(dim=-1)
    for reduction in ("mean", "sum"):
        value, gradient = value_and_grad(
            structloss.limb_variance, pred, weight=weight, reduction=reduction, backend=backend
        )
        assert_close_values(value, lengths.var(), relative=1e-13)
        assert gradient[0, :, :2].abs().min() > 0 and (gradient[0, :, 2:] == 0).all() and (gradient[1] == 0).all()


# Weights, padding and what is not finite.


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_what_has_no_weight_has_no_effect_at_all(case, backend):
    name, options = CASES[case]
    pred, target = poses(2, 9, 17)
    weight = weights_of(2, 9, 17, kind="real")
    weight[0, 4, 15] = weight[1, :, 3] = weight[1, 8] = 0
    hidden = weight == 0
    results = []
    nan, inf = math.nan, math.inf
    for pred_junk, target_junk in ((0.0, 0.0), (nan, nan), (inf, -inf), (1e30, nan), (-1e38, 7.0)):
        junk_pred, junk_target = pred.clone(), target.clone()
        junk_pred[hidden], junk_target[hidden] = pred_junk, target_junk
        keywords = {"weight": weight, "backend": backend, **options}
        results.append(value_and_grad(functools.partial(call, name), junk_pred, junk_target, **keywords))
    value, gradient = results[0]
    assert value > 0 and (gradient[hidden] == 0).all()
    for other, other_gradient in results[1:]:
        assert other == value and torch.equal(other_gradient, gradient)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_nan_gives_nan(case, weighted, backend):
    name, options = CASES[case]
    weight = torch.rand(2, 9, 17).double() + 0.1 if weighted else None
    for dtype in RELATIVE:
        for where in ("pred",) if name in terms.WITHOUT_TARGET else ("pred", "target"):
            for frame in (0, 5, 8):
                for channel in range(3):
                    pred, target = poses(2, 9, 17)
                    (pred if where == "pred" else target)[1, frame, 15, channel] = math.nan
                    value = call(name, pred.to(dtype), target.to(dtype), weight=weight, backend=backend, **options)
                    assert value.isnan(), f"{where}, {dtype}, frame {frame}, channel {channel}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_infinities_end_and_give_no_plausible_number(case, backend):
    name, options = CASES[case]
    for where in ("pred",) if name in terms.WITHOUT_TARGET else ("pred", "target"):
        for value in (math.inf, -math.inf):
            pred, target = poses(2, 9, 17)
            (pred if where == "pred" else target)[0, 3, 15] = value
            found, _ = value_and_grad(functools.partial(call, name), pred, target, backend=backend, **options)
            assert not found.isfinite()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_padding_drops_out_exactly(reduction, backend):
    """A padded clip gives the loss and gradient of the clip without padding, whatever the padding holds."""
    pred, target = poses(2, 20, 17)
    pad = torch.full((2, 9, 17, 3), math.nan, dtype=torch.float64)
    weight = torch.cat([torch.ones(2, 20, 17), torch.zeros(2, 9, 17)], 1).double()
    padded = torch.cat([pred, pad], 1), torch.cat([target, pad], 1)
    for name in ALL:
        keywords = {"reduction": reduction, "backend": backend}
        value, gradient = value_and_grad(functools.partial(call, name), pred, target, **keywords)
        found, found_gradient = value_and_grad(functools.partial(call, name), *padded, weight=weight, **keywords)
        if name == "weighted_mpjpe" and reduction == "mean":  # divides by the joints, not by their weights
            found, found_gradient = found * 29 / 20, found_gradient * 29 / 20
        assert_close_values(found, value, relative=1e-14, what=name)
        assert_close_gradients(found_gradient[:, :20], gradient, relative=1e-14, what=name)
        assert (found_gradient[:, 20:] == 0).all(), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_may_be_boolean_and_broadcast(backend):
    pred, target = poses(2, 9, 17)
    for mask in (torch.rand(2, 9, 1) > 0.3, torch.rand(17) > 0.2, torch.randint(3, (9, 17))):
        weight = mask.expand(2, 9, 17).double()
        reference = objective_reference(pred, target, ALL, weight)
        leaf = pred.clone().requires_grad_()
        found = structloss.objective(leaf, target, ALL, weight=mask, backend=backend)
        (gradient,) = torch.autograd.grad(found.total, leaf)
        assert_close_values(found.total, reference[0], relative=1e-12)
        assert_close_gradients(gradient, reference[2], relative=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_scaling_all_weights(case, backend):
    """Means divide by weights to the power that they enter with; those over joints or frames don't."""
    name, options = CASES[case]
    pred, target = poses(2, 9, 17)
    weight = weights_of(2, 9, 17, kind="real")
    power = {"weighted_mpjpe": 1, "bone_symmetry": 4, "illegal_angle": 4}.get(name, 0)
    once, twice = (call(name, pred, target, weight=k * weight, backend=backend, **options) for k in (1, 2))
    assert_close_values(twice, 2**power * once, relative=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 27, 17), (2, 0, 17), (0, 0, 17), (0, 3, 27, 17), (3, 0, 4, 17)])
def test_empty_is_zero(shape, backend):
    pred, target = torch.zeros(*shape, 3), torch.zeros(*shape, 3)
    for weight in (None, torch.ones(shape)):
        for reduction in ("mean", "sum"):
            value, gradient = value_and_grad(
                structloss.objective, pred, target, ALL, weight=weight, reduction=reduction, backend=backend
            )
            assert value == 0 and gradient.shape == pred.shape
            for case, (name, options) in CASES.items():
                found = call(name, pred, target, weight=weight, reduction=reduction, backend=backend, **options)
                assert found == 0, case


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_joints_is_zero(backend):
    pred = torch.zeros(2, 27, 0, 3)
    for name in NOT_OF_A_BODY:
        value, gradient = value_and_grad(functools.partial(call, name), pred, pred, backend=backend)
        assert value == 0 and gradient.shape == pred.shape, name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_no_weight_at_all_is_zero(case, backend):
    name, options = CASES[case]
    pred, target = poses(2, 9, 17)
    for reduction in ("mean", "sum"):
        value, gradient = value_and_grad(
            functools.partial(call, name),
            *(pred * math.nan, target),
            weight=torch.zeros(2, 9, 17),
            reduction=reduction,
            backend=backend,
            **options,
        )
        assert value == 0 and (gradient == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_frame_has_no_motion(backend):
    pred, target = poses(3, 1, 17)
    for name in ("velocity", "temporal_consistency", "limb_variance", "bone_angle_velocity"):
        value, gradient = value_and_grad(functools.partial(call, name), pred, target, backend=backend)
        assert value == 0 and (gradient == 0).all(), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides(backend):
    pred, target = poses(3, 14, 17)
    weight = weights_of(3, 14, 17, kind="real")
    reference = objective_reference(pred, target, ALL, weight, options=ALL_OPTIONS)
    wide = torch.randn(3, 28, 17, 4, dtype=torch.float64)
    strided_target = torch.as_strided(wide, pred.shape, wide[:, ::2, :, :3].stride()).copy_(target)
    strided_weight = weight.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for strided in (
        pred.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        pred.flip(1).contiguous().flip(1),
        torch.cat([pred, pred], -1)[..., :3],
    ):
        leaf = strided.requires_grad_()
        found = structloss.objective(
            leaf, strided_target, ALL, weight=strided_weight, options=ALL_OPTIONS, backend=backend
        )
        (gradient,) = torch.autograd.grad(found.total, leaf)
        assert_close_values(found.total, reference[0], relative=1e-12)
        assert_close_gradients(gradient, reference[2], relative=1e-12)
    expanded, _ = poses(1, 14, 17)
    found = structloss.objective(
        expanded.expand(3, 14, 17, 3), target[:1].expand(3, 14, 17, 3), ALL, weight=weight[:1].expand(3, 14, 17),
        backend=backend,
    )  # fmt: skip
    once = structloss.objective(expanded, target[:1], ALL, weight=weight[:1], backend=backend)
    assert_close_values(found.total, once.total, relative=1e-12)


# Real units. A standing body in metres, x right, y down, z forward; knees and elbows slightly bent.
STANDING = (
    (0, 0, 0), (-0.13, 0.01, 0), (-0.14, 0.45, -0.03), (-0.14, 0.89, 0.05), (0.13, 0.01, 0), (0.14, 0.45, -0.04),
    (0.14, 0.89, 0.06), (0, -0.22, 0.02), (0, -0.47, 0.01), (0, -0.55, -0.04), (0, -0.65, -0.02), (0.16, -0.44, 0.02),
    (0.24, -0.18, 0.05), (0.26, 0.04, -0.06), (-0.16, -0.44, 0.02), (-0.24, -0.18, 0.06), (-0.25, 0.05, -0.05),
)  # fmt: skip


def standing(batch, frames, wobble=0.03):
    """Moving bodies [batch, frames, 17, 3] around the origin; every second one mirrored, thus bent illegally."""
    body = torch.tensor(STANDING, dtype=torch.float64).expand(batch, frames, 17, 3)
    motion = torch.randn(batch, frames, 17, 3).double().cumsum(1) / frames**0.5
    signs = torch.tensor([[1.0, 1, 1], [-1, 1, 1]]).double()[torch.arange(batch) % 2]
    return (body + wobble * motion) * signs[:, None, None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("unit", [1.0, 1000.0], ids=["metres", "millimetres"])
@pytest.mark.parametrize("case", [case for case in CASES if "scale" not in case and "line" not in case])
def test_float32_survives_a_root_offset(case, unit, backend):
    """A nearly right prediction five metres from the origin: a millimetre loss must not drown in the offset."""
    name, options = CASES[case]
    if name == "illegal_angle":
        options = {**options, "scale": 1 / unit}
        if not options.get("normalize_bones"):
            options = {**options, "tolerance": options.get("tolerance", 0) / 100}
    target = standing(4, 81) + torch.tensor([0.3, -0.8, 5.0])
    pred = target + 0.001 * torch.randn(4, 81, 17, 3).double()
    pred, target = (pred * unit).float(), (target * unit).float()
    for weights in ("none", "real"):
        weight = weights_of(4, 81, 17, kind=weights)
        value, gradient = reference_value_and_grad(
            name, pred.double(), target.double(), None if weight is None else weight.float().double(), **options
        )
        assert value > 0
        found, found_gradient = value_and_grad(
            functools.partial(call, name),
            *(pred, target),
            weight=None if weight is None else weight.float(),
            backend=backend,
            **options,
        )
        assert_close_values(found, value, relative=1e-5)
        assert_close_gradients(found_gradient, gradient, relative=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_illegal_angle_of_millimetres_is_finite_without_a_scale(backend):
    pred = (standing(4, 9) * 1000).float()
    value, gradient = value_and_grad(structloss.illegal_angle, pred, backend=backend)
    assert value.isfinite() and gradient.isfinite().all() and value > 0
    in_metres = structloss.illegal_angle(pred / 1000, backend=backend)
    assert_close_values(structloss.illegal_angle(pred, scale=1e-3, backend=backend), in_metres, relative=1e-5)


@functools.cache
def bent(batch, frames):
    """Poses without straight limbs, where the definition in a half type divides by zero."""
    torch.manual_seed(0)
    target = torch.randn(60 * batch * frames, 17, 3).double() / 2
    pred = target + 0.05 * torch.randn_like(target)
    straightest = torch.zeros(len(target)).double()
    for pose in (pred, target):
        bones = [pose[:, parent] - pose[:, child] for parent, child in terms.H36M.bones]
        for i, j in terms.H36M.angles["all"]:
            cosine = torch.nn.functional.cosine_similarity(bones[i], bones[j], dim=-1)
            straightest = torch.maximum(straightest, cosine.abs())
    keep = straightest.argsort()[: batch * frames]
    assert straightest[keep].max() < 0.97
    return tuple(x[keep].reshape(batch, frames, 17, 3) for x in (pred, target))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", [case for case in CASES if "line" not in case])
def test_half_types_beat_their_own_arithmetic(case, dtype, backend):
    """No further from float64 than twice the error of the definition evaluated in the half type."""
    name, options = CASES[case]
    pred, target = (x.to(dtype) for x in bent(4, 16))
    weight = (0.5 + torch.rand(4, 16, 17)).to(dtype)  # no zeros: they would straighten what is left
    value, gradient = reference_value_and_grad(name, pred.double(), target.double(), weight.double(), **options)
    eager, eager_gradient = reference_value_and_grad(name, pred, target, weight, **options)
    found, found_gradient = value_and_grad(
        functools.partial(call, name), pred, target, weight=weight, backend=backend, **options
    )
    assert eager.dtype == dtype and found.dtype == torch.float32 and found_gradient.dtype == dtype
    assert eager.isfinite() and eager_gradient.isfinite().all() and value > 0, "the test's own premise"
    assert abs(found - value) <= 2 * abs(eager - value)
    assert (found_gradient.double() - gradient).norm() <= 2 * (eager_gradient.double() - gradient).norm()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_computed_in_float32(dtype, backend):
    pred, target = (x.to(dtype) for x in poses(2, 9, 17))
    keywords = {"options": ALL_OPTIONS, "backend": backend}
    value, gradient = value_and_grad(structloss.objective, pred, target, ALL, **keywords)
    single, single_gradient = value_and_grad(structloss.objective, pred.float(), target.float(), ALL, **keywords)
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    assert value == single and torch.equal(gradient, single_gradient.to(dtype))


@pytest.mark.slow
def test_a_million_frames():
    """One joint: both rankings and the velocity run in little memory, and the backends agree."""
    target = torch.randn(1, 1_000_000, 1, 3).cumsum(1) * 0.01
    pred = target + 0.1 * torch.randn_like(target)
    weights = {"depth_ranking_joints": 1.0, "depth_ranking_frames": 1.0, "velocity": 1.0, "temporal_consistency": 1.0}
    for dtype, relative in RELATIVE.items():
        results = []
        for backend in ("torch", "cpp") if structloss.backends()["cpp"] else ("torch",):
            leaf = pred.to(dtype).requires_grad_()
            found = structloss.objective(leaf, target.to(dtype), weights, backend=backend)
            (gradient,) = torch.autograd.grad(found.total, leaf)
            assert found.terms["depth_ranking_joints"] == 0
            results.append((found, gradient))
        step = (pred.double() - target.double()).diff(dim=1).norm(dim=-1).mean()
        for found, gradient in results:
            assert_close_values(found.terms["velocity"], step, relative=relative)
            assert_close_gradients(gradient, results[0][1], relative=relative)
            for name, value in found.terms.items():
                assert_close_values(value, results[0][0].terms[name], relative=relative, what=name)


# One term, several terms, no target.


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_the_objective_of_one_term_is_the_term(case, backend):
    name, options = CASES[case]
    pred, target = poses(2, 9, 17)
    weight = weights_of(2, 9, 17, kind="real")
    for reduction in ("mean", "sum"):
        keywords = {"weight": weight, "reduction": reduction, "backend": backend}
        value, gradient = value_and_grad(functools.partial(call, name), pred, target, **keywords, **options)
        total, total_gradient = value_and_grad(
            structloss.objective, pred, target, {name: 0.25}, options={name: options}, **keywords
        )
        assert_close_values(total, 0.25 * value, relative=1e-15)
        assert_close_gradients(total_gradient, 0.25 * gradient, relative=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@given(data=st.data())
@settings(max_examples=60)
def test_random_subsets_are_the_sums_of_their_terms(backend, data):
    """Of random terms with random options, on random shapes and masks with coincident joints and frames at rest."""
    names = data.draw(st.lists(st.sampled_from(list(ALL)), min_size=1, max_size=6, unique=True))
    cases = [data.draw(st.sampled_from([c for c, (n, _) in CASES.items() if n == name] or [None])) for name in names]
    options = {name: CASES[case][1] for name, case in zip(names, cases, strict=True) if case}
    weights = {name: data.draw(st.sampled_from([0.0, 0.03, 0.5, 1.0, 20.0])) for name in names}
    shape = (*data.draw(st.lists(st.integers(0, 3), max_size=2)), data.draw(st.integers(0, 40)), 17)
    reduction = data.draw(st.sampled_from(["mean", "sum"]))
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    pred, target = poses(*shape, kind=data.draw(st.sampled_from(["random", "coincident"])))
    weight = weights_of(*shape, kind=data.draw(st.sampled_from(["none", "mask", "real", "padding"])))
    reference = objective_reference(pred, target, weights, weight, reduction, options)
    keywords = {"weight": weight, "reduction": reduction, "backend": backend}
    check_objective(pred, target, weights, reference, dtypes={torch.float64: 1e-12}, options=options, **keywords)
    value, gradient = torch.zeros(()).double(), torch.zeros_like(pred)
    for name in names:
        one, one_gradient = value_and_grad(
            functools.partial(call, name), pred, target, **keywords, **options.get(name, {})
        )
        value, gradient = value + weights[name] * one, gradient + weights[name] * one_gradient
    assert_close_values(value, reference[0], relative=1e-12, absolute=1e-15)
    if pred.numel():
        assert_close_gradients(gradient, reference[2], relative=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_terms_without_a_target_need_none(backend):
    pred, target = poses(2, 9, 17)
    weights = {name: ALL[name] for name in ALL if name in terms.WITHOUT_TARGET}
    reference = objective_reference(pred, None, weights)
    for given_target in (None, target):  # one that is given is not looked at
        check_objective(pred, given_target, weights, reference, backend=backend)
    found = structloss.objective(pred, target * math.nan, weights, backend=backend).total
    assert_close_values(found, reference[0], relative=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_term_of_weight_zero_is_reported_and_adds_nothing(backend):
    pred, target = poses(2, 9, 17)
    weights = dict.fromkeys(ALL, 0.0) | {"velocity": 1.0}
    total, gradient = value_and_grad(structloss.objective, pred, target, weights, backend=backend)
    value, expected_gradient = value_and_grad(structloss.velocity, pred, target, backend=backend)
    assert total == value and torch.equal(gradient, expected_gradient)
    values = structloss.objective(pred, target, weights, backend=backend).terms
    assert all(value > 0 for value in values.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_joint_weights_may_be_a_tensor_and_weight_positional(backend):
    pred, target = poses(2, 9, 17)
    weight = weights_of(2, 9, 17, kind="real")
    expected_value = terms.weighted_mpjpe(pred, target, weight, joint_weight=MIXSTE)
    for factors in (MIXSTE, list(MIXSTE), torch.tensor(MIXSTE), torch.tensor(MIXSTE).numpy()):
        found = structloss.weighted_mpjpe(pred, target, weight, joint_weight=factors, backend=backend)
        assert_close_values(found, expected_value, relative=1e-12)


# Gradients by finite differences.


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("case", [case for case in CASES if "line" not in case])
def test_gradcheck(case, backend):
    name, options = CASES[case]
    pred, target = poses(2, 4, 17)
    weight = torch.rand(2, 4, 17).double() + 0.1
    assert torch.autograd.gradcheck(
        lambda p: call(name, p, target, weight=weight, backend=backend, **options),
        pred.requires_grad_(),
        fast_mode=True,
    )


@pytest.mark.parametrize("backend", FAST)
@given(data=st.data())
@settings(max_examples=12)
def test_gradcheck_of_random_subsets_and_their_weights(backend, data):
    names = data.draw(st.lists(st.sampled_from(list(ALL)), min_size=2, max_size=5, unique=True))
    learned = data.draw(st.sampled_from(names))
    weights = {name: ALL[name] for name in names}
    options = {name: ALL_OPTIONS[name] for name in names if name in ALL_OPTIONS}
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    pred, target = poses(1, 4, 17)

    def total(pred, lam):
        return structloss.objective(pred, target, {**weights, learned: lam}, options=options, backend=backend).total

    lam = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, (pred.requires_grad_(), lam), fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_of_lambda_is_the_value_of_its_term(backend):
    pred, target = poses(2, 9, 17)
    lambdas = {name: torch.tensor(value, requires_grad=True) for name, value in ALL.items()}
    result = structloss.objective(pred, target, lambdas, options=ALL_OPTIONS, backend=backend)
    (3 * result.total).backward()
    for name, lam in lambdas.items():
        assert_close_values(lam.grad, 3 * result.terms[name], relative=1e-6, what=name)


@pytest.mark.skipif(not structloss.backends()["cpp"], reason="no compiled module")
@pytest.mark.parametrize("shape", [(1, 243, 17), (3, 300, 17), (9, 50, 17)])
def test_cpp_is_bitwise_the_same_for_any_number_of_threads(shape):
    pred, target = (x.float() for x in poses(*shape))
    weight = weights_of(*shape, kind="real").float()
    threads = torch.get_num_threads()
    try:
        for keywords in ({}, {"weight": weight, "reduction": "sum", "options": ALL_OPTIONS}):
            results = []
            for count in (1, 2, 3, 1, 2):
                torch.set_num_threads(count)
                leaf = pred.clone().requires_grad_()
                found = structloss.objective(leaf, target, ALL, backend="cpp", **keywords)
                (gradient,) = torch.autograd.grad(found.total, leaf)
                results.append((torch.stack([found.total.detach(), *found.terms.values()]), gradient))
            for values, gradient in results[1:]:
                assert torch.equal(values, results[0][0]) and torch.equal(gradient, results[0][1])
    finally:
        torch.set_num_threads(threads)


# Modules.

MODULES = {
    "mpjpe": "MPJPE",
    "weighted_mpjpe": "WeightedMPJPE",
    "n_mpjpe": "NMPJPE",
    "velocity": "Velocity",
    "temporal_consistency": "TemporalConsistency",
    "bone_symmetry": "BoneSymmetry",
    "illegal_angle": "IllegalAngle",
    "bone_ratio": "BoneRatio",
    "limb_length": "LimbLength",
    "limb_variance": "LimbVariance",
    "bone_angle": "BoneAngle",
    "bone_angle_velocity": "BoneAngleVelocity",
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_modules_are_their_functions(case, backend):
    name, options = CASES[case]
    skeleton = {}
    if name in terms.OF_A_BODY:
        skeleton = {"skeleton": "mpi_inf_3dhp"}
    pred, target = poses(2, 9, 17)
    weight = weights_of(2, 9, 17, kind="real")
    arguments = (pred,) if name in terms.WITHOUT_TARGET else (pred, target)
    for reduction in ("mean", "sum"):
        module = getattr(structloss.nn, MODULES[name])(**options, **skeleton, reduction=reduction, backend=backend)
        keywords = {"reduction": reduction, "backend": backend, **options, **skeleton}
        assert module(*arguments) == call(name, pred, target, **keywords)
        weighted = call(name, pred, target, weight=weight, **keywords)
        assert module(*arguments, weight) == module(*arguments, weight=weight) == weighted
        assert pickle.loads(pickle.dumps(module))(*arguments, weight) == weighted
        assert not list(module.parameters()) and reduction in repr(module)
        assert all(str(value) in repr(module) for value in (*options, *skeleton.values()))
    default = getattr(structloss.nn, MODULES[name])()
    assert default(*arguments) == call(name, pred, target)


@pytest.mark.parametrize("backend", BACKENDS)
def test_objective_module(backend):
    pred, target = poses(2, 9, 17)
    weight = weights_of(2, 9, 17, kind="real")
    keywords = {"skeleton": "mpi_inf_3dhp", "options": ALL_OPTIONS, "reduction": "sum", "backend": backend}
    expected_result = structloss.objective(pred, target, ALL, weight=weight, **keywords)
    module = structloss.nn.Objective(ALL, **keywords)
    for found in (module(pred, target, weight), copy.deepcopy(module)(pred, target, weight=weight)):
        assert found.total == expected_result.total and found.terms == expected_result.terms
    anatomical = structloss.nn.Objective({"bone_symmetry": 1.0}, backend=backend)
    assert anatomical(pred, None).total == structloss.bone_symmetry(pred, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_learned_weights(backend):
    pred, target = (x.float() for x in poses(2, 9, 17))
    weight = weights_of(2, 9, 17, kind="real").float()
    keywords = {"skeleton": "mpi_inf_3dhp", "options": ALL_OPTIONS, "reduction": "mean", "backend": backend}
    module = structloss.nn.LearnedWeights(ALL, **keywords)
    assert isinstance(module, structloss.nn.Objective)
    assert [name for name, _ in module.named_parameters()] == ["log_variance"]
    assert module.log_variance.shape == (len(ALL),) and (module.log_variance == 0).all()

    plain, plain_gradient = value_and_grad(structloss.objective, pred, target, ALL, weight=weight, **keywords)
    start, gradient = value_and_grad(module, pred, target, weight)
    assert_close_values(start, plain, relative=1e-6)
    assert_close_gradients(gradient, plain_gradient, relative=1e-6)

    with torch.no_grad():
        module.log_variance.copy_(torch.linspace(-1, 1, len(ALL)))
    leaf = pred.clone().requires_grad_()
    result = module(leaf, target, weight)
    result.total.backward()
    log_variance = module.log_variance.detach()
    lambdas = {k: start * math.exp(-s) for (k, start), s in zip(ALL.items(), log_variance.tolist(), strict=True)}
    plain, plain_gradient = value_and_grad(structloss.objective, pred, target, lambdas, weight=weight, **keywords)
    assert_close_values(result.total, plain + log_variance.sum(), relative=1e-6)
    assert_close_gradients(leaf.grad, plain_gradient, relative=1e-6)
    for slope, (name, lam) in zip(module.log_variance.grad.tolist(), lambdas.items(), strict=True):
        assert slope == pytest.approx(1 - lam * float(result.terms[name]), rel=1e-5, abs=1e-5), name

    again = structloss.nn.LearnedWeights(ALL, **keywords)
    again.load_state_dict(module.state_dict())
    for other in (again, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other(pred, target, weight).total == result.total


@pytest.mark.parametrize("backend", BACKENDS)
def test_learned_weights_go_to_one_over_the_term(backend):
    """With fixed poses the optimum is lambda_k = 1 / L_k, from wherever it starts."""
    pred, target = (x.float() for x in poses(2, 9, 17))
    names = ["mpjpe", "velocity", "bone_symmetry"]
    for weights in (names, iter(names), {"mpjpe": 3.0, "velocity": 0.1, "bone_symmetry": 1}):
        start = weights if isinstance(weights, dict) else dict.fromkeys(names, 1.0)
        module = structloss.nn.LearnedWeights(weights, backend=backend)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        for _ in range(60):
            optimizer.zero_grad()
            result = module(pred, target)
            result.total.backward()
            optimizer.step()
        values = {name: float(value) for name, value in result.terms.items()}
        for name, s in zip(names, module.log_variance.tolist(), strict=True):
            assert start[name] * math.exp(-s) == pytest.approx(1 / values[name], rel=1e-4)
        minimum = sum(1 + math.log(start[name] * values[name]) for name in names)
        assert float(result.total.detach()) == pytest.approx(minimum, rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_trains_with_learned_weights(backend):
    target = torch.randn(4, 9, 17, 3)
    model = torch.nn.Linear(2, 3)
    loss = structloss.nn.LearnedWeights(["mpjpe", "velocity", "bone_angle", "bone_symmetry"], backend=backend)
    groups = [{"params": model.parameters()}, {"params": loss.parameters(), "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    before = [x.detach().clone() for x in (*model.parameters(), *loss.parameters())]
    totals = []
    for _ in range(30):
        optimizer.zero_grad()
        total = loss(model(target[..., :2]), target).total
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < totals[0]
    assert all((a != b).any() for a, b in zip(before, (*model.parameters(), *loss.parameters()), strict=True))
