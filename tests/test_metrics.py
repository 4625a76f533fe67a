"""The metrics against the published figures, independent oracles and their own invariances."""

import doctest
import itertools
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from golden.fill import fill_input
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from structloss import metrics
from structloss.errors import ArgumentError, DtypeError
from structloss.metrics import depth_order, procrustes

GOLDEN = np.load(Path(__file__).parent / "golden" / "metrics.npz")
NAN = float("nan")

POSITION = ["mpjpe", "pa_mpjpe", "n_mpjpe", "mpjve", "acceleration_error"]


def without_target(function):
    return lambda pred, target, weight=None, **kwargs: function(pred, weight=weight, **kwargs)


# function, its keyword arguments, class with the same arguments
PAIRS = {
    "mpjpe": (metrics.mpjpe, {"root": 0}, metrics.MPJPE),
    "mpjpe as given": (metrics.mpjpe, {}, metrics.MPJPE),
    "pa_mpjpe": (metrics.pa_mpjpe, {}, metrics.PAMPJPE),
    "n_mpjpe": (metrics.n_mpjpe, {"root": 3}, metrics.NMPJPE),
    "mpjve": (metrics.mpjve, {"root": 0}, metrics.MPJVE),
    "acceleration": (metrics.acceleration_error, {"root": 2}, metrics.AccelerationError),
    "pck": (metrics.pck, {"threshold": 1.5, "joints": (1, 5, 16), "root": 0}, metrics.PCK),
    "auc": (metrics.auc, {"thresholds": (0.5, 1.0, 2.0)}, metrics.AUC),
    "lse": (without_target(metrics.lse), {}, metrics.LSE),
    "lse limbs": (without_target(metrics.lse), {"level": "limb", "relative": True}, metrics.LSE),
    "bsle": (metrics.bsle, {}, metrics.BSLE),
    "lle": (metrics.lle, {"relative": True}, metrics.LLE),
    "spread": (without_target(metrics.bone_length_spread), {}, metrics.BoneLengthSpread),
    "bplp_c": (without_target(metrics.bplp_c), {}, metrics.BPLPC),
    "illegal angles": (without_target(metrics.illegal_angle_rate), {"flexion": 10.0}, metrics.IllegalAngleRate),
    "joints": (metrics.depth_order_accuracy, {"over": "joints"}, metrics.DepthOrderAccuracy),
    "frames": (metrics.depth_order_accuracy, {"over": "frames", "root": 0}, metrics.DepthOrderAccuracy),
}
per_pair = pytest.mark.parametrize(("function", "kwargs", "cls"), PAIRS.values(), ids=PAIRS)
per_function = pytest.mark.parametrize("name", [*POSITION, "depth_order_accuracy"])
# Sums of zeros and ones: exact, whatever order they are added in.
COUNTS = ["pck", "auc", "illegal angles", "joints", "frames"]


def poses(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    pred, target = torch.randn(2, *shape, 3, generator=generator, dtype=torch.float64).to(dtype)
    return pred, target


def weights(*shape, seed=1):
    """Positive weights with about a third of the entries zero."""
    w = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(w < 0.33, 0.0, w)


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance, equal_nan=True
    )


@pytest.fixture(scope="module")
def published():
    return tuple(torch.from_numpy(fill_input(n, (4, 27, 17, 3))).double() for n in ("loss-pred", "loss-gt"))


# Published figures


def test_golden_mpjpe(published):
    close(metrics.mpjpe(*published, reduction="none").flatten(), GOLDEN["mpjpe"], 1e-10)
    close(metrics.mpjpe(*published), GOLDEN["loss_mpjpe"], 1e-10)


def test_golden_weighted_mpjpe(published):
    w = (0.5 + torch.from_numpy(fill_input("loss-w", (4, 27, 17))).abs()).double()  # rounded to float32 as published
    # The published loss divides by the number of joints, the metric by the sum of the weights.
    close(metrics.mpjpe(*published, weight=w) * w.mean(), GOLDEN["weighted_mpjpe"], 1e-10)


def test_golden_pa_mpjpe(published):
    close(metrics.pa_mpjpe(*published, reduction="none").flatten(), GOLDEN["p_mpjpe"], 1e-10)
    close(metrics.pa_mpjpe(*published), GOLDEN["videopose3d_p_mpjpe"], 1e-10)


def test_golden_n_mpjpe(published):
    close(metrics.n_mpjpe(*published), GOLDEN["n_mpjpe"], 1e-10)


def test_golden_mpjve(published):
    close(metrics.mpjve(*published), GOLDEN["loss_velocity"], 1e-10)
    steps = metrics.mpjve(*published, reduction="none")
    assert steps.shape == (4, 26)
    close(steps.mean(-1), GOLDEN["videopose3d_mean_velocity_error"], 1e-10)


def test_golden_acceleration(published):
    golden = np.load(Path(__file__).parent / "golden" / "scores.npz")
    close(metrics.acceleration_error(*published, reduction="none"), golden["acc_error"])
    close(metrics.mpjpe(*published, reduction="joints"), golden["jpe"].mean(0))


# Procrustes


def oracle_pa(pred, target, w):
    """Per-frame Procrustes error by scipy's rotation fit and the closed-form scale."""
    keep = w > 0
    p, g, w = pred[keep], target[keep], w[keep]
    mean_p, mean_g = np.average(p, axis=0, weights=w), np.average(g, axis=0, weights=w)
    p, g = p - mean_p, g - mean_g
    rotation, _ = Rotation.align_vectors(g, p, weights=w)
    turned = rotation.apply(p)
    scale = (w[:, None] * turned * g).sum() / (w[:, None] * p * p).sum()
    return np.average(np.linalg.norm(scale * turned - g, axis=1), weights=w)


@pytest.mark.parametrize("weighted", [False, True])
def test_pa_mpjpe_against_scipy(weighted):
    pred, target = poses(3, 9, 17)
    w = weights(3, 9, 17) if weighted else torch.ones(3, 9, 17, dtype=torch.float64)
    found = metrics.pa_mpjpe(pred, target, weight=w if weighted else None, reduction="none")
    for frame in np.ndindex(3, 9):
        assert found[frame].item() == pytest.approx(
            oracle_pa(pred[frame].numpy(), target[frame].numpy(), w[frame].numpy()), rel=1e-9
        )


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.integers(3, 20))
@settings(max_examples=40, deadline=None)
def test_similar_poses_have_no_pa_error(seed, scale, joints):
    pred, _ = poses(2, 3, joints, seed=seed)
    rotation = torch.from_numpy(Rotation.random(random_state=seed).as_matrix())
    target = scale * (pred @ rotation) + torch.tensor([5.0, -3.0, 2.0])
    assert metrics.pa_mpjpe(pred, target) < 1e-12 * max(scale, 1) * 10
    close(procrustes.align(pred, target), target, 1e-10)


def test_mirrored_pose_is_not_matched():
    pred, _ = poses(2, 3, 17)
    mirrored = pred * torch.tensor([-1.0, 1.0, 1.0])
    assert metrics.pa_mpjpe(pred, mirrored, reduction="none").min() > 0.3
    flat = pred * torch.tensor([1.0, 1.0, 0.0])  # a flat pose is turned into its mirror image by half a rotation
    assert metrics.pa_mpjpe(flat, flat * torch.tensor([-1.0, 1.0, 1.0])) < 1e-13


def test_pa_mpjpe_is_at_most_any_other_similarity():
    pred, target = poses(4, 5, 17)
    best = ((procrustes.align(pred, target) - target) ** 2).sum((-2, -1))
    centred = pred - pred.mean(-2, keepdim=True) + target.mean(-2, keepdim=True)
    for seed in range(5):
        turn = torch.from_numpy(Rotation.random(random_state=seed).as_matrix())
        assert (best <= ((centred @ turn - target) ** 2).sum((-2, -1))).all()


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1.0, 1e30, 1e150])
def test_degenerate_and_extreme_poses_stay_finite(size):
    pred, target = (size * x for x in poses(1, 17))
    point = torch.full_like(pred, 0.1 * size)  # 0.1 is no binary fraction: centring leaves rounding noise
    spread = torch.linalg.vector_norm(target - target.mean(-2, keepdim=True), dim=-1).mean()
    assert metrics.pa_mpjpe(point, target) / size == pytest.approx(spread.item() / size, rel=1e-12)
    assert metrics.pa_mpjpe(pred, point) / size < 1e-14
    assert metrics.pa_mpjpe(point, point * 3) / size < 1e-14
    line = pred[..., :1] * torch.tensor([1.0, 2.0, -1.0])
    for a, b in ((pred, target), (line, target), (target, line), (line, 2 * line)):
        assert metrics.pa_mpjpe(a, b).isfinite()
    assert metrics.pa_mpjpe(line, -2 * line) / size < 1e-13


def test_one_or_two_scored_joints_fit_exactly():
    pred, target = poses(2, 3, 17)
    for kept in (1, 2):
        w = torch.zeros(17)
        w[3 : 3 + kept] = 1
        assert metrics.pa_mpjpe(pred, target, weight=w) < 1e-14


# Definitions


def test_n_mpjpe_by_hand():
    pred, target = poses(2, 3, 17)
    s = (pred * target).sum((-2, -1)) / (pred * pred).sum((-2, -1))
    close(metrics.n_mpjpe(pred, target), (s[..., None, None] * pred - target).norm(dim=-1).mean())
    assert metrics.n_mpjpe(pred, 7 * pred) < 1e-14
    close(metrics.n_mpjpe(torch.zeros_like(pred), target), target.norm(dim=-1).mean())


def test_root_is_subtracted():
    pred, target = poses(2, 5, 17)
    relative = [x - x[..., 4:5, :] for x in (pred, target)]
    for name in ("mpjpe", "n_mpjpe", "mpjve"):
        function = getattr(metrics, name)
        assert function(pred, target, root=4) == function(*relative) != function(pred, target)
    moved = pred + torch.randn(2, 5, 1, 3, dtype=torch.float64)
    close(metrics.mpjpe(moved, target, root=4), metrics.mpjpe(pred, target, root=4))
    # The root's exact 0 counts: 16/17 of the mean over the others.
    others = [torch.cat([x[..., :4, :], x[..., 5:, :]], -2) for x in relative]
    close(metrics.mpjpe(pred, target, root=4), metrics.mpjpe(*others) * 16 / 17)


def test_frames_without_a_visible_root_drop_out():
    pred, target = poses(2, 5, 17)
    w = torch.ones(2, 5, 17)
    w[0, 2, 4] = 0
    found = metrics.mpjpe(pred, target, weight=w, root=4, reduction="none")
    full = metrics.mpjpe(pred, target, root=4, reduction="none")
    assert found[0, 2].isnan() and found.isnan().sum() == 1
    close(metrics.mpjpe(pred, target, weight=w, root=4), (full.sum() - full[0, 2]) / 9)


def test_units_scale_the_result():
    pred, target = poses(2, 5, 17)
    for name in POSITION:
        function = getattr(metrics, name)
        close(function(1000 * pred, 1000 * target), 1000 * function(pred, target))
    assert metrics.depth_order_accuracy(1000 * pred, target) == metrics.depth_order_accuracy(pred, target)


@per_function
def test_zero_weights_drop_out_whatever_they_hide(name):
    function = getattr(metrics, name)
    pred, target = poses(2, 6, 9)
    w = weights(2, 6, 9)
    w[1, 2] = 0
    expected = function(pred, target, weight=w)
    hidden = (w == 0)[..., None]
    for junk in (NAN, float("inf"), 1e300):
        found = function(pred.masked_fill(hidden, junk), target.masked_fill(hidden, -junk), weight=w)
        close(found, expected, 0 if name in ("mpjpe", "mpjve", "acceleration_error") else 1e-13)
    assert function(pred.masked_fill(~hidden, NAN), target, weight=w).isnan()


@pytest.mark.parametrize("name", ["mpjpe", "pa_mpjpe", "n_mpjpe"])
def test_padding_equals_cropping(name):
    function = getattr(metrics, name)
    pred, target = poses(2, 6, 9)
    w = torch.zeros(2, 6, 9)
    w[:, :4, 2:] = 1
    found = function(pred, target, weight=w, reduction="none")
    close(found[:, :4], function(pred[:, :4, 2:], target[:, :4, 2:], reduction="none"))
    assert found[:, 4:].isnan().all()
    close(function(pred, target, weight=w.bool()), function(pred[:, :4, 2:], target[:, :4, 2:]))
    close(function(pred, target, weight=torch.arange(9)), function(pred, target, weight=5.0 * torch.arange(9)))


@pytest.mark.parametrize("name", POSITION)
def test_one_value_a_joint(name):
    function = getattr(metrics, name)
    pred, target = poses(2, 12, 9)
    w = weights(2, 12, 9)
    w[..., 4] = 0
    found = function(pred, target, weight=w, reduction="joints")
    assert found.shape == (9,) and found.isnan().nonzero().tolist() == [[4]]
    rows = {"mpjve": w[:, 1:] * w[:, :-1], "acceleration_error": w[:, 2:] * w[:, 1:-1] * w[:, :-2]}.get(name, w)
    share = rows.sum((0, 1)) / rows.sum()
    close((share * found.nan_to_num()).sum(), function(pred, target, weight=w))
    with pytest.raises(ArgumentError, match="reduction is 'bones', expected one of 'mean', 'none', 'joints'"):
        function(pred, target, reduction="bones")


def test_acceleration_needs_three_frames():
    pred, target = poses(1, 6, 4)
    w = torch.ones(1, 6, 1)
    w[0, 1] = 0
    found = metrics.acceleration_error(pred, target, weight=w, reduction="none")
    assert found.isnan().tolist() == [[True, True, False, False]]
    assert metrics.acceleration_error(*poses(2, 2, 7)).isnan()
    line = torch.arange(6.0)[:, None, None] * torch.rand(4, 3)
    assert metrics.acceleration_error(pred + line, pred).abs() < 1e-7, "even motion has no acceleration"


def test_mpjve_needs_both_frames():
    pred, target = poses(1, 6, 4)
    w = torch.ones(1, 6, 1)
    w[0, 3] = 0
    found = metrics.mpjve(pred, target, weight=w, reduction="none")
    assert found.isnan().tolist() == [[False, False, True, True, False]]
    close(metrics.mpjve(pred, target, weight=w), found[~found.isnan()].mean())


@per_function
def test_shapes_dtypes_and_strides(name):
    function = getattr(metrics, name)
    pred, target = poses(2, 3, 5, 7)
    expected = function(pred, target)
    assert expected.shape == () and expected.dtype == torch.float64
    close(function(pred.reshape(6, 5, 7, 3), target.reshape(6, 5, 7, 3)), expected)
    assert function(pred[0, 0], target[0, 0]).isfinite()
    strided = pred.permute(3, 1, 0, 2, 4).contiguous().permute(2, 1, 3, 0, 4)
    assert not strided.is_contiguous() and function(strided, target) == expected
    last = {"mpjve": (4,), "acceleration_error": (3,)}.get(name, (5,))
    assert function(pred, target, reduction="none").shape == (2, 3, *last)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        low = function(pred.to(dtype), target.to(dtype))
        assert low.dtype == torch.float64
        assert low == function(pred.to(dtype).double(), target.to(dtype).double())


@per_function
@pytest.mark.parametrize("shape", [(0, 5, 7), (2, 0, 7), (2, 5, 0), (2, 0, 0)])
def test_nothing_scored_is_nan(name, shape):
    function = getattr(metrics, name)
    assert function(*poses(*shape)).isnan()
    pred, target = poses(2, 5, 7)
    assert function(pred, target, weight=torch.zeros(7)).isnan()


def test_one_frame_has_no_step_and_one_joint_no_pair():
    assert metrics.mpjve(*poses(2, 1, 7)).isnan()
    assert metrics.depth_order_accuracy(*poses(2, 4, 1)).isnan()
    assert metrics.depth_order_accuracy(*poses(2, 1, 4), over="frames").isnan()


@per_function
def test_no_graph_is_built(name):
    pred, target = poses(2, 5, 7)
    assert not getattr(metrics, name)(pred.requires_grad_(), target).requires_grad


# Depth order


def literal(p, t, w):
    """Weight of the correctly ordered pairs and of all pairs of one row, pair by pair."""
    right = total = 0.0
    for i, j in itertools.product(range(len(p)), repeat=2):
        if t[i] < t[j]:
            total += w[i] * w[j]
            right += w[i] * w[j] * (1.0 if p[i] < p[j] else 0.5 if p[i] == p[j] else 0.0)
    return right, total


def literal_rows(pred, target, weight, over):
    p, t = (x[..., 2] for x in (pred, target))
    rows = [x if over == "joints" else x.mT for x in (p, t, weight)]
    sums = [literal(*row) for row in zip(*(x.flatten(0, -2).tolist() for x in rows), strict=True)]
    return torch.tensor(sums, dtype=torch.float64).reshape(-1, 2).T


@given(
    st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.sampled_from(depth_order.OVER)
)
@settings(max_examples=80, deadline=None)
def test_depth_order_against_every_pair(seed, frames, joints, levels, over):
    generator = torch.Generator().manual_seed(seed)
    pred, target = torch.randint(-levels, levels + 1, (2, 2, frames, joints, 3), generator=generator).double()
    weight = torch.randint(0, 4, (2, frames, joints), generator=generator) / 2
    for w in (None, weight):
        right, total = literal_rows(pred, target, torch.ones_like(weight) if w is None else w, over)
        # Whole and half weights: the sums are exact, so the comparison is too.
        close(metrics.depth_order_accuracy(pred, target, weight=w, over=over), right.sum() / total.sum(), 0)
        rows = metrics.depth_order_accuracy(pred, target, weight=w, over=over, reduction="none")
        assert rows.shape == (2, frames if over == "joints" else joints)
        close(rows.flatten(), right / total, 0)


@pytest.mark.parametrize("n", [2, 31, 32, 33, 64, 65, 243])
@pytest.mark.parametrize("over", depth_order.OVER)
def test_depth_order_with_random_weights(n, over):
    shape = (1, 2, n) if over == "joints" else (1, n, 2)
    pred, target = poses(*shape)
    target[..., 2] = (4 * target[..., 2]).round()
    w = weights(*shape)
    right, total = literal_rows(pred, target, w, over)
    close(metrics.depth_order_accuracy(pred, target, weight=w, over=over), right.sum() / total.sum())


def test_depth_order_extremes():
    _, target = poses(2, 20, 9)
    for over in depth_order.OVER:
        assert metrics.depth_order_accuracy(target, target, over=over) == 1
        assert metrics.depth_order_accuracy(-target, target, over=over) == 0
        assert metrics.depth_order_accuracy(torch.zeros_like(target), target, over=over) == 0.5
        assert metrics.depth_order_accuracy(target.exp(), target, over=over) == 1
        assert metrics.depth_order_accuracy(target, torch.zeros_like(target), over=over).isnan()
    xy = target + torch.tensor([3.0, -8.0, 0.0])
    assert metrics.depth_order_accuracy(xy, target) == 1


def test_negative_zero_ties_with_zero():
    x = torch.tensor([0.0, -0.0, 1.0])[:, None, None].expand(3, 1, 3)
    y = torch.tensor([0.0, 1.0, 2.0])[:, None, None].expand(3, 1, 3)
    assert metrics.depth_order_accuracy(x, y, over="frames") == 2.5 / 3
    assert metrics.depth_order_accuracy(y, x, over="frames") == 1


def test_depth_order_does_not_depend_on_the_block(monkeypatch):
    pred, target = poses(7, 20, 9)
    expected = metrics.depth_order_accuracy(pred, target, over="frames", reduction="none")
    for block in (1, 45, 64):
        monkeypatch.setattr(depth_order, "_BLOCK", block)
        assert torch.equal(metrics.depth_order_accuracy(pred, target, over="frames", reduction="none"), expected)


def test_depth_order_long_clip_in_little_time():
    pred, target = poses(1, 10_000, 17, dtype=torch.float32)
    start = time.perf_counter()
    found = metrics.depth_order_accuracy(pred, target, over="frames")
    assert time.perf_counter() - start < 10  # 1.7e9 ordered pairs; every pair by itself takes far longer
    p, t = pred[0, ::50, 3, 2], target[0, ::50, 3, 2]  # and a sample of it agrees with the dense count
    close(
        metrics.depth_order_accuracy(pred[:, ::50, 3:4], target[:, ::50, 3:4], over="frames"),
        ((p[:, None] < p) & (t[:, None] < t)).sum() / (t[:, None] < t).sum().double(),
    )
    assert 0.49 < found < 0.51


# Classes


@per_pair
def test_class_equals_function_however_the_data_are_cut(function, kwargs, cls):
    pred, target = poses(9, 6, 17)
    w = weights(9, 6, 17)
    expected = function(pred, target, weight=w, **kwargs)
    for cuts in ([9], [4, 5], [1, 0, 5, 3], [1] * 9):
        metric = cls(**kwargs)
        for p, t, v in zip(pred.split(cuts), target.split(cuts), w.split(cuts), strict=True):
            close(metric(p, t, v), function(p, t, weight=v, **kwargs))  # forward gives the batch's own value
        close(metric.compute(), expected)
    metric.reset()
    metric.update(pred[:2], target[:2])
    close(metric.compute(), function(pred[:2], target[:2], **kwargs))


@pytest.mark.parametrize("over", depth_order.OVER)
def test_unweighted_depth_pairs_are_exact_however_cut(over):
    pred, target = poses(9, 6, 7)
    metric = metrics.DepthOrderAccuracy(over)
    for p, t in zip(pred.split(2), target.split(2), strict=True):
        metric.update(p, t)
    assert metric.compute() == metrics.depth_order_accuracy(pred, target, over=over)


@per_pair
def test_class_pickles_moves_and_starts_empty(function, kwargs, cls):
    pred, target = poses(2, 6, 17, dtype=torch.float32)
    metric = cls(**kwargs)
    metric.update(pred[:0], target[:0])
    assert metric.compute().isnan()
    metric.update(pred[:1], target[:1])
    copy = pickle.loads(pickle.dumps(metric)).to("cpu").half()
    copy.update(pred[1:], target[1:])
    found = copy.compute()
    assert found.dtype == torch.float64 and found.shape == ()
    close(found, function(pred, target, **kwargs))
    close(metric.compute(), function(pred[:1], target[:1], **kwargs))
    higher = cls in (metrics.DepthOrderAccuracy, metrics.PCK, metrics.AUC, metrics.BPLPC)
    assert cls.higher_is_better is higher


def _whole(*shape):
    """Poses whose errors, steps and bone lengths are whole numbers, so that their sums are exact in any order."""
    rng = torch.Generator().manual_seed(0)
    triples = torch.tensor([[3.0, 4.0, 0.0], [0.0, 6.0, 8.0], [12.0, 0.0, 5.0], [2.0, 3.0, 6.0], [8.0, 4.0, 1.0]])
    along = triples.double()[torch.randint(5, (1, 1, shape[-1]), generator=rng)]
    return [torch.randint(1, 50, (*shape, 1), generator=rng) * along for _ in range(2)]


def _cases():
    """name -> metrics made alike, and how to update one with clips `part` of the data set."""
    pred, target = poses(5, 6, 17)
    whole = _whole(5, 6, 17)
    w = weights(5, 6, 17)
    action, frame = torch.tensor([0, 1, 0, 2, 1]), torch.arange(30).reshape(5, 6) // 2
    score = {"sequence": torch.tensor([0, 3, 3, 5, 0]), "activity": torch.tensor([1, 7, 7, 2, 2])}
    h3wb = poses(5, 6, 133)
    cases = {}
    for key, (_, kwargs, cls) in PAIRS.items():
        cases[key] = (lambda cls=cls, k=kwargs: cls(**k)), lambda m, part: m.update(pred[part], target[part], w[part])
        if key in COUNTS:
            cases[f"{key} unweighted"] = cases[key][0], lambda m, part: m.update(pred[part], target[part])
    for name, cls in {
        "mpjpe": metrics.MPJPE,
        "mpjve": metrics.MPJVE,
        "acceleration": metrics.AccelerationError,
    }.items():
        cases[f"{name} whole"] = cls, lambda m, part: m.update(whole[0][part], whole[1][part])
    cases["actions"] = (
        lambda: metrics.PerAction(metrics.MPJPE(root=0), ["a", "b", "c", "never"]),
        lambda m, part: m.update(pred[part], target[part], w[part], action=action[part]),
    )
    cases["frames of actions"] = (
        lambda: metrics.MotionBERTScore(metrics.PCK(threshold=1.0), ["a", "b"], [0, 1, -1, 0, 0] * 3),
        lambda m, part: m.update(pred[part], target[part], frame=frame[part]),
    )
    cases["joints of errors"] = (
        lambda: metrics.PerJoint(metrics.MPJPE()),
        lambda m, part: m.update(whole[0][part], whole[1][part]),
    )
    cases["sequences"] = (
        lambda: metrics.BoneLengthSpread(sequences=True),
        lambda m, part: m.update(pred[part], None, w[part], sequence=action[part]),
    )

    def update_some(metric, part):
        if rows := [clip for clip in range(5)[part] if clip not in (0, 3)]:  # those of the first process
            metric.update(pred[rows], sequence=action[rows])

    cases["a process without data"] = lambda: metrics.BoneLengthSpread(sequences=True, reduction="limbs"), update_some
    cases["3dhp"] = (
        metrics.MPIINF3DHPScore,
        lambda m, part: m.update(50 * pred[part], 50 * target[part], **{k: v[part] for k, v in score.items()}),
    )
    cases["h3wb"] = metrics.H3WBScore, lambda m, part: m.update(h3wb[0][part], h3wb[1][part])
    return cases


EXACT = {"mpjpe whole", "mpjve whole", "acceleration whole", "joints of errors", *(f"{k} unweighted" for k in COUNTS)}


def _results(metric):
    """Every number that a metric gives, by name."""
    value = metric.compute()
    found = {"": value.tolist()} if isinstance(value, torch.Tensor) else {k: v.tolist() for k, v in value.items()}
    if hasattr(metric, "per_action"):
        found |= metric.per_action()
    if hasattr(metric, "breakdown"):
        for kind, parts in metric.breakdown().items():
            found |= {f"{kind} {name} {key}": v for name, scores in parts.items() for key, v in scores.items()}
    return found


def _worker(rank, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        values = {}
        for key, (make, update) in _cases().items():
            metric = make()
            for clip in (0, 3) if rank == 0 else (1, 4, 2):  # uneven parts, in another order
                update(metric, slice(clip, clip + 1))
            values[key] = _results(metric)
        torch.save(values, f"{results}.{rank}")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow(seconds=6)
def test_two_processes_equal_one(tmp_path):
    """Counts and sums of whole numbers to the last bit, other sums to the rounding of their order."""
    mp.spawn(_worker, args=(tmp_path / "store", tmp_path / "values"), nprocs=2)
    cases = _cases()
    assert cases.keys() >= EXACT
    for rank in range(2):
        values = torch.load(f"{tmp_path / 'values'}.{rank}", weights_only=True)
        for key, (make, update) in cases.items():
            metric = make()
            update(metric, slice(None))
            expected = _results(metric)
            assert values[key].keys() == expected.keys(), key
            for name, value in expected.items():
                if key in EXACT or (key == "3dhp" and ("pck" in name or "auc" in name)):
                    assert values[key][name] == value, (key, name)
                else:
                    assert values[key][name] == pytest.approx(value, rel=1e-12), (key, name)


@pytest.mark.gpu
def test_gpu_equals_cpu():
    for key, (make, update) in _cases().items():
        expected = make()
        update(expected, slice(None))
        metric = make().to("cuda")
        inner, moved = metric.update, []

        def on_gpu(*arguments, inner=inner, moved=moved, **labels):
            moved.append(True)
            inner(
                *(a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments),
                **{k: v.cuda() for k, v in labels.items()},
            )

        metric.update = on_gpu
        update(metric, slice(None))
        assert moved, key
        found = _results(metric)
        for name, value in _results(expected).items():
            assert found[name] == pytest.approx(value, rel=1e-10), (key, name)


# Bad input


@per_function
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"target": torch.zeros(2, 5, 8, 3)},
            ArgumentError,
            r"target has shape \[2, 5, 8, 3\], expected .*, the shape of pred",
        ),
        ({"pred": torch.zeros(2, 5, 7, 2)}, ArgumentError, r"pred has shape .* expected \[\.\.\., T, J, 3\]"),
        ({"pred": torch.zeros(7, 3), "target": torch.zeros(7, 3)}, ArgumentError, r"pred has shape \[7, 3\]"),
        ({"pred": torch.zeros(2, 5, 7, 3, dtype=torch.int32)}, DtypeError, "pred has dtype torch.int32"),
        ({"target": torch.zeros(2, 5, 7, 3, dtype=torch.int64)}, DtypeError, "target has dtype torch.int64"),
        ({"target": np.zeros((2, 5, 7, 3))}, DtypeError, r"target is a numpy array.*torch\.from_numpy\(target\)"),
        ({"weight": torch.full((7,), -1.0)}, ArgumentError, "weight has the value -"),
        ({"weight": torch.full((7,), NAN)}, ArgumentError, "weight has the value nan"),
        ({"weight": torch.full((7,), float("inf"))}, ArgumentError, "weight has the value inf"),
        ({"weight": torch.ones(2, 5, 7, 1)}, ArgumentError, r"weight has shape \[2, 5, 7, 1\]"),
        ({"weight": torch.ones(5)}, ArgumentError, r"expected \[2, 5, 7\]"),
        ({"weight": torch.ones(7, dtype=torch.complex64)}, DtypeError, "weight has dtype torch.complex64"),
        ({"weight": [1.0] * 7}, ArgumentError, "weight is a list"),
        ({"target": torch.zeros(2, 5, 7, 3, device="meta")}, ArgumentError, "target is on meta"),
        ({"weight": torch.ones(7, device="meta")}, ArgumentError, "weight is on meta"),
        ({"reduction": "max"}, ArgumentError, "reduction is 'max'"),
    ],
)
def test_bad_arguments(name, change, error, message):
    arguments = {"pred": torch.zeros(2, 5, 7, 3), "target": torch.zeros(2, 5, 7, 3), **change}
    with pytest.raises(error, match=message) as caught:
        getattr(metrics, name)(arguments.pop("pred"), arguments.pop("target"), **arguments)
    assert str(caught.value).count("\n") == 0 and str(caught.value).endswith(".")


@pytest.mark.parametrize("root", [-1, 7, 1.0, True, "Hip"])
def test_bad_root(root):
    with pytest.raises(ArgumentError, match="root is"):
        metrics.mpjpe(*poses(2, 5, 7), root=root)
    with pytest.raises(ArgumentError, match="root is"):
        metrics.MPJPE(root=root).update(*poses(2, 5, 7))


def test_bad_over():
    with pytest.raises(ArgumentError, match="over is 'time', expected one of 'joints', 'frames'"):
        metrics.depth_order_accuracy(*poses(2, 5, 7), over="time")
    with pytest.raises(ArgumentError, match="over is 'time'"):
        metrics.DepthOrderAccuracy("time")


def test_importing_the_package_leaves_torchmetrics_alone():
    code = "import sys, structloss, structloss.skeletons; sys.exit('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_docstring_example():
    result = doctest.testmod(metrics)
    assert result.attempted >= 5 and result.failed == 0
