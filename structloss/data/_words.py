"""Names and numbers in messages."""

from __future__ import annotations

from collections.abc import Iterable

from ..text import visible

__all__ = ["count", "some"]


def some(names: Iterable[object], most: int = 8) -> str:
    """Names in a row that stays on one line: the first `most`, and how many more there are."""
    listed = [visible(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


_OF_ONE = {"are": "is", "have": "has"}


def count(number: int, noun: str, verb: str = "") -> str:
    """A number of things: "1 clip", "2 clips"; with the verb of several, "1 clip is", "2 clips are"."""
    things = f"{number} {noun}{'' if number == 1 else 's'}"
    return things if not verb else f"{things} {_OF_ONE[verb] if number == 1 else verb}"
