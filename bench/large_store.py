"""What a pose store of many millions of frames costs: to open, until the first shuffled batch, per loader process.

    python -m bench.large_store --folder /tmp/large --out bench/results/large_store.md

Writes a synthetic store (20 GB at the default 50 million frames; it asks for 20 GB more of free disk), measures and
removes it. The frames are those of 16 views, over and over under new names: every frame is on the disk, and what
reads them does not know. The files are put out of the page cache before each measurement (`posix_fadvise`).

Each figure is of a fresh process that has imported torch and Lightning. Memory of a loader process is read from its
`/proc/PID/smaps_rollup` at the end of training: all that is dirty (`Private_Dirty + Shared_Dirty`), which leaves out
the files that it has mapped and not changed. What is shared is that of the process that it was forked from.
The growth is the difference to the same after its third batch.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from structloss.data import generate_clips, observe, open_store
from structloss.data.shards import SHARD_FRAMES, lay_out
from structloss.data.store import StoreFiles, write_description
from structloss.files import write_text

from . import tables

__all__ = ["main"]

_FRAMES = 1000  # of a view
_BYTES = 17 * (3 + 3) * 4
_SPARE = 20e9
_SMALL = 400_000  # frames of the store that the large one is compared with
#: what is trained on: a window around every frame, and what MotionBERT takes
_CUTS: dict[str, dict[str, Any]] = {
    "27 frames, around every frame": {"window": 27, "stride": 1, "sampling": "centred", "target": "camera"},
    "243 frames, every 81": {"window": 243, "stride": 81, "target": "camera"},
}


def make_store(path: Path, frames: int) -> float:
    """Write a store of that many frames; returns seconds."""
    began = time.perf_counter()
    seen = observe(generate_clips(4, 1, _FRAMES, seed=0), views=4)
    views = [
        replace(seen.views[n % 16], subject=f"P{n // 40:05d}", name=f"clip{n // 4}") for n in range(frames // _FRAMES)
    ]
    layout = lay_out([_FRAMES] * len(views), SHARD_FRAMES)
    path.mkdir(parents=True)
    crcs = []
    with StoreFiles(path, layout, ("input", "pose"), "h36m") as files:
        for number in range(len(views)):
            rows = slice(number % 16 * _FRAMES, (number % 16 + 1) * _FRAMES)
            crcs.append(files.write(number, {"input": seen.input[rows], "pose": seen.pose[rows]}))
            if number % 1000 == 0:
                tables.note_progress(f"writing, {number / len(views):.0%}")
    about = {"skeleton": "h36m", "temporal": True, "source": {"format": "clips", "protocol": "subjects"}}
    write_description(path, views, layout, crcs, ("input", "pose"), about)
    return time.perf_counter() - began


def forget(path: Path) -> None:
    """Put a store's files out of the page cache."""
    for file in path.rglob("*.npy"):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def measured(kind: str, path: Path, *arguments: str) -> dict[str, Any]:
    """Figures of a fresh process, without the files in the page cache."""
    forget(path)
    command = [sys.executable, "-m", "bench.large_store", "--measure", kind, str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench.large_store: {kind} failed: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def memory(pid: int) -> dict[str, float]:
    """Megabytes of a process by the kernel's names."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(size) / 1e3 for name, size in re.findall(r"^(\w+): +(\d+) kB", text, re.M)}


def own(pid: int) -> float:
    """Megabytes that belong to a process and to no file."""
    found = memory(pid)
    return found["Private_Dirty"] + found["Shared_Dirty"]


def measure_training(path: Path, cut: str, steps: int, batch: int) -> dict[str, Any]:
    """Open, time to the first batch and memory of the loader processes, in a training run of Lightning."""
    import multiprocessing

    import lightning as L
    import torch

    from structloss.data import MotionDataModule
    from structloss.harness.training import quiet_lightning

    began = time.perf_counter()
    store = open_store(path)
    opened = time.perf_counter() - began
    began, worked = time.perf_counter(), time.process_time()
    data = MotionDataModule(str(path), batch_size=batch, num_workers=2, progress=False, **_CUTS[cut])
    batches = iter(data.train_dataloader())
    next(batches)
    first, worked = time.perf_counter() - began, time.process_time() - worked
    del batches

    class Linear(L.LightningModule):
        """A network that takes no time, so that the loader processes work as fast as they can."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(51, 51)

        def training_step(self, batch: dict[str, Any]) -> Any:
            return (self.layer(batch["input"].flatten(2)) - batch["target"].flatten(2)).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-4)

    class Watch(L.Callback):
        def __init__(self) -> None:
            self.begun: dict[int, float] = {}
            self.ended: dict[int, dict[str, float]] = {}
            self.seconds = 0.0

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            workers = [process.pid for process in multiprocessing.active_children() if process.pid]
            if trainer.global_step == 3:
                self.begun, self.seconds = {pid: own(pid) for pid in workers}, time.perf_counter()
            if trainer.global_step == steps:
                self.ended = {pid: memory(pid) for pid in workers}
                self.seconds = time.perf_counter() - self.seconds

    watch = Watch()
    data = MotionDataModule(str(path), batch_size=batch, num_workers=2, progress=False, **_CUTS[cut])
    with quiet_lightning():
        trainer = L.Trainer(
            max_steps=steps, max_epochs=-1, limit_val_batches=0, logger=False, enable_checkpointing=False,
            enable_model_summary=False, enable_progress_bar=False, accelerator="cpu", devices=1, callbacks=[watch],
        )  # fmt: skip
        trainer.fit(Linear(), datamodule=data)
    ended = {pid: found for pid, found in watch.ended.items() if pid in watch.begun}
    dirty = {pid: now["Private_Dirty"] + now["Shared_Dirty"] for pid, now in ended.items()}
    return {
        "frames": store.frames, "views": len(store.views), "shards": len(list(path.glob("shard-*"))),
        "windows": len(data.train_dataset), "open": opened, "first": first, "worked": worked,
        "steps": steps, "batch": batch,
        "own": max(dirty.values()),
        "private": max(found["Private_Dirty"] for found in ended.values()),
        "clean": max(found["Private_Clean"] for found in ended.values()),
        "rss": max(found["Rss"] for found in ended.values()),
        "growth": max(now - watch.begun[pid] for pid, now in dirty.items()),
        "step": watch.seconds / (steps - 3),
    }  # fmt: skip


def measure_statistics(path: Path, views: int) -> dict[str, Any]:
    """Seconds and growth of the process of statistics over some views, and of the report's checks of bodies."""
    from structloss.data import PoseWindows
    from structloss.data.inspection import inspect_loaded

    store = open_store(path)
    names = {f"P{n:05d}" for n in range(views // 40)}
    part = store.select(lambda view: view.subject in names, "subject")
    windows = PoseWindows(part, "train", window=27, target="camera")
    found: dict[str, Any] = {"frames": part.frames}
    for key, call in (
        ("statistics", windows.statistics), ("report", lambda: inspect_loaded(part, "store", str(path)))
    ):  # fmt: skip
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before, began = _status("VmRSS"), time.perf_counter()
        call()
        found |= {key: time.perf_counter() - began, f"{key}_mb": _status("VmHWM") - before}
    return found


def _status(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert found is not None  # Linux
    return int(found[1]) / 1e3


def report(wrote: float, frames: int, runs: dict[str, list[dict[str, Any]]], parts: list[dict[str, Any]]) -> str:
    """The page."""
    load = os.getloadavg()[0]
    keys = (
        ("open", 1e3, "ms"),
        ("first", 1e3, "ms"),
        ("worked", 1e3, "ms"),
        *((key, 1, "MB") for key in ("own", "private", "growth", "clean")),
    )
    rows = [
        [
            cut,
            f"{found[0]['windows']:,}",
            *(_range([run[key] for run in found], factor, unit) for key, factor, unit in keys),
        ]
        for cut, found in runs.items()
    ]
    steps = [run["step"] for found in runs.values() for run in found]
    one = next(iter(runs.values()))[0]
    heads = [
        "windows",
        "of them",
        "open",
        "first batch",
        "CPU time of it",
        "own memory",
        "of it private",
        "growth",
        "clean pages",
    ]
    sums = [
        [f"{part['frames']:,}", *(f"{part[k]:.0f} s" for k in ("statistics",)), f"{part['statistics_mb']:.0f} MB",
         f"{part['report']:.0f} s", f"{part['report_mb']:.0f} MB"]
        for part in parts
    ]  # fmt: skip
    heads_of_sums = ["frames", "statistics()", "most memory", "data inspect", "most memory"]
    aside = (
        "What is not private is the training process's own, torch and Lightning above all, before it forked. The small "
        "store is what all that costs without much data."
    )
    made = f"{date.today().isoformat()}, {tables.device_name('cpu')} of {os.cpu_count()} cores, load average {load:.1f}"
    size = f"{one['views']:,} views and {one['shards']} shards, {frames * _BYTES / 1e9:.1f} GB"
    return (
        "# A store of many millions of frames\n\n"
        f"Made by `python -m bench.large_store` on {made}, {tables.versions()}. {frames:,} frames in {size}, "
        f"written in {wrote:.0f} s; files not in the page cache. Figures are least to most of the runs.\n\n"
        f"{tables.table(heads, rows)}\n\n"
        "Open: `open_store`. First batch: from `MotionDataModule(...)` to the first shuffled batch of "
        f"{one['batch']} windows, two loader processes being started; its CPU time is that of the training process. "
        f"Own memory: of a loader process after {one['steps']} training steps, `Private_Dirty + Shared_Dirty` of "
        f"`smaps_rollup`; the larger of two. {aside} A step of a linear layer took {_range(steps, 1e3, 'ms')}.\n\n"
        "Statistics and reports stream; memory is what the process grew by at its most:\n\n"
        f"{tables.table(heads_of_sums, sums)}\n"
    )


def _range(values: Sequence[float], factor: float, unit: str) -> str:
    low, high = (tables.figure(factor * value) for value in (min(values), max(values)))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.large_store", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the store is written (default: a temporary one)")
    parser.add_argument("--frames", type=int, default=50_000_000, help="default: 50 million")
    parser.add_argument("--steps", type=int, default=300, help="training steps (default: 300)")
    parser.add_argument("--batch", type=int, default=64, help="windows of a step (default: 64)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--out", type=Path, default=Path("bench/results/large_store.md"))
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure is not None:
        kind, path, *rest = given.measure
        if kind == "training":
            print(json.dumps(measure_training(Path(path), rest[0], int(rest[1]), int(rest[2]))))
        else:
            print(json.dumps(measure_statistics(Path(path), int(rest[0]))))
        return
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="large_store", dir=given.folder))
    try:
        free = shutil.disk_usage(folder).free
        if free < given.frames * _BYTES + _SPARE:
            raise SystemExit(
                f"bench.large_store: {folder} has {free / 1e9:.0f} GB free, expected 20 more than the store."
            )
        path = folder / "large.poses"
        wrote = make_store(path, given.frames)
        small = folder / "small.poses"
        make_store(small, _SMALL)
        wanted = {cut: (path, cut) for cut in _CUTS} | {
            f"27 frames of a store of {_SMALL:,}": (small, next(iter(_CUTS)))
        }
        runs: dict[str, list[dict[str, Any]]] = {what: [] for what in wanted}
        for number in range(given.rounds):
            for what, (store, cut) in wanted.items():
                tables.note_progress(f"{what}, run {number + 1}")
                runs[what].append(measured("training", store, cut, str(given.steps), str(given.batch)))
        views = given.frames // _FRAMES
        parts = [measured("statistics", path, str(size)) for size in (max(100, views // 500), max(100, views // 50))]
        write_text(given.out, report(wrote, given.frames, runs, parts))
        tables.note_progress("")
        print(given.out.read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
