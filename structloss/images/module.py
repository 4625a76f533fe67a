"""The Lightning data module of people in images. In this room only data modules import lightning."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from ..data._checks import at_least
from ..data._words import some
from ..data.clips import Clip
from ..data.opening import open_motion
from ..data.protocols import scored_subjects
from ..data.selection import names_of
from ..errors import ArgumentError, DataError, check_choice, needs_extra
from .augment import Augmentation
from .batches import BATCHES, HalfAndHalf, ScoresInOrder, Shuffled, check_batch, image_loader
from .memory import Kept
from .opening import open_images, require_joints, require_labelled
from .people import People
from .samples import ImageSamples
from .selection import SomePeople, WithoutPoses, evenly, subjects_of
from .source import CHECKS, SKIPPING

with needs_extra("harness"):
    from lightning import LightningDataModule

__all__ = ["ImagesDataModule"]

_RENDERED, _RENDERED_VAL = 2000, 256  # people
_TESTED = ("S9", "S11")  # of Human3.6M


class ImagesDataModule(ScoresInOrder, LightningDataModule):
    """People in images with 3D poses, for training and for scoring on others, and people with 2D joints alone.

    Samples are those of :class:`~structloss.images.samples.ImageSamples`. Labelled people come first in a batch. The
    training order and all that is random in samples depend on (seed, epoch, sample) alone, so a resumed run continues
    as if it had not been stopped, with any number of loading processes. A last, smaller batch of "labelled" and "all"
    is kept, unless it would hold a single sample, on which batch normalisation cannot train. Validation, test and
    prediction give the same data: every held-out person once, in order, unchanged.

    Without files, people are rendered: those with 3D poses, those without and those who are scored do motion of
    different subjects, and are different bodies before different backgrounds.

    Everything is prepared by the first call of :meth:`setup`, or the first use of an attribute that needs it.

    Args:
        data: people with 3D poses, anything with those that :func:`~structloss.images.opening.open_images` reads; None
            renders them.
        images: folder of the images of `data`; None looks in the usual places.
        unlabelled: people with 2D joints, such as MPII's or COCO's; 3D poses that they have are not used. None renders
            them if `data` is None, and otherwise takes `unlabelled_subjects`.
        unlabelled_images: folder of the images of `unlabelled`.
        val_data: people to score; None holds out some subjects of `data`.
        val_images: folder of the images of `val_data`.
        format: name of the format of `data`, where it may be of several.
        joints: order of the joints of `data` and `val_data`, see :func:`~structloss.images.joint_layouts.layout_of`.
        batch: "mixed": exactly half of every batch has 3D poses (Dabral et al., ECCV 2018); "labelled": those alone;
            "all": all people in any order.
        input_size: width and height of the input, pixels.
        batch_size: training samples per batch and process; even for "mixed".
        eval_batch_size: samples per batch in validation and test; None is `batch_size`.
        num_workers: processes that decode, render and warp; 0 does it in the training process.
        seed: of rendered people, of augmentation and of the order of training.
        val_subjects: held-out subjects. None: S9 and S11 of Human3.6M, TS1 to TS6 of MPI-INF-3DHP, else the last
            quarter by name.
        unlabelled_subjects: training subjects whose 3D poses training does without. None: nobody of files, the second
            half of the training subjects of rendered people.
        motion: what rendered people do, clips that :func:`~structloss.data.opening.open_data` reads; None is synthetic.
        rendered: how people are rendered: `facing`, `occluders` and `truncated` of
            :class:`~structloss.images.rendered.people.RenderedPeople`.
        count: training people with 3D poses; None is 2000 rendered ones, or all of a file. Of a file they are evenly
            spaced.
        unlabelled_count: the same of those without.
        val_count: the same of those who are scored; None is 256 rendered ones, or all of a file.
        augment: change samples without 3D poses at random in training.
        augment_labelled: change those with 3D poses, too, and their poses with them.
        augment_scale: standard deviation of the binary logarithm of the scale.
        augment_rotation: standard deviation of the angle, degrees.
        augment_rotation_probability: share of samples that are turned.
        augment_flip: share of samples that are mirrored.
        augment_gain: least factor of a colour channel.
        missing: images that are missing or broken: "error", or "skip" to leave them out with a warning.
        check: what is checked of image files beforehand: "files", "decode" or "none".
        keep_megabytes: of each kind of people, images to keep in memory once they were drawn or decoded, where the
            training process loads them itself; 0 keeps none.
        progress: show progress bars on a terminal while preparing.

    Raises:
        ArgumentError: an argument out of range; on setup, unknown subjects, or nobody for one half of the batches.
        DataError, MissingFileError: on setup, if files cannot be read, `data` or `val_data` have no 3D poses,
            `unlabelled` has no joints, or nobody is left to train on or to score.
        MissingDependencyError: OpenCV is not installed.
    """

    def __init__(
        self,
        data: str | None = None,
        images: str | None = None,
        unlabelled: str | None = None,
        unlabelled_images: str | None = None,
        val_data: str | None = None,
        val_images: str | None = None,
        format: str | None = None,
        joints: str | None = None,
        batch: str = "mixed",
        input_size: int = 256,
        batch_size: int = 6,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        val_subjects: list[str] | None = None,
        unlabelled_subjects: list[str] | None = None,
        motion: str | None = None,
        rendered: dict[str, Any] | None = None,
        count: int | None = None,
        unlabelled_count: int | None = None,
        val_count: int | None = None,
        augment: bool = True,
        augment_labelled: bool = False,
        augment_scale: float = 0.25,
        augment_rotation: float = 30.0,
        augment_rotation_probability: float = 0.4,
        augment_flip: float = 0.5,
        augment_gain: float = 0.6,
        missing: str = "error",
        check: str = "files",
        keep_megabytes: float = 0.0,
        progress: bool = True,
    ) -> None:
        super().__init__()
        check_choice("batch", batch, BATCHES)
        at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size or batch_size)
        at_least(8, input_size=input_size)
        at_least(0, num_workers=num_workers, seed=seed)
        counts = {"count": count, "unlabelled_count": unlabelled_count, "val_count": val_count}
        at_least(1, **{name: value for name, value in counts.items() if value is not None})
        if batch == "mixed":
            check_batch(batch_size)
        check_choice("missing", missing, SKIPPING)
        check_choice("check", check, CHECKS)
        for name, value, needed in (
            ("images", images, data),
            ("unlabelled_images", unlabelled_images, unlabelled),
            ("val_images", val_images, val_data),
            ("format", format, data),
            ("joints", joints, data or val_data),
        ):
            if value is not None and needed is None:
                what = {"unlabelled_images": "unlabelled", "val_images": "val_data"}.get(name, "data")
                raise ArgumentError(f"{name} is {str(value)!r}, expected it with {what}.")
        if motion is not None and data is not None:
            raise ArgumentError(f"motion is {str(motion)!r}, expected it with rendered people, but data is given.")
        self._augmentation = Augmentation(
            augment_scale, augment_rotation, augment_rotation_probability, augment_flip, augment_gain
        )
        if not 0 <= keep_megabytes < math.inf:
            raise ArgumentError(f"keep_megabytes is {keep_megabytes}, expected a number of at least 0.")
        self.save_hyperparameters(logger=False)  # checkpoints tell what data they were trained on
        paths = ("data", "images", "unlabelled", "unlabelled_images", "val_data", "val_images", "motion")
        self.hparams.update({name: value and str(value) for name, value in self.hparams.items() if name in paths})
        self.data, self.images = data, images
        self.unlabelled, self.unlabelled_images = unlabelled, unlabelled_images
        self.val_data, self.val_images = val_data, val_images
        self.format, self.joints = format, joints
        self.batch = batch
        self.input_size = input_size
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.val_subjects = None if val_subjects is None else tuple(val_subjects)
        self.unlabelled_subjects = tuple(unlabelled_subjects or ())
        self.motion = motion
        self.rendered = _rendering(rendered)
        self.count, self.unlabelled_count, self.val_count = count, unlabelled_count, val_count
        self.augment, self.augment_labelled = augment, augment_labelled
        self.missing, self.check = missing, check
        self.keep_megabytes = keep_megabytes
        self.progress = progress
        self._built: tuple[ImageSamples, ImageSamples] | None = None
        self._found: Any = None

    @property
    def train_dataset(self) -> ImageSamples:
        """Training samples: of the labelled people, then of the others if the batches have some."""
        return self._datasets()[0]

    @property
    def val_dataset(self) -> ImageSamples:
        """Samples of the people who are scored."""
        return self._datasets()[1]

    @property
    def test_dataset(self) -> ImageSamples:
        """The same."""
        return self.val_dataset

    @property
    def actions(self) -> tuple[str, ...]:
        """Names that a sample's `action` counts; none where the people who are scored have none."""
        return tuple(self.val_dataset.actions)

    def setup(self, stage: str | None = None) -> None:
        """Open or prepare all people, once; `stage` makes no difference."""
        self._datasets()

    def _datasets(self) -> tuple[ImageSamples, ImageSamples]:
        if self._built is None:
            self._built = self._build()
        return self._built

    def _build(self) -> tuple[ImageSamples, ImageSamples]:
        labelled, unlabelled, scored, actions = self._people()
        parts = [labelled]
        if self.batch != "labelled" and unlabelled is not None:
            parts.append(unlabelled)
        if self.batch == "mixed" and len(parts) == 1:
            raise ArgumentError(
                "batch is 'mixed' and unlabelled None, expected people with 2D joints for one half of the batches, or "
                "unlabelled_subjects of data."
            )
        common: dict[str, Any] = {"input_size": self.input_size, "seed": self.seed, "actions": actions}
        augment = self._augmentation if self.augment else None
        return (
            ImageSamples(parts, augment=augment, augment_labelled=self.augment_labelled, **common),
            ImageSamples(scored, **common),
        )

    def _people(self) -> tuple[People, People | None, People, Sequence[str]]:
        """Labelled people, others, those who are scored, and actions of these; once."""
        if self._found is None:
            *kinds, actions = self._rendered() if self.data is None else self._opened()
            if self.keep_megabytes and not self.num_workers:
                kinds = [None if people is None else Kept(people, self.keep_megabytes) for people in kinds]
            self._found = (*kinds, actions)
        return self._found

    def with_batch(self, batch: str) -> ImagesDataModule:
        """A data module of the same people, for batches of another kind; it has not been trained on.

        Raises:
            ArgumentError: no such kind, or an odd batch for "mixed".
        """
        check_choice("batch", batch, BATCHES)
        if batch == "mixed":
            check_batch(self.batch_size)
        self._people()
        other = copy.copy(self)
        other.trainer, other.batch = None, batch
        vars(other).update(_built=None, _resumed=None)
        return other

    # ---- from files ----

    def _opened(self) -> tuple[People, People | None, People, Sequence[str]]:
        """Labelled people, others, those who are scored, and actions of these."""
        assert self.data is not None
        people = require_labelled(self._open(self.data, self.images, format=self.format, joints=self.joints), "data")
        subjects = np.array(subjects_of(people), object)
        scored: People | None = None if self.val_data is None else self._val_people()
        held: set[str] = set()
        if len(subjects):
            names = tuple(dict.fromkeys(sorted(set(subjects))))
            if self.val_data is None:
                held = self._held_out(names, people.source)
            elif self.val_subjects is not None:
                held = set(self.val_subjects)
        elif self.val_data is None:
            raise DataError(
                f"the images of {people.source} tell no subjects to hold out by their names, expected val_data, people "
                "to score."
            )
        tested = np.isin(subjects, list(held)) if len(subjects) else np.zeros(len(people), bool)
        if scored is None:
            scored = SomePeople(people, np.flatnonzero(tested))
        if len(scored) == 0 or tested.all():
            name = "training" if tested.all() else "validation"
            raise DataError(
                f"the {name} split of {people.source} is empty, expected at least one subject in each split; it has "
                f"{some(sorted(set(subjects)), 12)}."
            )
        apart = self._apart(subjects, tested, people.source)
        labelled: People = SomePeople(people, np.flatnonzero(~tested & ~apart))
        unlabelled = self._unlabelled_people()
        if unlabelled is None and apart.any():
            unlabelled = WithoutPoses(people, np.flatnonzero(apart))
        scored = evenly(scored, self.val_count)
        actions = sorted(set(getattr(scored, "actions", ())))
        others = None if unlabelled is None else evenly(unlabelled, self.unlabelled_count)
        return evenly(labelled, self.count), others, scored, actions

    def _held_out(self, names: Sequence[str], source: str) -> set[str]:
        if self.val_subjects is None:
            known = {name for name in names if name in _TESTED or name.startswith("TS")}
            if known and known != set(names):
                return known
        return scored_subjects(names, self.val_subjects, source)

    def _apart(self, subjects: np.ndarray, tested: np.ndarray, source: str) -> np.ndarray:
        """Which people are to be trained on without their 3D poses, bool `[N]`."""
        trained = sorted(set(subjects[~tested])) if len(subjects) else []
        for name in self.unlabelled_subjects:
            if name not in trained:
                raise ArgumentError(
                    f"unlabelled_subjects has {name!r}, expected training subjects of {source}: "
                    f"{some(trained, 12) or 'none'}."
                )
        if self.unlabelled_subjects and set(trained) <= set(self.unlabelled_subjects):
            raise ArgumentError(
                f"unlabelled_subjects has all training subjects of {source}, expected at least one with 3D poses."
            )
        if not self.unlabelled_subjects:
            return np.zeros(len(tested), bool)
        return np.isin(subjects, self.unlabelled_subjects) & ~tested

    def _val_people(self) -> People:
        assert self.val_data is not None
        people = require_labelled(self._open(self.val_data, self.val_images, joints=self.joints), "val_data")
        if self.val_subjects is None:
            return people
        subjects = np.array(subjects_of(people), object)
        if missing := [name for name in self.val_subjects if name not in subjects]:
            known = some(sorted(set(subjects)), 12) or "none"
            raise ArgumentError(f"val_subjects has {missing[0]!r}, expected subjects of {people.source}: {known}.")
        return SomePeople(people, np.flatnonzero(np.isin(subjects, self.val_subjects)))

    def _unlabelled_people(self) -> People | None:
        if self.unlabelled is None:
            return None
        people = require_joints(self._open(self.unlabelled, self.unlabelled_images), "unlabelled")
        return WithoutPoses(people, np.arange(len(people)))

    def _open(self, path: str, images: str | None, **options: Any) -> People:
        return open_images(path, images=images, progress=self._shows_progress, **options, **self._checks)

    @property
    def _checks(self) -> dict[str, Any]:
        return {"missing": self.missing, "check": self.check}

    # ---- rendered ----

    def _rendered(self) -> tuple[People, People | None, People, Sequence[str]]:
        """Labelled people, others, those who are scored, and actions of these."""
        from .rendered.people import RenderedPeople, synthetic_people

        clips: list[Clip]
        if self.motion is None:
            clips = list(synthetic_people(self.seed))
        else:
            clips = open_motion(self.motion, progress=self._shows_progress)
        names = names_of(clips, "subject")
        source = "the synthetic motion" if self.motion is None else str(self.motion)
        held = scored_subjects(names, None if self.val_data is not None else self.val_subjects, source)
        trained = [name for name in names if name not in held]
        if not trained or not held:
            raise DataError(
                f"the {'validation' if trained else 'training'} split of {source} is empty, expected at least one "
                f"subject in each split; it has {some(names, 12)}."
            )
        subjects = np.array(trained, object)
        apart = self._apart(subjects, np.zeros(len(trained), bool), source)
        if not apart.any() and self.unlabelled is None:
            apart[(len(trained) + 1) // 2 :] = True
        first = 3 * self.seed  # three kinds of people; another seed has none of theirs

        def people(number: int, count: int, who: Sequence[str], labelled: bool = True) -> People:
            options: dict[str, Any] = {"size": self.input_size, "motion": clips, "labelled": labelled}
            options |= self.rendered
            return RenderedPeople(count, seed=first + number, subjects=list(who), **options)

        labelled = people(0, self.count or _RENDERED, subjects[~apart].tolist())
        unlabelled = self._unlabelled_people()
        if unlabelled is None:  # of one subject the others have to be new images, too
            who = subjects[apart].tolist() or trained
            unlabelled = people(1, self.unlabelled_count or self.count or _RENDERED, who, labelled=False)
        else:
            unlabelled = evenly(unlabelled, self.unlabelled_count)
        if self.val_data is not None:
            scored = evenly(self._val_people(), self.val_count)
            return labelled, unlabelled, scored, sorted(set(getattr(scored, "actions", ())))
        actions = sorted({clip.action for clip in clips if clip.subject in held})
        return labelled, unlabelled, people(2, self.val_count or _RENDERED_VAL, sorted(held)), actions

    # ---- loaders ----

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Training samples in the order of the epoch; in a resumed run, at first those that were not trained on yet."""
        dataset = self.train_dataset
        sampler: HalfAndHalf | Shuffled
        if self.batch == "mixed":
            sampler = HalfAndHalf(dataset, self.batch_size, self.seed, *self._place)
        else:
            sampler = Shuffled(dataset, self.seed, *self._place)
        self._continue(sampler)
        return image_loader(
            dataset, self.batch_size, sampler, workers=self.num_workers, drop_last=self._lonely(sampler)
        )


_RENDERING = ("facing", "occluders", "truncated")


def _rendering(given: dict[str, Any] | None) -> dict[str, Any]:
    """Arguments of RenderedPeople; it checks their values."""
    for name in given or {}:
        if name not in _RENDERING:
            raise ArgumentError(f"rendered has {name!r}, expected some of {', '.join(_RENDERING)}.")
    return dict(given or {})
