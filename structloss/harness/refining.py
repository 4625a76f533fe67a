"""The Lightning module that trains refiners: networks from a trained network's 3D poses to better ones."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics import MetricCollection

from .. import backbones, skeletons
from ..errors import ArgumentError, CheckpointError, check_name
from ..metrics import MPJPE, MPJVE, PAMPJPE, AccelerationError, BoneLengthSpread
from ..refine import LSTMRefiner, Refiner, TPNet
from .checkpoint_checks import check_finite, check_same_network, seed_step
from .checkpoint_io import SafeCheckpointIO
from .optimizers import OptimizerSettings
from .scores import scoring

__all__ = ["REFINERS", "LoadedRefiner", "RefineModule", "load_refiner", "train_refiner"]

#: Name of a refiner -> its class
REFINERS: dict[str, type[Refiner]] = {"tpnet": TPNet, "lstm": LSTMRefiner}

_MM = 1000.0


class RefineModule(L.LightningModule):
    """Train a refiner on the predictions of a trained network.

    Batches are those of :class:`structloss.refine.module.PredictionsDataModule`. The loss is the squared error of
    root-relative poses in metres, the mean over their known coordinates. Validation and test score whole clips in
    millimetres, as they came in ("val/input_mpjpe", ...) and as they come out ("val/mpjpe", ...): MPJPE, PA-MPJPE,
    velocity and acceleration error (per frame at the rate that the network sees), spread of bone lengths.

    Dabral et al. (ECCV 2018) train by Adam for 30 epochs with the "standard L2" loss; its mean over coordinates, the
    rate of 1e-4, held constant, and metres are our choices.

    Args:
        refiner: "tpnet" or "lstm".
        refiner_args: constructor arguments of :class:`structloss.refine.TPNet` or
            :class:`structloss.refine.LSTMRefiner` other than the following four. `root` is the skeleton's pelvis unless
            it is given.
        past: frames before the one that is refined, as in the data module (the command line links the two); None for
            an LSTM, which sees all.
        future: frames after it, likewise; 0 is causal.
        border: beyond a clip's ends, "repeat" its first or last pose, or "zero", likewise.
        skeleton: name of the joints' order, likewise.
        optimizer: "adamw", "adam" or "amsgrad".
        lr: learning rate at the start (its peak under "one_cycle").
        weight_decay: on every parameter.
        schedule: see :class:`~structloss.harness.lifting.LiftingModule`; "exponential" with `lr_decay` 1 is constant.
        lr_decay: see `schedule`.
        drop_every: see `schedule`; 0 is never.
        drop: see `schedule`.
        seed: of dropout.
        init_from: checkpoint or .safetensors file of the same network to start from.

    Raises:
        UnknownNameError: an unknown refiner or skeleton.
        ArgumentError: an impossible value.
        CheckpointError, MissingFileError: `init_from` is unreadable or belongs to another network.
    """

    def __init__(
        self,
        refiner: str = "tpnet",
        refiner_args: dict[str, Any] | None = None,
        past: int | None = 19,
        future: int | None = 0,
        border: str = "repeat",
        skeleton: str = "h36m",
        optimizer: str = "adam",
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        schedule: str = "exponential",
        lr_decay: float = 1.0,
        drop_every: int = 0,
        drop: float = 0.5,
        seed: int = 0,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        kind = REFINERS[check_name("refiner", refiner, REFINERS)]
        self.optimization = OptimizerSettings(optimizer, lr, weight_decay, schedule, lr_decay, drop_every, drop)
        self.save_hyperparameters()
        self.skeleton = skeletons.get(skeleton)
        self.model = _create(kind, self.skeleton, past, future, border, refiner_args or {})
        if init_from is not None:
            backbones.load_published(self.model, init_from)
        #: frames per second that the network was trained on; NaN where unknown
        self.fps = math.nan
        self.val_metrics, self.test_metrics = _metrics(skeleton, "val/"), _metrics(skeleton, "test/")
        #: key of a measure -> what the last `test` came to; "input_" and the key: what came in
        self.evaluation: dict[str, float] | None = None
        #: for callbacks.StepTimer
        self.loss_seconds = 0.0
        self.time_loss = False

    def forward(self, poses: Tensor) -> Tensor:
        """`[B, T, J, 3]` -> `[B, T, J, 3]`, root-relative metres."""
        return self.model(poses)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        seed_step(self, batch_idx)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        error = (self.model.refine(batch["input"]) - batch["target"]).square().mean(-1)
        weight = batch["weight"]
        loss = (error * weight).sum() / weight.sum().clamp_min(1.0)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(weight), sync_dist=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._score(batch, self.val_metrics)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._score(batch, self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self._computed(self.val_metrics))

    def on_test_epoch_end(self) -> None:
        found = self._computed(self.test_metrics)
        self.evaluation = {name.removeprefix("test/"): float(value) for name, value in found.items()}
        self.log_dict(found)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Refined poses in mm relative to the pelvis, `[B, T, J, 3]`."""
        return _MM * self.model(batch["input"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return self.optimization.build(self.model.parameters(), int(self.trainer.estimated_stepping_batches))

    def on_fit_start(self) -> None:
        data = getattr(self.trainer, "datamodule", None)
        for name in ("past", "future", "border"):
            if hasattr(data, name) and getattr(data, name) != self.hparams[name]:
                raise ArgumentError(
                    f"{name} is {self.hparams[name]!r}, expected {getattr(data, name)!r}, that of the data."
                )
        self.fps = float(getattr(data, "fps", math.nan))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_finite(checkpoint, self.global_step)
        checkpoint["fps"] = self.fps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.fps = float(checkpoint.get("fps", math.nan))
        check_same_network(
            checkpoint, self.hparams, ("refiner", "refiner_args", "past", "future", "border", "skeleton")
        )

    def synchronise(self) -> None:
        """Wait for a GPU, if a timer asks for it."""
        if self.time_loss and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _score(self, batch: dict[str, Tensor], metrics: nn.ModuleDict) -> None:
        refined = self.model(batch["input"]).float()
        with scoring():
            for name, poses in (("before", batch["input"]), ("after", refined)):
                part = cast(MetricCollection, metrics[name])
                part.update(_MM * poses, _MM * batch["target"], batch["weight"])

    def _computed(self, metrics: nn.ModuleDict) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        with scoring():
            for part in cast(Iterable[MetricCollection], metrics.values()):
                found |= {name: value.float() for name, value in part.compute().items()}
                part.reset()
        return found


def _create(
    kind: type[Refiner],
    skeleton: skeletons.Skeleton,
    past: int | None,
    future: int | None,
    border: str,
    more: Mapping[str, Any],
) -> Refiner:
    own = {"num_joints": skeleton.num_joints, "past": past, "future": future, "border": border}
    for name in own:
        if name in more:
            raise ArgumentError(f"refiner_args has {name!r}, expected it as an argument of the module or the data.")
    root = skeleton.pelvis[0] if len(skeleton.pelvis) == 1 else None
    try:
        return kind(**{"root": root, **own, **more})
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        name = str(error).rpartition("argument ")[2].strip("'")
        raise ArgumentError(f"refiner_args has {name!r}, which {kind.__name__} doesn't take.") from error


def _metrics(skeleton: str, prefix: str) -> nn.ModuleDict:
    """The measures of what comes in, under "before", and of what comes out, under "after"."""

    def collection(prefix: str) -> MetricCollection:
        chosen: dict[str, Any] = {
            "mpjpe": MPJPE(),
            "pa_mpjpe": PAMPJPE(),
            "mpjve": MPJVE(),
            "acceleration_error": AccelerationError(),
            "bone_length_spread": BoneLengthSpread(skeleton),
        }
        return MetricCollection(chosen, prefix=prefix, compute_groups=False)

    return nn.ModuleDict({"before": collection(f"{prefix}input_"), "after": collection(prefix)})


class LoadedRefiner:
    """A trained refiner and what one must know to use it.

    Attributes:
        model: in evaluation mode.
        name: "tpnet" or "lstm".
        skeleton: name of the joints' order.
        fps: frames per second that it was trained on; NaN where unknown.
        source: the file of its weights.
    """

    def __init__(self, model: Refiner, name: str, skeleton: str, fps: float, source: str) -> None:
        self.model, self.name, self.skeleton, self.fps, self.source = model, name, skeleton, fps, source

    def frame_step(self, fps: float | None) -> int:
        """Frames of a video from one to the next that the network is to see: as many as come nearest to the rate that
        it was trained on; 1 where one of the rates is not known."""
        if fps is None or math.isnan(fps) or math.isnan(self.fps):
            return 1
        return max(1, round(fps / self.fps))

    def note(self, fps: float | None) -> str | None:
        """What to say about a video's frame rate, where it doesn't fit."""
        if math.isnan(self.fps):
            return f"{self.name} doesn't know the frame rate that it was trained on: it takes every frame"
        if fps is None or math.isnan(fps):
            return f"{self.name} was trained on {self.fps:g} frames per second, the poses' rate is not known"
        seen = fps / self.frame_step(fps)
        if abs(seen / self.fps - 1) <= 0.1:
            return None
        return f"{self.name} was trained on {self.fps:g} frames per second and sees {seen:g}"


def load_refiner(path: str | os.PathLike[str]) -> LoadedRefiner:
    """The refiner of a training checkpoint. Nothing in it is executed.

    Raises:
        MissingFileError, CheckpointError: no such file, unreadable, no refiner's, or not of the network that it says.
    """
    checkpoint = SafeCheckpointIO().load_checkpoint(path)
    stored = checkpoint.get("hyper_parameters")
    if not isinstance(stored, Mapping) or "refiner" not in stored or "state_dict" not in checkpoint:
        raise CheckpointError(
            f"checkpoint {path} is not of a refiner, expected a checkpoint of structloss fit --config tpnet."
        )
    known = ("refiner", "refiner_args", "past", "future", "border", "skeleton")
    try:
        module = RefineModule(**{name: stored[name] for name in known if name in stored})
        module.load_state_dict(checkpoint["state_dict"])
    except (ArgumentError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise CheckpointError(f"{path} doesn't fit its own description of the network: {reason}.") from error
    fps = checkpoint.get("fps", math.nan)
    fps = float(fps) if isinstance(fps, (int, float)) and fps > 0 else math.nan
    name = f"{module.hparams['refiner']}"
    return LoadedRefiner(module.model.eval(), name, module.skeleton.name, fps, str(path))


def train_refiner(
    module: RefineModule,
    data: L.LightningDataModule,
    *,
    epochs: int = 30,
    steps: int = -1,
    seed: int = 0,
    label: str = "",
    quiet: bool = False,
) -> dict[str, float]:
    """Train a refiner without a run's folder, then score it: the piece that demonstrations and ablations repeat.

    Args:
        module: a fresh module; trained in place, and left in evaluation mode.
        data: a :class:`structloss.refine.module.PredictionsDataModule`.
        epochs: how often to go through the training windows.
        steps: optimizer steps at most; -1 for as many as the epochs have.
        seed: of what is random in training beside the module's and the data's own.
        label: shown with the progress.
        quiet: print nothing.

    Returns:
        What :attr:`RefineModule.evaluation` holds.
    """
    from .callbacks import FiniteLoss, progress_callback
    from .training import quiet_lightning

    L.seed_everything(seed, verbose=False)
    with tempfile.TemporaryDirectory() as scratch, quiet_lightning():
        options: dict[str, Any] = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,  # ours is a callback
            "default_root_dir": Path(scratch),
        }
        trainer = L.Trainer(
            max_epochs=epochs,
            max_steps=steps,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            limit_val_batches=0,
            callbacks=[FiniteLoss(), *([] if quiet else [progress_callback(label)])],
            **options,
        )
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)
    module.eval()
    assert module.evaluation is not None
    return module.evaluation
