"""Losses on the order of depths: RePOSE's relational depth consistency."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check_choice, check_finite_tensors, check_not_negative, check_weight
from ..ops import autograd, library
from ._call import REDUCTIONS, check_pair, share_memory, single
from ._plans import Plan, find, remember
from .resolution import as_resolution, coarse, coarse_poses

__all__ = ["depth_ranking", "ranking_hinge"]


def ranking_hinge(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    resolution: float = 0.0,
    training: bool = True,
    generator: torch.Generator | None = None,
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
        resolution, training, generator: as in :func:`depth_ranking`; `resolution` in the unit of `target`, with an
            offset for each row.
        check_finite: raise for NaN or infinite input instead of returning NaN; synchronises a GPU.
        backend: see :func:`structloss.use_backend`.

    Returns:
        0-d loss, in the unit of `pred`.

    Source: RePOSE (Sun et al., ECCV 2024), Equation 2; the resolution is this library's.
    """
    if resolution := as_resolution(resolution):
        check_pair(pred, target, minimum_dim=1, expected="[..., N]")
        target = coarse(target, resolution, -1, pred.dtype, training, generator)
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
    resolution: float = 0.0,
    training: bool = True,
    generator: torch.Generator | None = None,
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
        resolution: depths of the target, in their unit, below which the order of a pair is not asked for. Their
            target is floor((d + u) / resolution), u in [0, resolution) the same for all of a row (of a frame, or of a
            joint of a clip): in expectation a pair weighs min(1, |d_i - d_j| / resolution). 0, the default, is the
            published loss.
        training: draw u, anew with each call; False, for evaluation: half of the resolution.
        generator: draws u, on the device of `target`; None for torch's own, which `torch.manual_seed` seeds. In a
            compiled function it must be None.
        check_finite, backend: as everywhere in :mod:`structloss.functional`.

    Returns:
        0-d loss, in the unit of the poses.

    Source: RePOSE (Sun et al., ECCV 2024), Algorithms 1 and 2, Equations 2 and 3; the resolution is this library's.
    """
    term = f"depth_ranking_{check_choice('over', over, ('joints', 'frames'))}"
    if resolution := as_resolution(resolution):
        check_pair(pred, target)
        if check_finite:  # of the target that was given
            check_finite_tensors(target=target)
        target = coarse_poses(term, pred, target, resolution, training, generator)
    return single(term, pred, target, weight, reduction, check_finite, backend)
