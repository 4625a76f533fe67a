"""What a camera of this computer sees, kept until the process ends."""

from __future__ import annotations

import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, DataError
from ..files import scratch_folder
from ..progress import track
from ._opencv import opencv
from .footage import Footage
from .image_files import read_image

__all__ = ["MOST_FRAMES", "record_camera"]

MOST_FRAMES = 20_000
"""Frames after which a recording ends in any case, eleven minutes at 30 frames a second, some gigabytes [ours]."""


def record_camera(
    index: int,
    *,
    frames: int | None = None,
    fps: float | None = None,
    progress: bool = False,
    started: Callable[[int, int], None] | None = None,
) -> Footage:
    """Record a camera until so many frames are there, or until Ctrl-C.

    Frames are JPEG files of a temporary folder, which goes with the footage, or when the next one is recorded if the
    process is killed; what a detector takes longer for than a camera does not get lost. The rate is measured.

    Args:
        index: of the camera, as OpenCV counts them; 0 is the first.
        frames: how many; None records until Ctrl-C (KeyboardInterrupt), and at most :data:`MOST_FRAMES`.
        fps: frames per second; None is the measured rate.
        progress: show a progress bar on a terminal, where `frames` is told.
        started: called with the width and height of the frames when there is the first.

    Raises:
        ArgumentError: `frames` is not from 1 to :data:`MOST_FRAMES`.
        DataError: there is no such camera, or it gives no frames.
        MissingDependencyError: OpenCV is not installed.
        OSError: the disk is full.
    """
    if frames is not None and not 1 <= frames <= MOST_FRAMES:
        raise ArgumentError(f"frames is {frames}, expected 1 to {MOST_FRAMES}.")
    kept = ExitStack()
    try:
        folder = kept.enter_context(scratch_folder(Path(tempfile.gettempdir()) / "structloss-camera"))
        folder.chmod(0o700)  # nobody else's to see
        width, height, times = _recorded(folder, index, frames, progress, started)
        rate = fps
        if rate is None and len(times) > 1 and times[-1] > times[0]:
            rate = (len(times) - 1) / (times[-1] - times[0])

        def read(number: int) -> np.ndarray:
            return read_image(folder / f"{number}.jpg")

        footage = Footage(f"camera-{index}", f"camera {index}", width, height, rate, read, len(times))
        weakref.finalize(footage, kept.close)  # at the latest when the process ends
    except BaseException:
        kept.close()
        raise
    return footage


def _recorded(
    folder: Path, index: int, frames: int | None, progress: bool, started: Callable[[int, int], None] | None
) -> tuple[int, int, list[float]]:
    """Width, height, and the time of each frame in seconds."""
    cv2 = opencv()
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)  # what is wrong is said below, once
    try:
        camera = cv2.VideoCapture(index)
    finally:
        log.setLogLevel(level)
    times: list[float] = []
    width = height = 0
    try:
        if not camera.isOpened():
            raise DataError(f"camera {index} can't be opened, expected the number of a camera of this computer.")
        for number in track(range(frames or MOST_FRAMES), "Recording", progress and frames is not None):
            image = _frame(camera, index)
            if not times:
                height, width = image.shape[:2]
                if started is not None:
                    started(width, height)
            done, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
            assert done and image.shape[:2] == (height, width)  # a camera's size is set when it is opened
            (folder / f"{number}.jpg").write_bytes(bytes(content))
            times.append(time.monotonic())
    except KeyboardInterrupt:
        if not times:
            raise
    finally:
        camera.release()
    return width, height, times


def _frame(camera: Any, index: int) -> np.ndarray:
    """The next frame, BGR."""
    got, image = camera.read()
    if not got or image is None:
        raise DataError(f"camera {index} gives no frame, expected one that no other program uses.")
    return np.asarray(image)
