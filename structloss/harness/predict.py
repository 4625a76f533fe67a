"""From 2D keypoints of a video to 3D poses: a trained network, and what its numbers mean to somebody who has no camera
calibration.

A network trained on "camera" targets answers in metres. One trained in image space ("global", "root_relative") answers
in units of the screen, whose size in metres depends on the camera's focal length and the person's distance, which a
video does not tell. Its poses are scaled so that the limbs have together their canonical length, frame by frame with
the scale smoothed over a second, without the frames whose size has nothing to do with those around it: proportions and
directions are the network's, the height is nominal.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__, backbones, skeletons
from ..backbones import Backbone
from ..data.cameras import normalize_screen
from ..data.formats.keypoints import Keypoints
from ..data.image_space import TARGETS
from ..errors import ArgumentError, CheckpointError, check_choice, needs_extra
from ..files import write_bytes
from ..progress import track

__all__ = [
    "DEFAULT",
    "Lifter",
    "Prediction",
    "lifting_call",
    "limb_lengths",
    "load_lifter",
    "network_input",
    "predict",
    "published_target",
]

DEFAULT = "lift-27"
"""The backbone that predicts where none is named."""

_INTERPOLATED = 0.3  # confidence of interpolated frames, where a network does not look at those without any
_ODD = 2  # times as large or as small as in the seconds around is nobody who moves


@dataclass(frozen=True)
class Lifter:
    """A trained network and what one must know to use it.

    Attributes:
        model: in evaluation mode.
        name: of the backbone.
        target: the space it answers in, one of :data:`~structloss.data.image_space.TARGETS`.
        skeleton: joint order of input and output.
        flip: average with the mirrored input unless asked otherwise.
        source: the file of its weights.
    """

    model: Backbone
    name: str
    target: str
    skeleton: str
    flip: bool
    source: str


@dataclass(frozen=True)
class Prediction:
    """3D poses of one person.

    Attributes:
        name: of the track.
        positions: float32 `[T, J, 3]`: x right, y down, z forward (camera frame) relative to the pelvis, metres.
        keypoints: float32 `[T, J, 2]`: the 2D joints that the network saw, pixels.
        confidence: float32 `[T, J]`.
        skeleton: joint order of all of them.
        fps: frames per second.
        width, height: of the image, pixels.
        scale: float32 `[T]`, metres per unit of the network's answer: 1 for "camera" targets, nominal for others.
        meta: what else is written to files: model, units, versions, gaps.
        notes: what the user should know, a sentence each.
    """

    name: str
    positions: np.ndarray
    keypoints: np.ndarray
    confidence: np.ndarray
    skeleton: str
    fps: float
    width: int
    height: int
    scale: np.ndarray
    meta: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write an npz with `positions`, `keypoints`, `confidence`, `scale`, and `meta` as a JSON string; the file
        appears complete or not at all. `read_keypoints` takes it as 2D input."""
        buffer = io.BytesIO()
        arrays = {key: getattr(self, key) for key in ("positions", "keypoints", "confidence", "scale")}
        np.savez_compressed(buffer, meta=np.array(json.dumps(self.meta)), **arrays)
        return write_bytes(path, buffer.getvalue())


def load_lifter(
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    backbone: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    target: str | None = None,
) -> Lifter:
    """A trained network, from a training checkpoint or from published weights. Nothing in either is executed.

    Args:
        checkpoint: a file written by `structloss fit`; it knows its backbone, skeleton and target.
        backbone: name of a backbone, for `weights`.
        weights: published checkpoint or .safetensors file.
        target: the space that the network answers in; None is the checkpoint's, or for `weights` the one of the
            backbone's recipe, "camera" where it has none.

    Without any of them it is :data:`DEFAULT`, and with `backbone` alone that backbone, with the weights that come with
    the package.

    Raises:
        ArgumentError: both of `checkpoint` and `backbone` or `weights`; a backbone that no weights come with, without
            `weights`; a network that predicts no poses or whose joints have no known skeleton; an unknown target.
        UnknownNameError: an unknown backbone.
        MissingFileError, CheckpointError: the file is absent, unreadable, or of another network.
        MissingDependencyError: `checkpoint` without the `harness` extra.
    """
    if (checkpoint is not None and backbone is not None) or (weights is not None and backbone is None):
        raise ArgumentError("expected either a training checkpoint, or a backbone's name and its published weights.")
    if target is not None:
        check_choice("target", target, TARGETS)
    if checkpoint is not None:
        found = _from_checkpoint(Path(checkpoint))
    else:
        info = backbones.info(backbone or DEFAULT)
        weights = backbones.pretrained_file(info.name) if weights is None else weights
        model = backbones.create(info.name)
        backbones.load_published(model, weights)
        found = Lifter(model, info.name, published_target(info.recipe), info.skeleton, True, str(weights))
    if found.model.kind not in ("sequence", "centre", "frame"):
        raise ArgumentError(f"{found.name} is of kind {found.model.kind!r}, expected a network that predicts poses.")
    if not found.skeleton:
        raise ArgumentError(f"{found.name} has joints of no registered skeleton, expected one of {skeletons.names()}.")
    found.model.eval()
    return replace(found, target=target or found.target)


def published_target(recipe: str) -> str:
    """The target of the recipe that reproduces the published training; "camera" where there is none."""
    from .recipe_files import recipe_names, recipe_path

    if recipe not in recipe_names():
        return "camera"
    found = re.search(r"^  target: (\w+)$", recipe_path(recipe).read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else "global"  # the default of the data module


def _from_checkpoint(path: Path) -> Lifter:
    with needs_extra("harness"):
        from .load import load_trained

    module, _ = load_trained(path)
    trained = module.hparams
    name, target, skeleton = trained["backbone"], trained["target"], trained["skeleton"]
    return Lifter(module.model, name, target, skeleton, trained["flip_test"], str(path))


def predict(
    lifter: Lifter,
    keypoints: Keypoints,
    *,
    variant: str | None = None,
    flip: bool | None = None,
    fps: float | None = None,
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Prediction:
    """Lift one person's keypoints, of any length and any layout, to 3D.

    Args:
        lifter: see :func:`load_lifter`; its model is moved to the device.
        keypoints: see :func:`~structloss.data.formats.read_keypoints`; with the image's width and height.
        variant: how joints that the detector lacks are made, "motionbert" or "demo": the one that the network was
            trained with; None is the layout's default.
        flip: average with the mirrored input; None is what the lifter says.
        fps: frames per second; None is the keypoints', or 30.
        batch_size: windows of one call.
        device: where to compute.
        progress: show a progress bar on a terminal.

    Returns:
        Poses of every frame, relative to the pelvis.

    Raises:
        ArgumentError: no image size, coordinates that are no pixels, an image size that all of them lie outside of, a
            layout without a way to the network's joints, or a variant that it does not have.
    """
    if keypoints.width is None or keypoints.height is None:
        raise ArgumentError(f"{keypoints.name} doesn't say how large its images are, expected image_size, in pixels.")
    if np.abs(keypoints.keypoints).max() <= 2:
        raise ArgumentError(
            f"keypoints of {keypoints.name} lie within -2 to 2, expected pixels of an image of {keypoints.width} x "
            f"{keypoints.height}; are they normalised already?"
        )
    seen = keypoints.in_skeleton(lifter.skeleton, variant)
    notes = _notes(keypoints, seen)
    rate = fps or keypoints.fps
    if rate is None:
        rate = 30.0
        notes.append("the frame rate is not known, 30 frames per second are assumed; set fps")
    raw = _lift(lifter, seen, lifter.flip if flip is None else flip, batch_size, torch.device(device), progress)
    body = skeletons.get(lifter.skeleton)
    raw -= raw[:, list(body.pelvis)].mean(axis=1, keepdims=True)
    scale, said = _scale(raw, body, lifter.target, rate)
    notes += said
    positions = (raw * scale[:, None, None]).astype(np.float32)
    nominal = lifter.target != "camera"
    meta = {
        "name": keypoints.name,
        "skeleton": lifter.skeleton,
        "joint_names": list(body.joint_names),
        "units": "metre",
        "frame": "camera: x right, y down, z forward; relative to the pelvis",
        "size": "nominal: limbs of canonical length, see scale" if nominal else "as predicted",
        "fps": rate,
        "width": keypoints.width,
        "height": keypoints.height,
        "first_frame": keypoints.start,
        "gaps": [list(gap) for gap in keypoints.gaps],
        "input_layout": keypoints.skeleton,
        "input_variant": variant or "default",
        "model": lifter.name,
        "target": lifter.target,
        "weights": Path(lifter.source).name,
        "flip": bool(lifter.flip if flip is None else flip),
        "versions": {"structloss": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    return Prediction(
        keypoints.name, positions, seen.keypoints, seen.confidence, lifter.skeleton, rate, keypoints.width,
        keypoints.height, scale.astype(np.float32), meta, tuple(notes),
    )  # fmt: skip


def _notes(keypoints: Keypoints, seen: Keypoints) -> list[str]:
    """What is odd about the input."""
    notes = list(keypoints.notes)
    lost = [end - first for first, end in keypoints.gaps]
    if lost:
        notes.append(
            f"the person is missing in {sum(lost)} of {len(keypoints)} frames, up to {max(lost)} in a row; they are "
            "interpolated with confidence 0"
        )
    x, y = seen.keypoints[seen.confidence > 0].T
    share = float(np.mean((x < 0) | (x > keypoints.width) | (y < 0) | (y > keypoints.height))) if len(x) else 0.0
    if share == 1:
        raise ArgumentError(
            f"all keypoints of {keypoints.name} lie outside of the image of {keypoints.width} x {keypoints.height} "
            f"pixels, x from {x.min():.0f} to {x.max():.0f}, y from {y.min():.0f} to {y.max():.0f}, expected the "
            "image_size of the video."
        )
    if share > 0.2:
        notes.append(
            f"{share:.0%} of the keypoints lie outside of the image of {keypoints.width} x {keypoints.height} pixels; "
            "is its size right?"
        )
    return notes


def _lift(
    lifter: Lifter, seen: Keypoints, flip: bool, batch_size: int, device: torch.device, progress: bool
) -> np.ndarray:
    """The network's answers `[T, J, 3]`, float64."""
    assert seen.width is not None and seen.height is not None  # checked by `predict`
    inputs = network_input(lifter, seen.keypoints, seen.confidence, seen.width, seen.height)
    lift = lifting_call(lifter, device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # diffusion models start from noise: the same video gives the same poses
        pieces = backbones.predict_stream(
            lifter.model, torch.from_numpy(inputs).float().to(device), flip=flip, skeleton=lifter.skeleton,
            batch_size=batch_size, lift=lift, track=lambda batches: track(batches, "Lifting to 3D", progress),
        )  # fmt: skip
        out = np.concatenate([piece.cpu().numpy() for piece in pieces]).astype(np.float64)
    if not np.isfinite(out).all():
        raise CheckpointError(f"{lifter.name} with {lifter.source} predicts NaN or infinite values, expected poses.")
    return out


def network_input(lifter: Lifter, keypoints: np.ndarray, confidence: np.ndarray, width: int, height: int) -> np.ndarray:
    """What a network takes, `[T, J, 3]`, of pixels `[T, J, 2]` and confidences `[T, J]` in its joints."""
    screen = normalize_screen(keypoints, width, height)
    if lifter.model.skips_missing:
        # In a frame without anybody there is nothing else to look at than what was interpolated.
        nobody = (confidence == 0).all(axis=1, keepdims=True)
        confidence = np.where(nobody, np.float32(_INTERPOLATED), confidence)
    return np.concatenate([screen, confidence[..., None]], axis=-1)


def lifting_call(lifter: Lifter, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """A network on a device, from `[B, T, J, C]` to poses `[B, T_out, J, 3]` of all joints of its skeleton."""
    model = lifter.model.to(device)
    joints = skeletons.get(lifter.skeleton).num_joints

    def lift(clips: torch.Tensor) -> torch.Tensor:
        poses = model(clips)
        if poses.shape[-2] == joints - 1 and lifter.skeleton == "h36m":
            # SemGCN and its relatives leave out the neck; it is put halfway between thorax and head.
            neck = poses[..., 8:10, :].mean(-2, keepdim=True)
            poses = torch.cat([poses[..., :9, :], neck, poses[..., 9:, :]], dim=-2)
        return poses

    return lift


def _scale(raw: np.ndarray, body: skeletons.Skeleton, target: str, fps: float) -> tuple[np.ndarray, list[str]]:
    """Metres per unit of the answer `[T]`, and what to say about it."""
    lengths, canonical = limb_lengths(raw, body)
    if target == "camera":
        times = float(np.median(lengths)) / canonical
        factor = 1e-3 if times > 100 else 1.0  # some published networks answer in millimetres
        if 0.5 < times * factor < 2:
            return np.full(len(raw), factor), []
        note = f"limbs come out {times * factor:.2g} times as long as a person's; are these weights of this target?"
        return np.full(len(raw), factor), [note]
    logs = np.log(canonical / np.maximum(lengths, 1e-9))
    odd = _outliers(logs, fps)
    notes = []
    if odd.any():
        frames, good = np.flatnonzero(odd), np.flatnonzero(~odd)
        logs[frames] = np.interp(frames, good, logs[good])
        where = f"{len(frames)} frames, the first is {frames[0]}," if len(frames) > 1 else f"frame {frames[0]}"
        notes.append(
            f"in {where} the person is more than {_ODD} times as large or as small as in those around, whose scale is "
            "taken; is it a bad detection?"
        )
    notes.append("the network answers in image space: the size is nominal, from limbs of canonical length")
    return np.exp(_smoothed(logs, fps)), notes


def limb_lengths(raw: np.ndarray, body: skeletons.Skeleton) -> tuple[np.ndarray, float]:
    """How long the limbs of poses `[T, J, 3]` are together, `[T]` in the poses' unit; and a person's, in metres."""
    bones = np.array([bone for _, group in body.bone_groups for bone in group])
    canonical = sum(map(sum, body.bone_group_lengths)) / 1000
    return np.linalg.norm(raw[:, bones[:, 0]] - raw[:, bones[:, 1]], axis=-1).sum(axis=1), canonical


def _outliers(logs: np.ndarray, fps: float) -> np.ndarray:
    """Frames `[T]` whose logarithm of the scale is far from the median of the two seconds around."""
    reach = max(1, min(round(fps), (len(logs) - 1) // 2))
    around = np.pad(logs, reach, mode="reflect") if len(logs) > 2 else logs[[0] * (2 * reach + len(logs))]
    middle = np.median(np.lib.stride_tricks.sliding_window_view(around, 2 * reach + 1), axis=-1)
    odd = np.abs(logs - middle) > np.log(_ODD)
    return odd if not odd.all() else np.zeros_like(odd)


def _smoothed(values: np.ndarray, fps: float) -> np.ndarray:
    """A straight line through the second around each frame: somebody who walks to the camera has a scale that changes
    by about the same factor in every frame, whose logarithm is a line, also in the first and the last second."""
    width = max(1, (min(len(values), round(fps)) + 1) // 2 * 2 - 1)

    def total(x: np.ndarray) -> np.ndarray:
        return np.convolve(x, np.ones(width), "same")

    t = np.arange(len(values), dtype=np.float64)
    count, middle, mean = total(np.ones_like(t)), total(t), total(values)
    spread = total(t * t) - middle**2 / count
    slope = (total(t * values) - middle * mean / count) / np.maximum(spread, 1e-9)
    return (mean + slope * (t * count - middle)) / count
