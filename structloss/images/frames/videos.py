"""Videos with boxes as folders of frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data._words import count
from ...errors import ArgumentError, DataError, MissingFileError
from ...reading import existing
from ..crops import crop_matrix, transform, warp
from ..image_people import whole_box
from ..video import VIDEO_SUFFIXES, VideoPeople
from .boxes import BOX_SUFFIXES, FrameBoxes, read_frame_boxes
from .crops import SnappedBox, grid_of, snapped
from .folders import Frame, box_diagonal, unlabelled

__all__ = ["VideoFolders", "boxes_of", "cropped", "grouped", "is_of_videos", "labelled_crop", "videos_in"]

_OPEN = 16  # videos


def videos_in(path: Path) -> list[Path]:
    """A video itself, or those in a folder and below, in the order of their names; hidden ones are left out."""
    if not path.is_dir():
        return [path]
    found = []
    for at, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(at) / name for name in files if not name.startswith(".") and _is_video(name)]
    return sorted(found)


def _is_video(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES)


def is_of_videos(path: Path) -> bool:
    """Whether a path is a video or a folder of such."""
    return bool(videos_in(path)) if path.is_dir() else _is_video(path.name)


def boxes_of(
    video: Path, told: str | os.PathLike[str] | Sequence[float] | None, alone: bool
) -> str | os.PathLike[str] | Sequence[float] | None:
    """Where a video's boxes are: what was told, if that is a box or a file; in a folder that was told the file with the
    video's name; without anything `NAME.boxes.npz`, `.json` or `.csv` beside the video, if there is one.

    Args:
        video: its file.
        told: a box, a file, a folder or None.
        alone: it is the only video.

    Raises:
        MissingFileError: the folder has no boxes of the video.
        ArgumentError: one file for several videos.
    """
    if told is None:
        beside = [video.with_name(f"{video.stem}.boxes{suffix}") for suffix in BOX_SUFFIXES]
        return next((path for path in beside if path.exists()), None)
    if not isinstance(told, str | os.PathLike):
        return told
    path = existing(told, "a file of boxes, or a folder of such")
    if not path.is_dir():
        if not alone:
            raise ArgumentError(
                f"boxes is {path}, one file for several videos, expected a folder with a file for each."
            )
        return path
    inner = [path / f"{video.stem}{suffix}" for suffix in BOX_SUFFIXES]
    inner += [path / f"{video.stem}.boxes{suffix}" for suffix in BOX_SUFFIXES]
    for file in inner:
        if file.exists():
            return file
    raise MissingFileError(f"{path} has no boxes of {video.name}, expected {inner[0].name}, .json or .csv.")


def grouped(boxes: FrameBoxes | None, frames: int, size: tuple[int, int]) -> dict[SnappedBox | None, list[int]]:
    """The frames of a video by the snapped boxes of the person; all of them under None where there are no boxes."""
    if boxes is None:
        return {None: list(range(frames))}
    grid = grid_of(size[1])
    found: dict[SnappedBox | None, list[int]] = {}
    for frame in np.flatnonzero(np.isfinite(boxes.boxes).all(1)).tolist():
        found.setdefault(snapped(boxes.boxes[frame], grid), []).append(frame)
    return found


def cropped(image: np.ndarray, crop: SnappedBox | None, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The square crop of a snapped box, of None the square around the whole image, and the map from the image's pixels
    to its own, `[2, 3]`; at its own size, or resized to `size`. Beyond the image it is black."""
    centre, side = whole_box(image.shape) if crop is None else (crop.centre, crop.side)
    pixels = max(1, round(side)) if size is None else size
    matrix = crop_matrix(centre, side, pixels)
    return warp(image, matrix, pixels), matrix


@dataclass(frozen=True)
class _Group:
    """Frames of one video with one snapped box."""

    video: int
    crop: SnappedBox | None
    frames: tuple[int, ...]


class VideoFolders:
    """Videos with a box around the person in every frame: a :class:`~structloss.images.frames.folders.FrameFolders`.

    Frames of a video with the same snapped box have one crop and one background, and make a folder
    (:mod:`structloss.images.frames.crops`); a single one is left out. The grid is that of Human3.6M's videos, scaled by
    the height of the frames [ours]. Without boxes a video is one folder of its whole frames. Frames are decoded when
    they are asked for: `structloss data frames` writes them to files, which are faster to read out of order.

    Args:
        path: a video, or a folder of videos.
        boxes: a box [x, y, width, height] for all frames, a file (:mod:`structloss.images.frames.boxes`), or a folder
            with a file for each video; None takes `NAME.boxes.npz`, `.json` or `.csv` beside `NAME.mp4`, if there is
            one.

    Raises:
        MissingFileError: no such path, or no boxes of a video in the folder of boxes.
        DataError: no videos, one without frames, boxes that are none or of another number of frames, or no two frames
            with one snapped box.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, boxes: str | os.PathLike[str] | Sequence[float] | None = None
    ) -> None:
        self.path = existing(path, "a video, or a folder of videos")
        self.videos = videos_in(self.path)
        if not self.videos:
            raise DataError(f"{self.path} has no videos, expected files that end in {', '.join(VIDEO_SUFFIXES)}.")
        self._open: dict[int, VideoPeople] = {}
        self._boxes: list[FrameBoxes | None] = []
        self._groups: list[_Group] = []
        single = 0
        for number, file in enumerate(self.videos):
            video = self._video(number)
            told = boxes_of(file, boxes, len(self.videos) == 1)
            found = read_frame_boxes(told, len(video), str(file), video.size)
            self._boxes.append(found)
            for crop, frames in grouped(found, len(video), video.size).items():
                single += len(frames) == 1
                if len(frames) > 1:
                    self._groups.append(_Group(number, crop, tuple(frames)))
        if not self._groups:
            raise DataError(
                f"{self.path} has {count(single, 'frame')}, each with a snapped box of its own, expected two of one."
            )
        self.notes = (f"{count(single, 'frame')} with a snapped box of its own left out",) if single else ()

    @property
    def source(self) -> str:
        return str(self.path)

    @property
    def folders(self) -> Sequence[str]:
        names = []
        for group in self._groups:
            file = self.videos[group.video]
            name = file.relative_to(self.path).with_suffix("").as_posix() if self.path.is_dir() else file.stem
            names.append(name if group.crop is None else f"{name}-{group.crop.name}")
        return names

    @property
    def lengths(self) -> Sequence[int]:
        return [len(group.frames) for group in self._groups]

    def joints(self, folder: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Joints of a frame in its crop, and which are known."""
        group = self._groups[folder]
        boxes = self._boxes[group.video]
        if boxes is None or boxes.joints is None or group.crop is None:
            return unlabelled()
        side = group.crop.side
        return labelled_crop(boxes.joints[group.frames[number]], crop_matrix(group.crop.centre, side, round(side)))

    def frame(self, folder: int, number: int) -> Frame:
        """Decode a frame.

        Raises:
            IndexError: there is none.
            DataError: it can't be decoded.
        """
        group = self._groups[folder]
        at = group.frames[number]
        image, matrix = cropped(self._video(group.video).frame(at), group.crop)
        boxes = self._boxes[group.video]
        joints, annotated = self.joints(folder, number)
        diagonal = box_diagonal(joints, annotated)
        if boxes is not None:
            diagonal = float(np.hypot(*boxes.boxes[at, 2:]) * matrix[0, 0])
        return Frame(image, joints, annotated, diagonal, f"frame {at} of {self.videos[group.video].name}")

    def _video(self, number: int) -> VideoPeople:
        if number not in self._open:
            if len(self._open) >= _OPEN:
                self._open.pop(next(iter(self._open)))
            self._open[number] = VideoPeople(self.videos[number])
        return self._open[number]


def labelled_crop(joints: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints `[15, 2]` of a frame in a crop, 0 where they are NaN, and which are known `[15]`."""
    known = np.isfinite(joints).all(-1)
    points = np.where(known[:, None], transform(np.where(known[:, None], joints, 0.0), matrix), 0.0)
    return points.astype(np.float32), known
