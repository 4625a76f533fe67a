"""Pose stores: what cameras saw, as arrays that are mapped from disk rather than read.

A store is a folder: `meta.json` and one `.npy` file per array. Opening it reads the JSON and maps the arrays: no time,
no memory for the data, and worker processes share one copy in the page cache. Nothing is unpickled.

A store of many millions of frames is in shards (version 2): `meta.json` says how many frames each of the folders
`shard-NUMBER` has, which hold the arrays (:mod:`~structloss.data.shards`), and `views.npy`, `texts.npy` and
`text_ends.npy` are the table of the views (:mod:`~structloss.data.views`), so that it opens as fast.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import ArgumentError, DataError, MissingFileError, shown
from ..files import new_folder, plain
from ..reading import read_json
from ..skeletons import get
from ._checks import at_least
from .shards import (
    BAD_HEADER,
    SHARD,
    SHARD_FRAMES,
    Layout,
    ShardedArray,
    check_label,
    check_sizes,
    lay_out,
    shard_folder,
    write_frames,
    write_header,
    write_label,
)
from .views import ROW, TEXTS, Texts, View, Views, columns, motions, names, pick, rows_of

__all__ = [
    "SHARD_FRAMES",
    "SUFFIX",
    "PoseStore",
    "View",
    "array_shape",
    "check_free",
    "is_store",
    "open_store",
    "save_store",
]

SUFFIX = ".poses"
"""What the name of a store's folder ends in."""

_FORMAT, _VERSION, _SHARDED = "structloss pose store", 1, 2
#: array -> channels; None is an array without a joint axis
ARRAYS: dict[str, int | None] = {"input": 3, "pose": 3, "weight": 1, "label": 3, "factor": None}
_REQUIRED = ("input", "pose")
#: array of the table of views -> type
_TABLE = {"views": ROW, "texts": np.dtype(np.uint8), "text_ends": np.dtype(np.int64)}


@dataclass(frozen=True, eq=False)
class PoseStore:
    """2D keypoints and the 3D poses behind them, N frames of all views in a row.

    Attributes:
        views: where each view's frames are; several stores may share arrays, see :meth:`select`.
            The arrays of a store in shards are :class:`~structloss.data.shards.ShardedArray`.
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

    views: Sequence[View]
    input: np.ndarray | ShardedArray
    pose: np.ndarray | ShardedArray
    weight: np.ndarray | ShardedArray | None = None
    label: np.ndarray | ShardedArray | None = None
    factor: np.ndarray | ShardedArray | None = None
    skeleton: str = "h36m"
    temporal: bool = True
    source: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def __post_init__(self) -> None:
        frames = len(self.input)
        for name in ARRAYS:
            array = getattr(self, name)
            if array is None:
                continue
            row, dtype = array_shape(name, self.skeleton)
            shape = (frames, *row)
            if array.shape != shape or array.dtype != dtype:
                raise ArgumentError(
                    f"{name} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)}."
                )
        if (self.label is None) != (self.factor is None):
            raise ArgumentError("label and factor go together, expected both or neither.")
        start, length = columns(self.views, "start"), columns(self.views, "frames")
        for number in np.flatnonzero((start < 0) | (length < 1) | (length > frames - start))[:1].tolist():
            view = self.views[number]
            raise ArgumentError(
                f"view {view.motion!r} of camera {view.camera!r} has frames {view.start} to "
                f"{view.start + view.frames}, expected at least one of the {frames} in the arrays."
            )

    @property
    def frames(self) -> int:
        """Frames of all views."""
        return int(columns(self.views, "frames").sum())

    @property
    def has_millimetres(self) -> bool:
        """Whether the size of the poses of any view is known: see `factor`."""
        if self.factor is None:
            return True
        return any(bool(np.isfinite(self.factor[v.start : v.start + v.frames]).any()) for v in self.views)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects, sorted."""
        return names(self.views, "subject")[0]

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions, sorted."""
        return names(self.views, "action")[0]

    @property
    def motions(self) -> tuple[str, ...]:
        """`subject/name` of every motion, in order."""
        return motions(self.views)

    def select(self, keep: Callable[[View], bool], by: Literal["view", "motion", "subject"] = "view") -> PoseStore:
        """The store with some of its views, on the same arrays.

        Args:
            keep: whether to keep a view.
            by: "motion" or "subject" where the answer is the same for all views of one, which need not all be asked
                for then.
        """
        return replace(self, views=pick(self.views, keep, by))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.path is not None:  # a worker process opens the files itself instead of receiving their contents
            state |= dict.fromkeys(ARRAYS)
            state["opened"] = _state(self.path)
            if isinstance(self.views, Views):
                state["views"], state["chosen"] = None, self.views.chosen
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        opened, chosen = state.pop("opened", None), state.pop("chosen", None)
        if state["path"] is not None:
            if _state(state["path"]) != opened:
                raise DataError(f"{state['path']} was changed while it was open, expected the pose store as it was.")
            if state["views"] is None:
                store = open_store(state["path"])
                assert isinstance(store.views, Views)  # it was in shards when it was sent
                state["views"] = store.views if chosen is None else store.views.take(chosen)
                state |= {name: getattr(store, name) for name in ARRAYS}
            else:
                state |= {name: _map(state["path"], name) for name in ARRAYS}
        self.__dict__.update(state)

    def check_unchanged(self) -> None:
        """Raise :class:`DataError` where a mapped file is shorter than it was: reading behind its end would end the
        process. (Arrays in shards see to it themselves.)"""
        for name in ARRAYS:
            array = getattr(self, name)
            if isinstance(array, np.memmap) and array.filename is not None:
                try:
                    length = os.stat(array.filename).st_size
                except FileNotFoundError:
                    continue  # replaced or removed: what is mapped stays
                if length < array.offset + array.nbytes:
                    raise DataError(f"{array.filename} was cut while it was open, expected the file as it was.")


def array_shape(name: str, skeleton: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape of a frame of one of :data:`ARRAYS`, and the dtype."""
    channels = ARRAYS[name]
    joints = (get(skeleton).num_joints,) if channels else ()
    return joints + ((channels,) if channels == 3 else ()), np.dtype(np.uint8 if name == "weight" else np.float32)


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder that looks like a store."""
    path = Path(path)
    return (path / "meta.json").is_file() and ((path / "pose.npy").is_file() or (path / "views.npy").is_file())


def check_free(path: Path, overwrite: bool) -> None:
    """Raise :class:`ArgumentError` where a store can't be written: something is there, and it is none to replace."""
    if not os.path.lexists(path):
        return
    if not is_store(path):
        raise ArgumentError(f"{path} exists already and is something else, expected a new name.")
    if not overwrite:
        raise ArgumentError(f"{path} exists already, expected a new name; set overwrite to replace it.")
    arrays = {f"{name}.npy" for name in ARRAYS}
    tables = {f"{name}.npy" for name in _TABLE}
    for entry in sorted(path.rglob("*")):
        found = entry.relative_to(path)
        shard = SHARD.fullmatch(found.parts[0]) is not None
        parts = {*arrays, "shard.json"} if shard and len(found.parts) == 2 else {*arrays, *tables, "meta.json"}
        if not (shard and len(found.parts) == 1 and entry.is_dir()) and not (found.name in parts and entry.is_file()):
            raise ArgumentError(f"{path} holds {str(found)!r}, which is no part of a pose store, expected a new name.")


def open_store(path: str | os.PathLike[str]) -> PoseStore:
    """Map a store that :func:`save_store` wrote; takes milliseconds for any size.

    Raises:
        MissingFileError: there is no such folder, or an array or a shard is missing from it.
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
        version = meta["version"]
        if meta["format"] != _FORMAT or isinstance(version, bool) or version not in (_VERSION, _SHARDED):
            raise DataError(
                f"{path} is of format {shown(meta['format'])}, version {shown(meta['version'])}, expected {_FORMAT!r}, "
                f"{_VERSION} or {_SHARDED}."
            )
        views: Sequence[View] = _table(path) if version == _SHARDED else tuple(_view(**view) for view in meta["views"])
        options: dict[str, Any] = {
            "skeleton": str(meta["skeleton"]),
            "temporal": _flag(path, meta, "temporal"),
            "source": _source(meta["source"]),
        }
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"meta.json of {path} can't be read: {type(error).__name__}: {error}.") from error
    if version == _SHARDED:
        arrays: dict[str, Any] = _sharded(path, meta, options["skeleton"])
    else:
        arrays = {name: _map(path, name) for name in ARRAYS}
    missing = [name for name in _REQUIRED if arrays[name] is None]
    if missing:
        raise MissingFileError(f"{path} has no {missing[0]}.npy, expected the arrays of a pose store.")
    try:
        return PoseStore(views, **arrays, **options, path=path)
    except ArgumentError as error:
        raise DataError(f"{path} is damaged: {error}") from error


def save_store(
    store: PoseStore, path: str | os.PathLike[str], *, overwrite: bool = False, shard_frames: int = SHARD_FRAMES
) -> Path:
    """Write a store's views and their frames as a folder; all of it or nothing.

    Args:
        store: what to write; frames that no view has are left out.
        path: folder to write; by convention ends in :data:`SUFFIX`.
        overwrite: replace a store that is there.
        shard_frames: frames of a shard at most, in a store of more; a view is never cut.

    Returns:
        The folder.

    Raises:
        ArgumentError: something is there already, and `overwrite` is not set or it is more than a store, or none; or
            `shard_frames` below 1.
        OSError: the disk is full or can't be written; nothing is left behind.
    """
    path = Path(path).absolute()
    at_least(1, shard_frames=shard_frames)
    check_free(path, overwrite)
    with new_folder(path) as folder:
        kept = tuple(name for name in ARRAYS if getattr(store, name) is not None)
        layout = lay_out(columns(store.views, "frames"), shard_frames)
        crcs: list[int] = []
        with StoreFiles(folder, layout, kept, store.skeleton) as files:
            if not store.views:
                files.begin()
            for number, view in enumerate(store.views):  # a view at a time: a mapped store need not fit in memory
                rows = slice(view.start, view.start + view.frames)
                crcs.append(files.write(number, {name: getattr(store, name)[rows] for name in kept}))
        write_description(folder, store.views, layout, crcs, kept, _described(store))
    return path


def view_checksum(store: PoseStore, view: int) -> int | None:
    """The CRC-32 of the frames of a view, by its number, as they were written; None where the store has none."""
    views = store.views
    if store.path is None or not isinstance(views, Views):
        return None
    return int(views.rows["crc"][view if views.chosen is None else views.chosen[view]])


def checksum(store: PoseStore, start: int, end: int, piece: int) -> int:
    """The CRC-32 of the frames from `start` to `end` of all arrays, read `piece` frames at a time."""
    crc = 0
    for name in ARRAYS:
        array = getattr(store, name)
        for begin in range(start, end, piece) if array is not None else ():
            frames = np.ascontiguousarray(array[begin : min(begin + piece, end)])
            crc = zlib.crc32(frames.reshape(-1).view(np.uint8).data, crc)
    return crc


def _flag(path: Path, meta: Mapping[str, Any], name: str) -> bool:
    value = meta[name]
    if not isinstance(value, bool):
        raise DataError(f"{name} in meta.json of {path} is {shown(value)}, expected true or false.")
    return value


def _described(store: PoseStore) -> dict[str, Any]:
    return {"skeleton": store.skeleton, "temporal": store.temporal, "source": store.source}


class StoreFiles:
    """The files of a store's arrays, views written in any order and by any number of processes.

    Args:
        folder: of the store, which is there.
        layout: where the views go; a store of one shard has its files in the folder itself.
        kept: names of the arrays.
        skeleton: of the joints.
    """

    def __init__(self, folder: Path, layout: Layout, kept: Sequence[str], skeleton: str) -> None:
        self.folder, self.layout, self.kept = folder, layout, tuple(kept)
        self._shapes = {name: array_shape(name, skeleton) for name in kept}
        self._first = layout.first
        self._open: dict[str, tuple[int, int]] = {}  # array -> descriptor and first byte, of one shard
        self._shard = -1

    def __enter__(self) -> StoreFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self) -> None:
        """Make the files of a store that has no frames."""
        self._turn_to(0)

    def write(self, view: int, arrays: Mapping[str, np.ndarray]) -> int:
        """Write the frames of a view by its number; returns the CRC-32 of them all."""
        self._turn_to(int(self.layout.shard[view]))
        begin, crc = int(self.layout.start[view] - self._first[self._shard]), 0
        for name in self.kept:
            descriptor, first = self._open[name]
            row, dtype = self._shapes[name]
            frames = np.ascontiguousarray(arrays[name], dtype=dtype)
            crc = zlib.crc32(frames.reshape(-1).view(np.uint8).data, crc)
            size = int(np.prod(row, dtype=np.int64)) * dtype.itemsize
            write_frames(descriptor, frames, first + begin * size)
        return crc

    def _turn_to(self, shard: int) -> None:
        if shard == self._shard:
            return
        self.close()
        folder = self.folder if len(self.layout.frames) == 1 else shard_folder(self.folder, shard)
        folder.mkdir(exist_ok=True)
        for name, (row, dtype) in self._shapes.items():
            file = folder / f"{name}.npy"
            first = write_header(file, dtype, (self.layout.frames[shard], *row))
            self._open[name] = os.open(file, os.O_WRONLY), first
        self._shard = shard

    def close(self) -> None:
        """Bring to the disk what was written."""
        try:
            for descriptor, _ in self._open.values():
                os.fsync(descriptor)
        finally:
            for descriptor, _ in self._open.values():
                os.close(descriptor)
            self._open, self._shard = {}, -1


def write_description(
    folder: Path, views: Sequence[View], layout: Layout, crcs: Sequence[int], kept: Sequence[str],
    about: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write what makes the files of the arrays a store.

    Args:
        folder: of the store.
        views: all of them, wherever their frames were before.
        layout: where their frames are now.
        crcs: what :meth:`StoreFiles.write` returned for each.
        kept: names of the arrays.
        about: "skeleton", "temporal" and "source" of the store.
    """
    meta: dict[str, Any] = {"format": _FORMAT, "version": _VERSION, **about}
    if len(layout.frames) == 1:
        moved = (replace(view, start=start) for view, start in zip(views, layout.start.tolist(), strict=True))
        meta["views"] = [plain(asdict(view)) for view in moved]
    else:
        rows, texts = rows_of(views, crcs)
        rows["start"] = layout.start
        text = json.dumps([about, list(kept), layout.frames], allow_nan=False, sort_keys=True)
        known = hashlib.sha256(b"".join((rows.tobytes(), texts.content.tobytes(), text.encode()))).hexdigest()[:16]
        meta |= {"version": _SHARDED, "store": known, "arrays": list(kept), "shards": list(layout.frames)}
        for number, frames in enumerate(layout.frames):
            write_label(shard_folder(folder, number), known, number, frames)
        for name, array in zip(_TABLE, (rows, texts.content, texts.ends), strict=True):
            np.save(folder / f"{name}.npy", array)
    (folder / "meta.json").write_text(json.dumps(meta, allow_nan=False), encoding="utf-8")


def _state(path: Path) -> tuple[int, int]:
    """What changes when another store is written there."""
    try:
        status = os.stat(path / "meta.json")
    except OSError as error:
        raise MissingFileError(f"{path} has no meta.json any more, expected the pose store as it was.") from error
    return status.st_size, status.st_mtime_ns


def _table(path: Path) -> Views:
    """The table of the views of a store in shards, checked."""
    found = {}
    for name, dtype in _TABLE.items():
        array = _map(path, name)
        if array is None:
            raise MissingFileError(f"{path} has no {name}.npy, expected the table of the views of a pose store.")
        if array.dtype != dtype or array.ndim != 1:
            raise DataError(f"{name}.npy of {path} is {array.dtype} {list(array.shape)}, expected {dtype} [N].")
        found[name] = array
    rows, most = found["views"], len(TEXTS) * len(found["views"])
    if len(found["text_ends"]) > most:  # before they are read
        number = f"{len(found['text_ends'])} texts for {len(rows)} views"
        raise DataError(f"text_ends.npy of {path} tells of {number}, expected {most} at most.")
    texts = Texts(found["texts"], np.array(found["text_ends"]))
    ends = texts.ends
    if (np.diff(ends, prepend=0) < 0).any() or (len(ends) and ends[-1] != len(texts.content)):
        raise DataError(f"text_ends.npy of {path} does not fit texts.npy, expected where each text ends.")
    for name in TEXTS:
        if len(rows) and not 0 <= int(rows[name].min()) <= int(rows[name].max()) < len(ends):
            raise DataError(f"{name} in views.npy of {path} is beyond the {len(ends)} texts, expected one of them.")
    for name in ("fps", "size"):
        if ((rows[name] <= 0) | np.isinf(rows[name])).any():
            raise DataError(f"{name} in views.npy of {path} is no positive number, expected one, or NaN.")
    return Views(rows, texts)


def _sharded(path: Path, meta: Mapping[str, Any], skeleton: str) -> dict[str, Any]:
    """The arrays of a store in shards."""
    kept, frames, known = meta.get("arrays"), meta.get("shards"), meta.get("store")
    if not isinstance(kept, list) or not all(isinstance(name, str) and name in ARRAYS for name in kept):
        raise DataError(f"arrays in meta.json of {path} is {shown(kept)}, expected some of {', '.join(ARRAYS)}.")
    most = 2**40  # of a shard; the sum of all shards is a number that arrays have
    if (
        not isinstance(frames, list)
        or not 0 < len(frames) < 2**20
        or not all(type(count) is int and 0 < count < most for count in frames)
    ):
        raise DataError(f"shards in meta.json of {path} is {shown(frames)}, expected the frames of each shard.")
    if not isinstance(known, str):
        raise DataError(f"store in meta.json of {path} is {shown(known)}, expected what its shards are known by.")
    shapes = {name: array_shape(name, skeleton) for name in kept}
    sizes = {name: int(np.prod(row, dtype=np.int64)) * dtype.itemsize for name, (row, dtype) in shapes.items()}
    check_sizes(path, frames, sizes)
    check_label(path, known, 0, frames[0])
    arrays = {name: ShardedArray(path, name, known, frames, row, dtype) for name, (row, dtype) in shapes.items()}
    return {name: arrays.get(name) for name in ARRAYS}


def _map(path: Path, name: str) -> np.ndarray | None:
    file = path / f"{name}.npy"
    if not file.is_file():
        return None
    try:
        return np.lib.format.open_memmap(file, mode="r")
    except (*BAD_HEADER, OSError) as error:
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
