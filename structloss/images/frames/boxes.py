"""Boxes of a person in every frame of a video, from a file: npz, JSON or CSV.

x, y, width, height in pixels from the frame's upper left corner, one box a frame:

- npz: `boxes` `[T, 4]`, or `joints` `[T, K, 2]`, pixels, K = 15, 17 or 32 as for
  :mod:`structloss.images.frames.labels`, or both. Without `boxes` they are those around the joints, a tenth of their
  height larger on each side [ours: the published ones are those of masks]; NaN is somebody who is not there
- JSON: a list of boxes, null where nobody is there; an object of frame number -> box; or one box for all frames
- CSV: lines of x, y, width, height, empty fields where nobody is there; with a header that names them, also
  `frame`, its number

Lists have as many boxes as the video has frames. Where frames are numbered, from 0, those without a box are left out.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ... import shape_templates
from ...data._words import count
from ...data.formats.unpickle import load_npz_arrays
from ...errors import DataError, shown
from ...reading import read_json, read_text
from ..image_people import numbers
from .folders import H36M17_JOINTS, JOINT_COUNT

__all__ = ["BOX_SUFFIXES", "FrameBoxes", "read_frame_boxes"]

BOX_SUFFIXES = (".npz", ".json", ".csv")
_COLUMNS = ("x", "y", "width", "height")
_AROUND = 0.1  # of the joints' height
_LARGEST = 3  # times the longer side of a frame, of a box
_ORDERS = {JOINT_COUNT: range(JOINT_COUNT), 17: H36M17_JOINTS, 32: shape_templates.H36M_JOINTS}


@dataclass(frozen=True)
class FrameBoxes:
    """A box for each frame of a video.

    Attributes:
        boxes: float64 `[T, 4]`; NaN where nobody is there.
        joints: float64 `[T, 15, 2]`, pixels of the frames, NaN where not known; None where the file has none.
    """

    boxes: np.ndarray
    joints: np.ndarray | None = None


def read_frame_boxes(
    told: str | os.PathLike[str] | Sequence[float] | None,
    frames: int,
    of: str,
    size: tuple[int, int] | None = None,
) -> FrameBoxes | None:
    """The boxes of a video's frames.

    Args:
        told: a file, or one box for all frames; None is none.
        frames: T, how many there are.
        of: what they are of, for messages.
        size: width and height of the frames; a box must show some of its frame, and be no larger than three of them.

    Raises:
        MissingFileError, DataError: no such file, other content, boxes of another number of frames or where no frame
            is.
    """
    if told is None:
        return None
    joints = None
    if not isinstance(told, str | os.PathLike):
        rows = np.broadcast_to(numbers(list(told), "boxes", (4,)), (frames, 4)).copy()
    elif Path(told).suffix == ".npz":
        rows, joints = _of_npz(Path(told))
    elif Path(told).suffix == ".csv":
        rows = _of_csv(Path(told), frames)
    else:
        rows = _of_json(Path(told), frames)
    if len(rows) != frames:
        raise DataError(f"{told} has boxes of {count(len(rows), 'frame')}, expected {frames}, those of {of}.")
    there = np.isfinite(rows).all(1)
    bad = there & (rows[:, 2:] <= 0).any(1)
    if bad.any():
        raise DataError(
            f"the box of frame {int(np.flatnonzero(bad)[0])} of {of} is {rows[bad][0].tolist()}, expected x, y and a "
            "width and height above 0."
        )
    if not there.any():
        raise DataError(f"the boxes of {of} have nobody in any frame, expected at least one.")
    if size is not None:
        _check_inside(rows, there, of, size)
    rows[~there] = np.nan
    return FrameBoxes(rows, joints)


def _check_inside(rows: np.ndarray, there: np.ndarray, of: str, size: tuple[int, int]) -> None:
    """Raise where a crop would be black, or so large that it takes the memory."""
    start, extent = rows[:, :2], rows[:, 2:]
    outside = (start >= size).any(1) | (start + extent <= 0).any(1) | (extent > _LARGEST * max(size)).any(1)
    if (bad := there & outside).any():
        raise DataError(
            f"the box of frame {int(np.flatnonzero(bad)[0])} of {of} is {rows[bad][0].tolist()}, expected one "
            f"that shows some of the frame of {size[0]} x {size[1]} pixels and is no larger than {_LARGEST} of them."
        )


def _of_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    arrays = load_npz_arrays(path)
    boxes, joints = arrays.get("boxes"), arrays.get("joints")
    if boxes is None and joints is None:
        raise DataError(f"{path} has {', '.join(arrays) or 'no arrays'}, expected boxes or joints.")
    if boxes is not None and (boxes.dtype.kind not in "fiu" or boxes.ndim != 2 or boxes.shape[1] != 4):
        raise DataError(f"boxes of {path} is {boxes.dtype} {list(boxes.shape)}, expected numbers [T, 4].")
    if joints is not None:
        good = joints.dtype.kind in "fiu" and joints.ndim == 3 and joints.shape[1] in _ORDERS and joints.shape[2] == 2
        if not good or (boxes is not None and len(boxes) != len(joints)):
            frames = "T" if boxes is None else len(boxes)
            raise DataError(
                f"joints of {path} is {joints.dtype} {list(joints.shape)}, expected numbers [{frames}, K, 2] with K = "
                "15, 17 or 32."
            )
        joints = joints.astype(np.float64)
        boxes = _around(joints) if boxes is None else boxes
        joints = joints[:, list(_ORDERS[joints.shape[1]])]
    assert boxes is not None
    return boxes.astype(np.float64), joints


def _around(joints: np.ndarray) -> np.ndarray:
    """Boxes around all joints that are known, `[T, 4]`."""
    out = np.full((len(joints), 4), np.nan)
    known = np.isfinite(joints).all(-1)
    for frame in np.flatnonzero(known.sum(1) > 1):
        points = joints[frame, known[frame]]
        low, high = points.min(0), points.max(0)
        more = _AROUND * max(float(high[1] - low[1]), 1.0)
        out[frame] = (*(low - more + 0.5), *(high - low + 2 * more))  # pixel centres are whole numbers
    return out


def _of_json(path: Path, frames: int) -> np.ndarray:
    content = read_json(path, "a JSON file of boxes")
    if isinstance(content, list) and len(content) == 4 and not any(isinstance(part, list) for part in content):
        return np.broadcast_to(numbers(content, f"the box of {path}", (4,)), (frames, 4)).copy()
    if isinstance(content, dict) and content:
        return _numbered({name: value for name, value in content.items() if value is not None}, path, frames)
    if not isinstance(content, list) or not content:
        raise DataError(f"{path} has no boxes, expected a list of [x, y, width, height], one for each frame.")
    nothing = [np.nan] * 4
    return np.stack(
        [numbers(nothing if box is None else box, f"box {n} of {path}", (4,)) for n, box in enumerate(content)]
    )


def _numbered(boxes: dict[str, object], path: Path, frames: int) -> np.ndarray:
    out = np.full((frames, 4), np.nan)
    for name, value in boxes.items():
        if not (name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < frames):
            raise DataError(f"{path} has a box for frame {shown(name)}, expected numbers of frames below {frames}.")
        out[int(name)] = numbers(value, f"the box of frame {name} of {path}", (4,))
    return out


def _of_csv(path: Path, frames: int) -> np.ndarray:
    try:
        rows = [row for row in csv.reader(read_text(path, "a CSV file of boxes").splitlines()) if row]
    except csv.Error as error:
        raise DataError(f"{path} is not valid CSV: {error}.") from error
    if not rows:
        raise DataError(f"{path} has no boxes, expected lines of x, y, width, height.")
    names = [name.strip().lower() for name in rows[0]]
    header = set(_COLUMNS) <= set(names)
    columns = [names.index(name) for name in _COLUMNS] if header else [0, 1, 2, 3]
    numbered = header and "frame" in names
    found, by_number = [], {}
    for line, row in enumerate(rows[header:], start=1 + header):
        values = [row[column].strip() if column < len(row) else "" for column in columns]
        try:
            box = [float(value or "nan") for value in values]
        except ValueError:
            raise DataError(f"line {line} of {path} is {shown(','.join(row))}, expected x,y,width,height.") from None
        if numbered:
            number = names.index("frame")
            by_number[row[number].strip() if number < len(row) else ""] = box
        found.append(box)
    return _numbered(dict(by_number), path, frames) if numbered else np.array(found, np.float64)
