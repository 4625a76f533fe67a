"""People and frames kept in memory: drawn or decoded once, not in every epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Generic, Protocol, TypeVar

import numpy as np

from ..errors import ArgumentError, shown
from .frames.folders import Frame
from .people import Person

__all__ = ["Kept"]

Item = TypeVar("Item", Person, Frame)
Out = TypeVar("Out", covariant=True)


class _Source(Protocol[Out]):
    """What can be kept: people, or frames."""

    @property
    def labelled(self) -> bool: ...

    @property
    def source(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Out: ...


class Kept(Generic[Item]):
    """The people of a source, kept when they are first asked for, as far as a bound on memory allows.

    Processes that load data have a memory of their own each; it is meant for loading in the training process.

    Args:
        people: who they are; or frames.
        megabytes: of images to keep at most; people beyond are asked for again each time.

    Raises:
        ArgumentError: a bound that is not positive.
    """

    def __init__(self, people: _Source[Item], megabytes: float = 1024.0) -> None:
        if not megabytes > 0:
            raise ArgumentError(f"megabytes is {shown(megabytes)}, expected a positive number.")
        self.people: _Source[Item] = people
        self._left = int(megabytes * 2**20)
        self._kept: dict[int, Item] = {}

    @property
    def labelled(self) -> bool:
        """Whether all of them have a 3D pose."""
        return self.people.labelled

    @property
    def source(self) -> str:
        """Where they come from."""
        return self.people.source

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, index: int) -> Item:
        if (found := self._kept.get(index)) is not None:
            return found
        person = self.people[index]
        if person.image.nbytes <= self._left:
            # An array of its own: a part of a larger image would keep all of it.
            person = replace(person, image=np.array(person.image))
            person.image.setflags(write=False)
            self._left -= person.image.nbytes
            self._kept[index] = person
        return person
