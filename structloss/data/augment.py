"""Mirroring: the one augmentation of the published lifting recipes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..skeletons import Skeleton

__all__ = ["flip", "flip_batch"]


def flip(pose: Tensor, skeleton: Skeleton) -> Tensor:
    """Mirror poses: x -> -x, left and right joints exchanged. Twice is the identity.

    Args:
        pose: `[..., J, C]`; channel 0 is x, further channels (y, depth, confidence) move with their joint.
        skeleton: supplies the left and right joints.

    Returns:
        A new tensor of the same shape and dtype.

    Raises:
        ArgumentError: another number of joints, or no channel.
    """
    if pose.dim() < 2 or pose.shape[-2] != skeleton.num_joints or pose.shape[-1] < 1:
        raise ArgumentError(
            f"pose has shape {list(pose.shape)}, expected [..., {skeleton.num_joints}, C] for {skeleton.name!r}."
        )
    mirrored = pose[..., list(skeleton.mirror), :]  # indexing copies, so the next line leaves `pose` alone
    mirrored[..., 0].neg_()
    return mirrored


def flip_batch(batch: Mapping[str, Tensor], mask: Tensor, skeleton: Skeleton) -> dict[str, Tensor]:
    """Mirror `input`, `target` and `weight` of the samples where `mask` is true; everything else is passed on as it is.

    `camera_pose` and `intrinsics` keep describing the unmirrored scene, so scoring in millimetres
    (:func:`~structloss.data.image_space.to_millimetres`) is for batches that were not mirrored.

    Args:
        batch: a batch of :class:`~structloss.data.windows.PoseWindows`, batch dimension first; it is not changed.
        mask: bool `[B]`.

    Returns:
        A new dict; `input`, `target` and `weight` are new tensors.

    Raises:
        ArgumentError: a mask that is not a bool tensor of shape `[B]`.
    """
    size = batch["input"].shape[0]
    if mask.dtype != torch.bool or mask.shape != (size,):
        raise ArgumentError(f"mask is {mask.dtype} {list(mask.shape)}, expected torch.bool [{size}], one per sample.")
    flipped = dict(batch)
    mask = mask.to(batch["input"].device)
    for key in ("input", "target"):
        flipped[key] = torch.where(mask[:, None, None, None], flip(batch[key], skeleton), batch[key])
    weight = batch["weight"]
    flipped["weight"] = torch.where(mask[:, None, None], weight[..., list(skeleton.mirror)], weight)
    return flipped
