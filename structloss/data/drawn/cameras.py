"""Cameras drawn at random around a person: from how high, from where, how near, through which lens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import check_number, check_range, check_shape, settings_of

__all__ = ["RandomViews", "frame_of_up"]

_FULL = 0.95  # of the way from the picture's centre to its edge that a person may fill
_NEAREST = 1.0  # metres between the image plane and the nearest point of the person, at least


@dataclass(frozen=True)
class RandomViews:
    """From where people are seen. Ranges are (least, most), drawn evenly unless said otherwise.

    Attributes:
        elevation: of the camera above the person as seen from there, degrees; negative is from below.
        distance: of the camera from the person, metres; farther where it would not have all of the person in the
            picture.
        focal: focal length in widths of the picture, evenly in its logarithm.
        roll: of the picture, degrees to either side at most.
        aspect: height of the picture in widths, evenly in its logarithm.
        off_centre: how far from the picture's centre a person may be: 0 in the centre, 1 anywhere in the picture.

    Raises:
        ArgumentError: a range that is none, or a value out of range.
    """

    elevation: tuple[float, float] = (-20.0, 50.0)
    distance: tuple[float, float] = (2.0, 10.0)
    focal: tuple[float, float] = (0.7, 3.0)
    roll: float = 6.0
    aspect: tuple[float, float] = (0.5625, 1.7778)
    off_centre: float = 0.8

    def __post_init__(self) -> None:
        limits = {"elevation": (-89, 89), "distance": (0.5, 1000), "focal": (0.1, 100), "aspect": (0.1, 10)}
        for name, (least, most) in limits.items():
            check_range(f"{name} of random_views", getattr(self, name), least, most)
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        check_number("roll of random_views", self.roll, 180)
        check_number("off_centre of random_views", self.off_centre, 1)

    @classmethod
    def of(cls, settings: bool | dict[str, Any] | None) -> RandomViews | None:
        """From a setting of the command line: True is the defaults, a dict some of the attributes.

        Raises:
            ArgumentError: another type, or an unknown name.
        """
        return settings_of(cls, "random_views", settings)

    def see(
        self, poses: np.ndarray, draws: np.ndarray, to_world: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Windows as cameras see them that are drawn for each.

        Args:
            poses: `[B, T, 17, 3]`, metres.
            draws: `[B, 8]` numbers from 0 to 1, which decide.
            to_world: `[B, 3, 3]`, rotations to a frame with z up; None where that of the poses has.

        Returns:
            Poses in the camera's frame `[B, T, 17, 3]` (x right, y down, z forward), (f_x, f_y, c_x, c_y) of the
            pinhole in units of the normalised screen `[B, 4]`, and the vertical in the camera's frame `[B, 3]`.

        Raises:
            ArgumentError: an array of another shape.
        """
        check_shape("poses", poses, (None, None, 17, 3), "[B, T, 17, 3]")
        batch = len(poses)
        check_shape("draws", draws, (batch, 8), f"[{batch}, 8]")
        if to_world is not None:
            check_shape("to_world", to_world, (batch, 3, 3), f"[{batch}, 3, 3]")
        azimuth, up, far, lens, turn, shape, right, down = draws.T.astype(np.float64)
        points = poses.reshape(len(poses), -1, 3)
        # coordinate by coordinate: numpy reduces long axes much faster than those beside a short last one
        middle = np.stack([(axis.min(1) + axis.max(1)) / 2 for axis in np.moveaxis(points, -1, 0)], axis=-1)  # [B, 3]
        relative = points - middle[:, None]
        squares = [np.square(axis) for axis in np.moveaxis(relative, -1, 0)]
        radius = np.sqrt((squares[0] + squares[1] + squares[2]).max(1)).astype(np.float64)  # [B] of a ball around it
        focal = 2 * _between(self.focal, lens, log=True)
        aspect = _between(self.aspect, shape, log=True)
        # A ball of this radius, seen from a distance d, reaches focal * radius / sqrt(d^2 - radius^2) from its centre.
        room = _FULL * np.minimum(1.0, aspect)
        distance = np.maximum(_between(self.distance, far), radius * np.sqrt(1 + np.square(focal / room)))
        distance = np.maximum(distance, radius + _NEAREST)
        reach = focal * radius / np.sqrt(np.square(distance) - np.square(radius))
        free = np.maximum(np.stack([_FULL - reach, _FULL * aspect - reach], axis=-1), 0) * self.off_centre
        place = free * (2 * np.stack([right, down], axis=-1) - 1)  # where the person's middle is on the screen
        ray = np.concatenate([place / focal[:, None], np.ones((len(place), 1))], axis=-1)
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        towards = _look(2 * np.pi * azimuth, np.radians(_between(self.elevation, up)))
        roll = np.radians(self.roll) * (2 * turn - 1)
        rotation = _towards(ray) @ _about_z(roll) @ towards  # [B, 3, 3], world to camera
        whole = rotation if to_world is None else rotation @ to_world
        seen = relative @ np.swapaxes(whole, 1, 2).astype(poses.dtype)
        seen += (ray * distance[:, None])[:, None].astype(poses.dtype)
        zero = np.zeros_like(focal)
        intrinsics = np.stack([focal, focal, zero, zero], axis=-1).astype(np.float32)
        return seen.reshape(poses.shape), intrinsics, rotation[..., 2]


def frame_of_up(up: np.ndarray) -> np.ndarray:
    """`[B, 3]` vertical in a camera's frame to `[B, 3, 3]`: the rotation from there to a frame with z up."""
    z = up / np.linalg.norm(up, axis=-1, keepdims=True)
    # the axis of the camera that is least vertical tells where x is
    other = np.eye(3)[np.abs(z).argmin(-1)]
    x = np.cross(other, z)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], axis=-2)


def _between(span: tuple[float, float], share: np.ndarray, log: bool = False) -> np.ndarray:
    low, high = span
    if log:
        return low * (high / low) ** share
    return low + (high - low) * share


def _look(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Rotations from a world with z up to cameras that look at its origin from there, upright."""
    a, e = (np.stack([np.cos(angle), np.sin(angle)]) for angle in (azimuth, elevation))
    zero = np.zeros_like(azimuth)
    right = np.stack([-a[1], a[0], zero], axis=-1)
    forward = -np.stack([e[0] * a[0], e[0] * a[1], e[1]], axis=-1)
    return np.stack([right, np.cross(forward, right), forward], axis=-2)


def _about_z(angle: np.ndarray) -> np.ndarray:
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, -s, zero, s, c, zero, zero, zero, one], axis=-1).reshape(-1, 3, 3)


def _towards(ray: np.ndarray) -> np.ndarray:
    """The smallest rotations that bring z to unit vectors `[B, 3]` in front of the camera (Rodrigues)."""
    x, y, z = ray.T
    share = 1 / (1 + z)
    return np.stack(
        [1 - x * x * share, -x * y * share, x, -x * y * share, 1 - y * y * share, y, -x, -y, z], axis=-1
    ).reshape(-1, 3, 3)
