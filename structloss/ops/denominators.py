"""What each kind of mean divides by: counts, or with weights sums of products of weights.

The compiled backends have the same in csrc/denominators.hpp, csrc/cuda/sums.hpp and kernels/triton_sums.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..terms import Denominator
from .structure import Structure

__all__ = ["LEAST_FREEDOM", "angle_weight", "bone_weight", "count", "inverse_freedom", "weighted_count"]

# A clip's bone needs more than one visible frame; less than this share of its weight is rounding.
LEAST_FREEDOM = 1e-12


def bone_weight(weight: Tensor, bones: Sequence[tuple[int, int]]) -> Tensor:
    """Product of the weights of each bone's joints: [..., J] -> [..., K]."""
    child, parent = (list(ends) for ends in zip(*bones, strict=True))
    return weight[..., child] * weight[..., parent]


def angle_weight(weight: Tensor, structure: Structure, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Product of the weights of each angle's joints, the joint where two bones meet once: [..., J] -> [..., P]."""
    joints = [sorted({*structure.bones[i], *structure.bones[j]}) for i, j in pairs]
    return torch.stack([weight[..., js].prod(-1) for js in joints], -1)


def inverse_freedom(weight: Tensor) -> Tensor:
    """1 / degrees of freedom of the variance over time of values of these weights: [B, T, K] -> [B, 1, K].

    0 where there is no variance: for values that are seen in fewer than two frames.
    """
    total = weight.sum(1, keepdim=True)
    inverse = torch.where(total > 0, 1 / torch.where(total > 0, total, 1), 0)
    freedom = total - weight.square().sum(1, keepdim=True) * inverse
    varies = freedom > LEAST_FREEDOM * total
    return torch.where(varies, 1 / torch.where(varies, freedom, 1), 0)


def count(kind: Denominator, shape: tuple[int, int, int], structure: Structure) -> float:
    """What a mean over poses [B, T, J] without weights divides by."""
    B, T, J = shape
    steps = B * max(T - 1, 0)
    counts = {
        Denominator.JOINT_WEIGHTS: B * T * J,
        Denominator.JOINTS: B * T * J,
        Denominator.STEPS: steps * J,
        Denominator.STEP_COORDINATES: 3 * steps * J,
        Denominator.JOINT_PAIRS: B * T * J * J,
        Denominator.FRAME_PAIRS: B * T * J * T,
        Denominator.FRAMES: B * T,
        Denominator.BONES: B * T * len(structure.bones),
        Denominator.VARYING_BONES: B * len(structure.bones) if T > 1 else 0,
        Denominator.ANGLES: B * T * len(structure.angles),
        Denominator.ANGLE_STEPS: steps * len(structure.angles_velocity),
    }
    return float(counts[kind])


def weighted_count(kind: Denominator, weight: Tensor, structure: Structure) -> Tensor:
    """What a mean over poses of weight [B, T, J] divides by, 0-d."""
    if kind is Denominator.JOINT_WEIGHTS:
        return weight.sum()
    if kind is Denominator.JOINTS:
        return weight.new_tensor(weight.numel())
    if kind in (Denominator.STEPS, Denominator.STEP_COORDINATES):
        steps = (weight[:, 1:] * weight[:, :-1]).sum()
        return 3 * steps if kind is Denominator.STEP_COORDINATES else steps
    if kind is Denominator.JOINT_PAIRS:
        return weight.sum(-1).square().sum()
    if kind is Denominator.FRAME_PAIRS:
        return weight.sum(1).square().sum()
    if kind is Denominator.FRAMES:
        return (weight > 0).any(-1).sum()
    if kind is Denominator.BONES:
        return bone_weight(weight, structure.bones).sum()
    if kind is Denominator.VARYING_BONES:
        return (inverse_freedom(bone_weight(weight, structure.bones)) > 0).sum()
    if kind is Denominator.ANGLES:
        return angle_weight(weight, structure, structure.angles).sum()
    if kind is Denominator.ANGLE_STEPS:
        turns = angle_weight(weight, structure, structure.angles_velocity)
        return (turns[:, 1:] * turns[:, :-1]).sum()
    raise AssertionError(f"{kind} has no count.")
