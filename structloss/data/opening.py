"""Open any data set: its format is told from the path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, DataError
from ..progress import track
from .archive import load_archive
from .clips import Clip
from .formats.detect import IN_FOLDER, MOCAP, detect
from .store import PoseStore, open_store

__all__ = ["open_data"]

#: Option -> formats that it means something for.
_FOR = {
    "keypoints": ("h36m-npz",),
    "reference": ("h36m-clips",),
    "fps": ("archive", *MOCAP),
    "source_fps": MOCAP,
    "joints": MOCAP,
    "scale": MOCAP,
    "up": MOCAP,
    "asf": ("bvh", "amc"),
}


def open_data(
    path: str | os.PathLike[str],
    *,
    keypoints: str | os.PathLike[str] | None = None,
    reference: str | os.PathLike[str] | None = None,
    fps: float | None = None,
    source_fps: float | None = None,
    joints: object = None,
    scale: float | None = None,
    up: str | None = None,
    asf: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> PoseStore | list[Clip]:
    """Read a file or folder of any format that :func:`~structloss.data.formats.detect.detect` knows.

    Args:
        path: what to read. A folder of motion-capture files is searched with all its subfolders.
        keypoints: of Human3.6M's npz, see :func:`~structloss.data.formats.h36m_npz.read_h36m_npz`.
        reference: of a folder of clips, see :func:`~structloss.data.formats.h36m_clips.read_h36m_clips`.
        fps: resample clips to this rate; None leaves them as they are.
        source_fps: the rate of motion capture whose file does not tell it, or is wrong.
        joints: map of joints or markers to the names in the file: a mapping or a YAML or JSON file, or a name.
        scale: metres per unit of a motion-capture file.
        up: its axis that points up: "x", "y", "z" or "-y".
        asf: skeleton of the AMC file, or of B. Hahne's conversion to BVH.
        progress: show a progress bar on a terminal.

    Returns:
        Clips for motion in the world (clip archives, motion capture), otherwise a pose store: mapped if it is one on
        disk, in memory if it was converted.

    Raises:
        MissingFileError: there is no such path, or a file that belongs to it is missing.
        DataError: no known format, or a file that is damaged or does not have what its format says.
        ArgumentError: an option that the format has no use for.
    """
    path = Path(path)
    kind = detect(path)
    options = {
        "keypoints": keypoints, "reference": reference, "fps": fps, "source_fps": source_fps, "joints": joints,
        "scale": scale, "up": up, "asf": asf,
    }  # fmt: skip
    for name, value in options.items():
        if value is not None and kind not in _FOR[name]:
            raise ArgumentError(f"{name} is given for {path} ({kind}), expected it with {', '.join(_FOR[name])} only.")
    if kind == "store":
        return open_store(path)
    if kind == "archive" or kind in MOCAP:
        clips = load_archive(path)[0] if kind == "archive" else _mocap(path, kind, options, progress)
        return clips if fps is None else [clip.resampled(fps) for clip in clips]
    if kind == "h36m-npz":
        from .formats.h36m_npz import read_h36m_npz

        return read_h36m_npz(path, keypoints, progress=progress)
    if kind == "h36m-pickle":
        from .formats.h36m_pickle import read_h36m_pickle

        return read_h36m_pickle(path, progress=progress)
    if kind == "h36m-clips":
        from .formats.h36m_clips import read_h36m_clips

        return read_h36m_clips(path, reference, progress=progress)
    if kind == "mpi_inf_3dhp":
        from .formats.mpi_inf_3dhp import read_mpi_inf_3dhp

        return read_mpi_inf_3dhp(path, progress=progress)
    from .formats.h3wb import read_h3wb

    return read_h3wb(path, progress=progress)


def _mocap(path: Path, kind: str, options: dict[str, Any], progress: bool) -> list[Clip]:
    files = sorted({f for p in IN_FOLDER[kind] for f in path.glob(p)}) if path.is_dir() else [path]
    clips: dict[str, Clip] = {}
    for file in track(files, f"reading .{kind} files", progress):
        clip = _recording(file, kind, options)
        if clip.key in clips:
            raise DataError(f"{path} has two files called {file.name}, expected different names.")
        clips[clip.key] = clip
    return list(clips.values())


def _recording(file: Path, kind: str, options: dict[str, Any]) -> Clip:
    """One motion-capture file; options that are None keep the reader's defaults."""
    names = {"scale": "scale", "up": "up", "source_fps": "fps", "asf": "asf", "joints": "joints"}
    if kind == "c3d":
        names["joints"] = "markers"
    given = {theirs: options[ours] for ours, theirs in names.items() if options[ours] is not None}
    if kind == "bvh":
        from .formats.bvh import read_bvh

        return read_bvh(file, **given)
    if kind == "amc":
        from .formats.asf_amc import read_amc

        return read_amc(file, **given)
    from .formats.c3d import read_c3d

    return read_c3d(file, **given)
