"""What the kernels of `render_parts` are held against, whatever they are written in: the two functions of a backend."""

import math

import torch
from compare import assert_close_gradients
from reference import parts as reference

# Beyond 5.3 scales a part, here of a peak of 1.5 at most, is left out in float32; in float64 nothing that shows.
ABSOLUTE = {torch.float32: 1.5e-6, torch.float64: 1e-13}
RELATIVE = {torch.float32: 1e-5, torch.float64: 1e-12}
REACH = {torch.float32: 5.3, torch.float64: 8.7}
# One tile or several, of rows and of columns; rows that do and do not begin where 16 bytes can be stored at once.
SIZES = {1: 2, 2: 2, 24: 3, 33: 3, 70: 1, 132: 1, 261: 1}


def parts(images, count, size, dtype=torch.float32, device="cpu"):
    """Matrices [images, count, 2, 3] near the identity, one of them mirrored, and a template [count, 6]."""
    place, scale = size * torch.rand(count, 2), 0.3 + size * (0.02 + 0.1 * torch.rand(count, 2))
    template = torch.cat([place, scale, 3 * torch.randn(count, 1), 0.5 + torch.rand(count, 1)], -1)
    matrices = torch.eye(2, 3) + 0.3 * torch.randn(images, count, 2, 3)
    matrices[..., 2] += 0.1 * size * torch.randn(images, count, 2)
    matrices[0, 0, :, 0] *= -1
    matrices[0, 0, 0, 2] += size
    return matrices.to(device, dtype), template.to(device, dtype)


def expected(grad, matrices, template, size):
    """Images by definition and the gradient of what is within reach of the parts, in float64 on the CPU."""
    leaf, template = matrices.cpu().double().clone().requires_grad_(), template.cpu().double()
    images = reference.render_parts(leaf, template, size)
    least = template[:, 5] * math.exp(-(REACH[matrices.dtype] ** 2) / 2)
    reached = images.detach() >= least[:, None, None]
    return images.detach(), torch.autograd.grad(images, leaf, torch.where(reached, grad.cpu().double(), 0))[0]


def check(kernels, size, dtype, images=1, count=None, device="cpu"):
    """Images and gradient of parts of one size."""
    matrices, template = parts(images, count or SIZES[size], size, dtype, device)
    grad = torch.randn(*matrices.shape[:2], size, size, device=device, dtype=dtype)
    values, gradient = expected(grad, matrices, template, size)
    found = kernels.forward(matrices, template, size)
    assert found.dtype == dtype and found.is_contiguous() and values.abs().max() > 0.1
    torch.testing.assert_close(found.cpu().double(), values, rtol=0, atol=ABSOLUTE[dtype])
    found = kernels.backward(grad, matrices, template, size)
    assert found.dtype == dtype and found.shape == matrices.shape
    assert_close_gradients(found.cpu(), gradient, relative=RELATIVE[dtype])


def check_strides(kernels, device="cpu"):
    """The incoming gradient may be of any strides: one number for all pixels, as of a sum, or turned around."""
    matrices, template = parts(2, 2, 20, device=device)
    plain = torch.randn(2, 2, 20, 20, device=device)
    turned = plain.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
    for grad in (torch.ones((), device=device).expand(2, 2, 20, 20), turned):
        found = kernels.backward(grad, matrices, template, 20)
        assert torch.equal(found, kernels.backward(grad.contiguous(), matrices, template, 20)) and found.any()


def check_special_matrices(kernels, dtype, device="cpu"):
    """NaN and infinity, no area, beyond the image, all over it; the parts beside them are as ever."""
    size = 20
    matrices, template = parts(1, 10, size, dtype)
    matrices[0, 0] = torch.eye(2, 3)
    template[0, :2] = 10
    matrices[0, 1, 0, 1] = math.nan
    matrices[0, 2, 1, 2] = -math.inf
    matrices[0, 3, 1, :2] = 2 * matrices[0, 3, 0, :2]  # all on one line
    matrices[0, 4, :, :2] = 0
    matrices[0, 5, :, :2] *= 1e-42 if dtype == torch.float32 else 1e-320  # an inverse beyond the dtype
    matrices[0, 6, :, 2] = 1e30
    matrices[0, 7, 0, 2] = -3 * size
    matrices[0, 8] = torch.tensor([[1e6, 0, 0], [0, 1e6, 0]])  # a part of millions of pixels, whose centre is seen
    matrices[0, 8, :, 2] = 7 - 1e6 * template[8, [1, 0]]
    matrices[0, 9] = torch.tensor([[1e-3, 0, 0], [0, 1e-3, 0]])  # between pixels
    matrices[0, 9, :, 2] = 7.5
    matrices, template = matrices.to(device), template.to(device)
    grad = torch.randn(1, 10, size, size, dtype=dtype, device=device)
    images = kernels.forward(matrices, template, size)[0].cpu()
    gradient = kernels.backward(grad, matrices, template, size)[0].cpu()
    assert images[1:3].isnan().all() and gradient[1:3].isnan().all()
    for part in (3, 4, 5, 6, 9):
        assert (images[part] == 0).all() and (gradient[part] == 0).all(), part
    values, exact = expected(grad, matrices, template, size)
    for part in (0, 7, 8):
        torch.testing.assert_close(images[part].double(), values[0, part], rtol=0, atol=ABSOLUTE[dtype])
    assert_close_gradients(gradient[0], exact[0, 0], relative=RELATIVE[dtype])
    assert gradient[8].isfinite().all() and gradient[8].any()


def check_gradients_beyond_a_part_do_not_count(kernels, device="cpu"):
    matrices, template = parts(1, 2, 24, device=device)
    template[:, :2], template[:, 2:4], matrices[0] = 12, 1.5, torch.eye(2, 3)
    grad = torch.randn(1, 2, 24, 24, device=device)
    clean = kernels.backward(grad, matrices, template, 24)
    grad[0, 0, :3], grad[0, 0, 5, 5] = math.nan, math.inf  # the first outside its box, the second in a corner of it
    assert torch.equal(kernels.backward(grad, matrices, template, 24), clean)
    grad[0, 0, 12, 11] = math.inf
    found = kernels.backward(grad, matrices, template, 24)
    assert not found[0, 0].isfinite().all() and torch.equal(found[0, 1], clean[0, 1])


def check_bits(kernels, dtype, images, device="cpu"):
    """The same bits in every run, and whatever other parts there are."""
    matrices, template = parts(images, 3, 20, dtype, device)
    matrices[-1, -1], template[-1, :2] = torch.eye(2, 3), 9.7  # in sight
    grad = torch.randn(images, 3, 20, 20, device=device, dtype=dtype)
    found, gradient = kernels.forward(matrices, template, 20), kernels.backward(grad, matrices, template, 20)
    assert torch.equal(found, kernels.forward(matrices, template, 20))
    assert torch.equal(gradient, kernels.backward(grad, matrices, template, 20))
    last, alone = matrices[-1:, -1:].contiguous(), template[-1:].contiguous()
    assert torch.equal(found[-1:, -1:], kernels.forward(last, alone, 20)) and found[-1, -1].any()
    assert torch.equal(gradient[-1:, -1:], kernels.backward(grad[-1:, -1:], last, alone, 20))


def check_nothing(kernels, device="cpu"):
    template = parts(1, 3, 8, device=device)[1]
    matrices = torch.zeros(0, 3, 2, 3, device=device)
    images = kernels.forward(matrices, template, 8)
    assert images.shape == (0, 3, 8, 8) and kernels.backward(images, matrices, template, 8).shape == matrices.shape
