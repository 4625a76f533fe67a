"""What poses are computed in."""

from __future__ import annotations

import torch

__all__ = ["compute_dtype"]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What a pose of this dtype is computed in: half types in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
