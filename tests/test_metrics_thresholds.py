"""PCK and AUC against the published MPI-INF-3DHP figures and a count joint by joint."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fill import fill_input
from hypothesis import given
from hypothesis import strategies as st

from structloss import metrics
from structloss.errors import ArgumentError

GOLDEN = np.load(Path(__file__).parent / "golden" / "scores.npz")
SCORED = list(range(14))  # head top to left ankle; pelvis, spine and head are not scored
PELVIS = 14


def from_errors(error):
    """Poses `[..., T, J, 3]` whose joints are off by exactly so much."""
    target = torch.zeros(*error.shape, 3, dtype=torch.float64)
    return target + torch.as_tensor(error, dtype=torch.float64)[..., None] * torch.tensor([0.0, 1.0, 0.0]), target


def literal_pck(error, threshold, strict=True):
    every = np.asarray(error).ravel().tolist()
    return 100 * sum(1 for e in every if (e < threshold if strict else e <= threshold)) / len(every)


def test_published_figures():
    pred, target = (200 * torch.from_numpy(fill_input(n, (4, 27, 17, 3))).double() for n in ("loss-pred", "loss-gt"))
    kwargs = {"joints": SCORED, "root": PELVIS}
    assert metrics.pck(pred, target, **kwargs).item() == pytest.approx(GOLDEN["threedhp_pck_all"][-1], rel=1e-12)
    assert metrics.auc(pred, target, **kwargs).item() == pytest.approx(GOLDEN["threedhp_auc_all"][-1], rel=1e-12)
    error = torch.linalg.vector_norm((pred - pred[..., 14:15, :]) - (target - target[..., 14:15, :]), dim=-1)
    np.testing.assert_allclose(error, GOLDEN["threedhp_error_mm"], rtol=1e-12)
    by_joint = metrics.pck(pred, target, root=PELVIS, reduction="joints")
    assert by_joint[[2, 5]].mean().item() == pytest.approx(GOLDEN["threedhp_pck_all"][2], rel=1e-12)


def test_errors_on_the_thresholds_count_as_published():
    """Errors of exactly 0, 5, ..., 175 mm: they tell < from <=."""
    pred, target = from_errors(GOLDEN["threedhp_edge_error_mm"])
    assert metrics.pck(pred, target, joints=SCORED).item() == pytest.approx(GOLDEN["threedhp_edge_pck_all"][-1], 1e-14)
    assert metrics.auc(pred, target, joints=SCORED).item() == pytest.approx(GOLDEN["threedhp_edge_auc_all"][-1], 1e-14)
    loose = metrics.pck(pred, target, joints=SCORED, strict=False).item()
    error = GOLDEN["threedhp_edge_error_mm"][:, :14]
    assert loose == literal_pck(error, 150, strict=False) > GOLDEN["threedhp_edge_pck_all"][-1]


@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 9))
def test_against_a_count_joint_by_joint(seed, strict, count):
    rng = np.random.default_rng(seed)
    error = rng.integers(0, 12, (2, 3, 5)).astype(float)
    thresholds = rng.choice(13, count, replace=False).astype(float)
    pred, target = from_errors(error)
    expected = np.mean([literal_pck(error, t, strict) for t in thresholds])
    assert metrics.auc(pred, target, thresholds=thresholds, strict=strict).item() == pytest.approx(expected, abs=1e-12)
    one = metrics.pck(pred, target, threshold=thresholds[0], strict=strict, reduction="none")
    assert one.shape == (2, 3)
    assert one[1, 2].item() == pytest.approx(literal_pck(error[1, 2], thresholds[0], strict), abs=1e-12)


def test_a_perfect_pose_passes_every_threshold_but_zero():
    pose = torch.rand(2, 3, 17, 3)
    assert metrics.pck(pose, pose) == 100
    assert metrics.auc(pose, pose).item() == pytest.approx(100 * 30 / 31) == pytest.approx(96.774, abs=1e-3)
    assert metrics.auc(pose, pose, strict=False) == 100
    assert metrics.pck(pose, pose, threshold=0) == 0 and metrics.pck(pose, pose, threshold=0, strict=False) == 100


def test_a_nan_error_is_wrong_and_a_hidden_one_is_not_counted():
    pred, target = from_errors(np.full((1, 2, 4), 1.0))
    pred[0, 0, 0] = math.nan
    assert metrics.pck(pred, target) == 87.5
    assert metrics.auc(pred, target, thresholds=[5, 10]) == 87.5
    weight = torch.ones(1, 2, 4)
    weight[0, 0, 0] = 0
    assert metrics.pck(pred, target, weight=weight) == 100
    weight[0, 1, :] = 3  # weights weigh
    pred[0, 1, 3] = 1e6
    assert metrics.pck(pred, target, weight=weight).item() == pytest.approx(100 * (3 + 9) / 15)


def test_the_root_moves_the_poses_and_need_not_be_scored():
    pred, target = (100 * x for x in torch.randn(2, 2, 5, 17, 3, dtype=torch.float64))
    error = torch.linalg.vector_norm((pred - pred[..., 3:4, :]) - (target - target[..., 3:4, :]), dim=-1)
    kept = [0, 7, 16]
    found = metrics.pck(pred, target, joints=kept, root=3, reduction="joints")
    expected = [literal_pck(error[..., j], 150) for j in kept]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_other_units():
    pred, target = torch.randn(2, 2, 5, 17, 3, dtype=torch.float64)
    metres = metrics.auc(pred, target, thresholds=[0.5, 1.0])
    assert metres == metrics.auc(1024 * pred, 1024 * target, thresholds=[512, 1024])


def test_classes_take_the_same_arguments():
    pred, target = (100 * x for x in torch.randn(2, 4, 5, 17, 3))
    for cls, function, kwargs in (
        (metrics.PCK, metrics.pck, {"threshold": 120.0, "strict": False, "joints": (1, 2), "root": 0}),
        (metrics.AUC, metrics.auc, {"thresholds": (50, 100), "strict": False, "joints": (1, 2), "root": 0}),
    ):
        metric = cls(**kwargs)
        for p, t in zip(pred, target, strict=True):
            metric.update(p, t)
        assert metric.compute() == function(pred, target, **kwargs)  # counts: exact
        assert metric.higher_is_better


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": -1.0}, r"^threshold is -1\.0, expected a finite number of 0 or more"),
        ({"threshold": math.nan}, "^threshold is nan, expected a finite number"),
        ({"threshold": "far"}, "^threshold is 'far', expected a finite number"),
        ({"threshold": [150.0]}, r"^threshold is \[150\.0\], expected a finite number"),
        ({"joints": []}, r"joints is \[\], expected None or different indices"),
        ({"joints": [1, 1]}, "expected None or different indices"),
        ({"joints": [-1]}, "expected None or different indices"),
        ({"joints": 3}, "joints is 3"),
        ({"joints": [17]}, "joints has 17, expected joints below 17"),
        ({"reduction": "bones"}, "reduction is 'bones', expected one of 'mean', 'none', 'joints'"),
    ],
)
def test_bad_arguments(change, message):
    pose = torch.zeros(2, 3, 17, 3)
    with pytest.raises(ArgumentError, match=message):
        metrics.pck(pose, pose, **change)
    if "reduction" not in change:
        with pytest.raises(ArgumentError, match=message):
            metrics.PCK(**change).update(pose, pose)


def test_bad_thresholds():
    pose = torch.zeros(2, 3, 17, 3)
    for bad in ([], [1.0, math.inf], 5.0):
        with pytest.raises(ArgumentError, match="thresholds is"):
            metrics.auc(pose, pose, thresholds=bad)
        with pytest.raises(ArgumentError, match="thresholds is"):
            metrics.AUC(thresholds=bad)
