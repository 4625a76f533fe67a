"""Checks of tensors. Each raises an error that names the argument; import them from `structloss.errors`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .errors import ArgumentError, DtypeError

__all__ = [
    "check_finite_tensors",
    "check_floating",
    "check_not_negative",
    "check_same_device",
    "check_same_shape",
    "check_tensor",
    "check_weight",
]


def check_tensor(argument: str, value: object, expected: str = "a tensor") -> None:
    """Raise unless `value` is a tensor. What `argument` is called is what it is called in the hint too."""
    if isinstance(value, Tensor):
        return
    if isinstance(value, np.ndarray | np.generic):
        raise DtypeError(f"{argument} is a numpy array, expected {expected}: torch.from_numpy({argument}) makes one.")
    raise DtypeError(f"{argument} is a {type(value).__name__}, expected {expected}.")


def check_floating(argument: str, tensor: object) -> None:
    """Raise unless `tensor` is a floating-point tensor."""
    check_tensor(argument, tensor, "a floating-point tensor")
    assert isinstance(tensor, Tensor)
    if not tensor.is_floating_point():
        raise DtypeError(f"{argument} has dtype {tensor.dtype}, expected a floating-point dtype.")
    _check_dense(argument, tensor)


def _check_dense(argument: str, tensor: Tensor) -> None:
    """Raise for sparse and nested tensors."""
    if tensor.is_nested:
        raise ArgumentError(f"{argument} is a nested tensor, expected one of clips of the same length, padded to it.")
    if tensor.layout != torch.strided:
        raise ArgumentError(
            f"{argument} has the layout {tensor.layout}, expected a dense tensor: .to_dense() makes one."
        )


def check_same_shape(argument: str, tensor: Tensor, other: str, like: Tensor) -> None:
    """Raise unless both tensors have the same shape."""
    if tensor.shape != like.shape:
        raise ArgumentError(
            f"{argument} has shape {list(tensor.shape)}, expected {list(like.shape)}, the shape of {other}."
        )


def check_same_device(argument: str, tensor: Tensor, other: str, like: Tensor) -> None:
    """Raise unless both tensors are on the same device."""
    if tensor.device != like.device:
        raise ArgumentError(f"{argument} is on {tensor.device}, expected {like.device}, where {other} is.")


def check_weight(weight: Tensor | None, pred: Tensor, shape: Sequence[int]) -> Tensor | None:
    """Check `weight` and expand it to `shape`; booleans and integers are allowed.

    That it is not negative is checked on the CPU only: on a GPU the look would wait for the device, and in a compiled
    graph it would break the graph.
    """
    if weight is None:
        return None
    check_tensor("weight", weight, "a real tensor")
    if weight.is_complex():
        raise DtypeError(f"weight has dtype {weight.dtype}, expected a real one.")
    _check_dense("weight", weight)
    check_same_device("weight", weight, "pred", pred)
    if weight.requires_grad:
        raise ArgumentError("weight requires grad, expected one that doesn't, since no gradient flows to it.")
    sizes = zip(weight.shape[::-1], shape[::-1], strict=False)
    # Not `w not in (1, s)`: under torch.compile that is false for a symbolic size that a guard has made a number.
    if weight.dim() > len(shape) or any(w != 1 and w != s for w, s in sizes):
        raise ArgumentError(
            f"weight has shape {list(weight.shape)}, expected {list(shape)}, the shape of pred without xyz."
            if len(shape) != pred.dim()
            else f"weight has shape {list(weight.shape)}, expected {list(shape)}, the shape of pred."
        )
    check_not_negative(weight)
    return weight.expand(shape)


def check_not_negative(weight: Tensor) -> None:
    """Raise if a weight on the CPU has a value below 0, or none; not in a compiled graph."""
    if torch.compiler.is_compiling() or not weight.is_cpu or weight.dtype == torch.bool or not weight.numel():
        return
    try:
        smallest = float(weight.min())
    except RuntimeError:  # a fake tensor, or one that torch.func transforms, has no values to read
        return
    if not smallest >= 0:
        raise ArgumentError(f"weight has the value {smallest:g}, expected values >= 0.")


def check_finite_tensors(**tensors: Tensor | None) -> None:
    """Raise if any of the named tensors holds a NaN or an infinity; the values are read, so it waits for a GPU."""
    for argument, tensor in tensors.items():
        if tensor is not None and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise ArgumentError(f"{argument} has {count} NaN or infinite values, expected finite ones.")
