"""Parts by the compiled CPU kernel, called with pointers."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ...kernels import native

__all__ = ["backward", "forward", "problem"]

_DTYPES = {torch.float32: "float32", torch.float64: "float64"}
# From here on, memory comes from the system and is zero, and what a part doesn't cover need not even be there: malloc
# keeps no blocks of this size. Smaller blocks have been in use before, and the kernel writes the zeros.
_FRESH_BYTES = 32 * 2**20
_ALIGNED = 64  # bytes


def problem(device: torch.device, dtype: torch.dtype) -> str:
    """Why this backend can't render parts, in one sentence; empty if it can."""
    if hasattr(native.cpu_module(), "render_parts"):
        return ""
    return "the installed native library lacks render_parts; reinstall structloss."


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros that the system provides page by page when they are first touched."""
    item = dtype.itemsize
    count = math.prod(shape)
    numbers = np.zeros(count + _ALIGNED // item, _DTYPES[dtype])
    first = -numbers.ctypes.data % _ALIGNED // item
    return torch.from_numpy(numbers[first : first + count]).view(shape)


def forward(
    matrices: Tensor,  # [N, P, 2, 3]
    template: Tensor,  # [P, 6]
    size: int,
) -> Tensor:
    """The parts' images [N, P, size, size]."""
    N, P = matrices.shape[:2]
    fresh = N * P * size * size * matrices.itemsize >= _FRESH_BYTES
    image = _zeros((N, P, size, size), matrices.dtype) if fresh else matrices.new_empty(N, P, size, size)
    native.cpu_module().render_parts(
        _DTYPES[matrices.dtype],
        (N, P, size),
        matrices.data_ptr(),
        template.data_ptr(),
        image.data_ptr(),
        fresh,
        native.parallel_for_address(),
        torch.get_num_threads(),
    )
    return image


def backward(
    grad: Tensor,  # [N, P, size, size], any strides
    matrices: Tensor,  # [N, P, 2, 3]
    template: Tensor,  # [P, 6]
    size: int,
) -> Tensor:
    """The gradient [N, P, 2, 3]; the incoming one is read where the parts are not 0, and nowhere else."""
    N, P = matrices.shape[:2]
    gradient = torch.empty_like(matrices)
    native.cpu_module().render_parts_backward(
        _DTYPES[matrices.dtype],
        (N, P, size),
        matrices.data_ptr(),
        template.data_ptr(),
        grad.data_ptr(),
        grad.stride(),
        gradient.data_ptr(),
        native.parallel_for_address(),
        torch.get_num_threads(),
    )
    return gradient
