"""A motion clip: joint positions over time, with what it was recorded from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import ArgumentError

__all__ = ["Clip"]


@dataclass(frozen=True)
class Clip:
    """One motion of one person in the Human3.6M 17-joint order.

    Attributes:
        positions: float32 `[T, 17, 3]`, metres, world frame: right-handed, z up, floor near z = 0.
        subject: the person; data is split by it.
        action: what the person does.
        name: unique among the subject's clips.
        fps: frames per second.

    Raises:
        ArgumentError: positions of another shape, no frame, NaN or infinite values, or a frame rate that is not
            positive.
    """

    positions: np.ndarray
    subject: str
    action: str
    name: str
    fps: float = 50.0

    def __post_init__(self) -> None:
        positions = np.ascontiguousarray(self.positions, dtype=np.float32)
        if positions.ndim != 3 or positions.shape[1:] != (17, 3) or len(positions) == 0:
            raise ArgumentError(f"positions has shape {list(positions.shape)}, expected [T, 17, 3] with T >= 1.")
        if not np.isfinite(positions).all():
            raise ArgumentError(f"positions of clip {self.key!r} has NaN or infinite values, expected finite metres.")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise ArgumentError(f"fps is {self.fps!r}, expected a positive number of frames per second.")
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "fps", float(self.fps))

    @property
    def key(self) -> str:
        """`subject/name`, the clip's key in an archive."""
        return f"{self.subject}/{self.name}"

    def __len__(self) -> int:
        return len(self.positions)

    def centred(self) -> Clip:
        """The same clip moved on the floor so that the mean hip is above the origin, where the cameras look."""
        shift = self.positions[:, 0].mean(axis=0, dtype=np.float64)
        shift[2] = 0.0
        return replace(self, positions=self.positions - shift.astype(np.float32))
