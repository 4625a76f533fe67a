"""The whole of Dabral et al.'s system on rendered people: SAP-Net's stages, and TP-Net on what it predicts of people in
motion. What `structloss demo sapnet` and `structloss ablate sapnet` run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from .. import images
from ..data.clips import Clip
from ..data.opening import open_motion
from ..data.protocols import scored_subjects
from ..data.selection import names_of
from ..errors import ArgumentError
from ..images.rendered.people import RenderedPeople
from ..refine.module import PredictionsDataModule
from ..refine.prediction_files import PredictedClip, writing_predictions
from .image_clips import Runs, predict_runs
from .refining import RefineModule, train_refiner

__all__ = ["MotionRuns", "predictions_of", "refined_by", "runs_of", "train_tpnet"]


@dataclass(frozen=True)
class MotionRuns:
    """Rendered people in motion, at 25 frames per second as in the paper.

    Attributes:
        train: whose predictions TP-Net is trained on.
        test: strangers, other subjects, who are scored.
    """

    train: RenderedPeople
    test: RenderedPeople


def runs_of(
    seed: int,
    *,
    train: int = 30,
    test: int = 12,
    frames: int = 40,
    size: int = 128,
    motion: str | None = None,
    rendered: Mapping[str, Any] | None = None,
) -> MotionRuns:
    """Runs of images of people in motion.

    Args:
        seed: of the people; other ones than those of stills of the same seed.
        train, test: numbers of runs.
        frames: images of a run.
        size: width and height of the images, pixels.
        motion: clips of any format, a part of whose subjects is of the test alone; None is synthetic motion.
        rendered: how they are rendered, see :class:`~structloss.images.ImagesDataModule`.

    Raises:
        ArgumentError: too few runs, or subjects.
    """
    if min(train, test) < 1:
        raise ArgumentError(f"train and test are {train} and {test}, expected at least 1.")
    common: dict[str, Any] = {"size": size, "frames": frames, "in_place": True, **(rendered or {}), "truncated": 0.0}
    clips: Sequence[Clip] | None = None
    parts: tuple[Sequence[str] | None, ...] = (None, None)  # synthetic people of another seed are others
    if motion is not None:
        clips = open_motion(motion)
        names = names_of(clips, "subject")
        held = scored_subjects(names, None, motion)
        parts = ([name for name in names if name not in held], [name for name in names if name in held])
    found = [
        RenderedPeople(number * frames, seed=1_000_003 + 2 * seed + split, motion=clips, subjects=of or None, **common)
        for split, (number, of) in enumerate(zip((train, test), parts, strict=True))
    ]
    return MotionRuns(found[0], found[1])


def train_tpnet(
    train: Sequence[PredictedClip],
    test: Sequence[PredictedClip],
    *,
    past: int = 19,
    future: int = 0,
    epochs: int = 30,
    lr: float = 1e-4,
    seed: int = 0,
    noise_mm: float = 0.0,
    label: str = "TP-Net",
    quiet: bool = False,
) -> RefineModule:
    """TP-Net on predictions of people in motion.

    Args:
        train: predictions of the training people, beside the truth.
        test: those of strangers, whose scores are shown on the way.
        past, future: frames around the one that is refined: 19 and 0 online, 9 and 10 semi-online.
        epochs: through the windows of `train`.
        lr: learning rate.
        seed: of the weights and the order.
        noise_mm: noise on the inputs of the training, mm.
        label: shown with the progress.
        quiet: print nothing.

    Returns:
        The trained module, in evaluation mode.
    """
    torch.manual_seed(seed)
    module = RefineModule(past=past, future=future, lr=lr, seed=seed)
    with TemporaryDirectory() as scratch:
        paths = [_written(clips, Path(scratch) / f"{name}.npz") for name, clips in (("train", train), ("test", test))]
        data = PredictionsDataModule(
            predictions=paths[0],
            val_predictions=paths[1],
            past=past,
            future=future,
            frame_step=1,
            seed=seed,
            input_noise_mm=noise_mm,
        )
        data.setup()
        train_refiner(module, data, epochs=epochs, seed=seed, label=label, quiet=quiet)
    return module.eval()


def _written(clips: Sequence[PredictedClip], path: Path) -> str:
    with writing_predictions(path) as writer:
        for clip in clips:
            writer.add(clip)
    return os.fspath(path)


def predictions_of(model: images.SAPNet, runs: MotionRuns) -> tuple[Runs, Runs]:
    """What a trained network makes of the runs: of the training, of the test."""
    return predict_runs(model, runs.train), predict_runs(model, runs.test)


def refined_by(module: RefineModule, poses: Tensor) -> Tensor:
    """Poses `[1, T, 17, 3]`, metres, through a refiner."""
    with torch.no_grad():
        return module(poses.to(module.device)).cpu()
