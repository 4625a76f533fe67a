"""Samples for shape templates: two frames of one person before one background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import ArgumentError
from ..shape_templates import JOINT_MIRROR
from .frames.folders import Frame

__all__ = ["TemplateSamples", "mirrored"]

Key = int | tuple[int, int]
_MIRROR = list(JOINT_MIRROR)


class _Frames(Protocol):
    def __getitem__(self, index: int) -> Frame: ...


class TemplateSamples(Dataset[dict[str, Tensor]]):
    """Pairs of frames.

    A sample has, all on the CPU,

    - `frame`: float32 `[3, S, S]`, RGB, 0 to 1: the frame to estimate
    - `reference`: the same of another frame of its folder
    - `joints`: float32 `[15, 2]`, the true joints in `frame`, pixels, in the order of
      :data:`structloss.shape_templates.JOINTS`; 0 where not annotated
    - `annotated`: bool `[15]`
    - `diagonal`: float32, of the person's box in `frame`, pixels; NaN where it is not known
    - `folder`: int64, number of the folder among those of the data
    - `index`: int64, number of the pair

    A pair's number is asked for, or `(epoch, number)` as samplers give; the epoch changes nothing.

    Args:
        frames: of all folders in a row, square: :class:`~structloss.images.frames.folders.SquareFrames`.
        starts: int `[F + 1]`, where each folder's frames begin in the row.
        pairs: int64 `[N, 4]` as :mod:`structloss.images.frames.pairs` makes them.
        numbers: what `folder` calls each folder; None counts from 0.

    Raises:
        ArgumentError: no pairs, or of another shape.
    """

    def __init__(
        self, frames: _Frames, starts: np.ndarray, pairs: np.ndarray, numbers: Sequence[int] | None = None
    ) -> None:
        if pairs.ndim != 2 or pairs.shape[1] != 4 or not len(pairs):
            raise ArgumentError(f"pairs has shape {list(pairs.shape)}, expected [N, 4], with at least one pair.")
        self.frames, self.starts, self.pairs = frames, starts, pairs
        self.numbers = list(range(len(starts) - 1)) if numbers is None else list(numbers)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """A sample.

        Raises:
            IndexError: there is none of this number.
            MissingFileError, DataError: an image is gone or damaged.
        """
        index = int(key[1] if isinstance(key, tuple) else key)
        if not 0 <= index < len(self):
            raise IndexError(f"index is {index}, expected less than {len(self)}.")
        folder, first, second, flip = self.pairs[index].tolist()
        start = int(self.starts[folder])
        frame, reference = self.frames[start + first], self.frames[start + second]
        image, other, annotated = frame.image, reference.image, frame.annotated
        joints = np.where(annotated[:, None], frame.joints, 0.0).astype(np.float32)
        if flip:
            image, other = image[:, ::-1], other[:, ::-1]
            joints, annotated = mirrored(joints, annotated, image.shape[1])
        return {
            "frame": _pixels(image),
            "reference": _pixels(other),
            "joints": torch.from_numpy(joints),
            "annotated": torch.from_numpy(np.array(annotated, bool)),
            "diagonal": torch.tensor(frame.diagonal, dtype=torch.float32),
            "folder": torch.tensor(self.numbers[folder]),
            "index": torch.tensor(index),
        }


def mirrored(joints: np.ndarray, annotated: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Joints `[15, 2]`, and which are annotated `[15]`, of the mirrored image of this width, pixels.

    Left and right change places: what was the right knee, at the right side of the image, is at the left side of the
    mirrored one. That holds whatever way the person faces, since a mirrored body has its sides exchanged, too.
    """
    known = annotated[_MIRROR]
    points = np.array(joints, np.float32)[_MIRROR]
    points[:, 0] = width - 1 - points[:, 0]
    return np.where(known[:, None], points, np.float32(0)), known


def _pixels(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
