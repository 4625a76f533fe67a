"""Draws capsules into a depth buffer: which one is seen at each pixel, how deep, and its surface's normal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .surfaces import Array, Capsules, Mapped

__all__ = ["Pinhole", "Surface", "draw_depth", "surface_at"]

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Pinhole:
    """A camera at the origin, x right, y down, z forward, with a square image whose sides are 1.

    Attributes:
        focal: focal length, sides of the image.
        centre: principal point (x, y); (0.5, 0.5) is the image's middle. Elsewhere the image is cut out of a larger
            one.
    """

    focal: float
    centre: tuple[float, float]

    def project(self, points: Array, size: float) -> Array:
        """Points `[..., 3]` to pixels `[..., 2]` of an image of `size` pixels, where (0, 0) is the first one's
        centre."""
        return (points[..., :2] / points[..., 2:] * self.focal + np.array(self.centre)) * size - 0.5

    def rays(self, pixels: Array, size: float) -> Array:
        """x and y of the directions (x, y, 1) that pixels `[..., 2]` see."""
        return ((pixels + 0.5) / size - np.array(self.centre)) / self.focal


def draw_depth(capsules: Capsules, camera: Pinhole, size: int) -> tuple[Array, NDArray[np.int16]]:
    """What is seen at the centre of each pixel.

    Returns:
        Depth, float64 `[size, size]`, infinite where there is nothing, and the capsule's number, int16, -1 there.
    """
    depth = np.full((size, size), np.inf)
    seen = np.full((size, size), -1, dtype=np.int16)
    solid = capsules.mapped()
    grid = np.arange(size, dtype=np.float64)
    x = ((grid + 0.5) / size - camera.centre[0]) / camera.focal
    y = (((grid + 0.5) / size - camera.centre[1]) / camera.focal)[:, None]
    first, last = solid.boxes()
    whole = np.where([True, False, True, False], np.minimum(first, last), np.maximum(first, last))
    boxes = [_pixels(box, camera, size) for box in (whole, first, last)]
    fields = _fields(solid)
    round_shape = x * x + (y * y + 1)  # d.d of rays that no map bends
    buffers = (depth, seen, x, y, round_shape)
    drawn = _continued(capsules)
    with np.errstate(invalid="ignore", divide="ignore"):
        for i in range(len(capsules)):
            values = fields[i]
            if not drawn[i]:
                _draw_ball(buffers, boxes[1][i], i, values.shape, values.start_linear, values.start_gap)
            if not solid.ball[i]:
                _draw_ball(buffers, boxes[2][i], i, values.shape, values.end_linear, values.end_gap)
                _draw_side(buffers, boxes[0][i], i, values)
    return depth, seen


def _continued(capsules: Capsules) -> NDArray[np.bool_]:
    """`[N]`: whether a capsule starts in the ball in which the one before it ends, as a shin does in the knee."""
    same = np.zeros(len(capsules), dtype=bool)
    same[1:] = (
        (capsules.start[1:] == capsules.end[:-1]).all(1)
        & (capsules.start_radius[1:] == capsules.end_radius[:-1])
        & (capsules.flatten[1:] == capsules.flatten[:-1]).all((1, 2))
        & (capsules.start[:-1] != capsules.end[:-1]).any(1)
    )
    return same


@dataclass(frozen=True)
class _Fields:
    """Coefficients of what the depth is computed from, all polynomials in a ray's x and y: `shape` (x^2, xy, y^2, x,
    y, 1) is that of d.d, None for capsules that are not flattened; the others (x, y, 1) are of linear ones."""

    shape: list[float] | None
    start_linear: list[float]  # d.a
    start_gap: float
    end_linear: list[float]  # d.b
    end_gap: float
    side_linear: list[float]
    side_gap: float
    along: list[float]  # d.m / sqrt(squared)
    offset: float  # t = (depth along - offset) / reach
    reach: float


def _fields(solid: Mapped) -> list[_Fields]:
    a, m, r, k = solid.a, solid.m, solid.radius, solid.k
    maps = solid.flatten  # symmetric, so d.a = (x, y, 1) . (flatten a)
    w = np.matmul(maps, maps)
    shape = np.stack([w[:, 0, 0], 2 * w[:, 0, 1], w[:, 1, 1], 2 * w[:, 0, 2], 2 * w[:, 1, 2], w[:, 2, 2]], axis=1)
    da, dm = (maps * a[:, None]).sum(-1), (maps * m[:, None]).sum(-1)
    aa, am, mm = (a * a).sum(1), (a * m).sum(1), (m * m).sum(1)
    reach = np.sqrt(solid.squared)
    offset = (am - r * k) / reach
    along = dm / reach[:, None]
    columns = (
        shape, da, aa - r * r, da + dm, aa + 2 * am + mm - (r + k) ** 2,
        da - along * offset[:, None], aa - r * r - offset**2, along, offset, reach,
    )  # fmt: skip
    lists = [column.tolist() for column in columns]
    lists[0] = [None if plain else c for plain, c in zip((maps == np.eye(3)).all((1, 2)), lists[0], strict=True)]
    return [_Fields(*values) for values in zip(*lists, strict=True)]


def _pixels(boxes: Array, camera: Pinhole, size: int) -> list[Box | None]:
    """The pixels whose centres lie in boxes `[N, 4]` of rays; None where there are none."""
    centre = np.array([camera.centre[0]] * 2 + [camera.centre[1]] * 2)
    edges = np.clip((boxes * camera.focal + centre) * size - 0.5, -1.0, size)
    low, high = np.ceil(edges[:, ::2]).astype(int).clip(0), np.floor(edges[:, 1::2]).astype(int).clip(max=size - 1) + 1
    return [
        (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None
        for (x0, y0), (x1, y1) in zip(low.tolist(), high.tolist(), strict=True)
    ]


_Buffers = tuple[Array, NDArray[np.int16], Array, Array, Array]


def _quadratic(shape: list[float], x: Array, y: Array) -> Array:
    xx, xy, yy, x1, y1, one = shape
    return (x * xx + x1) * x + ((y * yy + y1) * y + one) + (y * xy) * x


def _linear(c: list[float], x: Array, y: Array) -> Array:
    return x * c[0] + (y * c[1] + c[2])


def _draw_ball(
    buffers: _Buffers, box: Box | None, number: int, shape: list[float] | None, linear: list[float], gap: float
) -> None:
    if box is None:
        return
    depth, seen, xs, ys, round_shape = buffers
    x, y = xs[box[1]], ys[box[0]]
    dd = round_shape[box] if shape is None else _quadratic(shape, x, y)
    dc = _linear(linear, x, y)
    z = dc * dc
    z -= dd * gap
    np.sqrt(z, out=z)
    np.subtract(dc, z, out=z)
    z /= dd
    _keep(depth[box], seen[box], z, z < depth[box], number)


def _draw_side(buffers: _Buffers, box: Box | None, number: int, f: _Fields) -> None:
    if box is None:
        return
    depth, seen, xs, ys, round_shape = buffers
    x, y = xs[box[1]], ys[box[0]]
    along = _linear(f.along, x, y)
    dd = round_shape[box] if f.shape is None else _quadratic(f.shape, x, y)
    alpha = dd - along * along
    beta = _linear(f.side_linear, x, y)
    z = beta * beta
    z -= alpha * f.side_gap
    np.sqrt(z, out=z)
    np.subtract(beta, z, out=z)
    z /= alpha
    along *= z
    nearer = (along >= f.offset) & (along <= f.offset + f.reach)
    nearer &= z < depth[box]
    _keep(depth[box], seen[box], z, nearer, number)


def _keep(depth: Array, seen: NDArray[np.int16], z: Array, nearer: NDArray[np.bool_], number: int) -> None:
    np.copyto(depth, z, where=nearer)
    np.copyto(seen, number, where=nearer, casting="unsafe")


@dataclass(frozen=True)
class Surface:
    """Points of capsules that are seen, F of them, float32.

    Attributes:
        capsule: int `[F]`.
        point, normal: `[3, F]`, camera frame; normals have length 1 and point outwards.
        along: `[F]`, 0 at the axis' start to 1 at its end.
        turn: `[3, F]`, where the point lies from the axis, in units of the radius, in the space where the capsule is
            round.
    """

    capsule: NDArray[np.intp]
    point: NDArray[np.float32]
    normal: NDArray[np.float32]
    along: NDArray[np.float32]
    turn: NDArray[np.float32]


def surface_at(capsules: Capsules, capsule: NDArray[np.intp], point: NDArray[np.float32]) -> Surface:
    """Normals and places on the axes of points `[3, F]` that lie on the capsules of these numbers `[F]`."""
    solid = capsules.mapped()
    f = solid.flatten
    table = np.concatenate(
        [
            f[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]],
            solid.a, solid.m, solid.radius[:, None], solid.k[:, None],
            (solid.m / solid.squared[:, None]),
            ((solid.radius * solid.k - (solid.a * solid.m).sum(1)) / solid.squared)[:, None],
        ],
        axis=1,
    ).T.astype(np.float32)  # fmt: skip
    xx, yy, zz, xy, xz, yz, ax, ay, az, mx, my, mz, r, k, tx, ty, tz, t0 = table[:, capsule]
    px, py, pz = point
    qx, qy, qz = (
        xx * px + xy * py + xz * pz,
        xy * px + yy * py + yz * pz,
        xz * px + yz * py + zz * pz,
    )
    t = np.clip(tx * qx + ty * qy + tz * qz + t0, 0, 1)
    inverse = 1 / (r + t * k)
    ux, uy, uz = (qx - ax - t * mx) * inverse, (qy - ay - t * my) * inverse, (qz - az - t * mz) * inverse
    normal = np.stack([xx * ux + xy * uy + xz * uz, xy * ux + yy * uy + yz * uz, xz * ux + yz * uy + zz * uz])
    normal /= np.sqrt((normal * normal).sum(0))
    return Surface(capsule, point, normal, t, np.stack([ux, uy, uz]))
