"""The position and motion metrics as `torchmetrics.Metric` classes: one value over any number of batches and processes.

Each holds two float64 sums, the weighted errors and the weights, added up over batches and, under distributed training,
over processes. So the value is the same however the data were cut (to float64 rounding; exactly for unweighted depth
pairs), empty batches add nothing, and a metric that has scored nothing computes to NaN. `update` and `forward` take
`(pred, target, weight=None)` as the functions do; `compute` returns a float64 scalar.

All but PA-MPJPE take `root`, a joint that is subtracted first (None, the default, takes the poses as given), and all
take the keywords of `torchmetrics.Metric`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import check_choice
from ._base import RootRelative, WeightedMean
from .depth_order import OVER, depth_order_values
from .functional import acceleration_values, mpjpe_values, mpjve_values, n_mpjpe_values, pa_mpjpe_values

__all__ = ["MPJPE", "MPJVE", "NMPJPE", "PAMPJPE", "AccelerationError", "DepthOrderAccuracy"]


class MPJPE(RootRelative):
    """:func:`structloss.metrics.mpjpe` over a data set, in the poses' unit. Arguments: see the module."""

    errors = staticmethod(mpjpe_values)


class PAMPJPE(WeightedMean):
    """:func:`structloss.metrics.pa_mpjpe` over a data set, in the poses' unit. Arguments: see the module."""

    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return pa_mpjpe_values(pred, target, weight)


class NMPJPE(RootRelative):
    """:func:`structloss.metrics.n_mpjpe` over a data set, in the poses' unit. Arguments: see the module."""

    errors = staticmethod(n_mpjpe_values)


class MPJVE(RootRelative):
    """:func:`structloss.metrics.mpjve` over a data set, in the poses' unit per frame. Arguments: see the module.

    Steps are taken inside a batch's clips only: cut clips, not batches of single frames.
    """

    rows = "steps"
    errors = staticmethod(mpjve_values)


class AccelerationError(RootRelative):
    """:func:`structloss.metrics.acceleration_error` over a data set, in the poses' unit per frame squared. Arguments:
    see the module."""

    rows = "steps"
    errors = staticmethod(acceleration_values)


class DepthOrderAccuracy(RootRelative):
    """:func:`structloss.metrics.depth_order_accuracy` over a data set, from 0 to 1: all pairs of all rows pooled.

    Args:
        over: `"joints"` pairs the joints of a frame, `"frames"` the frames of a joint (inside a clip).
        root, kwargs: see the module.
    """

    higher_is_better = True
    part = None

    def __init__(self, over: str = "joints", root: int | None = None, **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)
        self.over = check_choice("over", over, OVER)
        self.rows = "frames" if over == "joints" else "joints"

    def values(self, pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        return depth_order_values(pred, target, weight, over=self.over, root=self.root)
