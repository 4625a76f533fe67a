"""Records of the frames of videos that are written to a folder.

`.frames/KEY.npz` in the folder, one for each video: `names` of its frames, `video`, its size and time, `told`, what
tells its boxes from others, and `owner`, whose its folders are; once all frames are written also `joints`, `annotated`
and `diagonal` of each. It is there before the first frame, so that frames of a video or of boxes that were others are
known when the process was killed, too.

A folder may come from anywhere. What a record names is removed when it is written anew, so names that are not of
the form of frames' are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data.formats.unpickle import load_npz_arrays
from ...errors import ArgumentError, DataError
from ...files import new_file, sweep

__all__ = [
    "STATE",
    "VideoState",
    "check_folders",
    "folder_of",
    "read_state",
    "remove_frames",
    "video_of",
    "write_state",
]

STATE = ".frames"
"""The folder of the records, in that of the frames."""
#: of a frame: characters that are some, as an array may hold others, without "/"; a folder that begins with a point
#: would be hidden, or the one above
_NAME = re.compile(r"[\x01-\x2d0-\U0010ffff][\x01-\x2e0-\U0010ffff]*/[0-9a-f]{16}\.jpg")
_SHOWN = 200  # characters of a name
_LABELS = ("joints", "annotated", "diagonal")


@dataclass(frozen=True)
class VideoState:
    """Frames of a video.

    Attributes:
        names: of the frames, as seen from the folder.
        video: what tells the video from another of its name, see :func:`video_of`.
        told: what tells its boxes from others.
        owner: whose its folders are, for messages; "" where nothing tells it.
        joints, annotated, diagonal: of each frame `[N, 15, 2]`, `[N, 15]` and `[N]`; None before all are written.
    """

    names: np.ndarray
    video: tuple[int, ...]
    told: str
    owner: str
    joints: np.ndarray | None = None
    annotated: np.ndarray | None = None
    diagonal: np.ndarray | None = None

    @property
    def done(self) -> bool:
        """Whether all frames were written."""
        return self.joints is not None

    @property
    def folders(self) -> set[str]:
        """Those that the frames are in."""
        return set(map(folder_of, self.names))


def video_of(path: Path) -> tuple[int, int]:
    """What tells a video from another that takes its name: size and time."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def folder_of(name: str) -> str:
    """The folder that a frame is in."""
    return str(name).rpartition("/")[0]


def read_state(path: Path) -> VideoState:
    """A record.

    Raises:
        DataError: it is damaged, or names files that are no frames in folders beside the records.
    """
    arrays = load_npz_arrays(path)
    names = arrays.get("names", np.zeros(0))
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(f"{path} has no names of frames, expected a record that was written with them.")
    for name in names.tolist():
        if not _NAME.fullmatch(name) or len(Path(name).parts) != 2:
            raise DataError(
                f"{path} names {name[:_SHOWN]!r}, expected frames as they are written, walk/0123456789abcdef.jpg."
            )
    video = arrays.get("video", np.zeros(0, np.int64))
    told, owner = (str(arrays.get(key, "")) for key in ("told", "owner"))
    state = VideoState(names, tuple(video.reshape(-1).tolist()), told, owner)
    if not any(key in arrays for key in _LABELS):
        return state
    shapes = {"joints": (len(names), 15, 2), "annotated": (len(names), 15), "diagonal": (len(names),)}
    kinds = {"joints": "f", "annotated": "b", "diagonal": "f"}
    for key in _LABELS:
        if key not in arrays or arrays[key].shape != shapes[key] or arrays[key].dtype.kind != kinds[key]:
            raise DataError(
                f"{path} has no {key} of {len(names)} frames, expected a record that was written with them."
            )
    return VideoState(names, state.video, told, owner, *(arrays[key] for key in _LABELS))


def write_state(path: Path, state: VideoState) -> None:
    """Write a record, whole or not at all."""
    arrays = {key: getattr(state, key) for key in ("names", *_LABELS) if getattr(state, key) is not None}
    video = np.array(state.video, np.int64)
    with new_file(path) as file:
        np.savez_compressed(file, **arrays, video=video, told=state.told, owner=state.owner)


def check_folders(out: Path, folders: Iterable[str]) -> None:
    """Raise where a folder of frames is a link: what is written or removed there would be somewhere else.

    Raises:
        ArgumentError: one is.
    """
    for folder in sorted(folders):
        if (out / folder).is_symlink():
            raise ArgumentError(f"out is {out}, where {folder} is a link, expected a folder of frames.")


def remove_frames(out: Path, names: Iterable[str]) -> None:
    """Remove frames, and the folders that are empty then."""
    names = [str(name) for name in names]
    for name in names:
        (out / name).unlink(missing_ok=True)
    for folder in {out / folder_of(name) for name in names}:
        sweep(folder)  # what a killed process was writing
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
