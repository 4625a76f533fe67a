"""Fine-tuning by `repose-finetune`: any network by its name alone."""

from pathlib import Path

import pytest
import yaml

pytest.importorskip("lightning")

from structloss import backbones
from structloss.cli import main
from structloss.commands._arguments import following_network
from structloss.data import MotionDataModule
from structloss.errors import UnknownNameError
from structloss.harness.finetuning import RECIPE, settings_of_network
from structloss.harness.lifting import REPOSE_OBJECTIVE
from structloss.harness.recipe_files import recipe_names, recipe_path

RIGID = ("poseformer", "poseformerv2")  # one pose a window, whatever its length
NAMES = [
    name
    for name in backbones.names()
    if name in recipe_names("backbone") and backbones.info(name).kind not in ("pretrain", "refine")
]


@pytest.mark.parametrize("name", NAMES)
def test_what_any_network_is_fine_tuned_with(name):
    """Target, joints and cut are its own; of single frames and of centres that slide, there are frames for L_T."""
    recipe, info = yaml.safe_load(recipe_path(RECIPE).read_text()), backbones.info(name)
    own = yaml.safe_load(recipe_path(name).read_text())
    for option, value in settings_of_network(name).items():
        section, _, key = option.partition(".")
        recipe[section][key] = value
    data, model = recipe["data"], recipe["model"]
    assert MotionDataModule(**data).target == own["data"]["target"]
    assert data.get("skeleton") == own["data"].get("skeleton")
    assert model["objective"] == REPOSE_OBJECTIVE and model["lr"] == 5e-5 and "standardise" not in model
    assert model.get("flip_probability") == own["model"].get("flip_probability")
    if info.kind == "frame":
        assert data["window"] == 243
    elif info.family in ("videopose3d", "lift"):
        assert data["window"] - info.frames + 1 == 27 and data["context"] == info.frames // 2
    else:
        assert {key: data[key] for key in own["data"]} == own["data"]
        assert data["window"] > 1 and (info.kind == "sequence" or info.family in (*RIGID, "pstmo"))


def test_flags_stand_between_the_recipe_and_those_of_the_user():
    path = str(recipe_path(RECIPE))
    found = following_network(["--config", path, "--model.backbone", "semgcn-base", "--data.target", "camera"])
    assert found[:2] == ["--config", path] and found[-2:] == ["--data.target", "camera"]
    assert "--data.target=camera" in found[2:-4] and "--model.flip_test=false" in found[2:-4]
    for untouched in (["--config", path], ["--config", "a.yaml", "--model.backbone=semgcn-base"], []):
        assert following_network(untouched) == untouched
    with pytest.raises(UnknownNameError):
        following_network([f"--config={path}", "--model.backbone=semgnc"])


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("semgcn-base", "{dim_feat: 8, depth: 1}"),
        ("simplebaseline-16j", "{linear_size: 16}"),
        ("videopose3d-27", "{channels: 16}"),
    ],
)
def test_a_network_of_one_frame_needs_its_name_only(name, size, tmp_path, monkeypatch, capsys):
    """To train, and to be tested afterwards."""
    monkeypatch.chdir(tmp_path)
    data = ["--data.num_subjects=2", "--data.clips_per_subject=1", "--data.frames=250", "--data.views=1"]
    command = [
        "--config",
        RECIPE,
        "--model.backbone",
        name,
        *data,
        "--data.progress=false",
        "--model.backbone_args",
        size,
    ]
    assert main(["fit", *command, "--trainer.max_steps=1", "--trainer.max_epochs=-1"]) == 0, capsys.readouterr().err
    (log,) = Path().rglob("metrics.csv")
    rows = [row.split(",") for row in log.read_text().splitlines()]
    steps = [float(row[rows[0].index("train/depth_ranking_frames")] or 0) for row in rows[1:]]
    assert max(steps) > 0
    assert main(["test", *command, "--ckpt_path", "last"]) == 0, capsys.readouterr().err


def test_a_network_that_can_not_have_its_frames_is_told_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["fit", "--config", RECIPE, "--model.backbone", "poseformerv2-27-1-3", "--data.progress=false"]
    command += ["--data.num_subjects=2", "--data.clips_per_subject=1", "--data.frames=30", "--data.views=1"]
    assert main(command) == 1
    assert (
        "--model.objective has ['depth_ranking_frames'], 0 on one frame, expected terms of" in capsys.readouterr().err
    )
