"""From a square box of an image to a network's input and back, by one affine map.

Coordinates are pixels whose centres are whole numbers, so an image of S pixels reaches from -1/2 to S - 1/2. A box of
side a around c goes to the S x S input by x -> (x - c) S / a + (S - 1) / 2: borders meet borders.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ArgumentError, shown
from ._opencv import one_thread, opencv

__all__ = ["crop_matrix", "invert", "transform", "warp"]


def crop_matrix(
    centre: Any, side: float, size: int, *, scale: float = 1.0, rotation: float = 0.0, flip: bool = False
) -> np.ndarray:
    """The affine map from an image's pixels to those of the input.

    Args:
        centre: `[2]`, centre of the box, pixels.
        side: of the box, pixels.
        size: S, width and height of the input, pixels.
        scale: the box is so many times larger: above 1 the person gets smaller.
        rotation: degrees by which the content turns around the centre, from x towards y (clockwise as seen).
        flip: mirror the content, x -> -x around the centre, before it is turned.

    Returns:
        float64 `[2, 3]`.

    Raises:
        ArgumentError: a box that is none, or a size below 1.
    """
    c = np.asarray(centre, np.float64)
    if c.shape != (2,) or not np.isfinite(c).all():
        raise ArgumentError(f"centre is {shown(centre)}, expected two finite numbers.")
    for name, value in (("side", side), ("scale", scale)):
        if not (math.isfinite(value) and value > 0):
            raise ArgumentError(f"{name} is {shown(value)}, expected a finite number above 0.")
    if size < 1:
        raise ArgumentError(f"size is {shown(size)}, expected at least 1 pixel.")
    linear = turning(rotation, flip) * (size / (side * scale))
    return np.column_stack([linear, (size - 1) / 2 - linear @ c])


def turning(rotation: float, flip: bool = False) -> np.ndarray:
    """The `[2, 2]` matrix that mirrors x, if asked for, and then turns by degrees."""
    angle = math.radians(rotation)
    cosine, sine = math.cos(angle), math.sin(angle)
    turned = np.array([[cosine, -sine], [sine, cosine]])
    return turned @ np.diag([-1.0, 1.0]) if flip else turned


def transform(points: Any, matrix: np.ndarray) -> np.ndarray:
    """Points `[..., 2]` through an affine map `[2, 3]`; float64.

    Raises:
        ArgumentError: points of another shape.
    """
    found = np.asarray(points, np.float64)
    if not found.ndim or found.shape[-1] != 2:
        raise ArgumentError(f"points has shape {list(found.shape)}, expected [..., 2].")
    return found @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse of an affine map `[2, 3]`.

    Raises:
        ArgumentError: it has none.
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.shape != (2, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :2])) < 1e-18:
        raise ArgumentError(f"matrix is {shown(matrix.tolist())}, expected an affine map [2, 3] that has an inverse.")
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """The input of a network: what an affine map makes of an image, bilinear, black beyond the image's borders.

    Where an input's pixel covers several of the image's, these are averaged first, over k x k pixels, k the whole part
    of the ratio; the rest, below 2, is left to the bilinear map. So nothing flickers however large the box is.

    Args:
        image: uint8 `[H, W, 3]`.
        matrix: `[2, 3]`, image pixels -> input pixels.
        size: S, pixels.

    Returns:
        uint8 `[S, S, 3]`.

    Raises:
        ArgumentError: another shape or dtype, or a map without an inverse.
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = opencv()
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ArgumentError(f"image is {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3].")
    back = invert(matrix)  # input pixels -> image pixels
    left, top, right, bottom = _seen(back, size, image.shape)
    if left >= right or top >= bottom:
        return np.zeros((size, size, 3), np.uint8)
    part = image[top:bottom, left:right]
    ratio = int(math.sqrt(abs(np.linalg.det(back[:, :2]))) * (1 + 1e-9))
    # No more than there is along an axis: what is added to make whole blocks stays smaller than the part.
    shrink = np.array([max(1, min(ratio, most)) for most in (right - left, bottom - top)])
    if (shrink > 1).any():
        with one_thread():
            part = _averaged(part, *map(int, shrink))
    # Pixel i of the part has its centre at left + i k + (k - 1) / 2.
    to_part = back.copy()
    to_part[:, 2] -= np.array([left, top]) + (shrink - 1) / 2
    to_part /= shrink[:, None]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    with one_thread():
        return cv2.warpAffine(part, to_part, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT)


def _seen(back: np.ndarray, size: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The part of the image that the input shows, with what its border pixels are mixed from."""
    ends = np.array([-0.5, size - 0.5])
    corners = transform(np.stack(np.meshgrid(ends, ends), -1).reshape(4, 2), back)
    around = 2 + 2 * math.sqrt(abs(np.linalg.det(back[:, :2])))
    low, high = corners.min(0) - around, corners.max(0) + around
    left, top = (int(min(max(0.0, math.floor(value)), 1 << 30)) for value in low)
    most = np.array(shape[1::-1], np.float64)
    right, bottom = (int(value) for value in np.clip(np.ceil(high) + 1, 0, most))
    return left, top, right, bottom


def _averaged(part: np.ndarray, across: int, down: int) -> np.ndarray:
    """Means of blocks of pixels; beyond the image they are black."""
    cv2 = opencv()
    height, width = part.shape[:2]
    rows, columns = -height % down, -width % across
    if rows or columns:
        part = cv2.copyMakeBorder(part, 0, rows, 0, columns, cv2.BORDER_CONSTANT)
    return cv2.resize(part, (part.shape[1] // across, part.shape[0] // down), interpolation=cv2.INTER_AREA)
