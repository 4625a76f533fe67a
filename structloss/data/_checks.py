"""Checks of settings that several files make. Each raises an error that names the argument."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from ..errors import ArgumentError

__all__ = ["at_least", "check_number", "check_range", "check_shape", "positive", "settings_of"]

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


def settings_of(cls: type, argument: str, settings: Any) -> Any:
    """An object of settings, of a dataclass, from what stands in a configuration: True is the defaults, False and None
    are no object, a dict some of the fields.

    Raises:
        ArgumentError: another type, or an unknown name.
    """
    if settings is None or settings is False:
        return None
    if settings is True:
        return cls()
    if not isinstance(settings, dict):
        raise ArgumentError(f"{argument} is {settings!r}, expected true, false or a dict of settings.")
    known = [field.name for field in fields(cls)]
    for name in settings:
        if name not in known:
            raise ArgumentError(f"{argument} has {name!r}, expected some of {', '.join(known)}.")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()})


def check_range(argument: str, found: Any, least: float, most: float) -> None:
    """Raise :class:`ArgumentError` unless it is two numbers, the first at most the second, between two limits."""
    good = isinstance(found, (tuple, list)) and len(found) == 2 and all(_number(value) for value in found)
    if not good or not least <= found[0] <= found[1] <= most:
        raise ArgumentError(f"{argument} is {found!r}, expected two numbers [least, most] from {least:g} to {most:g}.")


def check_number(argument: str, found: Any, most: float, least: float = 0) -> None:
    """Raise :class:`ArgumentError` unless it is a number between two limits."""
    if not _number(found) or not least <= found <= most:
        raise ArgumentError(f"{argument} is {found!r}, expected a number from {least:g} to {most:g}.")


def check_shape(argument: str, found: np.ndarray, expected: tuple[int | None, ...], shown: str) -> None:
    """Raise :class:`ArgumentError` unless an array has a shape; None is any length, `shown` what the message says."""
    shape = np.shape(found)
    if len(shape) != len(expected) or any(
        given != wanted for given, wanted in zip(shape, expected, strict=True) if wanted is not None
    ):
        raise ArgumentError(f"{argument} has shape {list(shape)}, expected {shown}.")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
