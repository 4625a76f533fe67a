"""MixSTE: what shares a draw of stochastic depth, its rates, its initialisation, its two norms."""

import pytest
import torch

from structloss import backbones
from structloss.errors import ArgumentError

SMALL = {"frames": 6, "embed_dim": 16, "num_heads": 2}


def small(**overrides):
    torch.manual_seed(0)
    return backbones.create("mixste-27", **{**SMALL, "depth": 2, **overrides})


@pytest.mark.parametrize("stream", ["STEblocks", "TTEblocks"])
def test_stochastic_depth_drops_frames_in_spatial_and_trajectories_in_temporal_blocks(stream):
    model = small(drop_path_rate=0.4).train()
    seen = []
    block = getattr(model, stream)[1]
    block.drop_path.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad():
        model(torch.randn(40, 6, 17, 2))
    assert len(seen) == 2  # attention and MLP, each with a draw of its own
    factors = []
    for branch, dropped in seen:
        factor = dropped / branch
        rows = factor.flatten(2) if stream == "STEblocks" else factor.transpose(1, 2).flatten(2)
        torch.testing.assert_close(rows, rows[..., :1].expand_as(rows))
        factors.append(rows[..., 0])
        assert rows[..., 0].unique().numel() > 1 and rows[..., 0].std(1).max() > 0.1  # not one draw a clip
        near = torch.isclose(factors[-1], torch.tensor(1 / 0.6)) | (factors[-1] == 0)
        assert near.all()
        assert float((factors[-1] == 0).float().mean()) == pytest.approx(0.4, abs=0.1)
    assert not torch.equal(*factors)


def test_published_rates_rise_evenly_and_act_in_training_only():
    model = backbones.create("mixste-27", embed_dim=16)
    want = torch.linspace(0, 0.1, 8).tolist()
    for blocks in (model.STEblocks, model.TTEblocks):
        assert [block.drop_path.rate for block in blocks] == pytest.approx(want)
    model, x = small(drop_path_rate=0.5), torch.randn(2, 6, 17, 2)
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))
        assert torch.equal(model.eval()(x), model(x))
        assert not [m for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.p]


def test_one_norm_after_all_spatial_and_one_after_all_temporal_blocks():
    model = small(depth=3).eval()
    order = []
    want = [name for i in range(3) for name in (f"STEblocks.{i}", "Spatial_norm", f"TTEblocks.{i}", "Temporal_norm")]
    for name in set(want):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: order.append(name))
    with torch.no_grad():
        model(torch.randn(1, 6, 17, 2))
    assert order == want
    eps = {name: m.eps for name, m in model.named_modules() if isinstance(m, torch.nn.LayerNorm)}
    assert eps.pop("head.0") == 1e-5 and set(eps.values()) == {1e-6}


def test_embedding_of_frames_tells_them_apart_before_the_first_temporal_block_only():
    """With equal frames in, the outputs differ through it alone."""
    model, x = small().eval(), torch.randn(1, 1, 17, 2).expand(1, 6, 17, 2)
    with torch.no_grad():
        still = model(x)
        torch.testing.assert_close(still, still[:, :1].expand_as(still))
        model.Temporal_pos_embed.copy_(torch.randn(1, 6, 16))
        assert (model(x)[:, 0] - model(x)[:, 1]).abs().max() > 1e-2
        inputs = []
        for block in model.TTEblocks:
            block.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        spatial = []
        model.Spatial_norm.register_forward_hook(lambda module, args, output: spatial.append(output))
        model(x)
        torch.testing.assert_close(inputs[0], spatial[0] + model.Temporal_pos_embed[:, :, None])
        torch.testing.assert_close(inputs[1], spatial[1])


def test_initial_weights_are_those_of_pytorch_and_embeddings_zero():
    model = backbones.create("mixste-27", depth=1, embed_dim=128)
    assert not model.Spatial_pos_embed.any() and not model.Temporal_pos_embed.any()
    for linear in (model.STEblocks[0].attn.qkv, model.TTEblocks[0].mlp.fc1):
        bound = 128**-0.5
        for values in (linear.weight.detach(), linear.bias.detach()):
            assert float(values.abs().max()) <= bound
            assert float(values.std()) == pytest.approx(bound / 3**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"frames": 0}, "frames is 0, expected a positive integer"),
        ({"depth": 0}, "depth is 0, expected a positive integer"),
        ({"num_joints": 1.5}, "num_joints is 1.5, expected a positive integer"),
        ({"embed_dim": 18, "num_heads": 4}, "embed_dim is 18, expected a positive multiple of 4"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0, expected a number"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate is 1.0, expected a rate"),
    ],
)
def test_bad_arguments(override, message):
    with pytest.raises(ArgumentError, match=message):
        small(**override)
