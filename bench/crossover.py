"""Time per element of ranking_hinge over the length of its rows: where another algorithm takes over."""

from __future__ import annotations

import argparse

import torch

import structloss

from . import definition, measure, providers
from .definition import WrongError
from .inputs import Shape, make_input
from .tables import common_columns, note_progress

__all__ = ["crossover"]

LENGTHS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
ELEMENTS = 1 << 17


def crossover(args: argparse.Namespace) -> tuple[list[dict[str, object]], bool]:
    """Time per element of ranking_hinge over the length of its rows, and whether all was right."""
    dtype, rows, right = getattr(torch, args.dtype), [], True
    names = args.providers
    for length in LENGTHS:
        shape = Shape(ELEMENTS // length, length, 1)
        note_progress(f"rows of {length}: checking")
        p, d = (x[..., 0, 2].contiguous() for x in make_input(shape, dtype, args.device))  # [rows, length]
        few = slice(0, 4)
        expected, expected_gradient = definition.hinge_rows(p[few].cpu().double(), d[few].cpu().double())
        notes, calls = {}, {mode: {} for mode in args.modes}
        for name in names:
            if name not in providers.BACKENDS:
                notes[name] = "skipped: it isn't a backend of structloss.ranking_hinge"
                continue
            if problem := providers.PROVIDERS[name].problem(args.device):
                notes[name] = f"skipped: {problem}"
                continue

            def loss(pred: torch.Tensor, target: torch.Tensor, backend: str = name) -> torch.Tensor:
                return structloss.ranking_hinge(pred, target, reduction="sum", backend=backend)

            try:
                leaf = p[few].clone().requires_grad_()
                value = loss(leaf, d[few])
                (gradient,) = torch.autograd.grad(value, leaf)
                definition.compare("loss", f"rows of {length}", value, expected)
                definition.compare("gradient", f"rows of {length}", gradient, expected_gradient)
            except WrongError as error:
                right, notes[name] = False, f"wrong: {error}"
                continue
            except Exception as error:
                notes[name] = f"skipped: it failed with {measure.one_line(error)}"
                continue
            for mode in args.modes:
                calls[mode][name] = providers.bind(loss, p, d, mode)
        for mode in args.modes:
            times, failures = measure.interleave(
                calls[mode], args.rounds, args.budget, args.device, lambda line: note_progress(f"crossover: {line}")
            )
            notes |= {name: f"skipped: it failed with {reason}" for name, reason in failures.items()}
            for name in names:
                row = common_columns("ranking_hinge", name, mode, shape, args)
                row |= {"metric": "time_per_element", "unit": "ns", "note": notes.get(name, "")}
                if name in times:
                    values = measure.percentiles(times[name])
                    row |= {key: 1e9 * x / p.numel() for key, x in zip(("p20", "p50", "p80"), values, strict=True)}
                rows.append(row)
    note_progress("")
    return rows, right
