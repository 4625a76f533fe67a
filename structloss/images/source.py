"""What a source of people in images is, and the registry that knows all of them.

A source is one file in `sources/`, which ends in

    SOURCES.register(Source("name", "what it is", read, ...))

`open_images`, `inspect_images`, `structloss data inspect` and `structloss data formats` read the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..data.formats.candidate import Candidate, Recognised
from ..data.formats.registry import Option
from ..data.registry import Registry
from ..reading import read_json

__all__ = [
    "BOXES",
    "CHECK",
    "CHECKS",
    "IMAGES",
    "JOINTS",
    "MISSING",
    "SKIPPING",
    "SOURCES",
    "UPRIGHT",
    "Source",
    "SourceFile",
]

SKIPPING = ("error", "skip")
"""What to do with images that are missing or broken."""
CHECKS = ("files", "decode", "none")
"""How images are checked when a source is opened."""

#: of annotations that nobody reads here, and that are most of a file
_BULKY = ("segmentation",)


class SourceFile(Candidate):
    """A file or folder. What is read to tell its format is kept for its reader."""

    @cached_property
    def json(self) -> Any:
        """The content of a .json file, without the outlines of bodies; None of anything else.

        Raises:
            DataError: it is not valid JSON.
        """
        return read_json(self.path, "annotations", object_hook=_lean) if self.suffix == ".json" else None


def _lean(content: dict[str, Any]) -> dict[str, Any]:
    """An object without what takes most of the memory."""
    for key in _BULKY:
        content.pop(key, None)
    return content


@dataclass(frozen=True)
class Source(Recognised[SourceFile]):
    """A source of people in images; how it is recognised tells :class:`~structloss.data.formats.candidate.Recognised`.

    Its `read(file, settings)` makes :class:`~structloss.images.people.People` of a :class:`SourceFile`; `settings` has
    `progress` and those options that were given, none of them None.

    Attributes:
        options: what it can be told.
        gives: what a person comes with, in a few words: "2D", "2D and 3D", "no joints".
    """

    options: tuple[Option, ...] = ()
    gives: str = "2D"

    def takes(self, option: str) -> bool:
        """Whether it has an option of this name."""
        return any(option == own.name for own in self.options)


IMAGES = Option("images", "folder of the images that the annotations name (default: beside the file)", metavar="FOLDER")
MISSING = Option("missing", "images that are missing or broken: refuse them, or leave them out", choices=SKIPPING)
CHECK = Option("check", "check that images are there and whole, decode all of them, or check nothing", choices=CHECKS)
JOINTS = Option("joints", "order of the file's joints: spin, h36m, mpi_inf_3dhp, mpii, coco, or names with commas")
BOXES = Option("boxes", "JSON file of boxes: an object of name -> [x, y, width, height] in pixels", metavar="FILE")
UPRIGHT = Option("upright", "turn images as their EXIF orientation says", type=bool)

SOURCES: Registry[Source] = Registry(f"{__package__}.sources", "format of images")
"""Every source by name."""

Settings = Mapping[str, Any]
