"""`structloss bench`: the benchmarks of the repository, in a clone of it."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from pathlib import Path

from ..errors import StructlossError
from ._parser import command

__all__ = ["add"]

ORDER = 90

_PARTS = ("backbones", "images", "loader", "lossnet", "overhead", "refine", "step")


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "bench",
        "time losses; a training step, networks, the wait for data, loss networks (in a clone of the repository)",
        "  structloss bench                                   L_S + L_T of 8 clips of 243 frames, all providers\n"
        "  structloss bench --op objective                    seven terms, against MPJPE alone\n"
        "  structloss bench --op parts --threads 2            the parts of a shape template as images\n"
        "  structloss bench --quick --no-tests                a first look, in a minute\n"
        "  structloss bench --device cuda --shapes 2048,243,17\n"
        "  structloss bench step --backbone repose-h36m --csv step.csv\n"
        "  structloss bench overhead --threads 1              what a call costs beside its kernel, against torch.add\n"
        "  structloss bench refine --threads 1                what a refined pose costs, streamed and in clips\n"
        "  structloss bench step --help                       every part has its own help\n",
        usage="structloss bench [step|backbones|images|loader|lossnet|overhead|refine] [options]",
        forwards=True,
        parts=_PARTS,
    )
    parser.add_argument("--help-all", action="store_true", help="show every option, metric and column")
    parser.add_argument(
        "--op", metavar="NAME", help="depth_ranking, repose, objective or parts (default: depth_ranking)"
    )
    parser.add_argument("--shapes", nargs="+", metavar="B,T,J", help="clips, frames and joints")
    parser.add_argument("--providers", nargs="+", metavar="NAME", help="ways to compute it (default: those of the op)")
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: cpu)")
    parser.add_argument("--rounds", metavar="N", help="turns of each provider (default: 30)")
    parser.add_argument("--csv", metavar="PATH", help="write tidy rows")
    parser.add_argument("--no-tests", action="store_true", help="skip the operators' tests, which take minutes")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    rest = ["--help" if given == "--help-all" else given for given in arguments.arguments]
    part = rest.pop(0) if rest[:1] and rest[0] in _PARTS else ""
    _open_package()
    script = importlib.import_module(f"bench.{part or 'run'}")
    return script.main(rest, prog=f"structloss bench {part}".rstrip())


def _open_package() -> None:
    """Make `bench` importable, and nothing else of the clone that it lies in: the one that structloss was installed
    from, or the one that we are in."""
    here = Path(__file__).resolve().parents[2]
    clone = next((folder for folder in (here, Path.cwd()) if (folder / "bench" / "definition.py").exists()), None)
    if clone is None:
        raise StructlossError(
            "the benchmarks are not part of the installed package; clone the repository of structloss and run "
            "structloss bench there."
        )
    if "bench" not in sys.modules:
        folder = clone / "bench"
        spec = importlib.util.spec_from_file_location(
            "bench", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["bench"] = module
        spec.loader.exec_module(module)
