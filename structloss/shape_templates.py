"""Shape templates: a person as 18 anisotropic Gaussians, the points where they meet, and what is read from them.

Source: Schmidtke et al., "Unsupervised Human Pose Estimation through Transforming Shape Templates", CVPR 2021
("original", arms straight out sideways); Yoo and Russakovsky, "Efficient, Self-Supervised Human Pose Estimation with
Inductive Prior Tuning", ICCV 2023 workshop ("natural", arms down; coarse-to-fine tables; joint read-out).

All numbers are pixels of an image of :data:`SIZE` pixels. Centres are (row, column), anchors (x, y) = (column, row).
"left" is left **in the image**, x < 128: the right side of a person who faces the camera. Plain tuples throughout:
importing this waits for neither NumPy nor PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ArgumentError, check_name

__all__ = [
    "ANCHOR_MIRROR",
    "ANCHOR_PAIRS",
    "ANCHOR_PARTS",
    "CORE_ANCHORS",
    "FIRST_STEP",
    "H36M_JOINTS",
    "JOINTS",
    "JOINT_ANCHORS",
    "JOINT_MIRROR",
    "LEGACY_ORDER",
    "MATRICES",
    "PARTS",
    "PART_MIRROR",
    "PART_PAIRS",
    "SECOND_STEP",
    "SIZE",
    "ShapeTemplate",
    "get",
    "names",
]

SIZE = 256
"""Height and width, in pixels, of the images that the tables are for."""

PARTS = (
    *("core", "left hip", "right hip", "left thigh", "right thigh", "left shin", "right shin"),
    *("left shoulder", "right shoulder", "left arm", "right arm", "left forearm", "right forearm"),
    *("left foot", "right foot", "left hand", "right hand", "head"),
)
"""The 18 parts, in the order of every array over parts."""

PART_PAIRS = tuple((i, PARTS.index("right" + part[4:])) for i, part in enumerate(PARTS) if part.startswith("left"))
"""(left, right) indices of the parts that have two sides."""


def _swapped(count: int, pairs: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """The permutation of `count` indices that swaps the two of each pair."""
    other = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    return tuple(other.get(i, i) for i in range(count))


PART_MIRROR = _swapped(len(PARTS), PART_PAIRS)
"""Permutation of the parts that swaps left and right."""

# Anchors of a part: three of the core (hip, shoulder, neck), parent end and child end of a limb, one of an end.
_ANCHORS_OF = tuple(3 if part == "core" else 1 if part.endswith(("foot", "hand", "head")) else 2 for part in PARTS)
_FIRST_ANCHOR = tuple(sum(_ANCHORS_OF[:part]) for part in range(len(PARTS)))

ANCHOR_PARTS = tuple(part for part, count in enumerate(_ANCHORS_OF) for _ in range(count))
"""The part that each of the 32 anchors belongs to. Anchors are in the order of the parts."""


def _anchor(part: str, place: int) -> int:
    """Index of an anchor of a part: of the core's 0 hip, 1 shoulder, 2 neck; of others 0 parent end, 1 child end."""
    return _FIRST_ANCHOR[PARTS.index(part)] + place


ANCHOR_MIRROR = _swapped(
    len(ANCHOR_PARTS),
    tuple((_FIRST_ANCHOR[a] + i, _FIRST_ANCHOR[b] + i) for a, b in PART_PAIRS for i in range(_ANCHORS_OF[a])),
)
"""Permutation of the anchors that swaps left and right."""

CORE_ANCHORS = (0, 1, 2)
"""The core's anchors: hip, shoulder, neck."""

_LIMBS = (
    (("hip", 1), ("thigh", 0)),
    (("thigh", 1), ("shin", 0)),
    (("shin", 1), ("foot", 0)),
    (("shoulder", 1), ("arm", 0)),
    (("arm", 1), ("forearm", 0)),
    (("forearm", 1), ("hand", 0)),
)
_CORE = ((0, "left hip"), (0, "right hip"), (1, "left shoulder"), (1, "right shoulder"), (2, "head"))

ANCHOR_PAIRS = (
    *((_anchor("core", place), _anchor(part, 0)) for place, part in _CORE),
    *(
        (_anchor(f"{side} {parent}", i), _anchor(f"{side} {child}", j))
        for side in ("left", "right")
        for (parent, i), (child, j) in _LIMBS
    ),
)
"""The 17 pairs of anchors where two parts meet: they have one position in the template, and the anchor loss keeps them
together."""

# name, the anchors whose mean it is, and its index among the 32 joints of Human3.6M. hipR is the child end of one part
# alone [Yoo and Russakovsky], hipL of two: published figures are for these. Ground truth is by the side of the image,
# so that of hipR is the left hip of a person who faces the camera.
_READOUT: tuple[tuple[str, tuple[int, ...], int], ...] = (
    ("abdomen", (0, 3, 5), 0),
    ("hipR", (6,), 6),
    ("kneeR", (10, 13), 7),
    ("ankleR", (14, 28), 8),
    ("hipL", (4, 7), 1),
    ("kneeL", (8, 11), 2),
    ("ankleL", (12, 27), 3),
    ("chest", (1, 15, 17), 13),
    ("neck", (2, 31), 14),
    ("shoulderR", (18, 21), 17),
    ("elbowR", (22, 25), 18),
    ("wristR", (26, 30), 19),
    ("shoulderL", (16, 19), 25),
    ("elbowL", (20, 23), 26),
    ("wristL", (24, 29), 27),
)

JOINTS = tuple(name for name, _, _ in _READOUT)
"""The 15 joints that are read from the anchors. R and L are sides of the image."""

JOINT_ANCHORS = tuple(anchors for _, anchors, _ in _READOUT)
"""A joint is the mean of these anchors."""

H36M_JOINTS = tuple(index for _, _, index in _READOUT)
"""What each joint is compared with: its index among the 32 joints of Human3.6M's own files."""

JOINT_MIRROR = _swapped(
    len(JOINTS), tuple((JOINTS.index(f"{name[:-1]}L"), i) for i, name in enumerate(JOINTS) if name.endswith("R"))
)
"""Permutation of the joints that swaps left and right."""

# Coarse to fine [Yoo and Russakovsky]: first one matrix per part, but one for a whole arm; then six for parts of arms.
_ARM = ("arm", "forearm", "hand")
FIRST_STEP = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 9, 10, 11, 12, 9, 10, 13)
"""Which of the 20 matrices moves a part in the first step: 14 matrices, an arm's three parts share one."""

SECOND_STEP = tuple(
    14 + [f"{side} {name}" for side in ("left", "right") for name in _ARM].index(part)
    if part.split()[-1] in _ARM
    else None
    for part in PARTS
)
"""Which of the 20 matrices moves a part in the second step, None for parts that stay."""

MATRICES = 20
"""Matrices of both steps together."""

LEGACY_ORDER = (0, 1, 2, 3, 4, 11, 12, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16, 17)
"""The rows of the network in Schmidtke's published checkpoint that move :data:`PARTS`, part by part."""


@dataclass(frozen=True)
class ShapeTemplate:
    """The Gaussians and the anchors of one template, at :data:`SIZE` pixels.

    Part p at row r and column c, before it is moved (Schmidtke et al.):

        u = cos(angle) (r - row) - sin(angle) (c - column)
        v = sin(angle) (r - row) + cos(angle) (c - column)
        g = peak exp(-u^2 / 2 s_row^2 - v^2 / 2 s_column^2)

    Attributes:
        name: registry name.
        parameters: (row, column, s_row, s_column, angle, peak) of each part: centre and scales in pixels, angle in
            radians; a scale is along its axis before the rotation. The peak is 1.
        anchors: (x, y) of the 32 anchors, pixels.
    """

    name: str
    parameters: tuple[tuple[float, float, float, float, float, float], ...]
    anchors: tuple[tuple[float, float], ...]

    def at(self, size: int) -> ShapeTemplate:
        """The template for images of `size` pixels: centres, scales and anchors times size / 256 [ours].

        Raises:
            ArgumentError: `size` is no positive integer.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ArgumentError(f"size is {size!r}, expected a positive integer of pixels.")
        k = size / SIZE
        return ShapeTemplate(
            self.name,
            tuple((k * r, k * c, k * a, k * b, angle, peak) for r, c, a, b, angle, peak in self.parameters),
            tuple((k * x, k * y) for x, y in self.anchors),
        )


# part: centre (row, column), scales (row, column), angle, then its anchors (x, y)
_Row = tuple[tuple[float, float], tuple[float, float], float, tuple[tuple[float, float], ...]]
_UPRIGHT = 1.5708  # as it is published, not pi / 2
_ORIGINAL: dict[str, _Row] = {
    "core": ((120, 128), (15.36, 25.6), _UPRIGHT, ((128, 144), (128, 80), (128, 68))),
    "left hip": ((152, 120), (6.4, 7.68), -0.9, ((128, 144), (116, 144))),
    "right hip": ((152, 136), (6.4, 7.68), 0.9, ((128, 144), (140, 144))),
    "left thigh": ((172, 108), (6.4, 10.24), -1.1, ((116, 144), (100, 184))),
    "right thigh": ((172, 148), (6.4, 10.24), 1.1, ((140, 144), (156, 184))),
    "left shin": ((196, 100), (6.4, 12.8), _UPRIGHT, ((100, 184), (100, 208))),
    "right shin": ((196, 156), (6.4, 12.8), -_UPRIGHT, ((156, 184), (156, 208))),
    "left shoulder": ((80, 120), (6.4, 10.24), 0.0, ((128, 80), (112, 80))),
    "right shoulder": ((80, 136), (6.4, 10.24), 0.0, ((128, 80), (144, 80))),
    "left arm": ((80, 96), (6.4, 10.24), 0.0, ((112, 80), (88, 80))),
    "right arm": ((80, 160), (6.4, 10.24), 0.0, ((144, 80), (168, 80))),
    "left forearm": ((80, 72), (6.4, 10.24), 0.0, ((88, 80), (68, 80))),
    "right forearm": ((80, 184), (6.4, 10.24), 0.0, ((168, 80), (188, 80))),
    "left foot": ((220, 100), (5.12, 5.12), 0.0, ((100, 208),)),
    "right foot": ((220, 156), (5.12, 5.12), 0.0, ((156, 208),)),
    "left hand": ((80, 56), (5.12, 6.4), 0.0, ((68, 80),)),
    "right hand": ((80, 200), (5.12, 6.4), 0.0, ((188, 80),)),
    "head": ((52, 128), (12.8, 8.96), 0.0, ((128, 68),)),
}
_60, _80 = 1.0471975511965976, 1.3962634015954636  # degrees in radians
_NATURAL: dict[str, _Row] = _ORIGINAL | {
    "left arm": ((93, 100), (6.4, 10.24), -_60, ((112, 80), (93, 102))),
    "right arm": ((93, 156), (6.4, 10.24), _60, ((144, 80), (160, 102))),
    "left forearm": ((118, 90), (6.4, 10.24), -_80, ((93, 102), (86, 127))),
    "right forearm": ((118, 165), (6.4, 10.24), _80, ((160, 102), (167, 127))),
    "left hand": ((138, 87), (5.12, 6.4), -_80, ((86, 127),)),
    "right hand": ((138, 170), (5.12, 6.4), _80, ((167, 127),)),
}


def _template(name: str, rows: dict[str, _Row]) -> ShapeTemplate:
    parts = [rows[part] for part in PARTS]
    return ShapeTemplate(
        name,
        tuple((float(r), float(c), a, b, angle, 1.0) for (r, c), (a, b), angle, _ in parts),
        tuple((float(x), float(y)) for _, _, _, anchors in parts for x, y in anchors),
    )


_TEMPLATES = {name: _template(name, rows) for name, rows in (("original", _ORIGINAL), ("natural", _NATURAL))}


def names() -> tuple[str, ...]:
    """Names of the templates: "original" (arms out sideways) and "natural" (arms down)."""
    return tuple(_TEMPLATES)


def get(name: str) -> ShapeTemplate:
    """The template called `name`.

    Raises:
        UnknownNameError: no such template.
    """
    return _TEMPLATES[check_name("shape template", name, _TEMPLATES)]
