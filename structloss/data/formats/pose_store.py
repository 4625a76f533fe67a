"""Pose stores, the project's own format of what cameras saw."""

from __future__ import annotations

from pathlib import Path

from ..store import PoseStore, is_store, open_store
from .candidate import CERTAIN, NO, Candidate
from .registry import FORMATS, Format

__all__: list[str] = []


def _read(path: Path, *, progress: bool = False) -> PoseStore:
    return open_store(path)  # mapped: there is nothing to wait for


def _sniff(candidate: Candidate) -> int:
    return CERTAIN if is_store(candidate.path) else NO


FORMATS.register(
    Format(
        "store", "pose store, written by structloss data convert", _read, folder=("meta.json",), sniff=_sniff
    )
)  # fmt: skip
