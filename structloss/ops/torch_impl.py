"""The objective in plain PyTorch: the fallback on any device, and the readable reference for the compiled backends.

Ranks come from stable sorts, so nothing of size N x N exists. Mathematics: RePOSE's pairwise hinge is piecewise linear
and homogeneous in the predictions, hence equal to the product of predictions and gradient, and the gradient is a
difference of two mid-ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["objective", "ranking_gradient", "ranking_hinge"]


def _accumulation_dtype(device: torch.device) -> torch.dtype:
    # Sums of rank times depth cancel to many digits, so they are taken in float64 where the device has it.
    return torch.float32 if device.type == "mps" else torch.float64


def _midrank(is_first: Tensor, weight: Tensor | None) -> Tensor:
    """Mid-rank of sorted elements [..., N], in units of weight, itself not counted; ties begin where `is_first`."""
    n = is_first.shape[-1]
    index = torch.arange(n, device=is_first.device).expand(is_first.shape)
    first = torch.where(is_first, index, 0).cummax(-1).values
    is_last = torch.cat([is_first[..., 1:], torch.ones_like(is_first[..., :1])], -1)
    last = torch.where(is_last, index, n - 1).flip(-1).cummin(-1).values.flip(-1)
    if weight is None:
        return (first + last).to(_accumulation_dtype(is_first.device)) / 2
    up_to = weight.cumsum(-1)
    below = (up_to - weight).gather(-1, first)
    return below + (up_to.gather(-1, last) - below - weight) / 2


def _changes(sorted_values: Tensor) -> Tensor:
    """Where a sorted row [..., N] takes a new value; the first element always does."""
    first = torch.ones_like(sorted_values[..., :1], dtype=torch.bool)
    return torch.cat([first, sorted_values[..., 1:] != sorted_values[..., :-1]], -1)


def ranking_gradient(pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Gradient of the unreduced hinge of each row.

    Args:
        pred, target: rows [..., N], N > 0, no NaN.
        weight: [..., N], >= 0, in float64.

    Returns:
        g [..., N] = w * (mid-rank by pred - mid-rank by target with ties ordered by pred), in float64.
    """
    by_pred = pred.argsort(dim=-1, stable=True)
    sorted_pred = pred.gather(-1, by_pred)
    sorted_weight = None if weight is None else weight.gather(-1, by_pred)
    rank_pred = _midrank(_changes(sorted_pred), sorted_weight)
    # A stable sort of what is already in the order of pred leaves ties in target ordered by pred.
    sorted_target, by_target = target.gather(-1, by_pred).sort(dim=-1, stable=True)
    weight_by_target = None if weight is None else sorted_weight.gather(-1, by_target)
    is_first = _changes(sorted_target) | _changes(sorted_pred.gather(-1, by_target))
    rank_target = _midrank(is_first, weight_by_target)
    difference = rank_pred.gather(-1, by_target) - rank_target
    if weight_by_target is not None:
        difference = difference * weight_by_target
    order = by_pred.gather(-1, by_target)
    return torch.empty_like(difference).scatter_(-1, order, difference)


def _hinge(pred: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> tuple[Tensor, Tensor]:
    """Reduced hinge over all rows [..., N] (0-d, float64) and its gradient [..., N] (float64)."""
    wide = _accumulation_dtype(pred.device)
    if pred.numel() == 0:
        return torch.zeros((), dtype=wide, device=pred.device), torch.zeros(pred.shape, dtype=wide, device=pred.device)
    if weight is None:
        pairs = torch.full((), float(pred.numel() * pred.shape[-1]), dtype=wide, device=pred.device)
        present = torch.ones((), dtype=torch.bool, device=pred.device)
    else:
        weight = weight.to(wide)
        pairs = weight.sum(-1).square().sum()
        present = weight > 0  # whatever a masked element holds, NaN included, takes no part
        pred, target = torch.where(present, pred, 0), torch.where(present, target, 0)
    invalid = (pred.isnan() | target.isnan()).any(-1, keepdim=True)
    g = ranking_gradient(pred, target, weight)
    g = torch.where(invalid & present, torch.nan, g)
    # The gradients of a row sum to zero, so a shift of the predictions changes nothing but the rounding.
    value = ((pred.to(wide) - pred[..., :1].to(wide)) * g).sum()
    if reduction == "mean":
        scale = torch.where(pairs > 0, 1 / pairs, 0)
        value, g = value * scale, g * scale
    return value, g


def _mpjpe(pred: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> tuple[Tensor, Tensor]:
    """Mean joint error [..., T, J, 3] -> (0-d, float64) and its gradient."""
    wide = _accumulation_dtype(pred.device)
    difference = pred - target
    if weight is not None:
        difference = torch.where((weight > 0).unsqueeze(-1), difference, 0)
    error = torch.linalg.vector_norm(difference, dim=-1, keepdim=True)
    # The error has no slope at zero; its subgradient 0 is the published behaviour.
    direction = difference / torch.where(error == 0, 1, error)
    error = error.squeeze(-1).to(wide)
    if weight is None:
        count = torch.full((), float(error.numel()), dtype=wide, device=pred.device)
    else:
        weight = weight.to(wide)
        count = weight.sum()
        error = error * weight
        direction = direction * weight.unsqueeze(-1)
    value, direction = error.sum(), direction.to(wide)
    if reduction == "mean":
        scale = torch.where(count > 0, 1 / count, 0)
        value, direction = value * scale, direction * scale
    return value, direction


def _depth_ranking_joints(pred: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> tuple[Tensor, Tensor]:
    """RePOSE's L_S: rows are frames. The gradient [B, T, J] is that of the depth channel."""
    return _hinge(pred[..., 2], target[..., 2], weight, reduction)


def _depth_ranking_frames(pred: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> tuple[Tensor, Tensor]:
    """RePOSE's L_T: rows are joints. The gradient [B, T, J] is that of the depth channel."""
    rows = [None if x is None else x.transpose(-1, -2) for x in (pred[..., 2], target[..., 2], weight)]
    value, g = _hinge(*rows, reduction)
    return value, g.transpose(-1, -2)


# Each returns its value and a gradient, of all channels [B, T, J, 3] or of depth alone [B, T, J].
_TERM_FUNCTIONS = {
    "mpjpe": _mpjpe,
    "depth_ranking_joints": _depth_ranking_joints,
    "depth_ranking_frames": _depth_ranking_frames,
}


def objective(
    pred: Tensor,  # [B, T, J, 3]
    target: Tensor,  # [B, T, J, 3]
    weight: Tensor | None,  # [B, T, J]
    lambdas: Sequence[float] | Tensor,
    terms: Sequence[str],
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Total, values [K] of the terms and, if asked for, the gradient [B, T, J, 3] of the total."""
    wide = _accumulation_dtype(pred.device)
    total_grad = torch.zeros(pred.shape if need_grad else (0,), dtype=wide, device=pred.device)
    total = torch.zeros((), dtype=wide, device=pred.device)
    values = []
    for k, term in enumerate(terms):
        value, g = _TERM_FUNCTIONS[term](pred, target, weight, reduction)
        values.append(value)
        total = total + lambdas[k] * value
        if need_grad:
            channels = total_grad if g.dim() == pred.dim() else total_grad[..., 2]
            channels += lambdas[k] * g
    return total.to(pred.dtype), torch.stack(values).to(pred.dtype), total_grad.to(pred.dtype)


def ranking_hinge(
    pred: Tensor,  # [R, N]
    target: Tensor,  # [R, N]
    weight: Tensor | None,  # [R, N]
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Scalar hinge over the rows and, if asked for, its gradient."""
    value, g = _hinge(pred, target, weight, reduction)
    return value.to(pred.dtype), (g if need_grad else g.new_empty(0)).to(pred.dtype)
