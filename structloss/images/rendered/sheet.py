"""Contact sheets: many people in one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import ArgumentError
from .._opencv import one_thread, opencv
from ..overlay import draw_pose
from ..people import People

__all__ = ["contact_sheet"]


def contact_sheet(
    people: People, indices: Sequence[int], *, columns: int = 8, overlay: bool = True
) -> NDArray[np.uint8]:
    """Images of people in rows.

    Args:
        people: where they come from.
        indices: which ones; each is asked for once.
        columns: how many stand beside each other.
        overlay: draw their joints over them; hidden ones are hollow.

    Returns:
        uint8 RGB `[rows * S, columns * S, 3]`, where S is the height of the first image; others are scaled to S x S.

    Raises:
        ArgumentError: nobody, or no column.
        MissingDependencyError: the `images` extra (OpenCV) is not installed.
    """
    if len(indices) == 0 or columns < 1:
        raise ArgumentError(f"indices has {len(indices)} people and columns is {columns}, expected at least one each.")
    cv2 = opencv()
    tiles: list[NDArray[np.uint8]] = []
    for index in indices:
        person = people[index]
        image = person.image
        if overlay:
            image = draw_pose(image, person.joints, person.annotated, person.visible)
        size = len(tiles[0]) if tiles else len(image)
        if image.shape[:2] != (size, size):
            with one_thread():
                image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
        tiles.append(image)
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)])
