"""Which layout a list of joint names is, in any order and in any spelling.

A name is brought to a side and a part: "LShoulder", "left_shoulder", "Shoulder.L" and "left shoulder" are `l_shoulder`.
A layout knows each of its joints by one or several such names, since the same name means another joint beside others: a
"neck" is Human3.6M's thorax if there is no thorax.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from .._words import some
from .keypoint_maps import LAYOUTS

__all__ = ["NamedLayout", "layout_of_names", "plain_name"]

_WORDS = {
    "sho": "shoulder", "shldr": "shoulder", "elb": "elbow", "wri": "wrist", "kne": "knee", "ank": "ankle",
    "hips": "hip", "pelv": "pelvis", "thrx": "thorax", "chest": "thorax", "sternum": "thorax", "belly": "spine",
    "torso": "spine", "abdomen": "spine", "root": "pelvis", "top": "top", "middle": "mid", "center": "mid",
    "centre": "mid", "bottom": "bottom",
}  # fmt: skip
_NOISE = {"joint", "keypoint", "kpt", "landmark", "of", "the", "pose", "body"}
_PARTS = {
    "mid_hip": "pelvis", "hip_mid": "pelvis", "pelvis_pelvis": "pelvis", "hip_pelvis": "pelvis", "pelvis_hip": "pelvis",
    "top_head": "head_top", "headtop": "head_top", "vertex": "head_top", "mid_spine": "spine",
    "spine_mid": "spine", "head_mid": "head", "mid_shoulder": "neck_base", "shoulder_mid": "neck_base",
    "base_neck": "neck_base", "foot_index": "big_toe", "toe": "big_toe", "handwrist": "wrist",
}  # fmt: skip
_TWO_SIDED = (
    "shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "foot", "eye", "ear", "eye_inner", "eye_outer",
    "mouth", "pinky", "index", "thumb", "heel", "big_toe", "small_toe",
)  # fmt: skip
_MIDDLE = (
    "nose", "neck", "neck_base", "upper_neck", "neck_nose", "head", "head_top", "head_bottom", "pelvis", "spine",
    "thorax", "background",
)  # fmt: skip
_ALL = {*_MIDDLE, *(f"{side}_{part}" for side in "lr" for part in _TWO_SIDED)}


def plain_name(name: object) -> str:
    """A joint's name as a side and a part, "l_shoulder" or "nose"."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[LR])(?=[A-Z][a-z])", "_", str(name)).lower()
    words = [word for word in re.split(r"[^a-z0-9]+", text) if word and word not in _NOISE]
    side, parts = "", []
    for word in words:
        found = re.fullmatch("left|right|l|r", word) or _glued(word)
        rest = word[found.end() :] if found else word
        if found:
            side = found[0][0]
        if rest:
            parts.append(_WORDS.get(rest, rest))
    part = "_".join(parts)
    part = _PARTS.get(part, part)
    if not side and part == "hip":
        part = "pelvis"
    return f"{side}_{part}" if side else part


def _glued(word: str) -> re.Match[str] | None:
    """A side in front of a part without anything between: "lshoulder", "leftknee"."""
    found = re.match(r"(left|right|l|r)(?=[a-z])", word)
    return found if found and _WORDS.get(word[found.end() :], word[found.end() :]) in _TWO_SIDED else None


_Joint = tuple[str, ...]  # names that a joint may have, the surest first


def _pairs(*parts: str) -> list[_Joint]:
    """Left and right of each part, in turns."""
    other = {"ankle": "foot", "wrist": "hand"}
    return [tuple(f"{side}_{name}" for name in (part, other.get(part)) if name) for part in parts for side in "lr"]


def _side(side: str, *parts: str) -> list[_Joint]:
    return [joint for joint in _pairs(*parts) if joint[0][0] == side]


_ARM, _LEG = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")
_COCO_LIMBS = _pairs(*_ARM, *_LEG)
_COCO = [("nose",), *_pairs("eye", "ear"), *_COCO_LIMBS]
_HEAD_TOP: _Joint = ("head_top", "head")
_NECK: _Joint = ("neck", "neck_base", "thorax", "head_bottom", "upper_neck")

_JOINTS: dict[str, list[_Joint]] = {
    "coco": _COCO,
    "h36m": [
        ("pelvis",), *_side("r", *_LEG), *_side("l", *_LEG), ("spine",), ("thorax", "neck", "neck_base"),
        ("neck_nose", "nose", "neck_base", "neck", "upper_neck"), ("head", "head_top"), *_side("l", *_ARM),
        *_side("r", *_ARM),
    ],
    "mpi_inf_3dhp": [
        ("head_top",), ("neck",), *_side("r", *_ARM), *_side("l", *_ARM), *_side("r", *_LEG), *_side("l", *_LEG),
        ("pelvis",), ("spine",), ("head",),
    ],
    "mpii": [
        *reversed(_side("r", *_LEG)), *_side("l", *_LEG), ("pelvis",), ("thorax",), ("upper_neck", "neck"), _HEAD_TOP,
        *reversed(_side("r", *_ARM)), *_side("l", *_ARM),
    ],
    "halpe26": [*_COCO, _HEAD_TOP, _NECK, ("pelvis",), *_pairs("big_toe", "small_toe", "heel")],
    "body25": [
        ("nose",), _NECK, *_side("r", *_ARM), *_side("l", *_ARM), ("pelvis",), *_side("r", *_LEG), *_side("l", *_LEG),
        *((f"{side}_{part}",) for part in ("eye", "ear") for side in "rl"),
        *((f"{side}_{part}",) for side in "lr" for part in ("big_toe", "small_toe", "heel")),
    ],
    "openpose18": [
        ("nose",), _NECK, *_side("r", *_ARM), *_side("l", *_ARM), *_side("r", *_LEG), *_side("l", *_LEG),
        *((f"{side}_{part}",) for part in ("eye", "ear") for side in "rl"),
    ],
    "posetrack": [("nose",), ("head_bottom",), ("head_top",), *_pairs("ear"), *_COCO_LIMBS],
    "mediapipe": [
        ("nose",), *((f"{side}_{part}",) for side in "lr" for part in ("eye_inner", "eye", "eye_outer")),
        *_pairs("ear", "mouth", *_ARM, "pinky", "index", "thumb", *_LEG, "heel", "big_toe"),
    ],
    "crowdpose": [*_COCO_LIMBS, _HEAD_TOP, _NECK],
    "limbs": _COCO_LIMBS,
}  # fmt: skip
# What a file need not have, and in whose middle it then stands, the first that there is; "-" is the same side, "+" the
# other one. A file without any of the others is of another layout.
_NEAR: dict[str, tuple[tuple[str, ...], ...]] = {
    "eye": (("+eye",), ("nose",)),
    "ear": (("+ear",), ("nose",)),
    "elbow": (("-shoulder",),),
    "wrist": (("-elbow",), ("-shoulder",)),
    "knee": (("-hip",),),
    "ankle": (("-knee",), ("-hip",)),
    "spine": (("pelvis", "thorax"),),
    "neck_nose": (("thorax", "head"), ("thorax",)),
    "head": (("neck_nose",),),
    **dict.fromkeys(("eye_inner", "eye_outer", "mouth", "pinky", "index", "thumb", "heel", "big_toe"), ()),
    "small_toe": (),
}
_NEEDED = {f"{side}_{part}" for side in "lr" for part in ("shoulder", "hip")}


@dataclass(frozen=True)
class NamedLayout:
    """How a file's keypoints are put into a layout's order.

    Attributes:
        layout: one of :data:`~structloss.data.formats.keypoint_maps.LAYOUTS`.
        order: of each keypoint of the layout, where it is in the file; None where the file has none.
        near: (keypoint that the file has not, those in whose middle it stands).
        missing: names of those that the file has not, where anything is made of them.
    """

    layout: str
    order: tuple[int | None, ...]
    near: tuple[tuple[int, tuple[int, ...]], ...] = ()
    missing: tuple[str, ...] = ()


def layout_of_names(path: Path, names: Sequence[object], count: int | None = None) -> NamedLayout | None:
    """The layout that has the most of these names, and of those the one that lacks the fewest.

    Args:
        path: of the file, for messages.
        names: of its joints, in its order.
        count: how many keypoints it has. Names of some of them tell the layout only if they are those at its beginning.

    Returns:
        None if there are fewer names than keypoints and they tell nothing.

    Raises:
        DataError: names of which no layout is made.
    """
    plain = [plain_name(name) for name in names]
    if count is not None and count != len(plain):
        return _by_beginning(plain, count)
    if len(plain) == LAYOUTS["h3wb"].size and _matched(plain[:17], _COCO) == [*range(17)]:
        return NamedLayout("h3wb", tuple(range(len(plain))))
    found = {layout: _matched(plain, joints) for layout, joints in _JOINTS.items()}
    lacking = {layout: [joint[0] for joint, where in zip(_JOINTS[layout], order, strict=True) if where is None]
               for layout, order in found.items()}  # fmt: skip
    fits = [layout for layout, lacks in lacking.items()
            if len(lacks) <= len(found[layout]) / 3 and all(_part(name) in _NEAR for name in lacks)]  # fmt: skip
    unknown = [str(name) for name, known in zip(names, plain, strict=True) if known not in _ALL]
    layout = max(fits, key=lambda name: (len(found[name]) - len(lacking[name]), -len(found[name])), default="")
    if not layout or not {*plain} >= _NEEDED or (unknown and (lacking[layout] or layout == "limbs")):
        what = f"the joints {some(unknown or names, 6)}"
        raise DataError(
            f"{path} names {what}, which are of no known layout; set layout, one of {', '.join(LAYOUTS)}, if they are "
            "in its order."
        )
    missing = tuple(name for name in lacking[layout] if _NEAR[_part(name)])  # toes and the like make none of our joints
    return NamedLayout(layout, tuple(found[layout]), _neighbours(layout, found[layout]), missing)


def _by_beginning(plain: Sequence[str], count: int) -> NamedLayout | None:
    """The layout of this many keypoints that begins with these names."""
    for layout, joints in _JOINTS.items():
        begins = zip(plain, joints, strict=False)
        if LAYOUTS[layout].size == count and 0 < len(plain) < count and all(name in joint for name, joint in begins):
            return NamedLayout(layout, tuple(range(count)))
    return None


def _matched(plain: Sequence[str], joints: Sequence[_Joint]) -> list[int | None]:
    """Where each joint is among the names; each name is one joint at most."""
    free: dict[str, int] = {}
    for i, name in enumerate(plain):
        free.setdefault(name, i)
    out: list[int | None] = []
    for joint in joints:
        found = [name for name in joint if name in free]
        out.append(free.pop(found[0]) if found else None)
    return out


def _part(name: str) -> str:
    """A plain name without its side."""
    return name[2:] if name[:2] in ("l_", "r_") else name


def _neighbours(layout: str, order: Sequence[int | None]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """(Missing keypoint, those in whose middle it stands)."""
    index = {joint[0]: i for i, joint in enumerate(_JOINTS[layout])}
    out = []
    for name, i in index.items():
        if order[i] is not None:
            continue
        same, other = name[:2], {"l_": "r_", "r_": "l_"}.get(name[:2], "")
        for group in _NEAR[_part(name)]:
            there = [index.get(near.replace("-", same).replace("+", other)) for near in group]
            if all(j is not None and order[j] is not None for j in there):
                out.append((i, tuple(j for j in there if j is not None)))
                break
    return tuple(out)
