"""What the terms measure on a body: the skeleton and the options, resolved to joint indices and numbers.

Every backend reads this, and none reads a skeleton itself.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import skeletons
from ..errors import ArgumentError
from ..terms import TERMS, check_options

__all__ = ["Structure", "encode_options", "structure_of"]

Bone = tuple[int, int]  # (child, parent)


@dataclass(frozen=True)
class Structure:
    """Joint indices and numbers of the skeleton terms; what no active term needs is empty.

    Attributes:
        bones: (child, parent) of limb_length, limb_variance and the angles.
        angles, angles_velocity: (bone, bone) of bone_angle and bone_angle_velocity: indices into `bones`.
        symmetric: (right bone, left bone) of bone_symmetry.
        symmetric_squared: whether it squares the differences.
        hinges: joints (A, B, C, D) of illegal_angle's chains and the sign that makes the triple product of an illegal
            angle positive.
        hinge_scale: factor of the triple product, to cubic metres; 1 for unit bones.
        hinge_tolerance: subtracted from the triple product.
        hinge_unit_bones: whether bones are normalised first.
        groups: bone_ratio's groups: (bone, factor of its length) each.
        weighted_mpjpe_joints, temporal_consistency_joints: one factor per joint, or empty for 1.
    """

    bones: tuple[Bone, ...] = ()
    angles: tuple[tuple[int, int], ...] = ()
    angles_velocity: tuple[tuple[int, int], ...] = ()
    symmetric: tuple[tuple[Bone, Bone], ...] = ()
    symmetric_squared: bool = False
    hinges: tuple[tuple[tuple[int, int, int, int], float], ...] = ()
    hinge_scale: float = 1.0
    hinge_tolerance: float = 0.0
    hinge_unit_bones: bool = False
    groups: tuple[tuple[tuple[Bone, float], ...], ...] = ()
    weighted_mpjpe_joints: tuple[float, ...] = ()
    temporal_consistency_joints: tuple[float, ...] = ()

    def angle_joints(self, pair: tuple[int, int]) -> tuple[int, int, int, int, int]:
        """Child and parent of the two bones of an angle, and the joint of the second that isn't one of the first."""
        first, second = (self.bones[bone] for bone in pair)
        return *first, *second, next(joint for joint in second if joint not in first)


def encode_options(options: Mapping[str, Mapping[str, object]]) -> str:
    """Checked options of several terms as the text that travels through a compiled graph; "" for none."""
    return json.dumps(options, sort_keys=True) if options else ""


@functools.lru_cache(maxsize=256)
def structure_of(terms: tuple[str, ...], skeleton: str, options: str) -> Structure:
    """The structure for these terms.

    Args:
        terms: names of the active terms.
        skeleton: name of the skeleton; ignored if no term needs one.
        options: from :func:`encode_options`.

    Raises:
        ArgumentError: the skeleton lacks the bones that an option asks for.
    """
    given = json.loads(options) if options else {}
    found: dict[str, dict[str, Any]] = {term: check_options(TERMS[term], given.get(term, {})) for term in terms}
    values: dict[str, Any] = {}
    for term in ("weighted_mpjpe", "temporal_consistency"):
        if term in found:
            values[f"{term}_joints"] = tuple(found[term]["joint_weight"] or ())
    if any(TERMS[term].needs_skeleton for term in terms):
        values |= _measured(skeletons.get(skeleton), found)
    return Structure(**values)


def _measured(body: skeletons.Skeleton, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Fields of the structure that a skeleton gives, for terms and their options."""
    values: dict[str, Any] = {}
    if any(TERMS[term].measures in ("bones", "angles") for term in found):
        values["bones"] = body.bones
    for term, field in (("bone_angle", "angles"), ("bone_angle_velocity", "angles_velocity")):
        if term in found:
            left_out = body.angle_pairs_left_out if found[term]["pairs"] == "published" else ()
            values[field] = tuple(pair for pair in body.angle_pairs if pair not in left_out)
    if option := found.get("bone_symmetry"):
        values["symmetric"] = _symmetric(body, option["pairs"])
        values["symmetric_squared"] = option["squared"]
    if option := found.get("illegal_angle"):
        # The registry tells the legal side, in a right-handed frame.
        side = -1.0 if option["handedness"] == "right" else 1.0
        values["hinges"] = tuple((hinge.joints, side * hinge.legal_sign) for hinge in body.hinges)
        values["hinge_unit_bones"] = option["normalize_bones"]
        values["hinge_scale"] = 1.0 if option["normalize_bones"] else option["scale"] ** 3
        values["hinge_tolerance"] = option["tolerance"]
    if option := found.get("bone_ratio"):
        paper = option["form"] == "paper"
        values["groups"] = tuple(
            tuple((bone, (1.0 if paper else lengths[0]) / length) for bone, length in zip(bones, lengths, strict=True))
            for (_, bones), lengths in zip(body.bone_groups, body.bone_group_lengths, strict=True)
        )
    return values


def _symmetric(body: skeletons.Skeleton, pairs: str) -> tuple[tuple[Bone, Bone], ...]:
    wanted = {"four": ("limbs",), "six": ("limbs", "girdle")}.get(pairs)
    groups = dict(body.symmetric_groups)
    if wanted is None:
        wanted = tuple(groups)
    if missing := [name for name in wanted if name not in groups]:
        raise ArgumentError(
            f"pairs is {pairs!r}, expected 'four' or 'all' for the skeleton {body.name!r}, which has no {missing[0]}."
        )
    return tuple((right, left) for name in wanted for left, right in groups[name])
