"""Clip archives, the project's own format of motion in the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..archive import load_archive
from ..clips import Clip
from .candidate import MAYBE, NO, Candidate
from .registry import FORMATS, Format

__all__: list[str] = []


def _read(path: Path, *, progress: bool = False) -> list[Clip]:
    return load_archive(path)[0]


def _sniff(candidate: Candidate) -> int:
    return MAYBE if "meta" in candidate.arrays else NO  # others may call an array so, too


def _meta(path: Path) -> dict[str, Any]:
    return load_archive(path)[1]


FORMATS.register(
    Format(
        "archive", "clip archive, written by structloss data convert", _read, arrays=("meta",), sniff=_sniff,
        clips=True, meta=_meta,
    )
)  # fmt: skip
