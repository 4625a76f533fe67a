"""Result lists of detectors: AlphaPose's, MMPose's and those of others who write COCO's results."""

from __future__ import annotations

from collections.abc import Mapping

from ....errors import DataError
from .._people import described, frame_numbers, keypoints_of, tracks_of
from .._tracks import Detection
from ..candidate import CERTAIN, NO
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_track import Keypoints

__all__: list[str] = []


def _sniff(file: KeypointFile) -> int:
    content = file.json
    there = isinstance(content, list) and content and isinstance(content[0], Mapping) and "keypoints" in content[0]
    return CERTAIN if there else NO


def _read(file: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    """A dictionary per person and frame."""
    path, content = file.path, file.json
    for i, entry in enumerate(content):
        if not isinstance(entry, Mapping) or "image_id" not in entry or "keypoints" not in entry:
            raise DataError(
                f"entry {i} of {path} is {described(entry)}, expected an object with image_id and keypoints."
            )
    frames = frame_numbers(path, [entry["image_id"] for entry in content])
    detections = []
    for i, (frame, entry) in enumerate(zip(frames, content, strict=True)):
        identity = entry.get("idx", entry.get("track_id"))
        known = isinstance(identity, (int, float)) and not isinstance(identity, bool) and identity == int(identity)
        keypoints = keypoints_of(path, f"keypoints of entry {i}", entry["keypoints"])
        detections.append(Detection(frame, keypoints, int(identity) if known else None))
    return tracks_of(path, path.stem, detections, layout, person)


FORMS.register(
    KeypointForm(
        "results", "a detector's results (a list of objects with image_id and keypoints)", _read, suffixes=(".json",),
        sniff=_sniff,
    )
)  # fmt: skip
