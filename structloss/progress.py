"""A progress bar for preparations that take seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from .text import visible

__all__ = ["track"]

T = TypeVar("T")


def track(items: Sequence[T], description: str, enabled: bool) -> Iterable[T]:
    """`items`, with a bar on the terminal if it is enabled, standard error is a terminal and rich is installed."""
    if not (enabled and sys.stderr.isatty()):
        return items
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import track as rich_track
    except ImportError:
        return items
    return rich_track(items, description=escape(visible(description)), console=Console(stderr=True), transient=True)
