"""Data: clips, cameras, synthetic motion, simulated detections, clip archives, windows and the Lightning data module.

Everything is imported when first used; only :class:`MotionDataModule` needs lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .archive import load_archive, save_archive
    from .augment import flip, flip_batch
    from .cameras import H36M_SUBJECTS, Camera, denormalize_screen, h36m_cameras, normalize_screen
    from .clips import Clip
    from .detections import occlusion, simulate_detections
    from .image_space import TARGETS, to_image_space, to_millimetres
    from .module import MotionDataModule
    from .observation import observe
    from .sample_views import Sample, load_sample
    from .store import PoseStore, View, open_store, save_store
    from .synthetic import ACTIONS, generate_clips
    from .windows import PoseWindows

__all__ = [
    # motion
    "ACTIONS",
    "Clip",
    "Sample",
    "generate_clips",
    "load_archive",
    "load_sample",
    "save_archive",
    # cameras and detections
    "Camera",
    "H36M_SUBJECTS",
    "denormalize_screen",
    "h36m_cameras",
    "normalize_screen",
    "occlusion",
    "simulate_detections",
    # training data
    "MotionDataModule",
    "PoseStore",
    "PoseWindows",
    "View",
    "observe",
    "open_store",
    "save_store",
    "TARGETS",
    "flip",
    "flip_batch",
    "to_image_space",
    "to_millimetres",
]

_HOMES = {
    "archive": ("load_archive", "save_archive"),
    "augment": ("flip", "flip_batch"),
    "cameras": ("Camera", "H36M_SUBJECTS", "denormalize_screen", "h36m_cameras", "normalize_screen"),
    "clips": ("Clip",),
    "detections": ("occlusion", "simulate_detections"),
    "image_space": ("TARGETS", "to_image_space", "to_millimetres"),
    "module": ("MotionDataModule",),
    "observation": ("observe",),
    "sample_views": ("Sample", "load_sample"),
    "store": ("PoseStore", "View", "open_store", "save_store"),
    "synthetic": ("ACTIONS", "generate_clips"),
    "windows": ("PoseWindows",),
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
