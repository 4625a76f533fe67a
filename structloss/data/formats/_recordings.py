"""Motion capture as a data format: a file of one recording, or a folder with any number of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import ArgumentError, DataError, MissingFileError
from ...progress import track
from .._checks import positive
from ..clips import Clip
from .registry import Format, Option

__all__ = ["ASF", "LeftOut", "recordings"]

_FPS = 50.0  # of Human3.6M, which conversions resample to
_COMMON = (
    Option("joints", "YAML or JSON map of joints, or the name of a known one", metavar="MAP"),
    Option("scale", "metres per unit of the file", type=float),
    Option("up", "the axis of the file that points up", choices=("x", "y", "z", "-y")),
    Option("source_fps", "frames per second of the file, where they are wrong or absent", type=float),
    Option("skip_bad", "leave out files of a folder that can't be read, and say which", type=bool),
)
_SLOWEST, _FASTEST = 1e-4, 1e5  # frames per second
_SHOWN = 20  # files left out, that are told why
ASF = Option("asf", "skeleton of an AMC file, or of CMU's BVH", metavar="FILE.asf")
"""The option of formats that need a skeleton beside the recording."""


class LeftOut(UserWarning):
    """Of a file that is not among what was read."""


def _say_left_out(bad: list[str], total: int) -> None:
    """Warn of files that could not be read, with the reasons `bad`, of `total` files."""
    more = f"; the first {_SHOWN} are" if len(bad) > _SHOWN else ""
    warnings.warn(f"{len(bad)} of {total} files are left out{more}", LeftOut, stacklevel=3)
    for reason in bad[:_SHOWN]:
        warnings.warn(f"left out: {reason.rstrip('.')}", LeftOut, stacklevel=3)


@contextmanager
def _gathered(total: int) -> Iterator[Callable[[Path], AbstractContextManager[None]]]:
    """Around reading `total` files, each in a context that it yields a maker of: what is warned of several files alike
    is warned of once, with their number."""
    heard: dict[tuple[str, type[Warning]], list[Path]] = {}

    @contextmanager
    def gather(file: Path) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield
        for warning in said:
            text = str(warning.message).replace(str(file), "\0")
            heard.setdefault((text, warning.category), []).append(file)

    yield gather
    for (text, category), files in heard.items():
        more = f" (and {len(files) - 1} more of {total} files)" if len(files) > 1 else ""
        warnings.warn(text.replace("\0", f"{files[0]}{more}"), category, stacklevel=4)


def recordings(name: str, says: str, read: Callable[..., Clip], *, options: tuple[Option, ...] = ()) -> Format:
    """A format of files that end in `.name`.

    Args:
        name, says: see :class:`~structloss.data.formats.registry.Format`.
        read: `read(path, joints=..., scale=..., up=..., fps=..., **options)`, the reader of one file; it gets those
            that were given.
        options: what else it takes.
    """
    patterns = (f"**/*.{name}", f"**/*.{name.upper()}")

    def files_of(path: Path) -> list[Path]:
        return sorted({file for pattern in patterns for file in path.glob(pattern)}) if path.is_dir() else [path]

    def read_file(file: Path, *, source_fps: float | None = None, **given: Any) -> Clip:
        if source_fps is not None:
            given["fps"] = positive("source_fps", source_fps, "frames per second")
            if not _SLOWEST <= source_fps <= _FASTEST:
                raise ArgumentError(f"source_fps is {source_fps:g}, expected {_SLOWEST:g} to {_FASTEST:g}.")
        return read(file, **given)

    def gather(path: Path, files: Sequence[Path], one: Callable[[Path], Any], skip_bad: bool) -> list[Any]:
        return _gather_all(name, path, files, one, skip_bad, False)

    def read_all(path: Path, *, progress: bool = False, skip_bad: bool = False, **given: Any) -> list[Clip]:
        return _gather_all(name, path, files_of(path), partial(read_file, **given), skip_bad, progress)

    return Format(
        name, says, read_all, suffixes=(f".{name}",), folder=patterns, options=(*_COMMON, *options), clips=True,
        convert_fps=_FPS, files=files_of, read_file=read_file, gather=gather,
    )  # fmt: skip


def _gather_all(
    name: str, path: Path, files: Sequence[Path], read: Callable[[Path], Any], skip_bad: bool, progress: bool
) -> list[Any]:
    """What `read` gives of all files, in their order: clips, or anything else that has a `key`."""
    clips: dict[str, Any] = {}
    bad: list[str] = []
    with _gathered(len(files)) as gather:
        for file in track(files, f"reading .{name} files", progress):
            try:
                with gather(file):
                    clip = read(file)
                if clip.key in clips:
                    raise DataError(f"{path} has two files called {file.name}, expected different names.")
                clips[clip.key] = clip
            except (DataError, MissingFileError) as error:
                if len(files) == 1:
                    raise
                if not skip_bad:
                    text = str(error)
                    hint = "; structloss data convert leaves such files out with --skip-bad."
                    raise type(error)(text.removesuffix(".") + hint) from error
                bad.append(str(error))
    if not clips:
        first = f"can be read; {bad[0]}" if bad else f"ends in .{name}."
        raise DataError(f"none of the {len(files)} files of {path} {first}")
    if bad:
        _say_left_out(bad, len(files))
    return list(clips.values())
