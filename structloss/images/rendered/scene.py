"""What is around a person: where the camera stands, light, things in front, the background, and the sensor."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from .._opencv import opencv
from .renderer import Pinhole
from .surfaces import Array
from .tones import pick, random_tone, triple

__all__ = [
    "Light",
    "Occluder",
    "Sensor",
    "View",
    "paint_background",
    "sample_light",
    "sample_occluders",
    "sample_sensor",
    "sample_view",
]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """A camera in the world, which is right-handed with z up; metres.

    Attributes:
        rotation: `[3, 3]`, world to camera; its rows are the camera's right, down and forward.
        position: `[3]`, where it stands.
        camera: its image.
    """

    rotation: Array
    position: Array
    camera: Pinhole

    def to_camera(self, points: Array) -> Array:
        """World points `[..., 3]` in the camera's frame."""
        return ((points - self.position)[..., None, :] * self.rotation).sum(-1)


def sample_view(
    rng: np.random.Generator, points: Array, truncated: float, heading: float = 0.0, facing: float = 180.0
) -> View:
    """A camera that looks at all of these world points `[K, 3]`, from any distance, mostly from a little above, cropped
    to them; with probability `truncated` only to a part of them. It stands at most `facing` degrees away from the
    direction `heading`, radians."""
    middle = (points.min(0) + points.max(0)) / 2
    reach = max(float(np.sqrt(((points - middle) ** 2).sum(1)).max()), 1e-3)
    yaw, roll = heading + rng.uniform(-np.pi, np.pi) * (facing / 180), np.radians(np.clip(rng.normal(0, 5), -15, 15))
    pitch = np.radians(np.clip(rng.normal(12, 14), -20, 50))
    distance = reach * rng.uniform(2.6, 7.0) + 0.5 * min(reach, 1.0)
    backward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.array([-np.sin(yaw), np.cos(yaw), 0.0])  # y left of x, seen against x
    down = np.array([np.sin(pitch) * np.cos(yaw), np.sin(pitch) * np.sin(yaw), -np.cos(pitch)])
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.stack([c * right + s * down, c * down - s * right, -backward])
    view = View(rotation, middle + distance * backward, Pinhole(1.0, (0.0, 0.0)))

    flat = view.to_camera(points)
    flat = flat[:, :2] / flat[:, 2:]
    low, high = flat.min(0), flat.max(0)
    side = float((high - low).max()) + 0.16 * reach / distance  # bodies are thicker than their joints
    if rng.random() < truncated:
        share = rng.uniform(1.0, 1.7)
        centre = 0.5 * (flat[rng.integers(len(flat))] + (low + high) / 2)
        slack = 0.1
    else:
        share = rng.uniform(0.58, 0.92)
        centre = (low + high) / 2
        slack = (1 - share) / 2
    focal = share / side
    x, y = 0.5 - focal * centre + rng.uniform(-slack, slack, 2)
    return View(rotation, view.position, Pinhole(focal, (float(x), float(y))))


@dataclass(frozen=True)
class Light:
    """Light from one direction and from all around.

    Attributes:
        direction: unit vector towards it, camera frame.
        ambient, diffuse, rim: shares of light from everywhere, from there, and at the edges.
        colour: RGB of the light, around 1.
    """

    direction: tuple[float, ...]
    ambient: float
    diffuse: float
    rim: float
    colour: tuple[float, ...]

    def shine(self, albedo: Floats, normal: Floats, point: Floats, up: tuple[float, ...]) -> Floats:
        """Colours `[3, F]` of a surface in this light; `up` is the world's, in the camera frame."""
        a, b, c = (np.float32(v) for v in self.direction)
        u, v, w = (np.float32(v) for v in up)
        nx, ny, nz = normal
        px, py, pz = point
        lambert = np.maximum(nx * a + ny * b + nz * c, 0)
        sky = 1 + np.float32(0.25) * (nx * u + ny * v + nz * w)
        shade = np.float32(self.ambient) * sky + np.float32(self.diffuse) * lambert
        edge = 1 + (nx * px + ny * py + nz * pz) / np.sqrt(px * px + py * py + pz * pz)  # 0 facing the camera, 1 across
        rim = np.float32(self.rim) * edge * edge * edge
        tint = np.array(self.colour, dtype=np.float32)[:, None]
        return (albedo * shade + rim) * tint


def sample_light(rng: np.random.Generator) -> Light:
    """A lamp or the sun above, before or behind the person."""
    azimuth, height = rng.uniform(-np.pi, np.pi), rng.uniform(0.15, 1.3)
    flat = np.cos(height)
    direction = (flat * np.cos(azimuth), -np.sin(height), flat * np.sin(azimuth))
    colour = np.clip(1 + rng.normal(0, 0.06, 3), 0.8, 1.2)
    return Light(
        tuple(float(v) for v in direction),
        ambient=float(rng.uniform(0.35, 0.7)),
        diffuse=float(rng.uniform(0.25, 0.75)),
        rim=float(rng.uniform(-0.15, 0.25)),
        colour=tuple(colour.tolist()),
    )


@dataclass(frozen=True)
class Occluder:
    """A board or disc that faces the camera.

    Attributes:
        disc: an ellipse, otherwise a rectangle.
        centre, half: middle, and half of width and height, in sides of the image.
        angle: by which it is turned, radians.
        depth: metres.
        first, second: RGB, from one end of it to the other.
    """

    disc: bool
    centre: tuple[float, float]
    half: tuple[float, float]
    angle: float
    depth: float
    first: tuple[float, ...]
    second: tuple[float, ...]

    def place(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Points (in sides of the image) in the frame where the occluder reaches from -1 to 1."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        dx, dy = x - self.centre[0], y - self.centre[1]
        return (c * dx + s * dy) / self.half[0], (c * dy - s * dx) / self.half[1]

    def covers(self, x: Array, y: Array) -> NDArray[np.bool_]:
        """Whether points (in sides of the image) lie behind it or in front."""
        u, v = self.place(x, y)
        return u * u + v * v <= 1 if self.disc else (np.abs(u) <= 1) & (np.abs(v) <= 1)


def sample_occluders(rng: np.random.Generator, joints: Array, depth: float, probability: float) -> tuple[Occluder, ...]:
    """With some probability one or two things at a depth, near some of the joints `[K, 2]` (in sides of the image)."""
    count = int(rng.integers(1, 3)) if rng.random() < probability else 0
    found = []
    for _ in range(count):
        x, y = joints[rng.integers(len(joints))] + rng.normal(0, 0.06, 2)
        narrow, long = rng.uniform(0.03, 0.14), rng.uniform(0.08, 0.3)
        half = (narrow, long) if rng.random() < 0.5 else (long, narrow)
        first, second = random_tone(rng), random_tone(rng)
        found.append(
            Occluder(
                bool(rng.random() < 0.4), (float(x), float(y)), half, float(rng.normal(0, 0.5)), depth,
                triple(first), triple(0.7 * first + 0.3 * second),
            )
        )  # fmt: skip
    return tuple(found)


def paint_background(rng: np.random.Generator, size: int) -> Bytes:
    """A random background, uint8 `[size, size, 3]`: a wall, a room, a gradient or blotches, with things in it. Its
    content is the same at any size."""
    kind = pick(rng, ("blotches", "gradient", "room"), (0.35, 0.25, 0.4))
    if kind == "blotches":
        image = _enlarged(_blotches(rng, int(rng.integers(3, 24)), float(rng.uniform(0.04, 0.35))), size)
    elif kind == "gradient":
        image = _enlarged(np.array([random_tone(rng) for _ in range(4)]).reshape(2, 2, 3), size)
    else:
        edge = rng.uniform(0.4, 0.95)
        image = _enlarged(_blotches(rng, int(rng.integers(2, 9)), float(rng.uniform(0.02, 0.2))), size)
        floor = _enlarged(_blotches(rng, int(rng.integers(2, 30)), float(rng.uniform(0.02, 0.3))), size)
        row = round(edge * size)
        image[row:] = floor[row:]
    _add_things(rng, image)
    return image


def _add_things(rng: np.random.Generator, image: Bytes) -> None:
    """Draws what stands about onto a background: boxes, discs, lines and posts."""
    cv2, size = opencv(), len(image)
    shift = 4  # of OpenCV's fixed point: lines begin between pixels, the same at any size

    def at(points: Array) -> NDArray[np.int32]:
        return np.round((points * size - 0.5) * (1 << shift)).astype(np.int32)

    for _ in range(int(rng.integers(0, 9))):
        colour = tuple((random_tone(rng) * 255).tolist())
        form = rng.integers(4)
        x, y = rng.random(2)
        w, h = rng.uniform(0.02, 0.35, 2)
        if form == 0:  # furniture, pictures
            cv2.rectangle(image, at(np.array([x - w, y - h])).tolist(), at(np.array([x + w, y + h])).tolist(), colour,
                          -1, cv2.LINE_AA, shift)  # fmt: skip
        elif form == 1:
            centre = at(np.array([x, y])).tolist()
            axes = [round(v * size * (1 << shift) / 2) for v in (w, h)]
            cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA, shift)
        elif form == 2:  # parallel lines: shelves, blinds, fences
            step = rng.uniform(0.03, 0.12, 2) * rng.choice((-1, 1), 2)
            end = rng.uniform(-0.6, 0.6, 2)
            width = max(1, round(rng.uniform(0.004, 0.02) * size))
            for k in range(int(rng.integers(1, 8))):
                start = np.array([x, y]) + k * step
                cv2.line(image, at(start).tolist(), at(start + end).tolist(), colour, width, cv2.LINE_AA, shift)
        else:  # posts and pipes, as thick as limbs
            angle = rng.uniform(0, np.pi)
            end = rng.uniform(0.1, 0.6) * np.array([np.cos(angle), np.sin(angle)])
            width = max(1, round(rng.uniform(0.02, 0.07) * size))
            cv2.line(image, at(np.array([x, y])).tolist(), at(np.array([x, y]) + end).tolist(), colour, width,
                     cv2.LINE_AA, shift)  # fmt: skip


def _blotches(rng: np.random.Generator, cells: int, strength: float) -> Array:
    """A colour that varies from cell to cell and, more finely, within them: RGB `[4 cells, 4 cells, 3]`."""
    cv2 = opencv()
    colour, hues = random_tone(rng), rng.random()
    coarse = rng.standard_normal((cells, cells, 1)) + hues * rng.standard_normal((cells, cells, 3))
    coarse = cv2.resize(coarse, (4 * cells, 4 * cells), interpolation=cv2.INTER_LINEAR)
    fine = rng.standard_normal((4 * cells, 4 * cells, 1))
    blotches: Array = colour + strength * (0.6 * coarse + 0.4 * fine)
    return blotches


def _enlarged(colours: Array, size: int) -> Bytes:
    """RGB from 0 to 1 as an image."""
    cv2 = opencv()
    grid = np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)
    image: Bytes = cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR)
    return image


# 256 equally likely numbers, normally distributed: a random byte stands for one of them.
_NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])


@dataclass(frozen=True)
class Sensor:
    """What the camera does to an image.

    Attributes:
        blur: standard deviation, in sides of the image.
        gain: of each channel.
        gamma: brightness is raised to it.
        noise: standard deviation, in grey levels of 255.
    """

    blur: float
    gain: tuple[float, ...]
    gamma: float
    noise: float

    def expose(self, image: Bytes, rng: np.random.Generator) -> Bytes:
        """A new image, uint8; noise is drawn from `rng`."""
        cv2 = opencv()
        sigma = self.blur * len(image)
        if sigma > 0.2:
            image = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        levels = (np.arange(256) / 255.0) ** self.gamma * 255
        table = np.clip(np.round(levels[:, None] * np.array(self.gain)), 0, 255).astype(np.uint8)
        image = cv2.LUT(image, table[None])
        if self.noise > 0:
            grain = np.frombuffer(rng.bytes(image.size), dtype=np.uint8).reshape(image.shape)
            grain = cv2.LUT(grain, np.rint(128 + self.noise * _NORMAL).astype(np.uint8))
            image = cv2.addWeighted(image, 1.0, grain, 1.0, -128.0)
        return image


def sample_sensor(rng: np.random.Generator) -> Sensor:
    """A random sensor: in focus or not quite, dim or bright, with grain or without."""
    gain = np.clip(rng.normal(1, 0.12) + rng.normal(0, 0.04, 3), 0.6, 1.35)
    return Sensor(
        blur=float(max(0.0, rng.uniform(-0.003, 0.007))),
        gain=tuple(gain.tolist()),
        gamma=float(rng.uniform(0.8, 1.3)),
        noise=float(max(0.0, rng.uniform(-2, 7))),
    )
