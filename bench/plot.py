"""Time and memory against clip length, from the rows of run.py.

python bench/plot.py results.csv sweep.png
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["plot"]

# Okabe and Ito's palette, told apart by colour-blind readers; markers and labels carry the same information.
COLOURS = ("#000000", "#E69F00", "#CC79A7", "#56B4E9", "#D55E00", "#009E73", "#0072B2", "#999999", "#B8A800")
MARKERS = "os^vD*PXh"
PANELS = (("time", "time of forward + backward [ms]"), ("peak_extra_memory", "peak extra memory [MB]"))


def plot(rows: Iterable[Mapping[str, object]], path: str | Path) -> None:
    """Draw forward + backward time and memory over T, for the B and J with the most clip lengths.

    Args:
        rows: rows of run.py's CSV, numbers as numbers or text.
        path: image file; its suffix is the format.

    Raises:
        ValueError: no measured rows.
    """
    from matplotlib.figure import Figure

    measured = [row for row in rows if row["mode"] == "forward+backward" and row["p50"] not in ("", None)]
    lengths = Counter((int(b), int(j)) for b, _, j in {(row["B"], row["T"], row["J"]) for row in measured})
    if not lengths:
        raise ValueError("there is no row of a measured forward + backward pass to plot.")
    batch, joints = max(lengths, key=lambda key: (lengths[key], key))
    names = list(dict.fromkeys(str(row["provider"]) for row in measured))

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axes, (metric, label) in zip(figure.subplots(1, 2), PANELS, strict=True):
        curves: dict[str, dict[int, tuple[float, float, float]]] = defaultdict(dict)
        for row in measured:
            if row["metric"] == metric and (int(row["B"]), int(row["J"])) == (batch, joints):
                low, middle, high = (float(row[key] or row["p50"]) for key in ("p20", "p50", "p80"))
                # A logarithmic axis has no 0; less than 10 kB can't be told from nothing.
                curves[str(row["provider"])][int(row["T"])] = tuple(max(x, 1e-2) for x in (low, middle, high))
        for name, points in curves.items():
            style = names.index(name)
            frames = sorted(points)
            low, middle, high = zip(*(points[t] for t in frames), strict=True)
            colour = COLOURS[style % len(COLOURS)]
            axes.plot(
                frames, middle, color=colour, marker=MARKERS[style % len(MARKERS)], markersize=5, lw=1.5, label=name
            )
            axes.fill_between(frames, low, high, color=colour, alpha=0.2, lw=0)
        axes.set(xscale="log", yscale="log", xlabel="frames T of a clip", ylabel=label)
        ticks = sorted({t for points in curves.values() for t in points})
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if curves and metric == PANELS[0][0]:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
        elif not curves:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
    first = measured[0]
    figure.suptitle(
        f"B = {batch}, J = {joints}, {first['dtype']}; {first['device']}, threads: {first['threads']}",
        fontsize=10,
    )
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description="Plot time and memory over clip length from run.py's CSV.")
    parser.add_argument("csv", type=Path, help="file written by run.py --csv")
    parser.add_argument("image", type=Path, help="file to write; .png, .svg or .pdf")
    args = parser.parse_args()
    try:
        with args.csv.open(newline="") as file:
            plot([row for row in csv.DictReader(file) if row["op"] != "ranking_hinge"], args.image)
    except (OSError, ValueError, KeyError) as error:
        print(f"plot.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
