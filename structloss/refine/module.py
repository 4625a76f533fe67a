"""The Lightning data module of refiners: files of predictions, split by subject. Only this file imports lightning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .. import skeletons
from ..data._words import some
from ..data.augment import chance
from ..data.loading import EpochSampler, EverySample, window_loader
from ..data.protocols import scored_subjects
from ..data.resuming import ResumesWithinEpoch
from ..errors import ArgumentError, DataError, check_choice, needs_extra
from ..skeletons import flip
from .base import BORDERS, check_count
from .prediction_files import PredictedClip, Predictions, rates_of, read_predictions
from .windows import PredictionClips, PredictionWindows

with needs_extra("harness"):
    from lightning import LightningDataModule

__all__ = ["PredictionsDataModule"]

_TESTED = ("test", "train")
_RATE = 25.0  # frames per second: 5 steps are 200 ms in the paper


class PredictionsDataModule(ResumesWithinEpoch, LightningDataModule):
    """A trained network's predictions beside the true poses, for training a refiner and for scoring it.

    Training goes through windows in an order that depends on (seed, epoch) alone; noise and mirroring depend on
    (seed, epoch) and on the samples of a batch, so that a resumed run draws the same. Validation and test go through
    whole clips of the held-out subjects, one at a time.

    Inputs should be predictions: on true poses a network learns the identity. Predictions for the subjects that the
    single-frame network was trained on are better than those for strangers, which `input_noise_mm` can make up for.

    Args:
        predictions: a file of `structloss predict --split train`, or several, of one skeleton and frame rate.
        val_predictions: files to validate and to test on, of `structloss predict --split test`; all of `predictions` is
            then trained on. None holds out subjects of `predictions`.
        val_subjects: held-out subjects, or motions (`subject/name`). None: the last quarter of the subjects by name;
            if there are all of cmu03, cmu35 and cmu127, those three.
        past: frames before those that are refined; None for a network that takes whole clips, which then sees
            `frames` of them at a time.
        future: frames after them, as `past`.
        frames: poses of a sample that are refined: 1 for TP-Net, as many as are read in a row for an LSTM.
        stride: frames from one training sample to the next; None is `frames`.
        frame_step: take every n-th frame, from each frame on. None comes nearest to 25 frames per second, those of the
            paper; 1 where the rate is not known.
        border: beyond a clip's ends, "repeat" its first or last pose, or "zero"; as the network has it.
        skeleton: name of the joints' order.
        batch_size: training samples per batch and process.
        num_workers: processes that load data; 0 loads in the training process, which is fast enough.
        seed: of the order of training, the noise and the mirroring.
        input_noise_mm: standard deviation of Gaussian noise on every coordinate of training inputs but the root's, mm.
        flip_probability: share of training samples that are mirrored.
        test_set: what `test` scores: "test", the held-out subjects, or "train".

    Raises:
        ArgumentError: an argument out of range; on setup, unknown subjects, files of different skeletons or frame
            rates.
        DataError, MissingFileError: on setup, a file that can't be read, or an empty split.
    """

    def __init__(
        self,
        predictions: str | list[str] | None = None,
        val_predictions: str | list[str] | None = None,
        val_subjects: list[str] | None = None,
        past: int | None = 19,
        future: int | None = 0,
        frames: int = 1,
        stride: int | None = None,
        frame_step: int | None = None,
        border: str = "repeat",
        skeleton: str = "h36m",
        batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        input_noise_mm: float = 0.0,
        flip_probability: float = 0.0,
        test_set: str = "test",
    ) -> None:
        super().__init__()
        for name, value in (("past", past), ("future", future), ("num_workers", num_workers), ("seed", seed)):
            check_count(name, value or 0, 0)
        for name, value in (("frames", frames), ("stride", stride), ("frame_step", frame_step)):
            check_count(name, 1 if value is None else value, 1)
        check_count("batch_size", batch_size, 1)
        if not 0 <= input_noise_mm < math.inf:
            raise ArgumentError(f"input_noise_mm is {input_noise_mm}, expected a number of millimetres, 0 or more.")
        if not 0 <= flip_probability <= 1:
            raise ArgumentError(f"flip_probability is {flip_probability}, expected a number from 0 to 1.")
        check_choice("border", border, BORDERS)
        check_choice("test_set", test_set, _TESTED)
        self.save_hyperparameters(logger=False)  # checkpoints tell what data they were trained on
        self.predictions, self.val_predictions = _files(predictions), _files(val_predictions)
        if self.val_predictions and val_subjects is not None:
            raise ArgumentError("val_subjects and val_predictions are given, expected one of them.")
        self.val_subjects = None if val_subjects is None else tuple(val_subjects)
        self.past, self.future, self.frames, self.stride, self.border = past, future, frames, stride, border
        self.frame_step = frame_step
        self.skeleton = skeletons.get(skeleton)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.input_noise_mm, self.flip_probability, self.test_set = input_noise_mm, flip_probability, test_set
        self._built: tuple[PredictionWindows, PredictionClips, PredictionClips | None] | None = None
        self._fps = math.nan

    @property
    def train_dataset(self) -> PredictionWindows:
        """Training windows."""
        return self._datasets()[0]

    @property
    def val_dataset(self) -> PredictionClips:
        """Whole clips of the held-out subjects."""
        return self._datasets()[1]

    @property
    def test_dataset(self) -> PredictionClips:
        """Whole clips of those subjects that `test_set` says."""
        return self._datasets()[2] or self.val_dataset

    @property
    def fps(self) -> float:
        """Frames per second of what the network sees; NaN where unknown."""
        self._datasets()
        return self._fps

    def setup(self, stage: str | None = None) -> None:
        """Read the files, once; `stage` makes no difference."""
        self._datasets()

    def _datasets(self) -> tuple[PredictionWindows, PredictionClips, PredictionClips | None]:
        if self._built is None:
            self._built = self._build()
        return self._built

    def _build(self) -> tuple[PredictionWindows, PredictionClips, PredictionClips | None]:
        if not self.predictions:
            raise ArgumentError(
                "predictions is None, expected a file that structloss predict --split train has written."
            )
        found = [read_predictions(path) for path in self.predictions]
        others = [read_predictions(path) for path in self.val_predictions]
        self._check([*found, *others])
        clips = [clip for part in found for clip in part.clips]
        train, test = self._split(clips) if not others else (clips, [clip for part in others for clip in part.clips])
        rates = rates_of([*train, *test])
        if len(rates) > 1:
            raise ArgumentError(
                f"predictions has clips of {rates[0]:g} and {rates[-1]:g} fps, expected one frame rate."
            )
        step = self.frame_step or (max(1, round(rates[0] / _RATE)) if rates else 1)
        self._fps = rates[0] / step if rates else math.nan
        common: dict[str, Any] = {"frame_step": step, "skeleton": self.skeleton.name}
        names = ("past", "future", "frames", "stride", "border")
        return (
            PredictionWindows(train, **{name: getattr(self, name) for name in names}, **common),
            PredictionClips(test, **common),
            PredictionClips(train, **common) if self.test_set == "train" else None,
        )

    def _check(self, files: Sequence[Predictions]) -> None:
        for file in files:
            if file.skeleton != self.skeleton.name:
                raise ArgumentError(
                    f"skeleton is {self.skeleton.name!r}, expected {file.skeleton!r}, the joint order of {file.path}."
                )

    def _split(self, clips: list[PredictedClip]) -> tuple[list[PredictedClip], list[PredictedClip]]:
        """Clips to train on, and those of the held-out subjects or motions."""
        subjects = tuple(sorted({clip.subject for clip in clips}))
        motions = tuple(dict.fromkeys(clip.motion for clip in clips))
        source = some(self.predictions, 3)
        held = scored_subjects(subjects, self.val_subjects, source, motions)
        parts = [[clip for clip in clips if (clip.subject in held or clip.motion in held) == t] for t in (False, True)]
        for name, part in zip(("training", "validation"), parts, strict=True):
            if not part:
                alone = len(subjects) == 1 and len(motions) > 1
                remedy = f"; set val_subjects to the clips to hold out, such as {motions[-1]}" if alone else ""
                raise DataError(
                    f"the {name} split of {source} is empty, expected at least one subject in each split; it has "
                    f"{len(subjects)} ({some(subjects, 12)}){remedy}, or give val_predictions."
                )
        return parts[0], parts[1]

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Shuffled training windows; in a resumed run, at first those of the epoch that were not trained on yet."""
        sampler = EpochSampler(self.train_dataset, self.seed, *self._place)
        self._continue(sampler)
        return window_loader(self.train_dataset, self.batch_size, sampler, workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Whole clips of the held-out subjects, in order."""
        return self._in_order(self.val_dataset)

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Whole clips of the subjects that `test_set` says, in order."""
        return self._in_order(self.test_dataset)

    def _in_order(self, clips: PredictionClips) -> DataLoader[dict[str, Tensor]]:
        return window_loader(clips, 1, EverySample(clips, *self._place), workers=self.num_workers)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Noise and mirroring, of training batches alone."""
        if self.trainer is None or not self.trainer.training:
            return batch
        return self.augmented(batch, self.trainer.current_epoch)

    def augmented(self, batch: dict[str, Tensor], epoch: int) -> dict[str, Tensor]:
        """A training batch with the noise and the mirroring of an epoch; the batch itself stays as it is."""
        batch, index = dict(batch), batch["index"].cpu()
        if self.input_noise_mm:
            seed = np.random.SeedSequence([self.seed, epoch, 1, *index.tolist()]).generate_state(1, np.uint64)[0]
            generator = torch.Generator().manual_seed(int(seed) >> 1)
            noise = torch.randn(batch["input"].shape, generator=generator) * (self.input_noise_mm / 1000)
            noise[..., list(self.skeleton.pelvis), :] = 0
            batch["input"] = batch["input"] + noise.to(batch["input"].device)
        if self.flip_probability:
            mirror = chance(self.seed, epoch, index) < self.flip_probability
            mirror = mirror.to(batch["input"].device)
            for key in ("input", "target"):
                mirrored = flip(batch[key], self.skeleton)
                batch[key] = torch.where(mirror[:, None, None, None], mirrored, batch[key])
            swapped = batch["weight"][..., list(self.skeleton.mirror)]
            batch["weight"] = torch.where(mirror[:, None, None], swapped, batch["weight"])
        return batch


def _files(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Paths, from one or several."""
    if given is None:
        return ()
    return (str(given),) if isinstance(given, str) or not isinstance(given, Sequence) else tuple(map(str, given))
