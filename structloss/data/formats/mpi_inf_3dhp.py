"""MPI-INF-3DHP as P-STMO prepares it: one npz file to train on, one of the six test sequences."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, MissingFileError, shown
from ...reading import existing
from ..cameras import normalize_screen
from ..store import PoseStore, View
from ._assemble import Frames, assemble, checked, member
from .candidate import MAYBE, NO, Candidate
from .registry import FORMATS, Format
from .unpickle import load_npz_objects

__all__ = ["ACTIVITIES", "FRAMES", "read_mpi_inf_3dhp"]

ACTIVITIES = (
    "Standing/Walking",
    "Exercising",
    "Sitting",
    "Reaching/Crouching",
    "On The Floor",
    "Sports",
    "Miscellaneous",
)
"""Names of the activities 1 to 7 of the test sequences' frames."""

_COUNTS = (
    6416, 12430, 6502, 6081, 12488, 12283, 6171, 6675, 12820, 12312, 6188, 6145, 6239, 6320, 6468, 6054
)  # fmt: skip
FRAMES = {(f"S{1 + i // 2}", f"Seq{1 + i % 2}"): count for i, count in enumerate(_COUNTS)}
"""Frames per camera of the training sequences, by subject and sequence."""

_SIZES = {"TS5": (1920, 1080), "TS6": (1920, 1080)}
_SQUARE = (2048, 2048)
# (f_x, f_y, c_x, c_y) in pixels of the test cameras; that of TS1 to TS4 is derived from the calibration.
_CAMERAS = dict.fromkeys(("TS5", "TS6"), (1683.98, 1672.6, 939.86, 560.14))
_CAMERAS |= dict.fromkeys(("TS1", "TS2", "TS3", "TS4"), (1500.17, 1500.8, 1017.4, 1043.0))
_FITS = 5.0  # pixels by which poses may miss their keypoints for a camera to be believed


def read_mpi_inf_3dhp(path: str | os.PathLike[str], *, progress: bool = False) -> PoseStore:
    """Read `data_train_3dhp.npz`, `data_test_3dhp.npz`, or both.

    The files without `_ori` hold poses scaled to a universal skeleton (`univ_annot3`), the others true ones (`annot3`);
    results on one and the other can't be compared. Frames that are not valid have weight 0: they are there as context
    and are not scored. The images of universal poses are not where the keypoints are, so their cameras have no
    intrinsics; nor have the training cameras.

    Where the test sequences' folders TS1 to TS6 with `annot_data.mat` are beside the file and h5py is installed,
    `source["activity"]` tells for each sequence the activities of its frames as a list of (activity 1 to 7, frames).

    Args:
        path: a file, or the folder with the two; in a folder, files without `_ori` are taken first.
        progress: show a progress bar on a terminal.

    Returns:
        Skeleton "mpi_inf_3dhp", whose root is joint 14; poses absolute. Subjects "S1" to "S8" with motions "Seq1" and
        "Seq2", and "TS1" to "TS6".

    Raises:
        MissingFileError: there is no such file, or none in the folder.
        DataError: another kind of file, other shapes, or no sequences.
    """
    path = existing(path, "data_train_3dhp.npz, data_test_3dhp.npz or their folder")
    pieces: list[tuple[View, Callable[[], Frames]]] = []
    files = [path] if path.is_file() else _files(path)
    true_size = files[0].stem.endswith("_ori")
    for file in files:
        data = member(load_npz_objects(file), "data", str(file))
        if not isinstance(data, Mapping) or not data:
            raise DataError(f"'data' of {file} is {shown(data)}, expected a dictionary of sequences.")
        for name, sequence in data.items():
            what = f"data[{shown(name)}] of {file}"
            if str(name).startswith("TS"):
                pieces.append(_test(str(name), sequence, what, true_size))
            else:
                pieces += _train(str(name), sequence, what)
    source: dict[str, Any] = {
        "format": "mpi_inf_3dhp",
        "protocol": "mpi_inf_3dhp",
        "annotation": "annot3" if true_size else "univ_annot3",
    }
    source |= _activities(files[0].parent, {view.subject: view.frames for view, _ in pieces})
    return assemble(pieces, skeleton="mpi_inf_3dhp", source=source, progress=progress)


def _files(folder: Path) -> list[Path]:
    for suffix in ("", "_ori"):
        files = [folder / f"data_{half}_3dhp{suffix}.npz" for half in ("train", "test")]
        if found := [file for file in files if file.is_file()]:
            return found
    raise MissingFileError(f"{folder} has neither data_train_3dhp.npz nor data_test_3dhp.npz, expected at least one.")


def _train(name: str, sequence: object, what: str) -> list[tuple[View, Callable[[], Frames]]]:
    """The views of "S1 Seq2": `[{camera: {"data_2d", "data_3d"}}, fps]`."""
    subject, _, motion = name.partition(" ")
    if not motion:
        raise DataError(f"{what} is called {shown(name)}, expected a name such as 'S1 Seq1' or 'TS1'.")
    if isinstance(sequence, np.ndarray):
        sequence = sequence.tolist()
    if not isinstance(sequence, (list, tuple)) or len(sequence) != 2 or not isinstance(sequence[0], Mapping):
        raise DataError(f"{what} is {shown(sequence)}, expected [cameras, frames per second].")
    cameras, rate = sequence
    pieces: list[tuple[View, Callable[[], Frames]]] = []
    for index, (camera, arrays) in enumerate(cameras.items()):
        keypoints, pose = _arrays(arrays, f"{what}, camera {shown(camera)},")
        size = float(_SQUARE[0]), float(_SQUARE[1])
        view = View(subject, motion, motion, str(camera), index, 0, len(pose), _rate(rate, what), size)
        pieces.append((view, partial(_frames, view, keypoints, pose, None)))
    return pieces


def _test(name: str, sequence: object, what: str, true_size: bool) -> tuple[View, Callable[[], Frames]]:
    keypoints, pose = _arrays(sequence, what)
    valid = np.asarray(member(sequence, "valid", what)).squeeze()
    valid = checked(valid, f"valid of {what}", (len(pose),)) > 0
    size = _SIZES.get(name, _SQUARE)
    intrinsics = (math.nan,) * 4
    if true_size and name in _CAMERAS and _misses(_CAMERAS[name], keypoints[valid], pose[valid]) < _FITS:
        fx, fy, cx, cy = _CAMERAS[name]
        (cx, cy), scale = normalize_screen(np.array([cx, cy]), *size), 2 / size[0]
        intrinsics = (fx * scale, fy * scale, float(cx), float(cy))
    view = View(name, name, name, "0", 0, 0, len(pose), size=(float(size[0]), float(size[1])), intrinsics=intrinsics)
    return view, partial(_frames, view, keypoints, pose, valid)


def _misses(camera: tuple[float, float, float, float], keypoints: np.ndarray, pose: np.ndarray) -> float:
    """Median distance in pixels of the poses' images from the keypoints."""
    if not len(pose):
        return math.inf
    k = np.array(camera)
    with np.errstate(divide="ignore", invalid="ignore"):
        image = pose[..., :2] / pose[..., 2:] * k[:2] + k[2:]
    return float(np.median(np.linalg.norm(image - keypoints, axis=-1)))


def _arrays(arrays: object, what: str) -> tuple[np.ndarray, np.ndarray]:
    pose = checked(member(arrays, "data_3d", what), f"data_3d of {what}", (None, 17, 3))
    keypoints = checked(member(arrays, "data_2d", what), f"data_2d of {what}", (len(pose), 17, 2))
    return keypoints, pose


def _rate(value: object, what: str) -> float:
    if isinstance(value, (int, float, np.integer, np.floating)) and 0 < value < math.inf:
        return float(value)
    raise DataError(f"{what} has {shown(value)} frames per second, expected a positive number.")


def _frames(view: View, keypoints: np.ndarray, pose: np.ndarray, valid: np.ndarray | None) -> Frames:
    pose = pose.astype(np.float64) / 1000
    pose[~pose.any(axis=(1, 2))] = np.nan  # frames without annotation
    return Frames(normalize_screen(keypoints.astype(np.float64), *view.size), pose, weight=valid)


def _activities(folder: Path, frames: Mapping[str, int]) -> dict[str, Any]:
    """What to note in `source` of the test sequences' activities."""
    files = {name: folder / name / "annot_data.mat" for name in frames if name.startswith("TS")}
    files = {name: file for name, file in files.items() if file.is_file()}
    if not files:
        return {}
    try:
        import h5py
    except ImportError:
        return {"notes": ["activities were not read, which needs h5py: pip install h5py"]}
    runs, notes = {}, []
    for name, file in files.items():
        try:
            with h5py.File(file, "r") as archive:
                activity = np.asarray(archive["activity_annotation"]).reshape(-1).astype(int)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{file} has no readable activity_annotation: {str(error)[:160].rstrip('.')}.") from error
        if len(activity) != frames[name]:
            notes.append(f"activities of {name} were left out: {file.name} has {len(activity)} frames")
            continue
        starts = np.flatnonzero(np.diff(activity, prepend=0))
        runs[name] = [
            [int(activity[s]), int(n)] for s, n in zip(starts, np.diff([*starts, len(activity)]), strict=True)
        ]
    return {"activity": runs} | ({"notes": notes} if notes else {})


def _sniff(candidate: Candidate) -> int:
    if candidate.is_folder:
        return MAYBE if candidate.holds(*_FOLDER) else NO
    return MAYBE if candidate.arrays == ("data",) else NO  # H3WB's test file has that name too


def _problems(store: PoseStore) -> list[str]:
    differ: list[str] = []
    cameras: dict[str, set[str]] = {}
    for view in store.views:
        expected = FRAMES.get((view.subject, view.name))
        if expected is not None:
            cameras.setdefault(view.motion, set()).add(view.camera)
            if view.frames != expected:
                differ.append(f"{view.motion} has {view.frames} frames per camera, expected {expected}")
    few = [f"{motion} has {len(seen)} cameras, expected 8" for motion, seen in cameras.items() if len(seen) != 8]
    return list(dict.fromkeys(differ)) + few


_FOLDER = ("data_train_3dhp*.npz", "data_test_3dhp*.npz")

FORMATS.register(
    Format(
        "mpi_inf_3dhp",
        "MPI-INF-3DHP as P-STMO's data_train_3dhp.npz and data_test_3dhp.npz",
        read_mpi_inf_3dhp,
        arrays=("data",),
        folder=_FOLDER,
        sniff=_sniff,
        problems=_problems,
    )
)
