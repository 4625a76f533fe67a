"""Predictions of a trained network from images for people in runs of images, as refiners are trained on."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ArgumentError, CheckpointError, DataError, MissingFileError, check_choice
from ..images import ImagesDataModule
from ..images.rendered.people import RenderedPeople
from ..images.runs import PeopleInRuns, runs_of_images, runs_of_rendered
from ..refine import writing_predictions
from .image_clips import found_clips
from .image_load import load_image_network
from .image_scores import MADE_JOINTS
from .load import trained_arguments
from .split_prediction import PredictedSplit

__all__ = ["IMAGE_SPLITS", "predict_image_split"]

IMAGE_SPLITS = ("train", "val", "test")

#: images of a run of rendered people, and the fewest runs of each split
_FRAMES = 40
_FEWEST = {"train": 8, "val": 4, "test": 4}
_SCORED = [joint for joint in range(17) if joint not in MADE_JOINTS]


def predict_image_split(
    checkpoint: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    data: str | None = None,
    images: str | None = None,
    missing: str | None = None,
    fps: float | None = None,
    flip: bool | None = None,
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> PredictedSplit:
    """Predict the people of a split, in runs of images that follow each other, and write them beside the true poses.

    People of files are all of the split, whatever `count` and `val_count` the training had, in the runs that
    :func:`structloss.images.runs.runs_of_images` finds. Of rendered people, who are single images in training, the same
    bodies move: as many images as there were people, in runs of 40, but at least 8 runs to train on and 4 to test on.

    Poses are in metres relative to the pelvis, camera frame, in Human3.6M's joints, scaled to bones of canonical
    length; see :mod:`structloss.refine.prediction_files` for the file. In memory is a run at a time.

    Args:
        checkpoint: a file written by `structloss fit`; it knows its network and its data.
        path: the npz file to write.
        split: "train", the people with 3D poses who were trained on; "val" or "test", those who were held out, which
            are the same.
        data: where the annotations of the split are now; None is where they were.
        images: the same of the folder of their images; None is where it was, or beside `data` if that is given.
        missing: "error" or "skip", see :func:`structloss.images.open_images`; None is as trained.
        fps: see :func:`structloss.images.runs.runs_of_images`; rendered people have their own.
        flip: average with the mirrored images; None is as trained.
        batch_size: images of one call; None is that of validation.
        device: where to compute.
        progress: show progress bars on a terminal.

    Returns:
        Its `mpjpe` leaves out the joints that are made of others, as all scores of images do.

    Raises:
        ArgumentError: an unknown split, a frame rate that is not positive, or settings of files for rendered people.
        MissingFileError, CheckpointError: the checkpoint is absent, unreadable, of no network from images, or the
            network predicts NaN.
        DataError: the checkpoint doesn't know its data, they can't be read, have no 3D poses, or nobody is in a run.
        OSError: the file can't be written.
    """
    check_choice("split", split, IMAGE_SPLITS)
    network = load_image_network(checkpoint)
    # The fastest layout on CPUs, as for other predictions.
    layout = torch.channels_last if torch.device(device).type == "cpu" else torch.preserve_format
    model = network.model.to(device, memory_format=layout)  # type: ignore[call-overload]  # has no overload of it
    arguments = _data_arguments(checkpoint, split, data, images, missing, model.input_size, progress)
    module = ImagesDataModule(**arguments)
    people = _in_runs(module, split, fps, data is not None or images is not None)
    mirrored = network.flip if flip is None else flip
    told = {
        "model": network.name,
        "flip": mirrored,
        "checkpoint": str(checkpoint),
        "data": people.people.source,
        "split": split,
        "size": "nominal: bones of canonical length",
    }
    found = found_clips(
        model,
        people,
        flip=mirrored,
        batch_size=batch_size or module.eval_batch_size,
        device=device,
        progress="Predicting runs" if progress else "",
    )
    clips = frames = 0
    error, subjects = 0.0, dict[str, None]()
    with writing_predictions(path, "h36m", told) as writer:
        try:
            for one in found:
                writer.add(one.clip)
                clips, frames = clips + 1, frames + len(one.clip)
                subjects[one.clip.subject] = None
                distance = np.linalg.norm(one.clip.predicted - one.clip.true, axis=-1)[:, _SCORED]
                error += float(distance.sum(dtype=np.float64))
        except ArgumentError as problem:
            raise CheckpointError(
                f"{network.name} with {checkpoint} predicts NaN or infinite values, expected poses."
            ) from problem
    notes = (*_notes_of(people.people), *people.notes)
    mean = 1000 * error / (frames * len(_SCORED)) if frames else math.nan
    return PredictedSplit(Path(path), clips, frames, tuple(subjects), mean, notes)


def _data_arguments(
    checkpoint: str | os.PathLike[str],
    split: str,
    data: str | None,
    images: str | None,
    missing: str | None,
    input_size: int,
    progress: bool,
) -> dict[str, Any]:
    """Those of the data module that a checkpoint was trained with, for all people of a split."""
    _, _, arguments = trained_arguments(checkpoint)
    if not arguments:
        raise DataError(
            f"{checkpoint} doesn't say what data it was trained on, expected one written by structloss fit."
        )
    part = "val_" if split != "train" and arguments.get("val_data") is not None else ""
    rendered = arguments.get(f"{part}data") is None
    for name, value in (("data", data), ("images", images), ("missing", missing)):
        if value is not None and rendered:
            raise ArgumentError(
                f"{name} is {value!r}, expected it with people of files, but those of {checkpoint} are rendered."
            )
    changes: dict[str, Any] = {
        "batch": "labelled", "input_size": input_size, "num_workers": 0, "keep_megabytes": 0.0, "progress": progress,
    }  # fmt: skip
    if not rendered:
        changes |= {"count": None, "val_count": None}
    if arguments.get("data") is not None:
        changes |= {"unlabelled": None, "unlabelled_images": None}
    if data is not None:
        changes |= {f"{part}data": data, f"{part}images": None}
    if images is not None:
        changes[f"{part}images"] = images
    if missing is not None:  # who are damaged inside are found out before, too
        changes |= {"missing": missing, "check": "decode" if missing == "skip" else arguments.get("check", "files")}
    return arguments | changes


def _in_runs(module: ImagesDataModule, split: str, fps: float | None, told: bool) -> PeopleInRuns:
    """The people of a split; `told` is whether somebody said where they are."""
    try:
        module.setup()
    except MissingFileError as error:
        if told:
            raise
        raise MissingFileError(
            f"{str(error).rstrip('.')}; where the data has moved, give its path in front of --split."
        ) from error
    (people,) = (module.train_dataset if split == "train" else module.val_dataset).people
    if not isinstance(people, RenderedPeople):
        return runs_of_images(people, fps)
    if fps is not None:
        raise ArgumentError(f"fps is {fps:g}, expected it with people of files: rendered people have their own.")
    runs = max(_FEWEST[split], round(len(people) / _FRAMES))
    return runs_of_rendered(people.in_motion(runs, _FRAMES))


def _notes_of(people: Any) -> tuple[str, ...]:
    """Notes of the source of some of its people."""
    inner = getattr(people, "people", None)
    return tuple(getattr(people, "notes", ())) if inner is None else _notes_of(inner)
