"""The CUDA kernels of `render_parts`, thread by thread on the CPU, against the literal definition."""

import ctypes

import part_checks
import pytest
import torch
from backends import EMULATED
from compare import assert_close_gradients, assert_close_values, value_and_grad

import structloss
from structloss.errors import BackendError
from structloss.ops.parts import cuda_impl, torch_impl

pytestmark = [*EMULATED.marks]

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@DTYPES
@pytest.mark.parametrize("size", part_checks.SIZES)
def test_images_and_gradients(size, dtype):
    part_checks.check(cuda_impl, size, dtype)


def test_large_images():
    """Few rows a tile, many splits of the gradient."""
    matrices, template = part_checks.parts(1, 1, 2048)
    images = cuda_impl.forward(matrices, template, 2048)
    grad = torch.ones(()).expand(images.shape)
    found = cuda_impl.backward(grad, matrices, template, 2048)
    torch.testing.assert_close(images, torch_impl.forward(matrices, template, 2048), rtol=0, atol=2e-6)
    exact = torch_impl.backward(grad.double(), matrices.double(), template.double(), 2048)
    assert_close_gradients(found, exact, relative=2e-5)  # the share of the moments beyond 5.3 scales is 1.2e-5


def test_any_strides():
    part_checks.check_strides(cuda_impl)


@DTYPES
def test_special_matrices(dtype):
    part_checks.check_special_matrices(cuda_impl, dtype)


def test_gradients_beyond_a_part_do_not_count():
    part_checks.check_gradients_beyond_a_part_do_not_count(cuda_impl)


@DTYPES
def test_the_same_bits_every_time(dtype):
    part_checks.check_bits(cuda_impl, dtype, images=25)  # more parts than a block of the last kernel


def test_no_parts():
    part_checks.check_nothing(cuda_impl)


def test_the_operator_takes_half_types_and_any_leading_dimensions():
    matrices = part_checks.parts(6, 18, 24)[0].view(2, 3, 18, 2, 3).bfloat16()
    found, expected = (
        value_and_grad(lambda m, b=backend: structloss.render_parts(m, "natural", 24, b).square().sum(), matrices)
        for backend in ("cuda", "torch")
    )
    assert_close_values(found[0], expected[0], relative=1e-6)
    assert found[1].dtype == torch.bfloat16
    torch.testing.assert_close(found[1], expected[1])


def both(seed):
    torch.manual_seed(seed)
    matrices, template = part_checks.parts(1, 2, 70)
    grad = torch.randn(1, 2, 70, 70)
    return cuda_impl.forward(matrices, template, 70), cuda_impl.backward(grad, matrices, template, 70)


def test_the_order_of_threads_makes_no_difference(_emulated):
    first = both(0)
    for seed in (1, 2, 3):
        _emulated.order(seed)
        assert all(torch.equal(x, y) for x, y in zip(first, both(0), strict=True))


@pytest.mark.parametrize("barrier, which", [(0, 0), (0, 1), (1, 1)])
def test_every_barrier_is_needed(barrier, which, _emulated):
    """Without it the images, or the gradient, are other ones."""
    first = both(0)[which]
    _emulated.leave_out(barrier)
    for seed in (1, 2, 3):
        _emulated.order(seed)
        assert not torch.equal(both(0)[which], first)
    _emulated.leave_out(-1)
    assert torch.equal(both(0)[which], first)


def test_another_library_than_these_files_is_refused(monkeypatch, _emulated):
    class Longer(ctypes.Structure):
        _fields_ = [("all", cuda_impl.PartsRequest), ("more", ctypes.c_int64)]

    monkeypatch.setattr(cuda_impl, "PartsRequest", Longer)
    with pytest.raises(BackendError, match="reinstall structloss"):
        cuda_impl.Library(_emulated.native)
    with pytest.raises(BackendError, match="no kernels for render_parts"):
        cuda_impl.Library(ctypes.CDLL(None))
