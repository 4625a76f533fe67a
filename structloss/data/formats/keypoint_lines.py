"""Keypoints as they come: one person in one frame as a line of JSON, and a person's frames in a row.

A line is an object:

    {"keypoints": [[953.1, 411.7, 0.98], ...], "person": 3, "frame": 128, "time": 5.12, "image_size": [1920, 1080]}

Only `keypoints` must be there: in any of the shapes that detectors give a person's keypoints (lists of x, y and
confidence, numbers in a row, objects with x and y), in pixels; null where nobody was found. `person` is a number or a
text and tells several people apart. `frame` is a whole number, `time` is in seconds; without both, lines of a person
are consecutive frames. `image_size` (or `width` and `height`) is in pixels. `{"person": 3, "end": true}` says that no
more come of that person. Anything else in the object is left alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import ArgumentError, DataError, shown
from ...reading import decoded, parse_json
from ._json import described, first_of, told
from ._points import keypoints_of, scores_of
from ._tracks import fill, seen_in
from .keypoint_maps import LAYOUTS, layout_of_size
from .keypoint_track import Keypoints

__all__ = ["LONGEST_LINE", "KeypointLine", "PersonSeen", "bounded_lines", "known_layout", "parse_keypoint_line"]

LONGEST_LINE = 1 << 20
"""Bytes of a line; that of 133 keypoints has some 5,000."""

_PATIENCE = 30  # frames after which somebody who was not seen begins anew, as in files
_LARGEST = 2**53  # no frame's number is as large
_LONGEST_NAME = 200


@dataclass(frozen=True)
class KeypointLine:
    """What a line says.

    Attributes:
        keypoints: float64 `[J, 3]`: x, y in pixels and confidence, which is 0 where nothing was found; None for null,
            and at an `end`.
        person: who it is; None where the line doesn't say.
        frame: its number; None where the line doesn't say.
        time: seconds; None likewise.
        width, height: of the image, pixels; None likewise.
        end: no more come of this person.
    """

    keypoints: np.ndarray | None
    person: int | str | None = None
    frame: int | None = None
    time: float | None = None
    width: int | None = None
    height: int | None = None
    end: bool = False


def bounded_lines(stream: BinaryIO, longest: int = LONGEST_LINE) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a stream as soon as they are there, with their numbers from 1; None in place of one that is longer
    than `longest` bytes, as soon as it is: what follows of it is read and forgotten. Empty lines are left out."""
    number = 0
    while line := stream.readline(longest + 1):
        number += 1
        if len(line) > longest and not line.endswith(b"\n"):
            yield number, None
            while (rest := stream.readline(io.DEFAULT_BUFFER_SIZE)) and not rest.endswith(b"\n"):
                pass
        elif line.strip():
            yield number, line


def parse_keypoint_line(text: bytes, number: int) -> KeypointLine:
    """Read a line, see the module.

    Args:
        text: of the line.
        number: of the line, for messages.

    Raises:
        DataError: no JSON, no object, or something in it that can't be.
    """
    where = f"line {number}"
    content = parse_json(decoded(text), where)
    if not isinstance(content, Mapping):
        raise DataError(f'{where} is {described(content)}, expected an object as in {{"keypoints": [[x, y, c], ...]}}.')
    person, frame, time = (content.get(key) for key in ("person", "frame", "time"))
    if person is not None and (
        isinstance(person, bool) or not isinstance(person, (int, str)) or len(str(person)) > _LONGEST_NAME
    ):
        raise DataError(f"person of {where} is {shown(person)}, expected a number or a text.")
    if frame is not None and (isinstance(frame, bool) or not isinstance(frame, int) or not abs(frame) < _LARGEST):
        raise DataError(f"frame of {where} is {shown(frame)}, expected a whole number.")
    if time is not None and (isinstance(time, bool) or not isinstance(time, (int, float)) or not abs(time) < _LARGEST):
        raise DataError(f"time of {where} is {shown(time)}, expected a number of seconds.")
    end = content.get("end", False)
    if not isinstance(end, bool):
        raise DataError(f"end of {where} is {shown(end)}, expected true or false.")
    if end:
        return KeypointLine(None, person, frame, time, end=True)
    if "keypoints" not in content:
        raise DataError(f"{where} is {described(content)}, expected keypoints in it.")
    size = told(content)
    both = content.get("image_size")
    if both is not None and not (isinstance(both, list) and len(both) == 2):
        raise DataError(f"the size of the image in {where} is {shown(both)}, expected [width, height].")
    for key in ("width", "height"):
        value = size.get(key)
        if value is not None and (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not 1 <= value < 1e6
            or value != int(value)
        ):
            raise DataError(f"{key} of {where} is {shown(value)}, expected a number of pixels.")
    keypoints = content["keypoints"]
    if keypoints is not None and keypoints != []:
        scores = first_of(content, "confidence") if isinstance(content.get("confidence"), list) else scores_of(content)
        keypoints = keypoints_of(Path(where), "keypoints", keypoints, scores)
        keypoints[:, 2] = np.clip(np.nan_to_num(keypoints[:, 2], nan=0.0), 0, 1)
        keypoints[~seen_in(keypoints), 2] = 0
    else:
        keypoints = None
    width, height = (None if size.get(key) is None else int(size[key]) for key in ("width", "height"))
    return KeypointLine(keypoints, person, frame, time, width, height)


def known_layout(joints: int, layout: str | None = None) -> str:
    """The layout of so many keypoints; None tells it by their number, as of files.

    Raises:
        DataError: it can't be told, or they are not as many as the layout has.
    """
    if layout is None:
        layout = layout_of_size(joints)
        if layout is None:
            raise DataError(
                f"{joints} keypoints may be of any layout, expected one to be named; set layout, one of "
                f"{', '.join(LAYOUTS)}."
            )
    if joints not in LAYOUTS[layout].sizes:
        raise DataError(f"there are {joints} keypoints, expected {LAYOUTS[layout].size} for the layout {layout!r}.")
    return layout


class PersonSeen:
    """One person's frames as they come, and what stands for keypoints that were not found.

    As in files, a keypoint that is missing has confidence 0. It stays where it was last seen, since nobody knows yet
    where it will be; one that was never seen lies where its partner of the other side does, else in the middle of all
    others. Frames in which nobody was seen are made up when somebody is seen again: straight lines to there, of
    confidence 0. After more than 30 of them the person begins anew.

    Args:
        fps: frames per second, for frames that are told by their times; None takes those as consecutive.
    """

    def __init__(self, fps: float | None = None) -> None:
        self._fps = fps
        self._layout: str | None = None
        self._last: np.ndarray | None = None  # [J, 3], filled, its confidence 1 for what was ever seen
        self._number: int | None = None  # of the last frame in which somebody was seen
        self._told: int | None = None  # of the last frame
        self._time: float | None = None

    def number(self, frame: int | None, time: float | None = None) -> int:
        """The number of the next frame, which is told by its own number, by its time, or follows the one before.

        Raises:
            ArgumentError: it does not come after the frame before.
        """
        told, before = self._told, self._time
        if frame is not None:
            if told is not None and frame <= told:
                raise ArgumentError(f"frame is {frame}, expected more than {told}, the one before.")
            found = frame
        elif told is None:
            found = 0
        elif time is not None and before is not None and self._fps is not None:
            if not time > before:
                raise ArgumentError(f"time is {time}, expected more than {before}, that of the frame before.")
            found = told + max(1, round(min((time - before) * self._fps, 1e9)))
        else:
            found = told + 1
        self._told, self._time = found, time
        return found

    def begins_anew(self, number: int) -> bool:
        """Whether the person was away for so long that what comes next has nothing to do with what was before."""
        return self._number is not None and number - self._number - 1 > _PATIENCE

    def forget(self) -> None:
        """Begin anew; numbers go on."""
        self._last = self._number = None

    def check_layout(self, layout: str) -> None:
        """Raise :class:`ArgumentError` for another layout than that of the frames before."""
        if self._layout not in (None, layout):
            raise ArgumentError(
                f"keypoints are of the layout {layout!r}, expected {self._layout!r}, that of this person before."
            )

    def take(self, keypoints: np.ndarray, number: int, layout: str, width: int, height: int) -> Keypoints:
        """The frame, and before it those since the last one in which somebody was seen.

        Args:
            keypoints: `[J, 3]` with at least one of a confidence above 0.
            number: see :meth:`number`.
            layout: one of :data:`~structloss.data.formats.keypoint_maps.LAYOUTS`.
            width, height: of the image, pixels.
        """
        self._layout, entry = layout, LAYOUTS[layout]
        now = np.asarray(keypoints, np.float64)[: entry.size]
        gap = 0 if self._number is None else number - self._number - 1
        if gap == 0 and seen_in(now).all():
            full = now[None]
        else:
            rows = [] if self._last is None else [self._last, *([np.full_like(now, np.nan)] * gap)]
            full = fill(np.stack([*rows, now]), entry.mirror)[1 if rows else 0 :]
        ever = seen_in(now) | (False if self._last is None else self._last[:, 2] > 0)
        self._last = np.concatenate([full[-1, :, :2], ever[:, None]], axis=1).astype(np.float64)
        self._number = number
        return Keypoints("the stream", full[..., :2], full[..., 2], width, height, self._fps, layout)
