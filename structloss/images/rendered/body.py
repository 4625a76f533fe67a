"""A body of capsules around the 17 joints of a pose: trunk, head with hair and face, limbs, hands and feet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from .surfaces import Array, Capsules
from .tones import pick

__all__ = ["ALLOWANCE", "JOINT_PARTS", "MATERIALS", "PARTS", "Body", "Figure", "build_body", "sample_figure"]

_SIDES = ("left", "right")
PARTS: tuple[str, ...] = (
    "pelvis", "abdomen", "chest", "neck", "head",
    *(f"{side} {part}" for side in _SIDES for part in
      ("shoulder", "upper arm", "forearm", "hand", "thigh", "shin", "foot")),
)  # fmt: skip
"""What a capsule may belong to."""

MATERIALS: tuple[str, ...] = ("skin", "shirt", "trousers", "shoes", "hair", "eyes", "sleeve", "leg")
"""What a capsule is made of. A sleeve is the shirt's up to where it ends, and skin beyond; a leg is the trousers'."""

_HAND, _FOOT = 0.105, 0.20  # metres, of a person 1.71 m tall, as all lengths here
_REFERENCE = 0.84 + 0.48  # leg and trunk of that person


def _parts(*names: str) -> tuple[int, ...]:
    return tuple(PARTS.index(name) for name in names)


_TRUNK = ("pelvis", "abdomen", "chest")
JOINT_PARTS: tuple[tuple[int, ...], ...] = (
    _parts("right shin", "right foot"),
    _parts("right thigh", "right shin"),
    _parts("right thigh", "pelvis", "abdomen"),
    _parts("left thigh", "pelvis", "abdomen"),
    _parts("left thigh", "left shin"),
    _parts("left shin", "left foot"),
    _parts("pelvis", "abdomen"),
    _parts("chest", "neck", "left shoulder", "right shoulder"),
    _parts("chest", "neck", "left shoulder", "right shoulder"),
    _parts("head"),
    _parts("right forearm", "right hand"),
    _parts("right upper arm", "right forearm"),
    _parts("right shoulder", "right upper arm", "chest"),
    _parts("left shoulder", "left upper arm", "chest"),
    _parts("left upper arm", "left forearm"),
    _parts("left forearm", "left hand"),
)
"""The parts that each of MPII's joints lies in, and that don't hide it for being in front of it."""

ALLOWANCE: tuple[float, ...] = (
    0.12, 0.13, 0.18, 0.18, 0.13, 0.12, 0.22, 0.20, 0.20, 0.25, 0.09, 0.11, 0.14, 0.14, 0.11, 0.09,
)  # fmt: skip
"""How deep under the surface of its own parts each joint still counts as seen; metres, of a person 1.71 m tall. The
far shoulder of somebody seen from the side is deeper, and so is the elbow of an arm that points at the camera."""


@dataclass(frozen=True)
class Figure:
    """How a person is built; 1 is average, lengths are the pose's.

    Attributes:
        arms, legs, trunk, hips, shoulders: thickness.
        belly: how far the abdomen stands out.
        head: size of the head.
        hair: "short", "long", "bun" or "none".
        loose: metres that clothes add.
    """

    arms: float = 1.0
    legs: float = 1.0
    trunk: float = 1.0
    hips: float = 1.0
    shoulders: float = 1.0
    belly: float = 1.0
    head: float = 1.0
    hair: str = "short"
    loose: float = 0.004


def sample_figure(rng: np.random.Generator) -> Figure:
    """A random build."""
    build = float(np.exp(np.clip(rng.normal(0, 0.13), -0.25, 0.3)))
    factor = np.exp(np.clip(rng.normal(0, 0.07, 7), -0.17, 0.17))
    return Figure(
        arms=build * float(factor[0]),
        legs=build * float(factor[1]),
        trunk=build * float(factor[2]),
        hips=build * float(factor[3]),
        shoulders=build**0.5 * float(factor[4]),
        belly=build * float(factor[5]),
        head=float(factor[6]),
        hair=pick(rng, ("short", "long", "bun", "none"), (0.5, 0.3, 0.1, 0.1)),
        loose=pick(rng, (0.002, 0.006, 0.014), (1, 1, 1)),
    )


@dataclass(frozen=True)
class Body:
    """Capsules of a person and what they are.

    Attributes:
        capsules: N of them.
        part, material: int `[N]`, indices into :data:`PARTS` and :data:`MATERIALS`.
        length: float `[N]`, of the axes, metres.
        scale: size of the person, 1 for 1.71 m.
        across: `[3]`, unit vector from the right to the left hip.
    """

    capsules: Capsules
    part: NDArray[np.intp]
    material: NDArray[np.intp]
    length: Array
    scale: float
    across: Array


class _Builder:
    """Collects capsules; lengths are scaled to the person."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.ends: list[tuple[Array, Array]] = []
        self.radii: list[tuple[float, float]] = []
        self.thin: list[tuple[Array, float]] = []
        self.kinds: list[tuple[int, int]] = []

    def add(
        self, part: str, material: str, start: Array, end: Array, radii: tuple[float, float],
        thin: tuple[Array, float] | None = None,
    ) -> None:  # fmt: skip
        """A capsule; `thin` = (unit vector, share): the surface is that share of the radius away in its direction."""
        self.ends.append((start, end))
        self.radii.append((radii[0] * self.scale, radii[1] * self.scale))
        self.thin.append(thin or (start, 1.0))
        self.kinds.append((PARTS.index(part), MATERIALS.index(material)))

    def body(self, across: Array) -> Body:
        ends, radii, kinds = np.array(self.ends), np.array(self.radii), np.array(self.kinds)
        axes, shares = np.array([axis for axis, _ in self.thin]), np.array([share for _, share in self.thin])
        flatten = np.eye(3) + (1 / shares - 1)[:, None, None] * axes[:, :, None] * axes[:, None, :]
        capsules = Capsules(ends[:, 0], ends[:, 1], radii[:, 0], radii[:, 1], flatten)
        length = np.sqrt(((ends[:, 1] - ends[:, 0]) ** 2).sum(1))
        return Body(capsules, kinds[:, 0], kinds[:, 1], length, self.scale, across)


def build_body(pose: Array, figure: Figure) -> Body:
    """The body of a pose.

    Args:
        pose: float64 `[17, 3]`, Human3.6M order, metres, a right-handed frame.
        figure: how the person is built.

    Joints that lie on each other, as unknown ones do, leave parts out of shape, but give no error.
    """
    p = np.asarray(pose, dtype=np.float64)
    limbs = [_length(p[2] - p[1]), _length(p[3] - p[2]), _length(p[5] - p[4]), _length(p[6] - p[5])]
    trunk = _length(p[7] - p[0]) + _length(p[8] - p[7])
    scale = max((sum(limbs) / 2 + trunk) / _REFERENCE, 1e-3)
    hips = _unit(p[4] - p[1], np.array([1.0, 0.0, 0.0]))
    up = _unit(p[7] - p[0], np.array([0.0, -1.0, 0.0]))
    forward = _unit(_cross(hips, up), np.array([0.0, 0.0, -1.0]))
    across = _unit(p[11] - p[14], hips)
    chest_up = _unit(p[8] - p[7], up)
    chest_forward = _unit(_cross(across, chest_up), forward)
    builder = _Builder(scale)
    _trunk(builder, p, figure, (hips, up, forward), (across, chest_up, chest_forward))
    _head(builder, p, figure, (across, chest_up, chest_forward))
    for side, (hip, knee, ankle), (shoulder, elbow, wrist) in zip(
        _SIDES, ((4, 5, 6), (1, 2, 3)), ((11, 12, 13), (14, 15, 16)), strict=True
    ):
        _leg(builder, side, p[[hip, knee, ankle]], forward, figure)
        _arm(builder, side, p[[shoulder, elbow, wrist]], chest_forward, figure)
    return builder.body(hips)


_Frame = tuple[Array, Array, Array]  # to the left, up, forward


def _trunk(builder: _Builder, p: Array, figure: Figure, pelvis: _Frame, chest: _Frame) -> None:
    s, loose = builder.scale, figure.loose
    _, up, forward = pelvis
    across, chest_up, chest_forward = chest
    wide = 0.098 * figure.hips + loose
    right, left = p[1] * 0.7 + p[0] * 0.3, p[4] * 0.7 + p[0] * 0.3
    low, high = -0.025 * s * up, 0.050 * s * up
    builder.add("pelvis", "trousers", right + low, left + low, (wide, wide), (forward, 0.95))
    # The shirt hangs over the hips.
    builder.add("pelvis", "shirt", right * 0.85 + p[0] * 0.15 + high, left * 0.85 + p[0] * 0.15 + high,
                (wide + 0.006, wide + 0.006), (forward, 0.95))  # fmt: skip
    waist = 0.128 * figure.trunk + loose
    belly = 0.70 + 0.13 * (figure.belly - 1)
    builder.add("abdomen", "shirt", p[0] + 0.09 * s * up, p[7], (waist * 1.06, waist), (forward, belly))
    ribs = 0.142 * figure.trunk + loose
    builder.add("chest", "shirt", p[7], p[8] - 0.125 * s * chest_up + 0.01 * s * chest_forward, (waist, ribs),
                (chest_forward, 0.72))  # fmt: skip
    for side, joint, sign in (("left", 11, 1.0), ("right", 14, -1.0)):
        base = p[8] + sign * 0.035 * s * across - 0.035 * s * chest_up
        thick = 0.062 * figure.shoulders + loose
        builder.add(f"{side} shoulder", "shirt", base, p[joint] - 0.01 * s * chest_up, (thick * 1.06, thick * 0.92))


def _head(builder: _Builder, p: Array, figure: Figure, chest: _Frame) -> None:
    across, _, chest_forward = chest
    up = _unit(p[10] - p[8], chest[1])
    # Joint 9, near the nose, tells where the face is; without a nose, the chest does.
    nose = p[9] - p[8]
    nose = nose - (nose * up).sum() * up
    ahead = _unit(chest_forward - (chest_forward * up).sum() * up, across)
    ahead = ahead if _length(nose) < 0.008 * builder.scale else nose / _length(nose)
    side = _cross(up, ahead)
    s = builder.scale * figure.head
    top = p[10]
    middle = top - 0.098 * s * up  # the crown is just inside
    builder.add("neck", "skin", p[8] - 0.03 * s * up, p[8] + 0.55 * (middle - p[8]), (0.056, 0.052))
    thin = (side, 0.8)
    size = figure.head
    builder.add("head", "skin", middle, top - 0.168 * s * up + 0.028 * s * ahead, (0.101 * size, 0.062 * size), thin)
    builder.add("head", "skin", middle - 0.050 * s * up + 0.096 * s * ahead,
                middle - 0.068 * s * up + 0.106 * s * ahead, (0.012 * size, 0.016 * size))  # fmt: skip
    for sign in (1.0, -1.0):
        eye = middle - 0.022 * s * up + 0.086 * s * ahead + sign * 0.032 * s * side
        builder.add("head", "eyes", eye, eye, (0.013 * size, 0.013 * size))
    if figure.hair == "none":
        return
    back = middle + 0.010 * s * up - 0.016 * s * ahead
    builder.add("head", "hair", back, back - 0.035 * s * up - 0.012 * s * ahead, (0.104 * size, 0.09 * size),
                (side, 0.84))  # fmt: skip
    if figure.hair == "long":
        builder.add("head", "hair", back - 0.02 * s * ahead, back - 0.21 * s * up - 0.03 * s * ahead,
                    (0.094 * size, 0.06 * size), (ahead, 0.75))  # fmt: skip
    elif figure.hair == "bun":
        knot = back + 0.035 * s * up - 0.11 * s * ahead
        builder.add("head", "hair", knot, knot, (0.045 * size, 0.045 * size))


def _leg(builder: _Builder, side: str, chain: Array, forward: Array, figure: Figure) -> None:
    hip, knee, ankle = chain
    thick, s = figure.legs, builder.scale
    add = 0.7 * figure.loose
    builder.add(f"{side} thigh", "leg", hip, knee, (0.083 * thick + add, 0.056 * thick + add))
    builder.add(f"{side} shin", "leg", knee, ankle, (0.056 * thick + add, 0.037 * thick + add))
    shin = _unit(ankle - knee, np.array([0.0, 1.0, 0.0]))
    # A bent knee points where the foot does; a straight one leaves it to the pelvis.
    bend = knee - (hip + ankle) / 2
    ahead = bend + 0.06 * s * forward
    ahead = _unit(ahead - (ahead * shin).sum() * shin, forward)
    toe = _unit(ahead + 0.22 * shin, ahead)
    heel = ankle + 0.035 * s * shin - 0.025 * s * ahead
    builder.add(f"{side} foot", "shoes", heel, heel + (_FOOT - 0.03) * s * toe, (0.042, 0.033))


def _arm(builder: _Builder, side: str, chain: Array, forward: Array, figure: Figure) -> None:
    shoulder, elbow, wrist = chain
    thick, s = figure.arms, builder.scale
    add = 0.8 * figure.loose
    builder.add(f"{side} upper arm", "sleeve", shoulder, elbow, (0.057 * thick + add, 0.043 * thick + add))
    builder.add(f"{side} forearm", "sleeve", elbow, wrist, (0.043 * thick + add, 0.029 * thick + 0.6 * add))
    along = _unit(wrist - elbow, np.array([0.0, 1.0, 0.0]))
    # The palm faces the thigh of a hanging arm: the hand is thin across the plane that the forearm spans with forward.
    palm = _cross(along, forward)
    palm = _unit(palm, _unit(_cross(along, np.array([0.0, 1.0, 0.0])), np.array([1.0, 0.0, 0.0])))
    thin = (palm, 0.55)
    builder.add(f"{side} hand", "skin", wrist + 0.01 * s * along, wrist + _HAND * s * along, (0.032, 0.042), thin)


def _cross(a: Array, b: Array) -> Array:
    """numpy's own takes longer for two vectors than half a limb's pixels."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def _length(vector: Array) -> float:
    x, y, z = vector.tolist()
    return sqrt(x * x + y * y + z * z)


def _unit(vector: Array, otherwise: Sequence[float] | Array) -> Array:
    """The vector's direction, or another where it has none."""
    length = _length(vector)
    return vector / length if length > 1e-6 else np.asarray(otherwise, dtype=np.float64)
