"""VideoPose3D: its two forms, causal alignment, windows, training mode, initialisation."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from backbone_cases import clip, filled

from structloss import backbones
from structloss.backbones.blocks import TokenBatchNorm
from structloss.backbones.official import to_official
from structloss.errors import ArgumentError

WIDTHS = {"filter_widths": (3, 5, 3), "channels": 16}  # R = 45


def convolutions(w, x, widths, causal=False, norm=None):
    """The published dilated form on `[B, T, J, 2]`, convolution by convolution; `norm` is what follows each."""
    h = F.conv1d(x.flatten(2).transpose(1, 2), w["expand_conv.weight"])
    h = torch.relu(norm("expand_bn", h))
    dilation = widths[0]
    for i, taps in enumerate(widths[1:]):
        pad = (taps - 1) * dilation // 2
        shift = pad if causal else 0
        r = h[:, :, pad + shift : h.shape[2] - pad + shift]
        h = F.conv1d(h, w[f"layers_conv.{2 * i}.weight"], dilation=dilation)
        h = torch.relu(norm(f"layers_bn.{2 * i}", h))
        h = r + torch.relu(norm(f"layers_bn.{2 * i + 1}", F.conv1d(h, w[f"layers_conv.{2 * i + 1}.weight"])))
        dilation *= taps
    out = F.conv1d(h, w["shrink.weight"], w["shrink.bias"])
    return out.transpose(1, 2).unflatten(2, (-1, 3))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("frames", [45, 46, 60])
def test_both_forms_are_the_dilated_convolutions(causal, frames):
    model = filled("videopose3d-27", causal=causal, **WIDTHS).double()
    w = to_official(model)

    def norm(name, h):
        mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return F.batch_norm(h, mean, var, w[f"{name}.weight"], w[f"{name}.bias"])

    x = clip("videopose3d-27", frames=frames, channels=2).double()
    with torch.no_grad():
        got = model(x)
        torch.testing.assert_close(got, convolutions(w, x, WIDTHS["filter_widths"], causal, norm))
    assert got.shape == (2, frames - 44, 17, 3)


@pytest.mark.parametrize("causal", [False, True])
def test_sliding_is_a_window_at_a_time(causal):
    """The dilated form on a long clip and the strided one on each of its windows; `match` finds the same frames."""
    model = filled("videopose3d-27-causal" if causal else "videopose3d-27", channels=32).double()
    x = clip("videopose3d-27", frames=31).double()
    with torch.no_grad():
        windows = torch.cat([model(x[:, t : t + 27]) for t in range(5)], dim=1)
        torch.testing.assert_close(model(x), windows)
    frames = torch.arange(31)[None, :, None]
    assert model.match(frames).flatten().tolist() == (list(range(26, 31)) if causal else list(range(13, 18)))


def test_causal_and_centred_differ_only_in_the_residual():
    centred, causal = (filled(f"videopose3d-27{which}", channels=32) for which in ("", "-causal"))
    x = clip("videopose3d-27")
    with torch.no_grad():
        assert not torch.allclose(centred(x), causal(x))
        for block in (*centred.blocks, *causal.blocks):
            block.causal = True
        torch.testing.assert_close(centred(x), causal(x))


def test_training_uses_the_statistics_of_the_strided_form():
    """One output a clip: statistics over exactly the frames that it needs. More: over every frame there is."""
    model = filled("videopose3d-27", dropout=0.0, **WIDTHS).double().train()
    w = to_official(model)

    def seen(frames):
        lengths = []
        again = copy.deepcopy(model)
        for module in again.modules():
            if isinstance(module, TokenBatchNorm):
                module.register_forward_hook(lambda _, given, out: lengths.append(given[0].shape[1]))
        return again(clip("videopose3d-27", frames=frames, channels=2).double()), lengths

    assert seen(45)[1] == [15, 3, 3, 1, 1]
    out, lengths = seen(50)
    assert lengths == [48, 36, 36, 6, 6]

    def norm(name, h):
        return F.batch_norm(h, None, None, w[f"{name}.weight"], w[f"{name}.bias"], training=True)

    x = clip("videopose3d-27", frames=50, channels=2).double()
    torch.testing.assert_close(out, convolutions(w, x, WIDTHS["filter_widths"], norm=norm))


def test_dropout_follows_every_activation():
    model = backbones.create("videopose3d-27", channels=16)
    rates, calls = [], []
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            rates.append(module.p)
            module.register_forward_hook(lambda _, given, out: calls.append(bool((given[0] >= 0).all())))
    model(clip("videopose3d-27"))
    assert rates == [0.25] * 3 and calls == [True] * 5


def test_one_output_in_training_is_refused():
    model = backbones.create("videopose3d-27", channels=16)
    x = clip("videopose3d-27", batch=1)
    with pytest.raises(ArgumentError, match="x has 1 output frame in all, expected 2 or more in training"):
        model(x)
    assert model(clip("videopose3d-27", batch=1, frames=28)).shape == (1, 2, 17, 3)
    assert model.eval()(x).shape == (1, 1, 17, 3)


def test_trajectory_network():
    """The root's position alone, supervised with the target's matching frames."""
    model = filled("videopose3d-27", joints_out=1, channels=16)
    x = clip("videopose3d-27", frames=30)
    target = torch.arange(30.0).view(1, 30, 1, 1).expand(2, 30, 1, 3)
    (pair,) = model.supervise(x, target, target[..., 0])
    assert pair.prediction.shape == (2, 4, 1, 3)
    assert pair.target[0, :, 0, 0].tolist() == pair.weight[0, :, 0].tolist() == [13, 14, 15, 16]


def test_initial_weights_are_those_of_convolutions():
    torch.manual_seed(0)
    model = backbones.create("videopose3d-27")
    for name, fan_in in {
        "expand_conv.weight": 34 * 3,
        "layers_conv.0.weight": 1024 * 3,
        "layers_conv.1.weight": 1024,
        "shrink.weight": 1024,
        "shrink.bias": 1024,
    }.items():
        weight = to_official(model)[name].detach()
        bound = 1 / math.sqrt(fan_in)
        assert 0.9 * bound < float(weight.abs().max()) <= bound, name
        # 51 biases are few
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.3 if weight.dim() == 1 else 0.02), name


def test_weights_stay_ready_for_the_product():
    """The taps-before-channels order in memory survives what happens to models, so that no step copies weights."""
    model = backbones.create("videopose3d-27", channels=16)
    model.load_state_dict(backbones.create("videopose3d-27", channels=16).state_dict())
    model = copy.deepcopy(model).double().float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(clip("videopose3d-27")).square().mean().backward()
    optimizer.step()
    weight = model.blocks[0].conv.weight
    for tensor in (weight, weight.grad):
        assert tensor.shape == (16, 16, 3) and tensor.permute(0, 2, 1).is_contiguous()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"filter_widths": (3, 4)}, r"filter_widths is \(3, 4\), expected one or more odd positive integers"),
        ({"filter_widths": ()}, r"filter_widths is \(\)"),
        ({"filter_widths": 3}, "filter_widths is 3"),
        ({"filter_widths": "333"}, "filter_widths is '333'"),
        ({"channels": 0}, "channels is 0, expected a positive integer"),
        ({"joints_out": -1}, "joints_out is -1, expected a positive integer"),
        ({"dropout": 1.0}, "dropout is 1.0, expected a rate"),
    ],
)
def test_bad_arguments(override, message):
    with pytest.raises(ArgumentError, match=message):
        backbones.create("videopose3d-27", **override)
