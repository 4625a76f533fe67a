"""What the Triton kernels look up about a skeleton: tables on the device, by joint."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from ..terms import TERMS
from .structure import Structure, structure_of

__all__ = ["Tables", "tables_of"]


@dataclass(frozen=True)
class Tables:
    """A structure as the kernels read it, on the device.

    Attributes:
        entries: int32, rows of [J] for each of `rows`: indices of what a joint takes part in, -1 for nothing.
        rows: rows of `entries` for bone_symmetry, illegal_angle, bone_ratio, the limbs and the angles.
        mirrored: [pairs * 2, 2] right bone, left bone.
        hinges: [hinges, 5] joints of the chain, sign.
        groups: [groups * group, 2] bones of bone_ratio, (-1, -1) where a group has fewer.
        group: the most bones of a group.
        bones: [bones, 2].
        angles: [angles, 6] both bones, the joint of the second that isn't one of the first, and whether it belongs to
            bone_angle (1) and bone_angle_velocity (2).
        factors: float64: hinge scale, tolerance, one per joint for weighted_mpjpe and for temporal_consistency, and
            one for each bone of `groups`.
    """

    entries: Tensor
    rows: tuple[int, int, int, int, int]
    mirrored: Tensor
    hinges: Tensor
    groups: Tensor
    group: int
    bones: Tensor
    angles: Tensor
    factors: Tensor
    structure: Structure


def _angles_of(structure: Structure) -> list[tuple[int, int, int, int, int, int]]:
    pairs = dict.fromkeys((*structure.angles, *structure.angles_velocity))
    rows = []
    for pair in pairs:
        kind = (pair in structure.angles) + 2 * (pair in structure.angles_velocity)
        rows.append((*structure.angle_joints(pair), kind))
    return rows


@functools.cache  # without bound: a captured graph keeps reading them
def tables_of(terms: tuple[str, ...], skeleton: str, options: str, joints: int, device: torch.device) -> Tables:
    """Tables of these terms; copied to the device once."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "the first call with these terms is inside a CUDA graph's capture, expected one such call before it: it "
            "copies the skeleton to the GPU and loads the kernels."
        )
    # In a thread of its own: torch.compile(mode="reduce-overhead") lends the calling thread memory that it takes back.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_copied, terms, skeleton, options, joints, device).result()


def _copied(terms: tuple[str, ...], skeleton: str, options: str, joints: int, device: torch.device) -> Tables:
    s = structure_of(terms, skeleton, options)
    mirrored = [bone for pair in s.symmetric for bone in pair]
    hinges = [(*chain, round(sign)) for chain, sign in s.hinges]
    group = max(map(len, s.groups), default=1)
    groups = [(*g, *[((-1, -1), 0.0)] * (group - len(g))) for g in s.groups]
    in_groups = [bone for g in groups for bone, _ in g]
    angles = _angles_of(s)
    of_bones = any(TERMS[term].measures == "bones" for term in terms)
    of_joint: list[list[list[int]]] = []
    for joint in range(joints):
        of_joint.append(
            [
                [i for i, bone in enumerate(mirrored) if joint in bone],
                [4 * i + chain.index(joint) for i, (*chain, _) in enumerate(hinges) if joint in chain],
                [i for i, bone in enumerate(in_groups) if joint in bone],
                [i for i, bone in enumerate(s.bones) if joint in bone] if of_bones else [],
                [i for i, angle in enumerate(angles) if joint in angle[:4]],
            ]
        )
    longest = [max((len(entries[kind]) for entries in of_joint), default=0) for kind in range(5)]
    rows = (longest[0], longest[1], longest[2], longest[3], longest[4])
    entries = [
        entries[kind][row] if row < len(entries[kind]) else -1
        for kind in range(5)
        for row in range(rows[kind])
        for entries in of_joint
    ]
    ones = (1.0,) * joints
    factors = [
        *(s.hinge_scale, s.hinge_tolerance),
        *(s.weighted_mpjpe_joints or ones),
        *(s.temporal_consistency_joints or ones),
        *(factor for g in groups for _, factor in g),
    ]

    def integers(x: Sequence) -> Tensor:
        return torch.tensor(x or [0], dtype=torch.int32, device=device)

    tables = Tables(
        integers(entries),
        rows,
        integers(mirrored),
        integers(hinges),
        integers(in_groups),
        group,
        integers(s.bones),
        integers(angles),
        torch.tensor(factors, dtype=torch.float64, device=device),
        s,
    )
    if device.type == "cuda":  # filled on this thread's stream, read on others
        torch.cuda.current_stream(device).synchronize()
    return tables
