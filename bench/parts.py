"""Rendering the parts of a shape template, ms per batch, forward and forward + backward.

What the published code does (drawn parts, sampled through a grid), the analytic form in eager PyTorch and under
torch.compile, and structloss.render_parts on each backend. Before it is timed, every way's images and gradients are
compared with the float64 definition of what it computes. Peak memory beyond inputs is that of a fresh process, the
images included. The matrices are those of a person: near the identity, a tenth turned and stretched. From the second
call on, structloss' cpp backend finds the memory of the images before, as it does in training; with
STRUCTLOSS_KEPT_MB=0 it gets new memory in every call, as the other ways do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import structloss
from structloss import shape_templates

from . import command, definition, measure, tables
from .definition import WrongError
from .inputs import Shape

Render = Callable[[Tensor], Tensor]

BASELINE = "grid-sample"
MODES = ("forward+backward", "forward")
TEMPLATE = "natural"
# Images and gradient of small parts in float32, against float64: of the peak, and of the largest gradient.
TOLERANCE = 1e-4
EPILOG = """\
columns of the CSV: B is the batch, T the image size, J the number of parts; metric is time (ms) or peak_extra_memory
(MB); ratio says how many times less than the baseline's it is, in the median round.

examples:
  {command} --threads 2 --csv bench/results/cpu_parts.csv
  {command} --batch 4 --size 64 --rounds 3 --no-memory
  {command} --providers analytic-compiled cpp
"""


@dataclass(frozen=True)
class Provider:
    """One way to render.

    Attributes:
        summary: what it is, for the table.
        build: image size and device -> matrices [B, P, 2, 3] to images [B, P, size, size].
        backend: structloss' name of it, or "".
        samples: whether it is the published form, whose definition interpolates a drawing.
    """

    summary: str
    build: Callable[[int, torch.device], Render]
    backend: str = ""
    samples: bool = False

    def problem(self, device: str) -> str:
        """Why it can't run here, or ""."""
        if not self.backend:
            return ""
        try:
            structloss.render_parts(torch.zeros(0, 18, 2, 3, device=device), TEMPLATE, 8, backend=self.backend)
        except structloss.errors.BackendError as error:
            return str(error)
        return ""


def analytic(size: int, device: torch.device) -> Render:
    """The parts' Gaussians at A^-1 q, as one writes it in PyTorch."""
    template = torch.tensor(shape_templates.get(TEMPLATE).at(size).parameters, device=device)
    row, column, s_row, s_column, angle, peak = (x[:, None, None] for x in template.unbind(1))
    sine, cosine = angle.sin(), angle.cos()

    def render(matrices: Tensor) -> Tensor:
        pixels = torch.arange(size, dtype=matrices.dtype, device=matrices.device)
        a, b, tx, c, d, ty = (x[..., None, None] for x in matrices.flatten(-2).unbind(-1))
        determinant = a * d - b * c
        # Six numbers a part: what is left for every pixel are two sums, two squares and the exponential.
        ax, ay = (cosine * -c - sine * d) / (s_row * determinant), (cosine * a + sine * b) / (s_row * determinant)
        bx, by = (cosine * d - sine * c) / (s_column * determinant), (sine * a - cosine * b) / (s_column * determinant)
        x0, y0 = a * column + b * row + tx, c * column + d * row + ty
        u = ax * (pixels - x0) + ay * (pixels[:, None] - y0)
        v = bx * (pixels - x0) + by * (pixels[:, None] - y0)
        return peak * torch.exp(-0.5 * (u * u + v * v))

    return render


def compiled(size: int, device: torch.device) -> Render:
    """The same under torch.compile, for one shape: its best case."""
    torch.compiler.reset()
    return torch.compile(analytic(size, device), fullgraph=True, dynamic=False)


def grid_sample(size: int, device: torch.device) -> Render:
    """As published: the drawn parts, a grid of every part's inverse matrix, bilinear samples."""
    drawn = analytic(size, device)(torch.eye(2, 3, device=device).expand(1, 18, 2, 3))
    scale = 2 / (size - 1)
    normalise = torch.tensor([[scale, 0, -1], [0, scale, -1], [0, 0, 1]], device=device)
    last = torch.tensor([0.0, 0.0, 1.0], device=device)

    def render(matrices: Tensor) -> Tensor:
        B, P = matrices.shape[:2]
        whole = torch.cat([matrices, last.expand(B, P, 1, 3)], 2)
        theta = (normalise @ torch.linalg.inv(whole) @ torch.linalg.inv(normalise))[..., :2, :].flatten(0, 1)
        grid = F.affine_grid(theta, [B * P, 1, size, size], align_corners=True)
        images = drawn.expand(B, P, size, size).reshape(B * P, 1, size, size)
        return F.grid_sample(images, grid, align_corners=True).view(B, P, size, size)

    return render


def ours(backend: str) -> Callable[[int, torch.device], Render]:
    return lambda size, device: lambda matrices: structloss.render_parts(matrices, TEMPLATE, size, backend=backend)


PROVIDERS = {
    BASELINE: Provider("affine_grid + grid_sample of the drawn parts, as published", grid_sample, samples=True),
    "analytic-eager": Provider("analytic, eager PyTorch", analytic),
    "analytic-compiled": Provider("analytic, torch.compile", compiled),
    **{
        name: Provider(f'structloss, backend="{name}"', ours(name), backend=name)
        for name in ("torch", "cpp", "triton", "cuda")
    },
}


def matrices_of(batch: int, size: int, device: str = "cpu") -> Tensor:
    """Matrices [batch, P, 2, 3] that move every part about its centre."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.tensor(shape_templates.get(TEMPLATE).at(size).parameters)[:, [1, 0], None]
    linear = torch.eye(2) + 0.1 * torch.randn(batch, len(centre), 2, 2, generator=generator)
    shift = centre - linear @ centre + size / 25 * torch.randn(batch, len(centre), 2, 1, generator=generator)
    return torch.cat([linear, shift], -1).to(device)


def bind(render: Render, matrices: Tensor, incoming: Tensor | None) -> Callable[[], object]:
    """What is timed: images, and with an incoming gradient that of the matrices."""
    if incoming is None:
        return lambda: render(matrices)
    leaf = matrices.clone().requires_grad_()
    return lambda: torch.autograd.grad(render(leaf), leaf, incoming)


def check(name: str, device: str) -> None:
    """Raise unless images and gradients of two small samples are those of the definition."""
    size = 64
    matrices = matrices_of(2, size, device).requires_grad_()
    images = PROVIDERS[name].build(size, torch.device(device))(matrices)
    incoming = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(images, matrices, incoming.to(device))
    reference = definition.reference("parts")
    leaf = matrices.detach().cpu().double().requires_grad_()
    template = torch.tensor(shape_templates.get(TEMPLATE).at(size).parameters, dtype=torch.float64)
    if PROVIDERS[name].samples:
        expected = torch.stack([reference.sample_parts(each, template, size) for each in leaf])
    else:
        expected = reference.render_parts(leaf, template, size)
    (exact,) = torch.autograd.grad(expected, leaf, incoming.double())
    errors = {
        "images": float((images.detach().cpu() - expected.detach()).abs().max()),
        "gradient": float((gradient.cpu() - exact).abs().max() / exact.abs().max()),
    }
    for what, error in errors.items():
        if not error <= TOLERANCE:
            raise WrongError(f"{what} of {name} differ from the definition by {error:.1e} of the largest")


def benchmark(args: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    """Tidy rows, and their table."""
    rows: list[dict[str, object]] = []
    usable = []
    for name in args.providers:
        tables.note_progress(f"comparing {name}")
        if problem := PROVIDERS[name].problem(args.device):
            rows += [row_of(name, mode, "time", args) | {"note": f"skipped: {problem}"} for mode in MODES]
            continue
        check(name, args.device)
        usable.append(name)
    matrices = matrices_of(args.batch, args.size, args.device)
    incoming = torch.randn(*matrices.shape[:2], args.size, args.size, device=args.device)
    for mode in MODES:
        calls = {
            name: bind(
                PROVIDERS[name].build(args.size, matrices.device), matrices, incoming if mode == MODES[0] else None
            )
            for name in usable
        }
        times, failures = measure.interleave(
            calls,
            args.rounds,
            args.budget,
            args.device,
            lambda line, mode=mode: tables.note_progress(f"{mode}: {line}"),
        )
        for name in usable:
            row = row_of(name, mode, "time", args)
            if name in failures:
                rows.append(row | {"note": f"skipped: {failures[name]}"})
                continue
            rows.append(row | _figures(times[name], times.get(BASELINE)))
            if not args.no_memory:
                tables.note_progress(f"{mode}: memory of {name}")
                rows.append(
                    row_of(name, mode, "peak_extra_memory", args) | {"p50": weigh(name, mode, calls[name], args)}
                )
    return rows, markdown(rows, args)


def _figures(seconds: Mapping[int, float], baseline: Mapping[int, float] | None) -> dict[str, object]:
    p20, p50, p80 = (1e3 * each for each in measure.percentiles(seconds))
    ratio = measure.median_ratio(baseline, seconds)
    return {"p20": p20, "p50": p50, "p80": p80, "ratio": "" if ratio is None else ratio}


def row_of(name: str, mode: str, metric: str, args: argparse.Namespace) -> dict[str, object]:
    parts = len(shape_templates.PARTS)
    common = tables.common_columns("render_parts", name, mode, Shape(args.batch, args.size, parts), args)
    return common | {"metric": metric, "unit": "ms" if metric == "time" else "MB"}


def weigh(name: str, mode: str, call: Callable[[], object], args: argparse.Namespace) -> float:
    """Peak extra megabytes of a call."""
    if args.device == "cuda":
        return measure.peak_of_call(call, "cuda") / measure.MEGABYTE
    request = {"provider": name, "mode": mode, "batch": args.batch, "size": args.size, "threads": args.threads}
    return measure.peak_in_fresh_process(request, module="bench.parts", timeout=1800)


def answer(request: Mapping[str, object]) -> int:
    """Bytes that one call takes beyond its inputs, in this process."""
    torch.set_num_threads(request["threads"])
    name, size, backward = request["provider"], request["size"], request["mode"] == MODES[0]
    render = PROVIDERS[name].build(size, torch.device("cpu"))

    def call(batch: int) -> Callable[[], object]:
        matrices = matrices_of(batch, size)
        return bind(render, matrices, torch.ones(batch, 18, size, size) if backward else None)

    # A first call loads libraries; that of compiled code must have the shape that is measured.
    call(request["batch"] if name.endswith("compiled") else 1)()
    return measure.peak_of_call(call(request["batch"]), "cpu")


def markdown(rows: Sequence[Mapping[str, object]], args: argparse.Namespace) -> str:
    """One line per provider."""
    found = {(row["provider"], row["mode"], row["metric"]): row for row in rows}
    lines = []
    for name in args.providers:
        cells = [f"{PROVIDERS[name].summary} (`{name}`)"]
        for mode in MODES:
            row, memory = found[name, mode, "time"], found.get((name, mode, "peak_extra_memory"), {})
            if row["p50"] == "":
                cells += [str(row["note"]), "–", "–"]
            else:
                cells += [tables.spread(row), tables.figure(row["ratio"]), tables.figure(memory.get("p50", ""))]
        lines.append(cells)
    heads = ["provider"]
    for mode in MODES:
        heads += [f"{mode.replace('+', ' + ')}, ms (p20–p80)", "× faster than as published", "peak extra memory, MB"]
    images = args.batch * len(shape_templates.PARTS) * args.size**2 * 4 / 1e6
    heading = f"### render_parts: B = {args.batch}, P = 18, {args.size} px, float32; the images are {images:.0f} MB"
    return f"\n{heading}\n\n{tables.table(heads, lines)}\n\n{tables.conditions(args)}.\n"


def parse_arguments(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The command line."""
    parser = command.Parser(prog, __doc__, EPILOG)
    parser.add_argument(
        "--providers", nargs="+", choices=PROVIDERS, default=list(PROVIDERS), metavar="NAME", help="default: all"
    )
    parser.add_argument("--batch", type=command.positive(int), default=48, metavar="N", help="default 48")
    parser.add_argument("--size", type=command.positive(int), default=256, metavar="PX", help="default 256")
    command.add_measurement(parser, rounds=10, budget=120.0, each="provider and mode")
    return command.parse_measurement(parser, argv)


def main(argv: Sequence[str] | None = None, prog: str = "bench.parts") -> int:
    return command.carry_out(parse_arguments(argv, prog), prog, benchmark)


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):  # started by measure.peak_in_fresh_process
        print(json.dumps({"bytes": answer(json.loads(sys.argv[1]))}))
    else:
        sys.exit(main())
