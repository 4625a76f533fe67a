"""What a detector makes of drawn windows: errors, joints that it does not find, and scores that know some of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ArgumentError
from .._checks import check_number, check_range, check_shape, settings_of

__all__ = ["RandomKeypoints"]

_METRES_PER_PIXEL = 1 / 229  # of Human3.6M's cameras, for a person 5 m away: the pixels in which noise is said
_MEMORY = 0.25  # seconds over which a slow error, or a joint that is not found, lasts
_LIMBS = ((1, 2, 3), (4, 5, 6), (0, 7, 8), (9, 10), (11, 12, 13), (14, 15, 16))  # what is hidden together
_OF_LIMB = np.array([next(k for k, limb in enumerate(_LIMBS) if joint in limb) for joint in range(17)])


@dataclass(frozen=True)
class RandomKeypoints:
    """How well people are detected. Every window draws its own kind.

    Attributes:
        exact: share of windows without any error, all confidences 1.
        noise: (least, most) standard deviation per axis, in pixels of a person 5 m in front of Human3.6M's cameras (229
            a metre) and in proportion to the person's size; drawn evenly in its logarithm. Half of the variance is
            white, half lasts a quarter of a second.
        hidden: factor of the error of a joint while it is hidden.
        dropped: most joints that are not found in a window, as a share; drawn evenly from 0. Whole limbs are lost more
            often than chance would have it, for some frames.
        complete: share of the windows with errors in which every joint is found.
        lost: share of the windows with errors in which the person is not found for some frames.
        unsure: share of the windows with errors whose confidences tell of them; those of others are 1 for every joint
            that is found.

    Raises:
        ArgumentError: a value out of range.
    """

    exact: float = 0.25
    noise: tuple[float, float] = (0.5, 10.0)
    hidden: float = 3.0
    dropped: float = 0.4
    complete: float = 0.5
    lost: float = 0.05
    unsure: float = 0.75

    def __post_init__(self) -> None:
        check_range("noise of random_keypoints", self.noise, 0, 1000)
        if not self.noise[0] > 0:
            raise ArgumentError(f"noise of random_keypoints is {self.noise!r}, expected positive numbers.")
        object.__setattr__(self, "noise", tuple(map(float, self.noise)))
        check_number("hidden of random_keypoints", self.hidden, 100, 1)
        check_number("dropped of random_keypoints", self.dropped, 0.5)
        for name in ("exact", "complete", "lost", "unsure"):
            check_number(f"{name} of random_keypoints", getattr(self, name), 1)

    @classmethod
    def of(cls, settings: bool | dict[str, Any] | None) -> RandomKeypoints | None:
        """From a setting of the command line: True is the defaults, a dict some of the attributes.

        Raises:
            ArgumentError: another type, or an unknown name.
        """
        return settings_of(cls, "random_keypoints", settings)

    #: uniform numbers that a window needs, and normal ones for each frame
    UNIFORM, NORMAL = 8, 2 * 34 + 2 * 17 + len(_LIMBS) + 1

    def detect(
        self,
        screen: np.ndarray,
        depth: np.ndarray,
        focal: np.ndarray,
        fps: np.ndarray,
        draws: np.ndarray,
        noise: np.ndarray,
    ) -> np.ndarray:
        """Detections of exact keypoints.

        Args:
            screen: `[B, T, 17, 2]` on the normalised screen.
            depth: `[B, T]` of the person, metres.
            focal: `[B]` focal lengths in units of the screen.
            fps: `[B]` frames per second.
            draws: `[B, UNIFORM]` numbers from 0 to 1 that say what kind of window it is.
            noise: `[B, T, NORMAL]` float32 normal numbers.

        Returns:
            float32 `[B, T, 17, 3]`: keypoints and confidences; a joint that is not found is at (0, 0) with 0.

        Raises:
            ArgumentError: an array of another shape.
        """
        check_shape("screen", screen, (None, None, 17, 2), "[B, T, 17, 2]")
        batch, frames = screen.shape[:2]
        shapes = {"depth": (batch, frames), "focal": (batch,), "fps": (batch,)}
        shapes |= {"draws": (batch, self.UNIFORM), "noise": (batch, frames, self.NORMAL)}
        given = {"depth": depth, "focal": focal, "fps": fps, "draws": draws, "noise": noise}
        for name, shape in shapes.items():
            check_shape(name, given[name], shape, str(list(shape)))
        kind, sigma, complete, share, lost, unsure, away, doubt = draws.T.astype(np.float32)
        clean = kind < self.exact
        low, high = self.noise
        pixels = np.where(clean, 0, low * (high / low) ** sigma)  # [B]
        white = noise[..., :34]
        memory = np.maximum(1.0, _MEMORY * fps)
        lasting = autoregressive(noise[..., 34:], memory)  # [B, T, ...]
        slow, hiding, own = lasting[..., :34], lasting[..., 34:51], lasting[..., 51:68]
        limb, person = lasting[..., 68:-1], lasting[..., -1]
        growth = np.where(hiding > 1.5, self.hidden, 1.0)[..., None]
        error = (white + slow).reshape(batch, frames, 17, 2) * (pixels[:, None, None, None] / np.sqrt(2)) * growth
        found = screen + error * (focal[:, None] / depth * _METRES_PER_PIXEL)[..., None, None]
        # Not found: where a normal number of the joint and its limb is among the smallest of a share.
        drop = np.where(clean | (complete < self.complete), 0, share * self.dropped)  # [B]
        mood = 0.6 * limb[..., _OF_LIMB] + 0.8 * own
        gone = mood < normal_quantile(drop)[:, None, None]
        frac = np.where(clean | (lost >= self.lost), 0, 0.3 * away)
        gone |= (person < normal_quantile(frac)[:, None])[..., None]
        wrong = np.linalg.norm(error, axis=-1)  # pixels
        doubts = 0.13 * np.minimum(wrong, 25.0) + 0.8 * (hiding > 1.5) + 0.35 * hiding - 0.5 * doubt[:, None, None]
        confidence = 1 / (1 + np.exp(doubts - 3.0))
        confidence = np.where((clean | (unsure >= self.unsure))[:, None, None], 1.0, confidence)
        out = np.concatenate([found, confidence[..., None]], axis=-1, dtype=np.float32)
        out[gone] = 0
        return out


def autoregressive(noise: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Normal numbers `[B, T, ...]` that forget within `memory` `[B]` frames, of variance 1, from independent ones.

    The recurrence y(t) = a y(t-1) + e(t) is summed by doubling: a power of two of past terms after each pass.
    """
    shape = (-1,) + (1,) * (noise.ndim - 1)
    a = np.exp(-1 / np.asarray(memory, dtype=np.float64)).reshape(shape)
    y = noise.copy()
    y[:, 1:] *= np.sqrt(1 - a * a).astype(noise.dtype)  # the first frame is stationary as it is
    reach = 1
    while reach < y.shape[1]:
        y[:, reach:] += (a**reach).astype(noise.dtype) * y[:, :-reach]  # numpy buffers overlapping operands
        reach *= 2
    return y


def normal_quantile(share: np.ndarray) -> np.ndarray:
    """The number below which a share, at most a half, of normal ones is, to 5e-4; -inf of 0 (Abramowitz and Stegun,
    Handbook of Mathematical Functions, 26.2.23)."""
    p = np.clip(np.asarray(share, dtype=np.float64), 1e-12, 0.5)
    t = np.sqrt(-2 * np.log(p))
    z = t - (2.515517 + 0.802853 * t + 0.010328 * t**2) / (1 + 1.432788 * t + 0.189269 * t**2 + 0.001308 * t**3)
    return np.where(np.asarray(share) > 0, -z, -np.inf)
