"""What demonstrations share: the folder that they write, and the table that they print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArgumentError
from ..files import scratch_folder

if TYPE_CHECKING:
    from ..reports.results import RunSummary

__all__ = ["check_out", "print_table", "put_in_place"]


def check_out(out: Path) -> None:
    """Raise :class:`ArgumentError` if a demo can't be written there."""
    from ..reports.results import read_json

    if out.exists() and not out.is_dir():
        raise ArgumentError(f"out is {str(out)!r}, a file, expected a folder.")
    if out.is_dir() and any(out.iterdir()):
        try:
            read_json(out / "metrics.json")
        except Exception as error:
            raise ArgumentError(
                f"out is {str(out)!r}, a folder with other content, expected an empty one or one of an earlier demo."
            ) from error
    with scratch_folder(out):  # can be made there
        pass


def put_in_place(scratch: Path, out: Path, files: Sequence[str]) -> None:
    """Put each finished file in its place; the folder may hold an earlier demo."""
    out.mkdir(exist_ok=True)
    for name in files:
        (scratch / name).replace(out / name)


def print_table(summary: RunSummary) -> None:
    """Print the comparison, as a table with colours on a terminal."""
    from ..reports import plain_table, table

    print()
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(table(summary))
    else:
        print(plain_table(summary))
