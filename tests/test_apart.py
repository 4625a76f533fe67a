"""No command writes over what it reads."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from structloss import backbones
from structloss.cli import main
from structloss.data import load_sample
from structloss.errors import ArgumentError
from structloss.files import check_apart


def test_one_file_by_several_names(tmp_path):
    place = tmp_path / "a"
    place.touch()
    os.link(place, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(place)
    for name in ("a", "hard", "soft", "../" + tmp_path.name + "/a"):
        with pytest.raises(ArgumentError, match=r"is the input, expected another file or folder for the output\.$"):
            check_apart(tmp_path / name, other=None, input=str(place))
        with pytest.raises(ArgumentError, match=rf"^other is '{place}', which is the output, too, expected another"):
            check_apart(tmp_path / name, other=place)
    check_apart(tmp_path / "b", other=place, none=tmp_path / "b", odd="\0")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder, the working one, with files of each kind."""
    monkeypatch.chdir(tmp_path)
    clip = load_sample("dance")
    np.savez("poses.npz", poses=clip.truth, skeleton="h36m", fps=25.0)
    np.savez("keypoints.npz", keypoints=clip.keypoints.keypoints, width=1000, height=1000, fps=25.0)
    (tmp_path / "lengths.json").write_text(json.dumps({"lengths": {}}))
    model = backbones.create("lift-s", pretrained=True)
    torch.save(model.state_dict(), "weights.json")
    save_file(model.state_dict(), "weights.safetensors")
    assert main(["data", "synthetic", "motion.npz", "--subjects", "1", "--clips", "1", "--frames", "50"]) == 0
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("plot surface --pose poses.npz --numbers poses.npz", "--pose is 'poses.npz', which is the output, too"),
        ("plot surface --pose poses.npz --numbers ./poses.npz", "--pose is 'poses.npz', which is the output, too"),
        ("data convert motion.npz motion.npz --overwrite --fps 10", "motion.npz is the input"),
        ("backbones convert weights.safetensors weights.safetensors --model lift-s",
         "weights.safetensors is the input"),
        ("backbones convert weights.json weights.json --model lift-s --to published", "weights.json is the input"),
        ("backbones export lift-s --ckpt weights.safetensors --out weights.safetensors",
         "--ckpt is 'weights.safetensors', which is the output, too"),
        ("predict keypoints.npz --layout coco --fit-skeleton keypoints.npz --npz keypoints.npz",
         "keypoints.npz is the input"),
        ("predict keypoints.npz --layout coco --backbone lift-s --weights poses.npz --npz poses.npz",
         "--weights is 'poses.npz', which is the output, too"),
        ("predict keypoints.npz --layout coco --fit-skeleton poses.npz --npz poses.npz",
         "--fit-skeleton is 'poses.npz', which is the output, too"),
    ],
)  # fmt: skip
def test_inputs_are_not_written_over(command, message, folder, capsys):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    assert main(command.split()) == 1
    error = capsys.readouterr().err
    assert error == f"structloss: error: {message}, expected another file or folder for the output.\n"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
