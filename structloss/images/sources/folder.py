"""A folder of images without annotations: each is one person, or those whose boxes a file tells."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from ...data._words import count, some
from ...data.formats.candidate import MAYBE, NO
from ...errors import DataError
from ..image_files import SUFFIXES, read_image
from ..image_people import Annotations, ImagePeople, gathered, inside
from ..source import BOXES, CHECK, MISSING, SOURCES, UPRIGHT, Settings, Source, SourceFile
from ._boxes import centre_and_side, check_inside, is_inside, read_boxes

__all__ = ["names_of_images_in", "read_folder"]


def _sniff(file: SourceFile) -> int:
    if file.is_folder:
        return MAYBE if next(_images(file.path), None) is not None else NO
    return MAYBE if file.suffix in SUFFIXES else NO


def read_folder(file: SourceFile, settings: Settings) -> ImagePeople:
    """Read all images of a folder and of its subfolders, in the order of their names with numbers as such; or one.

    Nothing is known of the people's joints. Without boxes, a person's box is the square around the whole image; a box
    from the file is made a square, a quarter wider than its longer side. The subject is the folder that an image is
    in: the frames of a video are often in a folder of their own. EXIF orientation is followed unless `upright` is
    False, since boxes of these images come from programs that do, and nothing else refers to their pixels.

    Args:
        file: the folder, or an image.
        settings: `boxes` (a box [x, y, width, height] for all, or JSON: an object of image -> box or a list of
            these), `upright`, `missing`, `check`, `progress`, see :func:`~structloss.images.opening.open_images`.

    Raises:
        MissingFileError, DataError: no images, boxes that are none, or images that can't be used.
        ArgumentError: a box outside of its image.
    """
    path = file.path
    folder, names = (path, names_of_images_in(path)) if file.is_folder else (path.parent, [path.name])
    if not names:
        raise DataError(f"{path} has no images, expected files that end in {', '.join(SUFFIXES)}.")
    notes: tuple[str, ...] = ()
    file_of = np.arange(len(names))
    centre, side = np.zeros((len(names), 2)), np.ones(len(names))
    rows: np.ndarray | None = None
    if (told := settings.get("boxes")) is not None:
        boxes = read_boxes(told)
        if "" in boxes:
            boxes = dict.fromkeys(names, boxes[""])
        if without := [name for name in names if name not in boxes]:
            if not file.is_folder:
                raise DataError(f"{told} has no box for {path.name}, expected one; it has some for {some(boxes, 3)}.")
            notes = (f"{len(without)} of {len(names)} images are left out: {told} has no box for them",)
        unknown = sorted({inside(name, f"{told}") for name in boxes} - {*names}) if file.is_folder else []
        if unknown and settings.get("missing", "error") == "error":
            raise DataError(
                f"boxes names {count(len(unknown), 'image')} that {path} does not have: {some(unknown, 3)}; set "
                "missing to 'skip' to leave them out."
            )
        # Of one image its own boxes alone; of a folder, whoever checks the images leaves unknown ones out.
        names = sorted(boxes, key=_natural) if file.is_folder else names
        file_of = np.repeat(np.arange(len(names)), [len(boxes[name]) for name in names])
        rows = np.concatenate([boxes[name] for name in names])
        centre, side = centre_and_side(rows)
    nothing = np.zeros((len(file_of), 16), bool)
    annotations = Annotations(
        files=names,
        file=file_of,
        centre=centre,
        side=side,
        joints=np.zeros((len(file_of), 16, 2)),
        annotated=nothing,
        visible=nothing,
        subjects=[str(PurePosixPath(names[n]).parent) if "/" in names[n] else "" for n in file_of],
        notes=notes,
        whole=told is None,
    )
    options = {key: settings[key] for key in ("missing", "check", "progress") if key in settings}
    upright = settings.get("upright", True)
    people = gathered(annotations, folder, str(path), upright=upright, needs_joints=False, **options)
    if rows is not None:
        _check_boxes(people, annotations, rows)
    return people


def _check_boxes(people: ImagePeople, annotations: Annotations, boxes: np.ndarray) -> None:
    """Raise where a box lies outside of its image."""
    for number, box in zip(annotations.file.tolist(), boxes, strict=True):
        name = annotations.files[number]
        if (header := people.headers.get(number)) is None:
            continue
        size = header.width, header.height
        if people.upright and is_inside(box, size) != is_inside(box, size[::-1]):  # EXIF may have turned it
            height, width = read_image(people.folder / name, upright=True).shape[:2]
            size = width, height
        check_inside(box, size, name)


def names_of_images_in(folder: Path) -> list[str]:
    """Names of the images in a folder and its subfolders, as seen from the folder, in order with numbers as such."""
    return sorted(_images(folder), key=_natural)


def _images(folder: Path) -> Iterator[str]:
    """Names of the images in a folder and its subfolders, as seen from the folder; hidden ones are left out."""
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = Path(at).relative_to(folder)
        for name in files:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield (inner / name).as_posix()


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts frame 9 before frame 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


SOURCES.register(
    Source(
        "image-folder",
        "images without annotations",
        read_folder,
        suffixes=SUFFIXES,
        folder=tuple(f"*{suffix}" for suffix in SUFFIXES),
        sniff=_sniff,
        options=(BOXES, UPRIGHT, MISSING, CHECK),
        gives="no joints",
    )
)
