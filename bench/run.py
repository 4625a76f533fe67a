"""Benchmark of the depth-ranking losses L_S + L_T against other ways to compute them.

Every way is compared with the float64 definition before it is timed, and the operators' tests run first; a wrong one is
not timed and makes the exit code 1. How time and memory are measured: bench/measure.py; what is measured:
bench/providers.py.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import measure
import providers
import torch
from providers import MODES, Shape, WrongError

import structloss

COLUMNS = (
    *("op", "provider", "mode", "metric", "unit", "B", "T", "J", "dtype", "p20", "p50", "p80", "ratio"),
    *("threads", "device", "versions", "date", "note"),
)
BASELINE = "algorithm12"
DEFAULT_SHAPES = (Shape(8, 243, 17),)
SWEEP = (
    *(Shape(1, frames, 17) for frames in (27, 81, 243, 1024, 4096)),
    *(Shape(batch, 243, 17) for batch in (8, 32)),
    Shape(1, 27, 133),
)
CROSSOVER_LENGTHS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
CROSSOVER_ELEMENTS = 1 << 17
ROOT = Path(__file__).resolve().parents[1]

EPILOG = """\
columns of the CSV: one row an op, provider, mode, metric and shape. metric is time (ms), peak_extra_memory (MB) or
time_per_element (ns); ratio says how many times less than algorithm12's it is, time ratios being medians over the
rounds; a row without figures has the reason in note. For op ranking_hinge, B is the number of rows and T their length.

examples:
  python bench/run.py                                          # 8 clips of 243 frames, all providers
  python bench/run.py --sweep --csv sweep.csv --plot sweep.png # over clips, frames and joints
  python bench/run.py --shapes 1,243,17 1,65536,17 --providers torch cpp
  python bench/run.py --crossover --providers cpp              # time per element of one row, over its length
  python bench/run.py --device cuda --shapes 2048,243,17
  python bench/run.py --quick --no-tests                       # a minute's look
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: error: {message}\n")


@dataclass
class Result:
    """What came out for one provider and shape: seconds by mode and round, megabytes by mode, or why not."""

    times: dict[str, dict[int, float]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # by mode
    wrong: bool = False


# ---- command line ------------------------------------------------------------------------------------------------


def shape_argument(text: str) -> Shape:
    """8,243,17 -> Shape."""
    found = re.fullmatch(r"(\d+),(\d+),(\d+)", text)
    if not found or "0" in (sizes := found.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape, expected B,T,J such as 8,243,17")
    return Shape(*map(int, sizes))


def positive(kind: type) -> object:
    """Parser of a number > 0."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a positive {'integer' if kind is int else 'number'}")
        return value

    return parse


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="run.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what")
    what.add_argument("--shapes", nargs="+", type=shape_argument, metavar="B,T,J", help="default: 8,243,17")
    what.add_argument("--sweep", action="store_true", help="preset of shapes: B 1 to 32, T 27 to 4096, J 17 and 133")
    what.add_argument("--crossover", action="store_true", help="ranking_hinge of single rows over their length instead")
    what.add_argument(
        "--providers", nargs="+", metavar="NAME", help=f"some of {', '.join(providers.PROVIDERS)}; default: all"
    )
    what.add_argument("--modes", nargs="+", choices=MODES, help="default: both")
    what.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    how = parser.add_argument_group("how")
    how.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    how.add_argument("--threads", type=positive(int), metavar="N", help="default: torch's")
    how.add_argument("--rounds", type=positive(int), metavar="N", help="turns of each provider, default 30")
    how.add_argument("--budget", type=positive(float), metavar="S", help="seconds a provider and mode, default 20")
    how.add_argument("--memory-limit", type=positive(float), metavar="GB", help="default: half of the free memory")
    how.add_argument("--no-memory", action="store_true", help="don't measure peak memory")
    how.add_argument("--no-tests", dest="run_tests", action="store_false", help="skip tests/test_objective.py")
    how.add_argument("--run-tests", dest="run_tests", action="store_true", default=True, help="the default")
    how.add_argument(
        "--quick", action="store_true", help="3 rounds, forward + backward only, no memory: not for figures"
    )
    output = parser.add_argument_group("output (a Markdown table is always printed)")
    output.add_argument("--csv", type=Path, metavar="PATH", help="tidy rows")
    output.add_argument("--json", type=Path, metavar="PATH", help="the same rows and the conditions")
    output.add_argument("--plot", type=Path, metavar="PATH", help="time and memory over T")
    args = parser.parse_args(argv)

    for name in args.providers or ():
        if name not in providers.PROVIDERS:
            parser.error(f"unknown provider {name!r}, expected some of {', '.join(providers.PROVIDERS)}")
    if args.crossover and (args.shapes or args.sweep or args.plot):
        parser.error("--crossover has its own shapes and no plot, so it excludes --shapes, --sweep and --plot")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU")
    for option in ("csv", "json", "plot"):
        path = getattr(args, option)
        if path is not None and not path.resolve().parent.is_dir():
            parser.error(f"--{option}: the directory {path.parent} doesn't exist")
    for module, needed in (("pytest", args.run_tests), ("matplotlib", args.plot is not None)):
        if needed and importlib.util.find_spec(module) is None:
            parser.error(f"{module} is not installed" + ("; --no-tests does without" if module == "pytest" else ""))
    args.shapes = tuple(dict.fromkeys((*(args.shapes or ()), *(SWEEP if args.sweep else ())))) or DEFAULT_SHAPES
    args.modes = tuple(args.modes or (MODES[:1] if args.quick else MODES))
    args.rounds = args.rounds or (3 if args.quick else 30)
    args.budget = args.budget or (2.0 if args.quick else 20.0)
    args.no_memory = args.no_memory or args.quick
    args.threads = args.threads or torch.get_num_threads()
    return args


# ---- conditions --------------------------------------------------------------------------------------------------


def device_name(device: str) -> str:
    """The model of the CPU or GPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def versions() -> str:
    """Versions of what takes part, on one line."""
    parts = [f"structloss {structloss.__version__}", f"torch {torch.__version__}"]
    for package in ("pykeops", "triton"):
        try:
            parts.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def conditions(args: argparse.Namespace) -> str:
    """The line under every table."""
    threads = f"{args.threads} thread{'s' if args.threads > 1 else ''}"
    today = datetime.date.today().isoformat()
    return f"{device_name(args.device)}, {threads}, {versions()}, {args.rounds} interleaved rounds, {today}"


def note_progress(line: str) -> None:
    """Show a line on a terminal, over the one before."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line[:110]}", end="", file=sys.stderr, flush=True)


# ---- measuring ---------------------------------------------------------------------------------------------------


def measure_shape(shape: Shape, args: argparse.Namespace) -> dict[str, Result]:
    """Check, then time and weigh, the chosen providers at one shape."""
    dtype = getattr(torch, args.dtype)
    limit = args.memory_limit * 1e9 if args.memory_limit else measure.available_memory(args.device) / 2
    results: dict[str, Result] = {}
    calls: dict[str, dict[str, object]] = {mode: {} for mode in args.modes}
    pred, target = providers.make_input(shape, dtype, args.device)
    for name in args.providers or providers.PROVIDERS:
        provider, result = providers.PROVIDERS[name], Result()
        results[name] = result
        note_progress(f"{shape}: checking {name}")
        runnable = []
        for mode in args.modes:
            need = provider.memory_estimate(shape, mode, dtype.itemsize)
            if problem := provider.problem(args.device):
                result.notes[mode] = f"skipped: {problem}"
            elif need > limit:
                result.notes[mode] = f"skipped: needs up to {need / 1e9:.3g} GB, the limit is {limit / 1e9:.3g} GB"
            else:
                runnable.append(mode)
        if not runnable:
            continue
        try:
            loss = provider.build(args.device)
            # The check needs float64 and a backward pass, so it shortens clips that only a forward pass can take.
            checked = shape if "forward+backward" in runnable else shape._replace(frames=min(shape.frames, 256))
            providers.check(provider, loss, checked, dtype, args.device)
        except WrongError as error:
            result.wrong = True
            result.notes.update(dict.fromkeys(runnable, f"wrong: {error}"))
            continue
        except Exception as error:  # whatever a provider raises, the others go on
            result.notes.update(dict.fromkeys(runnable, f"skipped: it failed with {measure.one_line(error)}"))
            continue
        for mode in runnable:
            calls[mode][name] = providers.bind(loss, pred, target, mode)
    for mode in args.modes:
        times, failures = measure.interleave(
            calls[mode],
            args.rounds,
            args.budget,
            args.device,
            lambda line, mode=mode: note_progress(f"{shape}, {mode}: {line}"),
        )
        for name, found in times.items():
            results[name].times[mode] = found
        for name, reason in failures.items():
            results[name].notes[mode] = f"skipped: it failed with {reason}"
        if args.no_memory:
            continue
        for name in times:
            note_progress(f"{shape}, {mode}: memory of {name}")
            request = {"provider": name, "mode": mode, "shape": shape, "dtype": args.dtype, "threads": args.threads}
            try:
                if args.device == "cuda":
                    results[name].memory[mode] = measure.peak_of_call(calls[mode][name], "cuda") / measure.MEGABYTE
                else:
                    results[name].memory[mode] = measure.peak_in_fresh_process(request)
            except Exception as error:
                results[name].notes[mode] = f"memory not measured: {measure.one_line(error)}"
    note_progress("")
    return results


def rows_of(shape: Shape, results: Mapping[str, Result], args: argparse.Namespace) -> list[dict[str, object]]:
    """Tidy rows of one shape."""
    rows = []
    baseline = results.get(BASELINE, Result())
    for name, result in results.items():
        for mode in args.modes:
            common = common_columns(providers.PROVIDERS[name].op, name, mode, shape, args)
            note = result.notes.get(mode, "")
            times, memory = result.times.get(mode), result.memory.get(mode)
            if not times:
                rows.append(common | {"metric": "time", "unit": "ms", "note": note})
                continue
            p20, p50, p80 = (1e3 * x for x in measure.percentiles(times))
            ratio = measure.median_ratio(baseline.times.get(mode), times)
            rows.append(
                common
                | {"metric": "time", "unit": "ms", "p20": p20, "p50": p50, "p80": p80, "ratio": _or_empty(ratio)}
                | {"note": f"{len(times)} rounds"}
            )
            if memory is None:
                if note:
                    rows.append(common | {"metric": "peak_extra_memory", "unit": "MB", "note": note})
                continue
            most = baseline.memory.get(mode)
            ratio = most / memory if most and memory else None
            rows.append(
                common
                | {"metric": "peak_extra_memory", "unit": "MB", "p50": memory, "ratio": _or_empty(ratio)}
                | {"note": note}
            )
    return rows


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value


def common_columns(op: str, provider: str, mode: str, shape: Shape, args: argparse.Namespace) -> dict[str, object]:
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
        "versions": versions(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def crossover(args: argparse.Namespace) -> tuple[list[dict[str, object]], bool]:
    """Time per element of ranking_hinge over the length of its rows, and whether all was right."""
    dtype, rows, right = getattr(torch, args.dtype), [], True
    names = args.providers or ("torch", "cpp", "triton", "cuda")
    for length in CROSSOVER_LENGTHS:
        shape = Shape(CROSSOVER_ELEMENTS // length, length, 1)
        note_progress(f"rows of {length}: checking")
        p, d = (x[..., 0, 2].contiguous() for x in providers.make_input(shape, dtype, args.device))  # [rows, length]
        few = slice(0, 4)
        expected, expected_gradient = providers.definition_rows(p[few].cpu().double(), d[few].cpu().double())
        notes, calls = {}, {mode: {} for mode in args.modes}
        for name in names:
            if name not in ("torch", "cpp", "triton", "cuda"):
                notes[name] = "skipped: it isn't a backend of structloss.ranking_hinge"
                continue
            if problem := providers.PROVIDERS[name].problem(args.device):
                notes[name] = f"skipped: {problem}"
                continue

            def loss(pred: torch.Tensor, target: torch.Tensor, backend: str = name) -> torch.Tensor:
                return structloss.ranking_hinge(pred, target, reduction="sum", backend=backend)

            try:
                leaf = p[few].clone().requires_grad_()
                value = loss(leaf, d[few])
                (gradient,) = torch.autograd.grad(value, leaf)
                providers.compare("loss", f"rows of {length}", value, expected)
                providers.compare("gradient", f"rows of {length}", gradient, expected_gradient)
            except WrongError as error:
                right, notes[name] = False, f"wrong: {error}"
                continue
            except Exception as error:
                notes[name] = f"skipped: it failed with {measure.one_line(error)}"
                continue
            for mode in args.modes:
                calls[mode][name] = providers.bind(loss, p, d, mode)
        for mode in args.modes:
            times, failures = measure.interleave(
                calls[mode], args.rounds, args.budget, args.device, lambda line: note_progress(f"crossover: {line}")
            )
            notes |= {name: f"skipped: it failed with {reason}" for name, reason in failures.items()}
            for name in names:
                row = common_columns("ranking_hinge", name, mode, shape, args)
                row |= {"metric": "time_per_element", "unit": "ns", "note": notes.get(name, "")}
                if name in times:
                    values = measure.percentiles(times[name])
                    row |= {key: 1e9 * x / p.numel() for key, x in zip(("p20", "p50", "p80"), values, strict=True)}
                rows.append(row)
    note_progress("")
    return rows, right


# ---- output ------------------------------------------------------------------------------------------------------


def figure(value: object) -> str:
    """Three significant digits, no exponent."""
    if value in ("", None):
        return "–"
    value = float(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def markdown(rows: Sequence[Mapping[str, object]], modes: Sequence[str], memory: bool, line: str) -> str:
    """One table a shape, with the conditions under it."""
    if rows and rows[0]["op"] == "ranking_hinge":
        return _crossover_markdown(rows, modes, line)
    out = io.StringIO()
    titles = {"forward+backward": "forward + backward", "forward": "forward"}
    by_key = {(row["B"], row["T"], row["J"], row["provider"], row["mode"], row["metric"]): row for row in rows}
    for shape in dict.fromkeys(Shape(row["B"], row["T"], row["J"]) for row in rows):
        heads = ["provider"]
        for mode in modes:
            heads += [f"{titles[mode]}, ms (p20–p80)", "× faster than Algorithms 1 + 2"]
            heads += ["peak extra memory, MB"] if memory else []
        names = dict.fromkeys(row["provider"] for row in rows if Shape(row["B"], row["T"], row["J"]) == shape)
        print(f"\n### {shape}, {rows[0]['dtype']}\n", file=out)
        print("| " + " | ".join(heads) + " |", file=out)
        print("|---" + "|---:" * (len(heads) - 1) + "|", file=out)
        left_out = []
        for name in names:
            cells = [f"{providers.PROVIDERS[name].summary} (`{name}`)"]
            for mode in modes:
                time = by_key.get((*shape, name, mode, "time"))
                weight = by_key.get((*shape, name, mode, "peak_extra_memory"))
                if time is None or time["p50"] == "":
                    reason = str(time["note"] if time else "skipped")
                    cells += [reason.partition(":")[0], "–"] + (["–"] if memory else [])
                    left_out.append((name, titles[mode], reason))
                    continue
                spread = f"{figure(time['p20'])}–{figure(time['p80'])}"
                cells += [f"{figure(time['p50'])} ({spread})", figure(time["ratio"])]
                cells += [figure(weight["p50"] if weight else "")] if memory else []
                if weight and weight["p50"] == "":
                    left_out.append((name, titles[mode], str(weight["note"])))
            print("| " + " | ".join(cells) + " |", file=out)
        print(f"\n{line}.", file=out)
        reasons: dict[tuple[str, str], list[str]] = {}
        for name, mode, reason in left_out:
            reasons.setdefault((name, reason), []).append(mode)
        for (name, reason), which in reasons.items():
            print(f"- `{name}`, {' and '.join(which)}: {reason}", file=out)
    return out.getvalue()


def _crossover_markdown(rows: Sequence[Mapping[str, object]], modes: Sequence[str], line: str) -> str:
    out = io.StringIO()
    names = list(dict.fromkeys(row["provider"] for row in rows))
    by_key = {(row["T"], row["provider"], row["mode"]): row for row in rows}
    columns = [
        (name, mode) for name in names for mode in modes if any(by_key[t, name, mode]["p50"] != "" for t in _t(rows))
    ]
    print(f"\n### ranking_hinge, ns per element over the length N of a row, {rows[0]['dtype']}\n", file=out)
    print("| N |" + "".join(f" `{name}`, {mode} |" for name, mode in columns), file=out)
    print("|---:" * (len(columns) + 1) + "|", file=out)
    for length in _t(rows):
        print(f"| {length} |" + "".join(f" {figure(by_key[(length, *key)]['p50'])} |" for key in columns), file=out)
    print(f"\n{line}.", file=out)
    for name, note in dict.fromkeys((row["provider"], row["note"]) for row in rows if row["note"]):
        print(f"- `{name}`: {note}", file=out)
    return out.getvalue()


def _t(rows: Sequence[Mapping[str, object]]) -> list[object]:
    return list(dict.fromkeys(row["T"] for row in rows))


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


def csv_text(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as CSV, floats to six significant digits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    return out.getvalue()


def operator_tests_pass() -> bool:
    """Run the operators' tests; their output goes to stderr."""
    note_progress("running tests/test_objective.py")
    command = [sys.executable, "-m", "pytest", "tests/test_objective.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    note_progress("")
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
    return done.returncode == 0


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    # KeOps brings an OpenMP runtime of its own, which reads this when it is loaded.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    if args.run_tests and not operator_tests_pass():
        print("run.py: error: tests/test_objective.py fails, so nothing was timed.", file=sys.stderr)
        return 1
    rows: list[dict[str, object]] = []
    right = True
    if args.crossover:
        rows, right = crossover(args)
    for shape in () if args.crossover else args.shapes:
        results = measure_shape(shape, args)
        right &= not any(result.wrong for result in results.values())
        new = rows_of(shape, results, args)
        rows += new
        print(markdown(new, args.modes, not args.no_memory, conditions(args)), flush=True)
        if args.csv:  # after every shape: a long sweep that is interrupted keeps what it has
            write_atomically(args.csv, csv_text(rows))
    if args.crossover:
        print(markdown(rows, args.modes, False, conditions(args)))
        if args.csv:
            write_atomically(args.csv, csv_text(rows))
    if args.json:
        write_atomically(args.json, json.dumps({"conditions": conditions(args), "rows": rows}, indent=1) + "\n")
    if args.plot:
        import plot

        try:
            plot.plot(rows, args.plot)
        except (ValueError, OSError) as error:
            print(f"run.py: error: no plot: {error}", file=sys.stderr)
            return 1
    if not right:
        wrong = dict.fromkeys(str(row["provider"]) for row in rows if str(row["note"]).startswith("wrong"))
        print(f"run.py: error: wrong and therefore not timed: {', '.join(wrong)}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
