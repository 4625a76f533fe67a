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
from ..errors import CheckpointError
from .callbacks import FiniteLoss, History, StepTimer, progress_callback
from .checkpoint_io import SafeCheckpointIO, verify_checkpoint
from .evaluation import Evaluation, evaluate
from .lifting import LiftingModule
from .restart import KeptFile

__all__ = ["Checkpoints", "Fitted", "TrainedModel", "fit", "quiet_lightning", "train"]


@dataclass(frozen=True)
class Checkpoints:
    """Where a training keeps how far it is.

    Attributes:
        file: of the checkpoint. One that is there is resumed from, which gives bitwise what an uninterrupted training
            would; a damaged one is not. It stays when training is done.
        every_seconds: time between checkpoints.
    """

    file: Path
    every_seconds: float = 300.0


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
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Train a module for a number of optimizer steps, without a log.

    Args:
        module: trained in place.
        data: its data.
        steps: optimizer steps, > 0.
        validations: how often to validate on the way; 0 for never.
        label: shown with the progress.
        seed: of everything random in training.
        clip: clip gradients to this norm; 0 for never.
        quiet: print nothing.
        checkpoints: how it survives being killed; None for not at all.
    """
    started = time.perf_counter()
    L.seed_everything(seed, verbose=False)
    history, timer = History(), StepTimer(warm_up=min(3, steps - 1))
    callbacks = [history, timer, FiniteLoss(), *([] if quiet else [progress_callback(label)])]
    if checkpoints is not None:
        callbacks.append(KeptFile(checkpoints.file, checkpoints.every_seconds))
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
            enable_checkpointing=checkpoints is not None,
            plugins=[SafeCheckpointIO()],
            enable_model_summary=False,
            gradient_clip_val=clip or None,
            enable_progress_bar=False,  # ours is a callback
            callbacks=callbacks,
            default_root_dir=Path(scratch),
        )
        trainer.fit(module, datamodule=data, ckpt_path=None if checkpoints is None else _intact(checkpoints.file))
    return Fitted(history.curves, timer, time.perf_counter() - started)


def _intact(file: Path) -> Path | None:
    """A checkpoint to resume from; None where there is none, or a damaged one."""
    try:
        verify_checkpoint(file)
    except CheckpointError:
        return None
    return file


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
    checkpoints: Checkpoints | None = None,
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
        checkpoints: see :func:`fit`.
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
        checkpoints=checkpoints,
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
