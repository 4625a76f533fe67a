"""Questions to an ablation, each answered by paired differences over its seeds, and by nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..metrics.measures import Measure, measure
from ._interval import half_width
from .ablation import CellResult

__all__ = ["POSTER", "Answer", "Claim", "Question", "answer", "answers_text"]


@dataclass(frozen=True)
class Claim:
    """One row of a table is better, or worse, than another by a measure.

    Attributes:
        key: of the measure.
        first, last: objectives; `last` is said to differ from `first`.
        better: whether it is said to be better; otherwise worse.
    """

    key: str
    first: str
    last: str
    better: bool = True


@dataclass(frozen=True)
class Question:
    """A question whose answer is yes if all of its claims hold."""

    text: str
    claims: tuple[Claim, ...]


POSTER = (
    Question(
        "Does + MSE alone improve the reconstruction and worsen PDJ?",
        (Claim("reconstruction", "baseline", "+ MSE"), Claim("pdj", "baseline", "+ MSE", better=False)),
    ),
    Question(
        "Does T_new mend both?",
        (Claim("reconstruction", "+ MSE", "T_new"), Claim("pdj", "+ MSE", "T_new")),
    ),
    Question(
        "Does flipping shrink the gap between left and right?",
        (Claim("left_right_gap", "+ coarse-to-fine", "+ flip"),),
    ),
    Question("Does constraining M raise BPLP-C?", (Claim("bplp_c", "+ flip", "+ constrained"),)),
)
"""The findings of Yoo and Russakovsky's poster, of the rows of `structloss ablate shape-template`."""


@dataclass(frozen=True)
class Answer:
    """What the results say of a claim.

    Attributes:
        claim: which.
        change: mean over the seeds of `last` minus `first`, in the measure's unit; NaN where there are no numbers.
        margin: half of its 95 % interval (Student's t over the seeds); NaN for fewer than two seeds.
        seeds: pairs of numbers.
        verdict: "yes" or "no" where the interval leaves 0 out, otherwise "not shown".
    """

    claim: Claim
    change: float
    margin: float
    seeds: int
    verdict: str

    def __str__(self) -> str:
        row = measure(self.claim.key)
        said = f"{row.title}, {self.claim.last} against {self.claim.first}"
        if not math.isfinite(self.change):
            return f"{said}: no numbers, {self.verdict}"
        decimals = _decimals(row)
        spread = f" ± {self.margin:.{decimals}f}" if math.isfinite(self.margin) else ""
        count = f"{self.seeds} seed{'' if self.seeds == 1 else 's'}"
        wanted = "better" if self.claim.better else "worse"
        return f"{said}: {self.change:+.{decimals}f}{spread} {row.unit} over {count} ({wanted}: {self.verdict})"


def _decimals(row: Measure) -> int:
    decimals = row.decimals if row.ablation_decimals is None else row.ablation_decimals
    return 1 if decimals is None else decimals


def answer(claim: Claim, results: Sequence[CellResult]) -> Answer:
    """What the results say of a claim; seeds that both rows have are paired, numbers that are not finite left out."""
    row = measure(claim.key)
    values = {
        name: {result.cell.seed: row.value(result) for result in results if result.cell.objective == name}
        for name in (claim.first, claim.last)
    }
    changes = [
        values[claim.last][seed] - value
        for seed, value in values[claim.first].items()
        if seed in values[claim.last] and math.isfinite(values[claim.last][seed] - value)
    ]
    change = statistics.fmean(changes) if changes else math.nan
    margin = half_width(changes)
    verdict = "not shown"
    if abs(change) > margin:  # NaN is above nothing
        verdict = "yes" if ((change > 0) == row.higher_is_better) == claim.better else "no"
    return Answer(claim, change, margin, len(changes), verdict)


def answers_text(results: Sequence[CellResult], questions: Sequence[Question] = POSTER) -> str:
    """Markdown: each question, its answer in front, and below it the differences that it comes from.

    A question is answered "yes" where every claim is, "no" where one is the other way round, "not shown" where an
    interval holds 0.
    """
    lines = []
    for question in questions:
        found = [answer(claim, results) for claim in question.claims]
        verdicts = {one.verdict for one in found}
        verdict = "No" if "no" in verdicts else "Not shown" if "not shown" in verdicts else "Yes"
        lines.append(f"- **{question.text}** {verdict}.")
        lines += [f"  - {one}" for one in found]
    note = (
        "Differences are paired by seed; ± is half of the 95 % interval of their mean (Student's t over the seeds). "
        "Not shown: the interval holds 0, or there are fewer than two seeds."
    )
    return "\n".join(lines) + f"\n\n{note}\n"
