"""Double precision where the device has it. Apple's GPUs (mps) have none: there metrics are computed in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["Sums", "sums", "wide"]

# What torch raises for float64 on a device without it: a TypeError in .double() and .to(), a RuntimeError elsewhere.
_REFUSED = (TypeError, RuntimeError)


def wide(x: Tensor) -> Tensor:
    """The tensor in float64, or in float32 where its device has no float64."""
    if x.dtype == torch.float64:
        return x
    try:
        return x.double()
    except _REFUSED:
        return x.float()


def sums(*shape: int, device: torch.device | str | None = None) -> Tensor:
    """Zeros to add up in, as :func:`wide` has it."""
    try:
        return torch.zeros(shape, dtype=torch.float64, device=device)
    except _REFUSED:
        return torch.zeros(shape, dtype=torch.float32, device=device)


class Sums(Metric):
    """A metric whose states are float64, and become float32 where it moves to a device without float64."""

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Any:
        @functools.wraps(fn)  # torchmetrics reads in its name whether it converts or moves
        def narrowed(x: Tensor) -> Tensor:
            try:
                return fn(x)
            except _REFUSED:
                if x.dtype != torch.float64:
                    raise
                return fn(x.float())

        return super()._apply(narrowed, *args, **kwargs)
