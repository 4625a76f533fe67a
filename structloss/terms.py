"""THE term table: every loss term's name, source, inputs and formula.

Operators, the objective, the command line and the documentation read it; nothing else lists the terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .errors import check_name

__all__ = ["TERMS", "Term", "check_term"]


@dataclass(frozen=True)
class Term:
    """One term of the objective.

    Attributes:
        name: key in the `weights` of :func:`structloss.objective`.
        symbol: short name in tables and figures.
        source: paper and equation.
        needs_target: whether it compares with a target (anatomical terms don't).
        formula: in words.
        count: what `reduction="mean"` divides by.
    """

    name: str
    symbol: str
    source: str
    needs_target: bool
    formula: str
    count: str


_TERMS = (
    Term(
        name="mpjpe",
        symbol="MPJPE",
        source="Human3.6M protocol 1 (Ionescu et al., TPAMI 2014)",
        needs_target=True,
        formula="Euclidean distance between predicted and target joint",
        count="joints (sum of weights)",
    ),
    Term(
        name="depth_ranking_joints",
        symbol="L_S",
        source="RePOSE (Sun et al., ECCV 2024), Equation 2, Algorithm 1: L_S",
        needs_target=True,
        formula="over pairs of joints of a frame with target depth i < j: max(0, predicted depth i - that of j)",
        count="ordered pairs of joints, J*J a frame (sum of w_i*w_j)",
    ),
    Term(
        name="depth_ranking_frames",
        symbol="L_T",
        source="RePOSE (Sun et al., ECCV 2024), Equation 3, Algorithm 2: L_T",
        needs_target=True,
        formula="over pairs of frames of a joint with target depth i < j: max(0, predicted depth i - that of j)",
        count="ordered pairs of frames, T*T a joint (sum of w_i*w_j)",
    ),
)

TERMS: Mapping[str, Term] = MappingProxyType({term.name: term for term in _TERMS})


def check_term(name: object) -> Term:
    """The term called `name`; raises UnknownNameError for an unknown one."""
    return TERMS[check_name("term", name, TERMS)]
