"""How long a training step waits for its data: share of the steps' time, for several numbers of loader processes.

Runs Lightning's training loop on windows of a pose store mapped from disk and reads its profiler: the time to get the
next batch, against that and the step together. The first steps, in which workers start and memory is first touched, are
left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import command, measure, tables
from .inputs import Shape

_WAIT, _STEP = "[_TrainingEpochLoop].train_dataloader_next", "run_training_batch"
_WARM_UP = 3

EPILOG = """\
examples:
  {command}                                            # repose-h36m and two small networks
  {command} --backbones mixste-243 --workers 0 4 --batch 8
  {command} --device cuda --backbones repose-h36m --batch 64 --steps 100
"""


@dataclass(frozen=True)
class Setting:
    """How a network is trained here."""

    batch: int
    steps: int
    data: dict[str, object]


#: batches and steps that a CPU can do in a minute or so
SETTINGS = {
    "repose-h36m": Setting(2, 8, {"window": 243, "stride": 81}),
    "repose-tiny": Setting(16, 60, {"window": 27, "stride": 9}),
    "simplebaseline-16j": Setting(64, 200, {"window": 1, "stride": 1, "target": "camera"}),
}
_OTHER = Setting(2, 8, {})


def parse_arguments(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The command line."""
    parser = command.Parser(prog, __doc__, EPILOG)
    parser.add_argument("--backbones", nargs="+", metavar="NAME", default=list(SETTINGS), help="default: three")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2], metavar="N", help="default: 0 2")
    parser.add_argument(
        "--batch", type=command.positive(int), metavar="N", help="windows per step; default: by network"
    )
    parser.add_argument(
        "--steps", type=command.positive(int), metavar="N", help="steps of a round; default: by network"
    )
    command.add_measurement(parser, rounds=3)
    args = command.parse_measurement(parser, argv)
    if min(args.workers) < 0:
        parser.error(f"--workers: {min(args.workers)} is negative")
    return args


def main(argv: Sequence[str] | None = None, prog: str = "bench.loader") -> int:
    return command.carry_out(parse_arguments(argv, prog), prog, benchmark)


def benchmark(args: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    """Tidy rows, wait and step of every network and number of workers, and their table."""
    from structloss.data import generate_clips, observe, save_store

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "motion.poses"
        tables.note_progress("making motion")
        save_store(observe(generate_clips(8, 4, 500, seed=0), views=4), store)
        for name in args.backbones:
            setting = SETTINGS.get(name, _OTHER)
            found: dict[int, list[tuple[float, float]]] = {workers: [] for workers in args.workers}
            for number in range(args.rounds):
                for workers in args.workers:
                    tables.note_progress(f"{name}, {workers} workers, round {number + 1}/{args.rounds}")
                    found[workers].append(wait_and_step(name, setting, str(store), workers, args))
            for workers, rounds in found.items():
                rows += rows_of(name, setting, workers, rounds, args)
    return rows, markdown(rows, args)


def wait_and_step(
    name: str, setting: Setting, store: str, workers: int, args: argparse.Namespace
) -> tuple[float, float]:
    """Median seconds of waiting for a batch, and of the step itself."""
    import lightning as L
    from lightning.pytorch.profilers import SimpleProfiler

    from structloss.data import MotionDataModule
    from structloss.harness.lifting import LiftingModule
    from structloss.harness.recipe_files import recipe_settings
    from structloss.harness.training import quiet_lightning

    model, data = recipe_settings(name)
    data = {**data, **setting.data, "data": store, "batch_size": args.batch or setting.batch, "num_workers": workers}
    model["target"] = data.get("target", "global")
    steps = (args.steps or setting.steps) + _WARM_UP
    profiler = SimpleProfiler()
    with quiet_lightning():
        trainer = L.Trainer(
            max_steps=steps,
            max_epochs=-1,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            accelerator="gpu" if args.device == "cuda" else "cpu",
            devices=1,
            profiler=profiler,
        )
        trainer.fit(LiftingModule(**model), datamodule=MotionDataModule(**data, progress=False))
    waits, work = (profiler.recorded_durations[key][_WARM_UP:steps] for key in (_WAIT, _STEP))
    return statistics.fmean(waits), statistics.fmean(work)


def rows_of(
    name: str, setting: Setting, workers: int, rounds: Sequence[tuple[float, float]], args: argparse.Namespace
) -> list[dict[str, object]]:
    """Tidy rows of one network and number of workers; spreads are over rounds."""
    shape = Shape(args.batch or setting.batch, int(setting.data.get("window", 243)), 17)
    common = tables.common_columns(f"data_wait {name}", f"workers={workers}", "training", shape, args)
    figures = {
        ("wait", "ms"): [1e3 * wait for wait, _ in rounds],
        ("step", "ms"): [1e3 * step for _, step in rounds],
        ("wait_share", "%"): [100 * wait / (wait + step) for wait, step in rounds],
    }
    rows = []
    for (metric, unit), values in figures.items():
        p20, p50, p80 = measure.percentiles(dict(enumerate(values)))
        rows.append(common | {"metric": metric, "unit": unit, "p20": p20, "p50": p50, "p80": p80})
    return rows


def markdown(rows: Sequence[dict[str, object]], args: argparse.Namespace) -> str:
    """One line per network and number of workers."""
    found = {(row["op"], row["provider"], row["metric"]): row for row in rows}
    lines = []
    for op, provider in dict.fromkeys((row["op"], row["provider"]) for row in rows):
        wait, step, share = (found[op, provider, metric] for metric in ("wait", "step", "wait_share"))
        name, workers = str(op).partition(" ")[2], str(provider).partition("=")[2]
        cells = [name, workers, f"{wait['B']} x {wait['T']}", *map(tables.spread, (wait, step))]
        lines.append([*cells, f"{tables.figure(share['p50'])} %"])
    heads = ["network", "workers", "windows x frames", "wait, ms (p20–p80)", "step, ms (p20–p80)", "waiting"]
    return f"\n### Waiting for data\n\n{tables.table(heads, lines)}\n\n{tables.conditions(args)}.\n"


if __name__ == "__main__":
    sys.exit(main())
