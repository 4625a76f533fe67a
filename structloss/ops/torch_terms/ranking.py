"""RePOSE's depth ranking by sorting.

Ranks come from two sorts, so nothing of size N x N exists. Mathematics: the pairwise hinge is piecewise linear and
homogeneous in the predictions, hence equal to the product of predictions and gradient, and the gradient is a difference
of two mid-ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .common import TermInput, accumulation_dtype

__all__ = ["depth_ranking_frames", "depth_ranking_joints", "hinge", "ranking_gradient"]


def _stable_sort(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [..., N] sorted, as values or as integers that are equal where the values are, and the order of each row."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return x.sort(dim=-1, stable=True)
    # On the CPU one integer holds a value and its place, in that order, so that no two are equal and any sort is a
    # stable one. NumPy's takes them by vectors: a tenth of the time of torch's, which moves an index with every value.
    bits = (x.contiguous() + 0.0).view(torch.int32)  # -0 + 0 is 0: both zeros get the same integer
    codes = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # below zero the bits count downwards
    keys = codes.to(torch.int64).bitwise_left_shift_(32).bitwise_or_(torch.arange(x.shape[-1]))
    keys.numpy().sort(axis=-1)
    return keys >> 32, keys.bitwise_and_(0xFFFFFFFF)


def _changes(sorted_values: Tensor) -> Tensor | None:
    """Where a sorted row [..., N] takes a new value, its first element always; None for everywhere, on the CPU."""
    changes = sorted_values[..., 1:] != sorted_values[..., :-1]
    if changes.device.type == "cpu" and changes.all():  # elsewhere to ask would be to wait
        return None
    return torch.nn.functional.pad(changes, (1, 0), value=True)


def _twice_midrank(is_first: Tensor | None, weight: Tensor | None, index: Tensor) -> Tensor:
    """Twice the mid-rank of sorted elements [..., N], itself not counted.

    Args:
        is_first: where ties begin; None for no ties.
        weight: in the order of the elements, or None for 1.
        index: 0 to N - 1.

    Returns:
        In elements (integers, [..., N] or, for no ties, [N]) or in units of weight.
    """
    below = index if weight is None else weight.cumsum(-1) - weight
    if is_first is None:
        return 2 * below
    below = below.expand(is_first.shape)
    if is_first.device.type == "cpu":
        # Depths that are rounded to float32 repeat now and then: where few do, only those are looked at.
        repeated = ~is_first
        repeated[..., :-1] |= repeated[..., 1:].clone()
        at = repeated.flatten().nonzero().squeeze(1)
        if len(at) == 0:
            return 2 * below
        if 4 * len(at) < below.numel():
            rank = (2 * below).flatten()
            weight_at = None if weight is None else weight.flatten()[at]
            rank[at] = _of_ties(is_first.flatten()[at], torch.arange(len(at)), below.flatten()[at], weight_at)
            return rank.view(is_first.shape)
    return _of_ties(is_first, index.expand(is_first.shape), below, weight)


def _of_ties(starts: Tensor, place: Tensor, below: Tensor, weight: Tensor | None) -> Tensor:
    """Twice the mid-rank of elements [..., M] of which ties stand side by side and begin at `starts`, the first at 0.

    Args:
        starts, place: where ties begin, and 0 to M - 1, [..., M].
        below: elements, or weight, before each element of a row.
        weight: as `below`, or None for 1.
    """
    first = (place * starts).cummax(-1).values
    ends = torch.nn.functional.pad(starts[..., 1:], (0, 1), value=True)
    last = place.masked_fill(~ends, starts.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    if weight is None:
        return below.gather(-1, first) + below.gather(-1, last)
    return below.gather(-1, first) + (below + weight).gather(-1, last) - weight


def ranking_gradient(pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Gradient of the unreduced hinge of each row.

    Args:
        pred, target: rows [..., N], N > 0, no NaN.
        weight: [..., N], >= 0, in float64.

    Returns:
        g [..., N] = w * (mid-rank by pred - mid-rank by target with ties ordered by pred), in float64.
    """
    index = torch.arange(pred.shape[-1], device=pred.device)
    sorted_pred, by_pred = _stable_sort(pred)
    # A stable sort of what is already in the order of pred leaves ties in target ordered by pred.
    sorted_target, by_target = _stable_sort(target.gather(-1, by_pred))
    first_pred, first_target = _changes(sorted_pred), _changes(sorted_target)
    if first_pred is None:
        first_target = None  # ties in target only: each place has a rank of its own
    if first_target is not None:
        of_pred = _changes(sorted_pred.gather(-1, by_target))
        first_target = None if of_pred is None else first_target | of_pred
    weight_by_target = None
    if weight is not None:
        weight = weight.gather(-1, by_pred)
        weight_by_target = weight.gather(-1, by_target)
    rank_pred = _twice_midrank(first_pred, weight, index).expand(by_pred.shape).gather(-1, by_target)
    rank_target = _twice_midrank(first_target, weight_by_target, index)
    half = 0.5 if weight_by_target is None else 0.5 * weight_by_target
    difference = (rank_pred - rank_target).to(accumulation_dtype(pred.device)) * half
    return torch.empty_like(difference).scatter_(-1, by_pred.gather(-1, by_target), difference)


def hinge(pred: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sum of the hinge over all rows [..., N] (0-d, float64) and its gradient [..., N] (float64).

    `weight` [..., N] is in float64; what has none is zero in `pred` and `target`.
    """
    wide = accumulation_dtype(pred.device)
    if pred.numel() == 0:
        return torch.zeros((), dtype=wide, device=pred.device), torch.zeros(pred.shape, dtype=wide, device=pred.device)
    pred, target = pred.contiguous(), target.contiguous()  # every step below is faster along rows
    invalid = (pred.isnan() | target.isnan()).any(-1, keepdim=True)
    g = ranking_gradient(pred, target, weight)
    g = g.masked_fill_(invalid if weight is None else invalid & (weight > 0), torch.nan)
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
