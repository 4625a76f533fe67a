"""A person's bone lengths, and poses that are given them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .. import skeletons
from ..errors import ArgumentError, DtypeError
from ..skeletons import Skeleton

if TYPE_CHECKING:
    import torch

__all__ = ["bone_lengths", "fit_skeleton"]

Pose = TypeVar("Pose", "torch.Tensor", np.ndarray)

_DOWN = (0.0, 1.0, 0.0)  # in a camera's frame


def bone_lengths(poses: Pose, skeleton: str = "h36m", *, symmetric: bool = True) -> Pose:
    """A person's bone lengths: the median over the frames of a clip, which a few wild frames don't move.

    Args:
        poses: torch tensor or numpy array `[..., T, J, 3]`, floating point, any unit.
        skeleton: name of the skeleton, J joints, with a pelvis (not "coco" or "h3wb", whose trees hang on the nose by
            links that are no bones).
        symmetric: give mirrored bones the mean of both sides' lengths.

    Returns:
        `[..., bones]`, in the order of `tree_bones` (by their lower ends: that of joint 1 first in Human3.6M's order),
        of the same type, dtype and unit.

    Raises:
        ArgumentError: another shape, no frames, or a skeleton without a pelvis.
        DtypeError: neither a tensor nor an array, or not of floating point.
        UnknownNameError: an unknown skeleton.

    >>> import numpy as np
    >>> from structloss.refine import bone_lengths
    >>> poses = np.zeros((3, 17, 3))
    >>> poses[:, 3, 1] = [440, 450, 900]  # the right shin, and a frame that is wrong; the left one has no length
    >>> bone_lengths(poses)[[2, 5]].tolist(), bone_lengths(poses, symmetric=False)[[2, 5]].tolist()
    ([225.0, 225.0], [450.0, 0.0])
    """
    body = _body(skeleton)
    _check_poses(poses, body, frames=True)
    child, parent = ([bone[end] for bone in body.tree_bones] for end in (0, 1))
    lengths = _norm(poses[..., child, :] - poses[..., parent, :])
    frames = lengths.shape[-2]
    middle = [(frames - 1) // 2, frames // 2]  # the same one twice, if there is one
    if isinstance(lengths, np.ndarray):
        found = np.sort(lengths, axis=-2)[..., middle, :].mean(-2)
    else:
        found = lengths.sort(dim=-2).values[..., middle, :].mean(-2)
    if not symmetric:
        return found
    other = _other_side(body)
    return (found + found[..., other]) / 2


def fit_skeleton(poses: Pose, lengths: Pose, skeleton: str = "h36m") -> Pose:
    """Poses with given bone lengths: from the root outwards every bone keeps its direction and gets its length.

    p'_child = p'_parent + L (p_child - p_parent) / |p_child - p_parent|; the root stays where it is. Poses that have
    these lengths already stay as they are, but for rounding. Source: Dabral et al., ECCV 2018. A bone of no length has
    no direction: it takes that of the bone above it, and y, which is down in a camera's frame, where there is none
    (ours).

    Args:
        poses: torch tensor or numpy array `[..., J, 3]`, floating point, any unit. Gradients flow to tensors.
        lengths: `[..., bones]`, of the same type and unit, whose leading dimensions broadcast with those of the poses:
            `[bones]` for one person; for clips `[B, T, J, 3]` of B people `[B, 1, bones]`. In the order of
            :func:`bone_lengths`, >= 0.
        skeleton: name of the skeleton, as for :func:`bone_lengths`.

    Returns:
        `[..., J, 3]`, of the poses' type and dtype.

    Raises:
        ArgumentError: another shape, a length that is negative or not finite, or a skeleton without a pelvis.
        DtypeError: neither tensors nor arrays, or not of floating point.
        UnknownNameError: an unknown skeleton.

    >>> import numpy as np
    >>> from structloss.refine import fit_skeleton
    >>> pose = np.zeros((17, 3))
    >>> pose[1], pose[2], pose[3] = (-100, 0, 0), (-100, 300, 0), (-100, 300, 300)  # a leg
    >>> fit_skeleton(pose, np.full(16, 400.0))[:4].tolist()
    [[0.0, 0.0, 0.0], [-400.0, 0.0, 0.0], [-400.0, 400.0, 0.0], [-400.0, 400.0, 400.0]]
    """
    body = _body(skeleton)
    _check_poses(poses, body)
    _check_lengths(lengths, poses, body)
    number = {child: bone for bone, (child, _) in enumerate(body.tree_bones)}
    place: dict[int, Pose] = {body.root: poses[..., body.root, :]}
    direction: dict[int, Pose] = {}
    for child in body.order[1:]:
        parent = body.parents[child]
        bone = poses[..., child, :] - poses[..., parent, :]
        direction[child] = _unit(bone, direction.get(parent))
        place[child] = place[parent] + direction[child] * lengths[..., number[child], None]
    shape = (*np.broadcast_shapes(_leading(poses, 2), _leading(lengths, 1)), 3)
    return _stacked([place[joint] for joint in range(body.num_joints)], shape, poses)


def _stacked(joints: list[Any], shape: tuple[int, ...], like: Any) -> Any:
    """Joints, each of a shape that broadcasts to `shape`, as poses of the dtype of others."""
    if isinstance(like, np.ndarray):
        return np.stack([np.broadcast_to(joint, shape) for joint in joints], axis=-2).astype(like.dtype, copy=False)
    import torch

    return torch.stack([joint.expand(shape) for joint in joints], dim=-2).to(like.dtype)


def _unit(bone: Pose, above: Pose | None) -> Pose:
    """The direction of a bone `[..., 3]`; where it has no length, that of the bone above it."""
    length = _norm(bone)[..., None]
    if isinstance(bone, np.ndarray):
        # Below this, squares of the coordinates are rounded to 0.
        none = length <= np.sqrt(np.finfo(bone.dtype).tiny)
        instead = np.broadcast_to(np.array(_DOWN, bone.dtype) if above is None else above, bone.shape)
        return np.where(none, instead, bone / np.where(none, 1, length))
    import torch

    none = length <= torch.finfo(bone.dtype).tiny ** 0.5
    # The norm's gradient at 0 is NaN even where its value is not taken: it must not see such a bone.
    safe = torch.where(none, torch.ones_like(bone), bone)
    instead = bone.new_tensor(_DOWN) if above is None else above
    return torch.where(none, instead, safe / torch.linalg.vector_norm(safe, dim=-1, keepdim=True))


def _norm(vectors: Pose) -> Pose:
    if isinstance(vectors, np.ndarray):
        return np.linalg.norm(vectors, axis=-1)
    import torch

    return torch.linalg.vector_norm(vectors, dim=-1)


def _other_side(body: Skeleton) -> list[int]:
    """Of each bone in `tree_bones`, the one on the other side; itself in the middle."""
    number = {bone: place for place, bone in enumerate(body.tree_bones)}
    other = list(range(len(number)))
    for left, right in body.symmetric_bones:
        if left in number and right in number:
            other[number[left]], other[number[right]] = number[right], number[left]
    return other


def _body(skeleton: str) -> Skeleton:
    body = skeletons.get(skeleton)
    if body.anatomical_bones:
        fit = ", ".join(repr(name) for name in skeletons.names() if not skeletons.get(name).anatomical_bones)
        raise ArgumentError(f"skeleton is {skeleton!r}, whose tree has links that are no bones, expected one of {fit}.")
    return body


def _leading(values: Any, last: int) -> tuple[int, ...]:
    return tuple(values.shape[: values.ndim - last])


def _is_floating(values: torch.Tensor | np.ndarray) -> bool:
    return values.dtype.kind == "f" if isinstance(values, np.ndarray) else values.is_floating_point()


def _check_poses(poses: torch.Tensor | np.ndarray, body: Skeleton, frames: bool = False) -> None:
    _check_floating("poses", poses)
    wanted = 3 if frames else 2
    if poses.ndim < wanted or tuple(poses.shape[-2:]) != (body.num_joints, 3) or (frames and poses.shape[-3] < 1):
        raise ArgumentError(
            f"poses has shape {list(poses.shape)}, expected [..., {'T, ' if frames else ''}{body.num_joints}, 3] for "
            f"skeleton {body.name!r}."
        )


def _check_floating(argument: str, values: object) -> None:
    import torch

    if not isinstance(values, (np.ndarray, torch.Tensor)):
        raise DtypeError(f"{argument} is a {type(values).__name__}, expected a torch tensor or a numpy array.")
    if not _is_floating(values):
        raise DtypeError(f"{argument} has dtype {values.dtype}, expected floating point.")


def _check_lengths(lengths: torch.Tensor | np.ndarray, poses: torch.Tensor | np.ndarray, body: Skeleton) -> None:
    _check_floating("lengths", lengths)
    if isinstance(lengths, np.ndarray) != isinstance(poses, np.ndarray):
        raise DtypeError(
            f"lengths is a {type(lengths).__name__} and poses a {type(poses).__name__}, expected both of one kind."
        )
    bones = len(body.tree_bones)
    try:
        fits = lengths.ndim > 0 and lengths.shape[-1] == bones
        np.broadcast_shapes(_leading(lengths, 1), _leading(poses, 2))
    except ValueError:
        fits = False
    if not fits:
        raise ArgumentError(
            f"lengths has shape {list(lengths.shape)}, expected [{bones}] or [..., {bones}] that goes with poses of "
            f"shape {list(poses.shape)}."
        )
    numbers = lengths if isinstance(lengths, np.ndarray) else lengths.detach().cpu().numpy()
    if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
        raise ArgumentError(
            f"lengths has values from {numbers.min():g} to {numbers.max():g}, expected finite ones of 0 or more."
        )
