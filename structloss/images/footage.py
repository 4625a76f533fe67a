"""Frames that follow each other: of a video, of a folder of images, or of a camera; or a single image."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ArgumentError, DataError, check_choice
from ..reading import existing
from .image_files import SUFFIXES, read_image
from .source import SKIPPING
from .sources.folder import names_of_images_in
from .video import VIDEO_SUFFIXES, VideoPeople

__all__ = ["Footage", "open_footage"]


@dataclass(frozen=True)
class Footage:
    """Frames, read when they are asked for.

    Attributes:
        name: of the video, the folder or the image, without its ending.
        source: where they are from, for messages.
        width, height: of all frames, pixels.
        fps: frames per second; None where nothing tells it.
        read: number of a frame -> uint8 RGB `[H, W, 3]`; None for an image that is missing or broken and is to be left
            out. In order, it takes the time of a frame.
        count: number of frames.
        moving: whether they follow each other; False for a single image.
    """

    name: str
    source: str
    width: int
    height: int
    fps: float | None
    read: Callable[[int], np.ndarray | None]
    count: int
    moving: bool = True

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray | None]:
        """The frames in order, one at a time in memory; as often as one likes.

        Raises:
            DataError: a frame that can't be decoded, or is of another size than the first.
        """
        return (self.read(number) for number in range(self.count))


def open_footage(
    path: str | os.PathLike[str], *, frames: int | None = None, fps: float | None = None, missing: str = "error"
) -> Footage:
    """Open a video, an image, or a folder of images, which are frames in the order of their names with numbers as such.

    Args:
        path: what to open; see :data:`~structloss.images.video.VIDEO_SUFFIXES` and
            :data:`~structloss.images.image_files.SUFFIXES`.
        frames: how many to take, from the first; None takes all.
        fps: frames per second; None is what the video says, and is not known of images.
        missing: images that are missing or broken: "error", or "skip", which makes them frames with nobody in them.

    Raises:
        MissingFileError: there is no such path.
        DataError: no video, image or folder of images, or one that can't be read.
        ArgumentError: `frames` or `fps` is not positive, or `missing` is something else.
        MissingDependencyError: OpenCV, or for a video PyAV, is not installed.
    """
    check_choice("missing", missing, SKIPPING)
    if frames is not None and frames < 1:
        raise ArgumentError(f"frames is {frames}, expected at least 1.")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ArgumentError(f"fps is {fps:g}, expected a positive number.")
    path = existing(Path(path), "a video, an image or a folder of images")
    if not path.is_dir() and path.suffix.lower() in VIDEO_SUFFIXES:
        return _of_video(path, frames, fps)
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        return _of_images(path, frames, fps, missing == "skip")
    raise DataError(f"{path} is of no known format, expected {', '.join((*VIDEO_SUFFIXES, *SUFFIXES))} or a folder.")


def _of_video(path: Path, frames: int | None, fps: float | None) -> Footage:
    video = VideoPeople(path)
    told = None if math.isnan(video.fps) else video.fps
    count = len(video) if frames is None else min(frames, len(video))
    return Footage(path.stem, str(path), *video.size, fps or told, video.frame, count)


def _of_images(path: Path, frames: int | None, fps: float | None, skip: bool) -> Footage:
    folder = path if path.is_dir() else path.parent
    names = names_of_images_in(path)[:frames] if path.is_dir() else [path.name]
    if not names:
        raise DataError(f"{path} has no images, expected files that end in {', '.join(SUFFIXES)}.")
    first, size = _first(folder, names, skip)

    def read(number: int) -> np.ndarray | None:
        try:
            image = read_image(folder / names[number], upright=True)
        except DataError:
            if skip:
                return None
            raise
        if image.shape[:2] != size:
            raise DataError(
                f"{folder / names[number]} has {image.shape[1]} x {image.shape[0]} pixels, expected those of frames "
                f"that follow each other, {size[1]} x {size[0]} as {first} has."
            )
        return image

    name = path.resolve().name if path.is_dir() else path.stem
    return Footage(name or "images", str(path), size[1], size[0], fps, read, len(names), moving=path.is_dir())


def _first(folder: Path, names: list[str], skip: bool) -> tuple[str, tuple[int, int]]:
    """The first image that can be read, and its height and width."""
    for name in names:
        try:
            height, width = read_image(folder / name, upright=True).shape[:2]
            return name, (height, width)
        except DataError:
            if not skip:
                raise
    raise DataError(f"{folder} has {len(names)} images, expected at least one that can be read.")
