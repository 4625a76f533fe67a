"""How true poses are corrupted: the arithmetic behind :mod:`structloss.learned.negatives`.

Every function takes poses `[..., J, 3]` in metres that are relative to their pelvis, the skeleton, a size and the
draws, and returns new poses; the caller moves them back to the pelvis. At size 0 nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ArgumentError
from ..skeletons import Bone, Skeleton

WINDOW = 9  # frames change places within windows of this many


@dataclass(frozen=True)
class Draws:
    """Random numbers of shape `[*shape, ...]`, alike for every dtype and, from one generator, for every device.

    Attributes:
        shape: leading shape of the poses, with 1 for frames that share a draw; without frames for what moves them.
        shared_frames: whether the frames of a clip share what is drawn.
        device, dtype: the poses'.
        generator: None is torch's global one.
    """

    shape: tuple[int, ...]
    shared_frames: bool
    device: torch.device
    dtype: torch.dtype
    generator: torch.Generator | None

    @property
    def _where(self) -> torch.device:
        return self.device if self.generator is None else self.generator.device

    def uniform(self, *size: int) -> Tensor:
        """Numbers from 0 to 1."""
        drawn = torch.rand(*self.shape, *size, generator=self.generator, device=self._where, dtype=torch.float32)
        return drawn.to(self.device, self.dtype)

    def normal(self, *size: int) -> Tensor:
        """Numbers of mean 0 and variance 1."""
        drawn = torch.randn(*self.shape, *size, generator=self.generator, device=self._where, dtype=torch.float32)
        return drawn.to(self.device, self.dtype)

    def whole(self, low: int, high: int, *size: int) -> Tensor:
        """Whole numbers from `low` to `high`, both included."""
        shape = (*self.shape, *size)
        return torch.randint(low, high + 1, shape, generator=self.generator, device=self._where).to(self.device)

    def one(self, low: int, high: int) -> Tensor:
        """One whole number from `low` to `high` for all poses."""
        return torch.randint(low, high + 1, (), generator=self.generator, device=self._where).to(self.device)

    def order(self, count: int) -> Tensor:
        """Permutations of 0 to count - 1, `[*shape, count]`."""
        return self.uniform(count).argsort(-1)


def limb_bones(skeleton: Skeleton) -> tuple[Bone, ...]:
    """The bones that are edges of the tree, so that what hangs on them can move along."""
    return tuple((child, parent) for child, parent in skeleton.bones if skeleton.parents[child] == parent)


def _reassemble(pose: Tensor, skeleton: Skeleton, change: Tensor, bones: Sequence[Bone]) -> Tensor:
    """The pose with `change` `[..., bones, 3]` added to the bones' vectors; every subtree moves with its bone."""
    moved = [torch.zeros_like(pose[..., 0, :])] * skeleton.num_joints
    at = {child: i for i, (child, _) in enumerate(bones)}
    for joint in skeleton.order[1:]:
        carried = moved[skeleton.parents[joint]]
        moved[joint] = carried + change[..., at[joint], :] if joint in at else carried
    return pose + torch.stack(moved, dim=-2)


def _vectors(pose: Tensor, bones: Sequence[Bone]) -> Tensor:
    return pose[..., [child for child, _ in bones], :] - pose[..., [parent for _, parent in bones], :]


def _toward(pose: Tensor, other: Tensor, share: float) -> Tensor:
    return other if share == 1 else pose + share * (other - pose)


def _rearranged(pose: Tensor, source: Tensor, dim: int) -> Tensor:
    """Entry i along `dim` (-2 joints, -3 frames) is the pose's entry `source[..., i]`."""
    behind = (None,) * (-1 - dim)
    place: tuple[Any, ...] = (..., *behind)
    return torch.take_along_dim(pose, source[place], dim=dim)


def _cycles(order: Tensor, following: Tensor) -> Tensor:
    """The permutation that puts element `order[following[p]]` in the place of element `order[p]`."""
    return torch.empty_like(order).scatter_(-1, order, order.gather(-1, following.expand_as(order)))


def noise(pose: Tensor, skeleton: Skeleton, size: float, draws: Draws) -> Tensor:
    return pose + size / 1000 * draws.normal(skeleton.num_joints, 3)


def bone_rotation(pose: Tensor, skeleton: Skeleton, size: float, draws: Draws) -> Tensor:
    bones = limb_bones(skeleton)
    vector = _vectors(pose, bones)
    # Frames that share an axis take one perpendicular to the bone in the middle of the clip. It stays while the bone
    # moves: perpendicular to each frame's own bone, it would jump where the bone passes along the drawn vector.
    middle = pose.shape[-3] // 2 if draws.shared_frames else 0
    drawn = draws.normal(len(bones), 3)
    axis = torch.linalg.cross(vector[..., middle : middle + 1, :, :] if draws.shared_frames else vector, drawn)
    # Any axis will do for a bone of no length.
    axis = F.normalize(torch.where(axis.any(-1, keepdim=True), axis, drawn), dim=-1)
    chosen = draws.order(len(bones)) < draws.whole(1, len(bones), 1)
    angle = math.radians(size) * (0.2 + 0.8 * draws.uniform(len(bones))) * chosen
    half = (angle / 2).sin()[..., None]  # 1 - cos = 2 sin^2(half) keeps its digits at small angles
    along = (vector * axis).sum(-1, keepdim=True) * axis
    turned = torch.linalg.cross(axis.expand_as(vector), vector)
    change = angle.sin()[..., None] * turned - 2 * half.square() * (vector - along)
    return _reassemble(pose, skeleton, change, bones)


def bone_scaling(pose: Tensor, skeleton: Skeleton, size: float, draws: Draws) -> Tensor:
    bones = limb_bones(skeleton)
    limbs = [[(hinge.e, hinge.s), (hinge.w, hinge.e)] for hinge in skeleton.hinges]
    parts = torch.tensor([[bone in part for bone in bones] for part in (*limbs, bones)], device=pose.device)
    sign = 2 * draws.whole(0, 1, 1) - 1
    relative = size * (0.5 + 0.5 * draws.uniform(1)) * sign
    chosen = parts[draws.whole(0, len(limbs))]
    return _reassemble(pose, skeleton, (chosen * relative)[..., None] * _vectors(pose, bones), bones)


def swaps(skeleton: Skeleton) -> list[list[int]]:
    """Permutations of the joints: both arms exchanged with hands, both legs with feet, and all of the two sides."""

    def exchanged(joints: set[int]) -> list[int]:
        return [skeleton.mirror[j] if j in joints else j for j in range(skeleton.num_joints)]

    right_arm, left_arm, right_leg, left_leg = (
        {hinge.s, hinge.e, *_subtree(skeleton, hinge.w)} for hinge in skeleton.hinges
    )
    return [exchanged(left_arm | right_arm), exchanged(left_leg | right_leg), list(skeleton.mirror)]


def _subtree(skeleton: Skeleton, top: int) -> set[int]:
    found = {top}
    for joint in skeleton.order:
        if skeleton.parents[joint] in found:
            found.add(joint)
    return found


def limb_swap(pose: Tensor, skeleton: Skeleton, size: float, draws: Draws) -> Tensor:
    kinds = torch.tensor(swaps(skeleton), device=pose.device)
    return _toward(pose, _rearranged(pose, kinds[draws.whole(0, len(kinds) - 1)], -2), size)


def mirrored_depth(pose: Tensor, skeleton: Skeleton, size: float, draws: Draws) -> Tensor:
    return pose * pose.new_tensor([1.0, 1.0, 1.0 - 2 * size])


def joint_shuffle(pose: Tensor, skeleton: Skeleton, size: float, draws: Draws) -> Tensor:
    joints = torch.tensor([j for j in range(skeleton.num_joints) if j not in skeleton.pelvis], device=pose.device)
    count = len(joints)
    order = draws.order(count)
    taken = draws.whole(2, max(4, skeleton.num_joints // 4), 1)
    place = torch.arange(count, device=pose.device)
    source = _cycles(order, torch.where(place < taken, (place + 1) % taken, place))
    every = torch.arange(skeleton.num_joints, device=pose.device).repeat(*draws.shape, 1)
    every[..., joints] = joints[source]
    return _toward(pose, _rearranged(pose, every, -2), size)


def other_pose(pose: Tensor, skeleton: Skeleton, size: float, draws: Draws) -> Tensor:
    lead = pose.shape[:-3] if draws.shared_frames else pose.shape[:-2]
    count = math.prod(lead)
    if count == 1:
        kind = "clips" if draws.shared_frames else "poses"
        raise ArgumentError(f"pose has shape {list(pose.shape)}, expected at least two {kind} to exchange.")
    if count == 0:
        return pose
    # The shift stays a tensor: as a number it would have to be waited for on a GPU.
    source = (torch.arange(count, device=pose.device) + draws.one(1, count - 1)) % count
    other = pose.reshape(count, *pose.shape[len(lead) :]).index_select(0, source).reshape(pose.shape)
    return _toward(pose, other, size)


def shuffled_frames(pose: Tensor, skeleton: Skeleton, size: float, draws: Draws) -> Tensor:
    frames = pose.shape[-3]
    if size == 0:
        return pose
    place = torch.arange(frames, device=pose.device)
    window = place // WINDOW
    # Sorted by window, at random within; double precision, in which no sum rounds up to the next window.
    order = (window + draws.uniform(frames).double()).argsort(-1)
    long = (frames - WINDOW * window).clamp(max=WINDOW)
    # One frame alone can't move.
    moved = torch.where(long > 1, (size * long).round().clamp(min=2).long(), 0)
    rank = place - WINDOW * window
    following = torch.where(rank < moved, WINDOW * window + (rank + 1) % moved.clamp(min=1), place)
    return _rearranged(pose, _cycles(order, following), -3)
