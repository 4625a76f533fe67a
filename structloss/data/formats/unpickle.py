"""Pickled data sets without running code from them.

Human3.6M and its relatives are passed around as pickles, alone or inside npz files. A pickle is a program: it may
import and call anything. Here it gets to call stand-ins only, which build NumPy arrays, dtypes and scalars and Python's
own containers out of checked arguments. Whatever else a file asks for is refused by name. An array's size is checked
against the bytes that are there before memory is taken for it.
"""

from __future__ import annotations

import math
import os
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ...errors import DataError
from ...reading import opened
from ._pickle_scan import Excess, check_pickle
from ._standins import ALLOWED, Call, Dtype, Refused

__all__ = ["load_npz_arrays", "load_npz_objects", "load_pickle", "npz_members"]

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, MemoryError, KeyError)
# Motion shrinks to a half or a tenth, a mask to a hundredth; deflate could make 1032 bytes out of one.
_UNPACKED, _RATIO = 64 << 20, 100


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: object) -> NoReturn:
        raise Refused("an object from outside the file")


def _unpickle(file: Any, what: str, size: int) -> Any:
    """The one object pickled in a file, of which `size` bytes are left to read."""
    start = file.tell()
    try:
        check_pickle(file, size)
        file.seek(start)
        # Python 2 wrote its bytes as text; latin1 takes any byte, and keeps array contents intact.
        content = _Unpickler(file, encoding="latin1").load()
        if file.read(1):
            raise ValueError("there is more after its end")
        return _finished(content, {})
    except Excess as excess:
        raise DataError(
            f"{what} asks for {excess}, expected numpy arrays and plain containers only; it was not loaded."
        ) from None
    except Refused as refused:
        raise DataError(
            f"{what} refers to {refused}, expected numpy arrays and plain containers only; it was not loaded, since "
            "running code from a data file is unsafe."
        ) from None
    except RecursionError:
        raise DataError(f"{what} is nested too deeply, expected dictionaries of arrays.") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(f"{what} is damaged, truncated or no pickle: {_first_line(error)}.") from error


def _finished(value: Any, done: dict[int, tuple[Any, Any]]) -> Any:
    """The value with plain arrays in place of those that were being filled.

    Lists and dictionaries are changed in place. `done` holds what has been visited, by identity, with what replaces
    it: contents may be shared, or go in circles.
    """
    if isinstance(value, (Call, Dtype)):
        raise Refused("a name on its own")
    if not isinstance(value, (dict, list, tuple, np.ndarray)):
        return value
    if id(value) in done:
        return done[id(value)][1]
    replaced: Any = value.view(np.ndarray) if isinstance(value, np.ndarray) else value
    done[id(value)] = value, replaced
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _finished(item, done)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            if not isinstance(item, (str, int, float)):  # a list may hold a word for each of a million frames
                value[i] = _finished(item, done)
    elif isinstance(value, tuple):
        replaced = tuple(_finished(item, done) for item in value)
        done[id(value)] = value, replaced
    elif replaced.dtype.hasobject:
        for i in np.ndindex(replaced.shape):
            replaced[i] = _finished(replaced[i], done)
    return replaced


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """The object in a pickle file: dictionaries, lists, tuples, sets, text, numbers and numpy arrays, nothing else.

    Any protocol, written by Python 2 or 3 and NumPy 1 or 2. An OrderedDict becomes a dict. Arrays may share the memory
    of the file's content, and are then read-only.

    Raises:
        MissingFileError: there is no such file.
        DataError: the file refers to anything else (the message names it), or is damaged.
    """
    with opened(path, "a pickle") as file:
        return _unpickle(file, str(path), os.fstat(file.fileno()).st_size)


def npz_members(path: str | os.PathLike[str]) -> list[str]:
    """Names of the arrays in an npz file, without reading any.

    Raises:
        MissingFileError, DataError: no such file, or no npz.
    """
    with _open_zip(Path(path)) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def load_npz_objects(path: str | os.PathLike[str]) -> dict[str, Any]:
    """All arrays of an npz file; of a 0-d object array (`savez(data=dictionary)`) the object in it.

    Objects are read as by :func:`load_pickle`. Sizes that the file declares are not taken on trust: no memory is taken
    for more than a hundred times the file's size, and 64 MB.

    Raises:
        MissingFileError: there is no such file.
        DataError: no npz, damaged, more than that, or an object refers to anything but arrays and containers.
    """
    return _load(Path(path), objects=True)


def load_npz_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Like :func:`load_npz_objects` for a file without objects, which are refused.

    Raises:
        MissingFileError: there is no such file.
        DataError: no npz, damaged, an array of objects, or more than the bound.
    """
    return _load(Path(path), objects=False)


def _load(path: Path, objects: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with _open_zip(path) as archive:
        left = _UNPACKED + _RATIO * path.stat().st_size
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name != info.filename:
                found[name] = _read_member(f"array {name!r} of {path}", archive, info, left, objects)
                left -= info.file_size
    return found


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with opened(path, "an npz archive") as file:
        try:
            archive = zipfile.ZipFile(file)
        except _DAMAGE as error:
            raise DataError(
                f"{path} is not a complete npz archive, expected a zip file of .npy arrays: {_first_line(error)}."
            ) from error
        with archive:
            yield archive


def _read_member(what: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo, left: int, objects: bool) -> Any:
    """One array, called `what`, that may take `left` bytes when it is unpacked."""
    try:
        with archive.open(info) as raw, BufferedReader(raw, 1 << 20) as file:  # type: ignore[type-var]
            shape, fortran, dtype = _header(file)
            there = info.file_size - file.tell()
            if dtype.hasobject:
                if dtype.kind != "O" or not objects:
                    allowed = "plain numbers, text or objects" if objects else "plain numbers or text"
                    raise ValueError(f"its dtype is {dtype}, expected {allowed}")
                if info.file_size > left:
                    raise ValueError(f"it unpacks to {info.file_size} bytes, the file holds {info.compress_size}")
                array = _unpickle(file, what, there)
                if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind != "O":
                    raise ValueError("its content is not the array that its header describes")
                return array.item() if shape == () else array
            size = math.prod(shape) * dtype.itemsize
            if size != there or info.file_size > left:
                raise ValueError(f"its header describes {size} bytes, the file holds {min(there, info.compress_size)}")
            array = np.empty(shape, dtype, order="F" if fortran else "C")
            content = array.reshape(-1, order="A").view(np.uint8) if size else np.empty(0, np.uint8)
            if file.readinto(content.data) != size or file.read(1):
                raise ValueError("it ends too soon")
            return array
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{what} cannot be read: {_first_line(error)}.") from error


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"its format version is {version}, expected (1, 0) or (2, 0)")
    return readers[version](file)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).split("\n")[0].rstrip(".")[:160]
