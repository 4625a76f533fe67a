"""The Lightning data module of pairs of frames, for shape templates."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from ..data._checks import at_least
from ..data.opening import open_motion
from ..data.protocols import scored_subjects
from ..data.selection import names_of
from ..errors import ArgumentError, check_choice, needs_extra
from .batches import ScoresInOrder, Shuffled, image_loader
from .frames.arms import ARMS, with_arms
from .frames.folders import FrameFolders, SquareFrames
from .frames.opening import open_frames
from .frames.pairs import scored_pairs, trained_pairs
from .frames.selection import SomeFolders, evenly_spaced, fitting, held_out_folders
from .memory import Kept
from .source import CHECKS, SKIPPING
from .template_samples import TemplateSamples

with needs_extra("harness"):
    from lightning import LightningDataModule

__all__ = ["TemplatesDataModule"]

_RENDERED, _RENDERED_VAL = 48, 12  # folders


class TemplatesDataModule(ScoresInOrder, LightningDataModule):
    """Pairs of frames of one person before one background, for training shape templates and for scoring on folders that
    were not trained on.

    Samples are those of :class:`~structloss.images.template_samples.TemplateSamples`. The training order depends on
    (seed, epoch) alone, and samples on the data alone, so a resumed run continues as if it had not been stopped. The
    last, smaller batch is left out, as published, unless it is the only one. Validation and test give the same pairs,
    as :func:`~structloss.images.frames.pairs.scored_pairs` lists them, in order.

    Without files, people are rendered (:class:`~structloss.images.rendered.folders.RenderedFolders`); those who are
    scored do motion of other subjects, and are other people before other backgrounds.

    Everything is prepared by the first call of :meth:`setup`, or the first use of an attribute that needs it.

    Args:
        path: a folder of folders of images, a video or a folder of videos; None renders people.
        boxes: of the people in videos: a file, or one box [x, y, width, height] for all.
        val_path: folders to score; None holds out some of `path`.
        val_boxes: of the people in its videos.
        val_folders: names of folders to score, or patterns ("S9*"). None: those of Human3.6M's S9 and S11, else the
            last quarter by name.
        size: width and height of the frames, pixels.
        batch_size: training pairs per batch and process.
        eval_batch_size: pairs per batch in validation and test; None is `batch_size`.
        flip: train on the first half of each folder's pairs and on the same pairs mirrored (Yoo and Russakovsky).
        shuffle_frames: pair the frames of a folder in random order, fixed by the seed; otherwise as their names are
            sorted, which in the published sets is a random order, too.
        arms: score frames with arms "down", "out", or "all" frames.
        num_workers: processes that decode or render; 0 does it in the training process.
        seed: of rendered people, of pairs and of the order of training.
        count: folders to train on; None is 48 rendered ones, or all of a path. Of a path they are evenly spaced.
        val_count: the same of those that are scored; None is 12 rendered ones, or all of a path.
        val_pairs: pairs to score at most, evenly spaced; None is all.
        frames: in each rendered folder.
        motion: what rendered people do, clips that :func:`~structloss.data.opening.open_data` reads; None is synthetic.
        rendered: how people are rendered: `ratio` and `facing` of
            :class:`~structloss.images.rendered.folders.RenderedFolders`.
        missing: images that are damaged: "error", or "skip" to leave them out with a warning.
        check: what is checked of image files beforehand: "files", "decode" or "none".
        keep_megabytes: of frames, at their size, to keep in memory once they were drawn or decoded, for training and
            for scoring each, where the training process loads them itself; 0 keeps none.
        progress: show progress bars on a terminal while preparing.

    Raises:
        ArgumentError: an argument out of range; on setup, `val_folders` that are not there, or `arms` without joints to
            go by.
        DataError, MissingFileError: on setup, if files cannot be read, or nothing is left to train on or to score.
        MissingDependencyError: OpenCV, or for videos PyAV, is not installed.
    """

    def __init__(
        self,
        path: str | None = None,
        boxes: str | list[float] | None = None,
        val_path: str | None = None,
        val_boxes: str | list[float] | None = None,
        val_folders: list[str] | None = None,
        size: int = 256,
        batch_size: int = 48,
        eval_batch_size: int | None = None,
        flip: bool = False,
        shuffle_frames: bool = True,
        arms: str = "all",
        num_workers: int = 0,
        seed: int = 0,
        count: int | None = None,
        val_count: int | None = None,
        val_pairs: int | None = None,
        frames: int = 40,
        motion: str | None = None,
        rendered: dict[str, Any] | None = None,
        missing: str = "error",
        check: str = "files",
        keep_megabytes: float = 512.0,
        progress: bool = True,
    ) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size or batch_size)
        at_least(8, size=size)
        at_least(2, frames=frames)
        at_least(0, num_workers=num_workers, seed=seed)
        counts = {"count": count, "val_count": val_count, "val_pairs": val_pairs}
        at_least(1, **{name: value for name, value in counts.items() if value is not None})
        check_choice("arms", arms, ARMS)
        check_choice("missing", missing, SKIPPING)
        check_choice("check", check, CHECKS)
        for name, given, other, needed in (
            ("boxes", boxes, "path", path),
            ("val_boxes", val_boxes, "val_path", val_path),
            ("val_folders", val_folders, "path", path or val_path),
        ):
            if given is not None and needed is None:
                raise ArgumentError(f"{name} is {given!r}, expected it with {other}.")
        if motion is not None and path is not None:
            raise ArgumentError(f"motion is {str(motion)!r}, expected it with rendered people, but path is given.")
        if not 0 <= keep_megabytes < math.inf:
            raise ArgumentError(f"keep_megabytes is {keep_megabytes}, expected a number of at least 0.")
        for name in rendered or {}:
            if name not in ("ratio", "facing"):
                raise ArgumentError(f"rendered has {name!r}, expected ratio or facing.")
        self.save_hyperparameters(logger=False)  # checkpoints tell what data they were trained on
        paths = ("path", "val_path", "motion")
        self.hparams.update({name: value and str(value) for name, value in self.hparams.items() if name in paths})
        self.path, self.boxes = path, boxes
        self.val_path, self.val_boxes = val_path, val_boxes
        self.val_folders = None if val_folders is None else tuple(val_folders)
        self.size = size
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.flip, self.shuffle_frames, self.arms = flip, shuffle_frames, arms
        self.num_workers = num_workers
        self.seed = seed
        self.count, self.val_count, self.val_pairs = count, val_count, val_pairs
        self.frames = frames
        self.motion = motion
        self.rendered = dict(rendered or {})
        self.missing, self.check = missing, check
        self.keep_megabytes = keep_megabytes
        self.progress = progress
        self._built: tuple[TemplateSamples, TemplateSamples] | None = None

    @property
    def train_dataset(self) -> TemplateSamples:
        """Pairs that are trained on."""
        return self._datasets()[0]

    @property
    def val_dataset(self) -> TemplateSamples:
        """Pairs that are scored."""
        return self._datasets()[1]

    @property
    def test_dataset(self) -> TemplateSamples:
        """The same."""
        return self.val_dataset

    def setup(self, stage: str | None = None) -> None:
        """Open or prepare all folders, once; `stage` makes no difference."""
        self._datasets()

    def _datasets(self) -> tuple[TemplateSamples, TemplateSamples]:
        if self._built is None:
            trained, scored = self._rendered() if self.path is None else self._opened(self.path)
            pairs = trained_pairs(trained.lengths, flip=self.flip, shuffle=self.shuffle_frames, seed=self.seed)
            first = len(trained.folders)  # folders that are scored have numbers of their own
            self._built = self._samples(trained, pairs, 0), self._samples(scored, self._scored_pairs(scored), first)
        return self._built

    def _samples(self, folders: FrameFolders, pairs: np.ndarray, first: int) -> TemplateSamples:
        square = SquareFrames(folders, self.size)
        keeps = self.keep_megabytes and not self.num_workers
        frames = Kept(square, self.keep_megabytes) if keeps else square
        return TemplateSamples(frames, square.starts, pairs, range(first, first + len(folders.folders)))

    def _scored_pairs(self, folders: FrameFolders) -> np.ndarray:
        pairs = scored_pairs(folders.lengths, seed=self.seed)
        if self.arms != "all":
            labels = [folders.joints(folder, frame) for folder, frame in pairs[:, :2].tolist()]
            joints, annotated = (np.stack(part) for part in zip(*labels, strict=True))
            pairs = pairs[with_arms(self.arms, joints, annotated)]
            if not len(pairs):
                known = f"{int(annotated.any(1).sum())} of {len(annotated)} frames have annotated joints"
                raise ArgumentError(
                    f"arms is {self.arms!r}, which no frame of {folders.source} that would be scored has ({known}), "
                    "expected at least one."
                )
        return pairs[evenly_spaced(len(pairs), self.val_pairs)]

    def with_flip(self, flip: bool) -> TemplatesDataModule:
        """A data module of the same frames, which trains on mirrored pairs or not; it has not been trained on."""
        trained, scored = self._datasets()
        other = copy.copy(self)
        other.trainer, other.flip = None, flip
        pairs = trained_pairs(np.diff(trained.starts).tolist(), flip=flip, shuffle=self.shuffle_frames, seed=self.seed)
        built = TemplateSamples(trained.frames, trained.starts, pairs, trained.numbers), scored
        vars(other).update(_built=built, _resumed=None)
        return other

    # ---- from files ----

    def _opened(self, path: str) -> tuple[FrameFolders, FrameFolders]:
        """Folders that are trained on, and those that are scored."""
        folders = self._open(path, self.boxes)
        if self.val_path is None:
            held = held_out_folders(folders.folders, self.val_folders, folders.source)
            scored: FrameFolders = SomeFolders(folders, np.flatnonzero(held))
            folders = SomeFolders(folders, np.flatnonzero(~held))
        else:
            scored = self._val_opened(self.val_path)
        return _some(folders, self.count), _some(scored, self.val_count)

    def _val_opened(self, path: str) -> FrameFolders:
        try:
            folders = self._open(path, self.val_boxes)
        except ArgumentError as error:
            if not str(error).startswith("boxes is "):
                raise
            raise ArgumentError(f"val_{error}") from error
        if self.val_folders is None:
            return folders
        return SomeFolders(folders, np.flatnonzero(fitting(folders.folders, self.val_folders, folders.source)))

    def _open(self, path: str, boxes: str | list[float] | None) -> FrameFolders:
        return open_frames(path, boxes=boxes, missing=self.missing, check=self.check, progress=self._shows_progress)

    # ---- rendered ----

    def _rendered(self) -> tuple[FrameFolders, FrameFolders]:
        """Folders that are trained on, and those that are scored."""
        from .rendered.folders import RenderedFolders, synthetic_motion

        if self.motion is None:
            clips = synthetic_motion(self.seed)
        else:
            clips = open_motion(self.motion, progress=self._shows_progress)
        names = names_of(clips, "subject")
        source = "the synthetic motion" if self.motion is None else str(self.motion)
        held = scored_subjects(names, None, source)
        trained = [name for name in names if name not in held]
        options: dict[str, Any] = {"size": max(16, self.size), "seed": self.seed, "motion": clips, **self.rendered}
        count = self.count or _RENDERED
        folders = RenderedFolders(count, self.frames, subjects=trained or names, **options)
        if self.val_path is not None:
            return folders, _some(self._val_opened(self.val_path), self.val_count)
        # Numbers far from those of training, so that these people do not depend on how many are trained on.
        scored = RenderedFolders(
            self.val_count or _RENDERED_VAL, self.frames, subjects=sorted(held), first=_FIRST_SCORED, **options
        )
        return folders, scored

    # ---- loaders ----

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Training pairs in the order of the epoch; in a resumed run, at first those that were not trained on yet."""
        dataset = self.train_dataset
        sampler = Shuffled(dataset, self.seed, *self._place)
        self._continue(sampler)
        drop = len(sampler) >= self.batch_size or self._lonely(sampler)
        return image_loader(dataset, self.batch_size, sampler, workers=self.num_workers, drop_last=drop)


_FIRST_SCORED = 1_000_000  # number of the first folder that is scored


def _some(folders: FrameFolders, count: int | None) -> FrameFolders:
    """So many folders, evenly spaced."""
    total = len(folders.folders)
    return folders if count is None or count >= total else SomeFolders(folders, evenly_spaced(total, count))
