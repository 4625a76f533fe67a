"""Clip archives: one npz file with a float array `[T, 17, 3]` per clip under "subject/name", and JSON under "meta".

Nothing is ever unpickled, so an archive from a stranger cannot run code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, MissingFileError, shown
from ..files import new_file
from ..reading import parse_json
from ..skeletons import get
from .clips import Clip
from .formats.unpickle import load_npz_arrays

__all__ = ["load_archive", "save_archive"]

_H36M = get("h36m")
_UNITS = {"metre": 1.0, "metres": 1.0, "meter": 1.0, "m": 1.0, "millimetre": 1e-3, "millimetres": 1e-3, "mm": 1e-3}


def load_archive(path: str | os.PathLike[str]) -> tuple[list[Clip], dict[str, Any]]:
    """Read a clip archive.

    Besides the arrays it needs `meta`, a JSON object with `fps`, `units` ("metre" or "millimetre"), `joint_names` and
    `parents` of the Human3.6M skeleton; `clips`, a list of `{"key", "subject", "action", "unknown"}`, is optional
    (subject is then the part of the key before the slash, action "unknown", and every joint is known).

    Args:
        path: the npz file.

    Returns:
        The clips in the order of the file, float32 metres, and the whole `meta`.

    Raises:
        MissingFileError: there is no such file.
        DataError: not an archive, truncated or damaged, arrays that unpack to more than a hundred times the file's size
            and 64 MB, `meta` absent or incomplete, another skeleton, another shape or dtype, NaN or infinite values,
            unknown units, no clips.
    """
    path = Path(path)
    arrays = load_npz_arrays(path)
    meta = _read_meta(path, arrays)
    fps, scale = _check_meta(path, meta)
    described = _describe(path, meta)
    keys = [key for key in arrays if key != "meta"]
    if not keys:
        raise DataError(f"{path} has no clips, expected arrays [T, 17, 3] besides 'meta'.")
    clips = []
    for key in keys:
        positions = _checked(path, key, arrays[key]) * np.float32(scale)
        folder, _, name = key.rpartition("/")
        entry = described.get(key, {})
        subject, action = entry.get("subject") or folder or "unknown", entry.get("action") or "unknown"
        clips.append(Clip(positions, str(subject), str(action), name, fps, _unknown(path, key, entry)))
    return clips, meta


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).split("\n")[0].rstrip(".")


def _read_meta(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if "meta" not in arrays:
        raise DataError(f"{path} has no 'meta', expected a JSON string with fps, units, joint_names and parents.")
    raw = arrays["meta"]
    if raw.shape != () or raw.dtype.kind != "U":
        raise DataError(f"'meta' of {path} is {raw.dtype} of shape {list(raw.shape)}, expected one JSON string.")
    meta = parse_json(str(raw), f"'meta' of {path}")
    if not isinstance(meta, dict):
        raise DataError(f"'meta' of {path} is a JSON {type(meta).__name__}, expected an object.")
    return meta


def _check_meta(path: Path, meta: Mapping[str, Any]) -> tuple[float, float]:
    """Frame rate, and metres per unit."""
    missing = [key for key in ("fps", "units", "joint_names", "parents") if key not in meta]
    if missing:
        raise DataError(f"'meta' of {path} lacks {', '.join(missing)}, expected fps, units, joint_names and parents.")
    fps = meta["fps"]
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < 1e9:
        raise DataError(f"fps in 'meta' of {path} is {shown(fps)}, expected a positive number.")
    if not isinstance(meta["units"], str) or meta["units"] not in _UNITS:
        raise DataError(f"units in 'meta' of {path} is {shown(meta['units'])}, expected 'metre' or 'millimetre'.")
    for field, expected in (("joint_names", _H36M.joint_names), ("parents", _H36M.parents)):
        found = meta[field]
        if not isinstance(found, list) or len(found) != len(expected):
            size = f"{len(found)} entries" if isinstance(found, list) else shown(found)
            raise DataError(f"{field} in 'meta' of {path} has {size}, expected the 17 of the Human3.6M skeleton.")
        for joint, (a, b) in enumerate(zip(found, expected, strict=True)):
            if a != b:
                raise DataError(
                    f"{field}[{joint}] in 'meta' of {path} is {shown(a)}, expected {b!r} (Human3.6M order)."
                )
    return float(fps), _UNITS[meta["units"]]


def _describe(path: Path, meta: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Key -> its entry in `meta["clips"]`."""
    entries = meta.get("clips", [])
    if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("key"), str) for e in entries):
        raise DataError(f"clips in 'meta' of {path} is malformed, expected a list of objects with a 'key'.")
    return {entry["key"]: entry for entry in entries}


def _unknown(path: Path, key: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The joints that a clip's entry says are not known."""
    names = entry.get("unknown") or ()
    if not isinstance(names, list | tuple) or not all(name in _H36M.joint_names for name in names):
        raise DataError(f"unknown of clip {key!r} in 'meta' of {path} is {shown(names)}, expected names of joints.")
    return tuple(names)


def _checked(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f":
        raise DataError(f"array {key!r} of {path} has dtype {array.dtype}, expected floating point.")
    if array.ndim != 3 or array.shape[1:] != (17, 3) or len(array) == 0:
        raise DataError(f"array {key!r} of {path} has shape {list(array.shape)}, expected [T, 17, 3] with T >= 1.")
    if not np.isfinite(array).all():
        frame = int(np.nonzero(~np.isfinite(array).all(axis=(1, 2)))[0][0])
        raise DataError(f"array {key!r} of {path} has NaN or infinite values, first in frame {frame}.")
    return array.astype(np.float32)


def save_archive(path: str | os.PathLike[str], clips: Sequence[Clip], meta: Mapping[str, Any] | None = None) -> None:
    """Write a clip archive that :func:`load_archive` reads; the file appears complete or not at all.

    Args:
        path: the file to write; an existing one is replaced.
        clips: all of one frame rate, no two with the same subject and name.
        meta: further entries for `meta` (source, licence, ...); what describes the arrays (`fps`, `units`,
            `joint_names`, `parents`, `clips`) is filled in from the clips and the skeleton. Must be JSON-serialisable.

    Raises:
        DataError: no clips, a key twice, clips of different rates, or a `meta` that JSON can't hold.
        MissingFileError: the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise MissingFileError(f"the folder {path.parent} does not exist, expected one to write {path.name} to.")
    if not clips:
        raise DataError(f"there are no clips to write to {path}, expected at least one.")
    rates = sorted({clip.fps for clip in clips})
    if len(rates) > 1:
        raise DataError(f"the clips for {path} have {rates[0]:g} and {rates[-1]:g} fps, expected one frame rate.")
    arrays: dict[str, Any] = {}
    for clip in clips:
        if clip.key in arrays:
            raise DataError(f"two clips for {path} are called {clip.key!r}, expected different subjects or names.")
        arrays[clip.key] = clip.positions
    known = {entry["key"]: entry for entry in (meta or {}).get("clips", []) if isinstance(entry, dict)}
    entries = [{**known.get(c.key, {}), **_entry(c)} for c in clips]
    full = {
        **(meta or {}),
        "format": 'one float32 array (T,17,3) per clip under the key "<subject>/<clip>"; this JSON string under "meta"',
        "fps": rates[0],
        "units": "metre",
        "joint_names": list(_H36M.joint_names),
        "parents": list(_H36M.parents),
        "clips": entries,
        "subjects": sorted({c.subject for c in clips}),
    }
    try:
        text = json.dumps(full)
    except (TypeError, ValueError) as error:
        raise DataError(f"meta for {path} is not JSON-serialisable: {_reason(error)}.") from error
    arrays = {"meta": np.array(text), **arrays}
    with new_file(path) as file:
        np.savez_compressed(file, **arrays)


def _entry(clip: Clip) -> dict[str, Any]:
    """What `meta["clips"]` says of a clip."""
    entry = {"key": clip.key, "subject": clip.subject, "action": clip.action, "frames": len(clip)}
    return entry | ({"unknown": list(clip.unknown)} if clip.unknown else {})
