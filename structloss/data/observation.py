"""Clips seen by cameras: motion in the world to the keypoints and camera-space poses that networks train on."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import ArgumentError, DataError, check_choice
from ..progress import track
from ..skeletons import convert
from ._checks import at_least
from ._words import count, some
from .cameras import Camera, h36m_cameras
from .clips import Clip
from .conditions import DETECTIONS, Detections
from .store import PoseStore, View

__all__ = ["DETECTIONS", "TOO_NEAR", "check_observing", "observe"]

Cameras = Callable[[int, Clip], Sequence[Camera]] | Sequence[Sequence[Camera]]

TOO_NEAR = ("error", "move")
_RIGS = {"train": ("S1", "S5", "S6", "S7", "S8"), "test": ("S9", "S11")}
_NEAREST = 0.3  # metres; closer to the image plane, the pinhole's image and the image scale mean nothing


def observe(
    clips: Sequence[Clip],
    split: str = "train",
    *,
    cameras: Cameras | None = None,
    views: int | None = None,
    detections: str = "simulated",
    seed: int = 0,
    recentre: bool = True,
    skeleton: str = "h36m",
    too_near: str = "error",
    progress: bool = False,
) -> PoseStore:
    """Put cameras around each clip, detect the joints in 2D, and keep both.

    Joints that a clip does not know have weight 0; nobody detects them.

    Args:
        clips: what the cameras see; keys must differ.
        split: "train" or "test"; decides on the default cameras.
        cameras: `cameras(clip index, clip)` or one sequence per clip. Default: the four Human3.6M cameras of a subject;
            training subjects cycle through the rigs of S1, S5, S6, S7, S8, test subjects through S9, S11.
        views: number of cameras of each clip, the first ones; None for all.
        detections: one of :data:`~structloss.data.conditions.DETECTIONS`.
        seed: of what is random in them. They depend on it, the clip's subject and name, and the view only.
        recentre: move each clip so that its mean hip stands on the origin, where the cameras look.
        skeleton: joint order of the store: "h36m", that of clips, or one that it converts to.
        too_near: what becomes of a clip that comes closer than 0.3 m to a camera's image plane, or behind it: "error",
            or "move": that camera moves back, along its line of sight, until all of the clip is in the picture; it is
            noted in `source["notes"]`.
        progress: show a progress bar on a terminal.

    Raises:
        ArgumentError: an argument out of range, or too few cameras for a clip.
        DataError: no clips, two with the same key, or a person too near to a camera where that is an error.
        UnknownNameError: an unknown skeleton, or one that clips can't be converted to.
    """
    check_choice("split", split, tuple(_RIGS))
    check_observing(detections, seed, views)
    check_choice("too_near", too_near, TOO_NEAR)
    if not clips:
        raise DataError("clips is empty, expected at least one clip.")
    seen_keys: set[str] = set()
    for clip in clips:
        if clip.key in seen_keys:
            raise DataError(f"two clips are called {clip.key!r}, expected different names.")
        seen_keys.add(clip.key)
    clips = [clip.centred() for clip in clips] if recentre else list(clips)
    rigs = _rigs(clips, split, cameras, views)
    found: list[View] = []
    poses, inputs, weights, offset = [], [], [], 0
    moved: dict[str, int] = {}  # clip -> cameras
    for c, clip in track(list(enumerate(clips)), "2D detections", progress):
        for v, camera in enumerate(rigs[c]):
            pose, seen, away = seen_by(clip, camera, v, detections, seed, skeleton, too_near)
            if away:
                moved[clip.key] = moved.get(clip.key, 0) + 1
            found.append(view_by(clip, camera, v, offset, len(clip)))
            offset += len(clip)
            poses.append(pose)
            inputs.append(seen)
            weights.append(np.broadcast_to(weight_of(clip, skeleton), seen.shape[:2]))
    source = source_of(detections, seed, moved)
    weight = np.concatenate(weights)
    return PoseStore(
        tuple(found), np.concatenate(inputs), np.concatenate(poses), None if weight.all() else weight,
        skeleton=skeleton, source=source,
    )  # fmt: skip


def view_by(clip: Clip, camera: Camera, view: int, start: int, frames: int) -> View:
    """What a store says of a clip as one camera sees it; the clip's positions make no difference."""
    fx, fy, cx, cy = map(float, camera.screen_intrinsics())
    return View(
        clip.subject, clip.action, clip.name, camera.id, view, start, frames, clip.fps,
        (float(camera.width), float(camera.height)), (fx, fy, cx, cy), camera.up,
    )  # fmt: skip


def seen_by(
    clip: Clip, camera: Camera, view: int, detections: str, seed: int, skeleton: str, too_near: str
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Poses in the camera's frame and 2D of a clip, float32 `[T, J, 3]`, and whether the camera had to move back."""
    near = _nearest(clip, camera) < _NEAREST
    pose, seen = _see(clip, _moved_back(clip, camera, too_near) if near else camera, view, detections, seed)
    return convert(pose, "h36m", skeleton), convert(seen, "h36m", skeleton), near


def source_of(detections: str, seed: int, moved: Mapping[str, int]) -> dict[str, Any]:
    """What a store says of where it is from; `moved` are the cameras of each clip that moved back."""
    source: dict[str, Any] = {"format": "clips", "protocol": "subjects", "detections": detections, "seed": seed}
    if moved:
        source["notes"] = [
            f"{count(sum(moved.values()), 'camera')} moved back until the whole clip is in the picture, since somebody "
            f"came closer than {_NEAREST:g} m: {some(f'{n} of {key}' for key, n in moved.items())}"
        ]
    return source


def default_rigs(subjects: Sequence[str], split: str = "train") -> list[str]:
    """The Human3.6M subject by whose cameras the clips of each of `subjects` are seen."""
    names = _RIGS[split]
    order = {subject: i for i, subject in enumerate(sorted(set(subjects)))}
    return [names[order[subject] % len(names)] for subject in subjects]


def check_observing(detections: str, seed: int, views: int | None, most: int | None = None) -> None:
    """Raise :class:`ArgumentError` for arguments of :func:`observe` that no clips would go with.

    Args:
        detections, seed, views: see :func:`observe`.
        most: cameras that there are, where that is known.
    """
    Detections.of(detections)
    at_least(0, seed=seed)
    if views is not None and not 1 <= views <= (most or views):
        raise ArgumentError(f"views is {views}, expected {f'1 to {most} cameras' if most else 'at least 1 camera'}.")


def _rigs(clips: Sequence[Clip], split: str, cameras: Cameras | None, views: int | None) -> list[Sequence[Camera]]:
    """The cameras of each clip."""
    if cameras is None:
        rigs: list[Sequence[Camera]] = [h36m_cameras(name) for name in default_rigs([c.subject for c in clips], split)]
    elif callable(cameras):
        rigs = [cameras(i, clip) for i, clip in enumerate(clips)]
    else:
        if len(cameras) != len(clips):
            raise ArgumentError(f"cameras has {len(cameras)} entries, expected {len(clips)}, one per clip.")
        rigs = list(cameras)
    for clip, rig in zip(clips, rigs, strict=True):
        if len(rig) < (views or 1):
            raise ArgumentError(f"clip {clip.key!r} has {len(rig)} cameras, expected at least {views or 1}.")
    return [rig[:views] for rig in rigs]


def _nearest(clip: Clip, camera: Camera) -> float:
    """The smallest depth of the clip's joints in front of a camera, metres."""
    return float(camera.to_camera(clip.positions)[..., 2].min())


def _moved_back(clip: Clip, camera: Camera, too_near: str) -> Camera:
    """The camera, so far behind its place that it has the whole clip in the picture."""
    if too_near == "error":
        raise DataError(
            f"clip {clip.key!r} comes within {_nearest(clip, camera):.2f} m of the image plane of camera {camera.id}, "
            f"expected at least {_NEAREST} m; leave the clip out, or pass cameras farther away."
        )
    points = camera.to_camera(clip.positions)
    # x / (z + d) stays within the picture to its nearer edge, and so does y; at an arm's length at least
    size, centre = np.array([camera.width, camera.height]), np.array(camera.center)
    edge = np.minimum(centre, size - centre) / np.array(camera.focal)
    distance = max(float((np.abs(points[..., :2]) / edge - points[..., 2:]).max()), 1.0 - points[..., 2].min())
    return replace(camera, position=camera.position - distance * camera.rotation[2])


def weight_of(clip: Clip, skeleton: str) -> np.ndarray:
    """uint8 `[J]`: 1 for the joints of the skeleton that are made of known ones alone."""
    known = np.stack([np.zeros(len(clip.known)), clip.known], axis=-1)
    return convert(known, "h36m", skeleton, confidence=True)[:, 1].astype(np.uint8)


def _see(clip: Clip, camera: Camera, view: int, detections: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pose in the camera's frame and network input, both float32 `[T, 17, 3]`."""
    points = camera.to_camera(clip.positions)
    # Keyed by name, so a clip looks the same whatever else is in the set, and in whatever order it is prepared.
    rng = np.random.default_rng([seed, zlib.crc32(clip.key.encode()), view])
    seen = Detections.of(detections).of_clip(points, camera, clip.fps, rng)
    seen[:, ~clip.known] = 0
    return points.astype(np.float32), seen.astype(np.float32)
