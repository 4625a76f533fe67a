"""Human3.6M cut into clips, one small pickle each, as MotionBERT and MotionAGFormer train on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...reading import existing
from ..store import PoseStore, View
from ._assemble import Frames, assemble, checked, member
from .h36m_pickle import Split, read_split
from .registry import FORMATS, Format, Option
from .unpickle import load_pickle

__all__ = ["read_h36m_clips"]

_SAME = 1e-4  # largest difference of a label that was stored in float32


def read_h36m_clips(
    folder: str | os.PathLike[str], reference: str | os.PathLike[str] | None = None, *, progress: bool = False
) -> PoseStore:
    """Read `FOLDER/train/*.pkl` and `FOLDER/test/*.pkl`; each clip becomes a view.

    A clip holds `data_input` `[T, 17, 3]` and `data_label` `[T, 17, 3]` on the normalised screen. Where `data_input` is
    None (AMASS), the label's x and y with confidence 1 take its place.

    Clips don't tell whose they are, nor their scale. Both come from `reference`, the pickle that they were cut from:
    the order of its clips is computed anew, and every clip's label is compared with it. Without it, subjects are called
    "train" and "test", and nothing can be scored in millimetres.

    Args:
        folder: has `train`, `test` or both.
        reference: MotionBERT's pickle, see :func:`~structloss.data.formats.h36m_pickle.read_h36m_pickle`.
        progress: show a progress bar on a terminal.

    Returns:
        Skeleton "h36m", as :func:`~structloss.data.formats.h36m_pickle.read_h36m_pickle`.

    Raises:
        MissingFileError: the folder or the reference does not exist.
        DataError: no clips, a damaged one, clips of several lengths, or clips that were not cut from the reference.
    """
    folder = existing(folder, "a folder of clips")
    files = {name: sorted((folder / name).glob("*.pkl")) for name in ("train", "test")}
    everything = files["train"] + files["test"]
    if not everything:
        raise DataError(f"{folder} has no clips, expected train/*.pkl or test/*.pkl.")
    frames = len(_clip(everything[0])[1])
    content = None if reference is None else load_pickle(reference)
    pieces: list[tuple[View, Callable[[], Frames]]] = []
    for name, clips in files.items():
        if content is None:
            for number, file in enumerate(clips):
                view = View(name, "unknown", f"{number:08d}", "unknown", 0, 0, frames)
                pieces.append((view, partial(_frames, file, frames, None, view)))
        elif clips:
            what = f"{name!r} of {reference}"
            split = read_split(member(content, name, str(reference)), what, scored=name == "test")
            cuts = list(_cuts(split, frames, max(1, frames // 3) if name == "train" else frames))
            if len(cuts) != len(clips):
                raise DataError(
                    f"{folder / name} has {len(clips)} clips of {frames} frames, expected the {len(cuts)} that are cut "
                    f"from {what}."
                )
            pieces += [
                (replace(view, frames=frames), partial(_frames, file, frames, split, view))
                for view, file in zip(cuts, clips, strict=True)
            ]
    notes = ["poses in millimetres are published for the test subjects only"]
    if reference is None:
        notes = ["subjects, actions and millimetres are not known without the pickle that the clips were cut from"]
    source = {"format": "h36m-clips", "protocol": "h36m-2.5d", "window": frames, "notes": notes}
    return assemble(pieces, skeleton="h36m", source=source, labels=True, progress=progress)


def _cuts(split: Split, frames: int, stride: int) -> Iterator[View]:
    """The views that clips are cut from, in their order: of `frames` frames, or a shorter video that was stretched.

    A video gives every whole clip; one too short for any is resampled to one clip, except the last of all.
    """
    for number, video in enumerate(split.views):
        if video.frames >= frames:
            for start in range(0, video.frames - frames + 1, stride):
                name = f"{video.name}@{start}"
                yield replace(video, name=name, start=video.start + start, frames=frames)
        elif number + 1 < len(split.views):
            yield video


def _clip(file: Path) -> tuple[np.ndarray | None, np.ndarray]:
    """Input and label of a clip."""
    content = load_pickle(file)
    label = checked(member(content, "data_label", str(file)), f"data_label of {file}", (None, 17, 3))
    seen = member(content, "data_input", str(file))
    if seen is not None:
        seen = checked(seen, f"data_input of {file}", (len(label), 17, 3))
    return seen, label


def _frames(file: Path, frames: int, split: Split | None, video: View) -> Frames:
    seen, label = _clip(file)
    if len(label) != frames:
        raise DataError(f"{file} has {len(label)} frames, expected {frames} like the first clip.")
    keypoints = label[..., :2] if seen is None else seen[..., :2]
    confidence = None if seen is None else seen[..., 2]
    if split is None:
        return Frames(keypoints, None, confidence, label=label)
    rows: slice | np.ndarray = slice(video.start, video.start + video.frames)
    there = split.label(video, rows)
    if video.frames == frames:
        difference = np.abs(there - label).max()
    else:  # resampled at indices that nobody wrote down: look every frame up
        distance = np.abs(there[None] - label[:, None]).max(axis=(2, 3))
        nearest = distance.argmin(axis=1)
        rows, difference = video.start + nearest, distance[np.arange(frames), nearest].max()
    if not difference <= _SAME:
        raise DataError(
            f"{file} differs from frames {video.start} to {video.start + video.frames} of the reference, video "
            f"{video.name!r} of camera {video.camera}, by {difference:.3g}, expected a clip that was cut from it."
        )
    factor, pose = split.millimetres(video, rows)
    return Frames(keypoints, pose, confidence, label=label, factor=factor)


FORMATS.register(
    Format(
        "h36m-clips",
        "Human3.6M as MotionBERT's or MotionAGFormer's folder of clips",
        read_h36m_clips,
        folder=("train/*.pkl", "test/*.pkl"),
        options=(Option("reference", "MotionBERT's pickle that the clips were cut from", metavar="FILE.pkl"),),
    )
)
