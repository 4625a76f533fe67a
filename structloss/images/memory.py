"""People kept in memory: drawn or decoded once, not in every epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import ArgumentError, shown
from .people import People, Person

__all__ = ["Kept"]


class Kept:
    """The people of a source, kept when they are first asked for, as far as a bound on memory allows.

    Processes that load data have a memory of their own each; it is meant for loading in the training process.

    Args:
        people: who they are.
        megabytes: of images to keep at most; people beyond are asked for again each time.

    Raises:
        ArgumentError: a bound that is not positive.
    """

    def __init__(self, people: People, megabytes: float = 1024.0) -> None:
        if not megabytes > 0:
            raise ArgumentError(f"megabytes is {shown(megabytes)}, expected a positive number.")
        self.people, self._left = people, int(megabytes * 2**20)
        self._kept: dict[int, Person] = {}

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

    def __getitem__(self, index: int) -> Person:
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
