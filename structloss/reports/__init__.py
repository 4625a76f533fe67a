"""Reports of a run or a comparison: tables, curve and pose figures, one HTML file and JSON.

Everything is imported when first used: importing this package loads neither matplotlib nor rich. Only the figures need
matplotlib, and only :func:`table` needs rich.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy

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

__getattr__, __dir__ = lazy(__name__, _HOMES)
