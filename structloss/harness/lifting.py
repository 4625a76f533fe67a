"""The Lightning module that trains any backbone with any weighted subset of the losses."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from .. import backbones, skeletons
from .. import nn as losses
from ..data import flip, flip_batch, to_millimetres
from ..data.image_space import TARGETS
from ..errors import ArgumentError, CheckpointError, check_choice
from ..metrics import MPJPE, MPJVE, NMPJPE, PAMPJPE, DepthOrderAccuracy
from ..terms import check_term

__all__ = ["REPOSE_OBJECTIVE", "LiftingModule", "describe"]

SCHEDULES = ("exponential", "one_cycle")

#: RePOSE, Equation 4. The paper's lambdas are not published; 1 with mean reduction is our choice.
REPOSE_OBJECTIVE = {"mpjpe": 1.0, "depth_ranking_joints": 1.0, "depth_ranking_frames": 1.0}


class LiftingModule(L.LightningModule):
    """Train a 2D-to-3D lifting backbone.

    Batches are those of :class:`structloss.data.PoseWindows`. The loss acts on the backbone's output in normalised
    image space; metrics are in millimetres and root-relative (see :meth:`score` for the depth order).

    Args:
        backbone: name in `structloss.backbones`.
        backbone_args: constructor arguments to use instead of the variant's.
        objective: loss term -> lambda; None is RePOSE's MPJPE + L_S + L_T with all lambdas 1.
        target: "global" or "root_relative", as in the data module (the command line links the two).
        skeleton: name of the skeleton of input and output.
        lr: learning rate of AdamW (its peak under "one_cycle").
        weight_decay: of AdamW, on every parameter.
        schedule: "exponential" multiplies the rate by `lr_decay` after each epoch (MotionBERT, RePOSE); "one_cycle"
            rises over the first tenth of the steps and falls along a cosine.
        lr_decay: see `schedule`.
        flip_probability: share of training clips that are mirrored.
        flip_test: average the prediction with that of the mirrored input in validation and test.
        seed: of the mirroring; the same seed mirrors the same clips at the same step.
        init_from: official checkpoint or .safetensors file to start from.

    Raises:
        UnknownNameError: an unknown backbone, term or skeleton.
        ArgumentError: an impossible value.
        CheckpointError: `init_from` is unreadable or belongs to another model.
    """

    def __init__(
        self,
        backbone: str = "repose-tiny",
        backbone_args: dict[str, Any] | None = None,
        objective: dict[str, float] | None = None,
        target: str = "global",
        skeleton: str = "h36m",
        lr: float = 5e-4,
        weight_decay: float = 0.01,
        schedule: str = "exponential",
        lr_decay: float = 0.99,
        flip_probability: float = 0.5,
        flip_test: bool = True,
        seed: int = 0,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        check_choice("target", target, TARGETS)
        check_choice("schedule", schedule, SCHEDULES)
        if not 0 <= flip_probability <= 1:
            raise ArgumentError(f"flip_probability is {flip_probability}, expected a number from 0 to 1.")
        if not lr > 0:
            raise ArgumentError(f"lr is {lr}, expected a number > 0.")
        self.save_hyperparameters()
        self.skeleton = skeletons.get(skeleton)
        self.model = backbones.create(backbone, **(backbone_args or {}))
        if init_from is not None:
            backbones.load_published(self.model, init_from)
        self.loss = losses.Objective(objective or REPOSE_OBJECTIVE, skeleton=skeleton)
        root = self.skeleton.root
        positions = {
            "mpjpe": MPJPE(root=root),
            "pa_mpjpe": PAMPJPE(),
            "n_mpjpe": NMPJPE(root=root),
            "mpjve": MPJVE(root=root),
        }
        order = {f"depth_order_{over}": DepthOrderAccuracy(over=over) for over in ("joints", "frames")}
        self.val_metrics, self.val_order = (
            MetricCollection(metrics, prefix="val/", compute_groups=False) for metrics in (positions, order)
        )
        self.test_metrics, self.test_order = (
            metrics.clone(prefix="test/") for metrics in (self.val_metrics, self.val_order)
        )
        #: seconds spent in the loss's forward pass, where its gradient is computed too; see callbacks.StepTimer
        self.loss_seconds = 0.0

    def forward(self, keypoints: Tensor) -> Tensor:
        """`[B, T, J, C]` (x, y, confidence) -> `[B, T, J, 3]` in normalised image space."""
        return self.model(keypoints)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        batch = self._augment(batch)
        prediction = self.model(batch["input"])
        self._synchronise()
        started = time.perf_counter()
        total, terms = self.loss(prediction, batch["target"], batch["weight"])
        self._synchronise()
        self.loss_seconds += time.perf_counter() - started
        size = len(batch["input"])
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=size)
        self.log_dict({f"train/{name}": value for name, value in terms.items()}, batch_size=size)
        return total

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._score(batch, self.val_metrics, self.val_order)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._score(batch, self.test_metrics, self.test_order)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Camera-space poses in mm, `[B, T, J, 3]`."""
        return to_millimetres(self.predict_image_space(batch["input"]), batch, self.hparams.target)

    def predict_image_space(self, keypoints: Tensor) -> Tensor:
        """Prediction in normalised image space, averaged with that of the mirrored input if `flip_test` is set."""
        prediction = self.model(keypoints)
        if self.hparams.flip_test:
            mirrored = self.model(flip(keypoints, self.skeleton))
            prediction = (prediction + flip(mirrored, self.skeleton)) / 2
        return prediction

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)
        if self.hparams.schedule == "exponential":
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=self.hparams.lr_decay)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}
        steps = max(2, int(self.trainer.estimated_stepping_batches))
        # A function of the step alone, so that a resumed run may be given more steps.
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, functools.partial(_one_cycle, steps=steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = checkpoint.get("hyper_parameters", {})
        for name in ("backbone", "backbone_args", "target", "skeleton"):
            if name in found and (found[name] or None) != (self.hparams[name] or None):
                raise CheckpointError(
                    f"the checkpoint is of a model with {name} {found[name]!r}, expected {self.hparams[name]!r}."
                )

    def _augment(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.hparams.flip_probability == 0:
            return batch
        # Seeded by the step, so that a resumed run mirrors what the uninterrupted one would have.
        generator = torch.Generator().manual_seed(self.hparams.seed * 1_000_003 + self.global_step)
        mask = torch.rand(len(batch["input"]), generator=generator) < self.hparams.flip_probability
        return flip_batch(batch, mask, self.skeleton)

    def score(self, batch: dict[str, Tensor], positions: MetricCollection, order: MetricCollection) -> Tensor:
        """Update the metrics with a batch; returns the predicted camera-space poses `[B, T, J, 3]`, mm.

        Positions are scored in mm. The depth order is scored in normalised image space, as predicted: the conversion to
        mm multiplies each frame by its true scale, and the order over frames would come from that.
        """
        prediction = self.predict_image_space(batch["input"])
        poses = to_millimetres(prediction, batch, self.hparams.target)
        positions.update(poses, batch["camera_pose"], batch["weight"])
        order.update(prediction, batch["target"], batch["weight"])
        return poses

    def _score(self, batch: dict[str, Tensor], positions: MetricCollection, order: MetricCollection) -> None:
        self.score(batch, positions, order)
        for metrics in (positions, order):
            self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(batch["input"]))

    def _synchronise(self) -> None:
        # Only to tell the loss's share of the step; a GPU queue must not be drained for it unless someone asks.
        if getattr(self, "time_loss", False) and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _one_cycle(step: int, steps: int) -> float:
    """Share of the peak learning rate: a line up over the first tenth, then half a cosine down."""
    rise = max(1, steps // 10)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))


def describe(objective: Mapping[str, float]) -> str:
    """A short name of an objective for tables: "MPJPE + L_S + 2 L_T"."""
    parts = [
        (f"{weight:g} " if weight != 1 else "") + check_term(name).symbol
        for name, weight in objective.items()
        if weight
    ]
    return " + ".join(parts)
