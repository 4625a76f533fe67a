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
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ...errors import DataError, MissingFileError
from ._standins import ALLOWED, Call, Dtype, Refused

__all__ = ["load_npz_objects", "load_pickle", "npz_members"]

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, MemoryError)
_DEFLATE_LIMIT = 1040  # deflate makes at most 1032 bytes out of one


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: object) -> NoReturn:
        raise Refused("an object from outside the file")


def _unpickle(file: Any, what: str) -> Any:
    """The one object pickled in a file."""
    try:
        # Python 2 wrote its bytes as text; latin1 takes any byte, and keeps array contents intact.
        content = _Unpickler(file, encoding="latin1").load()
        if file.read(1):
            raise ValueError("there is more after its end")
        return _finished(content, {})
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
    path = Path(path)
    _check_file(path, "a pickle")
    with open(path, "rb") as file:
        return _unpickle(file, str(path))


def npz_members(path: str | os.PathLike[str]) -> list[str]:
    """Names of the arrays in an npz file, without reading any.

    Raises:
        MissingFileError, DataError: no such file, or no npz.
    """
    with _open_zip(Path(path)) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def load_npz_objects(path: str | os.PathLike[str]) -> dict[str, Any]:
    """All arrays of an npz file; of a 0-d object array (`savez(data=dictionary)`) the object in it.

    Objects are read as by :func:`load_pickle`.

    Raises:
        MissingFileError: there is no such file.
        DataError: no npz, damaged, or an object refers to anything but arrays and containers.
    """
    path = Path(path)
    with _open_zip(path) as archive:
        return {
            info.filename.removesuffix(".npy"): _read_member(path, archive, info)
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }


def _open_zip(path: Path) -> zipfile.ZipFile:
    _check_file(path, "an npz archive")
    try:
        return zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise DataError(
            f"{path} is not a complete npz archive, expected a zip file of .npy arrays: {_first_line(error)}."
        ) from error


def _check_file(path: Path, what: str) -> None:
    if not path.is_file():
        found = "is a directory" if path.is_dir() else "does not exist"
        raise MissingFileError(f"{path} {found}, expected {what}.")


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    what = f"array {info.filename.removesuffix('.npy')!r} of {path}"
    try:
        with archive.open(info) as raw, BufferedReader(raw, 1 << 20) as file:  # type: ignore[type-var]
            shape, fortran, dtype = _header(file)
            if dtype.hasobject:
                if dtype.kind != "O":
                    raise ValueError(f"its dtype is {dtype}, expected plain numbers, text or objects")
                array = _unpickle(file, what)
                if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind != "O":
                    raise ValueError("its content is not the array that its header describes")
                return array.item() if shape == () else array
            size = math.prod(shape) * dtype.itemsize
            there = info.file_size - file.tell()
            if size != there or info.file_size > _DEFLATE_LIMIT * (info.compress_size + 1):
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
