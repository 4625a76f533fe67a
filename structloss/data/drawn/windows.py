"""Windows whose cameras, bodies, rates and detections are drawn anew in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError
from ...skeletons import convert
from .._checks import check_number, check_range
from ..coco import to_coco
from ..shards import ShardedArray
from ..store import PoseStore
from ..windows import PoseWindows
from .bodies import GROUPS, reshape_bodies
from .cameras import RandomViews, frame_of_up
from .keypoints import RandomKeypoints

__all__ = ["Drawing", "DrawnWindows"]

_VIEW, _OTHER = 8, 6  # uniform numbers for a camera, and for rate, place, face (2) and hips (2)
_STANDARD = 50.0  # frames per second of views that do not say theirs


@dataclass(frozen=True)
class Drawing:
    """What is drawn anew. Nothing is, by default.

    Attributes:
        views: cameras; None keeps those of the data.
        bodies: bones are this share longer or shorter at most, left and right alike.
        fps: (least, most) frames per second; None keeps those of the data.
        keypoints: detections; None is exact keypoints.
        coco: share of the windows whose trunk and head are made from COCO's joints, as those of most detectors are (the
            convention "motionbert").

    Raises:
        ArgumentError: a value out of range.
    """

    views: RandomViews | None = None
    bodies: float = 0.0
    fps: tuple[float, float] | None = None
    keypoints: RandomKeypoints | None = None
    coco: float = 0.0

    def __post_init__(self) -> None:
        check_number("random_bodies", self.bodies, 0.5)
        check_number("coco_joints", self.coco, 1)
        if self.fps is not None:
            check_range("random_fps", self.fps, 1, 1000)


class DrawnWindows(PoseWindows):
    """Training windows of :class:`~structloss.data.windows.PoseWindows` with what is drawn for each.

    A sample has the same keys and shapes. A sampler gives `(epoch, index)`; `index` alone is epoch 0. What is drawn
    depends on the seed, the epoch and the index alone.

    A window at another rate has its middle where it was, give or take half a stride, and spans more or less time; over
    the ends of a clip their frames are repeated. Poses between two frames are interpolated by cubics (Catmull and Rom).

    Args:
        source: a pose store of the 17 joints of Human3.6M, whose views tell where up is if cameras are drawn.
        drawing: what is drawn.
        seed: of all that is.
        synthetic: names of subjects, and the share of the windows that is to be theirs: their windows are left out or
            repeated to make it so.
        cut: keywords of :class:`~structloss.data.windows.PoseWindows`.

    Raises:
        ArgumentError: a store that nothing can be drawn for.
    """

    def __init__(
        self, source: PoseStore, drawing: Drawing, seed: int = 0, synthetic: tuple[Sequence[str], float] | None = None,
        **cut: Any,
    ) -> None:  # fmt: skip
        super().__init__(source, "train", **cut)
        self.drawing, self.seed = drawing, seed
        #: samplers tell it the epoch then
        self.draws = drawing != Drawing()
        if self.skeleton.name != "h36m":
            raise ArgumentError(f"skeleton is {self.skeleton.name!r}, expected 'h36m' with what is drawn at random.")
        if source.label is not None:
            raise ArgumentError(
                f"random_views and what else is drawn are given for {source.source.get('format', 'the data')}, whose "
                "targets are published, expected poses in camera space."
            )
        if drawing.fps is not None and not source.temporal:
            raise ArgumentError(f"random_fps is {drawing.fps!r}, expected none for single poses.")
        up = np.array([view.up for view in source.views], dtype=np.float64)
        if drawing.views is not None and not np.isfinite(up).all():
            view = source.views[int(np.flatnonzero(~np.isfinite(up).all(-1))[0])]
            raise ArgumentError(
                f"random_views is given, expected data that tell where up is: that of camera {view.camera!r} of "
                f"{view.motion!r} is not known."
            )
        self._to_world = frame_of_up(up).astype(np.float32) if drawing.views is not None else None
        self._fps = np.array([view.fps if np.isfinite(view.fps) else _STANDARD for view in source.views])
        if synthetic is not None:
            self._windows = self._windows[self._mixed(*synthetic)]

    def _mixed(self, subjects: Sequence[str], share: float) -> np.ndarray:
        """Numbers of the windows, some of a kind repeated or left out."""
        of_them = np.isin(self._views[self._windows[:][:, 0], 0], [self.subjects.index(name) for name in subjects])
        real, made = np.flatnonzero(~of_them), np.flatnonzero(of_them)
        wanted = max(1, round(len(real) * share / (1 - share)))
        return np.concatenate([real, made[np.arange(wanted) * len(made) // wanted]])

    def batch(self, indices: Sequence[int | tuple[int, int]]) -> dict[str, Tensor]:
        """The samples of some indices, or of (epoch, index), stacked."""
        if not self.draws:
            return super().batch([key if isinstance(key, int) else key[1] for key in indices])
        pairs = np.array([(0, key) if isinstance(key, int) else key for key in indices], dtype=np.int64).reshape(-1, 2)
        chosen = pairs[:, 1]
        mirror, window = np.divmod(chosen, max(1, len(self._windows)))
        view, start, _ = self._windows[window].T
        subject, action, motion, camera, first, frames = self._views[view].T
        drawing = self.drawing
        uniform, normal = self._draws(pairs)
        of_view, of_body, other, of_keypoints = np.split(uniform, np.cumsum([_VIEW, len(GROUPS), _OTHER]), axis=-1)
        self.store.check_unchanged()
        pose, fps, inside, known = self._poses(view, start, first, frames, other)
        if drawing.bodies:
            pose = reshape_bodies(pose, 1 + drawing.bodies * (2 * of_body - 1))
        if drawing.views is not None:
            assert self._to_world is not None  # views are drawn
            pose, intrinsics, _ = drawing.views.see(pose, of_view, self._to_world[view])
        else:
            intrinsics = self._intrinsics[view]
        seen = self._seen(pose, intrinsics, fps, other, of_keypoints, normal)
        seen[~known] = 0
        k, camera_pose = torch.from_numpy(intrinsics), torch.from_numpy(pose)
        sample = {
            "input": torch.from_numpy(seen),
            "weight": torch.from_numpy((known & inside[..., None]).astype(np.float32)),
            **self._target(camera_pose, k),
        }
        numbers = {"subject": subject, "action": action, "clip": motion, "view": camera, "start": start}
        return self._finished(sample, camera_pose, k, numbers | {"index": chosen}, mirror > 0)

    def _draws(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Uniform numbers `[B, U]` and, for detections, normal ones `[B, T, N]` of each (epoch, index)."""
        uniform = np.empty((len(pairs), _VIEW + len(GROUPS) + _OTHER + RandomKeypoints.UNIFORM))
        normal = None
        if self.drawing.keypoints is not None:
            normal = np.empty((len(pairs), self.window, RandomKeypoints.NORMAL), dtype=np.float32)
        for i, (epoch, index) in enumerate(pairs.tolist()):
            random = np.random.default_rng([self.seed, epoch, index])
            random.random(out=uniform[i])
            if normal is not None:
                random.standard_normal(out=normal[i], dtype=np.float32)
        return uniform, normal

    def _poses(
        self, view: np.ndarray, start: np.ndarray, first: np.ndarray, frames: np.ndarray, other: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Poses `[B, T, 17, 3]` at the rates that are drawn, the rates `[B]`, and bool where frames count `[B, T]`
        and where joints are known `[B, T, 17]`."""
        steps = np.arange(self.window)
        fps, last = self._fps[view], frames[:, None] - 1
        if self.drawing.fps is None:
            time: np.ndarray = start[:, None] + self.frame_step * steps
            where = first[:, None] + time.clip(0, last)
            pose, fps = self.store.pose[where], fps / self.frame_step
        else:
            low, high = self.drawing.fps
            drawn = low + (high - low) * other[:, 0]
            middle = start + (self.window - 1) / 2 + self.stride * (other[:, 1] - 0.5)
            time = middle[:, None] + (fps / drawn)[:, None] * (steps - (self.window - 1) / 2)
            where = first[:, None] + np.rint(time.clip(0, last)).astype(np.int64)
            pose, fps = _between_frames(self.store.pose, first, frames, time), drawn
        # as everywhere, repeated frames count but in windows side by side
        inside = (time > -1e-3) & (time < last + 1e-3) | (self.sampling != "windows")
        known = np.ones((*where.shape, 17), dtype=bool) if self.store.weight is None else self.store.weight[where] > 0
        return np.ascontiguousarray(pose, dtype=np.float32), fps, inside, known

    def _seen(
        self, pose: np.ndarray, k: np.ndarray, fps: np.ndarray, other: np.ndarray, draws: np.ndarray,
        normal: np.ndarray | None,
    ) -> np.ndarray:  # fmt: skip
        """Keypoints and confidences `[B, T, 17, 3]`."""
        screen = _project(pose, k)
        made = other[:, 2] < self.drawing.coco
        if made.any():
            turn, size, wide, high = (other[made, i, None] for i in (3, 4, 5, 2))
            high = high / max(self.drawing.coco, 1e-9)
            points = to_coco(pose[made], 0.8 * (2 * turn - 1), 0.8 + 0.4 * size, 1.0 + 0.5 * wide, 0.05 * high)
            screen[made] = convert(_project(points, k[made]), "coco", "h36m", variant="motionbert")
        if self.drawing.keypoints is None:
            return np.concatenate([screen, np.ones_like(screen[..., :1])], axis=-1, dtype=np.float32)
        assert normal is not None  # drawn for them
        return self.drawing.keypoints.detect(screen, pose[:, :, 0, 2], k[:, 0], fps, draws, normal)


def _project(pose: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The pinhole's image of camera-space points `[B, T, J, 3]` on the normalised screen."""
    return pose[..., :2] / pose[..., 2:] * k[:, None, None, :2] + k[:, None, None, 2:]


def _between_frames(
    poses: np.ndarray | ShardedArray, first: np.ndarray, frames: np.ndarray, time: np.ndarray
) -> np.ndarray:
    """Poses at times `[B, T]` between the frames of clips that begin at row `first` `[B]` and have `frames` `[B]`."""
    last = frames[:, None] - 1
    time = time.clip(0, last)
    before = np.minimum(np.floor(time).astype(np.int64), np.maximum(last - 1, 0))
    t = (time - before).astype(np.float32)[..., None, None]
    a, b, c, d = (poses[first[:, None] + (before + k).clip(0, last)] for k in (-1, 0, 1, 2))
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
