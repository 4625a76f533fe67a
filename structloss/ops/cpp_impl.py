"""The compiled CPU kernels, called with pointers.

What the kernels need to know of a call's layout, terms and options is put together once, in a plan that the native
module keeps; each call adds where its tensors are, what its terms weigh and how many threads there are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..kernels import native
from .structure import structure_of

__all__ = ["TAKES_HALF_TYPES", "TERM_NUMBERS", "objective", "objective_plan", "ranking_hinge", "ranking_plan"]

# Poses of half types arrive converted to float32.
TAKES_HALF_TYPES = False
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}
# Plans that are kept, some hundred bytes each; the least recently used goes first.
_MOST_PLANS = 256

Strides = tuple[int, ...]


@functools.cache
def TERM_NUMBERS() -> dict[str, int]:
    """The native library's numbering of the terms it can compute."""
    return {name: number for number, name in enumerate(name for name, *_ in native.cpu_module().term_traits())}


@functools.lru_cache(maxsize=256)
def _structure(terms: tuple[str, ...], skeleton: str, options: str) -> object:
    """The native form of the structure."""
    return native.cpu_module().Structure(*dataclasses.astuple(structure_of(terms, skeleton, options)))


class ObjectivePlan:
    """The objective of poses of one layout: what :func:`objective` computes, for others like the ones it was made for.

    Args:
        dtype: float32 or float64.
        size: B, T, J.
        pred, target, weight: strides of [B, T, J, 3], [B, T, J, 3] and [B, T, J], in elements; None for a tensor that
            there is none of.
        terms, skeleton, options, reduction: as in :func:`objective`.
    """

    __slots__ = ("_run", "_terms")

    def __init__(
        self,
        dtype: torch.dtype,
        size: tuple[int, int, int],
        pred: Strides,
        target: Strides | None,
        weight: Strides | None,
        terms: tuple[str, ...],
        skeleton: str,
        options: str,
        reduction: str,
    ) -> None:
        numbers, structure = [TERM_NUMBERS()[term] for term in terms], _structure(terms, skeleton, options)
        self._terms = len(terms)
        self._run = (
            native.cpu_module()
            .Plan(
                _DTYPES[dtype],
                size,
                pred,
                target,
                weight,
                numbers,
                structure,
                reduction,
                native.parallel_for_address(),
            )
            .run
        )

    def __call__(
        self,
        pred: Tensor,
        target: Tensor | None,
        weight: Tensor | None,
        lambdas: Sequence[float] | Tensor,
        need_grad: bool,
        need_values: bool = True,
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Total and values of the terms (0-d each), and the gradient of the total, of pred's shape."""
        total = pred.new_empty(())
        values = [torch.empty_like(total) for _ in range(self._terms)] if need_values else []
        grad = torch.empty_like(pred, memory_format=torch.contiguous_format) if need_grad else None
        self.fill(pred, target, weight, lambdas, grad, total, [value.data_ptr() for value in values])
        return total, values, grad

    def fill(
        self,
        pred: Tensor,
        target: Tensor | None,
        weight: Tensor | None,
        lambdas: Sequence[float] | Tensor,
        grad: Tensor | None,
        total: Tensor,
        values: list[int],
    ) -> None:
        """Write into what the caller has: `values` are the addresses of the terms' values, or none."""
        self._run(
            pred.data_ptr(),
            0 if target is None else target.data_ptr(),
            0 if weight is None else weight.data_ptr(),
            0 if grad is None else grad.data_ptr(),
            lambdas.tolist() if isinstance(lambdas, Tensor) else lambdas,
            total.data_ptr(),
            values,
            torch.get_num_threads(),
        )


class RankingPlan:
    """The hinge of rows of one layout: what :func:`ranking_hinge` computes, for others like the ones it was made for.

    Args:
        dtype: float32 or float64.
        size: R, N.
        pred, target, weight: strides of [R, N], in elements; None without weights.
        reduction: "mean" or "sum".
    """

    __slots__ = ("_run",)

    def __init__(
        self,
        dtype: torch.dtype,
        size: tuple[int, int],
        pred: Strides,
        target: Strides,
        weight: Strides | None,
        reduction: str,
    ) -> None:
        module, address = native.cpu_module(), native.parallel_for_address()
        self._run = module.RankingPlan(_DTYPES[dtype], size, pred, target, weight, reduction, address).run

    def __call__(
        self,
        pred: Tensor,
        target: Tensor | None,
        weight: Tensor | None,
        lambdas: Sequence[float] | Tensor = (),
        need_grad: bool = False,
        need_values: bool = False,
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Loss (0-d), no values, since it has no terms, and its gradient, of pred's shape."""
        assert target is not None
        grad = torch.empty_like(pred, memory_format=torch.contiguous_format) if need_grad else None
        value = pred.new_empty(())
        self._run(
            pred.data_ptr(),
            target.data_ptr(),
            0 if weight is None else weight.data_ptr(),
            0 if grad is None else grad.data_ptr(),
            value.data_ptr(),
            torch.get_num_threads(),
        )
        return value, [], grad


_objective_plan = functools.lru_cache(maxsize=_MOST_PLANS)(ObjectivePlan)
_ranking_plan = functools.lru_cache(maxsize=_MOST_PLANS)(RankingPlan)


def _strides(x: Tensor | None) -> Any:
    return None if x is None else x.stride()


def objective_plan(
    pred: Tensor,  # [B, T, J, 3], float32 or float64
    target: Tensor | None,  # [B, T, J, 3]
    weight: Tensor | None,  # [B, T, J]
    terms: tuple[str, ...],
    skeleton: str,
    options: str,
    reduction: str,
) -> ObjectivePlan:
    """The plan for these tensors and all of their layout."""
    B, T, J = pred.shape[:3]
    strides = pred.stride(), _strides(target), _strides(weight)
    return _objective_plan(pred.dtype, (B, T, J), *strides, terms, skeleton, options, reduction)


def ranking_plan(
    pred: Tensor,  # [R, N], float32 or float64
    target: Tensor,  # [R, N]
    weight: Tensor | None,  # [R, N]
    reduction: str,
) -> RankingPlan:
    """The plan for these rows and all of their layout."""
    R, N = pred.shape
    return _ranking_plan(pred.dtype, (R, N), pred.stride(), target.stride(), _strides(weight), reduction)


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
    plan = objective_plan(pred, target, weight, terms, skeleton, options, reduction)
    # Two outputs of the registered operator must not share memory, hence no view of one tensor [1 + K].
    total, values = pred.new_empty(()), pred.new_empty(len(terms))
    grad = torch.empty_like(pred, memory_format=torch.contiguous_format) if need_grad else None
    first, size = values.data_ptr(), values.element_size()
    plan.fill(pred, target, weight, lambdas, grad, total, [first + size * k for k in range(len(terms))])
    return total, values, pred.new_empty(0) if grad is None else grad


def ranking_hinge(
    pred: Tensor,  # [R, N]
    target: Tensor,  # [R, N]
    weight: Tensor | None,  # [R, N]
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Scalar hinge over the rows and, if asked for, its gradient. Float32 or float64."""
    plan = ranking_plan(pred, target, weight, reduction)
    value, _, grad = plan(pred, target, weight, need_grad=need_grad)
    return value, pred.new_empty(0) if grad is None else grad
