"""The motion representation before a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Representation"]


class Representation(nn.Module):
    """tanh(fc(h)), from `[..., C]` to `[..., R]` in (-1, 1) (MotionBERT, MotionAGFormer)."""

    def __init__(self, dim: int, dim_rep: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, dim_rep)

    def forward(self, h: Tensor) -> Tensor:
        return torch.tanh(self.fc(h))
