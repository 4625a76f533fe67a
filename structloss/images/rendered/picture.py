"""A picture of a body in a scene: depth, colours, light, what stands in front, the background, and the sensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from .._opencv import one_thread
from .body import ALLOWANCE, JOINT_PARTS, PARTS, Body
from .clothes import Look, colours
from .renderer import Box, Pinhole, Reals, draw_depth, surface_at, window_of
from .scene import Bytes, Light, Occluder, Sensor
from .surfaces import Array, first_hits

__all__ = ["HIDDEN", "NOTHING", "Scene", "render", "visible_joints"]

NOTHING, HIDDEN = -1, -2
"""In a picture of parts: the background, and an occluder."""


@dataclass(frozen=True)
class Scene:
    """All of a picture but the body, which moves.

    Attributes:
        camera: what sees it; the body is in its frame.
        up: the world's up, in the camera's frame.
        light, look, occluders, sensor: see their classes.
        background: uint8 `[S, S, 3]`, S the size of the pictures.
    """

    camera: Pinhole
    up: tuple[float, ...]
    light: Light
    look: Look
    occluders: tuple[Occluder, ...]
    background: Bytes
    sensor: Sensor


@overload
def render(
    body: Body, scene: Scene, rng: np.random.Generator | None = ..., *, return_parts: Literal[False] = ...
) -> Bytes: ...
@overload
def render(
    body: Body, scene: Scene, rng: np.random.Generator | None = ..., *, return_parts: Literal[True]
) -> tuple[Bytes, NDArray[np.int16], Array]: ...
def render(
    body: Body, scene: Scene, rng: np.random.Generator | None = None, *, return_parts: bool = False
) -> Bytes | tuple[Bytes, NDArray[np.int16], Array]:
    """The picture.

    Args:
        body: in the camera's frame.
        scene: all the rest.
        rng: of the sensor's noise; None leaves out the sensor.
        return_parts: return what is at the centre of each pixel, too.

    Returns:
        uint8 RGB `[S, S, 3]`; with `return_parts` also int16 `[S, S]`, the part (an index into
        :data:`~structloss.images.rendered.body.PARTS`), :data:`HIDDEN` or :data:`NOTHING`, and the depth there, float64
        `[S, S]`, infinite where there is nothing.
    """
    size = len(scene.background)
    with one_thread():
        picture = scene.background.copy()
        window = _window(body, scene, size)
        layer = _foreground(body, scene, window)
        image = layer[..., :3]
        image += picture[window] * (1 - layer[..., 3:])
        picture[window] = np.rint(image, out=image).astype(np.uint8)
        if rng is not None:
            picture = scene.sensor.expose(picture, rng)
    if not return_parts:
        return picture
    depth, seen = _draw(body, scene, size, (slice(0, size), slice(0, size)), exact=True)
    kinds = np.concatenate([body.part, np.full(len(scene.occluders), HIDDEN), [NOTHING]]).astype(np.int16)
    return picture, kinds[seen], depth.astype(np.float64)


def _window(body: Body, scene: Scene, size: int) -> Box:
    """The part of the picture in which there is anything before the background."""
    boxes = [
        (slice(side[0].start // 2, (side[0].stop + 1) // 2), slice(side[1].start // 2, (side[1].stop + 1) // 2))
        for side in [window_of(body.capsules, scene.camera, 2 * size)]  # there are two rays to a pixel
    ]
    for occluder in scene.occluders:
        reach = float(np.hypot(*occluder.half))
        edges = np.clip(np.array([(c - reach, c + reach) for c in occluder.centre[::-1]]) * size, 0, size)
        boxes.append(tuple(slice(int(low), int(np.ceil(high))) for low, high in edges))  # type: ignore[arg-type]
    boxes = [box for box in boxes if box[0].start < box[0].stop and box[1].start < box[1].stop] or boxes[:1]
    rows, columns = (slice(min(b[i].start for b in boxes), max(b[i].stop for b in boxes)) for i in (0, 1))
    return rows, columns


def _draw(body: Body, scene: Scene, size: int, window: Box, exact: bool) -> tuple[Reals, NDArray[np.int16]]:
    """Depth and what is seen, as `draw_depth` gives them; occluders are numbered after the capsules."""
    depth, seen = draw_depth(body.capsules, scene.camera, size, window, exact=exact)
    y, x = ((np.arange(side.start, side.stop) + 0.5) / size for side in window)
    for number, occluder in enumerate(scene.occluders, start=len(body.capsules)):
        reach = float(np.hypot(*occluder.half))
        columns, rows = (
            slice(*np.searchsorted(grid, (c - reach, c + reach)).tolist())
            for grid, c in zip((x, y), occluder.centre, strict=True)
        )
        covered = occluder.covers(x[columns], y[rows, None]) & (occluder.depth < depth[rows, columns])
        depth[rows, columns][covered], seen[rows, columns][covered] = occluder.depth, number
    return depth, seen


def _foreground(body: Body, scene: Scene, window: Box) -> NDArray[np.float32]:
    """Colours from 0 to 255, times the share of the pixel that is covered, and that share: float32 `[H, W, 4]` of a
    window.

    Four rays are cast per pixel. Where they all meet the same capsule, it is lit once, in the pixel's centre.
    """
    size = len(scene.background)
    (top, height), (left, width) = ((side.start, side.stop - side.start) for side in window)
    doubled = (slice(2 * top, 2 * (top + height)), slice(2 * left, 2 * (left + width)))
    depth, seen = _draw(body, scene, 2 * size, doubled, exact=False)
    corners = [seen[i::2, j::2] for i in (0, 1) for j in (0, 1)]
    same = (corners[0] == corners[1]) & (corners[0] == corners[2]) & (corners[0] == corners[3])
    whole = np.flatnonzero(same & (corners[0] >= 0))
    mixed = np.flatnonzero(~same)
    row, column = np.divmod(whole, width)
    inner = 4 * width * row + 2 * column  # of the upper left ray, among all rays
    edge_row, edge_column = np.divmod(mixed, width)
    outer = ((4 * width * edge_row + 2 * edge_column)[:, None] + np.array([0, 1, 2 * width, 2 * width + 1])).ravel()
    depth, seen = depth.ravel(), seen.ravel()
    edge = seen[outer]
    covered = np.flatnonzero(edge >= 0)
    outer = outer[covered]
    outer_row, outer_column = np.divmod(outer, 2 * width)

    x = np.concatenate([(column + left + 0.5) / size, (outer_column + 2 * left + 0.5) / (2 * size)])
    y = np.concatenate([(row + top + 0.5) / size, (outer_row + 2 * top + 0.5) / (2 * size)])
    deep = (depth[inner] + depth[inner + 1] + depth[inner + 2 * width] + depth[inner + 2 * width + 1]) / 4
    z = np.concatenate([deep, depth[outer]])
    number = np.concatenate([seen[inner], edge[covered]])
    lit = _lit(body, scene, x, y, z, number)

    layer = np.zeros((height * width, 4), dtype=np.float32)
    layer[whole, :3] = lit[:, : len(whole)].T
    layer[whole, 3] = 1
    rays = np.zeros((len(edge), 4), dtype=np.float32)
    rays[covered, :3] = lit[:, len(whole) :].T
    rays[covered, 3] = 1
    layer[mixed] = (rays[0::4] + rays[1::4] + rays[2::4] + rays[3::4]) / 4
    return layer.reshape(height, width, 4)


def _lit(body: Body, scene: Scene, x: Array, y: Array, z: Reals, number: NDArray[np.int16]) -> NDArray[np.float32]:
    """Colours from 0 to 255, float32 `[3, F]`, of things at places (x, y) of the image, in sides of it, and depths."""
    out = np.empty((3, len(x)), dtype=np.float32)
    mine = np.flatnonzero(number < len(body.capsules))
    (cx, cy), focal = scene.camera.centre, scene.camera.focal
    depth = z[mine]
    point = np.stack([(x[mine] - cx) / focal * depth, (y[mine] - cy) / focal * depth, depth]).astype(np.float32)
    surface = surface_at(body.capsules, number[mine].astype(np.intp), point)
    out[:, mine] = scene.light.shine(colours(body, surface, scene.look), surface.normal, point, scene.up)
    for i, occluder in enumerate(scene.occluders, start=len(body.capsules)):
        where = np.flatnonzero(number == i)
        share = 0.5 + 0.5 * occluder.place(x[where], y[where])[1]
        ends = np.array([occluder.first, occluder.second]).T
        out[:, where] = ends[:, :1] + share * (ends[:, 1:] - ends[:, :1])
    return np.clip(out, 0, 1, out=out) * np.float32(255)


_ADJACENT = np.zeros((len(JOINT_PARTS), len(PARTS)), dtype=bool)
for _joint, _own in enumerate(JOINT_PARTS):
    _ADJACENT[_joint, list(_own)] = True


def visible_joints(body: Body, camera: Pinhole, occluders: Sequence[Occluder], joints: Array) -> NDArray[np.bool_]:
    """Which joints are seen: they lie in the image, and no other part of the body and no occluder is in front; of the
    parts that they lie in themselves, no more than :data:`~structloss.images.rendered.body.ALLOWANCE`.

    Rays are cast through the joints themselves, so the answer does not depend on the size of the image.

    Args:
        body: in the camera's frame.
        camera, occluders: of the scene.
        joints: float64 `[16, 3]`, MPII order, the camera's frame.

    Returns:
        bool `[16]`.
    """
    flat = camera.project(joints, 1) + 0.5  # in sides of the image
    seen = np.asarray(((flat >= 0) & (flat < 1)).all(1))
    rays = joints[:, :2] / joints[:, 2:]
    depth = joints[:, 2]
    for occluder in occluders:
        seen &= ~(occluder.covers(flat[:, 0], flat[:, 1]) & (occluder.depth < depth))
    hits = first_hits(body.capsules, rays)
    own = _ADJACENT[:, body.part]
    ray_length = np.sqrt((rays * rays).sum(1) + 1)
    allowed = np.array(ALLOWANCE) * body.scale / ray_length
    clear = np.asarray((hits >= depth[:, None] - np.where(own, allowed[:, None], 0.0)).all(1))
    return seen & clear
