"""`structloss demo`."""

from __future__ import annotations

import argparse

from ._parser import command, nonnegative, positive

__all__ = ["add"]


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "demo",
        "train the same small backbone with MPJPE and with MPJPE + depth ranking, compare them, write a report",
        "  structloss demo\n"
        "  structloss demo --steps 50 --out quick\n"
        "  structloss demo --data motion.npz --seed 2\n"
        "  structloss demo --backbone repose-h36m --window 243 --steps 20000\n",
    )
    parser.add_argument("--steps", type=positive, default=500, help="training steps of each model (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, data and order (default: 0)")
    parser.add_argument("--data", metavar="FILE.npz", help="clip archive with real motion (default: synthetic motion)")
    parser.add_argument(
        "--backbone", default="repose-tiny", help="see structloss backbones list (default: repose-tiny)"
    )
    parser.add_argument("--out", default="structloss-demo", help="folder to write (default: structloss-demo)")
    parser.add_argument("--window", type=positive, default=27, help="frames of a clip (default: 27)")
    parser.add_argument("--batch-size", type=positive, default=16, help="clips of a step (default: 16)")
    parser.add_argument("--lr", type=nonnegative, default=2e-3, help="peak learning rate (default: 2e-3)")
    parser.add_argument("--lambda-s", type=nonnegative, default=1.0, help="weight of L_S (default: 1)")
    parser.add_argument("--lambda-t", type=nonnegative, default=1.0, help="weight of L_T (default: 1)")
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    from .demo import DemoSettings, run_demo

    run_demo(
        DemoSettings(
            steps=arguments.steps,
            seed=arguments.seed,
            data=arguments.data,
            backbone=arguments.backbone,
            out=arguments.out,
            window=arguments.window,
            batch_size=arguments.batch_size,
            lr=arguments.lr,
            lambda_s=arguments.lambda_s,
            lambda_t=arguments.lambda_t,
        )
    )
