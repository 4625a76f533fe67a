"""MediaPipe's pose landmarks, as people write them to JSON: the 33 points of every frame, x and y from 0 to 1.

There is no official file. A frame is a list of points, a list of people's points, or an object with one of them under
`landmarks`, `pose_landmarks` or `poseLandmarks`. Frames are a list, or an object by number, alone or under `frames`.
Points are objects with x, y and visibility, in MediaPipe's order or with names, or lists x, y, z, visibility. The
points of TensorFlow.js have the same form, in pixels and with names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .._frame_lists import Frame, frame_of, people_read, video_of
from .._json import first_of, told
from ..candidate import CERTAIN, NO
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_maps import LAYOUTS
from ..keypoint_track import Keypoints

__all__: list[str] = []

_POINTS = ("pose_landmarks", "poseLandmarks", "landmarks", "landmark", "pose")
_FRAMES = ("frames", "data", "results", "poses")
_COUNT = LAYOUTS["mediapipe"].size
_PEOPLE = 4  # an object with more lists of points than this has frames, with fewer the people of an image


def _is_point(value: Any) -> bool:
    """Whether it is a landmark with coordinates."""
    return isinstance(value, Mapping) and ({"x", "y"} <= value.keys() or "position" in value)


def _is_pose(value: Any) -> bool:
    """Whether it is one person's points: objects in a list or by name, or MediaPipe's number of lists or numbers."""
    if isinstance(value, Mapping):
        return bool(value) and all(_is_point(point) for point in value.values())
    if not isinstance(value, list) or not value:
        return False
    if any(_is_point(point) for point in value):
        return all(point is None or _is_point(point) for point in value)
    rows = len(value) == _COUNT and all(isinstance(row, list) and len(row) in (2, 3, 4) for row in value)
    numbers = all(isinstance(row, list) and all(isinstance(x, (int, float)) for x in row) for row in value)
    return (rows and numbers) or (
        len(value) in (4 * _COUNT, 3 * _COUNT, 2 * _COUNT) and all(isinstance(x, (int, float)) for x in value)
    )


def _is_frame(value: Any) -> bool:
    """Whether it is a frame in which somebody was seen."""
    if _is_pose(value) or (isinstance(value, list) and value and all(_is_pose(one) for one in value)):
        return True
    inner = first_of(value, *_POINTS) if isinstance(value, Mapping) else None
    return inner is not None and _is_frame(inner)


def _frames(content: Any) -> list[tuple[Any, Any]]:
    """(Name or None, frame) of a file; nothing, if it has none."""
    if _is_frame(content):
        inner = first_of(content, *_POINTS) if isinstance(content, Mapping) else content
        if not _is_pose(content) and not _is_pose(inner) and isinstance(inner, list) and len(inner) > _PEOPLE:
            return [(None, frame) for frame in inner]
        if isinstance(content, list) and not _is_pose(content):
            return [(None, frame) for frame in content]
        return [(None, content)]
    if isinstance(content, Mapping):
        listed = first_of(content, *_FRAMES, *_POINTS)
        if isinstance(listed, (list, Mapping)):
            return _frames(listed)
        named = [(name, frame) for name, frame in content.items() if any(c.isdigit() for c in str(name))]
        return named if any(_is_frame(frame) for _, frame in named) else []
    if isinstance(content, list) and any(_is_frame(entry) for entry in content):
        return [(None, frame) for frame in content]
    return []


def _sniff(file: KeypointFile) -> int:
    return CERTAIN if file.suffix == ".json" and _frames(file.json) else NO


def _read(file: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    frames = []
    for name, entry in _frames(file.json):
        frame = Frame([entry]) if _is_pose(entry) else frame_of(file.path, entry, _POINTS)
        people = [frame.people] if _is_pose(frame.people) else frame.people
        people = [{"keypoints": _with_visibility(points)} for points in people if points]
        frames.append(replace(frame, people=people, label=frame.label if name is None else name))
    return people_read(file, frames, video_of(file, told(file.json)), layout, person)


def _with_visibility(points: Any) -> Any:
    """Points as they are, but x, y, z without visibility get one of 1: a depth may be below 0."""
    if not isinstance(points, list) or not _is_pose(points) or any(_is_point(point) for point in points):
        return points
    array = np.array(points, dtype=np.float64).reshape(_COUNT, -1)
    if array.shape[1] == 3 and (array[:, 2] < 0).any():
        array[:, 2] = 1
    return array.tolist()


FORMS.register(
    KeypointForm(
        "mediapipe", "MediaPipe's landmarks (x, y and visibility of 33 points per frame)", _read, suffixes=(".json",),
        sniff=_sniff,
    )
)  # fmt: skip
