"""Losses on the order of depths: RePOSE's relational depth consistency."""

from __future__ import annotations

from torch import Tensor

from ..errors import check_choice, check_finite_tensors, check_not_negative, check_weight
from ..ops import autograd, library
from ._call import REDUCTIONS, check_pair, share_memory, single
from ._plans import Plan, find, remember

__all__ = ["depth_ranking", "ranking_hinge"]


def ranking_hinge(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Pairwise ranking hinge of rows: sum over i, j with target_i < target_j of max(0, pred_i - pred_j).

    Computed from ranks in O(N log N), never as N x N. A pair of equal predictions passes half of the gradient, pairs
    tied in the target pass none.

    Args:
        pred, target: rows [..., N].
        weight: [..., N], >= 0; a pair weighs w_i * w_j.
        reduction: "mean" divides by the number of ordered pairs of all rows, N*N per row as in RePOSE's Algorithms 1
            and 2 (with weights the sum of w_i * w_j over all i, j); "sum" is Equation 2.
        check_finite: raise for NaN or infinite input instead of returning NaN; synchronises a GPU.
        backend: see :func:`structloss.use_backend`.

    Returns:
        0-d loss, in the unit of `pred`.

    Source: RePOSE (Sun et al., ECCV 2024), Equation 2.
    """
    key, plan = find("rows", (), None, "", reduction, backend, pred, target, weight)
    if plan is not None and plan.launch is not None:
        if weight is not None:
            check_not_negative(weight)
        if check_finite:
            check_finite_tensors(pred=pred, target=target, weight=weight)
        return autograd.planned(plan.launch, pred, target, weight, None, (), need_values=False)[0]
    check_pair(pred, target, minimum_dim=1, expected="[..., N]")
    check_choice("reduction", reduction, REDUCTIONS)
    weight = check_weight(weight, pred, pred.shape)
    if check_finite:
        check_finite_tensors(pred=pred, target=target, weight=weight)
    rows = _rows(pred), _rows(target), None if weight is None else _rows(weight)
    loss = autograd.ranking_hinge(*rows, reduction, backend)
    if key is not None and share_memory(rows, (pred, target, weight)):
        remember(key, Plan(library.plan_ranking_hinge(*rows, reduction, backend)))
    return loss


def _rows(x: Tensor) -> Tensor:
    """[..., N] -> [R, N]."""
    return x.reshape(-1, x.shape[-1]) if x.numel() else x.reshape(0, 1)


def depth_ranking(
    pred: Tensor,
    target: Tensor,
    *,
    over: str,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """RePOSE's relational depth consistency: wrongly ordered depths, in proportion to how far they are wrong.

    Args:
        pred, target: poses [..., T, J, 3].
        over: "joints" compares the joints of each frame (L_S), "frames" the frames of each joint (L_T).
        weight: [..., T, J], >= 0; a pair weighs w_i * w_j.
        reduction: "mean" divides by the number of ordered pairs of all rows, J*J per frame or T*T per joint (with
            weights the sum of w_i * w_j), as Algorithms 1 and 2 do; "sum" is Equations 2 and 3, added over clips.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in the unit of the poses.

    Source: RePOSE (Sun et al., ECCV 2024), Algorithms 1 and 2, Equations 2 and 3.
    """
    term = f"depth_ranking_{check_choice('over', over, ('joints', 'frames'))}"
    return single(term, pred, target, weight, reduction, check_finite, backend)
