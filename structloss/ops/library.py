"""Registered operators: schema, implementation and shape function of each, for torch.compile and torch.export.

`launch_*` is the one way into a backend: eager autograd calls it directly (a third of the dispatcher's cost), compiled
graphs through `torch.ops.structloss`. Backends read memory, so tensors whose memory is not their values (negative
views, fake tensors, the meta device) go through the dispatcher from eager code, too.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor

from .backend import current_backend, resolve
from .dtypes import compute_dtype

__all__ = [
    "in_place_scale",
    "launch_objective",
    "launch_ranking_hinge",
    "plan_objective",
    "plan_ranking_hinge",
    "values_in_memory",
    "without_autocast",
]


@functools.lru_cache(maxsize=256)
def _serving(backend: str, device: torch.device, terms: str, joints: int = 0) -> tuple[ModuleType, tuple[str, ...]]:
    """The module that serves a call, and the names of its terms."""
    names = tuple(terms.split(",")) if terms else ()
    # A backend's module is imported when it first serves: it may open a library or compile.
    return importlib.import_module(f"..{resolve(backend, device, names, joints)}_impl", __name__), names


@functools.lru_cache(maxsize=64)
def in_place_scale(device: torch.device) -> Callable[[Tensor, Tensor], Tensor] | None:
    """A function that multiplies a tensor in place by a 0-d one without asking for its value, if a backend has one."""
    if device.type != "cuda":
        return None
    name = resolve("auto", device)
    return None if name == "torch" else importlib.import_module(f"..{name}_impl", __name__).scale_


_Given = TypeVar("_Given", Tensor, "Tensor | None")


def _in_dtype(x: _Given, dtype: torch.dtype) -> _Given:
    return x if x is None or x.dtype == dtype else x.to(dtype)


def without_autocast(launch):
    """The dtype policy is ours: under autocast half inputs arrive as they are and are computed in float32."""

    @functools.wraps(launch)
    def wrapped(pred, *args):
        device_type = pred.device.type
        if not (torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)):
            return launch(pred, *args)
        with torch.autocast(device_type, enabled=False):
            return launch(pred, *args)

    return wrapped


def values_in_memory(*tensors: Tensor | None) -> bool:
    """Whether the memory of every tensor holds its values as they are."""
    return all(
        x is None or (type(x) in (Tensor, torch.nn.Parameter) and not x.is_meta and not x.is_neg()) for x in tensors
    )


def launch_objective(
    pred: Tensor, target: Tensor | None, weight: Tensor | None, lam: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`_launch_objective` does, by way of the dispatcher where it is needed."""
    if values_in_memory(pred, target, weight, lam):
        return _launch_objective(pred, target, weight, lam, *rest)
    resolve(rest[-1], pred.device)  # shape functions do not look at the backend
    return torch.ops.structloss.objective(pred, target, weight, lam, *rest)


def launch_ranking_hinge(pred: Tensor, target: Tensor, weight: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    """What :func:`_launch_ranking_hinge` does, by way of the dispatcher where it is needed."""
    if values_in_memory(pred, target, weight):
        return _launch_ranking_hinge(pred, target, weight, *rest)
    resolve(rest[-1], pred.device)  # shape functions do not look at the backend
    return torch.ops.structloss.ranking_hinge(pred, target, weight, *rest)


@without_autocast
def _launch_objective(
    pred: Tensor,  # [B, T, J, 3]
    target: Tensor | None,  # [B, T, J, 3]
    weight: Tensor | None,  # [B, T, J]
    lam: Tensor | None,  # [K]; replaces `lambdas` where a weight is a tensor
    lambdas: Sequence[float],
    terms: str,  # names, separated by commas
    skeleton: str,
    options: str,  # from structure.encode_options
    reduction: str,
    need_grad: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Total (0-d), term values [K] and gradient of the total ([B, T, J, 3], or [0] if not needed), in compute dtype."""
    implementation, names = _serving(backend or current_backend(), pred.device, terms, pred.shape[2])
    if not implementation.TAKES_HALF_TYPES:
        dtype = compute_dtype(pred.dtype)
        pred, target = _in_dtype(pred, dtype), _in_dtype(target, dtype)
        weight, lam = _in_dtype(weight, dtype), _in_dtype(lam, dtype)
    chosen = lambdas if lam is None else lam
    return implementation.objective(pred, target, weight, chosen, names, skeleton, options, reduction, need_grad)


@without_autocast
def _launch_ranking_hinge(
    pred: Tensor,  # [R, N]
    target: Tensor,  # [R, N]
    weight: Tensor | None,  # [R, N]
    reduction: str,
    need_grad: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """Loss (0-d) and its gradient ([R, N], or [0] if not needed), in compute dtype."""
    implementation, _ = _serving(backend or current_backend(), pred.device, "")
    if not implementation.TAKES_HALF_TYPES:
        dtype = compute_dtype(pred.dtype)
        pred, target, weight = _in_dtype(pred, dtype), _in_dtype(target, dtype), _in_dtype(weight, dtype)
    return implementation.ranking_hinge(pred, target, weight, reduction, need_grad)


def _planner(
    kind: str, backend: str | None, terms: str, joints: int, *tensors: Tensor | None
) -> Callable[..., Any] | None:
    """The function that makes plans for these tensors, if the backend that serves them has one: only for poses in the
    dtype that they are computed in, whose layout is then that of what the backend gets."""
    pred = tensors[0]
    assert pred is not None
    dtype = compute_dtype(pred.dtype)
    if any(x is not None and x.dtype != dtype for x in tensors):
        return None
    implementation, _ = _serving(backend or current_backend(), pred.device, terms, joints)
    return getattr(implementation, kind, None)


def plan_objective(
    pred: Tensor,  # [B, T, J, 3]
    target: Tensor | None,  # [B, T, J, 3]
    weight: Tensor | None,  # [B, T, J]
    terms: tuple[str, ...],
    skeleton: str,
    options: str,
    reduction: str,
    backend: str | None,
) -> Any:
    """What the backend keeps for more calls like this one (:class:`structloss.ops.autograd.Plan`); None for nothing."""
    make = _planner("objective_plan", backend, ",".join(terms), pred.shape[2], pred, target, weight)
    return None if make is None else make(pred, target, weight, terms, skeleton, options, reduction)


def plan_ranking_hinge(
    pred: Tensor,  # [R, N]
    target: Tensor,  # [R, N]
    weight: Tensor | None,  # [R, N]
    reduction: str,
    backend: str | None,
) -> Any:
    """What the backend keeps for more calls like this one (:class:`structloss.ops.autograd.Plan`); None for nothing."""
    make = _planner("ranking_plan", backend, "", 0, pred, target, weight)
    return None if make is None else make(pred, target, weight, reduction)


_library = torch.library.Library("structloss", "DEF")
_library.define(
    "objective(Tensor pred, Tensor? target, Tensor? weight, Tensor? lam, float[] lambdas, str terms, str skeleton, "
    "str options, str reduction, bool need_grad, str? backend) -> (Tensor, Tensor, Tensor)"
)
_library.define(
    "ranking_hinge(Tensor pred, Tensor target, Tensor? weight, str reduction, bool need_grad, str? backend) "
    "-> (Tensor, Tensor)"
)
_library.impl("objective", _launch_objective, "CompositeExplicitAutograd")
_library.impl("ranking_hinge", _launch_ranking_hinge, "CompositeExplicitAutograd")


def _grad_like(pred: Tensor, need_grad: bool) -> Tensor:
    return pred.new_empty(pred.shape if need_grad else (0,), dtype=compute_dtype(pred.dtype))


@torch.library.register_fake("structloss::objective", lib=_library)
def _(pred, target, weight, lam, lambdas, terms, skeleton, options, reduction, need_grad, backend):
    dtype = compute_dtype(pred.dtype)
    values = pred.new_empty(len(terms.split(",")), dtype=dtype)
    return pred.new_empty((), dtype=dtype), values, _grad_like(pred, need_grad)


@torch.library.register_fake("structloss::ranking_hinge", lib=_library)
def _(pred, target, weight, reduction, need_grad, backend):
    return pred.new_empty((), dtype=compute_dtype(pred.dtype)), _grad_like(pred, need_grad)
