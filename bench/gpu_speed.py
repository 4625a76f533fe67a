"""Speed of the fused backends on a GPU, against eager and compiled PyTorch and against copying the same bytes.

Every provider is compared with the float64 definition on some of the clips, and with the PyTorch backend on all of
them, before it is timed. Part of bench/gpu_check.sh, which doesn't ask for backends whose tests failed.

Columns of the table. Time: a call, forward + backward, enqueued one after another; small calls wait for Python, so
"replayed" is the same from a CUDA graph. "of the copy": time of a copy that moves as many bytes as the loss must (pred
and target read, the gradient written) over the time of the call; from a graph likewise. Inputs that would stay in the
L2 cache take turns with others. Extra memory: what torch's allocator hands out, gradient included, inputs not.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from . import command, definition, losses, measure, providers, tables
from .definition import WrongError
from .inputs import Shape, make_many
from .providers import PROVIDERS, Provider

MODE = "forward+backward"
# Compiling takes tens of seconds per shape, so only the first are compiled for.
MAIN = (Shape(2048, 243, 17), Shape(256, 243, 17), Shape(64, 243, 17))
OTHERS = tuple(Shape(batch, frames, 17) for frames in (81, 1024, 27, 4096) for batch in (256, 2048, 64))
MEMORY_SHARE = 0.6  # of the free memory that a provider may need
CALL_SECONDS = 0.3  # longest call of a provider that grows with the pairs
# So many pairs keep a GPU busy, and the time for more can be told from theirs.
BUSY_PAIRS = 200_000_000
MOST_SETS = 64
COPY_BYTES = 8 << 30
COPY = "copy"


class Case(NamedTuple):
    """One block of the table."""

    op: str
    shape: Shape
    dtype: str = "float32"
    compiled: bool = False

    @property
    def bytes(self) -> int:
        """What the loss must move at least: pred, target and gradient once."""
        return 3 * 3 * self.shape.elements * getattr(torch, self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.op} at {self.shape}, {self.dtype}"


PLAN = (
    *(Case("repose", shape, compiled=True) for shape in MAIN),
    *(Case("repose", shape, "bfloat16") for shape in MAIN[:2]),
    *(Case("objective", shape) for shape in MAIN[:2]),
    *(Case("repose", shape) for shape in OTHERS),
)
DRY_PLAN = (
    Case("repose", Shape(2, 27, 17)),
    Case("repose", Shape(2, 27, 17), "bfloat16"),
    Case("objective", Shape(1, 9, 17)),
    Case("repose", Shape(1, 33, 17)),
)


@dataclass
class Found:
    """What came out of a case: seconds of each round, megabytes, errors, and why something is missing."""

    times: dict[str, dict[int, float]] = field(default_factory=dict)
    replays: dict[str, dict[int, float]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def names_of(case: Case, args: argparse.Namespace) -> list[str]:
    """Providers of a case, in the table's order."""
    names = [f"{case.op}-eager", f"{case.op}-compiled"] if case.compiled else [f"{case.op}-eager"]
    return [*names, *(f"{case.op}-{backend}" for backend in args.backends), "mpjpe-eager"]


def backend_of(name: str) -> str:
    return name.rpartition("-")[2]


def why_not(provider: Provider, case: Case, args: argparse.Namespace) -> str:
    """Why it is left out before it is tried, or ""."""
    if backend_of(provider.name) in args.failed:
        return "not timed: its tests failed"
    if problem := provider.why_not(args.device, case.shape.joints):
        return f"skipped: {problem}"
    need = provider.memory_estimate(case.shape, MODE, getattr(torch, case.dtype).itemsize)
    limit = MEMORY_SHARE * measure.available_memory(args.device)
    if need > limit:
        return f"skipped: needs up to {need / 1e9:.3g} GB, the limit is {limit / 1e9:.3g} GB"
    return ""


def gradient_of(loss: providers.Loss, pred: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = pred.detach().requires_grad_()
    value = loss(leaf, target)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def prepare(case: Case, args: argparse.Namespace, found: Found) -> dict[str, list[Callable[[], object]]]:
    """Check the providers; name -> its call on each set of inputs."""
    dtype = getattr(torch, case.dtype)
    pred, target = make_many(case.shape, dtype, args.device)
    sets = min(max(math.ceil(3 * args.cache_bytes / case.bytes), 1), MOST_SETS, 2 * case.shape.batch)
    inputs = [(pred.roll(k, 0), target.roll(k, 0)) if k else (pred, target) for k in range(sets)]
    # The PyTorch backend goes first: the others are compared with it.
    names = sorted(names_of(case, args), key=lambda name: backend_of(name) != "torch")
    expected: list[torch.Tensor] = []
    calls = {}
    for name in names:
        tables.note_progress(f"{case}: checking {name}")
        try:
            provider = PROVIDERS[name]
            if reason := why_not(provider, case, args):
                found.notes[name] = reason
                continue
            loss = provider.build(args.device, case.shape.joints)
            if provider.quadratic and not name.endswith("-compiled"):
                seconds = losses.predicted_seconds(provider, loss, case.shape, MODE, dtype, args.device, BUSY_PAIRS)
                if seconds > CALL_SECONDS:
                    limit = f"the limit is {CALL_SECONDS:g} s"
                    found.notes[name] = f"skipped: a call takes about {seconds:.2g} s, {limit}"
                    continue
            # Plain PyTorch in bfloat16 is there for its speed: its own rounding isn't held against it.
            if dtype != torch.bfloat16 or backend_of(name) in args.backends:
                found.errors |= checked(name, loss, case, args, (pred, target), expected)
            calls[name] = [providers.bind(loss, *some, MODE) for some in inputs]
        except WrongError as error:
            found.notes[name] = f"wrong: {error}"
        except Exception as error:  # whatever a provider raises, the others go on
            found.notes[name] = f"skipped: it failed with {measure.one_line(error)}"
            clear_cache(args.device)
    return calls


def checked(
    name: str,
    loss: providers.Loss,
    case: Case,
    args: argparse.Namespace,
    inputs: tuple[torch.Tensor, torch.Tensor],
    expected: list[torch.Tensor],
) -> dict[str, float]:
    """The error of a provider by its name; raises WrongError.

    `expected` is the PyTorch backend's loss and gradient, and receives them from it.
    """
    terms, dtype = PROVIDERS[name].terms, getattr(torch, case.dtype)
    found = {}
    if not name.endswith("-compiled"):  # which would compile for every shape of the check
        found[name] = definition.check(loss, terms, case.shape, dtype, args.device)[MODE]
    if name == "mpjpe-eager":
        return found
    got = gradient_of(loss, *inputs)
    if backend_of(name) == "torch":
        expected[:] = [x.double() for x in got]
    elif expected:
        apart = definition.left_out(terms, case.shape)
        errors = [
            definition.compare("loss, compared with the PyTorch backend,", str(case.shape), got[0], expected[0]),
            definition.compare("gradient, compared likewise,", str(case.shape), got[1], expected[1], apart),
        ]
        found.setdefault(name, max(errors))
    elif not found:
        raise RuntimeError("there is nothing to compare it with")
    return found


def copies(total: int, sets: int, device: str) -> list[Callable[[], object]]:
    """Copies that move `total` bytes each, reading half and writing half."""

    def copy() -> Callable[[], object]:
        source = torch.rand(max(total // 8, 1), device=device)
        return functools.partial(torch.empty_like(source).copy_, source)

    return [copy() for _ in range(sets)]


def clear_cache(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()


def measure_case(case: Case, args: argparse.Namespace) -> Found:
    """Check, time and weigh the providers of one case, by turns."""
    found = Found()
    calls = prepare(case, args, found)
    sets = max((len(each) for each in calls.values()), default=1)
    copying = copies(case.bytes, sets, args.device)
    timed = {name: measure.in_turn(each) for name, each in {**calls, COPY: copying}.items()}
    replays: dict[str, int] = {}
    if args.device == "cuda":
        for name, each in {**calls, COPY: copying}.items():
            if name != COPY and backend_of(name) not in ("triton", "cuda"):
                continue
            tables.note_progress(f"{case}: capturing {name}")
            several = list(each) * max(8 // len(each), 1) if case.bytes < 1e9 else list(each)
            try:
                timed[f"{name} replayed"] = measure.replayed(several)
                replays[f"{name} replayed"] = len(several)
            except Exception as error:
                found.notes[name] = f"not captured in a CUDA graph: {measure.one_line(error)}"
    progress = functools.partial(_progress, str(case))
    times, failures = measure.interleave(timed, args.rounds, args.seconds, args.device, progress)
    for label, values in times.items():
        name = label.removesuffix(" replayed")
        if label in replays:
            found.replays[name] = {index: seconds / replays[label] for index, seconds in values.items()}
        else:
            found.times[name] = values
    for label, reason in failures.items():
        found.notes[label.removesuffix(" replayed")] = f"skipped: {label} failed with {reason}"
    timed.clear()  # graphs keep their memory
    for name in calls:
        if name in found.times and args.device == "cuda":
            try:
                found.memory[name] = measure.peak_of_call(calls[name][0], "cuda") / measure.MEGABYTE
            except Exception as error:
                found.notes[name] = f"memory not measured: {measure.one_line(error)}"
    calls.clear()
    copying.clear()
    clear_cache(args.device)
    tables.note_progress("")
    return found


def _progress(title: str, line: str) -> None:
    tables.note_progress(f"{title}: {line}")


def rows_of(case: Case, found: Found, args: argparse.Namespace) -> list[dict[str, object]]:
    """Tidy rows of one case, those of the copy first."""
    rows = []
    case_args = argparse.Namespace(**{**vars(args), "dtype": case.dtype})
    eager, compiled = f"{case.op}-eager", f"{case.op}-compiled"
    for name in (COPY, *names_of(case, args)):
        op = COPY if name == COPY else PROVIDERS[name].op
        common = tables.common_columns(op, name, COPY if name == COPY else MODE, case.shape, case_args)
        if name not in found.times:
            note = found.notes.get(name, "skipped: nothing was timed")
            rows.append(common | {"metric": "time", "unit": "ms", "note": note})
            continue
        for metric, times, copied in (
            ("time", found.times, found.times.get(COPY)),
            ("time_replayed", found.replays, found.replays.get(COPY)),
        ):
            if name not in times:
                continue
            row = common | {"metric": metric, "unit": "ms", "note": f"{len(times[name])} rounds"}
            if metric == "time" and name in found.notes:
                row["note"] += f"; {found.notes[name]}"
            row |= dict(zip(("p20", "p50", "p80"), (1e3 * x for x in measure.percentiles(times[name])), strict=True))
            row["ratio"] = losses.or_empty(measure.median_ratio(found.times.get(eager), times[name]))
            rows.append(row)
            if name == COPY:
                rate = case.bytes / measure.percentiles(times[name])[1] / 1e9
                rows.append(common | {"metric": metric.replace("time", "bandwidth"), "unit": "GB/s", "p50": rate})
            elif (share := measure.median_ratio(copied, times[name])) is not None:
                rows.append(common | {"metric": metric.replace("time", "share_of_copy"), "unit": "1", "p50": share})
        if (gain := measure.median_ratio(found.times.get(compiled), found.times[name])) is not None:
            rows.append(common | {"metric": "faster_than_compiled", "unit": "1", "p50": gain})
        for metric, unit, values in (
            ("peak_extra_memory", "MB", found.memory),
            ("error", "relative", found.errors),
        ):
            if name in values:
                rows.append(common | {"metric": metric, "unit": unit, "p50": values[name]})
    return rows


def skipped_rows(case: Case, args: argparse.Namespace, reason: str) -> list[dict[str, object]]:
    """A case that wasn't measured."""
    found = Found(notes=dict.fromkeys((COPY, *names_of(case, args)), f"skipped: {reason}"))
    return rows_of(case, found, args)


def largest_that_fits(case: Case, args: argparse.Namespace) -> Case | None:
    """The case with as many clips as Algorithms 1 and 2 have memory and time for, if these are fewer."""
    provider = PROVIDERS[f"{case.op}-eager"]
    batch = case.shape.batch
    while batch > 1:
        batch //= 2
        smaller = case._replace(shape=case.shape._replace(batch=batch), compiled=False)
        if not why_not(provider, smaller, args):
            return smaller
    return None


def peak_copy(args: argparse.Namespace) -> dict[str, object]:
    """The machine's copy bandwidth, with far more bytes than the cache holds."""
    total = min(COPY_BYTES, measure.available_memory(args.device) // 4) if args.device == "cuda" else 1 << 20
    (copy,) = copies(total, 1, args.device)
    seconds = [measure.seconds_of(copy, 3, args.device) for _ in range(7)]
    rates = {index: total / x / 1e9 for index, x in enumerate(seconds[2:])}
    row = tables.common_columns(COPY, "large copy", COPY, Shape(1, 1, 1), args) | {"B": "", "T": "", "J": ""}
    row |= {"metric": "bandwidth", "unit": "GB/s", "note": f"{total / 1e9:.3g} GB moved"}
    return row | dict(zip(("p20", "p50", "p80"), measure.percentiles(rates), strict=True))


# ---- the table ---------------------------------------------------------------------------------------------------

HEADS = (
    *("loss, dtype, B, T", "provider", "ms (p20–p80)", "× Algorithms 1 + 2", "× torch.compile", "of the copy"),
    *("replayed, ms", "replayed, of the copy", "extra memory, MB", "relative error"),
)


def markdown(rows: Sequence[Mapping[str, object]], args: argparse.Namespace) -> str:
    """The one table, with what was left out under it."""
    lines, left_out, conditions = [], [], []
    cases: dict[tuple[object, ...], dict[tuple[str, str], Mapping[str, object]]] = {}
    title: dict[tuple[object, ...], str] = {}
    for row in rows:
        if row["provider"] == "large copy":
            conditions.append(f"large copy: {tables.figure(row['p50'])} GB/s ({row['note']})")
            continue
        cases.setdefault(row["case"], {})[row["provider"], row["metric"]] = row
        title[row["case"]] = ", ".join(map(str, (row["case"][0], row["dtype"], row["B"], row["T"])))
    for case, found in cases.items():
        for name in dict.fromkeys(name for name, _ in found):

            def cell(metric: str, key: str = "p50", name: str = name, found: dict = found) -> str:
                row = found.get((name, metric))
                return tables.figure(row[key] if row else "")

            row = found[name, "time"]
            summary = "copy of the same bytes" if name == COPY else f"`{name}`"
            if row["p50"] == "":
                left_out.append((name, title[case], str(row["note"])))
                lines.append([title[case], summary, str(row["note"]).partition(":")[0], *"–––––––"])
                continue
            if ";" in str(row["note"]):
                left_out.append((name, title[case], str(row["note"]).partition("; ")[2]))
            error = found.get((name, "error"))
            cells = [tables.spread(row), cell("time", "ratio"), cell("faster_than_compiled"), cell("share_of_copy")]
            cells += [cell("time_replayed"), cell("share_of_copy_replayed"), cell("peak_extra_memory")]
            lines.append([title[case], summary, *cells, f"{error['p50']:.0e}" if error else "–"])
    reasons = "".join(f"\n- `{name}`, {where}: {reason}" for name, where, reason in left_out)
    note = f"L2 cache {args.cache_bytes / 1e6:.0f} MB, inputs that fit take turns" if args.cache_bytes else ""
    under = "; ".join(filter(None, [tables.conditions(args), *conditions, note]))
    return f"{tables.table(HEADS, lines)}\n\n{under}.{reasons}\n"


# ---- the command -------------------------------------------------------------------------------------------------


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.Parser("bench.gpu_speed", __doc__)
    parser.add_argument(
        "--budget", type=command.positive(float), default=240.0, metavar="S", help="seconds, default 240"
    )
    parser.add_argument("--csv", type=Path, metavar="PATH", help="tidy rows, written after every shape")
    parser.add_argument("--failed", nargs="*", default=[], metavar="BACKEND", help="backends not to be timed")
    parser.add_argument("--rounds", type=command.positive(int), metavar="N", help="turns of each provider, default 20")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU: tries this program")
    args = parser.parse_args(argv)
    args.device = "cpu" if args.dry_run else "cuda"
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; --dry-run does without")
    if args.csv is not None and not args.csv.resolve().parent.is_dir():
        parser.error(f"--csv: the directory {args.csv.parent} doesn't exist")
    args.backends = ("torch", "cpp") if args.dry_run else ("torch", "triton", "cuda")
    args.rounds = args.rounds or (3 if args.dry_run else 20)
    args.seconds = 0.2 if args.dry_run else 1.5  # per provider and case
    args.cache_bytes = 0 if args.dry_run else getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 64 << 20)
    args.threads, args.dtype = torch.get_num_threads(), "float32"
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    begin, rows, wrong = time.monotonic(), [peak_copy(args)], []
    todo = list(DRY_PLAN if args.dry_run else PLAN)
    while todo:
        case = todo.pop(0)
        key = {"case": (case.op, case.shape, case.dtype)}
        if time.monotonic() - begin > args.budget:
            new = skipped_rows(case, args, f"the {args.budget:.0f} s for the benchmark were over")
        else:
            try:
                found = measure_case(case, args)
            except Exception as error:  # such as too little memory for the input
                new = skipped_rows(case, args, f"it failed with {measure.one_line(error)}")
                clear_cache(args.device)
            else:
                new = rows_of(case, found, args)
                wrong += [name for name, note in found.notes.items() if note.startswith("wrong")]
                eager = f"{case.op}-eager"
                if case == PLAN[0] and eager not in found.times and (fewer := largest_that_fits(case, args)):
                    known = [other.shape for other in todo if other.op == case.op and other.dtype == case.dtype]
                    todo[:0] = [] if fewer.shape in known else [fewer]
        rows += [row | key for row in new]
        if args.csv:
            tables.write_atomically(args.csv, tables.csv_text(without_case(rows)))
    print(markdown(rows, args))
    if wrong:
        names = ", ".join(dict.fromkeys(wrong))
        print(f"bench.gpu_speed: error: wrong and therefore not timed: {names}.", file=sys.stderr)
    return 1 if wrong else 0


def without_case(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Rows with the columns of the CSV alone."""
    return [{key: value for key, value in row.items() if key != "case"} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
