"""JSON with the people of each frame: what the readers of several detectors' output share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...reading import parse_json
from ._frame_numbers import FrameNumbers, frame_numbers, timed
from ._json import described, first_of
from ._people import Video, identity_of, keypoints_of, told_pixels, told_rate, tracks_of
from ._points import names_of, scores_of
from ._tracks import Detection
from .keypoint_form import KeypointFile
from .keypoint_track import Keypoints

__all__ = ["FRAME_KEYS", "Frame", "frame_of", "frames_of", "people_read", "video_of"]

FRAME_KEYS = (
    "frame_id", "frame", "frame_index", "frame_idx", "frame_number", "frameIndex", "frameNumber", "index", "image_id",
    "image_name", "file_name", "filename", "image_path", "img_path",
)  # fmt: skip
_LONGEST = 1e15  # milliseconds
_MILLISECONDS = ("timestamp_ms", "timestampMs", "time_ms")
_TIMES = ("timestamp", "time", "t", "seconds")
_PERSON = ("keypoints", "pose_keypoints_2d", "pose_keypoints", "keypoints_2d", "joints", "pose", "landmarks")
_IDENTITIES = ("track_id", "idx", "person_id", "id_", "tracking_id")


@dataclass(frozen=True)
class Frame:
    """The people of a frame, with its name, number or time; None is its place among the others.

    Attributes:
        people: an object with keypoints for each; or what they are in a form's own terms.
        label: name or number of the frame.
        milliseconds: its time, where it has no label.
    """

    people: Sequence[Any]
    label: Any = None
    milliseconds: Any = None


def frame_of(path: Path, entry: Any, keys: Sequence[str]) -> Frame:
    """An entry of a list of frames: a list of people, an object that has one under one of the keys, JSON of either as
    text, or null, where there was nobody."""
    if isinstance(entry, str):
        entry = parse_json(entry, f"an entry of {path}")
    if entry is None or isinstance(entry, list):
        return Frame(entry or [])
    if not isinstance(entry, Mapping):
        raise DataError(f"{path} has the frame {described(entry)}, expected the people in it.")
    people = first_of(entry, *keys)
    if isinstance(people, Mapping):
        people = [people]
    if people is not None and not isinstance(people, list):
        raise DataError(f"a frame of {path} has the people {described(people)}, expected a list.")
    label = first_of(entry, *FRAME_KEYS)
    milliseconds = first_of(entry, *_MILLISECONDS)
    if label is None and milliseconds is None:
        label = first_of(entry, *_TIMES)
    return Frame(people or [], label, milliseconds)


def frames_of(path: Path, content: Any, keys: Sequence[str]) -> list[Frame]:
    """The frames of a list, or of an object that has them by name."""
    if isinstance(content, Mapping):
        return [replace(frame_of(path, entry, keys), label=name) for name, entry in content.items()]
    return [frame_of(path, entry, keys) for entry in content]


def _numbers(path: Path, frames: Sequence[Frame]) -> FrameNumbers:
    labels = [frame.label for frame in frames]
    times = [frame.milliseconds for frame in frames]
    if all(label is None for label in labels):
        if times and all(isinstance(time, (int, float)) and 0 <= time < _LONGEST for time in times):
            return timed(times, 1e3)
        return FrameNumbers(list(range(len(frames))))
    return frame_numbers(path, labels)


def people_read(
    file: KeypointFile, frames: Sequence[Frame], video: Video, layout: str | None, person: str | int
) -> list[Keypoints]:
    """The chosen people of all frames, each person an object with keypoints. Objects without any are nobody.

    Raises:
        DataError: see :func:`~structloss.data.formats.read_keypoints`.
    """
    path = file.path
    numbers = _numbers(path, frames) if frames else FrameNumbers([])
    detections, names = [], video.names
    for number, frame in zip(numbers.numbers, frames, strict=True):
        for i, one in enumerate(frame.people):
            where = f"person {i} of frame {number}"
            if not isinstance(one, Mapping):
                raise DataError(f"{where} in {path} is {described(one)}, expected an object with keypoints.")
            values = first_of(one, *_PERSON)
            if not values:
                continue
            names = names or names_of(values)
            keypoints = keypoints_of(path, f"keypoints of {where}", values, scores_of(one))
            identity = identity_of(path, f"the identity of {where}", first_of(one, *_IDENTITIES))
            detections.append(Detection(number, keypoints, identity))
    video = replace(video, names=names, fps=video.fps or numbers.fps, notes=(*video.notes, *numbers.notes))
    return tracks_of(file, video, detections, layout, person)


def video_of(file: KeypointFile, told: Mapping[str, Any], names: Iterable[object] | None = None) -> Video:
    """What a file says of its video; see :func:`~structloss.data.formats._json.told`."""
    size: tuple[int | None, int | None] = file.image_size or (None, None)
    if file.image_size is None:
        width, height = (told_pixels(file.path, f"the {key}", told.get(key)) for key in ("width", "height"))
        size = (width, height)
    return Video(file.path.stem, *size, told_rate(file.path, told.get("fps")), None if names is None else list(names))
