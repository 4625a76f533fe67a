"""KTPFormer: its topologies, its graph convolution on both axes, batch statistics, rates, initialisation."""

import math

import pytest
import torch
from backbone_cases import filled

from structloss import backbones, skeletons
from structloss.backbones.blocks import graph_convolution
from structloss.errors import ArgumentError, UnknownNameError

SMALL = {"frames": 6, "embed_dim": 16, "num_heads": 2, "depth": 1}


def small(**overrides):
    torch.manual_seed(0)
    return backbones.create("ktpformer-27", **{**SMALL, **overrides})


def test_topologies():
    model = small()
    skeleton = model.kpattention.prior.gconv.topology
    row = torch.zeros(17)
    row[[1, 4, 7]] = 1 / 3
    row[0] = 1
    torch.testing.assert_close(skeleton[0], row)
    assert skeleton[3].nonzero().flatten().tolist() == [2, 3] and skeleton[3, 2] == 1
    assert (skeleton.diagonal() == 1).all() and torch.allclose(skeleton.sum(1), torch.tensor(2.0))
    chain = model.tpattention.prior.gconv1.gconv.topology
    want = torch.eye(6) + 0.5 * (torch.diag(torch.ones(5), 1) + torch.diag(torch.ones(5), -1))
    want[0, 1] = want[5, 4] = 1
    assert torch.equal(chain, want)
    assert not [key for key in model.state_dict() if "topology" in key]
    assert model.to(torch.float64).kpattention.prior.gconv.topology.dtype == torch.float64


def test_topology_follows_the_skeleton():
    skeleton = skeletons.get("mpi_inf_3dhp")
    topology = small(skeleton="mpi_inf_3dhp").kpattention.prior.gconv.topology
    edges = {frozenset(edge) for edge in (topology - torch.eye(17)).nonzero().tolist()}
    assert edges == {frozenset(bone) for bone in skeleton.tree_bones}


@pytest.mark.parametrize("over", ["tokens", "frames"])
def test_graph_convolution_with_modulation_on_both_axes(over):
    """diag(B)·(M ∘ (X·W₀)) + (B − diag(B))·(M ∘ (X·W₁)) + b, node by node."""
    torch.manual_seed(1)
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    nodes, axis = (5, 2) if over == "tokens" else (4, 1)
    weight, adjacency = torch.randn(2, 3, 6).double(), torch.randn(nodes, nodes).double()
    bias, modulation = torch.randn(6).double(), torch.randn(nodes, 6).double()
    xs = x.unbind(axis)
    rows = []
    for i in range(nodes):
        row = adjacency[i, i] * modulation[i] * (xs[i] @ weight[0]) + bias
        for j in set(range(nodes)) - {i}:
            row = row + adjacency[i, j] * modulation[j] * (xs[j] @ weight[1])
        rows.append(row)
    got = graph_convolution(x, weight, adjacency, bias, modulation, over)
    torch.testing.assert_close(got, torch.stack(rows, axis))


def test_learned_correction_is_made_symmetric():
    model = small().double()
    graph, x = model.kpattention.prior.gconv, torch.randn(1, 6, 17, 2).double()
    with torch.no_grad():
        graph.adj2.normal_()
        mixed = graph.topology + graph.adj2
        want = graph_convolution(x, graph.W, (mixed + mixed.T) / 2, graph.bias, graph.M)
        torch.testing.assert_close(graph(x), want)


def test_batch_statistics_are_of_all_clips_frames_and_joints():
    model = small().double().train()
    x = torch.randn(3, 6, 17, 2).double()
    layer, seen = model.kpattention.prior, []
    layer.gconv.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    model(x)
    h = seen[0].reshape(-1, 16)
    assert len(h) == 3 * 6 * 17
    torch.testing.assert_close(layer.bn.running_mean, 0.1 * h.mean(0))
    torch.testing.assert_close(layer.bn.running_var, 0.9 + 0.1 * h.var(0))
    for graph in (model.tpattention.prior.gconv1, model.tpattention.prior.gconv2):
        assert int(graph.bn.num_batches_tracked) == 1 and graph.bn.running_mean.any()


def test_trajectory_prior_is_residual():
    model = small().eval()
    with torch.no_grad():
        x = torch.randn(2, 6, 17, 16)
        prior = model.tpattention.prior
        torch.testing.assert_close(prior(x) - x, prior.gconv2(prior.gconv1(x)))
        # three frames meet in a convolution, five in two of them
        moved = x.clone()
        moved[:, 0] += 1
        changed = (prior(moved) - prior(x)).abs().amax((0, 2, 3)) > 1e-4
    assert changed.tolist() == [True, True, True, False, False, False]


def test_first_norm_of_a_prior_block_has_another_eps():
    model = small()
    for block in (model.kpattention, model.tpattention):
        assert block.norm1.eps == 1e-5 and block.norm2.eps == 1e-6
    assert model.Spatial_norm.eps == model.Temporal_norm.eps == model.STEblocks[0].norm1.eps == 1e-6


def test_rates_start_at_the_prior_blocks():
    model = backbones.create("ktpformer-27", embed_dim=16)
    want = torch.linspace(0, 0.1, 8).tolist()
    for prior, blocks in ((model.kpattention, model.STEblocks), (model.tpattention, model.TTEblocks)):
        assert [block.drop_path.rate for block in (prior, *blocks)] == pytest.approx(want)
    assert model.STEblocks[0].drop_path.shared == (-2, -1) and model.TTEblocks[0].drop_path.shared == (1, -1)


def test_initial_weights():
    model = small(embed_dim=64)
    for graph, c_in in ((model.kpattention.prior, 2), (model.tpattention.prior.gconv2, 64)):
        bound = 1.414 * math.sqrt(6 / (c_in * 64 + 2 * 64))
        weight = graph.gconv.W.detach()
        assert 0.9 * bound < float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.1)
        assert (graph.gconv.M == 1).all() and torch.equal(graph.gconv.adj2, torch.full_like(graph.gconv.adj2, 1e-6))
        assert 0 < float(graph.gconv.bias.detach().abs().max()) <= 1 / 8
    assert not model.kpattention.position.any() and not model.tpattention.position.any()


def test_the_input_reaches_the_output():
    """The golden weights are rescaled for this: a network that ignored its input would pass no figure by chance."""
    model = filled("ktpformer-27", depth=1)
    x = torch.randn(1, 27, 17, 2)
    with torch.no_grad():
        assert float((model(x) - model(-x)).abs().max()) > 0.05


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ({"frames": 0}, ArgumentError, "frames is 0, expected a positive integer"),
        ({"depth": 0}, ArgumentError, "depth is 0, expected a positive integer"),
        ({"embed_dim": 18, "num_heads": 4}, ArgumentError, "embed_dim is 18, expected a positive multiple of 4"),
        ({"mlp_ratio": 0}, ArgumentError, "mlp_ratio is 0, expected a number"),
        ({"drop_path_rate": -1}, ArgumentError, "drop_path_rate is -1, expected a rate"),
        ({"skeleton": "h36n"}, UnknownNameError, "unknown skeleton 'h36n': did you mean .*h36m"),
    ],
)
def test_bad_arguments(override, error, message):
    with pytest.raises(error, match=message):
        small(**override)
