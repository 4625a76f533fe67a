"""Loss-nets: published energies, an independent forward pass in numpy, invariances, dtypes, graphs and files."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fill import fill_array, fill_input, fill_state_dict
from safetensors.torch import save_file
from scipy.special import erf

from structloss import skeletons
from structloss.errors import ArgumentError, CheckpointError, DtypeError, MissingFileError, UnknownNameError
from structloss.learned import VARIANTS, LossNet
from structloss.learned.graph import EDGE_TYPES, AttentionBias, adjacency, hop_distance

GOLDEN = np.load(Path(__file__).parent / "golden" / "learned_loss.npz")
SKELETONS = ("h36m", "mpi_inf_3dhp", "coco", "h3wb", "mpii")
SMALL = {"dim": 16, "heads": 4, "depth": 2}
# Human3.6M's tree by hand: the parent of every joint
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
MIRRORED = {(4, 1), (5, 2), (6, 3), (11, 14), (12, 15), (13, 16)}


def scene(*lead, skeleton="h36m", channels=2, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    joints = skeletons.get(skeleton).num_joints
    x = torch.rand(*lead, joints, channels, generator=g, dtype=torch.float64) - 0.5
    y = 0.3 * torch.randn(*lead, joints, 3, generator=g, dtype=torch.float64)
    return x.to(dtype), y.to(dtype)


def shaken(net, seed=1):
    """Parameters away from their start, where some are zero and would hide what they do."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype)
    return net


def small(variant="graph-small", skeleton="h36m", **options):
    wanted = options if variant.startswith("linear") else {**SMALL, **options}
    return shaken(LossNet(skeleton, variant, **wanted)).eval()


# The published networks


def published(variant):
    net = LossNet("h36m", variant).double().eval()
    with torch.no_grad():
        if variant == "linear":
            fill_state_dict(net.body.state_dict())
            return net
        for key, p in net.body.named_parameters():
            p.copy_(torch.from_numpy(fill_array(key, tuple(p.shape))))
        bias = net.body.bias_builder
        for p, value in ((bias.gamma, 0.8), (bias.noedge_bias, -2.0), (bias.deg_scale, 0.2)):
            p.fill_(value)
    return net


@pytest.mark.parametrize(
    ("variant", "parameters"), [("graph4", 2_185_512), ("graph6", 2_451_752), ("linear", 4_297_729)]
)
def test_published_energies(variant, parameters):
    net = published(variant)
    assert sum(p.numel() for p in net.parameters()) == parameters
    x, pred, truth = (
        torch.from_numpy(fill_input(name, (4, 27, 17, c))).double()
        for name, c in (("lossnet-x", 2), ("loss-pred", 3), ("loss-gt", 3))
    )
    pred.requires_grad_()
    energy = net.body(torch.cat([x, pred], -1))  # the published classes don't move poses to their pelvis
    (gradient,) = torch.autograd.grad(energy.mean(), pred)
    with torch.no_grad():
        found = energy, gradient, net.body(torch.cat([x, truth], -1))
        for tensor, name in zip(found, ("energy", "grad", "energy_gt"), strict=True):
            expected = torch.from_numpy(GOLDEN[f"lossnet_{variant}_{name}"])
            torch.testing.assert_close(tensor, expected, rtol=1e-12, atol=1e-12)
        # Ours does, and is the same network otherwise.
        torch.testing.assert_close(net(x, pred), net.body(torch.cat([x, pred - pred[..., :1, :]], -1)))
    assert (net(x, pred) - energy).abs().max() > 1e-3


def test_linear_without_norm_has_the_published_size():
    assert sum(p.numel() for p in LossNet("h36m", "linear", batch_norm=False).parameters()) == 4_287_489


def test_state_keys_are_the_published_ones():
    bias = ["edge_type_weight", "noedge_bias", "deg_scale", "gamma", "vnode_to_node", "node_to_vnode", "vnode_self"]
    layers = ["in_proj", "ln_f", "head.0", "head.2"]
    for i in range(4):
        layers += [f"blocks.{i}.{name}" for name in ("ln1", "ln2", "mlp.0", "mlp.2", *(f"attn.{k}" for k in "qkvo"))]
    expected = {"cls", "joint_emb.weight", *(f"bias_builder.{name}" for name in (*bias, "adj", "deg", "dist"))}
    expected |= {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert set(LossNet("h36m", "graph4").body.state_dict()) == expected
    layers = [
        "input_proj",
        "input_bn",
        "head",
        *(f"blocks.{i}.{k}" for i in (0, 1) for k in ("fc1", "fc2", "bn1", "bn2")),
    ]
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    expected |= {
        f"{n}.{p}" for n in layers if "bn" in n for p in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert set(LossNet("h36m", "linear").body.state_dict()) == expected


# The graph


def hops(edges, joints):
    """Floyd-Warshall."""
    d = np.where(np.eye(joints, dtype=bool), 0, np.inf)
    for a, b in edges:
        d[a, b] = d[b, a] = 1
    for k in range(joints):
        d = np.minimum(d, d[:, k : k + 1] + d[k])
    return d


def test_published_hop_distances():
    found = hop_distance(skeletons.get("h36m"))
    assert found.dtype == torch.int64 and (found.numpy() == GOLDEN["hop_distance"]).all()


@pytest.mark.parametrize("name", SKELETONS)
def test_hop_distances_are_shortest_paths(name):
    skeleton = skeletons.get(name)
    expected = hops(skeleton.graph_edges, skeleton.num_joints)
    apart = np.isinf(expected)
    assert apart.any() == (name == "h3wb")  # its jaw, brows, eyes, lips and base of the nose are islands
    expected[apart] = expected[~apart].max() + 1
    assert (hop_distance(skeleton).numpy() == expected).all()
    links = adjacency(skeleton)
    assert torch.equal(links, links.T) and links.sum() == 2 * len(skeleton.graph_edges) and not links.diagonal().any()


def test_h3wb_graph_has_islands_beyond_the_longest_path():
    h3wb = skeletons.get("h3wb")
    assert int(adjacency(h3wb).sum()) == 2 * 130
    found = hop_distance(h3wb)
    # From toe to fingertip: ankle, knee, hip, shoulder, elbow, wrist, hand root and four joints of a finger. The jaw's
    # ends are further apart.
    assert found[17, 95] == 12 - 1 and found[23, 39] == 16 == found[found < 17].max()
    assert found[23, 0] == found[59, 71] == found[30, 17] == 17 == found.max()
    assert found[59, 64] == 1 and found[59, 62] == 3  # eyes are closed


@pytest.mark.parametrize("name", SKELETONS)
def test_edge_types_are_one_hot(name):
    skeleton = skeletons.get(name)
    types = dict(zip(EDGE_TYPES, AttentionBias(skeleton, 2, edge_types=True).types.bool().numpy(), strict=True))
    joints = skeleton.num_joints
    for i in range(joints):
        for j in range(joints):
            linked = (i, j) in skeleton.graph_edges or (j, i) in skeleton.graph_edges
            mirrored = i != j and skeleton.mirror[i] == j and not linked
            assert types["link"][i, j] == linked
            assert types["mirror"][i, j] == mirrored
            assert types["other"][i, j] == (i != j and not linked and not mirrored)
    if name in ("coco", "h3wb"):  # both hips: a bone and a mirrored pair, so a bone
        assert types["link"][11, 12] and not types["mirror"][11, 12]


# An independent forward pass


def numpy_bias(b, *, self_neighbour):
    """B [H, J + 1, J + 1], joint by joint, of a bias with edge types and a table for each head."""
    links = {frozenset((c, p)) for c, p in enumerate(PARENTS) if p >= 0}
    distance = hops([tuple(link) for link in links], 17)
    degree = [sum(j in link for link in links) for j in range(17)]
    heads = b["hop_table"].shape[0]
    out = np.zeros((heads, 18, 18))
    for h in range(heads):
        out[h, 0, 0] = b["vnode_self"][0]
        for i in range(17):
            out[h, 0, i + 1], out[h, i + 1, 0] = b["vnode_to_node"][0], b["node_to_vnode"][0]
            for j in range(17):
                hop = int(distance[i, j])
                value = -b["gamma"] * hop + b["hop_table"][h, hop]
                if hop != 1 and not (i == j and self_neighbour):
                    value += b["noedge_bias"]
                value += b["deg_scale"] * (degree[i] + degree[j]) / (max(degree) + 1e-6)
                if hop == 1:
                    value += b["edge_type_weight"][0]
                elif (i, j) in MIRRORED or (j, i) in MIRRORED:
                    value += b["edge_type_weight"][1]
                elif i != j:
                    value += b["edge_type_weight"][2]
                out[h, i + 1, j + 1] = value
    return out


def numpy_energy(net, x, y, *, heads, self_neighbour, readout, offsets, scale):
    """The energies [T] of one clip by section 2 of the method, in plain numpy: frame by frame."""
    w = {key: value.detach().double().numpy() for key, value in net.body.state_dict().items()}
    linear = lambda z, key: z @ w[f"{key}.weight"].T + w[f"{key}.bias"]  # noqa: E731
    gelu = lambda z: z * (1 + erf(z / 2**0.5)) / 2  # noqa: E731

    def norm(z, key):
        z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5)
        return z * w[f"{key}.weight"] + w[f"{key}.bias"]

    def block(z, key, bias=None):
        q, k, v = (linear(norm(z, f"{key}.ln1"), f"{key}.attn.{name}") for name in "qkv")
        width, out = z.shape[-1] // heads, np.empty_like(z)
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            scores = q[:, part] @ k[:, part].T / np.sqrt(width) + (0 if bias is None else bias[h])
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, part] = weights / weights.sum(-1, keepdims=True) @ v[:, part]
        z = z + linear(out, f"{key}.attn.o")
        return z + linear(gelu(linear(norm(z, f"{key}.ln2"), f"{key}.mlp.0")), f"{key}.mlp.2")

    bias = numpy_bias(
        {key.removeprefix("bias_builder."): value for key, value in w.items() if key.startswith("bias_builder.")},
        self_neighbour=self_neighbour,
    )
    tokens = []
    for planar, pose in zip(x, y, strict=True):
        planar, pose = planar * scale, (pose - pose[0]) * scale
        features = [planar]
        if offsets:
            parent = [max(p, 0) for p in PARENTS]
            flat, bone = planar - planar[parent], pose - pose[parent]
            features += [flat, bone, np.sqrt((bone**2).sum(-1, keepdims=True) + 1e-8)]
        h = linear(np.concatenate([*features, pose, w["joint_emb.weight"]], -1), "in_proj")
        z = np.concatenate([w["cls"][0], h])
        depth = 0
        while f"blocks.{depth}.ln1.weight" in w:
            z = block(z, f"blocks.{depth}", bias)
            depth += 1
        tokens.append(z[0] if readout == "cls" else z[1:].mean(0))
    z = np.stack(tokens)
    if "time_blocks.0.ln1.weight" in w:
        frames, dim = z.shape
        for t in range(frames):
            for c in range(dim):
                angle = t / 10000 ** ((c - c % 2) / dim)
                z[t, c] += np.cos(angle) if c % 2 else np.sin(angle)
        z = block(z, "time_blocks.0")
    return linear(gelu(linear(norm(z, "ln_f"), "head.0")), "head.2")[:, 0]


@pytest.mark.parametrize(
    ("readout", "self_neighbour", "offsets", "temporal", "scale"),
    [("mean", True, False, 0, 1.0), ("cls", False, True, 0, 5.0), ("mean", False, True, 1, 2.0)],
)
def test_energy_is_the_formula(readout, self_neighbour, offsets, temporal, scale):
    options = {"edge_types": True, "per_head_bias": True, "self_neighbour": self_neighbour, "readout": readout}
    net = LossNet(
        "h36m",
        "graph",
        dim=24,
        heads=3,
        depth=2,
        ratio=1.5,
        temporal_depth=temporal,
        offsets=offsets,
        scale=scale,
        **options,
    )
    net = shaken(net.double()).eval()
    with torch.no_grad():
        net.body.bias_builder.edge_type_weight.copy_(torch.tensor([0.3, -0.4, 0.2]))
    x, y = scene(5, dtype=torch.float64)
    expected = numpy_energy(
        net, x.numpy(), y.numpy(), heads=3, self_neighbour=self_neighbour, readout=readout, offsets=offsets, scale=scale
    )
    torch.testing.assert_close(net(x, y), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


def test_options_of_the_bias_start_as_the_plain_network():
    x, y = scene(2, 3)
    torch.manual_seed(3)
    plain = LossNet("h36m", "graph4", **SMALL).eval()
    for options in ({"edge_types": True}, {"per_head_bias": True}, {"edge_types": True, "per_head_bias": True}):
        net = LossNet("h36m", "graph4", **SMALL, **options).eval()
        fresh = {key: value for key, value in net.body.state_dict().items() if key not in plain.body.state_dict()}
        shared = (
            plain.body.state_dict()
            | fresh
            | {"bias_builder.edge_type_weight": torch.zeros(1 + 2 * ("edge_types" in options))}
        )
        net.body.load_state_dict(shared)
        torch.testing.assert_close(net(x, y), plain(x, y))
        assert (shaken(net)(x, y) - plain(x, y)).abs().max() > 1e-3
    neighbour = LossNet("h36m", "graph4", **SMALL, self_neighbour=True).eval()
    bias = neighbour.body.bias_builder
    with torch.no_grad():
        torch.testing.assert_close((bias() - plain.body.bias_builder())[1:, 1:], 2 * torch.eye(17))


def test_readouts_and_scale_differ():
    """One set of weights read off in different ways."""
    x, y = scene(4)
    nets = [small(), small(readout="mean"), small(scale=1.0), small(self_neighbour=True)]
    for net in nets[1:]:
        net.load_state_dict({**net.state_dict(), **{k: v for k, v in nets[0].state_dict().items() if "adj" not in k}})
    energies = torch.stack([net(x, y) for net in nets]).detach()
    assert (torch.cdist(energies, energies) + torch.eye(4)).min() > 1e-4


# What the energy depends on


@pytest.mark.parametrize("variant", ["graph-small", "graph4", "graph-temporal", "linear-small", "linear"])
@pytest.mark.parametrize("skeleton", ["h36m", "coco"])
def test_where_a_person_stands_says_nothing(variant, skeleton):
    net = small(variant, skeleton).double()
    x, y = scene(3, 4, skeleton=skeleton, dtype=torch.float64)
    moved = y + torch.randn(3, 4, 1, 3, dtype=torch.float64)
    torch.testing.assert_close(net(x, moved), net(x, y), rtol=1e-10, atol=1e-12)
    moved = y.clone()
    moved[..., 3, :] += 0.1
    assert (net(x, moved) - net(x, y)).abs().min() > 1e-6
    assert (net(x + 0.1, y) - net(x, y)).abs().min() > 1e-6  # where it is in the image does


@pytest.mark.parametrize("variant", ["graph-small", "linear-small"])
def test_unit_is_metres_per_unit(variant):
    net = small(variant).double()
    x, y = scene(2, 3, dtype=torch.float64)
    y += 1  # not at the pelvis
    torch.testing.assert_close(net(x, 1000 * y, unit=0.001), net(x, y))
    factor = torch.rand(2, 3, dtype=torch.float64) + 0.5
    torch.testing.assert_close(net(x, y / factor[..., None, None], unit=factor), net(x, y))
    torch.testing.assert_close(net(x, y, unit=torch.ones(2, 3)), net(x, y))
    assert (net(x, y, unit=factor) - net(x, y)).abs().min() > 1e-6


def test_confidence_is_dropped_unless_asked_for():
    x, y = scene(2, 3, channels=3)
    plain, reading = small(), small(confidence=True)
    torch.testing.assert_close(plain(x, y), plain(x[..., :2], y), rtol=0, atol=0)
    sure = torch.cat([x[..., :2], torch.ones(2, 3, 17, 1)], -1)
    torch.testing.assert_close(reading(x[..., :2], y), reading(sure, y), rtol=0, atol=0)
    assert (reading(x, y) - reading(sure, y)).abs().min() > 1e-5
    assert reading.body.in_proj.in_features == plain.body.in_proj.in_features + 1


def test_confidence_is_no_offset():
    """The third channel is no coordinate: a constant added to it changes offsets from parents nowhere."""
    net = LossNet("h36m", "graph-small", confidence=True, **SMALL)
    seen = []
    net.body.in_proj.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    x, y = scene(1, 2, channels=3)
    net(x, y), net(x + torch.tensor([0.0, 0.0, 1.0]), y)
    changed = (seen[1] - seen[0]).abs().amax((0, 1, 2)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [2]


@pytest.mark.parametrize("variant", ["graph-small", "linear-small", "graph-temporal"])
def test_only_the_temporal_variant_looks_at_neighbours(variant):
    net = small(variant)
    assert net.temporal == (variant == "graph-temporal")
    x, y = scene(2, 6)
    changed = y.clone()
    changed[0, 4] += torch.randn(17, 3)
    apart = (net(x, changed) - net(x, y)).abs().detach()
    assert apart[0, 4] > 1e-5 and apart[1].max() < 1e-6
    others = apart[0, [0, 1, 2, 3, 5]]
    assert others.min() > 1e-7 if net.temporal else others.max() < 1e-6
    if net.temporal:  # in order, too
        assert (net(x.flip(1), y.flip(1)).flip(1) - net(x, y)).abs().max() > 1e-5


def test_other_people_are_no_neighbours_in_any_leading_dimension():
    net = small("graph-temporal")
    x, y = scene(2, 3, 4)
    together = net(x, y)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(net(x[i, j], y[i, j]), together[i, j])


# Shapes, memory layouts, dtypes


@pytest.mark.parametrize("variant", ["graph-small", "linear-small", "graph-temporal", "linear"])
@pytest.mark.parametrize("lead", [(), (4,), (3, 4), (2, 3, 4), (2, 1, 3, 4), (0, 4), (3, 0), (0,)])
def test_leading_dimensions(variant, lead):
    net = small(variant)
    x, y = scene(*lead)
    y.requires_grad_()
    energy = net(x, y)
    assert energy.shape == lead and energy.dtype == torch.float32
    energy.sum().backward()
    assert y.grad.shape == y.shape and torch.isfinite(y.grad).all()
    if len(lead) == 3:
        torch.testing.assert_close(net(x.flatten(0, 1), y.flatten(0, 1)), energy.flatten(0, 1))


def test_single_frames_score_as_in_a_batch():
    net = small()
    x, y = scene(2, 3)
    torch.testing.assert_close(net(x[1, 2], y[1, 2]), net(x, y)[1, 2])


def test_memory_layout_does_not_matter():
    net = small()
    x, y = scene(3, 5)
    strided = torch.randn(17, 5, 6, 3).permute(2, 1, 0, 3)[::2].copy_(y)
    turned = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert not strided.is_contiguous() and not turned.is_contiguous()
    torch.testing.assert_close(net(turned, strided), net(x, y), rtol=0, atol=0)
    expanded = x[:1].expand(3, 5, 17, 2)
    torch.testing.assert_close(net(expanded, y), net(expanded.clone(), y), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", ["graph-small", "linear-small"])
def test_half_types_give_single_energies(variant, dtype):
    net = small(variant)
    x, y = scene(3, 5)
    want = net(x, y)
    near = {
        "rtol": 0,
        "atol": (0.02 if dtype == torch.float16 else 0.1) * float(want.detach().std() + want.detach().abs().mean()),
    }
    pose = y.clone().requires_grad_()
    with torch.autocast("cpu", dtype):
        energy = net(x, pose)
    assert energy.dtype == torch.float32 and not torch.equal(energy, want)
    torch.testing.assert_close(energy, want, **near)
    energy.mean().backward()
    assert pose.grad.dtype == torch.float32 and torch.isfinite(pose.grad).all()
    # Inputs alone, and the whole network.
    energy = net(x.to(dtype), y.to(dtype))
    assert energy.dtype == torch.float32
    torch.testing.assert_close(energy, want, **near)
    energy = copy.deepcopy(net).to(dtype)(x.to(dtype), y.to(dtype))
    assert energy.dtype == torch.float32
    torch.testing.assert_close(energy, want, **near)


def test_energies_have_the_weights_precision():
    x, y = scene(2, 3, dtype=torch.float64)
    y.requires_grad_()
    single, double = small(), small().double()
    assert single(x, y).dtype == torch.float32 and double(x.float(), y.float()).dtype == torch.float64
    assert torch.autograd.grad(single(x, y).sum(), y)[0].dtype == torch.float64


@pytest.mark.parametrize("variant", ["linear-small", "graph-temporal"])
def test_compiles_into_one_graph(variant):
    options = {"depth": 1, "temporal_depth": 1, "per_head_bias": True} if variant == "graph-temporal" else {}
    net = small(variant, **options)
    x, y = scene(2, 3)
    unit = torch.full((2, 3), 1.1)
    pose = y.clone().requires_grad_()
    energy = net(x, pose, unit)
    wanted = pose, *(p for p in net.parameters() if p.requires_grad)
    expected = torch.autograd.grad(energy.sum(), wanted)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")(x, pose, unit)
    torch.testing.assert_close(compiled, energy)
    for got, want in zip(torch.autograd.grad(compiled.sum(), wanted), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


# Gradients


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_learns(variant):
    options = {} if variant.startswith("linear") else {"dim": 32, "depth": 2}
    net = shaken(LossNet("h36m", variant, **options))
    x, y = scene(2, 3)
    net.train()(x, y).square().sum().backward()
    for name, p in net.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().max() > 0, name
    frozen = [name for name, p in net.named_parameters() if not p.requires_grad]
    assert frozen == (["body.bias_builder.edge_type_weight"] if variant in ("graph4", "graph6") else [])


@pytest.mark.parametrize("variant", ["graph-small", "linear-small", "graph-temporal"])
@pytest.mark.parametrize("offsets", [False, True])
def test_gradient_in_the_pose(variant, offsets):
    options = {"width": 24} if variant == "linear-small" else {"dim": 8, "heads": 2, "depth": 1}
    net = shaken(LossNet("mpii", variant, offsets=offsets, scale=1.0, **options).double()).eval()
    x, y = scene(1, 2, skeleton="mpii", dtype=torch.float64)
    unit = torch.tensor([[0.7, 1.3]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda pose: net(x, pose, unit), y.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("variant", ["graph-small", "linear-small"])
def test_offsets_at_the_root_and_of_bones_without_length(variant):
    """A norm has no gradient at 0: the root's own offset is 0 always, a collapsed pose has nothing else."""
    net = small(variant)
    assert net.offsets
    x, y = scene(2, 3)
    y[0] = 0
    y[1, 0, 13] = y[1, 0, 12]
    y.requires_grad_()
    net(x, y).sum().backward()
    assert torch.isfinite(y.grad).all() and y.grad[1].abs().min() > 0
    # All joints together carry no force: the energy does not see the position.
    torch.testing.assert_close(y.grad.sum(-2), torch.zeros(2, 3, 3), rtol=0, atol=1e-4 * float(y.grad.abs().max()))


@pytest.mark.parametrize("variant", ["graph", "graph-small", "linear-small", "graph-temporal"])
@pytest.mark.parametrize("skeleton", SKELETONS)
def test_all_skeletons(variant, skeleton):
    net = LossNet(skeleton, variant)
    x, y = scene(1, 2, skeleton=skeleton)
    y.requires_grad_()
    energy = net(x, y)
    (gradient,) = torch.autograd.grad(energy.sum(), y)
    assert energy.shape == (1, 2) and torch.isfinite(energy).all()
    assert torch.isfinite(gradient).all() and gradient.norm(dim=-1).min() > 0  # every joint is looked at
    assert repr(net).startswith(f"LossNet(\n  {skeleton!r}, {variant!r}")


# Files


@pytest.mark.parametrize(
    ("skeleton", "variant", "options"),
    [
        ("h36m", "graph4", {}),
        ("coco", "graph", {"dim": 16, "depth": 1, "per_head_bias": True, "readout": "mean", "confidence": True}),
        ("h36m", "graph-temporal", {"dim": 16, "offsets": False, "scale": 2.5, "self_neighbour": True}),
        ("mpii", "linear-small", {"width": 32, "batch_norm": True}),
        ("h36m", "graph-small", {"offsets": True, "scale": 3.0, "edge_types": False}),
    ],
)
def test_save_and_load(tmp_path, skeleton, variant, options):
    net = shaken(LossNet(skeleton, variant, **options)).eval()
    x, y = scene(2, 3, skeleton=skeleton, channels=3)
    path = net.save(tmp_path / "net.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    again = LossNet.load(str(path)).eval()
    assert again.description() == net.description() == json.loads(json.dumps(net.description()))
    assert again.skeleton == net.skeleton and again.confidence == net.confidence
    torch.testing.assert_close(again(x, y), net(x, y), rtol=0, atol=0)
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(copied(x, y), net(x, y), rtol=0, atol=0)
        shaken(copied)
        assert not torch.equal(copied(x, y), net(x, y))
    assert net.load_state_dict(again.state_dict())


def test_files_that_are_no_loss_net(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(MissingFileError, match=r"net\.safetensors does not exist, expected a loss network"):
        LossNet.load(path)
    with pytest.raises(MissingFileError, match="does not exist"):
        LossNet.load(tmp_path)
    with pytest.raises(ArgumentError, match=r"ends in \.safetensors"):
        small().save(tmp_path / "net.pt")
    with pytest.raises(MissingFileError, match="nowhere does not exist"):
        small().save(tmp_path / "nowhere" / "net.safetensors")
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"holds no loss network, expected a file written by LossNet\.save"):
        LossNet.load(path)
    whole = small().save(tmp_path / "whole.safetensors").read_bytes()
    for size in (0, 4, 200, len(whole) - 100):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            LossNet.load(path)
    path.write_text("these are not weights at all, only some words\n" * 10)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        LossNet.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "describes no loss network"),
        ("[1, 2]", "describes no loss network"),
        ("null", "describes no loss network"),
        ({"variant": "grap"}, "unknown loss network 'grap'"),
        ({"skeleton": "h35m"}, "unknown skeleton 'h35m'"),
        ({"options": {"depht": 2}}, "depht"),
        ({"options": 3}, "describes no loss network"),
        ({"scale": "wide"}, "describes no loss network"),
        ({"variant": "linear-small", "options": {}}, "is not a checkpoint of this LinearEnergy"),
        ({"options": {**SMALL, "dim": 32}}, "has shape"),
        ({"skeleton": "coco"}, "not"),
    ],
)
def test_descriptions_that_do_not_fit(tmp_path, change, message):
    net = small(edge_types=False, skeleton="mpii")
    written = change if isinstance(change, str) else json.dumps(net.description() | change)
    path = tmp_path / "net.safetensors"
    save_file({k: v.contiguous() for k, v in net.body.state_dict().items()}, path, {"loss_net": written})
    with pytest.raises(CheckpointError, match=message) as raised:
        LossNet.load(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("container", ["model_loss", "loss_net"])
@pytest.mark.parametrize("variant", ["graph4", "linear"])
def test_published_checkpoints(tmp_path, container, variant):
    torch.manual_seed(5)
    source, target = (LossNet("h36m", variant).eval() for _ in range(2))
    x, y = scene(1, 2)
    assert not torch.equal(source(x, y), target(x, y))
    weights = {f"module.{k}" if container == "model_loss" else k: v for k, v in source.body.state_dict().items()}
    others = {"epoch": 3, "lr": 1e-4, "model_pos": {"head.weight": torch.zeros(3)}, container: weights}
    torch.save(others, tmp_path / "best.bin")
    report = target.load_published(tmp_path / "best.bin")
    assert report.complete and report.loaded == len(weights)
    torch.testing.assert_close(target(x, y), source(x, y), rtol=0, atol=0)
    mapped = LossNet("h36m", variant).eval()
    mapped.load_published(others)
    torch.testing.assert_close(mapped(x, y), source(x, y), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="is not a checkpoint of this"):
        LossNet("h36m", "graph6" if variant == "graph4" else "graph4").load_published(others)


class Opens:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_with_code_is_refused(tmp_path):
    net = small()
    torch.save({"loss_net": net.body.state_dict(), "extra": Opens(tmp_path / "ran")}, tmp_path / "net.bin")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(CheckpointError, match="unsafe"):
        net.load_published(tmp_path / "net.bin")
    assert not (tmp_path / "ran").exists()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


# Bad input

X, Y = scene(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LossNet("h36"), UnknownNameError, "unknown skeleton 'h36': did you mean 'h36m'"),
        (lambda: LossNet("h36m", "graf"), UnknownNameError, "unknown loss network 'graf': did you mean 'graph'"),
        (lambda: LossNet("h36m", "graph", depht=2), ArgumentError, "'graph' takes no such options: .*'depht'"),
        (lambda: LossNet("h36m", "linear", depth=2), ArgumentError, "'linear' takes no such options: .*'depth'"),
        (lambda: LossNet("h36m", "graph4", width=2), ArgumentError, "'graph4' takes no such options: .*'width'"),
        (lambda: LossNet("h36m", dim=30, heads=4), ArgumentError, "dim is 30, expected a multiple of heads, 4"),
        (lambda: LossNet("h36m", dim=0), ArgumentError, "dim is 0"),
        (lambda: LossNet("h36m", heads=0), ArgumentError, "heads is 0"),
        (lambda: LossNet("h36m", depth=0), ArgumentError, "depth is 0"),
        (lambda: LossNet("h36m", dropout=1.5), ArgumentError, "dropout is 1.5"),
        (lambda: LossNet("h36m", ratio=0), ArgumentError, "ratio is 0, expected a number > 0"),
        (lambda: LossNet("h36m", ratio=-1.0), ArgumentError, "ratio is -1.0, expected a number > 0"),
        (lambda: LossNet("h36m", readout="max"), ArgumentError, "readout is 'max', expected one of 'cls', 'mean'"),
        (lambda: LossNet("h36m", temporal_depth=-1), ArgumentError, "temporal_depth is -1"),
        (lambda: LossNet("h36m", scale=0), ArgumentError, "scale is 0, expected a finite number > 0"),
        (lambda: LossNet("h36m", scale=float("nan")), ArgumentError, "scale is nan"),
        (lambda: LossNet("h36m", scale=float("inf")), ArgumentError, "scale is inf"),
        (lambda: LossNet("h36m", "linear", width=0), ArgumentError, "width is 0"),
        (lambda: LossNet("h36m", "linear", stages=0), ArgumentError, "stages is 0"),
        (
            lambda: small()(X, Y[..., :16, :]),
            ArgumentError,
            r"y has shape \[2, 3, 16, 3\], expected \[\.\.\., 17, 3\] for 'h36m'",
        ),
        (lambda: small()(X, Y[0, 0, 0]), ArgumentError, r"y has shape \[3\]"),
        (lambda: small()(X, Y[..., :2]), ArgumentError, r"y has shape \[2, 3, 17, 2\]"),
        (
            lambda: small()(X[:1], Y),
            ArgumentError,
            r"x has shape \[1, 3, 17, 2\], expected \[2, 3, 17\] and 2 or 3 channels",
        ),
        (lambda: small()(X[0], Y), ArgumentError, r"x has shape \[3, 17, 2\]"),
        (lambda: small()(X[..., :1], Y), ArgumentError, r"x has shape \[2, 3, 17, 1\]"),
        (lambda: small()(X.long(), Y), DtypeError, "x has dtype torch.int64"),
        (lambda: small()(X, Y.int()), DtypeError, "y has dtype torch.int32"),
        (lambda: small()(X, None), DtypeError, "y is a NoneType"),
        (lambda: small()(X, Y, torch.ones(2)), ArgumentError, r"unit has shape \[2\], expected \[2, 3\]"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
