"""What a loss network has learned, as a table, a figure and JSON."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import write_bytes, write_json, write_text
from ..metrics.energy import EnergyAnalysis
from ..metrics.measures import MEASURES, measure
from ..skeletons import Skeleton
from . import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["energy_table", "plot_energy", "write_energy_report"]


def energy_table(found: EnergyAnalysis) -> str:
    """Markdown: one line per corruption, then what was found of predictions."""
    error = measure("mpjpe")
    lines = [
        f"{found.frames} held-out poses; energies of true poses {found.truth_mean:.3g} ± {found.truth_std:.3g}.",
        "",
        f"| corruption | size | {error.title}, {error.unit} | AUC | AUC at the largest size | energy rises with size |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found.corruptions.items():
        lines.append(
            f"| {name.replace('_', ' ')} | {one.default:g} | {one.default_distance:.0f} | {one.default_auc:.3f} | "
            f"{one.auc[-1]:.3f} ({one.sizes[-1]:g}) | {'yes' if one.rises else 'no'} |"
        )
    lines += ["", *(f"- {name.replace('_', ' ')}: {one.unit}" for name, one in found.corruptions.items())]
    if found.correlation:
        ranks = ", ".join(f"{_titled(name)} {value:+.2f}" for name, value in found.correlation.items())
        lines += [
            "",
            f"Predictions: AUC against the truth {found.prediction_auc:.3f}; rank correlation of the energy with "
            f"{ranks}; mean cosine between the energy's pull and the way to the truth {found.cosine:+.2f}.",
        ]
    return "\n".join(lines) + "\n"


def _titled(name: str) -> str:
    """A key of the correlations with measures by their titles."""
    return " ".join(MEASURES[word].title if word in MEASURES else word for word in name.split())


def write_energy_report(found: EnergyAnalysis, skeleton: Skeleton, folder: str | os.PathLike[str], title: str) -> Path:
    """Write `energy.md`, `energy.json` and `energy.png` into a folder, which is made; returns it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "energy.md", f"### {title}\n\n{energy_table(found)}")
    write_json(folder / "energy.json", asdict(found))
    plot_energy(found, skeleton, folder / "energy.png", title)
    return folder


def plot_energy(found: EnergyAnalysis, skeleton: Skeleton, path: str | os.PathLike[str], title: str = "") -> Path:
    """One panel per corruption, energy against its size; bars of AUCs; and if there are predictions, their energies."""
    kinds = list(found.corruptions.items())
    columns = 4
    last = [_auc_bars, *([_predictions, _way, _pull] if found.scatter else [])]
    rows = -(-(len(kinds) + len(last)) // columns)
    figure = _style.new_figure(3.3 * columns, 2.5 * rows + 0.5)
    for number, (name, one) in enumerate(kinds):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.plot(one.sizes, one.energy, "o-", ms=3.5, color=_style.colour(1))
        axes.axhspan(
            found.truth_mean - found.truth_std, found.truth_mean + found.truth_std, color="#cccccc", alpha=0.4, lw=0
        )
        axes.set_title(f"{name.replace('_', ' ')}, AUC {one.default_auc:.2f} at {one.default:g}", fontsize=9)
        axes.set_xlabel(one.label, fontsize=8)
        if number % columns == 0:
            axes.set_ylabel("mean energy", fontsize=8)
    for number, draw in enumerate(last, len(kinds) + 1):
        draw(figure.add_subplot(rows, columns, number), found, skeleton)
    for axes in figure.axes:
        axes.tick_params(labelsize=7)
        for edge in ("top", "right"):
            axes.spines[edge].set_visible(False)
    figure.suptitle(f"{title}\ngrey: true poses, mean ± standard deviation" if title else "", fontsize=10)
    figure.tight_layout()
    return write_bytes(path, _style.png(figure, 130))


def _auc_bars(axes: Axes, found: EnergyAnalysis, skeleton: Skeleton) -> None:
    names = [*found.corruptions, *(["prediction"] if found.scatter else [])]
    values = [one.default_auc for one in found.corruptions.values()]
    values += [found.prediction_auc] if found.scatter else []
    axes.barh([name.replace("_", " ") for name in names], values, color=_style.colour(2))
    axes.axvline(0.5, color="#888888", linewidth=0.8)
    axes.axvline(0.9, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.set_title("AUC against the truth (0.5: chance)", fontsize=9)


def _predictions(axes: Axes, found: EnergyAnalysis, skeleton: Skeleton) -> None:
    axes.plot(*zip(*found.scatter, strict=True), ".", ms=2, alpha=0.35, color=_style.colour(0))
    axes.set_xlabel(f"{measure('mpjpe').title} of a prediction, {measure('mpjpe').unit}", fontsize=8)
    axes.set_ylabel("energy", fontsize=8)
    rank = found.correlation.get("mpjpe", math.nan)
    axes.set_title(f"predictions: rank correlation {rank:+.2f}", fontsize=9)


def _way(axes: Axes, found: EnergyAnalysis, skeleton: Skeleton) -> None:
    axes.plot(found.path_steps, found.path, "o-", ms=3.5, color=_style.colour(0))
    axes.set_xlabel("from truth (0) to prediction (1)", fontsize=8)
    axes.set_title(f"mean energy on the way, cosine {found.cosine:+.2f}", fontsize=9)


def _pull(axes: Axes, found: EnergyAnalysis, skeleton: Skeleton) -> None:
    order = sorted(range(len(found.pull)), key=lambda joint: -found.pull[joint])[:17]
    axes.barh([skeleton.joint_names[joint] for joint in order], [found.pull[j] for j in order], color=_style.colour(3))
    axes.invert_yaxis()
    axes.set_title("pull on each joint: |∂E/∂joint|, 1/m", fontsize=9)
    axes.tick_params(labelsize=6)
