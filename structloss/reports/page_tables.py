"""Tables and charts of the page: results, structure, joints, actions, limbs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from .. import skeletons
from ..errors import ArgumentError
from .results import ArmResult, RunSummary
from .tables import COLUMNS, STRUCTURE, Cell, Column, cells, difference_label, known, mark

__all__ = ["actions", "chip", "joints", "lead", "limbs", "results", "structure"]


def chip(index: int) -> str:
    """A square in the colour of an arm."""
    return f'<span class="chip" style="background: var(--arm{index})"></span>'


def lead(arms: list[ArmResult]) -> str:
    """One sentence of numbers on the last arm against the first; empty where there is nothing to compare."""
    if len(arms) < 2:
        return ""
    facts = []
    for column in (COLUMNS[0], COLUMNS[3], COLUMNS[4], COLUMNS[5], COLUMNS[6]):
        values, change = cells(column, arms)
        if change is None or not any(c.isdigit() for c in change.text):
            continue
        unit = "points" if column.unit == "%" else column.unit
        percent = " %" if column.unit == "%" else ""
        name = column.title if column.title.startswith("MP") else column.title.replace(",", " of").lower()
        facts.append(f"{name} {change.text} {unit} ({values[0].text} → {values[-1].text}{percent})")
    if not facts:
        return ""
    return f"<b>{escape(arms[-1].name)}</b> against <b>{escape(arms[0].name)}</b>: {escape('; '.join(facts))}."


def _row(cells_of_row: Sequence[Cell]) -> str:
    return "".join(f"<td{' class=best' if cell.good else ''}>{escape(cell.text)}</td>" for cell in cells_of_row)


def _changes(row: Sequence[Cell]) -> str:
    classes = {True: " class=better", False: " class=worse", None: ""}
    return "".join(f"<td{classes[cell.good]}>{escape(cell.text)}</td>" for cell in row)


def _by_arm(columns: Sequence[Column], arms: list[ArmResult], more: str = "") -> str:
    """A row an arm and one with the difference; columns that no arm has a value for are left out.

    Args:
        more: further rows before the difference, as HTML; its columns are those of the arms.
    """
    if not any(math.isfinite(column.value(arm)) for column in columns for arm in arms):
        return ""
    columns = known(columns, arms)
    found = [cells(column, arms) for column in columns]
    heads = "".join(
        f"<th>{'<br>'.join(escape(h) for h in c.head if h)}<small>{escape(c.measure)}</small></th>" for c in columns
    )
    body = "".join(
        f"<tr><td>{chip(k)}{escape(arm.name)}</td>{_row([values[k] for values, _ in found])}</tr>\n"
        for k, arm in enumerate(arms)
    )
    if len(arms) > 1:
        changes = _changes([change for _, change in found if change is not None])
        body += f"<tr class=difference><td>{escape(difference_label(arms))}</td>{changes}</tr>\n"
    return (
        '<div class="scroll"><table class="wide">\n'
        f"<thead><tr><th>Objective</th>{heads}</tr></thead>\n<tbody>\n{body}{more}</tbody>\n</table></div>\n"
    )


def results(arms: list[ArmResult]) -> str:
    """The main table."""
    table = _by_arm(COLUMNS, arms)
    note = (
        ("★ marks the best value of a column; " if len(arms) > 1 else "")
        + "↓ lower is better, ↑ higher is better. MPJPE: mean distance to the true joint; PA after the best rotation, "
        "scale and shift; N after the best scale; MPJVE: error of the velocity. Depth order: share of pairs whose "
        "order in depth is right." + (" Loss share: share of a training step spent on it." if "Loss" in table else "")
    )
    return f'{table}<p class="note">{note}</p>' if table else ""


def structure(arms: list[ArmResult]) -> str:
    """Bone lengths and angles, with those of the true poses beside them."""
    columns = known(STRUCTURE, arms)
    rows = ""
    measured = [arm for arm in arms if arm.truth]
    for k, arm in enumerate(measured):
        true = ArmResult("", structure=arm.truth)
        values = [cells(column, [true])[0][0] for column in columns]
        if k and _same(arm.truth, measured[0].truth):
            continue  # the same poses
        label = "True poses" if len(measured) == 1 or not k else f"True poses of {arm.name}"
        rows += f"<tr class=truth><td>{escape(label)}</td>{_row(values)}</tr>\n"
    table = _by_arm(STRUCTURE, arms, rows)
    note = (
        "LSE: difference in length of mirrored bones. BSLE, LLE: error in length of bones, and of whole arms and legs. "
        "Spread: standard deviation of a bone's length over a clip. Illegal angles: share of elbows and knees, flexed "
        "by more than 20°, that bend to the wrong side. True skeletons are not perfect either: their row is the floor."
    )
    return f'{table}<p class="note">{note}</p>' if table else ""


def joints(summary: RunSummary, arms: list[ArmResult]) -> str:
    """Horizontal bars, one group a joint and one bar an arm, as inline SVG; joints in the order of the skeleton."""
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
    bar, pad, left, right, width, top = 11, 8, 120, 50, 800, 22
    group = bar * len(shown) + pad
    height = top + group * len(names) + 6
    scale = (width - left - right) / largest
    lines = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="MPJPE of each joint in mm">']
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


def _rows_of_parts(
    arms: list[ArmResult], decimals: int, rows: Sequence[tuple[str, list[float]]], more: Sequence[list[Cell]] = ()
) -> str:
    """A row a part and a column an arm, then the difference, then `more` cells of each row."""
    body = ""
    for i, (name, values) in enumerate(rows):
        found, change = mark(values, decimals, False)
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
    get: list[tuple[str, Callable[[ArmResult], dict[str, float]]]] = [
        ("MPJPE", lambda arm: arm.per_action),
        ("PA-MPJPE", lambda arm: arm.per_action_pa),
    ]
    for title, of in get:
        names = list(dict.fromkeys(name for arm in arms for name in of(arm)))
        rows = [(name, [float(of(arm).get(name, math.nan)) for arm in arms]) for name in names]
        if not rows:
            continue
        body = _rows_of_parts(arms, 1, rows)
        if len(rows) > 1:
            means = [_mean([values[k] for _, values in rows]) for k in range(len(arms))]
            mean = _rows_of_parts(arms, 1, [("Mean over actions", means)])
            body += mean.replace("<tr>", "<tr class=difference>", 1)
        heads = f"<tr><th>{title}</th>{_heads(arms, '↓ mm')}</tr>"
        tables += (
            f'<div class="scroll"><table class="parts">\n<thead>{heads}</thead>\n'
            f"<tbody>\n{body}</tbody>\n</table></div>\n"
        )
    return f'<div class="pair">\n{tables}</div>' if tables else ""


def _mean(values: list[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def limbs(arms: list[ArmResult]) -> str:
    """Symmetry and spread of every limb, illegal angles of every elbow and knee, with those of the true poses."""
    body = ""
    truths = [arm.truth for arm in arms if arm.truth]
    truth = truths[0] if truths and all(_same(truths[0], other) for other in truths) else {}
    width = 1 + len(arms) + (len(arms) > 1) + bool(truth)
    for key, title, decimals, factor in (
        ("symmetry", "Left against right, mm", 1, 1),
        ("spread", "Spread over time, mm", 1, 1),
        ("illegal", "Illegal angles, %", 2, 100),
    ):
        names = list(dict.fromkeys(n for arm in arms for n in arm.structure if n.startswith(f"{key}/")))
        if not names:
            continue
        rows = [
            (name.partition("/")[2].replace("_", " "), [factor * arm.structure.get(name, math.nan) for arm in arms])
            for name in names
        ]
        true = [mark([factor * truth.get(name, math.nan)], decimals, False)[0] for name in names] if truth else []
        body += f'<tr><th colspan="{width}">{title}</th></tr>\n{_rows_of_parts(arms, decimals, rows, true)}'
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
