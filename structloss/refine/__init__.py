"""Refiners: from the 3D poses of any network to steadier ones, by what was seen before and by a person's own bones.

Everything is imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .base import PoseStream, Refiner, refine_every
    from .bones import bone_lengths, fit_skeleton
    from .lstm import LSTMRefiner
    from .tpnet import TPNet

__all__ = [
    # networks
    "LSTMRefiner",
    "PoseStream",
    "Refiner",
    "TPNet",
    "refine_every",
    # bones
    "bone_lengths",
    "fit_skeleton",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "base": ("PoseStream", "Refiner", "refine_every"),
    "bones": ("bone_lengths", "fit_skeleton"),
    "lstm": ("LSTMRefiner",),
    "tpnet": ("TPNet",),
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
