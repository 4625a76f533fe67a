"""`structloss data`: inspect, convert, synthetic."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ._parser import command, positive

__all__ = ["add"]


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
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
    parser = command(
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
    parser = command(
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
    parser = command(
        actions,
        "synthetic",
        "make motion of people of several sizes who walk, reach, squat, turn, sit down and move at random",
        "  structloss data synthetic people.npz\n"
        "  structloss data synthetic people.poses --subjects 8 --clips 4 --frames 300 --seed 1\n",
    )
    parser.add_argument("out", help="what to write: a name that ends in .npz (clips) or .poses (seen by cameras)")
    parser.add_argument("--subjects", type=positive, default=24, help="people (default: 24)")
    parser.add_argument("--clips", type=positive, default=6, help="clips of each (default: 6)")
    parser.add_argument("--frames", type=positive, default=500, help="frames of a clip, 50 a second (default: 500)")
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
    parser.add_argument("--views", type=positive, help="cameras that see each clip, 1 to 4 (default: 4)")
    parser.add_argument("--detections", choices=("simulated", "exact"), help="2D keypoints (default: simulated)")
    parser.add_argument("--overwrite", action="store_true", help="replace what was written there before")


def _data(action: str) -> Callable[[argparse.Namespace], None]:
    def run(arguments: argparse.Namespace) -> None:
        from . import data as commands

        given = vars(arguments)
        getattr(commands, action)(**{k: v for k, v in given.items() if k not in ("command", "action", "run", "debug")})

    return run
