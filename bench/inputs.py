"""Sizes of a measurement and the poses that are fed in: people who move smoothly, and predictions 5 cm off."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from structloss import skeletons
from structloss.skeletons import Skeleton

__all__ = ["Shape", "distinct", "make_input", "make_many", "skeleton_of"]

SKELETONS = {17: "h36m", 133: "h3wb"}
NOISE = 0.05  # metres, of a prediction
SWING = 0.25  # how far a bone's direction wanders, as a share of its length

# A standing person who faces the camera, metres: x right, y down, z forward, the pelvis at 0. Of the left side, and
# mirrored; elbows and knees bend the way they can.
REST = {"Hip": (0, 0, 0), "Spine": (0, -0.25, 0.02), "Thorax": (0, -0.5, 0.03), "nose": (0, -0.63, -0.1)}
REST |= {"Neck/Nose": (0, -0.61, -0.03), "Head": (0, -0.73, 0)}
ARM = ((0.18, -0.48, 0), (0.25, -0.21, 0.03), (0.26, -0.05, -0.16))
LEG = ((0.13, 0, 0), (0.14, 0.44, -0.08), (0.14, 0.86, 0.12))
SMALL_BONE = 0.03  # of fingers, toes and the face
JITTER = 0.005  # metres, between clips that repeat one another


class Shape(NamedTuple):
    """Sizes of a batch of clips [B, T, J, 3]."""

    batch: int
    frames: int
    joints: int

    @property
    def pairs(self) -> int:
        """Ordered pairs of frames and of joints: elements of the tensors that Algorithms 1 and 2 build."""
        return self.batch * self.frames * self.joints * (self.frames + self.joints)

    @property
    def elements(self) -> int:
        """Joints of all frames."""
        return self.batch * self.frames * self.joints

    def __str__(self) -> str:
        return f"B = {self.batch}, T = {self.frames}, J = {self.joints}"


def skeleton_of(joints: int) -> Skeleton | None:
    """The skeleton that clips with this many joints are of."""
    return skeletons.get(SKELETONS[joints]) if joints in SKELETONS else None


def _rest_pose(body: Skeleton, generator: torch.Generator) -> Tensor:
    """[J, 3]; joints that no table places lie a short bone away from their parent."""
    pose = torch.full((body.num_joints, 3), float("nan"), dtype=torch.float64)
    for j, name in enumerate(body.joint_names):
        if name in REST:
            pose[j] = torch.tensor(REST[name])
    for hinge in body.hinges:
        chain = torch.tensor(ARM if hinge.name.endswith("elbow") else LEG, dtype=torch.float64)
        chain[:, 0] *= 1 if hinge.name.startswith("left") else -1
        pose[list(hinge.joints[1:])] = chain
    for j in body.order:
        if pose[j].isnan().any():
            direction = torch.randn(3, generator=generator, dtype=torch.float64)
            pose[j] = pose[body.parents[j]] + SMALL_BONE * direction / direction.norm()
    return pose


def make_input(
    shape: Shape, dtype: torch.dtype, device: str = "cpu", ties: bool = False, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Predicted and true poses in metres, about 4 m from the camera.

    The truth has a skeleton's proportions, each person another size; every bone keeps its length while its direction
    wanders. Where no skeleton has this many joints, all hang on the root. With `ties`, both are rounded to 25 cm, so
    that many depths are equal.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    def smooth(tracks: int) -> Tensor:  # [B, T, tracks, 3], each element of variance 1
        raw = noise(shape.batch, tracks * 3, shape.frames + 28)
        for _ in range(2):
            raw = torch.nn.functional.avg_pool1d(raw, 15, stride=1)
        return 4.7 * raw.unflatten(1, (tracks, 3)).permute(0, 3, 1, 2)

    body = skeleton_of(shape.joints)
    if body is None:
        rest, parents, order = 0.3 * noise(shape.joints, 3), (-1,) + (0,) * (shape.joints - 1), range(shape.joints)
    else:
        rest, parents, order = _rest_pose(body, generator), body.parents, body.order
    size = 1 + 0.07 * noise(shape.batch, 1, 1, 1)
    bones = torch.stack([rest[j] - rest[p] if p >= 0 else rest[j] for j, p in enumerate(parents)])
    length = bones.norm(dim=-1, keepdim=True)
    moved = bones + SWING * length * smooth(shape.joints)
    bones = size * length * moved / moved.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    root = torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64) + 0.5 * smooth(1)[:, :, 0]
    placed: dict[int, Tensor] = {-1: root}
    for j in order:
        placed[j] = placed[parents[j]] + bones[:, :, j]
    target = torch.stack([placed[j] for j in range(shape.joints)], dim=2)
    pred = target + NOISE * noise(*target.shape)
    if ties:
        pred, target = (4 * pred).round() / 4, (4 * target).round() / 4
    return pred.to(device, dtype).contiguous(), target.to(device, dtype).contiguous()


def distinct(poses: Tensor) -> Tensor:
    """Poses whose depths differ, all from all: equal ones are moved to the next numbers that their dtype has.

    Depths that are rounded to float32 repeat by chance, a handful among the frames of a clip.
    """
    z = poses[..., 2].flatten()
    assert bool((z > 0).all()), "positive numbers are in the order of their bits"
    integer = torch.int32 if z.dtype == torch.float32 else torch.int64
    bits, order = z.view(integer).to(torch.int64).sort(stable=True)
    place = torch.arange(len(z), device=z.device)
    bits = (bits - place).cummax(0).values + place  # the least numbers that rise from each to the next
    found = torch.empty_like(z).scatter_(0, order, bits.to(integer).view(z.dtype))
    poses = poses.clone()
    poses[..., 2] = found.view_as(poses[..., 2])
    return poses


def make_many(
    shape: Shape, dtype: torch.dtype, device: str, joints_at_most: int = 200_000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """:func:`make_input` for large batches: few clips, repeated on the device, each with a jitter of its own."""
    clips = min(shape.batch, max(joints_at_most // (shape.frames * shape.joints), 1))
    few = make_input(shape._replace(batch=clips), torch.float32, device, seed=seed)
    if clips == shape.batch:
        return few[0].to(dtype), few[1].to(dtype)
    generator = torch.Generator(device).manual_seed(seed)
    times = -(-shape.batch // clips)

    def repeated(x: Tensor) -> Tensor:
        x = x.repeat(times, 1, 1, 1)[: shape.batch]
        return x.add_(torch.randn(x.shape, generator=generator, device=device), alpha=JITTER).to(dtype)

    return repeated(few[0]), repeated(few[1])
