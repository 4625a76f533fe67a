"""Two processes train like one with the same global batch, however they are started, and go on after a kill."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("lightning")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes talk by gloo's Unix transport"),
]

#: 36 windows a view and epoch: whole batches for one process of 4 and two of 2
COMMAND = [
    "fit", "--config", "repose-tiny", "--data.frames", "54", "--data.num_subjects", "4", "--data.views", "2",
    "--data.clips_per_subject", "2", "--data.window", "9", "--data.stride", "9", "--data.progress", "false",
    "--model.backbone_args", "{dim_feat: 16, dim_rep: 16, depth: 1, num_heads: 2}", "--model.ema", "0.9",
    "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false",
    # No corruptions, which every process draws for itself. Margins leave energies a constant that rounding decides on.
    "--model.learned",
    "{net: linear-small, net_options: {width: 16}, negatives: [prediction], objective: regression, lr: 1.0e-3}",
]  # fmt: skip
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "2", "--data.eval_batch_size", "5"]
ONE = ["--trainer.devices", "1", "--data.batch_size", "4", "--data.eval_batch_size", "5"]
LIGHTNING = [sys.executable, "-m", "structloss.cli"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
METRICS = Path("runs/repose-tiny/version_0/metrics.csv")


def start(folder: Path, launcher: list[str], *extra: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with open(folder / "log", "a") as log:
        return subprocess.Popen(
            [*launcher, *COMMAND, *extra], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def start_both(commands, folder: Path, *arguments: str) -> list[int]:
    """Two processes with the environment that torchrun gives, but already imported; their numbers."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    log = folder / "log"
    return [
        commands.start(folder, *arguments, out=log, err=log, environment={**shared, "RANK": n, "LOCAL_RANK": n})
        for n in ("0", "1")
    ]


def curves(folder: Path) -> dict[str, list[float]]:
    with open(folder / METRICS, newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows if row[key]] for key in rows[0] if key != "epoch"}


@pytest.fixture(scope="module")
def one(tmp_path_factory, commands):
    folder = tmp_path_factory.mktemp("one")
    done = commands.run(folder, *COMMAND, *ONE)
    assert done.returncode == 0, done.stderr
    return folder


def assert_same(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    assert found.keys() == expected.keys() and len(expected["train/loss"]) == 54 and len(expected["val/mpjpe"]) == 3
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=2e-4, abs=1e-6), key


@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_two_processes_make_the_curve_of_one(one, tmp_path, launcher):
    program = LIGHTNING if launcher == "lightning" else [*TORCHRUN, "structloss.cli"]
    assert start(tmp_path, program, *TWO).wait() == 0, (tmp_path / "log").read_text()
    assert_same(curves(tmp_path), curves(one))


def test_two_processes_go_on_after_a_kill(one, tmp_path, commands):
    extra = [*TWO, "--restart.every_steps", "4"]
    both = start_both(commands, tmp_path, *COMMAND, *extra)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/*/checkpoints/resume-00001-*.ckpt")) and time.monotonic() < until:
        time.sleep(0.02)
    for process in both:
        os.kill(process, signal.SIGKILL)
    assert [commands.wait(process) for process in both] == [-signal.SIGKILL] * 2
    assert start(tmp_path, LIGHTNING, *extra).wait() == 0, (tmp_path / "log").read_text()
    assert "resuming" in (tmp_path / "log").read_text()
    assert_same(curves(tmp_path), curves(one))


def test_two_processes_score_like_one(one, tmp_path, commands):
    """No frame twice, and every breakdown the same."""
    command = ["test", *COMMAND[1 : COMMAND.index("--trainer.max_epochs")], *COMMAND[-4:]]
    shutil.copy(one / METRICS.parent / "checkpoints/last.ckpt", tmp_path)  # where it is the checkpoint of no run
    command += ["--ckpt_path", str(tmp_path / "last.ckpt")]
    two = start_both(commands, tmp_path / "two", *command, *TWO)
    (tmp_path / "one").mkdir()
    done = commands.run(tmp_path / "one", *command, *ONE)
    assert done.returncode == 0, done.stderr
    assert [commands.wait(process) for process in two] == [0, 0], (tmp_path / "two" / "log").read_text()
    found = {}
    for name in ("one", "two"):
        (file,) = (tmp_path / name).glob("runs/*/tests/*/test.json")
        found[name] = json.loads(file.read_text())
    assert found["one"].keys() == found["two"].keys() and len(found["one"]["per_joint"]) == 17
    for key in ("metrics", "per_action_mpjpe", "per_action_pa", "protocol", "structure", "truth"):
        assert found["two"][key] == pytest.approx(found["one"][key], rel=1e-5), key
    assert found["two"]["per_action"].keys() == found["one"]["per_action"].keys()
    for part in ("per_action", "per_subject"):
        assert found["one"][part]
        for name, numbers in found["one"][part].items():
            assert found["two"][part][name] == pytest.approx(numbers, rel=1e-5), name
    assert found["two"]["per_joint"] == pytest.approx(found["one"]["per_joint"], rel=1e-5)
