"""How motion is cut into windows, and the checks of what was asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError, DataError, check_choice
from ._checks import at_least

__all__ = ["SAMPLINGS", "SHORT_CLIPS", "TAILS", "Cut"]

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

    def windows(self, frames: int, called: str) -> tuple[np.ndarray, np.ndarray]:
        """The windows of a view.

        Args:
            frames: how many it has.
            called: its name, for messages.

        Returns:
            The first frame of every window `[W]`, which may lie before the view's, and its first frame that counts,
            from the window's start `[W]`.

        Raises:
            DataError: too few frames, where `short_clips` says so.
        """
        starts, fresh = self._spans(frames, called)
        return starts - self.context, np.broadcast_to(fresh, starts.shape) + self.context

    def _spans(self, frames: int, called: str) -> tuple[np.ndarray, np.ndarray | int]:
        """The same, leaving context out."""
        window = self.inner
        if self.sampling == "centred":
            step = self.step if self.split == "train" else 1
            return np.arange(0, frames, step) - window // 2 * self.frame_step, window // 2
        if self.sampling == "chunks" and self.split == "train":
            count = -(-frames // window)
            return np.arange(count) * window - (count * window - frames) // 2, 0
        if frames < window:
            if self.short_clips == "error":
                raise DataError(
                    f"clip {called!r} has {frames} frames, fewer than the window of {window}; choose a shorter window, "
                    "or set short_clips to 'pad' or 'skip'."
                )
            return np.zeros(1 if self.short_clips == "pad" else 0, dtype=np.int64), 0
        starts = np.arange(0, frames - window + 1, self.step)
        if self.split == "train":
            return starts, 0
        if starts[-1] + window < frames and self.tails == "cover":
            starts = np.append(starts, frames - window)
        fresh = np.zeros_like(starts)
        fresh[1:] = np.maximum(0, starts[:-1] + window - starts[1:])
        return starts, fresh
