"""The lifting module, its callbacks, checkpoints, recipes, and the fit / test commands, on tiny data."""

import csv
import os
import pickle

import pytest
import torch
import yaml

import structloss
from structloss.backbones import Backbone
from structloss.errors import ArgumentError, CheckpointError, DataError, MissingFileError, UnknownNameError
from structloss.harness.checkpoint_io import SafeCheckpointIO
from structloss.harness.lifting import REPOSE_OBJECTIVE, LiftingModule, describe
from structloss.harness.recipe_files import recipe_names, recipe_path
from structloss.harness.training import train

TINY = {"dim_feat": 16, "depth": 1, "num_heads": 2, "dim_rep": 16, "predict_offset": False}
SMALL_DATA = {"num_subjects": 4, "clips_per_subject": 2, "frames": 27, "window": 9, "views": 1, "batch_size": 4}
DATA_ARGUMENTS = [f"--data.{key}={value}" for key, value in SMALL_DATA.items()]


@pytest.fixture(scope="module")
def data():
    from structloss.data import MotionDataModule

    module = MotionDataModule(**SMALL_DATA, progress=False)
    module.setup("fit")
    return module


def module(**arguments):
    torch.manual_seed(0)
    return LiftingModule(**{"backbone_args": TINY, "schedule": "one_cycle", **arguments})


def stand_in(forward):
    """A network of sequences that answers what it is told."""
    model = Backbone(kind="sequence", frames=9)
    model.forward = forward
    return model


def test_training_lowers_the_loss_and_keeps_its_history(data):
    trained = train(module(lr=5e-3), data, steps=30, validations=2)
    curve = trained.curves["train_loss"]
    assert trained.curves["step"] == list(range(1, 31)) and len(curve) == 30
    assert sum(curve[-5:]) < 0.7 * sum(curve[:5])
    assert len(trained.curves["val_step"]) == len(trained.curves["val_mpjpe"]) == 2
    assert {"mpjpe", "pa_mpjpe", "n_mpjpe", "mpjve", "depth_order_joints", "depth_order_frames"} == set(
        trained.evaluation.metrics
    )
    assert 0 < trained.loss_share < 1 and trained.clips_per_second > 0
    assert len(trained.evaluation.per_joint) == 17 and trained.evaluation.per_joint[0] == 0
    assert set(trained.evaluation.per_action) <= set(data.actions)
    assert trained.evaluation.metrics["mpjpe"] == pytest.approx(trained.curves["val_mpjpe"][-1], rel=1e-6)


def test_values_of_clips_average_to_those_of_the_whole(data):
    """Motions of one length: their plain mean is the number of the whole test, whatever windows add up to."""
    from structloss.harness.clip_values import clip_values
    from structloss.harness.evaluation import evaluate

    lifting = module()
    found = clip_values(lifting, data.val_dataset)
    whole = evaluate(lifting, data.val_dataloader(), data.actions)
    motions = set(data.val_dataset.store.motions)
    assert len(motions) > 1
    for key in ("mpjpe", "pa_mpjpe", "n_mpjpe", "depth_order_joints", "lse", "bsle", "lle", "illegal_angle_rate"):
        assert set(found[key]) == motions, key
        expected = whole.metrics.get(key, whole.structure.get(key))
        assert sum(found[key].values()) / len(motions) == pytest.approx(expected, rel=1e-4), key
    assert {"mpjve", "depth_order_frames", "bone_length_spread"} <= set(found)


def test_fused_training_follows_plain_pytorch(data):
    """The same few steps with the argsort form and the compiled kernels give the same curve."""
    curves = []
    for backend in ("torch", "auto"):
        with structloss.use_backend(backend):
            curves.append(train(module(lr=2e-3), data, steps=6, validations=1).curves["train_loss"])
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


def test_same_seed_same_run_and_same_start_for_every_objective(data):
    runs = [train(module(objective=w), data, steps=3, validations=1) for w in ({"mpjpe": 1.0},) * 2]
    assert runs[0].curves["train_loss"] == runs[1].curves["train_loss"]
    other = train(module(objective={"mpjpe": 1.0, "depth_ranking_frames": 1.0}), data, steps=3, validations=1)
    assert other.curves["train_mpjpe"][0] == runs[0].curves["train_mpjpe"][0]
    assert other.curves["train_mpjpe"][-1] != runs[0].curves["train_mpjpe"][-1]


@pytest.mark.parametrize("target", ["global", "root_relative"])
def test_a_perfect_prediction_scores_zero_error(target):
    """The whole way back from normalised image space to millimetres, through the module's metrics."""
    from structloss.data import MotionDataModule

    exact = MotionDataModule(**SMALL_DATA, target=target, detections="exact", progress=False)
    exact.setup("fit")
    lifting = module(target=target, flip_test=False)
    batches = list(exact.val_dataloader())
    answers = iter([b["target"] for b in batches])
    lifting.model = stand_in(lambda x: next(answers))
    from structloss.harness.evaluation import evaluate

    metrics = evaluate(lifting, batches, exact.actions).metrics
    assert metrics["mpjpe"] < 0.05 and metrics["mpjve"] < 0.05
    assert metrics["depth_order_joints"] == metrics["depth_order_frames"] == 1


def test_the_order_over_frames_is_the_predicted_one(data):
    """A prediction that stands still orders no frames, though its millimetres grow and shrink with the true scale."""
    lifting = module(flip_test=False)
    lifting.model = stand_in(lambda x: torch.ones(*x.shape[:3], 3))
    from structloss.harness.evaluation import evaluate

    assert evaluate(lifting, data.val_dataloader(), data.actions).metrics["depth_order_frames"] == 0.5


def test_flip_test_is_symmetric():
    """Averaging with the mirrored input makes the prediction of a mirrored input the mirrored prediction."""
    from structloss.data import flip

    lifting = module().eval()
    x = torch.rand(2, 9, 17, 3)
    with torch.no_grad():
        a = lifting.predict_image_space(x)
        b = flip(lifting.predict_image_space(flip(x, lifting.skeleton)), lifting.skeleton)
    torch.testing.assert_close(a, b)


def test_bad_arguments():
    with pytest.raises(UnknownNameError, match="unknown backbone 'repose-tinny': did you mean"):
        LiftingModule(backbone="repose-tinny")
    with pytest.raises(UnknownNameError, match="unknown term 'L_S'"):
        module(objective={"L_S": 1.0})
    with pytest.raises(ArgumentError, match="schedule is 'sawtooth'"):
        module(schedule="sawtooth")
    with pytest.raises(ArgumentError, match="flip_probability is 2"):
        module(flip_probability=2)
    with pytest.raises(MissingFileError, match=r"nowhere\.pth"):
        module(init_from="nowhere.pth")


def test_describe():
    assert describe({"mpjpe": 1.0, "depth_ranking_joints": 0.5, "depth_ranking_frames": 1}) == "MPJPE + 0.5 L_S + L_T"


def test_a_loss_that_is_no_number_stops_the_run(data):
    lifting = module(lr=1e-3)
    with torch.no_grad():
        next(lifting.model.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="the loss is nan at step 1"):
        train(lifting, data, steps=3)


def test_checkpoint_io_is_atomic_and_refuses_code(tmp_path):
    io = SafeCheckpointIO()
    path = tmp_path / "last.ckpt"
    io.save_checkpoint({"pytorch-lightning_version": "2", "x": torch.ones(2)}, path)
    assert io.load_checkpoint(path)["x"].sum() == 2
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        io.save_checkpoint({"x": lambda: 0}, path)  # can't be written: the old file stays whole
    assert io.load_checkpoint(path)["x"].sum() == 2
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"pytorch-lightning_version": "2", "x": Evil()}, tmp_path / "evil.ckpt")
    (tmp_path / "short.ckpt").write_bytes(path.read_bytes()[:100])
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    for name, message in {
        "evil.ckpt": "can't be read",
        "short.ckpt": "can't be read",
        "other.ckpt": "is no training checkpoint",
    }.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            io.load_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()
    with pytest.raises(MissingFileError, match="does not exist"):
        io.load_checkpoint(tmp_path / "nothing.ckpt")


def test_init_from_is_short_for_the_models():
    from structloss.commands._arguments import spelled_out

    given = ["fit", "--init-from", "x.pth", "--init_from=y.pth", "--initial", "--model.init_from", "z"]
    assert spelled_out(given) == [
        "fit", "--model.init_from", "x.pth", "--model.init_from=y.pth", "--initial", "--model.init_from", "z",
    ]  # fmt: skip


def test_recipes_are_found():
    assert "repose-tiny" in recipe_names()
    assert recipe_path("repose-h36m").is_file()
    with pytest.raises(UnknownNameError, match="unknown recipe 'repose-h36': did you mean"):
        recipe_path("repose-h36")
    with pytest.raises(MissingFileError, match=r"mine\.yaml does not exist"):
        recipe_path("mine.yaml")


@pytest.mark.slow
def test_fit_resume_and_test_from_the_command_line(tmp_path, commands):
    model = [f"--model.backbone_args={yaml.safe_dump(TINY, default_flow_style=True).strip()}"]
    fit = ["fit", "--config", "repose-tiny", *model, *DATA_ARGUMENTS, "--seed_everything", "3"]
    first = commands.run(tmp_path, *fit, "--trainer.max_epochs", "1")
    assert first.returncode == 0, first.stderr
    version = tmp_path / "runs" / "repose-tiny" / "version_0"
    assert {"config.yaml", "metrics.csv"} <= {p.name for p in version.iterdir()}
    with open(version / "metrics.csv") as file:
        assert any(row.get("val/mpjpe") for row in csv.DictReader(file))
    last = version / "checkpoints" / "last.ckpt"
    saved = torch.load(last, weights_only=True)
    resumed = commands.run(tmp_path, *fit, "--trainer.max_epochs", "2", "--ckpt_path", "last")
    assert resumed.returncode == 0, resumed.stderr
    after = torch.load(tmp_path / "runs/repose-tiny/version_1/checkpoints/last.ckpt", weights_only=True)
    assert (saved["epoch"], after["epoch"]) == (0, 1) and after["global_step"] == 2 * saved["global_step"]

    test = ["test", "--config", "repose-tiny", *DATA_ARGUMENTS, "--ckpt_path", str(last)]
    scored = commands.run(tmp_path, *test, *model)
    assert scored.returncode == 0, scored.stderr
    assert "test/pa_mpjpe" in scored.stdout
    nothing = commands.run(tmp_path, "fit", "--config", "repose-h36m", *DATA_ARGUMENTS, "--ckpt_path=last")
    assert nothing.returncode == 1 and "no earlier run has a checkpoint under runs/repose-h36m" in nothing.stderr
    other = commands.run(tmp_path, *test, "--model.backbone", "simplebaseline-16j")
    assert other.returncode == 1
    assert "of a model with backbone 'repose-tiny', expected 'simplebaseline-16j'" in other.stderr
    assert "Traceback" not in other.stderr


def test_learned_weights_are_trained_logged_and_saved(data):
    """The lambdas move, have no weight decay, and are in the checkpoint."""
    lifting = module(lr=5e-2, learn_weights=True)
    before = lifting.loss.current_lambdas()
    assert {name: float(value) for name, value in before.items()} == dict.fromkeys(REPOSE_OBJECTIVE, 1.0)
    trained = train(lifting, data, steps=6, validations=0)
    after = trained.module.loss.current_lambdas()
    assert all(abs(float(after[name]) - 1) > 1e-3 for name in after)
    assert "loss.terms.log_variance" in lifting.state_dict()
    optimizer = lifting.optimization.build(lifting.model.parameters(), 10, undecayed=lifting.loss.parameters())
    groups = optimizer["optimizer"].param_groups
    assert [len(g["params"]) for g in groups][1] == 1 and groups[1]["weight_decay"] == 0 < groups[0]["weight_decay"]
    for options, message in (
        ({"objective": {"mse": 1.0}}, "learn_weights is True, expected False"),
        ({"squared_objective": True}, "learn_weights is True, expected False"),
        ({"objective": {"mpjpe": 0.0}}, "expected a finite number > 0"),
    ):
        with pytest.raises(ArgumentError, match=message):
            module(learn_weights=True, **options)


def test_bad_averaging():
    with pytest.raises(ArgumentError, match=r"ema is 1\.0, expected None or a decay between 0 and 1"):
        module(ema=1.0)


@pytest.mark.slow
def test_a_compiled_backbone_trains_the_same():
    from structloss.data import MotionDataModule

    options = {
        "backbone": "simplebaseline-16j",
        "backbone_args": {"linear_size": 16, "dropout": 0.0},
        "target": "camera",
    }
    windows = MotionDataModule(**{**SMALL_DATA, "target": "camera"}, progress=False)
    plain, compiled = (module(**options, compile=flag) for flag in (False, True))
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    curves = [train(lifting, windows, steps=3, validations=0).curves["train_loss"] for lifting in (plain, compiled)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
