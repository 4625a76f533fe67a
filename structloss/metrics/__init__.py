"""Metrics of 3D human pose: functions, and `torchmetrics.Metric` classes of the same meaning.

>>> import torch
>>> from structloss.metrics import MPJPE, mpjpe
>>> pred, target = torch.zeros(2, 9, 17, 3), torch.ones(2, 9, 17, 3)
>>> round(mpjpe(pred, target).item(), 3)
1.732
>>> metric = MPJPE(root=0)
>>> metric.update(pred, target)
>>> metric.compute().item()
0.0
"""

from .classes import MPJPE, MPJVE, NMPJPE, PAMPJPE, DepthOrderAccuracy
from .functional import depth_order_accuracy, mpjpe, mpjve, n_mpjpe, pa_mpjpe

__all__ = [
    "MPJPE",
    "MPJVE",
    "NMPJPE",
    "PAMPJPE",
    "DepthOrderAccuracy",
    "depth_order_accuracy",
    "mpjpe",
    "mpjve",
    "n_mpjpe",
    "pa_mpjpe",
]
