"""Literal definitions of all loss terms, written for reading: the oracle of the term tests. Imports no structloss.

Everything is plain differentiable PyTorch in the dtype of `pred`; gradients come from autograd. Poses are
[..., T, J, 3], weights [..., T, J]. The body is written out for Human3.6M; other bodies are passed in as a `Body`.
"""

import math
from typing import NamedTuple

import torch

from . import pairwise


class Body(NamedTuple):
    """What the anatomical terms measure.

    bones: (parent, child). angles: (bone, bone) by option `pairs`, as indices into bones. symmetric: (right bone, left
    bone) by option `pairs`. hinges: joints A, B, C, D and the sign that makes E of an illegal angle positive. groups:
    of each bone group, ((joint, joint), canonical length in millimetres).
    """

    bones: tuple
    angles: dict
    symmetric: dict
    hinges: tuple
    groups: tuple


# Canonical lengths in millimetres (Zhou et al., ICCV 2017); upper leg and upper arm are what their groups refer to.
UPPER_LEG, LOWER_LEG, HIP = 456.008604234, 452.125519758, 134.201602044
UPPER_ARM, LOWER_ARM, SHOULDER = 284.125346475, 249.772589249, 180.776851782

_PUBLISHED_ANGLES = (
    (0, 3), (0, 6), (3, 6), (0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 10),
    (7, 13), (8, 13), (10, 13), (7, 8), (8, 9), (10, 11), (11, 12), (13, 14), (14, 15),
)  # fmt: skip
_LIMBS = (((1, 2), (4, 5)), ((2, 3), (5, 6)), ((14, 15), (11, 12)), ((15, 16), (12, 13)))
_GIRDLE = (((0, 1), (0, 4)), ((8, 14), (8, 11)))

H36M = Body(
    bones=(
        (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8),
        (8, 9), (9, 10), (8, 11), (11, 12), (12, 13), (8, 14), (14, 15), (15, 16),
    ),
    angles={"published": _PUBLISHED_ANGLES, "all": (*_PUBLISHED_ANGLES, (8, 10))},
    symmetric={"four": _LIMBS, "six": _LIMBS + _GIRDLE, "all": _LIMBS + _GIRDLE},
    hinges=(
        (8, 14, 15, 16, -1.0),  # right elbow
        (8, 11, 12, 13, +1.0),  # left elbow
        (0, 1, 2, 3, +1.0),  # right knee
        (0, 4, 5, 6, -1.0),  # left knee
    ),
    groups=(
        (((1, 2), UPPER_LEG), ((2, 3), LOWER_LEG), ((4, 5), UPPER_LEG), ((5, 6), LOWER_LEG)),
        (((14, 15), UPPER_ARM), ((15, 16), LOWER_ARM), ((11, 12), UPPER_ARM), ((12, 13), LOWER_ARM)),
        (((0, 1), HIP), ((0, 4), HIP)),
        (((8, 14), SHOULDER), ((8, 11), SHOULDER)),
    ),
)  # fmt: skip


def present(pred, target, weight):
    """Poses with 0 in place of every joint without weight, and the weights (1 where none are given)."""
    if weight is None:
        return pred, target, torch.ones_like(pred[..., 0])
    seen = (weight > 0)[..., None]
    pred = torch.where(seen, pred, torch.zeros_like(pred))
    if target is not None:
        target = torch.where(seen, target, torch.zeros_like(target))
    return pred, target, weight.to(pred.dtype)


def length(vector):
    """Euclidean norm over the last axis; its gradient at the zero vector is 0."""
    square = (vector * vector).sum(-1)
    zero = square == 0
    return torch.where(zero, torch.zeros_like(square), torch.where(zero, torch.ones_like(square), square).sqrt())


def ratio(numerator, denominator):
    """Quotient, 0 without gradient where the denominator is 0."""
    zero = denominator == 0
    quotient = numerator / torch.where(zero, torch.ones_like(denominator), denominator)
    return torch.where(zero, torch.zeros_like(quotient), quotient)


def reduced(total, count, reduction):
    if reduction == "sum":
        return total
    return total / count if count > 0 else total * 0


def step(x):
    """x at t minus x at t - 1, for [..., T, J, 3]."""
    return x[..., 1:, :, :] - x[..., :-1, :, :]


def step_weight(w):
    return w[..., 1:, :] * w[..., :-1, :]


def factors(joint_weight, like):
    """The factor of each joint [J]."""
    if joint_weight is None:
        return torch.ones(like.shape[-2], dtype=like.dtype)
    return torch.as_tensor(joint_weight, dtype=like.dtype)


def bone(pose, joints, weight):
    """Length and weight [..., T] of the bone between two joints."""
    a, b = joints
    return length(pose[..., a, :] - pose[..., b, :]), weight[..., a] * weight[..., b]


def frames(weight):
    """Number of frames in which any joint has weight."""
    return (weight > 0).any(-1).sum()


def mpjpe(pred, target, weight=None, reduction="mean"):
    pred, target, w = present(pred, target, weight)
    return reduced((w * length(pred - target)).sum(), w.sum(), reduction)


def weighted_mpjpe(pred, target, weight=None, reduction="mean", joint_weight=None):
    pred, target, w = present(pred, target, weight)
    return reduced((w * factors(joint_weight, pred) * length(pred - target)).sum(), w.numel(), reduction)


def n_mpjpe(pred, target, weight=None, reduction="mean"):
    pred, target, w = present(pred, target, weight)
    scale = ratio((w[..., None] * pred * target).sum((-2, -1)), (w[..., None] * pred * pred).sum((-2, -1)))
    return reduced((w * length(scale[..., None, None] * pred - target)).sum(), w.sum(), reduction)


def velocity(pred, target, weight=None, reduction="mean"):
    pred, target, w = present(pred, target, weight)
    omega = step_weight(w)
    return reduced((omega * length(step(pred) - step(target))).sum(), omega.sum(), reduction)


def temporal_consistency(pred, target=None, weight=None, reduction="mean", joint_weight=None):
    pred, _, w = present(pred, None, weight)
    omega = step_weight(w)
    squares = (step(pred) ** 2).sum(-1)
    return reduced((omega * factors(joint_weight, pred) * squares).sum(), 3 * omega.sum(), reduction)


def depth_ranking_joints(pred, target, weight=None, reduction="mean"):
    pred, target, w = present(pred, target, weight)
    return pairwise.depth_ranking(pred, target, "joints", w, reduction)


def depth_ranking_frames(pred, target, weight=None, reduction="mean"):
    pred, target, w = present(pred, target, weight)
    return pairwise.depth_ranking(pred, target, "frames", w, reduction)


def limb_length(pred, target, weight=None, reduction="mean", body=H36M):
    pred, target, w = present(pred, target, weight)
    total, count = 0, 0
    for joints in body.bones:
        length_p, omega = bone(pred, joints, w)
        length_g, _ = bone(target, joints, w)
        total = total + (omega * (length_p - length_g).abs()).sum()
        count = count + omega.sum()
    return reduced(total, count, reduction)


def limb_variance(pred, target=None, weight=None, reduction="mean", body=H36M):
    pred, _, w = present(pred, None, weight)
    total, rows = 0, 0
    for joints in body.bones:
        lengths, omega = bone(pred, joints, w)
        weights = omega.sum(-1)
        mean = ratio((omega * lengths).sum(-1), weights)
        squares = (omega * (lengths - mean[..., None]) ** 2).sum(-1)
        freedom = weights - ratio((omega * omega).sum(-1), weights)
        counts = freedom > 1e-12 * weights
        total = total + ratio(squares, torch.where(counts, freedom, torch.zeros_like(freedom))).sum()
        rows = rows + counts.sum()
    return reduced(total, rows, reduction)


def angle(pose, first, second):
    """Angle [..., T] between two bones (parent, child), each taken from child to parent."""
    u, v = (pose[..., parent, :] - pose[..., child, :] for parent, child in (first, second))
    long_enough = ((length(u) > 1e-8) & (length(v) > 1e-8))[..., None]
    if not torch.isnan(u + v).any():  # a NaN is not long enough either, but has to get through
        u, v = (torch.where(long_enough, x, x.detach()) for x in (u, v))
    cosine = (u * v).sum(-1) / (length(u).clamp(min=1e-8) * length(v).clamp(min=1e-8))
    return torch.arccos(cosine.clamp(-1 + 1e-7, 1 - 1e-7))


def angle_weight(weight, first, second):
    omega = torch.ones_like(weight[..., 0])
    for joint in {*first, *second}:
        omega = omega * weight[..., joint]
    return omega


def bone_angle(pred, target, weight=None, reduction="mean", pairs="published", body=H36M):
    pred, target, w = present(pred, target, weight)
    total, count = 0, 0
    for i, j in body.angles[pairs]:
        two = body.bones[i], body.bones[j]
        omega = angle_weight(w, *two)
        total = total + (omega * (angle(pred, *two) - angle(target, *two)).abs()).sum()
        count = count + omega.sum()
    return reduced(total, count, reduction)


def bone_angle_velocity(pred, target, weight=None, reduction="mean", pairs="published", body=H36M):
    pred, target, w = present(pred, target, weight)
    total, count = 0, 0
    for i, j in body.angles[pairs]:
        two = body.bones[i], body.bones[j]
        omega = angle_weight(w, *two)
        omega = omega[..., 1:] * omega[..., :-1]
        theta_p, theta_g = angle(pred, *two), angle(target, *two)
        change = (theta_p[..., 1:] - theta_p[..., :-1]) - (theta_g[..., 1:] - theta_g[..., :-1])
        total = total + (omega * change.abs()).sum()
        count = count + omega.sum()
    return reduced(total, count, reduction)


def bone_symmetry(pred, target=None, weight=None, reduction="mean", pairs="four", squared=False, body=H36M):
    pred, _, w = present(pred, None, weight)
    total = 0
    for right, left in body.symmetric[pairs]:
        length_r, weight_r = bone(pred, right, w)
        length_l, weight_l = bone(pred, left, w)
        difference = length_r - length_l
        difference = difference**2 if squared else difference.abs()
        total = total + (weight_r * weight_l * difference).sum()
    return reduced(total, frames(w), reduction)


def triple_product(pose, hinge, unit=False):
    """E [..., T] = det[v1 v2 v3] of a chain A, B, C, D."""
    a, b, c, d, _ = hinge
    v1, v2, v3 = (pose[..., end, :] - pose[..., start, :] for start, end in ((a, b), (b, c), (c, d)))
    if unit:
        v1, v2, v3 = (ratio(v, length(v)[..., None]) for v in (v1, v2, v3))
    return (torch.linalg.cross(v1, v2) * v3).sum(-1)


def illegal_angle(
    pred,
    target=None,
    weight=None,
    reduction="mean",
    tolerance=0.0,
    normalize_bones=False,
    scale=1.0,
    handedness="right",
    body=H36M,
):
    pred, _, w = present(pred, None, weight)
    total = 0
    for hinge in body.hinges:
        *joints, sigma = hinge
        if handedness == "left":
            sigma = -sigma
        volume = triple_product(pred, hinge, normalize_bones) * (1.0 if normalize_bones else scale**3)
        excess = sigma * volume - tolerance
        u = torch.where(excess <= 0, torch.zeros_like(excess), excess)
        below = torch.where(u > 20, torch.zeros_like(u), u)
        line = 20 * math.exp(20) + 21 * math.exp(20) * (u - 20)  # goes on with the slope at 20
        penalty = torch.where(u > 20, line, below * below.exp())
        omega = torch.ones_like(u)
        for joint in joints:
            omega = omega * w[..., joint]
        total = total + (omega * penalty).sum()
    return reduced(total, frames(w), reduction)


def bone_ratio(pred, target=None, weight=None, reduction="mean", form="code", body=H36M):
    pred, _, w = present(pred, None, weight)
    total = 0
    for group in body.groups:
        reference = group[0][1] if form == "code" else 1.0
        measured = [(reference / canonical, *bone(pred, joints, w)) for joints, canonical in group]
        n = sum(omega for _, _, omega in measured)
        mean = ratio(sum(omega * (k * found) for k, found, omega in measured), n)
        squares = sum(omega * (k * found - mean) ** 2 for k, found, omega in measured)
        total = total + ratio(squares, n).sum()
    return reduced(total, frames(w), reduction)


FUNCTIONS = {
    function.__name__: function
    for function in (
        mpjpe, weighted_mpjpe, n_mpjpe, velocity, temporal_consistency, depth_ranking_joints, depth_ranking_frames,
        bone_symmetry, illegal_angle, bone_ratio, limb_length, limb_variance, bone_angle, bone_angle_velocity,
    )
}  # fmt: skip
OF_A_BODY = {
    "bone_symmetry", "illegal_angle", "bone_ratio", "limb_length", "limb_variance", "bone_angle", "bone_angle_velocity",
}  # fmt: skip
WITHOUT_TARGET = {"temporal_consistency", "bone_symmetry", "illegal_angle", "bone_ratio", "limb_variance"}


def term(name, pred, target, weight=None, reduction="mean", body=H36M, **options):
    if name in OF_A_BODY:
        options["body"] = body
    return FUNCTIONS[name](pred, target, weight, reduction, **options)


def objective(pred, target, weights, weight=None, reduction="mean", options=None, body=H36M):
    """Weighted sum and the values of the terms."""
    options = options or {}
    values = {name: term(name, pred, target, weight, reduction, body, **options.get(name, {})) for name in weights}
    return sum(weights[name] * value for name, value in values.items()), values
