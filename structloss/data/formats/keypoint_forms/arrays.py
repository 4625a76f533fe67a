"""Keypoints as a bare array of NumPy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import DataError, StructlossError
from ....reading import regular
from .._people import array_track, chosen, in_pixels, pixels, told_rate
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_maps import LAYOUTS, layout_of_size
from ..keypoint_track import Keypoints
from ..unpickle import load_npz_objects

__all__: list[str] = []

_POSES = ("reconstruction", "positions", "positions_3d", "poses", "poses_3d", "joints_3d", "keypoints_3d")


def _read(file: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    path = file.path
    content = _load_npy(path) if file.suffix == ".npy" else load_npz_objects(path)
    arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray) and value.ndim in (3, 4)}
    if "keypoints" in content:
        array = content["keypoints"]
    elif len(arrays) == 1:
        ((name, array),) = arrays.items()
        if name in _POSES and array.shape[-1] == 3:
            raise DataError(f"{path} holds {name}, which are 3D poses, expected 2D keypoints.")
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
    asked = layout
    layout = layout or described.get("skeleton") or layout_of_size(array.shape[-2])
    width, height = file.image_size or (pixels(described.get("width")), pixels(described.get("height")))
    if not isinstance(layout, str) or layout not in LAYOUTS:
        several = [name for name, entry in LAYOUTS.items() if entry.size == array.shape[-2]] or list(LAYOUTS)
        size = "" if width and height else "; nor how large its images are: set image_size, in pixels, too"
        raise DataError(
            f"{path} has {array.shape[-2]} keypoints and doesn't say which; set layout, one of {', '.join(several)}"
            f"{size}."
        )
    if layout == "mediapipe" and array.shape[-1] in (3, 4):
        array = in_pixels(path, _with_visibility(array), (width, height))
    fps = told_rate(path, described.get("fps"))
    if asked is None and array.ndim == 3 and array.shape[-1] == 3 and _is_ours(described, array):
        return chosen(path, [_ours(path, described, array, layout, width, height, fps)], person)
    people = array[None] if array.ndim == 3 else array
    names = [path.stem] if len(people) == 1 else [f"{path.stem}/{i}" for i in range(len(people))]
    tracks = [array_track(path, name, one, layout, width, height, fps) for name, one in zip(names, people, strict=True)]
    return chosen(path, tracks, person)


def _is_ours(described: Mapping[str, Any], array: np.ndarray) -> bool:
    """Whether it is a file of predictions, in which all keypoints have places, also those of confidence 0."""
    skeleton = LAYOUTS.get(str(described.get("skeleton")))
    return "input_layout" in described and skeleton is not None and skeleton.size == array.shape[1] and bool(
        np.isfinite(array).all()
    )  # fmt: skip


def _ours(
    path: Path, described: Mapping[str, Any], array: np.ndarray, layout: str, width: int | None, height: int | None,
    fps: float | None,
) -> Keypoints:  # fmt: skip
    """The keypoints that a prediction was made from, as they were."""
    start, gaps = described.get("first_frame"), described.get("gaps")
    try:
        pairs = tuple((int(first), int(end)) for first, end in gaps or ())
    except (TypeError, ValueError):
        pairs = ()
    confidence = np.clip(array[..., 2], 0, 1)
    start = start if isinstance(start, int) else 0
    return Keypoints(path.stem, array[..., :2], confidence, width, height, fps, layout, start, pairs)


def _with_visibility(array: np.ndarray) -> np.ndarray:
    """MediaPipe's x, y, z, visibility as x, y, visibility; of x, y, z, where depths are below 0, x, y and 1."""
    array = array.astype(np.float64)
    if array.shape[-1] == 4:
        return array[..., [0, 1, 3]]
    if (array[..., 2] < 0).any():
        array[..., 2] = 1
    return array


def _load_npy(path: Path) -> dict[str, Any]:
    try:
        # Mapped, so that a header can't ask for more memory than the file has bytes.
        return {"keypoints": np.array(np.load(regular(path, "keypoints"), mmap_mode="r", allow_pickle=False))}
    except (ValueError, OSError, EOFError, OverflowError, MemoryError) as error:
        if isinstance(error, StructlossError):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise DataError(f"{path} is no readable array: {reason}.") from error


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


FORMS.register(KeypointForm("arrays", "an array [T, J, 2] or [T, J, 3]", _read, suffixes=(".npz", ".npy")))
