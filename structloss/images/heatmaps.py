"""Heatmaps of joints: the targets of training, its loss, and poses read from what a network predicts.

Source: Newell, Yang, Deng, ECCV 2016, and Zhou, Huang, Sun, Xue, Wei, ICCV 2017 (pytorch-pose-hg-3d).

Cell i of a heatmap covers the pixels i * s to (i + 1) * s - 1 of the input, s = S / size of the heatmap; the centre of
the first pixel is (0, 0). A joint at pixel x lies in the cell floor((x + 1/2) / s), and what is read from that cell is
its centre, a quarter of a cell on towards the larger neighbour.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import (
    ArgumentError,
    check_choice,
    check_floating,
    check_same_device,
    check_tensor,
    shown,
)
from .joints import CANONICAL_LENGTH, PELVIS, bone_lengths, spine_middle

__all__ = ["UNITS", "confidence", "decode", "heatmap_loss", "heatmap_targets"]

#: what :func:`decode` gives: image units, pixels of the input, millimetres by the canonical length of bones
UNITS = ("mm", "pixels", "image")


def heatmap_targets(
    joints: Tensor,
    annotated: Tensor | None = None,
    *,
    input_size: int,
    heatmap_size: int,
    sigma: float = 1.0,
) -> Tensor:
    """A Gaussian of height 1 in the cell of every joint, cut off 3 sigma away: 7 x 7 cells for sigma = 1.

    A joint that is not annotated, not finite or outside of the image has a map of zeros.

    Args:
        joints: `[..., J, 2]`, pixels (x, y) of the input.
        annotated: `[..., J]`, joints that are known; None is all.
        input_size: S, pixels.
        heatmap_size: height and width of the maps, cells.
        sigma: standard deviation, cells.

    Returns:
        `[..., J, heatmap_size, heatmap_size]`, rows are y.

    Raises:
        ArgumentError: a wrong shape, size or sigma.
        DtypeError: joints that are not floating point.
    """
    check_floating("joints", joints)
    if joints.dim() < 2 or joints.shape[-1] != 2:
        raise ArgumentError(f"joints has shape {list(joints.shape)}, expected [..., J, 2].")
    for argument, size in (("input_size", input_size), ("heatmap_size", heatmap_size)):
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ArgumentError(f"{argument} is {shown(size)}, expected a positive integer.")
    if not isinstance(sigma, int | float) or not 0 < sigma < math.inf:
        raise ArgumentError(f"sigma is {shown(sigma)}, expected a positive number of cells.")
    cells = ((joints.detach() + 0.5) * (heatmap_size / input_size)).floor()
    present = ((cells >= 0) & (cells < heatmap_size)).all(-1)  # false for NaN, too
    if annotated is not None:
        check_tensor("annotated", annotated)
        check_same_device("annotated", annotated, "joints", joints)
        if annotated.shape != present.shape:
            raise ArgumentError(
                f"annotated has shape {list(annotated.shape)}, expected {list(present.shape)}, one value per joint."
            )
        present = present & (annotated != 0)
    away = torch.arange(heatmap_size, device=joints.device, dtype=joints.dtype) - cells[..., None]  # [..., J, 2, size]
    along = torch.exp(away.square() / (-2 * sigma**2)) * (away.abs() <= math.ceil(3 * sigma))
    x, y = torch.where(present[..., None, None], along, 0).unbind(-2)
    return y[..., :, None] * x[..., None, :]


def heatmap_loss(heatmaps: Tensor, target: Tensor) -> Tensor:
    """L_HM: the mean squared error of every stack's heatmaps, summed over the stacks.

    Args:
        heatmaps: `[stacks, ..., J, H, W]`.
        target: `[..., J, H, W]`, the same for every stack.

    Returns:
        A scalar; 0 for a batch of no images.

    Raises:
        ArgumentError: a wrong shape or device.
        DtypeError: not floating point.
    """
    check_floating("heatmaps", heatmaps)
    check_floating("target", target)
    check_same_device("target", target, "heatmaps", heatmaps)
    if heatmaps.dim() < 4 or heatmaps.shape[1:] != target.shape:
        raise ArgumentError(
            f"target has shape {list(target.shape)}, expected {list(heatmaps.shape[1:])}, the shape of one stack's "
            "heatmaps."
        )
    return (heatmaps - target).square().sum() / max(target.numel(), 1)


def decode(
    heatmaps: Tensor,
    depth: Tensor,
    *,
    unit: str = "mm",
    input_size: int | None = None,
    root: Tensor | None = None,
    length: float = CANONICAL_LENGTH,
) -> Tensor:
    """Poses of heatmaps and depths.

    x and y are the highest cell's, a quarter of a cell on towards the larger of its neighbours on either axis, plus
    half a cell, its centre. On an axis where the cell is at the border or its neighbours are equal it stays [ours]; of
    several highest cells it is the first, row by row. z is the depth in the same unit. Millimetres are those of a
    person whose 14 bones are `length` long in sum, and joint 7 is then the middle of pelvis and neck (Zhou et al., ICCV
    2017, whose port takes the quarter along the wrong axes).

    A map that holds a NaN gives NaN. Gradients flow to `depth` alone. It works in the dtype of `depth`, or in float32
    where that is smaller.

    Args:
        heatmaps: `[..., J, H, H]`, or with the stacks before, `[stacks, ..., J, H, H]`, of which the last is read: both
            outputs of the network are taken as they come, `decode(*model(image))`.
        depth: `[..., J]`, image units relative to the root.
        unit: one of :data:`UNITS`: `"mm"`, which needs SAP-Net's 16 joints; `"pixels"` of the input; `"image"`, x and y
            from -1 to 1 at the image's borders.
        input_size: S for `"pixels"`; None is 4 H, as all networks here have it.
        root: `[..., 3]` or `[3]`, where the pelvis is, for `"mm"`; None is the origin.
        length: sum of the bones for `"mm"`, millimetres.

    Returns:
        `[..., J, 3]`. In `"mm"` a pose without extent, all joints in one place, is all at the root.

    Raises:
        ArgumentError: a wrong shape, device or choice.
        DtypeError: not floating point.
    """
    heatmaps, depth = _checked(heatmaps, depth)
    check_choice("unit", unit, UNITS)
    if root is not None and unit != "mm":
        raise ArgumentError(f"root is given with unit {unit!r}, expected it with 'mm' only.")
    cells, size = _highest(heatmaps).to(depth.dtype), heatmaps.shape[-1]
    if unit == "pixels":
        input_size = 4 * size if input_size is None else input_size
        return torch.cat([cells * (input_size / size) - 0.5, depth[..., None] * (input_size / 2)], -1)
    pose = torch.cat([2 / size * cells - 1, depth[..., None]], -1)
    if unit == "image":
        return pose
    if pose.shape[-2] != 16:
        raise ArgumentError(f"depth has {pose.shape[-2]} joints, expected SAP-Net's 16 for unit 'mm'.")
    whole = bone_lengths(pose).sum(-1)[..., None, None]
    pose = spine_middle(pose - pose[..., PELVIS : PELVIS + 1, :]) * (length / torch.where(whole == 0, 1, whole))
    if root is None:
        return pose
    check_floating("root", root)
    check_same_device("root", root, "depth", depth)
    if root.shape not in ((3,), (*depth.shape[:-1], 3)):
        raise ArgumentError(f"root has shape {list(root.shape)}, expected [3] or {[*depth.shape[:-1], 3]}.")
    return pose + root[..., None, :].to(pose.dtype)


def confidence(heatmaps: Tensor) -> Tensor:
    """How certain the network is of every joint: the highest value of its map, about 1 where it is certain; NaN where
    the map holds one.

    Args:
        heatmaps: `[..., J, H, W]`, of one stack: `output.heatmaps[-1]`.

    Returns:
        `[..., J]`.

    Raises:
        ArgumentError: a wrong shape.
        DtypeError: not floating point.
    """
    check_floating("heatmaps", heatmaps)
    if heatmaps.dim() < 3 or not heatmaps.shape[-2:].numel():
        raise ArgumentError(f"heatmaps has shape {list(heatmaps.shape)}, expected [..., J, H, W].")
    return heatmaps.amax((-2, -1))


def _checked(heatmaps: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """The last stack's heatmaps, and depths in a dtype to compute in."""
    check_floating("heatmaps", heatmaps)
    check_floating("depth", depth)
    check_same_device("depth", depth, "heatmaps", heatmaps)
    if depth.dim() and heatmaps.dim() == depth.dim() + 3 and heatmaps.shape[0]:
        heatmaps = heatmaps[-1]
    square = heatmaps.dim() > 1 and heatmaps.shape[-1] == heatmaps.shape[-2] > 0
    if not depth.dim() or heatmaps.shape[:-2] != depth.shape or not square:
        expected = ", ".join(map(str, (*depth.shape, "H", "H")))
        raise ArgumentError(
            f"heatmaps has shape {list(heatmaps.shape)}, expected [{expected}] for depth of shape {list(depth.shape)}, "
            "or the stacks before these."
        )
    return heatmaps.detach(), depth if depth.dtype == torch.float64 else depth.float()


def _highest(heatmaps: Tensor) -> Tensor:
    """Where every map is highest, `[..., 2]`, (x, y) in cells from its upper left corner."""
    rows, columns = heatmaps.shape[-2:]
    flat = heatmaps.flatten(-2)
    best = flat.argmax(-1)
    y, x = best // columns, best % columns
    found = []
    for at, last, step in ((x, columns - 1, 1), (y, rows - 1, columns)):
        # an index past a border is brought back to where the result, which is not used there, can be read
        after, before = ((best + by).clamp(0, rows * columns - 1) for by in (step, -step))
        after, before = (flat.gather(-1, index[..., None]).squeeze(-1) for index in (after, before))
        towards = (after > before).float() - (after < before).float()  # infinite ones have no difference
        found.append(at + 0.5 + 0.25 * towards * ((at > 0) & (at < last)))
    highest = flat.gather(-1, best[..., None])
    return torch.where(highest.isnan(), highest, torch.stack(found, -1))
