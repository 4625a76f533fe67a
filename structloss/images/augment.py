"""Augmentation of people in images: larger, smaller, turned, mirrored, in other colours.

Source: Zhou et al., ICCV 2017 (pytorch-pose-hg-3d), as spelled out for the training of Dabral et al., ECCV 2018: the
amounts below, and none for images with a 3D pose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError, shown
from ..skeletons import get
from .crops import turning

__all__ = ["Augmentation", "Change", "change_pose"]

_CLIPPED = 2.0  # standard deviations
_MIRROR = list(get("mpii").mirror)


@dataclass(frozen=True)
class Change:
    """What is done to one sample.

    Attributes:
        scale: the box is so many times larger.
        rotation: degrees from x towards y.
        flip: mirrored.
        gains: factors of red, green and blue.
    """

    scale: float = 1.0
    rotation: float = 0.0
    flip: bool = False
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Augmentation:
    """How samples are changed at random.

    Attributes:
        scale: standard deviation of the binary logarithm of the box's scale; clipped at two.
        rotation: standard deviation of the angle, degrees; clipped at two.
        rotation_probability: share of the samples that are turned.
        flip: share that is mirrored.
        gain: smallest factor of a colour channel; factors are uniform from there to 1.

    Raises:
        ArgumentError: a number out of range.
    """

    scale: float = 0.25
    rotation: float = 30.0
    rotation_probability: float = 0.4
    flip: float = 0.5
    gain: float = 0.6

    def __post_init__(self) -> None:
        for name, most in (("scale", 1.0), ("rotation", 180.0), ("rotation_probability", 1.0), ("flip", 1.0)):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= most):
                raise ArgumentError(f"{name} is {shown(value)}, expected a number from 0 to {most:g}.")
        if not (isinstance(self.gain, int | float) and 0 < self.gain <= 1):
            raise ArgumentError(f"gain is {shown(self.gain)}, expected a number above 0 and up to 1.")

    def draw(self, seed: int, epoch: int, index: int) -> Change:
        """What is done to a sample in an epoch: it depends on these three alone, not on the process, the batch or the
        run that the sample is in."""
        random = np.random.default_rng(np.random.SeedSequence([seed, epoch, index]))
        scale, rotation = np.clip(random.standard_normal(2), -_CLIPPED, _CLIPPED)
        turned, flipped = random.random(2)
        gains = random.uniform(self.gain, 1.0, 3)
        return Change(
            scale=float(2.0 ** (self.scale * scale)),
            rotation=float(self.rotation * rotation) if turned < self.rotation_probability else 0.0,
            flip=bool(flipped < self.flip),
            gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        )


def change_pose(pose: np.ndarray, change: Change) -> np.ndarray:
    """A pose `[16, 3]` as it is in the changed image: mirrored (x negated, sides exchanged), then turned around the
    camera's axis. Scale does not change a pose in millimetres."""
    if change.flip:
        pose = pose[_MIRROR]
    out = np.array(pose, np.float64)
    out[:, :2] = out[:, :2] @ turning(change.rotation, change.flip).T
    return out
