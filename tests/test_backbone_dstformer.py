"""DSTformer: its representation, its fusion of two streams, its initialisation and rates."""

import torch
from backbone_cases import clip, filled

from structloss import backbones
from structloss.backbones.blocks import fuse


def test_representation_feeds_the_head():
    model = filled("repose-tiny")
    x = clip("repose-tiny")
    with torch.no_grad():
        r = model.represent(x)
        assert r.shape == (2, 9, 17, 64) and float(r.abs().max()) <= 1
        offset = model(x)
        offset[..., :2] -= x[..., :2]  # repose-tiny predicts the correction of the input's position
        torch.testing.assert_close(model.head(r), offset)


def test_fusion_is_the_softmax_of_two_scores():
    model = filled("repose-tiny").double()
    fusion = model.ts_attn[0]
    u, v = torch.randn(2, 2, 3, 17, 64, dtype=torch.float64)
    scores = fusion(torch.cat((u, v), -1)).softmax(-1)
    torch.testing.assert_close(fuse(u, v, fusion), scores[..., :1] * u + scores[..., 1:] * v)


def test_fresh_model_averages_its_streams():
    model = backbones.create("repose-tiny")
    u, v = torch.randn(2, 1, 3, 17, 64)
    torch.testing.assert_close(fuse(u, v, model.ts_attn[0]), (u + v) / 2)
    weights = model.blocks_st[0].mlp_s.fc1.weight.detach()
    assert 0.018 < float(weights.std()) < 0.022
    assert not model.joints_embed.bias.any()


def test_dropout_rates_act_in_training_only():
    model = filled("repose-tiny", drop_rate=0.2, attn_drop_rate=0.2, drop_path_rate=0.5)
    x = clip("repose-tiny")
    with torch.no_grad():
        torch.testing.assert_close(model(x), filled("repose-tiny")(x))
        model.train()
        assert not torch.equal(model(x), model(x))
