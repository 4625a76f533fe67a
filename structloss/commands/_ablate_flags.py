"""Flags of `structloss ablate` that a grid of its own kind has no use for."""

from __future__ import annotations

import argparse

from ..errors import ArgumentError

__all__ = ["refuse_flags_of_lifting"]

_LIFTING = ("keypoints", "backbones", "objectives", "views", "init_from")


def refuse_flags_of_lifting(arguments: argparse.Namespace, grid: str) -> None:
    """Refuse flags of grids of lifting networks, all of which are None unless given.

    Raises:
        ArgumentError: one is given.
    """
    for name in _LIFTING:
        if getattr(arguments, name) is not None:
            raise ArgumentError(f"{name} is given, expected it with grids of lifting networks, not with {grid}.")
