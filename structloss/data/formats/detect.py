"""Which format a path is of, told by names and tables of contents: nothing is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import DataError
from ..store import is_store
from ._assemble import existing
from .unpickle import npz_members

__all__ = ["FORMATS", "IN_FOLDER", "MOCAP", "detect"]

FORMATS = {
    "store": "pose store, written by structloss data convert",
    "archive": "clip archive, written by structloss data convert",
    "h36m-npz": "Human3.6M as VideoPose3D's data_3d_h36m.npz with a data_2d_h36m_NAME.npz",
    "h36m-pickle": "Human3.6M as MotionBERT's pickle",
    "h36m-clips": "Human3.6M as MotionBERT's or MotionAGFormer's folder of clips",
    "mpi_inf_3dhp": "MPI-INF-3DHP as P-STMO's data_train_3dhp.npz and data_test_3dhp.npz",
    "h3wb": "H3WB as npz or JSON",
    "bvh": "motion capture, BVH",
    "amc": "motion capture, Acclaim ASF/AMC",
    "c3d": "motion capture, C3D markers",
}
"""Formats by name, with what they are."""

MOCAP = ("bvh", "amc", "c3d")
"""Formats that are read as clips, a file or a folder of files."""

IN_FOLDER = {
    "h36m-npz": ("data_3d_h36m.npz",),
    "h36m-clips": ("train/*.pkl", "test/*.pkl"),
    "mpi_inf_3dhp": ("data_train_3dhp*.npz", "data_test_3dhp*.npz"),
    "h3wb": ("h3wb_train.npz", "task1_test_3d.npz", "2Dto3D_train*.json", "2Dto3D_test_2d.json"),
    **{name: (f"**/*.{name}", f"**/*.{name.upper()}") for name in MOCAP},
}
"""Format -> patterns of the names that show it in a folder."""


def detect(path: str | os.PathLike[str]) -> str:
    """The format of a file or folder, one of :data:`FORMATS`.

    Raises:
        MissingFileError: there is no such path.
        DataError: none of the formats, or a folder with files of several.
    """
    path = existing(path, "a data set")
    if path.is_dir():
        return _folder(path)
    suffix = path.suffix.lower()
    if suffix.removeprefix(".") in MOCAP:
        return suffix[1:]
    if suffix == ".npz":
        return _npz(path)
    if suffix in (".pkl", ".pickle"):
        return "h36m-pickle"
    if suffix == ".json" and "to3D" in path.name:
        return "h3wb"
    hint = "; it is the skeleton of .amc files" if suffix == ".asf" else ""
    raise DataError(f"{path} is of no known format{hint}, expected one of: {'; '.join(FORMATS.values())}.")


def _folder(path: Path) -> str:
    if is_store(path):
        return "store"
    found = [name for name, patterns in IN_FOLDER.items() if any(any(path.glob(pattern)) for pattern in patterns)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{path} has files of several formats, {', '.join(found)}, expected one; name a file in it.")
    raise DataError(f"{path} has no file of a known format, expected one of: {'; '.join(FORMATS.values())}.")


def _npz(path: Path) -> str:
    members = npz_members(path)
    if "positions_3d" in members:
        return "h36m-npz"
    if "positions_2d" in members:
        raise DataError(
            f"{path} has 2D keypoints only, expected data_3d_h36m.npz, to which they are given as keypoints."
        )
    if "train_data" in members:
        return "h3wb"
    if members == ["data"]:
        return "h3wb" if path.name.startswith("task") or "h3wb" in path.name else "mpi_inf_3dhp"
    if "meta" in members:
        return "archive"
    raise DataError(
        f"{path} has arrays {', '.join(members[:6]) or '(none)'}, expected positions_3d (Human3.6M), data "
        "(MPI-INF-3DHP), train_data (H3WB) or meta (clip archive)."
    )
