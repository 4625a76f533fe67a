"""Training refiners: files of predictions, windows and clips of them, the data module, the module, its checkpoints."""

import json
import math
import zipfile

import numpy as np
import pytest
import torch

from structloss import skeletons
from structloss.errors import ArgumentError, CheckpointError, DataError, MissingFileError, UnknownNameError
from structloss.metrics import bone_length_spread, mpjpe, mpjve
from structloss.refine import (
    PredictedClip,
    PredictionClips,
    PredictionWindows,
    fit_skeleton,
    read_predictions,
    writing_predictions,
)

pytest.importorskip("lightning")

import lightning as L
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser

from structloss.harness.checkpoint_io import SafeCheckpointIO
from structloss.harness.recipe_files import recipe_path
from structloss.harness.refining import RefineModule, load_refiner, train_refiner
from structloss.harness.systems import REFINE, system_of
from structloss.harness.training import quiet_lightning
from structloss.refine import PredictionsDataModule

H36M = skeletons.get("h36m")
RECIPES = ["tpnet", "tpnet-semi-online", "lstm-refiner"]


def swaying(frames, seed, noise=0.03, fps=50.0):
    """(predicted, true) float32 `[T, 17, 3]`, metres relative to the pelvis: a body that sways, from another moment on
    for each seed, and with noise."""
    body, generator = np.random.default_rng(7), np.random.default_rng(seed)
    time = (np.arange(frames)[:, None, None] + generator.uniform(0, 100)) / fps
    true = 0.3 * np.sin(3 * time + body.uniform(0, 6, size=(17, 3))) + body.normal(size=(17, 3))
    true = fit_skeleton(true, np.full(16, 0.3))
    predicted = true + noise * generator.normal(size=true.shape)
    return tuple((poses - poses[:, :1]).astype(np.float32) for poses in (predicted, true))


def clip(frames=40, seed=0, subject="a", name="walk", fps=50.0, weight=None, **more):
    predicted, true = swaying(frames, seed, **more)
    return PredictedClip(predicted, true, weight, subject, "Walking", name, "0", fps)


def write(path, clips, skeleton="h36m"):
    with writing_predictions(path, skeleton, {"model": "made-up"}) as writer:
        for each in clips:
            writer.add(each)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Predictions for four people, two clips each, and for a fifth one."""
    folder = tmp_path_factory.mktemp("predictions")
    clips = [clip(60, 10 * s + n, f"s{s}", f"clip {n}") for s in range(4) for n in range(2)]
    write(folder / "train.npz", clips)
    write(folder / "test.npz", [clip(50, 99, "s9", "clip")])
    return folder


def data(files, **options):
    return PredictionsDataModule(**{"predictions": str(files / "train.npz"), "past": 4, "batch_size": 16, **options})


def module(**options):
    return RefineModule(**{"refiner_args": {"hidden": 32}, "past": 4, "lr": 1e-3, **options})


# -------------------------------------------------------------------------------------------------------------- files


def test_files_give_back_what_was_written(tmp_path):
    weight = np.ones((40, 17), np.uint8)
    weight[3, 5] = 0
    written = [clip(), clip(25, 1, "b", "näme / 2", math.nan), clip(40, 2, weight=weight)]
    written[2].true[3, 5] = np.nan  # not known
    found = read_predictions(write(tmp_path / "deep" / "p.npz", written))
    assert (found.skeleton, found.source, len(found.clips)) == ("h36m", {"model": "made-up"}, 3)
    for mine, theirs in zip(found.clips, written, strict=True):
        for key in ("predicted", "true", "weight"):
            np.testing.assert_array_equal(getattr(mine, key), getattr(theirs, key))
        for key in ("subject", "action", "name", "view"):
            assert getattr(mine, key) == getattr(theirs, key)
        assert mine.fps == theirs.fps or math.isnan(theirs.fps)
    with np.load(tmp_path / "deep" / "p.npz", allow_pickle=False) as archive:
        assert archive["predicted/1"].shape == (25, 17, 3)
        meta = json.loads(str(archive["meta"]))
    assert (
        meta["units"] == "metre" and meta["joint_names"] == list(H36M.joint_names) and meta["clips"][1]["fps"] is None
    )


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(ZeroDivisionError), writing_predictions(tmp_path / "p.npz") as writer:
        writer.add(clip())
        raise ZeroDivisionError
    with pytest.raises(DataError, match="there are no clips to write"), writing_predictions(tmp_path / "p.npz"):
        pass
    assert list(tmp_path.iterdir()) == []


def changed(path, **changes):
    """A file of predictions whose `meta` or arrays are others; None leaves an array out."""
    write(path, [clip()])
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays["meta"]))
    for name, value in changes.items():
        if name in ("predicted", "true", "weight", "everything"):
            arrays = {} if name == "everything" else arrays | {f"{name}/0": value}
        else:
            meta[name] = value
    arrays["meta"] = np.array(json.dumps(meta))
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"format": "else"}, DataError, "holds no predictions, expected a file written by structloss predict --split"),
        ({"version": 2}, DataError, "has version 2 and units 'metre', expected 1 and 'metre'"),
        ({"units": "mm"}, DataError, "units 'mm'"),
        ({"skeleton": "h37m"}, UnknownNameError, "unknown skeleton 'h37m'"),
        ({"skeleton": "mpii"}, DataError, "clip 0 of .* has 17 joints, expected 16"),
        ({"clips": []}, DataError, "clips in 'meta' of .* is malformed"),
        ({"clips": [3]}, DataError, "clips in 'meta' of .* is malformed"),
        ({"clips": [{}, {}]}, DataError, "has no array 'predicted/1'"),
        ({"clips": [{"fps": -1}]}, DataError, "fps of clip 0 of .* is -1, expected a positive number"),
        ({"clips": [{"fps": "50"}]}, DataError, "fps of clip 0 of .* is '50'"),
        ({"true": None}, DataError, "has no array 'true/0'"),
        ({"true": np.zeros((39, 17, 3), np.float32)}, DataError, r"true is float32 \[39, 17, 3\], expected"),
        ({"predicted": np.zeros((40, 17, 3))}, DataError, r"predicted is float64 \[40, 17, 3\], expected float32"),
        ({"predicted": np.full((40, 17, 3), np.nan, np.float32)}, DataError, "predicted has NaN .* first in frame 0"),
        ({"weight": np.ones((40, 16), np.uint8)}, DataError, r"weight is uint8 \[40, 16\]"),
        ({"predicted": np.array([object()])}, DataError, "dtype is object"),
    ],
)
def test_files_that_are_none(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        read_predictions(changed(tmp_path / "p.npz", **changes))


def test_other_files(tmp_path, real_mocap):
    with pytest.raises(MissingFileError, match=r"none\.npz"):
        read_predictions(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(DataError, match="not a complete npz archive"):
        read_predictions(tmp_path / "text.npz")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    with pytest.raises(DataError, match="has no 'meta' text, expected predictions"):
        read_predictions(tmp_path / "empty.npz")
    with pytest.raises(DataError, match="holds no predictions"):
        read_predictions(real_mocap)


# ------------------------------------------------------------------------------------------------------------ windows


@pytest.mark.parametrize("border", ["repeat", "zero"])
@pytest.mark.parametrize("step", [1, 3])
def test_windows_by_hand(step, border):
    clips = [clip(11, 0), clip(2, 1), clip(20, 2)]
    windows = PredictionWindows(clips, past=3, future=2, frame_step=step, border=border)
    assert len(windows) == 33  # every frame is refined once
    number = 0
    for at, each in enumerate(clips):
        for phase in range(min(step, len(each))):
            frames = list(range(phase, len(each), step))
            for middle in range(len(frames)):
                sample = windows[number]
                assert (int(sample["clip"]), int(sample["index"])) == (at, number)
                for place, offset in enumerate(range(middle - 3, middle + 3)):
                    want = each.predicted[frames[min(max(offset, 0), len(frames) - 1)]]
                    if border == "zero" and not 0 <= offset < len(frames):
                        want = np.zeros_like(want)
                    np.testing.assert_array_equal(sample["input"][place], want)
                np.testing.assert_array_equal(sample["target"][0], each.true[frames[middle]])
                assert (sample["weight"] == 1).all() and sample["weight"].shape == (1, 17)
                number += 1


def test_stretches_for_networks_that_read_on():
    clips = [clip(50, 0), clip(5, 1)]
    windows = PredictionWindows(clips, past=None, future=0, frames=16, stride=10)
    assert len(windows) == 6  # at 0, 10, 20, 30, 34; and the short clip
    np.testing.assert_array_equal(windows[4]["input"], clips[0].predicted[34:])
    short = windows[5]
    np.testing.assert_array_equal(short["input"][:5], clips[1].predicted)
    np.testing.assert_array_equal(short["input"][5:], np.broadcast_to(clips[1].predicted[4], (11, 17, 3)))
    assert short["weight"][:, 0].tolist() == [1.0] * 5 + [0.0] * 11
    batch = windows.batch([5, 0])
    assert torch.equal(batch["input"][0], short["input"]) and batch["input"].shape == (2, 16, 17, 3)


def test_what_is_not_known_does_not_count():
    """A joint without a true pose has no weight and target 0; a frame without a pelvis has nothing to measure from."""
    weight = np.ones((6, 17), np.uint8)
    weight[2, 5] = weight[4, 0] = 0
    each = clip(6, weight=weight)
    each.true[2, 5] = np.nan
    windows = PredictionWindows([each], past=1, future=0)
    batch = windows.batch(range(6))
    assert torch.isfinite(batch["target"]).all()
    assert batch["weight"].sum((1, 2)).tolist() == [17, 17, 16, 17, 0, 17] and batch["weight"][2, 0, 5] == 0


@pytest.mark.parametrize("step", [1, 4])
def test_whole_clips(step):
    clips = [clip(11, 0), clip(3, 1)]
    whole = PredictionClips(clips, frame_step=step)
    found = [whole.batch([i]) for i in range(len(whole))]
    assert len(found) == (2 if step == 1 else 4 + 3)
    np.testing.assert_array_equal(found[0]["input"][0], clips[0].predicted[::step])
    np.testing.assert_array_equal(found[-1]["target"][0], clips[1].true[(0 if step == 1 else 2) :: step])
    assert sum(batch["input"].shape[1] for batch in found) == 14
    assert torch.equal(whole[0]["input"], found[0]["input"][0])


# -------------------------------------------------------------------------------------------------------- data module


def test_subjects_are_held_out(files):
    found = data(files)
    assert found.fps == 25 and len(found.train_dataset) == 3 * 2 * 60 and len(found.val_dataset) == 2 * 2
    motions = data(files, val_subjects=["s0/clip 1", "s2"])
    assert len(motions.train_dataset) == 5 * 60 and len(motions.val_dataset) == 3 * 2
    other = data(files, val_predictions=[str(files / "test.npz")], frame_step=1)
    assert other.fps == 50 and len(other.train_dataset) == 8 * 60 and len(other.val_dataset) == 1
    assert other.test_dataset is other.val_dataset
    trained_on = data(files, test_set="train").test_dataset
    assert len(trained_on) == 6 * 2


def test_the_order_depends_on_seed_and_epoch(files):
    def order(epoch, resumed=None, **options):
        found = data(files, **options)
        if resumed is not None:
            found.load_state_dict({"epoch": epoch, "batches": resumed})
        loader = found.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return torch.cat([batch["index"] for batch in loader]).tolist()

    first = order(3)
    assert sorted(first) == list(range(360)) and order(3) == first
    assert order(4) != first and order(3, seed=1) != first
    assert order(3, resumed=5) == first[5 * 16 :]


def test_noise_and_mirroring(files):
    found = data(files, input_noise_mm=20.0, flip_probability=0.5, seed=3)
    batch = found.train_dataset.batch(range(200))
    batch["weight"][:, :, 4] = 0
    got, again = found.augmented(batch, 2), found.augmented(batch, 2)
    assert all(torch.equal(got[key], again[key]) for key in got)
    assert not torch.equal(got["input"], found.augmented(batch, 3)["input"])
    mirrored = got["weight"][:, 0, 1] == 0  # the right hip's, where the left one had none
    assert 60 < int(mirrored.sum()) < 140
    for which, x in ((~mirrored, got["target"]), (mirrored, skeletons.flip(got["target"], H36M))):
        assert torch.equal(x[which], batch["target"][which])
    back = torch.where(mirrored[:, None, None, None], skeletons.flip(got["input"], H36M), got["input"])
    noise = 1000 * (back - batch["input"])
    assert (noise[:, :, 0] == 0).all() and 19.5 < float(noise[:, :, 1:].std()) < 20.5


def test_only_training_has_noise(files):
    """Lightning's hook: what is validated is what was read."""
    seen = []

    class Watching(RefineModule):
        def training_step(self, batch, batch_idx):
            seen.append(("train", batch))
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            seen.append(("val", batch))
            super().validation_step(batch, batch_idx)

    found = data(files, input_noise_mm=20.0)
    network = Watching(refiner_args={"hidden": 8}, past=4)
    with quiet_lightning():
        L.Trainer(max_steps=2, **_quiet()).fit(network, datamodule=found)
    val = [batch for kind, batch in seen if kind == "val"]
    assert all(torch.equal(a["input"], found.val_dataset.batch([i])["input"]) for i, a in enumerate(val))
    train = next(batch for kind, batch in seen if kind == "train")
    raw = found.train_dataset.batch(train["index"])
    assert torch.equal(train["target"], raw["target"]) and not torch.equal(train["input"], raw["input"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"predictions": None}, ArgumentError, "predictions is None, expected a file that structloss predict --split"),
        ({"predictions": "none.npz"}, MissingFileError, "none.npz does not exist"),
        ({"skeleton": "mpi_inf_3dhp"}, ArgumentError, "skeleton is 'mpi_inf_3dhp', expected 'h36m'"),
        ({"val_subjects": ["s7"]}, ArgumentError, "val_subjects has 's7', expected subjects of .*: s0, s1, s2, s3"),
        ({"val_subjects": ["s0", "s1", "s2", "s3"]}, DataError, "the training split of .* is empty"),
        ({"val_subjects": []}, DataError, "the validation split of .* is empty"),
        ({"val_subjects": ["s0"], "val_predictions": "x"}, ArgumentError, "expected one of them"),
        ({"past": -1}, ArgumentError, "past is -1"),
        ({"frames": 0}, ArgumentError, "frames is 0"),
        ({"batch_size": 0}, ArgumentError, "batch_size is 0"),
        ({"input_noise_mm": -1}, ArgumentError, "input_noise_mm is -1"),
        ({"flip_probability": 2}, ArgumentError, "flip_probability is 2"),
        ({"border": "mirror"}, ArgumentError, "border is 'mirror'"),
        ({"test_set": "val"}, ArgumentError, "test_set is 'val'"),
    ],
)
def test_what_the_data_module_refuses(files, options, error, message):
    with pytest.raises(error, match=message):
        data(files, **options).setup()


def test_files_of_different_rates(files, tmp_path):
    write(tmp_path / "other.npz", [clip(20, 3, "t", fps=30.0)])
    with pytest.raises(ArgumentError, match="clips of 30 and 50 fps, expected one frame rate"):
        data(files, predictions=[str(files / "train.npz"), str(tmp_path / "other.npz")]).setup()


# ----------------------------------------------------------------------------------------------------------- training


def _quiet():
    return {
        "logger": False, "enable_checkpointing": False, "enable_model_summary": False, "enable_progress_bar": False,
        "num_sanity_val_steps": 0, "accelerator": "cpu",
    }  # fmt: skip


def test_it_refines_people_it_has_not_seen(files):
    """Lower position error, velocity error and spread of bone lengths, by metrics computed by hand."""
    found, network = data(files, batch_size=60), module(lr=5e-3)
    scores = train_refiner(network, found, epochs=25, quiet=True)
    inputs, outputs = {}, {}
    clips = [found.val_dataset.batch([i]) for i in range(len(found.val_dataset))]
    for into, poses in (
        (inputs, [batch["input"] for batch in clips]),
        (outputs, [network.predict_step(batch, 0).detach() / 1000 for batch in clips]),
    ):
        poses, true = torch.cat(poses) * 1000, torch.cat([batch["target"] for batch in clips]) * 1000
        into |= {
            "mpjpe": float(mpjpe(poses, true)),
            "mpjve": float(mpjve(poses, true)),
            "bone_length_spread": float(bone_length_spread(poses)),
        }
    for name in inputs:
        assert scores[f"input_{name}"] == pytest.approx(inputs[name], rel=1e-5)
        assert scores[name] == pytest.approx(outputs[name], rel=1e-5)
        assert scores[name] < 0.8 * scores[f"input_{name}"], name
    assert (network.predict_step(clips[0], 0)[:, :, 0] == 0).all()  # the root


def test_the_loss_is_the_squared_error_in_metres(files):
    found, network = data(files), module()
    network.log = lambda *args, **kwargs: None
    batch = found.train_dataset.batch(range(40))
    batch["weight"][3] = 0
    with torch.no_grad():
        loss = network.training_step(batch, 0)
        error = (network.model.refine(batch["input"]) - batch["target"])[[*range(3), *range(4, 40)]]
    assert float(loss) == pytest.approx(float(error.square().mean()), rel=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name, files):
    """Each builds what it says by the parser of the command line, and trains; the command line links the two parts."""
    recipe = yaml.safe_load(recipe_path(name).read_text())
    assert system_of(recipe["model"]) is REFINE
    assert (recipe["trainer"]["max_epochs"], recipe["model"]["optimizer"]) == (30, "adam")
    recipe["data"] |= {"predictions": [str(files / "train.npz")], "batch_size": 8}
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(RefineModule, "model")
    parser.add_lightning_class_args(PredictionsDataModule, "data")
    for key in ("past", "future", "border", "skeleton"):
        parser.link_arguments(f"data.{key}", f"model.{key}")
    config = parser.parse_object({"model": recipe["model"], "data": recipe["data"]})
    built = parser.instantiate_classes(config)
    network, found = built.model, built.data
    if name != "lstm-refiner":
        assert sum(p.numel() for p in network.model.parameters()) == 4_390_963
        assert (network.model.past, network.model.future) == ((19, 0) if name == "tpnet" else (9, 10))
        assert network.hparams["lr"] == 1e-4 and found.hparams["frames"] == 1
        assert yaml.safe_load(recipe_path(name).read_text())["data"]["batch_size"] == 256
    else:
        assert network.model.past is None and not network.model.bidirectional
    before = {key: value.clone() for key, value in network.state_dict().items()}
    scores = train_refiner(network, found, steps=2, quiet=True)
    assert all(not torch.equal(value, before[key]) for key, value in network.state_dict().items() if "model" in key)
    assert all(math.isfinite(value) for value in scores.values()) and {"mpjpe", "input_mpjpe"} <= scores.keys()


class Stopped(L.Callback):
    """Writes a checkpoint after a step within an epoch, as the harness's own do, and ends the run."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def run(files, epochs, callbacks=(), path=None):
    """Weights, and the losses of the steps, of a run with all that is random."""
    losses = []

    class Losses(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            losses.append(float(trainer.callback_metrics["train/loss"]))

    found = data(files, input_noise_mm=5.0, flip_probability=0.5, batch_size=50)
    network = module(refiner_args={"hidden": 16, "dropout": 0.2})
    torch.manual_seed(1 if path is None else 2)
    with quiet_lightning():
        trainer = L.Trainer(
            max_epochs=epochs, callbacks=[Losses(), *callbacks], plugins=[SafeCheckpointIO()],
            **_quiet() | {"log_every_n_steps": 1},
        )  # fmt: skip
        trainer.fit(network, datamodule=found, ckpt_path=path)
    return network.state_dict(), losses


def test_a_resumed_run_is_the_run(files, tmp_path):
    """Bit by bit, from a checkpoint within an epoch: order, noise, mirroring, dropout, the optimizer."""
    torch.manual_seed(1)
    whole, losses = run(files, 3)
    assert len(losses) == 3 * 8
    torch.manual_seed(1)
    path = tmp_path / "a.ckpt"
    run(files, 3, [Stopped(11, path)])
    resumed, rest = run(files, 3, path=path)
    assert rest == losses[11:]
    for key, value in whole.items():
        if "model" in key:
            assert torch.equal(resumed[key], value), key


@pytest.fixture(scope="module")
def checkpoint(files, tmp_path_factory):
    """A checkpoint of a training with validation, the best one by `val/mpjpe`."""
    folder = tmp_path_factory.mktemp("run")
    network = module()
    best = ModelCheckpoint(folder, monitor="val/mpjpe", filename="best")
    with quiet_lightning():
        trainer = L.Trainer(
            max_epochs=2, callbacks=[best], plugins=[SafeCheckpointIO()], **_quiet() | {"enable_checkpointing": True}
        )
        trainer.fit(network, datamodule=data(files))
    assert {"val/mpjpe", "val/input_mpjpe", "val/mpjve", "val/bone_length_spread"} <= trainer.callback_metrics.keys()
    return folder / "best.ckpt", network


def test_refiners_of_checkpoints(checkpoint):
    path, network = checkpoint
    found = load_refiner(path)
    assert (found.name, found.skeleton, found.fps, found.source) == ("tpnet", "h36m", 25.0, str(path))
    poses = torch.randn(1, 9, 17, 3)
    with torch.no_grad():
        torch.testing.assert_close(found.model(poses), network.model.eval()(poses))
    assert not found.model.training and found.model.root == 0
    other = RefineModule(refiner_args={"hidden": 32}, past=4, init_from=str(path))
    assert torch.equal(other.model.fc[1].weight, network.model.fc[1].weight)


@pytest.mark.parametrize(
    ("fps", "step", "note"),
    [(50, 2, None), (25, 1, None), (24, 1, None), (60, 2, "sees 30"), (30, 1, "sees 30"), (10, 1, "sees 10"),
     (None, 1, "rate is not known"), (math.nan, 1, "rate is not known")],
)  # fmt: skip
def test_frame_rates(checkpoint, fps, step, note):
    found = load_refiner(checkpoint[0])
    assert found.frame_step(fps) == step
    assert found.note(fps) is None if note is None else note in found.note(fps)


def test_checkpoints_that_are_none(checkpoint, tmp_path, files):
    content = torch.load(checkpoint[0], weights_only=True)
    torch.save({**content, "hyper_parameters": {"backbone": "repose-tiny"}}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="is not of a refiner, expected a checkpoint of structloss fit --config"):
        load_refiner(tmp_path / "a.ckpt")
    torch.save({**content, "hyper_parameters": {**content["hyper_parameters"], "past": 7}}, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match="doesn't fit its own description"):
        load_refiner(tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match="the checkpoint is of a model with past 4, expected 3"):
        module(past=3).on_load_checkpoint(content)
    with pytest.raises(CheckpointError, match="is not a checkpoint of this TPNet"):
        module(past=3, init_from=str(checkpoint[0]))
    broken = module()
    with torch.no_grad():
        broken.model.fc[0].weight[0, 0] = math.nan
    broken.trainer = L.Trainer(**_quiet())
    with pytest.raises(DataError, match="has NaN or infinite values at step 0"):
        broken.on_save_checkpoint({"state_dict": broken.state_dict()})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RefineModule("tpnett"), UnknownNameError, "unknown refiner 'tpnett'.* 'tpnet'"),
        (lambda: RefineModule(refiner_args={"past": 3}), ArgumentError, "refiner_args has 'past', expected it as an"),
        (
            lambda: RefineModule(refiner_args={"width": 3}),
            ArgumentError,
            "refiner_args has 'width', which TPNet doesn't",
        ),
        (lambda: RefineModule(past=None), ArgumentError, "past is None"),
        (lambda: RefineModule(lr=0), ArgumentError, "lr is 0"),
        (lambda: RefineModule(skeleton="h37m"), UnknownNameError, "h37m"),
        (lambda: RefineModule(init_from="none.ckpt", refiner_args={"hidden": 8}), MissingFileError, "none.ckpt"),
    ],
)
def test_what_the_module_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_windows_and_network_must_fit(files):
    with pytest.raises(ArgumentError, match="past is 4, expected 5, that of the data"), quiet_lightning():
        L.Trainer(max_steps=1, **_quiet()).fit(module(), datamodule=data(files, past=5))
