"""The CUDA kernels, called with pointers and strides on torch's current stream.

Nothing waits for the GPU: sizes are known on the host, and results stay on the device.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import BackendError
from ..kernels import native
from .cuda_call import MOST_TERMS, ObjectiveRequest, RankingRequest, TablesRequest, describe, dtype_number, tables_of
from .devices import device_guard, stream_of
from .dtypes import compute_dtype

__all__ = ["TAKES_HALF_TYPES", "objective", "problem_of", "ranking_hinge", "scale_"]

# The kernels read half types and compute in float32.
TAKES_HALF_TYPES = True

_HALF = (torch.float16, torch.bfloat16)


class Library:
    """The functions of the compiled library.

    Raises:
        BackendError: it was compiled from other sources than these Python files.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.structloss_cuda_sizes.restype = ctypes.c_int64
        library.structloss_cuda_error.restype = ctypes.c_char_p
        library.structloss_cuda_term.restype = ctypes.c_char_p
        for which, request in enumerate((ObjectiveRequest, RankingRequest, TablesRequest)):
            if (size := library.structloss_cuda_sizes(which)) != ctypes.sizeof(request):
                raise BackendError(
                    f"the CUDA library's {request.__name__} has {size} bytes, expected {ctypes.sizeof(request)}; "
                    "reinstall structloss."
                )
        names = (library.structloss_cuda_term(number).decode() for number in range(MOST_TERMS))
        self.term_numbers = {name: number for number, name in enumerate(names)}

    def _check(self, error: int) -> None:
        if error:
            text = self._library.structloss_cuda_error(error).decode()
            raise BackendError(f"a CUDA kernel of structloss could not run: {text}.")

    def run(self, name: str, request: ctypes.Structure, device: torch.device) -> None:
        """Bring the workspace that a request asks for, and queue it."""
        size = ctypes.c_int64()
        address = ctypes.byref(request)
        with device_guard(device):
            self._check(getattr(self._library, f"structloss_cuda_{name}_bytes")(address, ctypes.byref(size)))
            # The allocator keeps this memory for the stream that is current here, so it may be let go right after.
            workspace = torch.empty(max(size.value, 1), dtype=torch.uint8, device=device)
            request.workspace = workspace.data_ptr()
            self._check(getattr(self._library, f"structloss_cuda_{name}")(address))

    def scale(self, grad: Tensor, by: Tensor) -> None:
        """grad *= by, in place; `by` is 0-d, of the same dtype and device, `grad` contiguous."""
        with device_guard(grad.device):
            error = self._library.structloss_cuda_scale(
                ctypes.c_void_p(stream_of(grad.device)),
                grad.device.index or 0,
                dtype_number(grad.dtype),
                ctypes.c_void_p(grad.data_ptr()),
                ctypes.c_void_p(by.data_ptr()),
                ctypes.c_int64(grad.numel()),
            )
        self._check(error)

    def problem_of(self, device: torch.device) -> str:
        """Why the kernels can't run on a device, in one sentence, or ""."""
        with device_guard(device):
            error = self._library.structloss_cuda_probe(device.index or 0)
        if not error:
            return ""
        text = self._library.structloss_cuda_error(error).decode()
        return f"the compiled kernels don't run on {device} with its driver: {text}."


@functools.cache
def _library() -> Library:
    return Library(native.cuda_library())


def problem_of(device: torch.device) -> str:
    """Why the kernels can't run on a device, in one sentence, or ""."""
    return _library().problem_of(device)


def _readable(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What the kernels that compute in `dtype` can read."""
    if x is None or x.dtype == dtype or (dtype == torch.float32 and x.dtype in _HALF):
        return x
    return x.to(dtype)


def objective(
    pred: Tensor,  # [B, T, J, 3]
    target: Tensor | None,  # [B, T, J, 3]
    weight: Tensor | None,  # [B, T, J]
    lambdas: Sequence[float] | Tensor,
    terms: tuple[str, ...],
    skeleton: str,
    options: str,
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Total, values [K] of the terms and, if asked for, the gradient of the total, in float32 or (float64) float64."""
    library, device = _library(), pred.device
    dtype = compute_dtype(pred.dtype)
    grad = torch.empty(pred.shape if need_grad else (0,), dtype=dtype, device=device)
    # Two outputs of the registered operator must not share memory, hence no view of one tensor [1 + K].
    total = torch.empty((), dtype=dtype, device=device)
    values = torch.empty(len(terms), dtype=dtype, device=device)
    readable = [_readable(x, dtype) for x in (pred, target, weight)]
    request = ObjectiveRequest(stream=stream_of(device), device=device.index or 0, dtype=dtype_number(dtype))
    request.pred, request.target, request.weight = (describe(x) for x in readable)
    request.grad = grad.data_ptr() if need_grad else None
    request.total, request.values = total.data_ptr(), values.data_ptr()
    request.B, request.T, request.J = pred.shape[:3]
    if isinstance(lambdas, Tensor):
        lambdas = lambdas.to(dtype).contiguous()
        request.lambdas = lambdas.data_ptr()
    else:
        request.lambda_[: len(terms)] = lambdas
    request.term[: len(terms)] = [library.term_numbers[term] for term in terms]
    request.n_terms = len(terms)
    request.reduction = reduction == "sum"
    tables, memory = tables_of(terms, skeleton, options)
    request.tables = tables
    library.run("objective", request, device)
    del memory  # lived until here
    return total, values, grad


def ranking_hinge(
    pred: Tensor,  # [R, N]
    target: Tensor,  # [R, N]
    weight: Tensor | None,  # [R, N]
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Scalar hinge over the rows and, if asked for, its gradient, in float32 or (float64) float64."""
    device = pred.device
    dtype = compute_dtype(pred.dtype)
    grad = torch.empty(pred.shape if need_grad else (0,), dtype=dtype, device=device)
    value = torch.empty((), dtype=dtype, device=device)
    readable = [_readable(x, dtype) for x in (pred, target, weight)]
    request = RankingRequest(stream=stream_of(device), device=device.index or 0, dtype=dtype_number(dtype))
    request.pred, request.target, request.weight = (describe(x) for x in readable)
    request.grad = grad.data_ptr() if need_grad else None
    request.value = value.data_ptr()
    request.R, request.N = pred.shape
    request.reduction = reduction == "sum"
    _library().run("ranking", request, device)
    return value, grad


def scale_(grad: Tensor, by: Tensor) -> Tensor:
    """grad *= by in place and without asking for the value of `by` (0-d): a factor of 1 costs nothing."""
    _library().scale(grad, by)
    return grad
