"""Mirroring: the one augmentation of the published lifting recipes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError
from ..skeletons import Skeleton, flip

__all__ = ["chance", "flip", "flip_batch"]


def chance(seed: int, epoch: int, index: Tensor) -> Tensor:
    """A number from 0 to 1 for each sample of an epoch, float64 of the shape of `index` (int64, >= 0).

    It depends on seed, epoch and the sample alone: not on the batch, the process or the run that the sample is in, so
    a resumed run, or one on more processes, draws the same. (Steele et al., OOPSLA 2014: the mixer of SplitMix64.)
    """
    start = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        z = start + (index.cpu().numpy().astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return torch.from_numpy((z >> np.uint64(11)) * 2.0**-53)


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
