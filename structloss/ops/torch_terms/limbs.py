"""Lengths of bones and angles between them, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .common import TermInput, add_to_bones, bone_vectors, bone_weight, direction, reduced, steps

__all__ = ["bone_angle", "bone_angle_velocity", "limb_length", "limb_variance"]

# As published: shorter bones count as this long in a cosine, and cosines stay this far from 1.
SHORTEST = 1e-8
COSINE_MARGIN = 1e-7
# A clip's bone needs more than one visible frame; less than this share of its weight is rounding.
LEAST_FREEDOM = 1e-12


def limb_length(x: TermInput) -> tuple[Tensor, Tensor]:
    """Mean difference of bone lengths."""
    bones = x.structure.bones
    weight = bone_weight(x.weight_or_one(), bones)
    vector, length = bone_vectors(x.wide_pred, bones)
    difference = length - bone_vectors(x.wide_target, bones)[1]
    slope = (weight * difference.sign()).unsqueeze(-1)
    grad = add_to_bones(torch.zeros_like(x.wide_pred), bones, slope * direction(vector, length))
    return reduced(x, (weight * difference.abs()).sum(), grad, weight.sum())


def limb_variance(x: TermInput) -> tuple[Tensor, Tensor]:
    """Mean variance over time of bone lengths."""
    bones = x.structure.bones
    weight = bone_weight(x.weight_or_one(), bones)
    vector, length = bone_vectors(x.wide_pred, bones)
    total = weight.sum(1, keepdim=True)
    inverse = torch.where(total > 0, 1 / torch.where(total > 0, total, 1), 0)
    mean = (weight * length).sum(1, keepdim=True) * inverse
    freedom = total - weight.square().sum(1, keepdim=True) * inverse
    varies = freedom > LEAST_FREEDOM * total
    scaled = weight * torch.where(varies, 1 / torch.where(varies, freedom, 1), 0)
    deviation = length - mean
    slope = (2 * scaled * deviation).unsqueeze(-1)
    grad = add_to_bones(torch.zeros_like(x.wide_pred), bones, slope * direction(vector, length))
    return reduced(x, (scaled * deviation.square()).sum(), grad, varies.sum())


def _angles(pose: Tensor, bones: Sequence[tuple[int, int]], pairs: Sequence[tuple[int, int]]):
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


def _angle_weight(x: TermInput, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Product of the weights of each angle's joints; the joint where two bones meet counts once."""
    weight, bones = x.weight_or_one(), x.structure.bones
    joints = [sorted({*bones[i], *bones[j]}) for i, j in pairs]
    return torch.stack([weight[..., js].prod(-1) for js in joints], -1)


def bone_angle(x: TermInput) -> tuple[Tensor, Tensor]:
    """Mean difference of bone angles."""
    pairs, bones = x.structure.angles, x.structure.bones
    weight = _angle_weight(x, pairs)
    angle, to_joints = _angles(x.wide_pred, bones, pairs)
    difference = angle - _angles(x.wide_target, bones, pairs)[0]
    return reduced(x, (weight * difference.abs()).sum(), to_joints(weight * difference.sign()), weight.sum())


def bone_angle_velocity(x: TermInput) -> tuple[Tensor, Tensor]:
    """Mean difference of the steps of bone angles."""
    pairs, bones = x.structure.angles_velocity, x.structure.bones
    weight = _angle_weight(x, pairs)
    weight = weight[:, 1:] * weight[:, :-1]
    angle, to_joints = _angles(x.wide_pred, bones, pairs)
    difference = steps(angle - _angles(x.wide_target, bones, pairs)[0])
    angle_grad = torch.zeros_like(angle)
    angle_grad[:, 1:] += weight * difference.sign()
    angle_grad[:, :-1] -= weight * difference.sign()
    return reduced(x, (weight * difference.abs()).sum(), to_joints(angle_grad), weight.sum())
