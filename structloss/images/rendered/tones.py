"""Random colours, as they are around people: more often dull than bright."""

from __future__ import annotations

import numpy as np

from .surfaces import Array

__all__ = ["random_tone", "triple"]


def random_tone(rng: np.random.Generator) -> Array:
    """RGB from 0 to 1, float64 `[3]`: any hue, from grey to fully saturated."""
    colour = rng.random(3)
    grey = colour.mean()
    return np.asarray(grey + np.sqrt(rng.random()) * (colour - grey) * 1.2).clip(0, 1)


def triple(colour: Array) -> tuple[float, ...]:
    """A colour as plain numbers from 0 to 1."""
    return tuple(np.clip(colour, 0.0, 1.0).tolist())
