"""The simple baseline: flat network and clips, statistics, joints."""

import numpy as np
import pytest
import torch
from backbone_cases import clip, filled

from structloss import backbones
from structloss.errors import ArgumentError


@pytest.mark.parametrize(("name", "joints"), [("simplebaseline-16j", 17), ("simplebaseline-semgcn", 16)])
def test_simplebaseline_adapts_clips_to_the_flat_network(name, joints):
    model = filled(name)
    x = clip(name)
    sixteen = x[:, :, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16]]
    with torch.no_grad():
        out = model(x)
        flat = model.forward_flat(sixteen[..., :2].reshape(18, 32))
        torch.testing.assert_close(model(sixteen), out)
    assert out.shape == (2, 9, joints, 3) and not out[:, :, 0].any()
    torch.testing.assert_close(out[:, :, 1:].reshape(18, -1), flat)


def test_simplebaseline_statistics():
    rng = np.random.default_rng(0)
    mean2, std2, mean3, std3 = (rng.uniform(1, 2, shape) for shape in ((16, 2), (16, 2), (16, 3), (16, 3)))
    plain = filled("simplebaseline")
    model = filled("simplebaseline", input_mean=mean2, input_std=std2, output_mean=mean3, output_std=std3.tolist())
    assert model.state_dict().keys() == plain.state_dict().keys()
    x = clip("simplebaseline", channels=2)[:, :, :16]
    with torch.no_grad():
        got = model(x * torch.tensor(std2).float() + torch.tensor(mean2).float())
        want = plain(x)[:, :, 1:] * torch.tensor(std3).float() + torch.tensor(mean3).float()
    torch.testing.assert_close(got[:, :, 1:], want, rtol=1e-3, atol=1e-4)
    assert not got[:, :, 0].any()


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"input_mean": np.zeros((16, 2))}, "input_std is None, expected input_mean and input_std together"),
        ({"output_std": np.ones((16, 3))}, "output_mean is None"),
        ({"output_mean": np.zeros((17, 3)), "output_std": np.ones((17, 3))}, r"output_mean has shape \[17, 3\]"),
        ({"input_mean": np.zeros((16, 2)), "input_std": np.zeros((16, 2))}, "input_std has the value 0, expected"),
    ],
)
def test_simplebaseline_bad_statistics(statistics, message):
    with pytest.raises(ArgumentError, match=message):
        backbones.create("simplebaseline", **statistics)


def test_simplebaseline_single_frame():
    model = filled("simplebaseline")
    x = clip("simplebaseline", batch=1, frames=1)
    assert model(x).shape == (1, 1, 17, 3)
    with pytest.raises(ArgumentError, match="x has 1 frame in all, expected 2 or more in training"):
        model.train()(x)


def test_simplebaseline_targets_lose_the_joints_that_it_does_not_predict():
    x = clip("simplebaseline")
    target = torch.arange(17.0).view(1, 1, 17, 1).expand(2, 9, 17, 3)
    sixteen = [j for j in range(17) if j != 9]
    for name, joints in {"simplebaseline-16j": list(range(17)), "simplebaseline-semgcn": sixteen}.items():
        (pair,) = filled(name).supervise(x, target, target[..., 0])
        assert pair.target[0, 0, :, 0].tolist() == pair.weight[0, 0].tolist() == joints
        assert pair.prediction.shape == pair.target.shape
    (pair,) = filled("simplebaseline-semgcn").supervise(x, target[:, :, :16])
    assert pair.target.shape == (2, 9, 16, 3)


@pytest.mark.parametrize(("name", "kept"), [("simplebaseline-16j", 16), ("simplebaseline-semgcn", 15)])
def test_simplebaseline_trains_on_standardised_coordinates(name, kept):
    """Statistics of whole clips, 17 joints with the root, whose deviation is 0."""
    torch.manual_seed(0)
    x, target = clip(name, channels=2), torch.randn(2, 9, 17, 3)
    target[:, :, 0] = 0
    statistics = {
        "input_mean": x.mean((0, 1)),
        "input_std": x.std((0, 1)),
        "target_mean": target.mean((0, 1)),
        "target_std": target.std((0, 1)),
    }
    model, plain = filled(name), filled(name)
    model.set_statistics(**statistics)
    joints = [j for j in range(1, 17) if kept == 16 or j != 9]
    want = (target - statistics["target_mean"])[:, :, joints] / statistics["target_std"][joints]
    with torch.no_grad():
        (pair,) = model.supervise(x, target)
        torch.testing.assert_close(pair.target[:, :, 1:], want)
        standard = plain((x - statistics["input_mean"]) / statistics["input_std"])
        torch.testing.assert_close(pair.prediction, standard, rtol=1e-4, atol=1e-5)
        back = standard[:, :, 1:] * statistics["target_std"][joints] + statistics["target_mean"][joints]
        torch.testing.assert_close(model(x)[:, :, 1:], back, rtol=1e-4, atol=1e-5)
    assert not pair.target[:, :, 0].any() and not pair.prediction[:, :, 0].any()
    with pytest.raises(ArgumentError, match=r"input_mean has shape \[5, 2\], expected \[16, 2\]"):
        model.set_statistics(**statistics | {"input_mean": torch.zeros(5, 2)})


def test_simplebaseline_trains_in_the_unit_of_the_target_without_statistics():
    model = filled("simplebaseline-semgcn")
    x, target = clip("simplebaseline-semgcn"), torch.randn(2, 9, 16, 3)
    (pair,) = model.supervise(x, target)
    assert torch.equal(pair.target, target) and torch.equal(pair.prediction, model(x))


# The networks of H3WB

WHOLE_BODY = ["simplebaseline-h3wb", "simplebaseline-h3wb-large"]


@pytest.mark.parametrize("name", WHOLE_BODY)
def test_whole_body_clips_are_flat_frames(name):
    model = filled(name)
    x = clip(name)
    with torch.no_grad():
        out = model(x)
        assert out.shape == (2, 9, 133, 3)
        torch.testing.assert_close(model(x[1:, 4:5, :, :2]), out[1:, 4:5])
        assert model(x[:0]).shape == (0, 9, 133, 3)


def test_whole_body_dropout_stops_in_evaluation():
    """The published code's never does."""
    model = filled("simplebaseline-h3wb")
    x = clip("simplebaseline-h3wb")
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}
    large = filled("simplebaseline-h3wb-large").train()
    assert torch.equal(large(x), large(x))


def test_whole_body_single_frame():
    x = clip("simplebaseline-h3wb", batch=1, frames=1)
    with pytest.raises(ArgumentError, match="x has 1 frame in all, expected 2 or more in training"):
        filled("simplebaseline-h3wb").train()(x)
    assert filled("simplebaseline-h3wb-large").train()(x).shape == (1, 1, 133, 3)


@pytest.mark.parametrize("name", WHOLE_BODY)
def test_whole_body_exports_and_checkpoints(name):
    model = filled(name, linear_size=32)
    x = clip(name)
    free = {"x": {0: torch.export.Dim("batch", min=2, max=64)}}
    with torch.no_grad():
        program = torch.export.export(model, (x,), dynamic_shapes=free)
        many = clip(name, batch=5)
        torch.testing.assert_close(program.module()(many), model(many), rtol=1e-4, atol=1e-5)
    grads = []
    for checkpointing in (False, True):
        model = filled(name, linear_size=32, gradient_checkpointing=checkpointing).train()
        torch.manual_seed(0)
        model(x).square().mean().backward()
        grads.append({key: p.grad for key, p in model.named_parameters()})
    for key, value in grads[0].items():
        torch.testing.assert_close(grads[1][key], value, msg=key)


@pytest.mark.parametrize("name", ["simplebaseline-16j", *WHOLE_BODY])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"depth": 0}, "depth is 0, expected a positive integer"),
        ({"linear_size": 0}, "linear_size is 0, expected a positive integer"),
        ({"dropout": 1}, "dropout is 1, expected a rate"),
    ],
)
def test_bad_arguments(name, override, message):
    with pytest.raises(ArgumentError, match=message):
        backbones.create(name, **override)
