"""What a trained network scores clip by clip: what differences between networks are weighed against."""

from __future__ import annotations

import inspect
import math

import torch
from torch import Tensor

from ..data import PoseWindows
from ..metrics import BoneLengthSpread
from ..metrics._base import WeightedMean
from ..metrics.measures import Measure, group
from .lifting import LiftingModule
from .scores import Compared, compared, scoring

__all__ = ["ClipValues", "clip_values"]

_BATCH = 64  # windows


class ClipValues:
    """Adds up the measures of each motion; all cameras that see one count as one clip, since they see one movement.

    A value is over the windows of a motion; steps from window to window do not count.

    Args:
        module: whose predictions they are of.
        dataset: the windows that batches come from.
    """

    def __init__(self, module: LiftingModule, dataset: PoseWindows) -> None:
        self.module, self.motions = module, dataset.motions
        rows = [row for row in group("accuracy", "structure") if row.load_function() is not None]
        self.metrics = {row.key: (row, row.make(module.skeleton.name).to(module.device)) for row in rows}
        self.sums: dict[str, Tensor] = {}  # `[2, motions]`, weighted values and weights, float64

    def update(self, pair: Compared, batch: dict[str, Tensor]) -> None:
        """Add a batch. Call it within :func:`~structloss.harness.scores.scoring`."""
        spaces = {
            "millimetres": pair.of_all_joints(self.module, batch),
            "target": (pair.prediction, pair.batch["target"], pair.batch["weight"]),
        }
        for key, (row, metric) in self.metrics.items():
            poses = spaces[row.validation or "millimetres"]
            if isinstance(metric, (WeightedMean, BoneLengthSpread)):
                total, count = (part.flatten(1).sum(1).cpu().double() for part in metric.values(*poses))
                factor, motion = getattr(metric, "factor", 1.0), batch["clip"].cpu()
            else:
                (total, count, motion), factor = self._by_function(row, poses, batch["clip"]), 1.0
            known = total.isfinite()
            added = torch.stack([torch.where(known, factor * total, 0.0), torch.where(known, count, 0.0)])
            sums = self.sums.setdefault(key, torch.zeros(2, len(self.motions), dtype=torch.float64))
            sums.index_add_(1, motion, added)

    def compute(self) -> dict[str, dict[str, float]]:
        """Key of a measure -> motion -> value, as :data:`~structloss.metrics.measures.MEASURES` stores it."""
        found: dict[str, dict[str, float]] = {}
        for key, sums in self.sums.items():
            values = zip(self.motions, (sums[0] / sums[1]).tolist(), (sums[1] > 0).tolist(), strict=True)
            if known := {motion: value for motion, value, scored in values if scored}:
                found[key] = known
        return found

    def _by_function(
        self, row: Measure, poses: tuple[Tensor, Tensor, Tensor], motion: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of each motion of a batch, by a measure's function and weighted by frames, and the motions' numbers."""
        motions = motion.unique()
        values = [_value(row, self.module.skeleton.name, *(part[motion == m] for part in poses)) for m in motions]
        total = torch.tensor([value * frames for value, frames in values], dtype=torch.float64)
        return total, torch.tensor([frames for _, frames in values], dtype=torch.float64), motions.cpu()


@torch.no_grad()
def clip_values(module: LiftingModule, dataset: PoseWindows) -> dict[str, dict[str, float]]:
    """What :class:`ClipValues` adds up over held-out windows. Empty for a network that is being pre-trained.

    Args:
        module: is switched to evaluation mode.
        dataset: held-out windows.
    """
    module.eval()
    values = ClipValues(module, dataset)
    if module.model.kind == "pretrain":
        return {}
    for first in range(0, len(dataset), _BATCH):
        numbers = range(first, min(first + _BATCH, len(dataset)))
        batch = {key: value.to(module.device) for key, value in dataset.batch(numbers).items()}
        prediction = module.predict_image_space(batch["input"])
        with scoring():
            values.update(compared(module, prediction, batch), batch)
    return values.compute()


def _value(row: Measure, skeleton: str, pred: Tensor, target: Tensor, weight: Tensor) -> tuple[float, float]:
    """The value of a measure's function, NaN where it has none, and the number of frames it is of."""
    frames = float((weight > 0).any(-1).sum())
    function = row.load_function()
    if function is None or not frames:
        return math.nan, 0.0
    takes = inspect.signature(function).parameters
    options = {key: value for key, value in row.options.items() if key in takes}
    if "skeleton" in takes:
        options["skeleton"] = skeleton
    poses = (pred, target) if "target" in takes else (pred,)
    return float(function(*poses, weight=weight, **options)), frames
