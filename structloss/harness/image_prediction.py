"""From images to 3D poses: a trained network, and what it finds in the image of every person."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .. import __version__, images, skeletons
from ..errors import ArgumentError, CheckpointError
from ..images.crops import invert
from ..images.joints import CANONICAL_LENGTH, HEAD, MIRROR, NECK, PELVIS, bone_lengths, to_h36m
from ..images.people import People
from ..images.samples import ImageSamples, sample_of
from ..progress import track
from .predict import Prediction

__all__ = ["ImageNetwork", "SeenPeople", "found_in", "predict_people"]

_TOLD = 10_000  # people whose images' names are in meta
_LONGEST = 200  # characters of a name


@dataclass(frozen=True)
class ImageNetwork:
    """A trained network from images to poses.

    Attributes:
        model: in evaluation mode.
        name: of the network.
        flip: average with what is found in the mirrored image, unless asked otherwise.
        source: the file of its weights.
        bgr: it was trained on images whose channels are blue, green, red, as OpenCV reads them.
    """

    model: images.SAPNet
    name: str
    flip: bool
    source: str
    bgr: bool = False


@torch.no_grad()
def found_in(model: images.SAPNet, image: Tensor, flip: bool = False) -> images.SAPOutput:
    """What a network finds: heatmaps of the last stack alone, `[1, B, 16, H, H]`, and depths `[B, 16]`, float32.

    Args:
        model: in evaluation mode.
        image: `[B, 3, S, S]`, 0 to 1.
        flip: average with what is found in the mirrored image.
    """
    out = model(image)
    heatmaps, depth = out.heatmaps[-1:].float(), out.depth.float()
    if flip:
        other, swap = model(image.flip(-1)), list(MIRROR)
        heatmaps = (heatmaps + other.heatmaps[-1:].float().flip(-1)[:, :, swap]) / 2
        depth = (depth + other.depth.float()[:, swap]) / 2
    return images.SAPOutput(heatmaps, depth)


def predict_people(
    network: ImageNetwork,
    people: People,
    *,
    name: str = "",
    fps: float | None = None,
    flip: bool | None = None,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    workers: int = 0,
    progress: bool = False,
) -> Prediction:
    """3D poses of the people in images, such as the frames of a video, one after the other.

    Memory is that of a batch and of the poses, not of the images.

    Args:
        network: see :func:`~structloss.harness.image_load.load_image_network`; its model is moved to the device.
        people: images with boxes, in the order of the result.
        name: of the result; empty takes where the people come from.
        fps: frames per second, where the images follow each other in time; None is what a video says, or else 25, with
            a note if there are several images.
        flip: average with the mirrored image; None is what the network says.
        batch_size: images of one call.
        device: where to compute.
        workers: processes that decode and crop.
        progress: show a progress bar on a terminal.

    Returns:
        Poses in Human3.6M's joints, relative to the pelvis; the bones have their canonical length in sum, so that the
        size is nominal. Spine and neck/nose are made of their neighbours. `keypoints` are pixels of the images as they
        are, `confidence` the heights of the heatmaps' peaks, 0 to 1, and of a joint that is made of two the lesser one.
        `meta` has the images' names and the squares that the network saw, for at most 10,000 people; of the frames of
        a video just its own.

    Raises:
        ArgumentError: a frame rate that is not positive.
        MissingFileError, DataError: an image is gone or damaged, or a box is none.
        CheckpointError: the network predicts no numbers.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ArgumentError(f"fps is {fps!r}, expected a positive number.")
    # A sixth to a quarter faster on CPUs (structloss bench images); the answers differ by rounding.
    layout = torch.channels_last if torch.device(device).type == "cpu" else torch.preserve_format
    model = network.model.to(device, memory_format=layout)  # type: ignore[call-overload]  # has no overload of it
    mirrored = network.flip if flip is None else flip
    seen = SeenPeople(people, input_size=model.input_size)
    loader: Any = DataLoader(seen, batch_size=batch_size, num_workers=workers, shuffle=False)
    parts: list[tuple[Tensor, ...]] = []
    for batch in track(loader, "Finding poses", progress):
        pixels = batch["image"].flip(1) if network.bgr else batch["image"]
        out = found_in(model, pixels.to(device), mirrored)
        parts.append((*_read(out, batch["affine"], model.input_size), batch["size"], batch["square"]))
    poses, keypoints, confidence, scale, sizes, squares = (torch.cat(of).numpy() for of in zip(*parts, strict=True))
    if not (np.isfinite(poses).all() and np.isfinite(keypoints).all()):
        raise CheckpointError(f"{network.name} with {network.source} predicts NaN or infinite values, expected poses.")
    told = getattr(people, "fps", None)
    rate, notes = told if fps is None else fps, list(getattr(people, "notes", ()))
    if rate is None or not math.isfinite(rate):
        rate = 25.0
        if len(poses) > 1:
            notes.append("the frame rate is not known, 25 frames per second are assumed; set fps")
    width, height = sizes.max(0).tolist()
    if len(np.unique(sizes, axis=0)) > 1:
        notes.append(f"the images are of different sizes, up to {width} x {height} pixels; keypoints are in their own")
    body = skeletons.get("h36m")
    name = name or Path(people.source).name or "people"
    meta = {
        "name": name,
        "skeleton": "h36m",
        "joint_names": list(body.joint_names),
        "made_joints": ["spine: middle of pelvis and neck", "neck/nose: middle of neck and head"],
        "units": "metre",
        "frame": "camera: x right, y down, z forward; relative to the pelvis",
        "size": "nominal: bones of canonical length",
        "fps": float(rate),
        "width": width,
        "height": height,
        "model": network.name,
        "weights": Path(network.source).name,
        "flip": mirrored,
        "versions": {"structloss": __version__, "torch": torch.__version__, "numpy": np.__version__},
        **_told_of(seen.names, sizes, squares),
    }
    return Prediction(
        name, poses, keypoints, confidence, "h36m", float(rate), width, height, scale, meta, tuple(notes)
    )  # fmt: skip


class SeenPeople(ImageSamples):
    """People as a network sees them, how large their images are, and which square of them it is."""

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        person = self.person(key if isinstance(key, int) else key[1])
        sample = sample_of(person, self.input_size)
        height, width = person.image.shape[:2]
        # From border to border: the first pixel begins at -1/2, and a box of the image begins at 0.
        left, top = np.asarray(person.centre, np.float64) - person.side / 2 + 0.5
        return {
            "image": sample["image"],
            "affine": sample["affine"],
            "size": torch.tensor([width, height]),
            "square": torch.tensor([left, top, person.side], dtype=torch.float64),
        }

    @property
    def names(self) -> list[str]:
        """Names of the images that are known without decoding them, person by person; of a video none."""
        (people,) = self.people
        of = getattr(people, "annotations", None)
        return [] if of is None else [of.files[number] for number in of.file[:_TOLD].tolist()]


def _told_of(names: list[str], sizes: np.ndarray, squares: np.ndarray) -> dict[str, Any]:
    """What `meta` says about the images and boxes, one for all where they are the same."""
    found: dict[str, Any] = {"people": len(sizes)}
    if names:
        found["images"] = [name if len(name) <= _LONGEST else f"...{name[-_LONGEST:]}" for name in names]
    for key, values in (("image_sizes", sizes), ("squares", np.round(squares, 2))):
        same = bool((values == values[0]).all())
        found[key] = values[0].tolist() if same else values[:_TOLD].tolist()
    found["squares_are"] = "x, y of the upper left corner and side of what the network saw, pixels"
    if len(sizes) > _TOLD:
        found["left_out"] = f"names, sizes and squares of the people after the first {_TOLD}"
    return found


def _read(out: images.SAPOutput, affine: Tensor, input_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Poses `[B, 17, 3]`, metres; keypoints `[B, 17, 2]`, pixels of the images; confidence `[B, 17]`; and metres per
    unit of the network's answer `[B]`, all on the CPU."""
    heatmaps, depth = out.heatmaps[-1].cpu(), out.depth.cpu()
    answer = images.decode(heatmaps, depth, unit="image")
    poses = images.decode(heatmaps, depth, unit="mm") / 1000
    scale = CANONICAL_LENGTH / 1000 / bone_lengths(answer).sum(-1).clamp(min=1e-9)
    pixels = to_h36m(images.decode(heatmaps, depth, unit="pixels", input_size=input_size)[..., :2])
    back = torch.from_numpy(np.stack([invert(matrix) for matrix in affine.double().numpy()])).float()
    keypoints = pixels @ back[:, :, :2].transpose(1, 2) + back[:, None, :, 2]
    peaks = images.confidence(heatmaps).clamp(0, 1)[..., None]
    # of a joint that is made of others, the least of theirs
    certain = to_h36m(peaks.expand(*peaks.shape[:-1], 2).clone())[..., 0]
    certain[:, 7] = torch.minimum(peaks[:, PELVIS, 0], peaks[:, NECK, 0])
    certain[:, 9] = torch.minimum(peaks[:, NECK, 0], peaks[:, HEAD, 0])
    return to_h36m(poses), keypoints, certain, scale
