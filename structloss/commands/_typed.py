"""Messages name flags as they were typed: by their short form, where that was given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import StructlossError

__all__ = ["as_typed"]

#: short form -> what it stands for
_SHORT = {"--root": "--model.root", "--init-from": "--model.init_from"}


@contextmanager
def as_typed(arguments: Sequence[str]) -> Iterator[None]:
    """Around a command of such arguments: its errors name the short forms among them."""
    given = {argument.partition("=")[0] for argument in arguments}
    short = {long: flag for flag, long in _SHORT.items() if flag in given and long not in given}
    try:
        yield
    except StructlossError as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            for long, flag in short.items():
                error.args = (re.sub(rf"(?<![\w.-]){re.escape(long)}(?![\w.])", flag, error.args[0]),)
        raise
