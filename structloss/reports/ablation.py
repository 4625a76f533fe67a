"""The outcome of an ablation: one table, one figure, and the numbers as CSV."""

from __future__ import annotations

import csv
import io
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..files import write_bytes
from ..metrics.measures import MEASURES, Measure, Result
from . import _style
from ._interval import half_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Summary", "ablation_csv", "ablation_table", "by_condition", "plot_ablation", "summarise"]


class Grid(Protocol):
    """What was compared, see :class:`structloss.harness.ablation.Grid`; the first objective is the baseline."""

    @property
    def objectives(self) -> Mapping[str, Any]: ...
    @property
    def backbones(self) -> Mapping[str, Any]: ...
    @property
    def seeds(self) -> Sequence[int]: ...


class Cell(Protocol):
    """Which backbone, objective and seed."""

    @property
    def backbone(self) -> str: ...
    @property
    def objective(self) -> str: ...
    @property
    def seed(self) -> int: ...


class CellResult(Result, Protocol):
    """What one of them came to."""

    @property
    def cell(self) -> Cell: ...


@dataclass(frozen=True)
class Summary:
    """One measure of one backbone and objective over the seeds.

    Attributes:
        values: one per seed.
        changes: the same minus those of the first objective with the same seeds; empty for the first objective.
    """

    backbone: str
    objective: str
    measure: Measure
    values: tuple[float, ...]
    changes: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds; NaN for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def change(self) -> float:
        """Mean paired difference; NaN for the first objective."""
        return statistics.fmean(self.changes) if self.changes else math.nan

    @property
    def margin(self) -> float:
        """Half of the 95 % confidence interval of the mean paired difference (Student's t); NaN for one seed."""
        return half_width(self.changes)

    @property
    def verdict(self) -> str:
        """ "better" or "worse" where the interval leaves zero out; otherwise empty."""
        if not abs(self.change) > self.margin:
            return ""
        return "better" if (self.change > 0) == self.measure.higher_is_better else "worse"


@dataclass(frozen=True)
class _Shown:
    """A grid as tables show it."""

    objectives: Mapping[str, Any]
    backbones: Mapping[str, Any]
    seeds: Sequence[int]


@dataclass(frozen=True)
class _Row:
    """A backbone under one kind of 2D, as tables show it."""

    backbone: str
    objective: str
    seed: int


@dataclass(frozen=True)
class _Scored:
    """What a cell came to under one kind of 2D."""

    cell: _Row
    metrics: Mapping[str, float]
    structure: Mapping[str, float]


def by_condition(
    grid: Grid, results: Sequence[CellResult], own: str, conditions: Sequence[str]
) -> tuple[Grid, list[CellResult]]:
    """A grid and its results with every kind of 2D that cells were scored on as a backbone of its own.

    Args:
        grid: what was compared.
        results: of its cells; what they came to under another kind of 2D is their attribute `conditions`.
        own: the kind of 2D of the grid's data, which `metrics` and `structure` of a result are of.
        conditions: the others.
    """
    kinds = [own, *(kind for kind in conditions if kind != own)]
    shown = _Shown(grid.objectives, {f"{name}, {kind}": {} for name in grid.backbones for kind in kinds}, grid.seeds)
    scored: list[CellResult] = []
    for result in results:
        of_kind: Mapping[str, Mapping[str, float]] = getattr(result, "conditions", {})
        for kind in kinds:
            cell = _Row(f"{result.cell.backbone}, {kind}", result.cell.objective, result.cell.seed)
            if kind == own:
                scored.append(_Scored(cell, result.metrics, result.structure))
            else:
                scored.append(_Scored(cell, of_kind[kind], {}))
    return shown, scored


def summarise(grid: Grid, results: Sequence[CellResult]) -> list[Summary]:
    """Every measure of every backbone and objective, over seeds; measures that no result has are left out."""
    found = {(r.cell.backbone, r.cell.objective, r.cell.seed): r for r in results}
    first = next(iter(grid.objectives))
    out = []
    for measure in MEASURES.values():
        if not measure.ablation or not any(math.isfinite(measure.value(result)) for result in results):
            continue
        for backbone in grid.backbones:
            base = [measure.value(found[backbone, first, seed]) for seed in grid.seeds]
            for objective in grid.objectives:
                values = [measure.value(found[backbone, objective, seed]) for seed in grid.seeds]
                changes = [] if objective == first else [v - b for v, b in zip(values, base, strict=True)]
                out.append(Summary(backbone, objective, measure, tuple(values), tuple(changes)))
    return out


def ablation_table(grid: Grid, summaries: Sequence[Summary]) -> str:
    """Markdown: one table per backbone; mean ± standard deviation over seeds, and the paired difference in brackets."""
    measures = list(dict.fromkeys(s.measure for s in summaries))
    parts = []
    for backbone in grid.backbones:
        heads = [f"{m.title}, {m.unit} {m.arrow}" for m in measures]
        lines = [["objective", *heads], ["---", *["---:"] * len(heads)]]
        for objective in grid.objectives:
            row = [s for s in summaries if (s.backbone, s.objective) == (backbone, objective)]
            lines.append([objective, *(_cell(s) for s in row)])
        parts.append(f"### {backbone}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    count = len(grid.seeds)
    note = (
        f"Mean ± standard deviation over {count} seed{'s' if count != 1 else ''}; in brackets the mean paired "
        f"difference to {next(iter(grid.objectives))} with the same seed. **Bold**: its 95 % confidence interval "
        "(Student's t over the seeds) leaves zero out, for better or for worse."
    )
    return "\n\n".join(parts) + f"\n\n{note}\n"


def _cell(summary: Summary) -> str:
    if not math.isfinite(summary.mean):
        return "–"
    measure = summary.measure
    decimals = measure.decimals if measure.ablation_decimals is None else measure.ablation_decimals
    text = f"{summary.mean:.{decimals}f}"
    if math.isfinite(summary.deviation):
        text += f" ± {summary.deviation:.{decimals}f}"
    if math.isfinite(summary.change):
        change = f"{summary.change:+.{decimals}f}"
        text += f" ({f'**{change}**' if summary.verdict else change})"
    return text


def ablation_csv(summaries: Sequence[Summary], seeds: Sequence[int]) -> str:
    """Tidy rows: one per backbone, objective, measure and seed, with the paired difference."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["backbone", "objective", "measure", "unit", "seed", "value", "change"])
    for s in summaries:
        for i, (seed, value) in enumerate(zip(seeds, s.values, strict=True)):
            change = f"{s.changes[i]:.6g}" if s.changes else ""
            writer.writerow([s.backbone, s.objective, s.measure.key, s.measure.unit, seed, f"{value:.6g}", change])
    return out.getvalue()


def plot_ablation(grid: Grid, summaries: Sequence[Summary], path: str | os.PathLike[str]) -> Path:
    """One panel per measure: paired differences to the first objective, per cent of its mean; a dot is a seed, a bar
    the 95 % interval. Written atomically as PNG; returns the path.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    measures = list(dict.fromkeys(s.measure for s in summaries))
    objectives = list(grid.objectives)[1:]
    columns = min(3, len(measures))
    rows = -(-len(measures) // columns)
    figure = _style.new_figure(4.4 * columns, 1.1 + (0.55 + 0.17 * len(objectives) * len(grid.backbones)) * rows)
    for number, measure in enumerate(measures):
        axes = figure.add_subplot(rows, columns, number + 1)
        _panel(axes, grid, [s for s in summaries if s.measure is measure], objectives)
        axes.set_title(f"{measure.title} ({measure.better} is better)", fontsize=9)
        if number % columns:
            axes.set_yticklabels([])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, fontsize=9)
    inch = 1 / figure.get_figheight()  # the title and the legend take as much of any figure
    title = f"Change against {next(iter(grid.objectives))}, % of its mean; dots: seeds, bars: 95 %"
    figure.suptitle(title, fontsize=10, y=1 - 0.1 * inch, va="top")
    figure.tight_layout(rect=(0, 0.3 * inch, 1, 1 - 0.3 * inch))
    return write_bytes(path, _style.png(figure, 130))


def _panel(axes: Axes, grid: Grid, summaries: Sequence[Summary], objectives: Sequence[str]) -> None:
    backbones = list(grid.backbones)
    base = {s.backbone: abs(s.mean) for s in summaries if not s.changes}
    for b, backbone in enumerate(backbones):
        labelled = False
        for o, objective in enumerate(objectives):
            summary = next(s for s in summaries if (s.backbone, s.objective) == (backbone, objective))
            if not math.isfinite(summary.change) or not base[backbone]:
                continue
            scale = 100 / base[backbone]
            y = o + 0.7 * ((b + 0.5) / len(backbones) - 0.5)
            colour = _style.colour(b)
            if math.isfinite(summary.margin):
                ends = [(summary.change - summary.margin) * scale, (summary.change + summary.margin) * scale]
                axes.plot(ends, [y, y], color=colour, linewidth=1, alpha=0.5)
            axes.plot(
                [c * scale for c in summary.changes], [y] * len(summary.changes), "o", ms=3, color=colour, alpha=0.6
            )
            axes.plot([summary.change * scale], [y], "D", ms=4.5, color=colour, label=None if labelled else backbone)
            labelled = True
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.set_yticks(range(len(objectives)), objectives, fontsize=8)
    axes.set_ylim(max(len(objectives), 1) - 0.5, -0.5)  # the baseline alone: an empty row
    axes.tick_params(axis="x", labelsize=8)
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)
    axes.tick_params(axis="y", length=0)
    # Intervals of few seeds are wide; the dots decide what is in sight.
    dots = [abs(c) * 100 / base[s.backbone] for s in summaries if base.get(s.backbone) for c in s.changes]
    reach = 1.35 * max((d for d in dots if math.isfinite(d)), default=1.0) or 1.0
    axes.set_xlim(-reach, reach)
