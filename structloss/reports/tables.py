"""The table of a comparison: one row an arm, then the difference between the last and the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ArgumentError, needs_extra
from .results import ArmResult, RunSummary

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["plain_table", "table"]

MISSING = "–"
_HEAD = 3  # lines of the heading


@dataclass(frozen=True)
class Column:
    """A column: heading, unit, decimals, whether higher is better, factor from stored to shown values, how to get it.

    `decimals` None picks them by the size of the largest value.
    """

    title: str
    unit: str
    decimals: int | None
    higher: bool
    factor: float
    value: Callable[[ArmResult], float]

    @property
    def arrow(self) -> str:
        return "↑" if self.higher else "↓"

    @property
    def head(self) -> tuple[str, str]:
        """The title in two lines, broken before its last word; the arrow and unit make the third."""
        first, _, second = self.title.replace(",", "").rpartition(" ")
        return first, second

    @property
    def measure(self) -> str:
        return f"{self.arrow} {self.unit}"


def _metric(key: str) -> Callable[[ArmResult], float]:
    return lambda arm: arm.metrics.get(key, math.nan)


COLUMNS = (
    Column("MPJPE", "mm", 1, False, 1, _metric("mpjpe")),
    Column("PA-MPJPE", "mm", 1, False, 1, _metric("pa_mpjpe")),
    Column("N-MPJPE", "mm", 1, False, 1, _metric("n_mpjpe")),
    Column("MPJVE", "mm/frame", 2, False, 1, _metric("mpjve")),
    Column("Depth order, joints", "%", 1, True, 100, _metric("depth_order_joints")),
    Column("Depth order, frames", "%", 1, True, 100, _metric("depth_order_frames")),
    Column("Speed", "clips/s", None, True, 1, lambda arm: arm.clips_per_second),
    Column("Loss share", "%", 1, False, 100, lambda arm: arm.loss_share),
)


def _structure(key: str) -> Callable[[ArmResult], float]:
    return lambda arm: arm.structure.get(key, math.nan)


STRUCTURE = (
    Column("LSE", "mm", 1, False, 1, _structure("lse")),
    Column("BSLE", "mm", 1, False, 1, _structure("bsle")),
    Column("LLE", "mm", 1, False, 1, _structure("lle")),
    Column("Bone-length spread", "mm", 1, False, 1, _structure("bone_length_spread")),
    Column("Illegal angles", "%", 2, False, 100, _structure("illegal_angle_rate")),
)
"""Columns of the skeletons' structure, a table of its own on the page."""


@dataclass(frozen=True)
class Cell:
    """Text of a value, and whether it is the best of its column; or of a difference, and whether it is an improvement.

    `good` is None where that can't be said: a single arm, a missing value, no difference.
    """

    text: str
    good: bool | None = None


def known(columns: Sequence[Column], arms: list[ArmResult]) -> list[Column]:
    """The columns that some arm has a value for; all of them where none has any."""
    found = [column for column in columns if any(math.isfinite(column.value(arm)) for arm in arms)]
    return found or list(columns)


def cells(column: Column, arms: list[ArmResult]) -> tuple[list[Cell], Cell | None]:
    """Cells of one column, one an arm; and the difference last minus first where there are two arms or more.

    Best is decided on the numbers as shown, so that two equal numbers are both marked.
    """
    values = [float(column.value(arm)) * column.factor for arm in arms]
    return mark(values, column.decimals, column.higher)


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

    Columns: MPJPE, PA-MPJPE, N-MPJPE (mm), MPJVE (mm per frame), depth order of joints and of frames (%), training
    clips a second, share of the loss in a step (%). Arrows say whether lower or higher is better. Differences of
    percentages are in percentage points. A column that no arm has a value for is left out. It needs about 80 columns.

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
    heads = known(COLUMNS, arms)
    columns = [cells(column, arms) for column in heads]
    for column, (shown, change) in zip(heads, columns, strict=True):
        head = "\n".join((*column.head, column.measure))
        words = [*head.split(), *(cell.text for cell in (*shown, change) if cell is not None)]
        result.add_column(Text(head), justify="right", min_width=max(map(len, words)))
    for row, arm in enumerate(arms):
        texts = [Text(column[row].text, style="bold" if column[row].good else "") for column, _ in columns]
        result.add_row(Text(one_line(arm.name)), *texts, end_section=row == len(arms) - 1)
    if len(arms) > 1:
        styles = {True: "green", False: "red", None: ""}
        texts = [Text(change.text, style=styles[change.good]) for _, change in columns if change is not None]
        result.add_row(Text(difference_label(arms), style="italic"), *texts)
    return result


def plain_table(summary: RunSummary) -> str:
    """The same table as aligned text for pipes and logs; `*` follows the best value of a column. Ends with a newline.

    Raises:
        ArgumentError: the summary has no arms.
    """
    arms = check_arms(summary)
    heads = known(COLUMNS, arms)
    columns = [cells(column, arms) for column in heads]
    rows = [
        ["", *(column.head[0] + " " for column in heads)],
        ["", *(column.head[1] + " " for column in heads)],
        ["Objective", *(column.measure + " " for column in heads)],
        *(
            [one_line(arm.name), *(column[row].text + ("*" if column[row].good else " ") for column, _ in columns)]
            for row, arm in enumerate(arms)
        ),
    ]
    if len(arms) > 1:
        rows.append([difference_label(arms), *(change.text + " " for _, change in columns if change is not None)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        " ".join([row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    rule = "-" * (len(lines[0]) - 1)
    lines.insert(_HEAD, rule)
    if len(arms) > 1:
        lines.insert(_HEAD + 1 + len(arms), rule)
    return "\n".join(line.rstrip() for line in [one_line(summary.title), "", *lines]) + "\n"
