"""Unlabelled windows beside the labelled ones of a training step, in an order that a resumed run draws again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import lightning as L
import numpy as np
from torch import Tensor

from ..data.windows import PoseWindows
from .loss_nets import training_data

__all__ = ["UnlabelledWindows"]


class InTraining(Protocol):
    """What tells where in training a module is; of its `hparams` "seed"."""

    @property
    def hparams(self) -> Mapping[str, Any]: ...

    @property
    def trainer(self) -> L.Trainer: ...

    @property
    def current_epoch(self) -> int: ...

    @property
    def global_rank(self) -> int: ...


class UnlabelledWindows:
    """Windows without 3D poses, shuffled; all are drawn before one is drawn again.

    Which ones a step is given depends on where in training it is and on the process, not on how training got there.

    Args:
        windows: what to draw from.
    """

    def __init__(self, windows: PoseWindows) -> None:
        self.windows = windows
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))  # of the last cycle through the windows

    def draw(self, module: InTraining, batch_idx: int, size: int) -> dict[str, Tensor]:
        """The windows of a step, a batch of `size` on the CPU.

        Args:
            module: that is being trained, on data whose `batch_size` is at least `size`.
            batch_idx: number of the step's batch in its epoch.
            size: how many.
        """
        trainer, data = module.trainer, training_data(module.trainer)
        step = module.current_epoch * int(trainer.num_training_batches) + batch_idx
        places = (step * data.batch_size + np.arange(size)) * trainer.world_size + module.global_rank
        return self.windows.batch([self.number(int(module.hparams["seed"]), place) for place in places.tolist()])

    def number(self, seed: int, place: int) -> int:
        """The window at a place of the endless order that a seed gives."""
        cycle, position = divmod(place, len(self.windows))
        if self._order[0] != cycle:
            self._order = cycle, np.random.default_rng([seed, 1, cycle]).permutation(len(self.windows))
        return int(self._order[1][position])
