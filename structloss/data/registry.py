"""Registries of one-file things: each module of a package registers what it has when it is imported."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from ..errors import ArgumentError

__all__ = ["Named", "Registry"]


class Named(Protocol):
    """What can be registered."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)


class Registry(Mapping[str, Entry]):
    """Name -> entry, in the order of the names.

    The modules of `package` are imported when somebody first looks something up, but for those whose names begin with
    an underscore. So a new file in the package is all that a new entry needs, and whoever imports the registry alone
    pays for none. Code outside of the package may register entries of its own.

    Args:
        package: dotted name of the package whose modules register.
        kind: what an entry is, for messages.
    """

    def __init__(self, package: str, kind: str) -> None:
        self.package, self.kind = package, kind
        self._entries: dict[str, Entry] = {}
        self._searched: set[str] = set()

    def register(self, entry: Entry) -> Entry:
        """Add an entry, and return it.

        Raises:
            ArgumentError: there is one of this name already.
        """
        if entry.name in self._entries:
            raise ArgumentError(f"{self.kind} {entry.name!r} is registered already, expected a new name.")
        self._entries[entry.name] = entry
        return entry

    def _find(self) -> dict[str, Entry]:
        """The entries, after every module of the package had its turn."""
        places = set(importlib.import_module(self.package).__path__) - self._searched
        self._searched |= places  # before importing: a module may look something up while it is imported
        try:
            for module in sorted(pkgutil.iter_modules(places), key=lambda module: module.name):
                if not module.ispkg and not module.name.startswith("_"):
                    importlib.import_module(f"{self.package}.{module.name}")
        except BaseException:
            self._searched -= places  # the next look fails in the same way, rather than finding less
            raise
        return self._entries

    def __getitem__(self, name: str) -> Entry:
        return self._find()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._find()))

    def __len__(self) -> int:
        return len(self._find())
