"""Tapered capsules and where rays meet them, in closed form.

A capsule is everything that a ball covers while it moves from one point to another and its radius changes at a steady
rate. A linear map may flatten it: a capsule in the mapped space, where chests and hands are as deep as they are wide.
Rays start at the camera, `p = z d` with `d = (x, y, 1)`, so that the parameter of a ray is the depth, mapped or not.

With m = b - a, k = r_b - r_a and mapped rays, the ball at the share t of the way touches the point p of the surface
where F(t) = |p - a - t m|^2 - (r_a + t k)^2 = 0 and dF/dt = 0. Eliminating t leaves a quadratic equation in the depth
for the side of the capsule, whose root counts where t is in [0, 1]; the two end balls make up the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Capsules", "first_hits"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Capsules:
    """N capsules in front of the camera (x right, y down, z forward, metres), float64.

    Attributes:
        start, end: `[N, 3]`, the ends of the axis.
        start_radius, end_radius: `[N]`, positive.
        flatten: `[N, 3, 3]`, symmetric and positive: the map under which the capsule is round; the identity for round
            ones. It keeps radii, so the surface is closer to the axis by as much as a direction is stretched.
    """

    start: Array
    end: Array
    start_radius: Array
    end_radius: Array
    flatten: Array

    def __len__(self) -> int:
        return len(self.start)

    @cached_property
    def mapped(self) -> Mapped:
        """The capsules in the spaces where they are round."""
        a = _times(self.flatten, self.start)
        m = _times(self.flatten, self.end) - a
        k = self.end_radius - self.start_radius
        squared = (m * m).sum(1) - k * k
        # The end ball that holds the other one is all there is to see. It is the start then.
        ball = squared <= 1e-12
        swap = ball & (k > 0)
        a = np.where(swap[:, None], a + m, a)
        radius = np.where(swap, self.end_radius, self.start_radius)
        m = np.where(ball[:, None], 0.0, m)
        k = np.where(ball, 0.0, k)
        return Mapped(a, m, radius, k, np.where(ball, 1.0, squared), ball, self.flatten)


@dataclass(frozen=True)
class Mapped:
    """Capsules where they are round: `a`, `m` `[N, 3]`; `radius`, `k`, `squared` = |m|^2 - k^2 and `ball` (there is
    one ball, no side) `[N]`; `flatten` `[N, 3, 3]`."""

    a: Array
    m: Array
    radius: Array
    k: Array
    squared: Array
    ball: NDArray[np.bool_]
    flatten: Array

    @cached_property
    def boxes(self) -> Array:
        """(x_min, x_max, y_min, y_max) in units of the rays' x and y around each start ball, then around each end
        ball, `[2 N, 4]`. A capsule lies in the box around both."""
        # Planes x = s z through the camera that touch a flattened ball: with n = (1, 0, -s) and the covariance q of the
        # ball, (n.c)^2 = n q n, which is s^2 (z^2 - q_zz) - 2 s (c z - q_xz) + c^2 - q_xx = 0; and the same with y.
        inverse: Array = np.linalg.inv(self.flatten).astype(np.float64)
        centre = np.concatenate([_times(inverse, self.a), _times(inverse, self.a + self.m)])
        radius = np.concatenate([self.radius, self.radius + self.k])
        spread: Array = np.matmul(inverse, inverse)
        q = (radius * radius)[:, None, None] * np.concatenate([spread, spread])
        c, z = centre[:, :2], centre[:, 2:]
        square = np.maximum(z * z - q[:, 2, 2:], 1e-9)
        half = c * z - q[:, :2, 2]
        root = np.sqrt(np.maximum(half * half - square * (c * c - q[:, [0, 1], [0, 1]]), 0.0))
        return np.stack([half - root, half + root], axis=2).reshape(-1, 4) / np.repeat(square, 4, axis=1)


def first_hits(capsules: Capsules, rays: Array) -> Array:
    """Depth at which each ray first meets each capsule; infinite where it passes by.

    Args:
        capsules: N of them, all in front of the camera.
        rays: float64 `[R, 2]`, x and y of the rays' directions (x, y, 1).

    Returns:
        float64 `[R, N]`.
    """
    solid = capsules.mapped
    direction = np.concatenate([rays, np.ones_like(rays[:, :1])], axis=1)
    d = (solid.flatten[None] * direction[:, None, None, :]).sum(-1)  # [R, N, 3]
    dd = (d * d).sum(-1)
    da = (d * solid.a).sum(-1)
    dm = (d * solid.m).sum(-1)
    aa = (solid.a * solid.a).sum(-1)
    am = (solid.a * solid.m).sum(-1)
    mm = (solid.m * solid.m).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        far = solid.radius + solid.k
        hits = np.fmin(_ball(dd, da, aa - solid.radius**2), _ball(dd, da + dm, aa + 2 * am + mm - far**2))
        e = am - solid.radius * solid.k
        alpha = dd - dm * dm / solid.squared
        beta = da - dm * e / solid.squared
        gamma = aa - solid.radius**2 - e * e / solid.squared
        depth = (beta - np.sqrt(beta * beta - alpha * gamma)) / alpha
        t = (depth * dm - e) / solid.squared
        side = np.where((t >= 0) & (t <= 1) & ~solid.ball, depth, np.nan)
        hits = np.fmin(hits, side)
    return np.where(hits > 0, hits, np.inf)


def _ball(dd: Array, dc: Array, gap: Array) -> Array:
    """Depth where rays enter a ball: the smaller root of dd z^2 - 2 dc z + gap, NaN where there is none."""
    return (dc - np.sqrt(dc * dc - dd * gap)) / dd


def _times(matrices: Array, vectors: Array) -> Array:
    """`[N, 3, 3]` times `[N, 3]`, summed in one order whatever the machine's linear algebra."""
    return (matrices * vectors[:, None, :]).sum(-1)
