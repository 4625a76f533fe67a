"""Checks of numbers that several files make. Each raises an error that names the argument."""

from __future__ import annotations

import math
from typing import TypeVar

from ..errors import ArgumentError

__all__ = ["at_least", "positive"]

Number = TypeVar("Number", int, float)


def at_least(minimum: int, **values: int) -> None:
    """Raise unless all named values are at least `minimum`."""
    for argument, value in values.items():
        if value < minimum:
            raise ArgumentError(f"{argument} is {value}, expected at least {minimum}.")


def positive(argument: str, value: Number, of: str = "") -> Number:
    """Return `value` if it is finite and above 0; `of` says what it is a number of, such as "frames per second"."""
    if not (math.isfinite(value) and value > 0):
        raise ArgumentError(f"{argument} is {value!r}, expected a positive number{f' of {of}' if of else ''}.")
    return value
