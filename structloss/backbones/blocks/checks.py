"""Checks of constructor arguments and of a backbone's input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import ArgumentError, DtypeError, check_floating, check_same_device

__all__ = ["check_clip", "check_rate", "check_rates", "check_ratio", "check_size", "check_sizes", "has_length"]


def check_size(argument: str, value: object, *, multiple_of: int = 1) -> None:
    """Raise unless `value` is a positive integer and a multiple of `multiple_of`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or value % multiple_of:
        kind = "a positive integer" if multiple_of == 1 else f"a positive multiple of {multiple_of}"
        raise ArgumentError(f"{argument} is {value!r}, expected {kind}.")


def check_sizes(**sizes: object) -> None:
    """`check_size` for several arguments."""
    for argument, value in sizes.items():
        check_size(argument, value)


def check_rate(argument: str, value: object) -> None:
    """Raise unless `value` is a number in [0, 1)."""
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ArgumentError(f"{argument} is {value!r}, expected a rate, 0 <= rate < 1.")


def check_rates(**rates: object) -> None:
    """`check_rate` for several arguments."""
    for argument, value in rates.items():
        check_rate(argument, value)


def check_ratio(argument: str, value: object, dim: int, dim_name: str) -> int:
    """The hidden width `int(value * dim)`; raise unless it is at least 1."""
    if not isinstance(value, (int, float)) or int(dim * value) < 1:
        raise ArgumentError(f"{argument} is {value!r}, expected a number with {argument} * {dim_name} >= 1.")
    return int(dim * value)


def check_clip(
    x: object,
    weight: Tensor,
    *,
    joints: Sequence[int],
    channels: Sequence[int] = (2, 3),
    shortest: int = 1,
    longest: int | None = None,
) -> None:
    """Check the input `x` of a backbone: `[B, T, J, C]`, floating point, dtype and device of `weight`.

    Args:
        x: what the caller passed.
        weight: any parameter of the model. Its dtype must be that of `x`, except under autocast.
        joints, channels: the values of J and C that the model takes.
        shortest, longest: the T that it takes; `longest=None` is no limit.

    Raises:
        DtypeError: not a floating-point tensor, or of another dtype than the weights.
        ArgumentError: a wrong shape or device.
    """
    check_floating("x", x)
    assert isinstance(x, Tensor)
    if x.dim() != 4 or x.shape[2] not in joints or x.shape[3] not in channels:
        j, c = (" or ".join(map(str, allowed)) for allowed in (joints, channels))
        raise ArgumentError(f"x has shape {list(x.shape)}, expected [B, T, J, C] with J = {j} and C = {c}.")
    if x.shape[1] < shortest or (longest is not None and x.shape[1] > longest):
        if longest is None:
            expected = f"at least {shortest}"
        else:
            expected = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
        raise ArgumentError(f"x has {x.shape[1]} frames (shape {list(x.shape)}), expected {expected} for this model.")
    check_same_device("x", x, "the model", weight)
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise DtypeError(f"x has dtype {x.dtype}, expected {weight.dtype}, the dtype of the model's weights.")


def has_length(x: Tensor, frames: int) -> bool:
    """Whether a clip `[B, T, ...]` has exactly so many frames. False of a free length of an exported network, which
    must not be asked for one of its values: a program that only computes what one length needs would be of that one."""
    return isinstance(x.shape[1], int) and x.shape[1] == frames
