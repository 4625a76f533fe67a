"""What a call costs beside its kernel: losses of one clip of nine frames, against torch.add of the same tensors.

Forward is the call alone, with a prediction that requires a gradient; forward + backward also fills its `.grad`, for
torch.add from a gradient that is given. A ratio is taken within a round, its median over rounds. Take one thread.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import structloss

from . import command, definition, measure, tables
from .inputs import Shape, make_input

__all__ = ["CALLS", "main"]

SHAPE = Shape(1, 9, 17)
BASELINE = "torch.add"
MODES = ("forward", "forward+backward")
REPOSE = ("mpjpe", "depth_ranking_joints", "depth_ranking_frames")

EPILOG = """\
examples:
  {command} --threads 1
  {command} --threads 1 --rounds 1000 --csv overhead.csv
"""

Loss = Callable[[Tensor, Tensor], Tensor]


class Call(NamedTuple):
    """One way to call a loss.

    Attributes:
        name: as it stands in the table.
        terms: whose sum it is; it is compared with their definition first.
        make: makes the loss, once.
        rows: whether it takes the depths [B, T, J] of the poses, not the poses.
    """

    name: str
    terms: tuple[str, ...]
    make: Callable[[], Loss]
    rows: bool = False


def _function(terms: tuple[str, ...]) -> Loss:
    weights = dict.fromkeys(terms, 1.0)
    return lambda pred, target: structloss.objective(pred, target, weights).total


def _module(terms: tuple[str, ...]) -> Loss:
    module = structloss.nn.Objective(dict.fromkeys(terms, 1.0))
    return lambda pred, target: module(pred, target).total


CALLS = (
    Call("mpjpe", REPOSE[:1], lambda: structloss.mpjpe),
    Call("ranking_hinge", REPOSE[1:2], lambda: structloss.ranking_hinge, rows=True),
    Call("depth_ranking", REPOSE[1:2], lambda: functools.partial(structloss.depth_ranking, over="joints")),
    Call("objective, MPJPE", REPOSE[:1], lambda: _function(REPOSE[:1])),
    Call("objective, MPJPE + L_S + L_T", REPOSE, lambda: _function(REPOSE)),
    Call("nn.Objective, MPJPE", REPOSE[:1], lambda: _module(REPOSE[:1])),
    Call("nn.Objective, MPJPE + L_S + L_T", REPOSE, lambda: _module(REPOSE)),
)


def main(argv: Sequence[str] | None = None, prog: str = "bench.overhead") -> int:
    parser = command.Parser(prog, __doc__, EPILOG)
    command.add_measurement(parser, rounds=300)
    return command.carry_out(command.parse_measurement(parser, argv), prog, benchmark)


def benchmark(args: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    """Tidy rows of every call, and their table."""
    poses = make_input(SHAPE, torch.float32, args.device)
    depths = tuple(x[..., 2].contiguous() for x in poses)
    timed: dict[tuple[str, str], Callable[[], object]] = {}
    for mode in MODES:
        timed[BASELINE, mode] = _bind_add(*poses, mode)
    for call in CALLS:
        loss = call.make()
        tables.note_progress(f"checking {call.name}")
        definition.check(_of_poses(loss, call.rows), call.terms, SHAPE, torch.float32, args.device)
        for mode in MODES:
            timed[call.name, mode] = _bind(loss, *(depths if call.rows else poses), mode)
    names = {" ".join(key): key for key in timed}
    times, failures = measure.interleave(
        {name: timed[key] for name, key in names.items()}, args.rounds, 600.0, args.device, tables.note_progress
    )
    for name, reason in failures.items():
        raise RuntimeError(f"{name} failed: {reason}")
    found = {names[name]: values for name, values in times.items()}
    rows = [_row(*key, found, args) for key in found]
    return rows, markdown(rows, args)


def _of_poses(loss: Loss, rows: bool) -> Loss:
    return (lambda pred, target: loss(pred[..., 2], target[..., 2])) if rows else loss


def _bind_add(pred: Tensor, target: Tensor, mode: str) -> Callable[[], object]:
    leaf, gradient = pred.clone().requires_grad_(), torch.ones_like(pred)
    if mode == "forward":
        return lambda: torch.add(leaf, target)

    def call() -> None:
        leaf.grad = None
        torch.add(leaf, target).backward(gradient)

    return call


def _bind(loss: Loss, pred: Tensor, target: Tensor, mode: str) -> Callable[[], object]:
    leaf = pred.clone().requires_grad_()
    if mode == "forward":
        return lambda: loss(leaf, target)

    def call() -> None:
        leaf.grad = None
        loss(leaf, target).backward()

    return call


def _row(
    name: str, mode: str, times: dict[tuple[str, str], dict[int, float]], args: argparse.Namespace
) -> dict[str, object]:
    """Microseconds of a call, and its ratio to torch.add."""
    row = tables.common_columns("overhead", name, mode, SHAPE, args) | {"metric": "time", "unit": "us"}
    p20, p50, p80 = (1e6 * seconds for seconds in measure.percentiles(times[name, mode]))
    ratio = measure.median_ratio(times[name, mode], times[BASELINE, mode])
    return row | {"p20": p20, "p50": p50, "p80": p80, "ratio": ratio}


def markdown(rows: Sequence[dict[str, object]], args: argparse.Namespace) -> str:
    """One line per call."""
    found = {(row["provider"], row["mode"]): row for row in rows}
    heads = ["call"]
    for mode in MODES:
        heads += [f"{tables.MODE_TITLES[mode]}, µs (p20–p80)", f"× {BASELINE}"]
    lines = []
    for name in dict.fromkeys(row["provider"] for row in rows):
        cells = [str(name)]
        for mode in MODES:
            cells += [tables.spread(found[name, mode]), tables.figure(found[name, mode]["ratio"])]
        lines.append(cells)
    heading = f"### What a call costs: {SHAPE}, float32"
    return f"\n{heading}\n\n{tables.table(heads, lines)}\n\n{tables.conditions(args)}.\n"


if __name__ == "__main__":
    sys.exit(main())
