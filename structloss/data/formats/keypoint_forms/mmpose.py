"""What MMPose's demos and its inferencer save, RTMPose's models among them; and OpenPifPaf's lines of video frames.

A demo writes an object with `instance_info`, a list of frames with `frame_id` and `instances`, or of the instances of
an image; `meta_info` names the keypoints. The inferencer writes the list alone, or an object with `predictions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .._frame_lists import Frame, frames_of, people_read, video_of
from .._json import first_of, told
from ..candidate import CERTAIN, NO
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_track import Keypoints

__all__: list[str] = []

_PEOPLE = ("instances", "predictions")
_DATA_SETS = {  # name -> layout, in `meta_info`
    "coco": "coco", "coco_wholebody": "h3wb", "halpe26": "halpe26", "h36m": "h36m", "mpii": "mpii",
    "mpi_inf_3dhp": "mpi_inf_3dhp", "crowdpose": "crowdpose", "posetrack18": "posetrack",
}  # fmt: skip


def _listed(content: Any) -> Any:
    """The list of frames, or of people; None where there is none."""
    if isinstance(content, Mapping):
        return first_of(content, "instance_info", *_PEOPLE)
    first = content[0] if isinstance(content, list) and content else None
    return content if isinstance(first, Mapping) and any(key in first for key in _PEOPLE) else None


def _sniff(file: KeypointFile) -> int:
    return CERTAIN if isinstance(_listed(file.json), list) else NO


def _read(file: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    content = file.json
    listed = _listed(content)
    if listed and all(isinstance(entry, Mapping) and "keypoints" in entry for entry in listed):
        frames = [Frame(listed)]  # an image
    else:
        frames = frames_of(file.path, listed, _PEOPLE)
    meta = content.get("meta_info") if isinstance(content, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    video = video_of(file, told(content), _names(meta))
    return people_read(file, frames, replace(video, likely=_data_set(meta)), layout, person)


def _names(meta: Mapping[str, Any]) -> list[str] | None:
    """Names of the keypoints, in order."""
    named = meta.get("keypoint_id2name")
    if isinstance(named, Mapping) and named and all(str(key).isdecimal() for key in named):
        return [str(named[key]) for key in sorted(named, key=int)]
    return None


def _data_set(meta: Mapping[str, Any]) -> str | None:
    name = meta.get("dataset_name")
    return _DATA_SETS.get(name.lower().replace("-", "_")) if isinstance(name, str) else None


FORMS.register(
    KeypointForm("mmpose", "MMPose's output (instance_info or instances)", _read, suffixes=(".json",), sniff=_sniff)
)
