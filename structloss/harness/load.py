"""Trained modules, from the checkpoints of `structloss fit`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning as L

from ..errors import CheckpointError, DataError
from ..reading import read_yaml
from .checkpoint_io import SafeCheckpointIO
from .lifting import REPOSE_OBJECTIVE, LiftingModule
from .systems import LIFTING, SYSTEMS, System, system_of

__all__ = ["load_module", "load_trained", "objective_of", "trained_arguments"]


def load_module(path: str | os.PathLike[str], system: System) -> tuple[L.LightningModule, dict[str, int]]:
    """The module of a training checkpoint, and the epoch and step that it was saved at.

    Nothing but the checkpoint is read: not the file that the training started from.

    Args:
        path: the checkpoint.
        system: what it must be of.

    Raises:
        MissingFileError, CheckpointError: no such file, unreadable, no training checkpoint, of another system, or not
            of the network that it says.
    """
    checkpoint = SafeCheckpointIO().load_checkpoint(path)
    found, arguments = _module_arguments(path, checkpoint)
    if found != system:
        raise CheckpointError(f"{path} is of {found.says}, expected a checkpoint of {system.says}.")
    # Neither the weights to start from nor the loss network is needed any more.
    unneeded: dict[str, Any] = {name: None for name in ("init_from", "learned", "structure_aware") if name in arguments}
    module = system.classes()[0](**(arguments | unneeded))
    module.on_load_checkpoint(checkpoint)
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} doesn't fit its own description of the network: {reason}.") from error
    return module.eval(), {"epoch": int(checkpoint.get("epoch", 0)), "step": int(checkpoint.get("global_step", 0))}


def load_trained(path: str | os.PathLike[str]) -> tuple[LiftingModule, dict[str, int]]:
    """:func:`load_module` of a lifting network."""
    module, place = load_module(path, LIFTING)
    return cast(LiftingModule, module), place


def trained_arguments(path: str | os.PathLike[str]) -> tuple[System, dict[str, Any], dict[str, Any]]:
    """The system, and the arguments of its module and of its data module, that a training checkpoint is of.

    Those of the data module are empty for a checkpoint of an older version that was moved away from its run's folder.

    Raises:
        MissingFileError, CheckpointError: as :func:`load_module`.
    """
    checkpoint = SafeCheckpointIO().load_checkpoint(path)
    system, model = _module_arguments(path, checkpoint)
    _, data_module = system.classes()
    data = checkpoint.get(data_module.CHECKPOINT_HYPER_PARAMS_KEY)
    if not isinstance(data, Mapping):
        data = _configured_data(Path(path).parent.parent / "config.yaml")
    return system, model, _known(data_module, data)


def _module_arguments(path: str | os.PathLike[str], checkpoint: Mapping[str, Any]) -> tuple[System, dict[str, Any]]:
    stored = checkpoint.get("hyper_parameters")
    stored = stored if isinstance(stored, Mapping) else {}
    told = [system for system in SYSTEMS if isinstance(stored.get(system.network), str)]
    if not told or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} doesn't say which network it is of, expected one written by structloss fit.")
    system = system_of(stored)
    return system, _known(system.classes()[0], stored)


def _known(cls: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those that the constructor of this version has."""
    known = inspect.signature(cls.__init__).parameters  # type: ignore[misc]  # of the class itself, not of an object
    return {key: value for key, value in arguments.items() if key in known}


def _configured_data(path: Path) -> Mapping[str, Any]:
    """The data section of a run's configuration; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        config = read_yaml(path, "the configuration of a run")
    except DataError:  # the checkpoint does without
        return {}
    data = config.get("data") if isinstance(config, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def objective_of(module: LiftingModule) -> dict[str, float]:
    """Loss term -> lambda: what was learned, or else what was set."""
    lambdas = {name: float(value) for name, value in module.loss.current_lambdas().items()}
    return lambdas or {name: float(value) for name, value in (module.hparams["objective"] or REPOSE_OBJECTIVE).items()}
