"""Motion whose 3D poses training does without: subjects set apart from the others, and files that have 2D alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import samples, skeletons
from ..errors import ArgumentError, DataError, check_name
from ..reading import existing
from ._words import some
from .cameras import normalize_screen
from .clips import Clip
from .formats.candidate import Candidate, surest
from .formats.keypoint_form import FORMS, KeypointFile
from .formats.keypoints import Keypoints, read_keypoints
from .formats.registry import FORMATS
from .observation import observe
from .opening import open_data
from .selection import chosen, names_of
from .shards import ShardedArray
from .store import PoseStore, View

__all__ = ["has_keypoints_alone", "read_unlabelled", "set_apart"]

_OF_KEYPOINTS = ("layout", "image_size", "person", "fps", "variant")
_KEYPOINT_ARRAYS = ("positions_2d", "keypoints")  # of npz files
_OF_DATA = ("format", "keypoints", "reference", "skip_bad")


def set_apart(
    part: PoseStore | list[Clip], unlabelled: Sequence[str], source: str
) -> tuple[PoseStore | list[Clip], PoseStore | list[Clip] | None]:
    """The labelled training data, and the unlabelled; None without unlabelled subjects.

    Args:
        part: what is trained on.
        unlabelled: names of subjects.
        source: what they are of, for messages.

    Raises:
        ArgumentError: a subject that is not trained on, or none is left.
    """
    if not unlabelled:
        return part, None
    there = names_of(part, "subject")
    for name in unlabelled:
        if name not in there:
            raise ArgumentError(
                f"unlabelled_subjects has {name!r}, expected training subjects of {source}: {some(there, 12)}."
            )
    if not set(there) - set(unlabelled):
        raise ArgumentError(
            f"unlabelled_subjects has all training subjects of {source}, expected at least one with 3D poses."
        )
    labelled = chosen(part, lambda one: one.subject not in unlabelled)
    return labelled, chosen(part, lambda one: one.subject in unlabelled)


def read_unlabelled(
    path: str | os.PathLike[str],
    skeleton: str = "h36m",
    *,
    options: Mapping[str, Any] | None = None,
    progress: bool = False,
    **observing: Any,
) -> PoseStore:
    """2D keypoints to train on without 3D poses, as a pose store whose poses are all 0.

    Args:
        path: 2D keypoints of any form that :func:`~structloss.data.formats.read_keypoints` takes (an image of COCO is a
            clip of one frame), or a data set of any format that :func:`~structloss.data.opening.open_data` reads, of
            which the 2D is taken and the 3D left alone. A path that may be both is a data set.
        skeleton: joints of the store, to which others are converted.
        options: keywords of `read_keypoints` ("layout", "image_size", "person", "fps"; everybody is taken unless
            `person` says otherwise) and "variant", how trunk and head are made of a detector's joints; or of
            `open_data` ("format", "keypoints", "reference", "skip_bad").
        progress: show progress bars on a terminal.
        observing: keywords of :func:`~structloss.data.observation.observe`, for motion that no camera has seen yet.

    Returns:
        A store of `input` alone: 2D on the normalised screen, and confidence.

    Raises:
        MissingFileError, DataError: no such path, no known form, damaged, or nobody in it.
        ArgumentError: joints that can't be made into the skeleton's, an image size that is not known, coordinates that
            are no pixels, or an option that is none of this kind's.
    """
    given = dict(options or {})
    for name in given:
        check_name("entry of unlabelled_options", name, (*_OF_KEYPOINTS, *_OF_DATA))
    path = samples.resolve(path, "keypoints")
    candidate = Candidate(existing(path, "2D keypoints or a data set"))
    labelled = "format" in given or ("layout" not in given and _is_data(candidate))
    _check_kind(path, given, _OF_DATA if labelled else _OF_KEYPOINTS, "a data set" if labelled else "2D keypoints")
    if not labelled:
        return _of_keypoints(path, skeleton, given)
    found = open_data(path, progress=progress, **given)
    if not isinstance(found, PoseStore):
        found = observe(found, "train", skeleton=skeleton, progress=progress, too_near="move", **observing)
    source = {**found.source, "unlabelled": True}
    seen = _in_skeleton(found.input, found.skeleton, skeleton, path)
    return PoseStore(found.views, seen, _no_poses(seen), skeleton=skeleton, temporal=found.temporal, source=source)


def has_keypoints_alone(path: str | os.PathLike[str]) -> bool:
    """Whether a file or folder is of a form of 2D keypoints, and of no data set."""
    found = samples.resolve(path, "keypoints")
    try:
        if not found.exists() or _is_data(Candidate(found)):
            return False
        forms = surest(KeypointFile(found), FORMS.values())
        bare = not {*_KEYPOINT_ARRAYS} & {*Candidate(found).arrays}
    except DataError:  # damaged
        return False
    # Any npz or npy may hold an array of keypoints.
    return any(form.name != "arrays" or found.suffix == ".npy" or not bare for form in forms)


def _is_data(candidate: Candidate) -> bool:
    """Whether a path is of a data set, rather than of keypoints: predictions have a `meta` as clip archives do."""
    return not {*_KEYPOINT_ARRAYS} & {*candidate.arrays} and bool(surest(candidate, FORMATS.values()))


def _check_kind(path: str | os.PathLike[str], given: Mapping[str, Any], own: Sequence[str], kind: str) -> None:
    for name in given:
        if name not in own:
            raise ArgumentError(
                f"unlabelled_options has {name!r}, expected some of {', '.join(own)} for {path}, {kind}."
            )


def _of_keypoints(path: str | os.PathLike[str], skeleton: str, given: dict[str, Any]) -> PoseStore:
    variant = given.pop("variant", None)
    size = given.pop("image_size", None)
    if size is not None:
        if not (isinstance(size, Sequence) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
            raise ArgumentError(f"unlabelled_options has image_size {size!r}, expected [width, height] in pixels.")
        given["image_size"] = int(size[0]), int(size[1])
    tracks = read_keypoints(path, **{"person": "all"} | given)
    if not tracks:
        raise DataError(f"{path} has nobody's keypoints, expected at least one person.")
    views, inputs, first = [], [], 0
    for number, track in enumerate(tracks):
        inputs.append(_on_screen(track, skeleton, variant, path))
        assert track.width is not None and track.height is not None  # as _on_screen has checked
        views.append(
            View(
                "unlabelled", "unlabelled", f"{number} {track.name}", "unlabelled", 0, first, len(track),
                float("nan") if track.fps is None else float(track.fps), (float(track.width), float(track.height)),
            )
        )  # fmt: skip
        first += len(track)
    seen = np.concatenate(inputs)
    source = {"format": "keypoints", "protocol": "subjects", "unlabelled": True}
    return PoseStore(tuple(views), seen, _no_poses(seen), skeleton=skeleton, source=source)


def _on_screen(track: Keypoints, skeleton: str, variant: str | None, path: str | os.PathLike[str]) -> np.ndarray:
    """float32 `[T, J, 3]`: a track on the normalised screen, and its confidence."""
    width, height = track.width, track.height
    if width is None or height is None:
        raise ArgumentError(
            f"unlabelled is {str(path)!r}, which doesn't say how large its images are, expected image_size among "
            "unlabelled_options, in pixels."
        )
    if np.abs(track.keypoints).max() <= 2:
        raise ArgumentError(
            f"unlabelled is {str(path)!r}, whose keypoints of {track.name} lie within -2 to 2, expected pixels of an "
            f"image of {width} x {height}."
        )
    if track.skeleton != skeleton:
        try:
            track = track.in_skeleton(skeleton, variant)
        except ArgumentError as error:
            raise ArgumentError(f"unlabelled is {str(path)!r}, which can't be used: {error}") from error
    screen = normalize_screen(track.keypoints.astype(np.float64), width, height)
    return np.concatenate([screen, track.confidence[..., None]], axis=-1).astype(np.float32)


def _in_skeleton(
    seen: np.ndarray | ShardedArray, before: str, after: str, path: str | os.PathLike[str]
) -> np.ndarray | ShardedArray:
    """Input of a store in other joints."""
    if before == after:
        return seen
    try:
        return skeletons.convert(np.array(seen), before, after, confidence=True)
    except ArgumentError as error:
        raise ArgumentError(f"unlabelled is {str(path)!r} with joints of {before!r}, expected {after!r}.") from error


def _no_poses(seen: np.ndarray | ShardedArray) -> np.ndarray:
    """0 in the shape of `seen`, in no memory."""
    return np.broadcast_to(np.float32(0), seen.shape)
