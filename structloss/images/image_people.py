"""People in image files: their annotations in arrays, the images decoded when one is asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from ..data._words import count, some
from ..errors import DataError, MissingFileError, StructlossError, check_choice, shown
from ..progress import track
from .image_files import ImageHeader, check_image, read_image
from .people import Person
from .source import CHECKS, SKIPPING

__all__ = ["Annotations", "ImagePeople", "folder_of", "gathered", "inside", "numbers", "whole_box"]

_FAR = 1e6  # pixels; nothing is further away in an image that can be decoded
_LONG = 80  # characters of a name in a message
_LOOKED_FOR = 100  # images, to find the folder by: some may be missing
_LEAST = 1.0  # pixels, sides of a box


@dataclass(frozen=True)
class Annotations:
    """What a file says about N people, in the terms of :class:`~structloss.images.people.Person`.

    Attributes:
        files: names of images, seen from their folder.
        file: int `[N]`, each person's image.
        centre: float `[N, 2]`.
        side: float `[N]`.
        joints: float `[N, 16, 2]`.
        annotated, visible: bool `[N, 16]`.
        pose: float `[N, 16, 3]`, mm relative to the pelvis; None where nobody has a 3D pose.
        subjects, actions: a name for each person, or nothing.
        sizes: int `[files, 2]`, width and height that the annotations tell; 0 where they don't; None where none.
        notes: what to know about them.
        whole: everybody's box is the whole image, whatever `centre` and `side` say.
    """

    files: Sequence[str]
    file: np.ndarray
    centre: np.ndarray
    side: np.ndarray
    joints: np.ndarray
    annotated: np.ndarray
    visible: np.ndarray
    pose: np.ndarray | None = None
    subjects: Sequence[str] = ()
    actions: Sequence[str] = ()
    sizes: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    whole: bool = False

    def __len__(self) -> int:
        return len(self.file)

    def kept(self, keep: Any, note: str = "") -> Annotations:
        """Those people for whom `keep`, bool `[N]`, is true; a note on the others, after their number."""
        left_out = int((~keep).sum())
        if not left_out:
            return self
        rows: list[int] = np.flatnonzero(keep).tolist()
        changed: dict[str, Any] = {
            name: getattr(self, name)[rows] for name in ("file", "centre", "side", "joints", "annotated", "visible")
        }
        if note:
            changed["notes"] = (*self.notes, f"{left_out} of {len(self)} people are left out: {note}")
        return replace(
            self,
            pose=None if self.pose is None else self.pose[rows],
            subjects=[self.subjects[i] for i in rows] if self.subjects else (),
            actions=[self.actions[i] for i in rows] if self.actions else (),
            **changed,
        )


@dataclass
class ImagePeople:
    """People in image files; made by :func:`gathered`.

    Attributes:
        folder: of the images.
        annotations: of all people.
        source: where they are from, for messages.
        upright: images are turned as their EXIF orientation says.
        headers: of the images, by their number in `annotations.files`; empty where they were not checked.
        skipped: images that were left out, each with what is wrong with it.
    """

    folder: Path
    annotations: Annotations
    source: str
    upright: bool = False
    headers: dict[int, ImageHeader] = field(default_factory=dict, repr=False)
    skipped: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether all have a 3D pose."""
        return self.annotations.pose is not None

    @property
    def has_joints(self) -> bool:
        """Whether anybody has an annotated joint."""
        return bool(self.annotations.annotated.any())

    @property
    def subjects(self) -> Sequence[str]:
        """A name for each person; nothing where the source tells none."""
        return self.annotations.subjects

    @property
    def actions(self) -> Sequence[str]:
        """The same of what they do."""
        return self.annotations.actions

    @property
    def names(self) -> Sequence[str]:
        """The name of each person's image, as seen from the folder."""
        files = self.annotations.files
        return [files[number] for number in self.annotations.file.tolist()]

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about them."""
        return self.annotations.notes

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> Person:
        """Decode the image of a person.

        Raises:
            IndexError: no such person.
            MissingFileError, DataError: the image is gone or damaged.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index is {index}, expected less than {len(self)}, the people of {self.source}.")
        of = self.annotations
        name = of.files[of.file[index]]
        image = read_image(self.folder / name, upright=self.upright)
        centre, side = whole_box(image.shape) if of.whole else (of.centre[index], of.side[index])
        return Person(
            image=image,
            centre=np.asarray(centre, np.float32),
            side=float(side),
            joints=of.joints[index].astype(np.float32),
            annotated=of.annotated[index].copy(),
            visible=of.visible[index].copy(),
            pose=None if of.pose is None else of.pose[index].astype(np.float32),
            name=name,
            subject=of.subjects[index] if of.subjects else "",
            action=of.actions[index] if of.actions else "",
        )

    def path(self, index: int) -> Path:
        """The image file of a person."""
        return self.folder / self.annotations.files[self.annotations.file[index]]


def inside(name: Any, where: str) -> str:
    """The name of an image as an annotation has it, if it is one within the folder of images.

    Raises:
        DataError: no text, an absolute path, or one that leads out of the folder.
    """
    if isinstance(name, bytes):
        name = name.decode("utf-8", errors="replace")
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise DataError(f"{where} names the image {shown(name)}, expected the name of a file.")
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DataError(f"{where} names the image {shown(name)}, expected a path within the folder of images.")
    return name


def whole_box(shape: Sequence[int]) -> tuple[tuple[float, float], float]:
    """Centre and side of the square around an image of shape `[H, W, ...]`."""
    height, width = shape[:2]
    return ((width - 1) / 2, (height - 1) / 2), float(max(width, height))


def folder_of(path: Path, images: str | os.PathLike[str] | None, names: Sequence[str], usual: Sequence[Path]) -> Path:
    """The folder of the images that annotations name.

    Args:
        path: the annotations.
        images: what the user says; None looks for the first images in the `usual` folders.
        names: of the images.
        usual: folders, as seen from that of the annotations.

    Raises:
        MissingFileError: there is no such folder.
    """
    if images is not None:
        folder = Path(images)
        if not folder.is_dir():
            raise MissingFileError(f"images is {str(images)!r}, expected the folder of the images of {path}.")
        return folder
    places = list(dict.fromkeys(Path(os.path.normpath(path.parent / name)) for name in usual))
    for folder in places:
        if any(os.path.lexists(folder / name) for name in names[:_LOOKED_FOR]):
            return folder
    looked = some(places)
    raise MissingFileError(
        f"{names[0]}, the first image that {path} names, is not in {looked}; set images to the folder of its images."
    )


def gathered(
    annotations: Annotations,
    folder: Path,
    source: str,
    *,
    missing: str = "error",
    check: str = "files",
    upright: bool = False,
    progress: bool = False,
    needs_joints: bool = True,
) -> ImagePeople:
    """People of annotations, once those that can't be used are left out and their images are checked.

    Without annotated joints, and with a box that is none (not finite, smaller than a pixel, a million pixels away)
    people are left out; `notes` tells how many.

    Args:
        annotations: of all people.
        folder: of the images.
        source: for messages.
        missing: images that are not there, empty, cut off, of no known format, too large, or of another size than
            annotated: "error", or "skip" leaves them out with all their people, and warns.
        check: "files" reads the headers and ends of all images; "decode" decodes them; "none" leaves it to when an
            image is asked for.
        upright: turn images as their EXIF orientation says.
        progress: show a progress bar on a terminal.
        needs_joints: people without an annotated joint are left out.

    Raises:
        DataError: nobody is left, or images can't be used and `missing` is "error".
    """
    check_choice("missing", missing, SKIPPING)
    check_choice("check", check, CHECKS)
    if not len(annotations):
        raise DataError(f"{source} has no people, expected at least one.")
    usable = _usable(annotations, needs_joints)
    if not len(usable):
        raise DataError(f"{source} has nobody whom it could show: {'; '.join(usable.notes)}.")
    if check == "none":
        return ImagePeople(folder, usable, source, upright)
    headers: dict[int, ImageHeader] = {}
    bad: dict[int, str] = {}
    for number in track([int(n) for n in np.unique(usable.file)], "checking images", progress):
        try:
            headers[number] = _check(folder, usable, number, check == "decode", upright)
        except StructlossError as error:
            bad[number] = _reason(str(error), folder, usable.files[number])
    if not bad:
        return ImagePeople(folder, usable, source, upright, headers)
    said = f"{len(bad)} of {count(len(headers) + len(bad), 'image')} of {source} can't be used: {some(bad.values(), 3)}"
    if missing == "error":
        raise DataError(f"{said}; set missing to 'skip' to leave them out.")
    kept = usable.kept(np.isin(usable.file, list(bad), invert=True), "images that are missing or broken")
    if not len(kept):
        raise DataError(f"{said}, and nobody is left, expected at least one.")
    warnings.warn(f"{said}; {len(usable) - len(kept)} of {len(usable)} people are left out.", UserWarning, stacklevel=4)
    return ImagePeople(folder, kept, source, upright, headers, tuple(bad.values()))


def _usable(annotations: Annotations, needs_joints: bool) -> Annotations:
    """Those people who have a box and joints."""
    with np.errstate(invalid="ignore", over="ignore"):
        there = (np.abs(annotations.joints) < _FAR).all(-1)
    annotated = annotations.annotated & there
    annotations = replace(
        annotations,
        annotated=annotated,
        visible=annotations.visible & annotated,
        joints=np.where(annotated[..., None], annotations.joints, 0.0).astype(np.float32),
    )
    if not annotations.whole:
        annotations = _boxed(annotations)
    if needs_joints:
        annotations = annotations.kept(annotations.annotated.any(1), "they have no annotated joint")
    if annotations.pose is not None:
        annotations = annotations.kept(np.isfinite(annotations.pose).all((1, 2)), "their 3D poses are not finite")
    return annotations


def _boxed(annotations: Annotations) -> Annotations:
    """Those people who have a box."""
    finite = np.isfinite(annotations.centre).all(-1) & np.isfinite(annotations.side)
    annotations = annotations.kept(finite, "their boxes are NaN or infinite")
    annotations = annotations.kept(annotations.side >= _LEAST, "their boxes are empty, less than a pixel wide")
    near = (np.abs(annotations.centre) < _FAR).all(-1) & (annotations.side < _FAR)
    return annotations.kept(near, "their boxes are outside of any image, a million pixels away or wide")


def _check(folder: Path, annotations: Annotations, number: int, decode: bool, upright: bool) -> ImageHeader:
    path = folder / annotations.files[number]
    header = check_image(path)
    if annotations.sizes is not None:
        width, height = map(int, annotations.sizes[number])
        if width and height and (header.width, header.height) != (width, height):
            raise DataError(f"{path} has {header.width} x {header.height} pixels, expected {width} x {height}.")
    if decode:
        read_image(path, upright=upright)
    return header


def _reason(message: str, folder: Path, name: str) -> str:
    """What is wrong with an image, with its name rather than its path."""
    short = name if len(name) <= _LONG else f"...{name[-_LONG:]}"
    return message.replace(str(folder / name), short).partition(", expected")[0].rstrip(".")


def numbers(value: object, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of an annotation as float64 of a shape.

    Raises:
        DataError: they are no numbers, or of another shape.
    """
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{what} is {shown(value)}, expected numbers.") from None
    if found.shape != shape:
        raise DataError(f"{what} has shape {list(found.shape)}, expected {list(shape)}.")
    return found
