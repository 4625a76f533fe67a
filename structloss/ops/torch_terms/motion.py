"""Steps of joints from one frame to the next, and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from .common import TermInput, direction, steps

__all__ = ["temporal_consistency", "velocity"]


def _from_steps(x: TermInput, step_grad: Tensor) -> Tensor:
    """Gradient of the frames [B, T, J, 3] from that of the steps [B, T - 1, J, 3]."""
    grad = step_grad.new_zeros(x.pred.shape)
    grad[:, 1:] += step_grad
    grad[:, :-1] -= step_grad
    return grad


def _step_weight(x: TermInput) -> Tensor:
    weight = x.weight_or_one()
    return weight[:, 1:] * weight[:, :-1]


def velocity(x: TermInput) -> tuple[Tensor, Tensor]:
    """Differences of predicted and target step."""
    weight = _step_weight(x)
    step = steps(x.wide_pred) - steps(x.wide_target)
    error = torch.linalg.vector_norm(step, dim=-1)
    grad = _from_steps(x, weight.unsqueeze(-1) * direction(step, error))
    return (weight * error).sum(), grad


def temporal_consistency(x: TermInput) -> tuple[Tensor, Tensor]:
    """Squared steps of the prediction."""
    weight = _step_weight(x)
    scaled = weight * x.joint_factors(x.structure.temporal_consistency_joints)
    step = steps(x.wide_pred)
    grad = _from_steps(x, 2 * scaled.unsqueeze(-1) * step)
    return (scaled * step.square().sum(-1)).sum(), grad
