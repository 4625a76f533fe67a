"""What compares frames in a row: refused where training or the data has one, put together per video where it is
measured."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

from test_units import NoFloat64

import structloss
from structloss.cli import main
from structloss.data import MotionDataModule, PoseStore, View, flip, save_store
from structloss.errors import ArgumentError
from structloss.harness.evaluation import Evaluation, evaluate
from structloss.harness.hypotheses import HypothesisScore
from structloss.harness.lifting import LiftingModule
from structloss.harness.training import train
from structloss.harness.videos import WholeVideos
from structloss.reports.breakdown import breakdown

DATA = {"num_subjects": 3, "clips_per_subject": 1, "frames": 30, "views": 1, "batch_size": 8, "progress": False}
SEMGCN = {"backbone": "semgcn-base", "backbone_args": {"dim_feat": 8, "depth": 1}}
VIDEO = {"backbone": "videopose3d-27", "backbone_args": {"channels": 16}}
OVER_TIME = {"velocity", "temporal_consistency", "depth_ranking_frames", "limb_variance", "bone_angle_velocity"}


def data(**arguments):
    return MotionDataModule(**{**DATA, "target": "camera", **arguments})


def fitted(network, motion, steps=1, validations=0, **arguments):
    torch.manual_seed(0)
    module = LiftingModule(**{**network, "target": motion.target, "objective": {"mpjpe": 1.0}, **arguments})
    return train(module, motion, steps=steps, validations=validations, evaluation=False, quiet=True)


@pytest.mark.parametrize("name", structloss.TERMS)
def test_the_table_tells_which_terms_are_zero_on_one_frame(name):
    pred, target = torch.randn(2, 4, 1, 17, 3, dtype=torch.float64)
    value = structloss.objective(pred, target, {name: 1.0}).total
    assert structloss.TERMS[name].needs_frames == (name in OVER_TIME) == (value == 0)


@pytest.mark.parametrize("term", sorted(OVER_TIME))
def test_a_term_over_time_is_refused_on_one_frame(term):
    """Of networks of single frames, and of the centre of a window."""
    for network, cut in ((SEMGCN, {"window": 1}), (VIDEO, {"window": 27, "sampling": "centred"})):
        with pytest.raises(ArgumentError, match=rf"^objective has \['{term}'\], 0 on one frame, expected terms of"):
            fitted(network, data(**cut), objective={"mpjpe": 1.0, term: 0.5})


def test_a_term_of_weight_zero_is_not_refused():
    trained = fitted(SEMGCN, data(window=1), objective={"mpjpe": 1.0, "velocity": 0.0})
    assert math.isfinite(trained.curves["train_loss"][0])


@pytest.mark.parametrize(
    ("network", "cut", "remedy"),
    [
        (SEMGCN, {"window": 1}, "; set window to 27 and set sampling to 'windows' for more."),
        (VIDEO, {"window": 27}, "; set window to 53, set context to 13 and set sampling to 'windows' for 27."),
        ({"backbone": "poseformerv2-27-1-3"}, {"window": 27}, "predicts 1 of a window of 27 frames."),
    ],
)
def test_the_message_says_what_would_give_more(network, cut, remedy):
    with pytest.raises(ArgumentError) as caught:
        fitted(network, data(**cut), objective=None)
    assert str(caught.value).endswith(remedy) and str(caught.value).startswith("objective has ['depth_ranking_frames']")


def test_the_message_of_fit_names_its_flags(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["fit", "--config", "videopose3d-27", "--model.backbone_args", "{channels: 16}", "--data.progress=false"]
    command += ["--data.frames=30", "--data.num_subjects=2", "--data.clips_per_subject=1"]
    assert main([*command, "--model.objective", "{mpjpe: 1.0, velocity: 1.0}"]) == 1
    error = capsys.readouterr().err
    assert "structloss: error: --model.objective has ['velocity'], 0 on one frame, expected terms of single" in error
    assert "set --data.window to 53, set --data.context to 13 and set --data.sampling to 'windows' for 27." in error


@pytest.mark.parametrize("sampling", ["windows", "chunks"])
def test_a_network_of_the_centre_trains_on_frames_in_a_row_with_context(sampling):
    """As VideoPose3D's chunks: what the loss sees is the whole of the inner window, and the terms see its steps."""
    motion = data(window=31, context=13, sampling=sampling, batch_size=4)
    terms = {"mpjpe": 1.0} | dict.fromkeys(OVER_TIME, 0.1)
    trained = fitted(VIDEO, motion, objective=terms)
    assert all(trained.curves[f"train_{term}"][0] > 0 for term in terms)
    batch = next(iter(motion.train_dataloader()))
    seen = trained.module.model.supervise(batch["input"], batch["target"], batch["weight"])[0]
    assert seen.prediction.shape[1] == 5 and torch.equal(seen.target, batch["target"][:, 13:18]) and seen.weight.all()


def test_networks_of_the_centre_that_train_on_all_frames_may_have_terms_over_time():
    small = {"frames": 9, "strides": (3, 3), "depth": 1, "dim": 16, "hidden": 16, "encoder_width": 16, "num_heads": 2}
    network = {"backbone": "pstmo-s-243", "backbone_args": small}
    trained = fitted(network, data(window=9, sampling="centred"), objective={"mpjpe": 1.0, "velocity": 1.0})
    assert trained.curves["train_velocity"][0] > 0


@pytest.mark.parametrize(
    ("learned", "window", "message"),
    [
        ({"pair_weight": 0.1}, 3, r"^learned.pair_weight is 0.1, expected 0 with less than 4 frames in a row"),
        (
            {"net_options": {"temporal_depth": 1}, "negatives": ["shuffled_frames"]},
            1,
            r"^learned.negatives has \['shuffled_frames'\], which need frames in a row",
        ),
        (
            {"net_options": {"temporal_depth": 1}, "negatives": ["shuffled_frames"], "frames": 1},
            9,
            r"^learned.frames is 1, expected more with 'shuffled_frames'",
        ),
    ],
)
def test_the_learned_loss_too_needs_its_frames(learned, window, message):
    settings = {"net": "graph-small", **learned}
    with pytest.raises(ArgumentError, match=message):
        fitted(SEMGCN, data(window=window), learned=settings)
    fitted(SEMGCN, data(window=9), learned={**settings, "frames": None})


def test_whole_videos_where_there_is_no_float64():
    """On Apple's GPUs: in float32, to what that can hold."""

    def found():
        torch.manual_seed(1)
        videos, samples = WholeVideos(2), HypothesisScore(2, by_action=True)
        place = {"action": torch.tensor([0, 1]), "video": torch.tensor([3, 4]), "frame": torch.arange(6).expand(2, 6)}
        videos.update(torch.randn(2, 6, 17, 3), torch.ones(2, 6, 17), torch.randn(2, 6, 17, 2), **place)
        poses, truth = torch.randn(2, 3, 6, 17, 3), torch.randn(2, 6, 17, 3)
        scene = {"keypoints": truth[..., :2], "trajectory": truth[:, :, 0], "camera": torch.full((2, 9), torch.nan)}
        numbers = {"action": place["action"], "view": place["video"]}
        samples.update(poses, truth, torch.ones(2, 6, 17), **numbers, **scene)
        return [*videos.compute(), *samples.compute().values()]

    expected = found()
    with NoFloat64():
        narrow = found()
    for value, want in zip(narrow, expected, strict=True):
        assert value.dtype == torch.float32 and want.dtype == torch.float64
        torch.testing.assert_close(value.double(), want, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(
    ("network", "cut"),
    [
        (SEMGCN, {"window": 1}),
        (VIDEO, {"window": 27, "sampling": "centred"}),
        (VIDEO, {"window": 31, "context": 13}),
        (SEMGCN, {"window": 7}),
    ],
    ids=["frames", "centred", "context", "windows"],
)
def test_validation_puts_predictions_together_by_video_as_test_does(network, cut):
    motion = data(**cut, stride=1, clips_per_subject=2)
    trained = fitted(network, motion, steps=2, validations=2)
    found = evaluate(trained.module, motion.val_dataloader(), motion.actions).metrics
    for name in ("mpjpe", "mpjve", "depth_order_joints", "depth_order_frames"):
        curve = trained.curves[f"val_{name}"]
        assert len(curve) == 2 and np.isfinite(curve).all() and curve[0] != curve[1]
        assert curve[-1] == pytest.approx(found[name], rel=1e-5), name


def test_what_lies_between_frames_of_single_poses_is_not_logged(tmp_path):
    """There is nothing to log, and no NaN; a test says so."""
    rng = np.random.default_rng(0)
    views = [View(f"S{i}", "Walking", "a", "c", 0, 10 * i, 10) for i in range(3)]
    store = PoseStore(tuple(views), *rng.normal(size=(2, 30, 17, 3)).astype(np.float32), temporal=False)
    for number, poses in enumerate(
        (store, replace(store, temporal=True, views=tuple(replace(v, frames=1) for v in views)))
    ):
        path = save_store(poses, tmp_path / f"{number}.poses")
        motion = data(data=str(path), window=1)
        trained = fitted(SEMGCN, motion, validations=1)
        assert {name for name in trained.curves if name.startswith("val_")} == {
            "val_step", "val_mpjpe", "val_pa_mpjpe", "val_n_mpjpe", "val_depth_order_joints"
        }  # fmt: skip
        found = evaluate(trained.module, motion.val_dataloader(), motion.actions)
        assert math.isnan(found.metrics["mpjve"]) and math.isnan(found.protocol["mpjve"])
        assert "No frame follows another: MPJVE and the order over frames are left out." in breakdown(found)


def test_subjects_without_millimetres_are_said_to_have_none():
    """The training half of MotionBERT's pickle, scored with --data.test_set train."""
    numbers = dict.fromkeys(("p1", "p2", "p3", "mpjve"), math.nan)
    text = breakdown(Evaluation({"mpjpe": math.nan}, by_action={"Walking": numbers}))
    assert "does not publish poses of these subjects in millimetres" in text and "No frame follows" not in text


def test_mixste_counts_the_padding_of_short_videos():
    """As its evaluation does: a video of 7 frames, padded to a window of 9, is one of 9; elsewhere it has 7."""
    motion = data(frames=7, window=9, sampling="chunks", clips_per_subject=3)
    size = {"frames": 9, "embed_dim": 16, "depth": 1}
    module = LiftingModule("mixste-27", size, objective={"mpjpe": 1.0}, target="camera").eval()
    found = evaluate(module, motion.val_dataloader(), motion.actions)
    errors, counted = {}, 0
    for batch in motion.val_dataloader():
        true = batch["camera_pose"] - batch["camera_pose"][:, :, :1]
        with torch.no_grad():
            error = 1000 * module.predict_image_space(batch["input"]) - true
        counted += int(batch["weight"][..., 0].sum())
        for action, one in zip(batch["action"].tolist(), error, strict=True):
            errors.setdefault(motion.actions[action], []).append(one)
    assert counted == 7 * sum(map(len, errors.values()))
    assert found.by_action.keys() == errors.keys()
    for action, videos in errors.items():
        numbers, all_of = found.by_action[action], torch.stack(videos)
        assert numbers["p1"] == pytest.approx(float(all_of.norm(dim=-1).mean()), abs=1e-3)
        assert numbers["mpjve"] == pytest.approx(float(all_of.diff(dim=1).norm(dim=-1).mean()), abs=1e-3)


def test_the_training_set_is_scored_where_that_is_asked_for():
    """With the subjects that it is of, in words and in the evaluation."""
    motion = data(window=1, test_set="train")
    module = LiftingModule(**SEMGCN, target="camera", objective={"mpjpe": 1.0})
    told = {"subjects": motion.subjects, "protocol": motion.rules, "tested": motion.test_set}
    found = evaluate(module, motion.test_dataloader(), motion.actions, **told)
    assert found.tested == "train" and found.by_subject.keys() == {"syn01", "syn02"}
    text = " ".join(breakdown(found).split())
    assert "Scored: the training subjects." in text
    for subject, numbers in found.by_subject.items():
        assert numbers.keys() == {"mpjpe", "pa_mpjpe", "p1", "p2", "p3", "mpjve"}
        assert f"{subject} {numbers['mpjpe']:.2f} {numbers['pa_mpjpe']:.2f} {numbers['p1']:.2f}" in text
    again = train(module, motion, steps=1, validations=0, quiet=True).evaluation
    assert again.tested == "train" and again.by_subject.keys() == {"syn01", "syn02"}
    held_out = evaluate(module, motion.val_dataloader(), motion.actions, subjects=motion.subjects)
    assert held_out.tested == "test" and held_out.by_subject.keys() == {"syn03"}


def test_a_network_of_some_of_the_joints_is_mirrored_in_tests_too():
    module = LiftingModule(**SEMGCN, target="camera", objective={"mpjpe": 1.0}).eval()
    x = torch.randn(2, 3, 17, 3)
    body = module.skeleton
    there, back = module.predict_image_space(x), module.predict_image_space(flip(x, body))
    every = torch.zeros(2, 3, 17, 3)
    kept = [joint for joint in range(17) if joint != 9]
    every[..., kept, :] = back
    assert there.shape == (2, 3, 16, 3)
    torch.testing.assert_close(flip(every, body)[..., kept, :], there)
