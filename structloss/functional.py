"""The losses as functions. Poses are [..., T, J, 3]: frames, joints, xyz; depth is channel 2.

Common to all:

* any number of leading batch dimensions, any strides; float64, float32, float16 or bfloat16 (half types are computed
  in float32); metres or millimetres, root-relative or not;
* the result is a 0-d tensor of the compute dtype; the gradient with respect to `pred` has the dtype of `pred`;
* no clips, no joints or no weight give 0, never NaN; a NaN in `pred` or `target` gives NaN;
* `weight` >= 0 is visibility, confidence or a padding mask; what has weight 0 takes no part, whatever it holds;
* differentiable in `pred`, once; works under torch.compile(fullgraph=True), autocast and no_grad.

They raise ArgumentError (a ValueError) for shapes, devices, reductions and negative weights, DtypeError (also a
TypeError) for dtypes, UnknownNameError for names, BackendError for a backend that can't serve the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor

from . import skeletons
from .errors import (
    ArgumentError,
    check_choice,
    check_finite_tensors,
    check_floating,
    check_same_device,
    check_same_shape,
    check_weight,
)
from .ops import autograd
from .ops.library import compute_dtype
from .terms import check_term

__all__ = ["Objective", "depth_ranking", "mpjpe", "objective", "ranking_hinge"]

REDUCTIONS = ("mean", "sum")


class Objective(NamedTuple):
    """Result of :func:`objective`.

    Attributes:
        total: the weighted sum, 0-d; call backward on this one.
        terms: name -> unweighted value, 0-d and detached, for logging.
    """

    total: Tensor
    terms: dict[str, Tensor]


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
        reduction: "mean" divides by the number of ordered pairs of all rows, N*N a row as in RePOSE's Algorithms 1
            and 2 (with weights the sum of w_i * w_j over all i, j); "sum" is Equation 2.
        check_finite: raise for NaN or infinite input instead of returning NaN; synchronises a GPU.
        backend: see :func:`structloss.use_backend`.

    Returns:
        0-d loss, in the unit of `pred`.

    Source: RePOSE (Sun et al., ECCV 2024), Equation 2.
    """
    _check_pair(pred, target, minimum_dim=1, expected="[..., N]")
    check_choice("reduction", reduction, REDUCTIONS)
    weight = check_weight(weight, pred, pred.shape)
    if check_finite:
        check_finite_tensors(pred=pred, target=target, weight=weight)
    rows = [
        None if x is None else x.reshape(-1, pred.shape[-1]) if x.numel() else x.reshape(0, 1)
        for x in (pred, target, weight)
    ]
    return autograd.ranking_hinge(*rows, reduction, backend)


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
        reduction: "mean" divides by the number of ordered pairs of all rows, J*J a frame or T*T a joint (with weights
            the sum of w_i * w_j), as Algorithms 1 and 2 do; "sum" is Equations 2 and 3, added over clips.
        check_finite: raise for NaN or infinite input instead of returning NaN; synchronises a GPU.
        backend: see :func:`structloss.use_backend`.

    Returns:
        0-d loss, in the unit of the poses.

    Source: RePOSE (Sun et al., ECCV 2024), Algorithms 1 and 2, Equations 2 and 3.
    """
    term = f"depth_ranking_{check_choice('over', over, ('joints', 'frames'))}"
    return _single(term, pred, target, weight, reduction, check_finite, backend)


def mpjpe(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Mean per-joint position error: the Euclidean distance of predicted and target joint, as a loss.

    Args:
        pred, target: poses [..., T, J, 3].
        weight: [..., T, J], >= 0.
        reduction: "mean" divides by the number of joints (with weights by their sum); "sum" doesn't divide.
        check_finite: raise for NaN or infinite input instead of returning NaN; synchronises a GPU.
        backend: see :func:`structloss.use_backend`.

    Returns:
        0-d loss, in the unit of the poses. The gradient of a joint without error is 0.

    Source: Human3.6M protocol 1 (Ionescu et al., TPAMI 2014).
    """
    return _single("mpjpe", pred, target, weight, reduction, check_finite, backend)


def objective(
    pred: Tensor,
    target: Tensor | None,
    weights: Mapping[str, float | Tensor],
    *,
    skeleton: str = "h36m",
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Objective:
    """Any weighted subset of the loss terms in one pass over the poses.

    Args:
        pred, target: poses [..., T, J, 3].
        weights: term name (see `structloss.TERMS`) -> lambda >= 0, a number or a 0-d tensor; a tensor that requires
            grad receives its gradient, which is the term's value.
        skeleton: name of the skeleton, for terms that need one.
        weight: [..., T, J], >= 0: visibility, confidence or padding, applied in every term.
        reduction: "mean" or "sum", as in each term's own function.
        check_finite: raise for NaN or infinite input instead of returning NaN; synchronises a GPU.
        backend: see :func:`structloss.use_backend`.

    Returns:
        `Objective(total, terms)`.

    Source: RePOSE (Sun et al., ECCV 2024), Equation 4.

    Example:
        >>> import torch, structloss
        >>> pred, target = torch.zeros(2, 81, 17, 3, requires_grad=True), torch.randn(2, 81, 17, 3)
        >>> weights = {"mpjpe": 1.0, "depth_ranking_joints": 1.0, "depth_ranking_frames": 1.0}
        >>> structloss.objective(pred, target, weights).total.backward()
    """
    if not isinstance(weights, Mapping):
        raise ArgumentError(f"weights is a {type(weights).__name__}, expected a mapping from term names to numbers.")
    if not weights:
        raise ArgumentError("weights is empty, expected at least one term and its weight.")
    for name in weights:
        if check_term(name).needs_target and target is None:
            raise ArgumentError(f"target is None, expected poses, since the term {name!r} compares with them.")
    skeletons.get(skeleton)
    _check_pair(pred, target)
    check_choice("reduction", reduction, REDUCTIONS)
    weight = check_weight(weight, pred, pred.shape[:-1])
    if check_finite:
        check_finite_tensors(pred=pred, target=target, weight=weight)
    total, values = _run(tuple(weights), *_lambdas(weights, pred), pred, target, weight, reduction, backend)
    return Objective(total, dict(zip(weights, values.unbind(0), strict=True)))


def _single(
    term: str,
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    check_finite: bool,
    backend: str | None,
) -> Tensor:
    _check_pair(pred, target)
    check_choice("reduction", reduction, REDUCTIONS)
    weight = check_weight(weight, pred, pred.shape[:-1])
    if check_finite:
        check_finite_tensors(pred=pred, target=target, weight=weight)
    return _run((term,), None, [1.0], pred, target, weight, reduction, backend)[0]


def _run(
    terms: tuple[str, ...],
    lam: Tensor | None,
    lambdas: list[float],
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    clips = _clip_view(pred, 3), _clip_view(target, 3), None if weight is None else _clip_view(weight, 2)
    return autograd.objective(*clips, lam, lambdas, terms, reduction, backend)


def _clip_view(x: Tensor, keep: int) -> Tensor:
    """[..., *last `keep` sizes] -> [B, ...], a view where the strides allow one."""
    if x.dim() == keep + 1:
        return x
    if x.dim() == keep:
        return x.unsqueeze(0)
    # A zero size leaves -1 undetermined, and an empty batch has no clips to keep apart.
    return x.flatten(0, -keep - 1)


def _check_pair(pred: Tensor, target: Tensor, minimum_dim: int = 3, expected: str = "[..., T, J, 3]") -> None:
    check_floating("pred", pred)
    check_floating("target", target)
    if pred.dim() < minimum_dim or (minimum_dim == 3 and pred.shape[-1] != 3):
        raise ArgumentError(f"pred has shape {list(pred.shape)}, expected {expected}.")
    check_same_shape("target", target, "pred", pred)
    check_same_device("target", target, "pred", pred)
    if target.requires_grad:
        raise ArgumentError(
            "target requires grad, expected one that doesn't (target.detach()), since no gradient flows to it."
        )


def _lambdas(weights: Mapping[str, float | Tensor], pred: Tensor) -> tuple[Tensor | None, list[float]]:
    """The weights as a tensor [K] if any of them is one, else as numbers."""
    dtype = compute_dtype(pred.dtype)
    numbers, tensors = [], []
    for name, value in weights.items():
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise ArgumentError(f"weights[{name!r}] has shape {list(value.shape)}, expected a 0-d tensor.")
            check_floating(f"weights[{name!r}]", value)
            check_same_device(f"weights[{name!r}]", value, "pred", pred)
            tensors.append(value.reshape(()).to(dtype))
        elif isinstance(value, (int, float, Real)):
            if not 0 <= value < float("inf"):
                raise ArgumentError(f"weights[{name!r}] is {value}, expected a finite number >= 0.")
            numbers.append(float(value))
            tensors.append(None)
        else:
            raise ArgumentError(f"weights[{name!r}] is a {type(value).__name__}, expected a number or a 0-d tensor.")
    if len(numbers) == len(tensors):
        return None, numbers
    rest = iter(numbers)
    stacked = [
        torch.full((), next(rest), dtype=dtype, device=pred.device) if value is None else value for value in tensors
    ]
    return torch.stack(stacked), [0.0] * len(tensors)
