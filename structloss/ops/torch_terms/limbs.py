"""Lengths of bones and angles between them, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..denominators import angle_weight, bone_weight, inverse_freedom
from .common import TermInput, add_to_bones, bone_vectors, direction, steps

__all__ = ["bone_angle", "bone_angle_velocity", "limb_length", "limb_variance"]

# As published: shorter bones count as this long in a cosine, and cosines stay this far from 1.
SHORTEST = 1e-8
COSINE_MARGIN = 1e-7


def limb_length(x: TermInput) -> tuple[Tensor, Tensor]:
    """Differences of bone lengths."""
    bones = x.structure.bones
    weight = bone_weight(x.weight_or_one(), bones)
    vector, length = bone_vectors(x.wide_pred, bones)
    difference = length - bone_vectors(x.wide_target, bones)[1]
    slope = (weight * difference.sign()).unsqueeze(-1)
    grad = add_to_bones(torch.zeros_like(x.wide_pred), bones, slope * direction(vector, length))
    return (weight * difference.abs()).sum(), grad


def limb_variance(x: TermInput) -> tuple[Tensor, Tensor]:
    """Variances over time of bone lengths."""
    bones = x.structure.bones
    weight = bone_weight(x.weight_or_one(), bones)
    vector, length = bone_vectors(x.wide_pred, bones)
    total = weight.sum(1, keepdim=True)
    inverse = torch.where(total > 0, 1 / torch.where(total > 0, total, 1), 0)
    mean = (weight * length).sum(1, keepdim=True) * inverse
    scaled = weight * inverse_freedom(weight)
    deviation = length - mean
    slope = (2 * scaled * deviation).unsqueeze(-1)
    grad = add_to_bones(torch.zeros_like(x.wide_pred), bones, slope * direction(vector, length))
    return (scaled * deviation.square()).sum(), grad


def _angles(
    pose: Tensor, bones: Sequence[tuple[int, int]], pairs: Sequence[tuple[int, int]]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Angles [B, T, P] between pairs of bones, and a function from their gradient to that of the joints."""
    vector, length = bone_vectors(pose, bones)
    first, second = (list(side) for side in zip(*pairs, strict=True))
    at_least = length.clamp(min=SHORTEST)
    unit = vector / at_least.unsqueeze(-1)
    u, v = unit[..., first, :], unit[..., second, :]
    cosine = (u * v).sum(-1)
    limit = 1 - COSINE_MARGIN
    inside = (cosine.abs() <= limit) & (length[..., first] > SHORTEST) & (length[..., second] > SHORTEST)
    clamped = cosine.clamp(-limit, limit)

    def to_joints(angle_grad: Tensor) -> Tensor:
        slope = torch.where(inside, -angle_grad / (1 - clamped.square()).sqrt(), 0).unsqueeze(-1)
        cos = cosine.unsqueeze(-1)
        bone_grad = torch.zeros_like(vector)
        for side, other, mine in ((first, v, u), (second, u, v)):
            turned = slope * (other - cos * mine) / at_least[..., side].unsqueeze(-1)
            bone_grad.index_add_(-2, torch.tensor(side, device=pose.device), turned)
        return add_to_bones(torch.zeros_like(pose), bones, bone_grad)

    return clamped.acos(), to_joints


def bone_angle(x: TermInput) -> tuple[Tensor, Tensor]:
    """Differences of bone angles."""
    pairs, bones = x.structure.angles, x.structure.bones
    weight = angle_weight(x.weight_or_one(), x.structure, pairs)
    angle, to_joints = _angles(x.wide_pred, bones, pairs)
    difference = angle - _angles(x.wide_target, bones, pairs)[0]
    return (weight * difference.abs()).sum(), to_joints(weight * difference.sign())


def bone_angle_velocity(x: TermInput) -> tuple[Tensor, Tensor]:
    """Differences of the steps of bone angles."""
    pairs, bones = x.structure.angles_velocity, x.structure.bones
    weight = angle_weight(x.weight_or_one(), x.structure, pairs)
    weight = weight[:, 1:] * weight[:, :-1]
    angle, to_joints = _angles(x.wide_pred, bones, pairs)
    difference = steps(angle - _angles(x.wide_target, bones, pairs)[0])
    angle_grad = torch.zeros_like(angle)
    angle_grad[:, 1:] += weight * difference.sign()
    angle_grad[:, :-1] -= weight * difference.sign()
    return (weight * difference.abs()).sum(), to_joints(angle_grad)
