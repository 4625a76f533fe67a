"""Where many independent pieces of work are done: in this process, in processes side by side, or on a Ray cluster.

A piece is a generator function of a module with its arguments, the last of which is a folder to write into, and what
it yields are its results. It knows nothing of the engine: what it writes into the folder under its final name is in the
driver's folder, wherever it runs, and a piece that is done once more, since the process that did it was killed, finds
there what it wrote before. (The driver is the process that asks for the work.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass, replace
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any, Protocol

import torch

from ..data.parallel import follow_parent
from ..errors import ArgumentError, BackendError

__all__ = [
    "ENGINES",
    "Engine",
    "Local",
    "Piece",
    "as_told",
    "paths_in",
    "side_by_side",
    "told_as",
    "told_text",
    "with_paths",
]

ENGINES = ("local", "ray")
"""Processes of this machine, and a cluster."""

PATHS = frozenset(
    (
        *("data", "reference", "unlabelled", "motion", "init_from", "init", "vgg19", "boxes"),  # of training
        *("input", "ckpt", "weights", "refine", "fit_skeleton"),  # of prediction
    )
)
"""Settings that may name a file or a folder. Mappings with one of these names are settings, too, whose own names count,
but for `init_from`, which may map names to files."""

#: how often what processes have told is looked for
_POLL_SECONDS = 0.2
#: where a process of :func:`side_by_side` puts what it has
_results: SimpleQueue[Any]
#: path of a file where this process has it -> the same as the driver told it
_told: ContextVar[Mapping[str, str]] = ContextVar("_told", default={})  # noqa: B039  (never changed in place)


@dataclass(frozen=True)
class Piece:
    """A piece of work.

    Attributes:
        name: what it is, for messages.
        work: `work(*arguments, folder)` yields results; a function of a module.
        arguments: of it, without the folder.
        reads: files and folders of the driver that the arguments name, as they are written there. Where the work is
            done, the arguments name them where they are then.
        resumes: patterns of files in the driver's folder that the work looks for there.
    """

    name: str
    work: Callable[..., Iterator[Any]]
    arguments: tuple[Any, ...]
    reads: tuple[str, ...] = ()
    resumes: tuple[str, ...] = ()


class Engine(Protocol):
    """What does pieces of work."""

    #: whether pieces cost little more the smaller they are, so that each should be as small as can be
    spreads: bool

    def run(
        self, pieces: Sequence[Piece], folder: Path, lost: Callable[[int, BackendError], None] | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Do them all.

        Args:
            pieces: to do, those that should begin first in front.
            folder: that they write into.
            lost: is told of a piece whose process was killed again and again, and by what; None raises that.

        Yields:
            Number of a piece, and a result of it, as they come.

        Raises:
            BackendError: see `lost`.
            StructlossError: what a piece raises.
        """
        ...


@dataclass(frozen=True)
class Local:
    """Processes of this machine that share its cores; of one, this process.

    Attributes:
        jobs: pieces at a time.
    """

    jobs: int = 1
    spreads = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ArgumentError(f"jobs is {self.jobs}, expected at least 1.")

    def run(
        self, pieces: Sequence[Piece], folder: Path, lost: Callable[[int, BackendError], None] | None = None
    ) -> Iterator[tuple[int, Any]]:
        groups = {number: (number, piece, folder) for number, piece in enumerate(pieces)}
        if self.jobs == 1:
            for group in groups.values():
                yield from _numbered(*group)
            return
        told: dict[int, int] = {}  # piece -> results that were told
        dead: list[int] = []
        for number, value in self._surviving(groups, dead, told):
            yield number, value
        for number in dead:  # one of these did it: each has a process to itself
            again: list[int] = []
            yield from self._surviving({number: groups[number]}, again, told)
            if again:
                error = BackendError(
                    f"{pieces[number].name} ended its process twice: it was killed, perhaps for want of memory, or its "
                    "own code crashed; expected fewer --jobs, or less at a time."
                )
                if lost is None:
                    raise error
                lost(number, error)

    def _surviving(
        self, groups: Mapping[int, tuple[Any, ...]], dead: list[int], told: dict[int, int]
    ) -> Iterator[tuple[int, Any]]:
        """Results of pieces, those left out that were told before; pieces that were under way when a process died are
        put among the dead, and the others go on in new processes."""
        left = dict(groups)
        while left:
            counts: dict[int, int] = {}
            began: set[int] = set()
            ended: set[int] = set()
            try:
                for kind, number, value in side_by_side(_watched, list(left.values()), min(self.jobs, len(left))):
                    if kind == "began":
                        began.add(number)
                    elif kind == "ended":
                        ended.add(number)
                    else:
                        counts[number] = counts.get(number, 0) + 1
                        if counts[number] > told.get(number, 0):
                            told[number] = counts[number]
                            yield number, value
                return
            except BrokenExecutor:
                if not began:
                    raise BackendError(
                        "the processes of --jobs end before they begin: killed, perhaps for want of memory; expected "
                        "fewer --jobs."
                    ) from None
                dead += sorted(began - ended)
                left = {number: group for number, group in left.items() if number not in began}


def _numbered(number: int, piece: Piece, folder: Path) -> Iterator[tuple[int, Any]]:
    for value in piece.work(*piece.arguments, folder):
        yield number, value


def _watched(number: int, piece: Piece, folder: Path) -> Iterator[tuple[str, int, Any]]:
    yield "began", number, None
    for value in piece.work(*piece.arguments, folder):
        yield "value", number, value
    yield "ended", number, None


def side_by_side(work: Callable[..., Iterator[Any]], groups: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[Any]:
    """What `work(*group)` yields of each group, in processes that share the cores.

    Args:
        work: a function of a module, which processes can import.
        groups: its arguments.
        jobs: groups at a time.

    Raises:
        BrokenExecutor: a process was killed; what was told before has been yielded.
    """
    context = get_context("spawn")
    results: SimpleQueue[Any] = context.SimpleQueue()  # told as they come, hours before a group is done
    begin = (max(1, torch.get_num_threads() // jobs), results)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=begin) as pool:
        waiting = {pool.submit(_send, work, group) for group in groups}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                while not results.empty():  # a process is done when it has put all of its own
                    yield results.get()
                for future in done:
                    future.result()
        except BaseException as error:
            pool.shutdown(wait=isinstance(error, BrokenExecutor), cancel_futures=True)  # as data.parallel does
            raise


def _send(work: Callable[..., Iterator[Any]], group: tuple[Any, ...]) -> None:
    for result in work(*group):
        _results.put(result)


def _begin(threads: int, results: SimpleQueue[Any]) -> None:
    """Set up a process of the pool: its share of the cores, the place for results, and an end when the run that started
    it is killed."""
    global _results
    _results = results
    torch.set_num_threads(threads)
    follow_parent()


# ---- paths ---------------------------------------------------------------------------------------------------------


def paths_in(value: Any) -> tuple[str, ...]:
    """The files and folders that arguments name and that are there, as they are written: of settings called as in
    :data:`PATHS`, in mappings and dataclasses."""
    found: dict[str, None] = {}

    def look(text: str) -> str:
        if text and os.path.exists(text):
            found[text] = None
        return text

    _changed(value, look, False)
    return tuple(found)


def with_paths(value: Any, paths: Mapping[str, str], everywhere: bool = False) -> Any:
    """Arguments with other paths.

    Args:
        value: containers and dataclasses.
        paths: as they are told -> where they are.
        everywhere: not only settings that are called as in :data:`PATHS`.
    """
    return _changed(value, lambda text: paths.get(text, text), everywhere) if paths else value


def _changed(value: Any, change: Callable[[str], str], here: bool) -> Any:
    """A value with other texts, of settings that are paths or, `here`, of all."""
    if isinstance(value, str):
        return change(value) if here else value
    if isinstance(value, Mapping):
        return {key: _changed(entry, change, _are_paths(key, entry, here)) for key, entry in value.items()}
    if isinstance(value, list):
        return [_changed(entry, change, here) for entry in value]
    if type(value) is tuple:
        return tuple(_changed(entry, change, here) for entry in value)
    if is_dataclass(value) and not isinstance(value, type):
        old = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        new = {name: _changed(entry, change, _are_paths(name, entry, here)) for name, entry in old.items()}
        return replace(value, **new) if new != old else value
    return value


def _are_paths(name: Any, value: Any, here: bool) -> bool:
    return here or (name in PATHS and (name == "init_from" or not isinstance(value, Mapping)))


@contextmanager
def told_as(paths: Mapping[str, str]) -> Iterator[None]:
    """Around work whose arguments have other paths than the driver told.

    Args:
        paths: where they are -> as they were told.
    """
    token = _told.set(paths)
    try:
        yield
    finally:
        _told.reset(token)


def as_told(value: Any) -> Any:
    """A value with paths as the driver told them, for what must not depend on where the work is done."""
    return with_paths(value, _told.get(), everywhere=True)


def told_text(text: str) -> str:
    """A message with paths as the driver told them."""
    for place, told in _told.get().items():
        text = text.replace(place, told)
    return text
