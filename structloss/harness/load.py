"""Trained modules, from the checkpoints of `structloss fit`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping

from ..errors import CheckpointError
from .checkpoint_io import SafeCheckpointIO
from .lifting import REPOSE_OBJECTIVE, LiftingModule

__all__ = ["load_trained", "objective_of"]


def load_trained(path: str | os.PathLike[str]) -> tuple[LiftingModule, dict[str, int]]:
    """The module of a training checkpoint, and the epoch and step that it was saved at.

    Nothing but the checkpoint is read: not the file that the training started from.

    Raises:
        MissingFileError, CheckpointError: no such file, unreadable, no training checkpoint, or not of the network that
            it says.
    """
    checkpoint = SafeCheckpointIO().load_checkpoint(path)
    stored = checkpoint.get("hyper_parameters")
    if not isinstance(stored, Mapping) or "backbone" not in stored or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} doesn't say which network it is of, expected one written by structloss fit.")
    known = inspect.signature(LiftingModule.__init__).parameters
    # Neither the weights to start from nor the loss network is needed any more.
    without = {"init_from": None, "learned": None}
    module = LiftingModule(**{**{key: value for key, value in stored.items() if key in known}, **without})
    module.on_load_checkpoint(checkpoint)
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} doesn't fit its own description of the network: {reason}.") from error
    return module.eval(), {"epoch": int(checkpoint.get("epoch", 0)), "step": int(checkpoint.get("global_step", 0))}


def objective_of(module: LiftingModule) -> dict[str, float]:
    """Loss term -> lambda: what was learned, or else what was set."""
    lambdas = {name: float(value) for name, value in module.loss.current_lambdas().items()}
    return lambdas or {name: float(value) for name, value in (module.hparams["objective"] or REPOSE_OBJECTIVE).items()}
