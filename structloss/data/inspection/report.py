"""The report on a data set of any format: what it holds, and what looks wrong with it."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...progress import track
from ...skeletons import get
from ...text import visible
from .._words import count, some
from ..clips import Clip
from ..formats.detect import FORMATS, recognise
from ..opening import open_data
from ..protocols import PROTOCOLS
from ..store import PoseStore, checksum, view_checksum
from ..views import columns, names
from .bodies import BodyChecks
from .protocol import protocol_problems
from .views import ViewChecks

__all__ = ["Report", "inspect_data", "inspect_loaded"]

_UP = 0.3  # share of the body height by which heads are above ankles, if z points up
_USUAL = 1.6  # metres, where no head is known
_PIECE = 2**16  # frames of a view that are inspected at a time


@dataclass
class Report:
    """What :func:`inspect_data` found.

    Attributes:
        path, format, description: what was inspected.
        kind: "clips" (motion in the world) or "views" (what cameras saw).
        skeleton, joints: name and number of joints.
        units: of `extent`.
        subjects, actions, cameras: their names.
        motions, sequences, frames: how many; a sequence is a clip or a view.
        lengths: shortest, median and longest sequence, frames.
        fps: rates; empty where none is known.
        seconds: duration of the motions, as far as rates are known.
        image_sizes: width and height of the images, pixels.
        keypoints: of views: range of x and y on the normalised screen, share outside the image, range of confidence.
        extent: smallest and largest x, y, z of the known joints: in the world, or in the cameras' frames.
        heights: subject -> body height along the bones (leg length where the skeleton has no head top), metres.
        bones: bone -> mean length and its deviation within a subject, mm.
        known: share of joints whose pose counts.
        protocol: rules by which it is split, and in words.
        notes: what to know.
        problems: what looks wrong, a sentence each.
    """

    path: str
    format: str
    description: str
    kind: str
    skeleton: str
    joints: int
    units: str = "metre"
    subjects: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    cameras: list[str] = field(default_factory=list)
    motions: int = 0
    sequences: int = 0
    frames: int = 0
    lengths: dict[str, float] = field(default_factory=dict)
    fps: list[float] = field(default_factory=list)
    seconds: float = 0.0
    image_sizes: list[list[float]] = field(default_factory=list)
    keypoints: dict[str, Any] = field(default_factory=dict)
    extent: dict[str, list[float]] = field(default_factory=dict)
    heights: dict[str, float] = field(default_factory=dict)
    bones: dict[str, dict[str, float]] = field(default_factory=dict)
    known: float = 1.0
    protocol: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, text and lists, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [
            ("path", self.path),
            ("format", f"{self.format}: {self.description}"),
            ("subjects", _listed(self.subjects)),
            ("actions", _listed(self.actions, 8)),
        ]
        if self.kind == "views":
            sizes = ", ".join(f"{w:g} x {h:g}" for w, h in self.image_sizes)
            rows.append(("cameras", _listed(self.cameras) + (f", {sizes} px" if sizes else "")))
        lengths = f"{self.lengths['shortest']:g} to {self.lengths['longest']:g} per {self.kind[:-1]}"
        lengths += f", median {self.lengths['median']:g}"
        rates = f"{', '.join(f'{rate:g}' for rate in self.fps)} fps" if self.fps else "unknown fps"
        duration = f", {self.seconds / 60:.1f} min" if self.seconds else ""
        rows += [
            ("motions", f"{self.motions} in {count(self.sequences, self.kind[:-1])}"),
            ("frames", f"{self.frames}; {lengths}; {rates}{duration}"),
            ("skeleton", f"{self.skeleton}, {self.joints} joints; {self.known:.1%} of them known"),
        ]
        if self.keypoints:
            x, y, score = (self.keypoints[key] for key in ("x", "y", "confidence"))
            outside = f"; {self.keypoints['outside']:.2%} outside the image" if "outside" in self.keypoints else ""
            rows.append(
                ("keypoints", f"x' {_range(x)}, y' {_range(y)}, normalised; confidence {_range(score)}{outside}")
            )
        if self.extent:
            where = "world" if self.kind == "clips" else "camera"
            ranges = ", ".join(f"{axis} {_range(values)}" for axis, values in self.extent.items())
            rows.append(("poses", f"{ranges} {self.units}s, {where} frame"))
        if self.heights:
            # as BodyChecks.heights: where nothing tells the top of the head, of the leg
            known = {"HeadTop", "Head"} & set(get(self.skeleton).joint_names)
            part = "bodies" if known else "legs"
            rows.append((part, _listed([f"{name} {height:.2f} m" for name, height in self.heights.items()])))
        if self.protocol:
            rows.append(("protocol", f"{self.protocol['name']}: {self.protocol['text']}"))
        lines = [f"{name:10} {text}" for name, text in rows]
        lines += [f"note       {text}" for text in self.notes]
        lines += [f"PROBLEM    {text}" for text in self.problems] or ["problems   none found"]
        return "\n".join(map(visible, lines))  # names in a file may hold anything


def _listed(names: Sequence[str], most: int = 12) -> str:
    return f"{len(names)}: {some(names, most)}" if names else "none"


def _range(values: Sequence[float]) -> str:
    return f"{values[0]:.3g} to {values[1]:.3g}"


def inspect_data(path: str | os.PathLike[str], *, progress: bool = False, **options: Any) -> Report:
    """Read a data set and inspect all of it.

    Args:
        path: any file or folder that :func:`open_data` reads.
        progress: show progress bars on a terminal.
        options: those of :func:`open_data`.

    Raises:
        MissingFileError, DataError, ArgumentError: as :func:`open_data`.
    """
    kind = recognise(path, options.get("format")).name
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = open_data(path, progress=progress, **options)
    report = inspect_loaded(data, kind, str(Path(path)), progress=progress)
    report.notes += dict.fromkeys(" ".join(str(warning.message).split()) for warning in said)
    return report


def inspect_loaded(data: PoseStore | Sequence[Clip], kind: str, path: str = "", *, progress: bool = False) -> Report:
    """The same for data that is in memory already; `kind` is one of :data:`~structloss.data.formats.detect.FORMATS`."""
    report = Report(path, kind, FORMATS[kind].says, "views", "h36m", 17)
    if isinstance(data, PoseStore):
        return _inspect_store(data, report, progress)
    return _inspect_clips(data, report, progress)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts S9 before S11."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _duration(sequences: Iterable[tuple[str, int, float]]) -> float:
    """Seconds of (motion, frames, rate), each motion once, however many cameras saw it."""
    motions = {motion: frames / rate for motion, frames, rate in sequences}
    return float(sum(seconds for seconds in motions.values() if math.isfinite(seconds)))


def _sequences(report: Report, frames: Sequence[int], rates: Sequence[float]) -> None:
    report.sequences, report.frames = len(frames), int(sum(frames))
    if frames:
        report.lengths = {
            "shortest": int(min(frames)),
            "median": float(np.median(frames)),
            "longest": int(max(frames)),
        }
    report.fps = sorted({rate for rate in rates if math.isfinite(rate)})
    if len(report.fps) > 1:
        report.notes.append("sequences have several frame rates; they are not resampled")


def _bodies(report: Report, bodies: BodyChecks) -> None:
    report.heights = {subject: round(height, 3) for subject, height in bodies.heights().items()}
    report.bones = bodies.bone_table()
    report.problems += bodies.problems()


def _extent(low: np.ndarray, high: np.ndarray) -> dict[str, list[float]]:
    return {
        axis: [round(float(a), 3), round(float(b), 3)]
        for axis, a, b in zip("xyz", low, high, strict=True)
        if math.isfinite(a)
    }


def _inspect_clips(clips: Sequence[Clip], report: Report, progress: bool) -> Report:
    report.kind = "clips"
    report.subjects = sorted({clip.subject for clip in clips}, key=_natural)
    report.actions = sorted({clip.action for clip in clips})
    report.motions = len(clips)
    _sequences(report, [len(clip) for clip in clips], [clip.fps for clip in clips])
    report.seconds = _duration((clip.key, len(clip), clip.fps) for clip in clips)
    report.protocol = {"name": "subjects", "text": PROTOCOLS["subjects"].text}
    bodies = BodyChecks("h36m")
    upright, floors = [], []
    for clip in track(clips, "inspecting clips", progress):
        known = np.broadcast_to(clip.known, clip.positions.shape[:2])
        bodies.add(clip.key, clip.subject, clip.positions, known, clip.fps)
        ankles = clip.positions[:, [3, 6]]
        upright.append(np.median(clip.positions[:, 10] - ankles.mean(1), axis=0))
        floors.append(float(np.percentile(ankles[..., 2].min(1), 2)))
    low = np.min([clip.positions.min((0, 1)) for clip in clips], axis=0)
    high = np.max([clip.positions.max((0, 1)) for clip in clips], axis=0)
    report.extent = _extent(low, high)
    _bodies(report, bodies)
    up = np.median(upright, axis=0)
    tall = float(np.median(list(report.heights.values()) or [_USUAL]))
    report.known = sum(len(clip) * int(clip.known.sum()) for clip in clips) / (report.frames * report.joints)
    if up[2] < _UP * tall:
        axis = int(np.abs(up).argmax())
        sign = "-" if up[axis] < 0 else ""
        found = f"; {sign}{'xyz'[axis]} seems to" if abs(up[axis]) > _UP * tall else ""
        report.problems.append(f"z does not point up: heads are {up[2]:.2f} m above the ankles in the median{found}")
    elif not -0.15 * tall < np.median(floors) < 0.25 * tall:
        report.problems.append(
            f"the lowest ankle is at {np.median(floors):.2f} m in the median, expected it near z = 0"
        )
    return report


def _inspect_store(store: PoseStore, report: Report, progress: bool) -> Report:
    views = store.views
    if not views:
        raise DataError(f"{report.path or 'the pose store'} has no views, expected at least one.")
    report.skeleton, report.joints = store.skeleton, store.input.shape[1]
    report.subjects, report.actions = sorted(store.subjects, key=_natural), list(store.actions)
    report.cameras = list(names(views, "camera")[0])
    report.motions = len(store.motions)
    sizes = np.unique(columns(views, "size"), axis=0)
    report.image_sizes = sizes[np.isfinite(sizes[:, 0])].tolist()
    _sequences(report, columns(views, "frames").tolist(), np.unique(columns(views, "fps")).tolist())
    report.seconds = _duration((view.motion, view.frames, view.fps) for view in views)
    report.notes += store.source.get("notes", [])
    if not store.temporal:
        report.notes.append("single poses: frames do not follow each other in time")
    if missing := store.source.get("missing"):
        keypoints, joints = count(missing["keypoints"], "keypoint"), count(missing["joints"], "joint")
        report.notes.append(f"missing: {keypoints} and {joints} of poses, with confidence and weight 0")
    bodies, checks = BodyChecks(store.skeleton), ViewChecks(store)
    damaged = []
    for number in track(range(len(views)), "inspecting views", progress):
        view = views[number]
        end = view.start + view.frames
        crc = view_checksum(store, number)
        measured = store.factor is None or bool(np.isfinite(store.factor[view.start : end]).all())
        for begin in range(view.start, end, _PIECE):  # a view need not fit in memory
            rows, more = slice(begin, min(begin + _PIECE, end)), begin + _PIECE < end
            checks.add(view, rows, every=-(-view.frames // _PIECE), more=more)
            if measured:
                known = None if store.weight is None else store.weight[rows]
                fps = view.fps if store.temporal else math.nan
                bodies.add(_called(view), view.subject, store.pose[rows], known, fps, more)
        if crc is not None and crc != checksum(store, view.start, end, _PIECE):
            damaged.append(_called(view))
    if damaged:
        report.problems.append(
            f"the frames of {count(len(damaged), 'view')} are not those that were written, the first is {damaged[0]}: "
            "files are damaged or were changed"
        )
    report.keypoints, report.known = checks.keypoints(), checks.known
    report.extent = _extent(checks.low, checks.high)
    report.problems += checks.problems()
    _bodies(report, bodies)
    rules = PROTOCOLS.get(store.source.get("protocol", "subjects"))
    if rules is not None:
        report.protocol = {"name": rules.name, "text": rules.text}
    report.problems += protocol_problems(store, str(store.source.get("format", report.format)))
    return report


def _called(view: Any) -> str:
    return f"{view.motion} of camera {view.camera}"
