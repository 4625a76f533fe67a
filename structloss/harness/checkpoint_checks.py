"""What the Lightning modules of all systems check of their checkpoints, and how their steps draw at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch

from ..errors import CheckpointError, DataError

__all__ = ["check_finite", "check_same_network", "seed_step"]


def seed_step(module: L.LightningModule, batch_idx: int) -> None:
    """Seed what is random in a step by where in training it is, not by how training got there: a resumed run draws the
    same."""
    place = [module.hparams["seed"], module.current_epoch, batch_idx, module.global_rank]
    torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]) >> 1)


def check_finite(checkpoint: Mapping[str, Any], step: int) -> None:
    """Raise :class:`DataError` rather than save NaN or infinite weights over the last good ones.

    Args:
        checkpoint: what is about to be written.
        step: of the optimizer.
    """
    for name, value in checkpoint.get("state_dict", {}).items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DataError(
                f"{name} has NaN or infinite values at step {step}, expected finite weights; try a lower lr. No "
                "checkpoint is written, the last good one is as it was."
            )


def check_same_network(checkpoint: Mapping[str, Any], hparams: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise :class:`CheckpointError` for a checkpoint of another network.

    Args:
        checkpoint: what was read.
        hparams: arguments of the module that is to take it.
        names: those of them that decide which network it is.
    """
    found = checkpoint.get("hyper_parameters", {})
    for name in names:
        if name in found and (found[name] or None) != (hparams[name] or None):
            raise CheckpointError(
                f"the checkpoint is of a model with {name} {found[name]!r}, expected {hparams[name]!r}."
            )
