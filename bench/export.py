"""What a pose costs outside of Python: onnxruntime beside eager PyTorch, one clip or image a call.

"eager" is the network as it is, "onnxruntime" its file with the length left free where it can be, "onnxruntime-fixed"
of a network that slides with its own length, for which less is computed. All of them run at the same number of threads,
by turns, and are compared before anything is timed. Without --threads it runs at one thread and at two.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from structloss import backbones, images
from structloss.export import Exported, export
from structloss.refine import TPNet

from . import command, measure, tables
from .definition import WrongError
from .inputs import Shape

__all__ = ["NETWORKS", "main"]

EAGER, FREE, FIXED = "eager", "onnxruntime", "onnxruntime-fixed"
#: the smallest of each family that predicts poses of detections, what comes with the package, an image network, TP-Net
NETWORKS = (
    *("lift-s", "lift-27", "simplebaseline-16j", "semgcn-nonlocal", "jointformer-h36m", "videopose3d-27"),
    *("poseformer-27", "poseformerv2-27-1-3", "pstmo-s-3dhp-81", "mhformer-27", "stcformer-27", "mixste-27"),
    *("ktpformer-27", "motionagformer-xsmall", "repose-tiny", "sapnet-tiny", "tpnet"),
)
TOLERANCE = 1e-4
EPILOG = """\
examples:
  {command} --csv bench/results/cpu_export.csv
  {command} --networks lift-27 mixste-81 --threads 1 --rounds 50
"""


def main(argv: Sequence[str] | None = None, prog: str = "bench.export") -> int:
    parser = command.Parser(prog, __doc__, EPILOG)
    parser.add_argument("--networks", nargs="+", metavar="NAME", default=list(NETWORKS), help="default: one per family")
    parser.add_argument("--loaded", action="store_true", help="note in every row that the machine had other work")
    command.add_measurement(
        parser, rounds=20, budget=20.0, each="network and provider", threads="1 and 2", memory=False
    )
    wanted = parser.parse_args(argv).threads
    args = command.parse_measurement(parser, argv)
    args.all_threads = (wanted,) if wanted else (1, 2)
    return command.carry_out(args, prog, benchmark)


def benchmark(args: argparse.Namespace) -> tuple[list[dict[str, object]], str]:
    """Tidy rows of every network, and their table."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.networks:
            tables.note_progress(f"{name}: exporting")
            case = Case(name, Path(folder))
            for threads in args.all_threads:
                args.threads = threads
                torch.set_num_threads(threads)
                rows += rows_of(case, args)
    return rows, markdown(rows, args)


class Case:
    """A network with noisy weights, its files, and an input for each.

    Args:
        name: of a backbone, a network from images, or "tpnet".
        folder: for the files.
    """

    def __init__(self, name: str, folder: Path) -> None:
        torch.manual_seed(0)
        self.name = name
        self.network = _network(name)
        with torch.no_grad():  # what starts at zero would hide mistakes, and hide work
            for parameter in self.network.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        files = {FREE: export(self.network, folder / f"{name}.onnx", name)}
        self.frames = _frames(name)
        if name in backbones.names() and backbones.info(name).kind == "centre" and _is_free(files[FREE]):
            fixed = folder / f"{name}-fixed.onnx"
            files[FIXED] = export(self.network, fixed, name, frames=self.frames)
        self.files: dict[str, Exported] = files
        self.inputs = {
            port.name: torch.randn(
                [1 if n == "batch" else self.frames if n == "frames" else int(n) for n in port.shape]
            )
            for port in files[FREE].inputs
        }
        self.joints = int(next(iter(self.inputs.values())).shape[-2])

    def calls(self, threads: int) -> dict[str, Callable[[], object]]:
        """Provider -> what is timed. Eager runs without gradients."""
        values = list(self.inputs.values())
        feed = {key: value.numpy() for key, value in self.inputs.items()}

        def eager() -> object:
            with torch.no_grad():
                return self.network(*values)

        found: dict[str, Callable[[], object]] = {EAGER: eager}
        for provider, written in self.files.items():
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            # idle threads that spin would take the processor from whoever has the next turn
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = onnxruntime.InferenceSession(written.path, options, providers=["CPUExecutionProvider"])
            found[provider] = lambda session=session: session.run(None, feed)
        return found


def _is_free(written: Exported) -> bool:
    return "frames" in written.inputs[0].shape


def _network(name: str) -> nn.Module:
    if name == "tpnet":
        return TPNet(root=0).eval()
    return (images if name in images.names() else backbones).create(name).eval()


def _frames(name: str) -> int:
    """Frames of a call: those that the network was trained on; a single one of a network of single frames."""
    if name == "tpnet" or name in images.names():
        return 1
    return backbones.info(name).frames if backbones.info(name).kind != "frame" else 1


def _check(case: Case, calls: dict[str, Callable[[], object]]) -> None:
    """All providers agree on the first output."""
    found = {}
    for provider, call in calls.items():
        value = call()
        first = value[0] if isinstance(value, list | tuple) else value
        found[provider] = np.asarray(first)
    want = found.pop(EAGER)
    want = want[-1] if want.ndim > found[FREE].ndim else want  # heatmaps of every stack, where a file has the last
    for provider, got in found.items():
        error = float(np.abs(got - want).max() / np.abs(want).max())
        if not error < TOLERANCE:
            raise WrongError(f"{provider} of {case.name} differs by {error:.1e} of the largest output")


def rows_of(case: Case, args: argparse.Namespace) -> list[dict[str, object]]:
    """Tidy rows of one network at one number of threads."""
    calls = case.calls(args.threads)
    _check(case, calls)
    times, failures = measure.interleave(
        calls, args.rounds, args.budget, "cpu", lambda line: tables.note_progress(f"{case.name}: {line}")
    )
    rows = []
    for provider in calls:
        shape = Shape(1, case.frames, case.joints)
        row = tables.common_columns(f"export {case.name}", provider, "forward", shape, args)
        row |= {"metric": "time", "unit": "ms", "versions": f"{row['versions']}, onnxruntime {onnxruntime.__version__}"}
        if provider not in times:
            rows.append(row | {"note": f"skipped: {failures[provider]}"})
            continue
        p20, p50, p80 = (1e3 * x for x in measure.percentiles(times[provider]))
        ratio = measure.median_ratio(times.get(EAGER), times[provider])
        note = "loaded machine" if args.loaded else ""
        rows.append(row | {"p20": p20, "p50": p50, "p80": p80, "ratio": "" if ratio is None else ratio, "note": note})
    return rows


def markdown(rows: Sequence[dict[str, object]], args: argparse.Namespace) -> str:
    """One line per network and number of threads."""
    heads = [
        "network",
        "frames",
        "threads",
        "eager, ms (p20–p80)",
        "onnxruntime, ms",
        "× eager",
        "fixed length, ms",
        "×",
    ]
    lines = []
    for name in args.networks:
        for threads in args.all_threads:
            found = {r["provider"]: r for r in rows if r["op"] == f"export {name}" and r["threads"] == threads}
            cells = [name, str(found[EAGER]["T"]), str(threads), tables.spread(found[EAGER])]
            for provider in (FREE, FIXED):
                row = found.get(provider)
                cells += ["–", "–"] if row is None else [tables.spread(row), tables.figure(row["ratio"])]
            lines.append(cells)
    line = tables.conditions(args, threads="1 and 2 threads" if len(args.all_threads) > 1 else "")
    loaded = ", a machine that had other work" if args.loaded else ""
    line += f", onnxruntime {onnxruntime.__version__}{loaded}"
    return f"\n### Outside of Python\n\n{tables.table(heads, lines)}\n\n{line}.\n"


if __name__ == "__main__":
    sys.exit(main())
