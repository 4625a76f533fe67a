"""The moment a run begins to train: only then its folder is made. Whatever fails before leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonargparse
import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import Logger

from ..errors import ArgumentError, DataError
from ..files import new_file
from ..text import visible
from .restart import RunFolder
from .run_logger import RunLogger

__all__ = ["RunStart", "config_text"]


def config_text(parser: Any, config: Any) -> str:
    """A configuration as `config.yaml` holds it, with every value, those that are None too."""
    renamed = tuple(map(int, jsonargparse.__version__.split(".")[:2])) >= (4, 49)
    return parser.dump(config, **{"skip_unset" if renamed else "skip_none": False})


class RunStart(SaveConfigCallback):
    """Takes the folder of a run when its first step is about to be made: locks it, writes `config.yaml`, and from then
    on logs and checkpoints go there. Lightning would do so while the run is set up, before data and settings are known
    to be good.

    Args:
        parser, config: of the command line, what is written.
        beside: makes further loggers for the same run, such as TensorBoard's.
        settings: of Lightning's callback.
    """

    def __init__(
        self,
        parser: Any,
        config: Any,
        beside: Callable[[RunLogger], Sequence[Logger]] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(parser, config, **settings)
        self.held, self.beside = ExitStack(), beside
        self.resumes = False
        """Whether the folder is that of an earlier part of the run."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Nothing yet."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._check_alike(trainer, pl_module)
        logger = trainer.logger
        if not isinstance(logger, RunLogger):
            if logger is not None:
                self.write(trainer)
            return
        if not self.resumes:
            self._take(trainer, logger)
        self.write(trainer)
        logger.begin()
        if self.beside is not None:
            others = self.beside(logger)
            for other in others:
                other.log_hyperparams(dict(pl_module.hparams_initial))
            trainer.loggers = [*trainer.loggers, *others]
        if trainer.is_global_zero and not self.resumes:
            print(visible(f"training in {logger.log_dir}"), flush=True)

    def _check_alike(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise where processes do not begin at the same step: machines that do not share the folder of runs."""
        if trainer.world_size == 1:
            return
        mine = torch.tensor([int(self.resumes), trainer.global_step], device=pl_module.device)
        all_of_them = trainer.strategy.all_gather(mine).tolist()
        if all(other == all_of_them[0] for other in all_of_them):
            return

        def said(rank: int) -> str:
            resumes, step = all_of_them[rank]
            return f"process {rank} {f'resumes from step {step}' if resumes or step else 'begins anew'}"

        rank = trainer.global_rank
        other = next(n for n, found in enumerate(all_of_them) if found != all_of_them[rank])
        raise ArgumentError(
            f"{said(rank)} and {said(other)}, expected --trainer.default_root_dir in a folder that all machines share."
        )

    def write(self, trainer: L.Trainer) -> None:
        """Write `config.yaml` into the folder of the log."""
        folder = trainer.log_dir  # all processes must ask for it
        if folder is not None and trainer.is_global_zero:
            with new_file(Path(folder) / self.config_filename) as file:
                file.write(config_text(self.parser, self.config).encode())

    def _take(self, trainer: L.Trainer, logger: RunLogger) -> None:
        """Make a new folder; all processes log into the one that the first of them gets."""
        before, version = logger.log_dir, logger.version
        assert isinstance(version, int)  # of a CSV logger that was given none
        if trainer.is_global_zero:
            while not self._make(Path(logger.root_dir) / f"version_{version}"):
                version += 1
        logger.resume(trainer.strategy.broadcast(version), 0)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and str(callback.dirpath or "").startswith(before):
                callback.dirpath = logger.log_dir + str(callback.dirpath).removeprefix(before)

    def _make(self, folder: Path) -> bool:
        """Make a folder and lock it; False if another process was faster."""
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            return False
        except OSError as error:
            raise DataError(f"{folder} can't be made: {error.strerror}; set --trainer.default_root_dir.") from error
        return self.held.enter_context(RunFolder(folder).locked())
