"""What training on several processes costs: measured with two on this machine, and reckoned on paper up to 256 GPUs.

    python -m bench.scaling measure --rounds 5 --csv bench/results/cpu_scaling.csv
    python -m bench.scaling expect --out bench/results/scaling_expected.md

`measure` trains in two processes of one thread each, by turns: one alone while the other waits, both side by side
without a word to each other, and both under DistributedDataParallel (gloo over loopback), with as many clips a process
each time. The turns rotate, and the fastest turn of each kind counts, as others may use the machine. Efficiency is the
time of the one alone divided by that of both under DDP; the share of that loss that two side by side have, too, is of
the machine's memory and clock, not of DDP. "busy" is the processor's time of a step in one of the processes, which says
more than the clock where others use the machine: what DDP adds to it is the work of averaging gradients, not waiting.

`expect` is arithmetic, not a measurement. A step computes 3 x 2 x MACs for each clip (forward, and twice as much
backward) at `--tflops`; the gradients, 4 bytes for each parameter, go once round a ring: 2 (N - 1) / N x bytes through
the slowest link, and 2 (N - 1) hops of `--latency`. Within a machine that link is `--inside`, between machines
`--between`, both in GB/s a direction. Without overlap a step is computing and then sending. With it, DDP sends while
the backward pass, two thirds of the step, still computes, all but the last bucket of 25 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing, nn

import structloss
from structloss import backbones
from structloss.files import write_text

from . import command, tables
from .inputs import Shape

__all__ = ["Cluster", "EXPECTED", "MEASURED", "expected_table", "main", "reckon"]

#: backbone -> clips a process and arguments of a size that a CPU trains in a fraction of a second
MEASURED: dict[str, tuple[int, dict[str, Any]]] = {
    "lift-27": (64, {}),
    "videopose3d-27": (16, {}),
    "repose-tiny": (4, {"maxlen": 27}),
}
#: backbone -> clips a GPU, those of its recipe
EXPECTED = {"motionbert-full": 32, "mixste-243": 4, "videopose3d-243": 1024}
_GPUS = (1, 8, 16, 64, 256)
_BUCKET = 25 * 2**20  # bytes, DDP's default
_OBJECTIVE = {"mpjpe": 1.0, "depth_ranking_joints": 1.0}
_KINDS = ("one alone", "two side by side", "two under DDP")


def main(argv: Sequence[str] | None = None, prog: str = "bench.scaling") -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = command.Parser(prog, __doc__, "")
    actions = parser.add_subparsers(dest="action", required=True, parser_class=argparse.ArgumentParser)
    measuring = actions.add_parser("measure", help="two processes on this machine")
    command.add_measurement(measuring, rounds=5, threads="1, of each process")
    measuring.add_argument("--steps", type=command.positive(int), default=4, metavar="N", help="of a turn, default 4")
    expecting = actions.add_parser("expect", help="on paper")
    for flag, text in (
        ("tflops", "10^12 operations a second that training sustains"),
        ("inside", "GB/s between GPUs of a machine"),
        ("between", "GB/s between machines"),
        ("latency", "microseconds of a hop"),
    ):
        default = getattr(Cluster(), flag)
        expecting.add_argument(f"--{flag}", type=command.positive(float), default=default, help=f"{text}, {default:g}")
    expecting.add_argument("--out", type=Path, metavar="FILE.md", help="write the table")
    args = parser.parse_args(argv)
    if args.action == "expect":
        text = expected_table(Cluster(args.tflops, args.inside, args.between, args.latency))
        print(text)
        if args.out is not None:
            write_text(args.out, text + "\n")
        return 0
    args.threads, args.dtype = 1, "float32"
    return command.carry_out(args, prog, benchmark)


# ---- measured ----------------------------------------------------------------------------------------------------


def benchmark(args: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    """Tidy rows of every backbone, and their table."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_process, (folder, args.rounds, args.steps), nprocs=2)
        found: dict[str, list[float]] = json.loads(Path(folder, "times.json").read_text())
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    rows: list[dict[str, object]] = []
    lines = []
    for name, times in found.items():
        clips, arguments = MEASURED[name]
        (one, side, both), busy = times[:3], times[3:]
        size = 4 * sum(p.numel() for p in backbones.create(name, **arguments).parameters())
        shape = Shape(clips, int(arguments.get("maxlen", 27)), 17)
        for kind, seconds, worked in zip(_KINDS, times[:3], busy, strict=True):
            common = tables.common_columns("scaling", name, kind, shape, args)
            rows.append(
                common | {"metric": "busy", "unit": "ms", "p50": 1e3 * worked, "ratio": busy[0] / worked, "note": load}
            )
            rows.append(
                common | {"metric": "step", "unit": "ms", "p50": 1e3 * seconds, "ratio": one / seconds, "note": load}
            )
        figures = [f"{1e3 * seconds:.0f}" for seconds in times[:3]]
        shares = [f"{share:.0%}" for share in (one / both, side / both)]
        worked = [f"{1e3 * busy[0]:.0f}", f"{1e3 * busy[2]:.0f}"]
        lines.append([name, str(clips), f"{size / 1e6:.1f}", *figures, *shares, *worked])
    heads = ["backbone", "clips a process", "gradients, MB", *(f"{kind}, ms a step" for kind in _KINDS)]
    heads += ["efficiency", "of two side by side", "busy alone, ms", "busy under DDP, ms"]
    text = f"\n### Two processes on one machine\n\n{tables.table(heads, lines)}\n\n{tables.conditions(args)}, {load}.\n"
    return rows, text


def _process(rank: int, folder: str, rounds: int, steps: int) -> None:
    """One of the two."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found: dict[str, list[float]] = {}
    for name, (clips, arguments) in MEASURED.items():
        plain, shared = (_Training(name, clips, arguments, ddp) for ddp in (False, True))
        turns: list[list[float]] = [[] for _ in range(6)]  # of each kind by the clock, then the processor's
        for number in range(rounds + 1):  # the first is a warm-up
            for kind in ((number + k) % 3 for k in range(3)):
                distributed.barrier()
                started, worked = time.perf_counter(), time.process_time()
                if kind > 0 or rank == 0:
                    (shared if kind == 2 else plain).train(steps)
                seconds, worked = (time.perf_counter() - started) / steps, (time.process_time() - worked) / steps
                slowest = torch.tensor([seconds, worked] if kind > 0 or rank == 0 else [0.0, 0.0])
                distributed.all_reduce(slowest, distributed.ReduceOp.MAX)
                if number:
                    turns[kind].append(float(slowest[0]))
                    turns[3 + kind].append(float(slowest[1]))
        found[name] = [min(seconds) for seconds in turns]
    if rank == 0:
        Path(folder, "times.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


class _Training:
    """A backbone, its optimizer and random clips."""

    def __init__(self, name: str, clips: int, arguments: dict[str, Any], ddp: bool) -> None:
        torch.manual_seed(0)
        model = backbones.create(name, **arguments)
        self.input = torch.randn(clips, model.frames, 17, model.channels)
        with torch.no_grad():
            self.target = torch.randn_like(model.eval()(self.input[:2])[:1].expand(clips, -1, -1, -1))
        self.model: nn.Module = model.train()
        if ddp:
            self.model = nn.parallel.DistributedDataParallel(model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            structloss.objective(self.model(self.input), self.target, _OBJECTIVE).total.backward()
            self.optimizer.step()


# ---- on paper ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """What is assumed of GPUs and of the network between them.

    Attributes:
        tflops: 10^12 operations a second that a GPU sustains in training: a fifth of the 989 that an H100 has for
            bfloat16 on paper.
        inside: GB/s in a direction from a GPU to the next in its machine of eight, NVLink: 450 on paper.
        between: GB/s in a direction from the last GPU of a machine to the first of the next: one card of 400 Gbit/s.
        latency: microseconds of a hop.
    """

    tflops: float = 200.0
    inside: float = 350.0
    between: float = 50.0
    latency: float = 5.0


def reckon(params: int, macs: float, clips: int, gpus: int, cluster: Cluster) -> tuple[float, float, float, float]:
    """Seconds of a step's computing and of the all-reduce by itself; efficiency without overlap and with it.

    Args:
        params: of the network; its gradients have 4 bytes each.
        macs: multiplications of a clip's forward pass.
        clips: of a GPU.
        gpus: N, in machines of eight.
        cluster: what is assumed.
    """
    computing = 3 * 2 * macs * clips / (cluster.tflops * 1e12)
    if gpus == 1:
        return computing, 0.0, 1.0, 1.0
    link = 1e9 * (cluster.inside if gpus <= 8 else cluster.between)

    def ring(size: float) -> float:
        return 2 * (gpus - 1) / gpus * size / link

    size = 4.0 * params
    sending = ring(size) + 2 * (gpus - 1) * cluster.latency * 1e-6
    seen = max(ring(min(size, _BUCKET)) + 2 * (gpus - 1) * cluster.latency * 1e-6, sending - computing * 2 / 3)
    return computing, sending, computing / (computing + sending), computing / (computing + seen)


def expected_table(cluster: Cluster) -> str:
    """The table of :func:`reckon`, and the assumptions."""
    lines = []
    for name, clips in EXPECTED.items():
        info = backbones.info(name)
        for gpus in _GPUS:
            found = reckon(info.params, info.macs, clips, gpus, cluster)
            computing, sending, without, overlapped = found
            sent = 2 * (gpus - 1) / gpus * 4 * info.params / 1e6
            lines.append(
                [
                    *(name, str(clips), str(gpus), f"{sent:.0f}", f"{1e3 * computing:.1f}", f"{1e3 * sending:.2f}"),
                    *(f"{without:.1%}", f"{overlapped:.1%}"),
                ]
            )
    heads = ["backbone", "clips a GPU", "GPUs", "MB sent by each a step", "computing, ms", "all-reduce, ms"]
    heads += ["efficiency, no overlap", "with overlap"]
    said = (
        f"Assumed: {cluster.tflops:g} x 10^12 operations a second sustained by a GPU, {cluster.inside:g} GB/s within a "
        f"machine of eight, {cluster.between:g} GB/s between machines, {cluster.latency:g} microseconds a hop."
    )
    return f"{tables.table(heads, lines)}\n\n{said}"


if __name__ == "__main__":
    sys.exit(main())
