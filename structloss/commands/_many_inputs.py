"""What `structloss predict` takes for many inputs: a list of them, or a folder that has keypoint files, videos and
folders of either in it without being one input itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import ArgumentError, DataError, StructlossError, shown
from ..reading import read_text
from ._predict_footage import shows_frames

__all__ = ["OneInput", "are_many", "find_inputs", "is_one"]

_LIST = ".txt"
_KEYPOINTS = (".json", ".npz", ".npy")


@dataclass(frozen=True)
class OneInput:
    """One of many.

    Attributes:
        name: where its results go, below the folder of all: its path from the folder that was given, or as a list has
            it, without what leads out of there.
        input: its path.
        size: bytes, of a folder those of its files.
        state: changes when it changes.
    """

    name: str
    input: str
    size: int
    state: str


def are_many(path: str | None) -> bool:
    """Whether an input is a list of inputs or a folder of them.

    A folder is one input where it is today: OpenPose's or YOLO-pose's files, or images that are frames. It is many
    where anything in it, or in a folder in it, is an input.
    """
    if not path:
        return False
    place = Path(path)
    if not place.is_dir():
        return place.suffix.lower() == _LIST and place.is_file()
    return not is_one(place) and next(_below(place, None), None) is not None


def find_inputs(path: str, out: str | None = None) -> list[OneInput]:
    """The inputs of a list or of a folder, in the order of the list, or of their names.

    Args:
        path: one that :func:`are_many`.
        out: folder of results, which are not looked at.

    Raises:
        ArgumentError: results would go into the folder of the inputs.
        DataError: an empty list, or one whose entries' results would go to the same place.
    """
    place, results = Path(path), None if out is None else Path(out).resolve()
    if place.is_dir():
        if results == place.resolve():
            raise ArgumentError(f"--out is {out!r}, the folder of the inputs, expected another.")
        return [_one(file.relative_to(place).as_posix(), file) for file in _below(place, results)]
    found: dict[str, OneInput] = {}
    for line in read_text(place, "a list of inputs").split("\n"):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        if "\0" in text:
            raise DataError(f"{path} has {shown(text)}, which no file can be called, expected a path a line.")
        named = text if text.startswith("sample:") else str(place.parent / text)
        one = _one(_inside(text), Path(named))
        if (twin := found.get(one.name)) is not None and twin.input != one.input:
            raise DataError(f"{path} has {twin.input} and {one.input}, whose results go to the same place.")
        found[one.name] = one
    if not found:
        raise DataError(f"{path} names no inputs, expected a path a line.")
    return [*found.values()]


def _inside(text: str) -> str:
    """A path without what leads out of a folder: "../a.json" -> "a.json", "/data/a.json" -> "data/a.json"."""
    parts = PurePosixPath(os.path.normpath(text).replace("\\", "/")).parts
    return "/".join(part.replace(":", "_") for part in parts if part not in ("/", "..", ".")) or "input"


def _below(folder: Path, results: Path | None) -> Iterator[Path]:
    """Inputs in a folder and below, by name; hidden ones and linked folders' content left out."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} can't be read: {error.strerror or error}.") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if entry.resolve() == results:
                continue
            if is_one(entry):
                yield entry
            elif not entry.is_symlink():
                yield from _below(entry, results)
        elif entry.suffix.lower() in (*_KEYPOINTS, *_videos()) and entry.is_file():
            yield entry


def _videos() -> tuple[str, ...]:
    from ..images.video import VIDEO_SUFFIXES

    return tuple(VIDEO_SUFFIXES)


def is_one(folder: Path) -> bool:
    """Whether a folder is one input: frames, or files that belong together."""
    from ..data.formats.candidate import surest
    from ..data.formats.keypoint_form import FORMS, KeypointFile

    try:
        return shows_frames(str(folder)) or bool(surest(KeypointFile(folder), FORMS.values()))
    except (StructlossError, OSError):  # a damaged file, which is told when it is read
        return False


def _one(name: str, path: Path) -> OneInput:
    """With what tells whether it is still the same; an input that is missing says so when it is read."""
    try:
        files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
        states = [file.stat() for file in files]
    except OSError:
        return OneInput(name, str(path), 0, "missing")
    newest = max((state.st_mtime_ns for state in states), default=0)
    size = sum(state.st_size for state in states)
    return OneInput(name, str(path), size, f"{len(states)} {size} {newest}")
