"""The compiled CPU kernels, called with pointers and strides."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels import native
from .structure import structure_of

__all__ = ["TAKES_HALF_TYPES", "TERM_NUMBERS", "objective", "ranking_hinge"]

# Poses of half types arrive converted to float32.
TAKES_HALF_TYPES = False
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


@functools.cache
def TERM_NUMBERS() -> dict[str, int]:
    """The native library's numbering of the terms it can compute."""
    return {name: number for number, name in enumerate(name for name, *_ in native.cpu_module().term_traits())}


@functools.cache
def _numbers(terms: tuple[str, ...]) -> list[int]:
    return [TERM_NUMBERS()[term] for term in terms]


@functools.lru_cache(maxsize=256)
def _structure(terms: tuple[str, ...], skeleton: str, options: str) -> object:
    """The native form of the structure."""
    return native.cpu_module().Structure(*dataclasses.astuple(structure_of(terms, skeleton, options)))


def objective(
    pred: Tensor,  # [B, T, J, 3]
    target: Tensor | None,  # [B, T, J, 3]
    weight: Tensor | None,  # [B, T, J]
    lambdas: Sequence[float] | Tensor,
    terms: tuple[str, ...],
    skeleton: str,
    options: str,
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Total, values [K] of the terms and, if asked for, the gradient of the total; one pass, float32 or float64."""
    grad = torch.empty(pred.shape if need_grad else (0,), dtype=pred.dtype)
    # Two outputs of the registered operator must not share memory, hence no view of one tensor [1 + K].
    total = torch.empty((), dtype=pred.dtype)
    values = torch.empty(len(terms), dtype=pred.dtype)
    native.cpu_module().objective(
        _DTYPES[pred.dtype],
        pred.data_ptr(),
        pred.stride(),
        0 if target is None else target.data_ptr(),
        (0, 0, 0, 0) if target is None else target.stride(),
        0 if weight is None else weight.data_ptr(),
        (0, 0, 0) if weight is None else weight.stride(),
        grad.data_ptr() if need_grad else 0,
        pred.shape[:3],
        _numbers(terms),
        lambdas.tolist() if isinstance(lambdas, Tensor) else lambdas,
        _structure(terms, skeleton, options),
        reduction,
        total.data_ptr(),
        values.data_ptr(),
        native.parallel_for_address(),
        torch.get_num_threads(),
    )
    return total, values, grad


def ranking_hinge(
    pred: Tensor,  # [R, N]
    target: Tensor,  # [R, N]
    weight: Tensor | None,  # [R, N]
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Scalar hinge over the rows and, if asked for, its gradient. Float32 or float64."""
    grad = torch.empty(pred.shape if need_grad else (0,), dtype=pred.dtype)
    value = torch.empty((), dtype=pred.dtype)
    native.cpu_module().ranking_hinge(
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
        value.data_ptr(),
        native.parallel_for_address(),
        torch.get_num_threads(),
    )
    return value, grad
