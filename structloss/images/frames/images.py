"""Folders of folders of image files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...data._words import count, some
from ...errors import DataError, MissingFileError, StructlossError, check_choice
from ...progress import track
from ...reading import existing
from ..image_files import SUFFIXES, ImageHeader, check_image, read_image
from ..source import CHECKS, SKIPPING
from .folders import Frame, unlabelled
from .labels import FrameLabels, Label, find_labels, read_labels

__all__ = ["ImageFolders", "folders_with_images"]


def folders_with_images(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Folder -> names of the images that lie in it, in sorted order, of a folder and all below it that have any; hidden
    ones are left out. A folder's name is as seen from `path`, whose own is "."."""
    top, found = Path(path), {}
    for at, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = sorted(name for name in files if not name.startswith(".") and name.lower().endswith(SUFFIXES))
        if images:
            found[Path(at).relative_to(top).as_posix()] = images
    return dict(sorted(found.items()))


class ImageFolders:
    """Folders of images, each of one person before one background: a
    :class:`~structloss.images.frames.folders.FrameFolders`.

    The folder that is asked for may hold images itself. Frames are in the order of their names. EXIF orientation is not
    followed: joints refer to pixels as they are stored.

    Args:
        path: folder of the folders.
        missing: images that are damaged, or of another size than the first of their folder: "error", or "skip" to leave
            them out with a warning, and with them folders of which less than two images are left.
        check: what is checked beforehand: "files" (headers and ends of all images), "decode" (all of them are decoded)
            or "none".
        progress: show a progress bar on a terminal.

    Raises:
        MissingFileError: there is no such folder.
        DataError: no images, a folder with a single one, images of several sizes in a folder or damaged ones, or labels
            (:mod:`structloss.images.frames.labels`) that are none or belong to other images.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, missing: str = "error", check: str = "files", progress: bool = False
    ) -> None:
        check_choice("missing", missing, SKIPPING)
        check_choice("check", check, CHECKS)
        self.path = existing(path, "a folder of folders of images")
        if not self.path.is_dir():
            raise MissingFileError(f"{self.path} is no folder, expected one of folders of images.")
        files = folders_with_images(self.path)
        if not files:
            raise DataError(
                f"{self.path} has no folders of images, expected folders with files that end in {', '.join(SUFFIXES)}."
            )
        self.sizes: dict[str, tuple[int, int]] = {}
        self.skipped: tuple[str, ...] = ()
        if check != "none":
            files = self._checked(files, missing == "skip", check == "decode", progress)
        single = [name for name, images in files.items() if len(images) < 2]
        if single and missing == "error":
            raise DataError(
                f"{count(len(single), 'folder')} of {self.path} {'has' if len(single) == 1 else 'have'} a single image "
                f"({some(single, 3)}), expected at least two frames of a person in each."
            )
        self._files = {name: images for name, images in files.items() if len(images) > 1}
        if not self._files:
            raise DataError(f"{self.path} has no folder with two images that can be used, expected at least one.")
        self._names = tuple(self._files)
        self._labels = self._read_labels(missing == "skip")

    @property
    def source(self) -> str:
        return str(self.path)

    @property
    def folders(self) -> Sequence[str]:
        return self._names

    @property
    def lengths(self) -> Sequence[int]:
        return [len(images) for images in self._files.values()]

    @property
    def labelled(self) -> int:
        """How many frames have an annotated joint."""
        return sum(bool(row.annotated.any()) for rows in self._labels.values() for row in rows)

    def joints(self, folder: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Joints of a frame and which are annotated."""
        label = self._label(folder, number)
        return label.joints, label.annotated

    def frame(self, folder: int, number: int) -> Frame:
        """Decode a frame.

        Raises:
            IndexError: there is none.
            MissingFileError, DataError: the image is gone or damaged.
        """
        path = self.file(folder, number)
        label = self._label(folder, number)
        return Frame(
            image=read_image(path),
            joints=label.joints,
            annotated=label.annotated,
            diagonal=label.diagonal,
            name=path.relative_to(self.path).as_posix(),
        )

    def file(self, folder: int, number: int) -> Path:
        """The file of a frame."""
        name = self._names[folder]
        return self.path / name / self._files[name][number]

    def _label(self, folder: int, number: int) -> Label:
        rows = self._labels.get(self._names[folder])
        return rows[number] if rows is not None else Label(*unlabelled(), float("nan"))

    def _checked(self, files: dict[str, list[str]], skip: bool, decode: bool, progress: bool) -> dict[str, list[str]]:
        """The images that can be used."""
        bad: list[str] = []
        kept: dict[str, list[str]] = {name: [] for name in files}
        every = [(name, image) for name, images in files.items() for image in images]
        for name, image in track(every, "checking frames", progress):
            path = self.path / name / image
            try:
                self._check_size(name, path, check_image(path))
                if decode:
                    read_image(path)
            except StructlossError as error:
                if not skip:
                    raise
                bad.append(str(error).partition(", expected")[0].rstrip("."))
            else:
                kept[name].append(image)
        if bad:
            self.skipped = tuple(bad)
            said = f"{len(bad)} of {count(len(every), 'image')} of {self.path} are left out: {some(bad, 3)}."
            warnings.warn(said, UserWarning, stacklevel=3)
        return kept

    def _check_size(self, folder: str, path: Path, header: ImageHeader) -> None:
        size = self.sizes.setdefault(folder, (header.width, header.height))
        if size != (header.width, header.height):
            raise DataError(
                f"{path} has {header.width} x {header.height} pixels, expected {size[0]} x {size[1]}, as the first "
                "image of its folder has."
            )

    def _read_labels(self, skip: bool) -> dict[str, list[Label]]:
        """Folder -> a label for each of its images, for those that have a file of labels."""
        read: dict[Path, FrameLabels] = {}
        found, used = {}, set()
        for name, images in self._files.items():
            file = find_labels(self.path / name, self.path)
            if file is None:
                continue
            if file not in read:
                read[file] = read_labels(file)
            found[name] = [read[file].of(self.path / name / image) for image in images]
            within = Path(os.path.relpath(self.path / name, file.parent))
            used |= {(file, (within / image).as_posix()) for image in images}
        for file, labels in read.items():
            strange: list[Any] = [name for name in labels.rows if (file, name) not in used]
            if strange and not skip:
                raise DataError(
                    f"{file} has joints of {count(len(strange), 'image')} that are not there: {some(strange, 3)}; set "
                    "missing to 'skip' to leave them out."
                )
        return found
