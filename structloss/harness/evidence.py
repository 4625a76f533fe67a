"""Which losses help: a coarse comparison of many settings on some subjects, a thorough one of the best on others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from .ablation import CellResult, Grid, load_grid

__all__ = ["BEST", "COARSE", "FINAL", "best_objectives", "coarse_grid", "final_grids"]

COARSE = {"coarse": "evidence-coarse", "coarse-image": "evidence-image"}
"""Folder -> grid of the first stage: of a network that answers in metres, and of one in image space."""
FINAL = "evidence-final"
"""The grid of the second stage."""
BEST = 3
"""So many of the first stage go into the second, besides the baseline and the published setting."""


def coarse_grid(folder: str, data: str | None) -> Grid:
    """A grid of the first stage.

    Args:
        folder: key of :data:`COARSE`.
        data: clip archive to train on and to be scored by; None leaves the grid's, which is synthetic motion.
    """
    return _on(load_grid(COARSE[folder]), data)


def _on(grid: Grid, data: str | None) -> Grid:
    return grid if data is None else replace(grid, data={**grid.data, "data": data})


def best_objectives(grid: Grid, results: Sequence[CellResult], but: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the :data:`BEST` objectives with the lowest MPJPE, averaged over seeds and all kinds of 2D, best first.

    Args:
        grid: of the first stage.
        results: of all of its cells, of one backbone.
        but: objectives to leave out, besides the first, the baseline.
    """

    def error(name: str) -> float:
        cells = [result for result in results if result.cell.objective == name]
        kinds = [[cell.metrics, *cell.conditions.values()] for cell in cells]
        return statistics.fmean(metrics["mpjpe"] for of_cell in kinds for metrics in of_cell)

    candidates = [name for name in list(grid.objectives)[1:] if name not in but]
    return tuple(sorted(candidates, key=error)[:BEST])


def final_grids(coarse: Grid, best: Sequence[str], data: str | None) -> dict[str, Grid]:
    """The grids of the second stage: folder -> grid, "scratch" from fresh weights and "finetune" from those in the
    package.

    Args:
        coarse: the grid of the first stage that `best` is of, with what the objectives are.
        best: names of objectives.
        data: as for :func:`coarse_grid`.
    """
    grid = _on(load_grid(FINAL), data)
    objectives = {**grid.objectives, **{name: coarse.objectives[name] for name in best}}
    arms = {name: coarse.arms[name] for name in best if name in coarse.arms}
    scratch = replace(grid, objectives=objectives, arms=arms, learned=coarse.learned)
    return {"scratch": scratch, "finetune": replace(scratch, init_from={name: name for name in grid.backbones})}
