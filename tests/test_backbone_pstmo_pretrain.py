"""Masked pose modelling: masks, order of frames, the ways to know their number, transfer of the weights."""

import pytest
import torch
from backbone_cases import clip, extras, filled, shallow

from structloss import backbones
from structloss.backbones.official import to_official
from structloss.backbones.pstmo import transfer
from structloss.errors import ArgumentError, CheckpointError, DtypeError, MissingFileError

NAME = "pstmo-pretrain-s-3dhp-81"
SMALL = {"frames": 9, "dim": 32, "hidden": 24, "encoder_width": 20, "num_heads": 2, "depth": 2}
NETWORK = {**SMALL, "strides": (3, 3)}


def small(**overrides):
    return backbones.create("pstmo-pretrain", **{**SMALL, "decoder_depth": 2, **overrides})


@pytest.mark.parametrize(
    ("name", "frames", "joints"),
    [("243", 145, 3), ("s-243", 194, 2), ("s-gt-243", 194, 7), ("s-3dhp-81", 56, 2)],
)
def test_drawn_masks(name, frames, joints):
    torch.manual_seed(0)
    model = backbones.create(f"pstmo-pretrain-{name}", depth=1)
    assert model.masked_frames == frames
    temporal_counts, spatial_counts = 0, 0
    for _ in range(50):
        temporal, spatial = model.draw_masks()
        assert temporal.dtype == spatial.dtype == torch.bool
        assert int(temporal.sum()) == frames and (spatial.sum(1) == joints).all()
        temporal_counts, spatial_counts = temporal_counts + temporal.int(), spatial_counts + spatial.sum(0)
    # Every frame as often as any other, and every joint but the last, which the published code never masks.
    assert temporal_counts.double().mean() == pytest.approx(50 * frames / model.frames)
    assert temporal_counts.min() > 0 and temporal_counts.max() < 50 and not spatial_counts[16]
    share = spatial_counts[:16].double() / (50 * model.frames)
    torch.testing.assert_close(share, torch.full((16,), joints / 16, dtype=torch.float64), rtol=0, atol=0.05)


def test_every_joint_can_be_masked():
    torch.manual_seed(0)
    model = small(masked_joints=5, maskable_joints=17)
    assert sum(model.draw_masks()[1].sum(0) for _ in range(20)).min() > 0


def test_masks_are_drawn_where_none_are_given():
    model, x = small().eval(), torch.randn(2, 9, 17, 2)
    with torch.no_grad():
        torch.manual_seed(4)
        got = model(x)
        torch.manual_seed(4)
        torch.testing.assert_close(got, model(x, *model.draw_masks()))
        assert not torch.allclose(got, model(x))


def test_what_is_masked_does_not_matter():
    model, x = shallow(NAME), clip(NAME)[..., :2]
    masks = extras(NAME, x)
    temporal, spatial = masks["temporal_mask"], masks["spatial_mask"]
    with torch.no_grad():
        want = model(x, **masks)
        for hidden in (temporal[:, None].expand(-1, 17), spatial):
            assert hidden.any()
            torch.testing.assert_close(model(torch.where(hidden[..., None], x + 1, x), **masks), want)
        seen = (~temporal[:, None] & ~spatial)[..., None]
        assert not torch.allclose(model(torch.where(seen, x + 1, x), **masks), want, atol=1e-2)


def test_visible_frames_come_first():
    """The decoder tells frames apart by their position alone: the output's order is that of the positions."""
    model, x = small().eval(), torch.randn(2, 9, 17, 2)
    mask = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0, 1]).bool()
    order = [1, 4, 5, 7, 0, 2, 3, 6, 8]
    assert model.order(mask).tolist() == order
    found = []
    model.decoder.layers[0].register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with torch.no_grad():
        model(x, mask, torch.zeros(9, 17, dtype=torch.bool))
        masked = found[0][:, 4:] - model.dec_pos_embedding[:, order[4:]]
    torch.testing.assert_close(masked, model.mask_token.expand(2, 5, -1))


def test_compiled_graph_gives_the_same_for_any_number_of_masked_frames():
    """One graph: over all frames with masked attention, or over the visible ones if their number is given."""
    model, x = small(depth=1, decoder_depth=1, temporal_rate=0.6).eval(), torch.randn(2, 9, 17, 2)
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.no_grad():
        for masked in (0, 3, 5, 8):
            masks = torch.randperm(9) < masked, torch.rand(9, 17) < 0.3
            want = model(x, *masks)
            torch.testing.assert_close(compiled(x, *masks), want, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model(x, *masks, masked_frames=masked), want)
        torch.testing.assert_close(compiled(x, *masks, masked_frames=8), want, rtol=1e-4, atol=1e-5)
    general, known = ("masked_fill" in graph.code for graph in graphs)
    assert general and not known


def test_drawn_masks_compile_to_short_sequences():
    model, x = small(depth=1, decoder_depth=1), torch.randn(2, 9, 17, 2)
    graphs = []
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=lambda graph, _: graphs.append(graph.code) or graph.forward)
    assert torch.isfinite(compiled(x)).all()
    assert len(graphs) == 1 and "masked_fill" not in graphs[0]


def test_training_compares_with_the_input_in_the_same_order():
    model, x = shallow(NAME), clip(NAME)
    masks, weight = extras(NAME, x), torch.rand(2, 81, 17)
    with torch.no_grad():
        (pair,) = model.supervise(x, torch.randn(2, 81, 17, 3), weight, **masks)
        want = model(x, **masks)
    mask = masks["temporal_mask"]
    assert torch.equal(pair.prediction[..., :2], want) and pair.prediction.shape == pair.target.shape == (2, 81, 17, 3)
    assert torch.equal(pair.target[..., :2], torch.cat((x[:, ~mask], x[:, mask]), dim=1)[..., :2])
    assert torch.equal(pair.weight, torch.cat((weight[:, ~mask], weight[:, mask]), dim=1))
    assert not pair.prediction[..., 2].any() and not pair.target[..., 2].any() and pair.share == 1
    distance = torch.linalg.vector_norm(pair.prediction - pair.target, dim=-1)
    torch.testing.assert_close(distance, torch.linalg.vector_norm(want - pair.target[..., :2], dim=-1))


def test_training_draws_masks():
    model, x = small().train(), torch.randn(2, 9, 17, 2)
    (first,), (second,) = model.supervise(x), model.supervise(x)
    assert not torch.equal(first.target, second.target) and first.weight is None
    torch.testing.assert_close(first.target.sum(1), second.target.sum(1))
    first.prediction.square().sum().backward()
    for key, p in model.named_parameters():
        assert (p.grad is None) == key.startswith(("tem.norm", "decoder.norm")), key


def test_initialisation():
    torch.manual_seed(0)
    model = backbones.create("pstmo-pretrain-243")
    state = to_official(model)
    for key in ("dec_pos_embedding", "Transformer.pos_embedding"):
        assert float(state[key].std()) == pytest.approx(1, abs=0.02)
    assert float(model.mask_token.std()) == pytest.approx(1, abs=0.3) and model.spatial_mask_token.any()
    for stack, depth in (("Transformer", 4), ("Transformer_dec", 3)):
        first = {key: state[f"{stack}.model.layers.0.{key}"] for key in ("self_attn.linears.0.weight",)}
        for layer in range(depth):
            name = f"{stack}.model.layers.{layer}"
            for i in range(4):
                assert torch.equal(state[f"{name}.self_attn.linears.{i}.weight"], first["self_attn.linears.0.weight"])
            for part in ("w_1.weight", "w_2.bias"):
                assert torch.equal(
                    state[f"{name}.feed_forward.{part}"], state[f"{stack}.model.layers.0.feed_forward.{part}"]
                )


# Transfer


def _own(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def _transferred(key):
    return key.startswith(("encoder.", "tem.")) or key == "pos_embedding"


@pytest.mark.parametrize("how", ["module", "published", "prefixed", "file", "pickle"])
def test_transfer(how, tmp_path):
    torch.manual_seed(1)
    pretrained, model = small(), backbones.create("pstmo", **NETWORK)
    pretrained.encoder.bn_1.running_mean.normal_()
    source = {
        "module": lambda: pretrained,
        "published": lambda: to_official(pretrained),
        "prefixed": lambda: {f"module.{key}": value for key, value in to_official(pretrained).items()},
        "file": lambda: backbones.save_checkpoint(pretrained, tmp_path / "stage1.safetensors"),
        "pickle": lambda: torch.save(to_official(pretrained), tmp_path / "stage1.pth") or tmp_path / "stage1.pth",
    }[how]()
    before, given = _own(model), pretrained.state_dict()
    report = transfer(source, model)
    for key, value in model.state_dict().items():
        assert torch.equal(value, given[key] if _transferred(key) else before[key]), key
    expected = [key for key in to_official(pretrained) if key.startswith(("encoder.", "Transformer."))]
    assert not report.missing and not report.mismatched
    assert report.loaded == (sum(map(_transferred, given)) if how == "file" else len(expected))
    assert any("dec_pos_embedding" in key for key in report.unexpected)
    x = torch.randn(2, 9, 17, 2)
    torch.testing.assert_close(model.eval().encoder(x), pretrained.eval().encoder(x))


def test_transfer_changes_nothing_when_it_fails(tmp_path):
    model = backbones.create("pstmo", **NETWORK)
    before = _own(model)
    deeper = small(depth=3)
    with pytest.raises(CheckpointError, match=r"does not hold the encoders of this PSTMO: Transformer.pos_embedding"):
        transfer(small(frames=27), model)
    incomplete = {key: value for key, value in to_official(small()).items() if "fc_2" not in key}
    with pytest.raises(CheckpointError, match=r"state_dict does not hold .*: encoder.fc_2.weight is missing"):
        transfer(incomplete, model)
    with pytest.raises(CheckpointError):
        transfer({"other": torch.zeros(3)}, model)
    with pytest.raises(MissingFileError):
        transfer(tmp_path / "none.pth", model)
    with pytest.raises(ArgumentError, match="model is a PSTMOPretrain, expected a PSTMO network"):
        transfer(deeper, deeper)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_transfer_takes_no_deeper_network_for_a_shallow_one():
    model = backbones.create("pstmo", **NETWORK)
    with pytest.raises(CheckpointError, match=r"Transformer\.model\.layers\.2.* is not in the model"):
        transfer(small(depth=3), model)


# Arguments


def test_bad_masks():
    model, x = small().eval(), torch.randn(2, 9, 17, 2)
    temporal, spatial = model.draw_masks()
    for arguments, error, message in (
        ((temporal.float(), spatial), DtypeError, "temporal_mask has dtype torch.float32, expected a boolean tensor"),
        ((temporal, spatial.tolist()), DtypeError, "spatial_mask is a list, expected a boolean tensor"),
        ((temporal[None], spatial), ArgumentError, r"temporal_mask has shape \[1, 9\], expected \[9\]"),
        ((temporal, spatial.T), ArgumentError, r"spatial_mask has shape \[17, 9\], expected \[9, 17\]"),
        (
            (torch.ones_like(temporal), spatial),
            ArgumentError,
            "temporal_mask masks all 9 frames, expected at least one",
        ),
        ((temporal, spatial, 9), ArgumentError, "masked_frames is 9, expected an integer from 0 to 8"),
    ):
        with pytest.raises(error, match=message):
            model(x, *arguments)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dim": 248}, "dim is 248, expected a positive multiple of 16"),
        ({"hidden": 511}, "hidden is 511, expected a positive multiple of 2"),
        ({"temporal_rate": 1.0}, r"temporal_rate is 1.0, expected a rate"),
        ({"masked_joints": 17}, "maskable_joints is 16, expected 17 to 17"),
        ({"maskable_joints": 18}, "maskable_joints is 18, expected 3 to 17"),
        ({"decoder_depth": 0}, "decoder_depth is 0, expected a positive integer"),
    ],
)
def test_bad_arguments(overrides, message):
    with pytest.raises(ArgumentError, match=message):
        backbones.create("pstmo-pretrain", **overrides)


def test_float64_and_shallow_variants():
    model, x = filled(NAME).double(), clip(NAME).double()
    with torch.no_grad():
        assert model(x, **extras(NAME, x)).dtype == torch.float64
    assert len(shallow(NAME).tem.layers) == 1 and len(shallow(NAME).decoder.layers) == 2
