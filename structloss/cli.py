"""The `structloss` command. Heavy parts load only for the command that needs them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import __version__
from .errors import StructlossError

__all__ = ["main"]

_FIT_COMMANDS = {
    "fit": "train a backbone from a recipe",
    "validate": "score a checkpoint on the validation subjects",
    "test": "score a checkpoint with all metrics",
}

_BENCH = "time losses, a training step (bench step) or networks (bench backbones) against other forms of the same"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="structloss",
        description="Structural losses, lifting backbones and training for 3D human pose.",
        epilog="examples:\n"
        "  structloss demo                              train with and without depth-ranking losses, write a report\n"
        "  structloss demo --data motion.npz --seed 1   the same on your motion capture\n"
        "  structloss fit --config repose-tiny          train from a recipe\n"
        "  structloss backbones list\n"
        "  structloss bench --op objective              time the kernels against other ways to compute the same\n"
        "\nEvery command has its own --help with examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"structloss {__version__}")
    _add_debug(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_demo(commands)
    for name, text in _FIT_COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)  # the Lightning command line prints its own help
    _add_backbones(commands)
    _add_backends(commands)
    commands.add_parser("bench", help=_BENCH, add_help=False)  # the benchmark prints its own help
    return parser


def _add_debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )


def _command(commands: argparse._SubParsersAction, name: str, text: str, examples: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_debug(parser)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _nonnegative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number >= 0")
    return value


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "demo",
        "train the same small backbone with MPJPE and with MPJPE + depth ranking, compare them, write a report",
        "  structloss demo\n"
        "  structloss demo --steps 50 --out quick\n"
        "  structloss demo --data motion.npz --seed 2\n"
        "  structloss demo --backbone repose-h36m --window 243 --steps 20000\n",
    )
    parser.add_argument("--steps", type=_positive, default=500, help="training steps of each model (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, data and order (default: 0)")
    parser.add_argument("--data", metavar="FILE.npz", help="clip archive with real motion (default: synthetic motion)")
    parser.add_argument(
        "--backbone", default="repose-tiny", help="see structloss backbones list (default: repose-tiny)"
    )
    parser.add_argument("--out", default="structloss-demo", help="folder to write (default: structloss-demo)")
    parser.add_argument("--window", type=_positive, default=27, help="frames of a clip (default: 27)")
    parser.add_argument("--batch-size", type=_positive, default=16, help="clips of a step (default: 16)")
    parser.add_argument("--lr", type=_nonnegative, default=2e-3, help="peak learning rate (default: 2e-3)")
    parser.add_argument("--lambda-s", type=_nonnegative, default=1.0, help="weight of L_S (default: 1)")
    parser.add_argument("--lambda-t", type=_nonnegative, default=1.0, help="weight of L_T (default: 1)")
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    from .reports.demo import DemoSettings, run_demo

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


def _add_backbones(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "backbones",
        "list the backbones, describe one, or convert a published checkpoint",
        "  structloss backbones                         the table of all\n"
        "  structloss backbones info repose-h36m\n"
        "  structloss backbones convert best_epoch.bin repose.safetensors --model repose-h36m\n",
    )
    parser.set_defaults(run=_list_backbones)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="all backbones, a line each").set_defaults(run=_list_backbones)
    info = actions.add_parser("info", help="everything known about one")
    info.add_argument("name")
    info.set_defaults(run=_backbone_info)
    convert = actions.add_parser("convert", help="read a published checkpoint safely, write safetensors")
    convert.add_argument("official", help="published checkpoint (.pth, .bin, .pt, .ckpt or .safetensors)")
    convert.add_argument("out", help="file to write (.safetensors)")
    convert.add_argument("--model", required=True, help="name of the backbone")
    convert.set_defaults(run=_convert)


def _list_backbones(arguments: argparse.Namespace) -> None:
    from . import backbones

    rows = [("name", "T", "joints", "params", "MACs/clip", "MPJPE, mm", "paper")]
    for name in backbones.names():
        info = backbones.info(name)
        frames = "any" if info.kind == "frame" else str(info.frames)
        joints = f"{info.joints_in[0]} -> {info.joints_out}"
        size = f"{info.params / 1e6:.2f} M", f"{info.macs / 1e9:.3g} G"
        rows.append((name, frames, joints, *size, info.published_error, info.paper))
    widths = [max(len(row[k]) for row in rows) for k in range(6)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row[:6], widths, strict=True)), row[6]]))
    print(
        "\nT: frames of a clip or receptive field. MPJPE as published, on Human3.6M unless it says 3DHP or H3WB;"
        "\n2D input cpn, sh: detected, gt2d: ground truth; *: quoted from memory."
    )


def _backbone_info(arguments: argparse.Namespace) -> None:
    from dataclasses import fields

    from . import backbones

    info = backbones.info(arguments.name)
    for entry in fields(info):
        value = getattr(info, entry.name)
        if hasattr(value, "items"):
            value = ", ".join(f"{k} = {v:g}" if isinstance(v, float) else f"{k} = {v}" for k, v in value.items())
        elif isinstance(value, tuple):
            value = ", ".join(map(str, value))
        print(f"{entry.name:12} {value}")


def _convert(arguments: argparse.Namespace) -> None:
    from . import backbones

    print(backbones.convert(arguments.official, arguments.out, arguments.model))


def _add_backends(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "backends",
        "tell which kernels work on this machine, and why the others don't",
        "  structloss backends\n",
    )
    parser.set_defaults(run=_backends)


def _backends(arguments: argparse.Namespace) -> None:
    from .ops.backend import backends

    for name, status in backends().items():
        print(f"{name:8}{'yes' if status else 'no ':5}{status.reason}")


def _bench(arguments: list[str]) -> int:
    """Run bench/run.py, or with a leading `step` or `backbones` the script of that name; a wheel carries them along."""
    package = Path(__file__).resolve().parent
    folder = next((f for f in (package / "bench", package.parent / "bench") if (f / "run.py").exists()), None)
    if folder is None:
        raise StructlossError(f"the benchmark is missing from {package}; reinstall structloss.")
    sys.path.insert(0, str(folder))  # its modules import each other as scripts do
    if arguments[:1] == ["step"]:
        import step

        return step.main(arguments[1:], prog="structloss bench step")
    if arguments[:1] == ["backbones"]:
        import backbones

        return backbones.main(arguments[1:], prog="structloss bench backbones")
    import run

    return run.main(arguments, prog="structloss bench")


def _dispatch(arguments: Sequence[str]) -> int:
    command = next((a for a in arguments if not a.startswith("-")), None)
    if command == "bench" or command in _FIT_COMMANDS:
        at = list(arguments).index(command)
        rest = [a for a in [*arguments[:at], *arguments[at + 1 :]] if a != "--debug"]
        if command == "bench":
            return _bench(rest)
        from .harness import commands

        commands.run(command, rest)
        return 0
    parser = _parser()
    namespace = parser.parse_args([a for a in arguments if a != "--debug"])  # main() looks at it itself
    run: Callable[[argparse.Namespace], None] | None = getattr(namespace, "run", None)
    if run is None:
        parser.print_help()
        return 2
    run(namespace)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 only on success."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except StructlossError as error:
        if "--debug" in arguments:
            raise
        print(f"structloss: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("structloss: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `structloss backbones list | head`
        sys.stderr.close()
        return 1


if __name__ == "__main__":
    sys.exit(main())
