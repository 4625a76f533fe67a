"""Position and motion errors as functions.

Common to all: poses are `[..., T, J, 3]` (frames, joints, xyz), floating point; the result has their unit (mm or m, per
frame for velocities) and is a float64 tensor, computed in float64 whatever the input's dtype. Metrics are not
differentiable; the losses in :mod:`structloss` of the same names are.

`weight` is `[..., T, J]` (or expands to it), >= 0: visibility, confidence or padding. Entries of weight 0 drop out
exactly, whatever they hold, and so does a frame whose weights are all 0. `reduction="mean"` is the mean over all joints
of all frames, weighted: sum(w e) / sum(w), the root included like any joint (the published 17-joint convention: with an
exact root it is 16/17 of the mean over the others). `reduction="none"` gives the weighted mean over each frame's
joints, `[..., T]`; `reduction="joints"` that of each joint over all frames, `[J]`; `reduction="sum"` is sum(w e), as of
the losses. Where nothing is scored, the result is NaN (a loss is 0 there).

:func:`mpjpe` and :func:`n_mpjpe` take what the losses :func:`structloss.mpjpe` and :func:`structloss.n_mpjpe` take, but
for `backend` and `check_finite`, give the same value and raise the same errors. A loss has the dtype that it trains in.

All raise :class:`~structloss.errors.ArgumentError` for shapes that differ or are not `[..., T, J, 3]`, for negative or
non-finite weights, a root that is no joint or an unknown reduction, and :class:`~structloss.errors.DtypeError` for
poses that are not floating point.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import procrustes
from ._checks import check_reduction, prepare, reduce, weighted
from ._once import once

__all__ = ["acceleration_error", "mpjpe", "mpjve", "n_mpjpe", "pa_mpjpe"]


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
        reduction: `"mean"`, `"none"` for one value per frame, `[..., T]`, or `"joints"` for one per joint, `[J]`.

    See the module for dtypes, weights and errors raised. Source: VideoPose3D, MotionBERT (`mpjpe`, `loss_mpjpe`).

    >>> import torch
    >>> from structloss.metrics import mpjpe
    >>> target = torch.zeros(1, 2, 3)
    >>> pred = torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]]])
    >>> mpjpe(pred, target).item(), mpjpe(pred, target, reduction="joints").tolist()
    (3.0, [5.0, 1.0])
    """
    check_reduction(reduction, "joints", "sum")
    return reduce(*mpjpe_values(pred, target, weight, root=root), reduction)


@torch.no_grad()
def pa_mpjpe(pred: Tensor, target: Tensor, *, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """MPJPE after the best rotation, scaling and translation of each frame (protocol 2, P-MPJPE).

    The transform minimises the weighted squared distances over the frame's joints; reflections are never used.
    Where all joints of `pred` coincide, the pose is moved to the target's mean; where all joints of `target` do, the
    prediction shrinks onto them and the error is 0. So finite input gives NaN only where nothing is scored.

    Args:
        pred, target, weight, reduction: as for :func:`mpjpe`.

    See the module for dtypes, weights and errors raised. Source: VideoPose3D, MotionBERT (`p_mpjpe`).

    >>> import torch
    >>> from structloss.metrics import mpjpe, pa_mpjpe
    >>> target = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    >>> pred = 3 * target[..., [1, 0, 2]] * torch.tensor([-1.0, 1.0, 1.0]) + 5  # turned, larger and elsewhere
    >>> round(mpjpe(pred, target).item(), 2), round(pa_mpjpe(pred, target).item(), 6)
    (8.27, 0.0)
    """
    check_reduction(reduction, "joints", "sum")
    return reduce(*pa_mpjpe_values(pred, target, weight), reduction)


@torch.no_grad()
def n_mpjpe(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    root: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """MPJPE after the best scaling of each frame: factor sum(w p.g) / sum(w p.p), without centring (VideoPose3D's
    protocol 3).

    A prediction of zeros stays zero (the published code gives NaN there).

    Args:
        pred, target, weight, root, reduction: as for :func:`mpjpe`. The scaling is about the origin of
            poses as given (the published definition): pass root-relative ones, or `root`.

    See the module for dtypes, weights and errors raised. Source: VideoPose3D, MotionBERT (`n_mpjpe`).

    >>> import torch
    >>> from structloss.metrics import n_mpjpe
    >>> target = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    >>> n_mpjpe(3 * target, target).item()
    0.0
    """
    check_reduction(reduction, "joints", "sum")
    return reduce(*n_mpjpe_values(pred, target, weight, root=root), reduction)


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
        pred, target, weight, root: as for :func:`mpjpe`; the result is per frame (not per second).
        reduction: `"mean"`, `"none"` for one value per step, `[..., T - 1]` (`[..., 0]` for T = 0), or `"joints"` for
            one per joint, `[J]`.

    See the module for dtypes, weights and errors raised. Source: VideoPose3D (`mean_velocity_error`), MotionBERT
    (`loss_velocity`).

    >>> import torch
    >>> from structloss.metrics import mpjve
    >>> target, pred = torch.zeros(3, 1, 3), torch.zeros(3, 1, 3)
    >>> pred[:, 0, 0] = torch.tensor([0.0, 1.0, 4.0])  # steps of 1 and 3 where there are none
    >>> mpjve(pred, target).item()
    2.0
    """
    check_reduction(reduction, "joints", "sum")
    return reduce(*mpjve_values(pred, target, weight, root=root), reduction)


@torch.no_grad()
def acceleration_error(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    root: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean distance between predicted and true second differences x[t-1] - 2 x[t] + x[t+1].

    A difference weighs the product of its three frames' weights. Two frames have none: NaN.

    Args:
        pred, target, weight, root: as for :func:`mpjpe`; the result is per frame squared (published tables call it
            mm/s^2).
        reduction: `"mean"`, `"none"` for one value per inner frame, `[..., T - 2]`, or `"joints"` for one per joint.

    See the module for dtypes, weights and errors raised. Source: MotionAGFormer (`acc_error`).

    >>> import torch
    >>> from structloss.metrics import acceleration_error
    >>> target, pred = torch.zeros(3, 1, 3), torch.zeros(3, 1, 3)
    >>> pred[:, 0, 0] = torch.tensor([0.0, 1.0, 4.0])  # 0 - 2 * 1 + 4
    >>> acceleration_error(pred, target).item()
    2.0
    """
    check_reduction(reduction, "joints", "sum")
    return reduce(*acceleration_values(pred, target, weight, root=root), reduction)


# Each *_values returns the weighted errors and the weights, [..., T, J]: what the functions divide and the classes sum.


def _errors(pred: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return weighted(torch.linalg.vector_norm(pred - target, dim=-1), weight)


@once
def mpjpe_values(
    pred: Tensor, target: Tensor | None, weight: Tensor | None, *, root: int | None
) -> tuple[Tensor, Tensor]:
    return _errors(*prepare(pred, target, weight, root))


@once
def pa_mpjpe_values(pred: Tensor, target: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    pred, target, weight = prepare(pred, target, weight)
    return _errors(procrustes.fit(pred, target, weight), target, weight)


@once
def n_mpjpe_values(
    pred: Tensor, target: Tensor | None, weight: Tensor | None, *, root: int | None
) -> tuple[Tensor, Tensor]:
    pred, target, weight = prepare(pred, target, weight, root)
    w = weight[..., None]
    dot, square = (w * pred * target).sum((-2, -1)), (w * pred * pred).sum((-2, -1))
    scale = torch.where(square == 0, 0.0, dot / square)
    return _errors(scale[..., None, None] * pred, target, weight)


def mpjve_values(
    pred: Tensor, target: Tensor | None, weight: Tensor | None, *, root: int | None
) -> tuple[Tensor, Tensor]:
    pred, target, weight = prepare(pred, target, weight, root)
    return _errors(pred.diff(dim=-3), target.diff(dim=-3), weight[..., 1:, :] * weight[..., :-1, :])


def acceleration_values(
    pred: Tensor, target: Tensor | None, weight: Tensor | None, *, root: int | None
) -> tuple[Tensor, Tensor]:
    pred, target, weight = prepare(pred, target, weight, root)
    inner = weight[..., 2:, :] * weight[..., 1:-1, :] * weight[..., :-2, :]
    return _errors(pred.diff(2, dim=-3), target.diff(2, dim=-3), inner)
