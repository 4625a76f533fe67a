"""Reports of training runs: what evaluation finds, what a run's folder holds, and `structloss report`."""

import csv
import json
import math
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from structloss import metrics, reports
from structloss.backbones import Backbone
from structloss.cli import main
from structloss.data import MotionDataModule, PoseWindows
from structloss.errors import ArgumentError, CheckpointError, DataError, MissingFileError
from structloss.harness import evaluation, load, shown_clips
from structloss.harness.lifting import LiftingModule
from structloss.harness.run_folder import read_run
from structloss.reports.report import samples_of, stills

TINY = {"dim_feat": 16, "depth": 1, "num_heads": 2, "dim_rep": 16, "predict_offset": False}
SMALL = {"num_subjects": 4, "clips_per_subject": 4, "frames": 40, "window": 9, "views": 2, "batch_size": 16}


@pytest.fixture(scope="module")
def data():
    module = MotionDataModule(**SMALL, progress=False)
    module.setup()
    return module


def noisy(batches, scale=0.05, **arguments):
    module = LiftingModule(backbone_args=TINY, flip_test=False, **arguments)
    answers = []
    for i, batch in enumerate(batches):
        noise = torch.randn(batch["target"].shape, generator=torch.Generator().manual_seed(i))
        answers.append(batch["target"] + scale * noise)
    pending = iter(answers)
    module.model = Backbone(kind="sequence", frames=9)
    module.model.forward = lambda x: next(pending)
    return module, answers


# Evaluation


def test_evaluation_against_the_metrics_of_whole_views(data):
    """Every number, from the scored frames put together view by view and handed to the metrics as functions."""
    batches = list(data.val_dataloader())
    module, answers = noisy(batches)
    found = evaluation.evaluate(module, batches, data.actions)

    views = {}
    for batch, answer in zip(batches, answers, strict=True):
        poses = module.to_millimetres(answer, batch)
        poses, truth = (x - x[..., :1, :] for x in (poses, batch["camera_pose"]))
        for i in range(len(poses)):
            kept = batch["weight"][i].amax(-1) > 0
            key = int(batch["clip"][i]), int(batch["view"][i]), int(batch["action"][i])
            views.setdefault(key, []).append((poses[i][kept], truth[i][kept]))
    pred = {key: torch.cat([p for p, _ in parts])[None].double() for key, parts in views.items()}
    true = {key: torch.cat([t for _, t in parts])[None].double() for key, parts in views.items()}
    assert all(pose.shape == (1, 40, 17, 3) for pose in pred.values()) and len(pred) == 4 * 2

    every = torch.cat(list(pred.values())), torch.cat(list(true.values()))
    assert found.metrics["mpjpe"] == pytest.approx(metrics.mpjpe(*every).item(), rel=1e-6)
    assert found.per_joint == pytest.approx(metrics.mpjpe(*every, reduction="joints").tolist(), rel=1e-6)
    expected = {
        "lse": metrics.lse(every[0]),
        "bsle": metrics.bsle(*every),
        "lle": metrics.lle(*every),
        "illegal_angle_rate": metrics.illegal_angle_rate(every[0]),
        "bone_length_spread": metrics.bone_length_spread(every[0]),
    }
    for i, limb in enumerate(metrics.LIMBS):
        expected[f"symmetry/{limb}"] = metrics.limb_symmetry(every[0])[i]
        expected[f"spread/{limb}"] = metrics.bone_length_spread(every[0], reduction="limbs")[i]
    hinges = ("right_elbow", "left_elbow", "right_knee", "left_knee")
    for name, share in zip(hinges, metrics.illegal_angle_rate(every[0], reduction="hinges"), strict=True):
        expected[f"illegal/{name}"] = share
    assert found.structure == pytest.approx({k: v.item() for k, v in expected.items()}, rel=1e-5)
    assert found.truth["lse"] == pytest.approx(metrics.lse(every[1]).item(), rel=1e-5)
    assert found.truth["bone_length_spread"] < 0.01 < found.structure["bone_length_spread"]
    assert found.truth.keys() == found.structure.keys() - {"bsle", "lle"}
    for name, function in (("per_action", metrics.mpjpe), ("per_action_pa", metrics.pa_mpjpe)):
        by_action = {}
        for a, action in enumerate(data.actions):
            chosen = [key for key in pred if key[2] == a]
            if chosen:
                parts = (torch.cat([poses[key] for key in chosen]) for poses in (pred, true))
                by_action[action] = function(*parts).item()
        assert getattr(found, name) == pytest.approx(by_action, rel=1e-6)


def test_joints_that_a_network_does_not_predict_are_left_out(data):
    single = MotionDataModule(**{**SMALL, "window": 1}, target="camera", progress=False)
    module = LiftingModule(backbone="semgcn-base", target="camera", flip_test=False)
    found = evaluation.evaluate(module, single.val_dataloader(), single.actions)
    assert [j for j, error in enumerate(found.per_joint) if math.isnan(error)] == [9]
    assert all(math.isfinite(value) for value in found.structure.values())
    (clip,) = shown_clips.predict_clips({"a": (module, single.val_dataset)}, count=1)
    assert clip.frames.tolist() == list(range(40))
    assert clip.predictions["a"][:, 9].isnan().all() and clip.predictions["a"][:, :9].isfinite().all()
    assert clip.target.isfinite().all() and clip.input.shape == (40, 17, 3)


# Clips


def test_clips_are_whole_and_of_different_actions(data):
    module = LiftingModule(backbone_args=TINY)
    dataset = data.val_dataset
    clips = shown_clips.predict_clips({"a": (module, dataset), "b": (module, dataset)}, count=3, frames=30)
    assert len(clips) == 3 == len({clip.action for clip in clips}) and {clip.view for clip in clips} == {0, 1}
    for clip in clips:
        assert clip.frames.tolist() == list(range(30)) and clip.fps == 50
        assert clip.target.shape == clip.predictions["a"].shape == (30, 17, 3)
        assert torch.equal(clip.predictions["a"], clip.predictions["b"])
        store = dataset.store
        view = next(v for v in store.views if (v.motion, v.index) == (clip.motion, clip.view))
        rows = slice(view.start, view.start + 30)
        truth = torch.from_numpy(np.array(store.pose[rows])) * 1000
        torch.testing.assert_close(clip.target, truth - truth[:, :1], atol=0.01, rtol=0)
        np.testing.assert_array_equal(clip.input, store.input[rows])
    errors = torch.linalg.vector_norm(clips[0].predictions["a"] - clips[0].target, dim=-1)
    found = evaluation.evaluate(module, data.val_dataloader(), data.actions)
    assert 0.2 < errors.mean() / found.metrics["mpjpe"] < 5
    every = shown_clips.predict_clips({"a": (module, dataset)}, count=99, frames=2)
    assert sorted(clip.motion for clip in every) == sorted(dataset.motions), "each motion once"
    again = shown_clips.predict_clips({"a": (module, dataset)}, count=3, frames=30)
    assert all(torch.equal(a.target, b.target) for a, b in zip(clips, again, strict=True))


def test_clips_of_a_network_that_predicts_a_centre_frame_show_every_frame():
    centred = MotionDataModule(**{**SMALL, "window": 27}, target="camera", sampling="centred", progress=False)
    module = LiftingModule(backbone="videopose3d-27", backbone_args={"channels": 16}, target="camera")
    (clip,) = shown_clips.predict_clips({"a": (module, centred.val_dataset)}, count=1)
    assert clip.frames.tolist() == list(range(40)) and clip.predictions["a"].isfinite().all()
    # The same frames as those of windows of another kind: shown together.
    windows = MotionDataModule(**SMALL, progress=False)
    other = LiftingModule(backbone_args=TINY)
    runs = {"a": (module, centred.val_dataset), "b": (other, windows.val_dataset)}
    (both,) = shown_clips.predict_clips(runs, count=1)
    assert list(both.predictions) == ["a", "b"]
    elsewhere = MotionDataModule(**{**SMALL, "seed": 5}, progress=False)
    runs["c"] = (other, elsewhere.val_dataset)
    apart = shown_clips.predict_clips(runs, count=1)
    assert [list(clip.predictions) for clip in apart] == [["a", "b"], ["c"]], "other poses are another clip"


def test_single_poses_are_shown_as_such(data):
    poses = replace(data.val_dataset.store, temporal=False)
    dataset = PoseWindows(poses, "test", window=1, target="camera")
    module = LiftingModule(backbone="semgcn-base", target="camera", flip_test=False)
    (clip,) = shown_clips.predict_clips({"a": (module, dataset)}, frames=60)
    assert clip.frames.tolist() == [0, 63, 127, 191, 255, 319] and math.isnan(clip.fps)
    (sample,) = samples_of([clip], "h36m")
    assert sample.title == "single poses" and sample.labels[1] == "frame 63"


def test_stills_are_the_middles_of_the_clips(data):
    module = LiftingModule(backbone_args=TINY)
    found = shown_clips.predict_clips({"a": (module, data.val_dataset)}, count=2)
    clips = samples_of(found, "h36m")
    assert [clip.title for clip in clips] == [f"{c.motion}, {c.action}, camera {c.view + 1}" for c in found]
    assert clips[0].labels[3] == "frame 3" and clips[0].fps == 50
    chosen = stills(clips)
    assert chosen.labels == [f"{clip.title}, frame 20" for clip in clips]
    np.testing.assert_array_equal(chosen.target, np.stack([clip.target[20] for clip in clips]))
    clips[0].target[18:24] = math.nan
    np.testing.assert_array_equal(stills(clips).target[0], clips[0].target[17])
    clips[1].predictions = {}
    assert len(stills(clips).labels) == 1, "a clip that a run doesn't predict is left out"
    assert stills([]) is None


# Folders


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of `structloss fit`, one after the other."""
    folder = tmp_path_factory.mktemp("work")
    before = os.getcwd()
    os.chdir(folder)
    try:
        for name, objective in (("plain", "{mpjpe: 1.0}"), ("ranked", "{mpjpe: 1.0, depth_ranking_joints: 0.5}")):
            recipe = folder / f"{name}.yaml"
            recipe.write_text(
                yaml.safe_dump(
                    {
                        "model": {"backbone_args": TINY, "objective": yaml.safe_load(objective), "lr": 5e-3},
                        "data": SMALL,
                        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
                    }
                )
            )
            assert main(["fit", "--config", str(recipe)]) == 0
    finally:
        os.chdir(before)
    return folder / "runs"


def log(run):
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_folder_is_read(runs):
    run = read_run(runs / "ranked" / "version_0")
    assert run.name == "ranked/version_0" and run.model["objective"]["depth_ranking_joints"] == 0.5
    assert run.data["window"] == 9 and run.data["seed"] == 0 and "dim_feat: 16" in run.text
    assert re.fullmatch(r"best-epoch=[01]\.ckpt", run.checkpoint.name)
    rows = log(run.folder)
    train = [row for row in rows if row["train/loss"]]
    assert run.curves["step"] == [float(row["step"]) for row in train]
    assert run.curves["train_depth_ranking_joints"] == [float(row["train/depth_ranking_joints"]) for row in train]
    assert run.curves["val_mpjpe"] == [float(row["val/mpjpe"]) for row in rows if row["val/mpjpe"]]
    assert len(run.curves["val_step"]) == 2
    assert read_run(runs / "ranked", "last").checkpoint.name == "last.ckpt"
    last = runs / "plain" / "version_0" / "checkpoints" / "last.ckpt"
    assert read_run(runs / "ranked", str(last)).checkpoint == last


def test_newest_version_is_taken(runs, tmp_path):
    for version in (2, 10):
        shutil.copytree(runs / "plain" / "version_0", tmp_path / "mine" / f"version_{version}")
    assert read_run(tmp_path / "mine").name == "mine/version_10"


def test_long_logs_are_averaged(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {backbone: x}")
    values = np.random.default_rng(0).normal(size=7001)
    with open(tmp_path / "metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "train/loss", "train/rare", "val/mpjpe"])
        for step, value in enumerate(values):
            writer.writerow([0, step, value, "" if step % 5000 else 1.5, ""])
            if step % 1000 == 0:
                writer.writerow([0, step, "", "", step])
        file.write("0,7002,0.")  # a kill in the middle of a line
    run = read_run(tmp_path)
    curves = run.curves
    assert len(curves["step"]) == len(curves["train_loss"]) == 2000
    weights = [len(part) for part in np.array_split(values, 2000)]
    assert np.average(curves["train_loss"], weights=weights) == pytest.approx(values.mean(), abs=1e-9)
    assert np.average(curves["step"], weights=weights) == pytest.approx(3500)
    assert np.nansum(np.isfinite(curves["train_rare"])) == 2 and np.nanmax(curves["train_rare"]) == 1.5
    assert curves["val_mpjpe"] == curves["val_step"] == [1000.0 * i for i in range(8)]
    assert run.checkpoint is None


def test_folders_that_are_none(tmp_path, runs):
    with pytest.raises(MissingFileError, match="nowhere does not exist, expected the folder of a run"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match=r"has no config\.yaml"):
        read_run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingFileError, match="is a file, expected the folder of a run"):
        read_run(tmp_path / "file")
    for text, message in {"a: [": "can't be read", "- 1": "has no model", "data: {}": "has no model"}.items():
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(DataError, match=message) as caught:
            read_run(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / "config.yaml").write_text("!!python/object/apply:os.mkdir ['" + str(tmp_path / "owned") + "']")
    with pytest.raises(DataError, match="can't be read"):
        read_run(tmp_path)
    assert not (tmp_path / "owned").exists()
    with pytest.raises(MissingFileError, match=r"checkpoint other\.ckpt does not exist"):
        read_run(runs / "plain", "other.ckpt")


def test_trained_module_is_read_safely(runs, tmp_path):
    path = read_run(runs / "plain").checkpoint
    module, facts = load.load_trained(path)
    assert not module.training and facts["step"] > 0 and module.hparams.lr == 5e-3
    assert load.objective_of(module) == {"mpjpe": 1.0}
    assert load.objective_of(LiftingModule(backbone_args=TINY)).keys() == {
        "mpjpe", "depth_ranking_joints", "depth_ranking_frames",
    }  # fmt: skip
    content = torch.load(path, weights_only=True)
    for change, message in (
        ({"hyper_parameters": {}}, "doesn't say which network it is of"),
        ({"hyper_parameters": {**content["hyper_parameters"], "backbone_args": {**TINY, "depth": 2}}}, "doesn't fit"),
    ):
        torch.save({**content, **change}, tmp_path / "x.ckpt")
        with pytest.raises(CheckpointError, match=message) as caught:
            load.load_trained(tmp_path / "x.ckpt")
        assert "\n" not in str(caught.value)


# The command


def test_report_of_a_run(runs, capsys):
    assert main(["report", str(runs / "plain"), "--frames", "20", "--clips", "2"]) == 0
    printed = capsys.readouterr().out
    folder = runs / "plain" / "version_0"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"Wrote {folder / 'report.html'}" in printed and "PA-MPJPE" in printed and "Loss share" not in printed
    best = int(re.search(r"best-epoch=(\d)", page).group(1))
    scored = [float(row["val/mpjpe"]) for row in log(folder) if row["val/mpjpe"]][best]
    assert f"{scored:.1f}" in printed, "what training logged for that epoch"
    sections = ("Structure of the predicted skeletons", "Training", "Poses in 3D", "Mean over actions", "upper leg")
    for part in ("<h1>plain/version_0</h1>", *sections, "dim_feat: 16", "structloss report", "synthetic motion"):
        assert part in page, part
    data = json.loads(re.search(r'id="pose-data">(.*?)</script>', page, re.S).group(1))
    assert len(data["clips"]) == 2 and len(data["clips"][0]["labels"]) == 20 and data["clips"][0]["fps"] == 50
    assert not re.search(r"<link|<iframe|@import|url\(|https?://", page)
    assert sorted(path.name for path in folder.iterdir() if "tmp" in path.name) == []


def test_report_of_two_runs(runs, tmp_path, capsys):
    out, numbers = tmp_path / "new" / "both.html", tmp_path / "both.json"
    command = ["report", str(runs / "plain"), str(runs / "ranked"), "--out", str(out), "--json", str(numbers)]
    assert main([*command, "--name", "MPJPE", "MPJPE + L_S", "--title", "A comparison", "--clips", "1"]) == 0
    page = out.read_text(encoding="utf-8")
    assert "<h1>A comparison</h1>" in page and "--name MPJPE &#x27;MPJPE + L_S&#x27;" in page
    assert "0.5 × depth_ranking_joints" in page and 'class="caution"' not in page
    summary = reports.read_json(numbers)
    assert [arm.name for arm in summary.arms] == ["MPJPE", "MPJPE + L_S"]
    assert summary.arms[0].metrics["mpjpe"] != summary.arms[1].metrics["mpjpe"]
    assert summary.arms[0].truth == pytest.approx(summary.arms[1].truth), "the same poses"
    assert summary.arms[1].curves["train_depth_ranking_joints"] and summary.arms[1].config.startswith("# lightning")
    clips = [set(arm.clips["mpjpe"]) for arm in summary.arms]
    assert clips[0] == clips[1] and f"± over {len(clips[0])} clips" in page
    assert "Difference" in capsys.readouterr().out


def copied(runs, tmp_path, name="run", **changes):
    """A copy of a run with other arguments of its data or model in the configuration."""
    folder = tmp_path / "runs" / name / "version_0"
    shutil.copytree(runs / "plain" / "version_0", folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"].update(changes)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_runs_on_different_data_are_told_apart(runs, tmp_path):
    other = copied(runs, tmp_path, num_subjects=5, batch_size=4)
    out = tmp_path / "r.html"
    assert main(["report", str(runs / "plain"), str(other), "--out", str(out), "--clips", "1"]) == 0
    page = out.read_text(encoding="utf-8")
    assert "scored on different data" in page and ": num_subjects differ." in page
    assert "<td class=best>" not in page and "the differences are not judged" in page
    assert "True poses of run/version_0" in page
    assert len(json.loads(re.search(r'id="pose-data">(.*?)</script>', page, re.S).group(1))["clips"]) == 2


def test_a_run_without_checkpoints_shows_its_curves(runs, tmp_path, capsys):
    folder = copied(runs, tmp_path)
    shutil.rmtree(folder / "checkpoints")
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page and "none yet" in page and "Results" not in page and "<script" not in page
    assert "no checkpoint yet, its curves only" in capsys.readouterr().out


def test_errors_take_one_line_and_write_nothing(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = str(runs / "plain")
    (tmp_path / "motion.npz").touch()
    cases = {
        ("nowhere",): "nowhere does not exist, expected the folder of a run",
        (plain, plain): "is given twice, expected different runs",
        (plain, "--name", "a", "b"): "--name is a, b, expected 1 different names, one per run",
        (plain, str(runs / "ranked"), "--checkpoint", "x.ckpt"): "expected 'best' or 'last' for several runs",
        (plain, "--out", "a.html", "--json", "./a.html"): "--json is './a.html', which is the page, too",
        (plain, "--data", "motion.npz", "--out", "motion.npz"): "--data is 'motion.npz', which is the output, too",
        (plain, "--data", "motion.npz", "--json", "motion.npz"): "--data is 'motion.npz', which is the output, too",
        (plain, "--device", "abacus"): "device is 'abacus', which can't be used here",
        (plain, "--data", "moved.npz"): "--data: moved.npz does not exist, expected a data set.",
        (str(copied(runs, tmp_path, "d", data="gone.npz")),): "where the data has moved, pass --data PATH",
        (str(copied(runs, tmp_path, "a", colour=3)),): "doesn't fit this version: ",
        (str(copied(runs, tmp_path, "b", class_path="os.mkdir")),): "data in ",
    }
    skeleton = copied(runs, tmp_path, "c", skeleton="mpi_inf_3dhp")
    cases[plain, str(skeleton)] = "the runs have the skeletons h36m and mpi_inf_3dhp, expected one"
    before = sorted(tmp_path.rglob("*.html"))
    for arguments, message in cases.items():
        assert main(["report", "--out", str(tmp_path / "x.html"), *arguments]) == 1, arguments
        error = capsys.readouterr().err
        assert error.startswith("structloss: error: ") and message in error and error.count("\n") == 1, error
    assert sorted(tmp_path.rglob("*.html")) == before


def test_report_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["report", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text and "RUN_DIR" in text and "--checkpoint" in text


def test_report_of_a_pretraining_has_its_loss(tmp_path):
    arm = reports.ArmResult(
        "pretraining",
        metrics={"loss": 0.0123},
        curves={"step": [0, 1, 2], "train_loss": [0.5, 0.2, 0.1], "val_step": [2], "val_loss": [0.0123]},
    )
    page = reports.run_report(reports.RunSummary("t", [arm]), tmp_path / "r.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page and "Results" not in page and "Poses" not in page
    with pytest.raises(ArgumentError, match="no arms"):
        reports.run_report(reports.RunSummary("t", []), tmp_path / "x.html")
