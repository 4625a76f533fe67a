"""PoseFormerV2: its transforms, the frames and coefficients it looks at, the split of its tokens, its rates."""

import math

import pytest
import torch
from backbone_cases import clip, filled

from structloss import backbones
from structloss.backbones.blocks import dct_matrix, inverse_dct_matrix
from structloss.errors import ArgumentError


def dct(x):
    """X_k = 2·Σ_t x_t·cos(πk(2t + 1) / 2N) along axis -2, a number at a time."""
    n = x.shape[-2]
    rows = []
    for k in range(n):
        terms = [x[..., t, :] * math.cos(math.pi * k * (2 * t + 1) / (2 * n)) for t in range(n)]
        rows.append(2 * sum(terms))
    return torch.stack(rows, dim=-2)


def idct(y):
    """x_t = (X_0 / 2 + Σ_{k≥1} X_k·cos(πk(2t + 1) / 2N)) / N."""
    n = y.shape[-2]
    rows = []
    for t in range(n):
        terms = [y[..., k, :] * math.cos(math.pi * k * (2 * t + 1) / (2 * n)) for k in range(1, n)]
        rows.append((y[..., 0, :] / 2 + sum(terms)) / n)
    return torch.stack(rows, dim=-2)


@pytest.mark.parametrize("length", [1, 2, 9, 27])
def test_transforms(length):
    x = torch.randn(2, length, 5)
    torch.testing.assert_close(dct_matrix(length) @ x, dct(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(inverse_dct_matrix(length) @ x, idct(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(inverse_dct_matrix(length) @ (dct_matrix(length) @ x), x, rtol=1e-4, atol=1e-5)


def test_few_coefficients():
    assert torch.equal(dct_matrix(27, 4), dct_matrix(27)[:4])
    assert torch.equal(inverse_dct_matrix(27, 4), inverse_dct_matrix(27)[:, :4])
    smooth = dct_matrix(27)[1][:, None]  # a pure frequency needs its own coefficient only
    torch.testing.assert_close(inverse_dct_matrix(27, 2) @ (dct_matrix(27, 2) @ smooth), smooth, rtol=1e-4, atol=1e-5)


def test_transforms_are_not_in_the_state_dict_and_follow_the_dtype():
    model = backbones.create("poseformerv2-27-3-3", depth=1).double()
    assert not any("dct" in key for key in model.state_dict())
    assert model.dct.dtype == model.blocks[0].idct.dtype == torch.float64


@pytest.mark.parametrize(("coefficients", "frames_kept", "split"), [(3, 1, 2), (3, 3, 3), (2, 3, 2)])
def test_mixed_block_splits_its_tokens_in_the_middle(coefficients, frames_kept, split):
    """Whatever they stand for: of 27-1-3's four tokens, three coefficients and a frame, two go either way."""
    model = filled("poseformerv2-27-3-3", depth=1, coefficients=coefficients, frames_kept=frames_kept).double()
    block = model.blocks[0]
    h = torch.randn(2, coefficients + frames_kept, 544, dtype=torch.float64)
    with torch.no_grad():
        got = block(h)
        h = h + block.attn(block.norm1(h))
        u, v = h[:, :split], h[:, split:]
        u = u + block.mlp1(block.norm2(u))
        v = v + idct(block.mlp2(dct(block.norm3(v))))
    torch.testing.assert_close(got, torch.cat((u, v), dim=1), rtol=1e-4, atol=1e-5)


def test_frames_and_coefficients_that_it_looks_at():
    """The tokens in front of the first block: coefficients of all frames first, then the frames in the middle."""
    model = filled("poseformerv2-27-3-3", depth=1).double()
    x = clip("poseformerv2-27-3-3", channels=2).double()
    tokens = []
    model.blocks[0].register_forward_pre_hook(lambda module, inputs: tokens.append(inputs[0]))
    with torch.no_grad():
        model(x)
        spectrum = dct(x.reshape(2, 27, 34))[:, :3]
        spectrum = spectrum @ model.Freq_embedding.weight.T + model.Freq_embedding.bias + model.Temporal_pos_embed_
        near = model.frame_vectors(model.Joint_embedding(x[:, 12:15])) + model.Temporal_pos_embed
    torch.testing.assert_close(tokens[0], torch.cat((spectrum, near), dim=1), rtol=1e-4, atol=1e-5)


def test_biases_of_both_means_matter():
    """Unlike PoseFormer's: each shifts one half of what the head normalises."""
    model, x = filled("poseformerv2-27-1-3", depth=1), clip("poseformerv2-27-1-3")
    with torch.no_grad():
        before = model(x)
        model.weighted_mean_.bias += 1
        assert float((model(x) - before).abs().max()) > 1e-3
        model.weighted_mean.bias += 1
        torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-4)


def test_stochastic_depth():
    model = backbones.create("poseformerv2-27-3-3").train()
    for blocks in (model.Spatial_blocks, model.blocks):
        assert [b.drop_path.rate for b in blocks] == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])
    block = filled("poseformerv2-27-3-3", drop_path_rate=0.5, depth=2).blocks[1].train()
    h = torch.randn(64, 6, 544)
    with torch.no_grad():
        for weight in (block.attn.proj.weight, block.attn.proj.bias):
            weight.zero_()  # what is left are the two halves' branches
        changed = (block(h) - h).abs().amax(-1) > 1e-6
    assert torch.equal(changed[:, :3], changed[:, :1].expand(-1, 3))
    assert torch.equal(changed[:, 3:], changed[:, 3:4].expand(-1, 3))
    assert {tuple(row) for row in changed[:, 2:4].tolist()} == {(a, b) for a in (True, False) for b in (True, False)}


def test_fresh_weights():
    torch.manual_seed(0)
    model = backbones.create("poseformerv2-81-9-9")
    assert not any(p.any() for p in (model.Spatial_pos_embed, model.Temporal_pos_embed, model.Temporal_pos_embed_))
    for layer, fan_in in ((model.Freq_embedding, 34), (model.blocks[0].mlp2.fc2, 1088), (model.head[1], 1088)):
        assert 0.9 < float(layer.weight.detach().abs().max()) * fan_in**0.5 <= 1


def test_coefficients_are_as_many_as_frames_by_default():
    assert backbones.create("poseformerv2", frames=81, frames_kept=9, coefficients=None).parts == (9, 9)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"frames_kept": 4}, "frames_kept is 4, expected an odd number up to frames = 243"),
        ({"frames": 9}, "frames_kept is 27, expected an odd number up to frames = 9"),
        ({"coefficients": 0}, "coefficients is 0, expected a positive integer"),
        ({"coefficients": 300}, "coefficients is 300, expected at most frames = 243"),
        ({"embed_dim_ratio": 4}, "embed_dim_ratio is 4, expected a positive multiple of 8"),
        ({"drop_path_rate": -1}, "drop_path_rate is -1, expected a rate"),
    ],
)
def test_bad_arguments(override, message):
    with pytest.raises(ArgumentError, match=message):
        backbones.create("poseformerv2", **override)
