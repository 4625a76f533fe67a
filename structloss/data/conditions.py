"""What 2D a network is given: exact, as a detector would find it, noisy, incomplete, or made from COCO's joints."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError
from ..skeletons import convert
from .cameras import Camera, normalize_screen
from .coco import to_coco
from .detections import simulate_detections

__all__ = ["DETECTIONS", "Detections"]

DETECTIONS = ("simulated", "exact", "coco", "noise:PIXELS", "dropped:SHARE")
"""Forms of the argument `detections`:

- "simulated": errors and scores of a detector (:mod:`~structloss.data.detections`), seen through the distorting lens.
- "exact": the pinhole's image of the pose with confidence 1, the published "ground-truth 2D".
- "coco": the same, with trunk and head made from COCO's joints as those of most detectors are, see
  :func:`~structloss.data.coco.to_coco`, by the convention "motionbert".
- "noise:PIXELS": exact, with white normal noise of so many pixels per axis.
- "dropped:SHARE": exact, but every keypoint is missing in a frame with this chance: its confidence is 0, and its place
  is interpolated between the frames that have it, as that of missing ones in a file is.
"""

_MOST = {"noise": 1000.0, "dropped": 0.95}


@dataclass(frozen=True)
class Detections:
    """The argument `detections`, read.

    Attributes:
        kind: the part before the colon.
        amount: the number behind it; 0 where there is none.
    """

    kind: str
    amount: float = 0.0

    @classmethod
    def of(cls, text: str) -> Detections:
        """Read one of :data:`DETECTIONS`.

        Raises:
            ArgumentError: none of them.
        """
        kind, colon, number = str(text).partition(":")
        if not colon and kind in DETECTIONS:
            return cls(kind)
        try:
            amount = float(number) if colon and kind in _MOST else math.nan
        except ValueError:
            amount = math.nan
        if not 0 <= amount <= _MOST.get(kind, 0):
            raise ArgumentError(f"detections is {text!r}, expected {', '.join(DETECTIONS[:-1])} or {DETECTIONS[-1]}.")
        return cls(kind, amount)

    def of_clip(self, points: np.ndarray, camera: Camera, fps: float, rng: np.random.Generator) -> np.ndarray:
        """What is found of a clip.

        Args:
            points: `[T, 17, 3]`, camera frame, metres.
            camera: it sees them.
            fps: frames per second.
            rng: of all that is random.

        Returns:
            float `[T, 17, 3]`: x', y' on the normalised screen, and confidence.
        """
        if self.kind == "simulated":
            keypoints, confidence, _ = simulate_detections(points, camera.project(points), camera, rng, fps=fps)
            screen = normalize_screen(keypoints, camera.width, camera.height)
            return np.concatenate([screen, confidence[..., None]], axis=-1)
        # Not Camera.project: that clamps far outside of the image, the target does not.
        k = camera.screen_intrinsics()
        found = to_coco(points) if self.kind == "coco" else points
        screen = found[..., :2] / found[..., 2:] * k[:2] + k[2:]
        if self.kind == "coco":
            screen = convert(screen, "coco", "h36m", variant="motionbert")
        if self.kind == "noise":
            screen = screen + rng.normal(scale=self.amount * 2 / camera.width, size=screen.shape)
        there = np.ones(screen.shape[:-1], dtype=bool)
        if self.kind == "dropped":
            there = rng.random(there.shape) >= self.amount
            screen = _interpolated(screen, there)
        return np.concatenate([screen, there[..., None]], axis=-1)


def _interpolated(screen: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Keypoints `[T, J, 2]` with those that are not there between the frames that have them; in none, the mean of the
    others in each frame."""
    out, times = screen.copy(), np.arange(len(screen))
    found = np.where(there[..., None], screen, 0).sum(1) / np.maximum(there.sum(1), 1)[:, None]  # [T, 2]
    for joint in range(screen.shape[1]):
        seen = there[:, joint]
        for axis in range(2):
            known = np.interp(times, times[seen], screen[seen, joint, axis]) if seen.any() else found[:, axis]
            out[~seen, joint, axis] = known[~seen]
    return out
