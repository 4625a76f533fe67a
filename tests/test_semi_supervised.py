"""VideoPose3D's semi-supervised training: its losses by their definitions, runs, checkpoints, published files."""

import json
import math
import types

import fake_data
import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from structloss import backbones, skeletons
from structloss.backbones.official import to_official
from structloss.cli import main
from structloss.data import MotionDataModule
from structloss.data.cameras import h36m_cameras, normalize_screen
from structloss.errors import ArgumentError
from structloss.harness.checkpoint_io import SafeCheckpointIO
from structloss.harness.lifting import LiftingModule
from structloss.harness.load import load_trained
from structloss.harness.semi_supervised import (
    bone_length_loss,
    reprojection_loss,
    trajectory_loss,
)
from structloss.harness.training import train
from structloss.harness.unlabelled import UnlabelledWindows

SIZES = {"filter_widths": [3, 3], "channels": 16, "dropout": 0.0}
H36M = skeletons.get("h36m")
PEOPLE = ("S1", "S5", "S6", "S9")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Human3.6M's layout, its cameras with their distortion, 2D projected without noise."""
    folder = tmp_path_factory.mktemp("h36m")
    fake_data.write_h36m_npz(folder, subjects=PEOPLE, actions=("Walking",), frames=24)
    return folder


def data_of(folder, **options):
    options = {"unlabelled_subjects": ["S5", "S6"], "mirrored": True, "batch_size": 32} | options
    return MotionDataModule(str(folder), window=9, sampling="centred", target="camera", progress=False, **options)


def module_of(**options):
    options = {"semi_supervised": {"warmup": 0}, "lr": 5e-3, "lr_decay": 1.0} | options
    return LiftingModule(
        "videopose3d-27", SIZES, objective={"mpjpe": 1.0}, target="camera", flip_probability=0.0,
        optimizer="amsgrad", weight_decay=0.0, **options,
    )  # fmt: skip


# The losses, in float64 by their definitions


def scene(batch=3, frames=2, seed=0):
    rng = np.random.default_rng(seed)
    pose = rng.normal(0, 0.4, (batch, frames, 17, 3))
    root = np.stack([rng.normal(0, 0.5, (batch, frames)), rng.normal(0, 0.5, (batch, frames)),
                     rng.uniform(3, 6, (batch, frames))], -1)  # fmt: skip
    return rng, pose, root


def test_reprojection_is_the_distance_on_the_screen_with_distortion():
    """Of the camera model of `data/cameras.py`, in pixels, brought to the screen."""
    rng, pose, root = scene()
    points = pose + root[:, :, None]
    cameras = h36m_cameras("S1")[1:]
    camera = np.array([[*c.screen_intrinsics(), *c.radial, *c.tangential] for c in cameras])
    seen = np.stack([normalize_screen(c.project(p), c.width, c.height) for c, p in zip(cameras, points, strict=True)])
    keypoints = seen + rng.normal(0, 0.01, seen.shape)
    expected = np.sqrt(((seen - keypoints) ** 2).sum(-1)).mean()
    inputs = [torch.from_numpy(value) for value in (points, keypoints, camera)]
    assert float(reprojection_loss(*inputs)) == pytest.approx(expected, rel=1e-12)
    assert float(reprojection_loss(inputs[0], torch.from_numpy(seen), inputs[2])) < 1e-12
    plain = inputs[2].clone()
    plain[:, 4:] = 0
    assert float(reprojection_loss(inputs[0], torch.from_numpy(seen), plain)) > 1e-4  # the lens makes a difference


def test_bone_length_term_compares_means_over_the_batches():
    _, one, _ = scene(3)
    _, other, _ = scene(5, seed=1)
    expected = 0.0
    for a, b in H36M.bones:
        lengths = [np.sqrt(((poses[:, :, a] - poses[:, :, b]) ** 2).sum(-1)).mean() for poses in (one, other)]
        expected += abs(lengths[0] - lengths[1]) / len(H36M.bones)
    assert len(H36M.bones) == 16
    found = bone_length_loss(torch.from_numpy(one), torch.from_numpy(other), H36M)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_trajectory_is_weighted_by_depth():
    rng, _, root = scene()
    predicted = root + rng.normal(0, 0.2, root.shape)
    distance = np.sqrt(((predicted - root) ** 2).sum(-1)) / root[..., 2]
    inputs = torch.from_numpy(predicted), torch.from_numpy(root)
    assert float(trajectory_loss(*inputs)) == pytest.approx(distance.mean(), rel=1e-12)
    weight = torch.zeros(3, 2, dtype=torch.float64)
    weight[1] = 1
    assert float(trajectory_loss(*inputs, weight)) == pytest.approx(distance[1].mean(), rel=1e-12)


# The batches


def test_unlabelled_people_are_set_apart(folder):
    data = data_of(folder, subset=0.5)
    assert data.train_dataset.store.subjects == ("S1",) and data.unlabelled_dataset.store.subjects == ("S5", "S6")
    frames = [sum(view.frames for view in part.store.views) for part in (data.train_dataset, data.unlabelled_dataset)]
    assert frames == [4 * 12, 2 * 4 * 24]  # the subset is one of labels
    assert data_of(folder, unlabelled_subjects=None).unlabelled_dataset is None
    synthetic = MotionDataModule(
        window=9, num_subjects=4, clips_per_subject=1, frames=20, progress=False, unlabelled_subjects=["syn02"]
    )
    assert synthetic.unlabelled_dataset.store.subjects == ("syn02",)
    assert synthetic.train_dataset.store.subjects == ("syn01", "syn03")
    for names, sentence in (
        (["S9"], "unlabelled_subjects has 'S9', expected training subjects of .*: S1, S5, S6"),
        (["S1", "S5", "S6"], "unlabelled_subjects has all training subjects"),
    ):
        with pytest.raises(ArgumentError, match=sentence):
            data_of(folder, unlabelled_subjects=names).setup()


def stand_in(data):
    """Of a trainer at the first step."""
    return types.SimpleNamespace(
        datamodule=data, world_size=1, num_training_batches=2, training=True, current_epoch=0, global_rank=0
    )


@pytest.mark.parametrize("network", ["true", "mirrored wrongly"])
def test_true_poses_have_no_loss(folder, network):
    """With networks that know the truth, each mirrored as its input is, every term vanishes: roots, cameras and
    keypoints of a step belong together."""
    data = data_of(folder, batch_size=200)
    windows, unlabelled = data.train_dataset, data.unlabelled_dataset
    module = module_of().double()
    module._trainer = stand_in(data)
    module.semi_supervised.begin(module)
    batch = {k: v.double() if v.is_floating_point() else v for k, v in windows.batch(range(0, len(windows), 3)).items()}
    drawn = {}
    draw = unlabelled.batch

    def remember(indices):
        drawn.update(draw(indices))
        return drawn

    unlabelled.batch = remember
    truth = {}

    def answer(kind):
        def forward(x):
            parts = []
            for found, of in ((batch, windows), (drawn, unlabelled)):
                side = found["index"] >= len(of) // 2
                pose = found["camera_pose"][:, 4:5].double() / 1000
                if network == "true":
                    pose = torch.where(side[:, None, None, None], skeletons.flip(pose, H36M), pose)
                parts.append(pose[:, :, :1] if kind == "root" else pose - pose[:, :, :1])
            truth[kind] = torch.cat(parts)
            return truth[kind]

        return forward

    module.model.forward, module.trajectory.forward = answer("pose"), answer("root")
    predictions, total, terms = module.semi_supervised.step(module, batch, 0)
    if network == "true":
        assert float((predictions[0].prediction - predictions[0].target).norm(dim=-1).mean()) < 1e-6
        assert float(terms["trajectory"]) < 1e-6 and float(terms["reprojection"]) < 1e-5
        # people differ in size: what is left is the term of their true bones
        size = len(batch["input"])
        bones = bone_length_loss(truth["pose"][:size], truth["pose"][size:], H36M)
        assert float(terms["bone_length"]) == pytest.approx(float(bones)) and float(total) < float(bones) + 1e-5
    else:
        assert float(terms["trajectory"]) > 1e-3 and float(terms["reprojection"]) > 1e-2


def test_unlabelled_windows_are_all_seen_and_drawn_again_the_same(folder):
    drawn = UnlabelledWindows(data_of(folder).unlabelled_dataset)
    count = len(drawn.windows)
    first = [drawn.number(3, place) for place in range(count)]
    assert sorted(first) == list(range(count)) and first != sorted(first)
    second = [drawn.number(3, place) for place in range(count, 2 * count)]
    assert sorted(second) == sorted(first) and second != first
    assert [drawn.number(3, place) for place in range(5)] == first[:5]  # a resumed run


# Training


def test_terms_are_float32_under_autocast(folder):
    """Half types have steps of 3 cm at the depth of a person."""
    data = data_of(folder)
    module = module_of()
    module._trainer = stand_in(data)
    module.semi_supervised.begin(module)
    batch = data.train_dataset.batch(range(8))
    _, _, exact = module.semi_supervised.step(module, batch, 0)
    with torch.autocast("cpu", torch.bfloat16):
        _, total, terms = module.semi_supervised.step(module, batch, 0)
    assert {value.dtype for value in (total, *terms.values())} == {torch.float32}
    for name, value in terms.items():
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0.02)


def test_losses_fall_and_warmup_has_labelled_clips_alone(folder):
    result = train(module_of(semi_supervised={"warmup": 1}), data_of(folder), steps=36, validations=1)
    curves = result.curves
    first, later = np.array(curves["train_reprojection"]), np.array(curves["train_trajectory"])
    known = np.isfinite(first)
    assert not known[:6].any() and known[6:].all() and len(known) == 36  # six batches of labelled windows
    assert np.mean(first[known][-4:]) < 0.8 * np.mean(first[known][:4])
    assert np.mean(later[-4:]) < 0.7 * np.mean(later[:4])
    assert len(curves["val_trajectory"]) == 1 and 1000 < curves["val_trajectory"][0] < 8000  # mm
    bones = np.array(curves["train_bone_length"])[known]
    assert np.isfinite(bones).all()


def test_resumed_training_is_the_uninterrupted_one(folder, tmp_path):
    """To the bit, from the middle of an epoch: the unlabelled windows of a step depend on its place alone."""

    def fit(steps, resume=None):
        L.seed_everything(0, verbose=False)
        module = module_of(semi_supervised={"warmup": 1})
        trainer = L.Trainer(
            max_epochs=-1, max_steps=steps, accelerator="cpu", logger=False,
            callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=8, save_top_k=-1)],
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, plugins=[SafeCheckpointIO()],
        )  # fmt: skip
        trainer.fit(module, datamodule=data_of(folder), ckpt_path=resume)
        return module.state_dict()

    whole = fit(11)
    resumed = fit(11, str(tmp_path / "step=8.ckpt"))
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())


def test_run_is_tested_resumed_and_published(folder, tmp_path, monkeypatch, capsys):
    """One optimizer, one checkpoint for both networks; `test` measures the trajectory; the published file has both."""
    monkeypatch.chdir(tmp_path)
    few = ["--data.data", str(folder), "--data.progress", "false", "--trainer.accelerator", "cpu"]
    few += ["--trainer.enable_model_summary", "false"]
    given = ["--config", "videopose3d-27-semi", *few, "--data.unlabelled_subjects", "[S5, S6]", "--data.window", "9"]
    given += ["--model.backbone_args", json.dumps(SIZES), "--trainer.limit_train_batches", "2"]
    assert main(["fit", *given, "--trainer.max_epochs", "2"]) == 0, capsys.readouterr().err
    (last,) = tmp_path.glob("runs/*/*/checkpoints/last.ckpt")
    content = torch.load(last, weights_only=True)
    names = [key for key in content["state_dict"] if key.startswith("trajectory.")]
    assert content["state_dict"]["trajectory.shrink.weight"].shape == (3, 16) and len(names) > 10
    assert len(content["optimizer_states"]) == 1
    count = sum(len(group["params"]) for group in content["optimizer_states"][0]["param_groups"])
    assert count == 2 * len(list(load_trained(last)[0].model.parameters()))

    capsys.readouterr()
    assert main(["test", "--ckpt_path", str(last), *few]) == 0, capsys.readouterr().err
    assert "Trajectory " in capsys.readouterr().out
    (scores,) = tmp_path.glob("runs/**/test.json")
    found = json.loads(scores.read_text())["metrics"]["trajectory"]
    assert found == pytest.approx(trajectory_error(last, folder), rel=1e-4)

    resumed = tmp_path / "resumed"
    resumed.mkdir()
    monkeypatch.chdir(resumed)
    assert main(["fit", *given, "--ckpt_path", str(last), "--trainer.max_epochs", "3"]) == 0, capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["backbones", "convert", str(last), "semi.bin", "--to", "published"]) == 0
    said = capsys.readouterr().out
    assert "(keys under 'model. and trajectory.')" in said and "ignored" not in said
    both = torch.load("semi.bin", weights_only=True)
    assert set(both) == {"epoch", "model_pos", "model_traj"} and both["epoch"] == 2
    assert both["model_traj"]["shrink.weight"].shape == (3, 16, 1)
    module = module_of(init_from="semi.bin")
    assert torch.equal(module.trajectory.shrink.bias, both["model_traj"]["shrink.bias"])
    assert torch.equal(module.model.shrink.bias, both["model_pos"]["shrink.bias"])


def trajectory_error(path, folder):
    """Mean over all frames, original and mirrored prediction averaged, by hand."""
    module, _ = load_trained(path)
    windows = data_of(folder).val_dataset
    batch = windows.batch(range(len(windows)))
    with torch.no_grad():
        x = batch["input"]
        place, back = module.trajectory(x)[:, 0, 0], module.trajectory(skeletons.flip(x, H36M))[:, 0, 0]
    back[:, 0] *= -1
    root = batch["camera_pose"][:, 4, 0]
    assert (batch["weight"][:, 4] == 1).all()
    return float((500 * (place + back) - root).norm(dim=-1).mean())


def test_start_without_a_trajectory_network(tmp_path):
    pose = backbones.create("videopose3d-27", **SIZES)
    torch.save({"model_pos": to_official(pose)}, tmp_path / "plain.bin")
    with pytest.warns(UserWarning, match="has no trajectory network, it starts anew"):
        module = module_of(init_from=str(tmp_path / "plain.bin"))
    assert torch.equal(module.model.shrink.weight, pose.shrink.weight)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"semi_supervised": {"warm": 1}}, "semi_supervised has 'warm', expected some of warmup, trajectory"),
        ({"semi_supervised": {"warmup": 0.5}}, "semi_supervised.warmup is 0.5, expected a whole number of at least 0"),
        ({"semi_supervised": {"bone_length": -1.0}}, "semi_supervised.bone_length is -1.0, expected a number"),
        ({"semi_supervised": {"reprojection": math.nan}}, "semi_supervised.reprojection is nan"),
        ({"semi_supervised": {}, "flip_probability": 0.5}, "flip_probability is 0.5, expected 0 with semi_supervised"),
        ({"semi_supervised": {}, "target": "root_relative"}, "target is 'root_relative', expected 'camera' with semi"),
        ({"semi_supervised": {}, "backbone": "mixste-27", "backbone_args": {"depth": 1}}, "expected None for mixste"),
    ],
)
def test_what_cannot_be(options, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        LiftingModule(
            **{"backbone": "videopose3d-27", "backbone_args": SIZES, "target": "camera", "flip_probability": 0.0}
            | options
        )


def test_unlabelled_subjects_are_needed(folder):
    with pytest.raises(ArgumentError, match="unlabelled_subjects is None, expected training subjects"):
        train(module_of(), data_of(folder, unlabelled_subjects=None), steps=1, validations=0)
