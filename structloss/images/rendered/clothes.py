"""What a person looks like: skin, hair, shoes, shirt and trousers with patterns; and the colours of it all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .body import MATERIALS, PARTS, Body
from .renderer import Surface
from .tones import pick, random_tone, triple

__all__ = ["PATTERNS", "Fabric", "Look", "colours", "sample_look"]

Floats = NDArray[np.float32]

PATTERNS: tuple[str, ...] = ("plain", "rings", "stripes", "checks", "mottled")
"""Of fabrics: rings go around limbs and trunk, stripes along them."""

# From light to dark, and hair from black to grey; between neighbours anything may be.
_SKIN = np.array([[255, 224, 200], [241, 194, 160], [214, 160, 120], [160, 108, 74], [96, 62, 44]]) / 255
_HAIR = np.array([[22, 20, 20], [60, 40, 28], [112, 74, 42], [190, 150, 90], [168, 168, 168]]) / 255
_EYES = np.array([0.08, 0.06, 0.06])


@dataclass(frozen=True)
class Fabric:
    """Two colours, RGB from 0 to 1, one of :data:`PATTERNS`, and its period in metres."""

    first: tuple[float, ...]
    second: tuple[float, ...]
    pattern: str = "plain"
    period: float = 0.08


@dataclass(frozen=True)
class Look:
    """Colours are RGB from 0 to 1.

    Attributes:
        skin, hair, shoes: colours.
        shirt, trousers: fabrics.
        sleeve, leg: how far they reach: 1 to elbow or knee, 2 to wrist or ankle.
    """

    skin: tuple[float, ...]
    hair: tuple[float, ...]
    shoes: tuple[float, ...]
    shirt: Fabric
    trousers: Fabric
    sleeve: float
    leg: float


def sample_look(rng: np.random.Generator) -> Look:
    """A random look."""
    # Bare arms and legs are as frequent as covered ones.
    sleeve = pick(rng, (0.15, rng.uniform(0.4, 0.7), rng.uniform(0.85, 1.2), 1.93), (0.1, 0.35, 0.1, 0.45))
    leg = pick(rng, (rng.uniform(0.35, 0.7), rng.uniform(0.8, 1.3), 1.95), (0.2, 0.15, 0.65))
    trousers = _fabric(rng, plain=0.75)
    if rng.random() < 0.4:  # jeans, or dark cloth
        tone = rng.uniform(0.08, 0.45) * np.array([0.75, 0.9, 1.15] if rng.random() < 0.6 else [1.0, 1.0, 1.0])
        trousers = Fabric(triple(tone), triple(tone * 0.75), trousers.pattern, trousers.period)
    return Look(
        skin=_between(rng, _SKIN),
        hair=_between(rng, _HAIR),
        shoes=triple(np.full(3, rng.uniform(0.05, 0.9)) if rng.random() < 0.6 else random_tone(rng)),
        shirt=_fabric(rng, plain=0.45),
        trousers=trousers,
        sleeve=float(sleeve),
        leg=float(leg),
    )


def _between(rng: np.random.Generator, colours: NDArray[np.float64]) -> tuple[float, ...]:
    place = rng.uniform(0, len(colours) - 1)
    lower = int(place)
    return triple(colours[lower] + (place - lower) * (colours[lower + 1] - colours[lower]))


def _fabric(rng: np.random.Generator, plain: float) -> Fabric:
    others = (1 - plain) / (len(PATTERNS) - 1)
    pattern = pick(rng, PATTERNS, (plain, *(others,) * (len(PATTERNS) - 1)))
    return Fabric(triple(random_tone(rng)), triple(random_tone(rng)), pattern, float(rng.uniform(0.04, 0.16)))


def colours(body: Body, surface: Surface, look: Look) -> Floats:
    """Colours of points of a body before any light, float32 `[3, F]`."""
    table = np.array(
        [look.skin, look.shirt.first, look.trousers.first, look.shoes, look.hair, _EYES, look.skin, look.skin],
        dtype=np.float32,
    ).T
    material = body.material[surface.capsule]
    out = table.take(material, axis=1)
    upper = np.array([name.endswith(("upper arm", "thigh")) for name in PARTS])[body.part]
    # Where along its limb a point lies, as `sleeve` and `leg` count.
    reach = surface.along + np.where(upper, 0, 1).astype(np.float32)[surface.capsule]
    kind = {name: i for i, name in enumerate(MATERIALS)}
    shirt = (material == kind["shirt"]) | ((material == kind["sleeve"]) & (reach < look.sleeve))
    trousers = (material == kind["trousers"]) | ((material == kind["leg"]) & (reach < look.leg))
    for where, fabric in ((shirt, look.shirt), (trousers, look.trousers)):
        chosen = np.flatnonzero(where)
        out[:, chosen] = _woven(body, surface, chosen, fabric)
    return out


def _woven(body: Body, surface: Surface, chosen: NDArray[np.intp], fabric: Fabric) -> Floats:
    """Colours of a fabric at the chosen points."""
    first, second = (np.array(colour, dtype=np.float32)[:, None] for colour in (fabric.first, fabric.second))
    if fabric.pattern == "plain":
        return np.broadcast_to(first, (3, len(chosen)))
    number = surface.capsule[chosen]
    turns = np.float32(2 * np.pi / (fabric.period * body.scale))
    along = surface.along[chosen] * body.length.astype(np.float32)[number] * turns
    a, b, c = body.across.astype(np.float32)
    x, y, z = surface.turn[:, chosen]
    around = (a * x + b * y + c * z) * body.capsules.start_radius.astype(np.float32)[number] * turns
    if fabric.pattern == "rings":
        share = np.sin(along) > 0
    elif fabric.pattern == "stripes":
        share = np.sin(around) > 0
    elif fabric.pattern == "checks":
        share = (np.sin(along) > 0) ^ (np.sin(around) > 0)
    else:
        share = 0.5 + 0.5 * np.sin(along + 2 * np.sin(around)) * np.sin(1.7 * around + number)
    return first + share.astype(np.float32) * (second - first)
