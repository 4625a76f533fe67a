"""Synthetic negatives for a loss network: true poses with one structural fault each, of a chosen size.

The fault is in the 3D pose alone; the 2D input stays that of the true pose. What SCoTL-pose / SEAL-pose takes besides
predictions is not published in full: noise and bone rotation follow its code, the others are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from .. import units
from ..errors import ArgumentError, check_floating, check_name, shown
from ..ops.dtypes import compute_dtype
from ..skeletons import Skeleton, relative
from . import corruptions as faults

__all__ = ["CORRUPTIONS", "Corruption", "corrupt"]


Fault = Callable[[Tensor, Skeleton, float, faults.Draws], Tensor]
"""(poses, skeleton, size, draws) -> poses; see :mod:`structloss.learned.corruptions`."""


@dataclass(frozen=True)
class Corruption:
    """A kind of fault.

    Attributes:
        name: what :func:`corrupt` calls it.
        function: what makes it.
        unit: what its size measures, in words.
        label: the same, short enough for the axis of a plot.
        default: its size if none is given.
        sweep: sizes for an analysis, rising; the truth is size 0 of each.
        largest: greatest size allowed.
        temporal: the fault shows over time only, every frame by itself stays a true pose.
    """

    name: str
    function: Fault
    unit: str
    label: str
    default: float
    sweep: tuple[float, ...]
    largest: float
    temporal: bool = False


_SHARES = (0.25, 0.5, 0.75, 1.0)


def _on_the_way(name: str, function: Fault, other: str) -> Corruption:
    """A fault whose size is the share of the way from the truth to another pose."""
    unit, label = f"share of the way from the truth to {other}", "share of the way"
    return Corruption(name, function, unit, label, default=1.0, sweep=_SHARES, largest=1.0)


_ALL = (
    Corruption(
        "noise",
        faults.noise,
        "standard deviation of each coordinate in millimetres, before the pose is moved back to its pelvis",
        "standard deviation, mm",
        default=18.32,
        sweep=(5.0, 10.0, 20.0, 40.0, 80.0),
        largest=math.inf,
    ),
    Corruption(
        "bone_rotation",
        faults.bone_rotation,
        "greatest angle in degrees that a bone is turned by; the least is a fifth of it",
        "greatest angle, degrees",
        default=15.0,
        sweep=(5.0, 10.0, 15.0, 30.0, 60.0),
        largest=180.0,
    ),
    Corruption(
        "bone_scaling",
        faults.bone_scaling,
        "greatest relative change of length, longer or shorter; the least is half of it",
        "greatest relative change",
        default=0.3,
        sweep=(0.05, 0.1, 0.2, 0.3, 0.5),
        largest=1.0,
    ),
    _on_the_way("limb_swap", faults.limb_swap, "the pose with left and right exchanged"),
    _on_the_way("mirrored_depth", faults.mirrored_depth, "the pose with depth reversed about the pelvis; 0.5 is flat"),
    _on_the_way("joint_shuffle", faults.joint_shuffle, "the pose with some joints exchanged"),
    _on_the_way("other_pose", faults.other_pose, "the pose of another sample"),
    Corruption(
        "shuffled_frames",
        faults.shuffled_frames,
        "share of the frames that change places",
        "share of frames",
        default=1.0,
        sweep=_SHARES,
        largest=1.0,
        temporal=True,
    ),
)
CORRUPTIONS: dict[str, Corruption] = {corruption.name: corruption for corruption in _ALL}
"""Name -> :class:`Corruption`."""


@torch.no_grad()
def corrupt(
    name: str,
    pose: Tensor,
    skeleton: Skeleton,
    *,
    size: float | None = None,
    shared_frames: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """True poses with a fault.

    - `"noise"`: independent normal noise on every coordinate.
    - `"bone_rotation"`: 1 to all bones, each number equally likely, are turned about random axes perpendicular to them.
      They keep their length; what hangs on them moves along without turning. With `shared_frames` an axis is
      perpendicular to the bone in the clip's middle frame and stays.
    - `"bone_scaling"`: one arm, one leg or all bones get longer or shorter by one factor, each of the five equally
      likely.
    - `"limb_swap"`: the arms, the legs or all joints of the left and right side change places, equally likely; hands go
      with arms and feet with legs.
    - `"mirrored_depth"`: channel 2 is reversed about the pelvis. Nothing is drawn.
    - `"joint_shuffle"`: 2 to 4 joints (on large skeletons up to a quarter of them) change places in a circle. Joints
      of the pelvis stay.
    - `"other_pose"`: samples get each other's pose. All move along by one number of places that is drawn once per call,
      in the order of the leading dimensions; with `shared_frames`, whole clips do.
    - `"shuffled_frames"`: in each window of 9 frames some, at least two, change places in a circle.

    Bones are those of the skeleton that are edges of its tree too: all on Human3.6M, on COCO the limbs, on H3WB limbs,
    feet and hands.

    Args:
        name: one of :data:`CORRUPTIONS`.
        pose: true poses `[..., J, 3]`, metres, floating point; half types are computed in float32. They are moved to
            their pelvis first. `"shuffled_frames"` and `shared_frames` need `[..., T, J, 3]`.
        skeleton: J joints, from :mod:`structloss.skeletons`.
        size: how large the fault is, from 0, no fault, to the corruption's `largest`, in its `unit`; None is its
            `default`.
        shared_frames: draw once per clip, so that a fault lasts and doesn't flicker; otherwise once per frame.
        generator: of the random numbers; None is torch's global one. One on the CPU gives the same on every device.

    Returns:
        New poses of the same shape, dtype and device, relative to their pelvis, without gradient.

    Raises:
        UnknownNameError: an unknown corruption.
        ArgumentError: another shape, a size out of range, one sample for `"other_pose"`, one frame for
            `"shuffled_frames"`.
        DtypeError: a pose that is not floating point.
    """
    corruption = CORRUPTIONS[check_name("corruption", name, CORRUPTIONS)]
    size = _check_size(corruption, size)
    clips = shared_frames or corruption.temporal
    _check_pose(pose, skeleton, clips)
    if corruption.temporal and pose.shape[-3] < 2:
        raise ArgumentError(f"pose has shape {list(pose.shape)}, expected at least two frames for {name!r}.")
    lead = pose.shape[:-2]
    shape = lead[:-1] if corruption.temporal else (*lead[:-1], 1) if shared_frames else lead
    dtype = compute_dtype(pose.dtype)
    draws = faults.Draws(tuple(shape), shared_frames, pose.device, dtype, generator)
    faulty = corruption.function(relative(pose.detach().to(dtype), skeleton.pelvis), skeleton, size, draws)
    return relative(faulty, skeleton.pelvis).to(pose.dtype)


def _check_size(corruption: Corruption, size: object) -> float:
    if size is None:
        return corruption.default
    largest = corruption.largest
    real = isinstance(size, Real) and not isinstance(size, bool) and math.isfinite(size)
    if not real or not 0 <= size <= largest:  # type: ignore[operator]
        expected = "a finite number >= 0" if largest == math.inf else f"a number from 0 to {largest:g}"
        raise ArgumentError(f"size is {shown(size)}, expected {expected} for {corruption.name!r}: {corruption.unit}.")
    return float(size)  # type: ignore[arg-type]


def _check_pose(pose: Tensor, skeleton: Skeleton, clips: bool) -> None:
    check_floating("pose", pose)
    if not isinstance(skeleton, Skeleton):
        raise ArgumentError(f"skeleton is {shown(skeleton)}, expected what structloss.skeletons.get returns.")
    if pose.dim() < 2 + clips or pose.shape[-2:] != (skeleton.num_joints, 3):
        expected = f"[...,{' T,' * clips} {skeleton.num_joints}, 3]"
        raise ArgumentError(f"pose has shape {list(pose.shape)}, expected {expected} for {skeleton.name!r}.")
    if units.is_due("corrupt"):
        units.warn_of_size("pose", units.glance(pose), 1.0, "pass metres", small=False, depth=4)
