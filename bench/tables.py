"""What a benchmark writes: tidy rows as CSV, Markdown tables, and the conditions under which it ran."""

from __future__ import annotations

import argparse
import csv
import datetime
import functools
import importlib.metadata
import io
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

import structloss

from .inputs import Shape
from .providers import PROVIDERS, Op

__all__ = [
    "COLUMNS",
    "common_columns",
    "conditions",
    "crossover_markdown",
    "csv_text",
    "figure",
    "markdown",
    "note_progress",
    "per_frame_markdown",
    "spread",
    "table",
    "write_atomically",
]

COLUMNS = (
    *("op", "provider", "mode", "metric", "unit", "B", "T", "J", "dtype", "p20", "p50", "p80", "ratio"),
    *("threads", "device", "versions", "date", "note"),
)
MODE_TITLES = {"forward+backward": "forward + backward", "forward": "forward"}
Row = Mapping[str, object]


# ---- conditions --------------------------------------------------------------------------------------------------


def device_name(device: str) -> str:
    """The model of the CPU or GPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


@functools.cache
def versions(device: str = "cpu") -> str:
    """Versions of what takes part, on one line."""
    parts = [f"structloss {structloss.__version__}", f"torch {torch.__version__}"]
    for package in ("pykeops", "triton"):
        try:
            parts.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    driver = [f"driver {found}"] if device == "cuda" and (found := _driver()) else []
    return ", ".join([*parts, f"Python {platform.python_version()}", *driver])


def _driver() -> str:
    """The GPU driver's version, or "" where nvidia-smi doesn't tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.partition("\n")[0].strip()


def conditions(args: argparse.Namespace, threads: str = "") -> str:
    """The line under every table; `threads` where there is more than one number of them."""
    threads = threads or f"{args.threads} thread{'s' if args.threads > 1 else ''}"
    today = datetime.date.today().isoformat()
    return f"{device_name(args.device)}, {threads}, {versions(args.device)}, {args.rounds} interleaved rounds, {today}"


def note_progress(line: str) -> None:
    """Show a line on a terminal, over the one before."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line[:110]}", end="", file=sys.stderr, flush=True)


# ---- rows --------------------------------------------------------------------------------------------------------


def common_columns(op: str, provider: str, mode: str, shape: Shape, args: argparse.Namespace) -> dict[str, object]:
    """A row without its figures."""
    return dict.fromkeys(COLUMNS, "") | {
        "op": op,
        "provider": provider,
        "mode": mode,
        "B": shape.batch,
        "T": shape.frames,
        "J": shape.joints,
        "dtype": args.dtype,
        "threads": args.threads,
        "device": device_name(args.device),
        "versions": versions(args.device),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def csv_text(rows: Iterable[Row]) -> str:
    """Rows as CSV, floats to six significant digits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return out.getvalue()


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is either whole or not there."""
    with tempfile.NamedTemporaryFile("w", dir=path.resolve().parent, delete=False, newline="") as file:
        try:
            file.write(text)
            file.close()
            Path(file.name).chmod(0o644)  # temporary files are private
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


# ---- Markdown ----------------------------------------------------------------------------------------------------


def figure(value: object) -> str:
    """Three significant digits, no exponent."""
    if value in ("", None):
        return "–"
    value = float(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(row: Row) -> str:
    """Median (20th–80th percentile)."""
    return f"{figure(row['p50'])} ({figure(row['p20'])}–{figure(row['p80'])})"


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column is text, the others numbers."""
    text = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return "\n".join([*text, *("| " + " | ".join(cells) + " |" for cells in lines)])


def _reasons(left_out: Iterable[tuple[str, str, str]]) -> str:
    """(provider, what, reason) as a list, the same reason once per provider."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, what, reason in left_out:
        reasons.setdefault((name, reason), []).append(what)
    lines = (f"- `{name}`, {' and '.join(dict.fromkeys(w))}: {reason}" for (name, reason), w in reasons.items())
    return "".join(f"\n{line}" for line in lines)


def markdown(rows: Sequence[Row], op: Op, modes: Sequence[str], memory: bool, line: str) -> str:
    """The table of one shape, with the conditions under it."""
    by_key = {(row["provider"], row["mode"], row["metric"]): row for row in rows}
    heads = ["provider"]
    for mode in modes:
        heads += [f"{MODE_TITLES[mode]}, ms (p20–p80)", f"× faster than {op.baseline_title}"]
        heads += ["peak extra memory, MB"] if memory else []
    lines, left_out = [], []
    for name in dict.fromkeys(row["provider"] for row in rows):
        cells, errors = [f"{PROVIDERS[name].summary} (`{name}`)"], []
        for mode in modes:
            time, extra, error = (by_key.get((name, mode, m)) for m in ("time", "peak_extra_memory", "error"))
            if error and error["p50"] != "":
                errors.append(error["p50"])
            if time is None or time["p50"] == "":
                reason = str(time["note"] if time else "skipped")
                cells += [reason.partition(":")[0], "–"] + (["–"] if memory else [])
                left_out.append((name, MODE_TITLES[mode], reason))
                continue
            cells += [spread(time), figure(time["ratio"])]
            cells += [figure(extra["p50"] if extra else "")] if memory else []
            if extra and extra["p50"] == "":
                left_out.append((name, MODE_TITLES[mode], str(extra["note"])))
        lines.append([*cells, (f"{max(errors):.0e}" if any(errors) else "0") if errors else "–"])
    shape = Shape(rows[0]["B"], rows[0]["T"], rows[0]["J"])
    heading = f"### {op.title}: {shape}, {rows[0]['dtype']}"
    return f"\n{heading}\n\n{table([*heads, 'relative error'], lines)}\n\n{line}.{_reasons(left_out)}\n"


def per_frame_markdown(rows: Sequence[Row], op: Op, modes: Sequence[str], memory: bool, line: str) -> str:
    """One line per provider and clip length."""
    by_key = {(row["provider"], row["B"], row["T"], row["J"], row["mode"], row["metric"]): row for row in rows}
    shapes = list(dict.fromkeys((row["B"], row["T"], row["J"]) for row in rows))
    heads = ["provider", "T", "B", "J"]
    for mode in modes:
        heads += [f"{MODE_TITLES[mode]}, ns per frame (p20–p80)", f"× that at T = {shapes[0][1]}"]
        heads += ["peak extra memory, MB"] if memory else []
    heads += ["size of `pred`, MB"] if memory else []
    lines, left_out = [], []
    for name in dict.fromkeys(row["provider"] for row in rows):
        own = [row for row in rows if row["provider"] == name]
        if all(row["p50"] == "" for row in own):  # one line with the reason instead of one per length
            left_out += [(name, "every T", str(row["note"])) for row in own]
            continue
        for batch, frames, joints in shapes:
            cells = [f"`{name}`", str(frames), str(batch), str(joints)]
            for mode in modes:
                key = name, batch, frames, joints, mode
                time, extra = (by_key.get((*key, metric)) for metric in ("time_per_frame", "peak_extra_memory"))
                if time is None or time["p50"] == "":
                    reason = str(time["note"] if time else "skipped")
                    cells += [reason.partition(":")[0], "–"] + (["–"] if memory else [])
                    left_out.append((name, f"T = {frames}", reason))
                    continue
                cells += [spread(time), figure(time["ratio"])]
                cells += [figure(extra["p50"] if extra else "")] if memory else []
                if extra and extra["p50"] == "":
                    left_out.append((name, f"T = {frames}", str(extra["note"])))
            itemsize = getattr(torch, str(rows[0]["dtype"])).itemsize
            cells += [figure(3 * batch * frames * joints * itemsize / 1e6)] if memory else []
            lines.append(cells)
    heading = f"### {op.title}, time per frame, {rows[0]['dtype']}"
    return f"\n{heading}\n\n{table(heads, lines)}\n\n{line}.{_reasons(left_out)}\n"


def crossover_markdown(rows: Sequence[Row], modes: Sequence[str], line: str) -> str:
    """Time per element of ranking_hinge over the length of its rows."""
    lengths = list(dict.fromkeys(row["T"] for row in rows))
    by_key = {(row["T"], row["provider"], row["mode"]): row for row in rows}
    columns = [
        (name, mode)
        for name in dict.fromkeys(row["provider"] for row in rows)
        for mode in modes
        if any(by_key[length, name, mode]["p50"] != "" for length in lengths)
    ]
    heads = ["N", *(f"`{name}`, {MODE_TITLES[mode]}" for name, mode in columns)]
    lines = [[str(n), *(figure(by_key[(n, *key)]["p50"]) for key in columns)] for n in lengths]
    notes = dict.fromkeys((row["provider"], row["note"]) for row in rows if row["note"])
    listed = "".join(f"\n- `{name}`: {note}" for name, note in notes)
    heading = f"### ranking_hinge, ns per element over the length N of a row, {rows[0]['dtype']}"
    return f"\n{heading}\n\n{table(heads, lines)}\n\n{line}.{listed}\n"
