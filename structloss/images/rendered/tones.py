"""Random colours, as they are around people: more often dull than bright; and random choices."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TypeVar

import numpy as np

from .surfaces import Array

__all__ = ["pick", "random_tone", "triple"]

T = TypeVar("T")


def pick(rng: np.random.Generator, options: Sequence[T], weights: Sequence[float]) -> T:
    """One of the options, in proportion to the weights; numpy's own choice takes ten times as long."""
    place = rng.random() * sum(weights)
    for option, weight in zip(options, weights, strict=True):
        place -= weight
        if place < 0:
            return option
    return options[-1]


def random_tone(rng: np.random.Generator) -> Array:
    """RGB from 0 to 1, float64 `[3]`: any hue, from grey to fully saturated."""
    red, green, blue, vivid = rng.random(4).tolist()
    grey, vivid = (red + green + blue) / 3, 1.2 * sqrt(vivid)
    return np.array([min(max(grey + vivid * (c - grey), 0.0), 1.0) for c in (red, green, blue)])


def triple(colour: Array) -> tuple[float, ...]:
    """A colour as plain numbers from 0 to 1."""
    return tuple(min(max(c, 0.0), 1.0) for c in colour.tolist())
