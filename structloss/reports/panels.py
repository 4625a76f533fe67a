"""Pictures side by side under their titles."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import ArgumentError
from ..files import write_bytes
from . import _style

__all__ = ["plot_panels"]

_INCHES = 1.25  # width of a picture


def plot_panels(
    columns: Mapping[str, Sequence[np.ndarray]], path: str | os.PathLike[str], *, title: str = "", dpi: int = 130
) -> Path:
    """Draw columns of pictures under their titles and write them as PNG, atomically; returns the path.

    Args:
        columns: title -> pictures from top to bottom, uint8 RGB `[H, W, 3]`, as many in each column. A title is broken
            at its commas.
        path: PNG file to write.
        title: above all of them.
        dpi: pixels per inch.

    Raises:
        ArgumentError: no pictures, or columns of different lengths.
        MissingDependencyError: matplotlib is not installed.
        OSError: the file can't be written there.
    """
    counts = {len(pictures) for pictures in columns.values()}
    if len(counts) != 1 or not (rows := counts.pop()):
        raise ArgumentError(
            f"columns has {[len(pictures) for pictures in columns.values()]} pictures, expected as many in each, at "
            "least one."
        )
    above = 0.7 if title else 0.42  # inches
    width, height = _INCHES * len(columns), _INCHES * rows + above + 0.05
    figure = _style.new_figure(width, height)
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (head, pictures) in enumerate(columns.items()):
        axes[0][column].set_title(head.replace(", ", ",\n"), fontsize=8)
        for row, picture in enumerate(pictures):
            axes[row][column].imshow(picture, interpolation="nearest")
            axes[row][column].set_axis_off()
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=1 - above / height, wspace=0.04, hspace=0.04)
    return write_bytes(path, _style.png(figure, dpi))
