"""`structloss predict --split`, `--refine` and `--fit-skeleton`: from a lifter's checkpoint to refined poses."""

import json
import math

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

import lightning as L

from structloss import skeletons
from structloss.cli import main
from structloss.data import MotionDataModule, generate_clips, h36m_cameras, save_archive
from structloss.errors import ArgumentError, CheckpointError, DataError
from structloss.harness import LiftingModule
from structloss.harness.checkpoint_io import SafeCheckpointIO
from structloss.harness.evaluation import evaluate
from structloss.harness.predict import Prediction
from structloss.harness.refined import fitted, read_lengths, refined
from structloss.harness.refining import LoadedRefiner, RefineModule
from structloss.harness.split_prediction import predict_split
from structloss.harness.training import quiet_lightning
from structloss.refine import TPNet, bone_lengths, read_predictions

H36M = skeletons.get("h36m")
NAMES = [H36M.joint_names[child] for child, _ in H36M.tree_bones]


def save(module, path, data=None):
    """A checkpoint as training writes it, of an untrained network."""
    with quiet_lightning():
        trainer = L.Trainer(
            logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, max_steps=0,
            enable_checkpointing=False, plugins=[SafeCheckpointIO()], num_sanity_val_steps=0, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    """Two clips of each of four people, of lengths that windows don't divide."""
    path = tmp_path_factory.mktemp("motion") / "motion.npz"
    clips = generate_clips(4, 1, 40, seed=3) + generate_clips(4, 2, 31, seed=3)[1::2]
    save_archive(path, clips)
    return path


FRAMES = {"window": 1, "stride": 1, "target": "camera"}
MSE = {"target": "camera", "objective": {"mse": 1.0}}
SMALL = {"dim_feat": 16, "depth": 1}
#: what a network predicts -> arguments of the module and of the data
KINDS = {
    "frame": (MSE | {"backbone": "simplebaseline-16j", "backbone_args": {"linear_size": 32, "depth": 1}}, FRAMES),
    "sixteen joints": (MSE | {"backbone": "semgcn-base", "flip_test": False, "backbone_args": SMALL}, FRAMES),
    "centre": (
        MSE | {"backbone": "videopose3d-27", "backbone_args": {"channels": 16}},
        FRAMES | {"window": 27, "sampling": "centred"},
    ),
    "sequence": (
        {"backbone": "repose-tiny", "target": "global", "backbone_args": SMALL | {"dim_rep": 16, "num_heads": 2}},
        {"window": 27, "target": "global"},
    ),
}


def network(kind):
    """An untrained network of a kind."""
    return LiftingModule(**KINDS[kind][0])


def trained(kind, motion, folder):
    data = KINDS[kind][1]
    source = MotionDataModule(data=str(motion), views=2, eval_batch_size=37, progress=False, **data)
    return save(network(kind), folder / "lifter.ckpt", source), source


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_predictions_are_those_that_are_scored(kind, split, motion, tmp_path):
    """Every frame once, in its place: the error is that of the evaluation of the split."""
    path, source = trained(kind, motion, tmp_path)
    made = predict_split(path, tmp_path / "out.npz", split=split)
    found = read_predictions(tmp_path / "out.npz")
    people = {"train": ("syn01", "syn02", "syn03"), "test": ("syn04",)}[split]
    assert made.subjects == people and {clip.subject for clip in found.clips} == set(people)
    assert (made.clips, made.frames) == (4 * len(people), 142 * len(people))
    assert found.source["split"] == split and found.source["model"] == KINDS[kind][0]["backbone"]
    assert sorted({len(clip) for clip in found.clips}) == [31, 40] and {clip.fps for clip in found.clips} == {50.0}
    assert len({(clip.motion, clip.view) for clip in found.clips}) == made.clips

    scored = MotionDataModule(**{**source.hparams, "test_set": split})
    module = network(kind)
    module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    evaluation = evaluate(module, scored.test_dataloader(), scored.actions)
    if kind == "sixteen joints":  # the neck isn't scored there; here it is put between thorax and head
        others = [*range(9), *range(10, 17)]
        distances = [np.linalg.norm(clip.predicted - clip.true, axis=-1)[:, others] for clip in found.clips]
        assert 1000 * np.concatenate(distances).mean() == pytest.approx(evaluation.metrics["mpjpe"], rel=1e-4)
        clip = found.clips[0].predicted
        np.testing.assert_allclose(clip[:, 9], (clip[:, 8] + clip[:, 10]) / 2, atol=1e-6)
    else:
        assert made.mpjpe == pytest.approx(evaluation.metrics["mpjpe"], rel=1e-4)
    for clip in found.clips:
        assert (clip.predicted[:, 0] == 0).all() and (clip.true[:, 0] == 0).all()
        lengths = np.linalg.norm(clip.true[:, 2] - clip.true[:, 1], axis=-1)
        assert lengths.min() > 0.3 and np.ptp(lengths) < 1e-4  # metres, the true thigh


def test_the_split_of_a_command(motion, tmp_path, capsys):
    path, _ = trained("frame", motion, tmp_path)
    moved = motion.rename(motion.with_name("moved.npz"))
    try:
        assert main(["predict", "--split", "train", "--ckpt", str(path), "--npz", str(tmp_path / "a.npz")]) == 1
        assert "motion.npz does not exist" in capsys.readouterr().err
        assert not (tmp_path / "a.npz").exists()
        main(["predict", str(moved), "--split", "train", "--ckpt", str(path), "--out", str(tmp_path / "deep")])
        out = capsys.readouterr().out
        assert "12 clips of syn01, syn02, syn03, 426 frames, MPJPE" in out
        assert (
            f"next: structloss fit --config tpnet --data.predictions {tmp_path / 'deep/predictions-train.npz'}" in out
        )
        assert len(read_predictions(tmp_path / "deep" / "predictions-train.npz").clips) == 12
        main(["predict", str(moved), "--split", "test", "--ckpt", str(path), "--npz", str(tmp_path / "a.npz")])
        out = capsys.readouterr().out
        assert "4 clips of syn04, 142 frames" in out and "next:" not in out  # no refiner is trained on these
    finally:
        moved.rename(motion)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "train"], "--split is 'train' without --ckpt, expected a checkpoint"),
        (["--split", "train", "--ckpt", "CKPT"], "expected either --npz, a file, or --out, a folder"),
        (["--split", "train", "--ckpt", "CKPT", "--npz", "a.txt"], "--npz is 'a.txt', expected a name that ends in"),
        (["--split", "train", "--ckpt", "CKPT", "--npz", "a.npz", "--bvh", "b.bvh"], "--bvh is 'b.bvh' with --split"),
        (["--split", "train", "--ckpt", "CKPT", "--npz", "a.npz", "--refine", "r.ckpt"], "--refine is 'r.ckpt' with"),
        (["--split", "train", "--ckpt", "CKPT", "--npz", "a.npz", "--floor"], "--floor is given with --split"),
        (["--split", "train", "--ckpt", "CKPT", "--npz", "/proc/a.npz"], "/proc/a.npz can't be written"),
        (["--split", "train", "--ckpt", "none.ckpt", "--npz", "a.npz"], "none.ckpt does not exist"),
        (["", "--ckpt", "CKPT", "--npz", "a.npz"], "no input is given, expected a file of keypoints, or --split"),
        (["--ckpt", "CKPT", "--npz", "a.npz"], "no input is given, expected a file of keypoints, or --split"),
    ],
)
def test_what_the_split_refuses(arguments, message, motion, tmp_path, capsys, monkeypatch):
    path, _ = trained("frame", motion, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["predict", *(str(path) if word == "CKPT" else word for word in arguments)]) == 1
    err = capsys.readouterr().err
    assert message in err and len(err.strip().splitlines()) == 1


def test_networks_without_poses_or_data(tmp_path, motion):
    path, _ = trained("frame", motion, tmp_path)
    content = torch.load(path, weights_only=True)
    del content["datamodule_hyper_parameters"]
    torch.save(content, tmp_path / "b.ckpt")
    with pytest.raises(DataError, match="doesn't say what data it was trained on"):
        predict_split(tmp_path / "b.ckpt", tmp_path / "out.npz")
    with pytest.raises(ArgumentError, match="split is 'val', expected"):
        predict_split(path, tmp_path / "out.npz", split="val")


# ----------------------------------------------------------------------------------------------- after the prediction


def prediction(frames=30, fps=50.0):
    rng = np.random.default_rng(0)
    poses = rng.normal(size=(frames, 17, 3)).astype(np.float32) / 3
    poses -= poses[:, :1]
    one = np.ones(frames, np.float32)
    return Prediction("clip", poses, poses[..., :2], poses[..., 0], "h36m", fps, 100, 100, one, {"model": "made-up"})


def test_refined_at_the_rate_of_the_training():
    model = TPNet(past=3, future=1, hidden=16, root=0)
    found = prediction()
    refiner = LoadedRefiner(model, "tpnet", "h36m", 25.0, "folder/t.ckpt")
    with torch.no_grad():
        for fps, step in ((50.0, 2), (25.0, 1)):
            got = refined(prediction(fps=fps), refiner)
            for phase in range(step):
                want = model(torch.from_numpy(found.positions[None, phase::step]))[0]
                np.testing.assert_allclose(got.positions[phase::step], want, atol=1e-6)
            assert got.meta == {
                "model": "made-up", "refiner": "tpnet", "refiner_weights": "t.ckpt", "refiner_frame_step": step,
            }  # fmt: skip
            assert got.notes == ()
    (note,) = refined(prediction(fps=10.0), refiner).notes
    assert note == "tpnet was trained on 25 frames per second and sees 10"
    with pytest.raises(
        ArgumentError, match=r"t\.ckpt refines poses of skeleton 'mpi_inf_3dhp', expected one for 'h36m'"
    ):
        refined(found, LoadedRefiner(model, "tpnet", "mpi_inf_3dhp", 25.0, "t.ckpt"))
    with torch.no_grad():
        model.fc[1].bias[5] = math.nan
    with pytest.raises(CheckpointError, match="gives NaN or infinite values"):
        refined(found, refiner)


def test_fitted_to_own_and_to_given_lengths(tmp_path):
    found = prediction()
    own = fitted(found)
    assert own.positions.dtype == np.float32
    median = bone_lengths(found.positions.astype(float))
    np.testing.assert_allclose(bone_lengths(own.positions), median, atol=1e-6)
    assert own.meta["bone_lengths"]["RKnee"] == pytest.approx(median[1], abs=1e-6)
    path = tmp_path / "lengths.json"
    path.write_text(json.dumps({"units": "cm", "lengths": dict(zip(NAMES, range(10, 26), strict=True))}))
    lengths = read_lengths(path)
    np.testing.assert_allclose(lengths, np.arange(10, 26) / 100)
    given = fitted(found, lengths).positions
    child, parent = np.array(H36M.tree_bones).T
    np.testing.assert_allclose(
        np.linalg.norm(given[:, child] - given[:, parent], axis=-1), np.broadcast_to(lengths, (30, 16)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "has no lengths, expected"),
        ({"lengths": {}}, "units of .* is None, expected 'mm', 'cm' or 'm'"),
        ({"units": "mm", "lengths": {"Tail": 3}}, "has 'Tail', expected joints of h36m: RHip, RKnee"),
        ({"units": "mm", "lengths": {"RHip": 3}}, "the length of RKnee in .* is None, expected a number of mm"),
        ({"units": "mm", "lengths": dict.fromkeys(NAMES, -1)}, "the length of RHip in .* is -1"),
    ],
)
def test_lengths_that_are_none(content, message, tmp_path):
    (tmp_path / "l.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_lengths(tmp_path / "l.json")


@pytest.fixture(scope="module")
def checkpoints(motion, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    lifter, _ = trained("frame", motion, folder)
    refiner = RefineModule(refiner_args={"hidden": 16}, past=3)
    save(refiner, folder / "tpnet.ckpt", _predictions(lifter, folder))
    return lifter, folder / "tpnet.ckpt"


def _predictions(lifter, folder):
    from structloss.refine import PredictionsDataModule

    predict_split(lifter, folder / "train.npz")
    return PredictionsDataModule(str(folder / "train.npz"), past=3)


def test_predict_refines_and_fits(checkpoints, tmp_path, capsys):
    """The command: keypoints in, poses out, with the same answers as the library's and bones of one length."""
    lifter, refiner = checkpoints
    camera = h36m_cameras("S1")[0]
    clip = generate_clips(1, 1, 33, seed=3)[0].centred()
    keypoints = camera.project(camera.to_camera(clip.positions)).astype(np.float32)
    np.save(tmp_path / "kp.npy", keypoints)
    base = ["predict", str(tmp_path / "kp.npy"), "--layout", "h36m", "--image-size", "1000", "1002", "--fps", "50"]
    base += ["--ckpt", str(lifter)]
    found = {}
    for name, more in {
        "plain": [],
        "refined": ["--refine", str(refiner)],
        "fitted": ["--fit-skeleton"],
        "both": ["--refine", str(refiner), "--fit-skeleton"],
    }.items():
        main([*base, *more, "--npz", str(tmp_path / f"{name}.npz")])
        with np.load(tmp_path / f"{name}.npz") as content:
            found[name] = content["positions"], json.loads(str(content["meta"]))
    module = RefineModule(refiner_args={"hidden": 16}, past=3)
    module.load_state_dict(torch.load(refiner, weights_only=True)["state_dict"])
    with torch.no_grad():
        want = module.model.eval()(torch.from_numpy(found["plain"][0][None, ::2]))[0]
    np.testing.assert_allclose(found["refined"][0][::2], want, atol=1e-5)
    assert found["refined"][1]["refiner_frame_step"] == 2
    child, parent = np.array(H36M.tree_bones).T
    for name in ("fitted", "both"):
        poses = found[name][0].astype(float)
        assert np.linalg.norm(poses[:, child] - poses[:, parent], axis=-1).std(axis=0).max() < 1e-6
    thigh = found["plain"][0][:, 2] - found["plain"][0][:, 1]
    fitted_thigh = found["fitted"][0][:, 2] - found["fitted"][0][:, 1]
    cosine = (thigh * fitted_thigh).sum(-1) / np.linalg.norm(thigh, axis=-1) / np.linalg.norm(fitted_thigh, axis=-1)
    np.testing.assert_allclose(cosine, 1, atol=1e-5)
    capsys.readouterr()
    assert main([*base, "--refine", str(lifter), "--npz", str(tmp_path / "x.npz")]) == 1
    assert "is not of a refiner, expected a checkpoint of structloss fit --config tpnet" in capsys.readouterr().err
    assert main([*base, "--fit-skeleton", "none.json", "--npz", str(tmp_path / "x.npz")]) == 1
    assert "none.json does not exist, expected bone lengths" in capsys.readouterr().err
