"""GAST-Net's keypoints, which have the form of Kinetics-Skeleton (ST-GCN): `data`, a list of frames with `frame_index`
and `skeleton`, a list of people with `pose`, x and y in a row, and `score`."""

from __future__ import annotations

from collections.abc import Mapping

from .._frame_lists import frames_of, people_read, video_of
from .._json import told
from ..candidate import CERTAIN, NO
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_track import Keypoints

__all__: list[str] = []


def _sniff(file: KeypointFile) -> int:
    content = file.json
    frames = content.get("data") if isinstance(content, Mapping) else None
    there = isinstance(frames, list) and frames and isinstance(frames[0], Mapping) and "skeleton" in frames[0]
    return CERTAIN if there else NO


def _read(file: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    frames = frames_of(file.path, file.json["data"], ("skeleton",))
    return people_read(file, frames, video_of(file, told(file.json)), layout, person)


FORMS.register(
    KeypointForm("gastnet", "GAST-Net's keypoints (data of skeletons)", _read, suffixes=(".json",), sniff=_sniff)
)
