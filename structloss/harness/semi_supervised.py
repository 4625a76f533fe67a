"""Semi-supervised training: a second network for the root's trajectory, and losses that need no 3D poses.

Source: Pavllo, Feichtenhofer, Grangier, Auli, "3D human pose estimation in video with temporal convolutions and
semi-supervised training", CVPR 2019.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchmetrics import MeanMetric

from .. import backbones
from ..backbones import Supervision
from ..backbones.diffusion import project
from ..backbones.videopose3d import VideoPose3D
from ..data import flip
from ..data.windows import PoseWindows
from ..errors import ArgumentError, CheckpointError
from ..metrics.evaluation import Evaluation
from ..skeletons import Skeleton
from .learned_training import Trainee
from .loss_nets import training_data
from .screen_cameras import cameras_of
from .unlabelled import UnlabelledWindows

__all__ = [
    "SemiSupervised",
    "SemiSupervisedSettings",
    "TrajectoryError",
    "bone_length_loss",
    "reprojection_loss",
    "start_trajectory",
    "trajectory_loss",
    "trajectory_network",
]


def trajectory_loss(predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Distance of the predicted root to the true one, divided by the true depth: what is far away may be less exact.

    Args:
        predicted: `[B, T, 3]`, the root in the camera's frame.
        target: `[B, T, 3]` likewise, in the same unit.
        weight: `[B, T]` of the frames, or None.

    Returns:
        A scalar, the weighted mean over frames; without a unit.
    """
    distance = (predicted - target).norm(dim=-1) / target[..., 2]
    if weight is None:
        return distance.mean()
    return (weight * distance).sum() / weight.sum().clamp(min=1e-12)


def reprojection_loss(points: Tensor, keypoints: Tensor, camera: Tensor) -> Tensor:
    """Mean distance of projected joints to the keypoints that the network was shown.

    Args:
        points: `[B, T, J, 3]`, joints in the camera's frame.
        keypoints: `[B, T, J, 2]`, in the unit of the camera's focal length: the normalised screen.
        camera: `[B, 9]`, with lens distortion, see :func:`structloss.backbones.diffusion.project`.

    Returns:
        A scalar, in the unit of the keypoints.
    """
    return (project(points, camera) - keypoints).norm(dim=-1).mean()


def bone_length_loss(labelled: Tensor, unlabelled: Tensor, skeleton: Skeleton) -> Tensor:
    """How far the mean bone lengths of unlabelled people are from those of labelled ones.

    Args:
        labelled, unlabelled: `[B, T, J, 3]`, predicted poses; the batches may differ in size.
        skeleton: of both.

    Returns:
        A scalar: the mean over bones of the absolute difference of the lengths' means over batch and frames.
    """
    means = [_bone_lengths(poses, skeleton).mean(dim=(0, 1)) for poses in (labelled, unlabelled)]
    return (means[0] - means[1]).abs().mean()


def _bone_lengths(poses: Tensor, skeleton: Skeleton) -> Tensor:
    one, other = (list(joints) for joints in zip(*skeleton.bones, strict=True))
    return (poses[..., one, :] - poses[..., other, :]).norm(dim=-1)


@dataclass(frozen=True)
class SemiSupervisedSettings:
    """How to train on clips without 3D poses.

    Attributes:
        warmup: epochs of labelled clips alone, at first.
        trajectory: factor of :func:`trajectory_loss`.
        reprojection: factor of :func:`reprojection_loss`.
        bone_length: factor of :func:`bone_length_loss`.

    Raises:
        ArgumentError: a negative one.
    """

    warmup: int = 1
    trajectory: float = 1.0
    reprojection: float = 1.0
    bone_length: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            number = isinstance(value, int if name == "warmup" else (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                kind = "a whole number" if name == "warmup" else "a number"
                raise ArgumentError(f"semi_supervised.{name} is {value!r}, expected {kind} of at least 0.")

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> SemiSupervisedSettings | None:
        """From the module's argument; None without any."""
        if given is None:
            return None
        for name in given:
            if name not in cls.__dataclass_fields__:
                known = ", ".join(cls.__dataclass_fields__)
                raise ArgumentError(f"semi_supervised has {name!r}, expected some of {known}.")
        return cls(**given)


def trajectory_network(pose: torch.nn.Module, backbone: str, arguments: Mapping[str, Any] | None) -> VideoPose3D:
    """The network of the same architecture that predicts where the root is in the camera's frame, metres.

    Args:
        pose: the network of the poses.
        backbone: its name.
        arguments: its constructor arguments instead of the variant's.

    Raises:
        ArgumentError: it is no VideoPose3D.
    """
    if not isinstance(pose, VideoPose3D):
        raise ArgumentError(f"semi_supervised is set, expected None for {backbone}: it is VideoPose3D's training.")
    return cast(VideoPose3D, backbones.create(backbone, **{**(arguments or {}), "joints_out": 1}))


def start_trajectory(network: VideoPose3D, path: str) -> None:
    """Start from a published file's `model_traj`, or from a run's checkpoint; warn where there is no such network."""
    try:
        backbones.load_published(network, path)
    except CheckpointError:
        warnings.warn(f"{path} has no trajectory network, it starts anew.", stacklevel=2)


class Lifting(Trainee, Protocol):
    """What semi-supervised training needs of the module whose network it trains; of its `hparams` "seed" and
    "flip_test"."""

    @property
    def trajectory(self) -> VideoPose3D | None: ...

    @property
    def skeleton(self) -> Skeleton: ...

    @property
    def evaluation(self) -> Evaluation | None: ...

    @property
    def current_epoch(self) -> int: ...

    @property
    def global_rank(self) -> int: ...


class SemiSupervised:
    """What a lifting module does besides in semi-supervised training; it has no state of its own.

    A step's batch is the labelled one and, after the warm-up, as many windows of the unlabelled subjects. Both go
    through both networks at once, so batch statistics are of all of them.

    Args:
        settings: factors and warm-up.
    """

    def __init__(self, settings: SemiSupervisedSettings) -> None:
        self.settings = settings
        self._unlabelled: UnlabelledWindows | None = None
        self._cameras: dict[tuple[int, int], tuple[float, ...]] = {}

    def begin(self, module: Lifting) -> None:
        """Find the unlabelled windows and their cameras.

        Raises:
            ArgumentError: there are none, or a camera is not known.
        """
        windows = training_data(module.trainer).unlabelled_dataset
        if windows is None:
            raise ArgumentError(
                "unlabelled_subjects is None, expected training subjects whose 3D poses semi_supervised does without."
            )
        self._unlabelled, self._cameras = UnlabelledWindows(windows), cameras_of(windows)
        if not np.isfinite(list(self._cameras.values())).all():
            given = "unlabelled" if training_data(module.trainer).unlabelled else "unlabelled_subjects"
            raise ArgumentError(
                f"{given} has {windows.store.subjects[0]!r}, whose cameras are not all known, expected "
                "cameras to project poses with."
            )

    def step(
        self, module: Lifting, batch: dict[str, Tensor], batch_idx: int
    ) -> tuple[list[Supervision], Tensor, dict[str, Tensor]]:
        """The forward pass of both networks.

        Returns:
            What the module's objective compares, the further loss, and its terms for the log.
        """
        chosen, size = self.settings, len(batch["input"])
        unlabelled = self._draw(module, batch_idx, size) if module.current_epoch >= chosen.warmup else None
        x = batch["input"] if unlabelled is None else torch.cat([batch["input"], unlabelled["input"]])
        assert module.trajectory is not None  # made with this object
        poses, places = _single(module.model(x)), _single(module.trajectory(x))
        seen = module.matched(batch)
        root, known = true_root(batch, module)
        terms = {"trajectory": trajectory_loss(places[:size, :, 0], root, known)}
        total = chosen.trajectory * terms["trajectory"]
        if unlabelled is not None:
            scene = poses[size:] + places[size:]
            keypoints = module.model.match(unlabelled["input"])[..., :2]
            terms["reprojection"] = reprojection_loss(scene, keypoints, unlabelled["camera"])
            terms["bone_length"] = bone_length_loss(poses[:size], poses[size:], module.skeleton)
            total = total + chosen.reprojection * terms["reprojection"] + chosen.bone_length * terms["bone_length"]
        return [Supervision(poses[:size], seen["target"], seen["weight"])], total, terms

    def _draw(self, module: Lifting, batch_idx: int, size: int) -> dict[str, Tensor]:
        """Input and cameras of the unlabelled windows of a step."""
        assert self._unlabelled is not None
        found = self._unlabelled.draw(module, batch_idx, size)
        numbers = zip(found["clip"].tolist(), found["view"].tolist(), strict=True)
        camera = torch.tensor([self._cameras[number] for number in numbers])
        camera[mirrored(found["index"], self._unlabelled.windows)] *= _MIRROR
        return {"input": found["input"].to(module.device), "camera": camera.to(module.device)}


def _single(out: Tensor) -> Tensor:
    """In float32 at least: at a few metres, half types tell millimetres no longer apart."""
    return out.to(torch.promote_types(out.dtype, torch.float32))


#: what mirroring does to a camera: its centre and its tangential distortion change sides in x
_MIRROR = torch.tensor([1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0])


def mirrored(index: Tensor, windows: PoseWindows) -> Tensor:
    """Which samples are mirror images, bool of the shape of `index`."""
    return index >= len(windows) // 2 if windows.mirrored else torch.zeros_like(index, dtype=torch.bool)


def true_root(batch: dict[str, Tensor], module: Lifting) -> tuple[Tensor, Tensor]:
    """The root in the camera's frame `[B, T', 3]`, metres, as the network sees it, and weights `[B, T']` of frames,
    those that the network predicts."""
    seen, pelvis = module.matched(batch), list(module.skeleton.pelvis)
    root = seen["camera_pose"][..., pelvis, :].mean(-2) / 1000
    if module.trainer.training:  # otherwise nothing is mirrored
        side = mirrored(batch["index"], training_data(module.trainer).train_dataset)
        root = torch.stack([torch.where(side[:, None], -root[..., 0], root[..., 0]), root[..., 1], root[..., 2]], -1)
    return root, (seen["weight"][..., pelvis] > 0).all(-1).to(root.dtype)


@torch.no_grad()
def root_errors(module: Lifting, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Distance of the predicted root to the true one, mm, and weight, `[B, T']` of the frames that are predicted."""
    assert module.trajectory is not None
    place = module.trajectory(batch["input"])[..., 0, :]
    if module.hparams["flip_test"]:
        back = module.trajectory(flip(batch["input"], module.skeleton))[..., 0, :]
        place = (place + back * back.new_tensor([-1.0, 1.0, 1.0])) / 2
    root, known = true_root(batch, module)
    return 1000 * (place - root).norm(dim=-1), known


class TrajectoryError(Callback):
    """Adds the error of the trajectory network to what validation and test find: the mean distance of the predicted
    root to the true one, mm, over all frames that are scored."""

    def __init__(self) -> None:
        self.error = MeanMetric()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.error = MeanMetric().to(pl_module.device)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: dict[str, Tensor], *_: Any
    ) -> None:
        error, known = root_errors(cast(Lifting, pl_module), batch)
        if frames := int(known.sum()):
            mean = (error * known).sum() / frames
            pl_module.log("val/trajectory", mean, on_step=False, on_epoch=True, batch_size=frames, sync_dist=True)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: dict[str, Tensor], *_: Any
    ) -> None:
        self.error.update(*root_errors(cast(Lifting, pl_module), batch))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("test/trajectory", self.error.compute())

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module = cast(Lifting, pl_module)
        if module.evaluation is not None:
            module.evaluation.metrics["trajectory"] = float(self.error.compute())
