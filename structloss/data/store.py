"""Pose stores: what cameras saw, as arrays that are mapped from disk rather than read.

A store is a folder: `meta.json` and one `.npy` file per array. Opening it reads the JSON and maps the arrays: no time,
no memory for the data, and worker processes share one copy in the page cache. Nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, DataError, MissingFileError, shown
from ..files import new_folder, plain
from ..reading import read_json
from ..skeletons import get

__all__ = ["SUFFIX", "PoseStore", "View", "is_store", "open_store", "save_store"]

SUFFIX = ".poses"
"""What the name of a store's folder ends in."""

_FORMAT, _VERSION = "structloss pose store", 1
#: array -> channels; None is an array without a joint axis
ARRAYS: dict[str, int | None] = {"input": 3, "pose": 3, "weight": 1, "label": 3, "factor": None}
_REQUIRED = ("input", "pose")


@dataclass(frozen=True)
class View:
    """One motion as one camera saw it: the frames `start` to `start + frames` of a store's arrays.

    Attributes:
        subject: the person; data is split by it.
        action: what the person does; errors are averaged by it.
        name: of the motion, unique among the subject's.
        camera: name of the camera.
        index: of the camera among the motion's.
        start: first frame in the store's arrays.
        frames: number of frames.
        fps: frames per second; NaN where unknown.
        size: (width, height) of the image, pixels; (nan, nan) where unknown.
        intrinsics: pinhole (f_x, f_y, c_x, c_y) in units of the normalised screen; NaN where unknown.
        up: the vertical, upward, in the camera's frame, a unit vector; NaN where unknown.
    """

    subject: str
    action: str
    name: str
    camera: str
    index: int
    start: int
    frames: int
    fps: float = math.nan
    size: tuple[float, float] = (math.nan, math.nan)
    intrinsics: tuple[float, float, float, float] = (math.nan,) * 4
    up: tuple[float, float, float] = (math.nan,) * 3

    @property
    def motion(self) -> str:
        """`subject/name`, the same for all views of a motion."""
        return f"{self.subject}/{self.name}"


@dataclass(frozen=True, eq=False)
class PoseStore:
    """2D keypoints and the 3D poses behind them, N frames of all views in a row.

    Attributes:
        views: where each view's frames are; several stores may share arrays, see :meth:`select`.
        input: float32 `[N, J, 3]`: 2D keypoints x', y' on the normalised screen, and their confidence.
        pose: float32 `[N, J, 3]`: camera space, metres (x right, y down, z forward), absolute unless `label` is there.
        weight: uint8 `[N, J]`: 1 where the pose is known and counts; None is 1 everywhere.
        label: float32 `[N, J, 3]`: published targets in image space, on the normalised screen, depth in the same unit
            and 0 at the root (MotionBERT's pickle); None where targets are computed from `pose`.
        factor: float32 `[N]`: millimetres per unit of `label`; NaN where not published. Goes with `label`.
        skeleton: registry name of the joints' order.
        temporal: frames of a view follow each other at an even rate; False for sets of single poses.
        source: what it was read from: "format", "protocol" (see :mod:`~structloss.data.protocols`), notes.

    Raises:
        ArgumentError: an array's shape or dtype, or a view that reaches beyond the arrays.
    """

    views: tuple[View, ...]
    input: np.ndarray
    pose: np.ndarray
    weight: np.ndarray | None = None
    label: np.ndarray | None = None
    factor: np.ndarray | None = None
    skeleton: str = "h36m"
    temporal: bool = True
    source: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def __post_init__(self) -> None:
        joints = get(self.skeleton).num_joints
        frames = len(self.input)
        for name, channels in ARRAYS.items():
            array = getattr(self, name)
            if array is None:
                continue
            shape = (frames,) + ((joints,) if channels else ()) + ((channels,) if channels == 3 else ())
            dtype = np.uint8 if name == "weight" else np.float32
            if array.shape != shape or array.dtype != dtype:
                raise ArgumentError(
                    f"{name} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)}."
                )
        if (self.label is None) != (self.factor is None):
            raise ArgumentError("label and factor go together, expected both or neither.")
        for view in self.views:
            if view.start < 0 or view.frames < 1 or view.start + view.frames > frames:
                raise ArgumentError(
                    f"view {view.motion!r} of camera {view.camera!r} has frames {view.start} to "
                    f"{view.start + view.frames}, expected at least one of the {frames} in the arrays."
                )

    @property
    def frames(self) -> int:
        """Frames of all views."""
        return sum(view.frames for view in self.views)

    @property
    def has_millimetres(self) -> bool:
        """Whether the size of the poses of any view is known: see `factor`."""
        if self.factor is None:
            return True
        return any(bool(np.isfinite(self.factor[v.start : v.start + v.frames]).any()) for v in self.views)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects, sorted."""
        return tuple(sorted({view.subject for view in self.views}))

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions, sorted."""
        return tuple(sorted({view.action for view in self.views}))

    @property
    def motions(self) -> tuple[str, ...]:
        """`subject/name` of every motion, in order."""
        return tuple(dict.fromkeys(view.motion for view in self.views))

    def select(self, keep: Callable[[View], bool]) -> PoseStore:
        """The store with some of its views, on the same arrays."""
        return replace(self, views=tuple(view for view in self.views if keep(view)))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.path is not None:  # a worker process maps the files itself instead of receiving their contents
            state |= dict.fromkeys(ARRAYS)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["path"] is not None:
            state |= {name: _map(state["path"], name) for name in ARRAYS}
        self.__dict__.update(state)


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder that looks like a store."""
    return (Path(path) / "meta.json").is_file() and (Path(path) / "pose.npy").is_file()


def open_store(path: str | os.PathLike[str]) -> PoseStore:
    """Map a store that :func:`save_store` wrote; takes milliseconds for any size.

    Raises:
        MissingFileError: there is no such folder, or an array is missing from it.
        DataError: not a store, of a newer version, or arrays and description don't agree.
    """
    path = Path(path).absolute()
    if not path.is_dir():
        found = "is a file" if path.exists() else "does not exist"
        raise MissingFileError(f"{path} {found}, expected the folder of a pose store.")
    if not (path / "meta.json").exists():
        raise DataError(f"{path} has no meta.json, expected the folder of a pose store.")
    meta = read_json(path / "meta.json", "the description of a pose store")
    try:
        if meta["format"] != _FORMAT or meta["version"] != _VERSION:
            raise DataError(
                f"{path} is of format {shown(meta['format'])}, version {shown(meta['version'])}, expected {_FORMAT!r}, "
                f"{_VERSION}."
            )
        views = tuple(_view(**view) for view in meta["views"])
        options: dict[str, Any] = {
            "skeleton": str(meta["skeleton"]),
            "temporal": bool(meta["temporal"]),
            "source": _source(meta["source"]),
        }
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"meta.json of {path} can't be read: {type(error).__name__}: {error}.") from error
    arrays: dict[str, Any] = {name: _map(path, name) for name in ARRAYS}
    missing = [name for name in _REQUIRED if arrays[name] is None]
    if missing:
        raise MissingFileError(f"{path} has no {missing[0]}.npy, expected the arrays of a pose store.")
    try:
        return PoseStore(views, **arrays, **options, path=path)
    except ArgumentError as error:
        raise DataError(f"{path} is damaged: {error}") from error


def save_store(store: PoseStore, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a store's views and their frames as a folder; all of it or nothing.

    Args:
        store: what to write; frames that no view has are left out.
        path: folder to write; by convention ends in :data:`SUFFIX`.
        overwrite: replace a store that is there.

    Returns:
        The folder.

    Raises:
        ArgumentError: something is there already, and `overwrite` is not set or it is no store.
        OSError: the disk is full or can't be written; nothing is left behind.
    """
    path = Path(path).absolute()
    if os.path.lexists(path) and not (overwrite and is_store(path)):
        raise ArgumentError(f"{path} exists already, expected a new name" + (" or a store." if overwrite else "."))
    with new_folder(path) as folder:
        views, total = [], 0
        for view in store.views:
            views.append(replace(view, start=total))
            total += view.frames
        for name in ARRAYS:
            array = getattr(store, name)
            if array is not None:
                _write(folder / f"{name}.npy", array, store.views, total)
        meta = {
            "format": _FORMAT,
            "version": _VERSION,
            "skeleton": store.skeleton,
            "temporal": store.temporal,
            "source": store.source,
            "views": [plain(asdict(view)) for view in views],
        }
        (folder / "meta.json").write_text(json.dumps(meta, allow_nan=False), encoding="utf-8")
    return path


def _write(file: Path, array: np.ndarray, views: Sequence[View], total: int) -> None:
    """The views' frames in a row; a view at a time, so that a mapped store need not fit in memory."""
    with open(file, "wb") as out:
        header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(out, header | {"shape": (total, *array.shape[1:])})
        for view in views:
            out.write(np.ascontiguousarray(array[view.start : view.start + view.frames]).tobytes())
        out.flush()
        os.fsync(out.fileno())


def _map(path: Path, name: str) -> np.ndarray | None:
    file = path / f"{name}.npy"
    if not file.is_file():
        return None
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except (ValueError, OSError, EOFError, OverflowError) as error:
        raise DataError(f"{file} can't be read, it may be truncated: {error}.") from error


def _view(
    *, subject: str, action: str, name: str, camera: str, index: int, start: int, frames: int, fps: float | None,
    size: Sequence[float | None], intrinsics: Sequence[float | None], up: Sequence[float | None] = (None, None, None),
) -> View:  # fmt: skip
    """A view as meta.json has it, where what is not known is null; older stores do not tell where up is."""
    (width, height), (fx, fy, cx, cy), (rate,), (x, y, z) = map(_floats, (size, intrinsics, [fps], up))
    if rate <= 0 or width <= 0 or height <= 0:
        raise ValueError(f"a view of {width:g} x {height:g} pixels and {rate:g} frames per second")
    number, first, count = (int(np.int64(value)) for value in (index, start, frames))  # at most what an array has
    return View(
        str(subject), str(action), str(name), str(camera), number, first, count, rate, (width, height),
        (fx, fy, cx, cy), (x, y, z),
    )  # fmt: skip


def _source(content: Any) -> dict[str, Any]:
    """What a store was read from, the entries that others rely on checked."""
    source = {**content}
    kinds: dict[str, type] = {"format": str, "protocol": str, "notes": list, "missing": dict}
    for key, kind in kinds.items():
        if not isinstance(source.get(key, kind()), kind):
            raise TypeError(f"{key} in source is {shown(source[key])}, expected a {kind.__name__}")
    if "notes" in source:
        source["notes"] = [str(note) for note in source["notes"]]
    if missing := source.get("missing"):
        source["missing"] = {key: int(missing[key]) for key in ("keypoints", "joints")}
    return source


def _floats(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if v is None else float(v) for v in values)
