"""A figure of a refiner's sensitivity: which joints of which frames move its answer (Dabral et al., Figure 5)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import skeletons
from ..errors import ArgumentError
from ..files import new_file, write_bytes
from ..skeletons import Skeleton
from . import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["colour_cap", "plot_sensitivity", "save_sensitivity"]

_LINES = ("-", "--", ":")  # right, left, middle


def colour_cap(matrix: np.ndarray) -> float:
    """The largest entry beside the diagonal, where the colours of a matrix `[J, J]` end: the diagonal is about ten
    times larger, and would leave no colour to the rest."""
    off = matrix[~np.eye(len(matrix), dtype=bool)]
    return float(off.max()) if len(off) else float(matrix.max())


def plot_sensitivity(
    matrices: np.ndarray,
    offsets: Sequence[int],
    path: str | os.PathLike[str],
    *,
    skeleton: str = "h36m",
    title: str = "",
    dpi: int = 120,
) -> Path:
    """Draw (a) curves over the frames, one a joint that is moved, of the mean over all joints of the answer; (b) the
    matrix of the frame that is refined; (c) that of the frame before; and write them as PNG.

    Args:
        matrices: `[F, J, J]`: at `[f, i, j]`, by how much joint i of the answer moves when joint j of frame f does.
        offsets: of each of the F frames, how far it is from the one that is refined: 0 is that frame, -1 the one
            before it. Where there is no -1, the frame next to 0 is shown in its place.
        path: PNG file to write.
        skeleton: name of the joints' order.
        title: above the figure.
        dpi: pixels per inch.

    Raises:
        ArgumentError: matrices of another shape or with values that are not finite, or no frame 0.
        MissingDependencyError: matplotlib is not installed.
        OSError: the file can't be written there.
    """
    body = skeletons.get(skeleton)
    matrices, offsets = np.asarray(matrices, dtype=np.float64), [int(offset) for offset in offsets]
    shape = (len(offsets), body.num_joints, body.num_joints)
    if matrices.shape != shape or not np.isfinite(matrices).all():
        raise ArgumentError(f"matrices has shape {list(matrices.shape)}, expected finite numbers {list(shape)}.")
    if 0 not in offsets:
        raise ArgumentError(f"offsets is {offsets}, expected the frame that is refined, 0, among them.")
    figure = _style.new_figure(15.5, 5.6)
    order = sorted(range(len(offsets)), key=lambda row: offsets[row])
    _curves(figure.add_axes((0.06, 0.12, 0.26, 0.74)), matrices[order], [offsets[row] for row in order], body)
    others = sorted((offset for offset in offsets if offset != 0), key=lambda offset: (abs(offset), offset > 0))
    shown = [0, *others[:1]]
    for column, offset in enumerate(shown):
        axes = figure.add_axes((0.445 + 0.29 * column, 0.2, 0.22, 0.66))
        _matrix(axes, matrices[offsets.index(offset)], offset, body, "bc"[column])
    if title:
        figure.suptitle(title, fontsize=11, y=0.985, parse_math=False)
    return write_bytes(path, _style.png(figure, dpi))


def save_sensitivity(matrices: np.ndarray, offsets: Sequence[int], path: str | os.PathLike[str]) -> Path:
    """Write `matrices` and `offsets` as an npz; the file appears complete or not at all."""
    with new_file(Path(path)) as file:
        np.savez_compressed(file, matrices=matrices, offsets=np.asarray(offsets))
    return Path(path)


def _named(joint: str) -> str:
    return joint.replace("_", " ")


def _curves(axes: Axes, matrices: np.ndarray, offsets: Sequence[int], body: Skeleton) -> None:
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    curves = matrices.mean(axis=1)  # [F, J]
    hues = colormaps["turbo"](np.linspace(0.04, 0.96, body.num_joints))
    for joint, name in enumerate(body.joint_names):
        line = _LINES[("right", "left", "centre").index(_style.side(body, joint))]
        axes.plot(offsets, curves[:, joint], line, color=hues[joint], linewidth=1.4, marker="o", ms=2.4,
                  label=_named(name))  # fmt: skip
    axes.set_xlabel("frame that is moved, relative to the refined one", fontsize=9)
    axes.set_ylabel("mean movement of the answer's joints\nper movement of the joint", fontsize=9)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, color="#ececec", linewidth=0.6)
    axes.tick_params(labelsize=8)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)
    axes.set_title("(a) by frame and joint", fontsize=10, fontweight="bold")
    if body.num_joints <= 24:
        look = {"fontsize": 7, "frameon": False, "handlelength": 2.2, "title_fontsize": 7.5}
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), title="joint that is moved", **look)


def _matrix(axes: Axes, matrix: np.ndarray, offset: int, body: Skeleton, letter: str) -> None:
    cap = colour_cap(matrix)
    image = axes.imshow(matrix, cmap="viridis", vmin=0, vmax=cap or 1.0, interpolation="nearest")
    names = [_named(name) for name in body.joint_names]
    ticks = list(range(len(names))) if len(names) <= 24 else list(range(0, len(names), 10))
    axes.set_xticks(ticks, [names[tick] for tick in ticks], rotation=90, fontsize=7)
    axes.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=7)
    axes.set_xlabel("joint that is moved", fontsize=8.5)
    if letter == "b":
        axes.set_ylabel("joint of the answer", fontsize=8.5)
    which = (
        "the refined frame"
        if offset == 0
        else f"{abs(offset)} frame{'s' * (abs(offset) > 1)} " + ("before" if offset < 0 else "after")
    )
    axes.set_title(f"({letter}) {which}\nlargest entry {matrix.max():.2f}", fontsize=10, fontweight="bold")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, extend="max")
    bar.ax.tick_params(labelsize=7)
