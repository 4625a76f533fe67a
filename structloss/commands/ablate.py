"""`structloss ablate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ._parser import command, positive

__all__ = ["add"]


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "ablate",
        "train every backbone with every objective and seed of a grid, and write one table and plot",
        "  structloss ablate                                        the losses on synthetic motion\n"
        "  structloss ablate --data motion.npz --jobs 2             on your motion capture (RePOSE, Table 4)\n"
        "  structloss ablate finetune --data motion.npz             fine-tuning trained networks (RePOSE, Table 5)\n"
        "  structloss ablate finetune --backbones motionbert-full --init-from motionbert-full=best.bin --steps 2000\n"
        "  structloss ablate my_grid.yaml --seeds 0 1 2 3 4 --out runs/my_grid\n"
        "\nGiven again, the command goes on with the cells that are missing.\n",
    )
    parser.add_argument("grid", nargs="?", default="losses", help="losses, finetune, or a YAML file (default: losses)")
    parser.add_argument("--data", metavar="PATH", help="data set of any format (default: synthetic motion)")
    parser.add_argument("--out", metavar="DIR", help="folder to write (default: runs/ablate-GRID)")
    parser.add_argument("--backbones", nargs="+", metavar="NAME", help="instead of the grid's")
    parser.add_argument(
        "--objectives", nargs="+", metavar="NAME", help="some of the grid's, the first being the baseline"
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="instead of the grid's")
    parser.add_argument("--steps", type=positive, metavar="N", help="training steps of a cell")
    parser.add_argument("--views", type=positive, metavar="N", help="cameras that see each clip, 1 to 4 (default: 4)")
    parser.add_argument("--init-from", nargs="+", metavar="NAME=FILE", help="checkpoints that backbones start from")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="processes side by side (default: 1)")
    parser.set_defaults(run=_ablate)


def _ablate(arguments: argparse.Namespace) -> None:
    from dataclasses import replace

    from ..errors import ArgumentError, check_name, needs_extra

    with needs_extra("harness"):
        from ..harness.ablation import load_grid
    from ..reports.ablation import run_ablation

    grid = load_grid(arguments.grid)
    data = {"data": arguments.data, "views": arguments.views}
    changes: dict[str, object] = {"data": grid.data | {k: v for k, v in data.items() if v is not None}}
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
    out = arguments.out or f"runs/ablate-{Path(arguments.grid).stem}"
    run_ablation(replace(grid, **changes), out, jobs=arguments.jobs, say=lambda text: print(text, flush=True))
