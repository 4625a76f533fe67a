"""Scores of joints in images: published figures, what drops out, and classes of the same meaning."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from structloss import metrics
from structloss.errors import ArgumentError, DtypeError
from structloss.metrics.measures import group
from structloss.shape_templates import JOINTS

GOLDEN = np.load(Path(__file__).parent / "golden" / "images" / "shape_template.npz")


@pytest.fixture
def published():
    """pred, target [64, 15, 2], diagonal [64]"""
    return tuple(torch.from_numpy(GOLDEN[f"metric__{name}"]) for name in ("pred", "gt", "diagonal"))


def close(found, wanted, tolerance=1e-12):
    torch.testing.assert_close(
        found, torch.as_tensor(wanted, dtype=torch.float64), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def test_published_figures(published):
    pred, target, diagonal = published
    close(metrics.pdj(pred, target, diagonal), 100 * GOLDEN["metric__pdj"])
    close(metrics.pdj(pred, target, diagonal, reduction="joints"), 100 * GOLDEN["metric__pdj_by_joint"])
    close(metrics.normalized_l2(pred, target), 100 * GOLDEN["metric__normalized_l2"])
    parts = metrics.TEMPLATE_PARTS
    close(metrics.proportion_spread(pred, parts=parts), GOLDEN["metric__proportion_std"])
    close(metrics.proportion_spread(pred, parts=parts).mean(), GOLDEN["metric__mean_sigma"])
    close(metrics.bplp_c(pred, parts=parts), GOLDEN["metric__bplp_c"], 1e-10)


def test_by_hand(published):
    pred, target, diagonal = published
    error = np.linalg.norm(GOLDEN["metric__pred"] - GOLDEN["metric__gt"], axis=-1)
    names = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
    right, left = (error[:, [JOINTS.index(name + side) for name in names]].mean(0) for side in "RL")
    gaps = 100 * np.abs(right - left) / 256
    close(metrics.left_right_gap(pred, target, reduction="pairs"), gaps)
    close(metrics.left_right_gap(pred, target), gaps.mean())
    close(metrics.left_right_gap(pred, target, size=64), 4 * gaps.mean())
    close(metrics.normalized_l2(pred, target, size=100, reduction="none"), error.mean(1))
    near = error < 0.2 * GOLDEN["metric__diagonal"][:, None]
    close(metrics.pdj(pred, target, diagonal, 0.2, reduction="none"), 100 * near.mean(1))
    parts = [(JOINTS[a], JOINTS[b]) for a, b in metrics.TEMPLATE_PARTS]
    assert parts[0] == ("abdomen", "neck") and ("shoulderR", "chest") in parts and len(parts) == 13


def test_a_distance_equal_to_the_threshold_is_not_detected():
    target = torch.zeros(1, 3, 2)
    pred = torch.tensor([[[3.0, 4.0], [0.0, 4.999], [0.0, 5.001]]])
    close(metrics.pdj(pred, target, 50.0, 0.1, reduction="joints"), [0.0, 100.0, 0.0])


def test_what_is_not_annotated_drops_out(published):
    pred, target, diagonal = published
    annotated = torch.rand(64, 15, generator=torch.Generator().manual_seed(0)) > 0.3
    annotated[5] = False
    torn, diagonal = pred.clone(), diagonal.clone()
    torn[~annotated] = math.nan
    diagonal[5] = math.nan
    error = (pred - target).norm(dim=-1)
    close(metrics.normalized_l2(torn, target, annotated=annotated), 100 * error[annotated].mean() / 256)
    near = (error < 0.05 * diagonal[:, None])[annotated].double()
    close(metrics.pdj(torn, target, diagonal, annotated=annotated), 100 * near.mean())
    per_frame = metrics.pdj(torn, target, diagonal, annotated=annotated, reduction="none")
    assert per_frame[5].isnan() and not per_frame[6:].isnan().any()
    # A frame without a diagonal drops out of PDJ alone.
    diagonal[7] = math.nan
    annotated[7] = True
    assert not metrics.pdj(pred, target, diagonal, annotated=annotated).isnan()
    assert metrics.pdj(pred, target, diagonal, annotated=annotated, reduction="none")[7].isnan()
    # A side that was never seen has no gap.
    annotated = torch.ones(64, 15, dtype=torch.bool)
    annotated[:, JOINTS.index("kneeL")] = False
    gaps = metrics.left_right_gap(pred, target, annotated=annotated, reduction="pairs")
    assert gaps[1].isnan() and gaps.isnan().sum() == 1
    close(metrics.left_right_gap(pred, target, annotated=annotated), gaps[~gaps.isnan()].mean())


def test_predictions_that_are_nan(published):
    pred, target, diagonal = published
    pred = pred.clone()
    pred[0, 0] = math.nan
    found = metrics.pdj(pred, target, diagonal, reduction="joints")
    assert 0 < found[0] <= 100 - 100 / 64  # counts as not detected
    assert metrics.normalized_l2(pred, target).isnan()


def test_nothing_to_score(published):
    empty, frames = torch.zeros(0, 15, 2), torch.zeros(0)
    none = torch.zeros(64, 15, dtype=torch.bool)
    pred, target, diagonal = published
    for found in (
        metrics.pdj(empty, empty, frames),
        metrics.normalized_l2(empty, empty),
        metrics.left_right_gap(empty, empty),
        metrics.pdj(pred, target, diagonal, annotated=none),
        metrics.normalized_l2(pred, target, annotated=none),
        metrics.left_right_gap(pred, target, annotated=none),
        metrics.PDJ().compute(),
        metrics.NormalizedL2().compute(),
        metrics.LeftRightGap().compute(),
    ):
        assert found.isnan() and found.shape == () and found.dtype == torch.float64
    assert metrics.pdj(empty, empty, frames, reduction="joints").shape == (15,)


@pytest.mark.parametrize("pieces", [1, 3, 64])
def test_classes_add_up(published, pieces):
    pred, target, diagonal = published
    annotated = torch.rand(64, 15, generator=torch.Generator().manual_seed(1)) > 0.2
    made = {
        metrics.PDJ(): metrics.pdj(pred, target, diagonal, annotated=annotated),
        metrics.PDJ(0.1, "joints"): metrics.pdj(pred, target, diagonal, 0.1, annotated=annotated, reduction="joints"),
        metrics.NormalizedL2(): metrics.normalized_l2(pred, target, annotated=annotated),
        metrics.NormalizedL2(96, "joints"): metrics.normalized_l2(
            pred, target, 96, annotated=annotated, reduction="joints"
        ),
        metrics.LeftRightGap(): metrics.left_right_gap(pred, target, annotated=annotated),
        metrics.LeftRightGap(96, reduction="pairs"): metrics.left_right_gap(
            pred, target, 96, annotated=annotated, reduction="pairs"
        ),
    }
    for metric, wanted in made.items():
        for part in torch.arange(64).chunk(pieces):
            box = (diagonal[part],) if isinstance(metric, metrics.PDJ) else ()
            metric.update(pred[part], target[part], *box, annotated[part])
        close(metric.compute(), wanted)
        metric.reset()
        assert metric.compute().isnan().all()
    assert metrics.PDJ().higher_is_better and not metrics.NormalizedL2().higher_is_better


def test_leading_axes_and_half_precision(published):
    pred, target, diagonal = published
    close(metrics.pdj(pred.view(4, 16, 15, 2), target.view(4, 16, 15, 2), diagonal.view(4, 16)),
          metrics.pdj(pred, target, diagonal))  # fmt: skip
    close(metrics.normalized_l2(pred[0], target[0]), metrics.normalized_l2(pred[:1], target[:1]))
    assert metrics.pdj(pred.half(), target.half(), diagonal.half()).dtype == torch.float64
    assert metrics.left_right_gap(pred[0], target[0]).shape == ()


def test_measures_have_these_functions():
    rows = {row.key: row for row in group("template")}
    assert not rows.pop("reconstruction").higher_is_better  # of images, not of joints: training's own figure
    assert list(rows) == ["pdj", "normalized_l2", "bplp_c", "left_right_gap"]
    assert all(row.load_function() is getattr(metrics, key) for key, row in rows.items())
    assert (
        rows["pdj"].higher_is_better and rows["bplp_c"].higher_is_better and not rows["normalized_l2"].higher_is_better
    )


BAD = [
    (lambda p, t, d: metrics.pdj(p[..., 0], t, d), "pred has shape [4, 15], expected [..., J, 2]"),
    (lambda p, t, d: metrics.pdj(p, t[:3], d), "target has shape [3, 15, 2]"),
    (lambda p, t, d: metrics.pdj(p, t, d[:3]), "diagonal has shape [3], expected [4]"),
    (lambda p, t, d: metrics.pdj(p, t, 0 * d), "diagonal has the value 0, expected pixels above 0"),
    (lambda p, t, d: metrics.pdj(p, t, d / 0), "diagonal has the value inf"),
    (lambda p, t, d: metrics.pdj(p, t, "wide"), "diagonal is 'wide', expected a tensor or a number"),
    (lambda p, t, d: metrics.pdj(p, t, d, 0.0), "threshold is 0.0"),
    (lambda p, t, d: metrics.pdj(p, t, d, reduction="joint"), "reduction is 'joint'"),
    (lambda p, t, d: metrics.pdj(p, t, d, annotated=torch.ones(4, 15)), "annotated is torch.float32 [4, 15]"),
    (lambda p, t, d: metrics.pdj(p, t, d, annotated=torch.ones(4, 14, dtype=torch.bool)), "[4, 14], expected"),
    (lambda p, t, d: metrics.normalized_l2(p, t, 0), "size is 0"),
    (lambda p, t, d: metrics.left_right_gap(p[:, :9], t[:, :9]), "pairs has joint 14, expected joints below 9"),
    (lambda p, t, d: metrics.left_right_gap(p, t, pairs=[(1, 1)]), "pairs is [(1, 1)]"),
    (lambda p, t, d: metrics.left_right_gap(p, t, pairs=[]), "pairs is []"),
    (lambda p, t, d: metrics.left_right_gap(p, t, reduction="joints"), "reduction is 'joints'"),
    (lambda p, t, d: metrics.PDJ(reduction="joints").update(p[:, :9], t[:, :9], d), "pred has 9 joints, expected 15"),
    (lambda p, t, d: metrics.LeftRightGap().update(p[:, :9], t[:, :9]), "pred has 9 joints, expected 15"),
    (lambda p, t, d: metrics.NormalizedL2(reduction="none"), "reduction is 'none'"),
    (lambda p, t, d: metrics.normalized_l2(p.numpy(), t), "pred is a numpy array"),
]


@pytest.mark.parametrize(("call", "says"), BAD, ids=[says[:40] for _, says in BAD])
def test_bad_input_gets_one_sentence(call, says):
    pred, target, diagonal = torch.zeros(4, 15, 2), torch.ones(4, 15, 2), torch.full((4,), 100.0)
    with pytest.raises((ArgumentError, TypeError)) as caught:
        call(pred, target, diagonal)
    text = str(caught.value)
    assert says in text and text.endswith(".") and "\n" not in text and ". " not in text.replace("...", ""), text


def test_whole_numbers_are_refused():
    whole = torch.zeros(4, 15, 2, dtype=torch.long)
    with pytest.raises(DtypeError, match=r"pred has dtype torch\.int64"):
        metrics.normalized_l2(whole, whole)
