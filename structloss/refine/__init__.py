"""Refiners: from the 3D poses of any network to steadier ones, by what was seen before and by a person's own bones.

Everything is imported when first used.
"""

from __future__ import annotations

from .._lazy import lazy

__all__: list[str] = []

_HOMES: dict[str, tuple[str, ...]] = {}

__getattr__, __dir__ = lazy(__name__, _HOMES)
