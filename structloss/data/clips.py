"""A motion clip: joint positions over time, with what it was recorded from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import ArgumentError, check_name
from ..skeletons import get
from ._checks import positive

__all__ = ["MOST_FPS", "Clip", "check_rate"]

_H36M = get("h36m")

MOST_FPS = 1000.0
"""Frames per second that clips are resampled to at most, and at least 1."""
_LONGEST = 2_000_000  # frames, eleven hours at 50 a second; beyond, it is the source's rate that is wrong


@dataclass(frozen=True)
class Clip:
    """One motion of one person in the Human3.6M 17-joint order.

    Attributes:
        positions: float32 `[T, 17, 3]`, metres, world frame: right-handed, z up, floor near z = 0.
        subject: the person; data is split by it.
        action: what the person does.
        name: unique among the subject's clips.
        fps: frames per second.
        unknown: names of joints that the recording does not have: they stand where the joint before them does, and
            have weight 0 in what cameras see. Never the root.

    Raises:
        ArgumentError: positions of another shape, no frame, NaN or infinite values, a frame rate that is not positive,
            or a joint that can't be unknown.
    """

    positions: np.ndarray
    subject: str
    action: str
    name: str
    fps: float = 50.0
    unknown: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        positions = np.ascontiguousarray(self.positions, dtype=np.float32)
        if positions.ndim != 3 or positions.shape[1:] != (17, 3) or len(positions) == 0:
            raise ArgumentError(f"positions has shape {list(positions.shape)}, expected [T, 17, 3] with T >= 1.")
        if not np.isfinite(positions).all():
            raise ArgumentError(f"positions of clip {self.key!r} has NaN or infinite values, expected finite metres.")
        positive("fps", self.fps, "frames per second")
        object.__setattr__(self, "positions", positions)
        for joint in self.unknown:
            check_name("unknown joint", joint, _H36M.joint_names[1:])
        object.__setattr__(self, "fps", float(self.fps))
        object.__setattr__(self, "unknown", tuple(self.unknown))

    @property
    def known(self) -> np.ndarray:
        """bool `[17]`: whether a joint's positions are known."""
        return np.array([joint not in self.unknown for joint in _H36M.joint_names])

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

    def resampled(self, fps: float) -> Clip:
        """The same motion at another rate: a cubic spline through all frames, at the times 0, 1/fps, 2/fps, ... that
        lie within the clip. The first frame stays; nothing is filtered, and bones change by fractions of a millimetre.

        Raises:
            ArgumentError: a rate below 1 or beyond :data:`MOST_FPS`, or millions of frames.
        """
        if fps == self.fps:
            return self
        check_rate(fps)
        step = self.fps / fps
        if (len(self) - 1) / step > max(len(self), _LONGEST):
            raise ArgumentError(
                f"clip {self.key!r} lasts {len(self) / self.fps:.3g} s at {self.fps:.3g} frames per second, expected "
                f"at most {_LONGEST} frames at {fps:g}; set source_fps, the rate of its file."
            )
        times = np.arange(int((len(self) - 1) / step + 1e-9) + 1) * step
        return replace(self, positions=_spline(self.positions.astype(np.float64), times), fps=fps)


def check_rate(fps: float) -> None:
    """Raise :class:`ArgumentError` unless clips can be resampled to these frames per second."""
    positive("fps", fps, "frames per second")
    if not 1 <= fps <= MOST_FPS:
        raise ArgumentError(f"fps is {fps:g}, expected 1 to {MOST_FPS:g} frames per second.")


def _spline(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Cubic spline through `values` `[T, ...]` at 0, 1, ..., T - 1, read at `times`; its third derivative is continuous
    at the second and the last but one ("not-a-knot", SciPy's default)."""
    count = len(values)
    bend = np.zeros_like(values)  # second derivatives
    if count > 2:
        bend[1:-1] = values[:-2] - 2 * values[1:-1] + values[2:]  # of the first and last inner one; continued below
        # The others solve bend[i - 1] + 4 bend[i] + bend[i + 1] = 6 (second difference): forward, then back.
        share = np.zeros(count)
        for i in range(2, count - 2):
            share[i] = 1 / (4 - share[i - 1])
            bend[i] = (6 * bend[i] - bend[i - 1]) * share[i]
        for i in range(count - 3, 1, -1):
            bend[i] -= share[i] * bend[i + 1]
        bend[0] = 2 * bend[1] - bend[2] if count > 3 else bend[1]
        bend[-1] = 2 * bend[-2] - bend[-3] if count > 3 else bend[1]
    left = np.clip(times.astype(int), 0, max(0, count - 2))
    right = np.minimum(left + 1, count - 1)
    b = (times - left).reshape(-1, *[1] * (values.ndim - 1))
    a = 1 - b
    curve = ((a**3 - a) * bend[left] + (b**3 - b) * bend[right]) / 6
    return a * values[left] + b * values[right] + curve
