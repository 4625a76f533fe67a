"""What data modules share that resume within an epoch: where training is, and which process this is."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["ResumesWithinEpoch"]


class _Order(Protocol):
    """A sampler that can leave out what was trained on."""

    def __len__(self) -> int: ...

    def resume(self, epoch: int, samples: int) -> None: ...


class ResumesWithinEpoch:
    """Base of Lightning data modules, before `LightningDataModule` among the bases, that go on in the middle of an
    epoch."""

    trainer: Any
    batch_size: int
    progress: bool
    _resumed: tuple[int, int] | None = None  # epoch, batches of it that were trained on

    def state_dict(self) -> dict[str, Any]:
        """How much of which epoch has been trained on; Lightning keeps it in checkpoints."""
        trainer = self.trainer
        assert trainer is not None  # whoever writes a checkpoint is one
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if batches >= trainer.num_training_batches:  # the epoch is over
            return {"epoch": trainer.current_epoch + 1, "batches": 0}
        return {"epoch": trainer.current_epoch, "batches": batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned: the next epoch goes through what is left of that one."""
        self._resumed = state_dict["epoch"], state_dict["batches"]

    def _continue(self, sampler: _Order) -> None:
        """Let the order of a resumed run begin with what is left of its epoch."""
        if self._resumed is not None:
            epoch, batches = self._resumed
            sampler.resume(epoch, batches * self.batch_size)

    def _lonely(self, sampler: _Order) -> bool:
        """Whether the last batch would be a single sample, on which batch normalisation cannot train."""
        return len(sampler) % self.batch_size == 1 and len(sampler) > 1 and self.batch_size > 1

    @property
    def _shows_progress(self) -> bool:
        return self.progress and self._trainer_value("is_global_zero", True)

    @property
    def _place(self) -> tuple[int, int]:
        """Number of processes, and which of them this is."""
        return self._trainer_value("world_size", 1), self._trainer_value("global_rank", 0)

    def _trainer_value(self, name: str, default: Any) -> Any:
        """An attribute of the trainer, or `default` where the module is used without one."""
        return default if self.trainer is None else getattr(self.trainer, name)
