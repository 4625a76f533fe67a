"""Loggers of others beside a run's own metrics.csv: TensorBoard, Weights & Biases, MLflow.

Each logs into the run's folder, or where its own settings say, under the recipe's name and the run's version. A run
that is resumed goes on in the same place: what it is called there is kept in `loggers.json` of the run's folder.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from ..errors import ArgumentError, DataError, MissingDependencyError, check_choice, how_to_install
from ..files import write_json
from ..reading import read_json
from .run_logger import RunLogger

__all__ = ["LOGGERS", "check_loggers", "loggers_beside"]

_KEPT = "loggers.json"


_Make = Callable[[RunLogger, "str | None"], "tuple[Any, str | None]"]


@dataclass(frozen=True)
class _Kind:
    """A logger that may be asked for by name.

    Attributes:
        package: that it needs, which is also the extra's name; None for our own.
        make: from the run's own logger and the identity that an earlier part of the run had, to the logger and its
            identity.
        offline: what to set for it to need no network, for messages.
    """

    package: str | None = None
    make: _Make | None = None
    offline: str = ""


def _tensorboard(run: RunLogger, identity: str | None) -> tuple[Logger, str | None]:
    # Of a run that is resumed, what was logged after the checkpoint is to be left out.
    purge: dict[str, Any] = {"purge_step": run.first_step} if run.first_step else {}
    return TensorBoardLogger(run.save_dir, run.name, version=run.version, **purge), None


class _Wandb(WandbLogger):
    """Ends the run in Weights & Biases with ours, not with the process."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        import wandb

        if wandb.run is not None:
            wandb.run.finish(exit_code=int(status != "success"))


def _wandb(run: RunLogger, identity: str | None) -> tuple[Logger, str | None]:
    import wandb

    identity = identity or secrets.token_hex(4)
    settings = wandb.Settings(console="off")  # what the run prints stays here
    logger = _Wandb(
        name=_version(run), save_dir=run.log_dir, project=run.name, id=identity, resume="allow", settings=settings
    )
    return logger, identity


def _mlflow(run: RunLogger, identity: str | None) -> tuple[Logger, str | None]:
    place = os.environ.get("MLFLOW_TRACKING_URI")
    if place is None:
        place = Path(run.save_dir, "mlruns").absolute().as_uri()
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else a database is asked for
    logger = MLFlowLogger(experiment_name=run.name, run_name=_version(run), tracking_uri=place, run_id=identity)
    return logger, logger.run_id  # asks for the run, which makes it


#: name -> what it is; "csv" is the run's own, which is always written
LOGGERS: dict[str, _Kind] = {
    "csv": _Kind(),
    "tensorboard": _Kind("tensorboard", _tensorboard),
    "wandb": _Kind("wandb", _wandb, "WANDB_MODE=offline"),
    "mlflow": _Kind("mlflow", _mlflow, "no MLFLOW_TRACKING_URI"),
}


def check_loggers(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once.

    Raises:
        ArgumentError: an unknown one.
        MissingDependencyError: its package is not installed.
    """
    for name in names:
        package = LOGGERS[check_choice("--logger", name, tuple(LOGGERS))].package
        if package is not None and importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"--logger {name} needs {package}, which is not installed: {how_to_install(package)}."
            )
    return tuple(dict.fromkeys(names))


def loggers_beside(names: Sequence[str], run: RunLogger) -> list[Logger]:
    """Begin to log with all of these, for the run of a folder that exists.

    Args:
        names: of :data:`LOGGERS`.
        run: the run's own logger.

    Raises:
        ArgumentError: one can't begin: no network, no account, a server that refuses.
    """
    known, found = _known(run), []
    for name in names:
        kind = LOGGERS[name]
        if kind.make is None:
            continue
        try:
            logger, identity = _begun(kind.make, run, known.get(name))
        except Exception as error:  # whatever their clients raise
            reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
            hint = f"; {kind.offline} logs on this machine alone" if kind.offline else ""
            raise ArgumentError(f"--logger {name} can't begin: {reason}{hint}.") from error
        if identity is not None and known.get(name) != identity:
            known[name] = identity
            _keep(run, known)
        found.append(logger)
    return found


def _begun(make: _Make, run: RunLogger, identity: str | None) -> tuple[Logger, str | None]:
    logger, identity = make(run, identity)
    _ = logger.experiment  # which begins the run, in the first process
    return logger, identity


def _known(run: RunLogger) -> dict[str, str]:
    """Name of a logger -> what the run is called there."""
    path = Path(run.log_dir) / _KEPT
    if not path.is_file():
        return {}
    content = read_json(path, "the names of loggers' runs")
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise DataError(f"{path} has no names of loggers' runs, expected an object of texts.")
    return content


@rank_zero_only
def _keep(run: RunLogger, known: dict[str, str]) -> None:
    write_json(Path(run.log_dir) / _KEPT, known)


def _version(run: RunLogger) -> str:
    return Path(run.log_dir).name
