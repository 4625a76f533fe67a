"""Frames of videos, one at a time: by number, or as they come."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..errors import DataError, needs_extra
from ..reading import regular
from .image_files import MOST_PIXELS
from .image_people import whole_box
from .people import Person

__all__ = ["VIDEO_SUFFIXES", "VideoPeople", "video_frames"]

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
"""Endings of the names of videos, lower case."""

#: Containers that hold their frames themselves. A playlist would name other files and addresses.
_CONTAINERS = "avi,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,m4v,h264,hevc"
_AROUND = 1.25  # as around annotated people


class VideoPeople:
    """The person in each frame of a video.

    The file is read once to find its frames. They are decoded when they are asked for: in order, that is one frame a
    time; out of order, from the last key frame before, or from the beginning where the file tells no times of its
    frames (AVI, some streams). Memory is that of a frame.

    Args:
        path: the video.
        boxes: frame -> [x, y, width, height] in pixels, for the first frame at least; others have the last box before
            them. None takes the square around the whole frame.

    Attributes:
        fps: frames per second, NaN where the file tells none.
        size: width and height of the frames as they are shown, pixels.

    Raises:
        MissingFileError: there is no such file.
        DataError: no video, one without frames, or with larger ones than
            :data:`~structloss.images.image_files.MOST_PIXELS`.
        MissingDependencyError: PyAV is not installed.
    """

    labelled = False
    has_joints = False

    def __init__(self, path: str | os.PathLike[str], *, boxes: Mapping[int, Any] | None = None) -> None:
        self.path = regular(path, "a video")
        with _opened(self.path) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            self.fps = float(rate) if rate else math.nan
            times = _times(container, stream, self.path)
        # None: frames are told by their number from the beginning.
        self._times: np.ndarray | None = None if isinstance(times, int) else times
        self._count = times if isinstance(times, int) else len(times)
        self._boxes: tuple[np.ndarray, np.ndarray] | None = None
        if boxes is not None:
            self._set_boxes(boxes)
        self._reader: _Reader | None = None
        height, width = self.frame(0).shape[:2]
        self.size = width, height

    def _set_boxes(self, boxes: Mapping[int, Any]) -> None:
        frames = np.array(sorted(boxes), np.int64)
        if frames[0] != 0 or frames[-1] >= len(self):
            raise DataError(
                f"boxes has frames {frames[0]} to {frames[-1]}, expected the first one, 0, and none after "
                f"{len(self) - 1}, the last of {self.path}."
            )
        self._boxes = frames, np.array([boxes[int(frame)] for frame in frames], np.float64)

    @property
    def source(self) -> str:
        """The video, for messages."""
        return str(self.path)

    @property
    def notes(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def __len__(self) -> int:
        return self._count

    def frame(self, index: int) -> np.ndarray:
        """A frame, uint8 `[H, W, 3]`, RGB.

        Raises:
            IndexError: there is no such frame.
            DataError: it can't be decoded.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index is {index}, expected less than {len(self)}, the frames of {self.path}.")
        # A process that was forked has the same open file, with one place in it for both.
        if self._reader is None or self._reader.process != os.getpid():
            self._reader = _Reader(self.path)
        if self._times is None:
            if index < self._reader.number:  # seeking is not to be relied on without times
                self._reader.close()
                self._reader = _Reader(self.path)
            return self._reader.numbered(index)
        return self._reader.frame(int(self._times[index]))

    def __getitem__(self, index: int) -> Person:
        """The person in a frame.

        Raises:
            IndexError, DataError: as :meth:`frame`.
        """
        image = self.frame(index)
        nothing = np.zeros(16, bool)
        centre, side = self._box(index, image)
        return Person(
            image=image,
            centre=np.asarray(centre, np.float32),
            side=side,
            joints=np.zeros((16, 2), np.float32),
            annotated=nothing,
            visible=nothing.copy(),
            name=f"frame {index} of {self.path.name}",
            subject=self.path.stem,
        )

    def _box(self, index: int, image: np.ndarray) -> tuple[Any, float]:
        if self._boxes is None:
            return whole_box(image.shape)
        frames, boxes = self._boxes
        box = boxes[bisect_right(frames, index) - 1]
        return box[:2] + box[2:] / 2 - 0.5, float(_AROUND * box[2:].max())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}


def video_frames(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """The frames of a video in order, uint8 `[H, W, 3]`, RGB; one at a time is in memory.

    Raises:
        MissingFileError, DataError, MissingDependencyError: as :class:`VideoPeople`.
    """
    path = regular(path, "a video")
    reader, any_frame = _Reader(path), False
    try:
        for frame in reader.decoded():
            any_frame = True
            yield _pixels(frame, path)
    finally:
        reader.close()
    if not any_frame:
        _no_frames(path)


class _Reader:
    """An open video, at a place."""

    def __init__(self, path: Path) -> None:
        self.path, self.process = path, os.getpid()
        self._errors = _errors()
        self._context = _opened(path)
        self._container = self._context.__enter__()
        self._stream = self._container.streams.video[0]
        self._frames: Iterator[Any] | None = None
        self._at: int | None = None  # time of the last frame
        self.number = 0  # of the next frame, where frames are counted

    def close(self) -> None:
        self._context.__exit__(None, None, None)

    def decoded(self) -> Iterator[Any]:
        """Frames from where the file is."""
        try:
            yield from self._container.decode(self._stream)
        except self._errors as error:
            raise DataError(f"{self.path} can't be decoded: {_said(error)}.") from error

    def frame(self, time: int) -> np.ndarray:
        """The frame of a time; the next one if it is that."""
        for again in (False, True):
            if again or self._frames is None or self._at is None or time <= self._at:
                self._seek(time if not again else 0)
            found = self._forward(time)
            if found is not None:
                return _pixels(found, self.path)
        raise DataError(f"{self.path} has no frame at its time {time}, as its contents say; it is damaged.")

    def numbered(self, number: int) -> np.ndarray:
        """The frame of a number, counted from the beginning, none before `self.number`."""
        if self._frames is None:
            self._frames = self.decoded()
        for frame in self._frames:
            self.number += 1
            if self.number == number + 1:
                return _pixels(frame, self.path)
        raise DataError(f"{self.path} has no frame {number}, which it had when it was opened.")

    def _seek(self, time: int) -> None:
        try:
            self._container.seek(time, stream=self._stream, backward=True, any_frame=False)
        except self._errors as error:
            raise DataError(f"{self.path} can't be decoded: {_said(error)}.") from error
        self._frames, self._at = self.decoded(), None

    def _forward(self, time: int) -> Any:
        """Decode up to the frame of a time; None if it is not there."""
        assert self._frames is not None
        for frame in self._frames:
            if frame.pts is None:
                continue
            self._at = frame.pts
            if frame.pts == time:
                return frame
            if frame.pts > time:
                break
        self._frames = None
        return None


def _av() -> Any:
    with needs_extra("video"):
        import av
    return av


def _errors() -> tuple[type[BaseException], ...]:
    return (_av().error.FFmpegError, ValueError, MemoryError)


def _said(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__).split("\n")[0].rstrip(".")[:160]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A video that is open; only containers that hold their own frames."""
    av = _av()
    av.logging.set_level(av.logging.PANIC)  # what is wrong is said once, below
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path.absolute()}", options=options, metadata_errors="replace")
    except _errors() as error:
        raise DataError(f"{path} is no video that can be opened: {_said(error)}.") from error
    with container:
        if not container.streams.video:
            raise DataError(f"{path} has no video stream, expected a video.")
        context = container.streams.video[0].codec_context
        width, height = context.width or 0, context.height or 0
        if width * height > MOST_PIXELS:
            raise DataError(f"{path} has frames of {width} x {height} pixels, expected at most {MOST_PIXELS} in all.")
        yield container


def _times(container: Any, stream: Any, path: Path) -> np.ndarray | int:
    """Times of all frames in the stream's unit, in order, nothing is decoded for it; or the number of frames, where the
    times of packets are not those of frames."""
    try:
        packets = [packet.pts for packet in container.demux(stream) if packet.size and not _dropped(packet)]
        times = set(packets)
        if packets and (None in times or "avi" in container.format.name):
            with _opened(path) as again:
                return sum(1 for _ in again.decode(again.streams.video[0])) or _no_frames(path)
    except _errors() as error:
        raise DataError(f"{path} can't be read: {_said(error)}.") from error
    if not times:
        _no_frames(path)
    return np.array(sorted(times), np.int64)


def _no_frames(path: Path) -> NoReturn:
    raise DataError(f"{path} has no frames, expected at least one.")


def _dropped(packet: Any) -> bool:
    """Whether a packet is decoded for others' sake alone."""
    return bool(getattr(packet, "is_discard", False))


def _pixels(frame: Any, path: Path) -> np.ndarray:
    """RGB as it is shown."""
    if frame.width * frame.height > MOST_PIXELS:
        raise DataError(f"{path} has frames of {frame.width} x {frame.height} pixels, expected at most {MOST_PIXELS}.")
    image = frame.to_ndarray(format="rgb24")
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns))
