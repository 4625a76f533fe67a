"""Which format a path is of, told by names and tables of contents: nothing is loaded."""

from __future__ import annotations

import os

from ... import samples
from ...errors import DataError, check_name
from ...reading import existing
from .._words import some
from .candidate import Candidate, surest
from .registry import FORMATS, Format

__all__ = ["FORMATS", "detect", "recognise"]


def detect(path: str | os.PathLike[str]) -> str:
    """The name of the format of a file or folder, one of :data:`~structloss.data.formats.registry.FORMATS`.

    Raises:
        MissingFileError: there is no such path.
        DataError: none of the formats, or a folder with files of several.
    """
    return recognise(path).name


def recognise(path: str | os.PathLike[str], name: str | None = None) -> Format:
    """The format of a file or folder, see :func:`detect`; the one called `name` where that is told.

    Raises:
        UnknownNameError: no format is called so, or no sample.
    """
    candidate = Candidate(existing(samples.resolve(path, "motion"), "a data set"))
    if name is not None:
        return FORMATS[check_name("format", name, FORMATS)]
    found = surest(candidate, FORMATS.values())
    if not found:
        raise DataError(_unknown(candidate))
    if len(found) > 1:
        names = ", ".join(entry.name for entry in found)
        several = (
            f"{candidate.path} has files of several formats, {names}, expected one; name a file in it, or set format."
        )
        either = f"{candidate.path} may be of {names}, expected one format; set format."
        raise DataError(several if candidate.is_folder else either)
    return found[0]


def _unknown(candidate: Candidate) -> str:
    """What to say of a path of no format."""
    for entry in FORMATS.values():
        if entry.hint is not None and (hint := entry.hint(candidate)):
            return f"{candidate.path} {hint}."
    if candidate.suffix == ".npz":
        marks = [f"{array} ({name})" for name, entry in FORMATS.items() for array in entry.arrays]
        have = some(candidate.arrays, 6) or "(none)"
        return f"{candidate.path} has arrays {have}, expected one of {', '.join(marks)}."
    found = "has no file of a known format" if candidate.is_folder else "is of no known format"
    return f"{candidate.path} {found}, expected one of: {'; '.join(map(str, FORMATS.values()))}."
