"""Human3.6M as MotionBERT's pickle: detections, targets in image space, and how to get from there to millimetres."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ...errors import DataError, shown
from ..cameras import h36m_cameras, normalize_screen
from ..store import PoseStore, View
from ._assemble import Frames, assemble, checked, frame_counts, member
from .h36m_npz import action_of, camera_view
from .registry import FORMATS, Format
from .unpickle import load_pickle

__all__ = ["ACTS", "EXCLUDED", "Split", "read_h36m_pickle", "read_split"]

_NAMES = (
    "Directions Discussion Eating Greeting Phoning Posing Purchases Sitting SittingDown Smoking Photo Waiting Walking "
    "WalkDog WalkTogether"
)
ACTS = dict(enumerate(_NAMES.split(), start=2))
"""Actions by the number in `s_09_act_05_subact_02_ca_01`."""

EXCLUDED = ("s_09_act_05_subact_02", "s_09_act_10_subact_02", "s_09_act_13_subact_01")
"""Motions of S9 whose ground truth is wrong, and which are not scored."""

_SOURCE = re.compile(r"s_(\d+)_act_(\d+)_subact_(\d+)_ca_(\d+)")
_CAMERAS = {camera.id: (index, camera) for index, camera in enumerate(h36m_cameras("S1"))}  # intrinsics are the same


@dataclass(frozen=True)
class Split:
    """One half of the pickle, N frames of all videos in a row.

    Attributes:
        views: one view per video, with `start` and `frames` in the arrays.
        keypoints: `[N, 17, 2]`, pixels; confidence `[N, 17]` or None.
        target: `[N, 17, 3]`, image space, pixels.
        factor: `[N]` mm per pixel and pose `[N, 17, 3]` mm; None in the training half.
    """

    views: tuple[View, ...]
    keypoints: np.ndarray
    confidence: np.ndarray | None
    target: np.ndarray
    factor: np.ndarray | None = None
    pose: np.ndarray | None = None

    def label(self, view: View, rows: slice | np.ndarray) -> np.ndarray:
        """Targets of some frames of a view on the normalised screen, `[n, 17, 3]` float64."""
        width, height = view.size
        target = self.target[rows].astype(np.float64)
        return np.concatenate(
            [normalize_screen(target[..., :2], width, height), target[..., 2:] * (2 / width)], axis=-1
        )

    def frames(self, view: View) -> Frames:
        """A view's frames."""
        rows = slice(view.start, view.start + view.frames)
        screen = normalize_screen(self.keypoints[rows].astype(np.float64), *view.size)
        confidence = None if self.confidence is None else self.confidence[rows]
        factor, pose = self.millimetres(view, rows)
        return Frames(screen, pose, confidence, label=self.label(view, rows), factor=factor)

    def millimetres(self, view: View, rows: slice | np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Millimetres per unit of the label, `[n]`, and scored poses in metres, `[n, 17, 3]`, where published."""
        if self.factor is None or self.pose is None:
            return None, None
        return self.factor[rows] * (view.size[0] / 2), self.pose[rows] / 1000


def read_h36m_pickle(path: str | os.PathLike[str], *, progress: bool = False) -> PoseStore:
    """Read `h36m_sh_conf_cam_source_final.pkl`, or a file of its layout; it is unpickled safely.

    Labels are the published targets. Poses and `factor` are published for the test half only, which is what is scored
    in millimetres: in the training half poses are 0 and `factor` is NaN.

    Args:
        path: the pickle.
        progress: show a progress bar on a terminal.

    Returns:
        Skeleton "h36m", 50 frames per second, one view per video: subject and motion from `source`
        (`s_09_act_05_subact_02_ca_01` is "S9" and "s_09_act_05_subact_02").

    Raises:
        MissingFileError: there is no such file.
        DataError: a damaged file or one that refers to code; a key or camera that is missing or unknown; other shapes;
            a subject in both halves.
    """
    content = load_pickle(path)
    pieces: list[tuple[View, Callable[[], Frames]]] = []
    subjects: dict[str, set[str]] = {}
    for name in ("train", "test"):
        split = read_split(member(content, name, str(path)), f"{name!r} of {path}", scored=name == "test")
        subjects[name] = {view.subject for view in split.views}
        pieces += [(view, partial(split.frames, view)) for view in split.views]
    both = sorted(subjects["train"] & subjects["test"])
    if both:
        raise DataError(f"{path} has subject {both[0]} in 'train' and in 'test', expected it in one of them.")
    source = {
        "format": "h36m-pickle",
        "protocol": "h36m-2.5d",
        "notes": ["poses in millimetres are published for the test subjects only"],
        "scored": sorted(subjects["test"]),
    }
    return assemble(pieces, skeleton="h36m", source=source, labels=True, progress=progress)


def read_split(content: object, what: str, *, scored: bool) -> Split:
    """Check one half of the pickle; `scored` halves have factors and poses in millimetres."""
    keypoints = member(content, "joint_2d", what)
    channels = keypoints.shape[2] if isinstance(keypoints, np.ndarray) and keypoints.ndim == 3 else 2
    keypoints = checked(keypoints, f"joint_2d in {what}", (None, 17, max(2, channels)))[..., :2]
    frames = len(keypoints)
    confidence = content.get("confidence") if isinstance(content, Mapping) else None
    if confidence is not None:
        trailing = getattr(confidence, "ndim", 2) == 3
        confidence = checked(confidence, f"confidence in {what}", (frames, 17, 1) if trailing else (frames, 17))
        confidence = confidence.reshape(frames, 17)
    target = checked(member(content, "joint3d_image", what), f"joint3d_image in {what}", (frames, 17, 3))
    factor = pose = None
    if scored:
        factor = np.asarray(member(content, "2.5d_factor", what))
        factor = checked(factor, f"2.5d_factor in {what}", (frames, 1) if factor.ndim == 2 else (frames,)).reshape(-1)
        pose = checked(member(content, "joints_2.5d_image", what), f"joints_2.5d_image in {what}", (frames, 17, 3))
    names = {key: _column(content, key, what, frames) for key in ("source", "camera_name", "action")}
    return Split(_views(what, **names), keypoints, confidence, target, factor, pose)


def _column(content: object, key: str, what: str, frames: int) -> np.ndarray:
    """One word or number per frame."""
    values = np.asarray(member(content, key, what))
    if values.shape != (frames,):
        raise DataError(f"{key} in {what} has shape {list(values.shape)}, expected [{frames}], one per frame.")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "latin1")
    return values


def _views(what: str, source: np.ndarray, camera_name: np.ndarray, action: np.ndarray) -> tuple[View, ...]:
    """A view for each run of frames from the same video."""
    starts = np.flatnonzero(np.concatenate([[True], source[1:] != source[:-1]]))
    views = []
    for start, end in zip(starts, [*starts[1:], len(source)], strict=True):
        name = str(source[start])
        parts = _SOURCE.fullmatch(name)
        if parts is None:
            raise DataError(f"source of frame {start} in {what} is {shown(name)}, expected s_.._act_.._subact_.._ca_..")
        for key, values in (("camera_name", camera_name), ("action", action)):
            if (values[start:end] != values[start]).any():
                raise DataError(f"{key} in {what} changes within video {shown(name)}, expected one for all its frames.")
        identity = str(camera_name[start])
        if identity not in _CAMERAS:
            raise DataError(
                f"camera_name of {shown(name)} in {what} is {shown(identity)}, expected one of {', '.join(_CAMERAS)}."
            )
        index, camera = _CAMERAS[identity]
        what_done = _action(action[start], int(parts[2]))
        view = camera_view(camera, index, f"S{int(parts[1])}", what_done, name[:-6], int(end - start))
        views.append(replace(view, start=int(start)))
    return tuple(views)


def _action(value: object, act: int) -> str:
    """The action's name: the file's own if it is one, else that of the number."""
    word = str(value)
    known = {name.lower(): name for name in ACTS.values()}
    if not word.isdecimal():
        return known.get(action_of(word).lower(), word)
    return ACTS.get(int(word) if int(word) in ACTS else act, f"act_{act:02d}")


FORMATS.register(
    Format(
        "h36m-pickle",
        "Human3.6M as MotionBERT's pickle",
        read_h36m_pickle,
        suffixes=(".pkl", ".pickle"),
        problems=frame_counts((("S1", "S5", "S6", "S7", "S8"), 1_559_752), (("S9", "S11"), 566_920)),
    )
)
