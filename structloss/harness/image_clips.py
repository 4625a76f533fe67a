"""Rendered people in motion: what a network from images makes of them frame by frame, and how that is scored before and
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
from ..images.samples import ImageSamples
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

__all__ = ["Runs", "predict_runs", "score_clips"]


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


@torch.no_grad()
def predict_runs(
    model: images.SAPNet,
    people: RenderedPeople,
    *,
    flip: bool = False,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    progress: str = "",
) -> Runs:
    """Poses of people in runs of images.

    Args:
        model: in evaluation mode, on the device.
        people: labelled ones, in whole runs.
        flip: average with the mirrored images.
        batch_size: images of one call.
        device: where to compute.
        progress: label of a progress bar on a terminal; empty for none.
    """
    samples = ImageSamples(people, input_size=model.input_size)
    loader: Any = DataLoader(samples, batch_size=batch_size, shuffle=False)
    found, true, keypoints = [], [], []
    distance, seen = 0.0, 0
    for batch in track(loader, progress, bool(progress)):
        out = found_in(model, batch["image"].to(device), flip)
        heatmaps, depth = out.heatmaps[-1].cpu(), out.depth.cpu()
        found.append(to_h36m(images.decode(heatmaps, depth, unit="mm")) / 1000)
        true.append(to_h36m(batch["pose"]) / 1000)
        flat = images.decode(heatmaps, depth, unit="pixels", input_size=model.input_size)[..., :2]
        certain = images.confidence(heatmaps).clamp(0, 1)[..., None]
        keypoints.append(to_h36m(torch.cat([to_image_units(flat, model.input_size), certain], dim=-1)))
        shown = batch["visible"]
        distance += float((flat - batch["joints"]).norm(dim=-1)[shown].sum())
        seen += int(shown.sum())
    poses, target, flat_poses = (torch.cat(of).numpy() for of in (found, true, keypoints))
    clips, seen_in = [], []
    for first in range(0, len(people), people.frames):
        of = slice(first, first + people.frames)
        person = people[first]
        clips.append(
            PredictedClip(
                np.ascontiguousarray(poses[of]),
                np.ascontiguousarray(target[of]),
                subject=person.subject,
                action=person.action,
                name=f"run{people.run_of(first):03d}",
                fps=people.fps,
            )
        )
        seen_in.append(flat_poses[of])
    return Runs(clips, seen_in, distance / max(seen, 1) / model.input_size)


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
