"""Training and held-out curves of every arm in one figure."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import write_bytes
from ..metrics.measures import measure
from . import _style
from .results import ArmResult, RunSummary
from .tables import check_arms, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_curves"]

_NUMBERS = 0.2  # room for the numbers at the ends of lines, as a share of the x-axis
_LINE = 0.065  # height of a number, as a share of the axes
_SPAN = 3.0  # largest over smallest value from which on an axis is logarithmic

_ERROR, _ORDER = measure("mpjpe"), measure("depth_order_joints")
_FOUND, _RECONSTRUCTED = measure("normalized_l2"), measure("reconstruction")
_TITLES = {
    "train_loss": ("Training loss", "objective (each arm its own)"),
    "train_mpjpe": (f"Training {_ERROR.title}", "unit of the target: metres, or of the image"),
    "val_mpjpe": (f"Held-out {_ERROR.title} ({_ERROR.better} is better)", _ERROR.unit),
    "val_normalized_l2": (f"Held-out {_FOUND.title} ({_FOUND.better} is better)", f"{_FOUND.unit} of the image's side"),
    "val_reconstruction": (f"Held-out reconstruction ({_RECONSTRUCTED.better} is better)", _RECONSTRUCTED.unit),
    "val_loss": ("Held-out loss", "objective (each arm its own)"),
    "val_depth_order": (
        f"Held-out depth order ({_ORDER.better} is better)",
        f"{_ORDER.unit} of pairs in the right order",
    ),
}
_Dashes = str | tuple[float, tuple[float, ...]]
_DEPTH: tuple[tuple[str, str, _Dashes], ...] = (
    ("val_depth_order_joints", "joints", "-"),
    ("val_depth_order_frames", "frames", (0, (3, 1.5))),
)


def smooth(values: np.ndarray, width: float) -> np.ndarray:
    """Centred Gaussian average with a standard deviation of `width` values; [N] -> [N], NaN skipped, no lag."""
    if width < 0.5:
        return np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    reach = min(math.ceil(3 * width), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    total = np.convolve(np.where(known, values, 0.0), kernel, mode="full")[reach : reach + len(values)]
    weight = np.convolve(known.astype(np.float64), kernel, mode="full")[reach : reach + len(values)]
    return np.divide(total, weight, out=np.full(len(values), math.nan), where=weight > 1e-12)


def _panels(arms: list[ArmResult]) -> list[str]:
    """Which panels there is something to show in: at most two of training, then held-out MPJPE and depth order."""
    keys = [key for arm in arms for key in arm.curves if arm.curves[key] and key not in ("step", "val_step")]
    training: list[str] = [key for key in ("train_loss", "train_mpjpe") if key in keys]
    training = training or list(dict.fromkeys(key for key in keys if key.startswith("train_")))[:2]
    # A network that is being pre-trained predicts no poses, but has a held-out loss.
    found: list[str] = [key for key in ("val_mpjpe", "val_normalized_l2", "val_loss") if key in keys]
    held_out = [*found[:1], *(["val_reconstruction"] if "val_reconstruction" in keys else [])]
    return [*training, *held_out, *(["val_depth_order"] if any(key in keys for key, *_ in _DEPTH) else [])]


def _training(axes: Axes, arms: list[ArmResult], key: str) -> None:
    shown: list[np.ndarray] = []
    for k, arm in enumerate(arms):
        series = arm.series(key)
        if series is None:
            continue
        x, y = series
        smoothed = smooth(y, len(y) / 60)
        if len(y) > 40:
            axes.plot(x, y, color=_style.colour(k), alpha=0.22, linewidth=0.8)
        width = 1.6 * _style.layered(k, len(arms))
        axes.plot(x, smoothed, color=_style.colour(k), linewidth=width, label=one_line(arm.name))
        shown.append(smoothed)
    _scale(axes, shown)


def _scale(axes: Axes, curves: list[np.ndarray]) -> None:
    """A logarithmic axis where the curves span more than a factor of `_SPAN`, so that their ends can be told apart."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = np.concatenate([*curves, np.empty(0)])
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() < _SPAN * values.min():
        return
    axes.set_yscale("log")
    wide = values.max() > 100 * values.min()
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0,) if wide else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _held_out(axes: Axes, arms: list[ArmResult], keys: list[tuple[str, _Dashes]], factor: float) -> None:
    ends: list[tuple[float, float, str]] = []
    shown: list[np.ndarray] = []
    for k, arm in enumerate(arms):
        for key, style in keys:
            series = arm.series(key)
            if series is None:
                continue
            x, y = series[0], series[1] * factor
            marker, width = "o" if len(x) <= 40 else None, 1.6 * _style.layered(k, len(arms))
            axes.plot(x, y, color=_style.colour(k), linestyle=style, linewidth=width, marker=marker, markersize=4)
            shown.append(y)
            if np.isfinite(y[-1]):
                ends.append((float(x[-1]), float(y[-1]), _style.colour(k)))
    if factor == 1.0:  # percentages keep a linear axis
        _scale(axes, shown)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + _NUMBERS * (right - left))  # from here on the limits, which numbers are placed by, stay
    axes.set_ylim(axes.get_ylim())
    to_share = axes.transAxes.inverted()
    ends.sort(key=lambda end: end[1])
    places = [to_share.transform(axes.transData.transform(end[:2])) for end in ends]
    heights = _apart([float(height) for _, height in places])
    for (_, value, colour), (at, _), height in zip(ends, places, heights, strict=True):  # numbers at the line ends
        axes.annotate(
            f"{value:.1f}" if value >= 10 else f"{value:.3g}",
            (at, height),
            xycoords="axes fraction",
            xytext=(7, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9,
            fontweight="bold",
            annotation_clip=False,
        )


def _apart(heights: list[float]) -> list[float]:
    """Rising heights in shares of the axes, pushed off each other, as far as they fit between bottom and top."""
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + _LINE)
    top = 1 - _LINE / 2
    for i in range(len(heights) - 1, -1, -1):
        heights[i] = min(heights[i], top)
        top = heights[i] - min(_LINE, (1 - _LINE) / max(1, len(heights) - 1))
    return heights


def plot_curves(summary: RunSummary, path: str | os.PathLike[str], *, dpi: int = 130) -> Path:
    """Draw the curves of all arms and write them as PNG; returns the path.

    Panels, as far as there is data: training loss and training MPJPE (smoothed, over the faint raw curve), held-out
    MPJPE (mm), and held-out depth-order accuracy (%, joints solid and frames dashed). Axes other than the last are
    logarithmic where values span more than a factor of 3. Arms keep their colour in every figure. The file appears
    under its name only when complete.

    Args:
        summary: at least one arm; see :class:`ArmResult` for the keys of `curves`.
        path: PNG file to write.
        dpi: pixels per inch; the figure is about 10 inches wide.

    Raises:
        ArgumentError: no arms, or a curve and its axis differ in length. A summary without any curve gives a figure
            that says so.
        MissingDependencyError: matplotlib is not installed.
        OSError: the file can't be written there.
    """
    arms = check_arms(summary)
    panels = _panels(arms)
    columns = 1 if len(panels) <= 1 else 2
    rows = max(1, math.ceil(len(panels) / columns))
    figure = _style.new_figure(10.4 if columns == 2 else 6.4, 3.3 * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[max(len(panels), 1) :]:
        axes.remove()
    if not panels:
        grid[0].text(0.5, 0.5, "no curves were recorded", ha="center", va="center", transform=grid[0].transAxes)
    for axes, panel in zip(grid, panels, strict=False):
        title, unit = _TITLES.get(panel, (panel.replace("_", " ").replace("train ", "training ", 1), "value"))
        if panel == "val_depth_order":
            keys = [(key, style) for key, _, style in _DEPTH]
            _held_out(axes, arms, keys, _ORDER.factor)
            present = [(n, s) for key, n, s in _DEPTH if any(arm.curves.get(key) for arm in arms)]
            handles = [axes.plot([], [], color="#444444", linestyle=s, label=f"of {n}")[0] for n, s in present]
            axes.legend(handles=handles, frameon=False, fontsize=9, loc="best")
        elif panel in ("val_mpjpe", "val_normalized_l2", "val_reconstruction", "val_loss"):
            _held_out(axes, arms, [(panel, "-")], 1.0)
        else:
            _training(axes, arms, panel)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        axes.set_ylabel(unit)
        axes.set_xlabel("optimiser step")
        axes.grid(True, color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
        for spine in ("top", "right"):
            axes.spines[spine].set_visible(False)
        axes.ticklabel_format(axis="x", style="plain")
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_style.colour(k), linewidth=3, label=one_line(a.name)) for k, a in enumerate(arms)]
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.08 / height, one_line(summary.title), va="top", fontsize=13, parse_math=False)

    legend = figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.004, 1 - 0.3 / height),
        ncols=len(arms) if sum(len(a.name) for a in arms) < 100 else 2,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.tight_layout(rect=(0, 0, 0.985, 1 - 0.65 / height), w_pad=2.5)
    return write_bytes(path, _style.png(figure, dpi))
