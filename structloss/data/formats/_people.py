"""From keypoints in a file to tracks of people: what the readers of the forms share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import skeletons
from ...errors import DataError, check_choice, shown
from .._words import count, some
from ._frame_numbers import FrameNumbers, frame_numbers
from ._joint_names import NamedLayout, layout_of_names
from ._json import described, load_json
from ._points import keypoints_of
from ._tracks import Detection, Track, choose_tracks, fill, make_tracks, seen_in
from .keypoint_form import KeypointFile
from .keypoint_maps import LAYOUTS, layout_of_size
from .keypoint_track import Keypoints

__all__ = [
    "FrameNumbers",
    "Video",
    "array_track",
    "as_track",
    "chosen",
    "described",
    "frame_numbers",
    "identity_of",
    "in_pixels",
    "keypoints_of",
    "load_json",
    "pixels",
    "positive",
    "told_pixels",
    "tracks_of",
]

# Number of keypoints per person -> layout, where detectors give no names: 17 are COCO's.
_SIZES = {17: "coco"} | {size: entry.name for entry in LAYOUTS.values() for size in entry.sizes
                         if layout_of_size(entry.size) == entry.name}  # fmt: skip
_ON_A_SCREEN = 1.5  # of coordinates from 0 to 1, the median is nearer to 0, also where people are partly outside
_IDENTITIES = 2**63  # no tracker counts as far


@dataclass(frozen=True)
class Video:
    """What a file says of the video that its detections are of.

    Attributes:
        name: of the tracks.
        width, height: of the image, pixels; None where they are unknown.
        fps: frames per second; None where unknown.
        names: of the keypoints, in the file's order; None where it has none.
        likely: the layout that the file has by its own account, if the number of keypoints is that of it.
        notes: what the user should know, a sentence each.
    """

    name: str
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    names: Sequence[object] | None = None
    likely: str | None = None
    notes: tuple[str, ...] = ()


def identity_of(path: Path, where: str, value: Any) -> int | None:
    """Who a detection is: the number in a value of a tracker, alone, in lists or as text; None where it has none.

    Raises:
        DataError: anything else than a whole number. Negative ones are trackers' way to say that they don't know.
    """
    inner = value
    while isinstance(inner, (list, tuple)) and len(inner) == 1:
        inner = inner[0]
    if inner is None or (isinstance(inner, (list, str)) and not inner):
        return None
    number: float | None = None
    if isinstance(inner, (int, float, str)) and not isinstance(inner, bool):
        try:
            number = float(inner)
        except (ValueError, OverflowError):
            number = None
    if number is None or not abs(number) < _IDENTITIES or number != int(number):
        raise DataError(f"{where} in {path} is {shown(value)}, expected a whole number.")
    return int(number) if number >= 0 else None


def tracks_of(
    file: KeypointFile, video: Video, detections: list[Detection], layout: str | None, person: str | int
) -> list[Keypoints]:
    """The chosen people of one video. Coordinates from 0 to 1 become pixels."""
    path = file.path
    sizes = {len(detection.keypoints) for detection in detections}
    if len(sizes) > 1:
        raise DataError(f"{path} has people of {' and '.join(map(str, sorted(sizes)))} keypoints, expected one number.")
    if not sizes:
        raise DataError(f"{path} has no people in any frame.")
    named = _layout(path, video, layout, *sizes)
    size = file.image_size or (video.width, video.height)
    points = in_pixels(path, np.stack([detection.keypoints for detection in detections]), size)
    detections = [replace(one, keypoints=made) for one, made in zip(detections, points, strict=True)]
    people = make_tracks([found for found in detections if seen_in(found.keypoints).any()] or detections)
    taken = choose_tracks(path, people, person)
    notes = (*video.notes, *_lacking(named), *_left_out(people, taken, person))
    there = np.array([j for j, i in enumerate(named.order) if i is not None])
    file_order = [i for i in named.order if i is not None]
    out = []
    for track in taken:
        frames = np.array([detection.frame for detection in track.detections])
        start = int(frames[0])
        values = np.full((int(frames[-1]) - start + 1, len(named.order), 3), np.nan)
        found = np.stack([detection.keypoints for detection in track.detections])
        values[np.ix_(frames - start, there)] = found[:, file_order]
        sure = values[..., 2] > 1
        values[sure & np.isfinite(values[..., 2]), 2] = 1.0
        label = video.name if len(taken) == 1 else f"{video.name}/{track.person}"
        track_of = as_track(path, label, values, named.layout, video.width, video.height, video.fps, start, named.near)
        out.append(replace(track_of, notes=notes))
    return out


def _layout(path: Path, video: Video, layout: str | None, size: int) -> NamedLayout:
    """The layout that was asked for, that the names make, that the file says, or that has this many keypoints."""
    if layout is not None and size not in LAYOUTS[layout].sizes:
        wanted = " or ".join(map(str, LAYOUTS[layout].sizes))
        raise DataError(f"{path} has {size} keypoints per person, expected {wanted} for the layout {layout!r}.")
    if layout is None and video.names:
        named = layout_of_names(path, video.names, size)
        if named is not None:
            return named
    if layout is None and video.likely is not None and size in LAYOUTS[video.likely].sizes:
        layout = video.likely
    layout = layout or _SIZES.get(size)
    if layout is None:
        known = ", ".join(map(str, sorted(_SIZES)))
        alike = [entry.name for entry in LAYOUTS.values() if size in entry.sizes]
        hint = f"; set layout to {' or '.join(alike)} if that is their order" if alike else ""
        raise DataError(f"{path} has {size} keypoints per person, expected {known}{hint}.")
    return NamedLayout(layout, tuple(range(LAYOUTS[layout].size)))


def in_pixels(path: Path, points: np.ndarray, size: tuple[int | None, int | None]) -> np.ndarray:
    """Keypoints `[..., J, 3]`; those on a screen of width and height 1 are stretched over an image of this size.

    Raises:
        DataError: they need to be, and the size is not known.
    """
    places = points[seen_in(points), :2]
    if not len(places) or np.median(np.abs(places)) > _ON_A_SCREEN:
        return points
    if size[0] is None or size[1] is None:
        raise DataError(f"{path} has coordinates from 0 to 1, expected image_size, in pixels, beside them.")
    return points * np.array([*size, 1.0])


def _lacking(named: NamedLayout) -> list[str]:
    """What to say of joints that the file does not have."""
    sides = {"l_": "left ", "r_": "right "}
    missing = [sides.get(name[:2], "") + name[2 * (name[:2] in sides) :].replace("_", " ") for name in named.missing]
    missing += [skeletons.get("h36m").joint_names[joint] for joint in LAYOUTS[named.layout].left_out]
    return [f"the file has no {some(missing)}: placed by the others, with confidence 0"] if missing else []


def _left_out(people: Sequence[Track], taken: Sequence[Track], person: str | int) -> list[str]:
    """What to say of people who were not chosen, where nobody named the one to take."""
    others = len(people) - len(taken)
    if others == 0 or isinstance(person, int):
        return []
    lost = sum(len(track.detections) for track in people) - sum(len(track.detections) for track in taken)
    were = f"with {count(lost, 'detection')} {'was' if others == 1 else 'were'}"
    return [f"{count(others, 'other track')} {were} left out; set person to 'all' to keep every track"]


def chosen(path: Path, tracks: list[Keypoints], person: str | int) -> list[Keypoints]:
    """The tracks of a file in which every array is one person's: all, or the one with the number `person`."""
    if isinstance(person, str):
        check_choice("person", person, ("longest", "largest", "all"))
        return tracks
    if not 0 <= person < len(tracks):
        raise DataError(f"{path} has no person {person}, expected 0 to {len(tracks) - 1}.")
    return [tracks[person]]


def positive(value: Any) -> float | None:
    """A positive number that a file may tell; None where it does not."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 < number < float("inf") else None


def told_rate(path: Path, value: Any) -> float | None:
    """Frames per second that a file tells; None where it leaves them out, or says 0, as programs do of unknown ones.

    Raises:
        DataError: anything else than a positive number.
    """
    return _told(path, "fps", value, "a positive number of frames per second")


def pixels(value: Any) -> int | None:
    """A positive number of pixels that a file may tell; None where it does not."""
    number = positive(value)
    return None if number is None else max(1, round(number))


def told_pixels(path: Path, where: str, value: Any) -> int | None:
    """A number of pixels that a file tells; None where it leaves it out, or says 0.

    Raises:
        DataError: anything else than a positive number.
    """
    return pixels(_told(path, where, value, "a number of pixels; image_size overrules it"))


def _told(path: Path, where: str, value: Any, expected: str) -> float | None:
    if value is None or (value == 0 and not isinstance(value, bool)):
        return None
    number = None if isinstance(value, bool) else positive(value)
    if number is None:
        raise DataError(f"{where} in {path} is {shown(value)}, expected {expected}.")
    return number


def array_track(
    path: Path, name: str, array: Any, layout: str | None, width: int | None, height: int | None,
    fps: float | None = None,
) -> Keypoints:  # fmt: skip
    """A track from `[T, J, 2 or more]`; the third number is the confidence, else it is 1, and 0 at (0, 0)."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu" or array.ndim != 3 or array.shape[2] < 2 or 0 in array.shape:
        raise DataError(
            f"{name!r} of {path} is {array.dtype} of shape {list(array.shape)}, expected numbers [T, J, 2] or "
            "[T, J, 3]."
        )
    if layout is None:
        layout = layout_of_size(array.shape[1])
        if layout is None:
            raise DataError(
                f"{path} doesn't say what its {array.shape[1]} keypoints are; set layout, one of {', '.join(LAYOUTS)}."
            )
    if array.shape[1] not in LAYOUTS[layout].sizes:
        raise DataError(
            f"{name!r} of {path} has {array.shape[1]} keypoints, expected {LAYOUTS[layout].size} for the layout "
            f"{layout!r}."
        )
    full = np.ones((len(array), LAYOUTS[layout].size, 3))
    full[..., : min(3, array.shape[2])] = array[:, : LAYOUTS[layout].size, :3]
    full[..., 2] = np.clip(full[..., 2], 0, 1)
    if array.shape[2] == 2:
        full[~full[..., :2].any(-1), 2] = 0  # the usual place of what was not found
    return as_track(path, name, full, layout, width, height, fps)


def as_track(
    path: Path, name: str, keypoints: np.ndarray, layout: str, width: int | None, height: int | None,
    fps: float | None = None, start: int = 0, near: Sequence[tuple[int, Sequence[int]]] = (),
) -> Keypoints:  # fmt: skip
    """A track from `[T, J, 3]` whose missing keypoints are NaN or of confidence 0. Each keypoint that `near` lists is
    put into the middle of those it lists with it."""
    seen = seen_in(keypoints)
    if not seen.any():
        raise DataError(f"{name!r} of {path} has no keypoint with a confidence above 0 in any frame.")
    edges = np.flatnonzero(np.diff(np.concatenate([[True], seen.any(1), [True]]).astype(int)))
    full = fill(keypoints, LAYOUTS[layout].mirror)
    for joint, others in near:
        full[:, joint, :2] = full[:, list(others), :2].mean(1)
    gaps = tuple((int(a), int(b)) for a, b in edges.reshape(-1, 2))
    return Keypoints(name, full[..., :2], full[..., 2], width, height, fps, layout, start, gaps)
