"""Poses of people who stand upright, with arms that hang or are stretched out sideways."""

from __future__ import annotations

import numpy as np

from .surfaces import Array

__all__ = ["hang_arms", "headings", "stretch_arms", "turned", "upright"]

_ARMS = ((11, 12, 13), (14, 15, 16))  # left and right shoulder, elbow, wrist among Human3.6M's 17 joints
_LEGS = ((4, 5, 6), (1, 2, 3))
_PELVIS, _THORAX = 0, 8
_LEANING = 0.88  # least cosine of the trunk and the vertical: 28 degrees
_CROUCHING = 0.82  # least height of the pelvis over the lower ankle, of the leg's length


def upright(poses: Array) -> np.ndarray:
    """Which poses `[N, 17, 3]`, world, stand: the trunk leans and the legs bend no more than a little."""
    trunk = poses[:, _THORAX] - poses[:, _PELVIS]
    straight = trunk[:, 2] >= _LEANING * np.linalg.norm(trunk, axis=-1)
    ankles, legs = np.stack([poses[:, leg[2], 2] for leg in _LEGS]), np.zeros(len(poses))
    for hip, knee, ankle in _LEGS:
        legs += np.linalg.norm(poses[:, hip] - poses[:, knee], axis=-1) / 2
        legs += np.linalg.norm(poses[:, knee] - poses[:, ankle], axis=-1) / 2
    found: np.ndarray = straight & (poses[:, _PELVIS, 2] - ankles.min(0) >= _CROUCHING * legs)
    return found


def headings(poses: Array) -> Array:
    """Where the fronts of people `[N, 17, 3]` are: angles from x towards y, radians."""
    across = poses[:, 4, :2] - poses[:, 1, :2]
    return np.arctan2(-across[:, 0], across[:, 1])


def turned(pose: Array, angle: float) -> Array:
    """A pose `[17, 3]`, turned around the vertical through its pelvis, which moves to (0, 0)."""
    c, s = np.cos(angle), np.sin(angle)
    out = pose - np.array([*pose[_PELVIS, :2], 0.0])
    out[:, :2] = out[:, :2] @ np.array([[c, s], [-s, c]])
    return out


def hang_arms(rng: np.random.Generator, pose: Array) -> Array:
    """The pose `[17, 3]` with other arms, that hang: away from the trunk, swung and bent a little, each its own way."""
    away = np.radians(6 + np.minimum(np.abs(rng.normal(0, 11, 2)), 34))
    swung = np.radians(np.clip(rng.normal(4, 16, 2), -40, 45))
    bent = np.radians(np.minimum(np.abs(rng.normal(6, 24, 2)), 80))
    inwards = np.radians(rng.uniform(0, 25, 2))
    return _with_arms(pose, np.pi / 2 - away, swung, bent, inwards)


def stretch_arms(rng: np.random.Generator, pose: Array) -> Array:
    """The pose `[17, 3]` with arms that are stretched out sideways, more or less level."""
    raised = np.radians(np.clip(rng.normal(0, 7, 2), -15, 15))
    forwards = np.radians(np.clip(rng.normal(5, 8, 2), -12, 22))
    bent = np.radians(np.abs(rng.normal(0, 6, 2)))
    return _with_arms(pose, raised, forwards, bent, np.zeros(2))


def _with_arms(pose: Array, below: Array, swung: Array, bent: Array, inwards: Array) -> Array:
    """Upper arms `below` the horizontal line sideways, then `swung` forwards; forearms bent from them, forwards and, by
    the angle `inwards`, to the middle. Radians, left and right `[2]`; lengths stay."""
    out = pose.copy()
    left = pose[11] - pose[14]
    left = left / max(float(np.linalg.norm(left)), 1e-9)
    up = pose[_THORAX] - pose[_PELVIS]
    up = up - (up @ left) * left
    up = up / max(float(np.linalg.norm(up)), 1e-9)
    forward = np.cross(left, up)
    for side, (shoulder, elbow, wrist) in enumerate(_ARMS):
        outwards = left if side == 0 else -left
        hanging = np.cos(below[side]) * outwards - np.sin(below[side]) * up
        upper = np.cos(swung[side]) * hanging + np.sin(swung[side]) * forward
        # The direction across the upper arm that the elbow bends to.
        bend = np.cos(inwards[side]) * forward - np.sin(inwards[side]) * outwards
        bend = bend - (bend @ upper) * upper
        bend = bend / max(float(np.linalg.norm(bend)), 1e-9)
        fore = np.cos(bent[side]) * upper + np.sin(bent[side]) * bend
        out[elbow] = out[shoulder] + np.linalg.norm(pose[elbow] - pose[shoulder]) * upper
        out[wrist] = out[elbow] + np.linalg.norm(pose[wrist] - pose[elbow]) * fore
    return out
