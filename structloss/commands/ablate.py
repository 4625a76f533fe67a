"""`structloss ablate`: train every cell of a grid and write one table and one figure."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, check_name, needs_extra
from ._ablate_evidence import NAME as EVIDENCE
from ._ablate_evidence import run_evidence
from ._ablate_sapnet import NAME, sapnet_grid
from ._ablate_shape_template import NAME as TEMPLATES
from ._ablate_shape_template import template_grid
from ._engine import add_engine, opened_engine, print_line
from ._imports import import_torchmetrics
from ._parser import command, positive

if TYPE_CHECKING:
    from ..harness.ablation import CellResult, Grid
    from ..harness.engines import Engine
    from ..harness.image_ablation import ImageGrid
    from ..harness.template_ladder import TemplateGrid
    from ..reports.ablation import CellResult as AblationResult
    from ..reports.ablation import Grid as AblationGrid
    from ..reports.ablation import Summary

__all__ = ["add", "run_ablation"]

ORDER = 30


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "ablate",
        "train every backbone with every objective and seed of a grid, and write one table and plot",
        "  structloss ablate                                        the losses on synthetic motion\n"
        "  structloss ablate --data motion.npz --jobs 2             on your motion capture (RePOSE, Table 4)\n"
        "  structloss ablate --data h36m/ --keypoints gt            on Human3.6M with ground-truth 2D\n"
        "  structloss ablate finetune --data motion.npz             fine-tuning trained networks (RePOSE, Table 5)\n"
        "  structloss ablate finetune --backbones motionbert-full --init-from motionbert-full=best.bin --steps 2000\n"
        "  structloss ablate sapnet --jobs 2                        from images (Dabral et al., Table 3)\n"
        "  structloss ablate shape-template --jobs 2                shape templates, change by change\n"
        "  structloss ablate evidence --data cmu.npz                which losses help trained networks, in two stages\n"
        "  structloss ablate --engine ray --address 10.0.0.1:6379    every cell a task on a cluster\n"
        "  structloss ablate my_grid.yaml --seeds 0 1 2 3 4 --out runs/my_grid\n"
        "\nGiven again, the command trains the cells that are missing.\n",
    )
    parser.add_argument(
        "grid",
        nargs="?",
        default="losses",
        help="losses, finetune, learned, evidence, sapnet, shape-template, or a YAML file (default: losses)",
    )
    parser.add_argument("--data", metavar="PATH", help="data set of any format (default: synthetic motion)")
    parser.add_argument("--keypoints", metavar="NAME", help="2D file of a Human3.6M npz: gt, cpn_ft_h36m_dbb, ...")
    parser.add_argument("--out", metavar="DIR", help="folder to write (default: runs/ablate-GRID)")
    parser.add_argument("--backbones", nargs="+", metavar="NAME", help="instead of the grid's")
    parser.add_argument(
        "--objectives", nargs="+", metavar="NAME", help="some of the grid's, the first being the baseline"
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="instead of the grid's")
    parser.add_argument("--steps", type=positive, metavar="N", help="training steps of a cell (sapnet: stage 1)")
    parser.add_argument("--views", type=positive, metavar="N", help="cameras that see each clip, 1 to 4 (default: 4)")
    parser.add_argument("--init-from", nargs="+", metavar="NAME=FILE", help="checkpoints that backbones start from")
    add_engine(parser, "cell")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    with needs_extra("harness"):
        import_torchmetrics()
        from ..harness.ablation import load_grid

    out = arguments.out or f"runs/ablate-{Path(arguments.grid).stem}"
    if arguments.grid == EVIDENCE:
        with opened_engine(arguments, print_line) as engine:

            def run(grid: Grid, folder: Path) -> list[CellResult]:
                found: list[CellResult] = []
                run_ablation(grid, folder, say=print_line, results=found, engine=engine)
                return found

            run_evidence(arguments, run, print_line)
        return
    grid: Grid | ImageGrid | TemplateGrid
    if arguments.grid == NAME:
        grid = sapnet_grid(arguments)
    elif arguments.grid == TEMPLATES:
        grid = template_grid(arguments)
    else:
        grid = _changed(load_grid(arguments.grid), arguments)
    with opened_engine(arguments, print_line) as engine:
        run_ablation(grid, out, say=print_line, engine=engine)


def _changed(grid: Grid, arguments: argparse.Namespace) -> Grid:
    """The grid with what the command line changes of it."""
    data = {"data": arguments.data, "keypoints": arguments.keypoints, "views": arguments.views}
    changes: dict[str, Any] = {"data": grid.data | {k: v for k, v in data.items() if v is not None}}
    if arguments.backbones:
        changes["backbones"] = {name: grid.backbones.get(name, {}) for name in arguments.backbones}
    if arguments.objectives:
        names = [check_name("objective", name, grid.objectives) for name in arguments.objectives]
        changes["objectives"] = {name: grid.objectives[name] for name in names}
    if arguments.seeds:
        changes["seeds"] = tuple(arguments.seeds)
    if arguments.steps:
        changes["steps"] = arguments.steps
    if arguments.init_from:
        pairs = [text.partition("=") for text in arguments.init_from]
        if wrong := [name for name, equals, file in pairs if not (equals and file)]:
            raise ArgumentError(f"--init-from is {wrong[0]!r}, expected BACKBONE=FILE.")
        changes["init_from"] = {name: file for name, _, file in pairs}
    return replace(grid, **changes)


def run_ablation(
    grid: Grid | ImageGrid | TemplateGrid, out: str | Path, *, jobs: int = 1, say: Callable[[str], object] = print,
    results: list[CellResult] | None = None, engine: Engine | None = None,
) -> list[Summary]:  # fmt: skip
    """Run a grid and write `table.md`, `table.csv` and `plot.png` beside its `cells`, and of shape templates
    `answers.md`, the findings of their poster as questions; returns the summaries.

    Args:
        grid: what to compare.
        out: folder to write.
        jobs: cells trained side by side.
        say: is given lines of text about what is done.
        results: is given what each cell came to.
        engine: what trains cells, in place of `jobs` processes.

    Raises:
        StructlossError: bad input, or a cell failed; finished cells are kept.
        MissingDependencyError: the `harness` extra is not installed.
    """
    with needs_extra("harness"):
        import_torchmetrics()
        from ..harness.ablation import Grid, run_grid
        from ..harness.image_ablation import ImageGrid, run_image_grid
        from ..harness.template_ladder import run_template_grid
    from ..files import write_text
    from ..metrics.measures import measure
    from ..reports.ablation import ablation_csv, ablation_table, plot_ablation, summarise
    from ..reports.questions import answers_text

    folder = Path(out)
    error = measure("mpjpe" if isinstance(grid, (Grid, ImageGrid)) else "normalized_l2")

    def report(done: int, total: int, result: CellResult) -> None:
        cell, value = result.cell, error.value(result)
        found = f"{error.title} {value:.{error.decimals}f} {error.unit}" if math.isfinite(value) else "no poses"
        say(f"{done}/{total}  {cell.backbone}, {cell.objective}, seed {cell.seed}: {found}, {result.seconds:.0f} s")

    if isinstance(grid, Grid):
        found = run_grid(grid, folder / "cells", jobs=jobs, report=report, engine=engine)
    elif isinstance(grid, ImageGrid):
        found = run_image_grid(grid, folder / "cells", jobs=jobs, report=report, engine=engine)
    else:
        found = run_template_grid(grid, folder / "cells", jobs=jobs, report=report, engine=engine)
    if results is not None:
        results += found
    shown, rows = _shown(grid, found)
    summaries = summarise(shown, rows)
    table = ablation_table(shown, summaries)
    write_text(folder / "table.md", table)
    write_text(folder / "table.csv", ablation_csv(summaries, grid.seeds))
    plot_ablation(shown, summaries, folder / "plot.png")
    say(table)
    files = "table.md, table.csv, plot.png"
    if not isinstance(grid, (Grid, ImageGrid)):
        answers, files = answers_text(found), f"{files}, answers.md"
        write_text(folder / "answers.md", answers)
        say(answers)
    say(f"written to {folder}: {files}")
    return summaries


def _shown(
    grid: Grid | ImageGrid | TemplateGrid, found: list[CellResult]
) -> tuple[AblationGrid, Sequence[AblationResult]]:
    """What tables and plots show: every kind of 2D that cells were scored on by itself, where there are several."""
    from ..harness.ablation import Grid
    from ..reports.ablation import by_condition

    if not isinstance(grid, Grid) or not grid.conditions:
        return grid, found
    return by_condition(grid, found, str(grid.data.get("detections", "simulated")), grid.conditions)
