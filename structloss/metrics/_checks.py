"""Shape, dtype and weight checks that the metrics share. All metrics are evaluated in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ArgumentError, DtypeError, check_choice

REDUCTIONS = ("mean", "none")


def check_reduction(reduction: str) -> None:
    check_choice("reduction", reduction, REDUCTIONS)


def check_root(root: int | None) -> None:
    if root is not None and (isinstance(root, bool) or not isinstance(root, int) or root < 0):
        raise ArgumentError(f"root is {root!r}, expected None or the index of a joint (0 or more).")


def _check_pose(name: str, pose: Tensor) -> None:
    if not isinstance(pose, Tensor):
        raise ArgumentError(f"{name} is a {type(pose).__name__}, expected a torch tensor.")
    if not pose.is_floating_point():
        raise DtypeError(f"{name} has dtype {pose.dtype}, expected a floating-point tensor.")
    if pose.ndim < 3 or pose.shape[-1] != 3:
        raise ArgumentError(f"{name} has shape {tuple(pose.shape)}, expected [..., T, J, 3].")


def prepare(
    pred: Tensor, target: Tensor, weight: Tensor | None, root: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Check the arguments; return pred and target [..., T, J, 3] and the weight [..., T, J], all float64.

    Entries of weight zero come back as zeros in pred and target, whatever they were (NaN included). With `root`, poses
    are relative to that joint, and a frame whose root has weight zero loses all its weight: there is nothing to measure
    from.
    """
    _check_pose("pred", pred)
    _check_pose("target", target)
    if pred.shape != target.shape:
        raise ArgumentError(f"target has shape {tuple(target.shape)}, expected that of pred, {tuple(pred.shape)}.")
    if pred.device != target.device:
        raise ArgumentError(f"target is on {target.device}, expected the device of pred, {pred.device}.")
    check_root(root)
    if root is not None and root >= pred.shape[-2]:
        raise ArgumentError(f"root is {root}, expected a joint below {pred.shape[-2]}.")

    pred, target = pred.detach().double(), target.detach().double()
    weight = _weight(weight, pred)
    if root is not None:
        weight = torch.where(weight[..., root : root + 1] > 0, weight, 0.0)
        pred = pred - pred[..., root : root + 1, :]
        target = target - target[..., root : root + 1, :]
    scored = (weight > 0)[..., None]
    return torch.where(scored, pred, 0.0), torch.where(scored, target, 0.0), weight


def _weight(weight: Tensor | None, pred: Tensor) -> Tensor:
    shape = pred.shape[:-1]
    if weight is None:
        return pred.new_ones(()).expand(shape)
    if not isinstance(weight, Tensor):
        raise ArgumentError(f"weight is a {type(weight).__name__}, expected a torch tensor.")
    if weight.is_complex():
        raise DtypeError(f"weight has dtype {weight.dtype}, expected a real or boolean tensor.")
    if weight.device != pred.device:
        raise ArgumentError(f"weight is on {weight.device}, expected the device of pred, {pred.device}.")
    try:
        wide = weight.detach().double().expand(shape)
    except RuntimeError:
        raise ArgumentError(
            f"weight has shape {tuple(weight.shape)}, expected [..., T, J] = {tuple(shape)} or one that expands to it."
        ) from None
    if not bool(((weight >= 0) & (weight < float("inf"))).all()):
        raise ArgumentError("weight has a negative, infinite or NaN entry, expected finite values of 0 or more.")
    return wide


def reduce(total: Tensor, count: Tensor, reduction: str) -> Tensor:
    """Weighted mean from sums: over everything ("mean"), or one for each entry ("none"). 0/0 is NaN: nothing scored."""
    if reduction == "mean":
        total, count = total.sum(), count.sum()
    return total / count
