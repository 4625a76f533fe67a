"""Samples of people: the crop that a network sees, and what it should say about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..data._checks import at_least
from ..errors import ArgumentError, DataError
from ..skeletons import get
from .augment import Augmentation, Change, change_pose
from .crops import crop_matrix, transform, warp
from .joints import depth_target
from .people import People, Person

__all__ = ["ImageSamples", "collate", "sample_of"]

_MIRROR = list(get("mpii").mirror)
Key = int | tuple[int, int]


class ImageSamples(Dataset[dict[str, Tensor]]):
    """People as the samples that a network is trained on, or scored.

    A sample has, all on the CPU,

    - `image`: float32 `[3, S, S]`, RGB, 0 to 1
    - `joints`: float32 `[16, 2]`, pixels of the input; 0 where not annotated
    - `annotated`, `visible`: bool `[16]`; a joint that lies outside of the input stays annotated
    - `depth`: float32 `[16]`, see :func:`~structloss.images.joints.depth_target`; 0 without a 3D pose
    - `has_depth`: bool
    - `pose`: float32 `[16, 3]`, mm relative to the pelvis; 0 without a 3D pose
    - `index`: int64, number of the person among all
    - `action`: int64, number of what the person does in `actions`, -1 if it is none of them
    - `affine`: float32 `[2, 3]`, pixels of the person's image -> pixels of the input

    What is asked for is `(epoch, index)`, as the samplers of :mod:`structloss.images.batches` do, since processes that
    load data would not hear of a new epoch otherwise; `index` alone is epoch 0. A sample depends on the seed, the epoch
    and the index alone.

    Args:
        people: who they are; or several sources, one after the other.
        input_size: S, pixels.
        augment: how samples are changed at random; None changes none.
        augment_labelled: change samples with a 3D pose, too.
        seed: of the changes.
        actions: names that `action` counts by.

    Raises:
        ArgumentError: no people, or a size below 8.
    """

    def __init__(
        self,
        people: People | list[People] | tuple[People, ...],
        *,
        input_size: int = 256,
        augment: Augmentation | None = None,
        augment_labelled: bool = False,
        seed: int = 0,
        actions: Sequence[str] = (),
    ) -> None:
        at_least(8, input_size=input_size)
        at_least(0, seed=seed)
        self.people: tuple[People, ...] = tuple(people) if isinstance(people, list | tuple) else (people,)
        self.input_size, self.augment, self.augment_labelled, self.seed = input_size, augment, augment_labelled, seed
        self.actions = {name: number for number, name in enumerate(actions)}
        self._ends = np.cumsum([len(part) for part in self.people])
        if not len(self):
            raise ArgumentError("people has nobody, expected at least one person.")

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def person(self, index: int) -> Person:
        """The person of a number.

        Raises:
            IndexError: there is none.
            MissingFileError, DataError: the image is gone or damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index is {index}, expected less than {len(self)}.")
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self.people[part][index - int(self._ends[part - 1] if part else 0)]

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """A sample; raises as :meth:`person`."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        person = self.person(int(index))
        change = Change()
        if self.augment is not None and (self.augment_labelled or person.pose is None):
            change = self.augment.draw(self.seed, int(epoch), int(index))
        numbers = {"index": int(index), "action": self.actions.get(person.action, -1)}
        return sample_of(person, self.input_size, change) | {key: torch.tensor(n) for key, n in numbers.items()}


def sample_of(person: Person, input_size: int, change: Change | None = None) -> dict[str, Tensor]:
    """The sample of a person, without `index` and `action`; see :class:`ImageSamples`.

    Args:
        person: who it is.
        input_size: S, pixels.
        change: what is done to the image and with it to the joints and the pose.

    Raises:
        DataError: another number of joints, or a box that is none.
    """
    change = change or Change()
    for name, shape in (("joints", (16, 2)), ("annotated", (16,)), ("visible", (16,))):
        found: Any = getattr(person, name)
        if found.shape != shape:
            raise DataError(f"{name} of {person.name} has shape {list(found.shape)}, expected {list(shape)}.")
    try:
        matrix = crop_matrix(
            person.centre, person.side, input_size, scale=change.scale, rotation=change.rotation, flip=change.flip
        )
    except ArgumentError as error:
        raise DataError(f"the box of {person.name} can't be used: {error}") from error
    image = warp(person.image, matrix, input_size)
    pixels = image.transpose(2, 0, 1).astype(np.float32) * (np.asarray(change.gains, np.float32)[:, None, None] / 255)
    order = _MIRROR if change.flip else slice(None)
    annotated, visible = person.annotated[order].copy(), person.visible[order].copy()
    joints = np.where(annotated[:, None], transform(person.joints[order], matrix), 0.0)
    pose, depth, has_depth = np.zeros((16, 3)), np.zeros(16), False
    if person.pose is not None:
        pose = change_pose(person.pose, change)
        depth = depth_target(joints, pose, input_size, annotated)
        has_depth = bool(depth.any())
    return {
        "image": torch.from_numpy(pixels),
        "joints": torch.from_numpy(joints.astype(np.float32)),
        "annotated": torch.from_numpy(annotated),
        "visible": torch.from_numpy(visible),
        "depth": torch.from_numpy(depth.astype(np.float32)),
        "has_depth": torch.tensor(has_depth),
        "pose": torch.from_numpy(pose.astype(np.float32)),
        "affine": torch.from_numpy(matrix.astype(np.float32)),
    }


def collate(samples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch of samples: each key stacked along a new first axis."""
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
