"""Exceptions, and the checks that raise them.

Every message is one sentence that names the argument, what was found and what was expected. The command line prints
any :class:`StructlossError` on one line without a traceback, so library code raises nothing else for bad input.

The checks of tensors are in `checks.py`, which imports torch when one of them is first asked for: the command line
must be able to say what is wrong without it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .text import visible

if TYPE_CHECKING:
    from .checks import (
        check_finite_tensors,
        check_floating,
        check_not_negative,
        check_same_device,
        check_same_shape,
        check_tensor,
        check_weight,
    )

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
    "check_finite_tensors",
    "check_floating",
    "check_name",
    "check_not_negative",
    "check_same_device",
    "check_same_shape",
    "check_tensor",
    "check_weight",
    "how_to_install",
    "needs_extra",
    "shown",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import checks

    globals()[name] = getattr(checks, name)  # the next access does not come here
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class StructlossError(Exception):
    """Base of everything this library raises on purpose. Its text is one line without control characters, whatever
    the names and values of a file in it hold."""

    def __str__(self) -> str:
        return visible(super().__str__())


class ArgumentError(StructlossError, ValueError):
    """An argument has a shape, value or device that the function can't take."""


class DtypeError(ArgumentError, TypeError):
    """A tensor has a dtype that the function can't take."""


class UnknownNameError(StructlossError, ValueError, KeyError):
    """A name (term, backbone, skeleton, backend, action, ...) that is not registered."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return visible(self.args[0]) if self.args else ""


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


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around imports: a package that is missing raises :class:`MissingDependencyError`, which says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", __name__.partition(".")[0]):  # no extra would help
            raise
        raise MissingDependencyError(
            f"{package} is not installed, expected the {extra} extra: {how_to_install(extra)}."
        ) from error


def how_to_install(extra: str) -> str:
    """The command that installs an extra: in a clone of the repository from there, else from where packages are."""
    clone = Path(__file__).resolve().parents[1]
    if not (clone / "pyproject.toml").is_file():
        return f"pip install 'structloss[{extra}]'"
    return f'pip install -e ".[{extra}]"' + ("" if Path.cwd() == clone else f" in {clone}")


def check_name(kind: str, name: object, known: Collection[str]) -> str:
    """Return `name` if it is one of `known`; otherwise raise :class:`UnknownNameError` with the nearest names."""
    if isinstance(name, str) and name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    names, more = [*known], f"{len(known)} names such as " if len(known) > 30 else ""
    hint = f"expected one of {more}{', '.join(names[:3] if more else names)}."
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    raise UnknownNameError(f"unknown {kind} {repr(name) if isinstance(name, str) else shown(name)}: {hint}")


def shown(value: object) -> str:
    """A value as it stands in a message: its repr if that is short and on one line, else its type. Takes no longer for
    containers that hold each other than for short ones, whose repr would never end."""
    text = repr(value) if _size(value, _SHOWN) <= _SHOWN else "\n"
    return visible(text) if len(text) <= _SHOWN and "\n" not in text else f"a {type(value).__name__}"


_SHOWN = 60  # characters


def _size(value: object, most: int) -> int:
    """Characters that the repr of a value has at least; counted up to where they are more than `most`."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    if isinstance(value, int):
        return value.bit_length() // 4
    if getattr(getattr(value, "dtype", None), "hasobject", False):  # an array of anything
        return most + 1
    if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return 1
    total = 0
    for part in chain(value, value.values()) if isinstance(value, Mapping) else value:
        if total >= most:
            return most + 1
        total += 1 + _size(part, most - total - 1)
    return total


def check_choice(argument: str, value: object, choices: Sequence[str]) -> str:
    """Return `value` if it is one of the fixed `choices` of `argument`; otherwise raise :class:`ArgumentError`."""
    if not isinstance(value, str) or value not in choices:
        expected = ", ".join(map(repr, choices))
        raise ArgumentError(f"{argument} is {shown(value)}, expected one of {expected}.")
    return value
