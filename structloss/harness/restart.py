"""Runs that survive being killed: checkpoints to resume from, and how a run finds its own."""

from __future__ import annotations

import contextlib
import os
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ..errors import ArgumentError, CheckpointError
from .checkpoint_io import verify_checkpoint

__all__ = ["KeptFile", "Restart", "RunFolder", "newest_intact", "step_of"]

_NAME = "resume-{epoch:05d}-{step:09d}.ckpt"
_PATTERN = re.compile(r"resume-(\d+)-(\d+)\.ckpt")
#: between these many steps, processes under DDP don't ask each other whether it is time to save
_ASK_EVERY = 20


class Restart(Checkpoint):
    """Writes a checkpoint every few minutes, at the end of every epoch (with `max_steps` after the first step of the
    next) and on SIGTERM, and keeps the last two.

    A run that resumes from one is bitwise the run that was never interrupted. That holds where a checkpoint is taken
    after an optimizer step and no validation is about to run, so it waits for such a moment. With `max_steps` and
    epochs of one batch there is none: such a run goes on, but with other batches.

    Args:
        every_seconds: time between checkpoints within an epoch.
        every_steps: optimizer steps between them, instead of time; 0 goes by time.
        keep: how many to keep; if the newest turns out to be damaged, the one before it serves.
    """

    def __init__(self, every_seconds: float = 300.0, every_steps: int = 0, keep: int = 2) -> None:
        if not every_seconds > 0:
            raise ArgumentError(f"every_seconds is {every_seconds}, expected more than 0.")
        if every_steps < 0:
            raise ArgumentError(f"every_steps is {every_steps}, expected at least 0.")
        if keep < 1:
            raise ArgumentError(f"keep is {keep}, expected at least 1.")
        self.every_seconds, self.every_steps, self.keep = every_seconds, every_steps, keep
        self._saved_at, self._saved_step = time.monotonic(), 0
        self._owes = False  # the checkpoint of an epoch that is over

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._saved_step or not self._is_due(trainer):
            return
        loop = trainer.fit_loop.epoch_loop
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and not loop.batch_progress.is_last_batch and not _validates_next(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Where a number of steps ends the training, Lightning begins the epoch that is over once more: the checkpoint
        # comes after the first step of the next one. An epoch of one batch has no other place.
        if trainer.global_step < trainer.max_steps and trainer.num_training_batches > 1:
            self._owes = True
        else:
            self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        how = {SIGTERMException: "stopped by SIGTERM", KeyboardInterrupt: "interrupted"}.get(type(exception))
        folder = _folder(trainer)
        if how and folder and trainer.is_global_zero and trainer.state.fn == "fit":
            if saved := _found(folder):
                print(f"{how}; the same command, without --fresh, resumes from step {step_of(saved[0])}", flush=True)
            else:
                print(f"{how} before the first checkpoint; the same command begins anew", flush=True)

    def _is_due(self, trainer: L.Trainer) -> bool:
        if self._owes:
            return True
        if trainer.received_sigterm and trainer.world_size == 1:
            return True
        if self.every_steps:
            return trainer.global_step - self._saved_step >= self.every_steps
        if trainer.world_size > 1 and trainer.global_step % _ASK_EVERY:
            return False
        due = time.monotonic() - self._saved_at >= self.every_seconds
        return trainer.strategy.broadcast(due) if trainer.world_size > 1 else due

    def _save(self, trainer: L.Trainer) -> None:
        folder = _folder(trainer)
        if folder is None:
            return
        self._saved_at, self._saved_step, self._owes = time.monotonic(), trainer.global_step, False
        # What the checkpoint has seen must be in the log before it, this step's row too, which would come after it.
        if trainer.fit_loop.epoch_loop.batch_progress.current.completed < trainer.fit_loop.epoch_loop.batch_idx + 1:
            trainer._logger_connector.update_train_step_metrics()
        for logger in trainer.loggers:
            logger.save()
        written = folder / _NAME.format(epoch=trainer.current_epoch, step=trainer.global_step)
        trainer.save_checkpoint(written)
        if trainer.is_global_zero:
            others = [path for path in _found(folder) if path != written]
            for old in others[self.keep - 1 :]:
                old.unlink(missing_ok=True)


class KeptFile(Restart):
    """The same with one file, for a training that has neither a log nor a folder: written whenever it is time, replaced
    by the next, and removed by whoever keeps what the training came to.

    Args:
        path: of the checkpoint.
        every_seconds: time between checkpoints.
    """

    def __init__(self, path: Path, every_seconds: float) -> None:
        super().__init__(every_seconds)
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Not here: a training of so many steps would begin the epoch that is over once more. When it is time at the
        end of an epoch, the first step of the next one is waited for."""

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Nothing is told here: whoever trains many knows which this was."""

    def _save(self, trainer: L.Trainer) -> None:
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        trainer.save_checkpoint(self.path)


def _validates_next(trainer: L.Trainer) -> bool:
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None  # while training
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def _folder(trainer: L.Trainer) -> Path | None:
    """Where the run's checkpoints are; None where it keeps none."""
    logger = trainer.logger
    return None if logger is None or logger.log_dir is None else Path(logger.log_dir) / "checkpoints"


def _found(folder: Path) -> list[Path]:
    """Checkpoints to resume from, the newest first."""
    named = [(_PATTERN.fullmatch(path.name), path) for path in folder.glob("resume-*.ckpt")]
    return [p for _, p in sorted(((tuple(map(int, m.groups())), p) for m, p in named if m), reverse=True)]


def step_of(checkpoint: Path) -> int:
    """Optimizer steps that a checkpoint of :class:`Restart` has behind it, by its name."""
    match = _PATTERN.fullmatch(checkpoint.name)
    return int(match.group(2)) if match else 0


def newest_intact(folder: Path) -> Path | None:
    """The newest checkpoint that can be read to its end; says so on the way where one can't, which is called
    NAME.damaged from then on. None where none can."""
    for path in _found(folder):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            with contextlib.suppress(OSError):  # the newest by its name would never go, those after it would
                os.replace(path, path.with_name(f"{path.name}.damaged"))
            warnings.warn(f"{error} The one before it is used.", stacklevel=2)
        else:
            return path
    return None


class RunFolder:
    """A run's folder: whose it is, and whether its run has come to its end.

    Args:
        path: `runs/NAME/version_N`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return (self.path / "finished").exists()

    def finish(self) -> None:
        """Remember that training came to its end."""
        (self.path / "finished").touch()

    def new_test(self) -> Path:
        """Make a folder for a test of the run, `tests/N`."""
        numbers = [int(path.name) for path in (self.path / "tests").glob("*") if path.name.isdigit()]
        number = max(numbers, default=-1) + 1
        while True:
            try:
                (self.path / "tests" / str(number)).mkdir(parents=True)
                return self.path / "tests" / str(number)
            except FileExistsError:  # another test, at the same time
                number += 1

    def config(self) -> str | None:
        """The configuration that the run was started with, YAML; None where it was killed before writing it."""
        file = self.path / "config.yaml"
        return file.read_text(encoding="utf-8") if file.is_file() else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the folder while running in it; yields False if another process does. A killed process holds nothing."""
        try:
            import fcntl
        except ImportError:  # no such locks on Windows
            yield True
            return
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)
