"""VideoPose3D's keypoints: nested dictionaries in an npz file, which is unpickled safely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import DataError
from ...cameras import h36m_cameras
from .._people import array_track, chosen, pixels
from ..keypoint_form import FORMS, KeypointFile, KeypointForm
from ..keypoint_maps import LAYOUTS
from ..keypoint_track import Keypoints
from ..unpickle import load_npz_objects

__all__: list[str] = []

_SYMMETRY = {  # left joints -> layout, in VideoPose3D's metadata
    (4, 5, 6, 11, 12, 13): "h36m",
    (1, 3, 5, 7, 9, 11, 13, 15): "coco",
    (3, 4, 5, 13, 14, 15): "mpii",
    (5, 6, 7, 11, 12, 13): "mpi_inf_3dhp",
}


def _read(file: KeypointFile, layout: str | None, person: str | int) -> list[Keypoints]:
    path, content = file.path, load_npz_objects(file.path)
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    if layout is None:
        named = metadata.get("layout_name")
        layout = named if isinstance(named, str) and named in LAYOUTS else _layout_by_symmetry(metadata)
    sizes = metadata.get("video_metadata")
    sizes = sizes if isinstance(sizes, Mapping) else {}
    tracks = []
    for subject, action, camera, array, alone in _leaves(path, content["positions_2d"]):
        custom = subject in sizes or action == "custom"
        name = subject if custom else f"{subject}/{action}"
        size = sizes.get(subject) if custom else None
        if custom:
            width, height = (pixels(size.get(key)) if isinstance(size, Mapping) else None for key in ("w", "h"))
        else:
            eyes = h36m_cameras("S1")  # the size of the image is the camera's, the same for every subject
            width, height = (eyes[camera].width, eyes[camera].height) if camera < len(eyes) else (None, None)
        if not (custom and alone):
            name = f"{name}/{camera}"
        tracks.append(array_track(path, name, array, layout, width, height))
    if not tracks:
        raise DataError(f"positions_2d of {path} has no arrays, expected {{subject: {{action: [array of a camera]}}}}.")
    return chosen(path, tracks, person)


def _layout_by_symmetry(metadata: Mapping[str, Any]) -> str | None:
    """The layout with the left joints that the metadata list; None where they don't."""
    try:
        left = tuple(int(j) for j in metadata["keypoints_symmetry"][0])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return _SYMMETRY.get(left)


def _leaves(path: Path, positions: Any) -> Iterator[tuple[str, str, int, Any, bool]]:
    """(subject or video, action, camera, array, whether it is the only camera)."""
    what = "expected {subject: {action: [array of a camera]}}"
    if not isinstance(positions, Mapping):
        raise DataError(f"positions_2d of {path} is a {type(positions).__name__}, {what}.")
    for subject, actions in positions.items():
        if not isinstance(actions, Mapping):
            raise DataError(f"positions_2d[{subject!r}] of {path} is a {type(actions).__name__}, {what}.")
        for action, cameras in actions.items():
            single = isinstance(cameras, np.ndarray) and cameras.ndim == 3 and cameras.dtype != object
            arrays = [cameras] if single else cameras
            if not isinstance(arrays, (list, tuple, np.ndarray)):
                raise DataError(
                    f"positions_2d[{subject!r}][{action!r}] of {path} is a {type(arrays).__name__}, {what}."
                )
            for camera, array in enumerate(arrays):
                yield str(subject), str(action), camera, array, len(arrays) == 1


FORMS.register(KeypointForm("videopose3d", "VideoPose3D's positions_2d", _read, arrays=("positions_2d",)))
