"""Boxes of people in a JSON file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ArgumentError, DataError
from ...reading import read_json
from ..image_people import numbers

__all__ = ["centre_and_side", "check_inside", "is_inside", "read_boxes"]

_AROUND = 1.25  # as around annotated people


def read_boxes(path: str | os.PathLike[str] | Sequence[float]) -> dict[str, np.ndarray]:
    """Boxes by what they are of, float64 `[n, 4]`: x, y, width, height in pixels.

    Instead of a file it may be a box itself, for all. The file is an object of name -> [x, y, width, height], or a list
    of such boxes for several people; a list of boxes is one for each frame, by its number; a single box, under the name
    "", is for all.

    Raises:
        MissingFileError, DataError: no such file, or other content.
    """
    if not isinstance(path, str | os.PathLike):
        return {"": _boxes(list(path), "boxes")}
    content = read_json(path, "a JSON file of boxes")
    if isinstance(content, list) and len(content) == 4 and not any(isinstance(part, list) for part in content):
        content = {"": content}
    elif isinstance(content, list):
        content = {str(number): box for number, box in enumerate(content)}
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{path} has no boxes, expected an object of name -> [x, y, width, height].")
    return {str(name): _boxes(value, f"the box {name!r} of {path}") for name, value in content.items()}


def _boxes(value: Any, what: str) -> np.ndarray:
    several = isinstance(value, list) and bool(value) and isinstance(value[0], list)
    boxes = np.stack([numbers(box, what, (4,)) for box in (value if several else [value])])
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > 0).all()):
        raise DataError(f"{what} is {boxes.tolist()[0]}, expected x, y and a width and height above 0.")
    return boxes


def centre_and_side(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres `[n, 2]` and sides `[n]` of squares around boxes `[n, 4]`, a quarter wider than their longer sides."""
    return boxes[:, :2] + boxes[:, 2:] / 2 - 0.5, _AROUND * boxes[:, 2:].max(1)


def is_inside(box: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a box `[4]` has a pixel of an image of this width and height."""
    x, y, width, height = box.tolist()
    return bool(x < size[0] and y < size[1] and x + width > 0 and y + height > 0)


def check_inside(box: np.ndarray, size: tuple[int, int], what: str) -> None:
    """Raise where a box `[4]` has no pixel of an image of this width and height; `what` names the image.

    Raises:
        ArgumentError: it lies outside.
    """
    if not is_inside(box, size):
        told = ", ".join(f"{value:g}" for value in box.tolist())
        raise ArgumentError(
            f"boxes has [{told}] for {what}, which has {size[0]} x {size[1]} pixels, expected x, y, width and height "
            "of a box that lies in it."
        )
