"""The crop rule of the published shape templates: boxes snapped to a coarse grid, so that frames share a background.

Source: the official code of Schmidtke et al. (CVPR 2021), for Human3.6M's videos.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ArgumentError, shown

__all__ = ["GRID", "SIDE", "SnappedBox", "grid_of", "snapped"]

GRID = 170
"""Pixels between the lines of the grid, in Human3.6M's images."""
SIDE = 200
"""Pixels of the crop's side for each cell of the snapped box's height."""
_HEIGHT = 1000  # pixels of Human3.6M's images; some have 1002


@dataclass(frozen=True)
class SnappedBox:
    """A box between lines of the grid, in cells from the image's upper left corner.

    Attributes:
        left, top, right, bottom: numbers of the lines.
        grid: pixels between them.
    """

    left: int
    top: int
    right: int
    bottom: int
    grid: int = GRID

    @property
    def centre(self) -> tuple[float, float]:
        """Middle (x, y) of the box and of the crop, pixels whose centres are whole numbers."""
        return self.grid * (self.left + self.right) / 2 - 0.5, self.grid * (self.top + self.bottom) / 2 - 0.5

    @property
    def side(self) -> float:
        """Side of the square crop, pixels."""
        return SIDE / GRID * self.grid * (self.bottom - self.top)

    @property
    def name(self) -> str:
        """As it stands in the name of a folder."""
        return "-".join(str(self.grid * line) for line in (self.left, self.top, self.right, self.bottom))


def grid_of(height: int) -> int:
    """The grid for images of this height: as many cells as Human3.6M's have, 170 px for 1000 [ours]."""
    return max(1, round(GRID * height / _HEIGHT))


def snapped(box: object, grid: int = GRID) -> SnappedBox:
    """The smallest box between lines of the grid that holds a person's box.

    Args:
        box: x, y, width and height, pixels from the image's upper left corner.
        grid: pixels between the lines.

    Raises:
        ArgumentError: not four finite numbers, or no width or height.
    """
    found = np.asarray(box, np.float64)
    if found.shape != (4,) or not np.isfinite(found).all() or (found[2:] <= 0).any():
        raise ArgumentError(f"box is {shown(box)}, expected x, y and a width and height above 0.")
    x, y, width, height = (found / grid).tolist()
    left, top = int(np.floor(x)), int(np.floor(y))
    right, bottom = int(np.ceil(x + width)), int(np.ceil(y + height))
    return SnappedBox(left, top, max(left + 1, right), max(top + 1, bottom), grid)
