"""Folders of rendered frames for shape templates: each of one person before one background, in many poses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

import numpy as np

from ...data.clips import Clip
from ...data.synthetic import generate_clips
from ...errors import ArgumentError, shown
from .._opencv import one_thread
from ..frames.arms import arms_down, arms_out
from ..frames.crops import GRID, SIDE
from ..frames.folders import H36M17_JOINTS, JOINT_COUNT, Frame
from .body import Body, Figure, build_body, sample_figure
from .clothes import sample_look
from .people import between, check_facing, motion_clips
from .picture import Scene, render
from .poses import hang_arms, headings, stretch_arms, turned, upright
from .renderer import Pinhole
from .scene import View, paint_background, sample_light, sample_sensor
from .surfaces import Array

__all__ = ["RenderedFolders", "synthetic_motion"]

_LARGEST, _LONGEST = 1024, 100_000  # pixels, frames
_TRIES = 40
_HELD = 64  # folders whose person, camera and background are kept
_OUT_FACING = 35.0  # degrees: arms of somebody who turns further are not out in the image
_OTHER_ARMS = 0.7  # share of the frames whose arms are not those of the motion
_STANDING = 1.06  # height of a body, of that of its joints

# Streams of random numbers.
_FOLDER, _FRAME, _BACKGROUND, _NOISE, _WHICH = range(10, 15)


class RenderedFolders:
    """Rendered frames in folders: a :class:`~structloss.images.frames.folders.FrameFolders`.

    A folder has one person, one camera and one background. People stand or walk upright, their arms hang, but for one
    frame in `ratio` + 1, where they are stretched out sideways; either is what
    :func:`~structloss.images.frames.arms.arms_down` and :func:`~structloss.images.frames.arms.arms_out` say of the
    joints in the image. A frame depends on the arguments and its numbers alone.

    Images are cropped by the rule of :mod:`structloss.images.frames.crops`, as Human3.6M's frames are: the person's box
    in the camera's image, snapped to the grid, has the folder's height and centre in every frame (and with them the
    crop, and its background); its width may differ [ours: in the published set it doesn't].

    Joints are the true ones, also where hidden. What they are called is told at
    :data:`~structloss.images.frames.folders.H36M17_JOINTS`.

    Args:
        count: folders.
        frames: in each.
        size: width and height of the images, 16 to 1024 pixels.
        seed: not negative.
        ratio: frames with arms down for each one with arms out, above 0; infinity is none of these. In every
            ceil(ratio) + 1 frames in a row, across folders, one has arms out.
        facing: people turn away from the camera by at most so many degrees; 180 is any way. Those with arms out by at
            most 35.
        motion: clips, or a path that clips can be read from; None makes synthetic motion of 24 people from the seed.
        subjects: whose clips to use, by name; None uses all.
        first: number of the first folder: others are other people before other backgrounds.

    Raises:
        ArgumentError: a number out of range, no clips, a path that holds no clips.
        UnknownNameError: a subject that has no clip.
        MissingDependencyError: the `images` extra (OpenCV) is not installed.
    """

    def __init__(
        self,
        count: int,
        frames: int = 40,
        *,
        size: int = 128,
        seed: int = 0,
        ratio: float = 40.0,
        facing: float = 45.0,
        motion: Sequence[Clip] | str | os.PathLike[str] | None = None,
        subjects: Sequence[str] | None = None,
        first: int = 0,
    ) -> None:
        between(1, None, count=count)
        between(1, _LONGEST, frames=frames)
        between(0, None, seed=seed, first=first)
        between(16, _LARGEST, size=size)
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not ratio > 0:
            raise ArgumentError(f"ratio is {shown(ratio)}, expected frames with arms down for one with arms out.")
        check_facing(facing)
        with one_thread():  # says at once if OpenCV is missing
            self._clips = motion_clips(synthetic_motion(seed) if motion is None else motion, seed, subjects)
        self._count, self._frames, self._size, self._seed = int(count), int(frames), int(size), int(seed)
        self._ratio, self._facing, self._first = float(ratio), float(facing), int(first)
        self._subjects = sorted({clip.subject for clip in self._clips})
        self._standing: dict[str, Array] = {}
        self._held: dict[int, _Folder] = {}

    @property
    def source(self) -> str:
        return f"rendered folders of seed {self._seed}"

    @property
    def folders(self) -> tuple[str, ...]:
        return tuple(f"rendered-{self._first + number:05d}" for number in range(self._count))

    @property
    def lengths(self) -> tuple[int, ...]:
        return (self._frames,) * self._count

    def joints(self, folder: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Joints `[15, 2]` of a frame, pixels of its image, and which are annotated, `[15]`: all of them."""
        held = self._folder(folder)
        pose, _, camera = self._posed(held, number)
        return self._pixels(pose, camera), np.ones(JOINT_COUNT, bool)

    def frame(self, folder: int, number: int) -> Frame:
        """A frame; raises IndexError where there is none."""
        held = self._folder(folder)
        pose, body, camera = self._posed(held, number)
        scene = replace(held.scene, camera=camera)
        image = render(body, scene, self._stream(held.number, _NOISE, number))
        box = _box(body, camera)
        return Frame(
            image=image,
            joints=self._pixels(pose, camera),
            annotated=np.ones(JOINT_COUNT, bool),
            diagonal=float(np.hypot(box[2] - box[0], box[3] - box[1]) * self._size),
            name=f"frame {number} of {self.folders[folder]}",
        )

    def box(self, folder: int, number: int) -> Array:
        """The person's box in a frame, in sides of the image: left, top, right, bottom, float64 `[4]`."""
        _, body, camera = self._posed(self._folder(folder), number)
        return _box(body, camera)

    def cells(self, folder: int) -> int:
        """How many cells of the grid the folder's snapped boxes are high."""
        return self._folder(folder).cells

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *key])

    def _pixels(self, pose: Array, camera: Pinhole) -> np.ndarray:
        flat: np.ndarray = camera.project(pose[list(H36M17_JOINTS)], self._size).astype(np.float32)
        return flat

    # ---- what the frames of a folder share ----

    def _folder(self, folder: int) -> _Folder:
        if not 0 <= folder < self._count:
            raise IndexError(f"folder {folder} is out of range for {self._count} folders")
        number = self._first + folder
        if number not in self._held:
            if len(self._held) >= _HELD:
                self._held.pop(next(iter(self._held)))
            self._held[number] = self._new_folder(number)
        return self._held[number]

    def _new_folder(self, number: int) -> _Folder:
        rng = self._stream(number, _FOLDER)
        poses = self._poses(self._subjects[int(rng.integers(len(self._subjects)))])
        figure, look, light, sensor = sample_figure(rng), sample_look(rng), sample_light(rng), sample_sensor(rng)
        pitch = np.radians(np.clip(rng.normal(7, 4), -2, 18))
        roll = np.radians(np.clip(rng.normal(0, 1.2), -3, 3))
        distance = rng.uniform(3.5, 6.5)
        heights = poses[..., 2]
        stature = float((heights.max(1) - heights.min(1)).max()) * _STANDING
        cells, columns = int(rng.integers(2, 5)), int(rng.integers(1, 3))
        fill = rng.uniform(0.82, 0.97)  # of the snapped box's height
        focal = fill * _HIGH * distance / stature
        backward = np.array([np.cos(pitch), 0.0, np.sin(pitch)])
        right, down = np.array([0.0, 1.0, 0.0]), np.array([np.sin(pitch), 0.0, -np.cos(pitch)])
        c, s = np.cos(roll), np.sin(roll)
        rotation = np.stack([c * right + s * down, c * down - s * right, -backward])
        target = np.array([0.0, 0.0, float(heights.mean())])
        view = View(rotation, target + distance * backward, Pinhole(focal, (0.5, 0.5)))
        with one_thread():
            background = paint_background(self._stream(number, _BACKGROUND), self._size)
        up = tuple((rotation[:, 2]).tolist())
        scene = Scene(view.camera, up, light, look, (), background, sensor)
        return _Folder(number, poses, figure, view, scene, cells, columns)

    def _poses(self, subject: str) -> Array:
        """The upright poses of a subject, `[N, 17, 3]`; those that stand the highest where none is."""
        if subject not in self._standing:
            poses = np.concatenate([clip.positions for clip in self._clips if clip.subject == subject])
            poses = poses.astype(np.float64)
            standing = upright(poses)
            if not standing.any():
                standing = poses[:, 0, 2] >= np.quantile(poses[:, 0, 2], 0.75)
            self._standing[subject] = poses[standing]
        return self._standing[subject]

    # ---- a frame ----

    def _is_out(self, number: int, frame: int) -> bool:
        """Whether a frame has arms out: one, at random, of each `ratio` + 1 in a row across folders."""
        if self._ratio == float("inf"):
            return False
        place = number * self._frames + frame
        period = ceil(self._ratio) + 1
        block, offset = divmod(place, period)
        return offset == int(self._stream(block, _WHICH).integers(period))

    def _posed(self, folder: _Folder, frame: int) -> tuple[Array, Body, Pinhole]:
        """Pose and body in the camera's frame, and the camera, which looks a little to the side: that moves the person
        over the background as a walk would, and keeps its perspective."""
        if not 0 <= frame < self._frames:
            raise IndexError(f"frame {frame} is out of range for {self._frames} frames of a folder")
        rng = self._stream(folder.number, _FRAME, frame)
        out = self._is_out(folder.number, frame)
        for attempt in range(_TRIES + 1):
            last = attempt == _TRIES
            pose = folder.poses[int(rng.integers(len(folder.poses)))]
            facing = min(self._facing, _OUT_FACING) if out else self._facing
            front = 0.0 if last else np.radians(rng.uniform(-facing, facing))
            pose = turned(pose, front - float(headings(pose[None])[0]))
            if out:
                pose = stretch_arms(rng, pose)
            elif last or rng.random() < _OTHER_ARMS:
                pose = hang_arms(rng, pose)
            seen = folder.view.to_camera(pose)
            joints = folder.view.camera.project(seen[list(H36M17_JOINTS)], 1)
            if not last and not (arms_out if out else arms_down)(joints):
                continue
            body = build_body(seen, folder.figure)
            camera = _placed(rng, folder, _box(body, folder.view.camera))
            if camera is not None or last:
                break
        return seen, body, camera or folder.view.camera


_HIGH = GRID / SIDE  # height of the snapped box, in sides of the crop


@dataclass(frozen=True)
class _Folder:
    number: int
    poses: Array  # [N, 17, 3], world, metres
    figure: Figure
    view: View
    scene: Scene
    cells: int  # of the snapped box: height, and least width
    columns: int


def _box(body: Body, camera: Pinhole) -> Array:
    """The box of a body in the image, in its sides: left, top, right, bottom."""
    x0, x1, y0, y1 = body.capsules.mapped.boxes.T
    rays = np.array([x0.min(), y0.min(), x1.max(), y1.max()])
    found: Array = rays * camera.focal + np.array([*camera.centre, *camera.centre])
    return found


def _placed(rng: np.random.Generator, folder: _Folder, box: Array) -> Pinhole | None:
    """The camera, moved at random so that the person's box has the folder's snapped box; None where none does."""
    cell = _HIGH / folder.cells
    width, height = float(box[2] - box[0]), float(box[3] - box[1])
    top = _between_lines(folder.cells, cell, height)
    if top is None:
        return None
    columns = folder.columns
    while (left := _between_lines(columns, cell, width)) is None:  # around the same middle
        columns += 2
        if columns > 64:
            return None
    # Whole people if the rule leaves the choice.
    low, high = max(left[0], 0.01), min(left[1], 0.99 - width)
    left = (low, high) if low < high else left
    x, y = (edge[0] + (edge[1] - edge[0]) * rng.uniform(0.02, 0.98) for edge in (left, top))
    camera = folder.view.camera
    return replace(camera, centre=(float(camera.centre[0] + x - box[0]), float(camera.centre[1] + y - box[1])))


def _between_lines(cells: int, cell: float, length: float) -> tuple[float, float] | None:
    """From where to where an interval of this length may begin to reach into the first and the last of the cells around
    the image's middle; None where it can't."""
    start, end = 0.5 - cells * cell / 2, 0.5 + cells * cell / 2
    low, high = max(start, end - cell - length), min(start + cell, end - length)
    return (low, high) if low < high else None


@lru_cache(maxsize=4)
def synthetic_motion(seed: int) -> list[Clip]:
    """Twelve seconds of each action: in two, as for single images, nobody takes many poses."""
    return generate_clips(num_subjects=24, clips_per_subject=6, frames=120, fps=10.0, seed=seed)
