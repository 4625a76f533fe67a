"""OpenPose's output: a folder with a JSON file per frame, `NAME_000000000012_keypoints.json`.

OpenPose does not say how large the images are, nor how many there are in a second. Where the first file does, as those
of image generators do (`canvas_width`, `canvas_height`), it counts for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ....errors import DataError
from .._frame_lists import video_of
from .._json import first_of, load_json, told
from .._people import frame_numbers, identity_of, keypoints_of, tracks_of
from .._tracks import Detection
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_track import Keypoints

__all__: list[str] = []

_ENDING = "_keypoints.json"


def _read(folder: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    path = folder.path
    files = sorted(path.glob(f"[!.]*{_ENDING}"))  # not the hidden ones that some systems put beside
    frames = frame_numbers(path, [file.name.removesuffix(_ENDING) for file in files])
    detections, said = [], {}
    for file, frame in zip(files, frames.numbers, strict=True):
        content = load_json(file)
        if file is files[0]:
            said = told(content)
        people = content.get("people") if isinstance(content, Mapping) else None
        if not isinstance(people, list):
            raise DataError(f"{file} has no list 'people', expected OpenPose's output.")
        for one in people:
            values = _body(one)
            if values:
                keypoints = keypoints_of(file, "pose_keypoints_2d", values)
                detections.append(Detection(frame, keypoints, identity_of(file, "person_id", one.get("person_id"))))
    video = video_of(folder, said)
    video = replace(video, name=path.name, fps=frames.fps or video.fps, notes=frames.notes)
    return tracks_of(folder, video, detections, layout, person)


def _body(one: Any) -> Any:
    """The body's keypoints of a person; nothing where they are switched off. Version 1.1 has another key."""
    return first_of(one, "pose_keypoints_2d", "pose_keypoints") if isinstance(one, Mapping) else None


FORMS.register(KeypointForm("openpose", "a folder of OpenPose's files", _read, folder=(f"*{_ENDING}",)))
