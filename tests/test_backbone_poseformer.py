"""PoseFormer: the frame it answers for, what stochastic depth drops, initialisation, the bias without effect."""

import pytest
import torch
from backbone_cases import clip, filled

from structloss import backbones
from structloss.backbones.blocks import DropPath
from structloss.errors import ArgumentError


def test_stochastic_depth_drops_frames_then_clips():
    model = backbones.create("poseformer-27").train()
    for blocks in (model.Spatial_blocks, model.blocks):
        assert [b.drop_path.rate for b in blocks] == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])
    path = DropPath(0.5, model.Spatial_blocks[3].drop_path.shared)
    spatial = path(torch.ones(4, 27, 17, 32))
    assert torch.equal(spatial, spatial[:, :, :1, :1].expand_as(spatial))
    assert 0 < float(spatial[0, :, 0, 0].mean()) < 2  # some frames of a clip dropped, not all
    temporal = DropPath(0.5, model.blocks[3].drop_path.shared)(torch.ones(64, 27, 544))
    assert torch.equal(temporal, temporal[:, :1, :1].expand_as(temporal))
    assert set(temporal[:, 0, 0].tolist()) == {0.0, 2.0}


def test_rates_act_in_training_only():
    model, x = filled("poseformer-27", depth=2, drop_path_rate=0.5), clip("poseformer-27")
    with torch.no_grad():
        torch.testing.assert_close(model(x), filled("poseformer-27", depth=2)(x))
        assert not torch.equal(model.train()(x), model(x))


def test_fresh_weights():
    torch.manual_seed(0)
    model = backbones.create("poseformer-81")
    assert not model.Spatial_pos_embed.any() and not model.Temporal_pos_embed.any()
    for weight, fan_in in ((model.weighted_mean.weight, 81), (model.blocks[0].attn.qkv.weight, 544)):
        assert 0.9 < float(weight.detach().abs().max()) * fan_in**0.5 <= 1
    assert float(model.blocks[0].attn.qkv.bias.detach().abs().max()) * 544**0.5 > 0.9


def test_mean_of_frames_and_head():
    """From the normalised frames on, by the equations; the mean's bias shifts all channels, which has no effect."""
    model = filled("poseformer-27", depth=1).double()
    x = clip("poseformer-27").double()
    seen = []
    model.Temporal_norm.register_forward_hook(lambda module, inputs, out: seen.append(out))
    with torch.no_grad():
        out = model(x)
        y = torch.einsum("f,bfc->bc", model.weighted_mean.weight[0], seen[0])
        y = (y - y.mean(1, keepdim=True)) / (y.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        y = (y * model.head[0].weight + model.head[0].bias) @ model.head[1].weight.T + model.head[1].bias
        torch.testing.assert_close(out, y.view(2, 1, 17, 3))
        model.weighted_mean.bias += 3
        torch.testing.assert_close(model(x), out)
    assert not model.weighted_mean.bias.requires_grad


def test_layer_norms():
    model = backbones.create("poseformer-27")
    eps = {key: m.eps for key, m in model.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert eps.pop("head.0") == 1e-5 and set(eps.values()) == {1e-6} and len(eps) == 18


def test_answers_for_the_middle_frame():
    for frames, middle in ((9, 4), (8, 3)):
        model = backbones.create("poseformer", frames=frames, depth=1)
        target = torch.arange(float(frames)).view(1, frames, 1, 1).expand(2, frames, 17, 3)
        (pair,) = model.supervise(torch.zeros(2, frames, 17, 2), target)
        assert pair.prediction.shape == pair.target.shape == (2, 1, 17, 3)
        assert set(pair.target.flatten().tolist()) == {middle}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"frames": 0}, "frames is 0, expected a positive integer"),
        ({"embed_dim_ratio": 30}, "embed_dim_ratio is 30, expected a positive multiple of 8"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0, expected a number with"),
        ({"drop_path_rate": 1}, "drop_path_rate is 1, expected a rate"),
    ],
)
def test_bad_arguments(override, message):
    with pytest.raises(ArgumentError, match=message):
        backbones.create("poseformer", **override)
