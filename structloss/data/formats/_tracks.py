"""People in the frames of a video: who is who, whom to take, and what to do where somebody was not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import ArgumentError, DataError
from .._words import some

__all__ = ["Detection", "Track", "choose_tracks", "fill", "make_tracks"]

_OVERLAP = 0.3  # intersection over union from which on two boxes are of one person
_PATIENCE = 30  # frames after which somebody who was not seen is somebody else


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
        boxes = [_box(detection) for detection in self.detections]
        return float(np.mean([(b[2] - b[0]) * (b[3] - b[1]) for b in boxes]))


def make_tracks(detections: Sequence[Detection]) -> list[Track]:
    """Tracks by the file's own identities, if every detection has one that is unique in its frame; otherwise by the
    overlap of boxes from frame to frame, the best pairs first. Numbered by first appearance in the latter case."""
    ordered = sorted(detections, key=lambda detection: detection.frame)
    twice = Counter((detection.frame, detection.person) for detection in ordered)
    known = [(detection.person, detection) for detection in ordered if detection.person is not None]
    if len(known) == len(ordered) and max(twice.values()) == 1:
        tracks: dict[int, Track] = {}
        for person, detection in known:
            tracks.setdefault(person, Track(person)).detections.append(detection)
        return list(tracks.values())
    made: list[Track] = []
    at = 0
    while at < len(ordered):
        frame = ordered[at].frame
        here = [detection for detection in ordered[at : at + len(ordered)] if detection.frame == frame]
        at += len(here)
        open_tracks = [track for track in made if frame - track.detections[-1].frame <= _PATIENCE]
        boxes = [_box(detection) for detection in here]
        pairs = sorted(
            ((_iou(_box(track.detections[-1]), box), t, d) for t, track in enumerate(open_tracks)
             for d, box in enumerate(boxes)),
            key=lambda pair: -pair[0],
        )  # fmt: skip
        taken_tracks, taken = set(), set()
        for overlap, t, d in pairs:
            if overlap >= _OVERLAP and t not in taken_tracks and d not in taken:
                open_tracks[t].detections.append(here[d])
                taken_tracks.add(t)
                taken.add(d)
        made += [Track(len(made) + k, [here[d]]) for k, d in enumerate(d for d in range(len(here)) if d not in taken)]
    return made


def _box(detection: Detection) -> np.ndarray:
    """(x0, y0, x1, y1) around the keypoints that were seen."""
    seen = detection.keypoints[detection.keypoints[:, 2] > 0, :2]
    return np.zeros(4) if not len(seen) else np.concatenate([seen.min(0), seen.max(0)])


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    both = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared
    return shared / both if both > 0 else 0.0


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
    seen = np.isfinite(out).all(-1) & (out[..., 2] > 0)
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
