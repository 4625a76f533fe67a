"""The `structloss` command. Heavy parts load only for the command that needs them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import __version__
from .errors import MissingDependencyError, StructlossError

__all__ = ["main"]

_FIT_COMMANDS = {
    "fit": "train a backbone from a recipe",
    "validate": "score a checkpoint on the validation subjects",
    "test": "score a checkpoint with all metrics",
}

_BENCH = "time losses, a training step (bench step), networks (bench backbones), or the wait for data (bench loader)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="structloss",
        description="Structural losses, lifting backbones and training for 3D human pose.",
        epilog="examples:\n"
        "  structloss demo                              train with and without depth-ranking losses, write a report\n"
        "  structloss demo --data motion.npz --seed 1   the same on your motion capture\n"
        "  structloss fit --config repose-tiny          train from a recipe\n"
        "  structloss predict keypoints.json --ckpt last.ckpt --image-size 1920 1080 --out poses\n"
        "  structloss report runs/repose-tiny           score its checkpoint, write a page with curves and 3D poses\n"
        "  structloss backbones list\n"
        "  structloss data inspect motion.npz           what a data set holds, and what looks wrong with it\n"
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
    _add_ablate(commands)
    _add_predict(commands)
    _add_report(commands)
    _add_backbones(commands)
    _add_data(commands)
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


def _add_ablate(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "ablate",
        "train every backbone with every objective and seed of a grid, and write one table and plot",
        "  structloss ablate                                        the losses on synthetic motion\n"
        "  structloss ablate --data motion.npz --jobs 2             on your motion capture (RePOSE, Table 4)\n"
        "  structloss ablate finetune --data motion.npz             fine-tuning trained networks (RePOSE, Table 5)\n"
        "  structloss ablate finetune --backbones motionbert-full --init-from motionbert-full=best.bin --steps 2000\n"
        "  structloss ablate my_grid.yaml --seeds 0 1 2 3 4 --out runs/my_grid\n"
        "\nGiven again, the command goes on with the cells that are missing.\n",
    )
    parser.add_argument("grid", nargs="?", default="losses", help="losses, finetune, or a YAML file (default: losses)")
    parser.add_argument("--data", metavar="PATH", help="data set of any format (default: synthetic motion)")
    parser.add_argument("--out", metavar="DIR", help="folder to write (default: runs/ablate-GRID)")
    parser.add_argument("--backbones", nargs="+", metavar="NAME", help="instead of the grid's")
    parser.add_argument(
        "--objectives", nargs="+", metavar="NAME", help="some of the grid's, the first being the baseline"
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="instead of the grid's")
    parser.add_argument("--steps", type=_positive, metavar="N", help="training steps of a cell")
    parser.add_argument("--views", type=_positive, metavar="N", help="cameras that see each clip, 1 to 4 (default: 4)")
    parser.add_argument("--init-from", nargs="+", metavar="NAME=FILE", help="checkpoints that backbones start from")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="processes side by side (default: 1)")
    parser.set_defaults(run=_ablate)


def _ablate(arguments: argparse.Namespace) -> None:
    from dataclasses import replace

    from .errors import ArgumentError, check_name

    try:
        from .harness.ablation import load_grid
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed, expected the training extra: pip install 'structloss[harness]'."
        ) from error
    from .reports.ablation import run_ablation

    grid = load_grid(arguments.grid)
    data = {"data": arguments.data, "views": arguments.views}
    changes: dict[str, object] = {"data": grid.data | {k: v for k, v in data.items() if v is not None}}
    if arguments.backbones:
        changes["backbones"] = {name: grid.backbones.get(name, {}) for name in arguments.backbones}
    if arguments.objectives:
        names = [check_name("objective", name, grid.objectives) for name in arguments.objectives]
        changes["objectives"] = {name: grid.objectives[name] for name in names}
    if arguments.seeds:
        changes["seeds"] = tuple(arguments.seeds)
    if arguments.steps:
        changes["steps"] = arguments.steps
    if arguments.init_from:
        pairs = [text.partition("=") for text in arguments.init_from]
        if wrong := [name for name, equals, file in pairs if not (equals and file)]:
            raise ArgumentError(f"--init-from is {wrong[0]!r}, expected BACKBONE=FILE.")
        changes["init_from"] = {name: file for name, _, file in pairs}
    out = arguments.out or f"runs/ablate-{Path(arguments.grid).stem}"
    run_ablation(replace(grid, **changes), out, jobs=arguments.jobs, say=lambda text: print(text, flush=True))


def _add_predict(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "predict",
        "lift 2D keypoints of a video of any length to 3D poses: npz, BVH, and a video of both",
        "  structloss predict alphapose-results.json --ckpt last.ckpt --image-size 1920 1080 --fps 30 --out poses\n"
        "  structloss predict openpose_json/ --ckpt last.ckpt --image-size 1280 720 --out poses --video mp4\n"
        "  structloss predict data_2d_custom_clip.npz --backbone videopose3d-243 --weights pretrained.bin --out poses\n"
        "  structloss predict keypoints.npy --layout coco --image-size 640 480 --variant demo \\\n"
        "      --backbone mhformer-351 --weights mhformer.pth --bvh walk.bvh --video walk.gif\n",
    )
    parser.add_argument("input", help="keypoints: .npz, .npy, .json of COCO, PoseTrack or AlphaPose, OpenPose's folder")
    network = parser.add_argument_group("network")
    network.add_argument("--ckpt", metavar="FILE.ckpt", help="checkpoint of structloss fit")
    network.add_argument("--backbone", metavar="NAME", help="see structloss backbones list; with --weights")
    network.add_argument("--weights", metavar="FILE", help="published checkpoint or .safetensors of the backbone")
    network.add_argument(
        "--target", choices=("camera", "global", "root_relative"), help="space it answers in (default: as trained)"
    )
    network.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="average with the mirrored input (default: as trained)"
    )
    network.add_argument("--batch-size", type=_positive, default=16, help="windows of one call (default: 16)")
    network.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="(default: auto)")
    reading = parser.add_argument_group("input")
    reading.add_argument("--layout", default="auto", help="coco, h36m, halpe26, body25, mpii, ... (default: auto)")
    reading.add_argument(
        "--variant", choices=("motionbert", "demo"), help="how trunk and head are made of a detector's keypoints"
    )
    reading.add_argument("--image-size", nargs=2, type=_positive, metavar=("W", "H"), help="pixels")
    reading.add_argument("--fps", type=float, help="frames per second, where the file doesn't say")
    reading.add_argument(
        "--person", default="longest", help="longest, largest, all, or a track's number (default: longest)"
    )
    writing = parser.add_argument_group("output")
    writing.add_argument("--out", metavar="DIR", help="folder for NAME.npz and NAME.bvh of every track")
    writing.add_argument("--npz", metavar="FILE.npz", help="positions, keypoints, confidence, scale and meta")
    writing.add_argument("--bvh", metavar="FILE.bvh", help="skeleton with rotations; centimetres, y up")
    writing.add_argument("--video", metavar="FILE", help="FILE.mp4 or FILE.gif; or mp4 or gif: one a track in --out")
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> None:
    from .reports.predictions import PredictSettings, run_predict

    given = {key: value for key, value in vars(arguments).items() if key not in ("command", "run", "debug")}
    person = given.pop("person")
    size = given.pop("image_size")
    run_predict(
        PredictSettings(
            **given,
            person=int(person) if person.lstrip("-").isdecimal() else person,
            image_size=None if size is None else (size[0], size[1]),
        )
    )


def _add_report(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "report",
        "score the checkpoints of runs on their validation data and write one HTML page that needs no network",
        "  structloss report runs/repose-tiny                      its newest version; writes report.html there\n"
        "  structloss report runs/repose-tiny/version_0 runs/repose-tiny/version_1 --out compared.html\n"
        "  structloss report runs/a runs/b --name MPJPE 'MPJPE + L_S' --json compared.json\n"
        "  structloss report runs/repose-h36m --data /new/place/h36m.poses --device cuda\n",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="folder of a run: runs/NAME/version_N, or runs/NAME")
    parser.add_argument("--out", metavar="FILE.html", help="page to write (default: report.html in the run's folder)")
    parser.add_argument("--checkpoint", default="best", help="best, last, or the path of one (default: best)")
    parser.add_argument("--data", metavar="PATH", help="data to score on, where that of the configuration has moved")
    parser.add_argument("--name", nargs="+", metavar="NAME", dest="names", help="what to call the runs, in their order")
    parser.add_argument("--title", help="heading of the page")
    parser.add_argument("--clips", type=_positive, default=4, help="clips of the 3D player (default: 4)")
    parser.add_argument("--frames", type=_positive, default=243, help="frames of each, at most (default: 243)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument("--json", metavar="FILE.json", help="write the numbers to this file too")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from .reports.report_command import write_run_report

    given = {k: v for k, v in vars(arguments).items() if k not in ("command", "run", "runs", "debug")}
    write_run_report(arguments.runs, **given)


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


def _add_data(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "data",
        "look at a data set, convert it to a pose store that opens at once, or make a synthetic one",
        "  structloss data inspect data_3d_h36m.npz --keypoints gt\n"
        "  structloss data convert data_3d_h36m.npz h36m.poses --keypoints cpn_ft_h36m_dbb\n"
        "  structloss data convert 16_02.amc motion.npz\n"
        "  structloss data synthetic people.npz --subjects 8\n",
    )
    parser.set_defaults(run=lambda _: parser.print_help())
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    _add_data_inspect(actions)
    _add_data_convert(actions)
    _add_data_synthetic(actions)


def _add_data_inspect(actions: argparse._SubParsersAction) -> None:
    parser = _command(
        actions,
        "inspect",
        "print what a file or folder holds, and what looks wrong with it",
        "  structloss data inspect h36m_sh_conf_cam_source_final.pkl\n"
        "  structloss data inspect mpi_inf_3dhp/ --json\n"
        "  structloss data inspect walk.bvh --scale 0.01 --up z\n",
    )
    _add_reading(parser)
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON, with every bone's length")
    parser.set_defaults(run=_data("inspect"))


def _add_data_convert(actions: argparse._SubParsersAction) -> None:
    parser = _command(
        actions,
        "convert",
        "write a data set of any format as a pose store (OUT.poses) or, motion capture, as a clip archive (OUT.npz)",
        "  structloss data convert data_3d_h36m.npz h36m-cpn.poses --keypoints cpn_ft_h36m_dbb\n"
        "  structloss data convert h36m_sh_conf_cam_source_final.pkl h36m-sh.poses\n"
        "  structloss data convert MB3D_f243s81/H36M-SH clips.poses --reference h36m_sh_conf_cam_source_final.pkl\n"
        "  structloss data convert mpi_inf_3dhp/ 3dhp.poses\n"
        "  structloss data convert cmu/16_02.amc jump.npz --fps 50\n"
        "  structloss data convert recordings/ seen.poses --joints map.yaml --views 2 --detections exact\n",
    )
    _add_reading(parser)
    parser.add_argument("out", help="what to write: a name that ends in .poses or .npz")
    parser.add_argument("--fps", type=float, help="rate to resample clips to (default: 50 for motion capture)")
    _add_observing(parser)
    parser.add_argument("--seed", type=int, help="of simulated detections (default: 0)")
    parser.set_defaults(run=_data("convert"))


def _add_data_synthetic(actions: argparse._SubParsersAction) -> None:
    parser = _command(
        actions,
        "synthetic",
        "make motion of people of several sizes who walk, reach, squat, turn, sit down and move at random",
        "  structloss data synthetic people.npz\n"
        "  structloss data synthetic people.poses --subjects 8 --clips 4 --frames 300 --seed 1\n",
    )
    parser.add_argument("out", help="what to write: a name that ends in .npz (clips) or .poses (seen by cameras)")
    parser.add_argument("--subjects", type=_positive, default=24, help="people (default: 24)")
    parser.add_argument("--clips", type=_positive, default=6, help="clips of each (default: 6)")
    parser.add_argument("--frames", type=_positive, default=500, help="frames of a clip, 50 a second (default: 500)")
    _add_observing(parser)
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    parser.set_defaults(run=_data("synthetic"))


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="file or folder")
    parser.add_argument("--keypoints", metavar="NAME", help="2D file of a Human3.6M npz, or NAME of data_2d_h36m_NAME")
    parser.add_argument("--reference", metavar="FILE.pkl", help="MotionBERT's pickle that clips were cut from")
    parser.add_argument("--joints", metavar="MAP", help="motion capture: YAML or JSON map of joints, or a known one")
    parser.add_argument("--scale", type=float, help="motion capture: metres per unit of the file")
    parser.add_argument("--up", choices=("x", "y", "z", "-y"), help="motion capture: the axis that points up")
    parser.add_argument("--source-fps", type=float, help="motion capture: the file's rate, where it is wrong or absent")
    parser.add_argument("--asf", metavar="FILE.asf", help="motion capture: skeleton of an AMC file or of CMU's BVH")


def _add_observing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--views", type=_positive, help="cameras that see each clip, 1 to 4 (default: 4)")
    parser.add_argument("--detections", choices=("simulated", "exact"), help="2D keypoints (default: simulated)")
    parser.add_argument("--overwrite", action="store_true", help="replace what was written there before")


def _data(action: str) -> Callable[[argparse.Namespace], None]:
    def run(arguments: argparse.Namespace) -> None:
        from .data import commands

        given = vars(arguments)
        getattr(commands, action)(**{k: v for k, v in given.items() if k not in ("command", "action", "run", "debug")})

    return run


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
    """Run bench/run.py, or with a leading `step`, `backbones` or `loader` that script; a wheel carries them along."""
    package = Path(__file__).resolve().parent
    folder = next((f for f in (package / "bench", package.parent / "bench") if (f / "run.py").exists()), None)
    if folder is None:
        raise StructlossError(f"the benchmark is missing from {package}; reinstall structloss.")
    sys.path.insert(0, str(folder))  # its modules import each other as scripts do
    if arguments[:1] == ["step"]:
        import step

        return step.main(arguments[1:], prog="structloss bench step")
    if arguments[:1] == ["loader"]:
        import loader

        return loader.main(arguments[1:], prog="structloss bench loader")
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
