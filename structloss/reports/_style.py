"""What the figures and the page share: colours, sides of bones, and the way to matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ..errors import needs_extra
from ..skeletons import Skeleton

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colour-blind-safe colours, dark enough for white paper; then the same hues for dark pages.
LIGHT = ("#d55e00", "#0072b2", "#009e73", "#b5479a", "#8a6d00", "#555555")
DARK = ("#ff9457", "#62b8f5", "#35cfa2", "#eb9fd3", "#e3c94c", "#b0b0b0")


def colour(index: int) -> str:
    """Colour of the arm with this index; repeats after six."""
    return LIGHT[index % len(LIGHT)]


def layered(index: int, count: int) -> float:
    """Factor of the line width of an arm among `count` that are drawn in turn: the first ones are wider, so that they
    are seen beside those that lie on them."""
    return 1.0 + 0.9 * (count - 1 - index) / max(1, count - 1)


def side(skeleton: Skeleton, *joints: int) -> str:
    """ "left" or "right" where any of the joints is on one side and none on the other; otherwise "centre"."""
    left, right = (any(j in joints_of_side for j in joints) for joints_of_side in (skeleton.left, skeleton.right))
    return "centre" if left == right else "left" if left else "right"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (inches) with a canvas of its own: no display, no pyplot, no global state.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    with needs_extra("harness"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure, dpi: int) -> bytes:
    """The figure as PNG, with no time stamp or version inside: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"format": "png", "dpi": dpi, "metadata": {"Software": None}}
    figure.savefig(buffer, **options)
    return buffer.getvalue()
