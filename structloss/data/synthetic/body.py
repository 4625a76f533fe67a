"""A person to animate: bone lengths from anthropometry, joint limits, forward kinematics and leg inverse kinematics.

Body frame: x forward, y left, z up. Sides are indexed 0 = left, 1 = right. Angles are radians.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from .curves import rotate, rx, ry, rz, softmin

__all__ = ["LIMITS", "Angles", "Body", "limit_height", "pose", "sample_body"]

SIDES = np.array([1.0, -1.0])  # y direction of the left and the right side

# Low and high limits. Shoulder abduction and rotation stay below 90 degrees together, and so do the hip's: that is what
# keeps the elbow's and knee's hinge axis on the side where the illegal-angle test accepts it.
_DEGREES: dict[str, tuple[ArrayLike, ArrayLike]] = {
    "lumbar": ((-12, -15, -15), (45, 15, 15)),  # flexion, to the right, twist to the left
    "thoracic": ((-10, -15, -25), (30, 15, 25)),
    "neck": ((-25, -20, -50), (35, 20, 50)),
    "shoulder": ((-45, -2, -35), (165, 72, 62)),  # flexion, abduction, internal rotation
    "elbow": (2, 145),
    "hip": ((-22, -8, -25), (110, 45, 30)),
    "knee": (2, 140),
}
LIMITS: dict[str, tuple[np.ndarray, np.ndarray]] = {
    name: (np.radians(low), np.radians(high)) for name, (low, high) in _DEGREES.items()
}


@dataclass(frozen=True)
class Body:
    """Bone lengths of one person in metres; pairs are (left, right)."""

    stature: float
    hip: np.ndarray
    thigh: np.ndarray
    shin: np.ndarray
    clavicle: np.ndarray
    upper_arm: np.ndarray
    forearm: np.ndarray
    lumbar: float
    thoracic: float
    neck: float
    nose: float  # how far joint 9 lies in front of the neck's axis
    head: float
    ankle: float  # height of the ankle's centre above the floor

    @property
    def leg(self) -> np.ndarray:
        return self.thigh + self.shin


def sample_body(rng: np.random.Generator, asymmetry: float) -> Body:
    """A random adult.

    Stature is normal (1.71 +- 0.09 m, 1.50 to 1.95 m). Lengths are fractions of it after Drillis and Contini (1966) for
    limbs, and our own choice where a Human3.6M joint is no anatomical landmark (trunk, nose), each with 4 % variation
    of its own; arms share one more factor, legs another. `asymmetry` is the standard deviation of the difference of
    left and right, as a fraction of the limb.
    """
    stature = float(np.clip(rng.normal(1.71, 0.09), 1.50, 1.95))

    def length(fraction: float, common: float = 1.0, spread: float = 0.04) -> float:
        return stature * fraction * common * float(np.exp(np.clip(rng.normal(0, spread), -2.5 * spread, 2.5 * spread)))

    def pair(fraction: float, common: float = 1.0) -> np.ndarray:
        half = 0.5 * asymmetry * np.clip(rng.normal(), -2.5, 2.5)
        return length(fraction, common) * np.array([1 + half, 1 - half])

    legs, arms = (float(np.exp(np.clip(rng.normal(0, 0.025), -0.06, 0.06))) for _ in range(2))
    return Body(
        stature=stature,
        hip=pair(0.064),
        thigh=pair(0.245, legs),
        shin=pair(0.246, legs),
        clavicle=pair(0.098),
        upper_arm=pair(0.180, arms),
        forearm=pair(0.150, arms),
        lumbar=length(0.137),
        thoracic=length(0.143),
        neck=length(0.070),
        nose=length(0.030, spread=0.1),
        head=length(0.105),
        ankle=float(np.clip(length(0.040, spread=0.05), 0.055, 0.072)),
    )


@dataclass
class Angles:
    """Joint angles over T frames; hip and knee are only used for legs without ankle targets."""

    lumbar: np.ndarray  # [T, 3]: flexion, bend to the right, twist to the left
    thoracic: np.ndarray  # [T, 3]
    neck: np.ndarray  # [T, 3]
    shoulder: np.ndarray  # [T, 2, 3]: flexion, abduction, internal rotation
    elbow: np.ndarray  # [T, 2]
    hip: np.ndarray | None = None  # [T, 2, 3]
    knee: np.ndarray | None = None  # [T, 2]
    knees_out: np.ndarray = field(default_factory=lambda: np.array(0.0))  # [T] or []: with ankle targets


def _trunk(angles: np.ndarray) -> np.ndarray:
    """Rotation of a trunk segment from (flexion, bend to the right, twist to the left)."""
    return rz(angles[..., 2]) @ ry(angles[..., 0]) @ rx(angles[..., 1])


def _limb(angles: np.ndarray) -> np.ndarray:
    """Rotation of an upper limb `[T, 2, 3]` -> `[T, 2, 3, 3]`; the limb hangs along -z at rest, flexion is forward."""
    return ry(-angles[..., 0]) @ rx(SIDES * angles[..., 1]) @ rz(-SIDES * angles[..., 2])


def pose(
    body: Body, root: np.ndarray, pelvis: np.ndarray, angles: Angles, ankles: np.ndarray | None = None
) -> np.ndarray:
    """Joint positions.

    Args:
        root: `[T, 3]`, the pelvis' position.
        pelvis: `[T, 3, 3]`, its rotation, body to world.
        angles: all joint angles.
        ankles: `[T, 2, 3]`, where the ankles are; the legs are solved for them. Otherwise the legs follow the angles.

    Returns:
        `[T, 17, 3]` in the Human3.6M order; bones have the body's lengths in every frame.
    """
    out = np.empty((len(root), 17, 3))
    lumbar = pelvis @ _trunk(angles.lumbar)
    chest = lumbar @ _trunk(angles.thoracic)
    head = chest @ _trunk(angles.neck)
    out[:, 0] = root
    out[:, 7] = root + body.lumbar * lumbar[..., 2]
    out[:, 8] = out[:, 7] + body.thoracic * chest[..., 2]
    out[:, 9] = out[:, 8] + body.neck * head[..., 2] + body.nose * head[..., 0]
    # The head leans back from nose to crown, by as much as the nose stands out.
    crown = np.array([-body.nose, 0.0, body.head])
    out[:, 10] = out[:, 9] + rotate(head, crown * body.head / np.linalg.norm(crown))

    # The shoulder blade follows the raised arm.
    shrug = np.clip(angles.shoulder[..., 0] - 0.6, 0, None) * 0.16 - 0.05
    girdle = chest[:, None] @ rx(SIDES * shrug)  # [T, 2, 3, 3]
    upper = girdle @ _limb(angles.shoulder)
    fore = upper @ ry(-angles.elbow)
    shoulder = out[:, None, 8] + (SIDES * body.clavicle)[:, None] * girdle[..., 1]
    elbow = shoulder - body.upper_arm[:, None] * upper[..., 2]
    out[:, [11, 14]] = shoulder
    out[:, [12, 15]] = elbow
    out[:, [13, 16]] = elbow - body.forearm[:, None] * fore[..., 2]

    hip = _hips(body, root, pelvis)
    if ankles is None:
        assert angles.hip is not None and angles.knee is not None, "legs need ankles, or angles"
        thigh = pelvis[:, None] @ _limb(angles.hip)
        knee = hip - body.thigh[:, None] * thigh[..., 2]
        ankle = knee - body.shin[:, None] * (thigh @ ry(angles.knee))[..., 2]
    else:
        knee, ankle = _solve_legs(body, hip, ankles, pelvis, angles.knees_out)
    out[:, [4, 1]] = hip
    out[:, [5, 2]] = knee
    out[:, [6, 3]] = ankle
    return out


def _hips(body: Body, root: np.ndarray, pelvis: np.ndarray) -> np.ndarray:
    """Hip joints `[T, 2, 3]`."""
    return root[:, None] + (SIDES * body.hip)[:, None] * pelvis[:, None, :, 1]


def _reach(body: Body) -> tuple[np.ndarray, np.ndarray]:
    """Shortest and longest distance of hip and ankle `[2]`: 145 and 6 degrees of knee flexion."""
    bent, straight = (
        np.sqrt(body.thigh**2 + body.shin**2 + 2 * body.thigh * body.shin * np.cos(flexion))
        for flexion in np.radians([145.0, 6.0])
    )
    return bent, straight


def limit_height(body: Body, root: np.ndarray, pelvis: np.ndarray, ankles: np.ndarray, width: float) -> np.ndarray:
    """Greatest height `[T]` of the root at which both legs still reach their ankles; smooth over `width` metres."""
    offset = _hips(body, root, pelvis) - root[:, None]
    flat = (ankles - root[:, None] - offset)[..., :2]
    longest = _reach(body)[1]
    up = np.sqrt(np.maximum(longest**2 - (flat**2).sum(-1), (0.3 * longest) ** 2))
    height = ankles[..., 2] + up - offset[..., 2]
    return softmin([height[:, 0], height[:, 1]], width)


def _solve_legs(
    body: Body, hip: np.ndarray, ankle: np.ndarray, pelvis: np.ndarray, knees_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Knees and ankles `[T, 2, 3]`: two-bone inverse kinematics with the knee in front.

    An ankle out of reach is pulled in along the line to the hip, so bones stay rigid whatever the target.
    """
    line = ankle - hip
    distance = np.linalg.norm(line, axis=-1, keepdims=True)
    line = line / distance
    bent, straight = _reach(body)
    distance = np.clip(distance, bent[:, None], straight[:, None])
    # Hinge axis: the pelvis' left, turned out with the knee, made perpendicular to the leg.
    turn = SIDES * np.broadcast_to(knees_out, (len(hip),))[:, None]
    left = rotate(pelvis[:, None] @ rz(turn), np.array([0.0, 1.0, 0.0]))
    axis = left - (left * line).sum(-1, keepdims=True) * line
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    forward = np.cross(line, axis)
    thigh, shin = body.thigh[:, None], body.shin[:, None]
    along = (thigh**2 - shin**2 + distance**2) / (2 * distance)
    across = np.sqrt(np.maximum(thigh**2 - along**2, 0.0))
    return hip + along * line + across * forward, hip + distance * line
