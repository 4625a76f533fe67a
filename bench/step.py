"""What the loss costs in a training step of a backbone: MPJPE + L_S + L_T by eager PyTorch and fused, and others.

A step is zero_grad, forward, loss, backward and AdamW's update on random 2D input. Shown are clips per second, the
loss's share of the step (its forward + backward on poses of the output's shape, timed by itself) and the peak memory
of a step beyond what stays between steps. Every loss is compared with the float64 definition first. All train the
same weights, by turns: what they hold makes no step faster.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from structloss.errors import StructlossError

from . import command, definition, measure, providers, tables
from .inputs import Shape, make_input

#: Names of providers; ratios are taken to the first of the last two, which compute the same.
EAGER, FUSED = "repose-eager", "repose-fused"
LOSSES = ("mpjpe-eager", EAGER, FUSED, "objective-fused")

EPILOG = """\
examples:
  {command} --backbone repose-tiny --batch 4
  {command} --backbone repose-h36m --batch 8 --csv step.csv
  {command} --backbone motionbert-full --batch 1 --rounds 5
"""


def create_backbone(name: str) -> tuple[nn.Module, object]:
    """A backbone and what the registry knows about it."""
    try:
        from structloss import backbones
    except ImportError as error:
        raise StructlossError(f"structloss.backbones can't be imported: {error}") from None
    return backbones.create(name), backbones.info(name)


class Training:
    """A backbone, its optimizer and random input.

    Attributes:
        shape: of the poses that the backbone returns.
    """

    def __init__(self, backbone: str, batch: int, frames: int | None, device: str) -> None:
        torch.manual_seed(0)
        model, info = create_backbone(backbone)
        self.device = device
        self.model = model.to(device)
        self.input = torch.randn(batch, frames or info.frames, info.joints_in[0], len(info.channels), device=device)
        with torch.no_grad():  # one clip tells the shape
            self.shape = Shape(batch, *self.model.eval()(self.input[:1]).shape[1:3])
        self.model.train()
        self.pred, self.target = make_input(self.shape, torch.float32, device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)

    def step(self, loss: providers.Loss) -> Callable[[], object]:
        """A training step."""

        def step() -> None:
            self.optimizer.zero_grad(set_to_none=True)
            loss(self.model(self.input), self.target).backward()
            self.optimizer.step()

        return step

    def loss_alone(self, loss: providers.Loss) -> Callable[[], object]:
        """The loss's part of it."""
        return providers.bind(loss, self.pred, self.target, "forward+backward")


def parse_arguments(argv: Sequence[str] | None, prog: str = "step.py") -> argparse.Namespace:
    parser = command.Parser(prog, __doc__, EPILOG)
    parser.add_argument("--backbone", default="repose-tiny", metavar="NAME", help="default: repose-tiny")
    parser.add_argument("--batch", type=command.positive(int), default=8, metavar="N", help="clips, default 8")
    parser.add_argument("--frames", type=command.positive(int), metavar="T", help="default: the backbone's")
    parser.add_argument(
        "--losses", nargs="+", choices=providers.PROVIDERS, metavar="NAME", help=f"default: {', '.join(LOSSES)}"
    )
    parser.add_argument(
        "--memory-limit", type=command.positive(float), metavar="GB", help="default: half of the free memory"
    )
    command.add_measurement(parser, rounds=10, budget=60.0, each="loss")
    args = command.parse_measurement(parser, argv)
    args.losses = tuple(dict.fromkeys(args.losses or LOSSES))
    return args


def main(argv: Sequence[str] | None = None, prog: str = "bench.step") -> int:
    return command.carry_out(parse_arguments(argv, prog), prog, benchmark)


def benchmark(args: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    """Check, time and weigh the losses: tidy rows, their table and what is gained."""
    limit = args.memory_limit * 1e9 if args.memory_limit else measure.available_memory(args.device) / 2
    training = Training(args.backbone, args.batch, args.frames, args.device)
    shape = training.shape
    calls: dict[str, Callable[[], object]] = {}
    notes: dict[str, str] = {}
    for name in args.losses:
        tables.note_progress(f"checking {name}")
        provider = providers.PROVIDERS[name]
        need = provider.memory_estimate(shape, "forward+backward", 4)
        if problem := provider.why_not(args.device, shape.joints):
            notes[name] = f"skipped: {problem}"
        elif need > limit:
            notes[name] = f"skipped: needs up to {need / 1e9:.3g} GB, the limit is {limit / 1e9:.3g} GB"
        else:
            loss = provider.build(args.device, shape.joints)
            definition.check(loss, provider.terms, shape, torch.float32, args.device, provider.ties)
            calls |= {f"{name} step": training.step(loss), f"{name} loss": training.loss_alone(loss)}
    times, failures = measure.interleave(calls, args.rounds, args.budget, args.device, tables.note_progress)
    for name in args.losses:
        if reason := failures.get(f"{name} step") or failures.get(f"{name} loss"):
            notes[name] = f"skipped: it failed with {reason}"
    measured = [name for name in args.losses if name not in notes]
    memory: dict[str, float] = {}
    if not args.no_memory:
        for name in measured:
            tables.note_progress(f"memory of {name}")
            try:
                memory[name] = peak_memory(args, name, calls[f"{name} step"])
            except Exception as error:
                notes[name] = f"memory not measured: {measure.one_line(error)}"
    rows = [row for name in args.losses for row in rows_of(name, shape, times, memory, notes, args)]
    return rows, "\n".join(filter(None, [markdown(rows, notes, shape, args), what_is_gained(rows)]))


def rows_of(
    name: str,
    shape: Shape,
    times: Mapping[str, Mapping[int, float]],
    memory: Mapping[str, float],
    notes: Mapping[str, str],
    args: argparse.Namespace,
) -> list[dict[str, object]]:
    """Tidy rows of one loss."""
    common = tables.common_columns(f"training_step {args.backbone}", name, "step", shape, args)
    if f"{name} step" not in times or f"{name} loss" not in times:
        return [common | {"metric": "time", "unit": "ms", "note": notes.get(name, "")}]
    step, alone = times[f"{name} step"], times[f"{name} loss"]
    share = {index: 100 * alone[index] / step[index] for index in step.keys() & alone.keys()}
    figures = {
        ("step", "time", "ms"): [1e3 * x for x in measure.percentiles(step)],
        ("step", "throughput", "clips/s"): [args.batch / x for x in reversed(measure.percentiles(step))],
        ("loss", "time", "ms"): [1e3 * x for x in measure.percentiles(alone)],
        ("loss", "share_of_step", "%"): list(measure.percentiles(share)),
    }
    if name in memory:
        figures["step", "peak_extra_memory", "MB"] = ["", memory[name], ""]
    ratios = {
        ("step", "time"): measure.median_ratio(times.get(f"{EAGER} step"), step),
        ("loss", "time"): measure.median_ratio(times.get(f"{EAGER} loss"), alone),
        ("step", "peak_extra_memory"): memory[EAGER] / memory[name] if EAGER in memory and memory.get(name) else None,
    }
    rows = []
    for (mode, metric, unit), values in figures.items():
        row = common | {"mode": mode, "metric": metric, "unit": unit}
        row |= dict(zip(("p20", "p50", "p80"), values, strict=True))
        ratio = ratios.get((mode, metric))
        rows.append(row | {"ratio": "" if ratio is None else ratio})
    return rows


def _by_key(rows: Sequence[Mapping[str, object]]) -> dict[tuple[str, str, str], Mapping[str, object]]:
    return {(row["provider"], row["mode"], row["metric"]): row for row in rows}


def markdown(
    rows: Sequence[Mapping[str, object]], notes: Mapping[str, str], shape: Shape, args: argparse.Namespace
) -> str:
    """One line per loss."""
    found, lines = _by_key(rows), []
    for name in args.losses:
        cells = [f"{providers.PROVIDERS[name].summary} (`{name}`)"]
        time = found[name, "step", "time"]
        if time["p50"] == "":
            lines.append([*cells, "skipped", *"–––––"])
            continue
        figures = [
            found.get((name, *key), {}).get("p50")
            for key in (("step", "throughput"), ("loss", "time"), ("loss", "share_of_step"))
        ]
        clips, loss, share = map(tables.figure, figures)
        extra = tables.figure(found.get((name, "step", "peak_extra_memory"), {}).get("p50"))
        lines.append([*cells, tables.spread(time), clips, tables.figure(time["ratio"]), loss, f"{share} %", extra])
    heads = ["loss", "step, ms (p20–p80)", "clips/s", "× Algorithms 1 + 2", "loss, ms", "loss's share of the step"]
    left_out = "".join(f"\n- `{name}`: {note}" for name, note in notes.items())
    return (
        f"\n### Training step of {args.backbone}, {shape}, float32\n\n"
        f"{tables.table([*heads, 'peak memory of a step, MB'], lines)}\n\n{tables.conditions(args)}.{left_out}\n"
    )


def what_is_gained(rows: Sequence[Mapping[str, object]]) -> str:
    """The difference between the eager and the fused loss in a sentence, if both were measured."""
    found = _by_key(rows)
    eager, fused = ({key[1:]: row["p50"] for key, row in found.items() if key[0] == name} for name in (EAGER, FUSED))
    if not (eager.get(("loss", "time")) and fused.get(("loss", "time"))):
        return ""
    share = [tables.figure(x["loss", "share_of_step"]) for x in (eager, fused)]
    text = f"MPJPE + L_S + L_T fused: {share[1]} % of the step instead of {share[0]} %"
    text += f", {tables.figure(found[FUSED, 'step', 'time']['ratio'])} times the clips per second"
    extra = [x.get(("step", "peak_extra_memory")) for x in (eager, fused)]
    if all(isinstance(x, float) for x in extra):
        less = extra[0] - extra[1]
        text += f", {tables.figure(abs(less))} MB {'less' if less >= 0 else 'more'} at the peak"
    return f"{text}.\n"


def peak_memory(args: argparse.Namespace, loss_name: str, step: Callable[[], object]) -> float:
    """Megabytes of one step beyond what stays allocated between steps."""
    if args.device == "cuda":
        return measure.peak_of_call(step, "cuda") / measure.MEGABYTE
    request = {"backbone": args.backbone, "loss": loss_name, "batch": args.batch, "frames": args.frames}
    # Two steps of a large backbone on few cores take minutes.
    return measure.peak_in_fresh_process(request | {"threads": args.threads}, module="bench.step", timeout=1800)


def answer(request: dict) -> int:
    """Peak bytes of one step, in the fresh process."""
    torch.set_num_threads(request["threads"])
    training = Training(request["backbone"], request["batch"], request["frames"], "cpu")
    step = training.step(providers.PROVIDERS[request["loss"]].build("cpu", training.shape.joints))
    step()  # the first creates the optimizer's state
    return measure.peak_of_call(step, "cpu")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):  # started by measure.peak_in_fresh_process
        print(json.dumps({"bytes": answer(json.loads(sys.argv[1]))}))
        sys.exit(0)
    sys.exit(main())
