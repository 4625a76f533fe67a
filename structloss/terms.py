"""The term table: every loss term's name, source, inputs, options, formula and denominator.

Operators, the objective, the command line and the documentation read it. A term's place in it is its number in every
backend: the Triton kernels take theirs from here, and csrc/params.h has the same table for C++ and CUDA (a test
compares the two).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from numbers import Real
from types import MappingProxyType
from typing import Any

from .errors import ArgumentError, check_choice, check_name, shown

__all__ = ["TERMS", "Denominator", "Option", "Term", "check_options", "check_term"]


@dataclass(frozen=True)
class Option:
    """A keyword of a term's function, also accepted in `options` of the objective.

    Attributes:
        default: its value if not given.
        check: (argument's name in messages, value) -> the value in plain Python; raises ArgumentError.
        meaning: in words.
    """

    default: object
    check: Callable[[str, object], object]
    meaning: str


class Denominator(Enum):
    """What `reduction="mean"` divides by, in words; how much that is says :mod:`structloss.ops.denominators`."""

    JOINT_WEIGHTS = "joints (sum of weights)"
    JOINTS = "joints, whatever their weights"
    STEPS = "joints of T - 1 steps (sum of w_t*w_(t-1))"
    STEP_COORDINATES = "coordinates of the joints of T - 1 steps (3 times the sum of w_t*w_(t-1))"
    JOINT_PAIRS = "ordered pairs of joints, J*J per frame (sum of w_i*w_j)"
    FRAME_PAIRS = "ordered pairs of frames, T*T per joint (sum of w_i*w_j)"
    FRAMES = "frames with a weighted joint"
    BONES = "bones (sum of the products of their joints' weights)"
    VARYING_BONES = "bones of clips with two or more frames"
    ANGLES = "angles (sum of the products of their joints' weights)"
    ANGLE_STEPS = "angles of T - 1 steps (sum of w_t*w_(t-1) of their weights)"


_OVER_TIME = {
    Denominator.STEPS,
    Denominator.STEP_COORDINATES,
    Denominator.FRAME_PAIRS,
    Denominator.VARYING_BONES,
    Denominator.ANGLE_STEPS,
}


@dataclass(frozen=True)
class Term:
    """One term of the objective.

    Attributes:
        name: key in the `weights` of :func:`structloss.objective`.
        symbol: short name in tables and figures.
        source: paper and equation.
        needs_target: whether it compares with a target (anatomical terms don't).
        formula: in words.
        denominator: what `reduction="mean"` divides by.
        measures: what it measures on a skeleton: "bones", "angles", "mirrored bones", "hinges" or "bone groups"; empty
            for terms that take any joints.
        options: keyword -> :class:`Option`.
    """

    name: str
    symbol: str
    source: str
    needs_target: bool
    formula: str
    denominator: Denominator
    measures: str = ""
    options: Mapping[str, Option] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def count(self) -> str:
        """What `reduction="mean"` divides by, in words."""
        return self.denominator.value

    @property
    def needs_skeleton(self) -> bool:
        """Whether it measures bones, hinges or angles of a skeleton."""
        return bool(self.measures)

    @property
    def needs_frames(self) -> bool:
        """Whether it compares frames in a row: it is 0 on one frame, whatever the poses."""
        return self.denominator in _OVER_TIME


def _one_of(*choices: str) -> Callable[[str, object], object]:
    return lambda argument, value: check_choice(argument, value, choices)


def _flag(argument: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ArgumentError(f"{argument} is {shown(value)}, expected True or False.")
    return value


def _number(expected: str, fits: Callable[[Any], bool]) -> Callable[[str, object], float]:
    def check(argument: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not fits(value):
            raise ArgumentError(f"{argument} is {shown(value)}, expected {expected}.")
        return float(value)

    return check


def _joint_weight(argument: str, value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    numbers = value.tolist() if hasattr(value, "tolist") else value  # tensors and arrays
    if not isinstance(numbers, Sequence) or isinstance(numbers, str):
        raise ArgumentError(f"{argument} is a {type(value).__name__}, expected one number >= 0 per joint.")
    check = _number("a finite number >= 0", lambda x: 0 <= x <= sys.float_info.max)
    return tuple(check(f"{argument}[{j}]", x) for j, x in enumerate(numbers))


def _options(**options: Option) -> Mapping[str, Option]:
    return MappingProxyType(options)


_JOINT_WEIGHT = Option(
    None, _joint_weight, "one factor per joint, J numbers; it scales the term and is not divided out"
)
_RESOLUTION = Option(
    0.0,
    _number("0 or a number from 1e-30 to 1e30", lambda x: x == 0 or 1e-30 <= x <= 1e30),
    "pairs closer than this in the target count the less the closer they are; in the unit of the depths, 0 for off",
)
_ANGLE_PAIRS = Option(
    "published",
    _one_of("published", "all"),
    '"all" takes every pair of bones that meet in a joint; "published" leaves out the left twin of neck-shoulder on '
    "h36m, as the published code does",
)

_TERMS = (
    Term(
        name="mpjpe",
        symbol="MPJPE",
        source="Human3.6M protocol 1 (Ionescu et al., TPAMI 2014)",
        needs_target=True,
        formula="Euclidean distance between predicted and target joint",
        denominator=Denominator.JOINT_WEIGHTS,
    ),
    Term(
        name="weighted_mpjpe",
        symbol="W-MPJPE",
        source="VideoPose3D (Pavllo et al., CVPR 2019); joint weights of MixSTE (Zhang et al., CVPR 2022)",
        needs_target=True,
        formula="weight times the distance between predicted and target joint",
        denominator=Denominator.JOINTS,
        options=_options(joint_weight=_JOINT_WEIGHT),
    ),
    Term(
        name="n_mpjpe",
        symbol="N-MPJPE",
        source="Rhodin et al., CVPR 2018; as in VideoPose3D and MotionBERT",
        needs_target=True,
        formula="distance between target joint and the prediction scaled, frame by frame, to fit best",
        denominator=Denominator.JOINT_WEIGHTS,
    ),
    Term(
        name="velocity",
        symbol="velocity",
        source="MotionBERT (Zhu et al., ICCV 2023); MPJVE of VideoPose3D",
        needs_target=True,
        formula="distance between the steps of a predicted and a target joint from one frame to the next",
        denominator=Denominator.STEPS,
    ),
    Term(
        name="temporal_consistency",
        symbol="TC",
        source="MixSTE (Zhang et al., CVPR 2022)",
        needs_target=False,
        formula="squared length of a joint's step from one frame to the next",
        denominator=Denominator.STEP_COORDINATES,
        options=_options(joint_weight=_JOINT_WEIGHT),
    ),
    Term(
        name="depth_ranking_joints",
        symbol="L_S",
        source="RePOSE (Sun et al., ECCV 2024), Equation 2, Algorithm 1: L_S",
        needs_target=True,
        formula="over pairs of joints of a frame with target depth i < j: max(0, predicted depth i - that of j)",
        denominator=Denominator.JOINT_PAIRS,
        options=_options(resolution=_RESOLUTION),
    ),
    Term(
        name="depth_ranking_frames",
        symbol="L_T",
        source="RePOSE (Sun et al., ECCV 2024), Equation 3, Algorithm 2: L_T",
        needs_target=True,
        formula="over pairs of frames of a joint with target depth i < j: max(0, predicted depth i - that of j)",
        denominator=Denominator.FRAME_PAIRS,
        options=_options(resolution=_RESOLUTION),
    ),
    Term(
        name="bone_symmetry",
        symbol="symmetry",
        source="Dabral et al., ECCV 2018: L_s",
        needs_target=False,
        formula="sum over mirrored bones of the absolute difference of their lengths",
        denominator=Denominator.FRAMES,
        measures="mirrored bones",
        options=_options(
            pairs=Option(
                "four",
                _one_of("four", "six", "all"),
                '"four" limb bones; "six" adds hips and clavicles; "all" also those of feet and hands',
            ),
            squared=Option(False, _flag, "square the differences"),
        ),
    ),
    Term(
        name="illegal_angle",
        symbol="illegal angle",
        source="Dabral et al., ECCV 2018: L_a",
        needs_target=False,
        formula="sum over elbows and knees of u*exp(u), u how far the limb bends to the wrong side (triple product)",
        denominator=Denominator.FRAMES,
        measures="hinges",
        options=_options(
            tolerance=Option(
                0.0,
                _number("a finite number >= 0", lambda x: 0 <= x <= sys.float_info.max),
                "subtracted from the triple product before the clamp, in its unit",
            ),
            normalize_bones=Option(False, _flag, "unit bones: scale-free, triple products in [-1, 1]"),
            scale=Option(
                1.0, _number("a finite number > 0", lambda x: 1e-100 < x < 1e100), "factor to metres, 1e-3 for mm"
            ),
            handedness=Option("right", _one_of("right", "left"), "of the coordinate frame"),
        ),
    ),
    Term(
        name="bone_ratio",
        symbol="bone ratio",
        source="Zhou et al., ICCV 2017; L_g of Dabral et al., ECCV 2018",
        needs_target=False,
        formula="sum over bone groups of the variance of length over canonical length",
        denominator=Denominator.FRAMES,
        measures="bone groups",
        options=_options(
            form=Option(
                "code",
                _one_of("code", "paper"),
                '"code": lengths scaled to the group\'s first bone, in the unit of the poses; "paper": ratios to '
                "canonical lengths in millimetres",
            )
        ),
    ),
    Term(
        name="limb_length",
        symbol="limb length",
        source="MotionBERT (Zhu et al., ICCV 2023)",
        needs_target=True,
        formula="absolute difference of predicted and target bone length",
        denominator=Denominator.BONES,
        measures="bones",
    ),
    Term(
        name="limb_variance",
        symbol="limb variance",
        source="MotionBERT (Zhu et al., ICCV 2023)",
        needs_target=False,
        formula="unbiased variance over time of each bone's length",
        denominator=Denominator.VARYING_BONES,
        measures="bones",
    ),
    Term(
        name="bone_angle",
        symbol="bone angle",
        source="MotionBERT (Zhu et al., ICCV 2023)",
        needs_target=True,
        formula="absolute difference of predicted and target angle between adjacent bones, radians",
        denominator=Denominator.ANGLES,
        measures="angles",
        options=_options(pairs=_ANGLE_PAIRS),
    ),
    Term(
        name="bone_angle_velocity",
        symbol="angle velocity",
        source="MotionBERT (Zhu et al., ICCV 2023)",
        needs_target=True,
        formula="absolute difference of the steps of predicted and target angle, radians per frame",
        denominator=Denominator.ANGLE_STEPS,
        measures="angles",
        options=_options(pairs=_ANGLE_PAIRS),
    ),
)

TERMS: Mapping[str, Term] = MappingProxyType({term.name: term for term in _TERMS})


def check_term(name: object) -> Term:
    """The term called `name`; raises UnknownNameError for an unknown one."""
    return TERMS[check_name("term", name, TERMS)]


def check_options(term: Term, options: object, argument: str | None = None) -> dict[str, object]:
    """All options of `term`: those given, checked and in plain Python, and the defaults of the others.

    Args:
        term: the term they belong to.
        options: keyword -> value.
        argument: what the mapping is called in messages; None if the options are the function's own keywords.
    """
    if not isinstance(options, Mapping):
        raise ArgumentError(f"{argument} is a {type(options).__name__}, expected a mapping from keywords to values.")
    for name in options:
        if not term.options:
            raise ArgumentError(f"{argument} has the key {name!r}, expected none, since {term.name} has no options.")
        check_name(f"option of {term.name}", name, term.options)
    checked = {}
    for name, option in term.options.items():
        shown = name if argument is None else f"{argument}[{name!r}]"
        checked[name] = option.check(shown, options[name]) if name in options else option.default
    return checked
