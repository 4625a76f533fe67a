"""The tables of docs/evidence.md, made of what `structloss ablate evidence` found.

    structloss ablate evidence --data MOTION.npz --out runs/evidence
    python -m bench.evidence keep runs/evidence      # its tables and plots into bench/results/evidence_*
    python -m bench.evidence show coarse             # the short table of a stage

A short table has MPJPE, MPJVE, the order in depth over time and LSE for some kinds of 2D: the baseline's, and how much
more or less it is with each objective, the mean over seeds of paired differences. With several seeds the half-width of
its 95 % interval (Student's t) stands beside it, and bold is what leaves zero out.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from pathlib import Path

from structloss.files import write_bytes
from structloss.metrics.measures import measure
from structloss.reports.ablation import Summary

__all__ = ["STAGES", "main", "short_table"]

RESULTS = Path(__file__).resolve().parent / "results"
STAGES = {
    "coarse": "coarse",
    "image": "coarse-image",
    "finetune": "finetune",
    "scratch": "scratch",
    "velocity": "velocity",
}
"""Stage -> folder of `structloss ablate evidence`; the last is of `ablate evidence-velocity`."""
_FILES = {"table.md": "md", "table.csv": "csv", "plot.png": "png"}
_KINDS = {"exact": "exact", "noise:5": "5 px of noise", "dropped:0.3": "30 % missing", "simulated": "detector"}
_SHOWN = (
    *(("mpjpe", kind) for kind in _KINDS),
    *(("mpjve", kind) for kind in ("exact", "noise:5", "dropped:0.3")),
    *(("depth_order_frames", kind) for kind in ("exact", "dropped:0.3")),
    ("lse", "exact"),
)


def keep(folder: Path) -> list[Path]:
    """Copy tables and plots of the stages that were run into bench/results."""
    kept = []
    for stage, name in STAGES.items():
        for file, ending in _FILES.items():
            if (folder / name / file).exists():
                kept.append(write_bytes(RESULTS / f"evidence_{stage}.{ending}", (folder / name / file).read_bytes()))
    return kept


def short_table(stage: str) -> str:
    """A stage's short table, in Markdown."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    changes: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    objectives: dict[str, None] = {}
    with open(RESULTS / f"evidence_{stage}.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = row["objective"], row["measure"], row["backbone"].partition(", ")[2]
            objectives[row["objective"]] = None
            values[key].append(float(row["value"]))
            if row["change"]:
                changes[key].append(float(row["change"]))
    names = [f"{measure(key).title}, {_KINDS[kind]}" for key, kind in _SHOWN]
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for number, objective in enumerate(objectives):
        cells = []
        for key, kind in _SHOWN:
            if number == 0:
                cells.append(
                    f"{Summary('', objective, measure(key), tuple(values[objective, key, kind]), ()).mean:.1f}"
                )
                continue
            found = Summary("", objective, measure(key), (), tuple(changes[objective, key, kind]))
            text = f"{found.change:+.2f}" + (f" ± {found.margin:.2f}" if math.isfinite(found.margin) else "")
            cells.append(f"**{text}**" if found.verdict else text)
        lines.append(f"| {objective} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.evidence", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("keep").add_argument("folder", type=Path)
    commands.add_parser("show").add_argument("stage", choices=tuple(STAGES))
    given = parser.parse_args(arguments)
    if given.command == "keep":
        print(*keep(given.folder), sep="\n")
    else:
        print(short_table(given.stage), end="")


if __name__ == "__main__":
    main()
