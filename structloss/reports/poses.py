"""A figure of poses: the 2D input, then every arm over the true pose, from the front and from the side."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import skeletons
from ..errors import ArgumentError
from ..files import write_bytes
from ..metrics.measures import measure
from ..skeletons import Skeleton
from . import _style
from .results import PoseSamples
from .tables import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_input", "draw_limbs", "plot_poses", "set_view"]

_DASH = (0, (1.7, 0.9))  # left side
_TARGET = "#8a8a8a"
_FAR = 100.0  # mm: depth errors from here on are marked
# Inches: height of a row's panels, of the titles above them; margins; between panels; width for the legend.
_TALL, _TITLE = 2.75, 0.36
_LEFT, _RIGHT, _TOP, _BOTTOM, _GAP = 0.6, 0.15, 0.95, 0.5, 0.16
_NARROWEST = 7.6


def draw_limbs(
    axes: Axes, skeleton: Skeleton, points: np.ndarray, colour: str, width: float, alpha: np.ndarray | float = 1.0
) -> None:
    """Bones of one pose, [J, 2] -> lines: right side solid, left side dashed, the middle solid and thinner."""
    alpha = np.broadcast_to(np.asarray(alpha, dtype=float), (len(points),))
    for child, parent in skeleton.bones:
        which = _style.side(skeleton, child, parent)
        (line,) = axes.plot(
            points[[parent, child], 0],
            points[[parent, child], 1],
            color=colour,
            linewidth=width * (0.7 if which == "centre" else 1.0),
            alpha=float(min(alpha[child], alpha[parent])),
            solid_capstyle="round",
            dash_capstyle="butt",
        )
        if which == "left":
            line.set_linestyle(_DASH)


def _letters(axes: Axes, skeleton: Skeleton, points: np.ndarray, reach: float) -> None:
    """ "L" and "R" beyond the wrists and ankles."""
    for hinge in skeleton.hinges:
        end, before = points[hinge.w], points[hinge.e]
        length = float(np.linalg.norm(end - before))
        if not np.isfinite(length):
            continue
        out = (end - before) / length if length > 1e-9 else np.array([0.0, -1.0])
        x, y = end + out * reach
        axes.text(
            x, y, "L" if hinge.name.startswith("left") else "R", ha="center", va="center", fontsize=8, color="#222"
        )


def draw_input(
    axes: Axes, skeleton: Skeleton, points: np.ndarray, confidence: np.ndarray, box: tuple[float, float]
) -> None:
    """2D `[J, 2]`, y down, in a panel of so many inches; what is less sure is fainter."""
    points = points * np.array([1.0, -1.0])  # image y points down
    certain = np.clip(np.nan_to_num(confidence), 0.0, 1.0)
    seen = 0.2 + 0.8 * certain
    draw_limbs(axes, skeleton, points, "#333333", 1.7 if len(points) <= 40 else 1.0, seen)
    size = (6 + 34 * certain) * (1.0 if len(points) <= 40 else 0.25)
    axes.scatter(points[:, 0], points[:, 1], s=size, color="#111111", alpha=seen, linewidths=0, zorder=3)
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    centre, extent = (low + high) / 2, (high - low) * 1.22
    scale = max(extent[0] / box[0], extent[1] / box[1], 1e-6)
    axes.set_xlim(centre[0] - scale * box[0] / 2, centre[0] + scale * box[0] / 2)
    axes.set_ylim(centre[1] - scale * box[1] / 2, centre[1] + scale * box[1] / 2)
    _letters(axes, skeleton, points, scale * box[1] * 0.035)
    axes.set_xticks([])
    axes.set_yticks([])


def set_view(axes: Axes, centre: np.ndarray, box: tuple[float, float]) -> None:
    """Limits, and a grid of 250 mm with numbers every 500 mm."""
    from matplotlib.ticker import MultipleLocator

    axes.set_xlim(centre[0] - box[0] / 2, centre[0] + box[0] / 2)
    axes.set_ylim(centre[1] - box[1] / 2, centre[1] + box[1] / 2)
    axes.xaxis.set_major_locator(MultipleLocator(500))
    axes.yaxis.set_major_locator(MultipleLocator(500))
    axes.xaxis.set_minor_locator(MultipleLocator(250))
    axes.yaxis.set_minor_locator(MultipleLocator(250))
    axes.grid(True, which="both", color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, labelsize=7, colors="#777777", labelleft=False)


def plot_poses(samples: PoseSamples, path: str | os.PathLike[str], *, max_frames: int = 4, dpi: int = 120) -> Path:
    """Draw poses and write them as PNG; returns the path.

    One row per frame. First the 2D input (marker size and opacity are the confidence), then all arms over the true pose
    (thick grey) from the camera, then for each arm a side view from the camera's right, where the horizontal axis is
    depth. In the side views thin lines join each joint to its true place, and joints more than 100 mm off in depth have
    a ring. Right limbs are solid, left limbs dashed; the input marks wrists and ankles with L and R. All 3D views have
    one scale. Titles give the MPJPE and the mean depth error of the frame.

    Args:
        samples: F frames of any registered skeleton, with at least one arm.
        path: PNG file to write.
        max_frames: at most this many rows; of more frames, evenly spaced ones are drawn.
        dpi: pixels per inch.

    Raises:
        ArgumentError: no arm, `max_frames` below 1, or a pose with no finite joint.
        MissingDependencyError: matplotlib is not installed.
        OSError: the file can't be written there.
    """
    if not samples.predictions:
        raise ArgumentError("samples has no predictions, expected those of at least one arm.")
    if max_frames < 1:
        raise ArgumentError(f"max_frames is {max_frames}, expected at least 1.")
    total = len(samples.labels)
    frames = sorted({int(f) for f in np.linspace(0, total - 1, min(total, max_frames)).round()})
    drawing = _Drawing(samples, frames)
    for row in range(len(frames)):
        drawing.add_row(row)
    drawing.add_legend()
    return write_bytes(path, _style.png(drawing.figure, dpi))


class _Drawing:
    """The figure of :func:`plot_poses`: a row of panels per frame, all 3D views of one scale."""

    def __init__(self, samples: PoseSamples, frames: list[int]) -> None:
        self.samples, self.frames, self.names = samples, frames, list(samples.predictions)
        self.skeleton = skeletons.get(samples.skeleton)
        poses = np.stack([samples.target, *samples.predictions.values()])[:, frames]  # [1 + arms, F, J, 3]
        for f, frame in enumerate(frames):
            seen = np.isfinite(poses[:, f]).all(axis=-1).any(axis=-1).all() and np.isfinite(samples.input[frame]).any()
            if not seen:
                raise ArgumentError(
                    f"samples has a pose without a finite joint in frame {frame}, expected at least one."
                )
        self.upright = poses * np.array([1.0, -1.0, 1.0])
        low, high = np.nanmin(self.upright, axis=(0, 2)), np.nanmax(self.upright, axis=(0, 2))  # [F, 3]
        extent = (high - low).max(axis=0) * 1.08 + 120
        self.extent = np.maximum(extent, extent[1] * np.array([0.7, 1.0, 0.7]))  # mm in x, y, z
        self.centre = (low + high) / 2

        wide, high_mm, deep = self.extent
        widths = np.array([wide, wide, *[deep] * len(self.names)]) / high_mm * _TALL
        between = _GAP * (len(widths) - 1)
        self.width = max(float(widths.sum() + between + _LEFT + _RIGHT), _NARROWEST)
        self.height = (_TALL + _TITLE) * len(frames) + _TOP + _BOTTOM
        # A narrow figure is widened for its legend; the views keep their scale.
        self.widths = widths * ((self.width - _LEFT - _RIGHT - between) / widths.sum())
        self.scale = high_mm / _TALL  # mm per inch
        self.thin = self.skeleton.num_joints > 40
        self.figure = _style.new_figure(self.width, self.height)

    def add_row(self, row: int) -> None:
        """Draw one frame: its label, its 2D input, all arms from the camera, each arm from the side."""
        samples, frame = self.samples, self.frames[row]
        below = _BOTTOM + (len(self.frames) - 1 - row) * (_TALL + _TITLE)  # inches
        panels = self._panels(below)
        label = _unbroken(one_line(samples.labels[frame]))
        self._text(0.3, below + _TALL / 2, label, _TALL, rotation=90, va="center", fontsize=8)
        first, front, *sides = panels
        draw_input(first, self.skeleton, samples.input[frame], samples.confidence[frame], (self.widths[0], _TALL))
        self._draw_front(front, row)
        for k, axes in enumerate(sides):
            self._draw_side(axes, row, k)
        if row == 0:
            self._add_heads(panels, below + _TALL + _TITLE + 0.03)
        if row == len(self.frames) - 1:
            front.set_xlabel("x (mm)", fontsize=8)
            for axes in sides:
                axes.set_xlabel("← near    depth (mm)    far →", fontsize=8)
        else:
            for axes in (front, *sides):
                axes.tick_params(labelbottom=False)

    def _panels(self, below: float) -> list[Axes]:
        """The empty panels of a row."""
        panels, x = [], _LEFT
        for width in self.widths:
            place = (x / self.width, below / self.height, width / self.width, _TALL / self.height)
            panels.append(self.figure.add_axes(place))
            x += width + _GAP
        for axes, width in zip(panels, self.widths, strict=True):
            axes.set_aspect("equal", adjustable="box")
            for spine in axes.spines.values():
                spine.set_color("#cccccc")
            axes.set_anchor("C")
            axes.set_box_aspect(_TALL / width)
        return panels

    def _draw_front(self, axes: Axes, row: int) -> None:
        """All arms over the true pose, from the camera."""
        target, *arms = self.upright[:, row, :, :2]
        draw_limbs(axes, self.skeleton, target, _TARGET, self._bold(3.4, 1.8), 0.55)
        set_view(axes, self.centre[row, [0, 1]], (self.widths[1] * self.scale, self.extent[1]))
        for k, pose in enumerate(arms):
            width = self._bold(1.4, 0.9) * _style.layered(k, len(arms))
            draw_limbs(axes, self.skeleton, pose, _style.colour(k), width)

    def _draw_side(self, axes: Axes, row: int, arm: int) -> None:
        """One arm over the true pose, from the camera's right, with its errors."""
        true, flat, colour = self.upright[0, row][:, [2, 1]], self.upright[1 + arm, row][:, [2, 1]], _style.colour(arm)
        draw_limbs(axes, self.skeleton, true, _TARGET, self._bold(3.4, 1.8), 0.55)
        for a, b in zip(true, flat, strict=True):
            axes.plot([a[0], b[0]], [a[1], b[1]], color="#111111", linewidth=0.7, alpha=0.55)
        draw_limbs(axes, self.skeleton, flat, colour, self._bold(2.0, 1.1))
        axes.scatter(flat[:, 0], flat[:, 1], s=self._bold(9, 2), color=colour, linewidths=0, zorder=3)
        depth = np.abs(flat[:, 0] - true[:, 0])
        far = flat[depth > _FAR]
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": "#111111", "linewidths": 1.1}
        axes.scatter(far[:, 0], far[:, 1], s=self._bold(52, 14), zorder=4, **ring)
        set_view(axes, self.centre[row, [2, 1]], (self.widths[2 + arm] * self.scale, self.extent[1]))
        error = float(np.nanmean(self.samples.errors(self.names[arm])[self.frames[row]]))
        title = f"{measure('mpjpe').title} {error:.0f} mm\nmean depth error {np.nanmean(depth):.0f} mm"
        axes.set_title(title, fontsize=8.5, color=colour, pad=3, linespacing=1.15)

    def _bold(self, usual: float, thin: float) -> float:
        """A width, smaller for skeletons of many joints."""
        return thin if self.thin else usual

    def _add_heads(self, panels: list[Axes], at: float) -> None:
        """What the columns show."""
        heads = ["2D input", "From the camera", *(f"From the side:\n{one_line(name)}" for name in self.names)]
        tints = ["black", "black", *(_style.colour(k) for k in range(len(self.names)))]
        for axes, head, tint in zip(panels, heads, tints, strict=True):
            where = axes.get_position()
            middle, inches = (where.x0 + where.x1) / 2 * self.width, where.width * self.width
            look = {"fontsize": 9.5, "fontweight": "bold", "color": tint, "linespacing": 1.05}
            self._text(middle, at, head, inches, va="bottom", **look)

    def _text(self, x: float, y: float, text: str, inches: float, **look: Any) -> None:
        """Text centred at a place in inches, wrapped to a width."""
        place = x / self.width, y / self.height
        self.figure.text(*place, _wrapped(text, inches), ha="center", parse_math=False, **look)

    def add_legend(self) -> None:
        """Colours of the arms, sides, rings: above everything."""
        from matplotlib.lines import Line2D

        ring: dict[str, Any] = {"marker": "o", "markersize": 7, "markerfacecolor": "none", "markeredgecolor": "#111111"}
        handles = [
            Line2D([], [], color=_TARGET, linewidth=3.4, alpha=0.7, label="true pose"),
            *(Line2D([], [], color=_style.colour(k), linewidth=2, label=one_line(n)) for k, n in enumerate(self.names)),
            Line2D([], [], color="#333333", linewidth=1.8, label="right limbs"),
            Line2D([], [], color="#333333", linewidth=1.8, linestyle=_DASH, label="left limbs"),
            Line2D([], [], color="none", label=f"depth wrong by more than {_FAR:.0f} mm", **ring),
        ]
        box = self.figure.legend(
            handles=handles,
            loc="upper center",
            ncols=len(handles) if self.width > 9.5 else (len(handles) + 1) // 2,
            frameon=False,
            fontsize=8.5,
            bbox_to_anchor=(0.5, 1.0),
            columnspacing=1.4,
            handlelength=2.4,
        )
        for text in box.get_texts():
            text.set_parse_math(False)


def _unbroken(label: str) -> str:
    """A label that is broken after its commas, not within "camera 1"."""
    return ", ".join(part.replace(" ", "\xa0") for part in label.split(", "))


def _wrapped(text: str, inches: float) -> str:
    """`text` in lines that fit a panel this wide."""
    width = max(12, int(inches * 11.5))
    lines = (part for line in text.split("\n") for part in textwrap.wrap(line, width, break_on_hyphens=False)[:3])
    return "\n".join(line.replace("\xa0", " ") for line in lines)
