"""Atomic writes: a file or folder appears whole under its name, or not at all; and what strict JSON can hold.

What is being written has a temporary name beside the final one, and is locked as long as its process lives. So what a
process left that was killed can be told from what another is writing, and goes when the next one writes there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ArgumentError

__all__ = [
    "check_apart",
    "held",
    "new_file",
    "new_folder",
    "plain",
    "put_folder",
    "replacing",
    "resolved",
    "scratch_folder",
    "sweep",
    "write_bytes",
    "write_json",
    "write_text",
]

#: ".NAME.PROCESS.RANDOM.tmp", what is being written; ".old", the folder that it is about to replace
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.[0-9a-f]{8}\.(?P<kind>tmp|old)")
_swept: set[str] = set()  # folders


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path`, empty, to be written by name; it becomes `path` when the block ends.

    Missing parent folders are made. When the block fails, the temporary file goes and what was at `path` stays.

    Raises:
        ArgumentError: `path` is a folder, a pipe or a device.
        OSError: the file can't be written there.
    """
    path = Path(path)
    if path.is_dir():
        raise ArgumentError(f"path is {str(path)!r}, a folder, expected the name of a file to write.")
    if path.exists() and not path.is_file():
        raise ArgumentError(f"path is {str(path)!r}, not a regular file, expected the name of a file to write.")
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent)
    temporary, lock = _made(path, lambda name: open(name, "xb").close())
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if _of_a_writer(error):
            raise OSError(errno.ENOSPC, "the disk may be full", str(path)) from error
        if isinstance(error, OSError) and error.errno in _FULL and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error  # of the name that was asked for
        raise
    finally:
        _release(lock)


_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def _of_a_writer(error: BaseException) -> bool:
    """Whether torch's writer failed at the disk, which its exceptions say in their texts alone."""
    return isinstance(error, RuntimeError) and bool(re.search("PytorchStreamWriter|inline_container", str(error)))


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Like :func:`replacing`, with the file open; it is on the disk before it becomes `path`."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Like :func:`replacing`, for a folder: one that is at `path` already, or where a link at `path` leads, is replaced
    with all that it holds.

    Raises:
        ArgumentError: `path` is no folder.
        OSError: nothing can be written there.
    """
    path = resolved(path)
    if path.exists() and not path.is_dir():
        raise ArgumentError(f"path is {str(path)!r}, which is no folder, expected the name of a folder to write.")
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent)
    temporary, lock = _made(path, lambda name: name.mkdir())
    before = None
    try:
        yield temporary
        if path.exists():
            before = _lock(path)
        put_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        _release(lock, before)


def put_folder(ready: Path, path: Path) -> None:
    """Rename a folder to `path`, which is no link; a folder that is there is replaced with all that it holds."""
    if not path.is_dir():
        os.replace(ready, path)
        return
    old = _name(path, "old")
    try:
        os.replace(path, old)
        os.replace(ready, path)
    except BaseException:
        if old.exists() and not path.exists():  # interrupted between the two
            os.replace(old, path)
        raise
    shutil.rmtree(old)


def resolved(path: str | os.PathLike[str]) -> Path:
    """`path`, or where it leads if it is a link: what is renamed to it takes the place of what is there, not of the
    link."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, where the system and the disk have locks.

    Raises:
        BlockingIOError: another one holds it.
    """
    lock = _lock(folder)
    try:
        yield
    finally:
        _release(lock)


@contextmanager
def scratch_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder beside `path`, that goes with all that it holds when the block ends: for files that become those
    of `path` together."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent)
    temporary, lock = _made(path, lambda name: name.mkdir())
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _release(lock)


def check_apart(path: str | os.PathLike[str] | None, **read: str | os.PathLike[str] | None) -> None:
    """Check a file or folder to write before minutes are spent on what it is to hold.

    Args:
        path: it; None where none is asked for.
        read: argument -> file or folder that is read; what is None or isn't there is no matter.

    Raises:
        ArgumentError: they are the same, by whatever names.
    """
    for name, other in read.items():
        if path is not None and other is not None and _same(path, other):
            what = f"{path} is the input" if name == "input" else f"{name} is {str(other)!r}, which is the output, too"
            raise ArgumentError(f"{what}, expected another file or folder for the output.")


def _same(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):  # one of them isn't there, or no name that a file can have
        return False


def _name(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.{kind}")


def _made(path: Path, make: Callable[[Path], object]) -> tuple[Path, int | None]:
    """What was made under a temporary name for `path`, and its lock."""
    while True:
        temporary = _name(path, "tmp")
        try:
            make(temporary)
        except FileNotFoundError as error:  # a folder that is there and takes none, as in /proc
            raise PermissionError(errno.EACCES, "nothing can be made in its folder", str(path)) from error
        except OSError as error:  # of the name that was asked for
            raise type(error)(error.errno, error.strerror, str(path)) from error
        try:
            lock = _lock(temporary)
        except (BlockingIOError, FileNotFoundError):  # taken for an orphan, before it was locked
            continue
        if temporary.exists():
            return temporary, lock
        _release(lock)


def _lock(path: Path) -> int | None:
    """A descriptor that holds a file or folder for this process; None where the system or the disk has no locks.

    Raises:
        BlockingIOError: another one holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _release(*locks: int | None) -> None:
    for lock in locks:
        if lock is not None:
            os.close(lock)


def _sweep_once(folder: Path) -> None:
    """Sweep a folder that this process writes to for the first time; it may go on to write thousands of files."""
    if (key := os.path.abspath(folder)) not in _swept:
        _swept.add(key)
        sweep(folder)


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder; what a living one writes is locked. Every first write does it."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            found = _TEMPORARY.fullmatch(entry.name)
            if found is not None and (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                with contextlib.suppress(OSError):
                    _remove_orphan(Path(entry.path), found)


def _remove_orphan(path: Path, found: re.Match[str]) -> None:
    lock = _lock(path)
    if lock is None:
        return
    try:
        before = path.with_name(found["name"])
        if found["kind"] == "old" and not before.exists():  # killed between taking it away and replacing it
            os.replace(path, before)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(lock)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to `path`, see :func:`replacing`.

    Returns:
        The path written.

    Raises:
        ArgumentError: `path` is a folder, a pipe or a device.
        OSError: the file can't be written there.
    """
    with new_file(path) as file:
        file.write(data)
    return Path(path)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Like :func:`write_bytes`, for text; written as UTF-8 with the line ends that `text` has. What stands for bytes
    of file names that are no UTF-8 becomes those bytes again."""
    return write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Like :func:`write_text`, for anything that :func:`plain` takes, as strict JSON."""
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    # A file name that is no UTF-8 is told by escapes, "\\udcff", which JSON has and its readers take.
    text = re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)
    return write_text(path, text + "\n")


def plain(value: Any) -> Any:
    """`value` with nothing but what strict JSON knows: NaN and infinities become None, arrays lists, others text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors, numpy scalars
        return plain(value.tolist())
    return str(value)
