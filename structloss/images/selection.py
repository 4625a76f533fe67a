"""Some of the people of a source, or all of them without what is known in 3D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .people import People, Person

__all__ = ["SomePeople", "WithoutPoses", "evenly", "names_of_images", "subjects_of"]


class SomePeople:
    """Some of the people of a source.

    Args:
        people: the source.
        rows: numbers of those to take.
    """

    def __init__(self, people: People, rows: Sequence[int] | np.ndarray) -> None:
        self.people = people
        self.rows = np.asarray(rows, np.int64)

    @property
    def labelled(self) -> bool:
        """Whether all have a 3D pose."""
        return self.people.labelled

    @property
    def source(self) -> str:
        """That of the people."""
        return self.people.source

    @property
    def has_joints(self) -> bool:
        """Whether anybody in the source has an annotated joint."""
        return getattr(self.people, "has_joints", True)

    @property
    def subjects(self) -> Sequence[str]:
        """A name for each person; nothing where the source tells none."""
        found = subjects_of(self.people)
        return [found[row] for row in self.rows] if found else ()

    @property
    def actions(self) -> Sequence[str]:
        """The same of what they do."""
        found = getattr(self.people, "actions", ())
        return [found[row] for row in self.rows] if found else ()

    @property
    def names(self) -> Sequence[str]:
        """The same of their images."""
        found = names_of_images(self.people)
        return [found[row] for row in self.rows] if found else ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Person:
        return self.people[int(self.rows[index])]


class WithoutPoses(SomePeople):
    """People whose 3D poses are kept from those who train: what a data set of images alone would be."""

    labelled = False

    def __getitem__(self, index: int) -> Person:
        return replace(super().__getitem__(index), pose=None)


def subjects_of(people: People) -> Sequence[str]:
    """A name for each person; nothing where the source tells none."""
    found: Sequence[str] = getattr(people, "subjects", ())
    return found


def names_of_images(people: People) -> Sequence[str]:
    """The name of each person's image; nothing where there are no image files."""
    found: Sequence[str] = getattr(people, "names", ())
    return found


def evenly(people: People, count: int | None) -> People:
    """So many of the people, evenly spaced; all of them if there are no more, or `count` is None."""
    if count is None or count >= len(people):
        return people
    return SomePeople(people, np.arange(count) * len(people) // count)
