"""Backbones against plain eager PyTorch: the same equations as their papers print them, with the same weights.

The plain forms are in bench/plain: published tensor layouts, every intermediate tensor and every T x T matrix written
out. Both run in evaluation mode, where they compute the same, forward alone and forward + backward with gradients for
every weight, by turns; memory is the peak of one call in a fresh process. The outputs are compared before anything is
timed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from structloss import backbones
from structloss.backbones.official import to_official
from structloss.errors import ArgumentError

from . import command, measure, tables
from .definition import WrongError
from .inputs import Shape

PLAIN, OURS, COMPILED = "plain", "structloss", "structloss-compiled"
PROVIDERS = {
    PLAIN: "plain eager PyTorch, as the paper prints it",
    OURS: "structloss",
    COMPILED: "structloss under torch.compile",
}
MODES = ("forward", "forward+backward")
#: families whose plain form is another's
_SHARED = {"motionbert": "dstformer", "repose": "dstformer"}
EPILOG = """\
examples:
  {command} --backbones motionbert-lite mixste-243 --csv backbones.csv
  {command} --batch 4 --modes forward --no-memory
  {command} --device cuda --dtype bfloat16 --providers plain structloss structloss-compiled --batch 16
"""


def plain_form(family: str) -> Callable[..., Tensor]:
    """The plain forward function of a family, in bench/plain.

    Raises:
        ArgumentError: the family has none.
    """
    if not has_plain_form(family):
        raise ArgumentError(f"{family} has no plain form to time it by, expected bench/plain/{_module(family)}.py.")
    return importlib.import_module(f".plain.{_module(family)}", __package__).forward


def has_plain_form(family: str) -> bool:
    """Whether there is something to time the family against."""
    return (Path(__file__).parent / "plain" / f"{_module(family)}.py").is_file()


def _module(family: str) -> str:
    return _SHARED.get(family, family).replace("-", "_")


class Case:
    """One backbone, its plain form on the same weights, and an input."""

    def __init__(self, name: str, batch: int, device: str) -> None:
        torch.manual_seed(0)
        self.info = backbones.info(name)
        self.model = backbones.create(name).to(device).eval()
        with torch.no_grad():  # what starts at zero would hide mistakes, and hide work from sparse shortcuts
            for parameter in self.model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        channels = 8 if self.info.kind == "refine" and self.info.family == "jointformer" else len(self.info.channels)
        frames = max(self.info.frames, self.model.shortest)
        self.x = torch.rand(batch, frames, self.info.joints_in[0], channels, device=device) * 2 - 1
        self.arguments = self._arguments(batch, frames, device)
        self.plain = plain_form(self.info.family)
        buffers = {key for key, _ in self.model.named_buffers()}
        trained = {key for key, p in self.model.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {}
        for key, value in self.model.state_dict().items():
            for official, part in to_official(self.model, {key: value}).items():
                leaf = part.detach().clone()
                self.weights[official] = leaf if key in buffers else leaf.requires_grad_(key in trained)

    def _arguments(self, batch: int, frames: int, device: str) -> dict[str, Tensor]:
        joints = self.info.joints_in[0]
        if self.info.family == "d3dp":
            noisy = torch.randn(batch, frames, joints, 3, device=device)
            return {"noisy": noisy, "timestep": torch.full((batch,), 500, device=device)}
        if self.info.kind == "pretrain":
            masked = torch.zeros(frames, dtype=torch.bool, device=device)
            masked[torch.randperm(frames)[: self.model.masked_frames]] = True
            return {"temporal_mask": masked, "spatial_mask": torch.rand(frames, joints, device=device) < 0.2}
        if self.info.name == "pstmo-refine":
            return {"reprojected": torch.rand_like(self.x)}
        return {}

    def run(self, provider: str) -> Callable[[], Tensor]:
        """The forward pass of a provider."""
        if provider == PLAIN:
            extra = {**self.info.arguments, **self.arguments}
            return lambda: self.plain(self.weights, self.x, **extra)
        model = torch.compile(self.model, fullgraph=True) if provider == COMPILED else self.model
        return lambda: model(self.x, **self.arguments)

    def call(self, provider: str, mode: str, dtype: torch.dtype) -> Callable[[], object]:
        """What is timed."""
        run, device = self.run(provider), self.x.device.type
        leaves = self.weights.values() if provider == PLAIN else self.model.parameters()
        trained = [leaf for leaf in leaves if leaf.requires_grad]

        def autocast() -> contextlib.AbstractContextManager:
            return torch.autocast(device, dtype) if dtype != torch.float32 else contextlib.nullcontext()

        def forward() -> None:
            with torch.no_grad(), autocast():
                run()

        def both() -> None:
            with autocast():
                out = run()
            # Not .backward(): gradients are neither accumulated nor kept.
            torch.autograd.grad(out.float().square().mean(), trained, allow_unused=True)

        return forward if mode == "forward" else both

    def check(self, providers: Sequence[str], dtype: torch.dtype) -> None:
        """Raise unless all providers agree."""
        with torch.no_grad(), torch.autocast(self.x.device.type, dtype, enabled=dtype != torch.float32):
            out = {name: self.run(name)().float() for name in providers if name != COMPILED}
        want = out[PLAIN]
        # MotionAGFormer's neighbours change with rounding.
        bound = 0.05 if self.info.family == "motionagformer" or dtype != torch.float32 else 1e-4
        for name, got in out.items():
            error = float((got - want).abs().max() / want.abs().max())
            if not error < bound:
                raise WrongError(
                    f"{name} of {self.info.name} differs from the plain form by {error:.1e} of the largest output"
                )


def parse_arguments(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The command line."""
    parser = command.Parser(prog, __doc__, EPILOG)
    parser.add_argument("--backbones", nargs="+", metavar="NAME", help="default: one of each family")
    parser.add_argument("--providers", nargs="+", choices=PROVIDERS, default=[PLAIN, OURS], metavar="PROVIDER")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["forward+backward"], metavar="MODE")
    parser.add_argument("--batch", type=command.positive(int), default=1, metavar="N", help="clips, default 1")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16 is by autocast")
    command.add_measurement(parser, rounds=5, budget=120.0, each="provider")
    args = command.parse_measurement(parser, argv)
    if PLAIN not in args.providers:
        args.providers = [PLAIN, *args.providers]
    args.backbones = args.backbones or one_of_each_family()
    return args


def one_of_each_family() -> list[str]:
    """The flagship of each family that has a plain form."""
    families = filter(has_plain_form, {backbones.info(name).family for name in backbones.names()})
    return sorted(backbones.info(name).name for name in families)


def main(argv: Sequence[str] | None = None, prog: str = "bench.backbones") -> int:
    return command.carry_out(parse_arguments(argv, prog), prog, benchmark)


def benchmark(args: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    """Tidy rows of the backbones, and their table."""
    rows = [row for name in args.backbones for row in rows_of(name, args)]
    return rows, markdown(rows, args)


def rows_of(name: str, args: argparse.Namespace) -> list[dict[str, object]]:
    """Tidy rows of one backbone."""
    dtype = getattr(torch, args.dtype)
    tables.note_progress(f"{name}: comparing outputs")
    case = Case(name, args.batch, args.device)
    case.check(args.providers, dtype)
    shape = Shape(*case.x.shape[:3])
    rows = []
    for mode in args.modes:
        calls = {provider: case.call(provider, mode, dtype) for provider in args.providers}
        times, failures = measure.interleave(
            calls, args.rounds, args.budget, args.device, lambda line: tables.note_progress(f"{name}: {line}")
        )
        memory: dict[str, float] = {}
        for provider in [] if args.no_memory else times:
            tables.note_progress(f"{name}: memory of {provider}")
            memory[provider] = peak_memory(name, provider, mode, args, calls[provider])
        for provider in args.providers:
            common = tables.common_columns(f"backbone {name}", provider, mode, shape, args)
            if provider not in times:
                rows.append(common | {"metric": "time", "unit": "ms", "note": f"skipped: {failures[provider]}"})
                continue
            p20, p50, p80 = (1e3 * x for x in measure.percentiles(times[provider]))
            ratio = measure.median_ratio(times.get(PLAIN), times[provider])
            row = common | {"metric": "time", "unit": "ms", "p20": p20, "p50": p50, "p80": p80}
            rows.append(row | {"ratio": "" if ratio is None else ratio})
            if provider in memory:
                share = memory[PLAIN] / memory[provider] if memory.get(PLAIN) and memory[provider] else ""
                rows.append(
                    common | {"metric": "peak_extra_memory", "unit": "MB", "p50": memory[provider], "ratio": share}
                )
    return rows


def peak_memory(name: str, provider: str, mode: str, args: argparse.Namespace, call: Callable[[], object]) -> float:
    """Megabytes at the peak of one call beyond what is allocated before it."""
    if args.device == "cuda":
        return measure.peak_of_call(call, "cuda") / measure.MEGABYTE
    request = {"backbone": name, "provider": provider, "mode": mode, "batch": args.batch, "dtype": args.dtype}
    return measure.peak_in_fresh_process(request | {"threads": args.threads}, module="bench.backbones", timeout=1800)


def answer(request: Mapping[str, object]) -> int:
    """Peak bytes of one call, in the fresh process."""
    torch.set_num_threads(request["threads"])
    case = Case(request["backbone"], request["batch"], "cpu")
    call = case.call(request["provider"], request["mode"], getattr(torch, request["dtype"]))
    call()  # the first loads libraries, and compiles
    return measure.peak_of_call(call, "cpu")


def markdown(rows: Sequence[Mapping[str, object]], args: argparse.Namespace) -> str:
    """One table per mode."""
    out = []
    for mode in args.modes:
        lines = []
        for name in args.backbones:
            for provider in args.providers:
                found = {
                    r["metric"]: r
                    for r in rows
                    if (r["op"], r["provider"], r["mode"]) == (f"backbone {name}", provider, mode)
                }
                time = found["time"]
                if time.get("p50", "") == "":
                    lines.append([name, provider, str(time.get("note", "")), "–", "–", "–"])
                    continue
                memory = found.get("peak_extra_memory", {})
                share = memory.get("ratio")
                lines.append(
                    [
                        name,
                        provider,
                        tables.spread(time),
                        tables.figure(time["ratio"]),
                        tables.figure(memory.get("p50")),
                        tables.figure(1 / share if isinstance(share, float) and share else None),
                    ]
                )
        heads = ["backbone", "provider", "ms (p20–p80)", "× plain", "peak extra memory, MB", "of plain"]
        title = {"forward": "Forward", "forward+backward": "Forward + backward"}[mode]
        out.append(f"\n### {title}, B = {args.batch}, {args.dtype}\n\n{tables.table(heads, lines)}\n")
    return "".join(out) + f"\n{tables.conditions(args)}.\n"


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):  # started by measure.peak_in_fresh_process
        print(json.dumps({"bytes": answer(json.loads(sys.argv[1]))}))
        sys.exit(0)
    sys.exit(main())
