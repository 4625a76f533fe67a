"""Callbacks: what a run remembers, how long its steps take, and what is printed where there is no terminal."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Protocol, cast

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar

from ..errors import DataError

__all__ = ["FiniteLoss", "History", "PlainProgress", "StepTimer", "best_checkpoint", "progress_callback"]


class History(Callback):
    """Keeps the curves of a run: training losses at every step, validation metrics whenever they are computed.

    Attributes:
        curves: "step" and "train_<term>" of equal length, "val_step" and "val_<metric>" of equal length.
    """

    def __init__(self) -> None:
        self.curves: dict[str, list[float]] = {"step": [], "val_step": []}

    def _append(self, key: str, value: float) -> None:
        curve = self.curves.setdefault(key, [])
        if key not in ("step", "val_step"):  # a term may begin late
            steps = self.curves["step" if key.startswith("train_") else "val_step"]
            curve += [math.nan] * (len(steps) - 1 - len(curve))
        curve.append(float(value))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == (self.curves["step"][-1] if self.curves["step"] else 0):
            return  # accumulating gradients: no step yet
        self._append("step", trainer.global_step)
        for name, value in trainer.callback_metrics.items():
            if name.startswith("train/") and not name.endswith("_epoch"):
                self._append(name.replace("train/", "train_").removesuffix("_step"), float(value))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._append("val_step", trainer.global_step)
        for name, value in trainer.callback_metrics.items():
            if name.startswith("val/"):
                self._append(name.replace("val/", "val_"), float(value))


class TimedModule(Protocol):
    """A module that counts the seconds of its loss's forward pass."""

    loss_seconds: float
    time_loss: bool

    def synchronise(self) -> None:
        """Wait for a GPU, if `time_loss` asks for it."""
        ...


class StepTimer(Callback):
    """Clips per second and the loss's share of the training step (data loading and validation left out).

    Args:
        warm_up: steps left out at the beginning.
    """

    def __init__(self, warm_up: int = 3) -> None:
        self.warm_up = warm_up
        self.seconds = self.loss_seconds = 0.0
        self.clips = self.steps = 0
        self._started = self._loss_before = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        cast(TimedModule, pl_module).time_loss = True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._loss_before = cast(TimedModule, pl_module).loss_seconds
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        timed = cast(TimedModule, pl_module)
        timed.synchronise()
        self.steps += 1
        if self.steps > self.warm_up:
            self.seconds += time.perf_counter() - self._started
            self.loss_seconds += timed.loss_seconds - self._loss_before
            self.clips += len(batch["input"])

    @property
    def clips_per_second(self) -> float:
        return self.clips / self.seconds if self.seconds else math.nan

    @property
    def loss_share(self) -> float:
        return self.loss_seconds / self.seconds if self.seconds else math.nan


class FiniteLoss(Callback):
    """Stops a run whose loss is NaN or infinite, before it is saved over the last good checkpoint."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None and not math.isfinite(loss):
            raise DataError(
                f"the loss is {float(loss)} at step {trainer.global_step}, expected a finite number; "
                "try a lower lr, or look for NaN in the data."
            )


class PlainProgress(Callback):
    """One line per validation instead of a bar, for logs and pipes.

    Args:
        label: put in front of every line.
    """

    def __init__(self, label: str = "") -> None:
        self._label = f"{label}: " if label else ""
        self._started = time.perf_counter()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        parts = [f"{self._label}step {trainer.global_step}"]
        if trainer.max_steps and trainer.max_steps > 0:
            parts[0] += f"/{trainer.max_steps}"
        for name in ("train/loss", "val/mpjpe", "val/depth_order_joints", "val/depth_order_frames"):
            if name in trainer.callback_metrics:
                parts.append(f"{name} {float(trainer.callback_metrics[name]):.4g}")
        parts.append(f"{time.perf_counter() - self._started:.0f} s")
        print(", ".join(parts), flush=True)


def progress_callback(label: str = "") -> Callback:
    """A progress bar on a terminal, plain lines elsewhere."""
    return RichProgressBar(leave=False) if sys.stdout.isatty() else PlainProgress(label=label)


def best_checkpoint(monitor: str) -> ModelCheckpoint:
    """Keeps the weights of the epoch at which `monitor` was least, and those of the last one."""
    return ModelCheckpoint(monitor=monitor, filename="best-{epoch}", save_last=True, enable_version_counter=False)
