"""Exceptions, and the checks that raise them.

Every message is one sentence that names the argument, what was found and what was expected. The command line prints
any :class:`StructlossError` on one line without a traceback, so library code raises nothing else for bad input.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = [
    "ArgumentError",
    "BackendError",
    "CheckpointError",
    "DataError",
    "DtypeError",
    "MissingDependencyError",
    "MissingFileError",
    "StructlossError",
    "UnknownNameError",
    "check_choice",
    "check_name",
]


class StructlossError(Exception):
    """Base of everything this library raises on purpose."""


class ArgumentError(StructlossError, ValueError):
    """An argument has a shape, value or device that the function can't take."""


class DtypeError(ArgumentError, TypeError):
    """A tensor has a dtype that the function can't take."""


class UnknownNameError(StructlossError, ValueError, KeyError):
    """A name (term, backbone, skeleton, backend, action, ...) that is not registered."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class BackendError(StructlossError, RuntimeError):
    """A backend asked for by name can't serve the call on this machine."""


class CheckpointError(StructlossError, ValueError):
    """A checkpoint that can't be read safely, or that belongs to another model."""


class DataError(StructlossError, ValueError):
    """A data file with unexpected content."""


class MissingFileError(StructlossError, FileNotFoundError):
    """A file that does not exist."""


class MissingDependencyError(StructlossError, ImportError):
    """An optional package is not installed."""


def check_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Return `name` if it is one of `known`; otherwise raise :class:`UnknownNameError` with the nearest names."""
    known = list(known)
    if isinstance(name, str) and name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"expected one of {', '.join(known)}."
    raise UnknownNameError(f"unknown {kind} {name!r}: {hint}")


def check_choice(argument: str, value: object, choices: Sequence[str]) -> str:
    """Return `value` if it is one of the fixed `choices` of `argument`; otherwise raise :class:`ArgumentError`."""
    if value not in choices:
        expected = ", ".join(map(repr, choices))
        raise ArgumentError(f"{argument} is {value!r}, expected one of {expected}.")
    return value
