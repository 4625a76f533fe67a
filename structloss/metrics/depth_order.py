"""Share of depth pairs that a prediction orders correctly.

Rows of weights 0 and 1 that are no longer than some hundred entries are counted pair by pair, in 16-bit integers, of
which a vector register of the CPU holds many; all others in O(N log² N) for a row of N. Both give the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check_choice
from ._checks import check_reduction, check_root, prepare, reduce

__all__ = ["depth_order_accuracy"]

OVER = ("joints", "frames")
_BLOCK = 1 << 19  # entries processed at a time: bounds the working memory to some tens of megabytes
_SHORT = 512  # longest row that is counted pair by pair: beyond, sorting is as fast


@torch.no_grad()
def depth_order_accuracy(
    pred: Tensor,
    target: Tensor,
    *,
    over: str = "joints",
    weight: Tensor | None = None,
    root: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Share of the pairs with target_i < target_j in depth that `pred` orders the same way, from 0 to 1.

    A pair that ties in `pred` counts half; one that ties in `target` does not count. A constant prediction scores 0.5,
    the reversed order 0. The metric that belongs to RePOSE's depth-ranking losses.

    Args:
        pred, target: `[..., T, J, 3]`, floating point, any unit; depth is channel 2.
        over: `"joints"` pairs the joints of a frame, `"frames"` pairs the frames of a joint.
        weight: `[..., T, J]` (or expanding to it), >= 0; a pair weighs w_i * w_j.
        root: subtract this joint first. It changes nothing over joints but a frame whose root has weight 0 drops out.
        reduction: `"mean"` pools the pairs of all rows; `"none"` gives one share per row: `[..., T]` over joints,
            `[..., J]` over frames.

    Returns:
        float64. NaN where no pair is scored, and where a scored depth is NaN. Unweighted counts are exact: as long as
        they stay below 2^52 pairs, the value depends on no order of summation.

    Raises:
        ArgumentError: shapes that differ or are not `[..., T, J, 3]`, a negative or non-finite weight, an unknown
            `over` or `reduction`, a root that is no joint.
        DtypeError: poses that are not floating point.

    >>> import torch
    >>> from structloss.metrics import depth_order_accuracy
    >>> target, pred = torch.zeros(1, 4, 3), torch.zeros(1, 4, 3)
    >>> target[0, :, 2] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    >>> pred[0, :, 2] = torch.tensor([0.0, 2.0, 1.0, 3.0])  # one of six pairs the wrong way round
    >>> round(depth_order_accuracy(pred, target).item(), 4)
    0.8333
    """
    check_reduction(reduction)
    return reduce(*depth_order_values(pred, target, weight, over=over, root=root), reduction)


def depth_order_values(
    pred: Tensor, target: Tensor | None, weight: Tensor | None, *, over: str, root: int | None
) -> tuple[Tensor, Tensor]:
    """Weight of the correctly ordered pairs and of all pairs, `[..., rows, 1]`."""
    check_choice("over", over, OVER)
    check_root(root)
    pred, target, weight = prepare(pred, target, weight, root)
    p, t = pred[..., 2], target[..., 2]
    if over == "frames":
        p, t, weight = p.mT, t.mT, weight.mT
    rows, n = p.shape[:-1], p.shape[-1]
    if n == 0:
        return p.new_zeros(*rows, 1), p.new_zeros(*rows, 1)
    p, t, weight = (x.reshape(-1, n) for x in (p, t, weight))
    right, total = torch.empty_like(p[:, 0]), torch.empty_like(p[:, 0])
    step = max(1, _BLOCK // n)
    for i in range(0, len(p), step):
        block = slice(i, i + step)
        right[block], total[block] = _counted(p[block], t[block], weight[block])
    return right.reshape(*rows, 1), total.reshape(*rows, 1)


def _counted(p: Tensor, t: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """`depth_order_values` of rows [R, N], counted in the way that is faster."""
    short = p.device.type == "cpu" and p.shape[-1] <= _SHORT
    if short and bool(((w == 0) | (w == 1)).all()):
        return _count_pairs(p, t, w)
    return _count(p, t, w)


def _dense_rank(x: Tensor) -> Tensor:
    """Rank of each entry of [R, N] among the *different* values of its row: equal values, equal ranks."""
    values, order = x.sort(dim=-1)
    step = torch.zeros_like(order)
    step[:, 1:] = values[:, 1:] != values[:, :-1]
    return torch.empty_like(order).scatter_(-1, order, step.cumsum(-1))


def _cumulate(x: Tensor) -> Tensor:
    """Sums of the first 0, 1, ..., N entries."""
    return torch.nn.functional.pad(x.cumsum(-1), (1, 0))


def _count(p: Tensor, t: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """`depth_order_values` of rows [R, N].

    Two different target ranks agree down to some bit, where the lower has 0 and the higher has 1. So every pair is met
    exactly once, level by level: among the entries with equal higher bits, sorted by prediction, each entry with bit 1
    gains the weight of the entries with bit 0 before it, and half the weight of those level with it.
    """
    n = p.shape[-1]
    p, t = p.contiguous(), t.contiguous()  # or the sorted ranks inherit the strides, which searchsorted copies
    bad = ((p.isnan() | t.isnan()) & (w > 0)).any(-1)
    p, t = _dense_rank(p), _dense_rank(t)

    ranks, order = t.sort(dim=-1)
    sorted_w = w.gather(-1, order)
    total = (sorted_w * _cumulate(sorted_w).gather(-1, torch.searchsorted(ranks, ranks))).sum(-1)

    right = torch.zeros_like(total)
    for bit in range((n - 1).bit_length()):
        group = (t >> (bit + 1)) * n
        key, order = (group + p).sort(dim=-1)
        group, level_w = group.gather(-1, order), w.gather(-1, order)
        high = ((t >> bit) & 1).gather(-1, order).bool()
        low = _cumulate(level_w.masked_fill(high, 0.0))
        before = low.gather(-1, torch.searchsorted(key, key))
        upto = low.gather(-1, torch.searchsorted(key, key, right=True))
        outside = low.gather(-1, torch.searchsorted(key, group))
        gain = (before + upto) * 0.5 - outside
        right += (level_w * gain).masked_fill(~high, 0.0).sum(-1)
    return right.masked_fill(bad, float("nan")), total


def _count_pairs(p: Tensor, t: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """The same for weights of 0 and 1, pair by pair.

    Entries are sorted by target, so that each pair (i, i + k) has its lower target first; then it adds the sign of
    p[i + k] - p[i] to a sum S, or nothing if its targets tie or a weight is 0. Of n pairs that count, c are in order, d
    in the reverse and the others tie: S = c - d, and what is wanted is c + (n - c - d) / 2 = (S + n) / 2.
    """
    n = p.shape[-1]
    bad = ((p.isnan() | t.isnan()) & (w > 0)).any(-1)
    t, order = t.sort(dim=-1)
    # Rows side by side and places in rows below each other: neighbours in memory are worked on alike.
    rank = _dense_rank(p.gather(-1, order)).to(torch.int16).mT.contiguous()
    step = t[:, 1:] != t[:, :-1]
    level = part = None
    if not bool(step.all()):
        level = torch.nn.functional.pad(step.cumsum(-1), (1, 0)).to(torch.int16).mT.contiguous()
    if not bool((w == 1).all()):
        part = w.gather(-1, order).to(torch.int16).mT.contiguous()
    # A place is the later one of at most N - 1 pairs, so that 16 bits hold its sums.
    signs, pairs = torch.zeros_like(rank), torch.zeros_like(rank)
    for k in range(1, n):
        sign = (rank[k:] - rank[:-k]).clamp_(-1, 1)
        if level is not None:
            counts = (level[k:] - level[:-k]).clamp_(max=1)
            if part is not None:
                counts.mul_(part[k:]).mul_(part[:-k])
        elif part is not None:
            counts = part[k:] * part[:-k]
        else:
            signs[k:] += sign
            continue
        signs[k:] += sign.mul_(counts)
        pairs[k:] += counts
    total = p.new_full((len(p),), n * (n - 1) / 2) if level is None and part is None else pairs.sum(0).to(p.dtype)
    return ((signs.sum(0).to(p.dtype) + total) / 2).masked_fill(bad, float("nan")), total
