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
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

from . import providers, tables
from .command import Parser, positive
from .crossover import crossover
from .inputs import Shape
from .losses import measure_shape, rows_of
from .per_frame import per_frame
from .providers import MODES, OPS
from .tables import conditions, note_progress

SWEEP = (
    *(Shape(1, frames, 17) for frames in (27, 81, 243, 1024, 4096, 16384, 65536)),
    *(Shape(batch, 243, 17) for batch in (8, 32, 128)),
    *(Shape(1, 243, joints) for joints in (8, 32, 68, 133)),
    Shape(1, 27, 133),
)
# The same number of frames at every length, so that the cost of a call is spread over as many.
PER_FRAME = tuple(Shape(round(65536 / frames), frames, 17) for frames in (243, 1024, 4096, 16384, 65536))
TESTS = Path(__file__).resolve().parents[1] / "tests"

EPILOG = """\
columns of the CSV: one row per op, provider, mode, metric and shape. metric is time (ms), peak_extra_memory (MB), error
(largest relative error against the float64 definition, of the loss for mode forward, of loss and gradient for
forward+backward), time_per_frame (ns) or time_per_element (ns). ratio says how many times less than the baseline's it
is, time ratios being medians over the rounds; of time_per_frame, how many times that of the first shape it is. The
baseline is algorithm12, repose-eager for --op repose, or mpjpe-eager for --op objective. A row without figures has the
reason in note. For op ranking_hinge, B is the number of rows and T their length.

examples:
  {command}                                          # L_S + L_T of 8 clips of 243 frames, all providers
  {command} --op objective                           # seven terms, against MPJPE alone
  {command} --sweep --csv sweep.csv --plot sweep.png # over clips, frames and joints
  {command} --op objective --per-frame               # time per frame, T = 243 to 65536
  {command} --shapes 1,243,17 1,65536,17 --providers torch cpp
  {command} --crossover --providers cpp              # time per element of one row, over its length
  {command} --op parts --help                        # render_parts has shapes and providers of its own
  {command} --device cuda --shapes 2048,243,17
  {command} --quick --no-tests                       # a first look, in a minute
{step}"""


def shape_argument(text: str) -> Shape:
    """8,243,17 -> Shape."""
    found = re.fullmatch(r"(\d+),(\d+),(\d+)", text)
    if not found or "0" in (sizes := found.groups()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape, expected B,T,J such as 8,243,17")
    return Shape(*map(int, sizes))


def parse_arguments(argv: Sequence[str] | None, prog: str = "bench.run") -> argparse.Namespace:
    more = f"  {prog} step --help                              # within a training step\n"
    parser = Parser(prog, __doc__, EPILOG, step="" if prog.startswith("bench.") else more)
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
        help="time per frame over T, all lengths interleaved; default: T 243 to 65536, with 65536 frames each",
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
    how.add_argument("--budget", type=positive(float), metavar="S", help="seconds per provider and mode, default 20")
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


def _wants_parts(argv: Sequence[str]) -> bool:
    """Whether the operator is the other one, whose benchmark has shapes and providers of its own."""
    return any(flag == "--op" and name == "parts" for flag, name in pairwise(argv)) or "--op=parts" in argv


def main(argv: Sequence[str] | None = None, prog: str = "bench.run") -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if _wants_parts(given):
        from . import parts

        at = given.index("--op=parts") if "--op=parts" in given else given.index("--op")
        return parts.main(given[:at] + given[at + 1 + (given[at] == "--op") :], prog=f"{prog} --op parts")
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
            f"{prog}: the tests are not here: only the check against the float64 definition runs.",
            file=sys.stderr,
        )
    rows, right = run(args)
    if args.json:
        text = json.dumps({"conditions": conditions(args), "rows": rows}, indent=1)
        tables.write_atomically(args.json, text + "\n")
    if args.plot:
        from . import plot

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
