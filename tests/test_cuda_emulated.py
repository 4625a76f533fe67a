"""The CUDA kernels on the CPU: what the tests of the operators do not look at, and the emulation itself."""

import ctypes
import os
from pathlib import Path

import backends
import pytest
import torch
from backends import EMULATED, compile_for_the_cpu
from compare import assert_close_gradients, assert_close_values, value_and_grad
from test_terms import ALL, ALL_OPTIONS, objective_reference, poses, weights_of

import structloss
from structloss.errors import BackendError

DEFAULT = {"mpjpe": 1.0, "depth_ranking_joints": 0.7, "depth_ranking_frames": 2.5}
BODILESS = {name: weight for name, weight in ALL.items() if not structloss.TERMS[name].needs_skeleton}

pytestmark = [*EMULATED.marks]


def run(pred, target, weights, weight=None, **keywords):
    """Total, terms and gradient."""
    leaf = pred.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    result = structloss.objective(leaf, target, weights, weight=weight, backend="cuda", **keywords)
    (gradient,) = torch.autograd.grad(result.total, leaf)
    return [result.total.detach(), *(x.detach() for x in result.terms.values()), gradient]


# Fused clips, clips whose rows are ranked apart (short and long), tiles of frames, all kinds of terms.
PATHS = {
    "fused, one word a lane": ((2, 27, 17), DEFAULT, "none", 227),
    "fused": ((1, 243, 17), DEFAULT, "none", 227),
    "fused, weights": ((1, 130, 17), DEFAULT, "real", 227),
    "all terms": ((1, 40, 17), ALL, "mask", 227),
    "rows apart": ((1, 100, 17), DEFAULT, "none", 20),
    "rows apart, weights": ((1, 100, 17), ALL, "real", 40),
    "sorted in memory": ((1, 1100, 2), DEFAULT, "none", 227),
    "sorted in memory, weights": ((1, 1100, 1), DEFAULT, "real", 227),
}


@pytest.mark.parametrize("path", PATHS)
def test_the_order_of_threads_makes_no_difference(path, _emulated):
    shape, weights, kind, kilobytes = PATHS[path]
    _emulated.shared_memory(kilobytes)
    pred, target = (x.float() for x in poses(*shape, kind="grid" if shape[-1] == 17 else "random"))
    weight = weights_of(*shape, kind=kind)
    weight = None if weight is None else weight.float()
    first = run(pred, target, weights, weight)
    for seed in (1, 2, 3):
        _emulated.order(seed)
        for x, y in zip(first, run(pred, target, weights, weight), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("kilobytes", [48, 64, 99, 163])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weights", ["none", "real"])
def test_every_size_of_shared_memory(weights, dtype, kilobytes, _emulated):
    _emulated.shared_memory(kilobytes)
    pred, target = poses(1, 150, 17)
    weight = weights_of(1, 150, 17, kind=weights)
    total, terms, gradient = objective_reference(pred, target, ALL, weight, options=ALL_OPTIONS)
    found = run(
        pred.to(dtype), target.to(dtype), ALL, None if weight is None else weight.to(dtype), options=ALL_OPTIONS
    )
    relative = 1e-5 if dtype == torch.float32 else 1e-12
    for x, y in zip(found, [total, *terms.values()], strict=False):
        assert_close_values(x, y, relative=relative)
    assert_close_gradients(found[-1], gradient, relative=relative)


@pytest.mark.check
@pytest.mark.parametrize("joints", [1, 2, 16, 18, 68, 133, 256])
@pytest.mark.parametrize("weights", ["none", "real"])
def test_any_number_of_joints(weights, joints):
    pred, target = poses(2, 5, joints)
    weight = weights_of(2, 5, joints, kind=weights)
    total, _, gradient = objective_reference(pred, target, BODILESS, weight)
    found = run(pred.float(), target.float(), BODILESS, None if weight is None else weight.float())
    assert_close_values(found[0], total, relative=1e-5)
    assert_close_gradients(found[-1], gradient, relative=1e-5)


# Both sides of every length that rows are sorted as.
@pytest.mark.parametrize("frames", [1, 2, 31, 32, 33, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1024, 1025, 2049])
@pytest.mark.parametrize("kind", ["random", "ties", "close", "outlier"])
def test_rows_of_any_length(kind, frames):
    pred = torch.randn(2, frames, dtype=torch.float64)
    target = pred + torch.randn(2, frames, dtype=torch.float64)
    if kind == "ties":
        pred, target = (pred * 3).round() / 3, (target * 3).round() / 3
    if kind == "close":  # far more alike than the words that are sorted can tell
        pred = 1 + (torch.arange(2 * frames).reshape(2, frames) * 7919 % (2 * frames)).double() * 2.0**-23
        pred[:, -1] = -1000
    if kind == "outlier":
        pred[0, 0], target[1, -1] = 1e30, -1e30
    pred, target = pred.float().double(), target.float().double()
    for dtype, relative in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        value, gradient = value_and_grad(structloss.ranking_hinge, pred, target, backend="torch")
        found, found_gradient = value_and_grad(
            structloss.ranking_hinge, pred.to(dtype), target.to(dtype), backend="cuda"
        )
        assert_close_values(found, value, relative=relative, absolute=1e-15)
        assert_close_gradients(found_gradient, gradient, relative=relative)


@pytest.mark.parametrize("dtypes", [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float16", "float16")])
def test_half_types_are_read_as_they_are(dtypes):
    pred, target = (x.to(getattr(torch, dtype)) for x, dtype in zip(poses(2, 30, 17), dtypes, strict=True))
    weight = (torch.rand(2, 30, 17) > 0.3).to(pred.dtype)
    for w in (None, weight):
        found = run(pred, target, ALL, w)
        same = run(pred.float(), target.float(), ALL, None if w is None else w.float())
        assert found[-1].dtype == pred.dtype
        for x, y in zip(found[:-1], same[:-1], strict=True):
            assert torch.equal(x, y)
        assert torch.equal(found[-1], same[-1].to(pred.dtype))


def test_any_strides_and_alignment():
    pred, target = (x.float() for x in poses(2, 30, 17))
    weight = weights_of(2, 30, 17, kind="real").float()
    expected = run(pred, target, ALL, weight)
    flat = torch.empty(pred.numel() + 1)
    unaligned = flat[1:].view_as(pred).copy_(pred)
    turned = target.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    wide = torch.empty(2, 30, 17, 2)[..., 1].copy_(weight)
    for p, d, w in ((unaligned, target, weight), (pred, turned, wide), (turned.clone() * 0 + pred, turned, weight)):
        found = run(p, d, ALL, w)
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)


def test_weights_of_terms_may_be_on_the_device():
    pred, target = (x.float() for x in poses(2, 30, 17))
    for weight in (None, weights_of(2, 30, 17, kind="real").float()):
        expected = run(pred, target, ALL, weight, options=ALL_OPTIONS)
        lam = {name: torch.tensor(value, requires_grad=True) for name, value in ALL.items()}
        result = structloss.objective(pred, target, lam, weight=weight, options=ALL_OPTIONS, backend="cuda")
        torch.testing.assert_close(result.total.detach(), expected[0], rtol=1e-6, atol=0)
        gradients = torch.autograd.grad(result.total, list(lam.values()))
        for gradient, value in zip(gradients, expected[1:-1], strict=True):
            torch.testing.assert_close(gradient, value, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("by", [1.0, 0.0, -2.5])
def test_the_gradient_is_scaled_in_place(by, dtype):
    from structloss.ops import cuda_impl

    grad = torch.randn(3, 1001, 5, 3, dtype=dtype)
    expected = grad * by
    assert cuda_impl.scale_(grad, torch.tensor(by, dtype=dtype)) is grad
    assert torch.equal(grad, expected)


def test_another_library_than_these_files_is_refused(monkeypatch, _emulated):
    from structloss.ops import cuda_impl

    class Longer(ctypes.Structure):
        _fields_ = [("all", cuda_impl.ObjectiveRequest), ("more", ctypes.c_int64)]

    monkeypatch.setattr(cuda_impl, "ObjectiveRequest", Longer)
    with pytest.raises(BackendError, match="reinstall structloss"):
        cuda_impl.Library(_emulated.native)


# ---- the emulation itself ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty():
    library = compile_for_the_cpu(Path(__file__).parent / "faulty_kernels.cu")

    def call(which, seed=0):
        out = (ctypes.c_int * 64)()
        error = library.run(which, ctypes.c_uint64(seed), out)
        return error, list(out)

    return call


def test_the_emulation_finds_faults(faulty):
    expected = [(i + 1) % 64 for i in range(64)]
    assert all(faulty(0, seed) == (0, expected) for seed in range(4))
    without_barrier = [faulty(1, seed)[1] for seed in range(4)]
    assert expected not in without_barrier and without_barrier[0] != without_barrier[1]
    assert faulty(2)[0] == 1, "not all threads reach the barrier"
    assert faulty(3)[0] == 2, "a write beyond shared memory"


def test_the_emulation_knows_warps(faulty):
    error, out = faulty(4, 5)
    assert error == 0
    for i, found in enumerate(out):
        lanes = range(i // 32 * 32, i // 32 * 32 + 32)
        assert found == sum(lanes) + (i ^ 1) * 1000 + 1


def test_a_library_is_compiled_once_until_its_source_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "COMPILED", tmp_path / "compiled")
    source, header = tmp_path / "answer.cu", tmp_path / "answer.hpp"
    source.write_text('#include "answer.hpp"\nextern "C" int answer() { return ANSWER; }\n')
    header.write_text("#define ANSWER 1\n")
    assert compile_for_the_cpu(source).answer() == 1
    (file,) = backends.COMPILED.glob("*.so")
    inode = file.stat().st_ino
    assert compile_for_the_cpu(source).answer() == 1
    assert [found.stat().st_ino for found in backends.COMPILED.glob("*.so")] == [inode]
    header.write_text("#define ANSWER 2\n")
    assert compile_for_the_cpu(source).answer() == 2
    os.utime(file, (0, 0))
    assert compile_for_the_cpu(source, "-DOTHER").answer() == 2
    assert not file.exists(), "long unused"
