"""Time per frame and memory over the length of the clips."""

from __future__ import annotations

import argparse

from . import measure, providers
from .inputs import Shape
from .losses import Result, or_empty, prepare, weigh
from .tables import common_columns, note_progress

__all__ = ["per_frame"]


def per_frame(args: argparse.Namespace) -> tuple[list[dict[str, object]], bool]:
    """Time per frame and memory over the length of the clips, the shapes interleaved; and whether all was right."""
    results: dict[tuple[str, Shape], Result] = {}
    calls: dict[str, dict[tuple[str, Shape], object]] = {mode: {} for mode in args.modes}
    for name in args.providers:
        for shape in args.shapes:
            note_progress(f"{shape}: checking {name}")
            results[name, shape], found = prepare(providers.PROVIDERS[name], shape, args)
            for mode, call in found.items():
                calls[mode][name, shape] = call
    rows = []
    for mode in args.modes:
        named = {f"{name} at {shape}": (name, shape) for name, shape in calls[mode]}
        times, failures = measure.interleave(
            {label: calls[mode][key] for label, key in named.items()},
            args.rounds,
            args.budget,
            args.device,
            lambda line, mode=mode: note_progress(f"{mode}: {line}"),
        )
        by_key = {named[label]: found for label, found in times.items()}
        for label, reason in failures.items():
            results[named[label]].notes[mode] = f"skipped: it failed with {reason}"
        for (name, shape), result in results.items():
            common = common_columns(providers.PROVIDERS[name].op, name, mode, shape, args)
            row = common | {"metric": "time_per_frame", "unit": "ns", "note": result.notes.get(mode, "")}
            if (name, shape) not in by_key:
                rows.append(row)
                continue
            a_frame = {
                s: {r: 1e9 * x / (s.batch * s.frames) for r, x in by_key.get((name, s), {}).items()}
                for s in (args.shapes[0], shape)
            }
            row |= dict(zip(("p20", "p50", "p80"), measure.percentiles(a_frame[shape]), strict=True))
            row["ratio"] = or_empty(measure.median_ratio(a_frame[shape], a_frame[args.shapes[0]]))
            row["note"] = f"{len(a_frame[shape])} rounds"
            rows.append(row)
            if not args.no_memory:
                note_progress(f"{shape}, {mode}: memory of {name}")
                row = common | {"metric": "peak_extra_memory", "unit": "MB"}
                try:
                    row["p50"] = weigh(name, shape, mode, calls[mode][name, shape], args)
                except Exception as error:
                    row["note"] = f"memory not measured: {measure.one_line(error)}"
                rows.append(row)
            rows.append(common | {"metric": "error", "unit": "relative", "p50": result.errors[mode]})
    note_progress("")
    return rows, not any(result.wrong for result in results.values())
