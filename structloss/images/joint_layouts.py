"""Orders of joints in annotation files, and how the 16 joints of MPII's order are made from them.

A layout tells for each of the 16 joints which joints of the file it may be made from, the best first; each is a
weighted mean. A joint that can't be made is not annotated. What is ours: where a data set has no thorax it is the
middle of the shoulders (as in :class:`~structloss.images.people.Person`), and COCO's upper neck is half way from there
to the nose.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ArgumentError, DataError, check_name
from ..skeletons import convert, get

__all__ = ["LAYOUTS", "MPII", "Layout", "layout_of", "to_mpii"]

MPII = get("mpii")
_THORAX = MPII.joint_names.index("Thorax")

Mean = tuple[tuple[int, float], ...]  # (joint, its share)
Layout = tuple[tuple[Mean, ...], ...]  # per joint of MPII what it may be made from


def _joint(index: int) -> Mean:
    return ((index, 1.0),)


def _middle(*joints: int) -> Mean:
    return tuple((joint, 1 / len(joints)) for joint in joints)


def _layout(
    legs: Sequence[int], arms: Sequence[int], pelvis: Sequence[Mean], thorax: Sequence[Mean], neck: Sequence[Mean],
    head: Sequence[Mean],
) -> Layout:  # fmt: skip
    """From right ankle, knee, hip, left hip, knee, ankle; right wrist, elbow, shoulder, left shoulder, elbow, wrist;
    and the trunk."""
    limbs = [(_joint(j),) for j in (*legs, *arms)]
    return (*limbs[:6], tuple(pelvis), tuple(thorax), tuple(neck), tuple(head), *limbs[6:])


# Joints of SPIN's files: the 14 of LSP with right side first, then MPII's pelvis and thorax, Human3.6M's spine, jaw
# and head, COCO's face. Human3.6M's frames have the head (18) and no top of the head (13).
_SPIN_NAMES = [
    "RAnkle",
    "RKnee",
    "RHip",
    "LHip",
    "LKnee",
    "LAnkle",
    "RWrist",
    "RElbow",
    "RShoulder",
    "LShoulder",
    "LElbow",
    "LWrist",
    "UpperNeck",
    "HeadTop",
    "Pelvis",
    "Thorax",
    "Spine",
    "Jaw",
    "Head",
    "Nose",
    "LEye",
    "REye",
    "LEar",
    "REar",
]
_H36M_TO_MPII = [int(j) for j in convert(np.arange(17.0)[:, None], "h36m", "mpii", variant="zhou")[:, 0]]

LAYOUTS: dict[str, Layout] = {
    "coco": _layout(
        (16, 14, 12, 11, 13, 15), (10, 8, 6, 5, 7, 9),
        [_middle(11, 12)], [_middle(5, 6)], [((0, 0.5), (5, 0.25), (6, 0.25))], [],
    ),
    "h36m": _layout(
        _H36M_TO_MPII[:6], _H36M_TO_MPII[10:],
        [_joint(0)], [_middle(11, 14)], [_joint(8)], [_joint(10)],
    ),
    "mpi_inf_3dhp": _layout(
        (10, 9, 8, 11, 12, 13), (4, 3, 2, 5, 6, 7),
        [_joint(14)], [_middle(2, 5)], [_joint(1)], [_joint(0)],
    ),
    "mpii": tuple((_joint(j),) for j in range(16)),
    "spin": _layout(
        range(6), range(6, 12),
        [_joint(14), _middle(2, 3)], [_joint(15), _middle(8, 9)], [_joint(12)], [_joint(13), _joint(18)],
    ),
}  # fmt: skip
"""Name -> layout; the order of joints is the skeleton's of that name, but for "spin", the 24 joints of SPIN's files."""

_NAMES = {"spin": _SPIN_NAMES, "mpii": list(MPII.joint_names)}
#: what may be said of a joint that is not used
_UNUSED = "-"


def layout_of(joints: str | Sequence[str], argument: str = "joints") -> tuple[Layout, int]:
    """A layout, and the number of joints in a file of it.

    Args:
        joints: a name of :data:`LAYOUTS`; or the names of the file's joints in order, those of the skeleton "mpii"
            (RAnkle, RKnee, ...), with others of SPIN's (Head, Nose, ...) or "-" for joints that are not used; also as
            one text with commas.
        argument: for messages.

    Raises:
        UnknownNameError: neither a layout nor names of joints.
        ArgumentError: a name twice, or no joint that is used.
    """
    if isinstance(joints, str) and "," not in joints:
        layout = LAYOUTS[check_name("layout of joints", joints, LAYOUTS)]
        return layout, _size(joints)
    names = [name.strip() for name in joints.split(",")] if isinstance(joints, str) else list(joints)
    known = {_UNUSED: None, **dict.fromkeys(MPII.joint_names), **dict.fromkeys(_SPIN_NAMES)}
    for name in names:
        check_name("joint", name, known)
    used = [name for name in names if name != _UNUSED]
    if twice := {name for name in used if used.count(name) > 1}:
        raise ArgumentError(f"{argument} has {', '.join(sorted(twice))} twice, expected each joint once.")
    places = {name: index for index, name in enumerate(names) if name != _UNUSED}
    layout = _of_names(places)
    if not any(layout):
        raise ArgumentError(f"{argument} has none of {', '.join(MPII.joint_names)}, expected some of them.")
    return layout, len(names)


def _size(name: str) -> int:
    return len(_NAMES[name]) if name in _NAMES else get(name).num_joints


def _of_names(places: dict[str, int]) -> Layout:
    """A layout of a file whose joints have these names."""
    others: dict[str, list[tuple[str, ...]]] = {
        "Pelvis": [("RHip", "LHip")],
        "Thorax": [("RShoulder", "LShoulder")],
        "HeadTop": [("Head",)],
    }
    return tuple(
        tuple(
            _middle(*(places[part] for part in parts))
            for parts in [(joint,), *others.get(joint, [])]
            if all(part in places for part in parts)
        )
        for joint in MPII.joint_names
    )


def to_mpii(layout: Layout, known: np.ndarray, *values: np.ndarray, shoulders: bool = False) -> tuple[np.ndarray, ...]:
    """Joints of a file in MPII's order.

    Args:
        layout: of the file.
        known: bool `[N, K]`, joints that may be used.
        values: arrays `[N, K, ...]` of floats, of coordinates or of bools (a made joint has it if all that it is made
            from have).
        shoulders: make the thorax the middle of the shoulders where that can be made, whatever the file annotates.

    Returns:
        `known` `[N, 16]`, and the values `[N, 16, ...]`, 0 where not known. All values of a joint are made from the
        same joints.

    Raises:
        DataError: `known` has another number of joints than the layout needs.
    """
    most = max(joint for choices in layout for mean in choices for joint, _ in mean)
    if known.shape[1] <= most:
        raise DataError(f"there are {known.shape[1]} joints, expected at least {most + 1}.")
    out_known = np.zeros((len(known), len(layout)), bool)
    outs = [np.zeros((len(known), len(layout), *value.shape[2:]), value.dtype) for value in values]
    for place, choices in enumerate(layout):
        for mean in choices[::-1] if shoulders and place == _THORAX else choices:
            parts = [joint for joint, _ in mean]
            take = known[:, parts].all(1) & ~out_known[:, place]
            for out, value in zip(outs, values, strict=True):
                if value.dtype == bool:
                    out[take, place] = value[take][:, parts].all(1)
                else:
                    out[take, place] = sum(share * value[take, joint] for joint, share in mean)
            out_known[:, place] |= take
    return (out_known, *outs)
