"""Reports of a run or a comparison: tables, curve and pose figures, one HTML file and JSON.

Everything is imported when first used: importing this package loads neither matplotlib nor rich. Only the figures need
matplotlib, and only :func:`table` needs rich.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .curves import plot_curves
    from .page import write_html
    from .poses import plot_poses
    from .report import run_report
    from .results import ArmResult, PoseSamples, RunSummary, read_json, write_json
    from .tables import plain_table, table

__all__ = [
    # results
    "ArmResult",
    "PoseSamples",
    "RunSummary",
    "read_json",
    "write_json",
    # tables
    "plain_table",
    "table",
    # figures and page
    "plot_curves",
    "plot_poses",
    "run_report",
    "write_html",
]

_HOMES = {
    "curves": ("plot_curves",),
    "page": ("write_html",),
    "poses": ("plot_poses",),
    "report": ("run_report",),
    "results": ("ArmResult", "PoseSamples", "RunSummary", "read_json", "write_json"),
    "tables": ("plain_table", "table"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
