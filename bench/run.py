"""Benchmark of the depth-ranking losses L_S + L_T, and of a seven-term objective, against other ways to compute them.

Every way is compared with the float64 definition before it is timed, and the operators' tests run first; a wrong one is
not timed and makes the exit code 1. How time and memory are measured: bench/measure.py; what is measured:
bench/providers.py; the comparison: bench/definition.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import definition
import measure
import providers
import tables
import torch
from definition import WrongError
from inputs import Shape, make_input, make_many
from providers import MODES, OPS, Provider
from tables import common_columns, conditions, note_progress

import structloss

SWEEP = (
    *(Shape(1, frames, 17) for frames in (27, 81, 243, 1024, 4096, 16384, 65536)),
    *(Shape(batch, 243, 17) for batch in (8, 32, 128)),
    *(Shape(1, 243, joints) for joints in (8, 32, 68, 133)),
    Shape(1, 27, 133),
)
# The same number of frames at every length, so that the cost of a call is spread over as many.
PER_FRAME = tuple(Shape(round(65536 / frames), frames, 17) for frames in (243, 1024, 4096, 16384, 65536))
CROSSOVER_LENGTHS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
CROSSOVER_ELEMENTS = 1 << 17
# So many pairs take any provider a second or so.
QUICK_PAIRS = 20_000_000
TESTS = Path(__file__).resolve().parents[1] / "tests"

EPILOG = """\
columns of the CSV: one row an op, provider, mode, metric and shape. metric is time (ms), peak_extra_memory (MB), error
(largest relative error against the float64 definition, of the loss for mode forward, of loss and gradient for
forward+backward), time_per_frame (ns) or time_per_element (ns). ratio says how many times less than the baseline's it
is, time ratios being medians over the rounds; of time_per_frame, how many times that of the first shape it is. The
baseline is algorithm12, repose-eager for --op repose, or mpjpe-eager for --op objective. A row without figures has the
reason in note. For op ranking_hinge, B is the number of rows and T their length.

examples:
  {command}                                          # L_S + L_T of 8 clips of 243 frames, all providers
  {command} --op objective                           # seven terms, against MPJPE alone
  {command} --sweep --csv sweep.csv --plot sweep.png # over clips, frames and joints
  {command} --op objective --per-frame               # time a frame, T = 243 to 65536
  {command} --shapes 1,243,17 1,65536,17 --providers torch cpp
  {command} --crossover --providers cpp              # time an element of one row, over its length
  {command} --device cuda --shapes 2048,243,17
  {command} --quick --no-tests                       # a minute's look
{step}"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line.

    Args:
        prog: how the script was called: its file, or as a subcommand of `structloss bench`.
        description: shown by --help as it is.
        epilog: examples; `{command}` is what to type.
        blanks: what else stands in braces there.
    """

    def __init__(self, prog: str, description: str | None, epilog: str = "", **blanks: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog.format(command=f"python bench/{prog}" if prog.endswith(".py") else prog, **blanks),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_measurement(
    parser: argparse.ArgumentParser, *, rounds: int, budget: float | None = None, each: str = ""
) -> None:
    """Arguments about how to measure, which the views of steps, backbones and loaders share; without a `budget` those
    of time and memory are left out."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=positive(int), metavar="N", help="default: torch's")
    parser.add_argument("--rounds", type=positive(int), default=rounds, metavar="N", help=f"default {rounds}")
    if budget is not None:
        parser.add_argument(
            "--budget", type=positive(float), default=budget, metavar="S", help=f"seconds a {each}, default {budget:g}"
        )
        parser.add_argument("--no-memory", action="store_true", help="time only")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write tidy rows")


def parse_measurement(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse, and check what :func:`add_measurement` added."""
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU")
    if args.csv is not None and not args.csv.resolve().parent.is_dir():
        parser.error(f"--csv: the directory {args.csv.parent} doesn't exist")
    args.threads = args.threads or torch.get_num_threads()
    return args


@dataclass
class Result:
    """What came out for one provider and shape, or why not: by mode seconds of each round, megabytes, error, note."""

    times: dict[str, dict[int, float]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
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


def parse_arguments(argv: Sequence[str] | None, prog: str = "run.py") -> argparse.Namespace:
    more = f"  {prog} step --help                              # within a training step\n"
    parser = Parser(prog, __doc__, EPILOG, step="" if prog == "run.py" else more)
    what = parser.add_argument_group("what")
    what.add_argument("--op", choices=OPS, default="depth_ranking", help="default: depth_ranking, that is L_S + L_T")
    defaults = ", ".join(f"{','.join(map(str, op.default_shape))} for {name}" for name, op in OPS.items())
    what.add_argument(
        "--shapes", nargs="+", type=shape_argument, metavar="B,T,J", help=f"default: {defaults}; more clips on a GPU"
    )
    what.add_argument("--sweep", action="store_true", help="preset of shapes: B 1 to 128, T 27 to 65536, J 8 to 133")
    what.add_argument(
        "--per-frame",
        action="store_true",
        help="time a frame over T, all lengths interleaved; default: T 243 to 65536, with 65536 frames each",
    )
    what.add_argument("--crossover", action="store_true", help="ranking_hinge of single rows over their length instead")
    what.add_argument(
        "--providers", nargs="+", metavar="NAME", help=f"some of {', '.join(providers.PROVIDERS)}; default: the op's"
    )
    what.add_argument("--modes", nargs="+", choices=MODES, help="default: both")
    what.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    how = parser.add_argument_group("how")
    how.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    how.add_argument("--threads", type=positive(int), metavar="N", help="default: torch's")
    how.add_argument("--rounds", type=positive(int), metavar="N", help="turns of each provider, default 30")
    how.add_argument("--budget", type=positive(float), metavar="S", help="seconds a provider and mode, default 20")
    how.add_argument(
        "--time-limit", type=positive(float), default=10.0, metavar="S", help="skip slower calls, default 10"
    )
    how.add_argument("--memory-limit", type=positive(float), metavar="GB", help="default: half of the free memory")
    how.add_argument("--no-memory", action="store_true", help="don't measure peak memory")
    how.add_argument("--no-tests", dest="run_tests", action="store_false", help="skip the operators' tests (minutes)")
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
    if args.crossover and (args.shapes or args.sweep or args.plot or args.per_frame):
        parser.error(
            "--crossover has its own shapes and no plot, so it excludes --shapes, --sweep, --per-frame and --plot"
        )
    if args.per_frame and args.sweep:
        parser.error("--per-frame has shapes of its own, so it excludes --sweep")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU")
    for option in ("csv", "json", "plot"):
        path = getattr(args, option)
        if path is not None and not path.resolve().parent.is_dir():
            parser.error(f"--{option}: the directory {path.parent} doesn't exist")
    files = OPS[args.op].tests_on(args.device) if args.run_tests else ()
    args.tests = [TESTS / name for name in files if (TESTS / name).exists()]
    for module, needed in (("pytest", args.tests), ("matplotlib", args.plot is not None)):
        if needed and importlib.util.find_spec(module) is None:
            parser.error(f"{module} is not installed" + ("; --no-tests does without" if module == "pytest" else ""))
    shapes = (*(args.shapes or ()), *(SWEEP if args.sweep else ()))
    args.shapes = tuple(dict.fromkeys(shapes)) or (PER_FRAME if args.per_frame else (OPS[args.op].shape(args.device),))
    if args.providers is None:
        names = OPS[args.op].providers
        if args.per_frame:  # what grows with the square has no time a frame
            names = tuple(name for name in names if not providers.PROVIDERS[name].quadratic)
        args.providers = providers.BACKENDS if args.crossover else names
    args.modes = tuple(args.modes or (MODES[:1] if args.quick else MODES))
    args.rounds = args.rounds or (3 if args.quick else 30)
    args.budget = args.budget or (2.0 if args.quick else 20.0)
    args.no_memory = args.no_memory or args.quick
    args.threads = args.threads or torch.get_num_threads()
    return args


# ---- measuring ---------------------------------------------------------------------------------------------------


def prepare(provider: Provider, shape: Shape, args: argparse.Namespace) -> tuple[Result, dict[str, object]]:
    """Check one provider at one shape: its error or why it is left out, and the calls to be timed, by mode."""
    dtype, result = getattr(torch, args.dtype), Result()
    limit = args.memory_limit * 1e9 if args.memory_limit else measure.available_memory(args.device) / 2
    runnable = []
    for mode in args.modes:
        need = provider.memory_estimate(shape, mode, dtype.itemsize)
        if problem := provider.why_not(args.device, shape.joints):
            result.notes[mode] = f"skipped: {problem}"
        elif need > limit:
            result.notes[mode] = f"skipped: needs up to {need / 1e9:.3g} GB, the limit is {limit / 1e9:.3g} GB"
        else:
            runnable.append(mode)
    if not runnable:
        return result, {}
    try:
        loss = provider.build(args.device, shape.joints)
        for mode in tuple(runnable):
            seconds = predicted_seconds(provider, loss, shape, mode, dtype, args.device)
            if seconds > args.time_limit:
                runnable.remove(mode)
                result.notes[mode] = f"skipped: a call takes about {seconds:.0f} s, the limit is {args.time_limit:g} s"
        if not runnable:
            return result, {}
        # The check needs float64 and a backward pass, so it shortens clips that only a forward pass can take.
        checked = shape if "forward+backward" in runnable else shape._replace(frames=min(shape.frames, 256))
        errors = definition.check(loss, provider.terms, checked, dtype, args.device)
    except WrongError as error:
        result.wrong = True
        result.notes.update(dict.fromkeys(runnable, f"wrong: {error}"))
        return result, {}
    except Exception as error:  # whatever a provider raises, the others go on
        result.notes.update(dict.fromkeys(runnable, f"skipped: it failed with {measure.one_line(error)}"))
        return result, {}
    result.errors = {mode: errors[mode] for mode in runnable}
    pred, target = (make_many if args.device == "cuda" else make_input)(shape, dtype, args.device)
    return result, {mode: providers.bind(loss, pred, target, mode) for mode in runnable}


def predicted_seconds(
    provider: Provider,
    loss: providers.Loss,
    shape: Shape,
    mode: str,
    dtype: torch.dtype,
    device: str,
    pairs: int | None = None,
) -> float:
    """Seconds of a call at `shape`, told from one with shorter clips of so many pairs; 0 if `shape` is small itself."""
    short = definition.shortened(shape, pairs or QUICK_PAIRS)
    if short == shape:
        return 0.0
    call = providers.bind(loss, *make_input(short, dtype, device), mode)
    call()  # the first may compile
    seconds = measure.seconds_of(call, 1, device)
    return seconds * (shape.pairs / short.pairs if provider.quadratic else shape.elements / short.elements)


def weigh(name: str, shape: Shape, mode: str, call: object, args: argparse.Namespace) -> float:
    """Peak extra megabytes of a call."""
    if args.device == "cuda":
        return measure.peak_of_call(call, "cuda") / measure.MEGABYTE
    request = {"provider": name, "mode": mode, "shape": shape, "dtype": args.dtype, "threads": args.threads}
    return measure.peak_in_fresh_process(request)


def measure_shape(shape: Shape, args: argparse.Namespace) -> dict[str, Result]:
    """Check, then time and weigh, the chosen providers at one shape."""
    results: dict[str, Result] = {}
    calls: dict[str, dict[str, object]] = {mode: {} for mode in args.modes}
    for name in args.providers:
        note_progress(f"{shape}: checking {name}")
        results[name], found = prepare(providers.PROVIDERS[name], shape, args)
        for mode, call in found.items():
            calls[mode][name] = call
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
        for name in () if args.no_memory else times:
            note_progress(f"{shape}, {mode}: memory of {name}")
            try:
                results[name].memory[mode] = weigh(name, shape, mode, calls[mode][name], args)
            except Exception as error:
                results[name].notes[mode] = f"memory not measured: {measure.one_line(error)}"
    note_progress("")
    return results


def rows_of(shape: Shape, results: Mapping[str, Result], args: argparse.Namespace) -> list[dict[str, object]]:
    """Tidy rows of one shape."""
    rows = []
    baseline = results.get(OPS[args.op].baseline, Result())
    for name, result in results.items():
        for mode in args.modes:
            common = common_columns(providers.PROVIDERS[name].op, name, mode, shape, args)
            note = result.notes.get(mode, "")
            times, memory = result.times.get(mode), result.memory.get(mode)
            if times:
                p20, p50, p80 = (1e3 * x for x in measure.percentiles(times))
                ratio = measure.median_ratio(baseline.times.get(mode), times)
                rows.append(
                    common
                    | {"metric": "time", "unit": "ms", "p20": p20, "p50": p50, "p80": p80, "ratio": _or_empty(ratio)}
                    | {"note": f"{len(times)} rounds"}
                )
            else:
                rows.append(common | {"metric": "time", "unit": "ms", "note": note})
            if memory is not None:
                most = baseline.memory.get(mode)
                ratio = most / memory if most and memory else None
                rows.append(
                    common
                    | {"metric": "peak_extra_memory", "unit": "MB", "p50": memory, "ratio": _or_empty(ratio)}
                    | {"note": note}
                )
            elif times and note:
                rows.append(common | {"metric": "peak_extra_memory", "unit": "MB", "note": note})
            if mode in result.errors:
                rows.append(common | {"metric": "error", "unit": "relative", "p50": result.errors[mode]})
    return rows


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value


def per_frame(args: argparse.Namespace) -> tuple[list[dict[str, object]], bool]:
    """Time a frame and memory over the length of the clips, the shapes interleaved; and whether all was right."""
    results: dict[tuple[str, Shape], Result] = {}
    calls: dict[str, dict[tuple[str, Shape], object]] = {mode: {} for mode in args.modes}
    for name in args.providers:
        for shape in args.shapes:
            note_progress(f"{shape}: checking {name}")
            results[name, shape], found = prepare(providers.PROVIDERS[name], shape, args)
            for mode, call in found.items():
                calls[mode][name, shape] = call
    rows = []
    for mode in args.modes:
        named = {f"{name} at {shape}": (name, shape) for name, shape in calls[mode]}
        times, failures = measure.interleave(
            {label: calls[mode][key] for label, key in named.items()},
            args.rounds,
            args.budget,
            args.device,
            lambda line, mode=mode: note_progress(f"{mode}: {line}"),
        )
        by_key = {named[label]: found for label, found in times.items()}
        for label, reason in failures.items():
            results[named[label]].notes[mode] = f"skipped: it failed with {reason}"
        for (name, shape), result in results.items():
            common = common_columns(providers.PROVIDERS[name].op, name, mode, shape, args)
            row = common | {"metric": "time_per_frame", "unit": "ns", "note": result.notes.get(mode, "")}
            if (name, shape) not in by_key:
                rows.append(row)
                continue
            a_frame = {
                s: {r: 1e9 * x / (s.batch * s.frames) for r, x in by_key.get((name, s), {}).items()}
                for s in (args.shapes[0], shape)
            }
            row |= dict(zip(("p20", "p50", "p80"), measure.percentiles(a_frame[shape]), strict=True))
            row["ratio"] = _or_empty(measure.median_ratio(a_frame[shape], a_frame[args.shapes[0]]))
            row["note"] = f"{len(a_frame[shape])} rounds"
            rows.append(row)
            if not args.no_memory:
                note_progress(f"{shape}, {mode}: memory of {name}")
                row = common | {"metric": "peak_extra_memory", "unit": "MB"}
                try:
                    row["p50"] = weigh(name, shape, mode, calls[mode][name, shape], args)
                except Exception as error:
                    row["note"] = f"memory not measured: {measure.one_line(error)}"
                rows.append(row)
            rows.append(common | {"metric": "error", "unit": "relative", "p50": result.errors[mode]})
    note_progress("")
    return rows, not any(result.wrong for result in results.values())


def crossover(args: argparse.Namespace) -> tuple[list[dict[str, object]], bool]:
    """Time per element of ranking_hinge over the length of its rows, and whether all was right."""
    dtype, rows, right = getattr(torch, args.dtype), [], True
    names = args.providers
    for length in CROSSOVER_LENGTHS:
        shape = Shape(CROSSOVER_ELEMENTS // length, length, 1)
        note_progress(f"rows of {length}: checking")
        p, d = (x[..., 0, 2].contiguous() for x in make_input(shape, dtype, args.device))  # [rows, length]
        few = slice(0, 4)
        expected, expected_gradient = definition.hinge_rows(p[few].cpu().double(), d[few].cpu().double())
        notes, calls = {}, {mode: {} for mode in args.modes}
        for name in names:
            if name not in providers.BACKENDS:
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
                definition.compare("loss", f"rows of {length}", value, expected)
                definition.compare("gradient", f"rows of {length}", gradient, expected_gradient)
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


# ---- the command -------------------------------------------------------------------------------------------------


def operator_tests_pass(files: Sequence[Path]) -> bool:
    """Run the operators' tests; their output goes to stderr."""
    note_progress(f"running {', '.join(path.name for path in files)}")
    command = [sys.executable, "-m", "pytest", "-x", *map(str, files)]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True)
    note_progress("")
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
    return done.returncode == 0


def run(args: argparse.Namespace) -> tuple[list[dict[str, object]], bool]:
    """Measure, print tables and write the CSV; the rows, and whether all was right."""
    op, memory = OPS[args.op], not args.no_memory
    rows: list[dict[str, object]] = []
    if args.crossover:
        rows, right = crossover(args)
        print(tables.crossover_markdown(rows, args.modes, conditions(args)))
    elif args.per_frame:
        rows, right = per_frame(args)
        print(tables.per_frame_markdown(rows, op, args.modes, memory, conditions(args)))
    else:
        right = True
        for shape in args.shapes:
            results = measure_shape(shape, args)
            right &= not any(result.wrong for result in results.values())
            new = rows_of(shape, results, args)
            rows += new
            print(tables.markdown(new, op, args.modes, memory, conditions(args)), flush=True)
            if args.csv:  # after every shape: a long sweep that is interrupted keeps what it has
                tables.write_atomically(args.csv, tables.csv_text(rows))
    if args.csv:
        tables.write_atomically(args.csv, tables.csv_text(rows))
    return rows, right


def main(argv: Sequence[str] | None = None, prog: str = "run.py") -> int:
    args = parse_arguments(argv, prog)
    # KeOps brings an OpenMP runtime of its own, which reads this when it is loaded.
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    if args.tests and not operator_tests_pass(args.tests):
        names = ", ".join(f"tests/{path.name}" for path in args.tests)
        print(f"{prog}: error: {names}: tests fail, so nothing was timed.", file=sys.stderr)
        return 1
    if args.run_tests and not args.tests:
        print(
            f"{prog}: the tests are not installed here: only the check against the float64 definition runs.",
            file=sys.stderr,
        )
    rows, right = run(args)
    if args.json:
        text = json.dumps({"conditions": conditions(args), "rows": rows}, indent=1)
        tables.write_atomically(args.json, text + "\n")
    if args.plot:
        import plot

        try:
            plot.plot(rows, args.plot)
        except (ValueError, OSError) as error:
            print(f"{prog}: error: no plot: {error}", file=sys.stderr)
            return 1
    if not right:
        wrong = dict.fromkeys(str(row["provider"]) for row in rows if str(row["note"]).startswith("wrong"))
        print(f"{prog}: error: wrong and therefore not timed: {', '.join(wrong)}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
