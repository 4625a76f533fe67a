"""What a learned loss costs in a training step: the loss network's own step and the energy of the prediction.

A step is zero_grad, forward, MPJPE, backward and AdamW's update on random input, without and with a loss network that
learns from the prediction of the step and from rotated bones. All train the same backbone, by turns. At inference there
is no loss network, so nothing is timed there: tests compare graphs and outputs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

import structloss
from structloss.errors import StructlossError

from . import command, measure, tables
from .inputs import Shape
from .step import Training

EPILOG = """\
examples:
  {command}                                            # repose-h36m and simplebaseline-16j
  {command} --backbones mixste-243 --nets graph4 --batch 1
  {command} --nets graph graph@27                       # all frames of a clip, or 27 of them per step
"""
#: clips and frames per step that a CPU can do in seconds
SHAPES = {"repose-h36m": (2, 243), "simplebaseline-16j": (8, 27)}
NETS = ("graph-small", "graph-small@9", "linear-small@9", "graph@9")
PLAIN = "mpjpe"


def parse_arguments(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The command line."""
    parser = command.Parser(prog, __doc__, EPILOG)
    parser.add_argument("--backbones", nargs="+", metavar="NAME", default=list(SHAPES), help="default: two")
    parser.add_argument(
        "--nets", nargs="+", metavar="NET[@FRAMES]", default=list(NETS), help=f"default: {' '.join(NETS)}"
    )
    parser.add_argument("--batch", type=command.positive(int), metavar="N", help="clips per step; default: by backbone")
    parser.add_argument(
        "--frames", type=command.positive(int), metavar="T", help="frames of a clip; default: by backbone"
    )
    command.add_measurement(parser, rounds=5, budget=60.0, each="loss network")
    args = command.parse_measurement(parser, argv)
    return args


def main(argv: Sequence[str] | None = None, prog: str = "bench.lossnet") -> int:
    return command.carry_out(parse_arguments(argv, prog), prog, benchmark)


class Learning:
    """A learned loss beside a backbone in training.

    Args:
        name: variant of the loss network, and after an @ the frames of a clip that it scores per step.
        training: the backbone.
    """

    def __init__(self, name: str, training: Training) -> None:
        from structloss.learned import LearnedLoss

        variant, _, frames = name.partition("@")
        torch.manual_seed(0)
        self.loss = LearnedLoss(variant, frames=int(frames) if frames else None).to(training.device)
        self.training = training
        self.target = training.target - training.target[..., :1, :]

    def update(self) -> None:
        """The loss network's own step."""
        self.loss.update(self.training.input, self.target, self.training.pred.detach())

    def energy(self) -> None:
        """The energy of a prediction and its gradient, beside a position loss."""
        pred = self.training.pred.detach().requires_grad_()
        position = structloss.mpjpe(pred, self.target)
        self.loss(self.training.input, pred, position)

    def step(self) -> None:
        """The backbone's step with it."""
        training = self.training
        training.optimizer.zero_grad(set_to_none=True)
        pred = training.model(training.input)
        self.loss.update(training.input, self.target, pred.detach())
        position = structloss.mpjpe(pred, self.target)
        (position + self.loss(training.input, pred, position)).backward()
        training.optimizer.step()


def benchmark(args: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    """Tidy rows of the backbones, and their table."""
    rows = [row for backbone in args.backbones for row in measured(backbone, args)]
    return rows, markdown(rows, args)


def measured(backbone: str, args: argparse.Namespace) -> list[dict[str, object]]:
    """Tidy rows of a backbone: the step without, and with each loss network, whose share is that of its two parts."""
    batch, frames = SHAPES.get(backbone, (2, None))
    training = Training(backbone, args.batch or batch, args.frames or frames, args.device)
    calls: dict[str, Callable[[], object]] = {PLAIN: training.step(structloss.mpjpe)}
    for name in args.nets:
        learning = Learning(name, training)
        calls |= {f"{name} step": learning.step, f"{name} update": learning.update, f"{name} energy": learning.energy}
    progress = lambda line: tables.note_progress(f"{backbone}: {line}")  # noqa: E731
    times, failures = measure.interleave(calls, args.rounds, args.budget, args.device, progress)
    if failures:
        name, reason = next(iter(failures.items()))
        raise StructlossError(f"{backbone}, {name}: it failed with {reason}")
    return [
        *_rows(backbone, PLAIN, times, training.shape, args),
        *(row for name in args.nets for row in _rows(backbone, name, times, training.shape, args)),
    ]


def _rows(
    backbone: str, name: str, times: dict[str, dict[int, float]], shape: Shape, args: argparse.Namespace
) -> list[dict[str, object]]:
    common = tables.common_columns(f"learned_loss {backbone}", name, "training", shape, args)
    step = times[PLAIN if name == PLAIN else f"{name} step"]
    figures = {("step", "ms"): {index: 1e3 * x for index, x in step.items()}}
    if name != PLAIN:
        update, energy = times[f"{name} update"], times[f"{name} energy"]
        both = update.keys() & energy.keys() & step.keys()
        figures["update", "ms"] = {index: 1e3 * x for index, x in update.items()}
        figures["energy", "ms"] = {index: 1e3 * x for index, x in energy.items()}
        figures["share_of_step", "%"] = {index: 100 * (update[index] + energy[index]) / step[index] for index in both}
    rows = []
    for (metric, unit), values in figures.items():
        row = common | {"metric": metric, "unit": unit}
        row |= dict(zip(("p20", "p50", "p80"), measure.percentiles(values), strict=True))
        if metric == "step":
            ratio = measure.median_ratio(step, times[PLAIN])  # how many times as long as without
            row["ratio"] = "" if ratio is None else ratio
        rows.append(row)
    return rows


def markdown(rows: Sequence[dict[str, object]], args: argparse.Namespace) -> str:
    """One line per backbone and loss network."""
    found = {(row["op"], row["provider"], row["metric"]): row for row in rows}
    lines = []
    for op, name in dict.fromkeys((row["op"], row["provider"]) for row in rows):
        step = found[op, name, "step"]
        parts = [found.get((op, name, metric)) for metric in ("update", "energy")]
        share = found.get((op, name, "share_of_step"))
        cells = [str(op).partition(" ")[2], name, f"{step['B']} x {step['T']}", tables.spread(step)]
        cells += ["–" if part is None else tables.spread(part) for part in parts]
        lines.append(
            [*cells, "–" if share is None else f"{tables.figure(share['p50'])} %", tables.figure(step["ratio"])]
        )
    heads = ["backbone", "loss network", "clips x frames", "step, ms (p20–p80)", "its own step, ms", "energy, ms"]
    heads += ["share of the step", "× the step without"]
    return f"\n### The loss network in a training step\n\n{tables.table(heads, lines)}\n\n{tables.conditions(args)}.\n"


if __name__ == "__main__":
    sys.exit(main())
