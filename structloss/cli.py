"""The `structloss` command: the modules of `structloss.commands`. What is heavy loads when one of them runs."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType

from . import __version__, commands
from .commands._parser import Parser, add_debug, chosen, flags_of, naming_flags, values_by_flag
from .commands._refusals import bounded_memory_and_disk
from .errors import StructlossError
from .text import visible_warnings

__all__ = ["main"]

_EXAMPLES = """\
examples:
  structloss demo                              train with and without depth-ranking losses, write a report
  structloss demo --data motion.npz --seed 1   the same on your motion capture
  structloss fit --config repose-tiny          train from a recipe
  structloss predict keypoints.json --ckpt last.ckpt --image-size 1920 1080 --out poses
  structloss report runs/repose-tiny           score its checkpoint, write a page with curves and 3D poses
  structloss backbones list
  structloss data inspect motion.npz           what a data set holds, and what looks wrong with it
  structloss bench --op objective              time the kernels against other ways to compute the same

Every command has its own --help with examples."""


def _modules() -> list[ModuleType]:
    """A module for each file of `commands/` whose name has no underscore in front, by its ORDER and name."""
    names = [found.name for found in pkgutil.iter_modules(commands.__path__) if not found.name.startswith("_")]
    modules = [importlib.import_module(f"{commands.__name__}.{name}") for name in sorted(names)]
    return sorted(modules, key=lambda module: getattr(module, "ORDER", 500))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="structloss",
        description="Structural losses, lifting backbones and training for 3D human pose.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"structloss {__version__}")
    add_debug(parser)
    added = parser.add_subparsers(dest="command", metavar="COMMAND")
    for module in _modules():
        module.add(added)
    return parser


def _dispatch(arguments: Sequence[str]) -> int:
    parser = _parser()
    namespace = parser.parse_args(arguments)
    if namespace.command is None:
        parser.print_help()
        return 2
    flags = flags_of(chosen(parser, namespace))
    with naming_flags(flags, values_by_flag(flags, namespace)), bounded_memory_and_disk(), visible_warnings():
        return namespace.run(namespace) or 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 only on success."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch([argument for argument in arguments if argument != "--debug"])
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
