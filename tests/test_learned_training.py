"""A loss network in training: beside every family, resumed, static, transferred, in ablations, gone at inference."""

import copy
import json
import math

import pytest
import torch

pytest.importorskip("lightning")

import lightning as L
from backbone_cases import small
from fake_data import h36m_pickle, write_pickle
from lightning.pytorch.callbacks import Callback

from structloss import backbones
from structloss.data import MotionDataModule
from structloss.errors import ArgumentError, CheckpointError, UnknownNameError
from structloss.harness.ablation import Grid, load_grid, run_grid
from structloss.harness.callbacks import FiniteLoss, History
from structloss.harness.checkpoint_io import SafeCheckpointIO
from structloss.harness.learned_training import LearnedSettings
from structloss.harness.lifting import LiftingModule
from structloss.harness.load import load_trained
from structloss.harness.loss_nets import load_loss_net, train_loss_net, with_scale
from structloss.harness.training import train
from structloss.learned import LossNet

DATA = {"num_subjects": 4, "clips_per_subject": 2, "frames": 27, "views": 1, "batch_size": 4, "progress": False}
TINY = {"dim_feat": 16, "depth": 1, "num_heads": 2, "dim_rep": 16, "predict_offset": False}
NET = {"net": "graph-small", "net_options": {"dim": 16, "heads": 2, "depth": 1}, "lr": 1e-3}


def motion(window=9, **arguments):
    data = MotionDataModule(**{**DATA, "window": window, **arguments})
    data.setup()
    return data


@pytest.fixture(scope="module")
def data():
    return motion()


def module(**arguments):
    torch.manual_seed(0)
    defaults = {"backbone_args": TINY, "objective": {"mpjpe": 1.0}, "learned": NET, "schedule": "one_cycle"}
    return LiftingModule(**{**defaults, **arguments})


def families():
    """One variant per family and number of joints that it predicts of Human3.6M's: the one with the least work."""
    found = {}
    for facts in sorted(map(backbones.info, backbones.names()), key=lambda facts: -facts.macs):
        if facts.kind in ("sequence", "centre", "frame") and facts.skeleton == "h36m":
            found[facts.family, facts.joints_out] = facts.name
    return sorted(found.values())


FAMILIES = families()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_with_a_loss_net(name):
    options = small(name)
    window = max(9, backbones.create(name, **options).shortest)
    data = motion(window, frames=max(27, window + 5), target="camera", batch_size=2)
    trained = module(backbone=name, backbone_args=options, target="camera", flip_test=False)
    before = {key: value.clone() for key, value in trained.model.named_parameters() if value.requires_grad}
    found = train(trained, data, steps=2, validations=0, evaluation=False, quiet=True)
    curves = found.curves
    assert all(math.isfinite(x) for key, values in curves.items() if "learned" in key for x in values)
    assert {"train_learned_gap_prediction", "train_learned_rank_bone_rotation", "train_learned_lambda"} <= set(curves)
    after = dict(trained.model.named_parameters())
    assert sum(not torch.equal(after[key], value) for key, value in before.items()) > 0.8 * len(before)
    assert not any(key.startswith("learned") for key in trained.state_dict())


def test_h3wb_poses_have_a_loss_net(tmp_path):
    import fake_data

    fake_data.write_h3wb_npz(tmp_path, frames=4, actions=("Walking",))
    data = motion(1, data=str(tmp_path), skeleton="h3wb", target="camera", stride=1)
    body = module(
        backbone="simplebaseline-h3wb", backbone_args=small("simplebaseline-h3wb"), skeleton="h3wb", target="camera"
    )
    found = train(body, data, steps=2, validations=0, evaluation=False, quiet=True)
    assert math.isfinite(found.curves["train_learned_loss"][-1])


def test_published_targets_without_a_scale_have_canonical_limbs(tmp_path):
    """MotionBERT's pickle has millimetres for the test subjects only; training on it was NaN."""
    path = write_pickle(tmp_path / "h36m.pkl", h36m_pickle())
    published = MotionDataModule(data=str(path), window=27, batch_size=4, progress=False)
    published.setup()
    batch = next(iter(published.train_dataloader()))
    assert batch["factor"].isnan().all()
    scaled = with_scale(batch)
    assert (scaled["factor"].min() > 1500) and (scaled["factor"].max() < 4000)  # a person 3 to 8 m away, f of 2.29
    known = next(iter(published.test_dataloader()))
    nominal = with_scale(known | {"factor": torch.full_like(known["factor"], math.nan)})["factor"]
    assert torch.allclose(nominal, known["factor"], rtol=0.2)  # the made-up person is not of canonical size
    assert torch.equal(with_scale(known)["factor"], known["factor"])
    result = train(module(), published, steps=2, validations=0, quiet=True)
    assert all(bool(value.isfinite().all()) for value in result.module.state_dict().values())
    seen = train_loss_net(published, steps=2, net="graph-small", negatives=("bone_rotation",))[1]
    assert all(math.isfinite(value) for values in seen.values() for value in values)


def test_the_energy_changes_training_and_the_rest_stays_the_same(data):
    runs = {
        name: train(module(learned=learned), data, steps=4, validations=0, evaluation=False, quiet=True).curves
        for name, learned in {"with": NET, "without": None, "off": {**NET, "enabled": False}}.items()
    }
    assert runs["without"]["train_loss"] == runs["off"]["train_loss"]
    # The first prediction is the same: the loss network draws no random numbers that the backbone would see.
    assert runs["with"]["train_mpjpe"][0] == runs["without"]["train_mpjpe"][0]
    assert runs["with"]["train_mpjpe"][-1] != runs["without"]["train_mpjpe"][-1]


def test_lambda_zero_trains_like_no_loss_net(data):
    plain = train(module(learned=None), data, steps=4, validations=0, evaluation=False, quiet=True)
    none = train(module(learned={**NET, "weight": 0.0}), data, steps=4, validations=0, evaluation=False, quiet=True)
    assert none.curves["train_mpjpe"] == plain.curves["train_mpjpe"]
    for mine, theirs in zip(none.module.model.parameters(), plain.module.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_loss_net_learns_and_lambda_is_the_share_of_force(data):
    learned = {**NET, "warmup": 0.0, "weight": "auto:0.2"}
    curves = train(module(learned=learned), data, steps=40, validations=0, evaluation=False, quiet=True).curves
    assert sum(curves["train_learned_rank_prediction"][-5:]) / 5 > 0.9
    assert sum(curves["train_learned_loss"][-5:]) < sum(curves["train_learned_loss"][:5])
    assert curves["train_learned_lambda"] == pytest.approx([0.2 * x for x in curves["train_learned_force"]], rel=1e-6)


def test_warm_up_is_a_share_of_the_steps(data):
    learned = {**NET, "weight": 1.0, "warmup": 0.5}
    curves = train(module(learned=learned), data, steps=8, validations=0, evaluation=False, quiet=True).curves
    assert curves["train_learned_lambda"] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])


# Resuming


class _StopAfter(Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def _fit(body, steps, *callbacks, resume=None, **arguments):
    history = History()
    trainer = L.Trainer(
        max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, accelerator="cpu", plugins=[SafeCheckpointIO()],
        callbacks=[history, FiniteLoss(), *callbacks], log_every_n_steps=1, **arguments,
    )  # fmt: skip
    trainer.fit(body, datamodule=motion(), ckpt_path=resume)
    return body, history.curves


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"predictions": "training", "objective": "nce"},
        {"frames": 3, "net": "linear-small", "net_options": {"width": 16}},
    ],
)
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path, options):
    learned = {**NET, **options}
    path = str(tmp_path / "half.ckpt")
    whole, curves = _fit(module(learned=learned), 8, _StopAfter(5, path), accumulate_grad_batches=1)
    resumed, rest = _fit(module(learned=learned), 8, resume=path)
    for key, values in rest.items():
        if key.startswith("train_"):
            assert values == curves[key], key  # those before it, too
    for (key, mine), theirs in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), key
    ours, others = (run.learned.loss.state_dict() for run in (whole, resumed))
    assert ours.keys() == others.keys()
    assert all(torch.equal(ours[key], others[key]) for key in ours if isinstance(ours[key], torch.Tensor))


def test_accumulation_clipping_and_bfloat16(tmp_path):
    body, curves = _fit(
        module(learned=NET, ema=0.9), 3, accumulate_grad_batches=2, gradient_clip_val=1.0, precision="bf16-mixed"
    )
    assert all(math.isfinite(x) for values in curves.values() for x in values)
    assert body.learned.loss._updates == 6  # one a batch
    assert all(p.dtype == torch.float32 for p in body.learned.loss.net.parameters())


# Static, saved, elsewhere


def test_static_regime_trains_first_and_then_no_more(data):
    learned = {**NET, "regime": "static", "pretrain_steps": 6, "negatives": ["bone_rotation", "noise"]}
    body = module(learned=learned)
    curves = train(body, data, steps=3, validations=0, evaluation=False, quiet=True).curves
    assert body.learned.loss._updates == 6 and body.learned.loss.frozen
    assert "train_learned_lambda" in curves and "train_learned_loss" not in curves


def test_a_loss_net_moves_to_another_backbone(tmp_path):
    path = str(tmp_path / "run.ckpt")
    first, _ = _fit(module(), 3, _StopAfter(3, path))
    net = load_loss_net(path)
    for key, value in first.learned.loss.net.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key
    file = net.save(tmp_path / "net.safetensors")
    static = {"init": str(file), "regime": "static"}
    single = {"backbone": "simplebaseline-16j", "backbone_args": small("simplebaseline-16j")}
    other, _ = _fit(module(**single, target="camera", learned=static), 2)
    for key, value in net.state_dict().items():
        assert torch.equal(other.learned.loss.net.state_dict()[key], value), key
    with pytest.raises(CheckpointError, match="is a loss network for 'coco', expected 'h36m'"):
        module(learned={"init": str(LossNet("coco", "graph-small").save(tmp_path / "coco.safetensors"))})
    with pytest.raises(CheckpointError, match="holds no loss network"):
        without = str(tmp_path / "without.ckpt")
        _fit(module(learned=None), 1, _StopAfter(1, without))
        load_loss_net(without)


def test_nothing_of_it_is_left_at_inference(tmp_path):
    """Same names, same graph, same outputs as a module that never had a loss network."""
    path = str(tmp_path / "run.ckpt")
    body, _ = _fit(module(), 2, _StopAfter(2, path))
    loaded, _ = load_trained(path)
    assert loaded.learned is None and body.state_dict().keys() == loaded.state_dict().keys()
    plain = module(learned=None)
    assert plain.state_dict().keys() == loaded.state_dict().keys()
    plain.load_state_dict(loaded.state_dict())
    x = torch.randn(2, 9, 17, 3)
    graphs = [str(torch.export.export(m.model.eval(), (x,)).graph) for m in (plain, copy.deepcopy(body), loaded)]
    assert graphs[0] == graphs[1] == graphs[2]
    with torch.no_grad():
        assert torch.equal(body.eval().predict_image_space(x), plain.eval().predict_image_space(x))
    assert not any("learned" in name for name, _ in body.named_modules())


def test_a_loss_net_trained_alone_tells_corruptions(data):
    loss, curves = train_loss_net(
        data, steps=60, net=LossNet("h36m", "linear-small", width=32), lr=2e-3, objective="regression",
        negatives=["joint_shuffle", "mirrored_depth"],
    )  # fmt: skip
    assert loss.frozen and len(curves["step"]) == 60
    assert sum(curves["rank/joint_shuffle"][-5:]) > 5 * 0.8 > 5 * 0.75 > sum(curves["rank/joint_shuffle"][:5])
    again, _ = train_loss_net(data, steps=3, net=LossNet("h36m", "linear-small", width=32), negatives=["noise"])
    assert again._updates == 3
    with pytest.raises(ArgumentError, match="steps is 0"):
        train_loss_net(data, steps=0)


# Settings, grids


@pytest.mark.parametrize(
    ("learned", "error", "message"),
    [
        ({"regime": "sometimes"}, ArgumentError, "learned.regime is 'sometimes'"),
        ({"predictions": "none"}, ArgumentError, "learned.predictions is 'none'"),
        ({"pretrain_steps": -1}, ArgumentError, "learned.pretrain_steps is -1"),
        ({"warmup": 2.0}, ArgumentError, "learned.warmup is 2.0"),
        ({"regime": "static"}, ArgumentError, "learned.pretrain_steps is 0"),
        ({"nets": "graph"}, ArgumentError, "nets"),
        ({"net": "grapf"}, UnknownNameError, "grapf"),
        ({"negatives": ["swaps"]}, UnknownNameError, "swaps"),
        ({"weight": "auto"}, ArgumentError, "weight is 'auto'"),
    ],
)
def test_bad_settings(learned, error, message):
    with pytest.raises(error, match=message):
        module(learned=learned)


def test_networks_that_it_cannot_judge():
    with pytest.raises(ArgumentError, match="predicts no poses"):
        module(backbone="pstmo-pretrain-243", backbone_args=small("pstmo-pretrain-243"), target="camera")
    with pytest.raises(ArgumentError, match="standardised poses are no bodies"):
        single = {"backbone": "simplebaseline-16j", "backbone_args": small("simplebaseline-16j")}
        module(**single, target="camera", standardise=True)
    assert LearnedSettings.of({"enabled": False, "weight": 1.0}) is None


def test_ablation_with_a_learned_objective(tmp_path):
    grid = Grid(
        objectives={"MPJPE": {"mpjpe": 1.0}, "+ learned": {"mpjpe": 1.0, "learned": "auto:0.1"}},
        backbones={"repose-tiny": {}},
        model={"backbone_args": TINY, "schedule": "one_cycle", "lr": 1e-3},
        learned=NET,
        data={**DATA, "window": 9},
        seeds=(0,),
        steps=3,
    )
    plain, learned = run_grid(grid, tmp_path)
    assert not any("learned" in key for key in plain.curves)
    assert "train_learned_gap_prediction" in learned.curves
    assert {"lse", "bsle", "illegal_angle_rate"} <= set(learned.structure)
    assert json.loads((tmp_path / learned.cell.file).read_text())["structure"]["lse"] == learned.structure["lse"]
    assert run_grid(grid, tmp_path)[1].seconds == learned.seconds  # restored, not trained again
    packaged = load_grid("learned")
    assert list(packaged.backbones) == ["repose-tiny", "videopose3d-27", "simplebaseline-16j"]
    assert [("learned" in objective) for objective in packaged.objectives.values()] == [False, False, True, True]
