"""The 16 joints of SAP-Net: to and from Human3.6M's 17, mirrored, and the depths that the network is trained on.

The order is that of MPII (`structloss.skeletons.get("mpii")`), except that joint 7 is no joint of its own: in
training it is the middle of the shoulders, which is what MPII annotates there, and in a decoded pose the middle between
pelvis and neck, Human3.6M's spine. Source: Zhou, Huang, Sun, Xue, Wei, ICCV 2017 (pytorch-pose-hg-3d).

All functions take torch tensors, whose gradients flow, or numpy arrays, with any leading axes.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .. import skeletons
from ..errors import ArgumentError, DtypeError, shown

__all__ = [
    "CANONICAL_BONES",
    "CANONICAL_LENGTH",
    "HEAD",
    "MIRROR",
    "NECK",
    "PELVIS",
    "SCORED_H36M",
    "SPINE",
    "bone_lengths",
    "depth_millimetres",
    "depth_scale",
    "depth_target",
    "flip_joints",
    "from_h36m",
    "from_image_units",
    "shoulders_middle",
    "spine_middle",
    "to_h36m",
    "to_image_units",
]

Array = TypeVar("Array", Tensor, np.ndarray)

_MPII = skeletons.get("mpii")
PELVIS, SPINE, NECK, HEAD = 6, 7, 8, 9
_SHOULDERS = (12, 13)

MIRROR = _MPII.mirror
"""Joint of the other side, for each joint."""

SCORED_H36M = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16)
"""Joints of Human3.6M that SAP-Net predicts: all but neck/nose."""

CANONICAL_BONES = (
    *((0, 1), (1, 2), (2, PELVIS), (3, PELVIS), (4, 3), (5, 4)),
    *((10, 11), (11, 12), (12, NECK), (13, NECK), (14, 13), (15, 14)),
    *((NECK, PELVIS), (HEAD, NECK)),
)
"""The 14 bones (child, parent) of the joints without joint 7, whose lengths a decoded pose is scaled by."""

CANONICAL_LENGTH = 4296.99
"""Sum of the 14 bones' lengths in millimetres, mean over the training subjects of Human3.6M (Zhou et al.)."""


def _check(argument: str, value: Any, channels: tuple[int, ...], joints: int = 16) -> None:
    if not isinstance(value, Tensor | np.ndarray):
        raise DtypeError(f"{argument} is {shown(value)}, expected a torch tensor or a numpy array.")
    if value.ndim < 2 or value.shape[-2] != joints or value.shape[-1] not in channels:
        wanted = " or ".join(map(str, channels))
        raise ArgumentError(f"{argument} has shape {list(value.shape)}, expected [..., {joints}, {wanted}].")


def from_h36m(pose: Array) -> Array:
    """SAP-Net's 16 joints of Human3.6M's 17: joint 7 is the middle of the shoulders, joint 8 the thorax.

    Args:
        pose: `[..., 17, 2 or 3]`, any unit.

    Returns:
        `[..., 16, 2 or 3]`.

    Raises:
        ArgumentError: another shape.
        DtypeError: no tensor or array.
    """
    _check("pose", pose, (2, 3), 17)
    return shoulders_middle(skeletons.convert(pose, "h36m", "mpii", variant="zhou"))


def to_h36m(pose: Array) -> Array:
    """Human3.6M's 17 joints of SAP-Net's 16.

    The spine (7) is the middle of pelvis and neck, as in decoded poses, whatever joint 7 was. Neck/nose (9) is none of
    SAP-Net's: the middle of neck and head here, which keeps the tree whole [ours]; score the joints of
    :data:`SCORED_H36M`.

    Args:
        pose: `[..., 16, 2 or 3]`, any unit.

    Returns:
        `[..., 17, 2 or 3]`.

    Raises:
        ArgumentError: another shape.
        DtypeError: no tensor or array.
    """
    _check("pose", pose, (2, 3))
    legs = pose[..., [PELVIS, 2, 1, 0, 3, 4, 5], :]
    arms = pose[..., [HEAD, 13, 14, 15, 12, 11, 10], :]
    neck = pose[..., NECK : NECK + 1, :]
    return _join([legs, _middle(pose, PELVIS, NECK), neck, _middle(pose, NECK, HEAD), arms], -2)


def shoulders_middle(pose: Array) -> Array:
    """The same joints `[..., 16, C]`, joint 7 replaced by the middle of the shoulders, which SAP-Net is trained on."""
    return _with_joint_7(pose, _middle(pose, *_SHOULDERS))


def spine_middle(pose: Array) -> Array:
    """The same joints `[..., 16, C]`, joint 7 replaced by the middle of pelvis and neck, which decoded poses have."""
    return _with_joint_7(pose, _middle(pose, PELVIS, NECK))


def _with_joint_7(pose: Array, joint: Array) -> Array:
    return _join([pose[..., :SPINE, :], joint, pose[..., SPINE + 1 :, :]], -2)


def flip_joints(joints: Array, input_size: int) -> Array:
    """Joints in a mirrored image: x becomes S - 1 - x, left and right are exchanged. Twice is the identity.

    Values per joint go along by `[..., MIRROR]`; poses in space are mirrored by `structloss.skeletons.flip`.

    Args:
        joints: `[..., 16, 2]`, pixels; the centre of the first pixel is (0, 0).
        input_size: width S of the image, pixels.

    Raises:
        ArgumentError: another shape.
        DtypeError: no tensor or array.
    """
    _check("joints", joints, (2,))
    swapped = joints[..., list(MIRROR), :]
    return _join([input_size - 1 - swapped[..., :1], swapped[..., 1:]], -1)


def to_image_units(pixels: Array, input_size: int) -> Array:
    """Pixels of an image of S x S to [-1, 1], its borders: 2 (x + 1/2) / S - 1; any shape."""
    return (2 * pixels + 1) / input_size - 1


def from_image_units(values: Array, input_size: int) -> Array:
    """[-1, 1], the borders of an image of S x S, to its pixels: the inverse of :func:`to_image_units`."""
    return ((values + 1) * input_size - 1) / 2


def bone_lengths(pose: Array) -> Array:
    """Lengths `[..., 14]` of :data:`CANONICAL_BONES` in a pose `[..., 16, C]`; the gradient at length 0 is 0."""
    child, parent = ([bone[end] for bone in CANONICAL_BONES] for end in (0, 1))
    vectors = pose[..., child, :] - pose[..., parent, :]
    if isinstance(vectors, Tensor):
        return torch.linalg.vector_norm(vectors, dim=-1)
    return np.linalg.norm(vectors, axis=-1)


def depth_scale(joints: Array, pose: Array, input_size: int, annotated: Array | None = None) -> Array:
    """Image units of depth that a millimetre is: under weak perspective, those that it is in x and y.

    The sum of the 14 bones' lengths in the image, divided by the sum of their lengths in x and y in space (Zhou et al.,
    ICCV 2017), times 2 / S.

    Args:
        joints: `[..., 16, 2]`, pixels of the network's input.
        pose: `[..., 16, 3]`, millimetres, camera frame.
        input_size: S, pixels.
        annotated: `[..., 16]`, bones between two of these joints count; None is all.

    Returns:
        `[...]`; 0 where no bone has a length in x and y, as in the pose 0 of a sample without 3D.

    Raises:
        ArgumentError: another shape.
        DtypeError: no tensor or array.
    """
    _check("joints", joints, (2,))
    _check("pose", pose, (3,))
    image, space = bone_lengths(joints), bone_lengths(pose[..., :2])
    if annotated is not None:
        counted: Any = annotated != 0
        both = counted[..., [c for c, _ in CANONICAL_BONES]] & counted[..., [p for _, p in CANONICAL_BONES]]
        image, space = image * both, space * both
    return _ratio(2 / input_size * image.sum(-1), space.sum(-1))


def depth_target(joints: Array, pose: Array, input_size: int, annotated: Array | None = None) -> Array:
    """What the network's depth is trained on: depth relative to the pelvis, in the unit of x and y mapped to [-1, 1].

    Source: Zhou et al., ICCV 2017, relative to the pelvis as in Dabral et al., ECCV 2018.

    Args: see :func:`depth_scale`, whose factor it takes.

    Returns:
        `[..., 16]`, away from the camera; the pelvis is 0.

    Raises:
        ArgumentError: another shape.
        DtypeError: no tensor or array.
    """
    scale = depth_scale(joints, pose, input_size, annotated)
    z = pose[..., 2]
    return (z - z[..., PELVIS : PELVIS + 1]) * scale[..., None]


def depth_millimetres(depth: Array, scale: Array) -> Array:
    """The inverse of :func:`depth_target`: depths `[..., 16]` in image units to millimetres by a factor `[...]` of
    :func:`depth_scale`; 0 where the factor is."""
    return _ratio(depth, scale[..., None])


def _middle(pose: Array, a: int, b: int) -> Array:
    return (pose[..., a : a + 1, :] + pose[..., b : b + 1, :]) / 2


def _join(parts: Any, axis: int) -> Any:
    return torch.cat(parts, axis) if isinstance(parts[0], Tensor) else np.concatenate(parts, axis)


def _ratio(value: Any, by: Any) -> Any:
    """value / by, and 0 where `by` is."""
    xp: Any = torch if isinstance(value, Tensor) else np
    zero = by == 0
    one = xp.ones_like(by)
    return xp.where(zero, 0 * value, value / xp.where(zero, one, by))
