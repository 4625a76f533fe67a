"""Encoders of videos: frames one after the other, so that memory does not grow with their number."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError, MissingDependencyError, how_to_install, needs_extra
from ..files import replacing
from ..progress import track

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Frames = Generator[NDArray[np.uint8], None, None]

__all__ = ["check_encoder", "encode_gif", "encode_mp4", "write_mp4"]


def check_encoder() -> Any:
    """The package that encodes MP4 files.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            f"MP4 files need av, which is not installed: {how_to_install('video')}, or write a .gif."
        ) from error
    return av


def write_mp4(
    path: str | os.PathLike[str], frames: Frames, fps: float, *, count: int | None = None, progress: bool = False
) -> Path:
    """Encode frames as an MP4 file, which appears complete or not at all. A frame is in memory at a time.

    Args:
        path: a name that ends in `.mp4`.
        frames: uint8 RGB `[height, width, 3]`, all of one size; of an odd width or height the last pixels are left out,
            since H.264 takes none. They are closed at the end.
        fps: frames per second.
        count: of the frames, for the progress bar.
        progress: show a progress bar on a terminal, where `count` is told.

    Raises:
        ArgumentError: another ending, or a rate that is not positive.
        MissingDependencyError: `av` is not installed.
        OSError: the file can't be written there.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ArgumentError(f"path is {str(path)!r}, expected a name that ends in .mp4.")
    if not (np.isfinite(fps) and fps > 0):
        raise ArgumentError(f"fps is {fps!r}, expected a positive number.")
    with contextlib.closing(frames), replacing(path) as temporary:
        encode_mp4(temporary, frames if count is None else _counted(frames, count, progress), fps)
    return path


def _counted(frames: Frames, count: int, progress: bool) -> Frames:
    for _ in track(range(count), "Drawing", progress):
        yield next(frames)


def encode_mp4(path: Path, frames: Frames, fps: float) -> None:
    """MP4 (H.264) of frames, which are closed at the end."""
    av = check_encoder()
    with (
        contextlib.closing(frames),
        av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        stream: Any = None
        for image in frames:
            image = image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]  # H.264 wants even sizes
            if stream is None:
                rate = Fraction(fps).limit_denominator(1001)
                stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def encode_gif(path: Path, frames: Frames, fps: float) -> None:
    """GIF, frame by frame, only what differs from the frame before; Pillow's own writer keeps all frames in memory."""
    with needs_extra("harness"):
        from PIL import Image, ImageChops
        from PIL.GifImagePlugin import getdata, getheader
    palette: Any = None
    before: Any = None
    shown = 0  # hundredths of a second, GIF's unit
    with contextlib.closing(frames), open(path, "wb") as file:
        for number, pixels in enumerate(frames, start=1):
            image = Image.fromarray(pixels)
            if palette is None:
                palette = image.quantize(255, dither=Image.Dither.NONE)
            image = image.quantize(palette=palette, dither=Image.Dither.NONE)
            until = round(number * 100 / fps)
            box = (0, 0, 1, 1)  # an unchanged frame still takes its time
            if before is None:
                box = (0, 0, *image.size)
                head = b"".join(getheader(image)[0])
                file.write(b"GIF89a" + head[6:])
                file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # repeat for ever
            else:
                box = ImageChops.difference(image.convert("RGB"), before.convert("RGB")).getbbox() or box
            for block in getdata(image.crop(box), box[:2], duration=10 * (until - shown)):
                file.write(block)
            before, shown = image, until
        file.write(b";")
