"""From a data set's arrays to a pose store: what the readers of published data sets share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import DataError, shown
from ...progress import track
from ...skeletons import get
from .._words import some
from ..store import PoseStore, View

__all__ = ["Frames", "assemble", "checked", "frame_counts", "member"]


@dataclass(frozen=True)
class Frames:
    """The frames of a view, T of them. Missing values are NaN.

    Attributes:
        keypoints: `[T, J, 2]`, on the normalised screen.
        pose: `[T, J, 3]`, camera space, metres; None where there is none.
        confidence: `[T, J]`; None is 1.
        weight: `[T]` or `[T, J]`, 1 where the pose counts; None is 1.
        label, factor: `[T, J, 3]` and `[T]`, see :class:`~structloss.data.store.PoseStore`; None where unpublished.
    """

    keypoints: np.ndarray
    pose: np.ndarray | None
    confidence: np.ndarray | None = None
    weight: np.ndarray | None = None
    label: np.ndarray | None = None
    factor: np.ndarray | None = None


def assemble(
    pieces: Sequence[tuple[View, Callable[[], Frames]]],
    *,
    skeleton: str,
    source: dict[str, Any],
    labels: bool = False,
    temporal: bool = True,
    progress: bool = False,
) -> PoseStore:
    """Put views one after another into the arrays of a store; only one view's frames exist twice at a time.

    Keypoints that are NaN or infinite become 0 with confidence 0, such joints of poses get weight 0 and stand where the
    frame's other joints are on average, so that projecting them gives numbers. How many there were is noted in
    `source["missing"]`.

    Args:
        pieces: views, whose `start` is filled in here, and what reads their frames.
        skeleton: registry name of the joints' order.
        source: see :class:`~structloss.data.store.PoseStore`.
        labels: the views have published labels.
        temporal: frames of a view follow each other in time.
        progress: show a progress bar on a terminal.
    """
    joints = get(skeleton).num_joints
    total = sum(view.frames for view, _ in pieces)
    seen = np.empty((total, joints, 3), np.float32)
    pose = np.zeros((total, joints, 3), np.float32)  # where no view has a pose, it takes no memory
    label = np.empty((total, joints, 3), np.float32) if labels else None
    factor = np.full(total, np.nan, np.float32) if labels else None
    weight: np.ndarray | None = None
    missing = {"keypoints": 0, "joints": 0}
    views, start = [], 0
    for view, read in track(pieces, "reading views", progress):
        rows = slice(start, start + view.frames)
        frames = read()
        seen[rows, :, :2] = frames.keypoints
        seen[rows, :, 2] = 1 if frames.confidence is None else frames.confidence
        unseen = ~np.isfinite(seen[rows]).all(-1)
        if unseen.any():
            missing["keypoints"] += int(unseen.sum())
            seen[rows][unseen] = 0
        counts = frames.weight
        if frames.pose is not None:
            pose[rows] = frames.pose
            unknown = np.asarray(~np.isfinite(pose[rows]).all(-1))
            if unknown.any():
                missing["joints"] += int(unknown.sum())
                _fill(pose[rows], unknown)
                counts = ~unknown if counts is None else ~unknown & (counts.reshape(view.frames, -1) > 0)
        if counts is not None:
            if weight is None:
                weight = np.ones((total, joints), np.uint8)
            weight[rows] = counts.reshape(view.frames, -1)
        if label is not None and factor is not None:
            label[rows] = frames.label
            if frames.factor is not None:
                factor[rows] = frames.factor
        views.append(replace(view, start=start))
        start += view.frames
    if any(missing.values()):
        source = {**source, "missing": missing}
    return PoseStore(
        tuple(views), seen, pose, weight, label, factor, skeleton=skeleton, temporal=temporal, source=source
    )


def _fill(pose: np.ndarray, unknown: np.ndarray) -> None:
    """Put unknown joints `[T, J]` at the mean of the frame's others; a frame without any 5 m in front of the camera."""
    known = np.where(unknown[..., None], 0, pose)
    count = (~unknown).sum(1)[:, None]
    mean = np.where(count > 0, known.sum(1) / np.maximum(count, 1), np.array([0, 0, 5], np.float32))
    pose[:] = np.where(unknown[..., None], mean[:, None], pose)


def checked(value: object, what: str, shape: Sequence[int | None]) -> np.ndarray:
    """`value` as an array of numbers of this shape, None being any length >= 1; DataError naming `what` otherwise."""
    array = value if isinstance(value, np.ndarray) else None
    if isinstance(value, (list, tuple)):
        try:
            array = np.array(value)
        except ValueError:  # rows of several lengths
            array = None
    expected = "[" + ", ".join("T" if n is None else str(n) for n in shape) + "]"
    if array is None:
        raise DataError(f"{what} is {shown(value)}, expected an array {expected}.")
    fits = array.ndim == len(shape) and all(
        found >= 1 if n is None else found == n for found, n in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiub":
        raise DataError(f"{what} is {array.dtype} {list(array.shape)}, expected numbers {expected}.")
    return array


def member(mapping: object, key: str, what: str) -> Any:
    """`mapping[key]`; DataError naming `what`, and what there is, if it has none."""
    if not isinstance(mapping, Mapping):
        raise DataError(f"{what} is {shown(mapping)}, expected a dictionary.")
    if key not in mapping:
        raise DataError(f"{what} has no {key!r}, it has {some(map(shown, mapping)) or 'nothing'}.")
    return mapping[key]


def frame_counts(*published: tuple[tuple[str, ...], int]) -> Callable[[PoseStore], list[str]]:
    """A check of a store: whether these groups of subjects have the published numbers of frames, or none at all."""

    def problems(store: PoseStore) -> list[str]:
        found = []
        for subjects, expected in published:
            frames = sum(view.frames for view in store.views if view.subject in subjects)
            if frames and frames != expected:
                found.append(f"{', '.join(subjects)} have {frames} frames, the published file {expected}")
        return found

    return problems
