"""Position and motion errors as functions.

Common to all: poses are `[..., T, J, 3]` (frames, joints, xyz), floating point; the result has their unit (mm or m, per
frame for velocities) and is a float64 tensor, computed in float64 whatever the input's dtype. Metrics are not
differentiable; the losses in :mod:`structloss` of the same names are.

`weight` is `[..., T, J]` (or expands to it), >= 0: visibility, confidence or padding. Entries of weight 0 drop out
exactly, whatever they hold, and so does a frame whose weights are all 0. `reduction="mean"` is the mean over all joints
of all frames, weighted: sum(w e) / sum(w), the root included like any joint (the published 17-joint convention: with an
exact root it is 16/17 of the mean over the others). `reduction="none"` gives the weighted mean over each frame's
joints, `[..., T]`. Where nothing is scored, the result is NaN.

All raise :class:`~structloss.errors.ArgumentError` for shapes that differ or are not `[..., T, J, 3]`, for negative or
non-finite weights, a root that is no joint or an unknown reduction, and :class:`~structloss.errors.DtypeError` for
poses that are not floating point.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import procrustes
from ._checks import check_reduction, prepare, reduce
from .depth_order import depth_order_accuracy

__all__ = ["depth_order_accuracy", "mpjpe", "mpjve", "n_mpjpe", "pa_mpjpe"]


@torch.no_grad()
def mpjpe(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    root: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean per-joint position error (protocol 1): the mean distance between predicted and true joints.

    Args:
        pred, target: `[..., T, J, 3]`; the result has their unit.
        weight: `[..., T, J]`, >= 0.
        root: subtract this joint from both poses first; None takes them as given. A frame whose root has weight 0
            drops out.
        reduction: `"mean"`, or `"none"` for one value a frame, `[..., T]`.

    See the module for dtypes, weights and errors raised. Source: VideoPose3D, MotionBERT (`mpjpe`, `loss_mpjpe`).
    """
    check_reduction(reduction)
    return reduce(*mpjpe_sums(pred, target, weight, root=root), reduction)


@torch.no_grad()
def pa_mpjpe(pred: Tensor, target: Tensor, *, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """MPJPE after the best rotation, scaling and translation of each frame (protocol 2, P-MPJPE).

    The transform minimises the weighted squared distances over the frame's joints; reflections are never used.
    Where all joints of `pred` coincide, the pose is moved to the target's mean; where all joints of `target` do, the
    prediction shrinks onto them and the error is 0. So finite input gives NaN only where nothing is scored.

    Args:
        pred, target: `[..., T, J, 3]`; the result has their unit.
        weight: `[..., T, J]`, >= 0.
        reduction: `"mean"`, or `"none"` for one value a frame, `[..., T]`.

    See the module for dtypes, weights and errors raised. Source: VideoPose3D, MotionBERT (`p_mpjpe`).
    """
    check_reduction(reduction)
    return reduce(*pa_mpjpe_sums(pred, target, weight), reduction)


@torch.no_grad()
def n_mpjpe(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    root: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """MPJPE after the best scaling of each frame: factor sum(w p.g) / sum(w p.p), without centring.

    A prediction of zeros stays zero (the published code gives NaN there).

    Args:
        pred, target: `[..., T, J, 3]`; the result has their unit. The scaling is about the origin: pass
            root-relative poses or `root`.
        weight: `[..., T, J]`, >= 0.
        root: subtract this joint first; None (the published definition) takes the poses as given.
        reduction: `"mean"`, or `"none"` for one value a frame, `[..., T]`.

    See the module for dtypes, weights and errors raised. Source: VideoPose3D, MotionBERT (`n_mpjpe`).
    """
    check_reduction(reduction)
    return reduce(*n_mpjpe_sums(pred, target, weight, root=root), reduction)


@torch.no_grad()
def mpjve(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    root: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean per-joint velocity error: the mean distance between predicted and true steps from frame to frame.

    A step weighs the product of its two frames' weights, so both must be valid. One frame has no step: NaN.

    Args:
        pred, target: `[..., T, J, 3]`; the result has their unit, per frame (not per second).
        weight: `[..., T, J]`, >= 0.
        root: subtract this joint first; None takes the poses as given.
        reduction: `"mean"`, or `"none"` for one value a step, `[..., T - 1]` (`[..., 0]` for T = 0).

    See the module for dtypes, weights and errors raised. Source: VideoPose3D (`mean_velocity_error`), MotionBERT
    (`loss_velocity`).
    """
    check_reduction(reduction)
    return reduce(*mpjve_sums(pred, target, weight, root=root), reduction)


# Each *_sums returns, a frame, sum(w e) and sum(w) over the joints: what the functions divide and the classes add up.


def _errors(pred: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    error = torch.linalg.vector_norm(pred - target, dim=-1)
    # Not simply the product: NaN times a weight of 0 is NaN.
    return torch.where(weight > 0, weight * error, 0.0).sum(-1), weight.sum(-1)


def mpjpe_sums(pred: Tensor, target: Tensor, weight: Tensor | None, *, root: int | None) -> tuple[Tensor, Tensor]:
    return _errors(*prepare(pred, target, weight, root))


def pa_mpjpe_sums(pred: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    pred, target, weight = prepare(pred, target, weight)
    return _errors(procrustes.fit(pred, target, weight), target, weight)


def n_mpjpe_sums(pred: Tensor, target: Tensor, weight: Tensor | None, *, root: int | None) -> tuple[Tensor, Tensor]:
    pred, target, weight = prepare(pred, target, weight, root)
    w = weight[..., None]
    dot, square = (w * pred * target).sum((-2, -1)), (w * pred * pred).sum((-2, -1))
    scale = torch.where(square == 0, 0.0, dot / square)
    return _errors(scale[..., None, None] * pred, target, weight)


def mpjve_sums(pred: Tensor, target: Tensor, weight: Tensor | None, *, root: int | None) -> tuple[Tensor, Tensor]:
    pred, target, weight = prepare(pred, target, weight, root)
    return _errors(pred.diff(dim=-3), target.diff(dim=-3), weight[..., 1:, :] * weight[..., :-1, :])
