"""Blocks that backbones share: attention on all its paths, stochastic depth, graph convolution, initialisation."""

import pytest
import torch

from structloss.backbones.blocks import (
    Attention,
    DropPath,
    attend,
    init_truncated_normal,
)


@pytest.mark.parametrize("tokens", [17, 81, 97, 130])
def test_attention_equals_its_definition_on_both_paths(tokens):
    q, k, v = torch.randn(3, 2, 3, tokens, 8, dtype=torch.float64)
    want = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k) / 8**0.5, -1) @ v
    torch.testing.assert_close(attend(q, k, v), want)


@pytest.mark.parametrize("frames", [5, 100])
def test_attention_over_frames_is_attention_over_swapped_tokens(frames):
    attention = Attention(12, heads=3)
    x = torch.randn(2, frames, 4, 12)
    torch.testing.assert_close(attention(x, over="frames"), attention(x.transpose(1, 2)).transpose(1, 2))


def test_attention_dropout_keeps_the_mean():
    q, k, v = torch.zeros(3, 1, 1, 40, 4)
    out = attend(q, k, v + 1, dropout=0.5)
    assert out.std() > 0.01 and float(out.mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("axes", "masks"), [(1, 64), (2, 64 * 9)])
def test_drop_path_drops_whole_rows_and_keeps_the_mean(axes, masks):
    drop = DropPath(0.25, axes=axes)
    out = drop(torch.ones(64, 9, 17, 4))
    rows = out.reshape(masks, -1)
    assert (rows == rows[:, :1]).all() and rows.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(out.mean()) == pytest.approx(1, abs=0.25)
    assert "0.25" in repr(drop) and drop.eval()(out) is out


def test_init_resets_layer_norm():
    norm = torch.nn.LayerNorm(4)
    torch.nn.init.constant_(norm.weight, 3)
    torch.nn.init.constant_(norm.bias, 3)
    init_truncated_normal(norm)
    assert norm.weight.tolist() == [1] * 4 and norm.bias.tolist() == [0] * 4
