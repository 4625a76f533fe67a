"""What a data format is, and the registry that knows all of them.

A format is one file of this folder, which ends in

    FORMATS.register(Format("name", "what it is", read, ...))

`detect`, `open_data`, `inspect_data`, `convert`, the flags of `structloss data` and every message that lists formats
read the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..registry import Registry
from .candidate import Candidate, Recognised

if TYPE_CHECKING:
    from ..store import PoseStore

__all__ = ["FORMATS", "Format", "Option"]


@dataclass(frozen=True)
class Option:
    """What a format can be told: a keyword of :func:`~structloss.data.opening.open_data`, a flag of `structloss data`.

    Formats that share an option share the object.

    Attributes:
        name: the keyword; the flag has dashes for its underscores.
        says: what it means, for `--help`.
        metavar: what stands for the value in `--help`; None is the name.
        type: makes the value of a flag's text; bool is a flag without a value, True where it is given.
        choices: the values that the flag may have; None is any.
    """

    name: str
    says: str
    metavar: str | None = None
    type: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Format(Recognised[Candidate]):
    """A data format; how it is recognised tells :class:`~structloss.data.formats.candidate.Recognised`.

    Its `sniff` must not load the data. Its `read(path, progress=..., **options)` makes a pose store, or a list of clips
    if `clips` is set. It gets those options that were given, none of them None.

    Attributes:
        hint: `hint(candidate)`, the rest of a sentence about a path of no format that belongs to this one, such as "is
            the skeleton of .amc files, expected one of those"; or None.
        options: what it can be told.
        clips: it holds motion in the world, which is read as clips.
        convert_fps: frames per second that a conversion resamples its clips to, unless it is told otherwise; None
            leaves them as they are.
        meta: `meta(path)`: entries that a conversion to a clip archive keeps; None has none.
        files: `files(path)`: the files of a folder that are read one by one by `read_file(file, **options)`, and put
            together by `gather(path, files, read, skip_bad)`, where `read(file)` is any reader; None where it is
            read as a whole.
        problems: `problems(store)`: what a store lacks of the published files, a sentence each; None has no such files.
    """

    hint: Callable[[Candidate], str | None] | None = None
    options: tuple[Option, ...] = ()
    clips: bool = False
    convert_fps: float | None = None
    meta: Callable[[Path], dict[str, Any]] | None = None
    problems: Callable[[PoseStore], list[str]] | None = None
    files: Callable[[Path], list[Path]] | None = None
    read_file: Callable[..., Any] | None = None
    gather: Callable[..., list[Any]] | None = None

    def takes(self, option: str) -> bool:
        """Whether it has an option of this name."""
        return any(option == own.name for own in self.options)


FORMATS: Registry[Format] = Registry(__package__, "data format")
"""Every format by name."""
