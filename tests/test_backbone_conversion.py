"""Conversion of weights: published to ours and back, checkpoints of runs to what the authors' code reads."""

import json
import os
import re

import pytest
import torch

from structloss import backbones
from structloss.backbones.official import to_official
from structloss.cli import main
from structloss.errors import ArgumentError, CheckpointError

#: variant -> arguments of a small network, and entry and prefix of its published files: ../shared/spec/backbones/
CASES = {
    "d3dp-243": ({"frames": 5, "depth": 1, "embed_dim": 32}, "model_pos", "module."),
    "jointformer-h36m": ({"dim_feat": 16, "depth": 2, "head_dim": 4}, "state_dict", ""),
    "jointformer-h36m-refine": ({"dim_feat": 16, "depth": 2, "head_dim": 4}, "state_dict", ""),
    "jointformer-h3wb": ({"dim_feat": 4, "depth": 1, "head_dim": 2}, "", ""),
    "ktpformer-27": ({"frames": 5, "depth": 1, "embed_dim": 32}, "model_pos", "module."),
    "mhformer-81": ({"frames": 36, "dim": 16, "hidden": 16, "depth": 2, "mhg_depth": 1}, "", ""),
    "mixste-27": ({"frames": 5, "depth": 1, "embed_dim": 32}, "model_pos", "module."),
    "motionagformer-xsmall": ({"depth": 1, "dim_feat": 16}, "model", "module."),
    "motionbert-lite": ({"depth": 1, "dim_feat": 16, "dim_rep": 16}, "model_pos", "module."),
    "poseformer-27": ({"depth": 1, "embed_dim_ratio": 8}, "model_pos", "module."),
    "poseformerv2-27-3-3": ({"depth": 1, "embed_dim_ratio": 8}, "model_pos", "module."),
    "pstmo-s-3dhp-81": ({"depth": 1, "dim": 16, "hidden": 16, "encoder_width": 16}, "", "module."),
    "pstmo-pretrain-243": ({"depth": 1, "decoder_depth": 1, "dim": 16, "hidden": 16}, "", "module."),
    "pstmo-refine": ({"hidden": 8}, "", "module."),
    "repose-tiny": ({"depth": 1, "dim_feat": 16, "dim_rep": 16}, "model_pos", "module."),
    "semgcn-nonlocal": ({"depth": 1, "dim_feat": 16}, "state_dict", ""),
    "simplebaseline-16j": ({"linear_size": 8}, "state_dict", ""),
    "simplebaseline-h3wb": ({"linear_size": 8}, "", ""),
    "stcformer-27": ({"depth": 1, "dim": 32}, "", ""),
    "stcformer-3dhp-81": ({"depth": 1, "dim": 32}, "", ""),
    "videopose3d-27": ({"filter_widths": [3, 3], "channels": 8}, "model_pos", ""),
}
SMALL = "videopose3d-27"


def randomised(name, **overrides):
    torch.manual_seed(0)
    model = backbones.create(name, **(CASES[name][0] | overrides))
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.normal_()
        else:
            value.fill_(7)
    return model


def published(name, model=None):
    """A stand-in for a file of the authors."""
    _, entry, prefix = CASES[name]
    model = model or randomised(name)
    weights = {prefix + key: value.clone() for key, value in (to_official(model) | model.constants()).items()}
    return {"epoch": 60, entry: weights} if entry else weights


def same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, dict):
            same(found[key], value)
        else:
            equal = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
            assert equal(found[key], value) and getattr(found[key], "dtype", None) == getattr(value, "dtype", None), key


def run(*arguments):
    return main(["backbones", "convert", *map(str, arguments)])


def test_every_family_is_converted():
    ours = {"lift"}  # nobody else has published weights of it
    assert {backbones.info(name).family for name in backbones.names()} - ours == {
        backbones.info(name).family for name in CASES
    }


@pytest.mark.parametrize("name", CASES)
def test_published_to_ours_to_published(name, tmp_path):
    """The file of the authors, through ours, is the file of the authors: keys, shapes, dtypes and values."""
    content = published(name)
    torch.save(content, tmp_path / "theirs.bin")
    sizes = json.dumps(CASES[name][0])
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.bin"
    assert run(tmp_path / "theirs.bin", ours, "--model", name, "--backbone-args", sizes) == 0
    assert run(ours, back, "--to", "published") == 0  # the file says which network it is of, and of which size
    same(torch.load(back, weights_only=True), content)
    assert sorted(os.listdir(tmp_path)) == ["back.bin", "ours.safetensors", "theirs.bin"]


def test_schedule_of_d3dp_is_written_with_its_weights():
    """The 12 buffers that the authors' strict loading wants, by the definitions of DDPM."""
    model = randomised("d3dp-243")
    constants = model.constants()
    assert set(constants) == set(model.official_constants.split("|"))
    assert all(value.dtype == torch.float64 and value.shape == (1000,) for value in constants.values())
    beta, kept = constants["betas"], constants["alphas_cumprod"]
    torch.testing.assert_close(kept, torch.cumprod(1 - beta, 0))
    # the posterior's mean of x_{t-1} is the clean pose where the noisy one is that of the clean one without noise
    mean = constants["posterior_mean_coef1"] + constants["posterior_mean_coef2"] * kept.sqrt()
    torch.testing.assert_close(mean, constants["alphas_cumprod_prev"].sqrt())
    assert constants["posterior_variance"][0] == 0 and constants["alphas_cumprod_prev"][0] == 1


def test_run_and_checkpoint_become_published_files(tmp_path, capsys):
    """A checkpoint says of itself which network it is of; the folder of a run stands for its checkpoint."""
    model = randomised(SMALL)
    content = {
        "pytorch-lightning_version": "2.5.0",
        "epoch": 3,
        "hyper_parameters": {"backbone": SMALL, "backbone_args": {"filter_widths": [3, 3], "channels": 8}},
        "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()},
    }
    folder = tmp_path / "version_0"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("model: {}\n")
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    for source in (folder, folder / "checkpoints" / "last.ckpt"):
        assert run(source, tmp_path / "theirs.bin", "--to", "published") == 0
        same(torch.load(tmp_path / "theirs.bin", weights_only=True), published(SMALL, model) | {"epoch": 4})
    assert "written to" in capsys.readouterr().out
    assert run(folder, tmp_path / "theirs.bin", "--to", "published", "--model", "videopose3d-81") == 1
    error = capsys.readouterr().err
    assert re.search("--model is 'videopose3d-81', expected 'videopose3d-27', which .*last.ckpt is of", error), error
    assert run(folder, tmp_path / "theirs.bin", "--to", "published", "--backbone-args", "{channels: 4}") == 1
    assert "--backbone-args is {'channels': 4}, expected {'filter_widths'" in capsys.readouterr().err


def test_statistics_have_no_place_in_a_published_file(tmp_path):
    model = randomised("simplebaseline-16j")
    content = {
        "pytorch-lightning_version": "2.5.0",
        "epoch": 0,
        "hyper_parameters": {"backbone": "simplebaseline-16j", "backbone_args": {"linear_size": 8}},
        "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()},
        "statistics": {"input_mean": torch.zeros(17, 2)},
    }
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match="means and deviations that its poses are standardised by"):
        backbones.convert(tmp_path / "last.ckpt", tmp_path / "theirs.pth", to="published")


def test_both_stages_of_jointformer_become_one_file(tmp_path):
    pose = randomised("jointformer-h36m", num_heads=2)
    second = backbones.create("jointformer-h36m-refine", dim_feat=16, depth=1, num_heads=2, head_dim=4)
    path = backbones.save_published(second.after(pose), tmp_path / "refine.pth", "jointformer-h36m", epochs=2)
    found = torch.load(path, weights_only=True)
    assert found["epoch"] == 2
    same(found["state_dict"], to_official(second))
    same(found["jt_state_dict"], to_official(pose))
    for model in (pose, second):
        fresh = type(model)(**CASES["jointformer-h36m"][0] | {"num_heads": 2} | ({} if model is pose else {"depth": 1}))
        backbones.load_published(fresh, path)
        same(fresh.state_dict(), model.state_dict())
    with pytest.raises(ArgumentError, match="expected 'safetensors' for both stages of jointformer-h3wb"):
        backbones.save_published(second.after(pose), tmp_path / "x.pth", "jointformer-h3wb")


def test_what_does_not_fit_is_refused(tmp_path, capsys):
    torch.save(published(SMALL), tmp_path / "theirs.bin")
    for arguments, sentence in (
        (["x.safetensors"], "--model is not given, expected that of a backbone"),
        (["x.bin", "--model", SMALL], "x.bin', expected a name that ends in .safetensors, or "),
        (["x.safetensors", "--model", SMALL, "--to", "published"], "expected a name such as weights.pth"),
        (["x.safetensors", "--model", SMALL, "--backbone-args", "3"], "--backbone-args is 3, expected a mapping"),
        (["x.safetensors", "--model", SMALL, "--backbone-args", "{chanels: 8}"], "chanels is not an override of"),
        (["x.safetensors", "--model", SMALL], "is not a checkpoint of this VideoPose3D"),
        (["no/x.safetensors", "--model", SMALL], "expected the directory to write"),
    ):
        assert run(tmp_path / "theirs.bin", tmp_path / arguments[0], *arguments[1:]) == 1
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1, error
    assert os.listdir(tmp_path) == ["theirs.bin"]


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = backbones.save_published(randomised(SMALL), tmp_path / "w.bin", SMALL)
    old = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        backbones.save_published(randomised(SMALL), path, SMALL, epochs=5)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["w.bin"]


def test_trajectory_network_of_a_published_file(tmp_path):
    """VideoPose3D's semi-supervised files hold two networks; each is found by its shapes."""
    pose, trajectory = randomised(SMALL), backbones.create(SMALL, **CASES[SMALL][0], joints_out=1)
    content = published(SMALL, pose) | {"model_traj": to_official(trajectory), "random_state_semi": None}
    torch.save(content, tmp_path / "semi.bin")
    for model in (pose, trajectory):
        fresh = backbones.create(SMALL, **CASES[SMALL][0], joints_out=model.joints_out)
        backbones.load_published(fresh, tmp_path / "semi.bin")
        same(fresh.state_dict(), model.state_dict())
    with pytest.raises(CheckpointError):
        backbones.load_published(backbones.create(SMALL, channels=4), tmp_path / "semi.bin")
    sizes = json.dumps(CASES[SMALL][0])
    ours, back = tmp_path / "semi.safetensors", tmp_path / "back.bin"
    assert run(tmp_path / "semi.bin", ours, "--model", SMALL, "--backbone-args", sizes) == 0
    assert run(ours, back, "--to", "published") == 0
    del content["random_state_semi"]
    same(torch.load(back, weights_only=True), content)
