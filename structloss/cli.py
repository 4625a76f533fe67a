"""The `structloss` command. Heavy parts load only for the command that needs them."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import __version__
from .commands import _data_parser as data
from .commands import _demo_parser as demo
from .commands import _energy_parser as energy
from .commands import _predict_parser as predict
from .commands import _report_parser as report
from .commands import ablate, backbones, backends
from .commands._parser import add_debug
from .errors import StructlossError, needs_extra

__all__ = ["main"]

_FIT_COMMANDS = {
    "fit": "train a backbone from a recipe",
    "validate": "score a checkpoint on the validation subjects",
    "test": "score a checkpoint with all metrics",
}

_BENCH = "time losses; a training step, networks, the wait for data, loss-nets (bench step, backbones, loader, lossnet)"
_BENCH_PARTS = ("step", "backbones", "loader", "lossnet")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="structloss",
        description="Structural losses, lifting backbones and training for 3D human pose.",
        epilog="examples:\n"
        "  structloss demo                              train with and without depth-ranking losses, write a report\n"
        "  structloss demo --data motion.npz --seed 1   the same on your motion capture\n"
        "  structloss fit --config repose-tiny          train from a recipe\n"
        "  structloss predict keypoints.json --ckpt last.ckpt --image-size 1920 1080 --out poses\n"
        "  structloss report runs/repose-tiny           score its checkpoint, write a page with curves and 3D poses\n"
        "  structloss backbones list\n"
        "  structloss data inspect motion.npz           what a data set holds, and what looks wrong with it\n"
        "  structloss bench --op objective              time the kernels against other ways to compute the same\n"
        "\nEvery command has its own --help with examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"structloss {__version__}")
    add_debug(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo.add(commands)
    for name, text in _FIT_COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)  # the Lightning command line prints its own help
    for part in (ablate, report, energy, predict, data, backbones, backends):
        part.add(commands)
    commands.add_parser("bench", help=_BENCH, add_help=False)  # the benchmark prints its own help
    return parser


def _bench(arguments: list[str]) -> int:
    """Run bench/run.py, or the script of _BENCH_PARTS that comes first; a wheel carries them along."""
    package = Path(__file__).resolve().parent
    folder = next((f for f in (package / "bench", package.parent / "bench") if (f / "run.py").exists()), None)
    if folder is None:
        raise StructlossError(f"the benchmark is missing from {package}; reinstall structloss.")
    sys.path.insert(0, str(folder))  # its modules import each other as scripts do
    name = arguments[0] if arguments[:1] and arguments[0] in _BENCH_PARTS else ""
    script = importlib.import_module(name or "run")
    return script.main(arguments[1:] if name else arguments, prog=f"structloss bench {name}".rstrip())


def _dispatch(arguments: Sequence[str]) -> int:
    command = next((a for a in arguments if not a.startswith("-")), None)
    if command == "bench" or command in _FIT_COMMANDS:
        at = list(arguments).index(command)
        rest = [a for a in [*arguments[:at], *arguments[at + 1 :]] if a != "--debug"]
        if command == "bench":
            return _bench(rest)
        with needs_extra("harness"):
            from .commands import fit

        fit.run(command, rest)
        return 0
    parser = _parser()
    namespace = parser.parse_args([a for a in arguments if a != "--debug"])  # main() looks at it itself
    run: Callable[[argparse.Namespace], None] | None = getattr(namespace, "run", None)
    if run is None:
        parser.print_help()
        return 2
    run(namespace)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 only on success."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except StructlossError as error:
        if "--debug" in arguments:
            raise
        print(f"structloss: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("structloss: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `structloss backbones list | head`
        sys.stderr.close()
        return 1


if __name__ == "__main__":
    sys.exit(main())
