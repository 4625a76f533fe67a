"""Keypoints of the people in frames, found by a detector: as a file, and as tracks of one person each."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data._words import count
from ..data.formats._people import Video, tracks_of
from ..data.formats._tracks import Detection, seen_in
from ..data.formats.keypoint_form import KeypointFile
from ..data.formats.keypoint_maps import LAYOUTS
from ..data.formats.keypoints import Keypoints
from ..errors import ArgumentError, DataError, StructlossError, shown
from ..files import plain, write_text
from ..progress import track
from .detector import Detect, Detector
from .footage import Footage

__all__ = ["FoundKeypoints", "find_keypoints"]

_DIGITS = 4  # after the point: a file has the very numbers that are lifted


@dataclass(frozen=True)
class FoundKeypoints:
    """What a detector found in frames.

    Attributes:
        name: of the footage.
        source: where it is from, for messages.
        detector: name of the detector.
        layout: of the keypoints, one of :data:`~structloss.data.formats.keypoint_maps.LAYOUTS`; None where only their
            number tells it.
        width, height: of the frames, pixels.
        fps: frames per second; None where nothing tells it.
        frames: of each frame the people in it, float64 `[P, J, 3]`: x right, y down in pixels, and confidence; NaN
            where the detector says so.
    """

    name: str
    source: str
    detector: str
    layout: str | None
    width: int
    height: int
    fps: float | None
    frames: tuple[np.ndarray, ...]

    @property
    def seen(self) -> int:
        """Number of frames with somebody in them."""
        return sum(len(people) > 0 for people in self.frames)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a JSON file, which :func:`~structloss.data.formats.read_keypoints` takes: an object with `detector`,
        `layout`, `width`, `height`, `fps` and `frames`, each with its number and its `people`. It appears complete or
        not at all.

        Raises:
            OSError: it can't be written there.
        """
        told = {"detector": self.detector, "layout": self.layout, "width": self.width, "height": self.height}
        frames = [
            {"frame": number, "people": [{"keypoints": person} for person in people]}
            for number, people in enumerate(self.frames)
        ]
        known = {key: value for key, value in {**told, "fps": self.fps}.items() if value is not None}
        return write_text(path, json.dumps(plain({**known, "frames": frames}), allow_nan=False) + "\n")

    def tracks(self, person: str | int = "longest") -> list[Keypoints]:
        """The people over time, the same as are read from the file.

        Args:
            person: whom to take, see :func:`~structloss.data.formats.read_keypoints`.

        Raises:
            ArgumentError, DataError: there is no such person, or a number of keypoints that is no layout's.
        """
        video = Video(self.name, self.width, self.height, self.fps, likely=self.layout)
        detections = [Detection(number, one) for number, people in enumerate(self.frames) for one in people]
        return tracks_of(KeypointFile(Path(self.source)), video, detections, None, person)


def find_keypoints(footage: Footage, detector: Detector, *, progress: bool = False) -> FoundKeypoints:
    """Let a detector look at every frame, in order. One frame is in memory at a time.

    Args:
        footage: the frames.
        detector: see :func:`~structloss.images.detector.load_detector`.
        progress: show a progress bar on a terminal.

    Raises:
        ArgumentError: the detector raises an exception, or gives something else than keypoints.
        DataError: there is nobody in any frame, or a frame that can't be read.
        MissingDependencyError: a package that the detector needs is not installed.
    """
    rate = (footage.fps or 30.0) if footage.moving else None
    found: list[np.ndarray] = []
    with _opened(detector, rate) as detect:
        frames = iter(footage)
        for number in track(range(len(footage)), "Finding people", progress):
            frame = next(frames)
            answer = None if frame is None else _asked(detect, frame, f"frame {number} of {footage.source}", detector)
            found.append(_people(answer, f"detector {detector.name} gave for frame {number} of {footage.source}"))
            _check_alike(found, detector)
    if not any(len(people) for people in found):
        raise DataError(
            f"{footage.source} shows nobody in {count(len(footage), 'frame')} as far as the detector "
            f"{detector.name} sees, expected a person."
        )
    return FoundKeypoints(
        footage.name, footage.source, detector.name, detector.layout, footage.width, footage.height, footage.fps,
        tuple(found),
    )  # fmt: skip


@contextlib.contextmanager
def _opened(detector: Detector, fps: float | None) -> Iterator[Detect]:
    """A detector that is ready, and closed in the end if it can be."""
    detect = detector.open(fps)
    try:
        yield detect
    finally:
        close = getattr(detect, "close", None)
        if callable(close):
            close()


def _asked(detect: Detect, frame: np.ndarray, where: str, detector: Detector) -> Any:
    """A detector's answer; what somebody's own function raises is no fault of ours."""
    try:
        return detect(frame)
    except (StructlossError, MemoryError):
        raise
    except Exception as error:
        raise ArgumentError(
            f"detector {detector.name} raised {type(error).__name__} for {where}: "
            f"{' '.join(str(error).split())[:200]}; expected keypoints [J, 3] (x, y, confidence)."
        ) from error


def _people(answer: Any, where: str) -> np.ndarray:
    """A detector's answer as `[P, J, 3]`, with confidence from 0 to 1; of nobody `[0, 0, 3]`."""
    nobody = np.zeros((0, 0, 3))
    if answer is None:
        return nobody
    try:
        points = np.array(answer, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{where} {shown(answer)}, expected keypoints [J, 3] (x, y, confidence).") from error
    if points.size == 0:
        return nobody
    if points.ndim not in (2, 3) or points.shape[-1] != 3:
        raise ArgumentError(
            f"{where} an array of shape {list(points.shape)}, expected keypoints [J, 3] (x, y, confidence), those of "
            "several people [P, J, 3], or None for nobody."
        )
    points = np.round(points if points.ndim == 3 else points[None], _DIGITS)
    points[..., 2] = np.clip(points[..., 2], 0, 1)
    return points[seen_in(points).any(-1)]


def _check_alike(found: Sequence[np.ndarray], detector: Detector) -> None:
    """Raise where the last frame's keypoints are not as many as the layout has, or as those before."""
    if not len(found[-1]):
        return
    size = found[-1].shape[1]
    known = LAYOUTS[detector.layout].sizes if detector.layout is not None else _first_size(found)
    if size not in known:
        of = f"of layout {detector.layout}" if detector.layout is not None else "as before"
        raise ArgumentError(
            f"detector {detector.name} gave {size} keypoints for frame {len(found) - 1}, expected "
            f"{' or '.join(map(str, known))} {of}."
        )


def _first_size(found: Sequence[np.ndarray]) -> tuple[int, ...]:
    return (next(people.shape[1] for people in found if len(people)),)
