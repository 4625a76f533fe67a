"""MotionAGFormer: its graphs, batch normalisation over nodes, the shell of its blocks, initialisation."""

import pytest
import torch
from backbone_cases import clip, filled

from structloss import backbones
from structloss.errors import ArgumentError

READS = "1,7 0,2 1,3 2 0,5 4,6 5 0,8 7,9 8,10 9 8,12 11,13 12 8,15 14,16 15"


@pytest.fixture(scope="module")
def layer():
    return filled("motionagformer-xsmall", depth=1).double().layers[0]


def tokens(batch=2, frames=27):
    torch.manual_seed(0)
    return torch.randn(batch, frames, 17, 64, dtype=torch.float64)


def convolution(mixer, x, adjacency):
    """ReLU(x + BN(Ā·V(x) + U(x))) of one sample `[n, C]`, in evaluation mode."""
    n = len(x)
    degree = adjacency.sum(1)
    normalised = torch.stack([adjacency[i] / (degree[i] * degree).sqrt() for i in range(n)])
    (u, v), (bu, bv) = mixer.uv.weight.chunk(2), mixer.uv.bias.chunk(2)
    y = normalised @ (x @ v.T + bv) + x @ u.T + bu
    bn = mixer.batch_norm
    y = (y - bn.running_mean[:, None]) / (bn.running_var[:, None] + 1e-5).sqrt()
    return torch.relu(x + y * bn.weight[:, None] + bn.bias[:, None])


def similarity_graph(x, k=2):
    """A[i, j] = 1 where x_i·x_j is at least the k-th largest product of row i."""
    products = (x.detach() @ x.detach().T).tolist()
    return torch.tensor([[float(p >= sorted(row)[-k]) for p in row] for row in products]).to(x.dtype)


def test_graph_over_joints(layer):
    adjacency = torch.zeros(17, 17, dtype=torch.float64)
    for joint, read in enumerate(READS.split()):
        adjacency[joint, [int(j) for j in read.split(",")]] = 1
    assert not torch.equal(adjacency, adjacency.T)
    x = tokens(frames=3)
    with torch.no_grad():
        got = layer.graph_spatial.mixer(x)
        for b, t in ((0, 0), (1, 2)):
            torch.testing.assert_close(got[b, t], convolution(layer.graph_spatial.mixer, x[b, t], adjacency))


def test_graph_over_frames(layer):
    x = tokens()
    x[1, :, 4] = x[1, :, 4] * 0.1 + torch.linspace(1, 3, 27, dtype=torch.float64)[:, None]  # most read from the last
    with torch.no_grad():
        got = layer.graph_temporal.mixer(x)
        for b, j in ((0, 0), (1, 4), (1, 16)):
            adjacency = similarity_graph(x[b, :, j])
            assert (adjacency.sum(1) == 2).all()
            torch.testing.assert_close(got[b, :, j], convolution(layer.graph_temporal.mixer, x[b, :, j], adjacency))
    adjacency = similarity_graph(x[1, :, 4])
    assert not torch.equal(adjacency, adjacency.T)


def test_frames_that_tie_are_all_neighbours(layer):
    x = tokens()
    x.mul_(8).round_()  # whole numbers: products are exact, whatever their order of summation
    x[0, 20:] = x[0, 20:21]  # the last frame repeated
    adjacency = similarity_graph(x[0, :, 3])
    assert (adjacency[20:].sum(1) == 7).all()
    with torch.no_grad():
        got = layer.graph_temporal.mixer(x)[0, :, 3]
        torch.testing.assert_close(got, convolution(layer.graph_temporal.mixer, x[0, :, 3], adjacency))


def test_neighbours_are_chosen_in_full_precision_under_autocast():
    """bfloat16 would round the products of similar frames to ties, and join a frame to dozens."""
    mixer = filled("motionagformer-xsmall", depth=1).layers[0].graph_temporal.mixer
    torch.manual_seed(0)
    x = torch.randn(1, 64) + 0.01 * torch.randn(27, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        sums = mixer.aggregate(x[None], torch.ones(1, 27, 64))[0, :, 0]  # row sums of the normalised matrix
    adjacency = similarity_graph(x.double()).float()
    degree = adjacency.sum(1)
    want = (adjacency / (degree[:, None] * degree).sqrt()).sum(1)
    torch.testing.assert_close(sums.float(), want, rtol=1e-2, atol=0)


def test_no_gradient_flows_through_the_choice(layer):
    x = tokens(1).requires_grad_()
    graph = torch.stack([similarity_graph(x[0, :, j]) for j in range(17)])
    mixer = layer.graph_temporal.mixer
    nodes = torch.stack([convolution(mixer, x[0, :, j], graph[j]) for j in range(17)], dim=1)[None]
    weight = torch.randn_like(nodes)
    (want,) = torch.autograd.grad((nodes * weight).sum(), x)
    (got,) = torch.autograd.grad((mixer(x) * weight).sum(), x)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("stream", "axis"), [("graph_spatial", 2), ("graph_temporal", 1)])
def test_batch_normalisation_is_one_of_nodes(stream, axis):
    """Statistics of a node over samples and channels, and momentum 0.1."""
    mixer = getattr(filled("motionagformer-xsmall", depth=1).double().layers[0], stream).mixer.train()
    before, seen = mixer.batch_norm.running_mean.clone(), []
    mixer.batch_norm.register_forward_hook(lambda module, inputs, out: seen.append((inputs[0], out)))
    with torch.no_grad():
        mixer(tokens())
    (given, out), nodes = seen[0], (27 if axis == 1 else 17)
    assert given.shape == (2 * 17 * 27 // nodes, nodes, 64)
    mean = given.mean((0, 2))
    torch.testing.assert_close(mixer.batch_norm.running_mean, 0.9 * before + 0.1 * mean)
    want = (given - mean[:, None]) / (given.var((0, 2), unbiased=False)[:, None] + 1e-5).sqrt()
    torch.testing.assert_close(out, want * mixer.batch_norm.weight[:, None] + mixer.batch_norm.bias[:, None])


def test_layer_is_two_streams_fused(layer):
    """Space then time in both; every block scales its branches by channel."""
    h = tokens(1)
    with torch.no_grad():
        streams = []
        for kind in ("att", "graph"):
            u = h
            for axis in ("spatial", "temporal"):
                block = getattr(layer, f"{kind}_{axis}")
                u = u + block.layer_scale_1 * block.mixer(block.norm1(u))
                u = u + block.layer_scale_2 * block.mlp(block.norm2(u))
            streams.append(u)
        share = layer.fusion(torch.cat(streams, dim=-1)).softmax(-1)
        torch.testing.assert_close(layer(h), share[..., :1] * streams[0] + share[..., 1:] * streams[1])


def test_attention_over_joints_and_over_frames(layer):
    """A change of one token reaches its frame through the one and its joint's trajectory through the other."""
    x = tokens(1)
    other = x.clone()
    other[0, 5, 3] += 1
    with torch.no_grad():
        for mixer, reached in ((layer.att_spatial.mixer, (5, slice(None))), (layer.att_temporal.mixer, (..., 3))):
            changed = (mixer(x) - mixer(other))[0].abs().amax(-1) > 1e-9
            want = torch.zeros(27, 17, dtype=torch.bool)
            want[reached] = True
            assert torch.equal(changed, want)


def test_fresh_weights():
    torch.manual_seed(0)
    model = backbones.create("motionagformer-base", depth=2)
    layer = model.layers[1]
    assert not model.pos_embed.any()
    for stream in (layer.graph_spatial, layer.graph_temporal):
        assert float(stream.mixer.uv.weight.detach().std()) == pytest.approx((2 / 128) ** 0.5, rel=0.03)
        assert 0.9 < float(stream.mixer.uv.bias.detach().abs().max()) * 128**0.5 <= 1
        assert (stream.layer_scale_1 == 1e-5).all() and (stream.layer_scale_2 == 1e-5).all()
    assert not layer.fusion.weight.any() and (layer.fusion.bias == 0.5).all()
    assert layer.att_spatial.mixer.qkv.bias is None and layer.att_spatial.mixer.proj.bias is not None
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-5}
    assert not any("adjacency" in key for key in model.state_dict())


def test_3dhp_reads_the_other_data_sets_graph():
    names = ("motionagformer-base", "motionagformer-base-3dhp")
    first, second = (backbones.create(name, depth=1).layers[0].graph_spatial.mixer for name in names)
    assert torch.equal(first.adjacency, second.adjacency)
    assert backbones.info(names[1]).skeleton == "mpi_inf_3dhp"


def test_more_neighbours():
    x = clip("motionagformer-xsmall", frames=27)
    with torch.no_grad():
        two, three = (filled("motionagformer-xsmall", depth=1, neighbours=k)(x) for k in (2, 3))
        torch.testing.assert_close(two, filled("motionagformer-xsmall", depth=1)(x))
        assert not torch.allclose(two, three)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"frames": 0}, "frames is 0, expected a positive integer"),
        ({"dim_feat": 60}, "dim_feat is 60, expected a positive multiple of 8"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0, expected a number with"),
        ({"neighbours": 300}, "neighbours is 300, expected at most frames = 243"),
    ],
)
def test_bad_arguments(override, message):
    with pytest.raises(ArgumentError, match=message):
        backbones.create("motionagformer", **override)
