"""The actions of the synthetic motion: functions (rng, body, t) -> world positions `[T, 17, 3]`, float64 metres.

Wherever a foot stands, its ankle is given and the leg is solved for it, so planted feet do not skate; trunk and arms
follow joint angles. Numbers are degrees and seconds in the code, as in the gait literature, radians inside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .body import LIMITS, SIDES, Angles, Body, limit_height, pose
from .curves import min_jerk, monotone, plateaus, rx, ry, rz, smooth, soft_limit, softmin, wander

__all__ = ["GENERATORS"]


def _angles(rng: np.random.Generator, t: np.ndarray, restless: float = 1.0) -> Angles:
    """Standing at ease: arms hanging, plus the slow sway that nobody is without; `restless` scales the latter."""

    def sway(shape: tuple[int, ...], degrees: float) -> np.ndarray:
        return np.radians(degrees * restless) * wander(rng, t, shape, 0.05, 0.6)

    n = len(t)
    shoulder = np.radians([rng.normal(3, 4), rng.uniform(6, 13), rng.uniform(5, 25)])
    return Angles(
        lumbar=np.radians([3.0, 0, 0]) + sway((3,), 0.8),
        thoracic=np.radians([rng.normal(4, 3), 0, 0]) + sway((3,), 1.2),
        neck=np.radians([rng.normal(4, 4), 0, 0]) + sway((3,), 4.0),
        shoulder=np.broadcast_to(shoulder, (n, 2, 3)) + sway((2, 3), 2.0),
        elbow=np.radians(rng.uniform(12, 28)) + sway((2,), 4.0),
    )


def _animate(
    body: Body, root: np.ndarray, pelvis: np.ndarray, angles: Angles, ankles: np.ndarray | None = None
) -> np.ndarray:
    """Positions with every angle inside its anatomical limits and the pelvis no higher than the legs reach."""
    for name, (low, high) in LIMITS.items():
        value = getattr(angles, name)
        if value is not None:
            setattr(angles, name, soft_limit(value, low, high))
    if ankles is not None:
        root = root.copy()
        root[:, 2] = softmin([root[:, 2], limit_height(body, root, pelvis, ankles, 0.01)], 0.006)
    return pose(body, root, pelvis, angles, ankles)


def _level(x: np.ndarray, z: np.ndarray | float) -> np.ndarray:
    """Floor positions `[..., 2]` at height z: `[..., 3]`."""
    return np.concatenate([x, np.broadcast_to(np.asarray(z)[..., None], (*x.shape[:-1], 1))], axis=-1)


# One gait cycle of a foot from heel strike (0) to the next (1), as the ankle sees it: it stands, rises while the foot
# rolls over the toes, swings. Travel is the part of the way to the next foothold; lift is in metres of a full step.
_TRAVEL = monotone((0.0, 0.42, 0.60, 0.70, 0.80, 0.93, 1.0), (0.0, 0.0, 0.07, 0.30, 0.65, 0.985, 1.0))
_LIFT = monotone((0.0, 0.06, 0.40, 0.60, 0.69, 0.82, 0.93, 1.0), (0.012, 0.0, 0.0, 0.075, 0.130, 0.060, 0.030, 0.012))
_PASSING = 0.27  # the phase of the cycle at which the pelvis is above the standing ankle


def _feet(
    t: np.ndarray, phase: np.ndarray, ground: np.ndarray, heading: np.ndarray, width: float, ankle: float
) -> np.ndarray:
    """Ankles `[T, 2, 3]` that walk under a pelvis moving over `ground` `[T, 2]` with `heading` `[T]`.

    A foothold is where the pelvis will be when it passes over the foot. A step lifts the foot the less, the shorter it
    is; where the person does not move, the feet stay on the floor. `phase` counts the cycles of the right foot.
    """
    feet = []
    for side, shift in zip(SIDES, (0.5, 0.0), strict=True):
        own = phase - shift
        step = np.floor(own)
        passing = np.arange(step.min(), step.max() + 2) + _PASSING
        at = np.interp(passing, own, t)
        yaw = np.interp(at, t, heading)
        hold = np.stack([np.interp(at, t, ground[:, i]) for i in range(2)], axis=-1)
        hold += side * width / 2 * np.stack([-np.sin(yaw), np.cos(yaw)], axis=-1)
        k = (step - step.min()).astype(int)
        way = hold[k + 1] - hold[k]
        lift = 1 - np.exp(-np.linalg.norm(way, axis=-1) / 0.22)
        s = own - step
        feet.append(_level(hold[k] + _TRAVEL(s)[:, None] * way, ankle + lift * _LIFT(s)))
    return np.stack(feet, axis=1)


def _extended(t: np.ndarray, seconds: float) -> tuple[np.ndarray, slice]:
    """`t` with time before and after it, and where `t` lies in there: footholds look ahead and back."""
    step = t[1] - t[0] if len(t) > 1 else 0.02
    pad = int(np.ceil(seconds / step))
    return t[0] + step * np.arange(-pad, len(t) + pad), slice(pad, pad + len(t))


def _stand_height(body: Body, bend: float = 0.996) -> float:
    return body.ankle + bend * float(body.leg.min())


def _walking_path(rng: np.random.Generator, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points `[T, 2]` and headings `[T]` along a closed loop around the origin, by distance walked `[T]` in metres.

    A rounded loop or a figure of eight, since a walk of ten seconds has to turn to stay in front of the cameras.
    """
    angle = np.linspace(0, 2 * np.pi, 721)
    if rng.random() < 0.35:
        loop = np.stack([rng.uniform(1.35, 1.6) * np.cos(angle), rng.uniform(0.6, 0.75) * np.sin(2 * angle)], -1)
    else:
        loop = np.stack([rng.uniform(1.2, 1.6) * np.cos(angle), rng.uniform(0.75, 1.25) * np.sin(angle)], -1)
        loop *= 1 + 0.06 * np.cos(2 * angle + rng.uniform(0, 2 * np.pi))[:, None]
    if rng.random() < 0.5:
        loop = loop[::-1]
    loop = loop @ rz(rng.uniform(0, 2 * np.pi))[:2, :2].T
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(loop, axis=0), axis=-1))])
    direction = np.unwrap(np.arctan2(*np.gradient(loop, axis=0).T[::-1]))
    at = (distance + rng.uniform(0, length[-1])) / length[-1]
    rounds = np.floor(at)
    ground = np.stack([np.interp((at - rounds) * length[-1], length, loop[:, i]) for i in range(2)], axis=-1)
    heading = np.interp((at - rounds) * length[-1], length, direction) + rounds * (direction[-1] - direction[0])
    return ground, heading


def walk(rng: np.random.Generator, body: Body, t: np.ndarray) -> np.ndarray:
    """Walking a loop at 0.8 to 1.3 m/s: stance feet stay put, arms swing against the legs; leaning into turns."""
    t, inside = _extended(t, 2.5)
    speed = rng.uniform(0.8, 1.3) * np.sqrt(body.stature / 1.71)
    pace = 1 + 0.06 * wander(rng, t, (), 0.05, 0.15)  # nobody keeps an exact speed
    seconds = np.concatenate([[0], np.cumsum((pace[1:] + pace[:-1]) / 2 * np.diff(t))])
    ground, heading = _walking_path(rng, speed * seconds)
    sigma = 0.15 / (t[1] - t[0])
    heading = smooth(heading, sigma)
    # Stride grows with speed, about as the square root; the rest is cadence.
    stride = rng.uniform(0.95, 1.05) * 1.24 * np.sqrt(speed / 1.2) * body.stature / 1.71
    phase = speed * seconds / stride + rng.uniform(0, 1)
    width = rng.uniform(0.10, 0.16)
    ankles = _feet(t, phase, ground, heading, width, body.ankle)

    cycle, vigour = 2 * np.pi * phase, speed / 1.2
    left = np.stack([-np.sin(heading), np.cos(heading)], axis=-1)
    turning = np.gradient(heading, t)
    yaw = np.radians(5 * vigour) * np.cos(cycle)  # the hip of the leg in front is in front
    roll = np.radians(-3.0) * np.sin(cycle) - 0.03 * turning * speed  # the swinging side drops; lean into the turn
    pelvis = rz(heading + yaw) @ ry(np.radians(rng.uniform(1, 5)) + 0 * t) @ rx(roll)
    root = _level(ground - 0.018 * np.sin(cycle)[:, None] * left, _stand_height(body))
    root[:, 2] = smooth(limit_height(body, root, pelvis, ankles, 0.02), sigma / 2)

    angles = _angles(rng, t, restless=0.7)
    angles.lumbar[:, 2] -= 0.6 * yaw
    angles.thoracic[:, 2] -= 1.1 * yaw
    angles.lumbar[:, 1] += 0.8 * roll
    angles.neck[:, 2] += np.interp(t + 0.5, t, heading) - heading  # the eyes lead into the turn
    swing = np.radians(rng.uniform(13, 26)) * vigour
    forward = np.stack([np.cos(cycle), -np.cos(cycle)], axis=-1)  # left arm with the right leg
    angles.shoulder[..., 0] += swing * forward - np.radians(3)
    angles.elbow += 0.45 * swing * (1 + forward)
    return _animate(body, root, pelvis, angles, ankles)[inside]


def _schedule(
    rng: np.random.Generator, t: np.ndarray, hold: tuple[float, float], move: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Start and duration `[K]` of moves with holds between them; the first may already be under way at t = 0."""
    count = int(np.ceil((t[-1] - t[0] + move[1]) / (hold[0] + move[0]))) + 2
    holds, moves = rng.uniform(*hold, count), rng.uniform(*move, count)
    start = t[0] - rng.uniform(0, moves[0]) + np.concatenate([[0], np.cumsum((holds + moves)[:-1])])
    return start, moves


def turn(rng: np.random.Generator, body: Body, t: np.ndarray) -> np.ndarray:
    """Standing, and turning on the spot by 40 to 170 degrees with small steps; the head leads."""
    t, inside = _extended(t, 2.5)
    start, duration = _schedule(rng, t, (0.3, 1.5), (0.9, 1.4))
    yaw = np.radians(rng.uniform(40, 170, len(start))) * rng.choice([-1.0, 1.0], len(start))
    duration = duration * (0.55 + np.abs(yaw) / 2.6)
    start = start + np.concatenate([[0], np.cumsum(np.maximum(duration - 1.4, 0))[:-1]])
    heading = plateaus(t, start, duration, rng.uniform(0, 2 * np.pi) + np.concatenate([[0], np.cumsum(yaw)]))
    drift = np.clip(np.cumsum(rng.normal(0, 0.12, (len(start) + 1, 2)), axis=0), -0.8, 0.8)
    ground = plateaus(t, start, duration, drift)
    phase = t / rng.uniform(0.8, 1.0) + rng.uniform(0, 1)
    width = rng.uniform(0.18, 0.26)
    ankles = _feet(t, phase, ground, heading, width, body.ankle)
    weight = 0.012 * wander(rng, t, (2,), 0.1, 0.4)  # shifting weight
    root = _level(0.55 * ground + 0.45 * ankles[..., :2].mean(axis=1) + weight, _stand_height(body))
    root[:, 2] = smooth(limit_height(body, root, rz(heading), ankles, 0.02), 0.08 / (t[1] - t[0]))
    root[:, 2] = softmin([root[:, 2], np.full_like(t, _stand_height(body))], 0.01)

    angles = _angles(rng, t)
    rate = smooth(np.gradient(heading, t), 0.1 / (t[1] - t[0]))
    angles.neck[:, 2] += 0.6 * (np.interp(t + 0.3, t, heading) - heading)
    angles.thoracic[:, 2] += 0.10 * rate
    angles.shoulder[..., 0] += np.radians(8) * np.abs(rate)[:, None] * np.array([-1, 1]) * np.sign(rng.normal())
    angles.shoulder[..., 1] += np.radians(5) * np.abs(rate)[:, None]
    angles.elbow += np.radians(10) * np.abs(rate)[:, None]
    return _animate(body, root, rz(heading), angles, ankles)[inside]


def _planted(rng: np.random.Generator, body: Body, width: float) -> tuple[np.ndarray, float, np.ndarray]:
    """A standing place: floor point `[2]`, heading, and both ankles `[2, 3]`, one foot a little ahead of the other."""
    heading = rng.uniform(0, 2 * np.pi)
    ground = rng.uniform(-0.5, 0.5, 2)
    local = np.stack([rng.normal(0, 0.025) * SIDES, SIDES * width / 2, np.full(2, body.ankle)], axis=-1)
    return ground, heading, _level(ground, 0.0) + local @ rz(heading).T


def reach(rng: np.random.Generator, body: Body, t: np.ndarray) -> np.ndarray:
    """Standing and reaching with one hand or both, low to overhead; trunk and knees help, arms drop in between."""
    ground, heading, ankles = _planted(rng, body, rng.uniform(0.18, 0.30))
    start, duration = _schedule(rng, t, (0.15, 0.9), (0.6, 1.1))
    count = len(start) + 1
    away = (np.arange(count) + rng.integers(2)) % 2 == 1  # every other pose is at rest, some are not
    away |= rng.random(count) < 0.25
    hands = rng.choice(3, count, p=[0.3, 0.45, 0.25])  # left, right, both
    active = away[:, None] & (np.stack([hands != 1, hands != 0], axis=-1))  # [K, 2]
    height = rng.uniform(0, 1, count)[:, None]  # low to overhead
    side = rng.uniform(-1, 1, count)[:, None]  # to the right .. to the left

    flexion = 35 + 120 * height + rng.normal(0, 6, (count, 2))
    outward = side * SIDES
    target = np.stack(
        [
            flexion,
            14 + 42 * np.clip(outward, 0, 1) * np.sin(np.pi * np.clip(height, 0.1, 0.75)),
            20 + 38 * np.clip(-outward, 0, 1) - 10 * np.clip(outward, 0, 1),
        ],
        axis=-1,
    )
    bent = rng.uniform(8, 55, (count, 2))
    strength = active.any(axis=1, keepdims=True)
    low = np.clip(0.45 - height, 0, 1) / 0.45
    lean = (10 + 55 * low) * strength
    twist = 28 * side * strength * np.where(hands == 2, 0.6, 1.0)[:, None]
    trunk = np.concatenate([lean, -8 * side * strength, twist], axis=-1)

    angles = _angles(rng, t)
    angles.shoulder = angles.shoulder + plateaus(t, start, duration, np.radians(target) * active[..., None])
    angles.elbow = angles.elbow + plateaus(t, start, duration, np.radians(bent) * active)
    moved = plateaus(t, start, duration, np.radians(trunk))
    angles.shoulder[..., 0] += 0.8 * moved[:, :1]  # arms hang down from a leaning trunk
    angles.lumbar = angles.lumbar + moved * [0.35, 0.5, 0.25]
    angles.thoracic = angles.thoracic + moved * [0.25, 0.5, 0.45]
    gaze = np.concatenate([-30 * (height - 0.45) - 0.2 * lean, 0 * side, 18 * side], axis=-1) * strength
    angles.neck = angles.neck + plateaus(t, start, duration, np.radians(gaze))
    angles.knees_out = np.radians(np.full(len(t), rng.uniform(3, 10)))

    # The hips go back as the trunk goes forward, or the person would fall; the knees give with the low reach.
    shift = plateaus(t, start, duration, np.concatenate([0.02 - 0.0028 * lean, 0.05 * side * strength], axis=-1))
    drop = plateaus(t, start, duration, (0.16 * low * strength)[:, 0] * rng.uniform(0.3, 1.0, count))
    shift = shift + 0.008 * wander(rng, t, (2,), 0.1, 0.5)
    yaw = heading + 0.3 * moved[:, 2]
    root = _level(ground + shift @ rz(heading)[:2, :2].T, _stand_height(body) - drop)
    pelvis = rz(yaw) @ ry(0.4 * moved[:, 0])
    return _animate(body, root, pelvis, angles, np.broadcast_to(ankles, (len(t), 2, 3)))


def squat(rng: np.random.Generator, body: Body, t: np.ndarray) -> np.ndarray:
    """Squats of varying depth, hips back, trunk leaning, arms coming forward as a counterweight."""
    ground, heading, ankles = _planted(rng, body, rng.uniform(0.24, 0.38))
    start, duration = _schedule(rng, t, (0.1, 0.6), (0.7, 1.3))
    down = (np.arange(len(start) + 1) + rng.integers(2)) % 2
    depth = plateaus(t, start, duration, down * rng.uniform(0.35, 1.0, len(down)))  # 1 = thighs horizontal or lower
    leg = float(body.leg.mean())
    back = -0.21 * leg * depth * rng.uniform(0.85, 1.15)
    local = np.stack([back, 0.006 * wander(rng, t, (), 0.1, 0.5)], axis=-1)
    root = _level(ground + local @ rz(heading)[:2, :2].T, _stand_height(body) - 0.53 * leg * depth)
    lean = np.radians(rng.uniform(38, 55)) * depth
    angles = _angles(rng, t)
    angles.lumbar[:, 0] += 0.30 * lean
    angles.thoracic[:, 0] += 0.12 * lean
    angles.neck[:, 0] -= 0.45 * lean  # the eyes stay ahead
    angles.shoulder[..., 0] += np.radians(rng.uniform(55, 105)) * depth[:, None]
    angles.shoulder[..., 2] += np.radians(rng.uniform(0, 25)) * depth[:, None]
    angles.elbow += np.radians(rng.uniform(-5, 70)) * depth[:, None]
    angles.knees_out = np.radians(6) + np.radians(rng.uniform(8, 22)) * depth
    pelvis = rz(np.full_like(t, heading)) @ ry(0.58 * lean)
    return _animate(body, root, pelvis, angles, np.broadcast_to(ankles, (len(t), 2, 3)))


def sit(rng: np.random.Generator, body: Body, t: np.ndarray) -> np.ndarray:
    """Sitting down on a chair and standing up again; seated, the hands lie on the thighs and gesture."""
    ground, heading, ankles = _planted(rng, body, rng.uniform(0.20, 0.32))
    start, duration = _schedule(rng, t, (0.8, 3.0), (1.3, 1.9))
    down = (np.arange(len(start) + 1) + rng.integers(2)) % 2
    seated = plateaus(t, start, duration, down.astype(float))
    # The pelvis sinks a little later than it goes back, and rises a little earlier than it comes forward.
    sinking = min_jerk(np.clip(seated * 1.06 - 0.06, 0, 1)) * 0.5 + 0.5 * np.clip(seated, 0, 1)
    height = rng.uniform(0.40, 0.48) * body.stature / 1.71 + 0.09  # seat, and pelvis above it
    back = 0.96 * float(body.thigh.mean()) * rng.uniform(0.88, 1.05)
    stand = _stand_height(body)
    local = np.stack([-back * seated, 0.006 * wander(rng, t, (), 0.1, 0.4) * (1 - seated)], axis=-1)
    root = _level(ground + local @ rz(heading)[:2, :2].T, stand - (stand - height) * sinking)

    moving = 4 * seated * (1 - seated)
    lean = np.radians(rng.uniform(38, 50)) * moving + np.radians(rng.uniform(-4, 10)) * seated
    angles = _angles(rng, t)
    angles.lumbar[:, 0] += 0.35 * lean + np.radians(rng.uniform(0, 14)) * seated
    angles.thoracic[:, 0] += 0.20 * lean
    angles.neck[:, 0] -= 0.35 * lean
    angles.neck[:, 2] += np.radians(14) * seated * wander(rng, t, (), 0.05, 0.35)
    gesture = np.clip(0.6 * wander(rng, t, (2,), 0.05, 0.3), 0, 1.5) * seated[:, None]
    angles.shoulder[..., 0] += np.radians(18) * np.maximum(seated, 0.9 * moving)[:, None] + np.radians(30) * gesture
    angles.shoulder[..., 2] += np.radians(15) * seated[:, None] + np.radians(12) * gesture
    angles.elbow += np.radians(rng.uniform(30, 55)) * seated[:, None] + np.radians(35) * gesture
    angles.elbow += np.radians(12) * gesture * wander(rng, t, (2,), 0.5, 1.2)
    angles.knees_out = np.radians(4) + np.radians(rng.uniform(2, 14)) * seated
    pelvis = rz(np.full_like(t, heading)) @ ry(0.45 * lean - np.radians(6) * seated)
    return _animate(body, root, pelvis, angles, np.broadcast_to(ankles, (len(t), 2, 3)))


def random(rng: np.random.Generator, body: Body, t: np.ndarray) -> np.ndarray:
    """Every joint wanders smoothly within its limits while the person turns; the lower foot carries the body."""
    pace = rng.uniform(0.25, 0.6)  # highest frequency, Hz

    def angle(rest: ArrayLike, spread: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
        return np.radians(rest) + np.radians(spread) * wander(rng, t, shape, 0.05, pace)

    angles = Angles(
        lumbar=angle([8, 0, 0], [11, 6, 6], (3,)),
        thoracic=angle([5, 0, 0], [8, 6, 10], (3,)),
        neck=angle([5, 0, 0], [10, 7, 20], (3,)),
        shoulder=angle([45, 25, 18], [42, 20, 20], (2, 3)),
        elbow=angle(55, 35, (2,)),
        hip=angle([22, 8, 2], [24, 9, 8], (2, 3)),
        knee=angle(38, 30, (2,)),
    )
    heading = rng.uniform(0, 2 * np.pi) + rng.uniform(0.3, 1.2) * wander(rng, t, (), 0.03, 0.15)
    tilt = np.radians([6, 4]) * wander(rng, t, (2,), 0.05, pace)
    pelvis = rz(heading) @ ry(np.radians(4) + tilt[:, 0]) @ rx(tilt[:, 1])
    out = _animate(body, np.zeros((len(t), 3)), pelvis, angles)

    ankle = out[:, [6, 3]]
    # Deep down, a knee or hand may touch the floor before a foot does.
    clearance = [out[:, j, 2] + (0 if j in (3, 6) else body.ankle - 0.04) for j in (3, 6, 2, 5, 13, 16)]
    low = softmin([softmin(clearance[:2], 0.02), *clearance[2:]], 0.006)
    move = np.zeros((len(t), 3))
    move[:, 2] = body.ankle - low
    if len(t) > 1:
        # The root goes where the foot that carries the weight stays put; the slow part of that would leave the room,
        # so it is taken back to a wander of some decimetres.
        carried = 1 / (1 + np.exp(-(ankle[:, ::-1, 2] - ankle[:, :, 2]) / 0.02))  # [T, 2]
        velocity = -(carried[..., None] * np.gradient(ankle[..., :2], t, axis=0)).sum(axis=1)
        way = np.cumsum(velocity, axis=0) * (t[1] - t[0])
        trend = np.stack([smooth(way[:, i], 1.0 / (t[1] - t[0])) for i in range(2)], axis=-1)
        move[:, :2] = way - trend + 0.8 * np.tanh((trend - trend.mean(axis=0)) / 0.8)
    return out + move[:, None]


GENERATORS: dict[str, Callable[[np.random.Generator, Body, np.ndarray], np.ndarray]] = {
    "walk": walk,
    "reach": reach,
    "squat": squat,
    "turn": turn,
    "sit": sit,
    "random": random,
}
"""Action -> its generator."""
