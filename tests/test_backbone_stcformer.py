"""STCFormer: any length, part embeddings in training, the published interleaving, the version for MPI-INF-3DHP."""

import pytest
import torch
from backbone_cases import clip, filled

from structloss import backbones, skeletons
from structloss.backbones.official import to_official
from structloss.backbones.stcformer import _SETUPS
from structloss.errors import ArgumentError

H36M = torch.tensor([0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 3, 3, 3, 4, 4, 4])
MPI = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 0, 0, 0])


def small(name="stcformer-27", **overrides):
    return backbones.create(name, **{"depth": 1, "dim": 32, "num_heads": 4, **overrides})


@pytest.mark.parametrize("frames", [1, 5, 100])
def test_takes_any_length(frames):
    """The variants for several lengths are one network."""
    x, short = clip("stcformer-27", frames=frames), filled("stcformer-27", depth=1)
    long = filled("stcformer-243", depth=1)
    with torch.no_grad():
        assert torch.equal(short(x), long(x))
        assert short(x).shape == (2, frames, 17, 3)
    assert (short.shortest, short.longest, short.frames, long.frames) == (1, None, 27, 243)


def test_halves_attend_over_joints_and_over_frames():
    """Without convolution and MLP, a frame's pose depends on other frames at the same joint, and on its own frame."""
    model = filled("stcformer-27", depth=1).double()
    block = model.blocks[0]
    with torch.no_grad():
        for weight in (block.attn.conv.weight, block.attn.conv.bias, block.mlp.fc2.weight):
            weight.zero_()
    x = clip("stcformer-27", batch=1, channels=2).double()
    moved = x.clone()
    moved[0, 2, 5] += 1
    with torch.no_grad():
        changed = (model(moved) - model(x)).abs().amax(-1)[0] > 1e-12
    want = torch.zeros(9, 17, dtype=torch.bool)
    want[2], want[:, 5] = True, True
    assert torch.equal(changed, want)


def test_convolution_tells_neighbouring_frames_and_joints():
    attn = filled("stcformer-27", depth=1).blocks[0].attn
    weight = to_official(filled("stcformer-27", depth=1))["stcformer.stc_block.0.stc_att.sep2_t.weight"]
    image = torch.zeros(1, 256, 9, 17)
    image[:, :, 4, 8] = 1
    with torch.no_grad():
        out = attn.conv(image) - attn.conv(torch.zeros_like(image))
    # Second channel of the second of eight heads, 16 spatial and 16 temporal channels each: temporal channel 17.
    torch.testing.assert_close(out[0, 32 + 16 + 1, 3:6, 7:10], weight[17, 0].flip(0, 1))


@pytest.mark.parametrize(
    ("name", "parts", "shares"),
    [("stcformer-27", H36M, (1e-4, 1e-9)), ("stcformer-3dhp-81", MPI, (1e-4, 0.0))],
)
def test_part_embedding_is_dropped_as_a_whole_in_each_half(name, parts, shares):
    attn = small(name).blocks[0].attn
    table = attn.emb.weight.detach()[parts][:, None]
    with torch.no_grad():
        spatial, temporal = attn.eval()._part_embedding(torch.float32).chunk(2, -1)
        torch.testing.assert_close(spatial, shares[0] * table, rtol=1e-6, atol=0)
        torch.testing.assert_close(temporal, shares[1] * table, rtol=1e-6, atol=0)
        seen, used = set(), table != 0
        for _ in range(60):
            draws = []
            for half, share in zip(attn.train()._part_embedding(torch.float32).chunk(2, -1), shares, strict=True):
                if share:
                    factors = (half[used] / (share * table[used])).round(decimals=3).unique().tolist()
                    assert factors in ([0], [2])
                    draws += factors
            seen.add(tuple(draws))
    assert len(seen) == (4 if shares[1] else 2)


def test_parts_are_those_of_the_skeletons():
    for name, setup in _SETUPS.items():
        skeleton = skeletons.get(name)
        sides = [{setup.parts[j] for j in joints} for joints in (skeleton.left, skeleton.right)]
        assert not set.intersection(*sides) and set.union(*sides) == {1, 2, 3, 4}
        middle = set(range(17)) - set(skeleton.left) - set(skeleton.right)
        assert {setup.parts[j] for j in middle} == {0}


def test_mpi_inf_3dhp_has_a_fixed_part_and_a_norm_that_nothing_uses():
    model = small("stcformer-3dhp-81")
    block = model.blocks[0]
    assert not block.attn.emb.weight[0].any() and block.attn.emb.weight[1:5].any(1).all()
    x = clip("stcformer-3dhp-81")
    with torch.no_grad():
        want = model.eval()(x)
        block.spare_norm.weight.fill_(7)
        assert torch.equal(model(x), want)
    model(x).square().sum().backward()
    table = block.attn.emb.weight.grad
    assert not table[0].any() and table[1:5].any(1).all() and not table[5:].any()
    assert [k for k, p in model.named_parameters() if not p.requires_grad] == [
        "blocks.0.spare_norm.weight",
        "blocks.0.spare_norm.bias",
    ]
    assert backbones.info("stcformer-3dhp-81").skeleton == "mpi_inf_3dhp"


def test_own_checkpoint_is_not_mistaken_for_a_published_one():
    """Rows are in another order in published files, which no shape would tell."""
    model, second = small(), small()
    for weights in (model.state_dict(), to_official(model)):
        second.load_state_dict(small().state_dict())
        assert backbones.load_published(second, weights).complete
        for key, value in model.state_dict().items():
            assert torch.equal(second.state_dict()[key], value), key


def test_fresh_weights_are_the_defaults_of_their_layers():
    model = backbones.create("stcformer-27")
    attn = model.blocks[0].attn
    bound = 256**-0.5
    assert 0.99 * bound < float(attn.qkv.weight.detach().abs().max()) <= bound
    assert float(attn.conv.weight.detach().abs().max()) == pytest.approx(1 / 3, rel=0.01)  # nine inputs a channel
    tables = torch.cat([block.attn.emb.weight.detach().flatten() for block in model.blocks])
    assert float(tables.std()) == pytest.approx(1, abs=0.1)
    assert model.embed.bias is None and model.head.bias is None and model.blocks[0].mlp.fc1.bias is None


def test_dropout_is_in_the_mlps_only():
    model = backbones.create("stcformer-27", depth=1)
    assert model.blocks[0].mlp.drop.p == 0.1 and model.blocks[0].attn.emb_drop.rate == 0.5
    assert sum(isinstance(m, torch.nn.Dropout) for m in model.modules()) == 1
    model, x = small(drop_rate=0.0, emb_drop_rate=0.0), clip("stcformer-27")
    with torch.no_grad():
        torch.testing.assert_close(model.train()(x), model.eval()(x))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dim": 36}, "dim is 36, expected a positive multiple of 8"),
        ({"depth": 0}, "depth is 0, expected a positive integer"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0, expected a number"),
        ({"emb_drop_rate": 1}, "emb_drop_rate is 1, expected a rate"),
        ({"skeleton": "coco"}, "skeleton is 'coco', expected one of 'h36m', 'mpi_inf_3dhp'"),
    ],
)
def test_bad_arguments(overrides, message):
    with pytest.raises(ArgumentError, match=message):
        small(**overrides)
