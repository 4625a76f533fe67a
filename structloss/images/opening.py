"""Open people in images of any format: it is told from the path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data._words import some
from ..data.formats.candidate import surest
from ..errors import ArgumentError, DataError, check_choice, check_name
from ..reading import existing
from .people import People
from .source import CHECKS, SKIPPING, SOURCES, Source, SourceFile

__all__ = ["open_images", "recognise_images", "require_joints", "require_labelled"]


def open_images(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    format: str | None = None,
    missing: str = "error",
    check: str = "files",
    joints: str | list[str] | None = None,
    boxes: str | os.PathLike[str] | Sequence[float] | None = None,
    upright: bool | None = None,
    progress: bool = False,
    **options: Any,
) -> People:
    """People in images, with what a file says about them; images are decoded when a person is asked for.

    Joints are those of MPII's order. Annotations refer to the pixels as they are stored, whatever an image's EXIF
    orientation says. Grey images, palettes and 16 bits become RGB of 8 bits; alpha is dropped.

    Args:
        path: MPII's or COCO's JSON, an npz of SPIN or MMPose, an image or a folder of images, or a video.
        images: folder of the images that annotations name; None looks in the usual places.
        format: name of the format, one of :data:`~structloss.images.source.SOURCES`; None tells it from the path.
        missing: images that are missing, empty, cut off, too large or no images: "error", or "skip" to leave them out
            with a warning that tells how many and names the first.
        check: what is checked beforehand: "files" (headers and ends of all images), "decode" (all of them are decoded),
            "none". An image that turns out to be damaged later is an error in any case.
        joints: order of the joints of an npz, see :func:`~structloss.images.joint_layouts.layout_of`.
        boxes: for images without annotations and videos, JSON file of people's boxes, or one box [x, y, width, height]
            in pixels for all.
        upright: turn images without annotations as their EXIF orientation says; None does.
        progress: show a progress bar on a terminal.
        options: those of formats that were registered from outside; None is as good as absent.

    Raises:
        MissingFileError: there is no such path, or no folder of images.
        DataError: no known format, content of another kind, nobody to show, or images that can't be used.
        ArgumentError: an option that the format has no use for.
        UnknownNameError: an unknown format, or an option that no format has.
        MissingDependencyError: OpenCV, or for a video PyAV, is not installed.
    """
    check_choice("missing", missing, SKIPPING)
    check_choice("check", check, CHECKS)
    file, source = recognise_images(path, format)
    told = {"images": images, "joints": joints, "boxes": boxes, "upright": upright, **options}
    told |= {"missing": None if missing == "error" else missing, "check": None if check == "files" else check}
    given = {name: value for name, value in told.items() if value is not None}
    known = dict.fromkeys(option.name for entry in SOURCES.values() for option in entry.options)
    for name in given:
        check_name("option", name, known)
        if not source.takes(name):
            takers = ", ".join(entry.name for entry in SOURCES.values() if entry.takes(name))
            raise ArgumentError(f"{name} is given for {file.path} ({source.name}), expected it with {takers} only.")
    found: People = source.read(file, {**given, "progress": progress})
    return found


def recognise_images(path: str | os.PathLike[str], name: str | None = None) -> tuple[SourceFile, Source]:
    """A path and its format; the one called `name` where that is told.

    Raises:
        MissingFileError: there is no such path.
        UnknownNameError: no format is called so.
        DataError: none of the formats, or of several.
    """
    file = SourceFile(existing(Path(path), "images, or annotations of them"))
    if name is not None:
        return file, SOURCES[check_name("format", name, SOURCES)]
    found = surest(file, SOURCES.values())
    if len(found) == 1:
        return file, found[0]
    if found:
        names = some(entry.name for entry in found)
        raise DataError(f"{file.path} may be of {names}, expected one format; set format.")
    what = "has no images" if file.is_folder else "is of no known format"
    raise DataError(f"{file.path} {what}, expected one of: {'; '.join(map(str, SOURCES.values()))}.")


def require_labelled(people: People, argument: str) -> People:
    """Return `people` if all have a 3D pose.

    Raises:
        DataError: they have not.
    """
    if not people.labelled:
        raise DataError(f"{argument} is {people.source}, which has no 3D poses, expected people with 2D and 3D joints.")
    return people


def require_joints(people: People, argument: str) -> People:
    """Return `people` if they have annotated joints.

    Raises:
        DataError: nobody has.
    """
    if not getattr(people, "has_joints", True):
        raise DataError(f"{argument} is {people.source}, which has no annotated joints, expected people with joints.")
    return people
