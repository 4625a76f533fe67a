"""What a refined pose costs: streams of TP-Net and its rivals, one pose a call, and whole clips of 500 frames.

A frame's time is that of one call of a stream, whose answers are first compared with those of the clip. "busy" is the
processor's time a frame, the mean over all calls; on a machine that others use it says more than the clock. Take one
thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from structloss.refine import LSTMRefiner, Refiner, TPNet

from . import command, tables
from .definition import WrongError
from .inputs import Shape

__all__ = ["NETWORKS", "main"]

CLIP = Shape(1, 500, 17)

EPILOG = """\
examples:
  {command} --threads 1
  {command} --threads 1 --rounds 2000 --csv refine.csv
"""

NETWORKS: dict[str, Callable[[], Refiner]] = {
    "TP-Net, 20 poses": lambda: TPNet(root=0),
    "TP-Net, 20 poses, two hidden layers": lambda: TPNet(root=0, hidden_layers=2),
    "LSTM, 512": lambda: LSTMRefiner(root=0),
}


def main(argv: Sequence[str] | None = None, prog: str = "bench.refine") -> int:
    parser = command.Parser(prog, __doc__, EPILOG)
    command.add_measurement(parser, rounds=600)
    return command.carry_out(command.parse_measurement(parser, argv), prog, benchmark)


@torch.no_grad()
def benchmark(args: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    """Tidy rows of every network, and their table."""
    rows, lines = [], []
    for name, make in NETWORKS.items():
        tables.note_progress(name)
        torch.manual_seed(0)
        model = make().to(args.device).eval()
        poses = torch.randn(CLIP.frames, CLIP.joints, 3, device=args.device) / 3
        _check(name, model, poses)
        times, busy = _stream(model, poses, args.rounds)
        clip = _clip(model, poses)
        p20, p50, p80 = (float(1e3 * value) for value in np.percentile(times, [20, 50, 80]))
        mean = float(1e3 * np.mean(times))
        common = tables.common_columns("refine", name, "stream", Shape(1, 1, CLIP.joints), args)
        rows.append(common | {"metric": "time", "unit": "ms", "p20": p20, "p50": p50, "p80": p80})
        for metric, value in (("mean_time", mean), ("busy_time", 1e3 * busy)):
            rows.append(common | {"metric": metric, "unit": "ms", "p50": value})
        common = tables.common_columns("refine", name, "clip", CLIP, args)
        rows.append(common | {"metric": "time_per_frame", "unit": "ms", "p50": 1e3 * clip})
        figures = (mean, 1e3 * busy, p20, p50, p80, 1e3 * clip)
        lines.append([name, *(f"{value:.3f}" for value in figures)])
    heads = ["network", "stream, ms a frame", "busy", "p20", "p50", "p80", "clip, ms a frame"]
    text = f"\n### What a refined pose costs\n\n{tables.table(heads, lines)}\n\n{tables.conditions(args)}.\n"
    return rows, text


def _check(name: str, model: Refiner, poses: torch.Tensor) -> None:
    """The stream's answers are the clip's."""
    stream = model.stream()
    answers = [answer for answer in map(stream, poses[:60]) if answer is not None]
    found = torch.cat([torch.stack(answers), stream.flush()]) if stream.lag else torch.stack(answers)
    error = float((found - model(poses[None, :60])[0]).abs().max())
    if not error < 1e-5:
        raise WrongError(f"the stream of {name} is {error:.2g} m off the clip")


def _stream(model: Refiner, poses: torch.Tensor, calls: int) -> tuple[list[float], float]:
    """Seconds of each call, and of the processor a call."""
    stream = model.stream()
    for pose in poses[:50]:
        stream(pose)
    times = []
    begun = time.process_time()
    for call in range(calls):
        started = time.perf_counter()
        stream(poses[call % len(poses)])
        if poses.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return times, (time.process_time() - begun) / calls


def _clip(model: Refiner, poses: torch.Tensor) -> float:
    """Seconds a frame of the clip at once, the least of three."""
    found = []
    for _ in range(3):
        started = time.perf_counter()
        model(poses[None])
        if poses.is_cuda:
            torch.cuda.synchronize()
        found.append((time.perf_counter() - started) / len(poses))
    return min(found)


if __name__ == "__main__":
    sys.exit(main())
