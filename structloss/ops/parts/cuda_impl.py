"""Rendered parts and their gradient as CUDA kernels, called with pointers on torch's current stream.

Nothing waits for the GPU. Beside the result there are, for the gradient alone, five sums per part and 64 rows.
"""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from ...errors import BackendError
from ...kernels import native
from ..cuda_call import dtype_number
from ..devices import device_guard, stream_of

__all__ = ["backward", "forward"]

_pointer, _int, _long = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64


class PartsRequest(ctypes.Structure):
    """One call (csrc/cuda/request.h): parts, or with `grad` the gradient of their matrices."""

    _fields_ = [
        ("stream", _pointer),
        ("device", _int),
        ("dtype", _int),
        *((name, _pointer) for name in ("matrices", "templates", "grad")),
        ("grad_stride", _long * 4),
        *((name, _pointer) for name in ("out", "workspace")),
        *((name, _long) for name in ("parts", "template_parts", "size")),
    ]


class Library:
    """The functions of the compiled library that are about parts.

    Raises:
        BackendError: it was compiled from other sources than these Python files.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        try:
            size = library.structloss_cuda_parts_request_bytes
        except AttributeError:
            raise BackendError("the CUDA library has no kernels for render_parts; reinstall structloss.") from None
        size.restype = library.structloss_cuda_parts_bytes.restype = _long
        library.structloss_cuda_error.restype = ctypes.c_char_p
        if size() != ctypes.sizeof(PartsRequest):
            raise BackendError(
                f"the CUDA library's PartsRequest has {size()} bytes, expected {ctypes.sizeof(PartsRequest)}; "
                "reinstall structloss."
            )

    def run(self, out: Tensor, matrices: Tensor, template: Tensor, size: int, grad: Tensor | None = None) -> None:
        """Queue a call; results go to `out`."""
        device = out.device
        request = PartsRequest(
            stream=stream_of(device),
            device=device.index or 0,
            dtype=dtype_number(out.dtype),
            matrices=matrices.data_ptr(),
            templates=template.data_ptr(),
            out=out.data_ptr(),
            parts=matrices.shape[0] * matrices.shape[1],
            template_parts=template.shape[0],
            size=size,
        )
        if grad is not None:
            request.grad = grad.data_ptr()
            request.grad_stride[:] = grad.stride()
        address = ctypes.byref(request)
        with device_guard(device):
            # The allocator keeps this memory for the stream that is current here, so it may be let go right after.
            workspace = torch.empty(
                self._library.structloss_cuda_parts_bytes(address), dtype=torch.uint8, device=device
            )
            request.workspace = workspace.data_ptr()
            if error := self._library.structloss_cuda_parts(address):
                text = self._library.structloss_cuda_error(error).decode()
                raise BackendError(f"a CUDA kernel of structloss could not run: {text}.")


@functools.cache
def _library() -> Library:
    return Library(native.cuda_library())


def forward(
    matrices: Tensor,  # [N, P, 2, 3]
    template: Tensor,  # [P, 6]
    size: int,
) -> Tensor:
    """Parts [N, P, size, size] in the matrices' dtype, float32 or float64; inputs are contiguous."""
    out = torch.empty((*matrices.shape[:2], size, size), dtype=matrices.dtype, device=matrices.device)
    if out.numel():
        _library().run(out, matrices, template, size)
    return out


def backward(
    grad: Tensor,  # [N, P, size, size], any strides
    matrices: Tensor,  # [N, P, 2, 3]
    template: Tensor,  # [P, 6]
    size: int,
) -> Tensor:
    """Gradient [N, P, 2, 3] of the matrices, from that of the parts; all of one dtype, the others contiguous."""
    out = torch.empty_like(matrices)
    if out.numel():
        _library().run(out, matrices, template, size, grad)
    return out
