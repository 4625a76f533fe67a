"""Flags of commands that do many independent pieces of work, and the engine that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ArgumentError, needs_extra
from ..text import visible_lines
from ._parser import positive

if TYPE_CHECKING:
    from ..harness.engines import Engine

__all__ = ["add_engine", "engine_flags", "opened_engine", "print_line"]

#: what belongs to a cluster alone, and is None unless given
_OF_RAY = ("address", "cpus", "gpus")


class _Parser(Protocol):
    """A parser, or a group of its options."""

    def add_argument(self, *names: str, **settings: Any) -> Any: ...


def add_engine(parser: _Parser, piece: str) -> None:
    """Add `--jobs`, `--engine` and what belongs to a cluster.

    Args:
        parser: of the command, or a group of its options.
        piece: what is done side by side, in a word.
    """
    add = parser.add_argument
    add("--jobs", type=positive, metavar="N", help="side by side (default: 1; with ray what there is room for)")
    add("--engine", choices=("local", "ray"), help="processes of this machine, or a Ray cluster (default: local)")
    add("--address", metavar="HOST:PORT", help="of the cluster, or auto (default: one of this machine alone)")
    add("--cpus", type=positive, metavar="N", help=f"for each {piece} on a cluster, and its threads (default: 1)")
    add(
        "--gpus",
        type=float,
        metavar="N",
        help=f"for each {piece} on a cluster, or a share of one (default: 1 if it has any)",
    )


def engine_flags(arguments: argparse.Namespace) -> list[str]:
    """The flags of :func:`add_engine` that are given."""
    names = ("jobs", "engine", *_OF_RAY)
    return [f"--{name}" for name in names if getattr(arguments, name) is not None]


def print_line(text: str) -> None:
    """Print text of which a part may be from files."""
    print(visible_lines(text), flush=True)


@contextmanager
def opened_engine(
    arguments: argparse.Namespace, say: Callable[[str], object], threads: bool = False
) -> Iterator[Engine]:
    """What the flags ask for.

    Args:
        arguments: of the command.
        say: is given lines of text about what is done.
        threads: `--cpus` is the threads of a piece on this machine, too.

    Raises:
        ArgumentError: flags of a cluster without one.
        StructlossError: see :class:`structloss.harness.ray_engine.RayCluster`.
    """
    for name in _OF_RAY if arguments.engine != "ray" else ():
        if (value := getattr(arguments, name)) is not None and not (name == "cpus" and threads):
            raise ArgumentError(f"--{name} is {value!r}, expected it with --engine ray.")
    if arguments.engine != "ray":
        from ..harness.engines import Local

        yield Local(arguments.jobs or 1)
        return
    with needs_extra("cluster"):
        from ..harness.ray_engine import RayCluster
    with RayCluster(
        arguments.address, cpus=arguments.cpus or 1, gpus=arguments.gpus, jobs=arguments.jobs, say=say
    ) as cluster:
        say(f"Ray: {cluster.describe()}")
        yield cluster
