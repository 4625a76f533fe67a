"""Shape, dtype and weight checks that the metrics share. All metrics are evaluated in float64 where there is one."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..errors import (
    ArgumentError,
    DtypeError,
    check_choice,
    check_floating,
    check_same_device,
    check_same_shape,
    check_tensor,
)
from ..skeletons import Skeleton, get
from ._once import once
from ._precision import wide


def check_reduction(reduction: str, *parts: str) -> None:
    """ "mean", "none", or what the metric's parts are called: one value per joint, bone, pair, ..."""
    check_choice("reduction", reduction, ("mean", "none", *parts))


def check_root(root: int | None) -> None:
    if root is not None and (isinstance(root, bool) or not isinstance(root, int) or root < 0):
        raise ArgumentError(f"root is {root!r}, expected None or the index of a joint (0 or more).")


def check_joints(joints: object) -> tuple[int, ...] | None:
    """Indices of the joints to score; None is all."""
    if joints is None:
        return None
    indices = tuple(joints) if isinstance(joints, Iterable) else ()
    whole = all(isinstance(j, int) and not isinstance(j, bool) and j >= 0 for j in indices)
    if not indices or not whole or len(set(indices)) < len(indices):
        raise ArgumentError(f"joints is {joints!r}, expected None or different indices of joints (0 or more).")
    return indices


def check_labels(
    name: str, labels: Tensor, shape: torch.Size, count: int | None, device: torch.device, rows: str = "frames"
) -> Tensor:
    """Numbers 0 to count - 1 (None: any), one per clip or, if the rows are frames, one per frame, as int64 of `shape`
    [..., T] on the device.

    Raises:
        ArgumentError: another type, shape or device, or a number out of range.
    """
    check_tensor(name, labels, "an integer tensor")
    if labels.is_floating_point() or labels.is_complex():
        raise DtypeError(f"{name} has dtype {labels.dtype}, expected an integer tensor.")
    if labels.shape == shape[:-1]:
        wide = labels.long()[..., None].expand(shape)
    elif labels.shape == shape and rows == "frames":
        wide = labels.long()
    else:
        expected = f"{list(shape[:-1])}, one per clip" + (f", or {list(shape)}, one per frame" * (rows == "frames"))
        raise ArgumentError(f"{name} has shape {list(labels.shape)}, expected {expected}.")
    low, high = (int(x) for x in wide.aminmax()) if wide.numel() else (0, 0)
    if count is not None and (low < 0 or high >= count):
        raise ArgumentError(f"{name} has values from {low} to {high}, expected 0 to {count - 1}.")
    return wide.to(device)


def _check_pose(name: str, pose: object, channels: tuple[int, ...] = (3,)) -> Tensor:
    check_floating(name, pose)
    assert isinstance(pose, Tensor)
    if pose.ndim < 3 or pose.shape[-1] not in channels:
        expected = " or ".join(f"[..., T, J, {c}]" for c in channels)
        raise ArgumentError(f"{name} has shape {list(pose.shape)}, expected {expected}.")
    return pose


@once
def prepare(
    pred: Tensor, target: Tensor | None, weight: Tensor | None, root: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Check the arguments; return pred and target [..., T, J, 3] and the weight [..., T, J], all float64.

    A target of None, which metric classes pass on where none was given, is refused like any other object.

    Entries of weight zero come back as zeros in pred and target, whatever they were (NaN included). With `root`, poses
    are relative to that joint, and a frame whose root has weight zero loses all its weight: there is nothing to measure
    from.
    """
    pred, target = _check_pose("pred", pred), _check_pose("target", target)
    check_same_shape("target", target, "pred", pred)
    check_same_device("target", target, "pred", pred)
    check_root(root)
    if root is not None and root >= pred.shape[-2]:
        raise ArgumentError(f"root is {root}, expected a joint below {pred.shape[-2]}.")

    pred, target = wide(pred.detach()), wide(target.detach())
    weight = _weight(weight, pred)
    if root is not None:
        weight = torch.where(weight[..., root : root + 1] > 0, weight, 0.0)
        pred = pred - pred[..., root : root + 1, :]
        target = target - target[..., root : root + 1, :]
    scored = (weight > 0)[..., None]
    return torch.where(scored, pred, 0.0), torch.where(scored, target, 0.0), weight


@once
def prepare_pose(pred: Tensor, weight: Tensor | None, skeleton: str) -> tuple[Tensor, Tensor, Skeleton]:
    """Like :func:`prepare`, for a metric of the predicted skeleton alone."""
    body = check_body(pred, skeleton)
    return *prepare_any(pred, weight, body.num_joints - 1), body


def prepare_any(pred: Tensor, weight: Tensor | None, last: int) -> tuple[Tensor, Tensor]:
    """Like :func:`prepare_pose`, for joints up to `last` in 2D or 3D of no registered skeleton."""
    _check_pose("pred", pred, channels=(2, 3))
    if pred.shape[-2] <= last:
        raise ArgumentError(f"pred has shape {list(pred.shape)}, expected at least {last + 1} joints.")
    pred = wide(pred.detach())
    weight = _weight(weight, pred)
    return torch.where((weight > 0)[..., None], pred, 0.0), weight


def check_body(pred: Tensor, skeleton: str) -> Skeleton:
    """The skeleton called so; raises if `pred` is no pose of as many joints."""
    _check_pose("pred", pred)
    body = get(skeleton)
    if pred.shape[-2] != body.num_joints:
        raise ArgumentError(
            f"pred has shape {list(pred.shape)}, expected {body.num_joints} joints, those of skeleton {skeleton!r}."
        )
    return body


def _weight(weight: Tensor | None, pred: Tensor) -> Tensor:
    shape = pred.shape[:-1]
    if weight is None:
        return pred.new_ones(()).expand(shape)
    check_tensor("weight", weight, "a real tensor")
    if weight.is_complex():
        raise DtypeError(f"weight has dtype {weight.dtype}, expected a real one.")
    check_same_device("weight", weight, "pred", pred)
    found = wide(weight.detach())
    try:
        found = found.expand(shape)
    except RuntimeError:
        raise ArgumentError(
            f"weight has shape {list(weight.shape)}, expected {list(shape)}, the shape of pred without xyz, or one "
            "that expands to it."
        ) from None
    if not bool(((weight >= 0) & (weight < float("inf"))).all()):
        bad = found[~((found >= 0) & (found < float("inf")))][0]
        raise ArgumentError(f"weight has the value {float(bad):g}, expected finite values >= 0.")
    return found


def product_of(weight: Tensor, joints: Sequence[Sequence[int]]) -> Tensor:
    """Product of the weights of some joints, as many of each part: [..., J] -> [..., parts]."""
    return functools.reduce(operator.mul, (weight[..., list(column)] for column in zip(*joints, strict=True)))


def weighted(value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted values and their weights; not simply the product, since NaN times a weight of 0 is NaN."""
    return torch.where(weight > 0, weight * value, 0.0), weight


def reduce(total: Tensor, count: Tensor, reduction: str) -> Tensor:
    """Weighted mean from weighted values and weights, both `[..., parts]`.

    "mean" is over everything, "none" over each row's parts, any other reduction over each part's rows; "sum" is that of
    the weighted values. 0/0 is NaN: nothing was scored.
    """
    if reduction == "mean":
        return total.sum() / count.sum()
    if reduction == "sum":
        return total.sum()
    if reduction == "none":
        return total.sum(-1) / count.sum(-1)
    rows = tuple(range(total.dim() - 1))
    return total.sum(rows) / count.sum(rows) if rows else total / count  # sum(()) would sum over all dimensions
