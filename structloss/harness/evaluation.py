"""Score a trained module on held-out windows, with the breakdowns that reports show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .lifting import LiftingModule

__all__ = ["Evaluation", "evaluate", "poses_of"]


@dataclass
class Evaluation:
    """Results over all held-out windows.

    Attributes:
        metrics: the module's test metrics (mm, mm per frame, shares); for a network that is being pre-trained and
            predicts no poses, "loss".
        per_joint: MPJPE of each joint that the network predicts, mm, root-relative.
        per_action: MPJPE of each action, mm, root-relative, the mean over its frames.
    """

    metrics: dict[str, float]
    per_joint: list[float] = field(default_factory=list)
    per_action: dict[str, float] = field(default_factory=dict)


def poses_of(module: LiftingModule, batch: dict[str, Tensor]) -> Tensor:
    """Predicted camera-space poses of a batch, `[B, T, J, 3]`, mm."""
    return module.predict_step(batch, 0)


@torch.no_grad()
def evaluate(module: LiftingModule, batches: Iterable[dict[str, Tensor]], actions: Sequence[str]) -> Evaluation:
    """Run the module over batches of :class:`structloss.data.PoseWindows` and score them.

    Args:
        module: is switched to evaluation mode.
        batches: a validation or test loader.
        actions: names of the batches' action numbers.
    """
    module.eval()
    if module.model.kind == "pretrain":
        losses = [module.loss(module.model.supervise(batch["input"].to(module.device), None))[0] for batch in batches]
        return Evaluation({"loss": float(torch.stack(losses).mean())})
    scores = module.test_metrics, module.test_order
    for metrics in scores:
        metrics.reset()
    root = module.skeleton.root
    errors = weights = torch.zeros(())
    for batch in batches:
        batch = {key: value.to(module.device) for key, value in batch.items()}
        prediction = module.score(batch, *scores)
        batch = module.matched(batch)
        if not errors.dim():
            errors = torch.zeros(len(actions), prediction.shape[-2], dtype=torch.float64)
            weights = torch.zeros_like(errors)
        found, true = (x - x[..., root : root + 1, :] for x in (prediction, batch["camera_pose"]))
        error = torch.linalg.vector_norm((found - true).double(), dim=-1)
        error, weight = ((x * batch["weight"]).sum(1).cpu().double() for x in (error, torch.ones_like(error)))
        errors.index_add_(0, batch["action"].cpu(), error)
        weights.index_add_(0, batch["action"].cpu(), weight)
    per_action = errors.sum(1) / weights.sum(1)
    return Evaluation(
        metrics={name.removeprefix("test/"): float(v) for metrics in scores for name, v in metrics.compute().items()},
        per_joint=(errors.sum(0) / weights.sum(0)).tolist(),
        per_action={name: float(v) for name, v in zip(actions, per_action, strict=True) if v == v},
    )
