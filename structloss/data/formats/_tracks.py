"""People in the frames of a video: who is who, whom to take, and what to do where somebody was not seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from ...errors import ArgumentError, DataError
from .._words import some

__all__ = ["Detection", "Track", "choose_tracks", "fill", "make_tracks", "seen_in"]

_OVERLAP = 0.3  # intersection over union from which on two boxes are of one person
_PATIENCE = 30  # frames after which somebody who was not seen is somebody else
_LARGEST = 1e6  # no pixel is farther out
_REACH = 4.0  # times as far as usual is a cut, if it is farther than the person is large, too
_MOST = 1000  # people in a frame
_PIECES = 8  # the latest pieces of somebody who is alone, of which one may go on

_Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Detection:
    """A person in a frame: keypoints `[J, 3]` (x, y, confidence), and who it is where the file says."""

    frame: int
    keypoints: np.ndarray
    person: int | None = None


@dataclass
class Track:
    """A person's detections, in the order of frames."""

    person: int
    detections: list[Detection] = field(default_factory=list)

    @property
    def area(self) -> float:
        """Mean area of the boxes around the keypoints, square pixels."""
        return float(np.mean([(b[2] - b[0]) * (b[3] - b[1]) for b in _boxes(self.detections)]))


def seen_in(keypoints: np.ndarray) -> np.ndarray:
    """Which keypoints `[..., J, 3]` (x, y, confidence) were seen: a place in an image, and a confidence above 0."""
    placed = np.isfinite(keypoints).all(-1) & (np.abs(keypoints[..., :2]) < _LARGEST).all(-1)
    return np.asarray(placed & (keypoints[..., 2] > 0))


def make_tracks(detections: Sequence[Detection]) -> list[Track]:
    """Tracks of people. An identity of the file is followed, unless it is there twice in a frame. Everybody else is
    followed by the overlap of boxes from frame to frame, the best pairs first; who is alone in every frame, as far as
    somebody of this size goes. Without identities, people are numbered by first appearance; otherwise those who have
    none, after the largest one. Takes time in proportion to the number of frames.

    Raises:
        DataError: more than a thousand people in a frame.
    """
    ordered = sorted(detections, key=lambda detection: detection.frame)
    counts = Counter((detection.frame, detection.person) for detection in ordered)
    twice = {person for (_, person), count in counts.items() if count > 1}
    boxes = _boxes(ordered)
    frames = [list(group) for _, group in groupby(range(len(ordered)), key=lambda i: ordered[i].frame)]
    crowd = max(frames, key=len, default=[])
    if len(crowd) > _MOST:  # every pair of two frames is compared
        raise DataError(
            f"frame {ordered[crowd[0]].frame} has {len(crowd)} people, expected at most {_MOST} to follow from frame "
            "to frame."
        )
    tracker = _Tracker(ordered, boxes, {None, *twice})
    if len(frames) == len(ordered) and all(tracker.identity(i) is None for i in range(len(ordered))):
        tracker.follow_alone()
    else:
        for here in frames:
            tracker.follow(here)
    return tracker.tracks()


class _Followed:
    """A track in the making: which detections it has, and whose it is."""

    def __init__(self, first: int, identity: int | None) -> None:
        self.members, self.identity = [first], identity


class _Tracker:
    """Puts detections, in the order of frames, into tracks."""

    def __init__(self, ordered: list[Detection], boxes: list[_Box], untold: set[int | None]) -> None:
        self.ordered, self.boxes, self.untold = ordered, boxes, untold
        self.made: list[_Followed] = []
        self.open: list[_Followed] = []
        self.known: dict[int, _Followed] = {}
        self.before = 0  # the frame before

    def identity(self, i: int) -> int | None:
        """Who a detection is; None where the file does not tell, or says the same of two people in a frame."""
        person = self.ordered[i].person
        return None if person in self.untold else person

    def begin(self, i: int) -> None:
        track = _Followed(i, self.identity(i))
        self.made.append(track)
        self.open.append(track)
        if track.identity is not None:
            self.known[track.identity] = track

    def follow(self, here: list[int]) -> None:
        """Take the detections of a frame."""
        frame = self.ordered[here[0]].frame
        self.open = [track for track in self.open if frame - self.frame_of(track) <= _PATIENCE]
        free: dict[_Followed, None] = dict.fromkeys(self.open)  # in order, and looked up at once in a crowd
        rest: dict[int, None] = {}
        for i in here:
            identity = self.identity(i)
            track = None if identity is None else self.known.get(identity)
            if track is None:
                rest[i] = None
            else:
                if track in free:
                    del free[track]
                else:
                    self.open.append(track)
                track.members.append(i)
        for likeness in (self.overlap, self.nearness):
            pairs = [(how, track, i) for track in free for i in rest if (how := likeness(track, i)) > 0]
            for _, track, i in sorted(pairs, key=lambda pair: -pair[0]):
                if track in free and i in rest:
                    del free[track], rest[i]
                    self.join(track, i)
        for i in rest:
            self.begin(i)
        self.before = frame

    def frame_of(self, track: _Followed) -> int:
        """Where somebody was last seen."""
        return self.ordered[track.members[-1]].frame

    def join(self, track: _Followed, i: int) -> None:
        """Add a detection to a track, which takes its identity."""
        track.members.append(i)
        identity = self.identity(i)
        if track.identity is None and identity is not None:
            track.identity = identity
            self.known[identity] = track

    def overlap(self, track: _Followed, i: int) -> float:
        """Overlap of boxes of what may be one person; 0 where it is too small."""
        if track.identity is not None and self.identity(i) is not None:
            return 0.0
        overlap = _iou(self.boxes[track.members[-1]], self.boxes[i])
        return overlap if overlap >= _OVERLAP else 0.0

    def nearness(self, track: _Followed, i: int) -> float:
        """For somebody fast, who was there in the frame before: how near boxes of about one size are, from 0 where
        they are a body's size apart to 1."""
        if self.frame_of(track) != self.before or (track.identity is not None and self.identity(i) is not None):
            return 0.0
        a, b = self.boxes[track.members[-1]], self.boxes[i]
        sizes = sorted(math.hypot(box[2] - box[0], box[3] - box[1]) for box in (a, b))
        far = math.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2
        return 1 - far / sizes[1] if sizes[1] < 2 * sizes[0] else 0.0

    def follow_alone(self) -> None:
        """Take up all detections, of which no two are in one frame: one person, unless the place jumps by more than a
        body's size and several times the usual step. After a jump, an earlier piece may go on."""
        boxes = np.array(self.boxes)
        centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, np.hypot(*(boxes[:, 2:] - boxes[:, :2]).T)
        frames = np.array([detection.frame for detection in self.ordered], dtype=np.float64)
        steps, times = np.hypot(*np.diff(centres, axis=0).T), np.diff(frames)
        usual = float(np.median(steps / times)) if len(steps) else 0.0
        sizes = np.maximum(sizes, max(float(np.median(sizes)), _REACH * usual))  # how far somebody gets in a frame
        jumps = np.concatenate([[True], steps > np.maximum(sizes[1:], sizes[:-1]) * times])
        for i, jumped in enumerate(jumps.tolist()):
            track = self.open[-1] if not jumped else self.goes_on(i, centres, sizes, frames)
            if track is None:
                self.begin(i)
            else:
                track.members.append(i)

    def goes_on(self, i: int, centres: np.ndarray, sizes: np.ndarray, frames: np.ndarray) -> _Followed | None:
        """The nearest of the latest pieces that is within reach of a detection, put last."""
        self.open = self.open[-_PIECES:]
        if not self.open:
            return None
        last = [track.members[-1] for track in self.open]
        reach = np.maximum(sizes[last], sizes[i]) * (frames[i] - frames[last])
        far = np.hypot(*(centres[last] - centres[i]).T) / np.maximum(reach, 1e-9)
        if far.min() > 1:
            return None
        track = self.open.pop(int(far.argmin()))
        self.open.append(track)
        return track

    def tracks(self) -> list[Track]:
        """All tracks, in the order of their first frames."""
        number = 1 + max(self.known, default=-1)
        out = []
        for track in self.made:
            person = track.identity
            if person is None:
                person, number = number, number + 1
            out.append(Track(person, [self.ordered[i] for i in track.members]))
        return out


def _boxes(detections: Sequence[Detection]) -> list[_Box]:
    """The box around the keypoints that were seen, of each detection; (0, 0, 0, 0) where there are none."""
    sizes = {detection.keypoints.shape for detection in detections}
    if len(sizes) > 1:
        return [box for detection in detections for box in _boxes([detection])]
    points = np.stack([detection.keypoints for detection in detections])
    seen = seen_in(points)
    xy = points[..., :2]
    low = np.where(seen[..., None], xy, np.inf).min(1)
    high = np.where(seen[..., None], xy, -np.inf).max(1)
    boxes = np.where(seen.any(axis=1, keepdims=True), np.concatenate([low, high], axis=1), 0.0)
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes.tolist()]


def _iou(a: _Box, b: _Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def choose_tracks(path: Path, tracks: Sequence[Track], person: str | int) -> list[Track]:
    """The tracks that `person` asks for: "largest", "longest" (then the larger), "all", or a track's number."""
    if person == "all":
        return list(tracks)
    if person == "largest":
        return [max(tracks, key=lambda track: (track.area, len(track.detections)))]
    if person == "longest":
        return [max(tracks, key=lambda track: (len(track.detections), track.area))]
    if isinstance(person, bool) or not isinstance(person, int):
        raise ArgumentError(f"person is {person!r}, expected 'largest', 'longest', 'all' or a track's number.")
    found = [track for track in tracks if track.person == person]
    if not found:
        known = some(sorted(track.person for track in tracks), 10)
        raise DataError(f"{path} has no person {person}, expected one of {known}.")
    return found


def fill(keypoints: np.ndarray, mirror: Sequence[int]) -> np.ndarray:
    """Keypoints `[T, J, 3]` with straight lines over time where they are missing: not finite, or of confidence 0.

    What is filled in has confidence 0. At the ends the nearest frame's place is kept. A keypoint that is never seen
    lies where its partner of the other side does (an ear where the other ear is), else in the middle of all others.
    """
    out = keypoints.astype(np.float64)
    seen = seen_in(out)
    out[..., 2] = np.where(seen, out[..., 2], 0.0)
    t = np.arange(len(out))
    for j in range(out.shape[1]):
        here = seen[:, j]
        if here.any() and not here.all():
            for c in range(2):
                out[~here, j, c] = np.interp(t[~here], t[here], out[here, j, c])
    ever = np.asarray(seen.any(0))
    middle = out[:, ever, :2].mean(1) if ever.any() else np.zeros((len(out), 2))
    for j, partner in enumerate(mirror):
        if not ever[j]:
            out[:, j, :2] = out[:, partner, :2] if ever[partner] else middle
    return out
