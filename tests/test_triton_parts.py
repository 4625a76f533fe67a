"""The Triton kernels of `render_parts` in Triton's interpreter, on the CPU, against the literal definition.

They run in a process of their own: `interpreter.py`.
"""

import part_checks
import pytest
import torch
from compare import assert_close_values, value_and_grad

import structloss

pytest.importorskip("triton")
pytestmark = pytest.mark.interpreted


@pytest.fixture
def kernels():
    from structloss.ops.parts import triton_impl

    return triton_impl


@pytest.mark.parametrize("size", part_checks.SIZES)
def test_images_and_gradients(size, kernels):
    for dtype in (torch.float32, torch.float64) if size == 33 else (torch.float32,):
        part_checks.check(kernels, size, dtype)


def test_any_strides(kernels):
    part_checks.check_strides(kernels)


@pytest.mark.filterwarnings("ignore:overflow encountered")  # of the interpreter's numpy
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_special_matrices(dtype, kernels):
    part_checks.check_special_matrices(kernels, dtype)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_gradients_beyond_a_part_do_not_count(kernels):
    part_checks.check_gradients_beyond_a_part_do_not_count(kernels)


def test_the_same_bits_every_time(kernels, monkeypatch):
    monkeypatch.setattr(kernels, "_PARTS", 4)  # more parts than a program places
    part_checks.check_bits(kernels, torch.float32, images=2)


def test_the_operator_takes_half_types():
    matrices = part_checks.parts(1, 18, 24)[0].bfloat16()
    found, expected = (
        value_and_grad(lambda m, b=backend: structloss.render_parts(m, "natural", 24, b).square().sum(), matrices)
        for backend in ("triton", "torch")
    )
    assert_close_values(found[0], expected[0], relative=1e-6)
    torch.testing.assert_close(found[1], expected[1])


def test_no_parts(kernels):
    part_checks.check_nothing(kernels)
