"""YOLO-pose (Ultralytics): what `Results.to_json()` gives of each frame, in a list or in a folder of files, and the
folder of label files, `NAME_12.txt`, that `save_txt` writes.

A line of a label file is a class, a box of four numbers, and x, y, and mostly confidence, of each keypoint, from 0 to
1; a confidence and a track's number may follow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import DataError, shown
from ....reading import read_text
from .._frame_lists import Frame, frames_of, people_read, video_of
from .._json import load_json
from .._people import Video, frame_numbers, keypoints_of, tracks_of
from .._tracks import Detection
from ..candidate import CERTAIN, MAYBE, NO
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_maps import LAYOUTS
from ..keypoint_track import Keypoints

__all__: list[str] = []

_BEFORE = 5  # class and box
_COUNTS = (17, *(entry.size for entry in LAYOUTS.values() if entry.told_by_size and entry.size != 17))


def _is_person(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("keypoints"), Mapping) and "x" in value["keypoints"]


def _is_frame(value: Any) -> bool:
    return isinstance(value, list) and any(_is_person(one) for one in value)


def _sniff(file: KeypointFile) -> int:
    if file.is_folder:
        return MAYBE if _labels(file.path) or _results(file.path) else NO
    content = file.json
    if not isinstance(content, list) or _is_frame(content):
        return NO  # one frame is a list of results
    text = next((entry for entry in content if isinstance(entry, str)), "")
    return CERTAIN if '"keypoints"' in text or any(_is_frame(entry) for entry in content) else NO


def _labels(folder: Path) -> list[Path]:
    """Label files, which have numbers in their names: the first with any text begins with enough numbers in a row."""
    files = [file for file in sorted(folder.glob("[!.]*.txt")) if re.search(r"\d", file.stem)]
    for file in files[:100]:
        row = read_text(file, "labels").split("\n", 1)[0].split() if file.is_file() else []
        if row:
            return files if _width(row) is not None else []
    return []


def _results(folder: Path) -> list[Path]:
    """Files of results, of which the first with anybody in it has YOLO's keypoints. OpenPose's are not looked into."""
    files = sorted(file for file in folder.glob("[!.]*.json") if not file.name.endswith("_keypoints.json"))
    for file in files[:100]:
        if file.is_file() and (content := load_json(file)):
            return files if _is_frame(content) else []
    return []


def _width(row: list[str]) -> tuple[int, int] | None:
    """How many keypoints a line has, and how many numbers for each; None where it can't be told."""
    for width in (3, 2):
        for count in _COUNTS:
            if len(row) - _BEFORE - width * count in (0, 1, 2):
                return count, width
    return None


def _read(file: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    if not file.is_folder:
        frames = frames_of(file.path, file.json, ())
        return people_read(file, frames, video_of(file, {}), layout, person)
    labels = _labels(file.path)
    if labels:
        return _read_labels(file, labels, layout, person)
    frames = [Frame(one.people, path.stem) for path in _results(file.path)
              for one in frames_of(path, [load_json(path)], ())]  # fmt: skip
    return people_read(file, frames, Video(file.path.name), layout, person)


def _read_labels(file: KeypointFile, labels: list[Path], layout: str | None, person: str | int) -> list[Keypoints]:
    frames = frame_numbers(file.path, [path.stem for path in labels])
    detections = []
    for path, frame in zip(labels, frames.numbers, strict=True):
        for number, line in enumerate(read_text(path, "labels").splitlines(), start=1):
            row = line.split()
            if row:
                keypoints, identity = _detection(path, number, row)
                detections.append(Detection(frame, keypoints, identity))
    video = Video(file.path.name, fps=frames.fps, notes=frames.notes)
    return tracks_of(file, video, detections, layout, person)


def _detection(path: Path, number: int, row: list[str]) -> tuple[np.ndarray, int | None]:
    """Keypoints of a line, and the number of its track. A number behind the keypoints is the track's if it is whole and
    not below 1, else a confidence; of two, the latter is the track's."""
    shape = _width(row)
    try:
        values = [float(value) for value in row]
    except ValueError:
        values = []
    if shape is None or not values:
        raise DataError(
            f"line {number} of {path} is {shown(' '.join(row))}, expected a class, a box and the keypoints of a person."
        )
    count, width = shape
    end = _BEFORE + count * width
    points = np.array(values[_BEFORE:end]).reshape(count, width).tolist()
    last = values[end:][-1:]
    tracked = [value for value in last if value >= 1 and value == int(value) and "." not in row[-1]]
    return keypoints_of(path, f"line {number}", points), int(tracked[0]) if tracked else None


FORMS.register(
    KeypointForm("yolo", "a folder of YOLO-pose's labels or results", _read, folder=("*.txt", "*.json"), sniff=_sniff)
)
