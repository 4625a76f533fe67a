"""`--ckpt_path`: the network's arguments, and how its data were cut, are found in the checkpoint."""

import json
import shutil
from pathlib import Path

import fake_data
import pytest
import torch

from structloss.cli import main
from structloss.harness.load import trained_arguments

SIZES = {"filter_widths": [3, 3], "channels": 8}
FEW = ["--trainer.accelerator", "cpu", "--trainer.enable_model_summary", "false", "--data.progress", "false"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of VideoPose3D, of another size than its recipe's, on a folder of Human3.6M's layout."""
    folder = tmp_path_factory.mktemp("trained")
    fake_data.write_h36m_npz(folder, subjects=("S1", "S9"), actions=("Walking",), frames=24, keypoints=("gt",))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        given = ["--config", "videopose3d-27", "--data.data", str(folder), "--seed_everything", "5", *FEW]
        given += ["--model.backbone_args", json.dumps(SIZES), "--data.window", "9", "--data.batch_size", "64"]
        assert main(["fit", *given, "--trainer.max_steps", "2"]) == 0
    (last,) = folder.glob("runs/*/*/checkpoints/last.ckpt")
    return folder, last


def test_checkpoint_holds_the_arguments_of_network_and_data(trained, tmp_path):
    folder, last = trained
    _, model, data = trained_arguments(last)
    assert (model["backbone"], model["backbone_args"], model["seed"]) == ("videopose3d-27", SIZES, 5)
    assert (data["data"], data["window"], data["sampling"], data["target"]) == (str(folder), 9, "centred", "camera")
    content = torch.load(last, weights_only=True)
    del content["datamodule_hyper_parameters"]  # as earlier versions wrote it: the run's config.yaml serves
    older = tmp_path / "version_0" / "checkpoints" / "last.ckpt"
    older.parent.mkdir(parents=True)
    torch.save(content, older)
    assert trained_arguments(older)[1:] == (model, {})
    shutil.copy(last.parent.parent / "config.yaml", older.parent.parent)
    assert trained_arguments(older)[2]["window"] == 9


@pytest.mark.parametrize("given", ["data", "nothing"])
@pytest.mark.parametrize("command", ["test", "validate"])
def test_neither_recipe_nor_sizes_are_needed(trained, tmp_path, monkeypatch, capsys, command, given):
    """The checkpoint alone, wherever it lies; its own data are taken where none are given."""
    folder, last = trained
    monkeypatch.chdir(tmp_path)
    alone = str(shutil.copy(last, tmp_path / "alone.ckpt"))
    data = ["--data.data", str(folder)] if given == "data" else []
    assert main([command, "--ckpt_path", alone, *data, *FEW]) == 0, capsys.readouterr().err
    assert "mpjpe" in capsys.readouterr().out


def test_a_recipe_need_not_be_completed(trained, tmp_path, monkeypatch):
    """The recipe has networks of another size and longer windows; flags that agree may be given."""
    folder, last = trained
    monkeypatch.chdir(tmp_path)
    given = ["--config", "videopose3d-27", "--data.data", str(folder), f"--ckpt_path={last}", *FEW]
    assert main(["validate", *given]) == 0
    given += ["--model.backbone_args.channels", "8", "--data.window", "9"]
    assert main(["validate", *given]) == 0


def test_training_resumes(trained, tmp_path, monkeypatch, capsys):
    folder, last = trained
    monkeypatch.chdir(tmp_path)
    before = torch.load(last, weights_only=True)["global_step"]
    given = ["fit", "--ckpt_path", str(last), "--data.data", str(folder), *FEW, "--trainer.max_steps", str(before + 1)]
    assert main(given) == 0, capsys.readouterr().err
    (after,) = Path("runs").glob("*/*/checkpoints/last.ckpt")
    content = torch.load(after, weights_only=True)
    assert content["global_step"] == before + 1 and content["hyper_parameters"]["backbone_args"] == SIZES
    assert content["hyper_parameters"]["optimizer"] == "amsgrad"  # the recipe's, though it was not given again


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            ["--model.backbone", "mixste-27"],
            "backbone 'videopose3d-27', expected 'mixste-27', as --model.backbone says",
        ),
        (["--model.backbone_args.channels", "16"], "'channels': 16}, as --model.backbone_args says"),
        (["--model.backbone_args", "{channels: 16}"], "expected {'channels': 16}, as --model.backbone_args says"),
        (["--data.target", "global"], "with target 'camera', expected 'global', as --data.target says"),
        (["--data.skeleton", "mpi_inf_3dhp"], "with skeleton 'h36m', expected 'mpi_inf_3dhp', as --data.skeleton says"),
        (["--model.refine", "jointformer-h36m-refine"], "with refine None, expected 'jointformer-h36m-refine'"),
        (["--config", "mixste-27"], "backbone 'videopose3d-27', expected 'mixste-27', as --config says"),
    ],
)
def test_what_contradicts_the_checkpoint_is_refused(trained, tmp_path, monkeypatch, capsys, given, sentence):
    folder, last = trained
    monkeypatch.chdir(tmp_path)
    assert main(["test", "--ckpt_path", str(last), "--data.data", str(folder), *FEW, *given]) == 1
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, capsys):
    (tmp_path / "notes.ckpt").write_text("no checkpoint")
    other = {"pytorch-lightning_version": "2.5.0", "state_dict": {}, "hyper_parameters": {"backbone": 50}}
    torch.save(other, tmp_path / "other.ckpt")
    for name, sentence in (
        ("notes.ckpt", "can't be read, expected one written by"),
        ("none.ckpt", "does not exist"),
        ("other.ckpt", "doesn't say which network it is of"),
    ):
        assert main(["test", "--ckpt_path", str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1, error
