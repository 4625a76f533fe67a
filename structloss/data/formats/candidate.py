"""A path whose format is asked for, and what can be told of it without loading anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from .unpickle import npz_members

__all__ = ["CERTAIN", "MAYBE", "NO", "Candidate", "Recognised", "surest"]

NO, MAYBE, CERTAIN = 0, 1, 2
"""How sure a format is of a candidate. Of several that are equally sure, none is taken."""


class Candidate:
    """A file or folder.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.path.is_dir()

    @cached_property
    def suffix(self) -> str:
        """The ending of a file's name in lower case, such as ".npz"; "" of a folder."""
        return "" if self.is_folder else self.path.suffix.lower()

    @cached_property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays in an npz file, from its table of contents; nothing for anything else.

        Raises:
            DataError: a damaged npz file.
        """
        return tuple(npz_members(self.path)) if self.suffix == ".npz" else ()

    def holds(self, *patterns: str) -> bool:
        """Whether a folder has anything whose name, seen from the folder, fits one of the patterns ("train/*.pkl")."""
        return self.is_folder and any(any(self.path.glob(pattern)) for pattern in patterns)


Kind = TypeVar("Kind", bound=Candidate)


@dataclass(frozen=True)
class Recognised(Generic[Kind]):
    """What files and folders can be of, with how they are recognised.

    Attributes:
        name: in messages and tables.
        says: what it is, in a few words.
        read: reads it.
        suffixes: endings of the names of its files, lower case. A file with one of them may be of this kind.
        arrays: arrays of its npz files. A file with one of them is of this kind.
        folder: patterns such as "train/*.pkl". A folder with a file that fits one may be of this kind.
        sniff: `sniff(candidate)`, how sure it is: `NO`, `MAYBE` or `CERTAIN`. It decides in place of the three above
            where they do not tell enough; they are still what messages and tables say.
    """

    name: str
    says: str
    read: Callable[..., Any]
    suffixes: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()
    folder: tuple[str, ...] = ()
    sniff: Callable[[Kind], int] | None = None

    def __str__(self) -> str:
        return self.says

    def sure(self, candidate: Kind) -> int:
        """How sure it is of a candidate: `NO`, `MAYBE` or `CERTAIN`."""
        if self.sniff is not None:
            return int(self.sniff(candidate))
        if candidate.is_folder:
            return MAYBE if candidate.holds(*self.folder) else NO
        if any(array in candidate.arrays for array in self.arrays):
            return CERTAIN
        return MAYBE if candidate.suffix in self.suffixes else NO


Entry = TypeVar("Entry", bound=Recognised[Any])


def surest(candidate: Candidate, entries: Iterable[Entry]) -> list[Entry]:
    """Those entries that are surest of the candidate; none where none may be it."""
    sure = [(entry.sure(candidate), entry) for entry in entries]
    most = max((how for how, _ in sure), default=NO)
    return [entry for how, entry in sure if how == most > NO]
