"""P-STMO: the auxiliary head, its norm and strides, starts by copies, dropout, refinement."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from backbone_cases import clip, filled, golden, golden_inputs, shallow
from golden.fill import fill_input

from structloss import backbones
from structloss.backbones.blocks import Attention, StdNorm
from structloss.backbones.official import to_official
from structloss.backbones.pstmo import PSTMO
from structloss.backbones.pstmo_parts import TemporalStack, _StridedMLP
from structloss.backbones.pstmo_refine import RefinementHead, back_project
from structloss.data.cameras import h36m_cameras, normalize_screen
from structloss.errors import ArgumentError, DtypeError

SMALL = {"frames": 9, "strides": (1, 3, 3), "depth": 2, "dim": 16, "hidden": 24, "encoder_width": 20, "num_heads": 2}


@pytest.mark.parametrize("name", ["pstmo-s-3dhp-81", "pstmo-243", "pstmo-s-243"])
def test_golden_poses_of_all_frames(name):
    file, model = golden(name), filled(name)
    x, _ = golden_inputs(name, file)
    x.requires_grad_()
    centre, every = model.forward_all(x)
    for got, key in ((centre, "output"), (every, "output_vte")):
        want = torch.from_numpy(file[key])
        assert got.shape == want.shape and float((got.detach() - want).abs().max() / want.abs().max()) <= 1e-4
    scalar = (every * torch.from_numpy(fill_input(str(file["cotangent_name_vte"]), tuple(every.shape)))).mean()
    scalar.backward()
    assert float(scalar.detach()) == pytest.approx(float(file["scalar_vte"]), rel=1e-3, abs=1e-5)
    assert float(x.grad.norm()) == pytest.approx(float(file["input_grad_norm_vte"]), rel=1e-3)


def test_training_compares_all_frames_and_the_centre():
    model, x = shallow("pstmo-s-3dhp-81"), clip("pstmo-s-3dhp-81")
    target, weight = torch.randn(2, 81, 17, 3), torch.rand(2, 81, 17)
    with torch.no_grad():
        every, centre = model.supervise(x, target, weight)
        out, poses = model.forward_all(x)
        torch.testing.assert_close(out, model(x))
    assert torch.equal(every.prediction, poses) and torch.equal(centre.prediction, out)
    assert torch.equal(every.target, target) and torch.equal(centre.target, target[:, 40:41])
    assert torch.equal(every.weight, weight) and torch.equal(centre.weight, weight[:, 40:41])
    assert every.share == centre.share == 1
    assert all(p.weight is None for p in model.supervise(x, target))


def test_std_norm_equation_and_gradients():
    norm = StdNorm(6, eps=0.1).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(3, 4, 6, dtype=torch.float64, requires_grad=True)
    want = norm.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 0.1) + norm.bias
    torch.testing.assert_close(norm(x), want)
    inputs = (x, norm.weight, norm.bias)
    cotangent = torch.randn_like(want)
    for got, expected in zip(
        torch.autograd.grad(norm(x), inputs, cotangent), torch.autograd.grad(want, inputs, cotangent), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_std_norm_of_constant_rows():
    norm = StdNorm(256)
    torch.nn.init.normal_(norm.bias)
    x = torch.full((2, 256), 0.5).requires_grad_()  # a value whose mean is exact
    out = norm(x)
    assert torch.equal(out, norm.bias.expand(2, -1))
    out.square().sum().backward()
    assert torch.isfinite(x.grad).all() and norm.eps == 1e-6
    with torch.autocast("cpu", torch.bfloat16):  # the statistics are not rounded to 8 bits
        y = torch.randn(2, 256)
        torch.testing.assert_close(norm(y), norm.float()(y))


@pytest.mark.parametrize("stride", [1, 2, 3, 9, 13])
@pytest.mark.parametrize("tokens", [13, 26, 27])
def test_strided_mlp_is_a_convolution(stride, tokens):
    mlp = _StridedMLP(4, 6, 0.1, stride).eval()
    x = torch.randn(2, tokens, 4)
    hidden = F.relu(mlp.fc1(x)).transpose(1, 2)
    want = F.conv1d(hidden, mlp.fc2.weight, mlp.fc2.bias, stride=stride, padding=1).transpose(1, 2)
    torch.testing.assert_close(mlp(x), want)


@pytest.mark.parametrize(("frames", "strides"), [(9, (1, 3, 3)), (27, (3, 3, 3)), (351, (3, 9, 13))])
def test_other_receptive_fields(frames, strides):
    from bench.plain.pstmo import forward

    model = backbones.create("pstmo", **{**SMALL, "frames": frames, "strides": strides}).eval()
    x = torch.randn(2, frames, 17, 2)
    with torch.no_grad():
        out = model(x)
        torch.testing.assert_close(
            out, forward(to_official(model), x, depth=2, strides=strides, num_heads=2), rtol=1e-4, atol=1e-4
        )
    assert out.shape == (2, 1, 17, 3)


def _same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_initialisation_by_copies():
    """In published names: q = k = v = output in all layers of a stack; MLPs are copies in the TEM alone."""
    torch.manual_seed(0)
    model = backbones.create("pstmo-243")
    state = to_official(model)
    for stack, depth in (("Transformer", 4), ("Transformer_reduce", 5)):
        for part in ("weight", "bias"):
            first = state[f"{stack}.model.layers.0.self_attn.linears.0.{part}"]
            for layer in range(depth):
                for i in range(4):
                    assert torch.equal(state[f"{stack}.model.layers.{layer}.self_attn.linears.{i}.{part}"], first)
    assert not _same(model.tem.layers[0].attn, model.mofa.layers[0].attn)
    for layer in range(1, 4):
        assert _same(model.tem.layers[0].mlp, model.tem.layers[layer].mlp)
    for layer in range(1, 5):
        assert not _same(model.mofa.layers[0].mlp, model.mofa.layers[layer].mlp)
    # Uniform ±1/√(inputs), what PyTorch draws: std 1/√(3·inputs).
    for weight, inputs in (
        (model.tem.layers[0].attn.proj.weight, 256),
        (model.mofa.layers[0].mlp.fc2.weight, 3 * 512),
        (model.encoder.fc_1.weight, 34),
    ):
        assert float(weight.detach().std()) == pytest.approx(1 / math.sqrt(3 * inputs), rel=0.03)
    for key, value in state.items():
        if "pos_embedding" in key:
            assert float(value.std()) == pytest.approx(1, abs=0.02) and abs(float(value.mean())) < 0.02
        if key.endswith("a_2"):
            assert (value == 1).all()
        if key.endswith("b_2"):
            assert not value.any()
    before = model.pos_embedding.clone()
    model.reset_parameters()
    assert not torch.equal(model.pos_embedding, before)


def test_unused_norms_are_frozen():
    model = backbones.create("pstmo", **SMALL)
    frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {f"{stack}.norm.{part}" for stack in ("tem", "mofa") for part in ("weight", "bias")}


@pytest.mark.parametrize("stack", ["tem", "mofa"])
def test_dropout_places_of_a_layer(stack):
    """Attention weights, after attention, inside of the MLP, after it; with the residual's first token of three."""
    layer = getattr(backbones.create("pstmo", **{**SMALL, "drop_rate": 0.5}), stack).layers[-1].train()
    h = torch.randn(2, 9, 16)
    torch.manual_seed(5)
    got = layer(h)

    torch.manual_seed(5)
    q, k, v = layer.attn.qkv(layer.norm1(h)).view(2, 9, 3, 2, 8).permute(2, 0, 3, 1, 4)
    weights = F.dropout((q @ k.transpose(-2, -1) / math.sqrt(8)).softmax(-1), 0.5)
    y = h + F.dropout(layer.attn.proj((weights @ v).transpose(1, 2).reshape(2, 9, 16)), 0.5)
    hidden = F.dropout(F.relu(layer.mlp.fc1(layer.norm2(y))), 0.5)
    if stack == "tem":
        out = layer.mlp.fc2(hidden)
    else:
        y = y[:, ::3]
        out = layer.mlp.fc2(hidden.transpose(1, 2)).transpose(1, 2).contiguous()
    want = y + F.dropout(out, 0.5)
    torch.testing.assert_close(got, want)


def test_dropout_places_and_statistics_of_the_encoder():
    encoder = backbones.create("pstmo", **{**SMALL, "drop_rate": 0.5}).encoder.train()
    x = torch.randn(2, 9, 17, 2)
    torch.manual_seed(5)
    got = encoder(x)

    def unit(linear, norm, rows):
        mean, var = linear(rows).mean(0), linear(rows).var(0, unbiased=False)
        rows = norm.weight * (linear(rows) - mean) / torch.sqrt(var + 1e-5) + norm.bias
        return F.dropout(torch.where(rows > 0, rows, 0.2 * rows), 0.5)

    torch.manual_seed(5)
    rows = unit(encoder.fc_1, encoder.bn_1, x.reshape(18, 34))
    torch.testing.assert_close(encoder.bn_1.running_mean, 0.1 * encoder.fc_1(x.reshape(18, 34)).mean(0))
    (layer,) = encoder.layers
    y = unit(layer.w2, layer.batch_norm2, unit(layer.w1, layer.batch_norm1, rows))
    torch.testing.assert_close(got, encoder.fc_2(rows + y).view(2, 9, 16), rtol=1e-4, atol=1e-5)


def test_published_training_rates():
    model = backbones.create("pstmo-243").train()
    rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.1} and {m.attn_drop for m in model.modules() if isinstance(m, Attention)} == {0.1}
    assert backbones.create("pstmo-refine").post_refine[2].p == 0.5
    assert {name: backbones.info(f"pstmo-{name}").frame_step for name in ("243", "s-243", "s-3dhp-81")} == {
        "243": 2,
        "s-243": 2,
        "s-3dhp-81": 1,
    }


def test_masked_attention_leaves_keys_out():
    """Both ways of computing it, against the sequence without those tokens."""
    attention = Attention(16, 2)
    for tokens in (12, 120):
        x, mask = torch.randn(2, tokens, 16), torch.arange(tokens) % 3 != 1
        torch.testing.assert_close(attention(x, mask=mask)[:, mask], attention(x[:, mask]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"strides": (3, 3)},
            r"strides is \(3, 3\), which brings 243 frames down to 27, expected strides that leave 1",
        ),
        ({"strides": ()}, "strides that leave 1"),
        ({"strides": (3, 0, 81)}, "strides is 0, expected a positive integer"),
        ({"dim": 252}, "dim is 252, expected a positive multiple of 8"),
        ({"depth": 0}, "depth is 0, expected a positive integer"),
        ({"hidden": 0}, "hidden is 0"),
        ({"drop_rate": 1}, "drop_rate is 1, expected a rate"),
    ],
)
def test_bad_arguments(overrides, message):
    with pytest.raises(ArgumentError, match=message):
        backbones.create("pstmo-243", **overrides)


def test_single_clip():
    model, x = backbones.create("pstmo", **SMALL), torch.randn(1, 9, 17, 2)
    with pytest.raises(ArgumentError, match="x has 1 clip in all, expected 2 or more in training"):
        model.train()(x)
    assert model.eval()(x).shape == (1, 1, 17, 3)


def test_both_builders_share_the_family():
    assert backbones.info("pstmo").name == "pstmo-243" and type(backbones.create("pstmo", **SMALL)) is PSTMO
    assert type(backbones.create("pstmo-refine")) is RefinementHead
    assert isinstance(backbones.create("pstmo", **SMALL).mofa, TemporalStack)


# Refinement


def test_refinement_mixes_image_coordinates():
    model = filled("pstmo-refine")
    x, reprojected = torch.randn(2, 5, 17, 3), torch.randn(2, 5, 17, 3)
    score = torch.sigmoid(model.post_refine(torch.cat((x, reprojected), dim=-1).reshape(2, 5, 102))).view(2, 5, 17, 2)
    with torch.no_grad():
        out = model(x, reprojected)
        torch.testing.assert_close(out[..., :2], score * x[..., :2] + (1 - score) * reprojected[..., :2])
        assert torch.equal(out[..., 2], x[..., 2])
        (pair,) = model.supervise(x, x, reprojected=reprojected)
    assert torch.equal(pair.prediction, out) and pair.weight is None
    file = golden("pstmo-refine")
    x, arguments = golden_inputs("pstmo-refine", file)
    q = arguments["reprojected"].requires_grad_()
    cotangent = torch.from_numpy(fill_input(str(file["cotangent_name"]), tuple(x.shape)))
    (model(x, q) * cotangent).mean().backward()
    assert float(q.grad.norm()) == pytest.approx(float(file["xyz_from_uvd_grad_norm"]), rel=1e-3)


def test_refinement_bad_input():
    model, x = filled("pstmo-refine"), torch.zeros(2, 1, 17, 3)
    with pytest.raises(
        ArgumentError, match=r"x has shape \[2, 1, 17, 2\], expected \[B, T, J, C\] with J = 17 and C = 3"
    ):
        model(x[..., :2], x)
    with pytest.raises(ArgumentError, match=r"reprojected has shape \[1, 1, 17, 3\], expected \[2, 1, 17, 3\]"):
        model(x, x[:1])
    with pytest.raises(DtypeError, match="reprojected has dtype"):
        model(x, x.long())


def test_back_projection_inverts_the_camera():
    """With the true depth of every joint, keypoints give the true pose."""
    rng = np.random.default_rng(0)
    cameras = h36m_cameras("S9")[:2]
    points = rng.normal(size=(2, 3, 17, 3)) * 0.5 + [0, 0, 5]
    keypoints = np.stack(
        [normalize_screen(c.project(p, distort=False), c.width, c.height) for c, p in zip(cameras, points, strict=True)]
    )
    intrinsics = torch.from_numpy(np.stack([c.screen_intrinsics() for c in cameras]))
    points, keypoints = torch.from_numpy(points), torch.from_numpy(keypoints)
    for root in (0, 14):
        pose = points - points[:, :, root : root + 1]
        guess = pose.clone()
        guess[..., :2] = 7  # not used
        guess[:, :, root, 2] = 3  # nor is the root's depth
        got = back_project(keypoints, guess, points[:, :, root, 2], intrinsics, root=root)
        torch.testing.assert_close(got, pose)
        one = back_project(keypoints[:1], guess[:1], points[:1, :, root, 2], intrinsics[0], root=root)
        torch.testing.assert_close(one, pose[:1])


def test_back_projection_equations():
    torch.manual_seed(0)
    keypoints, pose, depth = torch.randn(2, 3, 17, 2), torch.randn(2, 3, 17, 3), torch.rand(2, 3) + 4
    intrinsics = torch.rand(2, 4) + 1
    got = back_project(keypoints, pose, depth, intrinsics)
    for b, t, j in np.ndindex(2, 3, 17):
        fx, fy, cx, cy = intrinsics[b].tolist()

        def ray(j, b=b, t=t, fx=fx, fy=fy, cx=cx, cy=cy):
            z = float(depth[b, t]) + (float(pose[b, t, j, 2]) if j else 0.0)
            u, v = keypoints[b, t, j].tolist()
            return np.array([(u - cx) * z / fx, (v - cy) * z / fy, z])

        np.testing.assert_allclose(got[b, t, j].numpy(), ray(j) - ray(0), rtol=1e-4, atol=1e-4)
    assert not got[:, :, 0].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pose": torch.zeros(2, 17, 3)}, r"pose has shape .*, expected \[B, T, J, 3\]"),
        ({"keypoints": torch.zeros(2, 1, 17, 3)}, r"keypoints has shape .*, expected \[2, 1, 17, 2\]"),
        ({"root_depth": torch.zeros(2)}, r"root_depth has shape \[2\], expected \[2, 1\]"),
        ({"intrinsics": torch.zeros(3, 4)}, r"intrinsics has shape \[3, 4\], expected \[4\] or \[2, 4\]"),
        ({"root": 17}, "root is 17, expected a joint index from 0 to 16"),
    ],
)
def test_back_projection_bad_arguments(change, message):
    given = {
        "keypoints": torch.zeros(2, 1, 17, 2),
        "pose": torch.zeros(2, 1, 17, 3),
        "root_depth": torch.ones(2, 1),
        "intrinsics": torch.ones(4),
    }
    with pytest.raises(ArgumentError, match=message):
        back_project(**{**given, **change})
