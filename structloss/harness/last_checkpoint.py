"""The newest weights of a run, beside its best ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

__all__ = ["LastCheckpoint"]


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` after every validation and every epoch, into the folder of the best checkpoint.

    `ModelCheckpoint(save_last=True)` writes it only when the best one changes, and so has the best weights, too.
    """

    def __init__(self) -> None:
        self._saved_step = -1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        beside = [c.dirpath for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath]
        if beside and trainer.global_step != self._saved_step and not getattr(trainer, "fast_dev_run", False):
            trainer.save_checkpoint(Path(beside[0]) / "last.ckpt")
            self._saved_step = trainer.global_step
