"""People in runs of images: what a network from images makes of them frame by frame, and how that is scored before and
after a refiner."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .. import images
from ..images.joints import to_h36m, to_image_units
from ..images.rendered.people import RenderedPeople
from ..images.runs import PeopleInRuns, runs_of_rendered
from ..images.samples import ImageSamples
from ..images.selection import SomePeople
from ..metrics import (
    LSE,
    MPJPE,
    MPJVE,
    NMPJPE,
    PAMPJPE,
    BoneLengthSpread,
    DepthOrderAccuracy,
    IllegalAngleRate,
    LimbSymmetry,
)
from ..metrics.evaluation import Evaluation
from ..progress import track
from ..refine.prediction_files import PredictedClip
from .image_prediction import found_in
from .image_scores import MADE_JOINTS, limb_values
from .scores import scoring

__all__ = ["FoundClip", "Runs", "found_clips", "predict_runs", "score_clips"]


@dataclass(frozen=True)
class Runs:
    """What a network made of people in runs of images.

    Attributes:
        clips: predicted and true poses of each run, in Human3.6M's joints.
        keypoints: float32 `[T, 17, 3]` of each run: x and y where joints were found, from -1 to 1 at the image's
            borders, and confidence.
        error_2d: mean distance of joints that are seen to where they were found, as a share of the box's side.
    """

    clips: list[PredictedClip]
    keypoints: list[np.ndarray]
    error_2d: float


@dataclass(frozen=True)
class FoundClip:
    """What a network made of one run of images; attributes as of :class:`Runs`.

    Attributes:
        clip: predicted and true poses.
        keypoints: where joints were found.
        distance: summed over the joints that are seen, pixels of the input.
        seen: how many these are.
    """

    clip: PredictedClip
    keypoints: np.ndarray
    distance: float
    seen: int


@torch.no_grad()
def found_clips(
    model: images.SAPNet,
    people: PeopleInRuns,
    *,
    flip: bool = False,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    progress: str = "",
) -> Iterator[FoundClip]:
    """Poses of people in runs of images, run by run; in memory is one run, and a batch of images.

    Args:
        model: in evaluation mode, on the device.
        people: labelled ones.
        flip: average with the mirrored images.
        batch_size: images of one call.
        device: where to compute.
        progress: label of a progress bar on a terminal; empty for none.

    Raises:
        ArgumentError: the network predicts NaN.
        MissingFileError, DataError: an image is gone or damaged.
    """
    size = model.input_size
    rows = np.concatenate([np.asarray(run.rows, np.int64) for run in people.runs])
    loader: Any = DataLoader(
        ImageSamples(SomePeople(people.people, rows), input_size=size), batch_size=batch_size, shuffle=False
    )
    runs = iter(people.runs)
    run, parts, waiting = next(runs), list[tuple[Tensor, ...]](), 0
    for batch in track(loader, progress, bool(progress)):
        parts.append(_found(model, batch, flip, device))
        waiting += len(batch["pose"])
        while waiting >= len(run.rows):
            together = [torch.cat(of) for of in zip(*parts, strict=True)]
            poses, true, keypoints, distance, seen = (of[: len(run.rows)] for of in together)
            clip = PredictedClip(
                np.ascontiguousarray(poses.numpy()),
                np.ascontiguousarray(true.numpy()),
                subject=run.subject,
                action=run.action,
                name=run.name,
                view=run.view,
                fps=people.fps,
            )
            yield FoundClip(clip, keypoints.numpy(), float(distance.sum()), int(seen.sum()))
            parts, waiting = [tuple(of[len(run.rows) :] for of in together)], waiting - len(run.rows)
            following = next(runs, None)
            if following is None:
                return
            run = following


def _found(
    model: images.SAPNet, batch: dict[str, Tensor], flip: bool, device: str | torch.device
) -> tuple[Tensor, ...]:
    """Predicted and true poses `[B, 17, 3]` in metres, keypoints `[B, 17, 3]`, and per image the summed distance of
    joints that are seen and their number `[B]`."""
    out = found_in(model, batch["image"].to(device), flip)
    heatmaps, depth = out.heatmaps[-1].cpu(), out.depth.cpu()
    flat = images.decode(heatmaps, depth, unit="pixels", input_size=model.input_size)[..., :2]
    certain = images.confidence(heatmaps).clamp(0, 1)[..., None]
    shown = batch["visible"]
    return (
        to_h36m(images.decode(heatmaps, depth, unit="mm")) / 1000,
        to_h36m(batch["pose"]) / 1000,
        to_h36m(torch.cat([to_image_units(flat, model.input_size), certain], dim=-1)),
        ((flat - batch["joints"]).norm(dim=-1) * shown).sum(-1),
        shown.sum(-1),
    )


def predict_runs(
    model: images.SAPNet,
    people: RenderedPeople,
    *,
    flip: bool = False,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    progress: str = "",
) -> Runs:
    """Poses of rendered people in runs of images.

    Args:
        model, flip, batch_size, device, progress: as for :func:`found_clips`.
        people: labelled ones, in whole runs.
    """
    found = list(
        found_clips(model, runs_of_rendered(people), flip=flip, batch_size=batch_size, device=device, progress=progress)
    )
    distance, seen = sum(one.distance for one in found), sum(one.seen for one in found)
    return Runs(
        [one.clip for one in found], [one.keypoints for one in found], distance / max(seen, 1) / model.input_size
    )


def score_clips(
    clips: Sequence[PredictedClip],
    refine: Callable[[Tensor], Tensor] | None = None,
    *,
    error_2d: float = math.nan,
) -> Evaluation:
    """Scores of clips, pooled over frames, of the 15 joints that SAP-Net finds itself.

    Args:
        clips: predictions beside true poses.
        refine: makes poses `[1, T, 17, 3]`, metres, of the predicted ones first; None leaves them.
        error_2d: that of :class:`Runs`, to keep among the metrics.
    """
    positions = {
        "mpjpe": MPJPE(root=0),
        "pa_mpjpe": PAMPJPE(),
        "n_mpjpe": NMPJPE(root=0),
        "mpjve": MPJVE(root=0),
        "depth_order_joints": DepthOrderAccuracy(over="joints"),
    }
    skeletons = [_skeleton_metrics() for _ in range(2)]
    depth, frames, by_action = 0.0, 0, dict[str, tuple[MPJPE, PAMPJPE]]()
    with scoring():
        for clip, predicted in _refined(clips, refine):
            true = torch.from_numpy(clip.true)[None] * 1000
            weight = torch.ones(true.shape[:-1])
            weight[..., MADE_JOINTS] = 0
            for metric in positions.values():
                metric.update(predicted, true, weight)
            for metrics, poses in zip(skeletons, (predicted, true), strict=True):
                for skeleton_metric in metrics.values():
                    skeleton_metric.update(poses, None, weight)
            own = by_action.setdefault(clip.action, (MPJPE(root=0), PAMPJPE()))
            for metric in own:
                metric.update(predicted, true, weight)
            depth += float(((predicted - true)[..., 2].abs() * weight).sum())
            frames += int(weight.sum())
        found = {name: float(metric.compute()) for name, metric in positions.items()}
        structure, truth = (limb_values({name: metric.compute() for name, metric in of.items()}) for of in skeletons)
    if not math.isnan(error_2d):
        found["joint_error_2d"] = error_2d
    return Evaluation(
        metrics=found | {"depth_error": depth / max(frames, 1)},
        per_action={name: float(own[0].compute()) for name, own in sorted(by_action.items())},
        per_action_pa={name: float(own[1].compute()) for name, own in sorted(by_action.items())},
        structure=structure,
        truth=truth,
    )


def _skeleton_metrics() -> dict[str, LSE | IllegalAngleRate | LimbSymmetry | BoneLengthSpread]:
    return {
        "lse": LSE(),
        "bone_length_spread": BoneLengthSpread(),
        "illegal_angle_rate": IllegalAngleRate(),
        "symmetry": LimbSymmetry(),
        "spread": BoneLengthSpread(reduction="limbs"),
    }


def _refined(
    clips: Sequence[PredictedClip], refine: Callable[[Tensor], Tensor] | None
) -> Iterator[tuple[PredictedClip, Tensor]]:
    """Each clip and its poses `[1, T, 17, 3]` in mm."""
    for clip in clips:
        poses = torch.from_numpy(clip.predicted)[None]
        if refine is not None:
            with torch.no_grad():
                poses = refine(poses)
        yield clip, poses * 1000
