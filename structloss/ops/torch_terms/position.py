"""Errors of joint positions and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from .common import TermInput, accumulation_dtype, direction

__all__ = ["mpjpe", "n_mpjpe", "weighted_mpjpe"]


def _weighted_errors(x: TermInput, factors: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum of the weighted errors and its gradient [B, T, J, 3]."""
    difference = x.pred - x.known_target
    error = torch.linalg.vector_norm(difference, dim=-1)
    # The error has no slope at zero; its subgradient 0 is the published behaviour.
    grad = direction(difference, error)
    wide = accumulation_dtype(x.pred.device)
    error, grad = error.to(wide), grad.to(wide)
    weight = x.weight if factors is None else x.weight_or_one() * factors
    if weight is None:
        return error.sum(), grad
    return (error * weight).sum(), grad * weight.unsqueeze(-1)


def mpjpe(x: TermInput) -> tuple[Tensor, Tensor]:
    """Joint errors."""
    return _weighted_errors(x, None)


def weighted_mpjpe(x: TermInput) -> tuple[Tensor, Tensor]:
    """Weights times joint errors."""
    return _weighted_errors(x, x.joint_factors(x.structure.weighted_mpjpe_joints))


def n_mpjpe(x: TermInput) -> tuple[Tensor, Tensor]:
    """Joint errors after each frame's best scale."""
    pred, target, weight = x.wide_pred, x.wide_target, x.weight_or_one().unsqueeze(-1)
    square = (weight * pred * pred).sum((-2, -1), keepdim=True)
    inverse = torch.where(square == 0, 0, 1 / torch.where(square == 0, 1, square))
    # Divided rather than multiplied by the inverse: the scale of a perfect prediction is exactly 1.
    product = (weight * pred * target).sum((-2, -1), keepdim=True)
    scale = torch.where(square == 0, 0, product / torch.where(square == 0, 1, square))
    difference = scale * pred - target
    error = torch.linalg.vector_norm(difference, dim=-1)
    unit = weight * direction(difference, error)
    # The scale depends on every joint of the frame.
    by_scale = (unit * pred).sum((-2, -1), keepdim=True)
    grad = scale * unit + by_scale * inverse * weight * (target - 2 * scale * pred)
    return (weight.squeeze(-1) * error).sum(), grad
