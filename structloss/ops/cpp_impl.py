"""The compiled CPU kernels, called with pointers and strides."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels import native

__all__ = ["TERM_NUMBERS", "objective", "ranking_hinge"]


@functools.cache
def TERM_NUMBERS() -> dict[str, int]:
    """The native library's numbering of the terms it can compute."""
    return {name: number for number, name in enumerate(native.cpu_module().term_names())}


_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


def _threads() -> tuple[int, int]:
    return native.parallel_for_address(), torch.get_num_threads()


def objective(
    pred: Tensor,  # [B, T, J, 3]
    target: Tensor,  # [B, T, J, 3]
    weight: Tensor | None,  # [B, T, J]
    lambdas: Sequence[float],
    terms: Sequence[str],
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Values [K] of the terms and, if asked for, the gradient of their weighted sum, in one pass (float32, float64)."""
    grad = torch.empty(pred.shape if need_grad else (0,), dtype=pred.dtype)
    numbers = TERM_NUMBERS()
    values = native.cpu_module().objective(
        _DTYPES[pred.dtype],
        pred.data_ptr(),
        pred.stride(),
        target.data_ptr(),
        target.stride(),
        0 if weight is None else weight.data_ptr(),
        (0, 0, 0) if weight is None else weight.stride(),
        grad.data_ptr() if need_grad else 0,
        pred.shape[:3],
        [numbers[term] for term in terms],
        lambdas,
        reduction,
        *_threads(),
    )
    return torch.tensor(values, dtype=pred.dtype), grad


def ranking_hinge(
    pred: Tensor,  # [R, N]
    target: Tensor,  # [R, N]
    weight: Tensor | None,  # [R, N]
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Scalar hinge over the rows and, if asked for, its gradient. Float32 or float64."""
    grad = torch.empty(pred.shape if need_grad else (0,), dtype=pred.dtype)
    value = native.cpu_module().ranking_hinge(
        _DTYPES[pred.dtype],
        pred.data_ptr(),
        pred.stride(),
        target.data_ptr(),
        target.stride(),
        0 if weight is None else weight.data_ptr(),
        (0, 0) if weight is None else weight.stride(),
        grad.data_ptr() if need_grad else 0,
        pred.shape,
        reduction,
        *_threads(),
    )
    return torch.tensor(value, dtype=pred.dtype), grad
