"""The versions that pyproject.toml allows: what they bound is there, and each lower bound is written once more.

Lightning's bounds come from the names below, which are not part of its public interface; before another version is
allowed, this file and test_restart.py must pass with it.
"""

import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_private_parts_of_lightning():
    """restart.py asks whether a validation comes next, and writes a step's row before its checkpoint."""
    pytest.importorskip("lightning")
    from lightning.pytorch.loops.fit_loop import _FitLoop
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
    from lightning.pytorch.trainer.connectors.logger_connector import _LoggerConnector

    assert parameters(_TrainingEpochLoop._should_check_val_fx) == ["self", "data_fetcher"]
    assert parameters(_LoggerConnector.update_train_step_metrics) == ["self"]
    assert "self._data_fetcher" in inspect.getsource(_FitLoop.__init__)


def test_private_parts_of_the_csv_logger():
    """run_logger.py gives it a writer and a version of its own."""
    pytest.importorskip("lightning")
    from lightning.pytorch.loggers import CSVLogger
    from lightning.pytorch.loggers.csv_logs import ExperimentWriter

    logger = CSVLogger(".")
    assert {"_experiment", "_version", "_fs"} <= vars(logger).keys()
    assert parameters(ExperimentWriter.__init__) == ["self", "log_dir"]
    assert parameters(ExperimentWriter._check_log_dir_exists) == ["self"]


def test_private_parts_of_lightning_cli():
    """_lightning.py looks for a run to resume where the arguments of a subcommand are made."""
    pytest.importorskip("lightning")
    from lightning.pytorch.cli import LightningCLI

    for method in (LightningCLI._prepare_subcommand_kwargs, LightningCLI._run_subcommand, LightningCLI._parser):
        assert parameters(method) == ["self", "subcommand"]


def test_the_average_of_weights_keeps_both():
    """Checkpoints hold the average and, under a name of Lightning's, the weights themselves."""
    pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import EMAWeightAveraging

    assert "current_model_state" in inspect.getsource(EMAWeightAveraging.on_save_checkpoint)


def test_the_lower_bounds_are_those_of_the_package():
    """constraints/lower-bounds.txt names the first version of each requirement, and of nothing else."""
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {}
    for line in sum(project["optional-dependencies"].values(), project["dependencies"]):
        if match := re.match(r"([\w.-]+)(?:\[[\w,]+\])?([^;]*)", line):
            name, bounds = match[1], match[2]
            if found := re.search(r">=\s*([\w.]+)", bounds):
                wanted[name] = [int(part) for part in found[1].split(".")]
    wanted.pop("torch")  # make's TORCH
    lines = (ROOT / "constraints" / "lower-bounds.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pinned.keys() == wanted.keys()
    for name, version in pinned.items():
        parts = [int(part) for part in version.split(".")]
        length = max(len(parts), len(wanted[name]))
        padded = [x + [0] * (length - len(x)) for x in (parts, wanted[name])]
        assert padded[0] == padded[1], f"{name}=={version}"
