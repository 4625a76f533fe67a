"""Scores by joint, action and frame, and the protocols of MPI-INF-3DHP and H3WB."""

import doctest
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fill import fill_input
from torchmetrics import MetricCollection

from structloss import metrics
from structloss.errors import ArgumentError, DtypeError
from structloss.metrics import grouped, protocols

GOLDEN = np.load(Path(__file__).parent / "golden" / "scores.npz")
GROUPS = ["head", "neck", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]
ACTIONS = ["Walking", "Sitting", "Eating"]


def poses(*shape, seed=0):
    return torch.randn(2, *shape, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_batches(metric, size, *tensors, **labels):
    for i in range(0, len(tensors[0]), size):
        metric.update(*(t[i : i + size] for t in tensors), **{k: v[i : i + size] for k, v in labels.items()})
    return metric


# Joints


@pytest.mark.parametrize(
    "metric",
    [
        metrics.MPJPE(root=0),
        metrics.PAMPJPE(),
        metrics.NMPJPE(),
        metrics.MPJVE(),
        metrics.AccelerationError(),
        metrics.PCK(threshold=1.0),
        metrics.AUC(thresholds=[1.0, 2.0]),
    ],
    ids=lambda m: type(m).__name__,
)
def test_per_joint(metric):
    pred, target = poses(6, 5, 17)
    found = in_batches(metrics.PerJoint(metric), 4, pred, target).compute()
    name = {"AccelerationError": "acceleration_error", "NMPJPE": "n_mpjpe", "PAMPJPE": "pa_mpjpe"}.get(
        type(metric).__name__, type(metric).__name__.lower()
    )
    kwargs = {"root": 0} if name == "mpjpe" else {}
    kwargs |= {"threshold": 1.0} if name == "pck" else {"thresholds": [1.0, 2.0]} if name == "auc" else {}
    torch.testing.assert_close(found, getattr(metrics, name)(pred, target, reduction="joints", **kwargs))
    assert metric.total == 0, "the metric given is left alone"
    assert metrics.PerJoint(metric).higher_is_better is metric.higher_is_better


def test_per_joint_of_some_joints():
    pred, target = poses(2, 5, 17)
    metric = metrics.PerJoint(metrics.PCK(threshold=1.0, joints=[3, 9]), joints=2)
    metric.update(pred, target)
    assert metric.compute().tolist() == metrics.pck(pred, target, threshold=1.0, reduction="joints")[[3, 9]].tolist()
    with pytest.raises(ArgumentError, match="pred has 2 scored joints, expected 17"):
        metrics.PerJoint(metrics.PCK(joints=[3, 9])).update(pred, target)
    for wrong in (metrics.LSE(), metrics.DepthOrderAccuracy()):
        with pytest.raises(ArgumentError, match="expected one that scores each joint"):
            metrics.PerJoint(wrong)


# Actions


def test_per_action_means_over_actions_not_frames():
    pred, target = poses(6, 5, 17)
    action = torch.tensor([0, 0, 0, 0, 2, 0])
    metric = in_batches(metrics.PerAction(metrics.MPJPE(root=0), ACTIONS), 4, pred, target, action=action)
    walking = metrics.mpjpe(pred[action == 0], target[action == 0], root=0)
    eating = metrics.mpjpe(pred[4:5], target[4:5], root=0)
    assert metric.compute().item() == pytest.approx((walking + eating).item() / 2, rel=1e-14)
    assert metric.per_action() == pytest.approx({"Walking": walking.item(), "Eating": eating.item()}, rel=1e-14)
    assert abs(metric.compute() - metrics.mpjpe(pred, target, root=0)) > 1e-3


@pytest.mark.parametrize(
    ("metric", "function"),
    [
        (metrics.PAMPJPE(), metrics.pa_mpjpe),
        (metrics.MPJVE(), metrics.mpjve),
        (metrics.PCK(), metrics.pck),
        (metrics.DepthOrderAccuracy("joints"), metrics.depth_order_accuracy),
        (metrics.DepthOrderAccuracy("frames"), lambda p, t: metrics.depth_order_accuracy(p, t, over="frames")),
        (metrics.LSE(), lambda p, t: metrics.lse(p)),
        (metrics.BSLE(relative=True), lambda p, t: metrics.bsle(p, t, relative=True)),
        (metrics.IllegalAngleRate(), lambda p, t: metrics.illegal_angle_rate(p)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_per_action_of_any_weighted_mean(metric, function):
    pred, target = poses(6, 5, 17)
    action = torch.tensor([1, 0, 1, 2, 2, 0])
    found = in_batches(metrics.PerAction(metric, ACTIONS), 4, pred, target, action=action).per_action()
    for a, name in enumerate(ACTIONS):
        assert found[name] == pytest.approx(function(pred[action == a], target[action == a]).item(), rel=1e-12)


def test_actions_of_frames_and_weights():
    pred, target = poses(2, 4, 17)
    w = torch.rand(2, 4, 17)
    action = torch.tensor([[0, 0, 1, 1], [1, 2, 2, 2]])
    w[1, 1:] = 0  # nothing of action 2 is scored
    metric = metrics.PerAction(metrics.MPJPE(), ACTIONS)
    metric.update(pred, target, w, action=action)
    expected = {
        name: metrics.mpjpe(pred[action == a][:, None], target[action == a][:, None], weight=w[action == a][:, None])
        for a, name in enumerate(ACTIONS[:2])
    }
    assert metric.per_action() == pytest.approx({k: v.item() for k, v in expected.items()}, rel=1e-12)
    pred[0, 0, 0] = math.nan  # a wrong prediction is not left out
    metric.update(pred, target, action=action)
    assert metric.compute().isnan() and math.isnan(metric.per_action()["Walking"])
    with pytest.raises(ArgumentError, match=r"action has shape \[2, 4\], expected \[2\], one per clip\."):
        metrics.PerAction(metrics.MPJVE(), ACTIONS).update(pred, target, action=action)


def test_empty_batches_forward_reset_and_pickle():
    pred, target = poses(4, 5, 17)
    action = torch.tensor([0, 1, 1, 0])
    metric = metrics.PerAction(metrics.MPJPE(), ACTIONS)
    metric.update(pred[:0], target[:0], action=action[:0])
    assert metric.compute().isnan() and metric.per_action() == {}
    value = metric(pred[:2], target[:2], action=action[:2])  # forward: the batch's own value
    assert value.item() == pytest.approx(metrics.mpjpe(pred[:2], target[:2]).item(), rel=1e-12)
    copy = pickle.loads(pickle.dumps(metric)).half()
    copy.update(pred[2:], target[2:], action=action[2:])
    assert copy.compute().dtype == torch.float64
    expected = (metrics.mpjpe(pred[[0, 3]], target[[0, 3]]) + metrics.mpjpe(pred[1:3], target[1:3])) / 2
    assert copy.compute().item() == pytest.approx(expected.item(), rel=1e-12)
    metric.reset()
    metric.update(pred[:1], target[:1], action=action[:1])
    assert list(metric.per_action()) == ["Walking"]


def test_in_a_collection():
    """One call updates metrics with and without a target, and those that want to know the action."""
    pred, target = poses(4, 5, 17)
    both = MetricCollection(
        {"all": metrics.MPJPE(), "lse": metrics.LSE(), "actions": metrics.PerAction(metrics.MPJPE(), ACTIONS)},
        compute_groups=False,
    )
    both.update(pred, target, action=torch.tensor([0, 1, 1, 1]))
    found = both.compute()
    assert found["all"] == metrics.mpjpe(pred, target) and found["lse"] == metrics.lse(pred)
    assert found["actions"] != found["all"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.PerAction(metrics.BPLPC(), ACTIONS), "metric is a BPLPC, expected a metric .* weighted mean"),
        (lambda: metrics.PerAction(metrics.LSE(reduction="pairs"), ACTIONS), "metric is a LSE"),
        (lambda: metrics.PerAction(metrics.mpjpe, ACTIONS), "metric is a function"),
        (lambda: metrics.PerAction(metrics.MPJPE(), []), r"actions is \[\], expected one or more different names"),
        (lambda: metrics.PerAction(metrics.MPJPE(), ["a", "a"]), "expected one or more different names"),
        (lambda: metrics.PerAction(metrics.MPJPE(), "Walking"), "actions is 'Walking'"),
        (lambda: metrics.MotionBERTScore(metrics.MPJVE(), ACTIONS, [0]), "expected one with a value per frame"),
        (lambda: metrics.MotionBERTScore(metrics.MPJPE(), ACTIONS, [0, 3]), "expected integers from -1 to 2"),
        (lambda: metrics.MotionBERTScore(metrics.MPJPE(), ACTIONS, [0.5]), "expected integers from -1 to 2"),
    ],
)
def test_bad_breakdowns(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.tensor([0, 3]), "action has values from 0 to 3, expected 0 to 2"),
        (torch.tensor([-1, 0]), "action has values from -1 to 0"),
        (torch.tensor([0.0, 1.0]), "action has dtype torch.float32, expected an integer tensor"),
        (["Walking", "Sitting"], "action is a list"),
        (torch.tensor([0]), r"action has shape \[1\], expected \[2\], one per clip, or \[2, 5\], one per frame"),
    ],
)
def test_bad_actions(action, message):
    with pytest.raises(ArgumentError, match=message):
        metrics.PerAction(metrics.MPJPE(), ACTIONS).update(*poses(2, 5, 17), action=action)


# Frames


def test_frames_of_several_clips_count_once():
    """By loops: errors of a frame averaged over clips, frames over an action, actions over the table."""
    rng = np.random.default_rng(0)
    frames, clips = 40, 9
    frame_actions = rng.integers(-1, 3, frames)
    starts = rng.integers(0, frames - 8, clips)
    frame = torch.from_numpy(starts[:, None] + np.arange(8))
    pred, target = poses(clips, 8, 17)
    score = metrics.MotionBERTScore(metrics.MPJPE(root=0), ACTIONS, torch.from_numpy(frame_actions))
    in_batches(score, 4, pred, target, frame=frame)

    error = metrics.mpjpe(pred, target, root=0, reduction="none").numpy()
    found: dict[int, list[float]] = {}
    for ids, errors in zip(frame.tolist(), error, strict=True):
        for i, e in zip(ids, errors, strict=True):
            found.setdefault(i, []).append(e)
    by_action = {
        name: np.mean([np.mean(errors) for i, errors in found.items() if frame_actions[i] == a])
        for a, name in enumerate(ACTIONS)
    }
    assert score.per_action() == pytest.approx(by_action, rel=1e-12)
    assert score.compute().item() == pytest.approx(np.mean(list(by_action.values())), rel=1e-12)
    again = score.compute().item()
    in_batches(score, 9, pred, target, frame=frame)  # a sampler that repeats samples changes nothing
    assert score.compute().item() == pytest.approx(again, rel=1e-12)


def test_frames_weights_and_mistakes():
    pred, target = poses(1, 4, 17)
    w = torch.ones(1, 4, 17)
    w[0, 3] = 0
    score = metrics.MotionBERTScore(metrics.PAMPJPE(), ["a"], [0, 0, 0, 0])
    score.update(pred, target, w, frame=torch.arange(4)[None])
    assert score.compute().item() == pytest.approx(metrics.pa_mpjpe(pred[:, :3], target[:, :3]).item(), rel=1e-12)
    for frame, message in {
        "rows": (torch.arange(1), r"frame has shape \[1\], expected \[1, 4\]"),
        "range": (torch.arange(1, 5)[None], "frame has values from 1 to 4, expected 0 to 3"),
        "type": ([0, 1, 2, 3], "frame is a list"),
    }.values():
        with pytest.raises(ArgumentError, match=message):
            score.update(pred, target, frame=frame)
    empty = metrics.MotionBERTScore(metrics.PAMPJPE(), ["a"], [0])
    empty.update(pred[:0], target[:0], frame=torch.zeros(0, 4, dtype=torch.long))
    assert empty.compute().isnan() and empty.per_action() == {}


# MPI-INF-3DHP


@pytest.fixture(scope="module")
def threedhp():
    pred, target = (200 * torch.from_numpy(fill_input(n, (4, 27, 17, 3))).double() for n in ("loss-pred", "loss-gt"))
    score = metrics.MPIINF3DHPScore(sequences=["A", "B", "C", "D"])
    activity = torch.from_numpy(GOLDEN["threedhp_activity"])
    return in_batches(score, 3, pred, target, sequence=torch.arange(4), activity=activity)


def table(scores, name):
    return [scores[f"{name}_{group}"] for group in GROUPS] + [scores[name]]


def test_3dhp_as_published(threedhp):
    found = {k: v.item() for k, v in threedhp.compute().items()}
    for name in ("pck", "auc"):
        assert table(found, name) == pytest.approx(GOLDEN[f"threedhp_{name}_all"].tolist(), rel=1e-12)
    assert found["mpjpe"] == pytest.approx(GOLDEN["threedhp_error_mm"].mean(), rel=1e-12)
    parts = threedhp.breakdown()
    assert list(parts["sequences"]) == ["A", "B", "C", "D"]
    for i, scores in enumerate(parts["sequences"].values()):
        for name in ("pck", "auc"):
            assert table(scores, name) == pytest.approx(GOLDEN[f"threedhp_seq_{name}"][i].tolist(), rel=1e-12)
        assert scores["mpjpe"] == pytest.approx(GOLDEN["threedhp_seq_mpjpe"][i, -1], rel=1e-12)
        assert scores["frames"] == 27
    assert len(parts["activities"]) == 7 and next(iter(parts["activities"])) == "Standing/Walking"
    for i, scores in enumerate(parts["activities"].values()):
        for name in ("pck", "auc"):
            assert table(scores, name) == pytest.approx(GOLDEN[f"threedhp_act_{name}"][i].tolist(), rel=1e-12)
        assert scores["mpjpe"] == pytest.approx(GOLDEN["threedhp_act_mpjpe"][i, -1], rel=1e-12)


def test_3dhp_errors_on_the_thresholds():
    error = torch.from_numpy(GOLDEN["threedhp_edge_error_mm"])
    error[:, 14] = 0  # relative to the pelvis, which is not scored
    target = torch.zeros(27, 17, 3, dtype=torch.float64)
    pred = target + error[..., None] * torch.tensor([0.0, 1.0, 0.0])
    score = metrics.MPIINF3DHPScore()
    score.update(pred, target, sequence=torch.tensor(0))
    found = {k: v.item() for k, v in score.compute().items()}
    for name in ("pck", "auc"):
        assert table(found, name) == pytest.approx(GOLDEN[f"threedhp_edge_{name}_all"].tolist(), rel=1e-14)
    assert score.breakdown()["activities"] == {}, "the activity was not given"
    perfect = metrics.MPIINF3DHPScore()
    perfect.update(target, target, sequence=torch.tensor(0))
    assert perfect.compute()["auc"].item() == pytest.approx(100 * 30 / 31)


def test_3dhp_scores_valid_frames_alone():
    pred, target = 100 * poses(2, 9, 17)
    valid = torch.rand(2, 9) > 0.4
    sequence = torch.tensor([5, 5])
    pred[~valid] = math.nan  # invalid frames may hold anything
    score = metrics.MPIINF3DHPScore()
    score.update(pred, target, sequence=sequence, valid=valid)
    kept = metrics.MPIINF3DHPScore()
    kept.update(pred[valid], target[valid], sequence=torch.tensor(5))
    assert {k: v.item() for k, v in score.compute().items()} == pytest.approx(
        {k: v.item() for k, v in kept.compute().items()}, rel=1e-12
    )
    assert list(score.breakdown()["sequences"]) == ["TS6"]
    assert score.breakdown()["sequences"]["TS6"]["frames"] == valid.sum()
    pred, target = 100 * poses(1, 2, 17)
    pred[0, 0, 3] = math.nan
    broken = metrics.MPIINF3DHPScore()
    broken.update(pred, target, sequence=torch.tensor([0]))
    assert broken.compute()["mpjpe"].isnan()
    assert broken.compute()["pck_elbow"] == metrics.pck(
        pred, target, root=14, joints=[3, 6]
    )  # a NaN error counts as wrong
    empty = metrics.MPIINF3DHPScore()
    empty.update(pred[:0], target[:0], sequence=torch.zeros(0, dtype=torch.long))
    assert all(value.isnan() for value in empty.compute().values())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pred": torch.zeros(2, 5, 16, 3)}, ArgumentError, "expected 17 joints, those of skeleton 'mpi_inf_3dhp'"),
        ({"pred": torch.zeros(2, 5, 17, 3, dtype=torch.int32)}, DtypeError, "pred has dtype"),
        ({"target": torch.zeros(2, 4, 17, 3)}, ArgumentError, "target has shape"),
        ({"sequence": torch.tensor([0, 6])}, ArgumentError, "sequence has values from 0 to 6, expected 0 to 5"),
        ({"activity": torch.tensor([0, 1])}, ArgumentError, "activity has the value 0, expected 1 to 7"),
        ({"activity": torch.tensor([8, 1])}, ArgumentError, "activity has values from 1 to 8"),
        ({"valid": torch.ones(2)}, ArgumentError, r"valid has shape \[2\], expected \[2, 5\]"),
        ({"valid": [1]}, ArgumentError, "valid is a list"),
    ],
)
def test_3dhp_bad_arguments(change, error, message):
    arguments = {"pred": torch.zeros(2, 5, 17, 3), "target": torch.zeros(2, 5, 17, 3), "sequence": torch.tensor([0, 1])}
    arguments |= change
    with pytest.raises(error, match=message):
        metrics.MPIINF3DHPScore().update(arguments.pop("pred"), arguments.pop("target"), **arguments)


# H3WB


def test_h3wb_as_published():
    pred, target = (100 * torch.from_numpy(fill_input(n, (8, 133, 3))).double() for n in ("h3wb-pred", "h3wb-gt"))
    found = in_batches(metrics.H3WBScore(), 3, pred, target).compute()
    order = ["whole_body", "body", "face", "hands", "face_nose_aligned", "hands_wrist_aligned"]
    rows = dict(zip(order, GOLDEN["h3wb_protocol"], strict=True))
    assert set(found) == set(rows)
    for name, value in rows.items():
        assert found[name].item() == pytest.approx(value, rel=1e-10), name


def test_h3wb_alignment_and_missing_joints():
    _, target = 100 * poses(4, 133)
    score = metrics.H3WBScore()
    score.update(target + torch.tensor([5.0, 0.0, -3.0]), target)  # moved as a whole: nothing is wrong
    assert max(score.compute().values()) < 1e-10
    pred = target.clone()
    pred[:, 112:] += 10.0  # the right hand, moved with its root
    score = metrics.H3WBScore()
    score.update(pred, target)
    found = {k: v.item() for k, v in score.compute().items()}
    assert found["hands_wrist_aligned"] < 1e-10 < found["hands"] == pytest.approx(math.sqrt(300) / 2)
    assert found["body"] < 1e-10
    pred[2, 0] += 50.0  # the nose, in one frame of four
    weight = torch.ones(4, 133)
    weight[2, 0] = 0
    score = metrics.H3WBScore()
    score.update(pred, target, weight)
    assert score.compute()["face_nose_aligned"] < 1e-10
    assert metrics.H3WBScore().update(pred[:0], target[:0]) is None


def test_h3wb_bad_arguments():
    with pytest.raises(ArgumentError, match="expected 133 joints, those of skeleton 'h3wb'"):
        metrics.H3WBScore().update(*poses(2, 5, 17))


def test_docstring_examples():
    for module in (grouped, protocols):
        result = doctest.testmod(module)
        assert result.attempted >= 7 and result.failed == 0
