"""Text of files, as it may be printed.

Names of files, joints, subjects and videos come from files, and a file may hold any character: an escape sequence
would move a terminal's cursor, change its title or hide what stands before it.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["visible", "visible_lines", "visible_warnings"]


def visible(text: object) -> str:
    r"""The text on one line, with an escape in place of every character that is not seen: control characters, line
    ends, marks that turn the direction of writing, and bytes of a file's name that are no text. What has been through
    it is not changed again.

    >>> visible("Hips\x1b[2J\n")
    'Hips\\x1b[2J\\n'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def visible_lines(text: object) -> str:
    """The same of each line of a text that has several."""
    return "\n".join(map(visible, str(text).split("\n")))


@contextmanager
def visible_warnings() -> Iterator[None]:
    """Within it, a warning is one line of its text, as :func:`visible` has it, without the place in the source and
    without its code: what a user of the command line is told, not what a developer is."""
    before = warnings.showwarning

    def shown(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        # For this one alone: libraries that are imported meanwhile set a format, too.
        formatted, warnings.formatwarning = warnings.formatwarning, _plain
        try:
            before(visible(message), category, visible(filename), lineno, file, line)
        finally:
            warnings.formatwarning = formatted

    warnings.showwarning = shown
    try:
        yield
    finally:
        warnings.showwarning = before


def _plain(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    return f"structloss: warning: {message}\n"
