"""The skeleton registry: joints, bones, left/right pairs, hinges and groups, and conversion between skeletons.

A bone is a pair of joint indices `(child, parent)`. Skeletons without a pelvis joint (COCO, H3WB) keep the customary
tree that hangs everything on the nose, for code that needs *a* tree, but their `bones` are anatomical links only:
nose-shoulder spokes are nothing to measure a length on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .errors import ArgumentError, DtypeError, check_name

if TYPE_CHECKING:  # whoever reads the registry only need not wait for torch
    import torch

__all__ = ["Bone", "Hinge", "Root", "Skeleton", "conversions", "convert", "flip", "get", "names", "relative", "root_of"]

Bone = tuple[int, int]  # (child, parent)
Pose = TypeVar("Pose", "torch.Tensor", np.ndarray)
Root = int | Sequence[int]
"""A joint, or several whose mean is meant: both hips, where a skeleton has no pelvis (`Skeleton.pelvis`)."""


@dataclass(frozen=True)
class Hinge:
    """A joint that bends one way only, as the chain `C -> S -> E -> W`.

    With n = (S - C) x (E - S), the legal side is where `legal_sign` * n . (W - E) > 0 in a right-handed frame (camera
    frame with y down and z forward, z-up world, ...); a reflection of the frame flips the sign. A straight limb, or one
    in line with C -> S, gives 0. Source: Dabral et al., ECCV 2018.

    Attributes:
        name: `right_elbow`, `left_elbow`, `right_knee` or `left_knee`.
        c: thorax (arms) or pelvis (legs). Where the skeleton has neither, the shoulder or hip of the other side: nearly
            the same direction at twice the length, so the product about doubles and its sign stays.
        s: shoulder or hip.
        e: elbow or knee, the hinge itself.
        w: wrist or ankle.
        legal_sign: +1 or -1.
    """

    name: str
    c: int
    s: int
    e: int
    w: int
    legal_sign: int

    @property
    def joints(self) -> tuple[int, int, int, int]:
        """(c, s, e, w)."""
        return (self.c, self.s, self.e, self.w)


@dataclass(frozen=True)
class Skeleton:
    """A kinematic tree with what the structural terms and metrics need to know about it.

    Instances are immutable, hashable and picklable.

    Attributes:
        name: registry name.
        joint_names: one name per joint.
        parents: index of each joint's parent; -1 for the root. A parent may have a higher index than its child: walk
            the tree with `order`.
        left, right: joints of the left and right side, of equal length and in matching order.
        root: index of the tree's root joint.
        pelvis: joints whose mean is the pelvis, the point that root-relative poses are relative to: the root itself, or
            both hips where the skeleton has no pelvis joint.
        anatomical_bones: the bones, where they are not simply the tree's; otherwise empty. Read `bones` instead.
        symmetric_groups: (group name, ((left bone, right bone), ...)) pairs; read `symmetric_bones` for all of them.
            "limbs" is upper leg, lower leg, upper arm, lower arm; "girdle" is hip and clavicle. H3WB adds "feet"
            and "hands" and has no girdle.
        hinges: right elbow, left elbow, right knee, left knee, in this order.
        bone_groups: (group name, bones) pairs; bones of a group keep their length ratios from person to person:
            "legs" and "arms" (four each), "hips" and "shoulders" (two each, where there is a pelvis or thorax joint).
        angle_pairs_left_out: of `angle_pairs`, those that the published angle losses don't have.
        soft_links: links that are no rigid bones (contours of the face, nose to shoulders), for graphs alone; read
            `graph_edges`.
    """

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    root: int = 0
    pelvis: tuple[int, ...] = (0,)
    anatomical_bones: tuple[Bone, ...] = ()
    symmetric_groups: tuple[tuple[str, tuple[tuple[Bone, Bone], ...]], ...] = ()
    hinges: tuple[Hinge, ...] = ()
    bone_groups: tuple[tuple[str, tuple[Bone, ...]], ...] = ()
    angle_pairs_left_out: tuple[tuple[int, int], ...] = ()
    soft_links: tuple[Bone, ...] = ()

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)

    @property
    def bones(self) -> tuple[Bone, ...]:
        """(child, parent) of every rigid bone, in the order of the children for tree skeletons."""
        return self.anatomical_bones or self.tree_bones

    @property
    def tree_bones(self) -> tuple[Bone, ...]:
        """(child, parent) of every edge of the tree, in the order of the children."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent >= 0)

    @property
    def graph_edges(self) -> tuple[Bone, ...]:
        """The bones and, where there are any, the soft links: the edges of a graph over the joints."""
        return self.bones + self.soft_links

    @property
    def symmetric_bones(self) -> tuple[tuple[Bone, Bone], ...]:
        """(left bone, right bone) of every mirrored pair, limbs first; a bone is (child, parent)."""
        return tuple(pair for _, pairs in self.symmetric_groups for pair in pairs)

    @property
    def bone_group_lengths(self) -> tuple[tuple[float, ...], ...]:
        """Canonical lengths in millimetres of the bones in `bone_groups`, in the same order."""
        return tuple(tuple(_CANONICAL_MM[name]) for name, _ in self.bone_groups)

    @property
    def angle_pairs(self) -> tuple[tuple[int, int], ...]:
        """(i, j), i < j, of every two bones that meet in a joint: indices into `bones`."""
        bones = self.bones
        return tuple(
            (i, j) for i in range(len(bones)) for j in range(i + 1, len(bones)) if set(bones[i]) & set(bones[j])
        )

    @property
    def mirror(self) -> tuple[int, ...]:
        """Permutation that swaps the sides: `pose[..., mirror, :]`, together with x -> -x, is the mirrored pose."""
        swap = {**dict(zip(self.left, self.right, strict=True)), **dict(zip(self.right, self.left, strict=True))}
        return tuple(swap.get(j, j) for j in range(self.num_joints))

    @property
    def order(self) -> tuple[int, ...]:
        """All joints, every parent before its children; the root first."""
        found = [self.root]
        for parent in found:  # grows while it is walked: breadth first
            found.extend(child for child, p in enumerate(self.parents) if p == parent)
        return tuple(found)


# Mean bone lengths that bone ratios are taken to (Zhou et al., ICCV 2017), in the order of the groups' bones.
_CANONICAL_MM = {
    "legs": (456.008604234, 452.125519758) * 2,
    "arms": (284.125346475, 249.772589249) * 2,
    "hips": (134.201602044,) * 2,
    "shoulders": (180.776851782,) * 2,
}


def _hinges(*chains: tuple[int, int, int, int]) -> tuple[Hinge, ...]:
    """Chains (C, S, E, W) of the right elbow, left elbow, right knee and left knee."""
    kinds = (("right_elbow", 1), ("left_elbow", -1), ("right_knee", -1), ("left_knee", 1))
    return tuple(Hinge(name, *chain, sign) for (name, sign), chain in zip(kinds, chains, strict=True))


def _person(
    name: str,
    joint_names: str,
    parents: tuple[int, ...],
    left: Iterable[int],
    right: Iterable[int],
    *,
    legs: tuple[tuple[int, int, int], tuple[int, int, int]],
    arms: tuple[tuple[int, int, int], tuple[int, int, int]],
    pelvis: tuple[int, ...],
    thorax: int | None,
    root: int = 0,
    bones: tuple[Bone, ...] = (),
    extra_symmetry: tuple[tuple[str, tuple[tuple[Bone, Bone], ...]], ...] = (),
    angle_pairs_left_out: tuple[tuple[int, int], ...] = (),
    soft_links: tuple[Bone, ...] = (),
) -> Skeleton:
    """A skeleton from its chains (hip, knee, ankle) and (shoulder, elbow, wrist), left and right."""
    (lh, lk, la), (rh, rk, ra) = legs
    (ls, le, lw), (rs, re, rw) = arms
    limbs = (((lk, lh), (rk, rh)), ((la, lk), (ra, rk)), ((le, ls), (re, rs)), ((lw, le), (rw, re)))
    symmetric: tuple[tuple[str, tuple[tuple[Bone, Bone], ...]], ...] = (("limbs", limbs),)
    groups: tuple[tuple[str, tuple[Bone, ...]], ...] = (
        ("legs", ((rk, rh), (ra, rk), (lk, lh), (la, lk))),
        ("arms", ((re, rs), (rw, re), (le, ls), (lw, le))),
    )
    if thorax is None:
        chains = ((ls, rs, re, rw), (rs, ls, le, lw), (lh, rh, rk, ra), (rh, lh, lk, la))
    else:
        (hip,) = pelvis
        chains = ((thorax, rs, re, rw), (thorax, ls, le, lw), (hip, rh, rk, ra), (hip, lh, lk, la))
        symmetric += (("girdle", (((lh, hip), (rh, hip)), ((ls, thorax), (rs, thorax)))),)
        groups += (("hips", ((rh, hip), (lh, hip))), ("shoulders", ((rs, thorax), (ls, thorax))))
    return Skeleton(
        name=name,
        joint_names=tuple(joint_names.split()),
        parents=parents,
        left=tuple(left),
        right=tuple(right),
        root=root,
        pelvis=pelvis,
        anatomical_bones=bones,
        symmetric_groups=symmetric + extra_symmetry,
        hinges=_hinges(*chains),
        bone_groups=groups,
        angle_pairs_left_out=angle_pairs_left_out,
        soft_links=soft_links,
    )


_H36M = _person(
    "h36m",
    "Hip RHip RKnee RFoot LHip LKnee LFoot Spine Thorax Neck/Nose Head LShoulder LElbow LWrist RShoulder RElbow RWrist",
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    left=(4, 5, 6, 11, 12, 13),
    right=(1, 2, 3, 14, 15, 16),
    legs=((4, 5, 6), (1, 2, 3)),
    arms=((11, 12, 13), (14, 15, 16)),
    pelvis=(0,),
    thorax=8,
    angle_pairs_left_out=((8, 10),),  # neck-nose with left clavicle; MotionBERT's list has the right one only
)

# Head top hangs on the head centre (chain pelvis, spine, neck, head, head top); the data set's own table hangs it on
# the neck.
_MPI_INF_3DHP = _person(
    "mpi_inf_3dhp",
    "HeadTop Neck RShoulder RElbow RWrist LShoulder LElbow LWrist RHip RKnee RAnkle LHip LKnee LAnkle "
    "Pelvis Spine Head",
    parents=(16, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1),
    left=(5, 6, 7, 11, 12, 13),
    right=(2, 3, 4, 8, 9, 10),
    legs=((11, 12, 13), (8, 9, 10)),
    arms=((5, 6, 7), (2, 3, 4)),
    pelvis=(14,),
    thorax=1,
    root=14,
)

# The annotation has no tree; shoulders hang on the thorax, as in the Human3.6M tree it is converted to.
_MPII = _person(
    "mpii",
    "RAnkle RKnee RHip LHip LKnee LAnkle Pelvis Thorax UpperNeck HeadTop "
    "RWrist RElbow RShoulder LShoulder LElbow LWrist",
    parents=(1, 2, 6, 6, 3, 4, -1, 6, 7, 8, 11, 12, 7, 7, 13, 14),
    left=(3, 4, 5, 13, 14, 15),
    right=(2, 1, 0, 12, 11, 10),
    legs=((3, 4, 5), (2, 1, 0)),
    arms=((13, 14, 15), (12, 11, 10)),
    pelvis=(6,),
    thorax=7,
    root=6,
)

_COCO_NAMES = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)
_COCO_PARENTS = (-1, 0, 0, 0, 0, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14)
_COCO_LEGS, _COCO_ARMS, _COCO_HIPS = ((11, 13, 15), (12, 14, 16)), ((5, 7, 9), (6, 8, 10)), (11, 12)
# Limbs and the trunk's four sides; the head's five points get no bones, as on H3WB.
_COCO_BONES = (
    (13, 11), (15, 13), (14, 12), (16, 14), (11, 12), (5, 11), (6, 12), (5, 6), (7, 5), (9, 7), (8, 6), (10, 8),
)  # fmt: skip
# The head's points, and what holds the head.
_COCO_LINKS = ((1, 0), (2, 0), (3, 1), (4, 2), (5, 0), (6, 0))

_COCO = _person(
    "coco",
    _COCO_NAMES,
    parents=_COCO_PARENTS,
    left=range(1, 17, 2),
    right=range(2, 17, 2),
    thorax=None,
    bones=_COCO_BONES,
    soft_links=_COCO_LINKS,
    legs=_COCO_LEGS,
    arms=_COCO_ARMS,
    pelvis=_COCO_HIPS,
)


def _contours(*runs: range, closed: bool = False) -> list[Bone]:
    """Links from point to point of each run, and from its last to its first if closed."""
    links = [(b, a) for run in runs for a, b in pairwise(run)]
    return links + [(run[0], run[-1]) for run in runs if closed]


def _h3wb() -> Skeleton:
    """Human3.6M 3D WholeBody (COCO-WholeBody order): body 0-16, feet 17-22, face 23-90, hands 91-111 and 112-132.

    The tree is the official loader's (every face point on the nose). Bones are the 12 limb and trunk links, 6 of the
    feet and 40 of the hands; the face deforms and has none.
    """
    sides = ("left", "right")
    feet = [f"{side}_{part}" for side in sides for part in ("big_toe", "small_toe", "heel")]
    fingers = ("thumb", "index", "middle", "ring", "little")
    hands = [
        f"{side}_{part}"
        for side in sides
        for part in ("hand_root", *(f"{finger}_{i}" for finger in fingers for i in range(1, 5)))
    ]

    def hand_bones(root: int) -> list[Bone]:  # each finger: hand root - base - ... - tip
        return [(root + 4 * f + i, root + 4 * f + i - 1 if i > 1 else root) for f in range(5) for i in range(1, 5)]

    left_hand, right_hand = hand_bones(91), hand_bones(112)
    foot_bones = [(17 + i, 15) for i in range(3)] + [(20 + i, 16) for i in range(3)]
    parents = [*_COCO_PARENTS, *(parent for _, parent in foot_bones), *(0,) * 68]
    for wrist, bones in ((9, left_hand), (10, right_hand)):
        parents += [wrist, *(parent for _, parent in bones)]

    # (left, right) points of the face in iBUG order, which starts at the subject's right; the eleven midline points
    # are on neither side.
    face = [(39 - i, 23 + i) for i in range(8)] + [(49 - i, 40 + i) for i in range(5)]  # jaw, brows
    face += [(58, 54), (57, 55)]  # nose base
    face += [(68, 59), (67, 60), (66, 61), (65, 62), (70, 63), (69, 64)]  # eyes
    face += [(77, 71), (76, 72), (75, 73), (78, 82), (79, 81), (87, 83), (86, 84), (88, 90)]  # outer and inner lips
    left = [*_COCO.left, 17, 18, 19, *(a for a, _ in face), *range(91, 112)]
    right = [*_COCO.right, 20, 21, 22, *(b for _, b in face), *range(112, 133)]

    # Jaw, brows, bridge and base of the nose; eyes, outer and inner lips.
    contours = _contours(range(23, 40), range(40, 45), range(45, 50), range(50, 54), range(54, 59))
    contours += _contours(range(59, 65), range(65, 71), range(71, 83), range(83, 91), closed=True)

    # Links between toes and heel are no bones of the tree, but rigid enough to compare left with right. Of the fingers,
    # only the thumb is compared from the hand root: the other bases' distance to it bends with the palm.
    sole = (((18, 17), (21, 20)), ((19, 18), (22, 21)), ((19, 17), (22, 20)))
    finger_bases = (96, 100, 104, 108)
    hand = tuple(pair for pair in zip(left_hand, right_hand, strict=True) if pair[0][0] not in finger_bases)
    return _person(
        "h3wb",
        " ".join([_COCO_NAMES, *feet, *(f"face_{i}" for i in range(68)), *hands]),
        parents=tuple(parents),
        left=left,
        right=right,
        thorax=None,
        bones=(*_COCO_BONES, *foot_bones, *left_hand, *right_hand),
        extra_symmetry=(("feet", sole), ("hands", hand)),
        soft_links=(*_COCO_LINKS, (91, 9), (112, 10), *contours, (53, 0)),
        legs=_COCO_LEGS,
        arms=_COCO_ARMS,
        pelvis=_COCO_HIPS,
    )


_REGISTRY = {s.name: s for s in (_H36M, _MPI_INF_3DHP, _COCO, _h3wb(), _MPII)}


def names() -> tuple[str, ...]:
    """Names of all skeletons."""
    return tuple(_REGISTRY)


def get(name: str) -> Skeleton:
    """The skeleton called `name`; raises UnknownNameError for an unknown one."""
    return _REGISTRY[check_name("skeleton", name, _REGISTRY)]


def flip(pose: torch.Tensor, skeleton: Skeleton) -> torch.Tensor:
    """Mirror poses: x -> -x, left and right joints exchanged. Twice is the identity.

    Args:
        pose: `[..., J, C]`; channel 0 is x, further channels (y, depth, confidence) move with their joint.
        skeleton: supplies the left and right joints.

    Returns:
        A new tensor of the same shape and dtype.

    Raises:
        ArgumentError: another number of joints, or no channel.
    """
    if pose.dim() < 2 or pose.shape[-2] != skeleton.num_joints or pose.shape[-1] < 1:
        raise ArgumentError(
            f"pose has shape {list(pose.shape)}, expected [..., {skeleton.num_joints}, C] for {skeleton.name!r}."
        )
    mirrored = pose[..., list(skeleton.mirror), :]  # indexing copies, so the next line leaves `pose` alone
    mirrored[..., 0].neg_()
    return mirrored


def relative(pose: torch.Tensor, root: Root) -> torch.Tensor:
    """A pose `[..., J, C]` minus its root."""
    return pose - root_of(pose, root)


def root_of(pose: torch.Tensor, root: Root) -> torch.Tensor:
    """Where the root of a pose `[..., J, C]` is, `[..., 1, C]`."""
    if isinstance(root, int):
        return pose[..., root : root + 1, :]
    if len(root) == 1:
        return pose[..., root[0] : root[0] + 1, :]
    return pose[..., list(root), :].mean(-2, keepdim=True)


# Conversions. A recipe has one row a target joint: the source joint to copy, or ((source joint, coefficient), ...).
_Terms = tuple[tuple[int, float], ...]
_Recipe = tuple["int | _Terms", ...]


def _mean(*joints: int) -> _Terms:
    return tuple((j, 1 / len(joints)) for j in joints)


def _coco_to_h36m(
    hip: _Terms, spine: _Terms, thorax: _Terms, nose: int | _Terms, head: _Terms
) -> _Recipe:  # limbs are copied by name, whatever the variant
    return (hip, 12, 14, 16, 11, 13, 15, spine, thorax, nose, head, 5, 7, 9, 6, 8, 10)


_MOTIONBERT = _coco_to_h36m(_mean(11, 12), _mean(5, 6, 11, 12), _mean(5, 6), 0, _mean(1, 2))

# Demo code of MHFormer and MotionAGFormer, x and y apart. Thorax = a third of the way from the shoulders' midpoint to
# the nose; its y is moved by 2/3 of (nose - eyes). Spine: the trunk's centre; its x is moved away from the middle of
# hip and thorax by 0.3 of the distance. Head: above the eyes as far as the nose is below.
_DEMO_NOSE = ((0, 3 / 4), (5, 1 / 8), (6, 1 / 8))
_DEMO_X = _coco_to_h36m(
    _mean(11, 12),
    ((0, -0.05), (5, 0.325 - 0.05), (6, 0.325 - 0.05), (11, 0.325 - 0.075), (12, 0.325 - 0.075)),
    ((0, 1 / 3), (5, 1 / 3), (6, 1 / 3)),
    _DEMO_NOSE,
    _mean(1, 2, 3, 4),
)
_DEMO_Y = _coco_to_h36m(
    _mean(11, 12),
    _mean(5, 6, 11, 12),
    ((0, 1.0), (1, -1 / 3), (2, -1 / 3), (5, 1 / 3), (6, 1 / 3)),
    _DEMO_NOSE,
    ((1, 1.0), (2, 1.0), (0, -1.0)),
)

# (source, target) -> variant -> a recipe for all coordinates, or one for x and one for y. The first is the default.
_CONVERSIONS: dict[tuple[str, str], dict[str, tuple[_Recipe, ...]]] = {
    ("h36m", "mpi_inf_3dhp"): {"exact": ((10, 8, 14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6, 0, 7, 9),)},
    ("mpi_inf_3dhp", "h36m"): {"exact": ((14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4),)},
    ("h36m", "mpii"): {
        "demo": ((3, 2, 1, 4, 5, 6, 0, 8, 9, 10, 16, 15, 14, 11, 12, 13),),
        "zhou": ((3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13),),
    },
    ("mpii", "h36m"): {"demo": ((6, 2, 1, 0, 3, 4, 5, _mean(2, 3, 12, 13), 7, 8, 9, 13, 14, 15, 12, 11, 10),)},
    ("coco", "h36m"): {"motionbert": (_MOTIONBERT,), "demo": (_DEMO_X, _DEMO_Y)},
    ("h3wb", "coco"): {"exact": (tuple(range(17)),)},
    ("h3wb", "h36m"): {"motionbert": (_MOTIONBERT,), "demo": (_DEMO_X, _DEMO_Y)},
}


def conversions() -> dict[tuple[str, str], tuple[str, ...]]:
    """Supported conversions: (source, target) -> variants, the default first."""
    return {pair: tuple(variants) for pair, variants in _CONVERSIONS.items()}


def _sources(row: int | _Terms) -> tuple[int, ...]:
    return (row,) if isinstance(row, int) else tuple(j for j, _ in row)


def _apply(recipe: _Recipe, x: Pose) -> Pose:
    """`recipe` on coordinates [..., J, C]; a copied joint is copied exactly, and other joints' NaN do not leak in."""
    joints = [row for row in recipe if isinstance(row, int)]
    if len(joints) == len(recipe):
        return x[..., joints, :]
    rows: list[Any] = [
        x[..., row, :] if isinstance(row, int) else sum(k * x[..., j, :] for j, k in row) for row in recipe
    ]
    if isinstance(x, np.ndarray):
        return np.stack(rows, axis=-2)
    import torch

    return torch.stack(rows, dim=-2)


def convert(pose: Pose, source: str, target: str, *, variant: str | None = None, confidence: bool = False) -> Pose:
    """Convert poses from one skeleton to another.

    h36m <-> mpi_inf_3dhp, h36m -> mpii and h3wb -> coco copy joints. Note that joint 16 of mpi_inf_3dhp is the head's
    centre and joint 9 of h36m lies between neck and nose: that joint does not mean the same after the conversion.
    mpii -> h36m makes the spine (mean of hips and shoulders). coco -> h36m and h3wb -> h36m copy the limbs and make
    pelvis, spine, thorax, neck and head by one of two conventions that differ by centimetres: `"motionbert"` (default)
    takes midpoints, `"demo"` is that of the MHFormer and MotionAGFormer demos and is defined on x right, y down image
    coordinates only. A model must be fed the variant that it was trained with. h36m -> mpii takes MPII's thorax and
    upper neck from joints 8 and 9 (`"demo"`, default), or from 7 and 8 (`"zhou"`, pytorch-pose-hg-3d).

    Args:
        pose: torch tensor or numpy array `[..., J, C]`, any unit. Floating point where joints are averaged.
        source, target: names of skeletons; equal names return `pose` itself.
        variant: one of the variants that `conversions()` lists for the pair; None is the first.
        confidence: the last channel is a confidence, not a coordinate: a made joint gets the minimum over the joints it
            is made from. Without it, all channels are coordinates (so x, y, confidence must say so).

    Returns:
        Poses `[..., J_target, C]` of the same type and dtype.

    Raises:
        UnknownNameError: an unknown skeleton.
        ArgumentError: an unsupported pair, an unknown variant, or a pose of another shape.
        DtypeError: integers where joints are averaged.
    """
    skeleton = get(source)
    get(target)
    if not isinstance(pose, np.ndarray):
        import torch

        if not isinstance(pose, torch.Tensor):
            raise ArgumentError(f"pose is a {type(pose).__name__}, expected a torch tensor or a numpy array.")
    if pose.ndim < 2 or pose.shape[-2] != skeleton.num_joints or pose.shape[-1] < 1 + confidence:
        raise ArgumentError(
            f"pose has shape {tuple(pose.shape)}, expected [..., {skeleton.num_joints}, C] for skeleton {source!r}"
            f"{' with at least one coordinate before the confidence' if confidence else ''}."
        )
    if source == target:
        return pose
    variants = _CONVERSIONS.get((source, target))
    if variants is None:
        supported = ", ".join(f"{a} -> {b}" for a, b in _CONVERSIONS)
        raise ArgumentError(f"there is no conversion from {source!r} to {target!r}; supported are {supported}.")
    if variant is None:
        variant = next(iter(variants))
    elif variant not in variants:
        expected = " or ".join(map(repr, variants))
        raise ArgumentError(f"variant is {variant!r}, expected {expected} for {source!r} to {target!r}.")
    recipes = variants[variant]
    made = any(not isinstance(row, int) for recipe in recipes for row in recipe)
    floating = pose.dtype.kind == "f" if isinstance(pose, np.ndarray) else pose.is_floating_point()
    if made and not floating:
        raise DtypeError(f"pose has dtype {pose.dtype}, expected floating point to average joints.")
    coordinates = pose.shape[-1] - confidence
    if len(recipes) > 1 and coordinates != len(recipes):
        raise ArgumentError(
            f"pose has {coordinates} coordinates, expected {len(recipes)} (x, y) for variant {variant!r}; pass "
            "confidence=True if the last channel is a confidence."
        )

    if len(recipes) == 1:
        channels = [_apply(recipes[0], pose[..., :coordinates])]
    else:
        channels = [_apply(recipe, pose[..., c : c + 1]) for c, recipe in enumerate(recipes)]
    if confidence:
        score = pose[..., -1]
        parents = [sorted({j for row in rows for j in _sources(row)}) for rows in zip(*recipes, strict=True)]
        if isinstance(pose, np.ndarray):
            channels.append(np.stack([score[..., p].min(-1) for p in parents], axis=-1)[..., None])
        else:
            channels.append(torch.stack([score[..., p].amin(-1) for p in parents], dim=-1)[..., None])
    if len(channels) == 1:
        return channels[0]
    return np.concatenate(channels, axis=-1) if isinstance(pose, np.ndarray) else torch.cat(channels, dim=-1)
