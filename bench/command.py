"""What the benchmarks' command lines share: one-line errors, how to measure, and what is done with the rows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from structloss.errors import StructlossError

from . import measure, tables
from .definition import WrongError

__all__ = ["Parser", "add_measurement", "carry_out", "parse_measurement", "positive"]

Row = dict[str, object]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line.

    Args:
        prog: how it was called: as a module, bench.step, or as a command, structloss bench step.
        description: shown by --help as it is.
        epilog: examples; `{command}` is what to type.
        blanks: what else stands in braces there.
    """

    def __init__(self, prog: str, description: str | None, epilog: str = "", **blanks: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog.format(command=f"python -m {prog}" if prog.startswith("bench.") else prog, **blanks),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: error: {message}\n")


def add_measurement(
    parser: argparse.ArgumentParser,
    *,
    rounds: int,
    budget: float | None = None,
    each: str = "",
    threads: str = "torch's",
    memory: bool = True,
) -> None:
    """Arguments about how to measure; without a `budget` those of time and memory are left out, without `memory` that
    of memory. `threads` says what is the default."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=positive(int), metavar="N", help=f"default: {threads}")
    parser.add_argument("--rounds", type=positive(int), default=rounds, metavar="N", help=f"default {rounds}")
    if budget is not None:
        parser.add_argument(
            "--budget",
            type=positive(float),
            default=budget,
            metavar="S",
            help=f"seconds per {each}, default {budget:g}",
        )
        if memory:
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
    args.dtype = getattr(args, "dtype", "float32")
    return args


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


def carry_out(
    args: argparse.Namespace, prog: str, benchmark: Callable[[argparse.Namespace], tuple[Sequence[Row], str]]
) -> int:
    """Measure, print and write.

    Args:
        args: of :func:`parse_measurement`.
        prog: for errors.
        benchmark: measures; returns tidy rows and the text to print.

    Returns:
        The exit code: 1 if something was wrong and therefore not timed, 2 for what can't be measured.
    """
    torch.set_num_threads(args.threads)
    try:
        rows, text = benchmark(args)
    except WrongError as error:
        print(f"{prog}: error: wrong and therefore not timed: {error}.", file=sys.stderr)
        return 1
    except (StructlossError, RuntimeError) as error:
        print(f"{prog}: error: {measure.one_line(error).partition(': ')[2]}", file=sys.stderr)
        return 2
    tables.note_progress("")
    print(text)
    if args.csv:
        tables.write_atomically(args.csv, tables.csv_text(rows))
    return 0
