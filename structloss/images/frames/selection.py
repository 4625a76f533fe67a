"""Some of the folders of a source: those that are trained on, and those that are held out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from ...data._words import some
from ...errors import ArgumentError, DataError
from .folders import Frame, FrameFolders

__all__ = ["SomeFolders", "evenly_spaced", "fitting", "held_out_folders"]

_TESTED = re.compile(r"(?<![A-Za-z0-9])S(9|11)(?!\d)")  # of Human3.6M


class SomeFolders:
    """Some of the folders of a source, as a source.

    Args:
        parent: the source.
        rows: numbers of the folders to take.
    """

    def __init__(self, parent: FrameFolders, rows: Sequence[int] | np.ndarray) -> None:
        self.parent, self.rows = parent, [int(row) for row in rows]

    @property
    def source(self) -> str:
        return self.parent.source

    @property
    def folders(self) -> Sequence[str]:
        names = self.parent.folders
        return [names[row] for row in self.rows]

    @property
    def lengths(self) -> Sequence[int]:
        lengths = self.parent.lengths
        return [lengths[row] for row in self.rows]

    def joints(self, folder: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self.parent.joints(self.rows[folder], number)

    def frame(self, folder: int, number: int) -> Frame:
        return self.parent.frame(self.rows[folder], number)


def evenly_spaced(count: int, most: int | None) -> np.ndarray:
    """`most` of so many numbers, evenly spaced; all of them if there are no more, or it is None."""
    return np.arange(count) if most is None or most >= count else np.arange(most) * count // most


def held_out_folders(names: Sequence[str], patterns: Sequence[str] | None, source: str) -> np.ndarray:
    """Which folders are scored, bool `[F]`: those that any pattern fits ("S9*"); without patterns those of Human3.6M's
    S9 and S11 where there are others as well, else the last quarter of the names.

    Raises:
        ArgumentError: a pattern that fits no folder.
        DataError: nothing is left to train on, or to score.
    """
    if patterns is None:
        held = np.array([bool(_TESTED.search(name)) for name in names])
        if not held.any() or held.all():
            order = np.argsort(np.array(names, object), kind="stable")
            held = np.zeros(len(names), bool)
            held[order[len(names) - max(1, len(names) // 4) :]] = True
    else:
        held = fitting(names, patterns, source)
    if held.all() or not held.any():
        kind = "training" if held.all() else "validation"
        raise DataError(
            f"the {kind} split of {source} is empty, expected at least one folder in each; it has {some(names, 6)}."
        )
    return held


def fitting(names: Sequence[str], patterns: Sequence[str], source: str) -> np.ndarray:
    """Which names any of the patterns fits, bool `[F]`.

    Raises:
        ArgumentError: a pattern that fits no folder.
    """
    held = np.zeros(len(names), bool)
    for pattern in patterns:
        fits = np.array([fnmatchcase(name, pattern) for name in names])
        if not fits.any():
            raise ArgumentError(
                f"val_folders has {pattern!r}, expected names of folders of {source}, or patterns of such: "
                f"{some(names, 6)}."
            )
        held |= fits
    return held
