"""Image files that somebody else made: what their headers say, and their pixels as RGB.

A header is read before anything is decoded: an image of a few bytes may declare any number of pixels, and memory is
taken for no more than :data:`MOST_PIXELS`. JPEG, PNG, WebP, BMP and PNM (.ppm, .pgm) are read; other formats are
refused, since what they would unpack to can't be told as simply.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataError
from ..reading import opened
from ._opencv import one_thread, opencv

__all__ = ["MOST_PIXELS", "SUFFIXES", "ImageHeader", "check_image", "read_image"]

#: pixels of the largest image that is decoded; 192 MiB as RGB
MOST_PIXELS = 1 << 26
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")
"""Endings of the names of image files, lower case."""

_WHAT = "an image"
_TAIL = 1 << 16  # bytes at the end of a file


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
        format: "JPEG", "PNG", "WebP", "BMP" or "PNM".
        width, height: pixels, as they are stored.
        channels: 1 (grey), 2 (grey and alpha), 3 or 4; of a palette 3.
        bits: of a channel.
    """

    format: str
    width: int
    height: int
    channels: int = 3
    bits: int = 8


class _Broken(ValueError):
    """What is wrong with a file, without its name."""


def check_image(path: str | os.PathLike[str]) -> ImageHeader:
    """The header of an image file that is whole as far as its beginning and its end tell; nothing is decoded.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is empty, of no known format, cut off, or has more than :data:`MOST_PIXELS` pixels.
    """
    with opened(path, _WHAT) as file:
        return _checked(file, path)


def read_image(path: str | os.PathLike[str], *, upright: bool = False) -> np.ndarray:
    """The pixels of an image file, uint8 `[H, W, 3]`, RGB.

    Grey images get three equal channels; an alpha channel is dropped, colours of transparent pixels are those that
    the file has; channels of 16 bits keep their upper 8.

    Args:
        path: JPEG, PNG, WebP, BMP or PNM.
        upright: turn the image as its EXIF orientation tells viewers to. Annotations and boxes refer to the pixels as
            they are stored where data sets are concerned, hence False.

    Raises:
        MissingFileError, DataError: as :func:`check_image`, or it can't be decoded.
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = opencv()
    with opened(path, _WHAT) as file:
        _checked(file, path)
        file.seek(0)
        try:
            content = np.frombuffer(file.read(), np.uint8)
        except (OSError, MemoryError) as error:
            raise DataError(f"{path} can't be read: {error}.") from error
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)  # what is wrong is said below, once
    try:
        with one_thread():
            image = cv2.imdecode(content, flags)
    except cv2.error:
        image = None
    finally:
        log.setLogLevel(level)
    if image is None:
        raise DataError(f"{path} is damaged, expected an image that can be decoded.")
    return np.ascontiguousarray(image[..., ::-1])


def _checked(file: BinaryIO, path: str | os.PathLike[str]) -> ImageHeader:
    try:
        header = _header(file)
        if header.width < 1 or header.height < 1:
            raise _Broken(f"has {header.width} x {header.height} pixels, expected at least one")
        if header.width * header.height > MOST_PIXELS:
            raise _Broken(f"has {header.width} x {header.height} pixels, expected at most {MOST_PIXELS} in all")
    except _Broken as broken:
        raise DataError(f"{Path(path)} {broken}.") from None
    except (struct.error, IndexError):
        raise DataError(f"{Path(path)} ends within its header, expected a whole image.") from None
    except OSError as error:
        raise DataError(f"{Path(path)} can't be read: {error.strerror}.") from error
    return header


def _header(file: BinaryIO) -> ImageHeader:
    start = file.read(64)
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise _Broken("is empty, expected an image")
    if start.startswith(b"\xff\xd8\xff"):
        return _jpeg(file, size)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(file, start, size)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _webp(start, size)
    if start.startswith(b"BM"):
        return _bmp(start, size)
    if start[:2] in (b"P5", b"P6"):
        return _pnm(file, size)
    raise _Broken("is of no known image format, expected JPEG, PNG, WebP, BMP or PNM")


def _jpeg(file: BinaryIO, size: int) -> ImageHeader:
    header, at = None, 2
    while header is None:
        file.seek(at)
        mark = file.read(2)
        if len(mark) < 2 or mark[0] != 0xFF:
            raise _Broken(
                "has a damaged header" if len(mark) == 2 else "ends within its header, expected a whole image"
            )
        kind = mark[1]
        if kind == 0xFF:  # a fill byte
            at += 1
        elif kind in (0x01, *range(0xD0, 0xD9)):  # without content
            at += 2
        elif kind in (0xD9, 0xDA):
            raise _Broken("has no size in its header")
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = struct.unpack(">BHHB", file.read(8)[2:])
            header = ImageHeader("JPEG", width, height, channels, bits)
        else:
            at += 2 + max(2, struct.unpack(">H", file.read(2))[0])
    # Cameras append data of their own behind the image; a file that was cut off has no end at all.
    for start in (max(at, size - _TAIL), at):
        file.seek(start)
        if b"\xff\xd9" in file.read():
            return header
    raise _Broken("is cut off, expected a whole JPEG image")


def _png(file: BinaryIO, start: bytes, size: int) -> ImageHeader:
    if start[12:16] != b"IHDR":
        raise _Broken("has a damaged header")
    width, height, bits, colours = struct.unpack(">IIBB", start[16:26])
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colours)
    if channels is None:
        raise _Broken("has a damaged header")
    at = 8
    while True:  # from chunk to chunk: what comes after the last one does not matter
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            raise _Broken("is cut off, expected a whole PNG image")
        length, kind = struct.unpack(">I4s", head)
        at += 12 + length
        if at > size:
            raise _Broken("is cut off, expected a whole PNG image")
        if kind == b"IEND":
            return ImageHeader("PNG", width, height, channels, bits)


def _webp(start: bytes, size: int) -> ImageHeader:
    (length,) = struct.unpack("<I", start[4:8])
    if length + 8 > size:
        raise _Broken("is cut off, expected a whole WebP image")
    kind = start[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(start[at : at + 3], "little") for at in (24, 27))
        return ImageHeader("WebP", width, height, 4 if start[20] & 0x10 else 3)
    if kind == b"VP8L":
        (packed,) = struct.unpack("<I", start[21:25])
        return ImageHeader("WebP", 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF), 4 if packed >> 28 & 1 else 3)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", start[26:30])
        return ImageHeader("WebP", width & 0x3FFF, height & 0x3FFF)
    raise _Broken("has a damaged header")


def _bmp(start: bytes, size: int) -> ImageHeader:
    offset, header = struct.unpack("<II", start[10:18])
    if header < 40:
        raise _Broken("is a BMP image of OS/2, expected one of Windows")
    width, height, _, bits, packed = struct.unpack("<iiHHI", start[18:34])
    height = abs(height)
    if not packed and width > 0 and offset + (width * bits + 31) // 32 * 4 * height > size:
        raise _Broken("is cut off, expected a whole BMP image")
    return ImageHeader("BMP", width, height, 4 if bits == 32 else 3)


def _pnm(file: BinaryIO, size: int) -> ImageHeader:
    file.seek(0)
    text = file.read(4096)
    numbers: list[int] = []
    at = 2
    while len(numbers) < 3:
        while at < len(text) and (text[at : at + 1].isspace() or text[at : at + 1] == b"#"):
            at = text.index(b"\n", at) if text[at : at + 1] == b"#" and b"\n" in text[at:] else at + 1
        end = at
        while end < len(text) and text[end : end + 1].isdigit():
            end += 1
        if end == at or end - at > 9:
            raise _Broken("has a damaged header")
        numbers.append(int(text[at:end]))
        at = end
    width, height, most = numbers
    channels, depth = (3 if text[:2] == b"P6" else 1), (2 if most > 255 else 1)
    if size - at - 1 < width * height * channels * depth:
        raise _Broken("is cut off, expected a whole PNM image")
    return ImageHeader("PNM", width, height, channels, 8 * depth)
