"""A path whose format is asked for, and what can be told of it without loading anything."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from .unpickle import npz_members

__all__ = ["CERTAIN", "MAYBE", "NO", "Candidate"]

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
