"""A figure of poses: the 2D input, then every arm over the true pose, from the front and from the side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import skeletons
from ..errors import ArgumentError
from ..files import write_bytes
from ..skeletons import Skeleton
from . import _style
from .results import PoseSamples
from .tables import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_poses"]

_DASH = (0, (1.7, 0.9))  # left side
_TARGET = "#8a8a8a"
_FAR = 100.0  # mm: depth errors from here on are marked


def _limbs(
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


def _input(
    axes: Axes, skeleton: Skeleton, points: np.ndarray, confidence: np.ndarray, box: tuple[float, float]
) -> None:
    points = points * np.array([1.0, -1.0])  # image y points down
    certain = np.clip(np.nan_to_num(confidence), 0.0, 1.0)
    seen = 0.2 + 0.8 * certain
    _limbs(axes, skeleton, points, "#333333", 1.7 if len(points) <= 40 else 1.0, seen)
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


def _view(axes: Axes, centre: np.ndarray, box: tuple[float, float]) -> None:
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

    One row a frame. First the 2D input (marker size and opacity are the confidence), then all arms over the true pose
    (thick grey) from the camera, then for each arm a side view from the camera's right, where the horizontal axis is
    depth. In the side views thin lines join each joint to its true place, and joints more than 100 mm off in depth have
    a ring. Right limbs are solid, left limbs dashed; the input marks wrists and ankles with L and R. All 3D views have
    one scale. Titles give the MPJPE and the mean depth error of the frame.

    Args:
        samples: F frames of any registered skeleton, with at least one arm.
        path: PNG file to write.
        max_frames: at most this many rows; of more frames, evenly spaced ones are drawn.
        dpi: pixels an inch.

    Raises:
        ArgumentError: no arm, `max_frames` below 1, or a pose with no finite joint.
        MissingDependencyError: matplotlib is not installed.
        OSError: the file can't be written there.
    """
    if not samples.predictions:
        raise ArgumentError("samples has no predictions, expected those of at least one arm.")
    if max_frames < 1:
        raise ArgumentError(f"max_frames is {max_frames}, expected at least 1.")
    skeleton = skeletons.get(samples.skeleton)
    total = len(samples.labels)
    frames = sorted({int(f) for f in np.linspace(0, total - 1, min(total, max_frames)).round()})
    names = list(samples.predictions)
    poses = np.stack([samples.target, *samples.predictions.values()])[:, frames]  # [1 + arms, F, J, 3]
    for f, frame in enumerate(frames):
        if not np.isfinite(poses[:, f]).all(axis=-1).any(axis=-1).all() or not np.isfinite(samples.input[frame]).any():
            raise ArgumentError(f"samples has a pose without a finite joint in frame {frame}, expected at least one.")

    upright = poses * np.array([1.0, -1.0, 1.0])
    low, high = np.nanmin(upright, axis=(0, 2)), np.nanmax(upright, axis=(0, 2))  # [F, 3]
    extent = (high - low).max(axis=0) * 1.08 + 120
    extent = np.maximum(extent, extent[1] * np.array([0.7, 1.0, 0.7]))
    centre = (low + high) / 2
    front_box, side_box = (extent[0], extent[1]), (extent[2], extent[1])

    columns = 2 + len(names)
    tall = 2.75  # inches of one row
    widths = np.array([front_box[0], front_box[0], *[side_box[0]] * len(names)]) / extent[1] * tall
    margin, gap, top, bottom, title = 0.46, 0.16, 0.95, 0.5, 0.36
    figure_width = float(widths.sum() + gap * (columns - 1) + margin + 0.15)
    figure_height = (tall + title) * len(frames) + top + bottom
    figure_width = max(figure_width, 7.6)
    figure = _style.new_figure(figure_width, figure_height)
    spare = (figure_width - margin - 0.15 - gap * (columns - 1)) / widths.sum()
    shown = widths * spare  # a narrow figure is widened for its legend; the views keep their scale
    thin = skeleton.num_joints > 40

    for row, frame in enumerate(frames):
        y = bottom + (len(frames) - 1 - row) * (tall + title)
        axes_row: list[Axes] = []
        x = margin
        for width in shown:
            axes_row.append(
                figure.add_axes((x / figure_width, y / figure_height, width / figure_width, tall / figure_height))
            )
            x += width + gap
        for axes, width in zip(axes_row, shown, strict=True):
            axes.set_aspect("equal", adjustable="box")
            for spine in axes.spines.values():
                spine.set_color("#cccccc")
            axes.set_anchor("C")
            axes.set_box_aspect(tall / width)
        figure.text(
            0.13 / figure_width,
            (y + tall / 2) / figure_height,
            _wrapped(one_line(samples.labels[frame]), tall),
            rotation=90,
            va="center",
            ha="center",
            fontsize=8,
            parse_math=False,
        )
        _input(axes_row[0], skeleton, samples.input[frame], samples.confidence[frame], (shown[0], tall))
        target = upright[0, row]
        scale = extent[1] / tall
        front, views = axes_row[1], axes_row[2:]
        _limbs(front, skeleton, target[:, [0, 1]], _TARGET, 3.4 if not thin else 1.8, 0.55)
        middle = centre[row]
        _view(front, middle[[0, 1]], (shown[1] * scale, extent[1]))
        for k, (name, axes) in enumerate(zip(names, views, strict=True)):
            pose, colour = upright[1 + k, row], _style.colour(k)
            _limbs(front, skeleton, pose[:, [0, 1]], colour, 1.5 if not thin else 0.9, 0.9)
            flat, true = pose[:, [2, 1]], target[:, [2, 1]]
            _limbs(axes, skeleton, true, _TARGET, 3.4 if not thin else 1.8, 0.55)
            for a, b in zip(true, flat, strict=True):
                axes.plot([a[0], b[0]], [a[1], b[1]], color="#111111", linewidth=0.7, alpha=0.55)
            _limbs(axes, skeleton, flat, colour, 2.0 if not thin else 1.1)
            axes.scatter(flat[:, 0], flat[:, 1], s=9 if not thin else 2, color=colour, linewidths=0, zorder=3)
            depth = np.abs(flat[:, 0] - true[:, 0])
            far = depth > _FAR
            axes.scatter(
                flat[far, 0],
                flat[far, 1],
                s=52 if not thin else 14,
                facecolors="none",
                edgecolors="#111111",
                linewidths=1.1,
                zorder=4,
            )
            _view(axes, middle[[2, 1]], (shown[2 + k] * scale, extent[1]))
            error = float(np.nanmean(samples.errors(name)[frame]))
            axes.set_title(
                f"MPJPE {error:.0f} mm\nmean depth error {np.nanmean(depth):.0f} mm",
                fontsize=8.5,
                color=colour,
                pad=3,
                linespacing=1.15,
            )
        if row == 0:
            heads = ["2D input", "From the camera", *(f"From the side:\n{one_line(name)}" for name in names)]
            tints = ["black", "black", *(_style.colour(k) for k in range(len(names)))]
            for axes, head, tint in zip(axes_row, heads, tints, strict=True):
                where = axes.get_position()
                figure.text(
                    (where.x0 + where.x1) / 2,
                    (y + tall + title + 0.03) / figure_height,
                    _wrapped(head, where.width * figure_width),
                    ha="center",
                    va="bottom",
                    fontsize=9.5,
                    fontweight="bold",
                    color=tint,
                    parse_math=False,
                    linespacing=1.05,
                )
        if row == len(frames) - 1:
            front.set_xlabel("x (mm)", fontsize=8)
            for axes in views:
                axes.set_xlabel("← near    depth (mm)    far →", fontsize=8)
        else:
            for axes in (front, *views):
                axes.tick_params(labelbottom=False)

    from matplotlib.lines import Line2D

    legend = [
        Line2D([], [], color=_TARGET, linewidth=3.4, alpha=0.7, label="true pose"),
        *(Line2D([], [], color=_style.colour(k), linewidth=2, label=one_line(name)) for k, name in enumerate(names)),
        Line2D([], [], color="#333333", linewidth=1.8, label="right limbs"),
        Line2D([], [], color="#333333", linewidth=1.8, linestyle=_DASH, label="left limbs"),
        Line2D(
            [], [], color="none", marker="o", markersize=7, markerfacecolor="none", markeredgecolor="#111111",
            label=f"depth wrong by more than {_FAR:.0f} mm",
        ),
    ]  # fmt: skip
    box = figure.legend(
        handles=legend,
        loc="upper center",
        ncols=len(legend) if figure_width > 9.5 else (len(legend) + 1) // 2,
        frameon=False,
        fontsize=8.5,
        bbox_to_anchor=(0.5, 1.0),
        columnspacing=1.4,
        handlelength=2.4,
    )
    for text in box.get_texts():
        text.set_parse_math(False)
    return write_bytes(path, _style.png(figure, dpi))


def _wrapped(text: str, inches: float) -> str:
    """`text` in lines that fit a panel this wide."""
    import textwrap

    width = max(12, int(inches * 11.5))
    return "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, width)[:3])
