"""Runs that are killed, told to stop, or find their disk full go on, bit by bit as if nothing had happened."""

import contextlib
import csv
import hashlib
import json
import os
import random
import signal
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fit_server import Commands

pytest.importorskip("lightning")

from structloss.harness.restart import Restart

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked")

#: an epoch of 18 batches; everything that has a state
COMMAND = [
    "fit", "--config", "repose-tiny", "--data.frames", "60", "--data.num_subjects", "4", "--data.views", "2",
    "--data.clips_per_subject", "2", "--data.window", "9", "--data.stride", "9", "--data.batch_size", "4",
    "--data.progress", "false", "--model.ema", "0.9",
    "--model.backbone_args", "{drop_path_rate: 0.2, dim_feat: 16, dim_rep: 16, depth: 1, num_heads: 2}",
    "--trainer.accumulate_grad_batches", "2", "--trainer.max_epochs", "6", "--trainer.val_check_interval", "0.5",
    "--trainer.enable_model_summary", "false", "--loss", "learned",
    "--model.learned", "{net: linear-small, net_options: {width: 16}, lr: 1.0e-3}",
    "--model.objective_options", "{depth_ranking_frames: {resolution: 0.05}}",
]  # fmt: skip
RUN = Path("runs/repose-tiny/version_0")


class Fits:
    """Runs of COMMAND with a log in their folder."""

    def __init__(self, commands: Commands) -> None:
        self.commands, self.wait = commands, commands.wait

    def start(self, folder: Path, *extra: str, file_limit: int = 0) -> int:
        folder.mkdir(exist_ok=True)
        log = folder / "log"
        return self.commands.start(folder, *COMMAND, *extra, out=log, err=log, file_limit=file_limit)

    def run(self, folder: Path, *extra: str, **options: int) -> int:
        return self.wait(self.start(folder, *extra, **options))


@pytest.fixture(scope="session")
def fits(commands):
    return Fits(commands)


EVERY_TWO = ["--restart.every_steps", "2"]


@pytest.fixture(scope="session")  # slow tests come first: the module is entered twice
def whole(fits, once):
    """The run that nothing happens to."""

    def run(folder):
        assert fits.run(folder, *EVERY_TWO) == 0, (folder / "log").read_text()

    return once("whole", run)


def last_checkpoint(folder: Path) -> dict:
    path = max((folder / RUN / "checkpoints").glob("resume-*.ckpt"))
    return torch.load(path, weights_only=True)


def same(a, b, place="checkpoint"):
    """Bitwise equality of nested containers, but for clock times."""
    assert type(a) is type(b), place
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{place}[{i}]")
    elif not isinstance(a, (str, bytes)):
        assert a == b or a != a, place


def assert_same_run(folder: Path, whole: Path) -> None:
    assert [path.name for path in folder.glob("runs/*/*")] == ["version_0"]
    assert_log_and_weights(folder, whole)


def assert_log_and_weights(folder: Path, whole: Path) -> None:
    log = (folder / "log").read_text()
    assert (folder / RUN / "metrics.csv").read_text() == (whole / RUN / "metrics.csv").read_text(), log
    assert (folder / RUN / "finished").exists()
    found, expected = last_checkpoint(folder), last_checkpoint(whole)
    for checkpoint in (found, expected):  # counters of what happened since the process began
        checkpoint.pop("callbacks")
        checkpoint.pop("loops")
    same(found, expected)
    assert "current_model_state" in found  # the average and the weights themselves


def steps_saved(folder: Path) -> int:
    """The step of the newest checkpoint to resume from."""
    names = [path.name for path in (folder / RUN / "checkpoints").glob("resume-*.ckpt")]
    return int(max(names)[-14:-5]) if names else 0


@pytest.mark.slow(seconds=15)
def test_a_number_of_steps_ends_a_run_that_was_killed_after_an_epoch(fits, tmp_path):
    """An epoch has 9 steps; the checkpoint of the first comes after the tenth."""
    steps = ["--trainer.max_epochs", "-1", "--trainer.max_steps", "26", "--restart.every_seconds", "1000"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert fits.run(whole, *steps) == 0, (whole / "log").read_text()
    process, until = fits.start(killed, *steps), time.monotonic() + 60
    while not steps_saved(killed) and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    assert fits.wait(process) == -signal.SIGKILL and steps_saved(killed) in (10, 19)
    assert fits.run(killed, *steps) == 0 and "resuming" in (killed / "log").read_text()
    assert_same_run(killed, whole)


@pytest.mark.slow(seconds=60)
def test_twenty_kills_at_random_points_change_nothing(fits, whole, tmp_path):
    """Every fifth comes while a run is starting, the others where one has made some steps since the last."""
    chance, folder = random.Random(20), tmp_path / "killed"
    for kill in range(20):
        before = steps_saved(folder)
        process = fits.start(folder, *EVERY_TWO)
        if kill % 5:
            until = time.monotonic() + 30
            while steps_saved(folder) == before and time.monotonic() < until:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.15))
        else:
            time.sleep(chance.uniform(0, 1.5))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        code = fits.wait(process)
        assert code == -signal.SIGKILL, f"ended with {code} after {kill} kills: {(folder / 'log').read_text()}"
    assert fits.run(folder, *EVERY_TWO) == 0, (folder / "log").read_text()
    assert (folder / "log").read_text().count("resuming") >= 15
    assert_same_run(folder, whole)


def test_an_interrupted_run_says_what_the_command_does_then(tmp_path, capsys):
    """With --fresh it would begin anew, and without a checkpoint there is nothing to resume."""
    trainer = SimpleNamespace(
        is_global_zero=True, state=SimpleNamespace(fn="fit"), logger=SimpleNamespace(log_dir=str(tmp_path))
    )
    Restart().on_exception(trainer, None, KeyboardInterrupt())
    assert capsys.readouterr().out == "interrupted before the first checkpoint; the same command begins anew\n"
    (tmp_path / "checkpoints").mkdir()
    for step in (2, 12):
        (tmp_path / "checkpoints" / f"resume-00001-{step:09d}.ckpt").touch()
    Restart().on_exception(trainer, None, KeyboardInterrupt())
    assert capsys.readouterr().out == "interrupted; the same command, without --fresh, resumes from step 12\n"


def test_sigterm_saves_and_says_how_to_go_on(fits, whole, tmp_path):
    folder = tmp_path / "stopped"
    process = fits.start(folder, *EVERY_TWO[:1], "1000")
    until = time.monotonic() + 60
    while "step 9/54," not in read_log(folder) and time.monotonic() < until:  # the first validation has been
        time.sleep(0.01)
    os.kill(process, signal.SIGTERM)
    assert fits.wait(process) == 143, read_log(folder)
    stopped = steps_saved(folder)
    assert stopped >= 9 and f"resumes from step {stopped}" in read_log(folder)
    assert fits.run(folder, *EVERY_TWO[:1], "1000") == 0
    assert f"resuming {RUN} from step {stopped}" in read_log(folder)
    # Checkpoints lie elsewhere than in the reference, what is in the last one does not depend on it.
    config, expected = ((place / RUN / "config.yaml").read_text() for place in (folder, whole))
    assert config.replace("every_steps: 1000", "every_steps: 2") == expected
    assert_same_run(folder, whole)


def read_log(folder: Path) -> str:
    path = folder / "log"
    return path.read_text() if path.exists() else ""


def interrupted(fits, folder: Path, *extra: str) -> None:
    """Kill a run some steps after it has begun to keep checkpoints."""
    process = fits.start(folder, *EVERY_TWO, *extra)
    until = time.monotonic() + 60
    while steps_saved(folder) < 6 and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    assert fits.wait(process) == -signal.SIGKILL


@pytest.mark.parametrize("damage", ["truncated", "a bit"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(fits, whole, tmp_path, damage):
    folder = tmp_path / "damaged"
    interrupted(fits, folder)
    newest, before = sorted((folder / RUN / "checkpoints").glob("resume-*.ckpt"), reverse=True)[:2]
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 16
    newest.write_bytes(content)
    step = int(before.stem[-9:])
    config = folder / RUN / "config.yaml"  # its first line: the version of Lightning
    config.write_text(config.read_text().replace("# lightning.pytorch==", "# lightning.pytorch==1."))
    assert fits.run(folder, *EVERY_TWO) == 0, read_log(folder)
    log = read_log(folder)
    assert "damaged" in log and "The one before it is used" in log and f"from step {step}" in log
    assert_same_run(folder, whole)


@pytest.mark.slow(seconds=20)
def test_a_new_run_begins_when_the_last_is_over_another_or_not_wanted(fits, whole, tmp_path):
    folder = tmp_path / "several"
    interrupted(fits, folder)
    short = ["--trainer.max_epochs", "1"]
    assert fits.run(folder, *EVERY_TWO, "--fresh", *short) == 0
    assert fits.run(folder, *EVERY_TWO, "--model.lr", "1e-4", *short) == 0
    assert fits.run(folder, *EVERY_TWO, *short) == 0  # the first of these is over
    found = sorted(path.name for path in folder.glob("runs/repose-tiny/*"))
    assert found == ["version_0", "version_1", "version_2", "version_3"]
    assert not (folder / RUN / "finished").exists()
    assert fits.run(folder, *EVERY_TWO) == 0
    assert_log_and_weights(folder, whole)


def test_the_same_command_beside_a_running_one_is_another_run(fits, tmp_path):
    folder = tmp_path / "both"
    process = fits.start(folder, "--trainer.max_epochs", "1000")
    until = time.monotonic() + 60
    while not (folder / RUN / "config.yaml").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert fits.run(folder, "--trainer.max_epochs", "1000", "--trainer.max_time", "00:00:00:01") == 0
    assert (folder / "runs/repose-tiny/version_1/config.yaml").exists()
    os.kill(process, signal.SIGKILL)
    fits.wait(process)


@pytest.mark.slow(seconds=12)
def test_a_full_disk_is_an_error_and_the_last_checkpoint_stays(fits, whole, tmp_path):
    folder = tmp_path / "full"
    interrupted(fits, folder)
    kept = sorted((folder / RUN / "checkpoints").glob("resume-*.ckpt"))
    contents = [path.read_bytes() for path in kept]
    assert fits.run(folder, *EVERY_TWO, file_limit=100_000) == 1
    error = read_log(folder).splitlines()[-1]
    assert error.startswith("structloss: error: ") and "can't be written, the disk may be full" in error
    assert [path.read_bytes() for path in kept] == contents
    assert not list((folder / RUN / "checkpoints").glob(".*"))
    assert fits.run(folder, *EVERY_TWO) == 0
    assert_same_run(folder, whole)


def test_weights_that_are_not_finite_are_not_saved(fits, tmp_path):
    folder = tmp_path / "nan"
    assert fits.run(folder, "--restart.every_steps", "1", "--model.lr", "1e30", "--model.schedule", "exponential") == 1
    error = read_log(folder).splitlines()[-1]
    assert error.startswith("structloss: error: ") and ("NaN" in error or "nan" in error or "inf" in error), error
    for path in (folder / RUN / "checkpoints").glob("*.ckpt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.slow(seconds=8)
def test_a_run_begun_before_the_files_moved_goes_on(fits, tmp_path):
    """A folder that commit fdebd44 wrote, killed at step 26, and what that commit itself made of it.

    Bitwise on the kind of processor it was made on; elsewhere the same but for rounding, since matrix products differ.
    """
    with tarfile.open(Path(__file__).parent / "golden" / "run_made_before_the_move.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    before = (tmp_path / RUN / "metrics.csv").read_text().splitlines()[:-1]  # rows since the checkpoint may be cut
    since = ["--model.objective_options", "null"]  # what COMMAND has and that run had not
    assert fits.run(tmp_path, *EVERY_TWO, *since) == 0, read_log(tmp_path)
    assert f"{RUN} from step 26" in read_log(tmp_path)
    assert [path.name for path in tmp_path.glob("runs/*/*")] == ["version_0"]
    found, expected = (tmp_path / RUN / "metrics.csv"), (tmp_path / "expected_metrics.csv")
    assert found.read_text().splitlines()[: len(before)] == before
    made_on = json.loads((tmp_path / "made_on.json").read_text())
    weights = last_checkpoint(tmp_path)["state_dict"]
    assert weights.keys() == made_on["weights"].keys()
    here = {"cpu": _processor(), "capability": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}
    new_numpy = not np.__version__.startswith("1.")  # whose sines, and so the synthetic motion, have other last bits
    if new_numpy and here == {key: made_on[key] for key in here}:
        # Every column to the letter, but the velocity error: it counts steps between windows since, too.
        ours, theirs = (list(csv.DictReader(path.open())) for path in (found, expected))
        velocity = [(row.pop("val/mpjve"), other.pop("val/mpjve")) for row, other in zip(ours, theirs, strict=True)]
        assert ours == theirs
        assert all(a == b or float(a) == pytest.approx(float(b), rel=0.01) for a, b in velocity)
        for name, value in weights.items():
            assert hashlib.sha256(value.numpy().tobytes()).hexdigest()[:16] == made_on["weights"][name], name
        return
    ours, theirs = (list(csv.DictReader(path.open())) for path in (found, expected))
    assert len(ours) == len(theirs)
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        for name in ("step", "train/mpjpe", "train/depth_ranking_frames", "val/mpjpe"):
            assert bool(row[name]) == bool(other[name])
            assert not row[name] or float(row[name]) == pytest.approx(float(other[name]), rel=1e-3)


def _processor() -> list[str]:
    """What tells one processor's arithmetic from another's."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return [line for line in lines if line.startswith(("cpu family", "model", "stepping", "flags"))][:5]
