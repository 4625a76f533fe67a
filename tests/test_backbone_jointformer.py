"""Jointformer: predictions of every level, what training compares, both stages together, initialisation."""

import math

import pytest
import torch
from backbone_cases import clip, filled, golden
from golden.fill import fill_input
from torch import nn

from structloss import backbones
from structloss.backbones.jointformer import JointformerCascade
from structloss.backbones.official import from_official, to_official
from structloss.errors import ArgumentError, DtypeError


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jointformer-h36m", "jointformer-h3wb", "jointformer-h3wb-refine"])
def test_golden_predictions_of_all_levels(name):
    file = golden(name)
    model = filled(name)
    x = torch.from_numpy(fill_input(str(file["input_name"]), tuple(file["input_shape"]))).requires_grad_()
    levels = model.predictions(x[:, None])
    if name != "jointformer-h3wb-refine":
        levels = [torch.cat(level, dim=-1) for level in levels]
    out = torch.cat(levels, dim=1)
    want = torch.from_numpy(file["output_all"])
    assert out.shape == want.shape
    assert float((out.detach() - want).abs().max() / want.abs().max()) <= 1e-4

    scalar = (out * torch.from_numpy(fill_input(str(file["cotangent_name_all"]), tuple(out.shape)))).mean()
    scalar.backward()
    tolerance = 1e-5 * float(want.abs().max())
    assert float(scalar.detach()) == pytest.approx(float(file["scalar_all"]), rel=1e-3, abs=tolerance)
    assert float(x.grad.norm()) == pytest.approx(float(file["input_grad_norm_all"]), rel=1e-3)
    grads = to_official(model, {key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    wanted = dict(zip(file["param_names_all"].tolist(), file["param_grad_norms_all"].tolist(), strict=True))
    assert wanted.keys() == grads.keys()
    worst = max(abs(float(grads[key].double().norm()) - norm) / norm for key, norm in wanted.items())
    assert worst <= 1e-3
    print(f"{name}: gradient norms {worst:.1e}")


@pytest.mark.parametrize("name", ["jointformer-h36m", "jointformer-h3wb-refine"])
def test_frozen_is_exactly_what_no_pose_depends_on(name):
    model = backbones.create(name, num_joints=17, dim_feat=16)
    frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"levels.3.feedback.weight", "levels.3.feedback.bias"}
    model.requires_grad_(True).eval()
    x = torch.randn(1, 1, 17, model.channels)
    outputs = model.predictions(x)
    sum(o.sum() for level in outputs for o in (level if isinstance(level, tuple) else (level,))).backward()
    assert {key for key, p in model.named_parameters() if p.grad is None} == frozen


def test_supervise_is_the_papers_loss():
    """½·[MSE(pose, target) + MSE(error, |pose − target|)], mean over levels; the second moves no pose head."""
    model = filled("jointformer-h36m")
    x = clip("jointformer-h36m")
    torch.manual_seed(0)
    target = torch.randn(2, 9, 17, 3)
    loss = sum(p.share * (p.prediction - p.target).square().mean() for p in model.supervise(x, target))
    levels = model.predictions(x)
    want = sum(
        ((pose - target).square().mean() + (error - (pose - target).abs()).square().mean()) / 2
        for pose, error in levels
    )
    torch.testing.assert_close(loss, want / 4)
    assert torch.equal(levels[-1][0], model(x))

    errors = [p for p in model.supervise(x, target) if not torch.equal(p.target, target)]
    assert len(errors) == 4
    sum((p.prediction - p.target).square().mean() for p in errors).backward()
    assert model.levels[3].pose.linear.weight.grad is None
    assert model.errors[3].linear.weight.grad.any()
    weight = torch.rand(2, 9, 17)
    assert all(p.weight is weight for p in model.supervise(x, target, weight))


def test_training_dropout():
    """Attention weights 0.1 and heads 0.2 (0.1 in the refinement for h36m) are dropped, the encoder is not."""
    for name, rate in {"h36m": 0.2, "h36m-refine": 0.1, "h3wb-refine": 0.2}.items():
        model = backbones.create(f"jointformer-{name}", depth=1)
        layer = model.levels[0].layer
        assert layer.attn.attn_drop == 0.1
        active = [m.p for m in model.modules() if isinstance(m, nn.Dropout) and m.p]
        assert active and set(active) == {rate}
    model = backbones.create("jointformer-h36m", pred_drop_rate=0.0)
    x = clip("jointformer-h36m")
    assert not torch.equal(model(x), model(x))
    model = backbones.create("jointformer-h36m", pred_drop_rate=0.0, attn_drop_rate=0.0)
    assert torch.equal(model(x), model(x))


def test_initialisation():
    """Xavier-uniform for every published matrix by its own fans; biases and norms PyTorch's."""
    torch.manual_seed(0)
    model = backbones.create("jointformer-h36m")
    for key, value in to_official(model).items():
        value = value.detach()
        if value.dim() > 1:
            bound = math.sqrt(6 / (value.shape[0] + value.shape[1]))
            assert 0.9 * bound < float(value.abs().max()) <= bound, key
        elif "norm" in key or (key.startswith("intermediate_") and key.split(".")[2] == "0"):
            assert (value == (1 if key.endswith("weight") else 0)).all(), key
    bias = to_official(model)["layer_stack.1.pos_ffn.w_2.bias"].detach()
    assert 0 < float(bias.abs().max()) <= 1 / math.sqrt(512)


def test_refinement_input():
    model = filled("jointformer-h36m-refine")
    for x, error, message in (
        (torch.zeros(1, 2, 17, 2), ArgumentError, r"x has shape .*, expected \[B, T, J, C\] with J = 17 and C = 8"),
        (torch.zeros(1, 2, 16, 8), ArgumentError, "J = 17"),
        (torch.zeros(1, 2, 17, 8).double(), DtypeError, "x has dtype torch.float64"),
    ):
        with pytest.raises(error, match=message):
            model(x)


@pytest.fixture
def stages():
    return filled("jointformer-h36m"), filled("jointformer-h36m-refine")


def test_cascade_is_one_stage_after_the_other(stages):
    model = JointformerCascade(*stages)
    assert not model.training
    x = clip("jointformer-h36m")
    with torch.no_grad():
        pose, error = stages[0].predictions(x)[-1]
        want = stages[1](torch.cat((x[..., :2], pose, error), dim=-1))
        assert torch.equal(model(x), want)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), want)
        with torch.autocast("cpu", torch.bfloat16):
            assert float((model(x).float() - want).norm() / want.norm()) < 0.1


def test_cascade_trains_the_refinement_alone(stages):
    model = JointformerCascade(*stages).train()
    x = clip("jointformer-h36m")
    (pair,) = model.supervise(x, torch.zeros(2, 9, 17, 3))
    pair.prediction.square().mean().backward()
    assert all(p.grad is None for p in stages[0].parameters())
    assert all(p.grad is not None for p in stages[1].parameters())


@pytest.mark.parametrize("active", [True, False])
def test_cascade_keeps_or_silences_the_dropout_of_the_pose(stages, active):
    model = JointformerCascade(*stages, pose_dropout=active).train()
    assert stages[1].training and stages[0].training == active
    x = clip("jointformer-h36m")
    assert torch.equal(model.pose(x), model.pose(x)) != active
    model.eval()
    assert not stages[0].training and not stages[1].training


def test_cascade_checkpoint_by_published_names(stages):
    model = JointformerCascade(*stages)
    published = to_official(model)
    assert published["pose.embedding.weight"].shape == (64, 2, 1)
    assert published.keys() == {f"pose.{k}" for k in to_official(stages[0])} | {
        f"refinement.{k}" for k in to_official(stages[1])
    }
    back = from_official(model, published)
    assert all(torch.equal(value, back[key]) for key, value in model.state_dict().items())


def test_cascade_bad_stages(stages):
    with pytest.raises(ArgumentError, match="pose is a JointformerRefinement, expected a Jointformer"):
        JointformerCascade(stages[1], stages[1])
    with pytest.raises(ArgumentError, match="refinement takes 16 joints, expected 17, those of pose"):
        JointformerCascade(stages[0], backbones.create("jointformer-h36m-refine", num_joints=16))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"depth": 0}, "depth is 0, expected a positive integer"),
        ({"num_heads": 0}, "num_heads is 0, expected a positive integer"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0, expected a number"),
        ({"pred_drop_rate": 1.0}, "pred_drop_rate is 1.0, expected a rate"),
        ({"attn_drop_rate": -1}, "attn_drop_rate is -1, expected a rate"),
    ],
)
def test_bad_arguments(override, message):
    for name in ("jointformer-h36m", "jointformer-h36m-refine"):
        with pytest.raises(ArgumentError, match=message):
            backbones.create(name, **override)
