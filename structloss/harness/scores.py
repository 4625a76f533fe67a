"""What is scored on held-out windows: the measures of the table, breakdowns, and the protocol's own numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from ..backbones import Backbone
from ..data.image_space import relative
from ..data.protocols import PROTOCOLS
from ..metrics import LIMBS, MPJPE, NMPJPE, PAMPJPE, H3WBScore, MPIINF3DHPScore, PerAction, PerJoint
from ..metrics.evaluation import Evaluation
from ..metrics.measures import MEASURES, Measure, measure
from ..skeletons import Skeleton

__all__ = ["Evaluation", "Scored", "Scores", "kept", "validation_metrics", "with_all_joints"]


class Scored(Protocol):
    """What scoring asks of a lifting module: its network, and the skeleton of its poses."""

    @property
    def model(self) -> Backbone: ...

    @property
    def skeleton(self) -> Skeleton: ...


def validation_metrics(skeleton: str, prefix: str) -> tuple[MetricCollection, MetricCollection]:
    """The measures that are computed at every validation: of root-relative poses in mm, and in the space of the target.

    Args:
        skeleton: of the poses.
        prefix: of the names that they are logged under, such as "val/".
    """

    def collection(space: str) -> MetricCollection:
        chosen = [row for row in MEASURES.values() if row.validation == space]
        return MetricCollection({row.key: row.make(skeleton) for row in chosen}, prefix=prefix, compute_groups=False)

    return collection("millimetres"), collection("target")


class Scores:
    """Adds up what an :class:`Evaluation` holds besides the module's own metrics; under DDP over all processes.

    Args:
        body: the skeleton.
        actions: names of the batches' action numbers.
        subjects: names of the batches' subject numbers.
        protocol: name in :data:`~structloss.data.protocols.PROTOCOLS`.
        device: where batches are.
    """

    def __init__(
        self,
        body: Skeleton,
        actions: Sequence[str],
        subjects: Sequence[str] = (),
        protocol: str = "subjects",
        device: torch.device | str = "cpu",
    ) -> None:
        self.body, self.rules = body, PROTOCOLS[protocol].score
        self.by_joint = PerJoint(MPJPE(), joints=body.num_joints).to(device)
        names = ("p1", "p2", "p3")
        self.by_action = {
            name: PerAction(metric, actions).to(device)
            for name, metric in zip(names, (MPJPE(), PAMPJPE(), NMPJPE()), strict=True)
        }
        chosen = [row for row in MEASURES.values() if row.metric and not row.validation]
        self.predicted = _Measured(chosen, body, torch.device(device))
        self.true = _Measured([row for row in chosen if row.group in _OF_SKELETONS], body, torch.device(device))
        self.own: Any = None
        if self.rules == "mpi_inf_3dhp":
            self.own = MPIINF3DHPScore(sequences=tuple(subjects)).to(device)
        elif self.rules == "h3wb":
            self.own = H3WBScore().to(device)

    @torch.no_grad()
    def update(self, module: Scored, poses: Tensor, batch: dict[str, Tensor]) -> None:
        """Add a batch and what the module predicts of it, camera-space poses in mm."""
        poses, target, weight = with_all_joints(module, poses, batch)
        self.by_joint.update(poses, target, weight)
        for metric in self.by_action.values():
            metric.update(poses, target, weight, action=batch["action"])
        views = batch["clip"] * 1000 + batch["view"]
        self.predicted.update(poses, target, weight, views)
        self.true.update(target, None, weight, views)
        if self.rules == "mpi_inf_3dhp":
            valid = (weight > 0).all(-1)
            self.own.update(poses, target, sequence=batch["subject"], valid=valid)
        elif self.rules == "h3wb":
            self.own.update(poses, target, weight)

    def compute(self, metrics: dict[str, float]) -> Evaluation:
        """All of it, and the module's own metrics."""
        protocol = {}
        if self.own is not None:
            protocol = {name: float(value) for name, value in self.own.compute().items()}
        elif self.rules.startswith("h36m"):
            protocol = {name: float(metric.compute()) for name, metric in self.by_action.items()}
        found = self.predicted.compute()
        of_skeletons = {key: value for key, value in found.items() if measure(key).group in _OF_SKELETONS}
        return Evaluation(
            metrics=metrics | {key: value for key, value in found.items() if key not in of_skeletons},
            per_joint=self.by_joint.compute().tolist(),
            per_action=self.by_action["p1"].per_action(),
            per_action_pa=self.by_action["p2"].per_action(),
            protocol=protocol,
            structure=of_skeletons,
            truth=self.true.compute(),
        )


_OF_SKELETONS = ("structure", "limb")  # groups that true poses are measured by too


class _Measured:
    """The metrics of some measures, of the predicted poses or of the true ones."""

    def __init__(self, rows: Iterable[Measure], body: Skeleton, device: torch.device) -> None:
        self.metrics: dict[str, Metric] = {row.key: row.make(body.name).to(device) for row in rows}
        self.parts = {"limbs": LIMBS, "hinges": tuple(hinge.name for hinge in body.hinges)}

    def update(self, pose: Tensor, target: Tensor | None, weight: Tensor, views: Tensor) -> None:
        """Add poses `[B, T, J, 3]`; without a target, to those metrics that need none."""
        for metric in self.metrics.values():
            if target is None and getattr(metric, "needs_target", True):
                continue
            extra = {"sequence": views} if getattr(metric, "sequences", False) else {}
            metric.update(pose, target, weight, **extra)

    def compute(self) -> dict[str, float]:
        """Key, or KEY/PART, -> number, of the metrics that were given anything."""
        found: dict[str, float] = {}
        for key, metric in self.metrics.items():
            if metric.update_called:
                parts = MEASURES[key].parts
                names = [f"{key}/{part}" for part in self.parts[parts]] if parts else [key]
                found |= dict(zip(names, metric.compute().reshape(-1).tolist(), strict=True))
        return found


def kept(module: Scored, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the frames and of the joints that the network predicts of clips `[B, T, J, ...]`."""
    frames, joints = clip.shape[1:3]
    every = torch.arange(frames * joints, device=clip.device).reshape(1, frames, joints)
    matched = module.model.match(every)[0]
    return matched[:, 0] // joints, matched[0] % joints


def with_all_joints(module: Scored, poses: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction and target relative to the pelvis, `[B, T, J, 3]`, and weight, for all joints of the skeleton.

    What the network doesn't predict is NaN of weight 0, and a frame whose pelvis has no weight has none.
    """
    pelvis = list(module.skeleton.pelvis)
    frames, joints = kept(module, batch["weight"])
    target, weight = batch["camera_pose"][:, frames], batch["weight"][:, frames]
    if len(joints) < target.shape[2]:
        poses = torch.full_like(target, torch.nan).index_copy(2, joints, poses)
        weight = torch.zeros_like(weight).index_copy(2, joints, weight[..., joints])
    known = (weight[..., pelvis] > 0).all(-1, keepdim=True)
    return relative(poses, pelvis), relative(target, pelvis), torch.where(known, weight, 0.0)
