"""Numbers that all processes of a distributed run must agree on."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

__all__ = ["averaged", "several"]


def several() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def averaged(values: Tensor) -> Tensor:
    """The mean over the processes, in place; the values themselves where there is one."""
    if several():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values
