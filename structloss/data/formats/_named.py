"""From named points of a recording to a clip of Human3.6M joints: what the motion-capture readers share."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ArgumentError, DataError, MissingDependencyError, MissingFileError, check_choice
from ...skeletons import get
from .._checks import positive
from .._words import some
from ..clips import Clip
from .joint_maps import JOINT_MAPS, JointMap

__all__ = ["choose_map", "euler", "points_to_clip", "read_text", "rotate_from_z_up", "rotate_to_z_up"]

_H36M = get("h36m")
#: The person is as tall as the bones from the head down to an ankle are long; ankle and head top add some centimetres.
_HEIGHT = (1.0, 2.5)
_COLUMN = ((10, 9), (9, 8), (8, 7), (7, 0), (1, 2), (2, 3))

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


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """The text of a file; bytes that are no UTF-8 (names in older files) are replaced."""
    path = Path(path)
    if not path.is_file():
        found = "is a directory" if path.is_dir() else "does not exist"
        raise MissingFileError(f"{path} {found}, expected {what}.")
    return path.read_bytes().decode("utf-8", errors="replace")


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
            f"{argument} is {joints!r}, expected {names}, a mapping of joint names, or the path of a YAML or JSON file."
        )
    text = read_text(path, "a joint map (YAML or JSON)")
    if path.suffix.lower() == ".json":
        parse: Any = json.loads
    else:
        try:
            import yaml
        except ImportError as error:
            raise MissingDependencyError(
                f"{path} needs PyYAML, which is not installed; run: pip install pyyaml, or write the map as JSON."
            ) from error
        parse = yaml.safe_load
    try:
        content = parse(text)
    except Exception as error:  # ValueError from json, YAMLError from yaml
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise DataError(f"{path} is not valid {path.suffix[1:].upper()}: {reason}.") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds a {type(content).__name__}, expected a mapping of joint name to point name(s).")
    return _checked(content, str(path))


def _checked(content: Mapping[Any, Any], source: str) -> JointMap:
    missing = [name for name in _H36M.joint_names if name not in content]
    unknown = [str(name) for name in content if name not in _H36M.joint_names]
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has unknown {', '.join(unknown)}"] if unknown else []
        raise DataError(f"{source} {' and '.join(parts)}, expected the joints {', '.join(_H36M.joint_names)}.")
    joints = {}
    for joint, names in content.items():
        names = (names,) if isinstance(names, str) else names
        if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{joint} in {source} is {names!r}, expected a name or a list of names to average.")
        joints[joint] = tuple(names)
    return JointMap(source, joints)


def _find(wanted: str, known: Mapping[str, int]) -> int | None:
    """Index of the first of the alternatives "a|b" that is known, with or without a prefix such as "mixamorig:"."""
    for name in wanted.split("|"):
        if name in known:
            return known[name]
    return None


def _lookup(joint_map: JointMap, names: Sequence[str]) -> tuple[list[list[int]], list[str]]:
    """Indices of the points that make each joint, and what is missing, as "joint (point)"."""
    known = {name: i for i, name in reversed(list(enumerate(names)))}
    known = {**{name.rpartition(":")[2]: i for name, i in known.items()}, **known}
    rows, missing = [], []
    for joint in _H36M.joint_names:
        found = [(name, _find(name, known)) for name in joint_map.joints[joint]]
        missing += [f"{joint} ({name})" for name, index in found if index is None]
        rows.append([index for _, index in found if index is not None])
    return rows, missing


def choose_map(
    path: Path, names: Sequence[str], joints: object, builtin: Sequence[str], what: str, argument: str = "joints"
) -> tuple[JointMap, list[list[int]]]:
    """The joint map for points called `names`, and the points that make each of the 17 joints.

    Args:
        path: the file, for messages.
        names: of its points.
        joints: what the reader was asked for.
        builtin: maps that "auto" tries; the first that is complete is taken.
        what: "joint", "bone" or "marker", for messages.
        argument: the reader's name for `joints`.

    Raises:
        DataError: a joint of the map is not in the file, or no built-in map fits.
    """
    asked = _asked_map(joints, builtin, argument)
    tried = [(m, *_lookup(m, names)) for m in ([asked] if asked else [JOINT_MAPS[name] for name in builtin])]
    best, rows, missing = min(tried, key=lambda entry: len(entry[2]))
    if not missing:
        return best, rows
    hint = "" if asked else f"; pass {argument}, a map of joint names to the file's names"
    raise DataError(
        f"{path} has no {what} for {some(missing, 4)} of the joint map {best.name!r}; it has {some(names, 12)}{hint}."
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

    Subject and name come from the file's name: `16_02.amc` is subject "16", name "16_02".
    """
    factor = default_scale if scale is None else scale
    positive("scale", factor, "metres per unit of the file")
    joints = np.stack([points[:, row].mean(axis=1) for row in rows], axis=1)
    if not np.isfinite(joints).all():
        frame, joint = np.argwhere(~np.isfinite(joints).all(-1))[0]
        raise DataError(f"{path} has no finite position of {_H36M.joint_names[joint]} in frame {frame}.")
    joints = rotate_to_z_up(joints, up) * factor
    _check_height(path, joints, factor, given=scale is not None)
    stem = path.stem
    return Clip(joints, subject or stem.split("_")[0], action or "unknown", name or stem, fps)


def _check_height(path: Path, joints: np.ndarray, factor: float, *, given: bool) -> None:
    lengths = [np.linalg.norm(joints[:, a] - joints[:, b], axis=-1) for a, b in _COLUMN]
    height = float(np.median(np.sum(lengths, axis=0)))
    low, high = _HEIGHT
    if low <= height <= high:
        return
    text = f"the person of {path} is {height:.3g} m tall with scale {factor:.6g}, expected {low:g} to {high:g} m"
    if not given:
        raise DataError(f"{text}; set scale, the metres per unit of the file.")
    warnings.warn(f"{text}.", UserWarning, stacklevel=4)
