"""What the loss costs in a training step: a backbone trained with MPJPE + L_S + L_T, by eager PyTorch and fused.

A step is zero_grad, forward, loss, backward and AdamW's update on random 2D input. Shown are clips per second, the
loss's share of the step (its forward + backward on the network's output, timed by itself) and the peak memory of a step
beyond what stays between steps. Both losses are compared with the float64 definition first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import measure
import providers
import run
import torch
from providers import Provider, Shape, WrongError
from torch import Tensor, nn

from structloss.errors import StructlossError

LOSSES = {
    "eager": Provider(
        "eager",
        "MPJPE + Algorithms 1 and 2, eager PyTorch",
        ("mpjpe", *providers.RANKING),
        lambda _: lambda pred, target: providers.eager_mpjpe(pred, target) + providers.algorithm12(pred, target),
        pair_tensors=providers.PROVIDERS["algorithm12"].pair_tensors,
    ),
    "fused": providers.PROVIDERS["objective-all"],
}

EPILOG = """\
examples:
  python bench/step.py --backbone repose-tiny --batch 4
  python bench/step.py --backbone motionbert-lite --batch 2 --frames 81 --csv step.csv
"""


def create_backbone(name: str) -> tuple[nn.Module, object]:
    """A backbone and what the registry knows about it."""
    try:
        from structloss import backbones
    except ImportError as error:
        raise StructlossError(f"structloss.backbones can't be imported: {error}") from None
    return backbones.create(name), backbones.info(name)


def make_step(
    name: str, loss_name: str, batch: int, frames: int | None, device: str
) -> tuple[Callable[[], object], Callable[[], object], Shape]:
    """The training step, the loss alone on the network's output, and the shape of that output."""
    torch.manual_seed(0)
    model, info = create_backbone(name)
    model = model.to(device).train()
    x = torch.randn(batch, frames or info.frames, info.joints_in[0], len(info.channels), device=device)
    with torch.no_grad():
        shape = Shape(*model(x).shape[:3])
    pred, target = providers.make_input(shape, torch.float32, device)
    loss: Callable[[Tensor, Tensor], Tensor] = LOSSES[loss_name].build(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(model(x), target).backward()
        optimizer.step()

    return step, providers.bind(loss, pred, target, "forward+backward"), shape


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = run.Parser(
        prog="step.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--backbone", default="repose-tiny", metavar="NAME", help="default: repose-tiny")
    parser.add_argument("--batch", type=run.positive(int), default=8, metavar="N", help="clips, default 8")
    parser.add_argument("--frames", type=run.positive(int), metavar="T", help="default: the backbone's")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=run.positive(int), metavar="N", help="default: torch's")
    parser.add_argument("--rounds", type=run.positive(int), default=10, metavar="N", help="default 10")
    parser.add_argument(
        "--budget", type=run.positive(float), default=60.0, metavar="S", help="seconds a loss, default 60"
    )
    parser.add_argument(
        "--memory-limit", type=run.positive(float), metavar="GB", help="default: half of the free memory"
    )
    parser.add_argument("--no-memory", action="store_true", help="don't measure peak memory")
    parser.add_argument("--csv", type=Path, metavar="PATH", help="tidy rows, run.py's columns")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU")
    if args.csv is not None and not args.csv.resolve().parent.is_dir():
        parser.error(f"--csv: the directory {args.csv.parent} doesn't exist")
    args.threads = args.threads or torch.get_num_threads()
    args.dtype = "float32"
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    try:
        return benchmark(args)
    except WrongError as error:
        print(f"step.py: error: wrong and therefore not timed: {error}.", file=sys.stderr)
        return 1
    except (StructlossError, RuntimeError) as error:
        print(f"step.py: error: {measure.one_line(error).partition(': ')[2]}", file=sys.stderr)
        return 2


def benchmark(args: argparse.Namespace) -> int:
    """Check, time and weigh both losses; print the table and write the rows."""
    limit = args.memory_limit * 1e9 if args.memory_limit else measure.available_memory(args.device) / 2
    calls: dict[str, Callable[[], object]] = {}
    notes: dict[str, str] = {}
    for name, provider in LOSSES.items():
        run.note_progress(f"checking {name}")
        step, loss_alone, shape = make_step(args.backbone, name, args.batch, args.frames, args.device)
        need = provider.memory_estimate(shape, "forward+backward", 4)
        if problem := provider.problem(args.device):
            notes[name] = f"skipped: {problem}"
        elif need > limit:
            notes[name] = f"skipped: needs up to {need / 1e9:.3g} GB, the limit is {limit / 1e9:.3g} GB"
        else:
            providers.check(provider, provider.build(args.device), shape, torch.float32, args.device)
            calls |= {f"{name} step": step, f"{name} loss": loss_alone}
    times, failures = measure.interleave(calls, args.rounds, args.budget, args.device, run.note_progress)

    rows = []
    table = [
        "| loss | step, ms (p20–p80) | clips/s | loss, ms | loss's share of the step | peak memory of a step, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, provider in LOSSES.items():
        common = run.common_columns(f"training_step {args.backbone}", name, "step", shape, args)
        if reason := failures.get(f"{name} step") or failures.get(f"{name} loss"):
            notes[name] = f"skipped: it failed with {reason}"
        if name in notes:
            rows.append(common | {"metric": "time", "unit": "ms", "note": notes[name]})
            table.append(f"| {provider.summary} | skipped | – | – | – | – |")
            continue
        step, alone = times[f"{name} step"], times[f"{name} loss"]
        ratio = measure.median_ratio(times.get("eager step"), step)
        share = {index: 100 * alone[index] / step[index] for index in step.keys() & alone.keys()}
        figures = {
            ("step", "time", "ms"): [1e3 * x for x in measure.percentiles(step)],
            ("step", "throughput", "clips/s"): [args.batch / x for x in reversed(measure.percentiles(step))],
            ("loss", "time", "ms"): [1e3 * x for x in measure.percentiles(alone)],
            ("loss", "share_of_step", "%"): list(measure.percentiles(share)),
        }
        memory: float | str = ""
        if not args.no_memory:
            run.note_progress(f"memory of {name}")
            try:
                memory = peak_memory(args, name, calls[f"{name} step"])
            except Exception as error:
                notes[name] = f"memory not measured: {measure.one_line(error)}"
            figures["step", "peak_extra_memory", "MB"] = ["", memory, ""]
        for (mode, metric, unit), values in figures.items():
            row = common | {"mode": mode, "metric": metric, "unit": unit}
            row |= dict(zip(("p20", "p50", "p80"), values, strict=True))
            row["ratio"] = ratio if (mode, metric) == ("step", "time") and ratio is not None else ""
            rows.append(row)
        spread = "{}–{}".format(*(run.figure(1e3 * x) for x in measure.percentiles(step)[::2]))
        middles = [run.figure(values[1]) for values in list(figures.values())[:4]]
        table.append(
            f"| {provider.summary} | {middles[0]} ({spread}) | {middles[1]} | {middles[2]} | {middles[3]} % | "
            f"{run.figure(memory)} |"
        )
    run.note_progress("")
    print(f"\n### Training step of {args.backbone}, {shape}, float32\n")
    print("\n".join(table))
    print(f"\n{run.conditions(args)}.")
    for name, note in notes.items():
        print(f"- {LOSSES[name].summary}: {note}")
    if args.csv:
        run.write_atomically(args.csv, run.csv_text(rows))
    return 0


def peak_memory(args: argparse.Namespace, loss_name: str, step: Callable[[], object]) -> float:
    """Megabytes of one step beyond what stays allocated between steps."""
    if args.device == "cuda":
        return measure.peak_of_call(step, "cuda") / measure.MEGABYTE
    request = {"backbone": args.backbone, "loss": loss_name, "batch": args.batch, "frames": args.frames}
    return measure.peak_in_fresh_process(request | {"threads": args.threads}, script=__file__)


def answer(request: dict) -> int:
    """Peak bytes of one step, in the fresh process."""
    torch.set_num_threads(request["threads"])
    step, _, _ = make_step(request["backbone"], request["loss"], request["batch"], request["frames"], "cpu")
    step()  # the first creates the optimizer's state
    return measure.peak_of_call(step, "cpu")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):  # started by measure.peak_in_fresh_process
        print(json.dumps({"bytes": answer(json.loads(sys.argv[1]))}))
        sys.exit(0)
    sys.exit(main())
