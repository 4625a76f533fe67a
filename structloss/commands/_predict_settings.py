"""What `structloss predict` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import ArgumentError, check_choice
from ..files import check_apart

__all__ = [
    "DEVICES",
    "OF_FRAMES",
    "OWN",
    "STANDARD_INPUT",
    "PredictSettings",
    "check_network",
    "check_places",
    "chosen_device",
]

DEVICES = ("auto", "cpu", "cuda")
#: bone lengths that are those of the prediction itself
OWN = "own"
#: the input that is lines on standard input
STANDARD_INPUT = "-"
#: what belongs to frames in which a detector finds keypoints, as attributes of the settings
OF_FRAMES = ("detector", "keypoints", "frames")


@dataclass(frozen=True)
class PredictSettings:
    """What to predict, with what, and where to write it. Names and defaults are those of the command's options.

    Attributes:
        input: 2D keypoints, see :func:`~structloss.data.formats.read_keypoints`; or images or a video, see
            :func:`~structloss.images.open_images` for a network from images, :mod:`structloss.images.footage` for a
            lifting network, for which it may be the number of a camera, too; None with `split` alone.
        ckpt, backbone, weights, target: see :func:`~structloss.harness.predict.load_lifter`.
        out: folder for `NAME.npz` and `NAME.bvh` of every track; None writes only what is named.
        npz, bvh: files to write, for an input of one track.
        json: the same of a network of shape templates.
        floor: in BVH files, put the lowest joint of every frame at height 0; otherwise the pelvis is there.
        video: an MP4 or GIF to write, for an input of one track; or "mp4" or "gif": one for every track, in `out`.
        layout, image_size, person, fps: see :func:`~structloss.data.formats.read_keypoints`.
        variant, flip, batch_size: see :func:`~structloss.harness.predict.predict`; None is its default.
        device: "cpu", "cuda" or "auto".
        split: predict the clips of a split instead, see :mod:`structloss.commands._predict_split`.
        refine: checkpoint of a refiner, see :func:`~structloss.harness.refining.load_refiner`; None for none.
        fit_skeleton: file of bone lengths, see :func:`~structloss.harness.refined.read_lengths`; "own" is the median of
            the prediction, None leaves bones as they are.
        network, colours: with `weights`, see :func:`~structloss.harness.image_load.load_image_network`.
        boxes, images, missing: see :func:`~structloss.images.open_images`; None is its default.
        box: x, y, width, height in pixels: one box for all images.
        overlay: images with the joints drawn over: a video's file, a folder of pictures, or one image's file.
        detector: finds keypoints in frames for a lifting network, by its name or as a function, see
            :func:`~structloss.images.detector.load_detector`; None is MediaPipe's.
        keypoints: JSON file for what it finds; None writes it into `out`.
        frames: how many frames to take; None takes all, of a camera until Ctrl-C.
        stream: answer lines of keypoints as they come, see :mod:`structloss.commands._predict_stream`.
        lag: with `stream`, see :class:`~structloss.harness.streaming.KeypointStream`.
    """

    input: str | None = None
    ckpt: str | None = None
    backbone: str | None = None
    weights: str | None = None
    target: str | None = None
    out: str | None = None
    npz: str | None = None
    bvh: str | None = None
    json: str | None = None
    floor: bool = False
    video: str | None = None
    layout: str = "auto"
    image_size: tuple[int, int] | None = None
    person: str | int = "longest"
    fps: float | None = None
    variant: str | None = None
    flip: bool | None = None
    batch_size: int | None = None
    device: str = "auto"
    split: str | None = None
    refine: str | None = None
    fit_skeleton: str | None = None
    network: str | None = None
    colours: str | None = None
    boxes: str | None = None
    box: tuple[float, float, float, float] | None = None
    images: str | None = None
    missing: str | None = None
    overlay: str | None = None
    detector: str | None = None
    keypoints: str | None = None
    frames: int | None = None
    stream: bool = False
    lag: int | None = None


def check_places(settings: PredictSettings, *paths: Path) -> None:
    """Raise :class:`ArgumentError` where a file to write is one of those that the settings say to read."""
    names = ("input", "ckpt", "weights", "refine", "fit_skeleton", "boxes", "network", "images")
    for path in paths:
        check_apart(path, **{name: getattr(settings, name) for name in names})


def check_network(settings: PredictSettings) -> None:
    """Raise :class:`ArgumentError` where a network for keypoints is named twice, one that no weights come with
    without a file of them, or weights without a network."""
    if settings.ckpt is not None and settings.backbone is not None:
        raise ArgumentError(
            f"--backbone is {settings.backbone!r} with --ckpt {settings.ckpt}, which knows its backbone, expected one "
            "of them."
        )
    if settings.backbone is not None and settings.weights is None:
        from ..backbones import info, pretrained_names

        if info(settings.backbone).name not in pretrained_names():
            raise ArgumentError(
                f"--backbone is {settings.backbone!r} without --weights, expected a file of weights, or "
                f"{' or '.join(pretrained_names())}, whose weights come with the package."
            )
    if settings.weights is not None and settings.backbone is None:
        raise ArgumentError(f"--weights is {settings.weights!r}, expected it with --backbone or --network.")


def chosen_device(name: str) -> str:
    """ "cpu" or "cuda"; "auto" takes the GPU if there is one.

    Raises:
        ArgumentError: there is none, or another name.
    """
    import torch

    check_choice("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("device is 'cuda', but PyTorch finds no NVIDIA GPU, expected 'cpu' or 'auto'.")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"
