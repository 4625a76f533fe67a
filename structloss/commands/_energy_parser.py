"""`structloss energy`."""

from __future__ import annotations

import argparse

from ._parser import command, positive

__all__ = ["add"]


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "energy",
        "look at a loss-net on held-out poses: which faults it sees, and whether its energy follows the error",
        "  structloss energy runs/repose-tiny                     of a run with --loss learned, and its predictions\n"
        "  structloss energy --train 2000 --data motion.npz       train one on corrupted poses first, and keep it\n"
        "  structloss energy --loss-net loss_net.safetensors --data motion.npz --out runs/energy\n",
    )
    parser.add_argument(
        "folder", nargs="?", metavar="RUN_DIR", help="folder of a run: runs/NAME/version_N, or runs/NAME"
    )
    parser.add_argument("--loss-net", metavar="FILE", help="a saved loss-net, or a checkpoint with one")
    parser.add_argument("--train", type=positive, metavar="STEPS", help="train a loss-net on corrupted poses")
    parser.add_argument("--net", default="graph", help="variant to train (default: graph)")
    parser.add_argument("--lr", type=float, default=1e-3, help="its peak learning rate (default: 1e-3)")
    parser.add_argument("--batch-size", type=positive, default=32, help="clips of a training step (default: 32)")
    parser.add_argument(
        "--data", metavar="PATH", help="data set of any format (default: the run's, or synthetic motion)"
    )
    parser.add_argument("--views", type=positive, default=4, metavar="N", help="cameras a clip, 1 to 4 (default: 4)")
    parser.add_argument("--skeleton", default="h36m", help="joint order of the data (default: h36m)")
    parser.add_argument(
        "--detections",
        default="simulated",
        choices=("simulated", "exact"),
        help="2D of motion without its own (default: simulated)",
    )
    parser.add_argument("--frames", type=positive, default=20_000, help="poses to look at, at most (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="of data, training and corruptions (default: 0)")
    parser.add_argument("--out", default="runs/energy", metavar="DIR", help="folder to write (default: runs/energy)")
    parser.set_defaults(run=_energy)


def _energy(arguments: argparse.Namespace) -> None:
    from .energy import look_at_energy

    given = {k: v for k, v in vars(arguments).items() if k not in ("command", "run", "folder", "debug")}
    look_at_energy(arguments.folder, **given)
