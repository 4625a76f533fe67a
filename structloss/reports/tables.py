"""The table of a comparison: one row per arm, then the difference between the last and the first."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ArgumentError, needs_extra
from ..metrics.measures import MEASURES, Measure, group
from ._interval import paired
from .results import ArmResult, RunSummary

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["plain_table", "table"]

MISSING = "–"
_HEAD = 3  # lines of the heading


def columns() -> tuple[Measure, ...]:
    """The columns of the main table."""
    return group("image", "template", "accuracy", "training")


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

    `good` is None where that can't be said: a single arm, a missing value, a difference within its spread over clips,
    or one of no known spread. `spread` is what follows ± at a difference; empty where it isn't known.
    """

    text: str
    good: bool | None = None
    spread: str = ""


def known(rows: Sequence[Measure], arms: Sequence[ArmResult]) -> list[Measure]:
    """The measures that some arm has a value for; where none has any, all but those of networks from images."""
    found = [row for row in rows if any(math.isfinite(row.value(arm)) for arm in arms)]
    return found or [row for row in rows if row.group not in ("image", "template")] or list(rows)


def cells(row: Measure, arms: Sequence[ArmResult]) -> tuple[list[Cell], Cell | None]:
    """Cells of one column, one per arm; and the difference last minus first where there are two arms or more.

    Better, and best, is what is so beyond the 95 % interval of the paired difference over the clips of the test. Speeds
    and shares of time are told without a difference: runs made one after the other differ by what else the machine did.
    """
    column, change = mark([row.value(arm) for arm in arms], row.decimals)
    if change is None:
        return column, None
    if row.group == "training":
        return column, Cell(MISSING)
    for k, arm in enumerate(arms):
        others = [(cell, other) for cell, other in zip(column, arms, strict=True) if other is not arm]
        if all(cell.text != column[k].text and clear(row, other, arm) for cell, other in others):
            column[k] = Cell(column[k].text, True)
    _, margin, _ = paired(row, arms[0], arms[-1])
    if math.isfinite(margin) and change.text != MISSING:
        better = clear(row, arms[0], arms[-1]) if float(change.text.replace("−", "-").replace(",", "")) else None
        change = Cell(change.text, better, f"{margin:,.{decimals_of(row, arms)}f}")
    return column, change


def clear(row: Measure, first: ArmResult, last: ArmResult) -> bool | None:
    """Whether the last arm is better than the first, beyond the spread over clips; None where neither is."""
    change, margin, _ = paired(row, first, last)
    if not abs(change) > margin:
        return None
    return (change > 0) == row.higher_is_better


def decimals_of(row: Measure, arms: Sequence[ArmResult]) -> int:
    return _decimals([row.value(arm) for arm in arms], row.decimals)


def _decimals(values: Sequence[float], decimals: int | None) -> int:
    if decimals is not None:
        return decimals
    finite = [abs(value) for value in values if math.isfinite(value)]
    return 0 if finite and max(finite) >= 100 else 1


def mark(values: list[float], decimals: int | None) -> tuple[list[Cell], Cell | None]:
    """Like :func:`cells`, for any numbers: what of them is better is not known."""
    decimals = _decimals(values, decimals)
    shown = [round(value, decimals) if math.isfinite(value) else math.nan for value in values]
    column = [Cell(f"{value:,.{decimals}f}" if math.isfinite(value) else MISSING) for value in shown]
    if len(values) < 2:
        return column, None
    change = round(shown[-1] - shown[0], decimals)
    if not math.isfinite(change):
        return column, Cell(MISSING)
    if change == 0:
        return column, Cell(f"{0:.{decimals}f}")
    return column, Cell(f"{change:+,.{decimals}f}".replace("-", "−"))


def spread_label(arms: Sequence[ArmResult]) -> str:
    """Name of the row of spreads under the differences; empty where none is known."""
    counts = {paired(row, arms[0], arms[-1])[2] for row in MEASURES.values()} if len(arms) > 1 else set()
    return f"± over {max(counts)} {arms[0].pairs}" if counts and max(counts) > 1 else ""


def judged(arms: Sequence[ArmResult], star: str) -> str:
    """What the marks of a comparison mean, in words; empty for one arm."""
    if len(arms) < 2:
        return ""
    if not spread_label(arms):
        return "One training each and no spread: the differences are not judged. "
    if arms[0].pairs == "seeds":
        return (
            f"Means over the seeds. ±: 95 % interval of the paired difference over them; {star} where it leaves zero "
            "out. Speeds are of runs made one after the other, and are not compared. "
        )
    return (
        f"±: 95 % interval of the paired difference over the clips of the test; {star} where it leaves zero out. It is "
        "of one training each: another seed may change more. Speeds are of runs made one after the other, and are not "
        "compared. "
    )


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
    """The comparison as a rich table, best values bold, improvements green and setbacks red in the row of
    differences, where they are beyond their spread over clips, which is the last row.

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
        if label := spread_label(arms):
            spreads = [Text(_spread(change), style="dim") for _, change in found if change is not None]
            result.add_row(Text(label, style="italic dim"), *spreads)
    return result


def plain_table(summary: RunSummary) -> str:
    """The same table as aligned text for pipes and logs; `*` follows the best value of a column and a difference
    beyond its spread. Ends with a newline.

    Raises:
        ArgumentError: the summary has no arms.
    """
    arms = check_arms(summary)
    names = ["", "", "Objective", *(one_line(arm.name) for arm in arms)]
    label = spread_label(arms)
    texts = [names + ([difference_label(arms)] if len(arms) > 1 else []) + ([label] if label else [])]
    for column in known(columns(), arms):
        shown, change = cells(column, arms)
        text = [f"{line} " for line in heading(column)]
        text += [cell.text + ("*" if cell.good else " ") for cell in shown]
        if change is not None:
            text += [change.text + ("*" if change.good is not None else " ")]
            text += [f"{_spread(change)} "] if label else []
        texts.append(text)
    widths = [max(map(len, text)) for text in texts]
    lines = [
        " ".join([first.ljust(widths[0]), *(text.rjust(w) for text, w in zip(rest, widths[1:], strict=True))])
        for first, *rest in zip(*texts, strict=True)
    ]
    rule = "-" * (len(lines[0]) - 1)
    lines.insert(_HEAD, rule)
    if len(arms) > 1:
        lines.insert(_HEAD + 1 + len(arms), rule)
    note = textwrap.wrap(judged(arms, "*"), len(rule)) if len(arms) > 1 else []
    return "\n".join(line.rstrip() for line in [one_line(summary.title), "", *lines, *note]) + "\n"


def _spread(change: Cell) -> str:
    return f"±{change.spread}" if change.spread else ""
