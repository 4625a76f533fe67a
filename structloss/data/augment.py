"""Mirroring: the one augmentation of the published lifting recipes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..skeletons import Skeleton, flip

__all__ = ["flip", "flip_batch"]


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
