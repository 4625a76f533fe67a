"""People made by the library itself: any number of images with exact joints, from a seed and motion."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ... import skeletons
from ...data.clips import Clip
from ...data.opening import open_motion
from ...data.synthetic import generate_clips
from ...errors import ArgumentError, check_choice, check_name, shown
from .._opencv import one_thread
from ..people import Person
from .body import Figure, build_body, sample_figure
from .clothes import sample_look
from .picture import Scene, render, visible_joints
from .scene import View, paint_background, sample_light, sample_occluders, sample_sensor, sample_view
from .surfaces import Array

__all__ = [
    "BACKGROUNDS",
    "RenderedPeople",
    "between",
    "check_facing",
    "motion_clips",
    "render_clip",
    "synthetic_people",
]

BACKGROUNDS: tuple[str, ...] = ("random", "shared")

_LARGEST = 1024  # pixels
_LONGEST = 100_000  # frames of a run
_SHOULDERS = (11, 14)  # of Human3.6M's joints
_H36M, _MPII = skeletons.get("h36m"), skeletons.get("mpii")


class RenderedPeople:
    """People of capsules with clothes, in light, before backgrounds: a :class:`~structloss.images.people.People`.

    `people[i]` depends on the arguments and i alone: not on what was asked for before, on the process or on the
    number of people; with the same numpy and OpenCV it is the same to the bit. Image content is the same at any
    `size`, but for what a sensor adds to each pixel.

    The image is the crop around the person: `centre` and `side` are those of the whole image. All joints that the
    motion knows are annotated, those outside of the image (of a person who is cut off), too. A joint is `visible` if it
    lies in the image and neither another part of the body nor an occluder is in front of it, by a ray through the joint
    itself; the parts that meet at the joint hide it only where it is deep inside, such as the far shoulder of somebody
    seen from the side.

    Args:
        count: how many, at least 1.
        size: width and height of the images, 16 to 1024 pixels.
        seed: not negative.
        motion: clips, or the path of an archive or of motion capture that clips can be read from
            (:func:`~structloss.data.opening.open_data`); None makes synthetic motion of 24 people from the seed.
        subjects: whose clips to use, by name; None uses all.
        frames: people come in runs of so many images of one person, at most 100,000: same clothes, camera, light,
            background and occluders, while the motion goes on. 1: everybody is somebody else.
        step: how many frames of the clip lie between two images of a run. A run that is longer than its clip goes back
            and forth in it.
        background: "random", a new one for each run; or "shared", one for all.
        labelled: give the 3D poses; otherwise `pose` is None, as for a data set of images alone.
        occluders: probability that something stands in front of the person.
        truncated: probability that the image shows the person in part.
        facing: the camera stands at most so many degrees away from the front of the person, as it is in the first image
            of a run; 180 is anywhere.
        in_place: take out the pelvis' movement over the floor, so that walkers stay in the image.

    Raises:
        ArgumentError: a number out of range, no clips, a path that holds no clips.
        UnknownNameError: a subject that has no clip.
        MissingDependencyError: the `images` extra (OpenCV) is not installed.
    """

    def __init__(
        self,
        count: int,
        *,
        size: int = 128,
        seed: int = 0,
        motion: Sequence[Clip] | str | os.PathLike[str] | None = None,
        subjects: Sequence[str] | None = None,
        frames: int = 1,
        step: int = 2,
        background: str = "random",
        labelled: bool = True,
        occluders: float = 0.25,
        truncated: float = 0.12,
        facing: float = 180.0,
        in_place: bool = False,
    ) -> None:
        between(1, None, count=count, step=step)
        between(1, _LONGEST, frames=frames)
        between(0, None, seed=seed)
        between(16, _LARGEST, size=size)
        for name, share in (("occluders", occluders), ("truncated", truncated)):
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ArgumentError(f"{name} is {shown(share)}, expected a probability from 0 to 1.")
        check_facing(facing)
        check_choice("background", background, BACKGROUNDS)
        with one_thread():  # says at once if OpenCV is missing
            self._clips = motion_clips(motion, seed, subjects)
        self._starts = np.cumsum([0, *(len(clip) for clip in self._clips)])
        self._count, self._size, self._seed = int(count), int(size), int(seed)
        self._frames, self._step, self._in_place = int(frames), int(step), bool(in_place)
        self._background, self._labelled = background, bool(labelled)
        self._occluders, self._truncated, self._facing = float(occluders), float(truncated), float(facing)
        self._last: tuple[int, _Run] | None = None

    @property
    def labelled(self) -> bool:
        return self._labelled

    @property
    def source(self) -> str:
        return f"rendered people of seed {self._seed}"

    @property
    def size(self) -> int:
        """Width and height of the images."""
        return self._size

    @property
    def frames(self) -> int:
        """Images per run."""
        return self._frames

    @property
    def fps(self) -> float:
        """Images per second of a run, where all clips have one rate; otherwise that of the first."""
        return self._clips[0].fps / self._step

    def __len__(self) -> int:
        return self._count

    def run_of(self, index: int) -> int:
        """Number of the run, or folder, that a person belongs to."""
        return self._checked(index) // self._frames

    def clip_of(self, index: int) -> Clip:
        """The motion of a person."""
        return self._run(self.run_of(index)).clip

    def in_motion(self, runs: int, frames: int) -> RenderedPeople:
        """The first `runs` of these people, with 3D poses, each in a run of `frames` images, in place and as a whole.

        Body, clothes and background are those of `people[i]` where that is a single image; the camera stands so that
        all of the motion is seen.

        Raises:
            ArgumentError: a number out of range.
        """
        between(1, None, runs=runs)
        return RenderedPeople(
            runs * frames, size=self._size, seed=self._seed, motion=self._clips, frames=frames, step=self._step,
            background=self._background, occluders=self._occluders, facing=self._facing, truncated=0.0, in_place=True,
        )  # fmt: skip

    def __getitem__(self, index: int) -> Person:
        """The person; raises IndexError beyond the last one."""
        number, offset = divmod(self._checked(index), self._frames)
        run = self._run(number)
        scene, view = run.scene, run.view
        pose = view.to_camera(run.poses[offset])
        body = build_body(pose, run.figure)
        image = render(body, scene, self._stream(number, _NOISE, offset))
        joints = mpii_joints(pose)
        known = run.clip.known
        annotated = np.asarray(skeletons.convert(known[:, None], "h36m", "mpii", variant="zhou"))[:, 0].copy()
        annotated[7] = known[list(_SHOULDERS)].all()
        pixels = np.where(annotated[:, None], scene.camera.project(joints, self._size), 0.0)
        middle = (self._size - 1) / 2
        return Person(
            image=image,
            centre=np.array([middle, middle], dtype=np.float32),
            side=float(self._size),
            joints=pixels.astype(np.float32),
            annotated=annotated,
            visible=annotated & visible_joints(body, scene.camera, scene.occluders, joints),
            pose=((joints - joints[_MPII.root]) * 1000).astype(np.float32) if self._labelled else None,
            name=f"rendered person {index}" if self._frames == 1 else f"rendered run {number}, frame {offset}",
            subject=run.clip.subject,
            action=run.clip.action,
        )

    def _checked(self, index: int) -> int:
        place = index + self._count if index < 0 else index
        if not 0 <= place < self._count:
            raise IndexError(f"index {index} is out of range for {self._count} people")
        return place

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, *key])

    def _run(self, number: int) -> _Run:
        """What the images of a run share. Only the last one is kept: a run is asked for in order, or frame by frame
        at random, where making it again costs as much as a frame."""
        if self._last is None or self._last[0] != number:
            self._last = (number, self._new_run(number))
        return self._last[1]

    def _new_run(self, number: int) -> _Run:
        rng = self._stream(number, _PERSON)
        chosen = int(rng.integers(self._starts[-1]))
        clip_number = int(np.searchsorted(self._starts, chosen, side="right")) - 1
        clip = self._clips[clip_number]
        start = chosen - int(self._starts[clip_number])
        last = len(clip) - 1
        if self._frames > 1:
            start = min(start, max(0, last - (self._frames - 1) * self._step))
        # Beyond the last frame the motion runs back: 0, 1, ..., last, last - 1, ..., 0, 1, ...
        places = (start + np.arange(self._frames) * self._step) % max(1, 2 * last)
        poses = clip.positions[np.where(places > last, 2 * last - places, places)].astype(np.float64)
        if self._in_place:
            poses[..., :2] -= poses[:, :1, :2] - poses[:1, :1, :2]
        # What an option can change is drawn last.
        figure, look, light, sensor = sample_figure(rng), sample_look(rng), sample_light(rng), sample_sensor(rng)
        heading = 0.0 if self._facing == 180 else _heading(poses[0])  # from anywhere is from anywhere
        view = sample_view(rng, poses.reshape(-1, 3), self._truncated, heading, self._facing)
        cameras = view.to_camera(poses)
        flat = view.camera.project(cameras[0], 1) + 0.5
        nearest = float(cameras[..., 2].min())
        things = sample_occluders(rng, flat, nearest * rng.uniform(0.7, 0.9), self._occluders)
        backdrop = self._stream(0 if self._background == "shared" else number, _BACKGROUND)
        with one_thread():
            background = paint_background(backdrop, self._size)
        up = tuple((view.rotation[:, 2]).tolist())
        scene = Scene(view.camera, up, light, look, things, background, sensor)
        return _Run(clip, poses, figure, view, scene)


# Streams of random numbers of a run, and of the noise of each of its images.
_PERSON, _BACKGROUND, _NOISE = range(3)


@dataclass(frozen=True)
class _Run:
    clip: Clip
    poses: Array  # [frames, 17, 3], world, metres
    figure: Figure
    view: View
    scene: Scene


def render_clip(
    clip: Clip,
    *,
    size: int = 128,
    seed: int = 0,
    step: int = 1,
    labelled: bool = True,
    occluders: float = 0.0,
    truncated: float = 0.0,
    in_place: bool = True,
) -> RenderedPeople:
    """All frames of a clip, every `step`-th, as people of one run: one person, one camera, one background.

    Args:
        clip: the motion.
        size, seed, step, labelled, occluders, truncated, in_place: as for :class:`RenderedPeople`. Whoever walks does
            so on the spot unless `in_place` is False; the image then takes in the whole path.

    Raises:
        ArgumentError: as there.
    """
    between(1, None, step=step)
    count = (len(clip) - 1) // step + 1
    return RenderedPeople(
        count, size=size, seed=seed, motion=[clip], frames=count, step=step, labelled=labelled, occluders=occluders,
        truncated=truncated, in_place=in_place,
    )  # fmt: skip


def mpii_joints(pose: Array) -> Array:
    """SAP-Net's 16 joints `[..., 16, 3]` of a pose `[..., 17, 3]` in Human3.6M's order: joint 7 is the middle of the
    shoulders (Zhou et al., ICCV 2017)."""
    joints = np.array(skeletons.convert(pose, "h36m", "mpii", variant="zhou"))
    joints[..., 7, :] = pose[..., list(_SHOULDERS), :].mean(-2)
    return joints


def _heading(pose: Array) -> float:
    """Where the person's front is, of a pose `[17, 3]` in the world: the angle from x towards y, radians; that of the
    hips, or of the shoulders where hips are in one place."""
    for left, right in ((4, 1), (11, 14)):
        across = pose[left, :2] - pose[right, :2]
        if np.linalg.norm(across) > 1e-6:
            return float(np.arctan2(-across[0], across[1]))  # a quarter turn clockwise from right-to-left
    return 0.0


def between(low: int, high: int | None, **values: object) -> None:
    """Raise :class:`ArgumentError` unless all are whole numbers from `low` to `high`; None is any."""
    for name, value in values.items():
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < low or (high is not None and value > high):  # type: ignore[operator]
            expected = f"at least {low}" if high is None else f"from {low} to {high}"
            raise ArgumentError(f"{name} is {shown(value)}, expected a whole number {expected}.")


def check_facing(facing: object) -> None:
    """Refuse an angle that nobody can turn by."""
    if isinstance(facing, bool) or not isinstance(facing, int | float) or not 0 <= facing <= 180:
        raise ArgumentError(f"facing is {shown(facing)}, expected degrees from 0 to 180.")


def motion_clips(
    motion: Sequence[Clip] | str | os.PathLike[str] | None, seed: int, subjects: Sequence[str] | None
) -> tuple[Clip, ...]:
    """The clips of these subjects, None for all; arguments as of :class:`RenderedPeople`."""
    if motion is None:
        found = synthetic_people(seed)
    elif isinstance(motion, str | os.PathLike):
        found = tuple(open_motion(motion))
    else:
        found = tuple(clip for clip in motion if isinstance(clip, Clip)) if isinstance(motion, Sequence) else ()
        if not isinstance(motion, Sequence) or len(found) != len(motion):
            raise ArgumentError(f"motion is {shown(motion)}, expected clips, a path or None.")
    if not found:
        raise ArgumentError("motion has no clips, expected at least one.")
    if subjects is None:
        return found
    known = sorted({clip.subject for clip in found})
    if isinstance(subjects, str) or not subjects:
        raise ArgumentError(f"subjects is {shown(subjects)}, expected a non-empty sequence of names.")
    wanted = {check_name("subject", subject, known) for subject in subjects}
    return tuple(clip for clip in found if clip.subject in wanted)


@lru_cache(maxsize=4)
def synthetic_people(seed: int) -> tuple[Clip, ...]:
    """The motion of 24 people that is rendered where no other is given."""
    return tuple(generate_clips(num_subjects=24, clips_per_subject=6, frames=100, seed=seed))
