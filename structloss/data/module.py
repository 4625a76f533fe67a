"""The Lightning data module: synthetic motion or a clip archive, split by subject. Only this file imports lightning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from ..errors import ArgumentError, DataError, MissingDependencyError, check_choice
from ..skeletons import Skeleton, get
from .archive import load_archive
from .image_space import TARGETS
from .synthetic import generate_clips
from .windows import SAMPLINGS, PoseWindows

try:
    from lightning import LightningDataModule
except ImportError as error:
    raise MissingDependencyError(
        "MotionDataModule needs lightning, which is not installed; run: pip install 'structloss[harness]'."
    ) from error

__all__ = ["EpochSampler", "MotionDataModule"]

CMU_VAL_SUBJECTS = ("cmu03", "cmu35", "cmu127")
"""Held-out subjects of the real clips: walking, running and stunts of people whose other clips are not trained on."""


class EpochSampler(DistributedSampler):
    """A shuffle that depends on (seed, epoch) only, so that two runs, and a run and its resumption, see one order.

    Lightning calls `set_epoch`, and leaves a `DistributedSampler` alone under DDP, where every process takes its share
    (the last samples are repeated until the shares are equal).
    """

    def __init__(self, dataset: PoseWindows, seed: int, replicas: int = 1, rank: int = 0) -> None:
        # The base class seeds with seed + epoch; the factor keeps seeds from sharing orders one epoch apart.
        super().__init__(dataset, num_replicas=replicas, rank=rank, shuffle=True, seed=seed * 1_000_003)


class MotionDataModule(LightningDataModule):
    """Windows of 3D motion with simulated 2D detections, for training and for scoring on unseen subjects.

    The training loader shuffles by (seed, epoch). Its last, smaller batch is kept, unless it would hold a single
    sample: batch normalisation cannot train on one, so that sample sits out the epoch (another one each time).
    Validation, test and prediction loaders give the same data: every frame of the held-out subjects once, in order.
    Under DDP Lightning may repeat samples there to make shares equal; score on one device.

    Everything is prepared by the first call of :meth:`setup`, or the first use of an attribute that needs it.

    Args:
        data: path of a clip archive (see :func:`~structloss.data.archive.load_archive`); None generates synthetic
            motion.
        window: frames of a sample.
        stride: frames between training windows; None is window // 3, or 1 for "centred". Test windows do not overlap.
        sampling: how clips are cut, see :class:`~structloss.data.windows.PoseWindows`: "windows" (MotionBERT),
            "centred" (VideoPose3D) or "chunks" (MixSTE).
        frame_step: take every so manieth frame into a "centred" window.
        mirrored: train on every window and on its mirror image; mirroring at random is the lifting module's.
        skeleton: joint order: "h36m" or "mpi_inf_3dhp".
        batch_size: training windows per batch and process.
        eval_batch_size: windows per batch in validation and test; None is `batch_size`.
        num_workers: processes that load data; 0 loads in the training process, which is fast enough for one GPU.
        seed: of the synthetic motion, the simulated detections and the order of training.
        target: "global" (RePOSE, MotionBERT global), "root_relative" (MotionBERT) or "camera" (metres; most others).
        detections: "simulated" or "exact" (ground-truth 2D, confidence 1).
        val_subjects: held-out subjects. None: the last quarter of the subjects by name; for an archive that has all of
            cmu03, cmu35 and cmu127, those three.
        short_clips: clips shorter than the window: "pad" (weight 0), "skip" or "error".
        num_subjects: people of the synthetic motion.
        clips_per_subject: clips of each synthetic person.
        frames: length of each synthetic clip, at 50 frames per second.
        views: cameras per clip, 1 to 4.
        progress: show progress bars on a terminal while preparing.

    Raises:
        ArgumentError: an argument out of range, or an unknown subject in `val_subjects` (on setup).
        DataError, MissingFileError: on setup, if the archive cannot be read, a split would be empty, or no clip of a
            split is as long as the window.
    """

    def __init__(
        self,
        data: str | None = None,
        window: int = 243,
        stride: int | None = None,
        sampling: str = "windows",
        frame_step: int = 1,
        mirrored: bool = False,
        skeleton: str = "h36m",
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        target: str = "global",
        detections: str = "simulated",
        val_subjects: list[str] | None = None,
        short_clips: str = "pad",
        num_subjects: int = 24,
        clips_per_subject: int = 6,
        frames: int = 500,
        views: int = 4,
        progress: bool = True,
    ) -> None:
        super().__init__()
        counts = {"window": window, "batch_size": batch_size, "eval_batch_size": eval_batch_size or batch_size}
        counts |= {"num_subjects": num_subjects, "clips_per_subject": clips_per_subject, "frames": frames}
        for argument, value in counts.items():
            if value < 1:
                raise ArgumentError(f"{argument} is {value}, expected at least 1.")
        if stride is not None and not 1 <= stride <= window:
            raise ArgumentError(f"stride is {stride}, expected 1 to {window}, the window.")
        for argument, value in {"num_workers": num_workers, "seed": seed}.items():
            if value < 0:
                raise ArgumentError(f"{argument} is {value}, expected at least 0.")
        if not 1 <= views <= 4:
            raise ArgumentError(f"views is {views}, expected 1 to 4 cameras.")
        check_choice("target", target, TARGETS)
        check_choice("sampling", sampling, SAMPLINGS)
        check_choice("detections", detections, ("simulated", "exact"))
        check_choice("short_clips", short_clips, ("pad", "skip", "error"))
        self.data = data
        self.window = window
        self.stride = stride
        self.sampling = sampling
        self.frame_step = frame_step
        self.mirrored = mirrored
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.target = target
        self.detections = detections
        self.val_subjects = None if val_subjects is None else tuple(val_subjects)
        self.short_clips = short_clips
        self.num_subjects = num_subjects
        self.clips_per_subject = clips_per_subject
        self.frames = frames
        self.views = views
        self.progress = progress
        self.skeleton: Skeleton = get(skeleton)
        self._built: tuple[PoseWindows, PoseWindows] | None = None

    @property
    def train_dataset(self) -> PoseWindows:
        """Training windows."""
        return self._datasets()[0]

    @property
    def val_dataset(self) -> PoseWindows:
        """Windows of the held-out subjects, each frame scored once."""
        return self._datasets()[1]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of all subjects, training and held out, that a sample's `subject` indexes."""
        return self.train_dataset.subjects

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of all actions that a sample's `action` indexes."""
        return self.train_dataset.actions

    def setup(self, stage: str | None = None) -> None:
        """Read or generate the clips and simulate the detections, once; `stage` makes no difference."""
        self._datasets()

    def _datasets(self) -> tuple[PoseWindows, PoseWindows]:
        if self._built is None:
            self._built = self._build()
        return self._built

    def _build(self) -> tuple[PoseWindows, PoseWindows]:
        progress = self.progress and (self._trainer_value("is_global_zero", True))
        if self.data is None:
            clips = generate_clips(self.num_subjects, self.clips_per_subject, self.frames, self.seed, progress=progress)
        else:
            clips, _ = load_archive(self.data)
        source = "the synthetic motion" if self.data is None else str(self.data)
        subjects = sorted({clip.subject for clip in clips})
        held_out = self._held_out(subjects, source)
        train = [clip for clip in clips if clip.subject not in held_out]
        val = [clip for clip in clips if clip.subject in held_out]
        for split, part in (("training", train), ("validation", val)):
            if not part:
                raise DataError(
                    f"the {split} split of {source} is empty, expected at least one subject in each split; it has "
                    f"{len(subjects)} ({_some(subjects)}), of which {len(held_out)} are in val_subjects."
                )
            longest = max(part, key=len)
            if len(longest) < self.window and self.sampling == "windows":
                remedy = f"choose a window of at most {len(longest)}"
                if self.data is None:
                    remedy += f" or frames of at least {self.window}"
                raise DataError(
                    f"no {split} clip of {source} is as long as the window of {self.window} frames, the longest is "
                    f"{longest.key!r} with {len(longest)}; {remedy}."
                )
        common: dict[str, Any] = {
            "window": self.window,
            "sampling": self.sampling,
            "frame_step": self.frame_step,
            "skeleton": self.skeleton.name,
            "target": self.target,
            "detections": self.detections,
            "seed": self.seed,
            "short_clips": self.short_clips,
            "views": self.views,
            "subjects": subjects,
            "actions": sorted({clip.action for clip in clips}),
            "progress": progress,
        }
        return (
            PoseWindows(train, "train", stride=self.stride, mirrored=self.mirrored, **common),
            PoseWindows(val, "test", **common),
        )

    def _held_out(self, subjects: Sequence[str], source: str) -> set[str]:
        """The validation subjects."""
        if self.val_subjects is not None:
            unknown = [s for s in self.val_subjects if s not in subjects]
            if unknown:
                raise ArgumentError(
                    f"val_subjects has {unknown[0]!r}, expected subjects of {source}: {_some(subjects)}."
                )
            return set(self.val_subjects)
        if self.data is not None and set(CMU_VAL_SUBJECTS) <= set(subjects):
            return set(CMU_VAL_SUBJECTS)
        return set(subjects[-max(1, round(len(subjects) / 4)) :])

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Shuffled training windows."""
        sampler = EpochSampler(
            self.train_dataset, self.seed, self._trainer_value("world_size", 1), self._trainer_value("global_rank", 0)
        )
        lonely = len(sampler) % self.batch_size == 1 and len(sampler) > 1 and self.batch_size > 1
        return self._loader(self.train_dataset, self.batch_size, sampler=sampler, drop_last=lonely)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Windows of the held-out subjects in order."""
        return self._loader(self.val_dataset, self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """The same data as in validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """The same data as in validation."""
        return self.val_dataloader()

    def _loader(self, dataset: PoseWindows, batch_size: int, **options: Any) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )

    def _trainer_value(self, name: str, default: Any) -> Any:
        """An attribute of the trainer, or `default` where the module is used without one."""
        return default if self.trainer is None else getattr(self.trainer, name)


def _some(names: Sequence[str]) -> str:
    """A list of names that stays on one line."""
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:10])}, ... {names[-1]}"
