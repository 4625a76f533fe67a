"""The residual unit of fully connected pose networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResidualUnit"]


class ResidualUnit(nn.Module):
    """x plus two layers of it, each linear, batch norm, (leaky) ReLU and dropout, on rows `[N, C]`.

    Args:
        width: channels C.
        drop: dropout rate.
        slope: of the activation below 0; 0 is the ReLU.
    """

    def __init__(self, width: int, drop: float, slope: float = 0.0) -> None:
        super().__init__()
        self.slope = slope
        self.w1 = nn.Linear(width, width)
        self.batch_norm1 = nn.BatchNorm1d(width)
        self.w2 = nn.Linear(width, width)
        self.batch_norm2 = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(F.leaky_relu(self.batch_norm1(self.w1(x)), self.slope))
        return x + self.drop(F.leaky_relu(self.batch_norm2(self.w2(y)), self.slope))
