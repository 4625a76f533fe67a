"""SemGCN: adjacency, the non-local block, joints, initialisation."""

import math

import pytest
import torch
from backbone_cases import clip, filled

from structloss import backbones, skeletons
from structloss.backbones.official import to_official
from structloss.backbones.semgcn import _PAIRS, _PARENTS
from structloss.errors import ArgumentError


def test_joints_are_those_of_h36m_without_neck():
    """The parents follow from the 17-joint tree: leave joint 9 out, and its child hangs on its parent."""
    h36m = skeletons.get("h36m").parents
    assert h36m[10] == 9 and h36m[9] == 8
    parents = [8 if p == 9 else p for j, p in enumerate(h36m) if j != 9]
    assert tuple(p - (p > 9) for p in parents) == _PARENTS
    assert sorted(j for pair in _PAIRS for j in pair) == list(range(16))


def test_adjacency_is_a_softmax_over_links_in_row_major_order():
    conv = filled("semgcn-base").levels[0].first.conv
    with torch.no_grad():
        got, scores = conv.adjacency(), conv.scores[0].tolist()
    taken = 0
    for i in range(16):
        links = [j for j in range(16) if i == j or _PARENTS[i] == j or _PARENTS[j] == i]
        row = torch.zeros(16)
        row[links] = torch.tensor(scores[taken : taken + len(links)]).softmax(0)
        taken += len(links)
        torch.testing.assert_close(got[i], row)
    assert taken == len(scores) == 46


def test_non_local_block_is_the_published_one():
    """θ, φ and g as convolutions, every pair of θ and φ concatenated, as the paper has it."""
    block = filled("semgcn-nonlocal").levels[0].non_local.double()
    x = clip("semgcn-nonlocal", batch=5, frames=1)[:, 0, :16, :1].double() * torch.randn(128).double()
    w = {name: value.detach() for name, value in block.state_dict().items()}
    theta = x @ w["theta.weight"].T + w["theta.bias"]
    phi, g = (x @ w["phi_and_value.weight"].T + w["phi_and_value.bias"]).chunk(2, dim=-1)
    pooled = [torch.stack([t[:, list(pair)].amax(1) for pair in _PAIRS], dim=1) for t in (phi, g)]
    y = torch.zeros(5, 16, 64).double()
    for i in range(16):
        for n in range(8):
            score = torch.cat((theta[:, i], pooled[0][:, n]), dim=-1) @ w["score.weight"][0]
            y[:, i] += torch.relu(score)[:, None] / 8 * pooled[1][:, n]
    z = y @ w["out.weight"].T + w["out.bias"]
    z = (z - w["norm.running_mean"]) / torch.sqrt(w["norm.running_var"] + 1e-5) * w["norm.weight"] + w["norm.bias"]
    with torch.no_grad():
        got = block(x)
    assert y.any()
    torch.testing.assert_close(got, x + z)


@pytest.mark.parametrize("name", ["semgcn-base", "semgcn-nonlocal"])
def test_seventeen_joints_lose_the_neck(name):
    model = filled(name, depth=1)
    x = clip(name)
    sixteen = x[:, :, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16]]
    moved = x.clone()
    moved[:, :, 9] += 1
    with torch.no_grad():
        out = model(x)
        assert out.shape == (2, 9, 16, 3)
        assert torch.equal(model(moved), out) and torch.equal(model(sixteen), out)
        frame = model(x[:, 4:5])
    torch.testing.assert_close(frame, out[:, 4:5])


def test_supervise_takes_targets_with_and_without_neck():
    model = filled("semgcn-base", depth=1)
    x = clip("semgcn-base")
    target = torch.arange(17.0).view(1, 1, 17, 1).expand(2, 9, 17, 3)
    (pair,) = model.supervise(x, target, target[..., 0])
    joints = [j for j in range(17) if j != 9]
    assert pair.target[0, 0, :, 0].tolist() == pair.weight[0, 0].tolist() == joints
    (pair,) = model.supervise(x, target[:, :, :16])
    assert pair.target.shape == (2, 9, 16, 3) and pair.weight is None


def test_batch_statistics_are_over_frames_and_joints():
    model = filled("semgcn-base", depth=1).train()
    x = clip("semgcn-base")
    norm = model.embed.norm
    norm.reset_running_stats()
    with torch.no_grad():
        mean = model.embed.conv(x[:, :, [j for j in range(17) if j != 9], :2]).mean(dim=(0, 1, 2))
        model(x)
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)


def test_initialisation():
    torch.manual_seed(0)
    model = backbones.create("semgcn-nonlocal")
    published = to_official(model)
    for key, (c_in, c_out) in {
        "gconv_input.0.gconv.W": (2, 128),
        "gconv_layers.2.gconv2.gconv.W": (128, 128),
        "gconv_output.W": (128, 3),
    }.items():
        bound = 1.414 * math.sqrt(6 / (c_in * c_out + 2 * c_out))
        largest = float(published[key].detach().abs().max())
        assert 0.95 * bound < largest <= bound, key
        assert float(published[key.replace("W", "bias")].detach().abs().max()) <= 1 / math.sqrt(c_out)
    assert all((value == 1).all() for key, value in published.items() if key.endswith(".e"))
    for part, fan_in in {"g.0": 128, "theta": 128, "phi.0": 128, "W.0": 64}.items():
        weight = published[f"gconv_layers.3.nonlocal.{part}.weight"].detach()
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
        assert not published[f"gconv_layers.3.nonlocal.{part}.bias"].any()
    # Every non-local block starts as the identity.
    h = torch.randn(3, 4, 16, 128)
    for module in (model.embed_non_local, *(level.non_local for level in model.levels)):
        assert torch.equal(module(h), h)


def test_published_models_have_no_dropout():
    torch.manual_seed(0)
    for name in ("semgcn-base", "semgcn-nonlocal"):
        model = backbones.create(name, depth=1)
        x = clip(name)
        assert torch.equal(model(x), model(x))
        model = backbones.create(name, depth=1, dropout=0.5)
        assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"dim_feat": 65}, "dim_feat is 65, expected a positive multiple of 2"),
        ({"depth": 0}, "depth is 0, expected a positive integer"),
        ({"dropout": -0.1}, "dropout is -0.1, expected a rate"),
    ],
)
def test_bad_arguments(override, message):
    with pytest.raises(ArgumentError, match=message):
        backbones.create("semgcn-base", **override)
