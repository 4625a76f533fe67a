"""What a trained network scores clip by clip: what differences between networks are weighed against."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict

import torch
from torch import Tensor

from ..data import PoseWindows
from ..metrics.measures import Measure, group
from .lifting import LiftingModule
from .scores import with_all_joints

__all__ = ["clip_values"]

_BATCH = 64  # windows


@torch.no_grad()
def clip_values(module: LiftingModule, dataset: PoseWindows) -> dict[str, dict[str, float]]:
    """Key of a measure -> motion -> value, as :data:`~structloss.metrics.measures.MEASURES` stores it.

    All cameras that see a motion count as one clip, since they see one movement. A value is the mean over the windows
    of a motion, weighted by their scored frames; steps from window to window do not count. Empty for a network that is
    being pre-trained.

    Args:
        module: is switched to evaluation mode.
        dataset: held-out windows.
    """
    module.eval()
    if module.model.kind == "pretrain":
        return {}
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for first in range(0, len(dataset), _BATCH):
        numbers = range(first, min(first + _BATCH, len(dataset)))
        batch = {key: value.to(module.device) for key, value in dataset.batch(numbers).items()}
        prediction = module.predict_image_space(batch["input"])
        matched = module.matched(batch)
        spaces = {
            "millimetres": with_all_joints(module, module.to_millimetres(prediction, matched), batch),
            "target": (prediction, matched["target"], matched["weight"]),
        }
        for clip in batch["clip"].unique().tolist():
            chosen = batch["clip"] == clip
            for row in group("accuracy", "structure"):
                poses = tuple(part[chosen] for part in spaces[row.validation or "millimetres"])
                value, frames = _value(row, module.skeleton.name, *poses)
                if math.isfinite(value):
                    total = sums[row.key, dataset.motions[clip]]
                    total[0] += frames * value
                    total[1] += frames
    found: dict[str, dict[str, float]] = {}
    for (key, motion), (added, count) in sums.items():
        found.setdefault(key, {})[motion] = added / count
    return found


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
