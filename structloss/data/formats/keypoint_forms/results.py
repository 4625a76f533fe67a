"""Result lists of detectors: AlphaPose's, MMPose's and those of others who write COCO's results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....errors import DataError
from .._frame_lists import FRAME_KEYS
from .._json import described, first_of
from .._people import FrameNumbers, Video, frame_numbers, identity_of, keypoints_of, tracks_of
from .._points import names_of, scores_of
from .._tracks import Detection
from ..candidate import CERTAIN, NO
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_track import Keypoints

__all__: list[str] = []

_FRAMES = ("image_id", *FRAME_KEYS)
_BOXES = ("bbox", "box", "boxes", "bbox_score")
_IDENTITIES = ("idx", "track_id", "person_id", "id_")


def _sniff(file: KeypointFile) -> int:
    content = file.json
    there = isinstance(content, list) and content and isinstance(content[0], Mapping) and "keypoints" in content[0]
    return CERTAIN if there else NO


def _frames(file: KeypointFile, content: list[Any]) -> FrameNumbers:
    """The frame of each entry. Where no entry names one, they are the people of an image, if they have boxes, too; else
    the frames of somebody who is alone."""
    path, names = file.path, []
    for i, entry in enumerate(content):
        if not isinstance(entry, Mapping) or "keypoints" not in entry:
            expected = "expected an object with image_id and keypoints"
            raise DataError(f"entry {i} of {path} is {described(entry)}, {expected}.")
        names.append(first_of(entry, *_FRAMES))
    if all(name is None for name in names):
        if len(names) == 1 or any(first_of(entry, *_BOXES) is not None for entry in content):
            return FrameNumbers([0] * len(names))
        note = "no entry says which frame it is of: they are taken as one person's frames, one after the other"
        return FrameNumbers(list(range(len(names))), notes=(note,))
    for i, name in enumerate(names):
        if name is None:
            found = described(content[i])
            raise DataError(f"entry {i} of {path} is {found}, expected an object with image_id and keypoints.")
    return frame_numbers(path, names)


def _read(file: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    """A dictionary per person and frame."""
    path, content = file.path, file.json
    frames = _frames(file, content)
    detections = []
    for i, (frame, entry) in enumerate(zip(frames.numbers, content, strict=True)):
        keypoints = keypoints_of(path, f"keypoints of entry {i}", entry["keypoints"], scores_of(entry))
        identity = identity_of(path, f"the identity of entry {i}", first_of(entry, *_IDENTITIES))
        detections.append(Detection(frame, keypoints, identity))
    video = Video(path.stem, fps=frames.fps, names=names_of(content[0]["keypoints"]), notes=frames.notes)
    return tracks_of(file, video, detections, layout, person)


FORMS.register(
    KeypointForm(
        "results", "a detector's results (a list of objects with image_id and keypoints)", _read, suffixes=(".json",),
        sniff=_sniff,
    )
)  # fmt: skip
