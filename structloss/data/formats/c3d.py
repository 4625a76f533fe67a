"""C3D motion capture: markers, not joints.

The file is a header, parameters, and per frame x, y, z and a status word of every marker, in blocks of 512 bytes. Only
markers are read; analogue channels are skipped.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ArgumentError, DataError
from ...reading import read_bytes
from ..clips import Clip
from ._named import choose_map, points_to_clip
from ._recordings import recordings
from .registry import FORMATS

__all__ = ["C3dMarkers", "parse_c3d", "read_c3d"]

_BLOCK = 512
_INTEL, _DEC, _MIPS = 84, 85, 86
_UNITS = {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "in": 0.0254, "inch": 0.0254, "inches": 0.0254}


@dataclass(frozen=True)
class C3dMarkers:
    """The markers of a C3D file.

    Attributes:
        labels: one per marker.
        points: float64 `[T, M, 3]`, file units and axes; NaN where a marker was not seen.
        fps: frames per second.
        units: as the file says, or "mm" where it doesn't.
        first_frame: number of the first frame.
    """

    labels: tuple[str, ...]
    points: np.ndarray
    fps: float
    units: str
    first_frame: int


def read_c3d(
    path: str | os.PathLike[str],
    *,
    markers: object = "auto",
    scale: float | None = None,
    up: str = "z",
    fps: float | None = None,
    max_gap: float = 0.1,
    frames: tuple[int, int] | None = None,
    subject: str | None = None,
    action: str | None = None,
    name: str | None = None,
) -> Clip:
    """Read the markers of a C3D file as a clip of the Human3.6M joints.

    Markers lie on the skin, so a "joint" made of them is some centimetres away from the joint's centre and a bone's
    length changes as the limb bends: a warning says so. Gaps of up to `max_gap` seconds are bridged by straight lines.

    Args:
        path: the C3D file.
        markers: "auto", "cmu-markers", "plug-in-gait", a mapping of joint name to marker(s) whose mean it is, or a
            YAML or JSON file of one; see :mod:`~structloss.data.formats.joint_maps`.
        scale: metres per unit of the file; None is what POINT:UNITS says.
        up: the file's axis that points up: "x", "y", "z" or "-y".
        fps: frames per second; None is what POINT:RATE says.
        max_gap: longest time, in seconds, that a marker may be missing.
        frames: (first, end) of the frames to read, counted from 0; None is all. Markers are often missing at the
            ends, where nothing can be bridged.
        subject, action, name: of the clip; None takes subject and name from the file's name, and action "unknown".

    Returns:
        A clip in metres, z up, at the file's rate.

    Raises:
        MissingFileError: the file does not exist.
        ArgumentError: an impossible argument, or `frames` outside of the file.
        DataError: a malformed or truncated file, unknown units without `scale`, a marker of the map that is not in the
            file or is missing for too long, or a person less than 1 m or more than 2.5 m tall without
            `scale`.
    """
    return _read(
        path, markers, "markers", scale=scale, up=up, fps=fps, max_gap=max_gap, frames=frames, subject=subject,
        action=action, name=name,
    )  # fmt: skip


def _read(
    path: str | os.PathLike[str],
    joints: object = "auto",
    argument: str = "joints",
    *,
    scale: float | None = None,
    up: str = "z",
    fps: float | None = None,
    max_gap: float = 0.1,
    frames: tuple[int, int] | None = None,
    **called: str | None,
) -> Clip:
    """:func:`read_c3d`, whose `markers` the caller knows as the `argument`."""
    path = Path(path)
    recorded = parse_c3d(path)
    joint_map, rows = choose_map(path, recorded.labels, joints, ("cmu-markers", "plug-in-gait"), "marker", argument)
    if scale is None and recorded.units.lower() not in _UNITS:
        raise DataError(
            f"{path} has the units {recorded.units!r}, expected {', '.join(_UNITS)}; set scale, the metres per unit."
        )
    rate = recorded.fps if fps is None else fps
    first, end = (0, len(recorded.points)) if frames is None else frames
    if not 0 <= first < end <= len(recorded.points):
        raise ArgumentError(f"frames is {frames}, expected (first, end) within the {len(recorded.points)} of {path}.")
    used = sorted({marker for row in rows for marker in row})
    points = np.zeros((end - first, len(recorded.labels), 3))
    for marker in used:
        points[:, marker] = _bridged(path, recorded, marker, first, end, max_gap * rate)
    warnings.warn(
        f"{path} holds markers on the skin, not joint centres: the joints of {joint_map.name!r} are centimetres off, "
        "and bones change their length.",
        UserWarning,
        stacklevel=3,
    )
    return points_to_clip(
        path, points, rows, rate, scale=scale, default_scale=_UNITS.get(recorded.units.lower(), 1.0), up=up, **called
    )


def _bridged(path: Path, recorded: C3dMarkers, marker: int, first: int, end: int, longest: float) -> np.ndarray:
    """One marker's positions `[T, 3]`, its gaps filled."""
    track = recorded.points[first:end, marker]
    seen = np.isfinite(track).all(axis=1)
    if seen.all():
        return track
    if not seen.any():
        raise DataError(f"marker {recorded.labels[marker]!r} of {path} is not seen in any of the frames read.")
    edges = np.flatnonzero(np.diff(np.concatenate([[True], seen, [True]]).astype(int)))
    for start, stop in edges.reshape(-1, 2):
        at_end = start == 0 or stop == len(track)
        if at_end or stop - start > longest:
            where = "at an end of the frames read" if at_end else f"longer than max_gap, {longest:g} frames"
            raise DataError(
                f"marker {recorded.labels[marker]!r} of {path} is missing in frames {first + start} to "
                f"{first + stop - 1} (counted from 0), {where}."
            )
    t = np.arange(len(track))
    return np.stack([np.interp(t, t[seen], track[seen, c]) for c in range(3)], axis=1)


def parse_c3d(path: str | os.PathLike[str]) -> C3dMarkers:
    """Read the markers of a C3D file as they are, from any of the format's processors, as integers or floats.

    Raises:
        MissingFileError: the file does not exist.
        DataError: no C3D file, a truncated or inconsistent one, or one without markers.
    """
    path = Path(path)
    data = read_bytes(path, "a C3D file")
    if len(data) < _BLOCK or data[1] != 0x50 or data[0] < 1:
        raise DataError(f"{path} is no C3D file, expected a header of {_BLOCK} bytes with the key 0x50.")
    at = (data[0] - 1) * _BLOCK
    if at + 4 > len(data) or data[at + 3] not in (_INTEL, _DEC, _MIPS):
        raise DataError(f"{path} has no C3D parameters where its header says, at byte {at}; is it truncated?")
    numbers = _Numbers(data[at + 3])
    try:
        parameters = _parameters(data, at, numbers)
    except (IndexError, struct.error, ValueError) as error:
        raise DataError(f"{path} has damaged or truncated C3D parameters.") from error

    markers, analogue, first, last = (int(v) for v in numbers.words(data, 2, 4))
    scale = _number(parameters, "POINT:SCALE", numbers.floats(data, 12, 1)[0])
    # Zero is no place: what does not know where the data begin leaves it to the header.
    start = int(_number(parameters, "POINT:DATA_START", 0)) % 65536 or int(numbers.words(data, 16, 1)[0])
    rate = float(f"{_number(parameters, 'POINT:RATE', numbers.floats(data, 20, 1)[0]):.7g}")  # of single precision
    count = _frames(parameters, first, last)
    if markers == 0 or count <= 0:
        raise DataError(f"{path} has {markers} markers and {count} frames, expected at least one of each.")
    if scale == 0 or not rate > 0:
        raise DataError(f"{path} has the scale {scale:g} and the rate {rate:g}, expected neither to be 0.")
    if start < 2:
        raise DataError(f"{path} has its data in block {start}, expected a block after the header.")
    size = 4 if scale < 0 else 2
    at = (start - 1) * _BLOCK
    analogue = _analogue(parameters, analogue, int(numbers.words(data, 18, 1)[0]), rate, count * size, len(data) - at,
                         markers)  # fmt: skip
    width = 4 * markers + analogue
    needed = at + count * width * size
    if needed > len(data):
        raise DataError(
            f"{path} has {len(data)} bytes, expected {needed} for {count} frames of {markers} markers; is it truncated?"
        )
    read = numbers.floats if scale < 0 else numbers.shorts
    table = read(data, at, count * width).reshape(count, width)[:, : 4 * markers]
    table = table.reshape(count, markers, 4).astype(np.float64)
    points = table[..., :3] * (1.0 if scale < 0 else scale)
    # No marker is at the origin exactly: many programs write zeros, with any status, for one that was not seen.
    points[~(table[..., 3] >= 0) | ~np.isfinite(points).all(-1) | (table[..., :3] == 0).all(-1)] = np.nan
    labels = [label for key in parameters if key.startswith("POINT:LABELS") for label in _texts(parameters, key)]
    labels = (labels + [f"unlabelled {i}" for i in range(len(labels), markers)])[:markers]
    units = _texts(parameters, "POINT:UNITS")
    return C3dMarkers(tuple(labels), points, rate, units[0] if units and units[0] else "mm", first)


def _analogue(
    parameters: dict[str, Any], header: int, samples: int, rate: float, frame_bytes: int, there: int, markers: int
) -> int:
    """Analogue values in every frame: channels times samples. Some headers have only one of the two.

    Args:
        parameters: of the file.
        header: what its third word says.
        samples: what its tenth word says, values of a channel in a frame.
        rate: of the markers.
        frame_bytes: bytes that one number takes in all frames.
        there: bytes from the first frame to the end of the file.
        markers: how many.
    """
    told = [header, header * samples]
    if "ANALOG:USED" in parameters:
        channels = int(_number(parameters, "ANALOG:USED", 0)) % 65536
        times = min(_number(parameters, "ANALOG:RATE", 0) / rate, 65535.0)
        told = [round(channels * times), header, channels * samples]

    def rest(values: int) -> int:
        return there - (4 * markers + values) * frame_bytes

    fit = [values for values in told if rest(values) >= 0]
    # Files end with the block that their last frame ends in.
    exact = [values for values in fit if rest(values) < _BLOCK]
    return (exact or fit or [header])[0]


class _Numbers:
    """Reads numbers as the machine that wrote the file stored them."""

    def __init__(self, processor: int) -> None:
        self.order = ">" if processor == _MIPS else "<"
        self.dec = processor == _DEC

    def words(self, data: bytes, at: int, count: int) -> np.ndarray:
        """Unsigned 16-bit integers."""
        return np.frombuffer(data, f"{self.order}u2", count, at)

    def shorts(self, data: bytes, at: int, count: int) -> np.ndarray:
        return np.frombuffer(data, f"{self.order}i2", count, at)

    def floats(self, data: bytes, at: int, count: int) -> np.ndarray:
        if not self.dec:
            return np.frombuffer(data, f"{self.order}f4", count, at)
        # DEC's float has its 16-bit halves exchanged, and an exponent that is larger by 2.
        halves = np.frombuffer(data, "<u2", 2 * count, at).reshape(-1, 2)[:, ::-1]
        return np.ascontiguousarray(halves).view("<f4")[:, 0] / np.float32(4)


def _parameters(data: bytes, start: int, numbers: _Numbers) -> dict[str, Any]:
    """ "GROUP:NAME" -> a list of strings, or an array."""
    groups: dict[int, str] = {}
    found: list[tuple[int, str, Any]] = []
    values = 0
    at, end = start + 4, min(len(data), start + data[start + 2] * _BLOCK) if data[start + 2] else len(data)
    while at + 2 <= end:
        length, group = struct.unpack_from("bb", data, at)
        if length == 0:
            break
        name = data[at + 2 : at + 2 + abs(length)].decode("latin-1").strip().upper()
        at += 2 + abs(length)
        step = int(numbers.words(data, at, 1)[0])
        if group < 0:
            groups[-group] = name
        elif group > 0:
            value = _value(data, at + 2, end, numbers)
            values += len(value)
            if values > len(data):  # of a section that counts its bytes more than once
                raise ValueError("more parameters than bytes")
            found.append((group, name, value))
        if step == 0:
            break
        at += step
    return {f"{groups.get(group, group)}:{name}": value for group, name, value in found}


def _value(data: bytes, at: int, end: int, numbers: _Numbers) -> Any:
    kind, dimensions = struct.unpack_from("bB", data, at)
    shape = tuple(data[at + 2 : at + 2 + dimensions])
    at += 2 + dimensions
    count = math.prod(shape)
    if len(shape) < dimensions or count * max(1, abs(kind)) > end - at:
        raise ValueError("a parameter that reaches beyond the others")
    if kind == -1:
        width = shape[0] if shape else 1
        text = data[at : at + count].decode("latin-1")
        return [text[i * width : (i + 1) * width].strip(" \0") for i in range(count // max(1, width))]
    readers = {1: lambda: np.frombuffer(data, "i1", count, at), 2: lambda: numbers.shorts(data, at, count)}
    return (readers.get(kind) or (lambda: numbers.floats(data, at, count)))()


def _number(parameters: dict[str, Any], key: str, otherwise: Any) -> float:
    """The first number of a parameter; `otherwise` where there is none."""
    value = parameters.get(key)
    number = float(value[0] if isinstance(value, np.ndarray) and len(value) else otherwise)
    return number if np.isfinite(number) else 0.0


def _texts(parameters: dict[str, Any], key: str) -> list[str]:
    value = parameters.get(key)
    return value if isinstance(value, list) else []


def _frames(parameters: dict[str, Any], first: int, last: int) -> int:
    """Number of frames: the header's 16 bits hold up to 65535, for more there are two younger places."""
    bounds = [parameters[key] for end in ("START", "END") if (key := f"TRIAL:ACTUAL_{end}_FIELD") in parameters]
    good = [isinstance(bound, np.ndarray) and bound.dtype.kind == "i" and len(bound) == 2 for bound in bounds]
    if good == [True, True]:
        low, high = (int(bound[0]) % 65536 + 65536 * (int(bound[1]) % 65536) for bound in bounds)
        return high - low + 1
    return int(_number(parameters, "POINT:LONG_FRAMES", 0)) or last - first + 1


FORMATS.register(recordings("c3d", "motion capture, C3D markers", _read))
