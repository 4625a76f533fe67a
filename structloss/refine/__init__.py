"""Refiners: from the 3D poses of any network to steadier ones, by what was seen before and by a person's own bones.

Everything is imported when first used; only :class:`PredictionsDataModule` needs lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .base import PoseStream, Refiner, refine_every
    from .bones import bone_lengths, fit_skeleton
    from .lstm import LSTMRefiner
    from .module import PredictionsDataModule
    from .prediction_files import PredictedClip, Predictions, read_predictions, writing_predictions
    from .sensitivity import Sensitivity, sensitivity_matrices
    from .tpnet import TPNet
    from .windows import PredictionClips, PredictionWindows

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
    # training data
    "PredictedClip",
    "PredictionClips",
    "PredictionWindows",
    "Predictions",
    "PredictionsDataModule",
    "read_predictions",
    "writing_predictions",
    # what a network attends to
    "Sensitivity",
    "sensitivity_matrices",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "base": ("PoseStream", "Refiner", "refine_every"),
    "bones": ("bone_lengths", "fit_skeleton"),
    "lstm": ("LSTMRefiner",),
    "module": ("PredictionsDataModule",),
    "prediction_files": ("PredictedClip", "Predictions", "read_predictions", "writing_predictions"),
    "sensitivity": ("Sensitivity", "sensitivity_matrices"),
    "tpnet": ("TPNet",),
    "windows": ("PredictionClips", "PredictionWindows"),
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
