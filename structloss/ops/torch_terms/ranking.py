"""RePOSE's depth ranking by sorting.

Ranks come from stable sorts, so nothing of size N x N exists. Mathematics: the pairwise hinge is piecewise linear and
homogeneous in the predictions, hence equal to the product of predictions and gradient, and the gradient is a difference
of two mid-ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .common import TermInput, accumulation_dtype

__all__ = ["depth_ranking_frames", "depth_ranking_joints", "hinge", "ranking_gradient"]


def _midrank(is_first: Tensor, weight: Tensor | None) -> Tensor:
    """Mid-rank of sorted elements [..., N], in units of weight, itself not counted; ties begin where `is_first`."""
    n = is_first.shape[-1]
    index = torch.arange(n, device=is_first.device).expand(is_first.shape)
    first = torch.where(is_first, index, 0).cummax(-1).values
    is_last = torch.cat([is_first[..., 1:], torch.ones_like(is_first[..., :1])], -1)
    last = torch.where(is_last, index, n - 1).flip(-1).cummin(-1).values.flip(-1)
    if weight is None:
        return (first + last).to(accumulation_dtype(is_first.device)) / 2
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
    weight_by_target = None if sorted_weight is None else sorted_weight.gather(-1, by_target)
    is_first = _changes(sorted_target) | _changes(sorted_pred.gather(-1, by_target))
    rank_target = _midrank(is_first, weight_by_target)
    difference = rank_pred.gather(-1, by_target) - rank_target
    if weight_by_target is not None:
        difference = difference * weight_by_target
    order = by_pred.gather(-1, by_target)
    return torch.empty_like(difference).scatter_(-1, order, difference)


def hinge(pred: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum of the hinge over all rows [..., N] (0-d, float64) and its gradient [..., N] (float64)."""
    wide = accumulation_dtype(pred.device)
    if pred.numel() == 0:
        return torch.zeros((), dtype=wide, device=pred.device), torch.zeros(pred.shape, dtype=wide, device=pred.device)
    if weight is None:
        present = torch.ones((), dtype=torch.bool, device=pred.device)
    else:
        weight = weight.to(wide)
        present = weight > 0  # whatever a masked element holds, NaN included, takes no part
        pred, target = torch.where(present, pred, 0), torch.where(present, target, 0)
    invalid = (pred.isnan() | target.isnan()).any(-1, keepdim=True)
    g = ranking_gradient(pred, target, weight)
    g = torch.where(invalid & present, torch.nan, g)
    # The gradients of a row sum to zero, so a shift of the predictions changes nothing but the rounding.
    return ((pred.to(wide) - pred[..., :1].to(wide)) * g).sum(), g


def depth_ranking_joints(x: TermInput) -> tuple[Tensor, Tensor]:
    """L_S: rows are frames. The gradient [B, T, J] is that of the depth channel."""
    return hinge(x.pred[..., 2], x.known_target[..., 2], x.weight)


def depth_ranking_frames(x: TermInput) -> tuple[Tensor, Tensor]:
    """L_T: rows are joints. The gradient [B, T, J] is that of the depth channel."""
    pred, target = (depths[..., 2].transpose(-1, -2) for depths in (x.pred, x.known_target))
    value, g = hinge(pred, target, None if x.weight is None else x.weight.transpose(-1, -2))
    return value, g.transpose(-1, -2)
