"""Smooth curves in time, and rotations: what the synthetic motion is made of. All float64, vectorised over frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["min_jerk", "monotone", "plateaus", "rotate", "rx", "ry", "rz", "smooth", "soft_limit", "softmin", "wander"]


def _rotation(axis: int, angle: ArrayLike) -> np.ndarray:
    """Right-handed rotation by `angle` `[...]` (radians) about a coordinate axis: `[..., 3, 3]`."""
    angle = np.asarray(angle, dtype=np.float64)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.zeros((*angle.shape, 3, 3))
    matrix[..., axis, axis] = 1.0
    matrix[..., a, a] = matrix[..., b, b] = np.cos(angle)
    matrix[..., b, a] = np.sin(angle)
    matrix[..., a, b] = -matrix[..., b, a]
    return matrix


def rx(angle: ArrayLike) -> np.ndarray:
    """Rotations about x, `[..., 3, 3]`."""
    return _rotation(0, angle)


def ry(angle: ArrayLike) -> np.ndarray:
    """Rotations about y, `[..., 3, 3]`."""
    return _rotation(1, angle)


def rz(angle: ArrayLike) -> np.ndarray:
    """Rotations about z, `[..., 3, 3]`."""
    return _rotation(2, angle)


def rotate(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """`[..., 3, 3]` times `[..., 3]`."""
    return np.einsum("...ij,...j->...i", matrix, vector)


def wander(rng: np.random.Generator, t: np.ndarray, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Band-limited noise of unit variance: `[T, *shape]`, seven sinusoids each, frequencies low..high in Hz.

    Sinusoids rather than filtered noise: smooth by construction, no transient at the ends, any frame rate.
    """
    terms = 7
    frequency = rng.uniform(low, high, (terms, *shape))
    phase = rng.uniform(0, 2 * np.pi, (terms, *shape))
    amplitude = rng.rayleigh(1.0, (terms, *shape))
    amplitude /= np.sqrt((amplitude**2).sum(axis=0) / 2)
    angle = 2 * np.pi * t.reshape(-1, *(1,) * (len(shape) + 1)) * frequency + phase
    return (amplitude * np.sin(angle)).sum(axis=1)


def soft_limit(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """`x` kept smoothly within low..high; unchanged except close to the limits (some 4 % of the range)."""
    width = 0.04 * (high - low)
    x = low + width * np.logaddexp(0.0, (x - low) / width)
    return high - width * np.logaddexp(0.0, (high - x) / width)


def softmin(values: Sequence[np.ndarray], width: float) -> np.ndarray:
    """Smooth minimum; never above the minimum, and below it by at most width * log(number of values)."""
    stacked = np.stack(values)
    least = stacked.min(axis=0)
    return least - width * np.log(np.exp((least - stacked) / width).sum(axis=0))


def min_jerk(s: np.ndarray) -> np.ndarray:
    """0 to 1 along the minimum-jerk profile of human reaching; constant outside of 0..1."""
    s = np.clip(s, 0.0, 1.0)
    return s**3 * (10 - 15 * s + 6 * s * s)


def plateaus(t: np.ndarray, start: np.ndarray, duration: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`[T, *shape]`: holds values[0], and from start[k] moves within duration[k] to values[k + 1].

    Moves may overlap: they are added up.
    """
    moves = min_jerk((t[:, None] - start) / duration)  # [T, K]
    return values[0] + np.tensordot(moves, np.diff(values, axis=0), axes=1)


def smooth(x: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian filter of `[T]` with standard deviation `sigma` in frames; the ends are mirrored."""
    reach = max(1, min(int(3 * sigma + 0.5), len(x) - 1))
    if len(x) < 3:
        return x
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.convolve(np.pad(x, reach, mode="reflect"), kernel / kernel.sum(), mode="valid")


def monotone(xs: Sequence[float], ys: Sequence[float]) -> Callable[[np.ndarray], np.ndarray]:
    """Cubic through the points with flat ends, without overshoot between them (Fritsch and Carlson 1980)."""
    x, y = np.array(xs, dtype=np.float64), np.array(ys, dtype=np.float64)
    width = np.diff(x)
    slope = np.diff(y) / width
    left, right, wl, wr = slope[:-1], slope[1:], 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    same = left * right > 0
    inner = np.zeros_like(left)
    inner[same] = (wl + wr)[same] / (wl[same] / left[same] + wr[same] / right[same])
    tangent = np.concatenate([[0.0], inner, [0.0]])

    def curve(at: np.ndarray) -> np.ndarray:
        k = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(width) - 1)
        s = (at - x[k]) / width[k]
        h = s * s * (3 - 2 * s)
        bend = s * (1 - s) * ((1 - s) * tangent[k] - s * tangent[k + 1]) * width[k]
        return y[k] + h * (y[k + 1] - y[k]) + bend

    return curve
