"""`structloss predict`: keypoints, a video, or images, in; 3D poses as npz, BVH and video out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from .. import samples
from ..errors import ArgumentError, DataError
from ._engine import add_engine, engine_flags, opened_engine, print_line
from ._many_inputs import are_many, is_one
from ._parser import command, flags_of, options, positive, whole
from ._predict_images import are_of_images, run_predict_images
from ._predict_keypoints import load_networks, predict_input
from ._predict_settings import OWN, STANDARD_INPUT, PredictSettings

__all__ = ["PredictSettings", "add", "run_predict"]

ORDER = 60


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "predict",
        "make 3D poses of 2D keypoints, images or a video of any length: npz, BVH, videos, pictures",
        "  structloss predict sample:dance --out dance    keypoints of a clip that comes with the package\n"
        "  structloss predict alphapose-results.json --ckpt last.ckpt --image-size 1920 1080 --fps 30 --out poses\n"
        "  structloss predict openpose_json/ --ckpt last.ckpt --image-size 1280 720 --out poses --video mp4\n"
        "  structloss predict data_2d_custom_clip.npz --backbone videopose3d-243 --weights pretrained.bin --out poses\n"
        "  structloss predict keypoints.npy --layout coco --image-size 640 480 --variant demo \\\n"
        "      --backbone mhformer-351 --weights mhformer.pth --bvh walk.bvh --floor --video walk.gif\n"
        "  structloss predict sample:walk --ckpt last.ckpt --refine tpnet.ckpt --fit-skeleton --out poses\n"
        "  structloss predict walk.mp4 --out walk    a detector finds the keypoints\n"
        "  structloss predict 0 --frames 300 --out me    the first camera, for ten seconds\n"
        "  structloss predict --split train --ckpt last.ckpt --npz train.npz    to train a refiner on\n"
        "  structloss predict walk.mp4 --ckpt sapnet.ckpt --box 120 40 200 420 --refine tpnet.ckpt --out walk\n"
        "  structloss predict photos/ --ckpt sapnet.ckpt --boxes boxes.json --missing skip --overlay drawn\n"
        "  structloss predict walk.mp4 --ckpt shape-template.ckpt --out walk    15 joints in the image\n"
        "  structloss predict clips/ --jobs 4 --out poses    many keypoint files and videos, in folders or LIST.txt\n"
        "  detector | structloss predict - --stream --layout coco --image-size 1280 720 | viewer    JSON lines\n",
    )
    parser.add_argument(
        "input",
        nargs="?",
        help="keypoints: .npz, .npy, .json of a detector or of COCO, a folder of OpenPose or YOLO-pose, sample:dance; "
        "or a video, an image, a folder of frames, or a camera's number, such as 0, in which a detector finds the "
        "keypoints; for a network from images an image, a folder of images, a video, or annotations (MPII, COCO, "
        "SPIN); with --split where the data set is now, if it was moved; or many: a folder with keypoint files, videos "
        "and such folders in it, or LIST.txt with a path a line",
    )
    network = parser.add_argument_group(
        "network", "lift-27, or lift-s with --stream, whose weights come with the package, where none is named"
    )
    network.add_argument("--ckpt", metavar="FILE.ckpt", help="checkpoint of structloss fit")
    network.add_argument(
        "--backbone", metavar="NAME", help="lift-27 or lift-s; or one of structloss backbones list, with --weights"
    )
    network.add_argument("--network", metavar="NAME", help="network from images, sapnet or sapnet-tiny; with --weights")
    network.add_argument("--weights", metavar="FILE", help="published checkpoint or .safetensors of the network")
    network.add_argument(
        "--colours", choices=("bgr", "rgb"), help="channels that --weights of --network were trained on (default: bgr)"
    )
    network.add_argument(
        "--target", choices=("camera", "global", "root_relative"), help="space it answers in (default: as trained)"
    )
    network.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="average with the mirrored input (default: as trained)"
    )
    network.add_argument(
        "--batch-size",
        type=positive,
        help="windows or images of one call (default: 16; with --split, the validation's)",
    )
    network.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="(default: auto)")
    reading = parser.add_argument_group("input")
    reading.add_argument("--layout", default="auto", help="coco, h36m, halpe26, body25, mpii, ... (default: auto)")
    reading.add_argument(
        "--variant", choices=("motionbert", "demo"), help="how trunk and head are made of a detector's keypoints"
    )
    reading.add_argument(
        "--image-size", nargs=2, type=positive, metavar=("W", "H"), help="pixels, where the file doesn't say"
    )
    reading.add_argument(
        "--fps",
        type=float,
        help="frames per second, where the file doesn't say; images then follow each other; with --split, those that "
        "images are numbered by",
    )
    reading.add_argument(
        "--person", default="longest", help="longest, largest, all, or a track's number (default: longest)"
    )
    reading.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="predict the clips, or the people in runs of images, that the checkpoint was trained or tested on, into "
        "one npz that --data.predictions of structloss fit --config tpnet takes",
    )
    finding = parser.add_argument_group("frames for a lifting network")
    finding.add_argument(
        "--detector",
        metavar="NAME",
        help="finds the keypoints: mediapipe, or a function of yours, module:function, which is imported and run "
        "(default: mediapipe)",
    )
    finding.add_argument(
        "--frames", type=positive, metavar="N", help="take the first N (default: all; of a camera until Ctrl-C)"
    )
    finding.add_argument(
        "--keypoints",
        metavar="FILE.json",
        help="write what the detector finds; predict takes this file in place of the frames",
    )
    pixels = parser.add_argument_group("images and videos")
    pixels.add_argument(
        "--boxes",
        metavar="FILE.json",
        help="image or frame -> [x, y, width, height] in pixels, or a list of them (default: the whole image)",
    )
    pixels.add_argument(
        "--box", nargs=4, type=float, metavar=("X", "Y", "W", "H"), help="one box for all images or frames, pixels"
    )
    pixels.add_argument("--images", metavar="FOLDER", help="of the images that annotations name (default: beside them)")
    pixels.add_argument(
        "--missing", choices=("error", "skip"), help="images that are missing or broken: refuse them, or leave them out"
    )
    live = parser.add_argument_group("lines of keypoints on standard input")
    live.add_argument(
        "--stream",
        action="store_true",
        help="answer each line of JSON on -, one person in one frame, by a line with the pose as soon as it is known",
    )
    live.add_argument(
        "--lag", type=whole, metavar="N", help="frames to wait for (default: as many as the network looks ahead)"
    )
    after = parser.add_argument_group("after the network")
    after.add_argument("--refine", metavar="FILE.ckpt", help="checkpoint of structloss fit --config tpnet")
    after.add_argument(
        "--fit-skeleton",
        nargs="?",
        const=OWN,
        metavar="LENGTHS.json",
        help="give bones a constant length: of a file, or without one the median of the prediction",
    )
    writing = parser.add_argument_group("output")
    writing.add_argument(
        "--out",
        metavar="DIR",
        help="folder for NAME.npz and NAME.bvh of every track; of images, pictures too; with --split or a file",
    )
    writing.add_argument("--npz", metavar="FILE.npz", help="positions, keypoints, confidence, scale and meta")
    writing.add_argument("--json", metavar="FILE.json", help="joints that a network of shape templates finds")
    writing.add_argument("--bvh", metavar="FILE.bvh", help="skeleton with rotations; centimetres, y up")
    writing.add_argument(
        "--floor", action="store_true", help="in BVH files, every frame's lowest joint is at height 0, not the pelvis"
    )
    writing.add_argument("--video", metavar="FILE", help="FILE.mp4 or FILE.gif; or mp4 or gif: one per track, in --out")
    writing.add_argument(
        "--overlay",
        metavar="FILE|FOLDER",
        help="what was found, drawn over the images: FILE.mp4 for a video, a folder for images; with a lifting network "
        "3D beside it, FILE.png for an image",
    )
    add_engine(parser.add_argument_group("many inputs"), "piece")
    parser.set_defaults(run=lambda arguments: _run(arguments, flags_of(parser)))


def _run(arguments: argparse.Namespace, flags: Mapping[str, str]) -> None:
    given = options(arguments, "person", "image_size", "box", "jobs", "engine", "address", "cpus", "gpus")
    person, size, box = arguments.person, arguments.image_size, arguments.box
    settings = PredictSettings(
        **given,
        person=int(person) if person.lstrip("-").isdecimal() else person,
        image_size=None if size is None else (size[0], size[1]),
        box=None if box is None else (box[0], box[1], box[2], box[3]),
    )
    streams = settings.stream or settings.input == STANDARD_INPUT
    if not streams and settings.lag is not None:
        raise ArgumentError(f"--lag is {settings.lag}, expected it with --stream.")
    if not streams and settings.split is None and are_many(settings.input):
        from ._predict_many import run_predict_many

        with opened_engine(arguments, print_line, threads=True) as engine:
            run_predict_many(settings, flags, engine, arguments.cpus or 1)
        return
    if alone := engine_flags(arguments):
        if settings.input and Path(settings.input).is_dir() and not is_one(Path(settings.input)):
            raise DataError(
                f"{settings.input} has no inputs, expected keypoint files or videos in it, or in its folders."
            )
        raise ArgumentError(f"{alone[0]} is given with one input, expected it with a folder of many or with LIST.txt.")
    if streams:
        _run_stream(settings, flags)
    elif settings.split is None:
        run_predict(settings, flags)
    else:
        from ._predict_split import run_predict_split

        run_predict_split(settings, flags)


def _run_stream(settings: PredictSettings, flags: Mapping[str, str]) -> None:
    if not settings.stream:
        raise ArgumentError(f"the input is {STANDARD_INPUT!r}, standard input, expected it with --stream.")
    from ._predict_stream import run_predict_stream

    run_predict_stream(settings, flags)


def run_predict(settings: PredictSettings, flags: Mapping[str, str] | None = None) -> list[Path]:
    """Predict, write, and print a few lines for each track. What can't be written is found out before predicting.

    Args:
        settings: what to do.
        flags: argument -> flag that sets it, for notes that say what to set.

    Returns:
        The files written.

    Raises:
        StructlossError: see the functions that `settings` names; nothing to write, one file for several tracks, or a
            file that can't be written.
    """
    if settings.input:
        settings = replace(settings, input=str(samples.resolve(settings.input, "keypoints")))
    if are_of_images(settings):
        return run_predict_images(settings, flags)
    return predict_input(settings, flags, load_networks).written
