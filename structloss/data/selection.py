"""Parts of a data set: some of its actions, a share of its training frames, every n-th frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..errors import ArgumentError
from ._checks import at_least
from ._words import some
from .clips import Clip
from .store import ARRAYS, PoseStore, View

__all__ = ["Selection", "chosen", "names_of", "without"]


def chosen(part: PoseStore | list[Clip], keep: Callable[[View | Clip], bool]) -> PoseStore | list[Clip]:
    """Those views of a store, or clips of a list, that `keep` says."""
    return part.select(keep) if isinstance(part, PoseStore) else [clip for clip in part if keep(clip)]


def names_of(part: PoseStore | list[Clip], attribute: Literal["subject", "action"]) -> tuple[str, ...]:
    """The subjects or actions of a part of a data set, sorted."""
    each = part.views if isinstance(part, PoseStore) else part
    return tuple(sorted({getattr(one, attribute) for one in each}))


def without(part: PoseStore | list[Clip], subjects: Sequence[str], source: str) -> PoseStore | list[Clip]:
    """A data set without some of its subjects or motions.

    Args:
        part: all of it.
        subjects: names of subjects or motions (`subject/name`).
        source: what it is of, for messages.

    Raises:
        ArgumentError: a name that is neither.
    """
    if not subjects:
        return part
    motions = {
        (one.subject, f"{one.subject}/{one.name}") for one in (part.views if isinstance(part, PoseStore) else part)
    }
    known = {name for pair in motions for name in pair}
    for name in subjects:
        if name not in known:
            raise ArgumentError(
                f"without_subjects has {name!r}, expected subjects or motions of {source}: "
                f"{some(names_of(part, 'subject'), 16)}."
            )
    return chosen(part, lambda one: one.subject not in subjects and f"{one.subject}/{one.name}" not in subjects)


@dataclass(frozen=True)
class Selection:
    """What to keep of a data set, as VideoPose3D's `--actions`, `--subset` and `--downsample` have it.

    Attributes:
        actions: names, exactly; None is all.
        subset: share of the frames of every training view, > 0 and at most 1: a run of frames, whose place depends on
            the view's length alone. The cameras of a motion keep the same frames.
        downsample: keep every n-th frame of training and test views, from the first on.

    Raises:
        ArgumentError: a value out of range.
    """

    actions: tuple[str, ...] | None = None
    subset: float = 1.0
    downsample: int = 1

    def __post_init__(self) -> None:
        at_least(1, downsample=self.downsample)
        if not 0 < self.subset <= 1:
            raise ArgumentError(f"subset is {self.subset}, expected a share above 0 and up to 1.")
        if self.actions is not None and not self.actions:
            raise ArgumentError("actions is empty, expected at least one, or None for all.")

    def of_actions(self, found: PoseStore | list[Clip], source: str) -> PoseStore | list[Clip]:
        """Those views or clips that are of the chosen actions.

        Args:
            found: all of them.
            source: what they are of, for messages.

        Raises:
            ArgumentError: an action that there is none of.
        """
        actions = self.actions
        if actions is None:
            return found
        there = names_of(found, "action")
        for name in actions:
            if name not in there:
                raise ArgumentError(f"actions has {[name]}, expected actions of {source}: {some(there, 16)}.")
        return chosen(found, lambda one: one.action in actions)

    def frames(self, total: int, split: str) -> range:
        """Numbers of the frames that are kept of a view of `total` frames, in "train" or "test"."""
        every = range(0, total, self.downsample)
        if split == "test" or self.subset == 1:
            return every
        count = max(1, round(self.subset * len(every)))
        span = (count - 1) * self.downsample + 1
        start = int(np.random.default_rng(total).integers(total - span + 1))
        return range(start, start + span, self.downsample)

    def thinned(self, store: PoseStore, split: str) -> PoseStore:
        """The store with those frames of its views; arrays are copied only where frames between others go."""
        if self.downsample == 1 and (split == "test" or self.subset == 1):
            return store
        spans = [self.frames(view.frames, split) for view in store.views]
        pairs = list(zip(store.views, spans, strict=True))
        if self.downsample == 1:
            views = (replace(view, start=view.start + span.start, frames=len(span)) for view, span in pairs)
            return replace(store, views=tuple(views))
        where = np.concatenate([view.start + np.asarray(span) for view, span in pairs] or [np.zeros(0, dtype=np.int64)])
        arrays: dict[str, Any] = {}
        for name in ARRAYS:
            array = getattr(store, name)
            arrays[name] = None if array is None else np.ascontiguousarray(array[where])
        ends = np.cumsum([len(span) for span in spans]).tolist()
        views = (
            replace(view, start=end - len(span), frames=len(span), fps=view.fps / self.downsample)
            for (view, span), end in zip(pairs, ends, strict=True)
        )
        return replace(store, views=tuple(views), path=None, **arrays)
