"""`--logger`: TensorBoard, Weights & Biases and MLflow beside a run's own metrics.csv, none of them on a network."""

import csv
import importlib.util
import struct
from pathlib import Path

import pytest

pytest.importorskip("lightning")

from structloss.cli import main
from structloss.commands._arguments import with_loggers
from structloss.errors import ArgumentError, DataError, MissingDependencyError
from structloss.harness import run_loggers
from structloss.harness.run_logger import RunLogger
from structloss.harness.run_loggers import LOGGERS, check_loggers, loggers_beside

FIT = [
    "fit", "--config", "repose-tiny", "--model.backbone_args", "{dim_feat: 16, dim_rep: 16, depth: 1, num_heads: 2}",
    "--data.window", "9", "--data.num_subjects", "2", "--data.clips_per_subject", "1", "--data.frames", "30",
    "--data.views", "1", "--data.batch_size", "2", "--data.progress", "false", "--trainer.max_epochs", "1",
]  # fmt: skip


def installed(name):
    return importlib.util.find_spec(name) is not None


def logged(folder):
    """The training losses in a run's metrics.csv, by step."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}


def in_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert "val/mpjpe" in events.Tags()["scalars"]
    return {event.step: event.value for event in events.Scalars("train/loss")}


def wandb_records(content):
    """What is in a file of W&B: LevelDB's log behind seven bytes, blocks of 32 KiB of pieces with seven bytes each."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if (left := -place % 2**15) and left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def in_wandb(folder):
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found, ended = {}, False
    for data in wandb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        row = {item.key or "/".join(item.nested_key): float(item.value_json) for item in record.history.item}
        if "train/loss" in row:
            found[int(row["trainer/global_step"])] = row["train/loss"]
        ended |= record.HasField("exit")
    assert ended  # with our run, not with the process
    return found


def in_mlflow(folder):
    from mlflow.tracking import MlflowClient

    client = MlflowClient((folder.parents[1] / "mlruns").as_uri())
    (experiment,) = (found for found in client.search_experiments() if found.name == "repose-tiny")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "version_0" and run.info.status == "FINISHED"
    assert run.data.params["backbone"] == "repose-tiny"
    return {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "train/loss")}


FOUND = {"tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow}


@pytest.fixture(scope="module")
def run(tmp_path_factory, commands):
    """A run with all loggers whose packages are here."""
    folder = tmp_path_factory.mktemp("logged")
    there = [name for name in FOUND if installed(name)]
    flags = ["--tensorboard"] if "tensorboard" in there else []
    flags += ["--logger", ",".join(["csv", *(name for name in there if name != "tensorboard")])]
    environment = {"WANDB_MODE": "offline", "MLFLOW_ALLOW_FILE_STORE": "true", "WANDB_SILENT": "true"}
    out, err = folder / "out", folder / "err"
    code = commands.wait(commands.start(folder, *FIT, *flags, out=out, err=err, environment=environment))
    assert code == 0, err.read_text()
    return folder / "runs/repose-tiny/version_0"


@pytest.mark.parametrize("name", FOUND)
def test_a_logger_has_what_metrics_csv_has(run, name, monkeypatch):
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    expected = logged(run)
    assert expected and FOUND[name](run) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_resumed_run_goes_on_in_the_same_place(tmp_path, monkeypatch, name):
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    for key, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    names = []
    for _ in range(2):
        logger = RunLogger(tmp_path / "runs", "recipe", version=3)
        Path(logger.log_dir).mkdir(parents=True, exist_ok=True)
        (other,) = loggers_beside(["csv", name], logger)
        other.log_hyperparams({"lr": 0.1})
        other.log_metrics({"train/loss": 1.0}, step=0)
        names.append(other.version if name == "wandb" else other.run_id)
        other.finalize("success")
    assert names[0] == names[1] and names[0] in (Path(logger.log_dir) / "loggers.json").read_text()


def test_names_of_loggers():
    given = ["--logger", "csv,wandb", "--data.window", "9", "--tensorboard", "--logger=mlflow", "--fresh"]
    assert with_loggers(given) == (
        ["--data.window", "9", "--fresh"],
        ["csv", "wandb", "tensorboard", "mlflow"],
    )
    for wrong in (["--logger"], ["--logger", "--fresh"], ["--logger="]):
        with pytest.raises(ArgumentError, match="--logger has no value, expected csv, tensorboard, wandb or mlflow"):
            with_loggers(wrong)
    with pytest.raises(ArgumentError, match="--logger is 'wandbb', expected one of 'csv', 'tensorboard', 'wandb'"):
        check_loggers(["csv", "wandbb"])


@pytest.mark.parametrize("name", FOUND)
def test_a_missing_package_is_told_in_a_sentence(name, monkeypatch, capsys, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda found: None if found == name else find(found))
    assert check_loggers(["csv", "csv"]) == ("csv",)
    with pytest.raises(MissingDependencyError) as raised:
        check_loggers([name])
    text = str(raised.value)
    assert text.startswith(f'--logger {name} needs {name}, which is not installed: pip install -e ".[{name}]"')
    monkeypatch.chdir(tmp_path)
    assert main([*FIT, "--logger", name]) == 1 and not (tmp_path / "runs").exists()
    assert capsys.readouterr().err.startswith(f"structloss: error: --logger {name} needs {name}")


def test_a_logger_that_can_not_begin_is_told_in_a_sentence(tmp_path, monkeypatch):
    def refuse(run, identity):
        raise RuntimeError("api_key not configured\n(no-tty)")

    monkeypatch.setitem(LOGGERS, "wandb", run_loggers._Kind("wandb", refuse, "WANDB_MODE=offline"))
    logger = RunLogger(tmp_path, "recipe", version=0)
    with pytest.raises(ArgumentError) as raised:
        loggers_beside(["wandb"], logger)
    expected = (
        "--logger wandb can't begin: api_key not configured (no-tty); WANDB_MODE=offline logs on this machine alone."
    )
    assert str(raised.value) == expected
    Path(logger.log_dir).mkdir(parents=True)
    (Path(logger.log_dir) / "loggers.json").write_text('{"wandb": 3}')
    with pytest.raises(DataError, match=r"loggers\.json has no names of loggers' runs"):
        loggers_beside(["wandb"], logger)


def test_scoring_takes_no_logger(capsys):
    assert main(["test", "--config", "repose-tiny", "--logger", "csv"]) == 1
    assert "--logger is given with test, expected it with fit" in capsys.readouterr().err
