"""The Lightning module that trains a network from images to poses, on 3D and on 2D annotations (SAP-Net)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from .. import images, nn
from ..errors import ArgumentError, check_choice
from ..images.heatmaps import heatmap_loss, heatmap_targets
from ..images.joints import to_h36m, to_image_units
from .callbacks import best_checkpoint
from .checkpoint_checks import check_finite, check_same_network, seed_step
from .image_prediction import found_in
from .image_scores import ImageScores, h36m_weights
from .optimizers import OptimizerSettings, averaging, check_ema
from .scores import Evaluation
from .structure_aware import STRUCTURE_TERMS

__all__ = ["TRAINS", "ImageModule", "depth_loss", "weak_poses", "weights_of_losses"]

TRAINS = ("all", "heatmaps")
"""- `"all"`: every weight.
- `"heatmaps"`: the hourglasses, without the depth module (stage 1)."""


def depth_loss(depth: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """Squared error of the depths, the mean over joints and labelled samples; 0 without any.

    Args:
        depth, target: `[B, 16]`, image units.
        labelled: bool `[B]`.

    Source: Dabral et al., ECCV 2018, section 4.1 (L_e); the means are ours.
    """
    error = (depth - target).square().mean(-1) * labelled
    return error.sum() / labelled.sum().clamp(min=1)


def weak_poses(depth: Tensor, joints: Tensor, annotated: Tensor, input_size: int) -> tuple[Tensor, Tensor]:
    """True x and y with predicted z, as the structure-aware loss takes samples without 3D poses.

    Args:
        depth: `[B, 16]`, predicted, image units.
        joints: `[B, 16, 2]`, pixels of the input.
        annotated: bool `[B, 16]`.
        input_size: sides of the input, pixels.

    Returns:
        Poses `[B, 1, 17, 3]` in the order of Human3.6M, image units (the input spans -1 to 1), a gradient to `depth`
        alone; and weights `[B, 1, 17]`, 0 where there is no annotation and for joints 7 and 9, which the network does
        not find.

    Source: Dabral et al., ECCV 2018, section 4.1: L_SA acts on predicted depths with ground-truth x, y.
    """
    plane = to_image_units(joints.to(depth.dtype), input_size)
    poses = to_h36m(torch.cat([plane, depth[..., None]], dim=-1))
    return poses[:, None], h36m_weights(annotated).to(depth.dtype)[:, None]


def weights_of_losses(model: Mapping[str, Any]) -> dict[str, float]:
    """Loss -> its weight, of the arguments of an :class:`ImageModule`; those that are absent have their defaults."""
    found = {"heatmaps": float(model.get("heatmap_weight", 1.0))}
    if model.get("trains") == "heatmaps":
        return found
    return found | {"depth": float(model.get("depth_weight", 0.1))} | dict(model.get("structure_aware") or {})


class ImageModule(L.LightningModule):
    """Train a network from images to poses.

    Batches are those of :class:`structloss.images.ImagesDataModule`. Heatmaps are learned from every sample, depths
    from those with a 3D pose, and the structure-aware loss acts on the others: on their true x, y and predicted z, in
    image units, in which the published weights are meant.

    Args:
        network: name in `structloss.images`.
        network_args: constructor arguments to use instead of the variant's.
        trains: one of :data:`TRAINS`.
        heatmap_weight: weight of the heatmaps' squared error (L_HM).
        depth_weight: weight of the depths' squared error (w_e).
        structure_aware: term of the structure-aware loss -> weight: `illegal_angle` (λ_a), `bone_symmetry` (λ_s),
            `bone_ratio` (λ_g); None for none.
        warmup_steps: optimizer steps before the structure-aware loss is added, for a training in one go: a warm start
            is essential (section 4.1).
        optimizer: "rmsprop", "adamw", "adam" or "amsgrad".
        lr: learning rate at the start (its peak under "one_cycle").
        weight_decay: on every parameter.
        schedule: as for :class:`~structloss.harness.lifting.LiftingModule`.
        lr_decay: likewise.
        drop_every: likewise.
        drop: likewise.
        ema: decay of an exponential moving average of the weights, which is what is validated and saved; None trains
            without.
        compile: run the network under torch.compile; checkpoints are the same.
        flip_test: average heatmaps and depths with those of the mirrored image in validation and test.
        seed: of what is random in training.
        init_from: checkpoint or .safetensors file to start from: the stage before, or a published state dict.

    Raises:
        UnknownNameError: an unknown network or term.
        ArgumentError: an impossible value.
        CheckpointError: `init_from` is unreadable or belongs to another network.

    Source: Dabral et al., "Learning 3D Human Pose from Structure and Motion", ECCV 2018, equations 1-3; the network and
    the heatmaps' loss of Zhou et al., ICCV 2017.
    """

    def __init__(
        self,
        network: str = "sapnet",
        network_args: dict[str, Any] | None = None,
        trains: str = "all",
        heatmap_weight: float = 1.0,
        depth_weight: float = 0.1,
        structure_aware: dict[str, float] | None = None,
        warmup_steps: int = 0,
        optimizer: str = "rmsprop",
        lr: float = 2.5e-4,
        weight_decay: float = 0.0,
        schedule: str = "exponential",
        lr_decay: float = 1.0,
        drop_every: int = 0,
        drop: float = 0.5,
        ema: float | None = None,
        compile: bool = False,
        flip_test: bool = False,
        seed: int = 0,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        check_choice("trains", trains, TRAINS)
        for name, value in (("heatmap_weight", heatmap_weight), ("depth_weight", depth_weight)):
            if not 0 <= value < math.inf:
                raise ArgumentError(f"{name} is {value}, expected a number of at least 0.")
        if warmup_steps < 0:
            raise ArgumentError(f"warmup_steps is {warmup_steps}, expected at least 0.")
        check_ema(ema)
        self.optimization = OptimizerSettings(optimizer, lr, weight_decay, schedule, lr_decay, drop_every, drop)
        self.save_hyperparameters()
        model = images.create(network, **(network_args or {}))
        if not isinstance(model, images.SAPNet):
            raise ArgumentError(f"network is {network!r}, expected one of SAP-Net: sapnet or sapnet-tiny.")
        self.model = model
        self.structure = _structure(structure_aware)
        if trains == "heatmaps":
            for parameter in self.model.depth_parameters():
                parameter.requires_grad_(False)
        if init_from is not None:
            images.load_published(self.model, init_from)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster on CPUs
        if compile:
            self.model.compile()  # in place: the names of the weights stay
        self.scores = ImageScores()
        #: what the last `test` came to
        self.evaluation: Evaluation | None = None

    def forward(self, image: Tensor) -> images.SAPOutput:
        """`[B, 3, S, S]` in 0 to 1 -> heatmaps `[stacks, B, 16, H, H]` and depths `[B, 16]` in image units."""
        return self.model(image)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        seed_step(self, batch_idx)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        if self.hparams["trains"] == "heatmaps":
            heatmaps = self.model.heatmaps(image)
            out = images.SAPOutput(heatmaps, torch.zeros_like(batch["depth"]))
        else:
            out = self.model(image)
        total, terms = self.losses(out, batch)
        size = len(batch["image"])
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=size, sync_dist=True)
        self.log_dict({f"train/{name}": value for name, value in terms.items()}, batch_size=size, sync_dist=True)
        return total

    def losses(self, out: images.SAPOutput, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its terms without their weights, detached."""
        found = self.hparams
        target = heatmap_targets(
            batch["joints"],
            batch["annotated"],
            input_size=self.model.input_size,
            heatmap_size=self.model.heatmap_size,
        )
        heatmaps = out.heatmaps.float()
        terms = {"heatmaps": heatmap_loss(heatmaps, target.to(heatmaps.dtype))}
        total = found["heatmap_weight"] * terms["heatmaps"]
        if found["trains"] == "heatmaps":
            return total, {name: value.detach() for name, value in terms.items()}
        depth, labelled = out.depth.float(), batch["has_depth"]
        terms["depth"] = depth_loss(depth, batch["depth"], labelled)
        total = total + found["depth_weight"] * terms["depth"]
        if self.structure is not None and self.global_step >= found["warmup_steps"]:
            few = ~labelled
            poses, weight = weak_poses(depth[few], batch["joints"][few], batch["annotated"][few], self.model.input_size)
            loss, parts = self.structure(poses, None, weight)
            total = total + loss
            terms |= {f"structure_{name}": value for name, value in parts.items()}
        return total, {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def found(self, image: Tensor) -> images.SAPOutput:
        """Heatmaps of the last stack alone, `[1, B, 16, H, H]`, and depths, with `flip_test` averaged with those of the
        mirrored image."""
        return found_in(self.model, image, self.hparams["flip_test"])

    def on_validation_start(self) -> None:
        self.scores = ImageScores(device=self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.scores.update(self.found(batch["image"]), batch, self.model.input_size)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": value for name, value in self.scores.means().items()})

    def on_test_start(self) -> None:
        data = getattr(self.trainer, "datamodule", None)
        self.scores = ImageScores(getattr(data, "actions", ()), self.device)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.scores.update(self.found(batch["image"]), batch, self.model.input_size)

    def on_test_epoch_end(self) -> None:
        self.evaluation = self.scores.evaluation()
        self.log_dict({f"test/{name}": value for name, value in self.scores.means().items()})

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Poses in mm relative to the pelvis, `[B, 16, 3]`."""
        out = self.found(batch["image"])
        return images.decode(out.heatmaps[-1], out.depth, unit="mm")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return self.optimization.build(self.model.parameters(), int(self.trainer.estimated_stepping_batches))

    def configure_callbacks(self) -> list[Callback]:
        found = averaging(self.hparams["ema"])
        if self.hparams["trains"] == "heatmaps":  # there are no depths to tell the best by
            found.append(best_checkpoint("val/joint_error_2d"))
        return found

    def setup(self, stage: str) -> None:
        size = getattr(getattr(self.trainer, "datamodule", None), "input_size", self.model.input_size)
        if size != self.model.input_size:
            raise ArgumentError(
                f"input_size is {size}, expected {self.model.input_size}, that of {self.hparams['network']}."
            )

    def on_fit_start(self) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if self.structure is not None and getattr(data, "batch", "") == "labelled":
            raise ArgumentError(
                "structure_aware is set, expected None with batches of labelled samples alone: it is for the others."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_finite(checkpoint, self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_same_network(checkpoint, self.hparams, ("network", "network_args"))


def _structure(weights: Mapping[str, float] | None) -> nn.Objective | None:
    """The structure-aware loss of poses in image units; None without any weight."""
    if not weights:
        return None
    for name in weights:
        if name not in STRUCTURE_TERMS:
            raise ArgumentError(f"structure_aware has {name!r}, expected some of {', '.join(STRUCTURE_TERMS)}.")
    return nn.Objective(dict(weights), skeleton="h36m") if any(weights.values()) else None
