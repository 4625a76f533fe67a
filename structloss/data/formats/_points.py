"""A person's keypoints in a frame, in the shapes that JSON files give them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ._json import described
from .keypoint_maps import LAYOUTS

__all__ = ["keypoints_of", "names_of", "scores_of"]

_SCORES = ("visibility", "score", "confidence", "conf", "likelihood", "visible", "presence", "v", "c")
_NAMES = ("name", "part", "label", "joint", "id_name")
_SIZES = {size for entry in LAYOUTS.values() if entry.told_by_size for size in entry.sizes}
_ALL_SIZES = {size for entry in LAYOUTS.values() for size in entry.sizes}
_SURE = 10  # no detector's confidence is above it


def keypoints_of(path: Path, where: str, values: Any, scores: Any = None) -> np.ndarray:
    """Keypoints `[J, 3]`, of x, y and confidence. At (0, 0) is what the detector did not find: its confidence is 0.

    Args:
        path, where: of the values, for messages.
        values: numbers in one row, x, y and confidence of each keypoint; lists of 2 (x, y), 3 (x, y, confidence) or 4
            (x, y, depth, confidence) for each keypoint; an object with x and y for each keypoint, in a list or by name;
            or an object with the lists x and y. Without a confidence it is 1.
        scores: confidences, if they stand apart: lists have x and y then.

    Raises:
        DataError: anything else.
    """
    array = _array_of(path, where, values, scores)
    array[~array[:, :2].any(1), 2] = 0.0
    return array


def _array_of(path: Path, where: str, values: Any, scores: Any) -> np.ndarray:
    if isinstance(values, Mapping):
        lists = isinstance(values.get("x"), list) and isinstance(values.get("y"), list)
        if lists:
            return _of_lists(path, where, values)
        values = list(values.values())
    first = values[0] if isinstance(values, list) and values else 0.0
    if isinstance(first, Mapping) or (first is None and any(isinstance(point, Mapping) for point in values)):
        return np.array([_of_point(path, where, point) for point in values])
    array = _numbers(path, where, values)
    if scores is not None:
        return _joined(path, where, array, scores)
    if array.ndim == 1:
        array = array.reshape(-1, width) if (width := _width(array)) else array
    if array.ndim != 2 or array.shape[1] not in (2, 3, 4) or len(array) == 0:
        raise DataError(f"{where} in {path} has shape {list(array.shape)}, expected x, y, confidence of each keypoint.")
    if array.shape[1] == 2:
        return _sure(array)
    return array[:, [0, 1, array.shape[1] - 1]]


def _width(row: np.ndarray) -> int:
    """How many numbers of a row belong to each keypoint; 0 where it can't be told."""
    if row.size == 4 * LAYOUTS["mediapipe"].size:
        return 4
    pairs = row.size > 0 and row.size % 2 == 0 and row.size // 2 in _SIZES
    if row.size % 3 or row.size == 0:
        return 2 if pairs else 0
    triples = row.size // 3 in _ALL_SIZES and not (row[2::3] > _SURE).any()
    return 3 if triples or not pairs else 2


def scores_of(one: Mapping[str, Any]) -> Any:
    """The confidences that stand beside a person's keypoints; None where there are none."""
    for key in ("keypoint_scores", "keypoints_scores", "keypoint_score", "kp_scores", "kp_score", "scores"):
        if isinstance(one.get(key), list):
            return one[key]
    return one["score"] if isinstance(one.get("score"), list) else None


def names_of(values: Any) -> list[str] | None:
    """Names of the keypoints, where each tells its own; None otherwise."""
    if isinstance(values, Mapping):
        if isinstance(values.get("x"), list):
            return None
        return [str(key) for key in values] if not all(str(key).isdecimal() for key in values) else None
    if not isinstance(values, list):
        return None
    named = [next((point[key] for key in _NAMES if isinstance(point.get(key), str)), None) if isinstance(point, Mapping)
             else None for point in values]  # fmt: skip
    return [name for name in named if name is not None] if all(named) and named else None


def _numbers(path: Path, where: str, values: Any) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where} in {path} is {described(values)}, expected numbers.") from error


def _sure(places: np.ndarray) -> np.ndarray:
    """`[J, 2]` with confidence 1."""
    return np.concatenate([places, np.ones((len(places), 1))], axis=1)


def _joined(path: Path, where: str, places: np.ndarray, scores: Any) -> np.ndarray:
    confidence = _numbers(path, f"the scores of {where}", scores).reshape(-1)
    if places.ndim == 1 and places.size == 2 * confidence.size:
        places = places.reshape(-1, 2)
    if places.shape != (len(confidence), 2) or not len(confidence):
        found = f"shape {list(places.shape)} beside {len(confidence)} scores"
        raise DataError(f"{where} in {path} has {found}, expected x and y for each.")
    return np.concatenate([places, confidence[:, None]], axis=1)


def _of_lists(path: Path, where: str, values: Mapping[str, Any]) -> np.ndarray:
    """From `{"x": [...], "y": [...], "visible": [...]}`."""
    x, y = (_numbers(path, f"{key} of {where}", values[key]) for key in ("x", "y"))
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise DataError(f"{where} in {path} has {x.size} x and {y.size} y, expected as many of both.")
    places = np.stack([x, y], axis=1)
    scores = next((values[key] for key in _SCORES if isinstance(values.get(key), list)), None)
    return _sure(places) if scores is None else _joined(path, where, places, scores)


def _of_point(path: Path, where: str, point: Any) -> list[float]:
    """x, y and confidence of an object with x and y, or with a position that has them; of null, what was not seen."""
    if point is None:
        return [np.nan, np.nan, 0.0]
    place = point.get("position", point) if isinstance(point, Mapping) else None
    if not isinstance(place, Mapping) or "x" not in place or "y" not in place:
        raise DataError(f"{where} in {path} has the keypoint {described(point)}, expected an object with x and y.")
    score = next((point[key] for key in _SCORES if point.get(key) is not None), 1.0)
    values = [place["x"], place["y"], score]
    return [float(value) for value in _numbers(path, where, values)]
