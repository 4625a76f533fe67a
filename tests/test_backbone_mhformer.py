"""MHFormer: stochastic depth, normalisation of short clips' embeddings, order of the hypotheses' interaction."""

import pytest
import torch
from backbone_cases import clip, filled

from structloss import backbones
from structloss.backbones.blocks import Attention, DropPath
from structloss.backbones.mhformer import _CrossInteraction, _SelfRefinement
from structloss.errors import ArgumentError

SMALL = {"frames": 9, "dim": 16, "hidden": 8, "num_heads": 2, "mhg_depth": 1}


def small(**overrides):
    return backbones.create("mhformer-27", **{**SMALL, "depth": 1, **overrides})


def test_rates_of_the_published_training():
    model = backbones.create("mhformer-27")
    for generator in model.generators.values():
        assert [block.drop_path.rate for block in generator.blocks] == pytest.approx([0, 0.2 / 3, 0.4 / 3, 0.2])
        assert generator.drop.p == 0.1
    assert [level.drop_path.rate for level in (*model.refine, model.interact)] == pytest.approx([0, 0.1, 0.2])
    assert all(m.attn_drop == 0 and m.proj_drop.p == 0.1 for m in model.modules() if isinstance(m, Attention))
    assert all(m.proj_drop.p == 0.1 for m in model.interact.cross.values())
    assert model.drop.p == model.interact.mlp.drop.p == model.refine[0].mlp.drop.p == 0.1
    assert [embedding[3].p for embedding in model.embeddings.values()] == [0.25] * 3


def test_only_short_clips_have_normalised_embeddings():
    assert isinstance(small(frames=27).embeddings["1"][1], torch.nn.BatchNorm1d)
    assert isinstance(small(frames=36).embeddings["1"], torch.nn.Linear)


def test_refinement_drops_the_attention_of_each_hypothesis_by_itself():
    level = _SelfRefinement(16, 2, 8, drop=0.0, path=0.5)
    torch.nn.init.zeros_(level.mlp.fc2.weight)  # leaves the three attention branches
    torch.nn.init.zeros_(level.mlp.fc2.bias)
    h = torch.randn(200, 3, 48)
    with torch.no_grad():
        whole, dropped = level.eval()(h) - h, level.train()(h) - h
    factor = (dropped / whole).view(200, 3, 3, 16).transpose(1, 2).flatten(2)
    torch.testing.assert_close(factor, factor[..., :1].expand_as(factor), atol=1e-2, rtol=0)  # for the whole clip
    draws = factor[..., 0].round()
    assert len(draws.unique(dim=0)) == 8 and draws.unique().tolist() == [0, 2]


@pytest.mark.parametrize("kind", [_SelfRefinement, _CrossInteraction])
def test_levels_have_four_draws(kind):
    level, calls = kind(16, 2, 8, drop=0.0, path=0.5), []
    level.drop_path.register_forward_hook(lambda *_: calls.append(1))
    level.train()(torch.randn(2, 3, 48))
    assert len(calls) == 4 and len([m for m in level.modules() if isinstance(m, DropPath)]) == 1


def test_interaction_is_one_after_the_other():
    """A hypothesis is read as it stands: the first by the two others after its update, the third by none."""
    level = _CrossInteraction(16, 2, 8, drop=0.0, path=0.0).double().eval()
    h = list(torch.randn(3, 2, 5, 16, dtype=torch.float64))
    with torch.no_grad():
        got = level(torch.cat(h, -1))
        for m, (query, key) in {0: (1, 2), 1: (0, 2), 2: (0, 1)}.items():
            cross = level.cross[str(m + 1)]
            q, k, v = (
                getattr(cross, f"linear_{part}")(getattr(cross, f"norm_{part}")(h[n])).view(2, 5, 2, 8)
                for part, n in zip("qkv", (query, key, m), strict=True)
            )
            scores = torch.einsum("bihc,bjhc->bhij", q, k) / 8**0.5
            h[m] = h[m] + cross.proj(torch.einsum("bhij,bjhc->bihc", scores.softmax(-1), v).flatten(2))
        z = torch.cat(h, -1)
        torch.testing.assert_close(got, z + level.mlp(level.norm2(z)))


def test_statistics_are_of_all_frames_of_the_batch():
    model = small(drop_rate=0.0).train()
    x, tokens = clip("mhformer-27", frames=9, channels=2), {}
    model.embeddings["2"][0].register_forward_hook(lambda m, i, out: tokens.update(embedding=out.detach()))
    model.norm.register_forward_hook(lambda m, i, out: tokens.update(head=out.detach()))
    model(x)
    for key, norm in (("embedding", model.embeddings["2"][1]), ("head", model.regression[0])):
        rows = tokens[key].flatten(0, 1)
        assert len(rows) == 18
        torch.testing.assert_close(norm.running_mean, 0.1 * rows.mean(0))
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * rows.var(0))


def test_fresh_weights_are_the_defaults_of_their_layers():
    model = backbones.create("mhformer-27")
    positions = [*model.positions.values(), *(generator.pos_embed for generator in model.generators.values())]
    assert len(positions) == 6 and not any(p.any() for p in positions)
    for linear in (model.regression[1], model.interact.mlp.fc1, model.refine[0].attn["1"].qkv):
        bound = linear.in_features**-0.5
        assert 0.99 * bound < float(linear.weight.detach().abs().max()) <= bound
        assert float(linear.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)
        assert linear.bias.any()


def test_tokens_of_the_generators_are_coordinates():
    """Without position embeddings a generator does not tell joints from each other."""
    model, order = filled("mhformer-27", **SMALL, depth=1), torch.randperm(34)
    generator = model.generators["1"]
    tokens = torch.randn(2, 34, 9)
    with torch.no_grad():
        generator.pos_embed.zero_()
        torch.testing.assert_close(generator(tokens[:, order]), generator(tokens)[:, order])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"frames": 30}, "frames is 30, expected a positive multiple of 9"),
        ({"dim": 15}, "dim is 15, expected a positive multiple of 2"),
        ({"depth": 0}, "depth is 0, expected a positive integer"),
        ({"mhg_depth": 0}, "mhg_depth is 0, expected a positive integer"),
        ({"hidden": 0.5}, "hidden is 0.5, expected a positive integer"),
        ({"embed_drop_rate": 1.0}, r"embed_drop_rate is 1.0, expected a rate"),
    ],
)
def test_bad_arguments(overrides, message):
    with pytest.raises(ArgumentError, match=message):
        small(**overrides)
