"""Our own lifting networks, and the weights of theirs that come with the package."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from structloss import backbones
from structloss.backbones.pretrained import weights_called
from structloss.cli import main
from structloss.errors import ArgumentError
from structloss.harness.predict import DEFAULT, load_lifter

REAL = Path(__file__).parents[2] / "shared" / "data" / "real_mocap.npz"
NAMES = backbones.pretrained_names()


def small(**more):
    torch.manual_seed(0)
    return backbones.create("lift-27", **{"frames": 9, "channels": 24, **more}).eval()


def clip(frames: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.cat([0.3 * torch.randn(2, frames, 17, 2), torch.rand(2, frames, 17, 1).clamp(min=0.05)], dim=-1)


@pytest.mark.parametrize("frames", [3, 9, 27])
def test_it_slides_over_longer_clips(frames):
    model, x = small(frames=frames).double(), clip(frames + 6).double()
    whole = model(x)
    each = torch.cat([model(x[:, i : i + frames]) for i in range(7)], dim=1)
    torch.testing.assert_close(whole, each, rtol=0, atol=1e-12)


def test_a_joint_without_confidence_may_stand_anywhere():
    model, x = small(), clip(15)
    x[:, 3:9, 4:7, 2] = 0
    found = model(x)
    moved = x.clone()
    moved[:, 3:9, 4:7, :2] = float("nan")
    torch.testing.assert_close(model(moved), found, rtol=0, atol=0)
    assert not torch.allclose(model(torch.where(x[..., 2:] > 0, x, 0.5)), found)  # that it is missing matters
    nobody = torch.zeros(1, 9, 17, 3)
    assert torch.isfinite(model(nobody)).all()


def test_place_and_size_enter_by_themselves_only():
    """Of moved and scaled keypoints the relative ones stay, so only the three numbers of the place and size differ."""
    model, x = small().double(), clip(9).double()
    moved = x.clone()
    moved[..., :2] = 1.7 * x[..., :2] + torch.tensor([0.3, -0.2], dtype=x.dtype)
    a, b = (model._features(value, strided=True) for value in (x, moved))
    torch.testing.assert_close(a[..., :-3], b[..., :-3], rtol=0, atol=1e-12)
    torch.testing.assert_close(b[..., -1] - a[..., -1], torch.full_like(a[..., -1], np.log(1.7)), rtol=0, atol=1e-9)


def test_without_confidence_every_joint_counts():
    model, x = small(), clip(11)
    x[..., 2] = 1
    torch.testing.assert_close(model(x[..., :2]), model(x), rtol=0, atol=0)


@pytest.mark.parametrize("frames", [2, 28, 729])
def test_receptive_fields_are_powers_of_three(frames):
    with pytest.raises(ArgumentError, match=rf"frames is {frames}, expected 1, 3, 9, 27, 81 or 243"):
        backbones.create("lift-27", frames=frames)


# ---- weights in the package


def test_there_are_weights_small_enough_and_with_a_card():
    assert set(NAMES) >= {"lift-27", "lift-s"}
    for name in NAMES:
        path = backbones.pretrained_file(name)
        assert path.stat().st_size <= 4e6 and backbones.info(name).params <= 1.5e6
        with safe_open(path, "pt") as file:
            told, dtypes = file.metadata(), {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118  # it is no dict
        assert told["backbone"] == name and int(told["steps"]) > 1000 and dtypes == {torch.float16}
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        for word in (
            "CMU Graphics Lab Motion Capture Database",
            "NSF EIA-0196217",
            "structloss fit --config",
            f"{int(told['steps']):,} steps",
        ):
            assert word in card, f"the card of {name} does not say {word}"


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_weights_are_those_of_the_file(name):
    model = backbones.create(name, pretrained=True)
    with safe_open(backbones.pretrained_file(name), "pt") as file:
        for key, value in model.state_dict().items():
            assert value.dtype == torch.float32 and torch.equal(value, file.get_tensor(key).float())
    fresh = backbones.create(name).state_dict()
    assert not torch.equal(fresh["head.weight"], model.state_dict()["head.weight"])


def test_what_has_no_weights():
    with pytest.raises(
        ArgumentError, match=r"videopose3d-243 has no weights in the package, expected lift-27 or lift-s"
    ):
        backbones.create("videopose3d", pretrained=True)
    with pytest.raises(
        ArgumentError, match="channels is given with pretrained, expected the variant as it was trained"
    ):
        backbones.create("lift-s", pretrained=True, channels=8)
    with pytest.raises(ArgumentError, match=r"^pretrained is 'my\.pt', expected True or False; weights of a file are"):
        backbones.create("lift-s", pretrained="my.pt")


def test_names_of_weights_give_way_to_files(tmp_path, monkeypatch):
    assert weights_called("lift-27") == str(backbones.pretrained_file("lift-27"))
    assert weights_called("runs/best.ckpt") == "runs/best.ckpt"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lift-27").write_bytes(b"")
    assert weights_called("lift-27") == "lift-27"


def test_lifters_without_a_checkpoint():
    found = load_lifter()
    assert (found.name, found.target, found.skeleton) == (DEFAULT, "camera", "h36m") and not found.model.training
    assert load_lifter(backbone="lift-s").name == "lift-s"
    with pytest.raises(ArgumentError, match="repose-tiny has no weights in the package"):
        load_lifter(backbone="repose-tiny")
    with pytest.raises(ArgumentError, match="expected either a training checkpoint"):
        load_lifter("last.ckpt", backbone="lift-27")


def test_training_starts_from_them_by_name():
    pytest.importorskip("lightning")
    from structloss.harness.lifting import LiftingModule

    module = LiftingModule("lift-s", target="camera", init_from="lift-s")
    assert torch.equal(module.model.head.weight, backbones.create("lift-s", pretrained=True).head.weight)


def people(tmp_path, frames: int = 40) -> tuple[Path, np.ndarray]:
    """Keypoints of somebody who walks, as exact pixels of a camera of 1000 px, and where the joints are."""
    from structloss.data import generate_clips, observe

    (walker,) = generate_clips(1, 1, frames, seed=2)
    seen = observe([walker], "test", views=1, detections="exact")
    pixels = (seen.input[..., :2] + 1) * 500
    path = tmp_path / "walk.npy"
    np.save(path, np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1).astype(np.float32))
    return path, seen.pose - seen.pose[:, :1]


@pytest.mark.parametrize("options", [[], ["--backbone", "lift-s"]])
def test_predict_without_a_checkpoint(tmp_path, capsys, options):
    pytest.importorskip("lightning")
    path, truth = people(tmp_path)
    command = [
        "predict",
        str(path),
        "--image-size",
        "1000",
        "1000",
        "--layout",
        "h36m",
        "--npz",
        str(tmp_path / "o.npz"),
    ]
    assert main([*command, *options]) == 0
    name = options[-1] if options else "lift-27"
    assert f"network: {name}, with the weights of this package\n" in capsys.readouterr().out
    with np.load(tmp_path / "o.npz") as made:
        error = np.linalg.norm(made["positions"] - truth, axis=-1).mean() * 1000
    assert error < 100, f"{error:.0f} mm"  # synthetic people, whose neck and head are elsewhere


@pytest.mark.skipif(not REAL.is_file(), reason="needs the CMU clips of shared/data")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow(seconds=9)
def test_a_row_of_the_model_card_is_what_the_weights_come_to(name):
    pytest.importorskip("lightning")
    from bench.weights import CONDITIONS, numbers, scored

    card = backbones.pretrained_file(name).with_suffix(".md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {CONDITIONS['exact']} \|(.*)\|$", card, re.MULTILINE)
    found = numbers(scored(name, str(REAL), "exact"))
    written = [float(cell) for cell in row[1].split("|")]
    assert written == pytest.approx([float(value) for value in found.values()], rel=2e-3, abs=0.011)
