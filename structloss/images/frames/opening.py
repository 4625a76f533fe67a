"""Open folders of frames: folders of images, or videos with boxes."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import ArgumentError
from ...reading import existing
from .folders import FrameFolders
from .images import ImageFolders
from .videos import VideoFolders, is_of_videos

__all__ = ["open_frames"]


def open_frames(
    path: str | os.PathLike[str],
    *,
    boxes: str | os.PathLike[str] | list[float] | None = None,
    missing: str = "error",
    check: str = "files",
    progress: bool = False,
) -> FrameFolders:
    """Folders of frames, each of one person before one background.

    Args:
        path: a folder of folders of images (:class:`~structloss.images.frames.images.ImageFolders`), or a video or a
            folder of videos (:class:`~structloss.images.frames.videos.VideoFolders`).
        boxes: of videos: see there.
        missing, check: of images: see there.
        progress: show a progress bar on a terminal.

    Raises:
        MissingFileError, DataError: no such path, or nothing that can be used.
        ArgumentError: boxes for images.
    """
    found = existing(Path(path), "a folder of folders of images, or a video")
    if is_of_videos(found):
        return VideoFolders(found, boxes=boxes)
    if boxes is not None:
        raise ArgumentError(f"boxes is given for {found}, expected it with videos.")
    return ImageFolders(found, missing=missing, check=check, progress=progress)
