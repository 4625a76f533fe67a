"""Tables and charts of the page: results, structure, joints, actions, limbs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .. import skeletons
from ..errors import ArgumentError
from ..metrics.measures import MEASURES, Measure, group, measure
from .results import ArmResult, RunSummary
from .tables import (
    Cell,
    cells,
    columns,
    difference_label,
    direction,
    heading,
    judged,
    known,
    mark,
    spread_label,
)

__all__ = ["actions", "chip", "found_joints", "joints", "lead", "limbs", "results", "structure"]


def chip(index: int) -> str:
    """A square in the colour of an arm."""
    return f'<span class="chip" style="background: var(--arm{index})"></span>&nbsp;'


def lead(arms: list[ArmResult]) -> str:
    """One sentence of numbers on the last arm against the first; empty where there is nothing to compare."""
    if len(arms) < 2:
        return ""
    facts, level = [], []
    for row in MEASURES.values():
        values, change = cells(row, arms)
        if not row.headline or change is None or not any(c.isdigit() for c in change.text):
            continue
        unit, percent = ("points", " %") if row.unit == "%" else (row.unit, "")
        if change.spread and change.good is None:
            level.append(_in_words(row))
            continue
        spread = f" ± {change.spread}" if change.spread else ""
        facts.append(f"{_in_words(row)} {change.text}{spread} {unit} ({values[0].text} → {values[-1].text}{percent})")
    if level:
        facts.append(f"no clear difference in {', '.join(level)}")
    if not facts:
        return ""
    return f"<b>{escape(arms[-1].name)}</b> against <b>{escape(arms[0].name)}</b>: {escape('; '.join(facts))}."


def _in_words(row: Measure) -> str:
    """The title within a sentence: abbreviations stay, "Depth order, joints" becomes "depth order of joints"."""
    words = row.title.replace(",", " of").split()
    return " ".join(word if word.isupper() else word.lower() for word in words)


def _row(cells_of_row: Sequence[Cell]) -> str:
    return "".join(f"<td{' class=best' if cell.good else ''}>{escape(cell.text)}</td>" for cell in cells_of_row)


def _changes(row: Sequence[Cell]) -> str:
    classes = {True: " class=better", False: " class=worse", None: ""}
    return "".join(f"<td{classes[cell.good]}>{escape(cell.text)}</td>" for cell in row)


def _by_arm(rows: Sequence[Measure], arms: list[ArmResult], more: str = "") -> str:
    """A row per arm and one with the difference; columns that no arm has a value for are left out.

    Args:
        more: further rows before the difference, as HTML; its columns are those of the arms.
    """
    if not any(math.isfinite(row.value(arm)) for row in rows for arm in arms):
        return ""
    rows = known(rows, arms)
    found = [cells(row, arms) for row in rows]
    heads = "".join(
        f"<th>{'<br>'.join(escape(line) for line in title if line)}<small>{escape(unit)}</small></th>"
        for *title, unit in map(heading, rows)
    )
    body = "".join(
        f"<tr><td>{chip(k)}{escape(arm.name)}</td>{_row([values[k] for values, _ in found])}</tr>\n"
        for k, arm in enumerate(arms)
    )
    if len(arms) > 1:
        changes = _changes([change for _, change in found if change is not None])
        body += f"<tr class=difference><td>{escape(difference_label(arms))}</td>{changes}</tr>\n"
        if label := spread_label(arms):
            spreads = "".join(
                f"<td>{'±' if change.spread else ''}{escape(change.spread)}</td>" for _, change in found if change
            )
            body += f"<tr class=spread><td>{escape(label)}</td>{spreads}</tr>\n"
    return (
        f'<div class="scroll"><table class="wide" style="--rows: {len(rows) + 1}">\n'
        f"<thead><tr><th>Objective</th>{heads}</tr></thead>\n<tbody>\n{body}{more}</tbody>\n</table></div>\n"
    )


def results(arms: list[ArmResult]) -> str:
    """The main table."""
    table = _by_arm(columns(), arms, _true_rows(known(columns(), arms), arms, "True joints"))
    note = f"↓ lower is better, ↑ higher is better. {judged(arms, 'colour and ★')}{_meanings(columns(), arms)}"
    return f'{table}<p class="note">{note}</p>' if table else ""


def _meanings(rows: Sequence[Measure], arms: list[ArmResult]) -> str:
    """What the measures in a table are."""
    return " ".join(escape(f"{row.title}: {row.meaning}.") for row in known(rows, arms) if row.meaning)


def structure(arms: list[ArmResult]) -> str:
    """Bone lengths and angles, with those of the true poses beside them."""
    chosen = known(group("structure"), arms)
    table = _by_arm(chosen, arms, _true_rows(chosen, arms, "True poses"))
    note = f"{_meanings(chosen, arms)} True skeletons are not perfect either: their row is the floor."
    return f'{table}<p class="note">{note}</p>' if table else ""


def _true_rows(chosen: Sequence[Measure], arms: list[ArmResult], label: str) -> str:
    """A row of what the truth measures, of those that arms have one for; once where theirs are the same."""
    rows = ""
    truths = [(arm, ArmResult("", structure=arm.truth)) for arm in arms]
    truths = [(arm, true) for arm, true in truths if any(math.isfinite(row.value(true)) for row in chosen)]
    for k, (arm, true) in enumerate(truths):
        if k and _same(arm.truth, truths[0][0].truth):
            continue
        own = f"{label} of {arm.name}" if k else label
        values = [cells(row, [true])[0][0] for row in chosen]
        rows += f"<tr class=truth><td>{escape(own)}</td>{_row(values)}</tr>\n"
    return rows


def joints(summary: RunSummary, arms: list[ArmResult]) -> str:
    """Horizontal bars, one group per joint and one bar per arm, as inline SVG; joints in the skeleton's order."""
    shown = [(k, arm) for k, arm in enumerate(arms) if len(arm.per_joint_mpjpe)]
    if not shown:
        return ""
    names = skeletons.get(summary.skeleton).joint_names
    for _, arm in shown:
        if len(arm.per_joint_mpjpe) != len(names):
            raise ArgumentError(
                f"per_joint_mpjpe of arm {arm.name!r} has {len(arm.per_joint_mpjpe)} values, expected {len(names)} for "
                f"skeleton {summary.skeleton!r}."
            )
    largest = max((v for _, arm in shown for v in arm.per_joint_mpjpe if math.isfinite(v)), default=0.0) or 1.0
    step = next(s for m in range(-3, 9) for s in (10.0**m, 2 * 10.0**m, 5 * 10.0**m) if largest / s <= 6)
    bar, pad, left, right, width, top = 11, 8, 86, 46, 520, 22
    group = bar * len(shown) + pad
    height = top + group * len(names) + 6
    scale = (width - left - right) / largest
    lines = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="MPJPE per joint in mm">']
    for tick in range(int(largest / step + 1e-9) + 1):
        x = left + tick * step * scale
        unit = " mm" if tick == 0 else ""
        lines.append(f'<line class="axis" x1="{x:.1f}" y1="{top - 4}" x2="{x:.1f}" y2="{height}"/>')
        lines.append(f'<text class="small" x="{x:.1f}" y="12" text-anchor="middle">{tick * step:g}{unit}</text>')
    for j, name in enumerate(names):
        y = top + j * group
        middle = y + (group - pad) / 2 + 4
        lines.append(f'<text x="{left - 8}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>')
        for row, (k, arm) in enumerate(shown):
            value = arm.per_joint_mpjpe[j]
            if not math.isfinite(value):
                continue
            top_of_bar, length = y + row * bar, max(value * scale, 0.0)
            lines.append(
                f'<rect x="{left}" y="{top_of_bar}" width="{length:.1f}" height="{bar - 2}" '
                f'style="fill: var(--arm{k})"><title>{escape(f"{name}, {arm.name}: {value:.1f} mm")}</title></rect>'
                f'<text class="small" x="{left + length + 4:.1f}" y="{top_of_bar + 8.5}">{value:.1f}</text>'
            )
    chart = "\n".join(lines)
    return f'<p>{_legend(arms)}</p>\n<div class="scroll">{chart}\n</svg></div>'


def _legend(arms: list[ArmResult]) -> str:
    return " &nbsp; ".join(f"{chip(k)}{escape(arm.name)}" for k, arm in enumerate(arms))


def _rows_of_parts(row: Measure, rows: Sequence[tuple[str, list[float]]], more: Sequence[Sequence[Cell]] = ()) -> str:
    """A line per part and a column per arm, then the difference, then `more` cells of each line."""
    body = ""
    for i, (name, values) in enumerate(rows):
        found, change = mark(values, row.decimals)
        last = _row(more[i]) if more else ""
        body += f"<tr><td>{escape(name)}</td>{_row(found)}{_changes([change] if change else [])}{last}</tr>\n"
    return body


def _heads(arms: list[ArmResult], unit: str) -> str:
    unit = f"<small>{unit}</small>" if unit else ""
    heads = "".join(f"<th>{chip(k)}{escape(arm.name)}{unit}</th>" for k, arm in enumerate(arms))
    return heads + (f"<th>{escape(difference_label(arms))}{unit.replace('↓ ', '')}</th>" if len(arms) > 1 else "")


def actions(arms: list[ArmResult]) -> str:
    """MPJPE and PA-MPJPE of every action, and their means over actions."""
    tables = ""
    for key, found in (("mpjpe", [arm.per_action for arm in arms]), ("pa_mpjpe", [a.per_action_pa for a in arms])):
        row = measure(key)
        names = list(dict.fromkeys(name for values in found for name in values))
        rows = [(name, [float(values.get(name, math.nan)) for values in found]) for name in names]
        if not rows:
            continue
        mean = ""
        if len(rows) > 1:
            means = [_mean([values[k] for _, values in rows]) for k in range(len(arms))]
            mean = _rows_of_parts(row, [("Mean over actions", means)])
        tables += _table_of_parts(row, rows, arms, mean.replace("<tr>", "<tr class=difference>", 1))
    return f'<div class="pair">\n{tables}</div>' if tables else ""


def found_joints(arms: list[ArmResult]) -> str:
    """Of networks that find joints by shape templates: each measure joint by joint."""
    tables = ""
    for row in group("template"):
        found = [row.by_part(arm.structure) for arm in arms]
        names = list(dict.fromkeys(name for values in found for name in values))
        if names:
            rows = [(name, [values.get(name, math.nan) for values in found]) for name in names]
            tables += _table_of_parts(row, rows, arms)
    return f'<div class="pair">\n{tables}</div>' if tables else ""


def _table_of_parts(
    row: Measure, rows: Sequence[tuple[str, list[float]]], arms: list[ArmResult], more: str = ""
) -> str:
    """A table of one measure, a line per part, then `more`."""
    heads = f"<th>{escape(row.title)}</th>{_heads(arms, direction(row))}"
    return (
        f'<div class="scroll"><table class="parts">\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{_rows_of_parts(row, rows)}{more}</tbody>\n</table></div>\n"
    )


def _mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def limbs(arms: list[ArmResult]) -> str:
    """Symmetry and spread of every limb, illegal angles of every elbow and knee, with those of the true poses."""
    body = ""
    truths = [arm.truth for arm in arms if arm.truth]
    truth = truths[0] if truths and all(_same(truths[0], other) for other in truths) else {}
    width = 1 + len(arms) + (len(arms) > 1) + bool(truth)
    for row in group("limb"):
        found, true_values = [row.by_part(arm.structure) for arm in arms], row.by_part(truth)
        parts = list(dict.fromkeys(part for values in found for part in values))
        if not parts:
            continue
        rows = [(part.replace("_", " "), [values.get(part, math.nan) for values in found]) for part in parts]
        true = [mark([true_values.get(part, math.nan)], row.decimals)[0] for part in parts]
        title = f"{row.title}, {row.unit}"
        body += f'<tr><th colspan="{width}">{title}</th></tr>\n{_rows_of_parts(row, rows, true if truth else ())}'
    if not body:
        return ""
    heads = _heads(arms, "") + ("<th>True poses</th>" if truth else "")
    return (
        f'<div class="scroll"><table class="parts">\n<thead><tr><th></th>{heads}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>"
    )


def _same(a: dict[str, float], b: dict[str, float]) -> bool:
    """Whether two sets of true poses measure alike."""
    return a.keys() == b.keys() and all(abs(a[key] - b[key]) < 1e-3 or a[key] != a[key] for key in a)
