"""Time and memory against clip length, from the rows of bench.run.

python -m bench.plot results.csv sweep.png
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ["plot"]

# Okabe and Ito's palette, told apart by colour-blind readers; markers and labels carry the same information.
COLOURS = ("#000000", "#E69F00", "#CC79A7", "#56B4E9", "#D55E00", "#009E73", "#0072B2", "#999999", "#B8A800", "#882255")
MARKERS = "os^vD*PXh<"
TIMES = {"time": "forward + backward [ms]", "time_per_frame": "forward + backward, per frame [ns]"}
MEMORY = "peak extra memory [MB]"
# A logarithmic axis has no 0, and less than this can't be told from nothing.
LEAST_MEMORY = 1e-2

Curves = dict[str, dict[int, tuple[float, float, float]]]


def _curves(rows: Iterable[Mapping[str, object]], metric: str) -> Curves:
    """provider -> T -> p20, p50, p80."""
    curves: Curves = defaultdict(dict)
    for row in rows:
        if row["metric"] == metric:
            low, middle, high = (float(row[key] or row["p50"]) for key in ("p20", "p50", "p80"))
            if metric == "peak_extra_memory":
                low, middle, high = (max(x, LEAST_MEMORY) for x in (low, middle, high))
            curves[str(row["provider"])][int(row["T"])] = (low, middle, high)
    return curves


def _draw(axes: object, curves: Curves, names: Sequence[str], label: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    for name, points in curves.items():
        style = names.index(name)
        frames = sorted(points)
        low, middle, high = zip(*(points[t] for t in frames), strict=True)
        colour = COLOURS[style % len(COLOURS)]
        axes.plot(frames, middle, color=colour, marker=MARKERS[style % len(MARKERS)], markersize=5, lw=1.5, label=name)
        axes.fill_between(frames, low, high, color=colour, alpha=0.2, lw=0)
    axes.set(xscale="log", yscale="log", xlabel="frames T of a clip", ylabel=label)
    ticks = sorted({t for points in curves.values() for t in points})
    axes.set_xticks(ticks, [str(t) for t in ticks], rotation=45, ha="right", rotation_mode="anchor")
    bottom, top = axes.get_ylim()
    subdivided = (1.0, 2.0, 5.0) if top / bottom < 1000 else (1.0,)  # so that several labels are seen
    axes.yaxis.set_major_locator(LogLocator(subs=subdivided, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if not curves:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")


def plot(rows: Iterable[Mapping[str, object]], path: str | Path) -> None:
    """Draw forward + backward time and memory over T, for the B and J with the most clip lengths.

    Rows of a time per frame (bench.run --per-frame) are drawn for their first J, whatever B is.

    Args:
        rows: rows of bench.run's CSV, numbers as numbers or text.
        path: image file; its suffix is the format.

    Raises:
        ValueError: no measured rows.
    """
    from matplotlib.figure import Figure

    measured = [
        row
        for row in rows
        if row["mode"] == "forward+backward"
        and row["p50"] not in ("", None)
        and row["metric"] in (*TIMES, "peak_extra_memory")
    ]
    if not measured:
        raise ValueError("there is no row of a measured forward + backward pass to plot.")
    a_frame = any(row["metric"] == "time_per_frame" for row in measured)
    if a_frame:
        joints = int(measured[0]["J"])
        kept = [row for row in measured if int(row["J"]) == joints]
        title = f"J = {joints}, B·T nearly the same for every T"
    else:
        lengths = Counter((int(b), int(j)) for b, _, j in {(row["B"], row["T"], row["J"]) for row in measured})
        batch, joints = max(lengths, key=lambda key: (lengths[key], key))
        kept = [row for row in measured if (int(row["B"]), int(row["J"])) == (batch, joints)]
        title = f"B = {batch}, J = {joints}"
    names = list(dict.fromkeys(str(row["provider"]) for row in kept))
    time = "time_per_frame" if a_frame else "time"

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, _curves(kept, time), names, TIMES[time])
    _draw(right, _curves(kept, "peak_extra_memory"), names, MEMORY)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)
    first = kept[0]
    figure.suptitle(f"{title}, {first['dtype']}; {first['device']}, threads: {first['threads']}", fontsize=10)
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.plot", description="Plot time and memory over clip length from bench.run's CSV."
    )
    parser.add_argument("csv", type=Path, help="file written by bench.run --csv")
    parser.add_argument("image", type=Path, help="file to write; .png, .svg or .pdf")
    args = parser.parse_args()
    try:
        with args.csv.open(newline="") as file:
            plot([row for row in csv.DictReader(file) if row["op"] != "ranking_hinge"], args.image)
    except (OSError, ValueError, KeyError) as error:
        print(f"bench.plot: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
