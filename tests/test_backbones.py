"""Backbones against the golden figures of the published models, and the registry's and the inputs' rules.

One parametrised test serves all variants; a new family needs its golden files and nothing here.
"""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fill import fill_input, fill_state_dict
from torch.utils.flop_counter import FlopCounterMode

from structloss import backbones
from structloss.backbones.blocks import Attention, DropPath, attend, init_truncated_normal
from structloss.errors import ArgumentError, DtypeError, UnknownNameError

GOLDEN = Path(__file__).parent / "golden" / "backbones"
NAMES = backbones.names()
PUBLISHED = [name for name in NAMES if (GOLDEN / f"{name}.npz").exists()]
SMALL = ["repose-tiny", "simplebaseline-16j", "simplebaseline-semgcn"]
per_name = pytest.mark.parametrize("name", NAMES)


def filled(name, **overrides):
    model = backbones.create(name, **overrides)
    fill_state_dict(model.state_dict())
    return model.eval()


@functools.cache
def shallow(name):
    """The variant in evaluation mode, one level deep where depth is an argument; shared, so leave it as it is."""
    return filled(name, **({"depth": 1} if "depth" in backbones.info(name).arguments else {}))


def clip(name, batch=2, frames=9, channels=3):
    return torch.from_numpy(fill_input(name, (batch, frames, 17, channels)))


# Golden figures


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_golden_output_and_gradients(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    model = filled(name)
    x = torch.from_numpy(fill_input(name, tuple(golden["input_shape"]))).requires_grad_()
    out = model.forward_flat(x) if x.dim() == 2 else model(x)

    want = torch.from_numpy(golden["output_float64" if "output_float64" in golden else "output"])
    assert out.shape == want.shape
    error = float((out.detach() - want).abs().max() / want.abs().max())
    assert error <= 1e-4

    cotangent = torch.from_numpy(fill_input(f"cotangent-{name}", tuple(out.shape)))
    scalar = (out * cotangent).mean()
    scalar.backward()
    assert float(scalar.detach()) == pytest.approx(float(golden["scalar"]), rel=1e-3, abs=1e-6)
    suffix = "_float64" if "param_grad_norms_float64" in golden else ""
    assert float(x.grad.norm()) == pytest.approx(float(golden[f"input_grad_norm{suffix}"]), rel=1e-3)
    norms = {key: float(p.grad.double().norm()) for key, p in model.named_parameters()}
    wanted = dict(zip(golden["param_names"].tolist(), golden[f"param_grad_norms{suffix}"].tolist(), strict=True))
    assert norms.keys() == wanted.keys()
    worst = max(abs(norms[key] - norm) / norm for key, norm in wanted.items() if norm >= 1e-6)
    assert worst <= 1e-3
    print(f"{name}: output {error:.1e}, gradient norms {worst:.1e}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_state_dict_is_the_official_one(name):
    with torch.device("meta"):
        state = backbones.create(name).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == json.loads((GOLDEN / f"{name}.json").read_text())


# Every variant


@per_name
def test_params_and_macs_are_those_of_info(name):
    facts = backbones.info(name)
    with torch.device("meta"):  # shapes only: no memory, no time
        model = backbones.create(name).eval().requires_grad_(False)
        x = torch.empty(1, facts.frames, facts.joints_in[0], len(facts.channels))
    assert sum(p.numel() for p in model.parameters()) == facts.params
    with FlopCounterMode(display=False) as counter:
        out = model(x)
    assert out.shape == (1, facts.frames if facts.kind != "centre" else 1, facts.joints_out, 3)
    # The fusion of DSTformer needs one output row of its two, 2·C·T·J a level less than the published code.
    assert counter.get_total_flops() / 2 == pytest.approx(facts.macs, rel=2e-3)


@per_name
def test_info_is_complete(name):
    facts = backbones.info(name)
    assert facts.name == name and name.startswith(facts.family + "-")
    recipes = Path(backbones.__file__).parents[1] / "harness" / "recipes"
    assert not facts.recipe or (recipes / f"{facts.recipe}.yaml").exists()
    assert facts.kind in ("sequence", "centre", "frame")
    assert facts.paper and facts.joints_in and facts.channels
    with pytest.raises(AttributeError):
        facts.params = 1
    with pytest.raises(TypeError):
        facts.arguments["depth"] = 1


@per_name
def test_every_parameter_gets_a_gradient(name):
    model = shallow(name)
    grads = torch.autograd.grad(model(clip(name)).square().mean(), list(model.parameters()))
    for (key, _), grad in zip(model.named_parameters(), grads, strict=True):
        assert torch.isfinite(grad).all() and grad.any(), key


@pytest.mark.parametrize("name", SMALL)
def test_initial_output_is_finite_and_of_moderate_size(name):
    out = backbones.create(name).eval()(clip(name))
    assert torch.isfinite(out).all() and 0 < float(out.detach().abs().max()) < 20


@per_name
def test_two_channels_and_non_contiguous_input(name):
    model = shallow(name)
    x = clip(name)
    x[..., 2] = 1
    with torch.no_grad():
        want = model(x)
        torch.testing.assert_close(model(x[..., :2]), want)
        torch.testing.assert_close(model(x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)), want)


@per_name
def test_clips_do_not_influence_each_other(name):
    model = shallow(name)
    x = clip(name)
    with torch.no_grad():
        torch.testing.assert_close(model(x[1:]), model(x)[1:], rtol=1e-4, atol=1e-5)


@per_name
def test_batch_of_zero_clips(name):
    with torch.no_grad():
        out = shallow(name)(clip(name)[:0])
    assert out.shape == (0, 9, backbones.info(name).joints_out, 3)


@pytest.mark.parametrize("name", SMALL)  # bfloat16 is slow on most CPUs
def test_bf16_autocast(name):
    model = shallow(name)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(clip(name, frames=4))
    grads = torch.autograd.grad(out.float().square().mean(), list(model.parameters()))
    assert all(torch.isfinite(grad).all() for grad in grads)
    with torch.no_grad():
        want = model(clip(name, frames=4))
    assert float((out.detach() - want).norm() / want.norm()) < 0.1


@pytest.mark.parametrize("name", SMALL)
def test_float64(name):
    x = clip(name)
    with torch.no_grad():
        want = filled(name)(x)
        torch.testing.assert_close(filled(name).double()(x.double()).float(), want, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), [("repose-tiny", "aot_eager"), ("simplebaseline-16j", "inductor")])
def test_compiles_fullgraph(name, backend):
    """One graph forward and one backward; code generation for attention alone would take a minute."""
    overrides = {"depth": 1} if name == "repose-tiny" else {}
    model, x = filled(name, **overrides), clip(name, frames=5)
    want = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    got = torch.autograd.grad(compiled(x).square().mean(), list(model.parameters()))
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-3, atol=1e-5)


def test_traces_long_clips_fullgraph():
    """The other attention path, and the checks under autocast, without waiting for a compiler."""
    model, x = filled("repose-tiny", depth=1), clip("repose-tiny", frames=120)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x), model(x), rtol=2e-2, atol=2e-2)


# Input checks


@per_name
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            torch.zeros(1, 9, 17, 4),
            ArgumentError,
            r"x has shape \[1, 9, 17, 4\], expected \[B, T, J, C\] with .*2 or 3",
        ),
        (torch.zeros(1, 9, 21, 3), ArgumentError, r"x has shape \[1, 9, 21, 3\], expected .*J = 17"),
        (torch.zeros(9, 17, 3), ArgumentError, r"x has shape \[9, 17, 3\], expected \[B, T, J, C\]"),
        (torch.zeros(1, 0, 17, 3), ArgumentError, "x has 0 frames"),
        (torch.zeros(1, 9, 17, 3, dtype=torch.int32), DtypeError, "x has dtype torch.int32, expected a floating-point"),
        (torch.zeros(1, 9, 17, 3).double(), DtypeError, "x has dtype torch.float64, expected torch.float32"),
        (np.zeros((1, 9, 17, 3)), DtypeError, "x is a ndarray, expected"),
        (torch.zeros(1, 9, 17, 3, device="meta"), ArgumentError, "x is on meta, expected cpu"),
    ],
    ids=["channels", "joints", "dims", "frames", "integers", "float64", "numpy", "device"],
)
def test_bad_input_is_one_sentence(name, x, error, message):
    with pytest.raises(error, match=message) as raised:
        shallow(name)(x)
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


def test_too_many_frames():
    with pytest.raises(ArgumentError, match=r"x has 244 frames .*expected 1 to 243"):
        shallow("repose-tiny")(torch.zeros(1, 244, 17, 3))
    with torch.no_grad():
        assert shallow("repose-tiny")(torch.zeros(1, 243, 17, 3)).shape == (1, 243, 17, 3)


# The registry


def test_names_and_families():
    assert {"motionbert-full", "motionbert-lite", "repose-h36m", "repose-tiny", "simplebaseline-16j"} <= set(NAMES)
    for alias, name in {"motionbert": "full", "repose": "h36m", "simplebaseline": "16j"}.items():
        assert backbones.info(alias).name == f"{alias}-{name}"
    assert type(backbones.create("simplebaseline")) is type(backbones.create("simplebaseline-semgcn"))


def test_unknown_name_suggests_the_nearest():
    for function in (backbones.create, backbones.info):
        with pytest.raises(
            UnknownNameError, match=r"unknown backbone 'motionbert-light': did you mean .*motionbert-lite"
        ):
            function("motionbert-light")


def test_overrides():
    assert len(backbones.create("repose-tiny", depth=3).blocks_st) == 3
    with pytest.raises(ArgumentError, match="deepness is not an override of repose-tiny, expected one of dim_feat"):
        backbones.create("repose-tiny", deepness=3)
    for override, message in {
        "depth": "depth is 0, expected a positive integer",
        "num_heads": "num_heads is 0, expected a positive integer",
        "mlp_ratio": "mlp_ratio is 0, expected a number",
    }.items():
        with pytest.raises(ArgumentError, match=message):
            backbones.create("repose-tiny", **{override: 0})
    with pytest.raises(ArgumentError, match="dim_feat is 65, expected a positive multiple of 2"):
        backbones.create("repose-tiny", dim_feat=65)
    for rate in (1.0, -0.1):
        with pytest.raises(ArgumentError, match=r"drop_path_rate is .*0 <= rate < 1"):
            backbones.create("repose-tiny", drop_path_rate=rate)


def test_import_is_light_and_lazy():
    code = (
        "import sys, structloss.backbones as b;"
        "assert 'structloss.backbones.dstformer' not in sys.modules;"
        "assert b.names() and 'structloss.backbones.dstformer' in sys.modules;"
        "heavy = {'lightning', 'matplotlib', 'scipy', 'pandas', 'structloss.harness'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# DSTformer


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
    torch.testing.assert_close(model._fuse(u, v, fusion), scores[..., :1] * u + scores[..., 1:] * v)


def test_fresh_model_averages_its_streams():
    model = backbones.create("repose-tiny")
    u, v = torch.randn(2, 1, 3, 17, 64)
    torch.testing.assert_close(model._fuse(u, v, model.ts_attn[0]), (u + v) / 2)
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


# Blocks


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


# SimpleBaseline


@pytest.mark.parametrize(("name", "joints"), [("simplebaseline-16j", 17), ("simplebaseline-semgcn", 16)])
def test_simplebaseline_adapts_clips_to_the_flat_network(name, joints):
    model = filled(name)
    x = clip(name)
    sixteen = x[:, :, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16]]
    with torch.no_grad():
        out = model(x)
        flat = model.forward_flat(sixteen[..., :2].reshape(18, 32))
        torch.testing.assert_close(model(sixteen), out)
    assert out.shape == (2, 9, joints, 3) and not out[:, :, 0].any()
    torch.testing.assert_close(out[:, :, 1:].reshape(18, -1), flat)


def test_simplebaseline_statistics():
    rng = np.random.default_rng(0)
    mean2, std2, mean3, std3 = (rng.uniform(1, 2, shape) for shape in ((16, 2), (16, 2), (16, 3), (16, 3)))
    plain = filled("simplebaseline")
    model = filled("simplebaseline", input_mean=mean2, input_std=std2, output_mean=mean3, output_std=std3.tolist())
    assert model.state_dict().keys() == plain.state_dict().keys()
    x = clip("s", channels=2)[:, :, :16]
    with torch.no_grad():
        got = model(x * torch.tensor(std2).float() + torch.tensor(mean2).float())
        want = plain(x)[:, :, 1:] * torch.tensor(std3).float() + torch.tensor(mean3).float()
    torch.testing.assert_close(got[:, :, 1:], want, rtol=1e-3, atol=1e-4)
    assert not got[:, :, 0].any()


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"input_mean": np.zeros((16, 2))}, "input_std is None, expected input_mean and input_std together"),
        ({"output_std": np.ones((16, 3))}, "output_mean is None"),
        ({"output_mean": np.zeros((17, 3)), "output_std": np.ones((17, 3))}, r"output_mean has shape \[17, 3\]"),
        ({"input_mean": np.zeros((16, 2)), "input_std": np.zeros((16, 2))}, "input_std has the value 0, expected"),
    ],
)
def test_simplebaseline_bad_statistics(statistics, message):
    with pytest.raises(ArgumentError, match=message):
        backbones.create("simplebaseline", **statistics)


def test_simplebaseline_single_frame():
    model = filled("simplebaseline")
    x = clip("s", batch=1, frames=1)
    assert model(x).shape == (1, 1, 17, 3)
    with pytest.raises(ArgumentError, match="x has 1 frame in all, expected 2 or more in training"):
        model.train()(x)
