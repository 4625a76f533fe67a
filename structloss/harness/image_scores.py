"""What is scored of a network from images: where joints are in the image, how deep, and what the skeletons are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from .. import images
from ..images.joints import to_h36m
from ..metrics import LIMBS, LSE, MPJPE, NMPJPE, PAMPJPE, DepthOrderAccuracy, IllegalAngleRate, LimbSymmetry, PerAction
from ..metrics.evaluation import Evaluation
from .scores import scoring

__all__ = ["MADE_JOINTS", "ImageScores", "h36m_weights", "limb_values"]

#: SAP-Net's joint in the place of each of Human3.6M's
_PLACES = (6, 2, 1, 0, 3, 4, 5, 7, 8, 9, 9, 13, 14, 15, 12, 11, 10)
#: those that it does not find itself: its spine is the middle of pelvis and neck, neck/nose the middle of neck and head
MADE_JOINTS = (7, 9)


def h36m_weights(annotated: Tensor) -> Tensor:
    """Which of Human3.6M's joints are known: bool `[..., 16]` in the order of SAP-Net -> bool `[..., 17]`, False for
    the two that are made of others."""
    known = annotated[..., _PLACES].clone()
    known[..., MADE_JOINTS] = False
    return known


class ImageScores:
    """Adds up scores of batches; under DDP they are those of all processes.

    Poses are compared in mm relative to the pelvis, the predicted ones scaled to canonical bone lengths, in the 15
    joints of Human3.6M that the network finds.

    Args:
        actions: names of the batches' action numbers; none leaves the table by action out.
        device: where batches are.
    """

    def __init__(self, actions: Sequence[str] = (), device: torch.device | str = "cpu") -> None:
        self.positions = MetricCollection(
            {
                "mpjpe": MPJPE(root=0),
                "pa_mpjpe": PAMPJPE(),
                "n_mpjpe": NMPJPE(root=0),
                "depth_order_joints": DepthOrderAccuracy(over="joints"),
            },
            compute_groups=False,
        )
        self.predicted, self.true = (
            MetricCollection(
                {"lse": LSE(), "illegal_angle_rate": IllegalAngleRate(), "symmetry": LimbSymmetry()},
                compute_groups=False,
            )
            for _ in range(2)
        )
        self.flat, self.depth = MeanMetric(), MeanMetric()
        self.by_action: dict[str, PerAction] = {}
        if actions:
            self.by_action = {"mpjpe": PerAction(MPJPE(root=0), actions), "pa_mpjpe": PerAction(PAMPJPE(), actions)}

        for metric in (self.positions, self.predicted, self.true, self.flat, self.depth, *self.by_action.values()):
            metric.to(device)

    def update(self, out: images.SAPOutput, batch: Mapping[str, Tensor], input_size: int) -> None:
        """Add a batch.

        Args:
            out: heatmaps, whose last stack counts, and depths.
            batch: samples.
            input_size: sides of the input, pixels.
        """
        with scoring():
            found = images.decode(out.heatmaps[-1], out.depth, unit="pixels", input_size=input_size)
            shown = batch["annotated"] & batch["visible"]
            error = (found[..., :2] - batch["joints"].to(found.dtype)).norm(dim=-1) / input_size
            self.flat.update(error[shown])
            labelled = batch["has_depth"]
            if bool(labelled.any()):
                poses = images.decode(out.heatmaps[-1], out.depth, unit="mm")[labelled]
                self._update_poses(poses, {key: value[labelled] for key, value in batch.items()})

    def _update_poses(self, poses: Tensor, batch: Mapping[str, Tensor]) -> None:
        predicted, true = (to_h36m(x.to(poses.dtype))[:, None] for x in (poses, batch["pose"]))
        weight = h36m_weights(batch["annotated"]).to(poses.dtype)[:, None]
        self.positions.update(predicted, true, weight)
        self.predicted.update(predicted, None, weight)
        self.true.update(true, None, weight)
        self.depth.update((predicted - true)[..., 2].abs(), weight)
        for metric in self.by_action.values():
            metric.update(predicted, true, weight, action=batch["action"])

    def means(self) -> dict[str, float]:
        """Key -> value: errors, and structure of the predicted skeletons as one number each."""
        with scoring():
            found = {name: float(value) for name, value in self.positions.compute().items()}
            found |= {"joint_error_2d": float(self.flat.compute()), "depth_error": float(self.depth.compute())}
            return found | {key: value for key, value in _structure(self.predicted).items() if "/" not in key}

    def evaluation(self) -> Evaluation:
        """All of it."""
        structure = _structure(self.predicted)
        by_action = {name: metric.per_action() for name, metric in self.by_action.items()}
        return Evaluation(
            metrics={key: value for key, value in self.means().items() if key not in structure},
            per_action=by_action.get("mpjpe", {}),
            per_action_pa=by_action.get("pa_mpjpe", {}),
            structure=structure,
            truth=_structure(self.true),
        )


def _structure(skeletons: MetricCollection) -> dict[str, float]:
    return limb_values(skeletons.compute())


def limb_values(found: Mapping[str, Tensor]) -> dict[str, float]:
    """Values of metrics as an evaluation stores them: one with a value for each limb under KEY/LIMB."""
    single = {name: float(value) for name, value in found.items() if not value.dim()}
    parts = {name: zip(LIMBS, value.tolist(), strict=True) for name, value in found.items() if value.dim()}
    return single | {f"{name}/{limb}": mm for name, limbs in parts.items() for limb, mm in limbs}
