"""From an image to a pose: a network of `structloss.images`, its decoding and TP-Net, ms per image.

The same network, weights and steps stand beside it in plain eager PyTorch (bench/plain). "whole" is image to refined
pose; decoding and the refiner, which sees 20 poses of every person, are timed by themselves too. A batch is one image
of each of B people. Outputs are compared before anything is timed. Without --threads it runs at one thread and at two.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from structloss import images
from structloss.images.joints import CANONICAL_BONES, CANONICAL_LENGTH, NECK, PELVIS, SPINE
from structloss.refine import TPNet

from . import command, measure, tables
from .definition import WrongError
from .inputs import Shape
from .plain import sapnet

PLAIN, OURS, LAST, COMPILED = "plain", "structloss", "structloss-channels-last", "structloss-compiled"
PROVIDERS = {
    PLAIN: "plain eager PyTorch, as the papers print it",
    OURS: "structloss",
    LAST: "structloss, network and images in channels_last",
    COMPILED: "structloss, channels_last, the network under torch.compile",
}
MODES = ("whole", "decode", "refine")
PAST = 19
TOLERANCE = 1e-3
EPILOG = """\
examples:
  {command} --csv bench/results/cpu_images.csv
  {command} --network sapnet-tiny --batch 1 --threads 1 --rounds 30
"""


class Steps:
    """One way from images to refined poses.

    Attributes:
        network: images `[B, 3, S, S]` to heatmaps and depths.
        decode: those to poses `[B, 16, 3]`, millimetres.
        refine: poses, metres, to refined ones; keeps the poses before.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Sequence[Tensor]],
        decode: Callable[[Tensor, Tensor], Tensor],
        refine: Callable[[Tensor], Tensor],
    ) -> None:
        self.network, self.decode, self.refine = network, decode, refine

    def whole(self, image: Tensor) -> Tensor:
        return self.refine(self.decode(*self.network(image)) / 1000)


class Case:
    """A network and a refiner with noisy weights, and images of one batch size.

    Args:
        name: of the network.
        batch: images.
    """

    def __init__(self, name: str, batch: int) -> None:
        torch.manual_seed(0)
        self.info = images.info(name)
        self.model = images.create(name).eval()
        self.refiner = TPNet(num_joints=self.info.joints, past=PAST, root=PELVIS).eval()
        with torch.no_grad():  # what starts at zero would hide mistakes
            for parameter in self.model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        self.image = torch.rand(batch, 3, self.info.input_size, self.info.input_size)
        self.heatmaps, self.depth = self.model(self.image)

    def steps(self, provider: str) -> Steps:
        if provider == PLAIN:
            weights = {key: value.detach() for key, value in self.model.state_dict().items()}
            arguments = dict(self.info.arguments)
            return Steps(lambda x: sapnet.forward(weights, x, **arguments), plain_decode, PlainRefiner(self.refiner))
        model: Callable[[Tensor], Sequence[Tensor]] = self.model
        if provider != OURS:
            model = copy.deepcopy(self.model).to(memory_format=torch.channels_last)
        if provider == COMPILED:
            torch.compiler.reset()  # what is compiled for one number of threads keeps it
            model = torch.compile(model, fullgraph=True, dynamic=False)
        stream = self.refiner.stream()
        return Steps(model, images.decode, lambda pose: stream(pose))

    def call(self, steps: Steps, provider: str, mode: str) -> Callable[[], object]:
        """What is timed."""
        image = self.image if provider in (PLAIN, OURS) else self.image.contiguous(memory_format=torch.channels_last)
        pose = images.decode(self.heatmaps, self.depth).detach() / 1000

        def run() -> object:
            with torch.no_grad():
                if mode == "whole":
                    return steps.whole(image)
                return steps.decode(self.heatmaps, self.depth) if mode == "decode" else steps.refine(pose)

        return run

    def check(self, provider: str, steps: Steps) -> None:
        """Raise unless every step gives what the plain form of it does.

        Each step by itself: rounding may choose another of two cells that are nearly as high.
        """
        plain = self.steps(PLAIN)
        poses = images.decode(self.heatmaps, self.depth).detach() / 1000
        with torch.no_grad():
            pairs = {
                "network": (steps.network(self.image), plain.network(self.image)),
                "decode": ([steps.decode(self.heatmaps, self.depth)], [plain.decode(self.heatmaps, self.depth)]),
                "refine": ([steps.refine(poses * k) for k in (1, 2, 3)], [plain.refine(poses * k) for k in (1, 2, 3)]),
            }
        for step, (got, want) in pairs.items():
            for a, b in zip(got, want, strict=True):
                error = float((a - b).abs().max() / b.abs().max())
                if not error < TOLERANCE:
                    raise WrongError(
                        f"{step} of {provider} for {self.info.name} differs from the plain form by {error:.1e} of the "
                        "largest output"
                    )


def plain_decode(heatmaps: Tensor, depth: Tensor) -> Tensor:
    """Millimetres of the last stack's heatmaps, step by step."""
    maps = heatmaps[-1]
    size = maps.shape[-1]
    index = maps.flatten(2).max(-1).indices
    x, y = index % size, index // size
    padded = F.pad(maps, (1, 1, 1, 1))
    people = torch.arange(maps.shape[0])[:, None]
    joints = torch.arange(maps.shape[1])[None]

    def at(row: Tensor, column: Tensor) -> Tensor:
        return padded[people, joints, row + 1, column + 1]

    step_x = torch.sign(at(y, x + 1) - at(y, x - 1)) * ((x > 0) & (x < size - 1))
    step_y = torch.sign(at(y + 1, x) - at(y - 1, x)) * ((y > 0) & (y < size - 1))
    pose = torch.stack((x + 0.25 * step_x + 0.5, y + 0.25 * step_y + 0.5, (depth + 1) / 2 * size), -1)
    children, parents = ([bone[end] for bone in CANONICAL_BONES] for end in (0, 1))
    total = (pose[:, children] - pose[:, parents]).norm(dim=-1).sum(-1)
    pose = pose * (CANONICAL_LENGTH / total)[:, None, None]
    pose = pose - pose[:, PELVIS : PELVIS + 1]
    pose[:, SPINE] = (pose[:, PELVIS] + pose[:, NECK]) / 2
    return pose


class PlainRefiner:
    """TP-Net as its paper prints it: the window of poses, flattened, through two layers."""

    def __init__(self, refiner: TPNet) -> None:
        self.weights = [value.detach() for value in refiner.state_dict().values()]
        self.window: Tensor | None = None

    def __call__(self, pose: Tensor) -> Tensor:
        if self.window is None:
            self.window = pose[:, None].repeat(1, PAST, 1, 1)
            self.window = torch.cat([self.window, pose[:, None]], 1)
        else:
            self.window = torch.cat([self.window[:, 1:], pose[:, None]], 1)
        first, bias, second, last = self.weights
        out = F.linear(torch.relu(F.linear(self.window.flatten(1), first, bias)), second, last).view_as(pose).clone()
        out[:, PELVIS] = 0
        return out


def parse_arguments(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The command line."""
    parser = command.Parser(prog, __doc__, EPILOG)
    parser.add_argument("--network", default="sapnet", metavar="NAME", help="default sapnet")
    parser.add_argument("--providers", nargs="+", choices=PROVIDERS, default=list(PROVIDERS), metavar="PROVIDER")
    parser.add_argument(
        "--batch", nargs="+", type=command.positive(int), default=[1, 8], metavar="N", help="default 1 8"
    )
    command.add_measurement(parser, rounds=10, budget=120.0, each="provider", threads="1, then 2", memory=False)
    given = parser.parse_args(argv).threads
    args = command.parse_measurement(parser, argv)
    args.thread_counts = [given] if given else [count for count in (1, 2) if count <= (os.cpu_count() or 1)]
    if args.device != "cpu":
        parser.error(f"--device {args.device}: images are timed on the CPU")
    if PLAIN not in args.providers:
        args.providers = [PLAIN, *args.providers]
    return args


def main(argv: Sequence[str] | None = None, prog: str = "bench.images") -> int:
    return command.carry_out(parse_arguments(argv, prog), prog, benchmark)


def benchmark(args: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    """Tidy rows of every number of threads and images, and their table."""
    rows = []
    for threads in args.thread_counts:
        args.threads = threads
        torch.set_num_threads(threads)
        for batch in args.batch:
            rows += rows_of(batch, args)
    return rows, markdown(rows, args)


def rows_of(batch: int, args: argparse.Namespace) -> list[dict[str, object]]:
    """Tidy rows of one batch size, milliseconds per image."""
    where = f"{args.network}, {batch} x {args.threads} threads"
    tables.note_progress(f"{where}: comparing outputs")
    case = Case(args.network, batch)
    keys, calls = {}, {}
    for provider in args.providers:
        steps = case.steps(provider)
        case.check(provider, steps)
        for mode in MODES:
            keys[f"{provider} {mode}"] = provider, mode
            calls[f"{provider} {mode}"] = case.call(
                case.steps(provider) if provider != COMPILED else steps, provider, mode
            )
    times, failures = measure.interleave(
        calls, args.rounds, args.budget, args.device, lambda line: tables.note_progress(f"{where}: {line}")
    )
    found = {keys[name]: values for name, values in times.items()}
    rows = []
    for name, (provider, mode) in keys.items():
        common = tables.common_columns(
            f"images {args.network}", provider, mode, Shape(batch, 1, case.info.joints), args
        ) | {"metric": "time_per_image", "unit": "ms"}
        if name in failures:
            rows.append(common | {"note": f"skipped: {failures[name]}"})
            continue
        p20, p50, p80 = (1e3 * seconds / batch for seconds in measure.percentiles(found[provider, mode]))
        ratio = measure.median_ratio(found.get((PLAIN, mode)), found[provider, mode])
        rows.append(common | {"p20": p20, "p50": p50, "p80": p80, "ratio": "" if ratio is None else ratio})
    return rows


def markdown(rows: Sequence[Mapping[str, object]], args: argparse.Namespace) -> str:
    """One line per number of threads, batch and provider."""
    found = {(row["threads"], row["B"], row["provider"], row["mode"]): row for row in rows}
    lines = []
    for threads in args.thread_counts:
        for batch in args.batch:
            for provider in args.providers:
                whole, decode, refine = (found[threads, batch, provider, mode] for mode in MODES)
                cells = [provider, str(threads), str(batch)]
                if whole.get("p50", "") == "":
                    lines.append([*cells, str(whole["note"]), "–", "–", "–"])
                    continue
                parts = [tables.figure(part.get("p50")) for part in (decode, refine)]
                lines.append([*cells, tables.spread(whole), tables.figure(whole["ratio"]), *parts])
    heads = ["provider", "threads", "images", "ms per image (p20–p80)", "× plain", "decoding", "TP-Net"]
    counts = " and ".join(f"{count} thread{'s' if count > 1 else ''}" for count in args.thread_counts)
    table = tables.table(heads, lines)
    return f"\n### {args.network} with TP-Net, float32\n\n{table}\n\n{tables.conditions(args, counts)}.\n"


if __name__ == "__main__":
    sys.exit(main())
