"""`torch.ops.structloss.render_parts` and its backward: schemas, backends, shape functions, autograd, vmap.

A backend's module has `forward` and `backward` for tensors that are contiguous (but for the incoming gradient, whose
strides are any), in one dtype and on one device. It may have `problem(device, dtype)`: why it can't serve, or "".
"""

from __future__ import annotations

import functools
import importlib
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import torch
from torch import Tensor

from ... import shape_templates
from .. import backend as _backend
from ..dtypes import compute_dtype
from ..library import without_autocast

__all__ = ["resolve", "serving"]

#: The backends that have this operator.
SERVING = ("torch", "cpp", "triton", "cuda")


@functools.lru_cache(maxsize=64)
def unavailable_reason(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Empty if backend `name` can render parts of this dtype on this device, otherwise one sentence on why not."""
    if problem := _backend.unavailable_reason(name, device, (), 0):
        return problem
    if name == "auto":
        return ""
    if name not in SERVING:
        return "it has no kernel for render_parts."
    problem_of = getattr(_module(name), "problem", None)
    return "" if problem_of is None else problem_of(device, dtype)


def _module(name: str) -> ModuleType:
    # A backend's module is imported when it is first asked: it may open a library or compile.
    return importlib.import_module(f"..{name}_impl", __name__)


def resolve(name: str | None, device: torch.device, dtype: torch.dtype) -> str:
    """The backend ("torch", "cpp", "triton" or "cuda") for a call.

    Raises:
        UnknownNameError: there is no such backend.
        BackendError: a backend asked for by name can't serve the call.
    """
    return _backend.choose(name, device, lambda each: unavailable_reason(each, device, compute_dtype(dtype)))


def serving(name: str | None, matrices: Tensor) -> ModuleType:
    """The module of the backend for a call."""
    return _module(resolve(name, matrices.device, matrices.dtype))


@functools.cache  # without bound: a captured graph keeps reading them
def _named(name: str, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A template of the table at an image size, [P, 6]; copied to the device once."""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "the first call with this template and size is inside a CUDA graph's capture, expected one such call "
            "before it: it copies the template to the GPU."
        )
    # In a thread of its own, which is in no inference mode, and to which torch.compile(mode="reduce-overhead") lends no
    # memory that it takes back.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_copied, name, size, device, dtype).result()


def _copied(name: str, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    parameters = torch.tensor(shape_templates.get(name).at(size).parameters, dtype=torch.float64).to(device, dtype)
    if device.type == "cuda":  # filled on this thread's stream, read on others
        torch.cuda.current_stream(device).synchronize()
    return parameters


def _prepared(matrices: Tensor, parameters: Tensor | None, template: str, size: int) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(matrices.dtype)
    if parameters is None:
        parameters = _named(template, size, matrices.device, dtype)
    return matrices.to(dtype).contiguous(), parameters.to(dtype).contiguous()


@without_autocast
def _render_parts(
    matrices: Tensor,  # [N, P, 2, 3]
    parameters: Tensor | None,  # [P, 6]; None for a template by name
    template: str,
    size: int,
    backend: str | None,
) -> Tensor:
    """Images [N, P, size, size] in the compute dtype."""
    implementation = serving(backend, matrices)
    if not matrices.numel():
        return _fake_render_parts(matrices, parameters, template, size, backend)
    return implementation.forward(*_prepared(matrices, parameters, template, size), size)


@without_autocast
def _render_parts_backward(
    grad: Tensor,  # [N, P, size, size], any strides
    matrices: Tensor,  # [N, P, 2, 3]
    parameters: Tensor | None,  # [P, 6]
    template: str,
    size: int,
    backend: str | None,
) -> Tensor:
    """Gradient [N, P, 2, 3] in the dtype of the matrices."""
    implementation = serving(backend, matrices)
    if not matrices.numel():
        return torch.empty_like(matrices, memory_format=torch.contiguous_format)
    prepared = _prepared(matrices, parameters, template, size)
    return implementation.backward(grad.to(prepared[0].dtype), *prepared, size).to(matrices.dtype)


_library = torch.library.Library("structloss", "FRAGMENT")
_library.define("render_parts(Tensor matrices, Tensor? parameters, str template, int size, str? backend) -> Tensor")
_library.define(
    "render_parts_backward(Tensor grad, Tensor matrices, Tensor? parameters, str template, int size, str? backend) "
    "-> Tensor"
)
_library.impl("render_parts", _render_parts, "CompositeExplicitAutograd")
_library.impl("render_parts_backward", _render_parts_backward, "CompositeExplicitAutograd")


@torch.library.register_fake("structloss::render_parts", lib=_library)
def _fake_render_parts(matrices, parameters, template, size, backend):
    return matrices.new_empty((*matrices.shape[:2], size, size), dtype=compute_dtype(matrices.dtype))


@torch.library.register_fake("structloss::render_parts_backward", lib=_library)
def _fake_render_parts_backward(grad, matrices, parameters, template, size, backend):
    return torch.empty_like(matrices, memory_format=torch.contiguous_format)


def _keep(ctx, inputs, output):
    matrices, parameters, *ctx.rest = inputs
    ctx.save_for_backward(matrices, parameters)


def _backward(ctx, grad):
    matrices, parameters = ctx.saved_tensors
    found = torch.ops.structloss.render_parts_backward(grad, matrices, parameters, *ctx.rest)
    return found, None, None, None, None


torch.library.register_autograd("structloss::render_parts", _backward, setup_context=_keep, lib=_library)


def _keep_nothing(ctx, inputs, output):
    pass


def _no_second_backward(ctx, grad):
    raise RuntimeError(
        "structloss.render_parts is differentiable once: its gradient was differentiated again (create_graph=True), "
        "expected first derivatives only."
    )


torch.library.register_autograd(
    "structloss::render_parts_backward", _no_second_backward, setup_context=_keep_nothing, lib=_library
)
