"""Train one model and score it: the piece that `demo` and comparisons repeat."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning as L

from ..data import MotionDataModule
from .callbacks import FiniteLoss, History, StepTimer, progress_callback
from .evaluation import Evaluation, evaluate
from .lifting import LiftingModule

__all__ = ["Fitted", "TrainedModel", "fit", "quiet_lightning", "train"]


@dataclass
class TrainedModel:
    """What :func:`train` returns.

    Attributes:
        module: the trained module, in evaluation mode.
        evaluation: scores on the held-out subjects.
        curves: see `callbacks.History`.
        clips_per_second: of the training step.
        loss_share: share of the training step spent in the loss.
        seconds: of training and scoring.
    """

    module: LiftingModule
    evaluation: Evaluation
    curves: dict[str, list[float]] = field(default_factory=dict)
    clips_per_second: float = float("nan")
    loss_share: float = float("nan")
    seconds: float = float("nan")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's banners and advice out of a command's output; its errors stay."""
    loggers = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@dataclass
class Fitted:
    """What :func:`fit` returns.

    Attributes:
        curves: see `callbacks.History`.
        timer: of the steps.
        seconds: of training.
    """

    curves: dict[str, list[float]]
    timer: StepTimer
    seconds: float


def fit(
    module: L.LightningModule,
    data: L.LightningDataModule,
    *,
    steps: int,
    validations: int = 3,
    label: str = "",
    seed: int = 0,
    clip: float = 0.0,
    quiet: bool = False,
) -> Fitted:
    """Train a module for a number of optimizer steps, without a log or checkpoints.

    Args:
        module: trained in place.
        data: its data.
        steps: optimizer steps, > 0.
        validations: how often to validate on the way; 0 for never.
        label: shown with the progress.
        seed: of everything random in training.
        clip: clip gradients to this norm; 0 for never.
        quiet: print nothing.
    """
    started = time.perf_counter()
    L.seed_everything(seed, verbose=False)
    history, timer = History(), StepTimer(warm_up=min(3, steps - 1))
    with TemporaryDirectory() as scratch, quiet_lightning():
        trainer = L.Trainer(
            max_steps=steps,
            max_epochs=-1,
            val_check_interval=max(1, steps // max(1, validations)),
            limit_val_batches=None if validations else 0,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            gradient_clip_val=clip or None,
            enable_progress_bar=False,  # ours is a callback
            callbacks=[history, timer, FiniteLoss(), *([] if quiet else [progress_callback(label)])],
            default_root_dir=Path(scratch),
        )
        trainer.fit(module, datamodule=data)
    return Fitted(history.curves, timer, time.perf_counter() - started)


def train(
    module: LiftingModule,
    data: MotionDataModule,
    *,
    steps: int,
    validations: int = 3,
    label: str = "",
    seed: int = 0,
    clip: float = 0.0,
    evaluation: bool = True,
    quiet: bool = False,
) -> TrainedModel:
    """Train for a number of optimizer steps, then score on the held-out subjects.

    Args:
        module: a fresh module; trained in place.
        data: the data module; its order depends on its own seed alone.
        steps: optimizer steps, > 0.
        validations: how often to validate on the held-out subjects on the way; 0 for never.
        label: shown with the progress.
        seed: of everything random in training (dropout, mirroring has its own).
        clip: clip gradients to this norm; 0 for never.
        evaluation: score afterwards; otherwise `evaluation` of the result is empty.
        quiet: print nothing.
    """
    started = time.perf_counter()
    fitted = fit(
        module,
        data,
        steps=steps,
        validations=validations,
        label=label,
        seed=seed,
        clip=clip,
        quiet=quiet,
    )
    found = Evaluation({})
    if evaluation:
        batches = data.test_dataloader()
        found = evaluate(module, batches, data.actions, subjects=data.subjects, tested=data.test_set)
    return TrainedModel(
        module=module.eval(),
        evaluation=found,
        curves=fitted.curves,
        clips_per_second=fitted.timer.clips_per_second,
        loss_share=fitted.timer.loss_share,
        seconds=time.perf_counter() - started,
    )
