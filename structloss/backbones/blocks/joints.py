"""The 16 joints of h36m that a stacked-hourglass detector finds: all but neck/nose."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["without_neck"]

_NECK_NOSE = 9  # index in h36m


def without_neck(clip: Tensor) -> Tensor:
    """`[B, T, 17, ...]` of h36m without joint 9; 16 joints, and `[B, T]` without any, come back as they are."""
    if clip.dim() < 3 or clip.shape[2] == 16:
        return clip
    return torch.cat((clip[:, :, :_NECK_NOSE], clip[:, :, _NECK_NOSE + 1 :]), dim=2)
