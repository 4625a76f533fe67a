"""What the metric classes share: weighted sums over batches and processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import check_choice
from ._checks import check_root
from ._precision import Sums, sums

__all__ = ["PartsMean", "RootRelative", "WeightedMean"]


class WeightedMean(Sums):
    """Sum of weighted values over the sum of weights: one number, or one per part (joint, bone, pair, ...).

    Attributes:
        part: what the parts are called, a word that `reduction` takes; None where there are none.
        rows: what one row of the values is: "frames", "steps" between frames, or "joints".
        factor: from the mean to the result, 100 for per cent.
        needs_target: False for a metric of the predicted pose alone, which true poses can be scored with too.
        needs_skeleton: whether the constructor takes the name of a `skeleton`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False  # forward() may compute the batch's value alone and add the sums

    part: str | None = "joints"
    rows: str = "frames"
    factor: float = 1.0
    needs_target: bool = True
    needs_skeleton: bool = False

    total: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=sums(*shape), dist_reduce_fx="sum")
        self.add_state("count", default=sums(*shape), dist_reduce_fx="sum")

    @abstractmethod
    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weighted values and weights, both `[..., rows, parts]`."""

    def update(self, pred: Tensor, target: Tensor | None = None, weight: Tensor | None = None) -> None:
        """Add a batch: poses `[..., T, J, 3]`, weight `[..., T, J]` or None. A metric of the prediction alone takes a
        target too, so that it fits into a collection, and ignores it."""
        with torch.no_grad():
            total, count = self.values(pred, target, weight)
        self.total = self.total + total.sum_to_size(self.total.shape)
        self.count = self.count + count.sum_to_size(self.count.shape)

    def compute(self) -> Tensor:
        """The value over everything seen so far, float64; NaN where nothing was scored."""
        return self.factor * (self.total / self.count)


class RootRelative(WeightedMean):
    """A metric of poses relative to a joint.

    Args:
        root: subtract this joint first; None takes the poses as given.
        kwargs: those of `torchmetrics.Metric`.

    Attributes:
        errors: (pred, target, weight, *, root) -> weighted values and weights, `[..., rows, joints]`.
    """

    errors: ClassVar[Callable[..., tuple[Tensor, Tensor]]]

    def __init__(self, root: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_root(root)
        self.root = root

    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return type(self).errors(pred, target, weight, root=self.root)


class PartsMean(WeightedMean):
    """A metric of a skeleton's bones, pairs, ...: one number, or one per part.

    Args:
        reduction: "mean", or the class's `part` for one value per part.
        count: how many parts there are.
    """

    needs_skeleton = True

    def __init__(self, reduction: str, count: int, **kwargs: Any) -> None:
        check_choice("reduction", reduction, ("mean", str(self.part)))
        super().__init__(shape=() if reduction == "mean" else (count,), **kwargs)
