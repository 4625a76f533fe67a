"""The table of a comparison: one row per arm, then the difference between the last and the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ArgumentError, needs_extra
from ..metrics.measures import Measure, group
from .results import ArmResult, RunSummary

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["plain_table", "table"]

MISSING = "–"
_HEAD = 3  # lines of the heading


def columns() -> tuple[Measure, ...]:
    """The columns of the main table."""
    return group("accuracy", "training")


def heading(row: Measure) -> tuple[str, str, str]:
    """The heading of a column in three lines: the title, broken before its last word, then arrow and unit."""
    first, _, second = row.title.replace(",", "").rpartition(" ")
    return first, second, direction(row)


def direction(row: Measure) -> str:
    """Which way is better, and the unit."""
    return f"{row.arrow} {row.unit}"


@dataclass(frozen=True)
class Cell:
    """Text of a value, and whether it is the best of its column; or of a difference, and whether it is an improvement.

    `good` is None where that can't be said: a single arm, a missing value, no difference.
    """

    text: str
    good: bool | None = None


def known(rows: Sequence[Measure], arms: Sequence[ArmResult]) -> list[Measure]:
    """The measures that some arm has a value for; all of them where none has any."""
    found = [row for row in rows if any(math.isfinite(row.value(arm)) for arm in arms)]
    return found or list(rows)


def cells(row: Measure, arms: Sequence[ArmResult]) -> tuple[list[Cell], Cell | None]:
    """Cells of one column, one per arm; and the difference last minus first where there are two arms or more.

    Best is decided on the numbers as shown, so that two equal numbers are both marked.
    """
    return mark([row.value(arm) for arm in arms], row.decimals, row.higher_is_better)


def mark(values: list[float], decimals: int | None, higher: bool) -> tuple[list[Cell], Cell | None]:
    """Like :func:`cells`, for any numbers."""
    finite = [value for value in values if math.isfinite(value)]
    if decimals is None:
        decimals = 0 if finite and max(map(abs, finite)) >= 100 else 1
    shown = [round(value, decimals) if math.isfinite(value) else math.nan for value in values]
    known = [value for value in shown if math.isfinite(value)]
    best = (max if higher else min)(known) if len(known) > 1 else None
    column = [
        Cell(f"{value:,.{decimals}f}", None if best is None else value == best)
        if math.isfinite(value)
        else Cell(MISSING)
        for value in shown
    ]
    if len(values) < 2:
        return column, None
    change = round(shown[-1] - shown[0], decimals)
    if not math.isfinite(change):
        return column, Cell(MISSING)
    if change == 0:
        return column, Cell(f"{0:.{decimals}f}")
    return column, Cell(f"{change:+,.{decimals}f}".replace("-", "−"), (change > 0) == higher)


def difference_label(arms: list[ArmResult]) -> str:
    """Name of the last row: the arms themselves where there are two, otherwise which of them."""
    return "Difference (last − first)" if len(arms) > 2 else "Difference"


def check_arms(summary: RunSummary) -> list[ArmResult]:
    """The arms; raises where there are none."""
    if not summary.arms:
        raise ArgumentError("summary has no arms, expected at least one.")
    return summary.arms


def one_line(text: str) -> str:
    """`text` without line breaks and control characters, which would break a table or drive the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def table(summary: RunSummary) -> Table:
    """The comparison as a rich table, best values bold, improvements green and setbacks red in the last row.

    Columns are the measures of accuracy and of training (:mod:`structloss.metrics.measures`); one that no arm has a
    value for is left out. Arrows say whether lower or higher is better. Differences of percentages are in percentage
    points. It needs about 80 columns of text.

    Raises:
        ArgumentError: the summary has no arms.
        MissingDependencyError: rich is not installed.
    """
    arms = check_arms(summary)
    with needs_extra("harness"):
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text
    result = Table(title=Text(one_line(summary.title)), box=SIMPLE_HEAD, padding=0, show_edge=False)
    result.add_column(Text("\n\nObjective"), min_width=10)
    heads = known(columns(), arms)
    found = [cells(column, arms) for column in heads]
    for column, (shown, change) in zip(heads, found, strict=True):
        head = "\n".join(heading(column))
        words = [*head.split(), *(cell.text for cell in (*shown, change) if cell is not None)]
        result.add_column(Text(head), justify="right", min_width=max(map(len, words)))
    for row, arm in enumerate(arms):
        texts = [Text(shown[row].text, style="bold" if shown[row].good else "") for shown, _ in found]
        result.add_row(Text(one_line(arm.name)), *texts, end_section=row == len(arms) - 1)
    if len(arms) > 1:
        styles = {True: "green", False: "red", None: ""}
        texts = [Text(change.text, style=styles[change.good]) for _, change in found if change is not None]
        result.add_row(Text(difference_label(arms), style="italic"), *texts)
    return result


def plain_table(summary: RunSummary) -> str:
    """The same table as aligned text for pipes and logs; `*` follows the best value of a column. Ends with a newline.

    Raises:
        ArgumentError: the summary has no arms.
    """
    arms = check_arms(summary)
    names = ["", "", "Objective", *(one_line(arm.name) for arm in arms)]
    texts = [names + ([difference_label(arms)] if len(arms) > 1 else [])]
    for column in known(columns(), arms):
        shown, change = cells(column, arms)
        text = [f"{line} " for line in heading(column)]
        text += [cell.text + ("*" if cell.good else " ") for cell in shown]
        texts.append(text + ([f"{change.text} "] if change is not None else []))
    widths = [max(map(len, text)) for text in texts]
    lines = [
        " ".join([first.ljust(widths[0]), *(text.rjust(w) for text, w in zip(rest, widths[1:], strict=True))])
        for first, *rest in zip(*texts, strict=True)
    ]
    rule = "-" * (len(lines[0]) - 1)
    lines.insert(_HEAD, rule)
    if len(arms) > 1:
        lines.insert(_HEAD + 1 + len(arms), rule)
    return "\n".join(line.rstrip() for line in [one_line(summary.title), "", *lines]) + "\n"
