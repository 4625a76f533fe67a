"""Training on 2D alone beside labelled clips: depth is learned on one half of a batch, anatomy holds it on the other.

Source: Dabral, Mundhada, Kusupati, Afaque, Sharma, Jain, "Learning 3D human pose from structure and motion", ECCV 2018,
whose SAP-Net trains so on images. That any lifting network does, is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import nn as losses
from ..backbones import Supervision
from ..data.augment import chance
from ..errors import ArgumentError
from ..skeletons import Skeleton, flip
from .learned_training import Trainee
from .loss_nets import training_data
from .unlabelled import InTraining, UnlabelledWindows

__all__ = ["STRUCTURE_TERMS", "StructureAware", "StructureAwareSettings", "structure_poses"]

STRUCTURE_TERMS = ("illegal_angle", "bone_symmetry", "bone_ratio")


@dataclass(frozen=True)
class StructureAwareSettings:
    """What `structure_aware` of the lifting module may hold.

    Attributes:
        illegal_angle, bone_symmetry, bone_ratio: λ_a, λ_s and λ_g of the structure-aware loss, as published; 0 leaves
            a term out. They belong to poses in which a person is about two units tall, see `scale`.
        warmup: epochs of labelled clips alone, at first. The paper calls a warm start essential.
        scale: factor of the poses before the loss. In image space a person is as tall as he is wide a part of the
            screen: about 0.8 units in Human3.6M's videos, where 2.5 makes them as large as in the paper's crops. Metres
            ("camera" targets) are of that order.
        options: term -> keywords of its own function, such as {illegal_angle: {normalize_bones: true}}.

    Raises:
        ArgumentError: a negative one, no term with a weight, or options of no term.
    """

    illegal_angle: float = 0.03
    bone_symmetry: float = 0.05
    bone_ratio: float = 0.03
    warmup: int = 1
    scale: float = 1.0
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("warmup", "scale", *STRUCTURE_TERMS):
            value = getattr(self, name)
            number = isinstance(value, int if name == "warmup" else (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf or (name == "scale" and value == 0):
                kind = "a whole number" if name == "warmup" else "a number"
                least = "above 0" if name == "scale" else "of at least 0"
                raise ArgumentError(f"structure_aware.{name} is {value!r}, expected {kind} {least}.")
        if not self.weights:
            raise ArgumentError(
                f"structure_aware has no term with a weight, expected one above 0 of {', '.join(STRUCTURE_TERMS)}."
            )
        for name, given in self.options.items():
            if name not in self.weights or not isinstance(given, Mapping):
                raise ArgumentError(
                    f"structure_aware.options has {name!r}, expected options of {', '.join(self.weights)}."
                )

    @property
    def weights(self) -> dict[str, float]:
        """Term -> λ, of those that have one."""
        return {name: float(getattr(self, name)) for name in STRUCTURE_TERMS if getattr(self, name)}

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> StructureAwareSettings | None:
        """From the module's argument; None without any."""
        if given is None:
            return None
        for name in given:
            if name not in cls.__dataclass_fields__:
                known = ", ".join(cls.__dataclass_fields__)
                raise ArgumentError(f"structure_aware has {name!r}, expected some of {known}.")
        return cls(**given)


def structure_poses(prediction: Tensor, keypoints: Tensor, target: str) -> Tensor:
    """The poses that the structure-aware loss judges.

    In image space, x and y are those that the network was shown, as in the paper, and only the predicted depth gets a
    gradient: both are in units of the normalised screen. A "camera" target is in metres, and how many a unit of the
    screen is depends on a camera and a distance that 2D alone does not tell; there the whole predicted pose is judged,
    which the losses are meaningful for as well.

    Args:
        prediction: `[..., T, J, 3]`, in the space of the target.
        keypoints: `[..., T, J, 2 or 3]`, x and y on the normalised screen.
        target: one of :data:`structloss.data.TARGETS`.

    Returns:
        `[..., T, J, 3]`, float32 at least.
    """
    prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
    if target == "camera":
        return prediction
    return torch.cat([keypoints[..., :2].detach().to(prediction.dtype), prediction[..., 2:]], dim=-1)


class Lifting(Trainee, InTraining, Protocol):
    """What training with 2D alone needs of the module; of its `hparams` "seed", "target" and "flip_probability"."""


class StructureAware:
    """What a lifting module does besides where half of every batch is unlabelled; it has no state of its own.

    A step's batch is the labelled one and, after the warm-up, as many unlabelled windows. Both go through the network
    at once, so batch statistics are of all of them; a network that is trained on noisy poses (D3DP) lifts the
    unlabelled ones from noise alone, as it does when it is tested. Labelled predictions are compared by the module's
    objective, unlabelled ones judged by the structure-aware loss, in which joints weigh 1 where they were seen (a
    confidence above 0) in frames of the clip, and 0 elsewhere.

    Args:
        settings: weights and warm-up.
        skeleton: of input and output.
        joints: numbers of the joints that the network predicts, where it takes all of the skeleton's.

    Raises:
        ArgumentError, UnknownNameError: options that a term does not have.
    """

    def __init__(self, settings: StructureAwareSettings, skeleton: Skeleton, joints: Sequence[int]) -> None:
        self.settings, self.skeleton, self.joints = settings, skeleton, list(joints)
        self.loss = losses.Objective(settings.weights, skeleton=skeleton.name, options=settings.options)
        self._unlabelled: UnlabelledWindows | None = None

    def begin(self, module: Lifting) -> None:
        """Find the unlabelled windows.

        Raises:
            ArgumentError: there are none.
        """
        windows = training_data(module.trainer).unlabelled_dataset
        if windows is None:
            raise ArgumentError(
                "unlabelled is None, expected 2D keypoints, or unlabelled_subjects, that structure_aware trains on."
            )
        self._unlabelled = UnlabelledWindows(windows)

    def step(
        self, module: Lifting, batch: dict[str, Tensor], batch_idx: int
    ) -> tuple[list[Supervision], Tensor | None, dict[str, Tensor]]:
        """The forward pass.

        Returns:
            What the module's objective compares, the structure-aware loss (None in the warm-up), and its terms without
            their λ for the log.
        """
        x, target, weight = batch["input"], batch["target"], batch["weight"]
        if module.current_epoch < self.settings.warmup:
            return module.model.supervise(x, target, weight), None, {}
        size = len(x)
        seen, visible = self.draw(module, batch_idx, size)
        if module.model.samples:
            pairs, prediction = module.model.supervise(x, target, weight), module.model(seen)
        else:
            # Targets of the unlabelled half are never looked at: every prediction is cut before it is compared.
            both = (torch.cat([x, seen]), torch.cat([target, target]), torch.cat([weight, weight]))
            every = module.model.supervise(*both)
            prediction = next(one.prediction for one in reversed(every) if one.pose)[size:]
            pairs = [_first(one, size) for one in every]
        total, terms = self.of(module, prediction, seen, visible)
        return pairs, total, {f"structure_{name}": value for name, value in terms.items()}

    def of(
        self, module: Lifting, prediction: Tensor, seen: Tensor, visible: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The structure-aware loss of a prediction, and its terms without their λ.

        Args:
            module: whose it is.
            prediction: `[B, T', J', 3]`, those frames and joints that the network predicts.
            seen: `[B, T, J, C]`, its input.
            visible: `[B, T, J]`, weights of its joints.
        """
        weight = module.model.match(visible)
        poses = structure_poses(prediction, module.model.match(seen), module.hparams["target"]) * self.settings.scale
        if len(self.joints) < self.skeleton.num_joints:  # the others weigh nothing
            every = poses.new_zeros(*poses.shape[:-2], self.skeleton.num_joints, 3)
            poses = every.index_copy(-2, torch.tensor(self.joints, device=poses.device), poses)
            weight = torch.zeros_like(every[..., 0]).index_copy(
                -1, torch.tensor(self.joints, device=poses.device), weight.to(poses.dtype)
            )
        return self.loss(poses, None, weight.to(poses.dtype))

    def draw(self, module: Lifting, batch_idx: int, size: int) -> tuple[Tensor, Tensor]:
        """Input `[B, T, J, 3]` of the unlabelled windows of a step, mirrored as the labelled ones are, and the weights
        `[B, T, J]` of its joints, 1 or 0."""
        assert self._unlabelled is not None
        found = self._unlabelled.draw(module, batch_idx, size)
        seen, index = found["input"], found["index"]
        if share := module.hparams["flip_probability"]:
            side = chance(module.hparams["seed"], module.current_epoch, index) < share
            seen = torch.where(side[:, None, None, None], flip(seen, self.skeleton), seen)
        own = self._unlabelled.windows.within(index.tolist())
        visible = ((seen[..., 2] > 0) & own[..., None]).to(seen.dtype)
        return seen.to(module.device), visible.to(module.device)


def _first(one: Supervision, size: int) -> Supervision:
    """Of the first `size` clips."""
    weight = None if one.weight is None else one.weight[:size]
    return replace(one, prediction=one.prediction[:size], target=one.target[:size], weight=weight)
