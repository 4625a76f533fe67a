"""What is scored on held-out windows besides the means: breakdowns, structure, the protocol's own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.image_space import relative
from ..data.protocols import PROTOCOLS
from ..metrics import (
    BSLE,
    LIMBS,
    LLE,
    LSE,
    MPJPE,
    NMPJPE,
    PAMPJPE,
    BoneLengthSpread,
    H3WBScore,
    IllegalAngleRate,
    LimbSymmetry,
    MPIINF3DHPScore,
    PerAction,
    PerJoint,
)
from ..skeletons import Skeleton

if TYPE_CHECKING:
    from .lifting import LiftingModule

__all__ = ["Evaluation", "Scores", "breakdown", "kept", "with_all_joints"]


@dataclass
class Evaluation:
    """Results over all held-out windows.

    Attributes:
        metrics: the module's test metrics (mm, mm per frame, shares); for a network that is being pre-trained and
            predicts no poses, "loss".
        per_joint: MPJPE of each joint of the skeleton, mm, relative to the pelvis; NaN for one that the network doesn't
            predict.
        per_action: MPJPE of each action, mm, relative to the pelvis, the mean over its frames.
        per_action_pa: PA-MPJPE likewise.
        protocol: the numbers that are published for the data set: "p1", "p2", "p3" (Human3.6M: MPJPE, PA-MPJPE and
            N-MPJPE, mm, means over actions), "pck", "auc", "mpjpe" (MPI-INF-3DHP), or H3WB's six.
        structure: of the predicted skeletons: "lse", "bsle", "lle", "bone_length_spread" (mm), "illegal_angle_rate"
            (share); and part by part "symmetry/LIMB", "spread/LIMB" (mm) for the limbs of `structloss.metrics.LIMBS`
            and "illegal/HINGE" (share). Spreads are over whole views.
        truth: the same of the true poses, as far as it needs no target.
    """

    metrics: dict[str, float]
    per_joint: list[float] = field(default_factory=list)
    per_action: dict[str, float] = field(default_factory=dict)
    per_action_pa: dict[str, float] = field(default_factory=dict)
    protocol: dict[str, float] = field(default_factory=dict)
    structure: dict[str, float] = field(default_factory=dict)
    truth: dict[str, float] = field(default_factory=dict)


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
        self.predicted, self.true = _Structure(body, torch.device(device)), _Structure(body, torch.device(device))
        self.own: Any = None
        if self.rules == "mpi_inf_3dhp":
            self.own = MPIINF3DHPScore(sequences=tuple(subjects)).to(device)
        elif self.rules == "h3wb":
            self.own = H3WBScore().to(device)

    @torch.no_grad()
    def update(self, module: LiftingModule, poses: Tensor, batch: dict[str, Tensor]) -> None:
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
        return Evaluation(
            metrics=metrics,
            per_joint=self.by_joint.compute().tolist(),
            per_action=self.by_action["p1"].per_action(),
            per_action_pa=self.by_action["p2"].per_action(),
            protocol=protocol,
            structure=self.predicted.compute(),
            truth=self.true.compute(),
        )


def breakdown(found: Evaluation) -> str:
    """Errors by action and by limb as lines of text, the protocol's own numbers last."""
    lines = []
    if found.per_action:
        width = max(map(len, found.per_action))
        lines.append(f"{'action':{width}}  MPJPE, mm  PA-MPJPE, mm")
        for name, value in found.per_action.items():
            lines.append(f"{name:{width}}  {value:9.1f}  {found.per_action_pa.get(name, float('nan')):12.1f}")
    parts = [name for name in found.structure if "/" in name]
    if parts:
        lines += ["", f"{'structure':24}  predicted  true"]
        for name in parts:
            share = name.startswith("illegal")
            predicted, true = (100 * x if share else x for x in (found.structure[name], found.truth[name]))
            lines.append(f"{name:24}  {predicted:9.1f}  {true:4.1f} {'%' if share else 'mm'}")
    if found.protocol:
        lines += ["", "protocol: " + ", ".join(f"{name} {value:.2f}" for name, value in found.protocol.items())]
    return "\n".join(lines)


def kept(module: LiftingModule, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the frames and of the joints that the network predicts of clips `[B, T, J, ...]`."""
    frames, joints = clip.shape[1:3]
    every = torch.arange(frames * joints, device=clip.device).reshape(1, frames, joints)
    matched = module.model.match(every)[0]
    return matched[:, 0] // joints, matched[0] % joints


def with_all_joints(module: LiftingModule, poses: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
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


class _Structure:
    """The structural metrics, each as a mean and part by part."""

    def __init__(self, body: Skeleton, device: torch.device) -> None:
        name = body.name
        self.alone = {
            "lse": LSE(name),
            "illegal_angle_rate": IllegalAngleRate(name),
            "symmetry": LimbSymmetry(name),
            "illegal": IllegalAngleRate(name, reduction="hinges"),
        }
        self.compared = {"bsle": BSLE(name), "lle": LLE(name)}
        self.over_time = {
            "bone_length_spread": BoneLengthSpread(name, sequences=True),
            "spread": BoneLengthSpread(name, sequences=True, reduction="limbs"),
        }
        self.parts = {"symmetry": LIMBS, "spread": LIMBS, "illegal": tuple(hinge.name for hinge in body.hinges)}
        for metric in (*self.alone.values(), *self.compared.values(), *self.over_time.values()):
            metric.to(device)

    def update(self, pose: Tensor, target: Tensor | None, weight: Tensor, views: Tensor) -> None:
        for metric in (*self.alone.values(), *(self.compared.values() if target is not None else ())):
            metric.update(pose, target, weight)
        for metric in self.over_time.values():
            metric.update(pose, None, weight, sequence=views)

    def compute(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, metric in (self.alone | self.compared | self.over_time).items():
            if metric.update_called:
                value = metric.compute()
                names = [f"{name}/{part}" for part in self.parts[name]] if name in self.parts else [name]
                found |= dict(zip(names, value.reshape(-1).tolist(), strict=True))
        return found
