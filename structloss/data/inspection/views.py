"""What keypoints, and poses in front of cameras, tell about themselves."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from ...skeletons import get
from .._words import count
from ..store import PoseStore, View
from ..views import motion_numbers, names

__all__ = ["ViewChecks"]

_OUTSIDE = 0.05  # share of the keypoints
_OFF = 0.06  # half image widths between a keypoint and the pose's image; 30 px of 1000
_NONSENSE = 5.0  # half image widths from the centre: beyond, it is no image coordinate


class ViewChecks:
    """Collects the views of a store, one or a piece of one at a time, then says what looks wrong. Of views it keeps the
    names of those that look wrong, of all others sums."""

    def __init__(self, store: PoseStore) -> None:
        self.store = store
        self.skeleton = get(store.skeleton)
        self.low, self.high = np.full(3, np.inf), np.full(3, -np.inf)
        self._screen = [np.full(2, np.inf), np.full(2, -np.inf)]
        self._score = [math.inf, -math.inf]
        self._count: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._exchanged: list[str] = []
        self._off: list[tuple[float, str]] = []
        self._agreement = np.zeros(3, dtype=np.int64)  # of a view: frames with pairs, turned, not turned
        self._distances: list[np.ndarray] = []

    def add(self, view: View, rows: slice, every: int = 1, more: bool = False) -> None:
        """Inspect a view, or the frames `rows` of it; `more` where the next call is of the same view. Of the distances
        of its keypoints from the poses' image every n-th frame is kept until the view's end."""
        self._add(view, rows, every)
        if not more:
            self._finish(f"{view.motion} of camera {view.camera}")

    def _add(self, view: View, rows: slice, every: int) -> None:
        store = self.store
        name = f"{view.motion} of camera {view.camera}"
        points, score = np.asarray(store.input[rows, :, :2], np.float64), np.asarray(store.input[rows, :, 2])
        pose = np.asarray(store.pose[rows], np.float64)
        for array in ("input", "pose", "label"):
            values = getattr(store, array)
            if values is not None:
                self._note(f"NaN or infinite values in {array}", name, int((~np.isfinite(values[rows])).sum()))
        seen = np.isfinite(points).all(-1) & (score > 0)
        self._count["keypoints"] += seen.size
        self._note("unseen", name, int((~seen).sum()))
        if seen.any():
            self._screen = [
                np.minimum(self._screen[0], points[seen].min(0)),
                np.maximum(self._screen[1], points[seen].max(0)),
            ]
            self._score = [min(self._score[0], float(score[seen].min())), max(self._score[1], float(score[seen].max()))]
        if math.isfinite(view.size[0]):
            edge = np.array([1, view.size[1] / view.size[0]])
            self._count["placed"] += int(seen.sum())
            self._note("outside", name, int((seen & (np.abs(points) > edge).any(-1)).sum()))
        known = np.ones(seen.shape, bool) if store.weight is None else store.weight[rows] > 0
        self._count["known"] += int(known.sum())
        if store.label is not None and store.factor is not None:
            if np.isfinite(store.factor[rows]).all():
                self._extend(pose, known)
            self._compare(points, np.asarray(store.label[rows, :, :2], np.float64), seen & known, True, every)
            return
        known &= np.isfinite(pose).all(-1)
        self._extend(pose, known)
        self._note("joints behind the camera", name, int((known & (pose[..., 2] <= 0)).sum()))
        front = known & (pose[..., 2] > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            image = pose[..., :2] / pose[..., 2:]
        k = np.array(view.intrinsics)
        calibrated = bool(np.isfinite(k).all())
        self._compare(points, image * k[:2] + k[2:] if calibrated else image, seen & front, calibrated, every)

    def _note(self, what: str, name: str, count: int) -> None:
        if count:
            self._count[what] += count
            self._first.setdefault(what, name)

    def _extend(self, pose: np.ndarray, known: np.ndarray) -> None:
        if known.any():
            self.low, self.high = np.minimum(self.low, pose[known].min(0)), np.maximum(self.high, pose[known].max(0))

    def _compare(self, points: np.ndarray, image: np.ndarray, both: np.ndarray, calibrated: bool, every: int) -> None:
        """Keypoints with the image of the poses: the same sides, the same place."""
        left, right = list(self.skeleton.left), list(self.skeleton.right)
        pairs = both[:, left] & both[:, right]
        here, there = (x[:, left] - x[:, right] for x in (points, image))
        agreement = np.where(pairs, np.nan_to_num((here * there).sum(-1)), 0).sum(1)
        self._agreement += (pairs.any(), (agreement < 0).sum(), (agreement > 0).sum())
        if calibrated and both.any():
            self._distances.append(np.linalg.norm(points - image, axis=-1)[::every][both[::every]])

    def _finish(self, name: str) -> None:
        """The end of a view."""
        pairs, turned, straight = self._agreement.tolist()
        if pairs and turned > straight:
            self._exchanged.append(name)
        if distances := [part for part in self._distances if len(part)]:
            off = float(np.median(np.concatenate(distances)))
            if off > _OFF:
                self._off.append((off, name))
        self._agreement[:] = 0
        self._distances = []

    def keypoints(self) -> dict[str, Any]:
        """Ranges of the keypoints that were seen."""
        low, high = self._screen
        if not math.isfinite(low[0]):
            return {}
        out: dict[str, Any] = {axis: [round(float(low[i]), 3), round(float(high[i]), 3)] for i, axis in enumerate("xy")}
        out["confidence"] = [round(value, 4) for value in self._score]
        if self._count["placed"]:
            out["outside"] = self._count["outside"] / self._count["placed"]
        return out

    @property
    def known(self) -> float:
        """Share of joints whose pose counts."""
        return self._count["known"] / max(1, self._count["keypoints"])

    def problems(self) -> list[str]:
        """What looks wrong, a sentence each."""
        found, counts = [], self._count
        for what in [
            *(f"NaN or infinite values in {a}" for a in ("input", "pose", "label")),
            "joints behind the camera",
        ]:
            if counts[what]:
                found.append(f"{counts[what]} {what}, first in {self._first[what]}")
        if counts["keypoints"] and counts["unseen"] > 0.5 * counts["keypoints"]:
            found.append(f"{counts['unseen'] / counts['keypoints']:.0%} of the keypoints have confidence 0")
        if counts["outside"] > _OUTSIDE * counts["placed"]:
            share = counts["outside"] / counts["placed"]
            found.append(f"{share:.1%} of the keypoints are outside the image, first in {self._first['outside']}")
        farthest = float(np.abs(self._screen).max())
        if math.isfinite(farthest) and farthest > _NONSENSE:
            found.append(
                f"a keypoint is {farthest:.3g} half image widths from the centre: the image's size may be wrong"
            )
        if self._score[1] > 1.001 or self._score[0] < 0:
            found.append(f"confidence is {self._score[0]:.3g} to {self._score[1]:.3g}, expected 0 to 1")
        if self._exchanged:
            where = f"{count(len(self._exchanged), 'view')}, the first is {self._exchanged[0]}"
            found.append(f"left and right of keypoints and poses look exchanged in {where}")
        if self._off:
            distance, name = max(self._off)
            found.append(
                f"keypoints are far from the poses' image in {count(len(self._off), 'view')}, most in {name}: "
                f"{distance:.3g} half image widths in the median; poses, cameras or frames don't belong together"
            )
        found += self._repeated()
        return found

    def _repeated(self) -> list[str]:
        """Motions that a camera saw twice."""
        views = self.store.views
        pairs = np.stack([motion_numbers(views)[0], names(views, "camera")[1]], axis=-1)
        _, first, counts = np.unique(pairs, axis=0, return_index=True, return_counts=True)
        twice = first[counts > 1]
        if not len(twice):
            return []
        view = views[int(twice.min())]
        where = f"{count(len(twice), 'case')}, the first is {view.motion} of camera {view.camera}"
        return [f"the same motion and camera more than once, in {where}"]
