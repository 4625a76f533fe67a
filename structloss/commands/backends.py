"""`structloss backends`."""

from __future__ import annotations

import argparse

from ._parser import command

__all__ = ["add"]

ORDER = 85


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "backends",
        "tell which kernels work on this machine, and why the others don't",
        "  structloss backends\n",
    )
    parser.set_defaults(run=_backends)


def _backends(arguments: argparse.Namespace) -> None:
    from ..ops.backend import backends

    for name, status in backends().items():
        print(f"{name:8}{'yes' if status else 'no ':5}{status.reason}")
