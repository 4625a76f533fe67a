"""2D keypoints in NumPy files: VideoPose3D's nested dictionaries, and bare arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, check_choice
from ..cameras import h36m_cameras
from ._tracks import fill
from .keypoint_maps import LAYOUTS, layout_of_size
from .keypoints import Keypoints
from .unpickle import load_npz_objects

__all__ = ["read_arrays"]

_SYMMETRY = {  # left joints -> layout, in VideoPose3D's metadata
    (4, 5, 6, 11, 12, 13): "h36m",
    (1, 3, 5, 7, 9, 11, 13, 15): "coco",
    (3, 4, 5, 13, 14, 15): "mpii",
    (5, 6, 7, 11, 12, 13): "mpi_inf_3dhp",
}


def read_arrays(path: Path, layout: str | None, person: str | int) -> list[Keypoints]:
    """Tracks of an npz or npy file, where every array is one person's; a number for `person` takes that one."""
    if path.suffix.lower() == ".npy":
        try:
            content: dict[str, Any] = {"keypoints": np.load(path, allow_pickle=False)}
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{path} is no readable array: {str(error).splitlines()[0].rstrip('.')}.") from error
    else:
        content = load_npz_objects(path)
    found = (_videopose3d if "positions_2d" in content else _bare)(path, content, layout)
    if isinstance(person, str):
        check_choice("person", person, ("longest", "largest", "all"))
        return found
    if not 0 <= person < len(found):
        raise DataError(f"{path} has no person {person}, expected 0 to {len(found) - 1}.")
    return [found[person]]


def _videopose3d(path: Path, content: Mapping[str, Any], layout: str | None) -> list[Keypoints]:
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    if layout is None:
        named = metadata.get("layout_name")
        layout = named if isinstance(named, str) and named in LAYOUTS else _layout_by_symmetry(metadata)
    sizes = metadata.get("video_metadata")
    sizes = sizes if isinstance(sizes, Mapping) else {}
    tracks = []
    for subject, action, camera, array, alone in _leaves(path, content["positions_2d"]):
        custom = subject in sizes or action == "custom"
        name = subject if custom else f"{subject}/{action}"
        size = sizes.get(subject) if custom else None
        if custom:
            width, height = (_pixels(size.get(key)) if isinstance(size, Mapping) else None for key in ("w", "h"))
        else:
            eyes = h36m_cameras("S1")  # the size of the image is the camera's, the same for every subject
            width, height = (eyes[camera].width, eyes[camera].height) if camera < len(eyes) else (None, None)
        if not (custom and alone):
            name = f"{name}/{camera}"
        tracks.append(_track(path, name, array, layout, width, height))
    if not tracks:
        raise DataError(f"positions_2d of {path} has no arrays, expected {{subject: {{action: [array of a camera]}}}}.")
    return tracks


def _layout_by_symmetry(metadata: Mapping[str, Any]) -> str | None:
    """The layout with the left joints that the metadata list; None where they don't."""
    try:
        left = tuple(int(j) for j in metadata["keypoints_symmetry"][0])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return _SYMMETRY.get(left)


def _leaves(path: Path, positions: Any) -> Iterator[tuple[str, str, int, Any, bool]]:
    """(subject or video, action, camera, array, whether it is the only camera)."""
    what = "expected {subject: {action: [array of a camera]}}"
    if not isinstance(positions, Mapping):
        raise DataError(f"positions_2d of {path} is a {type(positions).__name__}, {what}.")
    for subject, actions in positions.items():
        if not isinstance(actions, Mapping):
            raise DataError(f"positions_2d[{subject!r}] of {path} is a {type(actions).__name__}, {what}.")
        for action, cameras in actions.items():
            single = isinstance(cameras, np.ndarray) and cameras.ndim == 3 and cameras.dtype != object
            arrays = [cameras] if single else cameras
            if not isinstance(arrays, (list, tuple, np.ndarray)):
                raise DataError(
                    f"positions_2d[{subject!r}][{action!r}] of {path} is a {type(arrays).__name__}, {what}."
                )
            for camera, array in enumerate(arrays):
                yield str(subject), str(action), camera, array, len(arrays) == 1


def _bare(path: Path, content: Mapping[str, Any], layout: str | None) -> list[Keypoints]:
    arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray) and value.ndim in (3, 4)}
    if "keypoints" in content:
        array = content["keypoints"]
    elif len(arrays) == 1:
        (array,) = arrays.values()
    else:
        found = ", ".join(f"{name} {list(np.shape(value))}" for name, value in content.items()) or "nothing"
        raise DataError(f"{path} holds {found}, expected 'keypoints' or a single array [T, J, 2] or [T, J, 3].")
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim not in (3, 4):
        raise DataError(
            f"keypoints of {path} is {getattr(array, 'dtype', type(array).__name__)} of shape {list(np.shape(array))}, "
            "expected numbers [T, J, 2] or [T, J, 3], or several such [N, T, J, ...]."
        )
    confidence = content.get("confidence")
    if confidence is not None and np.shape(confidence) == array.shape[:-1] and array.shape[-1] == 2:
        array = np.concatenate([array, np.asarray(confidence, dtype=np.float64)[..., None]], axis=-1)
    elif confidence is not None:
        raise DataError(
            f"confidence of {path} has shape {list(np.shape(confidence))}, expected {list(array.shape[:-1])} beside "
            "keypoints with x and y."
        )
    described = _described(content)
    layout = layout or described.get("skeleton") or layout_of_size(array.shape[-2])
    if not isinstance(layout, str) or layout not in LAYOUTS:
        several = [name for name, entry in LAYOUTS.items() if entry.size == array.shape[-2]] or list(LAYOUTS)
        raise DataError(
            f"{path} has {array.shape[-2]} keypoints and doesn't say which, expected the layout to be given: one of "
            f"{', '.join(several)}."
        )
    width, height = (_pixels(described.get(key)) for key in ("width", "height"))
    fps = _scalar(described.get("fps"))
    people = array[None] if array.ndim == 3 else array
    names = [path.stem] if len(people) == 1 else [f"{path.stem}/{i}" for i in range(len(people))]
    return [_track(path, name, one, layout, width, height, fps) for name, one in zip(names, people, strict=True)]


def _described(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says about itself: in arrays of their own, or in JSON under "meta" as in our own files."""
    out: dict[str, Any] = {}
    meta = content.get("meta")
    if isinstance(meta, np.ndarray) and meta.dtype.kind == "U" and meta.shape == ():
        try:
            found = json.loads(str(meta))
        except ValueError:
            found = None
        if isinstance(found, dict):
            out.update(found)
    out.update({key: content[key] for key in ("width", "height", "fps") if key in content})
    return out


def _scalar(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None


def _pixels(value: Any) -> int | None:
    number = _scalar(value)
    return None if number is None else max(1, round(number))


def _track(
    path: Path, name: str, array: Any, layout: str | None, width: int | None, height: int | None,
    fps: float | None = None,
) -> Keypoints:  # fmt: skip
    """A track from `[T, J, 2 or more]`; the third number is the confidence, 1 where there is none."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu" or array.ndim != 3 or array.shape[2] < 2 or 0 in array.shape:
        raise DataError(
            f"{name!r} of {path} is {array.dtype} of shape {list(array.shape)}, expected numbers [T, J, 2] or "
            "[T, J, 3]."
        )
    if layout is None:
        layout = layout_of_size(array.shape[1])
        if layout is None:
            raise DataError(
                f"{path} doesn't say what its {array.shape[1]} keypoints are, expected the layout to be given."
            )
    if LAYOUTS[layout].size != array.shape[1]:
        raise DataError(
            f"{name!r} of {path} has {array.shape[1]} keypoints, expected {LAYOUTS[layout].size} for the layout "
            f"{layout!r}."
        )
    full = np.ones((*array.shape[:2], 3))
    full[..., : min(3, array.shape[2])] = array[..., :3]
    full[..., 2] = np.clip(full[..., 2], 0, 1)
    return as_track(path, name, full, layout, width, height, fps)


def as_track(
    path: Path, name: str, keypoints: np.ndarray, layout: str, width: int | None, height: int | None,
    fps: float | None = None, start: int = 0,
) -> Keypoints:  # fmt: skip
    """A track from `[T, J, 3]` whose missing keypoints are NaN or of confidence 0."""
    seen = np.isfinite(keypoints).all(-1) & (keypoints[..., 2] > 0)
    if not seen.any():
        raise DataError(f"{name!r} of {path} has no keypoint of a confidence above 0 in any frame.")
    edges = np.flatnonzero(np.diff(np.concatenate([[True], seen.any(1), [True]]).astype(int)))
    full = fill(keypoints, LAYOUTS[layout].mirror)
    gaps = tuple((int(a), int(b)) for a, b in edges.reshape(-1, 2))
    return Keypoints(name, full[..., :2], full[..., 2], width, height, fps, layout, start, gaps)
