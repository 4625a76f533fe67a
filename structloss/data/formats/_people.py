"""From keypoints in a file to tracks of people: what the readers of the forms share."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, check_choice
from ._tracks import Detection, choose_tracks, fill, make_tracks
from .keypoint_maps import LAYOUTS, layout_of_size
from .keypoint_track import Keypoints

__all__ = [
    "array_track",
    "as_track",
    "chosen",
    "described",
    "frame_numbers",
    "keypoints_of",
    "load_json",
    "pixels",
    "positive",
    "tracks_of",
]

# Number of keypoints per person -> layout; COCO-WholeBody's 133 are those of h3wb, Halpe's 136 begin with its 26.
_SIZES = {17: "coco", 25: "body25", 26: "halpe26", 133: "h3wb", 136: "halpe26"}


def load_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it is not valid JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {' '.join(str(error).split())[:120].rstrip('.')}.") from error


def described(content: Any) -> str:
    """What some JSON is, in a few words."""
    if isinstance(content, Mapping):
        return f"an object with {', '.join(map(str, list(content)[:5])) or 'nothing'}"
    return f"a {type(content).__name__} of {len(content)}" if isinstance(content, (list, str)) else repr(content)


def keypoints_of(path: Path, where: str, values: Any) -> np.ndarray:
    """`[J, 3]` from x, y, confidence, x, y, ..."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} in {path} is {described(values)}, expected numbers.") from error
    if array.ndim == 2 and array.shape[1] == 3:
        return array
    if array.ndim != 1 or array.size == 0 or array.size % 3:
        raise DataError(f"{where} in {path} has shape {list(array.shape)}, expected x, y, confidence of each keypoint.")
    return array.reshape(-1, 3)


def frame_numbers(path: Path, names: Sequence[Any]) -> list[int]:
    """The number of each frame from its name (the last digits in it) or from the number that it is."""
    numbers = []
    for name in names:
        digits = re.findall(r"\d+", Path(str(name)).stem) if not isinstance(name, int) else [name]
        if not digits:
            raise DataError(f"{path} has the frame {name!r}, expected a number in its name.")
        numbers.append(int(digits[-1]))
    distinct = len(set(numbers))
    if max(numbers) - min(numbers) >= 100 * distinct:
        raise DataError(
            f"{path} has {distinct} frames with numbers from {min(numbers)} to {max(numbers)}, expected consecutive "
            "frames of a video."
        )
    return numbers


def tracks_of(
    path: Path, name: str, detections: list[Detection], layout: str | None, person: str | int,
    width: int | None = None, height: int | None = None,
) -> list[Keypoints]:  # fmt: skip
    """The chosen people of one video."""
    sizes = {len(detection.keypoints) for detection in detections}
    if len(sizes) > 1:
        raise DataError(f"{path} has people of {' and '.join(map(str, sorted(sizes)))} keypoints, expected one number.")
    if not sizes:
        raise DataError(f"{path} has no people in any frame.")
    (size,) = sizes
    layout = layout or _SIZES.get(size)
    if layout is None:
        raise DataError(f"{path} has {size} keypoints per person, expected {', '.join(map(str, _SIZES))}.")
    wanted = LAYOUTS[layout].size
    if size < wanted:
        raise DataError(f"{path} has {size} keypoints per person, expected {wanted} for the layout {layout!r}.")
    out = []
    people = choose_tracks(path, make_tracks(detections), person)
    for track in people:
        start = track.detections[0].frame
        values = np.full((track.detections[-1].frame - start + 1, wanted, 3), np.nan)
        for detection in track.detections:
            values[detection.frame - start] = detection.keypoints[:wanted]
        values[..., 2] = np.minimum(values[..., 2], 1.0)
        label = name if len(people) == 1 else f"{name}/{track.person}"
        out.append(as_track(path, label, values, layout, width, height, start=start))
    return out


def chosen(path: Path, tracks: list[Keypoints], person: str | int) -> list[Keypoints]:
    """The tracks of a file in which every array is one person's: all, or the one with the number `person`."""
    if isinstance(person, str):
        check_choice("person", person, ("longest", "largest", "all"))
        return tracks
    if not 0 <= person < len(tracks):
        raise DataError(f"{path} has no person {person}, expected 0 to {len(tracks) - 1}.")
    return [tracks[person]]


def positive(value: Any) -> float | None:
    """A positive number that a file may tell; None where it does not."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < float("inf") else None


def pixels(value: Any) -> int | None:
    """A positive number of pixels that a file may tell; None where it does not."""
    number = positive(value)
    return None if number is None else max(1, round(number))


def array_track(
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
                f"{path} doesn't say what its {array.shape[1]} keypoints are; set layout, one of {', '.join(LAYOUTS)}."
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
        raise DataError(f"{name!r} of {path} has no keypoint with a confidence above 0 in any frame.")
    edges = np.flatnonzero(np.diff(np.concatenate([[True], seen.any(1), [True]]).astype(int)))
    full = fill(keypoints, LAYOUTS[layout].mirror)
    gaps = tuple((int(a), int(b)) for a, b in edges.reshape(-1, 2))
    return Keypoints(name, full[..., :2], full[..., 2], width, height, fps, layout, start, gaps)
