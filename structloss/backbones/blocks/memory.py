"""Activations that are cheaper to compute again than to keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

__all__ = ["recomputed"]

# Below this many elements (2 MB of float32) the memory is not worth the time, up to 4 % of a small network's step.
_LARGE = 1 << 19


def recomputed(make: Callable[[Tensor], Tensor], x: Tensor, use: Callable[[Tensor], Tensor]) -> Tensor:
    """`use(make(x))`, where the backward pass of `use` computes `make(x)` again instead of keeping it.

    For an element-wise function, a normalisation or a change of layout whose own backward pass keeps `x` anyway: a GELU
    before a linear layer costs the memory of one tensor instead of two. Gradients, second ones too, are what they would
    be. In a compiled or exported graph this is left to the compiler.

    Args:
        make: cheap, deterministic function.
        x: its input.
        use: what takes its output; anything it saves of that output, in any view, is computed again.
    """
    made = make(x)
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and made.requires_grad) or made.numel() < _LARGE:
        return use(made)
    here, count, source = made.data_ptr(), made.numel(), x.detach()
    autocast = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type)

    def pack(tensor: Tensor) -> Any:
        same = tensor.data_ptr() == here and tensor.numel() == count and tensor.dtype == made_dtype
        return (tuple(tensor.shape), tensor.stride()) if same else tensor

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad(), torch.autocast(x_device, dtype=dtype, enabled=autocast):
            again = make(source)
        return again.as_strided(*kept)

    made_dtype, x_device = made.dtype, x.device.type
    with saved_tensors_hooks(pack, unpack):
        return use(made)
