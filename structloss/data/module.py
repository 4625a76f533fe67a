"""The Lightning data module: any data set, split by its protocol. Only this file imports lightning."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import ArgumentError, DataError, check_choice, needs_extra
from ..skeletons import Skeleton, get
from ._checks import at_least, check_number
from ._words import some
from .clips import Clip
from .cutting import Cut
from .drawn import Drawing, DrawnWindows, RandomKeypoints, RandomViews
from .image_space import TARGETS
from .loading import EpochSampler, EverySample, window_loader
from .observation import check_observing, observe
from .protocols import PROTOCOLS, rules_of, scored_subjects, split
from .resuming import ResumesWithinEpoch
from .selection import Selection, names_of, without
from .store import PoseStore
from .synthetic import check_people, generate_clips
from .unlabelled import has_keypoints_alone, read_unlabelled, set_apart
from .views import columns
from .windows import PoseWindows

with needs_extra("harness"):
    from lightning import LightningDataModule

__all__ = ["MotionDataModule"]

_TESTED = ("test", "train")


class MotionDataModule(ResumesWithinEpoch, LightningDataModule):
    """Windows of 2D keypoints with 3D poses, for training and for scoring on unseen subjects.

    The training loader shuffles by (seed, epoch). Its last, smaller batch is kept, unless it would hold a single
    sample: batch normalisation cannot train on one, so that sample sits out the epoch (another one each time).
    Validation, test and prediction loaders give the same data: every frame of the held-out subjects once, in order,
    and under DDP a share of them to each process.

    Everything is prepared by the first call of :meth:`setup`, or the first use of an attribute that needs it.

    Args:
        data: a file or folder of any format that :func:`~structloss.data.opening.open_data` reads: a pose store, a clip
            archive, Human3.6M as VideoPose3D's npz or MotionBERT's pickle, MPI-INF-3DHP, H3WB, motion capture; None
            generates synthetic motion. Motion without cameras is seen by Human3.6M's.
        keypoints: the 2D file that goes with a Human3.6M npz, or the part of its name that tells it ("gt",
            "cpn_ft_h36m_dbb").
        reference: MotionBERT's pickle, where `data` is a folder of clips cut from it.
        format: name of the format, where `data` has files of several; None tells it from them.
        skip_bad: leave out recordings of a motion-capture folder that can't be read, with a warning.
        protocol: one of :data:`~structloss.data.protocols.PROTOCOLS`; None is the data set's own.
        window: frames of a sample.
        stride: frames between training windows; None is window // 3, or 1 for "centred". Test windows do not overlap.
        sampling: how clips are cut, see :class:`~structloss.data.windows.PoseWindows`: "windows" (MotionBERT),
            "centred" (VideoPose3D) or "chunks" (MixSTE).
        context: frames at both ends of a window that are input only, see
            :class:`~structloss.data.windows.PoseWindows`.
        frame_step: take every n-th frame into a "centred" window.
        mirrored: train on every window and on its mirror image; mirroring at random is the lifting module's.
        skeleton: joint order: "h36m" or "mpi_inf_3dhp".
        batch_size: training windows per batch and process.
        eval_batch_size: windows per batch in validation and test; None is `batch_size`.
        num_workers: processes that load data; 0 loads in the training process, which is fast enough for one GPU.
        seed: of the synthetic motion, the simulated detections and the order of training.
        target: "global" (RePOSE, MotionBERT global), "root_relative" (MotionBERT) or "camera" (metres; most others).
        detections: 2D keypoints: "simulated", "exact" (ground-truth 2D, confidence 1), or another of
            :data:`~structloss.data.conditions.DETECTIONS`.
        val_subjects: held-out subjects, or motions (`subject/name`). None: the last quarter of the subjects by name;
            for an archive that has all of cmu03, cmu35 and cmu127, those three.
        without_subjects: subjects, or motions (`subject/name`), that are left out altogether: neither trained on nor
            scored, as those that a final report is kept for.
        actions: train and score on these actions alone, by their exact names; None is all.
        subset: train on this share of the frames of every view, a run of them (VideoPose3D's `--subset`).
        downsample: keep every n-th frame of all views, in training and when scoring (VideoPose3D's `--downsample`).
        test_set: what `test` scores: the "test" subjects, or those of "train", every frame of theirs once.
        unlabelled_subjects: training subjects whose 3D poses training does without (semi-supervised training): their
            windows are :attr:`unlabelled_dataset`, not part of the others.
        unlabelled: a file or folder of 2D keypoints, or a data set whose 3D is left alone, to train on without 3D poses
            in place of `unlabelled_subjects`; see :func:`~structloss.data.unlabelled.read_unlabelled`. It is read when
            training asks for it, cut as the other data are, and none of it is scored.
        unlabelled_options: how to read it: "image_size", "layout", "person", "fps", "variant" of keypoints; "format",
            "keypoints", "reference", "skip_bad" of a data set.
        short_clips: clips shorter than the window: "pad" (weight 0), "skip" or "error".
        num_subjects: people of the synthetic motion.
        clips_per_subject: clips of each synthetic person.
        frames: length of each synthetic clip, at 50 frames per second.
        views: cameras per clip, 1 to 4.
        progress: show progress bars on a terminal while preparing.
        random_views: train on cameras that are drawn anew for every window in every epoch, in place of those of the
            data: True, or settings of :class:`~structloss.data.drawn.RandomViews`. The data must tell where up is.
        random_bodies: train on bones that are up to this share longer or shorter, left and right alike, as 0.12.
        random_fps: train on windows at frame rates between these two, as [20, 60].
        random_keypoints: what a detector makes of the windows, where any of this is set: True, or settings of
            :class:`~structloss.data.drawn.RandomKeypoints`; False is exact keypoints. None is True unless `detections`
            is "exact". What `detections` says is then of the held-out subjects.
        coco_joints: share of the windows to train on whose trunk and head are made from COCO's joints, as those of most
            detectors are.
        synthetic_share: share of the training windows that are of synthetic motion, mixed among those of `data`, which
            must be motion in the world.

    Raises:
        ArgumentError: an argument out of range, or an unknown subject in `val_subjects` (on setup).
        DataError, MissingFileError: on setup, if the archive cannot be read, a split would be empty, or no clip of a
            split is as long as the window.
    """

    def __init__(
        self,
        data: str | None = None,
        keypoints: str | None = None,
        reference: str | None = None,
        protocol: str | None = None,
        window: int = 243,
        stride: int | None = None,
        sampling: str = "windows",
        context: int = 0,
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
        actions: list[str] | None = None,
        subset: float = 1.0,
        downsample: int = 1,
        test_set: str = "test",
        unlabelled_subjects: list[str] | None = None,
        unlabelled: str | None = None,
        unlabelled_options: dict[str, Any] | None = None,
        short_clips: str = "pad",
        num_subjects: int = 24,
        clips_per_subject: int = 6,
        frames: int = 500,
        views: int = 4,
        progress: bool = True,
        format: str | None = None,
        skip_bad: bool = False,
        random_views: bool | dict[str, Any] = False,
        random_bodies: float = 0.0,
        random_fps: list[float] | None = None,
        random_keypoints: bool | dict[str, Any] | None = None,
        coco_joints: float = 0.0,
        synthetic_share: float = 0.0,
        without_subjects: list[str] | None = None,
    ) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size or batch_size)
        at_least(0, num_workers=num_workers)
        check_people(num_subjects, clips_per_subject, frames, seed)
        check_observing(detections, seed, views, most=4)
        check_choice("target", target, TARGETS)
        if protocol is not None:
            check_choice("protocol", protocol, tuple(PROTOCOLS))
        self.save_hyperparameters(logger=False)  # checkpoints tell what data they were trained on
        paths = (("data", data), ("reference", reference), ("unlabelled", unlabelled))
        self.hparams.update({name: value and str(value) for name, value in paths})
        check_choice("test_set", test_set, _TESTED)
        self._selection = Selection(None if actions is None else tuple(actions), subset, downsample)
        self._cut = Cut("train", window, stride, sampling, context, frame_step, short_clips)
        self._drawing = _drawing(random_views, random_bodies, random_fps, random_keypoints, coco_joints, detections)
        check_number("synthetic_share", synthetic_share, 0.99)
        self.synthetic_share = 0.0 if data is None else synthetic_share  # without data all motion is synthetic
        self.data = data
        self.keypoints, self.reference, self.protocol = keypoints, reference, protocol
        if data is None and (format is not None or skip_bad):
            what = "skip_bad is True" if format is None else f"format is {format!r}"
            raise ArgumentError(f"{what}, expected it with data that is read.")
        self.format, self.skip_bad = format, skip_bad
        if unlabelled is not None and unlabelled_subjects:
            raise ArgumentError("unlabelled and unlabelled_subjects are both given, expected one of them.")
        if unlabelled is None and unlabelled_options:
            raise ArgumentError(f"unlabelled_options is {unlabelled_options!r}, expected it with unlabelled.")
        self.unlabelled, self.unlabelled_options = unlabelled, dict(unlabelled_options or {})
        self.window = window
        self.stride = stride
        self.sampling = sampling
        self.context = context
        self.frame_step = frame_step
        self.mirrored = mirrored
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.target = target
        self.detections = detections
        self.val_subjects = None if val_subjects is None else tuple(val_subjects)
        self.without_subjects = tuple(without_subjects or ())
        self.test_set = test_set
        self.unlabelled_subjects = tuple(unlabelled_subjects or ())
        self.short_clips = short_clips
        self.num_subjects = num_subjects
        self.clips_per_subject = clips_per_subject
        self.frames = frames
        self.views = views
        self.progress = progress
        self.skeleton: Skeleton = get(skeleton)
        self._built: tuple[PoseWindows, PoseWindows, PoseWindows | None] | None = None
        self._tested: PoseWindows | None = None
        self._unlabelled: PoseWindows | None = None
        self._labels: dict[str, Any] = {}
        self._tails = "cover"

    @property
    def train_dataset(self) -> PoseWindows:
        """Training windows."""
        return self._datasets()[0]

    @property
    def val_dataset(self) -> PoseWindows:
        """Windows of the held-out subjects, each frame scored once."""
        return self._datasets()[1]

    @property
    def test_dataset(self) -> PoseWindows:
        """Windows of those subjects that `test_set` says, each frame scored once."""
        if self.test_set == "test":
            return self.val_dataset
        if self._tested is None:
            self._tested = self._scored_windows(self.train_dataset.store)
        return self._tested

    @property
    def unlabelled_dataset(self) -> PoseWindows | None:
        """Windows of what is unlabelled, cut as the training windows are; None without any."""
        if self.unlabelled is None:
            return self._datasets()[2]
        if self._unlabelled is None:
            self._unlabelled = self._read_unlabelled(self.unlabelled)
        return self._unlabelled

    def _read_unlabelled(self, path: str) -> PoseWindows:
        options: dict[str, Any] = {"detections": self.detections, "seed": self.seed, "views": self.views}
        options |= {"options": self.unlabelled_options, "progress": self._shows_progress}
        store = read_unlabelled(path, self.skeleton.name, **options)
        store = replace(self._selection, subset=1.0).thinned(store, "train")
        longest = int(columns(store.views, "frames").max())
        if self.short_clips != "pad" and self.sampling == "windows" and longest < self._cut.inner:
            raise ArgumentError(
                f"unlabelled is {path!r} with clips of at most {longest} frames, expected some of {self._cut.inner}, "
                "the window, or short_clips 'pad'."
            )
        names = ("window", "stride", "sampling", "context", "frame_step", "mirrored", "short_clips")
        # 2D alone needs no camera, so the target is the one that asks for none.
        return PoseWindows(store, "train", target="camera", **{name: getattr(self, name) for name in names})

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of all subjects, training and held out, that a sample's `subject` indexes."""
        return self.train_dataset.subjects

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of all actions that a sample's `action` indexes."""
        return self.train_dataset.actions

    @property
    def rules(self) -> str:
        """Name of the protocol that the data are split and scored by."""
        return rules_of(self.val_dataset.store, self.protocol).name

    def setup(self, stage: str | None = None) -> None:
        """Read or generate the clips and simulate the detections, once; `stage` makes no difference."""
        self._datasets()

    def _datasets(self) -> tuple[PoseWindows, PoseWindows, PoseWindows | None]:
        if self._built is None:
            self._built = self._build()
        return self._built

    def _build(self) -> tuple[PoseWindows, PoseWindows, PoseWindows | None]:
        source = "the synthetic motion" if self.data is None else str(self.data)
        found = without(self._selection.of_actions(self._open(), source), self.without_subjects, source)
        made = self._synthetic(found, source)
        if isinstance(found, PoseStore):
            if self.detections not in ("simulated", "exact"):
                raise ArgumentError(
                    f"detections is {self.detections!r}, expected 'simulated' or 'exact' for {source}, which has 2D of "
                    "its own."
                )
            if found.skeleton != self.skeleton.name:
                raise ArgumentError(
                    f"skeleton is {self.skeleton.name!r}, expected {found.skeleton!r}, the joint order of {source}."
                )
            stores = split(found, self.protocol, self.val_subjects)
            parts: tuple[PoseStore | list[Clip], ...] = stores
            self._tails = rules_of(found, self.protocol).tails
            all_subjects, actions, motions = found.subjects, found.actions, found.motions
            lengths = [np.unique(columns(part.views, "frames")).tolist() for part in stores]
        else:
            all_subjects, actions = names_of(found, "subject"), names_of(found, "action")
            motions = tuple(clip.key for clip in found)
            scored = scored_subjects(all_subjects, self.val_subjects, source, motions)
            tested = [not scored.isdisjoint((clip.subject, clip.key)) for clip in found]
            clips = [[clip for clip, is_test in zip(found, tested, strict=True) if is_test == t] for t in (False, True)]
            parts = tuple(clips)
            lengths = [[len(clip) for clip in part] for part in clips]
            clips[0].extend(made)
            all_subjects = tuple(sorted({*all_subjects, *names_of(made, "subject")}))
            actions = tuple(sorted({*actions, *names_of(made, "action")}))
        for name, of, part in zip(("training", "validation"), ("train", "test"), lengths, strict=True):
            if not part:
                alone = len(all_subjects) == 1 and len(motions) > 1
                remedy = f"; set val_subjects to the clips to hold out, such as {motions[-1]}" if alone else ""
                raise DataError(
                    f"the {name} split of {source} is empty, expected at least one subject in each split; it has "
                    f"{len(all_subjects)} ({some(all_subjects, 12)}){remedy}."
                )
            remedy = f", or frames of at least {self.window}" if self.data is None else ""
            longest = max(len(self._selection.frames(frames, of)) for frames in part)
            self._cut.check_longest(longest, clips=f"{name} clip of {source}", remedy=remedy)
        self._labels = {"subjects": all_subjects, "actions": actions}
        labelled, apart = set_apart(parts[0], self.unlabelled_subjects, source)
        train, test = self._seen(labelled, "train"), self._seen(parts[1], "test")
        cut: dict[str, Any] = {"stride": self.stride, "mirrored": self.mirrored, **self._common}
        built = (
            self._train_windows(train, names_of(made, "subject"), cut),
            self._scored_windows(test),
            None if apart is None else PoseWindows(self._seen(apart, "train", labelled=False), "train", **cut),
        )
        if not built[1].store.has_millimetres:
            warnings.warn(
                f"val_subjects has {some(built[1].store.subjects, 12)}, of whom {source} publishes no millimetres: "
                "there will be no figures of validation, and no best checkpoint.",
                UserWarning,
                stacklevel=3,
            )
        if isinstance(found, list):
            for note in dict.fromkeys(note for of in built if of for note in of.store.source.get("notes", ())):
                warnings.warn(note, UserWarning, stacklevel=3)  # of cameras that were moved
        return built

    def _synthetic(self, found: PoseStore | list[Clip], source: str) -> list[Clip]:
        """Synthetic people to train on beside the data; none, unless a share of the windows is to be theirs."""
        if not self.synthetic_share:
            return []
        if isinstance(found, PoseStore):
            raise ArgumentError(
                f"synthetic_share is {self.synthetic_share!r}, expected 0 for {source}, poses seen by cameras."
            )
        people = self.num_subjects, self.clips_per_subject, self.frames, self.seed
        return generate_clips(*people, progress=self._shows_progress)

    def _train_windows(self, store: PoseStore, made: tuple[str, ...], cut: dict[str, Any]) -> PoseWindows:
        """Windows to train on; `made` names the synthetic people among them."""
        if self._drawing is None and not made:
            return PoseWindows(store, "train", **cut)
        share = (made, self.synthetic_share) if made else None
        return DrawnWindows(store, self._drawing or Drawing(), self.seed, share, **cut)

    def _seen(self, part: PoseStore | list[Clip], split: str, labelled: bool = True) -> PoseStore:
        """A part of the data as cameras see it, its frames chosen; a subset only where there are labels."""
        if not isinstance(part, PoseStore):
            options: dict[str, Any] = {"detections": self.detections, "seed": self.seed, "views": self.views}
            options |= {"skeleton": self.skeleton.name, "progress": self._shows_progress, "too_near": "move"}
            if split == "train" and labelled and self._drawing is not None:
                options["detections"] = "exact"  # they are drawn anew
            part = observe(part, split, **options)
        selection = self._selection if labelled else replace(self._selection, subset=1.0)
        return selection.thinned(part, split)

    @property
    def _common(self) -> dict[str, Any]:
        """What windows to train on and windows to score share."""
        names = ("window", "sampling", "context", "frame_step", "target", "short_clips")
        return {name: getattr(self, name) for name in names} | self._labels

    def _scored_windows(self, store: PoseStore) -> PoseWindows:
        return PoseWindows(store, "test", tails=self._tails, **self._common)

    def _open(self) -> PoseStore | list[Clip]:
        if self.data is None:
            progress = self._shows_progress
            return generate_clips(self.num_subjects, self.clips_per_subject, self.frames, self.seed, progress=progress)
        from .opening import open_data

        options: dict[str, Any] = {
            "keypoints": self.keypoints,
            "reference": self.reference,
            "skip_bad": self.skip_bad or None,
        }
        try:
            return open_data(self.data, format=self.format, progress=self._shows_progress, **options)
        except DataError as error:
            if self.format is None and has_keypoints_alone(self.data):
                raise DataError(
                    f"{self.data} has 2D keypoints alone, expected a data set with 3D poses; for clips without 3D "
                    "beside it, set unlabelled."
                ) from error
            raise

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Shuffled training windows; in a resumed run, at first those of the epoch that were not trained on yet."""
        sampler = EpochSampler(self.train_dataset, self.seed, *self._place)
        self._continue(sampler)
        return window_loader(
            self.train_dataset, self.batch_size, sampler, workers=self.num_workers, drop_last=self._lonely(sampler)
        )

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Windows of the held-out subjects in order."""
        return self._in_order(self.val_dataset)

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Windows of the subjects that `test_set` says, in order."""
        return self._in_order(self.test_dataset)

    def _in_order(self, windows: PoseWindows) -> DataLoader[dict[str, Tensor]]:
        sampler = EverySample(windows, *self._place)
        return window_loader(windows, self.eval_batch_size, sampler, workers=self.num_workers)

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """The same data as in validation."""
        return self.val_dataloader()


def _drawing(
    views: bool | dict[str, Any], bodies: float, fps: list[float] | None, keypoints: bool | dict[str, Any] | None,
    coco: float, detections: str,
) -> Drawing | None:  # fmt: skip
    """What is drawn anew for every window, by the arguments of :class:`MotionDataModule`; None is nothing."""
    if keypoints is None and views in (None, False) and not (bodies or coco) and fps is None:
        return None
    detected = RandomKeypoints.of(detections != "exact" if keypoints is None else keypoints)
    rates = tuple(fps) if isinstance(fps, list) else fps
    drawing = Drawing(RandomViews.of(views), bodies, rates, detected, coco)  # type: ignore[arg-type]  # checked there
    return None if drawing == Drawing() else drawing
