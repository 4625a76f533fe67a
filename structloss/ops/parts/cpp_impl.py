"""Parts by the compiled CPU kernel, called with pointers."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels import native
from . import kept_memory

__all__ = ["backward", "forward", "problem"]

_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


def problem(device: torch.device, dtype: torch.dtype) -> str:
    """Why this backend can't render parts, in one sentence; empty if it can."""
    if hasattr(native.cpu_module(), "render_parts"):
        return ""
    return "the installed native library lacks render_parts; reinstall structloss."


def forward(
    matrices: Tensor,  # [N, P, 2, 3]
    template: Tensor,  # [P, 6]
    size: int,
) -> Tensor:
    """The parts' images [N, P, size, size]."""
    N, P = matrices.shape[:2]
    if N * P * size * size * matrices.itemsize >= kept_memory.FROM_BYTES:
        # Where it holds zeros, what a part doesn't cover need not even be there.
        image, holds_zeros = kept_memory.tensor((N, P, size, size), matrices.dtype)
    else:
        image, holds_zeros = matrices.new_empty(N, P, size, size), False
    native.cpu_module().render_parts(
        _DTYPES[matrices.dtype],
        (N, P, size),
        matrices.data_ptr(),
        template.data_ptr(),
        image.data_ptr(),
        holds_zeros,
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
