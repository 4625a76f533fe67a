"""Frames with their people in one JSON file, as many programs write them: `{"frame": 3, "people": [{"keypoints": …}]}`.
What `structloss predict` writes of a video is of this form, with the keypoints' `layout` beside the image's size.

Among them are AlphaPose's single files in the forms of OpenPose and CMU-Pose, with frames by name, and the poses that
image generators exchange, a list of OpenPose's frames with `canvas_width` and `canvas_height`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .._frame_lists import frames_of, people_read, video_of
from .._json import first_of, told
from ..candidate import CERTAIN, NO
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_maps import LAYOUTS
from ..keypoint_track import Keypoints

__all__: list[str] = []

_PEOPLE = ("people", "persons", "bodies", "detections", "objects", "skeletons", "poses")
_PERSON = ("keypoints", "pose_keypoints_2d", "pose_keypoints", "keypoints_2d", "joints")
_FRAMES = ("frames", "data", "annotations", "video")


def _listed(content: Any) -> Any:
    """The frames of a file, in a list or by name; None where there are none."""
    if isinstance(content, Mapping):
        if _is_frame(content):
            return [content]
        inner = first_of(content, *_FRAMES)
        if isinstance(inner, (list, Mapping)) and (listed := _listed(inner)) is not None:
            return listed
    entries = content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else ()
    return content if any(_is_frame(entry) for entry in entries) else None


def _is_frame(value: Any) -> bool:
    people = first_of(value, *_PEOPLE) if isinstance(value, Mapping) else None
    return isinstance(people, list) and any(
        isinstance(one, Mapping) and any(key in one for key in _PERSON) for one in people
    )


def _sniff(file: KeypointFile) -> int:
    content = file.json
    named = isinstance(content, Mapping) and "images" in content  # COCO's
    return CERTAIN if not named and _listed(content) is not None else NO


def _read(file: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    listed = _listed(file.json)
    if isinstance(listed, Mapping):
        listed = {name: frame for name, frame in listed.items() if _is_frame(frame) or frame == []}
    first = next(iter(listed.values() if isinstance(listed, Mapping) else listed))
    video = video_of(file, told(file.json) or told(first))
    likely = file.json.get("layout") if isinstance(file.json, Mapping) else None
    if isinstance(likely, str) and likely in LAYOUTS:
        video = replace(video, likely=likely)
    return people_read(file, frames_of(file.path, listed, _PEOPLE), video, layout, person)


FORMS.register(KeypointForm("frames", "frames with the people in them", _read, suffixes=(".json",), sniff=_sniff))
