"""From named points of a recording to a clip of Human3.6M joints: what the motion-capture readers share."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ArgumentError, DataError, check_choice, shown
from ...reading import read_json, read_yaml
from ...skeletons import get
from .._checks import positive
from .._words import some
from ..clips import Clip
from .joint_maps import JOINT_MAPS, JointMap

__all__ = ["choose_map", "euler", "points_to_clip", "rotate_from_z_up", "rotate_to_z_up"]

_H36M = get("h36m")
#: The person is as tall as the bones from the head down to an ankle are long; ankle and head top add some centimetres.
_HEIGHT = (1.0, 2.5)
_USUAL = 1.55  # metres, of adults in the CMU database
#: joint -> usual length of the bone to it there, mm: from the top of the head down to an ankle
_COLUMN = {10: 101, 9: 196, 8: 235, 7: 219, 2: 407, 3: 439}
#: ends of limbs and head, which some files name and place where the joint before them is
_ENDS = (2, 3, 5, 6, 9, 10, 12, 13, 15, 16)
_NO_LENGTH = 1e-4  # of the body's height
#: metres per unit, of files that don't say
_UNITS = {
    "metres": 1.0, "centimetres": 0.01, "millimetres": 0.001, "inches": 0.0254, "feet": 0.3048,
    "the units of the CMU database": 0.0254 / 0.45,
}  # fmt: skip

# Rows are the z-up world's x, y, z in the file's axes; all are rotations. "-y" is a camera's frame, with y down.
_TO_Z_UP = {
    "y": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "z": np.eye(3),
    "x": np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]),
    "-y": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
}


def rotate_to_z_up(points: np.ndarray, up: str) -> np.ndarray:
    """Points `[..., 3]` of a right-handed frame whose axis `up` points up, turned so that z does."""
    return points @ _TO_Z_UP[check_choice("up", up, tuple(_TO_Z_UP))].T


def rotate_from_z_up(points: np.ndarray, up: str) -> np.ndarray:
    """Inverse of :func:`rotate_to_z_up`."""
    return points @ _TO_Z_UP[check_choice("up", up, tuple(_TO_Z_UP))]


def euler(angles: np.ndarray, axes: str) -> np.ndarray:
    """Rotations `[T, 3, 3]` from angles `[T, len(axes)]` in radians about `axes`, composed from left to right."""
    out = np.broadcast_to(np.eye(3), (len(angles), 3, 3))
    for k, axis in enumerate(axes):
        i = "XYZ".index(axis)
        j, m = (i + 1) % 3, (i + 2) % 3
        turn = np.zeros((len(angles), 3, 3))
        turn[:, i, i] = 1
        turn[:, j, j] = turn[:, m, m] = np.cos(angles[:, k])
        turn[:, m, j] = np.sin(angles[:, k])
        turn[:, j, m] = -turn[:, m, j]
        out = out @ turn
    return out


def _asked_map(joints: object, builtin: Sequence[str], argument: str) -> JointMap | None:
    """The map that `joints` asks for: None for "auto", one of `builtin`, a mapping, or a YAML or JSON file of one."""
    if isinstance(joints, Mapping):
        return _checked(joints, argument)
    if joints == "auto":
        return None
    if isinstance(joints, str) and joints in builtin:
        return JOINT_MAPS[joints]
    path = Path(joints) if isinstance(joints, (str, os.PathLike)) else None
    if path is None or path.suffix.lower() not in (".yaml", ".yml", ".json"):
        names = ", ".join(map(repr, ("auto", *builtin)))
        raise ArgumentError(
            f"{argument} is {shown(joints)}, expected {names}, a mapping of joint names, or the path of a YAML or JSON "
            "file."
        )
    read = read_json if path.suffix.lower() == ".json" else read_yaml
    content = read(path, "a joint map (YAML or JSON)")
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds a {type(content).__name__}, expected a mapping of joint name to point name(s).")
    return _checked(content, str(path))


def _checked(content: Mapping[Any, Any], source: str) -> JointMap:
    missing = [name for name in _H36M.joint_names if name not in content]
    unknown = [str(name) for name in content if name not in _H36M.joint_names]
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has unknown {some(unknown)}"] if unknown else []
        raise DataError(
            f"{source} {' and '.join(parts)}, expected the joints {', '.join(_H36M.joint_names)}, null where the file "
            "does not have one."
        )
    joints = {}
    for joint, names in content.items():
        names = (names,) if isinstance(names, str) else names
        if names is None and joint != _H36M.joint_names[_H36M.root]:
            names = ()
        elif not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{joint} in {source} is {shown(names)}, expected a name or a list of names to average.")
        joints[joint] = tuple(names)
    return JointMap(source, joints)


def _words(name: str) -> list[str]:
    """What a name is made of, without the prefix in front of a colon and without separators."""
    return [word for word in re.split(r"[\s_.:|/-]+", name.rpartition(":")[2].lower()) if word]


def _common(names: Sequence[list[str]]) -> list[str]:
    """The words, at most three, that most names begin with: "bip01" of "Bip01 Head", "Bip01 Neck" and so on."""
    prefix: list[str] = []
    for _ in range(3):
        longer = [words for words in names if len(words) > len(prefix) + 1 and words[: len(prefix)] == prefix]
        first = Counter(words[len(prefix)] for words in longer).most_common(1)
        if not first or 2 * first[0][1] <= len(longer) or 3 * first[0][1] <= len(names):
            break
        prefix.append(first[0][0])
    return prefix


def _loose(names: Sequence[str]) -> dict[str, int]:
    """Names in small letters, without separators and without the words that most of them begin with -> index."""
    words = [_words(name) for name in names]
    prefix = _common([parts for parts, name in zip(words, names, strict=True) if parts and not name.endswith(".end")])
    found: dict[str, int] = {}
    for i, parts in enumerate(words):
        start = len(prefix) if parts[: len(prefix)] == prefix and len(parts) > len(prefix) else 0
        found.setdefault("".join(parts[start:]), i)
    return found


def _find(wanted: str, known: Mapping[str, int], loose: Mapping[str, int]) -> int | None:
    """Index of the first of the alternatives "a|b" that is known, with or without a prefix such as "mixamorig:"."""
    for name in wanted.split("|"):
        if name in known:
            return known[name]
        if (plain := "".join(_words(name))) in loose:
            return loose[plain]
    return None


@dataclass(frozen=True)
class _Found:
    """How the points of a file fit a map: the indices that make each joint, none where it is left out; and what is
    missing, as "joint (point)"."""

    joint_map: JointMap
    rows: list[list[int]]
    missing: list[str]

    @property
    def left_out(self) -> int:
        return sum(not row for row in self.rows)


def _lookup(joint_map: JointMap, names: Sequence[str], loose: Mapping[str, int]) -> _Found:
    known = {name: i for i, name in reversed(list(enumerate(names)))}
    known = {**{name.rpartition(":")[2]: i for name, i in known.items()}, **known}
    rows, missing = [], []
    for joint in _H36M.joint_names:
        found = [(name, _find(name, known, loose if joint_map.loose else {})) for name in joint_map.joints[joint]]
        lacks = [f"{joint} ({name})" for name, index in found if index is None]
        if lacks and joint in joint_map.optional:
            found, lacks = [], []
        missing += lacks
        rows.append([index for _, index in found if index is not None])
    return _Found(joint_map, rows, missing)


def choose_map(
    path: Path, names: Sequence[str], joints: object, builtin: Sequence[str], what: str, argument: str = "joints"
) -> tuple[JointMap, list[list[int]]]:
    """The joint map for points called `names`, and the points that make each of the 17 joints.

    A joint that the map leaves out, or that it does not insist on and the file lacks, has no points.

    Args:
        path: the file, for messages.
        names: of its points.
        joints: what the reader was asked for.
        builtin: maps that "auto" tries; the first that is complete is taken, before those that lack a joint.
        what: "joint", "bone" or "marker", for messages.
        argument: the reader's name for `joints`.

    Raises:
        DataError: a joint of the map is not in the file, or no built-in map fits.
    """
    asked = _asked_map(joints, builtin, argument)
    loose = _loose(names)
    tried = [_lookup(m, names, loose) for m in ([asked] if asked else [JOINT_MAPS[name] for name in builtin])]
    best = min(tried, key=lambda found: (len(found.missing), found.left_out))
    if not best.missing:
        return best.joint_map, best.rows
    hint = "" if asked else f"; pass {argument}, a map of joint names to the file's names"
    raise DataError(
        f"{path} has no {what} for {some(best.missing, 4)} of the joint map {best.joint_map.name!r}; it has "
        f"{some(names, 12)}{hint}."
    )


def points_to_clip(
    path: Path,
    points: np.ndarray,
    rows: Sequence[Sequence[int]],
    fps: float,
    *,
    scale: float | None,
    default_scale: float,
    up: str,
    subject: str | None = None,
    action: str | None = None,
    name: str | None = None,
) -> Clip:
    """The clip whose joints are the means over `rows` of points `[T, N, 3]` in the file's units and axes.

    A joint without points is unknown, and so is one at the end of a limb or of the head that is where the joint before
    it is in all frames: the file has only a name for it. Both are warned of. Unknown joints stand where the joint
    before them does. Subject and name come from the file's name: `16_02.amc` is subject "16", name "16_02".
    """
    factor = default_scale if scale is None else scale
    positive("scale", factor, "metres per unit of the file")
    joints = np.zeros((len(points), len(rows), 3))
    with np.errstate(over="ignore", invalid="ignore"):
        for joint, row in enumerate(rows):
            joints[:, joint] = points[:, row].mean(axis=1) if row else joints[:, _H36M.parents[joint]]
        joints = rotate_to_z_up(joints, up) * factor
    if not np.isfinite(joints).all():
        frame, joint = np.argwhere(~np.isfinite(joints).all(-1))[0]
        raise DataError(f"{path} has no finite position of {_H36M.joint_names[joint]} in frame {frame}.")
    left_out = [joint for joint, row in enumerate(rows) if not row]
    tiny = _NO_LENGTH * sum(float(_length(joints, joint).mean()) for joint in _COLUMN)
    flat = [joint for joint in _ENDS if joint not in left_out and _length(joints, joint).max() < tiny]
    for found, why in ((left_out, "no"), (flat, "no length for")):
        if found:
            text = f"{path} has {why} {', '.join(_H36M.joint_names[joint] for joint in found)}"
            warnings.warn(f"{text}: weight 0, nothing is trained on it or scored.", UserWarning, stacklevel=3)
    unknown = sorted({*left_out, *flat})
    _check_height(path, joints, unknown, factor, given=scale is not None)
    stem = path.stem
    return Clip(
        joints, subject or stem.split("_")[0], action or "unknown", name or stem, fps,
        tuple(_H36M.joint_names[joint] for joint in unknown),
    )  # fmt: skip


def _length(joints: np.ndarray, joint: int) -> np.ndarray:
    """Distance of a joint to the one before it, `[T]`."""
    return np.linalg.norm(joints[:, joint] - joints[:, _H36M.parents[joint]], axis=-1)


def _check_height(path: Path, joints: np.ndarray, unknown: Sequence[int], factor: float, *, given: bool) -> None:
    """Raise or warn unless the person is as tall as people are, by those bones that are known."""
    known = [bone for bone in _COLUMN if bone not in unknown and _H36M.parents[bone] not in unknown]
    if not known:
        return
    share = sum(_COLUMN[bone] for bone in known) / sum(_COLUMN.values())
    height = float(np.median(np.sum([_length(joints, bone) for bone in known], axis=0))) / share
    low, high = _HEIGHT
    if low <= height <= high:
        return
    text = f"the person of {path} is {height:.3g} m tall with scale {factor:.6g}, expected {low:g} to {high:g} m"
    if given:
        warnings.warn(f"{text}.", UserWarning, stacklevel=4)
        return
    likely = {unit: size * height / factor for unit, size in _UNITS.items()}
    unit = min(likely, key=lambda name: abs(np.log(max(likely[name], 1e-9) / _USUAL)))
    hint = f": {_UNITS[unit]:.6g} if they are {unit}" if low <= likely[unit] <= high else ""
    raise DataError(f"{text}; set scale, the metres per unit of the file{hint}.")
