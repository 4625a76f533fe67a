"""Anatomical terms: mirrored bones, hinges, proportions; no target."""

from __future__ import annotations

import torch
from torch import Tensor

from ..denominators import bone_weight
from .common import TermInput, add_to_bones, bone_vectors, direction

__all__ = ["bone_ratio", "bone_symmetry", "illegal_angle"]

# Beyond this the exponential continues as its tangent: poses in millimetres would overflow it.
LINEAR_FROM = 20.0


def bone_symmetry(x: TermInput) -> tuple[Tensor, Tensor]:
    """Differences of the lengths of mirrored bones."""
    right, left = (list(side) for side in zip(*x.structure.symmetric, strict=True))
    pose, weight = x.wide_pred, x.weight_or_one()
    weight = bone_weight(weight, right) * bone_weight(weight, left)
    (right_vector, right_length), (left_vector, left_length) = bone_vectors(pose, right), bone_vectors(pose, left)
    difference = right_length - left_length
    if x.structure.symmetric_squared:
        value, slope = weight * difference.square(), 2 * weight * difference
    else:
        value, slope = weight * difference.abs(), weight * difference.sign()
    slope = slope.unsqueeze(-1)
    grad = torch.zeros_like(pose)
    add_to_bones(grad, right, slope * direction(right_vector, right_length))
    add_to_bones(grad, left, -slope * direction(left_vector, left_length))
    return value.sum(), grad


def illegal_angle(x: TermInput) -> tuple[Tensor, Tensor]:
    """Triple products on the illegal side, u exp(u)."""
    structure = x.structure
    pose, joint_weight = x.wide_pred, x.weight_or_one()
    value, grad = pose.new_zeros(()), torch.zeros_like(pose)
    for (a, b, c, d), sign in structure.hinges:
        bones = ((b, a), (c, b), (d, c))
        weight = joint_weight[..., [a, b, c, d]].prod(-1)
        vectors, lengths = bone_vectors(pose, bones)
        used = direction(vectors, lengths) if structure.hinge_unit_bones else vectors
        v1, v2, v3 = used.unbind(-2)
        product = (torch.linalg.cross(v1, v2) * v3).sum(-1) * (sign * structure.hinge_scale)
        u = (product - structure.hinge_tolerance).clamp(min=0)
        bounded = u.clamp(max=LINEAR_FROM)
        slope_at = (1 + bounded) * bounded.exp()
        value = value + (weight * (bounded * bounded.exp() + (u - bounded) * slope_at)).sum()
        factor = torch.where(u > 0, slope_at, 0) * weight * (sign * structure.hinge_scale)
        g = torch.stack(
            [torch.linalg.cross(v2, v3), torch.linalg.cross(v3, v1), torch.linalg.cross(v1, v2)], -2
        ) * factor.unsqueeze(-1).unsqueeze(-1)
        if structure.hinge_unit_bones:  # only what turns a bone counts, and a bone of no length turns nowhere
            g = direction(g - (g * used).sum(-1, keepdim=True) * used, lengths)
            g = torch.where((lengths == 0).unsqueeze(-1), 0, g)
        add_to_bones(grad, bones, g)
    return value, grad


def bone_ratio(x: TermInput) -> tuple[Tensor, Tensor]:
    """Variance of scaled bone lengths within groups of bones."""
    pose, joint_weight = x.wide_pred, x.weight_or_one()
    value, grad = pose.new_zeros(()), torch.zeros_like(pose)
    for group in x.structure.groups:
        bones = [bone for bone, _ in group]
        factor = pose.new_tensor([factor for _, factor in group])
        weight = bone_weight(joint_weight, bones)
        vector, length = bone_vectors(pose, bones)
        count = weight.sum(-1, keepdim=True)
        inverse = torch.where(count > 0, 1 / torch.where(count > 0, count, 1), 0)
        mean = (weight * factor * length).sum(-1, keepdim=True) * inverse
        deviation = factor * length - mean
        value = value + (weight * deviation.square() * inverse).sum()
        # The slope through the mean cancels.
        slope = 2 * weight * factor * deviation * inverse
        add_to_bones(grad, bones, slope.unsqueeze(-1) * direction(vector, length))
    return value, grad
