"""Motion capture as a data format: a file of one recording, or a folder with any number of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...progress import track
from .._checks import positive
from ..clips import Clip
from .registry import Format, Option

__all__ = ["ASF", "recordings"]

_FPS = 50.0  # of Human3.6M, which conversions resample to
_COMMON = (
    Option("joints", "YAML or JSON map of joints, or the name of a known one", metavar="MAP"),
    Option("scale", "metres per unit of the file", type=float),
    Option("up", "the axis of the file that points up", choices=("x", "y", "z", "-y")),
    Option("source_fps", "frames per second of the file, where they are wrong or absent", type=float),
)
ASF = Option("asf", "skeleton of an AMC file, or of CMU's BVH", metavar="FILE.asf")
"""The option of formats that need a skeleton beside the recording."""


def recordings(name: str, says: str, read: Callable[..., Clip], *, options: tuple[Option, ...] = ()) -> Format:
    """A format of files that end in `.name`.

    Args:
        name, says: see :class:`~structloss.data.formats.registry.Format`.
        read: `read(path, joints=..., scale=..., up=..., fps=..., **options)`, the reader of one file; it gets those
            that were given.
        options: what else it takes.
    """
    patterns = (f"**/*.{name}", f"**/*.{name.upper()}")

    def read_all(path: Path, *, progress: bool = False, source_fps: float | None = None, **given: Any) -> list[Clip]:
        if source_fps is not None:
            given["fps"] = positive("source_fps", source_fps, "frames per second")
        files = sorted({file for pattern in patterns for file in path.glob(pattern)}) if path.is_dir() else [path]
        clips: dict[str, Clip] = {}
        for file in track(files, f"reading .{name} files", progress):
            clip = read(file, **given)
            if clip.key in clips:
                raise DataError(f"{path} has two files called {file.name}, expected different names.")
            clips[clip.key] = clip
        return list(clips.values())

    return Format(
        name, says, read_all, suffixes=(f".{name}",), folder=patterns, options=(*_COMMON, *options), clips=True,
        convert_fps=_FPS,
    )  # fmt: skip
