"""What tasks on a Ray cluster have of the driver's disk: its files to read, and a folder to keep theirs in.

No disk is shared. On the driver's node an actor, the keeper, reads the files that the arguments of the work name, and
writes what tasks keep into the driver's folder; everything travels in parts of a few megabytes. A task has a scratch
folder: it begins with the files that it resumes from, and whatever appears in it under its final name goes to the
keeper, within a second and before a result is told. Where the driver's file is there under the same path, with the same
size and date (the driver's own machine, a shared disk), it is read in place.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import BackendError, DataError
from ..files import held, replacing, scratch_folder

__all__ = ["Keeper", "Mirror", "local_copies"]

_PART = 4 << 20  # bytes that travel at a time
_LOOK_SECONDS = 1.0
#: of temporary names (structloss.files), which become others
_HIDDEN = "."


class Keeper:
    """The driver's side, as an actor. One process, whose calls follow each other.

    Args:
        folder: where the files of tasks go.
        readable: files and folders that tasks may read.
    """

    def __init__(self, folder: str, readable: Sequence[str]) -> None:
        self.folder, self.readable = Path(folder), {*readable}
        self._coming: dict[str, tuple[Any, Any]] = {}
        self._begun: Counter[int] = Counter()
        self._news: list[tuple[int, str, int]] = []

    def begins(
        self, piece: int, where: str, resumes: Sequence[str], most: int | None = None
    ) -> list[tuple[str, int, int]]:
        """A task begins with a piece; returns what :meth:`found` does of what it resumes from.

        Raises:
            BackendError: it was begun `most` times before.
        """
        if most is not None and self._begun[piece] >= most:
            raise BackendError(
                f"a piece was begun {most} times, and its worker was lost each time, perhaps for want of memory, "
                "expected a node with more, or less at a time."
            )
        self._begun[piece] += 1
        found = self.found(resumes)
        if self._begun[piece] > 1:
            self._news.append((piece, where, len(found)))
        return found

    def news(self) -> list[tuple[int, str, int]]:
        """(piece, node, files that it resumes from) of pieces that were begun once more since this was last asked."""
        news, self._news = self._news, []
        return news

    def listing(self, path: str) -> list[tuple[str, int, int]]:
        """(name, size, date in ns) of the files of a readable folder, or of a file, whose name is ""."""
        place = self._readable(path)
        if place.is_file():
            return [("", *_state(place))]
        files = (file for file in sorted(place.rglob("*")) if file.is_file())
        return [(file.relative_to(place).as_posix(), *_state(file)) for file in files]

    def read(self, path: str, name: str, offset: int) -> bytes:
        """A part of a readable file."""
        place = self._readable(path)
        file = place / name if name else place
        if name and not file.resolve().is_relative_to(place.resolve()):
            raise DataError(f"{name} is not in {path}.")
        with open(file, "rb") as opened:
            opened.seek(offset)
            return opened.read(_PART)

    def found(self, patterns: Sequence[str]) -> list[tuple[str, int, int]]:
        """The same as `listing` of the files directly in the folder that fit a pattern."""
        names = {file for pattern in patterns for file in self.folder.glob(pattern) if file.is_file()}
        return [(file.name, *_state(file)) for file in sorted(names) if not file.name.startswith(_HIDDEN)]

    def read_kept(self, name: str, offset: int) -> bytes:
        """A part of a file in the folder."""
        with open(self._inside(name), "rb") as opened:
            opened.seek(offset)
            return opened.read(_PART)

    def write(self, task: str, name: str, offset: int, part: bytes, last: bool) -> None:
        """Take a part of a file of a task; with the last one it appears in the folder."""
        key = f"{task}/{name}"
        if offset == 0:
            self._drop(key)
            manager = replacing(self._inside(name))
            self._coming[key] = manager, open(manager.__enter__(), "wb")  # noqa: SIM115  (closed with the last part)
        manager, file = self._coming[key]
        file.seek(offset)
        file.write(part)
        if last:
            file.close()
            del self._coming[key]
            manager.__exit__(None, None, None)

    def remove(self, name: str) -> None:
        """Remove a file that its task has removed."""
        with suppress(FileNotFoundError):
            self._inside(name).unlink()

    def _drop(self, key: str) -> None:
        """Forget what a task was sending that was killed meanwhile."""
        if key in self._coming:
            manager, file = self._coming.pop(key)
            file.close()
            with suppress(InterruptedError):
                error = InterruptedError()
                manager.__exit__(InterruptedError, error, None)

    def _readable(self, path: str) -> Path:
        if path not in self.readable:
            raise DataError(f"{path} is not among the files of this work.")
        return Path(path)

    def _inside(self, name: str) -> Path:
        path = self.folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{name!r} is no name of a file in {self.folder}.")
        return path


def _state(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _which(folder: Path) -> tuple[int, int] | None:
    """Which folder that is, whatever its name; None where none is. As long as it is locked there is no other one."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _fetch(read: Any, file: Path, size: int, date: int) -> None:
    """Write a file part by part; `read(offset)` gives them."""
    with replacing(file) as temporary:
        with open(temporary, "wb") as opened:
            offset = 0
            while offset < size:
                part = read(offset)
                if not part:
                    raise DataError(f"{file.name} became shorter while it was read.")
                opened.write(part)
                offset += len(part)
        os.utime(temporary, ns=(date, date))


def local_copies(call: Any, paths: Sequence[str], cache: Path) -> dict[str, str]:
    """Where the driver's files are on this node: in place, or else copied into a folder that the node's tasks share.

    Args:
        call: `call(method, ...)` asks the keeper.
        paths: absolute, on the driver's node.
        cache: the folder.
    """
    found = {}
    for path in paths:
        try:
            listing = call("listing", path)
        except OSError:
            listing = []
        if all(_same(Path(path) / name if name else Path(path), size, date) for name, size, date in listing):
            found[path] = path
            continue
        digest = hashlib.sha256(repr((path, listing)).encode()).hexdigest()[:16]
        # Keeps its own name, by which readers know formats and people know outputs.
        place = cache / digest / (Path(path).name or "files")
        try:
            for name, size, date in listing:
                file = place / name if name else place
                if not _same(file, size, date):
                    _fetch(lambda offset, path=path, name=name: call("read", path, name, offset), file, size, date)
        except (OSError, DataError):  # the work itself says that it can't be read, and of which of many
            found[path] = path
            continue
        found[path] = str(place)
    return found


def _same(file: Path, size: int, date: int) -> bool:
    try:
        return file.is_file() and _state(file) == (size, date)
    except OSError:
        return False


class Mirror:
    """A task's side: a scratch folder whose files go to the keeper.

    Args:
        call: `call(method, ...)` asks the keeper.
        task: a name that no other task has.
        resumes: (name, size, date) of the files to begin with.
        folder: the scratch folder, empty.
    """

    def __init__(self, call: Any, task: str, resumes: Sequence[tuple[str, int, int]], folder: Path) -> None:
        self.folder, self._call, self._task = folder, call, task
        self._lock = threading.Lock()
        self._failed: BaseException | None = None
        self._which = _which(folder)
        self._known: dict[str, tuple[int, int]] = {}
        for name, size, date in resumes:
            _fetch(lambda offset, name=name: call("read_kept", name, offset), folder / name, size, date)
            self._known[name] = size, date

    def send(self) -> None:
        """Send what is new, and have removed what is gone.

        Raises:
            DataError: all of it is gone, with the folder.
        """
        with self._lock:
            now = self._here()
            if _which(self.folder) != self._which:
                raise DataError(
                    f"{self.folder} was removed while a task was at work in it, expected that nothing clears its "
                    "node's folder for temporary files; what was kept until then is there."
                )
            for name, state in now.items():
                if self._known.get(name) != state:
                    self._send(name)
                    self._known[name] = state
            for name in [name for name in self._known if name not in now]:
                self._call("remove", name)
                del self._known[name]
            if self._failed is not None:
                raise self._failed

    def _here(self) -> dict[str, tuple[int, int]]:
        found = {}
        for file in self.folder.rglob("*"):
            name = file.relative_to(self.folder)
            if not any(part.startswith(_HIDDEN) for part in name.parts):
                with suppress(OSError):  # gone meanwhile
                    if file.is_file():
                        found[name.as_posix()] = _state(file)
        return found

    def _send(self, name: str) -> None:
        with suppress(FileNotFoundError), open(self.folder / name, "rb") as file:
            offset = 0
            part = file.read(_PART)
            while True:
                following = file.read(_PART)
                self._call("write", self._task, name, offset, part, not following)
                offset += len(part)
                if not following:
                    return
                part = following

    @contextmanager
    def following(self) -> Iterator[None]:
        """Within it, a thread looks for new files every second."""
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(_LOOK_SECONDS):
                try:
                    self.send()
                except BaseException as error:  # told by the next `send` of the task
                    self._failed = error
                    return

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextmanager
def scratch(session: Path) -> Iterator[Path]:
    """A folder for a task, in that of the driver's session on this node, which is in one of this user's sessions.

    Raises:
        DataError: the folder of sessions is another's, who could read what is in it and put something there.
    """
    sessions = session.parent
    sessions.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = sessions.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise DataError(f"{sessions} is a link or another user's, expected a folder of this user's.")
    session.mkdir(exist_ok=True)
    with scratch_folder(session / "task") as folder:
        yield folder


def forget(session: Path) -> None:
    """Remove what a session left on this node."""
    shutil.rmtree(session, ignore_errors=True)


def forget_unused(sessions: Path, seconds: float) -> None:
    """Remove the sessions in their folder to which for so long no task came and in which none is at work: their
    drivers were killed."""
    for session in sessions.iterdir():
        with suppress(OSError):  # gone meanwhile, or no folder
            if time.time() - session.lstat().st_mtime > seconds and not any(map(_at_work, session.iterdir())):
                forget(session)


def _at_work(task: Path) -> bool:
    """Whether a process holds the scratch folder of a task."""
    try:
        with held(task):
            return False
    except BlockingIOError:
        return True
    except OSError:  # gone meanwhile
        return False
