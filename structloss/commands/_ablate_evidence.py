"""`structloss ablate evidence`: which losses help trained networks, found in two stages on subjects kept apart."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArgumentError, needs_extra
from ._imports import import_torchmetrics

if TYPE_CHECKING:
    from ..harness.ablation import CellResult, Grid

__all__ = ["NAME", "run_evidence"]

#: what is typed in place of a grid
NAME = "evidence"

_SINGLE = ("backbones", "objectives", "init_from", "keypoints", "views")


def run_evidence(
    arguments: argparse.Namespace, run: Callable[[Grid, Path], list[CellResult]], say: Callable[[str], object]
) -> None:
    """Both stages, one after the other; `chosen.md` tells what the first one chose for the second.

    Args:
        arguments: of the command. `--steps` and `--seeds` are those of both stages.
        run: runs a grid, writes its tables into a folder, and returns its results.
        say: is given lines of text about what is done.

    Raises:
        ArgumentError: no data, or a flag that it has no use for.
    """
    for name in _SINGLE:
        if (value := getattr(arguments, name)) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ArgumentError(f"{flag} is {value!r} with {NAME}, expected it with a single grid.")
    if arguments.data is None:
        raise ArgumentError("--data is not given, expected a clip archive with the subjects of the CMU clips.")
    with needs_extra("harness"):
        import_torchmetrics()
        from ..harness.evidence import COARSE, best_objectives, coarse_grid, final_grids
    from ..files import write_text

    out = Path(arguments.out or f"runs/ablate-{NAME}")
    published = "+ L_S + L_T"
    chosen: tuple[str, ...] = ()
    first: Grid | None = None
    for folder in COARSE:
        grid = _changed(coarse_grid(folder, arguments.data), arguments)
        found = best_objectives(grid, run(grid, out / folder), but=(published,))
        if first is None:
            first, chosen = grid, found
    assert first is not None  # there is a first stage
    text = f"Chosen of the first stage, by MPJPE over all kinds of 2D: {'; '.join(chosen)}.\n"
    write_text(out / "chosen.md", text)
    say(text)
    for folder, grid in final_grids(first, chosen, arguments.data).items():
        run(_changed(grid, arguments), out / folder)


def _changed(grid: Grid, arguments: argparse.Namespace) -> Grid:
    """The grid with the steps and seeds of the command line."""
    if arguments.steps:
        # as many to begin with, where a network is trained before
        grid = replace(grid, steps=arguments.steps, pretrain_steps=grid.pretrain_steps and arguments.steps)
    return replace(grid, seeds=tuple(arguments.seeds)) if arguments.seeds else grid
