"""Every backbone against the golden figures of the published models, and the rules that all of them keep.

One parametrised test serves all variants; a new family needs its golden files and nothing here.
"""

import copy
import functools
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from backbone_cases import (
    NAMES,
    PROCEDURES,
    PUBLISHED,
    clip,
    different,
    extras,
    filled,
    golden,
    golden_inputs,
    official_shapes,
    run_golden,
    shallow,
    small,
)
from golden.fill import fill_input
from memory import give_back
from torch.utils.flop_counter import FlopCounterMode

from structloss import backbones
from structloss.backbones.blocks import DropPath
from structloss.backbones.official import from_official, to_official
from structloss.errors import ArgumentError, CheckpointError, DtypeError, UnknownNameError

EVERY = {name: backbones.info(name) for name in NAMES}
#: one variant of a family, and of a kind in it, has the code of all: the one with the least work
QUICK = sorted(
    {(facts.family, facts.kind): name for name, facts in sorted(EVERY.items(), key=lambda e: -e[1].macs)}.values()
)
#: compiling takes the others seconds
SMALLEST = ["pstmo-refine", "simplebaseline-16j", "videopose3d-27"]
LIFTING = [name for name in QUICK if EVERY[name].kind in ("sequence", "centre", "frame")]
per_name = pytest.mark.parametrize("name", NAMES)
per_different = pytest.mark.parametrize("name", different(NAMES))
per_quick = pytest.mark.parametrize("name", QUICK)
per_lifting = pytest.mark.parametrize("name", LIFTING)


def call(name, model, x):
    return model(x, **extras(name, x))


@functools.cache
def on_meta(name):
    """The variant without memory for its weights; shared, so leave it as it is."""
    with torch.device("meta"):
        return backbones.create(name)


def trained(model):
    """Names and parameters that the published network uses."""
    return [(key, p) for key, p in model.named_parameters() if p.requires_grad]


def gradients(model):
    """Gradients by published name, whatever our modules are called."""
    own = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    return to_official(model, own)


# Golden figures


def by_work(names, seconds_of):
    """Names as cases, marked slow by what they take."""
    cases = []
    for name in names:
        seconds = seconds_of(name)
        cases.append(pytest.param(name, marks=pytest.mark.slow(seconds=round(seconds)) if seconds > 4 else ()))
    return cases


# MotionAGFormer chooses neighbours by comparing products, so float32 rounding moves its outputs.
IN_FLOAT64 = [name for name in NAMES if EVERY[name].family == "motionagformer"]


def cotangent_of(name, file):
    """What the golden scalar multiplies the outputs with."""
    cotangent_name = str(file["cotangent_name"]) if "cotangent_name" in file else f"cotangent-{name}"
    return torch.from_numpy(fill_input(cotangent_name, tuple(file["output_shape"])))


def suffix_of(file):
    return "_float64" if "param_grad_norms_float64" in file else ""


def golden_output(file):
    return torch.from_numpy(file["output_float64" if "output_float64" in file else "output"])


def compare_outputs(out, file):
    """Their largest error, as a share of the largest output."""
    want = golden_output(file)
    assert out.shape == want.shape
    error = float((out - want).abs().max() / want.abs().max())
    assert error <= (1e-5 if out.dtype == torch.float64 else 1e-4)
    return error


def compare_scalar(scalar, file):
    # The scalar is a mean that nearly cancels: its rounding is that of the outputs.
    tolerance = 1e-5 * float(golden_output(file).abs().max())
    assert scalar == pytest.approx(float(file[f"scalar{suffix_of(file)}"]), rel=1e-3, abs=tolerance)


def seconds_with_gradients(name):
    return EVERY[name].macs / 1e9 * (1.0 if name in IN_FLOAT64 else 0.15)


# What differs from a smaller variant in sizes alone runs the same code backwards. Where that takes long, only outputs
# are compared, in a third of the time.
GOLDEN_NAMES = [name for name in PUBLISHED if name not in PROCEDURES]
WITH_GRADIENTS = {*different(GOLDEN_NAMES), *(n for n in GOLDEN_NAMES if seconds_with_gradients(n) < 8)}


@pytest.mark.parametrize(
    "name", by_work([n for n in GOLDEN_NAMES if n not in WITH_GRADIENTS], lambda name: seconds_with_gradients(name) / 3)
)
def test_golden_output(name):
    """Outputs and scalar."""
    file = golden(name)
    dtype = torch.float64 if name in IN_FLOAT64 else torch.float32
    model = filled(name).to(dtype)
    inputs, arguments = golden_inputs(name, file)
    outputs = []
    with torch.no_grad():
        for i in range(len(inputs)):
            own = {key: value if key.endswith("mask") else value[i : i + 1] for key, value in arguments.items()}
            outputs.append(run_golden(model, inputs[i : i + 1].to(dtype), **own))
    out = torch.cat(outputs)
    compare_outputs(out, file)
    compare_scalar(float((out * cotangent_of(name, file)).mean()), file)


@pytest.mark.parametrize("name", by_work(sorted(WITH_GRADIENTS), seconds_with_gradients))
def test_golden_output_and_gradients(name):
    """Outputs, scalar, input gradient and the norm of every parameter's gradient, by published names."""
    file = golden(name)
    double = name in IN_FLOAT64
    model = filled(name)
    inputs, arguments = golden_inputs(name, file)
    dtype = torch.float64 if double else torch.float32
    model = model.to(dtype)
    cotangent = cotangent_of(name, file)
    outputs, input_gradients, scalar = [], [], 0.0
    for i in range(len(inputs)):  # clips one by one: half the memory, which for some is 8 GB even so
        x = inputs[i : i + 1].to(dtype).requires_grad_()
        own = {key: v if key.endswith("mask") else v[i : i + 1] for key, v in arguments.items()}
        out = run_golden(model, x, **own)
        share = (out * cotangent[i : i + 1]).sum() / cotangent.numel()
        share.backward()
        outputs.append(out.detach())
        input_gradients.append(x.grad)
        scalar += float(share.detach())
        del own, out, share, x
        give_back()

    error = compare_outputs(torch.cat(outputs), file)
    compare_scalar(scalar, file)
    suffix = suffix_of(file)
    assert float(torch.cat(input_gradients).norm()) == pytest.approx(float(file[f"input_grad_norm{suffix}"]), rel=1e-3)
    norms = {key: float(g.double().norm()) for key, g in gradients(model).items()}
    wanted = dict(zip(file["param_names"].tolist(), file[f"param_grad_norms{suffix}"].tolist(), strict=True))
    assert wanted.keys() <= norms.keys()
    worst = max(abs(norms[key] - norm) / norm for key, norm in wanted.items() if norm >= 1e-6)
    assert worst <= 1e-3
    assert all(norms[key] < 1e-5 for key, norm in wanted.items() if norm < 1e-6)
    print(f"{name}: output {error:.1e}, gradient norms {worst:.1e}")


@pytest.mark.parametrize(
    "name",
    by_work(
        [n for n in PUBLISHED if n.startswith(("motionbert", "repose"))], lambda name: EVERY[name].macs / 1e9 * 0.2
    ),
)
def test_golden_output_in_float64(name):
    """Where rounding plays no part, agreement to the precision that the figures are stored with."""
    file = golden(name)
    x, _ = golden_inputs(name, file)
    with torch.no_grad():
        out = filled(name).double()(x[:1].double())
    want = torch.from_numpy(file["output_float64"])[:1]
    assert float((out - want).abs().max() / want.abs().max()) <= 1e-5


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_keys_and_shapes(name):
    state = to_official(on_meta(name))
    assert {key: list(value.shape) for key, value in state.items()} == official_shapes(name)


@pytest.mark.parametrize("name", different(PUBLISHED))
def test_published_checkpoint_round_trip(name):
    """A published file, with its prefix and container, into our modules and back out again, number by number.

    The names of the other variants' tensors are those of the test above, what becomes of their numbers is in the golden
    figures.
    """
    torch.manual_seed(1)
    official = {
        key: torch.randn(shape) if shape or "num_batches" not in key else torch.tensor(3)
        for key, shape in official_shapes(name).items()
    }
    model = backbones.create(name)
    report = backbones.load_published(model, {"epoch": 3, "model_pos": {f"module.{k}": v for k, v in official.items()}})
    assert report.complete and report.loaded == len(official) and report.prefix == "module."
    back = to_official(model)
    assert back.keys() == official.keys()
    for key, value in official.items():
        assert torch.equal(back[key], value), key
    key = next(k for k in official if official[k].dim() > 1)
    with pytest.raises(CheckpointError, match="is not a checkpoint of this"):
        backbones.load_published(model, {k: v for k, v in official.items() if k != key})


# Every variant


@per_name
def test_params_and_macs_are_those_of_info(name):
    facts = EVERY[name]
    model = on_meta(name)  # shapes only: no memory, no time
    assert sum(p.numel() for p in model.parameters()) == facts.params
    if facts.kind == "pretrain":
        pytest.skip("masked frames are chosen by index, which needs values")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.device("meta"):
        x = torch.empty(1, max(facts.frames, model.shortest), facts.joints_in[0], len(facts.channels))
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        arguments = {key: value.to("meta") for key, value in extras(name, x).items()} if extras(name, x[:0]) else {}
        out = model(x, **arguments)
    frames = x.shape[1] if facts.kind != "centre" else x.shape[1] - facts.frames + 1
    assert out.shape == (1, frames, facts.joints_out, 3)
    # Our fusion of DSTformer's streams needs one output row of its two, 2·C·T·J a level less than published code.
    assert counter.get_total_flops() / 2 == pytest.approx(facts.macs, rel=2e-3)


@per_name
def test_info_is_complete(name):
    facts = EVERY[name]
    assert facts.name == name and name.startswith(facts.family + "-")
    recipes = Path(backbones.__file__).parents[1] / "harness" / "recipes"
    assert not facts.recipe or (recipes / f"{facts.recipe}.yaml").exists()
    assert facts.kind in backbones.KINDS and facts.keeps in ("all", "centre")
    assert facts.paper and facts.joints_in and facts.channels
    assert on_meta(name).kind == facts.kind
    with pytest.raises(AttributeError):
        facts.params = 1
    with pytest.raises(TypeError):
        facts.arguments["depth"] = 1


@per_different
def test_every_trained_parameter_gets_a_gradient(name):
    """In training mode, through the predictions that training compares; what the network never uses is frozen."""
    model = filled(name, **small(name)).train()
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0  # a branch that is dropped for both clips gets no gradient
    x = clip(name)
    if EVERY[name].kind in ("sequence", "centre", "frame"):
        target = torch.randn(*x.shape[:2], EVERY[name].joints_out, 3)
        pairs = model.supervise(x, target)
        loss = sum(p.share * (p.prediction - p.target).square().mean() for p in pairs)
        assert all(p.prediction.shape == p.target.shape for p in pairs)
    else:
        loss = call(name, model, x).square().mean()
    loss.backward()
    for key, p in trained(model):
        assert p.grad is not None and torch.isfinite(p.grad).all(), key
        assert p.grad.any() or (EVERY[name].family == "stcformer" and "emb" in key), key


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in SMALLEST else pytest.mark.slow(seconds=4)) for n in different(NAMES)]
)
def test_fullgraph_and_bfloat16(name):
    """One graph, forward and backward, under autocast to bfloat16: finite, and near float32."""
    model, x = shallow(name), clip(name)
    torch.compiler.reset()
    # The backward graph too, which takes seconds, of one variant a family and kind.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager" if name in QUICK else "eager")
    with torch.autocast("cpu", torch.bfloat16):
        out = call(name, compiled, x)
    parameters = [p for _, p in trained(model)]
    grads = torch.autograd.grad(out.float().square().mean(), parameters, allow_unused=True)
    assert torch.isfinite(out).all() and all(torch.isfinite(g).all() for g in grads if g is not None)
    with torch.no_grad():
        want = call(name, model, x)
    # bfloat16 keeps 8 bits; MotionAGFormer's choice of neighbours may change.
    assert float((out.detach().float() - want).norm() / want.norm()) < (
        0.5 if EVERY[name].family == "motionagformer" else 0.1
    )


@per_different
def test_state_dict_round_trip(name):
    torch.manual_seed(2)
    first, second = backbones.create(name, **small(name)), backbones.create(name, **small(name))
    stored = io.BytesIO()
    torch.save(first.state_dict(), stored)
    stored.seek(0)
    second.load_state_dict(torch.load(stored, weights_only=True))
    own = second.state_dict()
    for key, value in from_official(first, to_official(first)).items():
        assert torch.equal(own[key], value), key


# One variant of each family


@pytest.mark.slow(seconds=4)
@pytest.mark.parametrize(
    "name", [name for name in QUICK if EVERY[name].family in ("simplebaseline", "videopose3d", "stcformer")]
)
def test_compiles(name):
    """Generated code, forward and backward, agrees with eager. Generating it takes a minute for other attention, whose
    graph is tested above."""
    model, x = filled(name, **small(name)), clip(name)
    parameters = [p for _, p in trained(model)]
    want = torch.autograd.grad(call(name, model, x).square().mean(), parameters)
    compiled = torch.compile(model, fullgraph=True)
    got = torch.autograd.grad(call(name, compiled, x).square().mean(), parameters)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-3, atol=1e-5)


@per_quick
def test_exports(name):
    """`torch.export` with a free batch size, and the same numbers from the exported program."""
    model, x = shallow(name), clip(name, batch=3)
    arguments = extras(name, x)
    batch = torch.export.Dim("batch", min=2, max=64)
    free = {
        key: {0: batch} if len(value) == 3 and key in ("noisy", "timestep", "reprojected") else {}
        for key, value in arguments.items()
    }
    with torch.no_grad():
        program = torch.export.export(model, (x,), arguments, dynamic_shapes={"x": {0: batch}, **free})
        x = clip(name, batch=5)
        torch.testing.assert_close(program.module()(x, **extras(name, x)), call(name, model, x), rtol=1e-4, atol=1e-5)


@per_quick
def test_gradient_checkpointing_changes_nothing(name):
    """The same gradients, and running statistics counted once."""
    x, results = clip(name), []
    for checkpointing in (False, True):
        model = filled(name, gradient_checkpointing=checkpointing, **small(name)).train()
        torch.manual_seed(3)
        call(name, model, x).square().mean().backward()
        results.append((dict(model.named_buffers()), {k: p.grad for k, p in trained(model)}))
    (buffers, grads), (buffers_again, grads_again) = results
    for key, value in buffers.items():
        assert torch.equal(buffers_again[key], value), key
    for key, value in grads.items():
        if value is not None:
            torch.testing.assert_close(grads_again[key], value, rtol=1e-5, atol=1e-7, msg=key)


@pytest.mark.parametrize("name", [name for name in LIFTING if EVERY[name].family != "semgcn"])
def test_initial_output_is_finite_and_of_moderate_size(name):
    model = backbones.create(name).eval()
    x = clip(name, model=model)
    with torch.no_grad():
        out = call(name, model, x)
    assert torch.isfinite(out).all() and 0 < float(out.abs().max()) < 50


@per_lifting
def test_channels_and_non_contiguous_input(name):
    """A missing confidence is 1; one that the network doesn't take makes no difference."""
    model, x = shallow(name), clip(name)
    x[..., 2] = 1
    with torch.no_grad():
        want = call(name, model, x)
        torch.testing.assert_close(call(name, model, x[..., :2]), want)
        other = x.clone()
        other[..., 2] = 0.5
        same = torch.allclose(call(name, model, other), want)
        assert same == (len(EVERY[name].channels) == 2)
        strided = x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        torch.testing.assert_close(call(name, model, strided), want)


@per_lifting
def test_clips_do_not_influence_each_other(name):
    model, x = shallow(name).double(), clip(name).double()
    try:
        with torch.no_grad():
            both = call(name, model, x)
            arguments = {k: v[1:] if len(v) == len(x) else v for k, v in extras(name, x).items()}
            torch.testing.assert_close(model(x[1:], **arguments), both[1:])
            assert not torch.allclose(both[0], both[1])
    finally:
        model.float()


@per_lifting
def test_batch_of_zero_clips(name):
    with torch.no_grad():
        x = clip(name)[:0]
        out = call(name, shallow(name), x)
    assert out.shape == (0, shallow(name).match(x).shape[1], EVERY[name].joints_out, 3)


@per_quick
def test_float64(name):
    x = clip(name)
    with torch.no_grad():
        want = call(name, shallow(name), x)
        got = call(name, filled(name, **small(name)).double(), x.double())
    assert got.dtype == torch.float64
    tolerance = 0.1 if EVERY[name].family == "motionagformer" else 1e-4
    assert float((got - want).abs().max() / want.abs().max()) < tolerance


def test_traces_long_clips_fullgraph():
    """The other attention path, and the checks under autocast, without waiting for a compiler."""
    model, x = filled("repose-tiny", depth=1), clip("repose-tiny", frames=120)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x), model(x), rtol=2e-2, atol=2e-2)


# Input checks


def _wrong_inputs(model):
    frames, joints = model.shortest, model.joints[0]
    return {
        "channels": (torch.zeros(1, frames, joints, 4), ArgumentError, r"x has shape .*, 4\], expected \[B, T, J, C\]"),
        "joints": (torch.zeros(1, frames, 21, 2), ArgumentError, rf"x has shape .*21, 2\], expected .*J = {joints}"),
        "dims": (torch.zeros(frames, joints, 2), ArgumentError, r"x has shape .*, expected \[B, T, J, C\]"),
        "frames": (torch.zeros(1, frames - 1, joints, 2), ArgumentError, f"x has {frames - 1} frames"),
        "integers": (torch.zeros(1, frames, joints, 2, dtype=torch.int32), DtypeError, "x has dtype torch.int32"),
        "float64": (torch.zeros(1, frames, joints, 2).double(), DtypeError, "expected torch.float32"),
        "numpy": (np.zeros((1, frames, joints, 2)), DtypeError, "x is a numpy array, expected .* torch.from_numpy"),
        "device": (torch.zeros(1, frames, joints, 2, device="meta"), ArgumentError, "x is on meta, expected cpu"),
    }


@per_lifting
@pytest.mark.parametrize("what", ["channels", "joints", "dims", "frames", "integers", "float64", "numpy", "device"])
def test_bad_input_is_one_sentence(name, what):
    model = shallow(name)
    x, error, message = _wrong_inputs(model)[what]
    with pytest.raises(error, match=message) as raised:
        model(x)
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


@per_lifting
def test_too_many_frames(name):
    model = shallow(name)
    if model.longest is None:
        return
    x = torch.zeros(1, model.longest + 1, model.joints[0], 2)
    with pytest.raises(ArgumentError, match=f"x has {model.longest + 1} frames .*{model.longest} for this model"):
        model(x)


# The registry


def test_all_published_variants_are_registered():
    files = {path.stem for path in (Path(__file__).parent / "golden" / "backbones").glob("*.npz")}
    assert files <= set(NAMES)


def test_names_and_families():
    for alias, name in {"motionbert": "full", "repose": "h36m", "simplebaseline": "16j"}.items():
        assert backbones.info(alias).name == f"{alias}-{name}"
    assert type(backbones.create("simplebaseline")) is type(backbones.create("simplebaseline-semgcn"))


@per_name
def test_published_figures_have_a_source(name):
    """What was quoted from memory is left out, and so is its mark in the table."""
    facts = EVERY[name]
    assert not any("unverified" in key for key in facts.published)
    assert all(isinstance(value, (int, float)) and value > 0 for value in facts.published.values())
    assert re.fullmatch(r"((3DHP|H3WB|HumanEva) )?\d+(\.\d+)?( \w+)?|", facts.published_error)


def test_unknown_name_suggests_the_nearest():
    for function in (backbones.create, backbones.info):
        with pytest.raises(
            UnknownNameError, match=r"unknown backbone 'motionbert-light': did you mean .*motionbert-lite"
        ):
            function("motionbert-light")


def test_overrides():
    assert len(backbones.create("repose-tiny", depth=3).blocks_st) == 3
    assert backbones.create("repose-tiny", gradient_checkpointing=True).gradient_checkpointing
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


@pytest.mark.parametrize(
    ("name", "own", "handed_on", "inner"),
    [
        ("mixste-27", "num_joints", "drop_path_rate", "levels_before"),
        ("ktpformer-27", "skeleton", "mlp_ratio", "num_joints"),
        ("poseformer-27", "frames", "embed_dim_ratio", "joint_dim"),
        ("poseformerv2-27-1-3", "coefficients", "drop_path_rate", "centre"),
        ("jointformer-h36m", "dim_feat", "head_dim", "intermediate"),
        ("jointformer-h36m-refine", "intermediate", "num_heads", "channels"),
    ],
)
def test_overrides_of_a_base_class(name, own, handed_on, inner):
    """Keywords that a constructor hands on are overrides; what it decides for its base class is none."""
    with pytest.raises(ArgumentError, match=f"{inner} is not an override of {name}") as raised:
        backbones.create(name, **{inner: 3})
    listed = str(raised.value).partition("expected one of ")[2].rstrip(".").split(", ")
    assert {own, handed_on} <= set(listed) and not {"others", "self", "kind"} & set(listed)
    with torch.device("meta"):
        backbones.create(name, **{handed_on: 0.5 if handed_on in ("drop_path_rate", "mlp_ratio") else 8})


def test_import_is_light_and_lazy():
    code = (
        "import sys, structloss.backbones as b;"
        "assert 'structloss.backbones.dstformer' not in sys.modules;"
        "assert b.names() and 'structloss.backbones.dstformer' in sys.modules;"
        "heavy = {'lightning', 'matplotlib', 'scipy', 'pandas', 'structloss.harness'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
