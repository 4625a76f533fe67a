"""How motion is cut into windows, and the checks of what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError, DataError, check_choice
from ._checks import at_least

__all__ = ["SAMPLINGS", "SHORT_CLIPS", "TAILS", "Cut", "WindowTable"]

SAMPLINGS = ("windows", "centred", "chunks")
"""How views are cut, see :class:`~structloss.data.windows.PoseWindows`."""

SHORT_CLIPS = ("pad", "skip", "error")
"""What becomes of views shorter than a window: padded at weight 0, left out, or an error."""

TAILS = ("cover", "drop")
"""What test windows do with a tail shorter than a window, see :class:`~structloss.data.windows.PoseWindows`."""


@dataclass(frozen=True)
class Cut:
    """A way to cut views into windows; the arguments are those of :class:`~structloss.data.windows.PoseWindows`.

    Raises:
        ArgumentError: an argument out of range, or some that don't go together.
    """

    split: str = "train"
    window: int = 243
    stride: int | None = None
    sampling: str = "windows"
    context: int = 0
    frame_step: int = 1
    short_clips: str = "pad"
    tails: str = "cover"

    def __post_init__(self) -> None:
        check_choice("split", self.split, ("train", "test"))
        check_choice("sampling", self.sampling, SAMPLINGS)
        check_choice("short_clips", self.short_clips, SHORT_CLIPS)
        check_choice("tails", self.tails, TAILS)
        at_least(1, window=self.window)
        if self.frame_step < 1 or (self.frame_step > 1 and self.sampling != "centred"):
            raise ArgumentError(f"frame_step is {self.frame_step}, expected 1, or more with sampling 'centred'.")
        if self.context < 0 or 2 * self.context >= self.window or (self.context and self.sampling == "centred"):
            raise ArgumentError(
                f"context is {self.context}, expected 0, or less than half of the window of {self.window} frames with "
                "sampling 'windows' or 'chunks'."
            )
        if self.sampling == "chunks" and self.step != self.inner:
            raise ArgumentError(
                f"stride is {self.stride}, expected None with sampling 'chunks', which lie side by side."
            )
        if not 1 <= self.step <= self.inner:
            without = " without its context" if self.context else ""
            raise ArgumentError(f"stride is {self.stride}, expected 1 to {self.inner}, the window{without}.")

    @property
    def inner(self) -> int:
        """Frames of a window without its context."""
        return self.window - 2 * self.context

    @property
    def step(self) -> int:
        """Frames between window starts: `stride`, or its default."""
        if self.stride is not None:
            return self.stride
        if self.sampling == "centred":
            return 1
        return max(1, self.inner // 3) if self.split == "train" and self.sampling == "windows" else self.inner

    def check_longest(self, longest: int, called: str = "", clips: str = "clip", remedy: str = "") -> None:
        """Raise where no view is as long as a window needs.

        Args:
            longest: frames of the longest view.
            called: its name, where the message is to tell it.
            clips: what there is none of.
            remedy: what else would help, a clause for the end of the message.

        Raises:
            DataError: so it is.
        """
        if self.sampling == "windows" and longest < self.inner:
            which = f"is {called!r} with" if called else "has"
            raise DataError(
                f"no {clips} is as long as the window of {self.inner} frames, the longest {which} {longest}; choose a "
                f"window of at most {longest + 2 * self.context} frames{remedy}."
            )

    def counts(self, frames: np.ndarray, called: Callable[[int], str]) -> np.ndarray:
        """How many windows each of some views has.

        Args:
            frames: int64 `[V]`, of each view.
            called: number of a view -> its name, for messages.

        Returns:
            int64 `[V]`.

        Raises:
            DataError: a view of too few frames, where `short_clips` says so.
        """
        window, step = self.inner, self.step
        if self.sampling == "centred":
            return -(-frames // (step if self.split == "train" else 1))
        if self.sampling == "chunks" and self.split == "train":
            return -(-frames // window)
        short = frames < window
        if self.short_clips == "error" and short.any():
            first = int(short.argmax())
            raise DataError(
                f"clip {called(first)!r} has {frames[first]} frames, fewer than the window of {window}; choose a "
                "shorter window, or set short_clips to 'pad' or 'skip'."
            )
        whole = (frames - window) // step + 1
        if self._covers:
            whole = whole + ((whole - 1) * step + window < frames)
        return np.where(short, 1 if self.short_clips == "pad" else 0, whole)

    def spans(self, frames: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where windows are in their views.

        Args:
            frames: int64 `[W]`, of each window's view.
            number: int64 `[W]`, of each window among those of its view, from 0 to less than :meth:`counts`.

        Returns:
            The first frame of every window `[W]`, which may lie before the view's, and its first frame that counts,
            from the window's start `[W]`.
        """
        starts, fresh = self._spans(frames, number)
        return starts - self.context, np.broadcast_to(fresh, starts.shape) + self.context

    @property
    def _covers(self) -> bool:
        """Whether a last window is shifted back to end with its view."""
        return self.split == "test" and self.tails == "cover"

    def _spans(self, frames: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray | int]:
        """The same, leaving context out."""
        window, step = self.inner, self.step
        if self.sampling == "centred":
            step = step if self.split == "train" else 1
            return number * step - window // 2 * self.frame_step, window // 2
        if self.sampling == "chunks" and self.split == "train":
            count = -(-frames // window)
            return number * window - (count * window - frames) // 2, 0

        def start(number: np.ndarray) -> np.ndarray:
            last = np.maximum(frames - window, 0)
            return np.minimum(number * step, last) if self._covers else number * step

        if self.split == "train":
            return start(number), 0
        fresh = np.maximum(0, start(number - 1) + window - start(number))
        return start(number), np.where(number == 0, 0, fresh)


class WindowTable:
    """Where the windows of all views are, computed for those that are asked for: it holds 8 bytes per view, however
    many windows a view has.

    Args:
        cut: how views are cut.
        frames: int64 `[V]`, of each view.
        called: number of a view -> its name, for messages.

    Raises:
        DataError: a view of too few frames, where `cut` says so.
    """

    def __init__(self, cut: Cut, frames: np.ndarray, called: Callable[[int], str]) -> None:
        self._cut, self._frames = cut, frames
        self._ends = np.cumsum(cut.counts(frames, called))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, windows: np.ndarray | slice) -> np.ndarray:
        """(view, start, first frame that counts) of some windows by their numbers, int64 `[W, 3]`."""
        if isinstance(windows, slice):
            windows = np.arange(*windows.indices(len(self)))
        if windows.size and not 0 <= windows.min() <= windows.max() < len(self):
            raise IndexError(f"a window is {windows.min()} to {windows.max()}, expected 0 to {len(self) - 1}")
        view = np.searchsorted(self._ends, windows, side="right")
        before = np.where(view > 0, self._ends[view - 1], 0)
        return np.stack([view, *self._cut.spans(self._frames[view], windows - before)], axis=-1)
