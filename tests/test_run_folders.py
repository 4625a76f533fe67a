"""Where runs and tests are written, what `fit` says as it goes and at its end, and which run `report` takes."""

import json
import os
import pty
import re
import shutil
import threading

import pytest
import torch
import yaml

pytest.importorskip("lightning")

import fake_data

from structloss.cli import main
from structloss.data import MotionDataModule
from structloss.data.formats import write_bvh
from structloss.errors import DataError, MissingFileError
from structloss.harness.callbacks import figure_table, shown_figures
from structloss.harness.run_folder import best_of, read_run

#: two epochs of two steps, validated after each
FIT = [
    "fit", "--config", "repose-tiny", "--data.num_subjects", "2", "--data.clips_per_subject", "1", "--data.frames",
    "60", "--data.views", "1", "--data.window", "9", "--data.stride", "9", "--data.batch_size", "4", "--data.progress",
    "false", "--trainer.max_epochs", "2",
    "--model.backbone_args", "{dim_feat: 16, dim_rep: 16, depth: 1, num_heads: 2}",
]  # fmt: skip
RUN = "runs/repose-tiny/version_0"


@pytest.fixture(scope="module")
def trained(commands, tmp_path_factory):
    """A folder with a run, and what was printed."""
    folder = tmp_path_factory.mktemp("trained")
    done = commands.run(folder, *FIT)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def copy(trained, tmp_path, monkeypatch):
    """A copy of it, as the working directory."""
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_fit_prints(trained):
    folder, out = trained
    lines = out.splitlines()
    assert lines[0] == f"training in {RUN}"
    loss, figures = r"train/loss [\d.]+ \(image units\)", r"val/mpjpe ([\d.]+) mm, val/pa_mpjpe [\d.]+ mm"
    steps = [
        re.match(rf"step (\d)/4, {loss}, {figures}, val/depth_order_joints [\d.]+ %, ", line) for line in lines[1:3]
    ]
    assert [found[1] for found in steps] == ["2", "4"], out
    best = best_of(folder / RUN)
    assert best.step in (2, 4) and f"best validation, step {best.step}, epoch {best.epoch}:" in lines
    assert f"  MPJPE {best.figures['mpjpe']:.1f} mm" in lines and steps[best.epoch][2] == f"{best.figures['mpjpe']:.1f}"
    checkpoint = f"{RUN}/checkpoints/best-epoch={best.epoch}.ckpt"
    assert f"checkpoint: {checkpoint}" in lines and (folder / checkpoint).is_file()
    assert lines[-2:] == [f"next: structloss test --ckpt_path {checkpoint}", f"      structloss report {RUN}"]
    assert "FLOPs" not in out and "/-2" not in out


def test_the_run_has_what_it_had(trained):
    names = {path.name for path in (trained[0] / RUN).iterdir()}
    assert names == {".lock", "checkpoints", "config.yaml", "finished", "hparams.yaml", "metrics.csv"}
    with open(trained[0] / RUN / "metrics.csv") as file:
        assert {"train/loss", "val/mpjpe", "val/pa_mpjpe"} <= set(file.readline().strip().split(","))


def test_the_last_checkpoint_is_of_the_last_step(commands, tmp_path):
    """Also where the best one is older: here nothing is learned, and validation stays as it was."""
    done = commands.run(tmp_path, *FIT, "--model.lr", "1e-30")
    assert done.returncode == 0, done.stderr
    steps = {path.name: torch.load(path, weights_only=True)["global_step"] for path in tmp_path.glob(f"{RUN}/*/*.ckpt")}
    assert steps["best-epoch=0.ckpt"] == 2 and steps["last.ckpt"] == 4, steps


def test_tests_lie_in_the_run_that_they_test(copy, commands):
    last = f"{RUN}/checkpoints/last.ckpt"
    for number in (0, 1):
        done = commands.run(copy, "test", "--ckpt_path", last, "--data.progress", "false")
        assert done.returncode == 0 and f"written to {RUN}/tests/{number}/test.json" in done.stdout, done.stderr
    scores = json.loads((copy / RUN / "tests" / "0" / "test.json").read_text())
    shown = re.search(r"^test/mpjpe, mm +([\d.]+)$", done.stdout, re.M)
    assert float(shown[1]) == pytest.approx(scores["metrics"]["mpjpe"], abs=1e-3)
    assert yaml.safe_load((copy / RUN / "tests" / "0" / "config.yaml").read_text())["ckpt_path"] == last
    done = commands.run(copy, "validate", "--ckpt_path", last, "--data.progress", "false")
    assert done.returncode == 0 and "val/mpjpe, mm " in done.stdout
    assert sorted(path.name for path in (copy / RUN / "tests").iterdir()) == ["0", "1", "2"]
    # a checkpoint of no run: beside the runs, where none is looked for
    shutil.move(copy / last, copy / "apart.ckpt")
    done = commands.run(copy, "test", *FIT[1:-4], "--ckpt_path", "apart.ckpt")
    assert done.returncode == 0 and "written to runs/repose-tiny/tests/0/test.json" in done.stdout, done.stderr
    assert read_run(copy / "runs/repose-tiny").name == "repose-tiny/version_0"


def test_an_untrained_network_is_said_to_be(commands, tmp_path):
    done = commands.run(tmp_path, "validate", *FIT[1:-4])
    assert done.returncode == 0 and "note: an untrained network is scored" in done.stderr


@pytest.mark.parametrize(
    "wrong", [("--trainer.val_check_interval", "99"), ("--data.val_subjects", "[nobody]")], ids=str
)
def test_what_fails_before_training_leaves_no_folder(wrong, commands, tmp_path):
    done = commands.run(tmp_path, *FIT, *wrong)
    assert done.returncode == 1 and done.stderr.startswith(f"structloss: error: {wrong[0]} "), done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_newest_run_with_a_checkpoint_is_taken(copy, capsys):
    """Also among folders as they were before tests had their own: `test` left a version with a configuration."""
    runs = copy / "runs" / "repose-tiny"
    for number in (1, 2):
        (runs / f"version_{number}").mkdir()
        shutil.copy(runs / "version_0" / "config.yaml", runs / f"version_{number}")
    assert read_run(runs).folder == runs / "version_0"
    assert main(["report", str(runs), "--frames", "9", "--clips", "1"]) == 0
    assert "PA-MPJPE" in capsys.readouterr().out and (runs / "version_0" / "report.html").is_file()
    for command, message in (
        (
            ["report", str(runs / "version_2")],
            "version_2 has no checkpoint and no curves, expected a run that was",
        ),
        (["energy", str(runs / "version_2"), "--out", "e"], "version_2 has no checkpoint yet, expected a run that was"),
    ):
        assert main(command) == 1 and message in capsys.readouterr().err
    shutil.rmtree(runs / "version_0" / "checkpoints")
    for command in ("report", "energy"):
        assert main([command, str(runs)]) == 1
        assert (
            "has no run with a checkpoint (version_0, version_1, version_2 have none), expected"
            in capsys.readouterr().err
        )
    with pytest.raises(MissingFileError, match="has no run with a checkpoint"):
        read_run(runs, "last")
    assert not list(copy.rglob("version_[12]/report.html"))


def test_a_run_of_before_there_was_a_setting_goes_on(copy, commands):
    """What the configuration of an unfinished run doesn't name counts as the default."""
    config = copy / RUN / "config.yaml"
    (copy / RUN / "finished").unlink()
    old = yaml.safe_load(config.read_text())
    old["trainer"] |= {"enable_progress_bar": True, "enable_model_summary": None}  # as a terminal wrote it
    del old["data"]["skip_bad"], old["data"]["format"]
    config.write_text(yaml.safe_dump(old))
    done = commands.run(copy, *FIT)
    assert f"resuming {RUN} from step 4" in done.stdout and (copy / RUN / "finished").exists(), (
        done.stdout + done.stderr
    )
    (copy / RUN / "finished").unlink()
    old["data"]["stride"] = 3
    config.write_text(yaml.safe_dump(old))
    assert "training in runs/repose-tiny/version_1" in commands.run(copy, *FIT).stdout, "another stride"


def test_the_root_folder_is_honoured(commands, tmp_path):
    place = ["--trainer.default_root_dir", "elsewhere"]
    done = commands.run(tmp_path, *FIT, *place, "--trainer.limit_val_batches", "0")
    assert done.returncode == 0 and "training in elsewhere/runs/repose-tiny/version_0" in done.stdout, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    # piped, without validations: a line an epoch all the same
    assert re.search(r"\nstep 2/4, train/loss [\d.]+ \(image units\), \d+ s\nstep 4/4, ", done.stdout)
    assert "trained without a validation" in done.stdout and "last.ckpt" in done.stdout
    again = commands.run(tmp_path, *FIT, *place, "--trainer.max_epochs", "3", "--ckpt_path", "last")
    assert again.returncode == 0 and "step 6/6," in again.stdout, again.stderr
    (tmp_path / "mine.yaml").write_text("trainer: {default_root_dir: third, max_steps: 1}")
    assert commands.run(tmp_path, *FIT, "--config", "mine.yaml").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "mine.yaml", "third"], "a recipe's"


def test_a_terminal_has_a_bar_of_steps_and_the_same_lines(commands, tmp_path):
    ours, theirs = pty.openpty()
    seen = []

    def read():
        while True:
            try:
                seen.append(os.read(ours, 65536))
            except OSError:
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    terminal, errors = os.ttyname(theirs), tmp_path / "err"
    process = commands.start(tmp_path, *FIT, out=terminal, err=errors)
    code = commands.wait(process)
    os.close(theirs)
    reader.join(5)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", b"".join(seen).decode())
    assert code == 0, errors.read_text()
    assert "training, steps" in text and "4/4" in text and "/-2" not in text and "FLOPs" not in text
    assert re.search(r"step 2/4, train/loss .*val/mpjpe [\d.]+ mm", text.replace("\r\n", ""))
    assert text.rstrip().endswith(f"structloss report {RUN}")


def test_figures_have_their_units():
    figures = {"depth_order_joints": 0.5, "mpjpe": 45.26, "mpjve": 3.0, "loss": 0.25}
    shown = ["MPJPE 45.3 mm", "MPJVE 3.0 mm/frame", "Depth order, joints 50.0 %", "loss 0.25"]
    assert shown_figures(figures) == shown
    assert shown_figures({"mpjpe": 45.26}, "val/") == ["val/mpjpe 45.3 mm"]
    table = figure_table({"test/p1": 12.0, "test/depth_order_joints": 0.5, "test/mpjpe": 45.26})
    assert [re.sub(" +", " ", line) for line in table] == [
        "test/mpjpe, mm 45.2600", "test/depth_order_joints, % 50.0000", "test/p1, mm 12.0000",
    ]  # fmt: skip


def test_fit_reads_a_folder_of_several_formats_and_leaves_bad_files_out(tmp_path):
    for name in ("a_1", "b_1"):
        write_bvh(tmp_path / f"{name}.bvh", fake_data.world(30, name), 50)
    (tmp_path / "c_1.bvh").write_text("HIERARCHY\nno more")
    (tmp_path / "d_1.c3d").write_bytes(b"no C3D")
    settings = {"data": str(tmp_path), "window": 9, "views": 1, "progress": False}
    with pytest.raises(DataError):
        MotionDataModule(**settings, format="bvh").setup()
    module = MotionDataModule(**settings, format="bvh", skip_bad=True)
    with pytest.warns(UserWarning, match="c_1"):
        module.setup()
    assert len(module.subjects) == 2
