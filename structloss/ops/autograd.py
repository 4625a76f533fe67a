"""Autograd of the operators: the gradient is computed in the forward pass and only scaled in the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ArgumentError
from . import library

__all__ = ["Plan", "check_not_transformed", "objective", "planned", "ranking_hinge"]


class Plan(Protocol):
    """What a backend keeps for calls of one layout, and with it computes the next of them."""

    def __call__(
        self,
        pred: Tensor,
        target: Tensor | None,
        weight: Tensor | None,
        lambdas: Sequence[float] | Tensor,
        need_grad: bool,
        need_values: bool = True,
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Total and values of the terms (0-d each), and gradient of the total, of pred's shape; no values and None
        where they are not needed."""


def _scaled(grad: Tensor, by: Tensor, dtype: torch.dtype) -> Tensor:
    """The saved gradient times the incoming scalar, in the input's dtype."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "structloss losses are differentiable once: backward was called with create_graph=True, expected False."
        )
    if torch.compiler.is_compiling() or type(by) is not Tensor:
        return (grad * by).to(dtype)
    # A scalar loss has the incoming gradient 1, and then the buffer is handed on without a copy. Asking a GPU for its
    # value would synchronise, so there a kernel reads it, and multiplies in place: the buffer is not needed again
    # unless the graph is kept.
    if by.is_cpu and by.item() == 1:
        return grad if grad.dtype == dtype else grad.to(dtype)
    in_place = grad.dtype == dtype and grad.is_contiguous() and not _keeps_graph()
    if in_place and (scale_ := library.in_place_scale(grad.device)) is not None:
        return scale_(grad, by)
    return torch.mul(grad, by, out=torch.empty_like(grad, dtype=dtype))


# Whether this backward pass was called with retain_graph=True; a torch without the function keeps us from assuming so.
_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


class _Objective(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pred, lam, target, weight, lambdas, terms, skeleton, options, reduction, need_grad, backend):
        launch = torch.ops.structloss.objective if torch.compiler.is_compiling() else library.launch_objective
        total, values, grad = launch(
            pred, target, weight, lam, lambdas, terms, skeleton, options, reduction, need_grad, backend
        )
        ctx.save_for_backward(grad, values)
        ctx.dtype = pred.dtype
        ctx.mark_non_differentiable(values)
        ctx.set_materialize_grads(False)
        return total, values

    @staticmethod
    def backward(ctx, by, _):
        grad, values = ctx.saved_tensors
        need_pred, need_lam = ctx.needs_input_grad[:2]
        nothing = (None,) * 9
        if by is None:
            return None, None, *nothing
        pred_grad = _scaled(grad, by, ctx.dtype) if need_pred else None
        return pred_grad, values * by if need_lam else None, *nothing


class _RankingHinge(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pred, target, weight, reduction, need_grad, backend):
        launch = torch.ops.structloss.ranking_hinge if torch.compiler.is_compiling() else library.launch_ranking_hinge
        value, grad = launch(pred, target, weight, reduction, need_grad, backend)
        ctx.save_for_backward(grad)
        ctx.dtype = pred.dtype
        return value

    @staticmethod
    def backward(ctx, by):
        (grad,) = ctx.saved_tensors
        return _scaled(grad, by, ctx.dtype), None, None, None, None, None


class _Planned(torch.autograd.Function):
    """As the two above where there is a plan. Every argument and every output of such a function costs, hence only
    those that a gradient flows to or from."""

    @staticmethod
    def forward(ctx, pred, lam, launch):
        total, values, grad = launch(pred)
        if lam is None:
            ctx.save_for_backward(grad)
        else:
            ctx.save_for_backward(grad, *values)
        ctx.set_materialize_grads(False)
        return total

    @staticmethod
    def backward(ctx, by):
        grad, *values = ctx.saved_tensors
        if by is None:
            return None, None, None
        if not values:
            return _scaled(grad, by, grad.dtype), None, None
        need_pred, need_lam, _ = ctx.needs_input_grad
        pred_grad = _scaled(grad, by, grad.dtype) if need_pred else None
        return pred_grad, torch.stack(values) * by if need_lam else None, None


# What torch.autograd.Function.apply calls itself, after it has looked for the transforms of torch.func and for tensors
# that escaped from them. `planned` is not called with any, and the search takes as long as a small allocation.
_apply = super(torch.autograd.Function, _Planned).apply


def check_not_transformed(argument: str = "pred") -> None:
    """Raise inside the transforms of torch.func: the gradients that the kernels compute are none of theirs."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise ArgumentError(
            f"{argument} is inside a transform of torch.func (grad, vmap, jacrev, ...), expected one outside of them: "
            f"loss.backward() or torch.autograd.grad give the gradient, leading dimensions of {argument} the batch."
        )


def planned(
    plan: Plan,
    pred: Tensor,
    target: Tensor | None,
    weight: Tensor | None,
    lam: Tensor | None,  # [K]
    lambdas: Sequence[float],
    need_values: bool = True,
) -> tuple[Tensor, list[Tensor]]:
    """Total and, if asked for, detached values of the terms (0-d each), of tensors whose memory holds their values."""
    check_not_transformed()
    need_grad = torch.is_grad_enabled() and pred.requires_grad
    values: list[Tensor] = []

    def launch(pred: Tensor) -> tuple[Tensor, list[Tensor], Tensor | None]:
        nonlocal values
        chosen = lambdas if lam is None else lam
        total, values, grad = plan(pred, target, weight, chosen, need_grad, need_values or lam is not None)
        return total, values, grad

    return _apply(pred, lam, launch), values


def objective(
    pred: Tensor,  # [B, T, J, 3]
    target: Tensor | None,  # [B, T, J, 3]
    weight: Tensor | None,  # [B, T, J]
    lam: Tensor | None,  # [K]
    lambdas: Sequence[float],
    terms: Sequence[str],
    skeleton: str,
    options: str,
    reduction: str,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """Total (0-d) and detached term values [K]."""
    check_not_transformed()
    need_grad = torch.is_grad_enabled() and pred.requires_grad
    names = ",".join(terms)
    return _Objective.apply(pred, lam, target, weight, lambdas, names, skeleton, options, reduction, need_grad, backend)


def ranking_hinge(
    pred: Tensor,  # [R, N]
    target: Tensor,  # [R, N]
    weight: Tensor | None,  # [R, N]
    reduction: str,
    backend: str | None,
) -> Tensor:
    """Loss (0-d)."""
    check_not_transformed()
    need_grad = torch.is_grad_enabled() and pred.requires_grad
    return _RankingHinge.apply(pred, target, weight, reduction, need_grad, backend)
