"""Training subjects whose 3D poses training does without: set apart from the others."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ArgumentError
from ._words import some
from .clips import Clip
from .selection import chosen, names_of
from .store import PoseStore

__all__ = ["set_apart"]


def set_apart(
    part: PoseStore | list[Clip], unlabelled: Sequence[str], source: str
) -> tuple[PoseStore | list[Clip], PoseStore | list[Clip] | None]:
    """The labelled training data, and the unlabelled; None without unlabelled subjects.

    Args:
        part: what is trained on.
        unlabelled: names of subjects.
        source: what they are of, for messages.

    Raises:
        ArgumentError: a subject that is not trained on, or none is left.
    """
    if not unlabelled:
        return part, None
    there = names_of(part, "subject")
    for name in unlabelled:
        if name not in there:
            raise ArgumentError(
                f"unlabelled_subjects has {name!r}, expected training subjects of {source}: {some(there, 12)}."
            )
    if not set(there) - set(unlabelled):
        raise ArgumentError(
            f"unlabelled_subjects has all training subjects of {source}, expected at least one with 3D poses."
        )
    labelled = chosen(part, lambda one: one.subject not in unlabelled)
    return labelled, chosen(part, lambda one: one.subject in unlabelled)
