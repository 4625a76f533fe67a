"""Predictions of a trained network for the clips that it was trained or tested on, as refiners are trained on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import skeletons
from ..data import MotionDataModule, PoseWindows, View
from ..data._words import count
from ..data.loading import EverySample, window_loader
from ..errors import ArgumentError, DataError, check_choice
from ..progress import track
from ..refine import PredictedClip, writing_predictions
from .lifting import LiftingModule
from .load import load_trained, trained_arguments
from .scores import kept

__all__ = ["SPLITS", "PredictedSplit", "predict_split", "predict_windows"]

SPLITS = ("train", "test")


@dataclass(frozen=True)
class PredictedSplit:
    """What :func:`predict_split` has written.

    Attributes:
        path: the file.
        clips, frames: how many of them, all views counted.
        subjects: whose they are.
        mpjpe: mean distance to the true joints, mm, relative to the pelvis.
        notes: what the user should know, a sentence each.
    """

    path: Path
    clips: int
    frames: int
    subjects: tuple[str, ...]
    mpjpe: float
    notes: tuple[str, ...] = ()


def predict_split(
    checkpoint: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    data: str | None = None,
    flip: bool | None = None,
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> PredictedSplit:
    """Predict every frame of the clips of a split once, as validation does, and write them beside the true poses.

    A clip is in memory at a time, beside the data themselves; see :mod:`structloss.refine.prediction_files` for the
    file. Poses are in metres relative to the pelvis, in the camera's frame; those of networks that answer in image
    space are scaled as they are for their scores (:func:`structloss.data.to_millimetres`).

    Args:
        checkpoint: a file written by `structloss fit`; it knows its network and its data.
        path: the npz file to write.
        split: "train", the subjects that were trained on, or "test", those that were held out.
        data: where the data are now; None is where they were.
        flip: average with the mirrored input; None is as trained.
        batch_size: windows of one call; None is that of validation.
        device: where to compute.
        progress: show progress bars on a terminal.

    Raises:
        ArgumentError: an unknown split, or a network that predicts no poses or not all joints.
        MissingFileError, CheckpointError: the checkpoint is absent, unreadable, or of no lifting network.
        DataError: the checkpoint doesn't know its data, they can't be read, or nothing of them has a size in
            millimetres.
        OSError: the file can't be written.
    """
    check_choice("split", split, SPLITS)
    module, _ = load_trained(checkpoint)
    if module.model.kind == "pretrain":
        raise ArgumentError(
            f"{module.hparams['backbone']} is being pre-trained, expected a network that predicts poses."
        )
    module.to(device)
    if flip is not None:
        module.hparams["flip_test"] = flip
    arguments = _data_arguments(checkpoint, split, data, progress)
    source = MotionDataModule(**arguments)
    windows = source.test_dataset
    told = {"checkpoint": str(checkpoint), "data": arguments["data"] or "synthetic", "split": split}
    return predict_windows(
        module, windows, path, batch_size=batch_size or source.eval_batch_size, source=told, progress=progress
    )


def predict_windows(
    module: LiftingModule,
    windows: PoseWindows,
    path: str | os.PathLike[str],
    *,
    batch_size: int = 16,
    source: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> PredictedSplit:
    """The same of a module and of test windows that are there already.

    Args:
        module: in evaluation mode, on the device to compute on.
        windows: that have every frame once, as :attr:`structloss.data.MotionDataModule.test_dataset` has.
        path: the npz file to write.
        batch_size: windows of one call.
        source: what else is written of where they are from.
        progress: show a progress bar on a terminal.

    Raises:
        ArgumentError: the network does not predict all joints.
        DataError: nothing of the data has a size in millimetres.
        OSError: the file can't be written.
    """
    told = {"model": module.hparams["backbone"], "flip": bool(module.hparams["flip_test"]), **(source or {})}
    clips = frames = 0
    error, joints, unknown = 0.0, 0.0, 0
    with writing_predictions(path, module.skeleton.name, told) as writer:
        for clip in _clips(module, windows, batch_size, progress):
            if clip is None:
                unknown += 1
                continue
            writer.add(clip)
            clips, frames = clips + 1, frames + len(clip)
            weight = np.ones(clip.predicted.shape[:2]) if clip.weight is None else clip.weight
            distance = np.linalg.norm(clip.predicted - clip.true, axis=-1)
            error += float(np.where(weight > 0, distance, 0.0).sum(dtype=np.float64))
            joints += float(weight.sum())
        if not clips:
            raise DataError("nothing tells the size in millimetres of any clip of the data, expected some.")
    notes = (f"{count(unknown, 'clip', 'are')} left out, whose size in millimetres nothing tells",) if unknown else ()
    mean = 1000 * error / joints if joints else math.nan
    return PredictedSplit(Path(path), clips, frames, windows.store.subjects, mean, notes)


def _data_arguments(checkpoint: str | os.PathLike[str], split: str, data: str | None, progress: bool) -> dict[str, Any]:
    """Those of the data module that a checkpoint was trained with, for one of the splits."""
    _, _, arguments = trained_arguments(checkpoint)
    if not arguments:
        raise DataError(
            f"{checkpoint} doesn't say what data it was trained on, expected one written by structloss fit."
        )
    changes: dict[str, Any] = {"test_set": split, "num_workers": 0, "progress": progress}
    if data is not None:
        changes["data"] = data
    return arguments | changes


class _View:
    """Frames of one view as they come in."""

    def __init__(self, view: View, joints: int) -> None:
        self.view = view
        self.poses = np.full((view.frames, joints, 3), np.nan, np.float32)
        #: 0 nothing yet, 1 a frame that is not scored, 2 one that is
        self.state = np.zeros(view.frames, np.uint8)

    def take(self, frames: np.ndarray, poses: np.ndarray, scored: np.ndarray) -> None:
        """Add the frames `[n]` of a window; of frames that come twice, those that are scored are kept."""
        rank = np.where(scored, 2, 1).astype(np.uint8)
        inside = (frames >= 0) & (frames < self.view.frames)
        better = inside & (rank > self.state[frames.clip(0, self.view.frames - 1)])
        self.poses[frames[better]], self.state[frames[better]] = poses[better], rank[better]


@torch.no_grad()
def _clips(
    module: LiftingModule, windows: PoseWindows, batch_size: int, progress: bool
) -> Iterator[PredictedClip | None]:
    """The views of a store, one after the other; None for one whose size is not known."""
    store, body = windows.store, module.skeleton
    views = {(windows.motions.index(view.motion), view.index): view for view in store.views}
    loader = window_loader(windows, batch_size, EverySample(windows))
    open_view: tuple[tuple[int, int], _View] | None = None
    device = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices=device):
        torch.manual_seed(0)  # diffusion models start from noise: the same clips give the same poses
        batches: Iterable[dict[str, Tensor]] = track(loader, "Predicting clips", progress)  # type: ignore[arg-type]  # no indices
        for batch in batches:
            poses, frames, scored = _predicted(module, batch, windows.frame_step)
            keys = list(zip(batch["clip"].tolist(), batch["view"].tolist(), strict=True))
            for number, key in enumerate(keys):
                if open_view is None or open_view[0] != key:
                    if open_view is not None:
                        yield _finished(open_view[1], windows, body)
                    open_view = key, _View(views[key], body.num_joints)
                open_view[1].take(frames[number], poses[number], scored[number])
    if open_view is not None:
        yield _finished(open_view[1], windows, body)


def _predicted(module: LiftingModule, batch: dict[str, Tensor], step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses `[B, T, J, 3]` in metres relative to the pelvis, their frames `[B, T]` in their views, and which of these
    are scored."""
    batch = {key: value.to(module.device) for key, value in batch.items()}
    poses = module.to_millimetres(module.predict_image_space(batch["input"]), module.matched(batch)) / 1000
    positions, joints = kept(module, batch["weight"])
    poses = _with_all(poses, joints.tolist(), module.skeleton, str(module.hparams["backbone"]))
    poses = skeletons.relative(poses, module.skeleton.pelvis)
    frames = batch["start"][:, None] + step * positions
    scored = (batch["weight"][:, positions] > 0).any(-1)
    return poses.float().cpu().numpy(), frames.cpu().numpy(), scored.cpu().numpy()


def _with_all(poses: Tensor, joints: list[int], body: skeletons.Skeleton, name: str) -> Tensor:
    """Poses of all joints of the skeleton. SemGCN and its relatives leave out the neck, which is put halfway between
    thorax and head."""
    if len(joints) == body.num_joints:
        return poses
    if body.name != "h36m" or sorted({*range(17)} - {*joints}) != [9]:
        raise ArgumentError(f"{name} predicts {len(joints)} of {body.num_joints} joints, expected all of them.")
    every = poses.new_empty(*poses.shape[:-2], body.num_joints, 3)
    every[..., joints, :] = poses
    every[..., 9, :] = (every[..., 8, :] + every[..., 10, :]) / 2
    return every


def _finished(found: _View, windows: PoseWindows, body: skeletons.Skeleton) -> PredictedClip | None:
    """A clip, without frames at its end that no window has."""
    store, view = windows.store, found.view
    covered = np.flatnonzero(found.state)
    frames = int(covered[-1]) + 1 if len(covered) else 0
    if frames == 0 or len(covered) < frames or not np.isfinite(found.poses[:frames]).all():
        return None
    rows = slice(view.start, view.start + frames)
    true = skeletons.relative(torch.from_numpy(np.array(store.pose[rows])), body.pelvis).numpy()
    weight = None if store.weight is None else (np.array(store.weight[rows]) > 0).astype(np.uint8)
    name = view.motion.partition("/")[2]
    return PredictedClip(
        found.poses[:frames], true, weight, view.subject, view.action, name, view.camera, float(view.fps)
    )
