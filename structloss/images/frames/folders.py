"""What shape templates are trained on: folders of frames, each of one person before one background, and all of them as
square images in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ... import shape_templates
from ...errors import DataError
from ..crops import crop_matrix, transform, warp
from ..image_people import whole_box

__all__ = ["H36M17_JOINTS", "JOINT_COUNT", "Frame", "FrameFolders", "SquareFrames", "box_diagonal", "unlabelled"]

JOINT_COUNT = len(shape_templates.JOINTS)

_RAW = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)  # the customary 17 among Human3.6M's 32 joints
H36M17_JOINTS: tuple[int, ...] = tuple(_RAW.index(joint) for joint in shape_templates.H36M_JOINTS)
"""Among the 17 joints of Human3.6M, what each joint that is read out is compared with: `pose[..., H36M17_JOINTS, :]`.

Joints that are read out are called by the side of the image, true ones by the body's: those of a person who faces the
camera lie on the same side of the image, those of a person who turns the back on it on opposite ones. That is how the
published figures are made (Yoo and Russakovsky)."""


@dataclass(frozen=True)
class Frame:
    """One frame: the person, cropped.

    Attributes:
        image: uint8 `[H, W, 3]`, RGB.
        joints: float32 `[15, 2]`, pixels of the image in the order of :data:`structloss.shape_templates.JOINTS`; 0
            where not annotated.
        annotated: bool `[15]`.
        diagonal: of the box around the person, pixels of the image; NaN where it is not known.
        name: what it is called in messages.
    """

    image: np.ndarray
    joints: np.ndarray
    annotated: np.ndarray
    diagonal: float
    name: str = ""


class FrameFolders(Protocol):
    """Folders of frames one can ask for by number, each time with the same answer."""

    @property
    def source(self) -> str:
        """Where they come from, for messages."""
        ...

    @property
    def folders(self) -> Sequence[str]:
        """Name of each folder."""
        ...

    @property
    def lengths(self) -> Sequence[int]:
        """Frames in each folder."""
        ...

    def joints(self, folder: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Joints `[15, 2]` of a frame, pixels of its image, and which are annotated `[15]`; no image is decoded."""
        ...

    def frame(self, folder: int, number: int) -> Frame:
        """A frame of a folder."""
        ...


class SquareFrames:
    """All frames of all folders in a row, as square images of one size.

    An image that is no square is the middle of one, black beyond its borders.

    Args:
        folders: of frames.
        size: width and height, pixels.
    """

    labelled = False  # nobody has a 3D pose

    def __init__(self, folders: FrameFolders, size: int) -> None:
        self.folders, self.size = folders, size
        self.starts = np.cumsum([0, *folders.lengths])

    @property
    def source(self) -> str:
        """Where they come from."""
        return self.folders.source

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Frame:
        folder = int(np.searchsorted(self.starts, index, side="right")) - 1
        frame = self.folders.frame(folder, int(index - self.starts[folder]))
        return squared(frame, self.size)


def squared(frame: Frame, size: int) -> Frame:
    """A frame as a square image of another size.

    Raises:
        DataError: joints of another shape.
    """
    if frame.joints.shape != (JOINT_COUNT, 2) or frame.annotated.shape != (JOINT_COUNT,):
        raise DataError(
            f"joints of {frame.name} has shape {list(frame.joints.shape)} and annotated {list(frame.annotated.shape)}, "
            f"expected [{JOINT_COUNT}, 2] and [{JOINT_COUNT}]."
        )
    if frame.image.shape[:2] == (size, size):
        return frame
    centre, side = whole_box(frame.image.shape)
    matrix = crop_matrix(centre, side, size)
    joints = np.where(frame.annotated[:, None], transform(frame.joints, matrix), 0.0).astype(np.float32)
    return replace(
        frame, image=warp(frame.image, matrix, size), joints=joints, diagonal=float(frame.diagonal * size / side)
    )


def unlabelled() -> tuple[np.ndarray, np.ndarray]:
    """Joints and what is annotated of a frame of which nothing is known."""
    return np.zeros((JOINT_COUNT, 2), np.float32), np.zeros(JOINT_COUNT, bool)


def box_diagonal(joints: np.ndarray, annotated: np.ndarray) -> float:
    """The diagonal of the box around annotated joints `[15, 2]`, for frames of which no box is known [ours]: somewhat
    shorter than that of the person's box; NaN of less than two joints, or where all lie on each other."""
    if annotated.sum() < 2:
        return float("nan")
    points = joints[annotated]
    return float(np.hypot(*(points.max(0) - points.min(0)))) or float("nan")
