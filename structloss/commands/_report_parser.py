"""`structloss report`."""

from __future__ import annotations

import argparse

from ._parser import command, positive

__all__ = ["add"]


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "report",
        "score the checkpoints of runs on their validation data and write one HTML page that needs no network",
        "  structloss report runs/repose-tiny                      its newest version; writes report.html there\n"
        "  structloss report runs/repose-tiny/version_0 runs/repose-tiny/version_1 --out compared.html\n"
        "  structloss report runs/a runs/b --name MPJPE 'MPJPE + L_S' --json compared.json\n"
        "  structloss report runs/repose-h36m --data /new/place/h36m.poses --device cuda\n",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="folder of a run: runs/NAME/version_N, or runs/NAME")
    parser.add_argument("--out", metavar="FILE.html", help="page to write (default: report.html in the run's folder)")
    parser.add_argument("--checkpoint", default="best", help="best, last, or the path of one (default: best)")
    parser.add_argument("--data", metavar="PATH", help="data to score on, where that of the configuration has moved")
    parser.add_argument("--name", nargs="+", metavar="NAME", dest="names", help="what to call the runs, in their order")
    parser.add_argument("--title", help="heading of the page")
    parser.add_argument("--clips", type=positive, default=4, help="clips of the 3D player (default: 4)")
    parser.add_argument("--frames", type=positive, default=243, help="frames of each, at most (default: 243)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument("--json", metavar="FILE.json", help="write the numbers to this file too")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from .report import write_run_report

    given = {k: v for k, v in vars(arguments).items() if k not in ("command", "run", "runs", "debug")}
    write_run_report(arguments.runs, **given)
