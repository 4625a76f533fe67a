"""From images to joints: a trained network of shape templates, and where it lays the parts of every person."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .. import __version__, images
from ..errors import ArgumentError, CheckpointError
from ..files import write_bytes, write_json
from ..images.crops import invert
from ..images.people import People
from ..images.template_body import TEMPLATE_BODY
from ..progress import track
from ..shape_templates import JOINT_MIRROR
from ..skeletons import Skeleton
from .image_prediction import SeenPeople
from .load import load_module
from .systems import TEMPLATES
from .template_training import TemplateModule

__all__ = ["FoundJoints", "TemplateFinder", "load_template_finder", "predict_joints"]


@dataclass(frozen=True)
class TemplateFinder:
    """A trained network of shape templates.

    Attributes:
        model: in evaluation mode.
        name: of the network.
        source: the file of its weights.
    """

    model: images.ShapeTemplateNet
    name: str
    source: str


@dataclass(frozen=True)
class FoundJoints:
    """Joints of people in images.

    Attributes:
        name: what they were found in.
        keypoints: float32 `[N, 15, 2]`, (x, y) in pixels of the images as they are, in the order of
            :data:`structloss.shape_templates.JOINTS`, whose left and right are sides of the image.
        confidence: float32 `[N, 15]`, 1: shape templates don't tell how sure they are.
        fps: frames per second.
        meta: what else is written to files.
        notes: what the user should know, a sentence each.
        skeleton: of the joints.
    """

    name: str
    keypoints: np.ndarray
    confidence: np.ndarray
    fps: float
    meta: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    skeleton: Skeleton = TEMPLATE_BODY

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write an npz with `keypoints`, and `meta` as a JSON string; it appears complete or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, meta=np.array(json.dumps(self.meta)), keypoints=self.keypoints)
        return write_bytes(path, buffer.getvalue())

    def save_json(self, path: str | os.PathLike[str]) -> Path:
        """The same as JSON: `keypoints` as lists, rounded to hundredths of a pixel, beside what is in `meta`."""
        return write_json(Path(path), {**self.meta, "keypoints": np.round(self.keypoints.astype(float), 2).tolist()})


def load_template_finder(checkpoint: str | os.PathLike[str]) -> TemplateFinder:
    """A trained network, from a checkpoint of `structloss fit`. Nothing in it is executed.

    Raises:
        MissingFileError, CheckpointError: the file is absent, unreadable, or of another network.
    """
    module = cast(TemplateModule, load_module(checkpoint, TEMPLATES)[0])
    return TemplateFinder(module.model, str(module.hparams["shape_network"]), str(checkpoint))


@torch.no_grad()
def predict_joints(
    finder: TemplateFinder,
    people: People,
    *,
    name: str = "",
    fps: float | None = None,
    flip: bool = False,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    workers: int = 0,
    progress: bool = False,
) -> FoundJoints:
    """Joints of the people in images, such as the frames of a video, one after the other.

    Memory is that of a batch and of the joints, not of the images.

    Args:
        finder: see :func:`load_template_finder`; its model is moved to the device.
        people: images with boxes, in the order of the result; of a box the network sees a square around it, wider by a
            quarter, about as the people it is trained on are cropped.
        name: of the result; empty takes where the people come from.
        fps: frames per second; None is what a video says, or else 25.
        flip: average with the joints that are found in the mirrored image, whose left and right are exchanged [ours];
            twice the time.
        batch_size: images of one call.
        device: where to compute.
        workers: processes that decode and crop.
        progress: show a progress bar on a terminal.

    Raises:
        ArgumentError: a frame rate that is not positive.
        MissingFileError, DataError: an image is gone or damaged, or a box is none.
        CheckpointError: the network predicts no numbers.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ArgumentError(f"fps is {fps!r}, expected a positive number.")
    model = finder.model.to(device)
    seen = SeenPeople(people, input_size=model.input_size)
    loader: Any = DataLoader(seen, batch_size=batch_size, num_workers=workers)
    found: list[Tensor] = []
    sizes: list[Tensor] = []
    for batch in track(loader, "Finding joints", progress):
        frame = batch["image"].to(device).contiguous(memory_format=torch.channels_last)
        joints = _found_in(model, frame, flip).double().cpu()
        back = torch.from_numpy(np.stack([invert(matrix) for matrix in batch["affine"].double().numpy()]))
        found.append((joints @ back[:, :, :2].transpose(1, 2) + back[:, None, :, 2]).float())
        sizes.append(batch["size"])
    keypoints = torch.cat(found).numpy()
    if not np.isfinite(keypoints).all():
        raise CheckpointError(f"{finder.name} with {finder.source} predicts NaN or infinite values, expected joints.")
    told = getattr(people, "fps", None)
    rate = told if fps is None else fps
    if rate is None or not math.isfinite(rate):
        rate = 25.0
    width, height = torch.cat(sizes).amax(0).tolist()
    name = name or Path(people.source).name or "people"
    meta: dict[str, Any] = {
        "name": name,
        "joint_names": list(TEMPLATE_BODY.joint_names),
        "sides": "left and right are sides of the image",
        "units": "pixels of the images, the centre of the first pixel is (0, 0)",
        "fps": float(rate),
        "width": width,
        "height": height,
        "people": len(keypoints),
        "model": finder.name,
        "template": finder.model.template,
        "flip": flip,
        "weights": Path(finder.source).name,
        "versions": {"structloss": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    if seen.names:
        meta["images"] = seen.names
    notes = tuple(getattr(people, "notes", ()))
    return FoundJoints(name, keypoints, np.ones(keypoints.shape[:2], np.float32), float(rate), meta, notes)


def _found_in(model: images.ShapeTemplateNet, frame: Tensor, flip: bool) -> Tensor:
    """Joints in pixels of frames `[B, 3, S, S]`, `[B, 15, 2]`."""
    joints = model(frame).joints
    if not flip:
        return joints
    other = model(frame.flip(-1)).joints[:, list(JOINT_MIRROR)]
    return (joints + torch.stack([frame.shape[-1] - 1 - other[..., 0], other[..., 1]], dim=-1)) / 2
