"""People in runs: images of one person that follow each other, as what is to be refined over time must be."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from ..errors import ArgumentError, DataError
from .people import People
from .rendered.people import RenderedPeople
from .selection import names_of_images, subjects_of

__all__ = ["PeopleInRuns", "Run", "runs_of_images", "runs_of_rendered"]

_FRAME = re.compile(r"(\d{1,18})$")
#: a camera in an image's name: eight digits after a dot (Human3.6M's), or a word of its own ("video_0", "cam3")
_CAMERA = re.compile(r"\.(\d{8})(?=[_/]|$)|(?:(?<=[/_.-])|^)((?:cam|camera|video|vid|view)[_-]?\d+)(?=[/_.-]|$)", re.I)
_H36M = re.compile(r"(?<![A-Za-z0-9])S\d{1,2}_[A-Z][A-Za-z]+[^/]*\.\d{8}_\d+$")
_H36M_RATE = 50.0
_USUAL_RATE = 25.0  # as predictions of images assume


@dataclass(frozen=True)
class Run:
    """One person in images that follow each other.

    Attributes:
        rows: numbers of the people, in the order of time.
        subject, action: who it is and what is done; "unknown" where nothing tells.
        name: of the sequence. Parts of a sequence that others interrupt have the same.
        view: name of the camera; empty where nothing tells.
    """

    rows: Sequence[int]
    subject: str = "unknown"
    action: str = "unknown"
    name: str = ""
    view: str = ""


@dataclass(frozen=True)
class PeopleInRuns:
    """People, and the runs that they are in.

    Attributes:
        people: whose numbers the runs have.
        runs: at least one, of at least two images each.
        fps: images of a run per second.
        notes: what the user should know, a sentence each.
    """

    people: People
    runs: tuple[Run, ...]
    fps: float
    notes: tuple[str, ...] = ()


def runs_of_rendered(people: RenderedPeople) -> PeopleInRuns:
    """The runs of rendered people; what is beyond the last whole one is left out."""
    frames = people.frames
    runs = []
    for number in range(len(people) // frames):
        clip = people.clip_of(number * frames)
        rows = range(number * frames, (number + 1) * frames)
        runs.append(Run(rows, clip.subject, clip.action, f"run{number:03d}"))
    return PeopleInRuns(people, tuple(runs), people.fps)


def runs_of_images(people: People, fps: float | None = None) -> PeopleInRuns:
    """Runs by the names of images, which end in the number of a frame: "S1/Seq1/imageFrames/video_0/frame_000101.jpg",
    "S9_Posing_1.54138969_000006.jpg", "walk/12.png".

    What stands before the number, folders and all, is a sequence seen by one camera. Its images are put in the order of
    their numbers, whatever their order in the file is. A data set that keeps every n-th frame of its videos has numbers
    that are n apart: the commonest distance of all is that of a run's images, and where another one is, one run ends
    and another begins. People whose images have no number or no neighbour at that distance, and several people of one
    frame, whom nothing tells apart, are left out and counted.

    Args:
        people: with the names of their images, as those of files have.
        fps: frames per second by which images are numbered: of every fifth frame of a video of 50 it is 50. None is 50
            for images that are named as Human3.6M's are, else 25, with a note.

    Raises:
        ArgumentError: `fps` is not positive.
        DataError: nobody is in a run.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ArgumentError(f"fps is {fps!r}, expected a positive number.")
    names, subjects = names_of_images(people), subjects_of(people)
    actions: Sequence[str] = getattr(people, "actions", ())
    places, unnumbered = _by_sequence(names, subjects)
    several = 0
    ordered: dict[tuple[str, str], list[tuple[int, int]]] = {}  # sequence -> (frame, person), by the frame
    for sequence, found in sorted(places.items()):
        often = Counter(frame for frame, _ in found)
        alone = sorted((frame, row) for frame, row in found if often[frame] == 1)
        several += len(found) - len(alone)
        ordered[sequence] = alone
    step = _commonest_step(list(ordered.values()))
    runs, lonely = [], len(people) - len(names) + unnumbered
    for (subject, prefix), found in ordered.items():
        name, view = _told(prefix, subject)
        for part in _parts(found, step):
            if len(part) < 2:
                lonely += len(part)
                continue
            action = actions[part[0]] if actions else ""
            runs.append(Run(tuple(part), subject or "unknown", action or "unknown", name, view))
    if not runs:
        raise DataError(
            f"no images of {people.source} follow each other by their names, expected names that end in the number of "
            "a frame."
        )
    notes = []
    if several:
        notes.append(f"{several} of {len(people)} people are left out: several are in one frame, not told apart")
    if lonely:
        apart = "a frame" if step == 1 else f"{step} frames"
        notes.append(
            f"{lonely} of {len(people)} people are left out: by its name, no image is {apart} before or after theirs"
        )
    rate = fps
    if rate is None:
        known = all(_H36M.search(PurePosixPath(name).stem) for name in names)
        rate = _H36M_RATE if known else _USUAL_RATE
        if not known:
            notes.append("the frame rate is not known, 25 frames per second are assumed; set fps")
    return PeopleInRuns(people, tuple(runs), rate / step, tuple(notes))


def _by_sequence(
    names: Sequence[str], subjects: Sequence[str]
) -> tuple[dict[tuple[str, str], list[tuple[int, int]]], int]:
    """(subject, what stands before the number) -> frames and people; and how many have no number."""
    places: dict[tuple[str, str], list[tuple[int, int]]] = {}
    unnumbered = 0
    for row, name in enumerate(names):
        path = PurePosixPath(name.replace("\\", "/"))
        number = _FRAME.search(path.stem)
        if number is None:
            unnumbered += 1
            continue
        prefix = f"{path.parent}/{path.stem[: number.start()]}"
        subject = subjects[row] if subjects else ""
        places.setdefault((subject, prefix), []).append((int(number[1]), row))
    return places, unnumbered


def _commonest_step(sequences: Sequence[Sequence[tuple[int, int]]]) -> int:
    """Frames between images that follow each other; the least of those that are as common."""
    steps = Counter(later[0] - earlier[0] for found in sequences for earlier, later in pairwise(found))
    return min(steps, key=lambda step: (-steps[step], step), default=1)


def _parts(found: Sequence[tuple[int, int]], step: int) -> list[list[int]]:
    """People of a sequence, cut where another number of frames than `step` lies between two images."""
    parts: list[list[int]] = []
    last = -math.inf
    for frame, row in found:
        if frame - last != step:
            parts.append([])
        parts[-1].append(row)
        last = frame
    return parts


def _told(prefix: str, subject: str) -> tuple[str, str]:
    """Name of the sequence, the same for all cameras, and of the camera."""
    views = dict.fromkeys(number or word for number, word in _CAMERA.findall(prefix))
    parts = [part.strip("_-. ") for part in _CAMERA.sub("", prefix).split("/")]
    kept = [part for part in dict.fromkeys(parts) if part]
    if len(kept) > 1 and kept[0] == subject:
        kept = kept[1:]
    return "/".join(kept) or "images", "-".join(views)
