"""Losses at one shape: checked against the definition, timed by turns and weighed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from . import definition, measure, providers
from .definition import WrongError
from .inputs import Shape, make_input, make_many
from .providers import OPS, Provider
from .tables import common_columns, note_progress

__all__ = ["Result", "measure_shape", "or_empty", "predicted_seconds", "prepare", "rows_of", "weigh"]

# So many pairs take any provider a second or so.
QUICK_PAIRS = 20_000_000


@dataclass
class Result:
    """What came out for one provider and shape, or why not: by mode seconds of each round, megabytes, error, note."""

    times: dict[str, dict[int, float]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    wrong: bool = False


def prepare(provider: Provider, shape: Shape, args: argparse.Namespace) -> tuple[Result, dict[str, object]]:
    """Check one provider at one shape: its error or why it is left out, and the calls to be timed, by mode."""
    dtype, result = getattr(torch, args.dtype), Result()
    limit = args.memory_limit * 1e9 if args.memory_limit else measure.available_memory(args.device) / 2
    runnable = []
    for mode in args.modes:
        need = provider.memory_estimate(shape, mode, dtype.itemsize)
        if problem := provider.why_not(args.device, shape.joints):
            result.notes[mode] = f"skipped: {problem}"
        elif need > limit:
            result.notes[mode] = f"skipped: needs up to {need / 1e9:.3g} GB, the limit is {limit / 1e9:.3g} GB"
        else:
            runnable.append(mode)
    if not runnable:
        return result, {}
    try:
        loss = provider.build(args.device, shape.joints)
        for mode in tuple(runnable):
            seconds = predicted_seconds(provider, loss, shape, mode, dtype, args.device)
            if seconds > args.time_limit:
                runnable.remove(mode)
                result.notes[mode] = f"skipped: a call takes about {seconds:.0f} s, the limit is {args.time_limit:g} s"
        if not runnable:
            return result, {}
        # The check needs float64 and a backward pass, so it shortens clips that only a forward pass can take.
        checked = shape if "forward+backward" in runnable else shape._replace(frames=min(shape.frames, 256))
        errors = definition.check(loss, provider.terms, checked, dtype, args.device, provider.ties)
    except WrongError as error:
        result.wrong = True
        result.notes.update(dict.fromkeys(runnable, f"wrong: {error}"))
        return result, {}
    except Exception as error:  # whatever a provider raises, the others go on
        result.notes.update(dict.fromkeys(runnable, f"skipped: it failed with {measure.one_line(error)}"))
        return result, {}
    result.errors = {mode: errors[mode] for mode in runnable}
    pred, target = (make_many if args.device == "cuda" else make_input)(shape, dtype, args.device)
    return result, {mode: providers.bind(loss, pred, target, mode) for mode in runnable}


def predicted_seconds(
    provider: Provider,
    loss: providers.Loss,
    shape: Shape,
    mode: str,
    dtype: torch.dtype,
    device: str,
    pairs: int | None = None,
) -> float:
    """Seconds of a call at `shape`, told from one with shorter clips of so many pairs; 0 if `shape` is small itself."""
    short = definition.shortened(shape, pairs or QUICK_PAIRS)
    if short == shape:
        return 0.0
    call = providers.bind(loss, *make_input(short, dtype, device), mode)
    call()  # the first may compile
    seconds = measure.seconds_of(call, 1, device)
    return seconds * (shape.pairs / short.pairs if provider.quadratic else shape.elements / short.elements)


def weigh(name: str, shape: Shape, mode: str, call: object, args: argparse.Namespace) -> float:
    """Peak extra megabytes of a call."""
    if args.device == "cuda":
        return measure.peak_of_call(call, "cuda") / measure.MEGABYTE
    request = {"provider": name, "mode": mode, "shape": shape, "dtype": args.dtype, "threads": args.threads}
    return measure.peak_in_fresh_process(request)


def measure_shape(shape: Shape, args: argparse.Namespace) -> dict[str, Result]:
    """Check, then time and weigh, the chosen providers at one shape."""
    results: dict[str, Result] = {}
    calls: dict[str, dict[str, object]] = {mode: {} for mode in args.modes}
    for name in args.providers:
        note_progress(f"{shape}: checking {name}")
        results[name], found = prepare(providers.PROVIDERS[name], shape, args)
        for mode, call in found.items():
            calls[mode][name] = call
    for mode in args.modes:
        times, failures = measure.interleave(
            calls[mode],
            args.rounds,
            args.budget,
            args.device,
            lambda line, mode=mode: note_progress(f"{shape}, {mode}: {line}"),
        )
        for name, found in times.items():
            results[name].times[mode] = found
        for name, reason in failures.items():
            results[name].notes[mode] = f"skipped: it failed with {reason}"
        for name in () if args.no_memory else times:
            note_progress(f"{shape}, {mode}: memory of {name}")
            try:
                results[name].memory[mode] = weigh(name, shape, mode, calls[mode][name], args)
            except Exception as error:
                results[name].notes[mode] = f"memory not measured: {measure.one_line(error)}"
    note_progress("")
    return results


def rows_of(shape: Shape, results: Mapping[str, Result], args: argparse.Namespace) -> list[dict[str, object]]:
    """Tidy rows of one shape."""
    rows = []
    baseline = results.get(OPS[args.op].baseline, Result())
    for name, result in results.items():
        for mode in args.modes:
            common = common_columns(providers.PROVIDERS[name].op, name, mode, shape, args)
            note = result.notes.get(mode, "")
            times, memory = result.times.get(mode), result.memory.get(mode)
            if times:
                p20, p50, p80 = (1e3 * x for x in measure.percentiles(times))
                ratio = measure.median_ratio(baseline.times.get(mode), times)
                rows.append(
                    common
                    | {"metric": "time", "unit": "ms", "p20": p20, "p50": p50, "p80": p80, "ratio": or_empty(ratio)}
                    | {"note": f"{len(times)} rounds"}
                )
            else:
                rows.append(common | {"metric": "time", "unit": "ms", "note": note})
            if memory is not None:
                most = baseline.memory.get(mode)
                ratio = most / memory if most and memory else None
                rows.append(
                    common
                    | {"metric": "peak_extra_memory", "unit": "MB", "p50": memory, "ratio": or_empty(ratio)}
                    | {"note": note}
                )
            elif times and note:
                rows.append(common | {"metric": "peak_extra_memory", "unit": "MB", "note": note})
            if mode in result.errors:
                rows.append(common | {"metric": "error", "unit": "relative", "p50": result.errors[mode]})
    return rows


def or_empty(value: float | None) -> float | str:
    return "" if value is None else value
