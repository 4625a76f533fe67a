"""`structloss predict`."""

from __future__ import annotations

import argparse

from ._parser import command, positive

__all__ = ["add"]


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
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
    network.add_argument("--batch-size", type=positive, default=16, help="windows of one call (default: 16)")
    network.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="(default: auto)")
    reading = parser.add_argument_group("input")
    reading.add_argument("--layout", default="auto", help="coco, h36m, halpe26, body25, mpii, ... (default: auto)")
    reading.add_argument(
        "--variant", choices=("motionbert", "demo"), help="how trunk and head are made of a detector's keypoints"
    )
    reading.add_argument("--image-size", nargs=2, type=positive, metavar=("W", "H"), help="pixels")
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
    from .predict import PredictSettings, run_predict

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
