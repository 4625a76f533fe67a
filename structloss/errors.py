"""Exceptions, and the checks that raise them.

Every message is one sentence that names the argument, what was found and what was expected. The command line prints
any :class:`StructlossError` on one line without a traceback, so library code raises nothing else for bad input.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = [
    "ArgumentError",
    "BackendError",
    "CheckpointError",
    "DataError",
    "DtypeError",
    "MissingDependencyError",
    "MissingFileError",
    "StructlossError",
    "UnknownNameError",
    "check_choice",
    "check_finite_tensors",
    "check_floating",
    "check_name",
    "check_same_device",
    "check_same_shape",
    "check_weight",
    "needs_extra",
    "shown",
]


class StructlossError(Exception):
    """Base of everything this library raises on purpose."""


class ArgumentError(StructlossError, ValueError):
    """An argument has a shape, value or device that the function can't take."""


class DtypeError(ArgumentError, TypeError):
    """A tensor has a dtype that the function can't take."""


class UnknownNameError(StructlossError, ValueError, KeyError):
    """A name (term, backbone, skeleton, backend, action, ...) that is not registered."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class BackendError(StructlossError, RuntimeError):
    """A backend asked for by name can't serve the call on this machine."""


class CheckpointError(StructlossError, ValueError):
    """A checkpoint that can't be read safely, or that belongs to another model."""


class DataError(StructlossError, ValueError):
    """A data file with unexpected content."""


class MissingFileError(StructlossError, FileNotFoundError):
    """A file that does not exist."""


class MissingDependencyError(StructlossError, ImportError):
    """An optional package is not installed."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Around imports: a package that is missing raises :class:`MissingDependencyError`, which says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", __name__.partition(".")[0]):  # no extra would help
            raise
        raise MissingDependencyError(
            f"{package} is not installed, expected the {extra} extra: pip install 'structloss[{extra}]'."
        ) from error


def check_name(kind: str, name: object, known: Collection[str]) -> str:
    """Return `name` if it is one of `known`; otherwise raise :class:`UnknownNameError` with the nearest names."""
    if isinstance(name, str) and name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"expected one of {', '.join(known)}."
    raise UnknownNameError(f"unknown {kind} {name!r}: {hint}")


def shown(value: object) -> str:
    """A value as it stands in a message: its repr if that is short and on one line, else its type."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def check_choice(argument: str, value: object, choices: Sequence[str]) -> str:
    """Return `value` if it is one of the fixed `choices` of `argument`; otherwise raise :class:`ArgumentError`."""
    if not isinstance(value, str) or value not in choices:
        expected = ", ".join(map(repr, choices))
        raise ArgumentError(f"{argument} is {shown(value)}, expected one of {expected}.")
    return value


def check_floating(argument: str, tensor: object) -> None:
    """Raise unless `tensor` is a floating-point tensor."""
    if not isinstance(tensor, Tensor):
        raise DtypeError(f"{argument} is a {type(tensor).__name__}, expected a floating-point tensor.")
    if not tensor.is_floating_point():
        raise DtypeError(f"{argument} has dtype {tensor.dtype}, expected a floating-point dtype.")


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
    if not isinstance(weight, Tensor) or weight.is_complex():
        found = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise DtypeError(f"weight is a {found}, expected a real tensor.")
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
    if not torch.compiler.is_compiling() and weight.device.type == "cpu" and weight.numel():
        smallest = float(weight.min())
        if not smallest >= 0:
            raise ArgumentError(f"weight has the value {smallest:g}, expected values >= 0.")
    return weight.expand(shape)


def check_finite_tensors(**tensors: Tensor | None) -> None:
    """Raise if any of the named tensors holds a NaN or an infinity; looks at the values, so it waits for a GPU."""
    for argument, tensor in tensors.items():
        if tensor is not None and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise ArgumentError(f"{argument} has {count} NaN or infinite values, expected finite ones.")
