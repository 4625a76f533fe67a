"""H3WB, whole bodies of 133 keypoints on Human3.6M's images: the benchmark's JSON files and the authors' npz."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, MissingFileError, shown
from ...progress import track
from ...reading import existing, read_json
from ..cameras import h36m_cameras, normalize_screen
from ..store import PoseStore, View
from ._assemble import Frames, assemble, checked, frame_counts, member
from .candidate import CERTAIN, MAYBE, NO, Candidate
from .h36m_npz import action_of
from .registry import FORMATS, Format
from .unpickle import load_npz_objects

__all__ = ["TASKS", "read_h3wb"]

TASKS = ("2Dto3D", "I2Dto3D")
"""Tasks with 2D keypoints; those of the second are incomplete."""

_JOINTS = 133
_CAMERAS = {camera.id: (index, camera) for index, camera in enumerate(h36m_cameras("S1"))}
_NPZ = ("h3wb_train.npz", "task1_test_3d.npz")
_SUBJECT = re.compile(r"(?<![A-Za-z0-9])S(\d{1,2})(?!\d)")
_ACTION = re.compile(
    r"(Directions|Discussion|Eating|Greeting|Phoning|Photo|TakingPhoto|Posing|Purchases|SittingDown|Sitting|Smoking|"
    r"Waiting|WalkDog|WalkingDog|WalkTogether|Walking)(?:[ _](\d+))?"
)

_Piece = tuple[View, Callable[[], Frames]]


def read_h3wb(path: str | os.PathLike[str], *, progress: bool = False) -> PoseStore:
    """Read H3WB's 2D keypoints and poses.

    From a folder: `h3wb_train.npz` and `task1_test_3d.npz`, or else `2Dto3D_train.json` (also in parts 1 to 5) and
    `2Dto3D_test_2d.json` with `2Dto3D_test_3d.json`. From a file: that one, with its other parts, or the other file of
    a test pair (also of the task I2Dto3D) beside it; samples are matched by their number.

    Keypoints that are absent, null, NaN or exactly (0, 0) are missing: confidence 0. Missing joints of a pose have
    weight 0. The npz tells subjects, actions and cameras; the JSON does so only where its image paths do. Otherwise
    subjects are called "train" and "test", and images are taken for 1000 x 1000.

    Args:
        path: a file or folder.
        progress: show a progress bar on a terminal.

    Returns:
        Skeleton "h3wb", single poses (`temporal` is False: frames are unevenly sampled in time).

    Raises:
        MissingFileError: there is no such file, or its other half is missing.
        DataError: another kind of file, a damaged one, other shapes, or no samples.
    """
    path = existing(path, "a file of H3WB or their folder")
    files = _found_in(path) if path.is_dir() else _belonging(path)
    if files[0].suffix == ".npz":
        pieces = [piece for file in files for piece in _npz(file)]
    else:
        pieces = list(_json(files, progress))
    if not pieces:
        raise DataError(f"{path} has no samples, expected 2D keypoints and poses.")
    source = {"format": "h3wb", "protocol": "h3wb", "files": [file.name for file in files]}
    return assemble(pieces, skeleton="h3wb", source=source, temporal=False, progress=progress)


def _found_in(folder: Path) -> list[Path]:
    if files := [folder / name for name in _NPZ if (folder / name).is_file()]:
        return files
    train = sorted(folder.glob("2Dto3D_train*.json"))
    test = folder / "2Dto3D_test_2d.json"
    if not train and not test.is_file():
        raise MissingFileError(f"{folder} has none of {', '.join(_NPZ)}, 2Dto3D_train.json and 2Dto3D_test_2d.json.")
    return (_belonging(train[0]) if train else []) + (_belonging(test) if test.is_file() else [])


def _belonging(file: Path) -> list[Path]:
    """The file and those that are only complete with it."""
    if part := re.fullmatch(r"(.*_part)\d+\.json", file.name):
        return [existing(file.with_name(f"{part[1]}{n}.json"), "one of the five parts") for n in range(1, 6)]
    if half := re.fullmatch(r"(.*_test)_[23]d\.json", file.name):
        return [existing(file.with_name(f"{half[1]}_{n}d.json"), "2D keypoints and poses of the test") for n in (2, 3)]
    return [file]


def _npz(file: Path) -> Iterator[_Piece]:
    content = load_npz_objects(file)
    key = "train_data" if "train_data" in content else "data"
    data = member(content, key, str(file))
    metadata = content.get("metadata")
    if not isinstance(data, Mapping):
        raise DataError(f"{key!r} of {file} is {shown(data)}, expected a dictionary of subjects.")
    for subject, actions in data.items():
        if not isinstance(actions, Mapping):
            raise DataError(f"{key}[{shown(subject)}] of {file} is {shown(actions)}, expected a dictionary of actions.")
        for action, entry in actions.items():
            what = f"{key}[{shown(subject)}][{shown(action)}] of {file}"
            cameras = [identity for identity in _CAMERAS if identity in entry] if isinstance(entry, Mapping) else []
            if not cameras:
                raise DataError(f"{what} has none of the cameras {', '.join(_CAMERAS)}.")
            for identity in cameras:
                there = f"{what}, camera {identity},"
                pose = _squeezed(member(entry[identity], "camera_3d", there), f"camera_3d of {there}", 3)
                points = _squeezed(member(entry[identity], "pose_2d", there), f"pose_2d of {there}", 2)
                if len(points) != len(pose):
                    raise DataError(f"pose_2d of {there} has {len(points)} frames, expected {len(pose)}.")
                calibration = metadata.get(subject, {}).get(identity) if isinstance(metadata, Mapping) else None
                view = _view(str(subject), str(action), identity, len(pose), calibration, there)
                yield view, partial(_frames, view, points, pose)


def _squeezed(value: object, what: str, channels: int) -> np.ndarray:
    if isinstance(value, np.ndarray) and value.ndim == 4 and value.shape[1] == 1:
        value = value[:, 0]
    return checked(value, what, (None, _JOINTS, channels))


def _view(subject: str, name: str, identity: str, frames: int, calibration: object = None, what: str = "") -> View:
    if identity not in _CAMERAS:
        return View(subject, action_of(name), name, identity, 0, 0, frames, size=(1000.0, 1000.0))
    index, camera = _CAMERAS[identity]
    fx, fy, cx, cy = map(float, camera.screen_intrinsics())
    if isinstance(calibration, Mapping) and "K" in calibration:  # in thousands of pixels
        k = np.asarray(calibration["K"])
        k = checked(k, f"K of {what}", (1, 3, 3) if k.ndim == 3 else (3, 3)).reshape(3, 3) * (2000 / camera.width)
        fx, fy = float(k[0, 0]), float(k[1, 1])
        cx, cy = float(k[0, 2]) - 1, float(k[1, 2]) - camera.height / camera.width
    size = float(camera.width), float(camera.height)
    return View(subject, action_of(name), name, identity, index, 0, frames, math.nan, size, (fx, fy, cx, cy))


def _frames(view: View, points: np.ndarray, pose: np.ndarray) -> Frames:
    points = points.astype(np.float64)
    points[(points == 0).all(-1)] = np.nan
    return Frames(normalize_screen(points, *view.size), pose.astype(np.float64) / 1000)


def _json(files: list[Path], progress: bool) -> Iterator[_Piece]:
    """Samples by what their image paths tell, in the order of their numbers."""
    halves: dict[str, dict[int, dict[str, Any]]] = {"train": {}, "test": {}}
    for file in track(files, "reading JSON", progress):
        half = halves["test" if "_test" in file.name else "train"]
        for number, sample in _samples(file).items():
            half.setdefault(number, {}).update(sample)
    for name, samples in halves.items():
        groups: dict[tuple[str, str, str], list[int]] = {}
        for number in sorted(samples):
            groups.setdefault(_described(samples[number].get("image_path"), name), []).append(number)
        for (subject, motion, camera), numbers in groups.items():
            arrays = []
            for key, channels in (("keypoints_2d", 2), ("keypoints_3d", 3)):
                for number in numbers:
                    found = samples[number].get(key)
                    if not isinstance(found, np.ndarray) or found.shape != (_JOINTS, channels):
                        have = "no" if found is None else "malformed"
                        raise DataError(
                            f"sample {number} of {', '.join(f.name for f in files)} in {files[0].parent} has {have} "
                            f"{key}, expected {_JOINTS} points of {channels} coordinates."
                        )
                arrays.append(np.stack([samples[number][key] for number in numbers]))
            view = _view(subject, motion, camera, len(numbers))
            yield view, partial(_frames, view, *arrays)


def _described(image_path: object, half: str) -> tuple[str, str, str]:
    """Subject, motion and camera that an image's path tells."""
    text = image_path if isinstance(image_path, str) else ""
    subject, action = _SUBJECT.search(text), _ACTION.search(text)
    motion = "unknown" if action is None else action[1] + (f" {action[2]}" if action[2] else "")
    camera = next((identity for identity in _CAMERAS if identity in text), "unknown")
    return f"S{int(subject[1])}" if subject else half, motion, camera


def _samples(file: Path) -> dict[int, dict[str, Any]]:
    try:
        content = read_json(file, "samples of H3WB", object_pairs_hook=partial(_entry, file))
        return {int(number): dict(sample) for number, sample in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        text = str(error)
        if isinstance(error, DataError) and "not valid JSON" not in text:
            raise
        reason = text.removeprefix(f"{file} is ")[:160].rstrip(".")
        raise DataError(f"{file} is no JSON object of numbered samples: {reason}.") from error


def _entry(file: Path, pairs: list[tuple[str, Any]]) -> Any:
    """A JSON object; keypoints become an array at once, since millions of dictionaries would fill the memory."""
    if len(pairs) in (2, 3) and pairs[0][0] in ("x", "y", "z"):
        point = dict(pairs)
        return tuple(math.nan if point.get(axis) is None else float(point[axis]) for axis in "xyz"[: len(pairs)])
    if not any(isinstance(value, tuple) for _, value in pairs[:_JOINTS]):
        return dict(pairs)
    channels = max(len(value) for _, value in pairs if isinstance(value, tuple))
    array = np.full((_JOINTS, channels), np.nan, np.float32)
    for key, value in pairs:
        if not key.isdecimal() or int(key) >= _JOINTS:
            raise DataError(f"{file} has a keypoint {shown(key)}, expected 0 to {_JOINTS - 1}.")
        if isinstance(value, tuple) and len(value) == channels:
            array[int(key)] = value
    return array


def _sniff(candidate: Candidate) -> int:
    name = candidate.path.name
    if candidate.is_folder:
        return MAYBE if candidate.holds(*_FOLDER) else NO
    if candidate.suffix == ".json":
        return MAYBE if "to3D" in name else NO
    named = name.startswith("task") or "h3wb" in name
    return CERTAIN if "train_data" in candidate.arrays or (named and candidate.arrays == ("data",)) else NO


_FOLDER = (*_NPZ, "2Dto3D_train*.json", "2Dto3D_test_2d.json")

FORMATS.register(
    Format(
        "h3wb",
        "H3WB as npz or JSON",
        read_h3wb,
        arrays=("train_data",),
        folder=_FOLDER,
        sniff=_sniff,
        problems=frame_counts((("S1", "S5", "S6", "S7", "train"), 80_000), (("S8", "test"), 10_000)),
    )
)
