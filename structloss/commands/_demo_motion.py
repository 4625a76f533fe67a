"""What `structloss demo` trains on and is scored by: the samples of the package and synthetic motion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data import MotionDataModule

__all__ = ["HELD_OUT", "demo_motion", "window_of"]

HELD_OUT = ("dance", "roll")
"""The samples that no model of the demo is trained on: the others are, beside synthetic people."""


def demo_motion(folder: Path, settings: dict[str, Any], frames: int) -> MotionDataModule:
    """The data of the demo where none is given, in windows drawn anew.

    Args:
        folder: where to put the clip archive that is read.
        settings: arguments of the data module.
        frames: length of the synthetic clips.
    """
    from .. import samples
    from ..data import MotionDataModule, load_sample, save_archive

    real = {name: load_sample(name).clip.resampled(50) for name in samples.names()}
    path = folder / "motion.npz"
    save_archive(path, list(real.values()))
    return MotionDataModule(
        str(path),
        val_subjects=[real[name].subject for name in HELD_OUT],
        random_views=True,
        random_bodies=0.12,
        random_fps=[20.0, 60.0],
        coco_joints=0.4,
        synthetic_share=0.5,
        num_subjects=12,
        clips_per_subject=4,
        frames=frames,
        progress=False,
        **settings,
    )


def window_of(backbone: str, window: int) -> dict[str, Any]:
    """How clips are cut, so that a backbone predicts `window` frames in a row, and the space that it answers in."""
    from .. import backbones

    info = backbones.info(backbone)
    target = "camera" if info.name in backbones.pretrained_names() else "global"
    return {**info.cut_for(window), "target": target}
