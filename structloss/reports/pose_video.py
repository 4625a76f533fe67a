"""A video of 2D keypoints beside the 3D poses that were made of them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import skeletons
from ..errors import ArgumentError
from ..files import replacing
from ..progress import track
from . import _style
from .encoders import encode_gif, encode_mp4

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMATS", "PANEL_PIXELS", "pose_frames", "write_pose_video"]

FORMATS = (".mp4", ".gif")
"""Endings of files that can be written."""

_COLOURS = {"right": _style.LIGHT[0], "left": _style.LIGHT[1], "centre": "#3a3a3a"}
_DPI = 100
_PANEL = (4.8, 4.8)  # inches
PANEL_PIXELS = 480
"""Height of the panels; higher pictures only take longer to draw."""
_SHAPES = (0.6, 1.8)  # least and greatest width of a panel of pictures, of its height
_MARGIN, _HEAD, _LABEL = 0.12, 0.42, 0.26
_GIF_RATE = 25.0  # frames per second at most: browsers slow down faster ones, and files grow
# The 3D view looks at the person from where the camera is, but from further to the right and a little above, so that
# depth shows; degrees.
_AZIMUTH, _ELEVATION = 40.0, 14.0


def write_pose_video(
    path: str | os.PathLike[str],
    keypoints: np.ndarray,
    confidence: np.ndarray,
    positions: np.ndarray,
    *,
    fps: float,
    skeleton: str = "h36m",
    title: str = "",
    pictures: Iterable[np.ndarray] | None = None,
    progress: bool = False,
) -> Path:
    """Draw every frame, 2D keypoints on the left, the 3D pose on the right, and encode it as MP4 (H.264) or GIF.

    Memory does not grow with the number of frames. The person stands on the floor grid in every frame, since how high
    it is above ground is not predicted. Right limbs are orange, left limbs blue, as a legend says; keypoints fade with
    their confidence.

    Args:
        path: a name that ends in `.mp4` or `.gif`; the file appears complete or not at all.
        keypoints: `[T, J, 2]`, x right, y down, pixels.
        confidence: `[T, J]`, 0 to 1.
        positions: `[T, J, 3]`: x right, y down, z forward, relative to the pelvis, metres.
        fps: frames per second; of a faster GIF every second, third, ... frame is taken, for at most 25.
        skeleton: joint order.
        title: shown above the frames.
        pictures: uint8 RGB `[height, width, 3]`, one for each frame, all of one size, shown on the left in place of the
            keypoints, which are drawn in them already.
        progress: show a progress bar on a terminal.

    Returns:
        The path.

    Raises:
        ArgumentError: another ending, arrays that don't belong together, no frames, or a rate that is not positive.
        MissingDependencyError: matplotlib, or for MP4 `av`, is not installed.
        OSError: the file can't be written there.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(f"path is {str(path)!r}, expected a name that ends in {' or '.join(FORMATS)}.")
    if not (np.isfinite(fps) and fps > 0):
        raise ArgumentError(f"fps is {fps!r}, expected a positive number.")
    gif = path.suffix.lower() == ".gif"
    step = int(np.ceil(fps / _GIF_RATE)) if gif else 1
    frames = pose_frames(
        keypoints, confidence, positions, fps=fps, skeleton=skeleton, title=title, step=step, pictures=pictures,
        progress=progress,
    )  # fmt: skip
    with replacing(path) as temporary:
        (encode_gif if gif else encode_mp4)(temporary, frames, fps / step)
    return path


def pose_frames(
    keypoints: np.ndarray,
    confidence: np.ndarray,
    positions: np.ndarray,
    *,
    fps: float,
    skeleton: str = "h36m",
    title: str = "",
    step: int = 1,
    pictures: Iterable[np.ndarray] | None = None,
    progress: bool = False,
) -> Generator[NDArray[np.uint8], None, None]:
    """The frames of :func:`write_pose_video`, uint8 `[height, width, 3]` one after the other, every `step`-th."""
    body = skeletons.get(skeleton)
    count = len(keypoints)
    shapes = [(keypoints, 2), (positions, 3), (np.asarray(confidence)[..., None], 1)]
    if count == 0 or any(np.shape(array) != (count, body.num_joints, size) for array, size in shapes):
        found = ", ".join(str(list(np.shape(array))) for array in (keypoints, confidence, positions))
        raise ArgumentError(
            f"keypoints, confidence and positions have shapes {found}, expected [T, {body.num_joints}, 2], "
            f"[T, {body.num_joints}] and [T, {body.num_joints}, 3] with T >= 1."
        )
    return _draw_all(keypoints, confidence, positions, fps, body, title, step, pictures, progress)


def _draw_all(
    keypoints: np.ndarray, confidence: np.ndarray, positions: np.ndarray, fps: float, body: skeletons.Skeleton,
    title: str, step: int, pictures: Iterable[np.ndarray] | None, progress: bool,
) -> Generator[NDArray[np.uint8], None, None]:  # fmt: skip
    shown = None if pictures is None else _Shown(pictures)
    first = _PANEL[0] if shown is None else shown.width
    width, height = first + _PANEL[0] + 3 * _MARGIN, _PANEL[1] + _HEAD + _LABEL + _MARGIN
    figure = _style.new_figure(width, height)
    figure.set_dpi(_DPI)
    panels = []
    second = f"3D, from {_AZIMUTH:g}° to the right of the camera; grid 0.5 m"
    for left, wide, name in ((_MARGIN, first, "2D keypoints"), (2 * _MARGIN + first, _PANEL[0], second)):
        box = (left / width, _MARGIN / height, wide / width, _PANEL[1] / height)
        axes = figure.add_axes(box, facecolor="#fafafa")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("#d0d0d0")
        label = (_MARGIN + _PANEL[1] + _LABEL / 2) / height
        figure.text(left / width, label, name, va="center", fontsize=9.5, color="#555555")
        panels.append(axes)
    _legend(figure, 1 - _MARGIN / width, (_MARGIN + _PANEL[1] + _LABEL / 2) / height, width)
    head = 1 - (_HEAD / 2) / height
    figure.text(_MARGIN / width, head, _shortened(title), va="center", fontsize=11, parse_math=False)
    clock = figure.text(1 - _MARGIN / width, head, "", va="center", ha="right", fontsize=11, family="monospace")

    bodies = _Limbs(panels[1], body)
    if shown is not None:
        shown.put_into(panels[0])
    else:
        flat = _Limbs(panels[0], body)
        _fit(panels[0], keypoints[confidence > 0] if (confidence > 0).any() else keypoints.reshape(-1, 2), down=True)
    upright = _standing(positions)
    seen_from = _view(upright)
    _floor(panels[1], upright)
    # What never changes is drawn once; the rest is drawn over it.
    clock.set_animated(True)
    canvas: Any = figure.canvas
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    seconds = len(keypoints) / fps
    for t in track(range(0, len(keypoints), step), "Drawing", progress):
        canvas.restore_region(background)
        if shown is not None:
            shown.draw(t)
        else:
            flat.draw(keypoints[t], 0.15 + 0.85 * np.clip(confidence[t], 0, 1))
        bodies.draw(seen_from[t], np.ones(body.num_joints))
        clock.set_text(f"frame {t:>{len(str(len(keypoints)))}}   {t / fps:5.2f} / {seconds:.2f} s")
        figure.draw_artist(clock)
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _legend(figure: Any, right: float, middle: float, width: float) -> None:
    """Which colour is which side of the person, in words that end at `right`; `width` is the figure's, inches."""
    for side, inches in (("right", 0.0), ("left", 0.62)):
        x, text = right - inches / width, f"\u25a0 {side}"
        figure.text(x, middle, text, va="center", ha="right", fontsize=9.5, color=_COLOURS[side])


class _Shown:
    """Pictures in a panel, as high as it is."""

    def __init__(self, pictures: Iterable[np.ndarray]) -> None:
        self.rest = iter(pictures)
        self.picture, self.at = next(self.rest), 0
        high, wide = self.picture.shape[:2]
        # Very wide and very high ones leave some of the panel empty.
        self.width = _PANEL[1] * float(np.clip(wide / high, *_SHAPES))

    def put_into(self, axes: Any) -> None:
        self.axes = axes
        self.image = axes.imshow(self.picture, interpolation="bilinear", animated=True)

    def draw(self, number: int) -> None:
        """Show the picture of a frame, not before the last one that was shown."""
        while self.at < number:
            self.picture, self.at = next(self.rest), self.at + 1
        self.image.set_data(self.picture)
        self.axes.draw_artist(self.image)


class _Limbs:
    """Bones and joints of one pose in a panel."""

    def __init__(self, axes: Any, body: skeletons.Skeleton) -> None:
        from matplotlib.collections import LineCollection

        self.axes, self.bones = axes, list(body.bones)
        self.colours = np.array([_rgba(_COLOURS[_style.side(body, *bone)]) for bone in self.bones])
        small = body.num_joints > 40
        self.lines = LineCollection([], linewidths=1.4 if small else 3.6, capstyle="round", animated=True)
        self.dots = axes.scatter([], [], s=3 if small else 17, zorder=3, linewidths=0, animated=True)
        self.joints = np.array([_rgba(_COLOURS[_style.side(body, j)]) for j in range(body.num_joints)])
        axes.add_collection(self.lines, autolim=False)

    def draw(self, points: np.ndarray, alpha: np.ndarray) -> None:
        """`[J, 2]` or, with depth to draw far limbs first, `[J, 3]`; `alpha` is `[J]`."""
        order = np.arange(len(self.bones))
        ends = np.array(self.bones)
        if points.shape[1] == 3:
            order = np.argsort(-points[ends, 2].mean(1), kind="stable")
        ends = ends[order]
        colours = self.colours[order].copy()
        colours[:, 3] = alpha[ends].min(1)
        self.lines.set_segments(list(points[ends, :2]))
        self.lines.set_color(colours)
        self.dots.set_offsets(points[:, :2])
        self.dots.set_facecolor(np.concatenate([self.joints[:, :3] * 0.75, alpha[:, None]], axis=1))
        self.axes.draw_artist(self.lines)
        self.axes.draw_artist(self.dots)


def _rgba(colour: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgba

    return to_rgba(colour)


def _shortened(title: str) -> str:
    title = " ".join(title.split())
    return title if len(title) <= 60 else f"{title[:57]}..."


def _fit(axes: Any, points: np.ndarray, *, down: bool = False, margin: float = 0.12) -> None:
    """Limits, of one scale in both directions, that show the points with a margin."""
    low, high = points.min(axis=0), points.max(axis=0)
    centre, reach = (low + high) / 2, max(float((high - low).max()), 1e-6) * (0.5 + margin)
    axes.set_xlim(centre[0] - reach, centre[0] + reach)
    axes.set_ylim(*((centre[1] + reach, centre[1] - reach) if down else (centre[1] - reach, centre[1] + reach)))


def _standing(positions: np.ndarray) -> np.ndarray:
    """Camera frame to x right, y up, z forward, moved so that each frame's lowest joint is at y = 0."""
    upright = positions * np.array([1.0, -1.0, 1.0])
    return upright - upright[..., 1].min(axis=1)[:, None, None] * np.array([0.0, 1.0, 0.0])


def _view(points: np.ndarray) -> np.ndarray:
    """Screen x, y and depth of points in the 3D view."""
    a, e = np.radians([_AZIMUTH, _ELEVATION])
    x = np.cos(a) * points[..., 0] + np.sin(a) * points[..., 2]
    z = -np.sin(a) * points[..., 0] + np.cos(a) * points[..., 2]
    y = np.cos(e) * points[..., 1] + np.sin(e) * z
    return np.stack([x, y, np.cos(e) * z - np.sin(e) * points[..., 1]], axis=-1)


def _floor(axes: Any, upright: np.ndarray) -> None:
    """A grid of half metres under the person, and limits that show it and every pose."""
    from matplotlib.collections import LineCollection

    reach = max(0.5, np.ceil(np.abs(upright[..., [0, 2]]).max() * 2) / 2)
    marks = np.arange(-reach, reach + 0.25, 0.5)
    ends = np.array([[[m, 0, -reach], [m, 0, reach]] for m in marks] + [[[-reach, 0, m], [reach, 0, m]] for m in marks])
    lines = _view(ends)[..., :2]
    axes.add_collection(LineCollection(list(lines), colors="#d5d5d5", linewidths=0.9), autolim=False)
    _fit(axes, np.concatenate([lines.reshape(-1, 2), _view(upright)[..., :2].reshape(-1, 2)]), margin=0.04)
