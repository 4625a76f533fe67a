"""Structural metrics: lengths, symmetry, spread, proportions and illegal angles."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fill import fill_input
from hypothesis import given
from hypothesis import strategies as st

from structloss import functional, metrics, skeletons
from structloss.errors import ArgumentError, DtypeError, UnknownNameError

GOLDEN = np.load(Path(__file__).parent / "golden" / "scores.npz")
H36M = skeletons.get("h36m")
NAN = math.nan

# Golden rows are pelvis-hip, thigh, shin, clavicle, upper arm, forearm; ours are the limbs first, then the girdle.
PAIR_ORDER = [1, 2, 4, 5, 0, 3]
LIMB_ORDER = [1, 0, 3, 2]  # golden: left arm, right arm, left leg, right leg; ours: right before left

# name -> call of a metric that needs no target
UNTARGETED = {
    "lse": metrics.lse,
    "lse relative": lambda pred, **k: metrics.lse(pred, relative=True, **k),
    "lse limbs": lambda pred, **k: metrics.lse(pred, level="limb", **k),
    "bone_length_spread": metrics.bone_length_spread,
    "bplp_c": metrics.bplp_c,
    "illegal_angle_rate": lambda pred, **k: metrics.illegal_angle_rate(pred, flexion=5.0, **k),
}
TARGETED = {
    "bsle": metrics.bsle,
    "bsle relative": lambda *a, **k: metrics.bsle(*a, relative=True, **k),
    "lle": metrics.lle,
}


def poses(*shape, seed=0):
    pred, target = torch.randn(2, *shape, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return pred, target


def some_weight(*shape, seed=1):
    w = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(w < 0.25, 0.0, w)


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def call(name, pred, target, **given):
    return UNTARGETED[name](pred, **given) if name in UNTARGETED else TARGETED[name](pred, target, **given)


@pytest.fixture(scope="module")
def published():
    return tuple(torch.from_numpy(fill_input(n, (4, 27, 17, 3))).double() for n in ("loss-pred", "loss-gt"))


# Published figures


def test_lse(published):
    pred, target = published
    close(metrics.lse(pred), GOLDEN["lse"])
    close(metrics.lse(target), GOLDEN["lse_gt"])
    close(metrics.lse(pred, reduction="none"), GOLDEN["lse_per_frame"])
    close(metrics.lse(pred, reduction="pairs"), GOLDEN["lse_per_pair"][PAIR_ORDER])
    close(metrics.lse(pred, relative=True), GOLDEN["lse_relative"])
    close(metrics.lse(pred, level="limb"), GOLDEN["lse_limb"])
    close(metrics.lse(pred, level="limb", relative=True), GOLDEN["lse_limb_relative"])
    # The loss sums the pairs, the metric means them.
    close(metrics.lse(pred), functional.bone_symmetry(pred, pairs="six") / 6)


def test_limb_symmetry(published):
    limbs = metrics.limb_symmetry(published[0])
    close(limbs, GOLDEN["lse_per_pair"][[1, 2, 4, 5]])
    close(limbs.sum(), GOLDEN["symmetry"])
    assert len(metrics.LIMBS) == 4
    hand_made = torch.from_numpy(GOLDEN["poses__xyz_m"])
    close(4 * metrics.lse(hand_made, group="limbs", reduction="none"), GOLDEN["poses__symmetry"], 1e-15)


def test_bsle_and_lle(published):
    close(metrics.bsle(*published), GOLDEN["bsle"])
    close(metrics.bsle(*published, reduction="bones"), GOLDEN["bsle_per_bone"])
    close(metrics.bsle(*published, reduction="none"), GOLDEN["bsle_per_frame"])
    close(metrics.bsle(*published, relative=True), GOLDEN["bsle_relative"])
    close(metrics.bsle(*published), functional.limb_length(*published))
    close(metrics.lle(*published), GOLDEN["lle"])
    close(metrics.lle(*published, reduction="limbs"), GOLDEN["lle_per_limb"][LIMB_ORDER])
    close(metrics.lle(*published, reduction="none"), GOLDEN["lle_per_frame"])
    close(metrics.lle(*published, relative=True), GOLDEN["lle_relative"])


def test_bone_length_spread(published):
    close(metrics.bone_length_spread(published[0]), GOLDEN["bone_length_std"])
    lengths = GOLDEN["get_limb_lens"].std(axis=1, ddof=1)
    close(metrics.bone_length_spread(published[0], reduction="none"), lengths.mean(1))
    close(metrics.bone_length_spread(published[0], reduction="bones"), lengths.mean(0))


def test_bplp_c_on_15_image_joints():
    parent = [8, 0, 1, 2, 0, 4, 5, 7, 8, 7, 9, 10, 7, 12, 13]
    parts = [(joint, parent[joint]) for joint in range(15) if joint not in (7, 8)]
    image = torch.from_numpy(GOLDEN["shape_pred"])
    found = metrics.bplp_c(image, parts=parts)
    assert found.item() == pytest.approx(GOLDEN["shape_bplp_c"], rel=1e-10)
    assert found.item() == pytest.approx(1 / GOLDEN["shape_mean_sigma"], rel=1e-10)
    with pytest.raises(ArgumentError, match=r"expected \[\.\.\., T, J, 3\]"):
        metrics.bplp_c(image)


def test_illegal_angles_of_hand_made_poses():
    names = [str(name) for name in GOLDEN["poses__name"]]
    pose = torch.from_numpy(GOLDEN["poses__xyz_m"])
    shares = metrics.illegal_angle_rate(pose, reduction="none")
    expected = {"straight": 0, "all_legal": 0, "all_illegal": 1}
    for name, share in zip(names, shares.tolist(), strict=True):
        single = sum(side in name for side in ("left", "right")) and "all" not in name
        if name in expected:
            assert share == expected[name], name
        elif single:
            assert share == (0.25 if name.startswith("illegal") else 0), name
        else:
            assert share in (0, 1), name
    assert {"straight", "all_legal", "all_illegal"} <= set(names)
    # Mirrored coordinates are a left-handed frame.
    mirrored = pose * torch.tensor([-1.0, 1.0, 1.0])
    close(metrics.illegal_angle_rate(mirrored, handedness="left", reduction="none"), shares, 0)


@pytest.mark.parametrize("unit", [False, True])
def test_illegal_angles_against_the_published_triple_products(published, unit):
    product = GOLDEN["triple_product_unit" if unit else "triple_product"]  # rows: right, left elbow, right, left knee
    legal = np.array([1, -1, -1, 1])
    for tolerance in (0.0, 0.1):
        expected = (-product * legal > tolerance).mean((0, 1))
        found = metrics.illegal_angle_rate(
            published[0], flexion=0.0, tolerance=tolerance, normalize_bones=unit, reduction="hinges"
        )
        close(found, expected, 0)
        assert 0.1 < expected.mean() < 0.6
    if not unit:  # the same volume in millimetres
        found = metrics.illegal_angle_rate(
            1000 * published[0], flexion=0.0, tolerance=0.1, normalize_bones=False, scale=1e-3, reduction="hinges"
        )
        close(found, expected, 0)


def test_flexion_is_the_angle_between_upper_and_lower_limb(published):
    """The joint angle is arccos of the upper and lower limb's cosine, 0 when straight."""
    pose = published[0].numpy()
    bent = []
    for hinge in H36M.hinges:
        u, v = pose[..., hinge.e, :] - pose[..., hinge.s, :], pose[..., hinge.w, :] - pose[..., hinge.e, :]
        cosine = (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
        bent.append(np.degrees(np.arccos(cosine)))
    illegal = -GOLDEN["triple_product"] * np.array([1, -1, -1, 1]) > 0
    for flexion in (20.0, 60.0, 120.0):
        expected = (illegal & (np.stack(bent, -1) > flexion)).mean()
        assert metrics.illegal_angle_rate(published[0], flexion=flexion).item() == pytest.approx(expected, abs=1e-15)


def test_illegal_angles_of_real_motion(real_mocap):
    """The shares that were measured on the CMU clips, in per cent of frames."""
    from structloss.data import load_archive

    clips, _ = load_archive(real_mocap)
    pose = torch.from_numpy(np.concatenate([clip.positions for clip in clips]))
    assert len(pose) == 34_225

    def shares(**options):
        by_hinge = metrics.illegal_angle_rate(pose, reduction="hinges", **options)
        some = (metrics.illegal_angle_rate(pose, reduction="none", **options) > 0).double().mean()
        return [round(100 * share.item(), 2) for share in (*by_hinge, some)]

    assert shares(flexion=0.0) == pytest.approx([3.6, 1.0, 0.6, 0.5, 5.0], abs=0.051)
    assert shares() == pytest.approx([1.5, 0.8, 0.02, 0.03, 1.9], abs=0.051)
    litres = shares(flexion=0.0, tolerance=0.002, normalize_bones=False)
    assert litres[:4] == pytest.approx([0.6, 0, 0.01, 0], abs=0.051)
    assert shares(flexion=0.0, handedness="left")[:4] == pytest.approx([96.4, 99.0, 99.4, 99.5], abs=0.051)
    rigid = metrics.bone_length_spread(1000 * pose[None, :500], reduction="limbs")
    assert rigid.max() < 0.02, "limbs of motion capture keep their length"


# Definitions, joint by joint


def literal(skeleton, pred, target, w):
    """LSE and BSLE by loops over frames and bones: sums of weighted errors over sums of weights."""
    body = skeletons.get(skeleton)
    sums = {"lse": [0.0, 0.0], "bsle": [0.0, 0.0], "lle": [0.0, 0.0]}

    def length(pose, bone):
        return float(np.linalg.norm(pose[bone[0]] - pose[bone[1]]))

    def add(name, error, weight):
        if weight > 0:
            sums[name][0] += weight * error
            sums[name][1] += weight

    for p, g, v in zip(pred.reshape(-1, *pred.shape[-2:]), target.reshape(-1, *pred.shape[-2:]), w, strict=True):
        for left, right in body.symmetric_bones:
            add("lse", abs(length(p, left) - length(p, right)), np.prod([v[j] for j in (*left, *right)]))
        for bone in body.bones:
            add("bsle", abs(length(p, bone) - length(g, bone)), v[bone[0]] * v[bone[1]])
        for hinge in body.hinges:
            chain = ((hinge.s, hinge.e), (hinge.e, hinge.w))
            error = sum(length(p, b) for b in chain) - sum(length(g, b) for b in chain)
            add("lle", abs(error), v[hinge.s] * v[hinge.e] * v[hinge.w])
    return {name: total / count for name, (total, count) in sums.items()}


@pytest.mark.parametrize("skeleton", skeletons.names())
def test_every_skeleton_with_weights(skeleton):
    joints = skeletons.get(skeleton).num_joints
    pred, target = poses(2, 3, joints)
    w = some_weight(2, 3, joints)
    expected = literal(skeleton, pred.numpy(), target.numpy(), w.reshape(6, joints).numpy())
    close(metrics.lse(pred, skeleton=skeleton, weight=w), expected["lse"])
    close(metrics.bsle(pred, target, skeleton=skeleton, weight=w), expected["bsle"])
    close(metrics.lle(pred, target, skeleton=skeleton, weight=w), expected["lle"])
    groups = {name: metrics.lse(pred, skeleton=skeleton, group=name) for name, _ in _groups(skeleton)}
    sizes = [len(pairs) for _, pairs in _groups(skeleton)]
    mean = sum(n * g for n, g in zip(sizes, groups.values(), strict=True)) / sum(sizes)
    close(metrics.lse(pred, skeleton=skeleton), mean)
    assert 0 <= metrics.illegal_angle_rate(pred, skeleton=skeleton) <= 1
    assert metrics.bone_length_spread(pred, skeleton=skeleton, reduction="limbs").shape == (4,)


def _groups(skeleton):
    return skeletons.get(skeleton).symmetric_groups


def test_limb_spread_is_that_of_both_sides(published):
    pred = published[0]
    bones = metrics.bone_length_spread(pred, reduction="bones")
    thigh = [H36M.bones.index((2, 1)), H36M.bones.index((5, 4))]
    forearm = [H36M.bones.index((13, 12)), H36M.bones.index((16, 15))]
    limbs = metrics.bone_length_spread(pred, reduction="limbs")
    close(limbs[[0, 3]], torch.stack([bones[thigh].mean(), bones[forearm].mean()]))


def test_spread_weighs_clips_by_their_visible_frames():
    pred, _ = poses(2, 9, 17)
    w = torch.ones(2, 9, 1)
    w[1, 5:] = 0
    first, second = metrics.bone_length_spread(pred[:1]), metrics.bone_length_spread(pred[1:, :5])
    close(metrics.bone_length_spread(pred, weight=w), (9 * first + 5 * second) / 14)
    w[1, 1:] = 0  # a single frame has no spread
    close(metrics.bone_length_spread(pred, weight=w), first)
    assert metrics.bone_length_spread(pred, weight=w, reduction="none")[1].isnan()
    assert metrics.bone_length_spread(pred[:, :1]).isnan()


@given(st.integers(0, 10**6))
def test_weighted_spread_against_numpy(seed):
    """Whole weights count a frame several times, up to the loss of one degree of freedom a frame, not a copy."""
    rng = np.random.default_rng(seed)
    values, w = rng.normal(size=7), rng.random(7)
    w[rng.random(7) < 0.3] = 0
    pose = torch.zeros(1, 7, 17, 3, dtype=torch.float64)
    pose[0, :, 3, 0] = torch.from_numpy(2 + np.tanh(values))  # the right shin alone changes its length
    pose[0, :, 1:3] = 0
    weight = torch.zeros(1, 7, 17)
    weight = torch.from_numpy(w).reshape(1, 7, 1).expand(1, 7, 17).sqrt()  # a bone weighs the product of its ends
    found = metrics.bone_length_spread(pose, weight=weight, reduction="bones")[2]
    if (w > 0).sum() < 2:
        assert found.isnan()
        return
    expected = np.cov(2 + np.tanh(values), aweights=w, ddof=1)
    assert found.item() == pytest.approx(math.sqrt(expected), rel=1e-7)


def test_small_spreads_of_long_bones_do_not_cancel():
    pose = torch.zeros(1, 400, 17, 3, dtype=torch.float64)
    wobble = 1e-6 * torch.randn(400, dtype=torch.float64)
    pose[0, :, 3, 0] = 1e4 + wobble
    found = metrics.bone_length_spread(pose, reduction="bones")[2].item()
    assert found == pytest.approx(wobble.std().item(), rel=1e-5)


def test_proportions_that_stay_are_infinitely_consistent():
    pred, _ = poses(1, 1, 17)
    sizes = torch.linspace(0.5, 3, 50, dtype=torch.float64)[:, None, None]
    turned = (sizes * pred) @ torch.linalg.qr(poses(50, 3)[0])[0]
    assert metrics.bplp_c(turned) == math.inf
    assert metrics.bplp_c(turned.expand(2, 50, 17, 3)) == math.inf
    bent = turned.clone()
    bent[0, 10, 3] *= 1.001
    assert 1e2 < metrics.bplp_c(bent) < math.inf
    assert metrics.bplp_c(turned[:, :1]).isnan(), "one frame has no deviation"


def test_bplp_c_of_h36m_by_hand():
    pred, _ = poses(3, 5, 17)
    pose = pred.reshape(-1, 17, 3).numpy()
    bones = [(8, 0), (1, 0), (2, 1), (3, 2), (4, 0), (5, 4), (6, 5), (14, 8), (15, 14), (16, 15), (11, 8), (12, 11)]
    bones.append((13, 12))
    length = np.stack([np.linalg.norm(pose[:, a] - pose[:, b], axis=-1) for a, b in bones], -1)
    expected = 1 / (length / length[:, :1]).std(axis=0, ddof=1).mean()
    close(metrics.bplp_c(pred), expected)
    shortest = np.sort(length[:, 0])
    kept = length[length[:, 0] >= shortest[4]]
    close(
        metrics.bplp_c(pred, min_torso=float(shortest[4])),
        1 / (kept / kept[:, :1]).std(axis=0, ddof=1).mean(),
    )


def test_frames_without_a_torso_drop_out():
    pred, _ = poses(2, 9, 17)
    flat = torch.cat([pred, pred[:, :1]], 1)
    flat[:, -1, 8] = flat[:, -1, 0]
    close(metrics.bplp_c(flat), metrics.bplp_c(pred))


def test_relative_lengths_of_nothing():
    """No difference is 0 % of any length; a bone that should have none is infinitely wrong."""
    pose = torch.zeros(1, 2, 17, 3)
    assert metrics.bsle(pose, pose, relative=True) == 0 and metrics.lse(pose, relative=True) == 0
    assert metrics.bsle(pose + torch.rand(17, 3), pose, relative=True) == math.inf


# General behaviour

NAMES = [*UNTARGETED, *TARGETED]


@pytest.mark.parametrize("name", NAMES)
def test_hidden_joints_drop_out_and_visible_nan_stays(name):
    pred, target = poses(2, 6, 17)
    w = some_weight(2, 6, 17)
    expected = call(name, pred, target, weight=w)
    assert expected.isfinite()
    hidden = (w == 0)[..., None]
    for junk in (NAN, math.inf, 1e300):
        found = call(name, pred.masked_fill(hidden, junk), target.masked_fill(hidden, -junk), weight=w)
        close(found, expected, 0)
    broken = pred.clone()
    broken[0, 0, 15] = NAN  # an elbow: part of every metric
    assert call(name, broken, target).isnan()


@pytest.mark.parametrize("name", NAMES)
def test_shapes_dtypes_and_strides(name):
    pred, target = poses(2, 3, 5, 17)
    expected = call(name, pred, target)
    assert expected.shape == () and expected.dtype == torch.float64
    close(call(name, pred.reshape(6, 5, 17, 3), target.reshape(6, 5, 17, 3)), expected)
    assert call(name, pred[0, 0], target[0, 0]).isfinite()
    strided, other = (x.permute(4, 3, 1, 0, 2).contiguous().permute(3, 2, 4, 1, 0) for x in (pred, target))
    assert not strided.is_contiguous()
    close(call(name, strided, other), expected, 1e-15)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        low = call(name, pred.to(dtype), target.to(dtype))
        assert low.dtype == torch.float64
        assert low == call(name, pred.to(dtype).double(), target.to(dtype).double())
    assert not call(name, pred.requires_grad_(), target).requires_grad


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(0, 5, 17), (2, 0, 17)])
def test_nothing_scored_is_nan(name, shape):
    assert call(name, *poses(*shape)).isnan()
    assert call(name, *poses(2, 5, 17), weight=torch.zeros(17)).isnan()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "illegal_angle_rate"])
def test_units_scale_the_result(name):
    pred, target = poses(2, 5, 17)
    factor = 1 if "relative" in name or name == "bplp_c" else 1000
    close(call(name, 1000 * pred, 1000 * target), factor * call(name, pred, target), 1e-11)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pred": torch.zeros(2, 5, 16, 3)}, ArgumentError, r"expected (17 joints|.*the shape of pred)"),
        ({"pred": torch.zeros(2, 5, 17, 2)}, ArgumentError, r"expected \[\.\.\., T, J, 3\]"),
        ({"pred": torch.zeros(17, 3)}, ArgumentError, r"pred has shape \[17, 3\]"),
        ({"pred": torch.zeros(2, 5, 17, 3, dtype=torch.int32)}, DtypeError, "pred has dtype torch.int32"),
        ({"pred": np.zeros((2, 5, 17, 3))}, DtypeError, r"pred is a numpy array.*torch\.from_numpy\(pred\)"),
        ({"weight": torch.full((17,), -1.0)}, ArgumentError, "weight has the value -"),
        ({"weight": torch.ones(5)}, ArgumentError, r"expected \[2, 5, 17\]"),
        ({"skeleton": "h36n"}, UnknownNameError, "unknown skeleton 'h36n': did you mean 'h36m'"),
    ],
)
def test_bad_arguments(name, change, error, message):
    arguments = {"pred": torch.zeros(2, 5, 17, 3), **change}
    with pytest.raises(error, match=message) as caught:
        call(name, arguments.pop("pred"), torch.zeros(2, 5, 17, 3), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "change", "message"),
    [
        (metrics.lse, {"level": "finger"}, "level is 'finger', expected one of 'bone', 'limb'"),
        (metrics.lse, {"group": "hands"}, "group is 'hands', expected one of 'limbs', 'girdle'"),
        (metrics.lse, {"group": "limbs", "level": "limb"}, "group is 'limbs', expected None with level 'limb'"),
        (metrics.lse, {"reduction": "bones"}, "expected one of 'mean', 'none', 'pairs'"),
        (metrics.bone_length_spread, {"reduction": "pairs"}, "expected one of 'mean', 'none', 'bones', 'limbs'"),
        (metrics.illegal_angle_rate, {"flexion": 180}, "flexion is 180, expected degrees from 0 to below 180"),
        (metrics.illegal_angle_rate, {"tolerance": -1.0}, "tolerance"),
        (metrics.illegal_angle_rate, {"handedness": "both"}, "handedness"),
        (metrics.illegal_angle_rate, {"reduction": "joints"}, "expected one of 'mean', 'none', 'hinges'"),
        (metrics.bplp_c, {"min_torso": -1}, "min_torso is -1"),
        (metrics.bplp_c, {"parts": [(0, 8)]}, "parts is malformed"),
        (metrics.bplp_c, {"parts": [(0, 8), (1, 1)]}, "parts is malformed"),
        (metrics.bplp_c, {"parts": [(0, 8), (1, 17)]}, "expected at least 18 joints"),
        (metrics.bplp_c, {"skeleton": "coco"}, "skeleton is 'coco', expected one with a pelvis and a thorax joint"),
    ],
)
def test_bad_options(function, change, message):
    with pytest.raises(ArgumentError, match=message):
        function(torch.zeros(2, 5, 17, 3), **change)


# Classes with more than one number; those with one are compared with their functions in test_metrics.py


@pytest.mark.parametrize(
    ("cls", "function", "reduction"),
    [
        (metrics.LSE, metrics.lse, "pairs"),
        (metrics.BSLE, metrics.bsle, "bones"),
        (metrics.LLE, metrics.lle, "limbs"),
        (metrics.IllegalAngleRate, metrics.illegal_angle_rate, "hinges"),
        (metrics.BoneLengthSpread, metrics.bone_length_spread, "bones"),
        (metrics.BoneLengthSpread, metrics.bone_length_spread, "limbs"),
    ],
)
def test_one_value_a_part(cls, function, reduction):
    pred, target = poses(4, 6, 17)
    w = some_weight(4, 6, 17)
    metric = cls(reduction=reduction)
    for p, t, v in zip(pred.split(3), target.split(3), w.split(3), strict=True):
        metric.update(p, t, v)
    given = (pred, target) if cls in (metrics.BSLE, metrics.LLE) else (pred,)
    close(metric.compute(), function(*given, weight=w, reduction=reduction))
    with pytest.raises(ArgumentError, match="reduction is 'none'"):
        cls(reduction="none")


def test_limb_symmetry_class():
    pred, _ = poses(4, 6, 17)
    metric = metrics.LimbSymmetry()
    metric.update(pred)
    close(metric.compute(), metrics.limb_symmetry(pred))
    metric = metrics.LSE("h3wb", group="hands", reduction="pairs")
    metric.update(poses(1, 2, 133)[0])
    assert metric.compute().shape == (16,)


def test_a_sequence_in_windows_is_one_sequence():
    """Overlap hidden by weights, windows in any order and batch: the spread of whole sequences."""
    pred, _ = poses(2, 30, 17)
    expected = metrics.bone_length_spread(pred)
    metric = metrics.BoneLengthSpread(sequences=True)
    order = torch.tensor([4, 0, 2, 5, 1, 3])
    windows, ids = pred.reshape(6, 10, 17, 3)[order], torch.tensor([-5, -5, -5, 10**12, 10**12, 10**12])[order]
    for part in ([0, 1], [2], [], [3, 4, 5]):
        metric.update(windows[part], sequence=ids[part])
    close(metric.compute(), expected)
    assert (metric.compute() - metrics.bone_length_spread(windows)).abs() > 1e-3
    single = metrics.BoneLengthSpread(sequences=True)  # a network of one pose a window
    for i in range(30):
        single.update(pred[:, i : i + 1], sequence=torch.tensor([0, 1]))
    close(single.compute(), expected)
    with pytest.raises(ArgumentError, match="sequence is None, expected the sequence of each clip"):
        metric.update(windows)
    with pytest.raises(ArgumentError, match=r"sequence has shape \[2, 10\], expected \[2\], one per clip\."):
        metric.update(windows[:2], sequence=torch.zeros(2, 10, dtype=torch.long))
    metric.reset()
    metric.update(windows[:0], sequence=ids[:0])
    assert metric.compute().isnan()
    for part in ([0, 3], [1, 2, 4, 5]):  # forward gives the batch's value and keeps the rest
        metric(windows[part], sequence=ids[part])
    close(metric.compute(), expected)
    with pytest.raises(ArgumentError, match="sequence is given, expected None"):
        metrics.BoneLengthSpread().update(windows, sequence=ids)


def test_forward_gives_the_batch_and_keeps_the_rest():
    pred, _ = poses(4, 6, 17)
    for metric, function in (
        (metrics.BPLPC(), metrics.bplp_c),
        (metrics.BoneLengthSpread(), metrics.bone_length_spread),
    ):
        for part in (pred[:2], pred[2:]):
            close(metric(part), function(part))
        close(metric.compute(), function(pred))
        metric.reset()
        metric.update(pred[:0])
        assert metric.compute().isnan()
