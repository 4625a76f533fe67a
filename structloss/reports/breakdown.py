"""What `structloss test` prints of an evaluation beside the means: by action, by skeleton, by hypothesis."""

from __future__ import annotations

import math

from ..metrics.evaluation import ROOTS, Evaluation
from ..metrics.measures import Measure, group, measure
from ..text import visible
from .tables import MISSING

__all__ = ["breakdown"]

_PUBLISHED = {"p1": "P1, mm", "p2": "P2, mm", "p3": "P3, mm", "mpjve": "MPJVE, mm/frame"}
_REPEATED = (
    "Windows are laid end to end, as the network's own evaluation does: where the last one of a video overlaps the one "
    "before, frames count twice, and the step between the two counts."
)


def breakdown(found: Evaluation) -> str:
    """Errors by action and by subject, structure of the predicted and the true skeletons, aggregates of several
    hypotheses and the protocol's own numbers, as lines of text; what was not found is left out."""
    blocks = (
        _image(found),
        _actions(found),
        _subjects(found),
        _structure(found),
        _hypotheses(found),
        _trajectory(found),
        _protocol(found),
    )
    return "\n\n".join("\n".join(map(visible, block)) for block in blocks if block)  # actions are named by files


def _actions(found: Evaluation) -> list[str]:
    if found.by_action:
        return _as_published(found)
    if not found.per_action:
        return []
    columns = ((measure("mpjpe"), found.per_action), (measure("pa_mpjpe"), found.per_action_pa))
    heads = [f"{row.title}, {row.unit}" for row, _ in columns]
    width = max(len(name) for name in ("action", *found.per_action))
    lines = [f"{'action':{width}}  " + "  ".join(heads)]
    for name in found.per_action:
        cells = [
            _text(row, row.factor * values.get(name, math.nan)).rjust(len(head))
            for (row, values), head in zip(columns, heads, strict=True)
        ]
        lines.append(f"{name:{width}}  " + "  ".join(cells))
    return lines


def _as_published(found: Evaluation) -> list[str]:
    """P1, P2, P3 and MPJVE by action, their means over actions, and below them what all frames pooled come to."""
    rows = dict(found.by_action)
    rows["mean over actions"] = {
        key: _mean([of[key] for of in found.by_action.values() if key in of]) for key in _PUBLISHED
    }
    lines = _table("action", _PUBLISHED, rows)
    unknown, still = (math.isnan(rows["mean over actions"][key]) for key in ("p1", "mpjve"))
    notes = []
    if unknown:
        notes = ["The data set does not publish poses of these subjects in millimetres: nothing can be scored."]
    elif still:
        notes = ["No frame follows another: MPJVE and the order over frames are left out."]
    return [
        *lines,
        *notes,
        f"In this table {ROOTS[found.root]} (root: {found.root}).",
        *([_REPEATED] if found.repeats else []),
        "Every action counts alike in their mean. MPJPE, PA-MPJPE, N-MPJPE and MPJVE elsewhere are of all frames "
        "pooled, with the predicted root subtracted.",
    ]


def _subjects(found: Evaluation) -> list[str]:
    """Errors by subject: of its frames pooled, and the protocol's."""
    heads = {"mpjpe": "MPJPE, mm", "pa_mpjpe": "PA-MPJPE, mm", **_PUBLISHED, "pck": "PCK, %", "auc": "AUC, %"}
    heads = {key: head for key, head in heads.items() if any(key in of for of in found.by_subject.values())}
    if not heads:
        return []
    lines = _table("subject", heads, found.by_subject)
    tested = "the training subjects" if found.tested == "train" else "the held-out subjects"
    notes = [f"Scored: {tested}."]
    if "p1" in heads:
        notes += ["MPJPE and PA-MPJPE are of all frames pooled, the others means over a subject's actions, as above."]
    return [*lines, *notes]


def _table(first: str, heads: dict[str, str], rows: dict[str, dict[str, float]]) -> list[str]:
    """Lines of a table of numbers with two digits."""
    width = max(len(name) for name in (first, *rows))
    lines = [f"{first:{width}}  " + "  ".join(heads.values())]
    for name, numbers in rows.items():
        cells = [
            (f"{value:.2f}" if math.isfinite(value) else MISSING).rjust(len(head))
            for value, head in ((numbers.get(key, math.nan), head) for key, head in heads.items())
        ]
        lines.append(f"{name:{width}}  " + "  ".join(cells))
    return lines


def _mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _structure(found: Evaluation) -> list[str]:
    """Measures of whole skeletons by their titles, those of limbs by their keys."""
    rows = [(row, row.key, row.title) for row in group("structure") if row.key in found.structure]
    rows += [(measure(key), key, key) for key in found.structure if "/" in key]
    if not rows:
        return []
    width = max(len(name) for *_, name in rows)
    lines = [f"{'structure':{width}}  predicted   true"]
    for row, key, name in rows:
        predicted, true = (row.factor * values.get(key, math.nan) for values in (found.structure, found.truth))
        lines.append(f"{name:{width}}  {_text(row, predicted):>9}  {_text(row, true):>5} {row.unit}")
    return lines


def _hypotheses(found: Evaluation) -> list[str]:
    rows = [row for row in group("hypotheses") if row.key in found.metrics]
    if not rows:
        return []
    width = max(len(row.title) for row in rows)
    lines = [f"{row.title:{width}}  {_text(row, row.value(found)):>6} {row.unit}  {row.meaning}" for row in rows]
    if math.isnan(found.metrics.get("j_agg", 0.0)) and math.isfinite(found.metrics.get("p_agg", math.nan)):
        lines.append("J-Agg is left out: the data doesn't tell the intrinsics of every camera.")
    return ["hypotheses", *lines]


def _image(found: Evaluation) -> list[str]:
    lines = []
    for row in group("image", "template"):
        if row.key in found.metrics:
            true = f" (true ones: {_text(row, row.factor * found.truth[row.key])})" if row.key in found.truth else ""
            lines.append(f"{row.title} {_text(row, row.value(found))} {row.unit}: {row.meaning}{true}")
    return lines


def _trajectory(found: Evaluation) -> list[str]:
    rows = [row for row in group("trajectory") if row.key in found.metrics]
    return [f"{row.title} {_text(row, row.value(found))} {row.unit}: {row.meaning}" for row in rows]


def _protocol(found: Evaluation) -> list[str]:
    numbers = ", ".join(f"{name} {value:.2f}" for name, value in found.protocol.items())
    return [f"protocol: {numbers}"] if numbers else []


def _text(row: Measure, value: float) -> str:
    return f"{value:.{1 if row.decimals is None else row.decimals}f}" if math.isfinite(value) else MISSING
