"""The metrics as `torchmetrics.Metric` classes: one value over any number of batches and processes.

Each holds two float64 sums, the weighted errors and the weights, added up over batches and, under distributed training,
over processes. So the value is the same however the data were cut (to float64 rounding; exactly for unweighted depth
pairs), empty batches add nothing, and a metric that has scored nothing computes to NaN. `update` and `forward` take
`(pred, target, weight=None)` as the functions do; `compute` returns a float64 scalar.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from ..errors import check_choice
from ._checks import check_root
from .depth_order import OVER, depth_order_sums
from .functional import mpjpe_sums, mpjve_sums, n_mpjpe_sums, pa_mpjpe_sums

__all__ = ["MPJPE", "MPJVE", "NMPJPE", "PAMPJPE", "DepthOrderAccuracy"]


class _WeightedMean(Metric):
    """Sum of weighted values over the sum of weights."""

    is_differentiable = False
    higher_is_better = False
    full_state_update = False  # forward() may compute the batch's value alone and add the sums

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @abstractmethod
    def _sums(self, pred: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sums of weighted values and of weights, of any matching shapes."""

    def update(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch: poses `[..., T, J, 3]`, weight `[..., T, J]` or None."""
        with torch.no_grad():
            total, count = self._sums(pred, target, weight)
        self.total = self.total + total.sum()
        self.count = self.count + count.sum()

    def compute(self) -> Tensor:
        """The value over everything seen so far, a float64 scalar; NaN where nothing was scored."""
        return self.total / self.count


class _RootRelative(_WeightedMean):
    def __init__(self, root: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_root(root)
        self.root = root


class MPJPE(_RootRelative):
    """:func:`structloss.metrics.mpjpe` over a data set, in the poses' unit.

    Args:
        root: subtract this joint first; None takes the poses as given.
        kwargs: those of `torchmetrics.Metric`.
    """

    def _sums(self, pred: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return mpjpe_sums(pred, target, weight, root=self.root)


class PAMPJPE(_WeightedMean):
    """:func:`structloss.metrics.pa_mpjpe` over a data set, in the poses' unit.

    Args:
        kwargs: those of `torchmetrics.Metric`.
    """

    def _sums(self, pred: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return pa_mpjpe_sums(pred, target, weight)


class NMPJPE(_RootRelative):
    """:func:`structloss.metrics.n_mpjpe` over a data set, in the poses' unit.

    Args:
        root: subtract this joint first; None takes the poses as given.
        kwargs: those of `torchmetrics.Metric`.
    """

    def _sums(self, pred: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return n_mpjpe_sums(pred, target, weight, root=self.root)


class MPJVE(_RootRelative):
    """:func:`structloss.metrics.mpjve` over a data set, in the poses' unit per frame.

    Steps are taken inside a batch's clips only: cut clips, not batches of single frames.

    Args:
        root: subtract this joint first; None takes the poses as given.
        kwargs: those of `torchmetrics.Metric`.
    """

    def _sums(self, pred: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return mpjve_sums(pred, target, weight, root=self.root)


class DepthOrderAccuracy(_RootRelative):
    """:func:`structloss.metrics.depth_order_accuracy` over a data set, from 0 to 1: all pairs of all rows pooled.

    Args:
        over: `"joints"` pairs the joints of a frame, `"frames"` the frames of a joint (inside a clip).
        root: subtract this joint first; None takes the poses as given.
        kwargs: those of `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(self, over: str = "joints", root: int | None = None, **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)
        self.over = check_choice("over", over, OVER)

    def _sums(self, pred: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return depth_order_sums(pred, target, weight, over=self.over, root=self.root)
