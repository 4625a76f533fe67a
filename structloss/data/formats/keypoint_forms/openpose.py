"""OpenPose's output: a folder with a JSON file per frame, `NAME_000000000012_keypoints.json`."""

from __future__ import annotations

from collections.abc import Mapping

from ....errors import DataError
from .._people import frame_numbers, keypoints_of, load_json, tracks_of
from .._tracks import Detection
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_track import Keypoints

__all__: list[str] = []

_ENDING = "_keypoints.json"


def _read(folder: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    path = folder.path
    files = sorted(path.glob(f"*{_ENDING}"))
    numbers = frame_numbers(path, [file.name.removesuffix(_ENDING) for file in files])
    detections = []
    for file, frame in zip(files, numbers, strict=True):
        content = load_json(file)
        people = content.get("people") if isinstance(content, Mapping) else None
        if not isinstance(people, list):
            raise DataError(f"{file} has no list 'people', expected OpenPose's output.")
        for one in people:
            values = one.get("pose_keypoints_2d") if isinstance(one, Mapping) else None
            if values:  # OpenPose leaves the list empty where body keypoints are switched off
                identity = one.get("person_id")
                identity = identity[0] if isinstance(identity, list) and identity else identity
                known = isinstance(identity, int) and identity >= 0
                detections.append(
                    Detection(frame, keypoints_of(file, "pose_keypoints_2d", values), identity if known else None)
                )
    return tracks_of(path, path.name, detections, layout, person)


FORMS.register(KeypointForm("openpose", "a folder of OpenPose's files", _read, folder=(f"*{_ENDING}",)))
