"""Structural validity of poses: symmetry and spread of bone lengths, illegal angles (Dabral et al., Table 6)."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import ArgumentError
from ..files import write_bytes, write_text
from ..metrics import LIMBS, illegal_angle_rate, limb_symmetry
from ..metrics.spread import BoneLengthSpread
from . import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["HINGES", "Validity", "plot_validity", "validity", "validity_csv", "validity_table"]

#: in the order of `Skeleton.hinges`
HINGES = ("right elbow", "left elbow", "right knee", "left knee")


@dataclass(frozen=True)
class Validity:
    """What a set of poses is like as bodies.

    Attributes:
        name: of the set.
        symmetry: mean over frames of abs(left - right length), mm, of each of :data:`structloss.metrics.LIMBS`.
        spread: standard deviation of a bone's length over the frames of a sequence, mm, left and right averaged,
            sequences weighted by frames; NaN where no sequence has two frames.
        illegal: share of elbows and knees that bend to the wrong side, 0 to 1, in the order of :data:`HINGES`.
        frames, sequences: how many.
    """

    name: str
    symmetry: tuple[float, ...]
    spread: tuple[float, ...]
    illegal: tuple[float, ...]
    frames: int
    sequences: int


def validity(
    name: str,
    sequences: Sequence[np.ndarray],
    *,
    skeleton: str = "h36m",
    weights: Sequence[np.ndarray | None] | None = None,
) -> Validity:
    """Measure sequences of poses.

    Args:
        name: of the set.
        sequences: `[T, J, 3]` each, metres, in a right-handed frame; a person's poses one after the other.
        skeleton: name of the joints' order.
        weights: `[T, J]` of each, 0 for joints that are not known; None is 1 everywhere.

    Raises:
        ArgumentError: no sequences, or other shapes.
        UnknownNameError: an unknown skeleton.
    """
    if not sequences:
        raise ArgumentError("sequences is empty, expected at least one.")
    spread = BoneLengthSpread(skeleton, reduction="limbs")
    totals, counts = np.zeros(4 + 4), np.zeros(4 + 4)
    for number, poses in enumerate(sequences):
        weight = None if weights is None else weights[number]
        known = None if weight is None else torch.from_numpy(np.asarray(weight, dtype=np.float64))
        pose = torch.from_numpy(np.asarray(poses, dtype=np.float64)) * 1000
        options: dict[str, Any] = {"skeleton": skeleton, "weight": known}
        found = torch.cat([limb_symmetry(pose, **options), illegal_angle_rate(pose, reduction="hinges", **options)])
        values, weigh = found.numpy(), np.where(np.isfinite(found.numpy()), len(poses), 0)
        totals, counts = totals + np.where(weigh > 0, weigh * values, 0.0), counts + weigh
        spread.update(pose, None, known)
    with np.errstate(invalid="ignore"):
        means = (totals / counts).tolist()
    frames = sum(len(poses) for poses in sequences)
    return Validity(name, tuple(means[:4]), tuple(spread.compute().tolist()), tuple(means[4:]), frames, len(sequences))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _rows(found: Sequence[Validity]) -> list[list[str]]:
    rows = [["", *LIMBS, "mean"]]
    for title, attribute in (("symmetry, mm", "symmetry"), ("spread of lengths, mm", "spread")):
        for one in found:
            values = getattr(one, attribute)
            numbers = [f"{value:.1f}" if math.isfinite(value) else "–" for value in (*values, _mean(values))]
            rows.append([f"{title}: {one.name}", *numbers])
    return rows


def validity_table(found: Sequence[Validity]) -> str:
    """Two plain tables, of lengths by limb and of angles by joint; fewer is better everywhere."""
    angles = [["", *HINGES, "mean"]]
    for one in found:
        shares = [f"{100 * value:.2f}" if math.isfinite(value) else "–" for value in (*one.illegal, _mean(one.illegal))]
        angles.append([f"illegal angles, %: {one.name}", *shares])
    counts = [f"{one.name}: {_said(one.frames, 'frame')} in {_said(one.sequences, 'clip')}" for one in found]
    return "\n".join([_aligned(_rows(found)), "", _aligned(angles), "", *counts])


def _said(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def validity_csv(found: Sequence[Validity], path: str | os.PathLike[str]) -> Path:
    """Write one row per set and part: name, measure, part, value, unit."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", "measure", "part", "value", "unit"])
    for one in found:
        for measure, parts, unit in (("symmetry", LIMBS, "mm"), ("spread", LIMBS, "mm"), ("illegal", HINGES, "share")):
            for part, value in zip(parts, getattr(one, measure), strict=True):
                writer.writerow([one.name, measure, part, f"{value:.9g}", unit])
    return write_text(path, out.getvalue())


def plot_validity(found: Sequence[Validity], path: str | os.PathLike[str], *, dpi: int = 120) -> Path:
    """Draw three panels of bars, symmetry and spread by limb and illegal angles by joint, and write them as PNG.

    Raises:
        ArgumentError: nothing to draw.
        MissingDependencyError: matplotlib is not installed.
        OSError: the file can't be written there.
    """
    if not found:
        raise ArgumentError("found is empty, expected at least one set of poses.")
    figure = _style.new_figure(13.5, 4.4)
    panels: tuple[tuple[str, str, Sequence[str], Sequence[Sequence[float]]], ...] = (
        ("Symmetry", "mean |left − right length| (mm)", LIMBS, [one.symmetry for one in found]),
        ("Bone-length spread", "standard deviation over time (mm)", LIMBS, [one.spread for one in found]),
        ("Illegal angles", "share of frames (%)", HINGES, [[100 * v for v in one.illegal] for one in found]),
    )
    for number, (title, label, parts, values) in enumerate(panels):
        _bars(figure.add_axes((0.055 + 0.325 * number, 0.13, 0.275, 0.66)), title, label, parts, values)
    handles: Any = figure.axes[0].containers
    box = figure.legend(
        handles, [one.name for one in found], loc="upper center", ncols=min(len(found), 4), frameon=False, fontsize=9
    )
    for text in box.get_texts():
        text.set_parse_math(False)
    return write_bytes(path, _style.png(figure, dpi))


def _bars(axes: Axes, title: str, label: str, parts: Sequence[str], values: Sequence[Sequence[float]]) -> None:
    width = 0.8 / len(values)
    top = max((value for row in values for value in row if math.isfinite(value)), default=0.0)
    for k, row in enumerate(values):
        places = np.arange(len(parts)) + (k - (len(values) - 1) / 2) * width
        heights = [value if math.isfinite(value) else 0.0 for value in row]
        axes.bar(places, heights, width * 0.92, color=_style.colour(k))
        if len(values) <= 4:
            for place, value in zip(places, row, strict=True):
                text = f"{value:.1f}" if math.isfinite(value) else "–"
                axes.text(place, (value if math.isfinite(value) else 0) + 0.012 * (top or 1), text, ha="center",
                          va="bottom", fontsize=6.5 if len(values) > 2 else 7.5)  # fmt: skip
    axes.set_ylim(0, 1.1 * top or 1.0)
    axes.set_xticks(range(len(parts)), [part.replace(" ", "\n") for part in parts], fontsize=8.5)
    axes.set_ylabel(label, fontsize=8.5)
    axes.set_title(title, fontsize=10.5, fontweight="bold")
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(True, axis="y", color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)
