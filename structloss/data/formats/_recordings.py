"""Motion capture as a data format: a file of one recording, or a folder with any number of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...progress import track
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


def recordings(
    name: str, says: str, read: Callable[..., Clip], *, options: tuple[Option, ...] = (), joints: str = "joints"
) -> Format:
    """A format of files that end in `.name`.

    Args:
        name, says: see :class:`~structloss.data.formats.registry.Format`.
        read: `read(path, fps=..., **options)`, the reader of one file.
        options: what it takes beside the map of joints, scale, up and rate.
        joints: what the reader calls the map of joints.
    """
    patterns = (f"**/*.{name}", f"**/*.{name.upper()}")
    renamed = {"source_fps": "fps", "joints": joints}

    def read_all(path: Path, *, progress: bool = False, **given: Any) -> list[Clip]:
        files = sorted({file for pattern in patterns for file in path.glob(pattern)}) if path.is_dir() else [path]
        clips: dict[str, Clip] = {}
        for file in track(files, f"reading .{name} files", progress):
            clip = read(file, **_renamed(given, renamed))
            if clip.key in clips:
                raise DataError(f"{path} has two files called {file.name}, expected different names.")
            clips[clip.key] = clip
        return list(clips.values())

    return Format(
        name, says, read_all, suffixes=(f".{name}",), folder=patterns, options=(*_COMMON, *options), clips=True,
        convert_fps=_FPS,
    )  # fmt: skip


def _renamed(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in given.items()}
