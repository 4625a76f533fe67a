"""Every recipe builds what it says and trains; the losses, optimizers and schedules that recipes choose from."""

import math
import types

import fake_data
import pytest
import torch
import yaml
from backbone_cases import small
from lightning.pytorch.cli import LightningArgumentParser

from structloss import backbones
from structloss.backbones import Supervision
from structloss.data import MotionDataModule
from structloss.errors import ArgumentError, CheckpointError
from structloss.harness.lifting import LiftingModule
from structloss.harness.objective import TrainingLoss
from structloss.harness.optimizers import OptimizerSettings
from structloss.harness.recipe_files import recipe_names, recipe_path
from structloss.harness.training import train

#: little data, and few clips a step; everything else is the recipe's
TINY = {"num_subjects": 2, "clips_per_subject": 1, "frames": 40, "views": 1, "batch_size": 2, "eval_batch_size": 1}


def parsed(name, **data):
    """Module and data as `structloss fit --config NAME` builds them, with a small network and little data."""
    recipe = yaml.safe_load(recipe_path(name).read_text())
    published = recipe["data"]["window"]
    recipe["model"]["backbone_args"] = small(recipe["model"]["backbone"])
    if "frames" in recipe["model"]["backbone_args"]:
        recipe["data"]["window"] = recipe["model"]["backbone_args"]["frames"]
    elif recipe["model"]["backbone"].startswith(("motionbert", "repose")):  # any number of frames
        recipe["data"]["window"] = 27
    if "stride" in recipe["data"]:
        recipe["data"]["stride"] = min(9, recipe["data"]["stride"])
    recipe["data"] |= TINY | data
    if recipe["data"].get("sampling", "windows") == "windows":
        recipe["data"]["frames"] = max(40, recipe["data"]["window"] + 5)
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(LiftingModule, "model")
    parser.add_lightning_class_args(MotionDataModule, "data")
    parser.link_arguments("data.target", "model.target")
    parser.link_arguments("data.skeleton", "model.skeleton")
    config = parser.parse_object({"model": recipe["model"], "data": recipe["data"]})
    built = parser.instantiate_classes(config)
    recipe["data"]["window"] = published
    return built.model, built.data, recipe


@pytest.fixture(scope="module")
def h3wb(tmp_path_factory):
    """A small H3WB: no synthetic motion has its 133 joints."""
    folder = tmp_path_factory.mktemp("h3wb")
    fake_data.write_h3wb_npz(folder, frames=4, actions=("Walking",))
    return {"data": str(folder)}


@pytest.mark.parametrize("name", recipe_names("backbone"))
def test_recipe_trains_two_steps(name, h3wb):
    more = h3wb if "h3wb" in name else {}
    if name.endswith(("-semi", "-weak")):
        more = {"num_subjects": 3, "unlabelled_subjects": ["syn02"]}
    module, data, recipe = parsed(name, **more)
    data.progress = False
    info = backbones.info(recipe["model"]["backbone"])
    slides = info.kind == "centre" and recipe["data"].get("context") == info.frames // 2  # several poses in a row
    ours = name in ("repose-tiny", "sealpose-tiny")
    assert recipe["data"]["window"] == info.frames or info.kind == "frame" or slides or ours
    assert recipe["data"].get("frame_step", 1) == info.frame_step
    assert ("mirrored" in recipe["data"]) == (recipe["model"].get("flip_probability") == 0.0 and info.kind != "frame")
    data.val_dataset._windows = data.val_dataset._windows[:1]
    before = {key: p.detach().clone() for key, p in module.model.named_parameters() if p.requires_grad}
    trained = train(module, data, steps=2, validations=1)
    assert all(math.isfinite(loss) for loss in trained.curves["train_loss"]) and len(trained.curves["train_loss"]) == 2
    after = dict(module.model.named_parameters())
    assert sum(not torch.equal(after[key], value) for key, value in before.items()) > 0.8 * len(before)
    if info.kind != "pretrain":
        assert 0 < trained.evaluation.metrics["mpjpe"] < 1e5


def test_every_backbone_has_its_recipe():
    """But for our own sizes, one on the same network with other input, one on a data set without a reader, and a stage
    that takes others' poses."""
    without = {name for name in backbones.names() if not backbones.info(name).recipe}
    assert without == {
        "d3dp-27", "d3dp-ddim-tiny", "ktpformer-27", "stcformer-l-27", "stcformer-l-81",  # sizes for tests
        "videopose3d-27-long", "videopose3d-27-causal",  # videopose3d-27 on other input
        "videopose3d-27-humaneva15",  # HumanEva-I
        "pstmo-refine",
    }  # fmt: skip


# The loss


def _pair(share=1.0, weight=None):
    return Supervision(torch.randn(2, 5, 17, 3), torch.randn(2, 5, 17, 3), weight, share)


def test_loss_sums_predictions_by_share():
    loss = TrainingLoss({"mpjpe": 2.0, "mse": 3.0})
    pairs = [_pair(0.5), _pair(2.0)]
    total, terms = loss(pairs)
    mpjpe = [(p.prediction - p.target).norm(dim=-1).mean() for p in pairs]
    mse = [(p.prediction - p.target).square().mean() for p in pairs]
    torch.testing.assert_close(terms["mpjpe"], 0.5 * mpjpe[0] + 2 * mpjpe[1])
    torch.testing.assert_close(terms["mse"], 0.5 * mse[0] + 2 * mse[1])
    torch.testing.assert_close(total, 2 * terms["mpjpe"] + 3 * terms["mse"])


def test_squared_loss_has_the_gradient_times_the_loss():
    """MixSTE's backward pass starts with the loss's own value."""
    prediction = torch.randn(2, 5, 17, 3, requires_grad=True)
    pair = Supervision(prediction, torch.randn(2, 5, 17, 3))
    plain, _ = TrainingLoss({"mpjpe": 1.0})([pair])
    (gradient,) = torch.autograd.grad(plain, prediction)
    squared, _ = TrainingLoss({"mpjpe": 1.0}, squared=True)([pair])
    (got,) = torch.autograd.grad(squared, prediction)
    torch.testing.assert_close(got, gradient * plain.detach())


def test_weighted_squared_error():
    weight = (torch.rand(2, 5, 17) > 0.5).float()
    pair = _pair(weight=weight)
    total, _ = TrainingLoss({"mse": 1.0})([pair])
    kept = (pair.prediction - pair.target)[weight.bool()]
    torch.testing.assert_close(total, kept.square().mean())
    assert float(TrainingLoss({"mse": 1.0})([_pair(weight=torch.zeros(2, 5, 17))])[0]) == 0


@pytest.mark.parametrize(
    ("weights", "message"), [({}, "objective has no term"), ({"mse": -1.0}, r"objective\['mse'\] is -1.0")]
)
def test_bad_objectives(weights, message):
    with pytest.raises(ArgumentError, match=message):
        TrainingLoss(weights)


# Optimizers and schedules


def rates(steps, epoch_steps=1, **settings):
    """Learning rate at every step."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    built = OptimizerSettings(**settings).build([parameter], steps)
    optimizer, schedule = built["optimizer"], built["lr_scheduler"]
    out = []
    for step in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        parameter.grad = torch.ones(2)
        optimizer.step()
        if schedule["interval"] == "step" or (step + 1) % epoch_steps == 0:
            schedule["scheduler"].step()
    return out


def test_exponential_schedule_with_drops():
    """MHFormer: every fifth epoch halves the rate, the others multiply it by 0.95."""
    got = rates(11, lr=1e-3, lr_decay=0.95, drop_every=5, drop=0.5)
    want = [1e-3]
    for epoch in range(1, 11):
        want.append(want[-1] * (0.5 if epoch % 5 == 0 else 0.95))
    assert got == pytest.approx(want)


def test_step_and_cosine_schedules():
    assert rates(7, lr=1.0, schedule="steps", lr_decay=0.96, drop_every=3) == pytest.approx(
        [1, 1, 1, 0.96, 0.96, 0.96, 0.96**2]
    )
    got = rates(10, lr=2.0, schedule="cosine")
    assert got == pytest.approx([1 + math.cos(math.pi * step / 10) for step in range(10)])


def test_one_cycle_rises_and_falls():
    got = rates(50, lr=1.0, schedule="one_cycle")
    assert got.index(max(got)) == 5 and max(got) == 1 and got[:6] == sorted(got[:6]) and got[-1] < 0.01


def test_optimizers():
    for name, kind in {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "amsgrad": torch.optim.Adam}.items():
        frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        optimizer = OptimizerSettings(name, weight_decay=0.1).build([torch.nn.Parameter(torch.zeros(1)), frozen], 5)[
            "optimizer"
        ]
        assert type(optimizer) is kind and optimizer.defaults["amsgrad"] == (name == "amsgrad")
        assert optimizer.defaults["weight_decay"] == 0.1 and len(optimizer.param_groups[0]["params"]) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer is 'sgd', expected one of 'adamw'"),
        ({"schedule": "flat"}, "schedule is 'flat'"),
        ({"lr": 0.0}, "lr is 0.0, expected a number > 0"),
        ({"lr_decay": -1.0}, "lr_decay is -1.0"),
        ({"schedule": "steps"}, "drop_every is 0, expected at least 1 with schedule 'steps'"),
        ({"drop_every": -1}, "drop_every is -1, expected at least 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ArgumentError, match=message):
        OptimizerSettings(**settings)


# The module


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "jointformer-h36m-refine"}, "a second stage that takes poses"),
        (
            {"backbone": "videopose3d-27"},
            "target is 'global', .*expected 'root_relative' or 'camera' for videopose3d-27",
        ),
        ({"backbone": "simplebaseline-h3wb"}, "skeleton is 'h36m' with 17 joints, expected one with 133"),
        ({"standardise": True}, "standardise is True, expected False for repose-tiny"),
    ],
)
def test_what_cannot_be_trained(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        LiftingModule(**arguments)


def test_statistics_travel_with_the_checkpoint(tmp_path):
    """They are in no published state dict, and a test without them would score standard deviations."""
    module, data, _ = parsed("simplebaseline-16j")
    train(module, data, steps=2, validations=1)
    assert module.model.output_std.shape == (16, 3)
    checkpoint = {"hyper_parameters": dict(module.hparams)}
    module.on_save_checkpoint(checkpoint)
    fresh, _, _ = parsed("simplebaseline-16j")
    assert fresh.model.output_std is None
    fresh.on_load_checkpoint(checkpoint)
    assert torch.equal(fresh.model.output_std, module.model.output_std)
    fresh.load_state_dict(module.state_dict())
    batch = next(iter(data.val_dataloader()))
    torch.testing.assert_close(fresh.eval().predict_step(batch, 0), module.eval().predict_step(batch, 0))


def test_the_second_stage_of_pstmo_starts_from_the_first(tmp_path):
    first = backbones.create("pstmo-pretrain-s-3dhp-81", depth=1)
    path = backbones.save_checkpoint(first, tmp_path / "first.safetensors")
    module = LiftingModule(backbone="pstmo-s-3dhp-81", backbone_args={"depth": 1}, target="camera", init_from=str(path))
    published, mine = backbones.to_official(first), backbones.to_official(module.model)
    shared = [key for key in published if key.startswith(("encoder.", "Transformer."))]
    assert len(shared) > 20 and all(torch.equal(mine[key], published[key]) for key in shared)
    with pytest.raises(CheckpointError):
        LiftingModule(backbone="videopose3d-27", target="camera", init_from=str(path))


@pytest.mark.parametrize("by", ["epochs", "steps"])
def test_batch_norm_momentum_falls_along_an_exponential(by):
    """VideoPose3D: 0.1 at first, 0.001 after the last epoch, or the last step of a run that counts steps."""
    module, data, _ = parsed("videopose3d-27")
    train(module, data, steps=1, validations=1)
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    found = []
    for done in (0, 40, 80):
        facts = {"max_epochs": 80, "current_epoch": done, "global_step": 7 * done}
        if by == "steps":
            facts |= {"max_epochs": -1, "current_epoch": done // 3, "global_step": done}
        module.trainer = types.SimpleNamespace(**facts, estimated_stepping_batches=80, global_rank=0)
        module.on_train_batch_start({}, 5)
        found.append(norms[0].momentum)
        assert all(norm.momentum == norms[0].momentum for norm in norms)
    assert found == pytest.approx([0.1, 0.01, 0.001])


def test_structural_losses_need_bodies():
    with pytest.raises(ArgumentError, match="standardise is True, expected False with 'depth_ranking_joints'"):
        LiftingModule("simplebaseline-16j", target="camera", standardise=True, objective={"depth_ranking_joints": 1.0})
