"""A figure of chosen frames of poses: the 2D input or the truth where there is any, from the camera, from the side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import skeletons
from ..errors import ArgumentError
from ..files import write_bytes
from ..skeletons import Skeleton
from . import _style
from .poses import draw_input, draw_limbs, set_view

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_pose_frames"]

_TALL, _GAP, _BELOW = 2.6, 0.22, 0.3  # inches: of a panel, between columns, and between rows


def plot_pose_frames(
    poses: np.ndarray,
    labels: Sequence[str],
    path: str | os.PathLike[str],
    *,
    skeleton: str = "h36m",
    keypoints: np.ndarray | None = None,
    true: np.ndarray | None = None,
    title: str = "",
    dpi: int = 120,
) -> Path:
    """Draw poses, a column per frame, all views of one scale, and write them as PNG.

    Args:
        poses: `[F, J, 3]`, millimetres, x right, y down, z forward; drawn relative to the pelvis.
        labels: one per frame.
        path: PNG file to write.
        skeleton: name of the joints' order.
        keypoints: `[F, J, 3]`, 2D, y down, and confidence 0 to 1; None without any.
        true: `[F, J, 3]`, true poses to draw behind, in grey; None without any.
        title: above the figure.
        dpi: pixels per inch.

    Raises:
        ArgumentError: shapes that don't fit, or poses with values that are not finite.
        MissingDependencyError: matplotlib is not installed.
        OSError: the file can't be written there.
    """
    body = skeletons.get(skeleton)
    poses = np.asarray(poses, dtype=np.float64)
    shape = (len(labels), body.num_joints, 3)
    if not labels or poses.shape != shape or not np.isfinite(poses).all():
        raise ArgumentError(f"poses has shape {list(poses.shape)}, expected finite millimetres {list(shape)}.")
    if keypoints is not None and np.shape(keypoints) != shape:
        raise ArgumentError(f"keypoints has shape {list(np.shape(keypoints))}, expected {list(shape)}.")
    if true is not None and np.shape(true) != shape:
        raise ArgumentError(f"true has shape {list(np.shape(true))}, expected {list(shape)}.")
    upright, behind = _upright(poses, body), None if true is None else _upright(np.asarray(true, np.float64), body)
    every = upright if behind is None else np.concatenate([upright, behind], axis=1)
    low, high = np.nanmin(every, axis=1), np.nanmax(every, axis=1)
    extent = (high - low).max(axis=0) * 1.08 + 120  # mm in x, y, z
    tall, wide = float(extent[1]), float(max(extent[0], extent[2], 0.6 * extent[1]))
    rows = 2 + (keypoints is not None)
    panel = wide / tall * _TALL
    top = 0.4 + (0.2 if behind is not None else 0.0) + (0.2 if title else 0.0)
    width, height = max(0.75 + len(labels) * (panel + _GAP), 3.6), top + 0.25 + rows * (_TALL + _BELOW)
    figure = _style.new_figure(width, height)
    for column, label in enumerate(labels):
        axes = []
        for row in range(rows):
            left, below = 0.55 + column * (panel + _GAP), height - top - (row + 1) * _TALL - row * _BELOW
            place = (left / width, below / height, panel / width, _TALL / height)
            axes.append(figure.add_axes(place))
        error = "" if behind is None else f"\n{np.linalg.norm(upright[column] - behind[column], axis=-1).mean():.0f} mm"
        axes[0].set_title(label + error, fontsize=9, parse_math=False)
        if keypoints is not None:
            points = keypoints[column]
            draw_input(axes[0], body, points[:, :2], points[:, 2], (panel, _TALL))
            axes[0].set_ylabel("2D input" if column == 0 else "", fontsize=8)
        for row, (across, name) in enumerate(((0, "from the camera\nx (mm)"), (2, "from the side\ndepth (mm), far →"))):
            view = axes[rows - 2 + row]
            flat, middle = upright[column][:, [across, 1]], ((low + high) / 2)[column, [across, 1]]
            if behind is not None:
                draw_limbs(view, body, behind[column][:, [across, 1]], "#8a8a8a", 3.2, 0.55)
            draw_limbs(view, body, flat, _style.colour(1), 1.6)
            view.scatter(flat[:, 0], flat[:, 1], s=7, color=_style.colour(1), linewidths=0, zorder=3)
            set_view(view, middle, (wide, tall))
            view.set_ylabel(name if column == 0 else "", fontsize=8)
        for one in axes:
            _frame(one)
    if title:
        figure.suptitle(title, fontsize=10.5, y=1 - 0.12 / height, va="top", parse_math=False)
    note = "right limbs solid, left limbs dashed; a grid of 250 mm"
    if behind is not None:
        note += "; grey: true pose, with the mean distance of the joints (MPJPE)"
    figure.text(0.5, 0.06 / height, note, ha="center", fontsize=7.5, color="#666666")
    return write_bytes(path, _style.png(figure, dpi))


def _upright(poses: np.ndarray, body: Skeleton) -> np.ndarray:
    """Relative to the pelvis, y up."""
    relative: np.ndarray = poses - poses[:, list(body.pelvis)].mean(axis=1, keepdims=True)
    return relative * np.array([1.0, -1.0, 1.0])


def _frame(axes: Axes) -> None:
    axes.set_aspect("equal", adjustable="box")
    for spine in axes.spines.values():
        spine.set_color("#cccccc")
