"""Blocks that backbones share: attention on all its paths, stochastic depth, graph convolution, initialisation."""

import weakref

import pytest
import torch

from structloss.backbones.blocks import (
    Attention,
    DropPath,
    TransformerBlock,
    attend,
    drop_path_rates,
    graph_convolution,
    init_truncated_normal,
    neighbours,
)
from structloss.backbones.blocks.memory import recomputed


@pytest.mark.parametrize("tokens", [17, 81, 97, 130])
def test_attention_equals_its_definition_on_both_paths(tokens):
    q, k, v = torch.randn(3, 2, 3, tokens, 8, dtype=torch.float64)
    want = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k) / 8**0.5, -1) @ v
    torch.testing.assert_close(attend(q, k, v), want)


@pytest.mark.parametrize("tokens", [17, 96, 97, 130])
@pytest.mark.parametrize("heads", [(), (3,)])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention_with_a_bias(tokens, heads, scale):
    """Against its definition and PyTorch's own, with gradients, on both paths; a table for all heads or for each."""
    inputs = [torch.randn(2, 3, tokens, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    bias = torch.randn(*heads, tokens, tokens, dtype=torch.float64, requires_grad=True)
    q, k, v = inputs
    factor = 8**-0.5 if scale is None else scale
    defined = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k) * factor + bias, -1) @ v
    own = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    got = attend(q, k, v, scale=scale, bias=bias)
    direction = torch.randn_like(got)
    gradients = torch.autograd.grad(got, (*inputs, bias), direction)
    for want in (defined, own):
        torch.testing.assert_close(got, want)
        for g, w in zip(gradients, torch.autograd.grad(want, (*inputs, bias), direction), strict=True):
            torch.testing.assert_close(g, w)
    assert (got - attend(q, k, v, scale=scale)).abs().max() > 0.01


@pytest.mark.parametrize("tokens", [17, 130])
def test_a_bias_of_minus_infinity_is_a_mask(tokens):
    q, k, v = torch.randn(3, 2, 3, tokens, 8)
    mask = torch.arange(tokens) % 3 > 0
    bias = torch.zeros(tokens, tokens).masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(attend(q, k, v, bias=bias), attend(q, k, v, mask=mask))


@pytest.mark.parametrize("frames", [5, 100])
def test_attention_over_frames_is_attention_over_swapped_tokens(frames):
    attention, over_frames = Attention(12, heads=3), Attention(12, heads=3, over="frames")
    over_frames.load_state_dict(attention.state_dict())
    x = torch.randn(2, frames, 4, 12)
    torch.testing.assert_close(over_frames(x), attention(x.transpose(1, 2)).transpose(1, 2))


def test_attention_dropout_keeps_the_mean():
    q, k, v = torch.zeros(3, 1, 1, 40, 4)
    out = attend(q, k, v + 1, dropout=0.5)
    assert out.std() > 0.01 and float(out.mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("shared", "one"), [((-2, -1), (64, 9, 1, 1)), ((1, -1), (64, 1, 17, 1)), ((1, 2, -1), (64, 1, 1, 1))]
)
def test_drop_path_drops_what_shares_a_draw_and_keeps_the_mean(shared, one):
    drop = DropPath(0.25, shared=shared)
    out = drop(torch.ones(64, 9, 17, 4))
    first = out[tuple(slice(0, n) for n in one)]
    assert torch.equal(out, first.expand_as(out))
    assert first.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(out.mean()) == pytest.approx(1, abs=0.25)
    assert "0.25" in repr(drop) and drop.eval()(out) is out


def test_drop_path_rates_rise_from_zero():
    assert drop_path_rates(0.1, 3) == pytest.approx([0, 0.05, 0.1]) and drop_path_rates(0.1, 1) == [0]


def test_transformer_block_is_its_equations():
    block = TransformerBlock(12, 3, 20, over="frames").double()
    x = torch.randn(2, 5, 4, 12, dtype=torch.float64)
    rows = x.transpose(1, 2)
    attention, norm = block.attn, torch.nn.functional.layer_norm
    q, k, v = attention.qkv(norm(rows, (12,), eps=1e-6)).view(2, 4, 5, 3, 3, 4).permute(3, 0, 1, 4, 2, 5)
    mixed = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
    rows = rows + attention.proj(mixed.transpose(2, 3).reshape(2, 4, 5, 12))
    hidden = torch.nn.functional.gelu(block.mlp.fc1(norm(rows, (12,), eps=1e-6)))
    torch.testing.assert_close(block(x), (rows + block.mlp.fc2(hidden)).transpose(1, 2))


@pytest.mark.parametrize("over", ["tokens", "frames"])
def test_stochastic_depth_of_a_block_drops_whole_sequences(over):
    block = TransformerBlock(4, 1, 4, over=over, path=0.5).train()
    with torch.no_grad():
        change = block(torch.randn(8, 9, 17, 4)) != block.eval()(torch.zeros(8, 9, 17, 4))
        block.train()
        x = torch.randn(8, 9, 17, 4)
        kept = (block(x) == x).all(-1)
    assert change.any()
    rows = kept if over == "tokens" else kept.transpose(1, 2)
    assert torch.equal(rows, rows[..., :1].expand_as(rows)) and 0.1 < float(rows.float().mean()) < 0.5


def test_recomputed_activations_are_not_kept_and_change_no_gradient():
    """First and second derivatives, and what the graph keeps."""
    x = torch.randn(256, 64, 32, dtype=torch.float64, requires_grad=True)
    w = torch.randn(16, 32, dtype=torch.float64, requires_grad=True)
    gelu, linear = torch.nn.functional.gelu, torch.nn.functional.linear

    def derivatives(out):
        first = torch.autograd.grad(out.square().sum(), (x, w), create_graph=True)
        return *first, *torch.autograd.grad(sum(g.square().sum() for g in first), (x, w))

    kept = weakref.WeakSet()

    def remembered(t):
        made = gelu(t)
        kept.add(made)
        return made

    plain = linear(remembered(x), w)
    assert len(kept) == 1
    want = derivatives(plain)
    del plain
    thrifty = recomputed(remembered, x, lambda a: linear(a, w))
    assert len(kept) == 0
    for got, wanted in zip(derivatives(thrifty), want, strict=True):
        torch.testing.assert_close(got, wanted)
    small = recomputed(remembered, x[:1, :1], lambda a: linear(a, w))
    assert len(kept) == 1 and small.shape == (1, 1, 16)  # small ones are kept


def test_recomputed_activations_under_autocast():
    x = torch.randn(256, 64, 32, requires_grad=True)
    layers = torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)
    results = []
    for thrifty in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = layers[0](x)
            gelu = torch.nn.functional.gelu
            out = recomputed(gelu, hidden, layers[1]) if thrifty else layers[1](gelu(hidden))
        results.append(torch.autograd.grad(out.float().square().sum(), [x, *layers[0].parameters()]))
    for got, want in zip(*results, strict=True):
        assert torch.equal(got, want)


def test_graph_convolution_is_its_definition():
    x, weight = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64)
    adjacency, bias = torch.randn(5, 5, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    modulation = torch.randn(5, 6, dtype=torch.float64)
    diagonal = torch.diag(adjacency.diagonal())
    want = diagonal @ (modulation * (x @ weight[0])) + (adjacency - diagonal) @ (modulation * (x @ weight[1])) + bias
    torch.testing.assert_close(graph_convolution(x, weight, adjacency, bias, modulation), want)
    clip = x.transpose(1, 2)
    torch.testing.assert_close(
        graph_convolution(clip, weight, adjacency, bias, modulation, over="frames"), want.transpose(1, 2)
    )


def test_neighbours_of_a_tree():
    assert neighbours((-1, 0, 0, 2)).tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]]


def test_init_resets_layer_norm():
    norm = torch.nn.LayerNorm(4)
    torch.nn.init.constant_(norm.weight, 3)
    torch.nn.init.constant_(norm.bias, 3)
    init_truncated_normal(norm)
    assert norm.weight.tolist() == [1] * 4 and norm.bias.tolist() == [0] * 4
