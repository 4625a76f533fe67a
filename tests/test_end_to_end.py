"""From files as users have them to trained, scored and resumed networks, by the command line and the data module."""

import csv
import json
import math
from pathlib import Path

import fake_data
import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

from structloss.cli import main
from structloss.data import MotionDataModule, open_store
from structloss.errors import ArgumentError, MissingFileError
from structloss.harness.evaluation import evaluate
from structloss.harness.lifting import LiftingModule
from structloss.harness.training import train

SMALL = {"dim_feat": 16, "dim_rep": 16, "depth": 1, "num_heads": 2}
VIDEOS = {
    "train": [("s_01_act_02_subact_01_ca_01", 60), ("s_05_act_03_subact_01_ca_02", 30)],
    "test": [
        ("s_09_act_02_subact_02_ca_01", 60),
        ("s_09_act_05_subact_02_ca_01", 40),
        ("s_11_act_02_subact_01_ca_04", 54),
    ],
}
H36M = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")


@pytest.mark.slow
def test_full_size_recipe_on_human36m(tmp_path, monkeypatch, capsys):
    """repose-h36m as published, 243 frames, on files of the right keys and shapes: trained, scored, fine-tuned."""
    fake_data.write_h36m_npz(
        tmp_path, subjects=H36M, actions=("Walking", "Photo 1"), frames=250, keypoints=("cpn_ft_h36m_dbb",), noise=3.0
    )
    monkeypatch.chdir(tmp_path)
    common = ["--config", "repose_h36m", "--data.data", "data_3d_h36m.npz", "--data.keypoints", "cpn_ft_h36m_dbb"]
    common += ["--data.batch_size", "1", "--data.progress", "false"]
    few = ["--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1", "--trainer.max_epochs", "1"]
    assert main(["fit", *common, *few]) == 0
    run = Path("runs/repose-h36m/version_0")
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    assert 10 < float(rows[-1]["val/mpjpe"]) < 2000
    last = str(run / "checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["state_dict"]["model.head.weight"].shape == (3, 512)
    capsys.readouterr()
    assert main(["test", *common, "--trainer.limit_test_batches", "1", "--ckpt_path", last]) == 0
    out = capsys.readouterr().out
    assert "test/mpjpe" in out and "protocol: p1" in out and "illegal/left_knee" in out
    (scores,) = run.glob("tests/*/test.json")
    assert json.loads(scores.read_text())["per_action"].keys() <= {"Walking", "Photo"}


def trained(backbone, model, **data):
    """Two steps, then the scores."""
    windows = MotionDataModule(**data, progress=False)
    windows.setup()
    given = {key: data[key] for key in ("target", "skeleton") if key in data}
    module = LiftingModule(backbone, **given, **model)
    result = train(module, windows, steps=2, validations=0)
    assert all(map(math.isfinite, result.curves["train_loss"]))
    return windows, module, result.evaluation


def test_human36m_in_camera_space(tmp_path):
    fake_data.write_h36m_npz(tmp_path, subjects=H36M, frames=18, keypoints=("gt", "cpn_ft_h36m_dbb"), noise=2.0)
    windows, _, scores = trained(
        "repose-tiny",
        {"backbone_args": SMALL},
        data=str(tmp_path / "data_3d_h36m.npz"),
        keypoints="gt",
        window=9,
        stride=9,
        target="camera",
    )
    assert windows.train_dataset.store.subjects == ("S1", "S5", "S6", "S7", "S8")
    assert windows.val_dataset.store.subjects == ("S11", "S9") and set(scores.per_action) == {"Walking", "Photo"}
    assert windows.val_dataset.store.frames == 2 * 2 * 4 * 18
    assert scores.metrics["mpjpe"] == pytest.approx(np.mean(list(scores.per_action.values())))  # as many frames each
    with pytest.raises(MissingFileError, match=r"has 2 files .* \(cpn_ft_h36m_dbb, gt\)"):
        MotionDataModule(str(tmp_path / "data_3d_h36m.npz"), window=9).setup()  # two 2D files: which?


def test_motionberts_pickle_is_scored_by_its_factor(tmp_path):
    fake_data.write_pickle(tmp_path / "h36m.pkl", fake_data.h36m_pickle(VIDEOS))
    windows, module, scores = trained(
        "repose-tiny",
        {"backbone_args": SMALL, "flip_test": False},
        data=str(tmp_path / "h36m.pkl"),
        window=27,
        stride=27,
        target="root_relative",
    )
    errors, count = 0.0, 0
    store = windows.val_dataset.store
    assert [view.frames for view in store.views] == [60, 54]  # one of S9's sequences is excluded
    module.eval()
    for view in store.views:
        for start in range(view.start, view.start + view.frames // 27 * 27, 27):  # shorter tails are not scored
            rows = slice(start, start + 27)
            with torch.no_grad():
                out = module.model(torch.from_numpy(np.array(store.input[rows]))[None])[0].double().numpy()
            mm = (out - out[:, :1]) * np.array(store.factor[rows])[:, None, None]
            true = 1000 * np.array(store.pose[rows], dtype=np.float64)
            errors += np.linalg.norm(mm - (true - true[:, :1]), axis=-1).mean(-1).sum()
            count += 27
    assert scores.metrics["mpjpe"] == pytest.approx(errors / count, rel=1e-5)
    with pytest.raises(ArgumentError, match="target is 'camera', expected 'global' or 'root_relative'"):
        MotionDataModule(str(tmp_path / "h36m.pkl"), window=27, target="camera").setup()


def test_mpi_inf_3dhp(tmp_path):
    fake_data.write_3dhp(tmp_path, sequences=("S1 Seq1",), frames=27, tests=("TS1", "TS5"), test_frames=30)
    windows, module, scores = trained(
        "repose-tiny",
        {"backbone_args": SMALL},
        data=str(tmp_path),
        window=9,
        stride=9,
        target="camera",
        skeleton="mpi_inf_3dhp",
    )
    told = {"subjects": windows.subjects, "protocol": windows.rules}
    by_subject = evaluate(module, windows.test_dataloader(), windows.actions, **told).by_subject
    assert by_subject.keys() == {"TS1", "TS5"}, "its own numbers of each sequence"
    assert all(of.keys() == {"mpjpe", "pa_mpjpe", "pck", "auc"} for of in by_subject.values())
    store = windows.val_dataset.store
    assert store.weight is not None and 0 < np.mean(store.weight) < 1  # frames that are not valid are not scored
    assert math.isfinite(scores.metrics["mpjpe"]) and len(scores.per_joint) == 17
    with pytest.raises(ArgumentError, match="skeleton is 'h36m', expected 'mpi_inf_3dhp'"):
        MotionDataModule(str(tmp_path), window=9, target="camera").setup()


def test_h3wb(tmp_path, monkeypatch, capsys):
    """The recipe by the command line, and the benchmark's six numbers."""
    fake_data.write_h3wb_npz(tmp_path, frames=9)
    monkeypatch.chdir(tmp_path)
    common = ["--config", "simplebaseline-h3wb", "--data.data", ".", "--data.progress", "false"]
    common += ["--model.backbone_args", "{linear_size: 32}"]
    objective = ["--model.objective", "{mpjpe: 1.0, bone_symmetry: 0.1}"]
    assert main(["fit", *common, *objective, "--trainer.max_steps", "2"]) == 0
    capsys.readouterr()
    (last,) = Path("runs").glob("*/*/checkpoints/last.ckpt")
    assert main(["test", *common, *objective, "--ckpt_path", str(last)]) == 0
    (protocol,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("protocol: ")]
    shown = dict(part.split() for part in protocol.removeprefix("protocol: ").split(", "))
    (file,) = Path("runs").glob("*/*/tests/*/test.json")
    scores = json.loads(file.read_text())
    names = ["whole_body", "body", "face", "hands", "face_nose_aligned", "hands_wrist_aligned"]
    assert list(shown) == list(scores["protocol"]) == names and len(scores["per_joint"]) == 133
    assert all(0 < float(shown[name]) < 2000 for name in names)
    assert {name: list(of) for name, of in scores["per_subject"].items()} == {"S8": ["mpjpe", "pa_mpjpe"]}
    # All joints are there, so the whole body's error is the mean over joints.
    assert scores["protocol"]["whole_body"] == pytest.approx(np.mean(scores["per_joint"]), rel=1e-5)
    assert scores["protocol"]["hands"] == pytest.approx(np.mean(scores["per_joint"][91:]), rel=1e-5)
    with pytest.raises(ArgumentError, match=r"window is 9, expected 1: .* single poses"):
        MotionDataModule(str(tmp_path), window=9, target="camera", skeleton="h3wb").setup()


def test_a_converted_store_trains_like_its_source(tmp_path):
    fake_data.write_h36m_npz(tmp_path, subjects=H36M, frames=30)
    assert main(["data", "convert", str(tmp_path / "data_3d_h36m.npz"), str(tmp_path / "h36m.poses")]) == 0
    assert isinstance(open_store(tmp_path / "h36m.poses").pose, np.memmap)
    options = {"window": 9, "stride": 9, "target": "global"}
    sources = (tmp_path / "data_3d_h36m.npz", tmp_path / "h36m.poses")
    modules = [MotionDataModule(str(source), **options, progress=False) for source in sources]
    for a, b in zip(*(module.train_dataloader() for module in modules), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_worker_processes_map_the_store_and_give_the_same(tmp_path):
    fake_data.write_h36m_npz(tmp_path, subjects=H36M, frames=30)
    main(["data", "convert", str(tmp_path / "data_3d_h36m.npz"), str(tmp_path / "h36m.poses")])
    options = {"window": 9, "stride": 9, "batch_size": 16, "progress": False}
    alone, workers = (MotionDataModule(str(tmp_path / "h36m.poses"), **options, num_workers=n) for n in (0, 2))
    for a, b in zip(alone.train_dataloader(), workers.train_dataloader(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
