"""SAP-Net against the golden figures of the published network, and what the registry of image networks promises."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden.fill import fill_input, fill_state_dict
from torch.utils.flop_counter import FlopCounterMode

from bench.plain import sapnet as plain
from structloss import images
from structloss.backbones import families
from structloss.errors import ArgumentError, CheckpointError, DtypeError, UnknownNameError

GOLDEN = Path(__file__).parent / "golden" / "images"
NAMES = images.names()
#: a stack, and a feature map of 2 x 2 inside
SMALL = {"features": 8, "stacks": 2, "modules": 1, "depth_modules": 1, "levels": 2, "input_size": 32}


def small(**overrides):
    model = images.create("sapnet", **SMALL | overrides)
    fill_state_dict(model.state_dict())
    return model.eval()


def picture(batch=2, size=32):
    return torch.from_numpy(0.5 * fill_input("sapnet", (batch, 3, size, size)) + 0.5)


def on_meta(name):
    with torch.device("meta"):
        return images.create(name)


# The published network


@pytest.mark.slow(seconds=10)
def test_golden_figures():
    """Heatmaps, depths and every parameter's gradient, in float64, to what rounding leaves."""
    model = images.create("sapnet").double()
    fill_state_dict(model.state_dict())
    model.eval()
    file = np.load(GOLDEN / "sapnet.npz")
    assert tuple(file["input_shape"]) == (2, 3, 256, 256)
    heatmaps, depth = model(picture(2, 256).double())
    assert heatmaps.shape == (2, 2, 16, 64, 64) and depth.shape == (2, 16)

    def error(got, key):
        want = torch.from_numpy(file[key])
        assert got.shape == want.shape, key
        return float((got.detach() - want).abs().max() / want.abs().max())

    for stack in (0, 1):
        assert error(F.avg_pool2d(heatmaps[stack], 4), f"heatmap{stack + 1}_pooled") < 1e-6
        assert error(heatmaps[stack].std((-2, -1), unbiased=False), f"heatmap{stack + 1}_std") < 1e-6
    assert error(depth, "depth") < 1e-6
    scalar = heatmaps[0].square().mean() + heatmaps[1].square().mean() + 0.1 * depth.square().mean()
    assert float(scalar.detach()) == pytest.approx(float(file["scalar"]), rel=1e-6)
    scalar.backward()
    norms = {key: float(p.grad.norm()) for key, p in model.named_parameters()}
    wanted = dict(zip(file["param_names"].tolist(), file["param_grad_norms"].tolist(), strict=True))
    assert norms.keys() == wanted.keys()
    assert max(abs(norms[key] / norm - 1) for key, norm in wanted.items()) < 1e-6


def test_published_keys_and_shapes():
    shapes = json.loads((GOLDEN / "sapnet.json").read_text())
    assert {key: list(value.shape) for key, value in on_meta("sapnet").state_dict().items()} == shapes


def test_plain_form_agrees():
    """What `structloss bench images` times the network against is the network."""
    model = small(levels=3, modules=2, depth_modules=2)
    with torch.no_grad():
        want, got = model(picture()), plain.forward(model.state_dict(), picture(), modules=2, depth_modules=2, levels=3)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# Its files


def test_published_file_round_trip(tmp_path):
    """Keys under DataParallel's prefix, without the counters that files of that age lack; ours as safetensors."""
    source, target = small(), images.create("sapnet", **SMALL)
    state = source.state_dict()
    published = {f"module.{key}": value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    path = tmp_path / "model.pth"
    torch.save({"state_dict": published}, path)
    report = images.load_published(target, path)
    assert report.complete and report.loaded == len(published) and report.prefix == "module."
    again = images.create("sapnet", **SMALL)
    assert images.load_published(again, images.save_checkpoint(target, tmp_path / "own.safetensors")).complete
    for model in (target, again):
        for key, value in model.state_dict().items():
            assert key.endswith("num_batches_tracked") or torch.equal(value, state[key]), key
    with pytest.raises(CheckpointError, match=r"is not a checkpoint of this SAPNet: .* hourglass"):
        images.load_published(target, {key: value for key, value in state.items() if "hourglass.1" not in key})


class Whole(torch.nn.Module):
    """A module of a script of the authors', which pickles as a whole."""

    def __init__(self):
        super().__init__()
        self.conv1_ = torch.nn.Conv2d(3, 2, 7)

    def __setstate__(self, state):
        raise AssertionError("code of a checkpoint was run")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_is_refused(tmp_path, zipped):
    """The published checkpoints are whole modules: nothing of theirs is run, and the sentence says what to save."""
    path = tmp_path / "model_10.pth"
    torch.save(Whole(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"expected tensors and plain containers.*save the state_dict\(\)\.$"):
        images.load_published(small(), path)
    with pytest.raises(AssertionError, match="code of a checkpoint was run"):  # which another reader would have done
        torch.load(path, weights_only=False)


# The registry


def test_names_and_facts():
    assert tuple(sorted(NAMES)) == NAMES and {"sapnet", "sapnet-tiny"} <= set(NAMES)
    for name in NAMES:
        facts = images.info(name)
        assert facts.name == name and name.split("-tiny")[0].startswith(facts.family)
        with pytest.raises(TypeError):
            facts.arguments["stacks"] = 1
    assert images.info("sapnet").params == 14_429_104 and images.info("sapnet").published["h36m_mpjpe_mm"] == 55.5
    with pytest.raises(UnknownNameError, match="unknown image network 'sapnet-small': did you mean 'sapnet"):
        images.info("sapnet-small")
    with pytest.raises(ArgumentError, match="depth is not an override of sapnet, expected one of stacks, modules"):
        images.create("sapnet", depth=3)


@pytest.mark.parametrize("name", ["sapnet", "sapnet-tiny"])
def test_sizes_are_those_of_info(name):
    facts, model = images.info(name), on_meta(name).eval()
    assert sum(p.numel() for p in model.parameters()) == facts.params
    assert (model.input_size, model.heatmap_size) == (facts.input_size, facts.input_size // 4)
    assert model.joints == facts.joints == 16
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        heatmaps, depth = model(torch.empty(1, 3, facts.input_size, facts.input_size))
    assert heatmaps.shape == (model.stacks, 1, 16, model.heatmap_size, model.heatmap_size) and depth.shape == (1, 16)
    assert counter.get_total_flops() / 2 == facts.macs


def test_a_registry_of_another_kind():
    """One mechanism: a package of families, what is told about a variant, the family's own name for an empty suffix."""
    own = families.Families("thing", images.ImageNetworkInfo, "json")
    common = {"paper": "", "input_size": 8, "joints": 1, "params": 2, "macs": 1}

    @own.family(
        "line",
        {"": {"arguments": {"in_features": 1}}, "wide": {"arguments": {"in_features": 3}}},
        flagship="",
        **common,
    )
    def line(in_features, bias=True):
        return torch.nn.Linear(in_features, 1, bias)

    own.family("other", {"a": {}, "b": {}}, flagship="b", **common)(torch.nn.Identity)
    assert own.names() == ("line", "line-wide", "other-a", "other-b")
    assert own.entry("other")[0].name == "other-b" and own.entry("line")[0].family == "line"
    assert own.build("line-wide", {}).in_features == 3 and own.build("line", {"bias": False}).bias is None
    with pytest.raises(ArgumentError, match="size is not an override of line, expected one of in_features, bias"):
        own.build("line", {"size": 3})
    with pytest.raises(UnknownNameError, match="unknown thing 'lime': did you mean 'line"):
        own.entry("lime")


# What it does with images


@pytest.mark.slow(seconds=8)
def test_one_graph_forward_and_backward():
    model = small(levels=1, stacks=1)  # tracing takes seconds a level
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    out, want = compiled(picture()), model(picture())
    assert type(out) is images.SAPOutput
    parameters = list(model.parameters())
    grads = [torch.autograd.grad(o.heatmaps.square().mean() + o.depth.square().mean(), parameters) for o in (out, want)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_exports_with_any_batch():
    model = small(levels=1)
    with torch.no_grad():
        program = torch.export.export(
            model, (picture(3),), dynamic_shapes={"image": {0: torch.export.Dim("batch", min=2, max=64)}}
        )
        for a, b in zip(program.module()(picture(5)), model(picture(5)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_images_do_not_influence_each_other_in_evaluation():
    model = small().double()
    x = picture(3).double()
    with torch.no_grad():
        together = model(x)
        alone = model(x[1:2])
        none = model(x[:0])
        last = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(alone.heatmaps, together.heatmaps[:, 1:2])
    torch.testing.assert_close(alone.depth, together.depth[1:2])
    assert none.heatmaps.shape == (2, 0, 16, 8, 8) and none.depth.shape == (0, 16)
    torch.testing.assert_close(last.depth, together.depth)


def test_gradient_checkpointing_changes_nothing():
    results = []
    for checkpointing in (False, True):
        model = images.create("sapnet", gradient_checkpointing=checkpointing, **SMALL).double()
        fill_state_dict(model.state_dict())
        out = model(picture(3).double())
        (out.heatmaps.square().mean() + out.depth.square().mean()).backward()
        results.append((dict(model.named_buffers()), {key: p.grad for key, p in model.named_parameters()}))
    for first, second in zip(*results, strict=True):
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, msg=key)


def test_what_depth_alone_depends_on():
    """A training of the hourglasses reaches every other parameter, and needs no depth module."""
    model = small().train()
    out = model(picture(3))
    torch.manual_seed(0)
    out.heatmaps.square().mean().backward(retain_graph=True)
    of_depth = {id(p) for p in model.depth_parameters()}
    assert len(of_depth) == len(model.depth_parameters())
    for key, p in model.named_parameters():
        assert (p.grad is None) == (id(p) in of_depth), key
    out.depth.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.depth_parameters())
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.heatmaps(picture()), model(picture()).heatmaps)


def test_a_fresh_network_starts_near_zero():
    """As nearly all of a heatmap is: training need not unlearn anything first."""
    torch.manual_seed(0)
    with torch.no_grad():
        heatmaps, depth = images.create("sapnet", **SMALL)(picture())
    for out in (heatmaps, depth):
        assert 0 < float(out.square().mean().sqrt()) < 0.05


def test_bfloat16_by_autocast():
    model = small()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = model(picture())
    with torch.no_grad():
        want = model(picture())
    for a, b in zip(half, want, strict=True):
        assert float((a.float() - b).norm() / b.norm()) < 0.1


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (torch.zeros(1, 3, 64, 32), ArgumentError, r"image has shape \[1, 3, 64, 32\], expected \[B, 3, 32, 32\]"),
        (torch.zeros(1, 1, 32, 32), ArgumentError, r"image has shape \[1, 1, 32, 32\], expected \[B, 3, 32, 32\]"),
        (torch.zeros(1, 32, 32, 3), ArgumentError, r"image has shape \[1, 32, 32, 3\], expected \[B, 3, 32, 32\]"),
        (torch.zeros(3, 32, 32), ArgumentError, r"image has shape \[3, 32, 32\], expected \[B, 3, 32, 32\]"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), DtypeError, r"image has dtype torch.uint8, .* image / 255\."),
        (torch.zeros(1, 3, 32, 32).int(), DtypeError, "image has dtype torch.int32, expected a floating-point dtype"),
        (torch.zeros(1, 3, 32, 32).double(), DtypeError, "image has dtype torch.float64, expected torch.float32"),
        (np.zeros((1, 3, 32, 32)), DtypeError, "image is a numpy array, expected .* torch.from_numpy"),
        (torch.zeros(1, 3, 32, 32, device="meta"), ArgumentError, "image is on meta, expected cpu"),
    ],
)
def test_bad_images(image, error, message):
    with pytest.raises(error, match=message) as raised:
        small()(image)
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


def test_an_image_alone_in_training():
    """Batch normalisation has a single value where the smallest feature map is one."""
    model = small(levels=3).train()
    with pytest.raises(ArgumentError, match="image has 1 image, expected 2 or more in training"):
        model(picture(1))
    assert model(picture(2)).depth.shape == (2, 16)
    assert small().train()(picture(1)).depth.shape == (1, 16)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"stacks": 0}, "stacks is 0, expected a positive integer"),
        ({"features": 10}, "features is 10, expected a positive multiple of 4"),
        ({"input_size": 96}, "input_size is 96, expected a positive multiple of 64"),
        ({"levels": 9}, "levels is 9, expected 1 to 8"),
        ({"joints": 0}, "joints is 0, expected a positive integer"),
        ({"depth_modules": 1.5}, "depth_modules is 1.5, expected a positive integer"),
    ],
)
def test_bad_arguments(override, message):
    with pytest.raises(ArgumentError, match=message):
        images.create("sapnet", **override)


@pytest.mark.parametrize("joints", [16, 17])
def test_other_sizes(joints):
    model = images.create("sapnet", **SMALL | {"joints": joints, "stacks": 1, "input_size": 48, "features": 12})
    heatmaps, depth = model(torch.rand(2, 3, 48, 48))
    assert heatmaps.shape == (1, 2, joints, 12, 12) and depth.shape == (2, joints)
