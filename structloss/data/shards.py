"""The arrays of a pose store in shards: read from disk piece by piece, never mapped as a whole.

A shard is a folder `shard-NUMBER` with one `.npy` file per array and `shard.json`, which says whose it is. What a
process reads goes into arrays of its own and through no mapping: its memory does not grow with what it has read, and a
file that was cut while it is open is an error rather than the end of the process.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from ..errors import DataError, MissingFileError, shown
from ..reading import read_json

__all__ = [
    "BAD_HEADER",
    "SHARD_FRAMES",
    "Layout",
    "ShardedArray",
    "check_label",
    "check_sizes",
    "lay_out",
    "shard_folder",
    "write_frames",
    "write_header",
    "write_label",
]

SHARD_FRAMES = 4_000_000
"""Frames of a shard, about: 1.6 GB of 17 joints. A store of less has none, and its arrays are mapped."""

#: what numpy raises for the header of a damaged file
BAD_HEADER = (ValueError, KeyError, EOFError, OverflowError, SyntaxError, TokenError, MemoryError, RecursionError)

_OPEN = 256  # files that an array keeps open; others are opened for each piece that is read
_GAP = 4  # a piece is read as a whole, if no more than every fourth frame of it is wanted


SHARD = re.compile(r"shard-\d{5,}")
"""Names of the folders of shards."""


def shard_folder(path: Path, number: int) -> Path:
    """The folder of a shard of the store in `path`."""
    return path / f"shard-{number:05d}"


@dataclass(frozen=True)
class Layout:
    """Where views are in shards.

    Attributes:
        start: int64 `[V]`, the first frame of every view in the store.
        shard: int64 `[V]`, the shard of every view.
        frames: frames of every shard.
    """

    start: np.ndarray
    shard: np.ndarray
    frames: tuple[int, ...]

    @property
    def first(self) -> np.ndarray:
        """int64 `[S]`, the first frame of every shard in the store."""
        return np.concatenate([[0], np.cumsum(self.frames)[:-1]]).astype(np.int64)


def lay_out(frames: Sequence[int] | np.ndarray, shard_frames: int) -> Layout:
    """Fill shards with whole views, one after the other, `shard_frames` frames at most (but one view at least)."""
    shard = np.empty(len(frames), dtype=np.int64)
    sizes = [0]
    for view, count in enumerate(np.asarray(frames).tolist()):
        if sizes[-1] and sizes[-1] + count > shard_frames:
            sizes.append(0)
        sizes[-1] += count
        shard[view] = len(sizes) - 1
    start = np.cumsum(np.asarray(frames, dtype=np.int64)) - frames
    return Layout(start, shard, tuple(sizes))


def write_header(file: Path, dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Begin an `.npy` file of that array, or begin it again; returns the place of its first value."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)  # what was written behind the header stays
    with open(descriptor, "r+b") as out:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        return out.tell()


def write_frames(descriptor: int, frames: np.ndarray, offset: int) -> None:
    """Write frames at a place of a file."""
    rest = memoryview(np.ascontiguousarray(frames).reshape(-1).view(np.uint8).data)
    while len(rest):
        done = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[done:], offset + done


def write_label(folder: Path, store: str, number: int, frames: int) -> None:
    """Say whose a shard is."""
    (folder / "shard.json").write_text(json.dumps({"store": store, "number": number, "frames": frames}))


class ShardedArray:
    """An array `[N, ...]` in the shards of a store, that is indexed along its first axis as a numpy array is.

    Args:
        path: the store's folder.
        name: of the array.
        store: what the store is known by.
        frames: of every shard.
        row: shape of a frame.
        dtype: of the values.

    Raises:
        MissingFileError: on reading, a shard is missing.
        DataError: on reading, a shard is cut, damaged, of another store, or was changed since it was opened.
    """

    def __init__(
        self, path: Path, name: str, store: str, frames: Sequence[int], row: tuple[int, ...], dtype: Any
    ) -> None:
        self._path, self._name, self._store, self._frames = path, name, store, tuple(frames)
        self.dtype = np.dtype(dtype)
        self.shape = (sum(frames), *row)
        self._ends = np.cumsum(np.array(frames, dtype=np.int64))
        self._row = row
        self._bytes = int(np.prod(row, dtype=np.int64)) * self.dtype.itemsize
        self._files: dict[int, tuple[int, int, tuple[int, int]]] = {}  # shard -> descriptor, first byte, state
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self._bytes * len(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"arguments": (self._path, self._name, self._store, self._frames, self._row, self.dtype)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        ShardedArray.__init__(self, *state["arguments"])

    def __del__(self) -> None:
        for descriptor, _, _ in getattr(self, "_files", {}).values():
            os.close(descriptor)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Frames, copied into memory: `array[3]`, `array[5:9]`, `array[where]` with int64 `where` of any shape; what
        follows in a tuple is of the other axes."""
        if isinstance(key, tuple):
            if key[0] is Ellipsis:
                return np.asarray(self)[key]
            rows = self[key[0]]
            before: tuple[Any, ...] = (slice(None),) * (rows.ndim - len(self._row))
            return rows[before + key[1:]]
        if key is Ellipsis:
            return self[:]
        if isinstance(key, slice):
            wanted = range(len(self))[key]
            if wanted.step == 1:
                return self._span(wanted.start, max(wanted.start, wanted.stop))
            key = np.arange(wanted.start, wanted.stop, wanted.step)
        where = np.asarray(key)
        if where.dtype == bool:
            where = np.flatnonzero(where)
        if where.size == 0:
            return np.empty((*where.shape, *self._row), dtype=self.dtype)
        if where.dtype.kind not in "iu":
            raise IndexError(f"frames are {where.dtype}, expected integers")
        where = np.where(where < 0, where + len(self), where)
        if where.min() < 0 or where.max() >= len(self):
            raise IndexError(f"a frame is {where.min()} to {where.max()}, expected 0 to {len(self) - 1}")
        out = np.empty((*where.shape, *self._row), dtype=self.dtype)
        if where.ndim < 2:
            self._gather(where.reshape(-1), out.reshape(-1, *self._row))
        else:
            self._gather_rows(where.reshape(-1, where.shape[-1]), out.reshape(-1, where.shape[-1], *self._row))
        return out

    def _gather_rows(self, where: np.ndarray, out: np.ndarray) -> None:
        """Frames `[R, T]`, of which mostly one follows the other: windows."""
        low = where.min(axis=1)
        follow = (where == low[:, None] + np.arange(where.shape[1])).all(axis=1)
        shard = np.searchsorted(self._ends, low, side="right")
        whole = follow & (low + where.shape[1] <= self._ends[shard])
        within = low - (self._ends - self._frames)[shard]
        for number in np.unique(shard[whole]).tolist():
            rows = np.flatnonzero(whole & (shard == number)).tolist()
            self._fill(number, [(int(within[row]), out[row]) for row in rows])
        for row in np.flatnonzero(~whole).tolist():
            self._gather(where[row], out[row])

    def _gather(self, where: np.ndarray, out: np.ndarray) -> None:
        """Frames in any order; those that are near each other are read at once."""
        low, high = int(where.min()), int(where.max()) + 1
        if high - low == len(where) and (np.diff(where) == 1).all():
            self._read(low, out)
        elif high - low <= _GAP * len(where):
            out[:] = self._span(low, high)[where - low]
        else:
            middle = len(where) // 2
            self._gather(where[:middle], out[:middle])
            self._gather(where[middle:], out[middle:])

    def _span(self, first: int, end: int) -> np.ndarray:
        out = np.empty((end - first, *self._row), dtype=self.dtype)
        self._read(first, out)
        return out

    def _read(self, first: int, out: np.ndarray) -> None:
        """Frames from `first` on into a contiguous array."""
        done = 0
        while done < len(out):
            shard = int(np.searchsorted(self._ends, first + done, side="right"))
            before = int(self._ends[shard]) - self._frames[shard]
            count = min(len(out) - done, int(self._ends[shard]) - first - done)
            self._fill(shard, [(first + done - before, out[done : done + count])])
            done += count

    def _fill(self, shard: int, pieces: Sequence[tuple[int, np.ndarray]]) -> None:
        """Read pieces of a shard: the first frame of each, and the contiguous array that it goes to."""
        descriptor, begin, state = self._files.get(shard) or self._open(shard)
        kept = shard in self._files
        try:
            if _state(descriptor) != state:
                raise DataError(f"{self._file(shard)} was changed while it was open, expected the file as it was.")
            for first, out in pieces:
                wanted, offset = out.nbytes, begin + first * self._bytes
                if os.preadv(descriptor, [out.data], offset) != wanted:
                    self._fill_slowly(shard, descriptor, offset, out)
        except OSError as error:
            raise DataError(f"{self._file(shard)} can't be read: {error.strerror or error}.") from error
        finally:
            if not kept:
                os.close(descriptor)

    def _fill_slowly(self, shard: int, descriptor: int, offset: int, out: np.ndarray) -> None:
        """Read a piece again in as many parts as the system gives it in, gigabytes or a signal's leavings."""
        buffer = memoryview(out.reshape(-1).view(np.uint8).data)
        while len(buffer):
            got = os.preadv(descriptor, [buffer], offset)
            if not got:
                raise DataError(f"{self._file(shard)} was cut while it was open, expected the file as it was.")
            buffer, offset = buffer[got:], offset + got

    def _file(self, shard: int) -> Path:
        return shard_folder(self._path, shard) / f"{self._name}.npy"

    def _open(self, shard: int) -> tuple[int, int, tuple[int, int]]:
        """Open and check a shard's file; it stays open, if not too many are."""
        check_label(self._path, self._store, shard, self._frames[shard])
        file = self._file(shard)
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except FileNotFoundError as error:
            raise MissingFileError(f"{file} is missing, expected it in the pose store {self._path}.") from error
        except OSError as error:
            raise DataError(f"{file} can't be read: {error.strerror or error}.") from error
        try:
            begin = self._checked(descriptor, file, (self._frames[shard], *self._row))
        except BaseException:
            os.close(descriptor)
            raise
        found = descriptor, begin, _state(descriptor)
        with self._lock:
            if shard in self._files:  # another thread was faster
                os.close(descriptor)
                return self._files[shard]
            if len(self._files) < _OPEN:
                self._files[shard] = found
        return found

    def _checked(self, descriptor: int, file: Path, shape: tuple[int, ...]) -> int:
        """Where the values of a file begin, whose header and length are as they should be."""
        with open(descriptor, "rb", closefd=False) as source:
            try:
                version = np.lib.format.read_magic(source)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                found = read[version](source)
            except BAD_HEADER as error:
                raise DataError(f"{file} can't be read, expected a numpy array: {error}.") from error
            begin = source.tell()
        if found != (shape, False, self.dtype):
            raise DataError(f"{file} is {found[2]} {list(found[0])}, expected {self.dtype} {list(shape)}.")
        length, expected = os.fstat(descriptor).st_size, begin + shape[0] * self._bytes
        if length != expected:
            raise DataError(f"{file} has {length} bytes, expected {expected}: it was cut or is not complete.")
        return begin


def check_label(path: Path, store: str, number: int, frames: int) -> None:
    """Raise unless a shard is there and is that of this store."""
    folder = shard_folder(path, number)
    if not folder.is_dir():
        raise MissingFileError(f"{folder} is missing, expected all {number + 1} shards or more of the pose store.")
    label = read_json(folder / "shard.json", "the description of a shard")
    expected: Mapping[str, Any] = {"store": store, "number": number, "frames": frames}
    if not isinstance(label, dict) or label.get("store") != store:
        now = read_json(path / "meta.json", "the description of a pose store")
        if isinstance(now, dict) and now.get("store") != store:
            raise DataError(f"{path} was changed while it was open, expected the pose store as it was.")
        found = shown(label.get("store")) if isinstance(label, dict) else shown(label)
        raise DataError(f"{folder} is of another pose store ({found}), expected a shard of {shown(store)}.")
    for key, value in expected.items():
        if label.get(key) != value:
            raise DataError(f"{key} in shard.json of {folder} is {shown(label.get(key))}, expected {shown(value)}.")


def check_sizes(path: Path, frames: Sequence[int], rows: Mapping[str, int]) -> None:
    """Raise unless all shards have files of the right length, about: what takes microseconds per file.

    Args:
        path: the store's folder.
        frames: of every shard.
        rows: array -> bytes of a frame.
    """
    for number, count in enumerate(frames):
        folder = shard_folder(path, number)
        for name, size in rows.items():
            file = folder / f"{name}.npy"
            try:
                length = os.stat(file).st_size
            except OSError as error:
                raise MissingFileError(f"{file} is missing, expected it in the pose store {path}.") from error
            if not 0 < length - count * size < 4096:  # its header
                raise DataError(f"{file} has {length} bytes, expected {count * size} and a header.")


def _state(descriptor: int) -> tuple[int, int]:
    """What changes when a file is written or cut."""
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns
