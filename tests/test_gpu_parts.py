"""`render_parts` on a GPU: the kernels against the literal definition, and streams, graphs, large outputs.

GPU_TESTS=cpu:torch,cpp tries the tests themselves without a GPU.
"""

import importlib
import os

import part_checks
import pytest
import torch
from compare import assert_close_gradients, value_and_grad

import structloss
from structloss.ops.parts import library

DEVICE, _, CHOSEN = os.environ.get("GPU_TESTS", "cuda:triton,cuda").partition(":")
ON_GPU = DEVICE == "cuda"
_STATUS = structloss.backends()
BACKENDS = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(name, marks=pytest.mark.skipif(not _STATUS[name], reason=_STATUS[name].reason))
        for name in CHOSEN.split(",")
    ],
)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
pytestmark = [pytest.mark.gpu] if ON_GPU else []
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="tries the tests on the CPU")


def kernels_of(backend):
    return importlib.import_module(f"structloss.ops.parts.{backend}_impl")


@BACKENDS
@DTYPES
@pytest.mark.parametrize("size", [*part_checks.SIZES, 256, 1000])
def test_images_and_gradients(size, dtype, backend):
    images, count = (3, 18) if size < 100 else (2, 2)  # the definition is computed on the CPU
    part_checks.check(kernels_of(backend), size, dtype, images, count, device=DEVICE)


@BACKENDS
@DTYPES
def test_special_matrices(dtype, backend):
    part_checks.check_special_matrices(kernels_of(backend), dtype, device=DEVICE)


@BACKENDS
def test_gradients_strides_and_nothing(backend):
    kernels = kernels_of(backend)
    part_checks.check_gradients_beyond_a_part_do_not_count(kernels, device=DEVICE)
    part_checks.check_strides(kernels, device=DEVICE)
    part_checks.check_nothing(kernels, device=DEVICE)


@BACKENDS
@DTYPES
def test_the_same_bits_every_time(dtype, backend):
    part_checks.check_bits(kernels_of(backend), dtype, images=48, device=DEVICE)


@needs_gpu
def test_auto_chooses_a_fused_backend():
    assert library.resolve("auto", torch.device("cuda", 0), torch.float32) in ("cuda", "triton")


def call(backend, matrices):
    return value_and_grad(
        lambda m: (structloss.render_parts(m, "natural", 64, backend) ** 2).sum((-1, -2)).norm(), matrices
    )


@needs_gpu
@BACKENDS
def test_in_a_cuda_graph(backend):
    matrices = part_checks.parts(4, 18, 64, device=DEVICE)[0].requires_grad_()
    grad = torch.randn(4, 18, 64, 64, device=DEVICE)

    def step():
        images = structloss.render_parts(matrices, "natural", 64, backend)
        return images, torch.autograd.grad(images, matrices, grad)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    for _ in range(2):
        with torch.no_grad():
            matrices += 0.01 * torch.randn_like(matrices)
        grad.normal_()
        graph.replay()
        for x, y in zip(found, step(), strict=True):
            assert torch.equal(x, y)


@needs_gpu
@BACKENDS
def test_on_a_second_stream(backend):
    """The kernels wait for what their stream is doing, and for nothing else."""
    kernels = kernels_of(backend)
    matrices, template = part_checks.parts(4, 18, 64, device=DEVICE)
    grad = torch.randn(4, 18, 64, 64, device=DEVICE)
    expected = kernels.forward(matrices, template, 64), kernels.backward(grad, matrices, template, 64)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = torch.full_like(matrices, torch.nan)
        torch.cuda._sleep(50_000_000)
        late.copy_(matrices)
        found = kernels.forward(late, template, 64), kernels.backward(grad, late, template, 64)
        assert not stream.query(), "a call waited for the GPU"
    stream.synchronize()
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@needs_gpu
@BACKENDS
def test_more_pixels_than_32_bits_count(backend):
    size, images = 4096, 8
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("it needs 24 GB of GPU memory")
    kernels = kernels_of(backend)
    matrices, template = part_checks.parts(1, 18, size, device=DEVICE)
    matrices[-1, -1], template[-1, :2] = torch.eye(2, 3), size / 2
    many = matrices.expand(images, 18, 2, 3).contiguous()
    found = kernels.forward(many, template, size)
    assert found.numel() > 2**31
    assert torch.equal(found[-1:], kernels.forward(matrices, template, size)) and found[-1, -1].any()
    gradient = kernels.backward(found, many, template, size)
    alone = kernels.backward(found[-1:], matrices, template, size)
    assert torch.equal(gradient[-1:], alone) and torch.equal(gradient[0], gradient[-1])


@BACKENDS
def test_agrees_with_pytorch_on_a_batch(backend):
    matrices = part_checks.parts(48 if ON_GPU else 2, 18, 64, device=DEVICE)[0]
    found, expected = call(backend, matrices), call("torch", matrices.double())
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-5, atol=0)
    assert_close_gradients(found[1], expected[1], relative=2e-5)  # the moments beyond 5.3 scales are 1.2e-5
