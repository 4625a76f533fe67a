"""What a loss network's objectives share: checks of numbers and of tensors with one value per frame, and their mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor

from ..errors import ArgumentError, DtypeError, check_floating, check_same_device, check_same_shape, check_tensor, shown


def check_number(argument: str, value: object, expected: str, fits: Callable[[float], bool]) -> float:
    """The value as a float; raise unless it is a finite number that fits, as `expected` says in words."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or not fits(number):
        raise ArgumentError(f"{argument} is {shown(value)}, expected {expected}.")
    return number


def check_positive(argument: str, value: object) -> float:
    return check_number(argument, value, "a finite number above 0", lambda x: x > 0)


def check_like(tensor: Tensor, like: Tensor, argument: str, other: str) -> None:
    check_floating(argument, tensor)
    check_same_device(argument, tensor, other, like)
    check_same_shape(argument, tensor, other, like)


def check_frame_weight(weight: Tensor | None, like: Tensor, other: str) -> Tensor | None:
    """The weight in the dtype of `like`. Its sign is checked on the CPU only: on a GPU the check would wait."""
    if weight is None:
        return None
    check_tensor("weight", weight, "a real tensor")
    if weight.is_complex():
        raise DtypeError(f"weight has dtype {weight.dtype}, expected a real one.")
    check_same_device("weight", weight, other, like)
    check_same_shape("weight", weight, other, like)
    if not torch.compiler.is_compiling() and weight.device.type == "cpu" and weight.numel():
        smallest = float(weight.min())
        if not smallest >= 0:
            raise ArgumentError(f"weight has the value {smallest:g}, expected values >= 0.")
    return weight.detach().to(like.dtype)


def masked(value: Tensor, weight: Tensor | None) -> Tensor:
    """Zeros where the weight is 0: a NaN there would reach the gradient through anything computed from it."""
    if weight is None:
        return value
    seen = weight > 0
    return torch.where(seen if value.dim() == weight.dim() else seen[..., None], value, 0.0)


def energy_gap(
    energy_true: Tensor, energy_negative: Tensor, weight: Tensor | None, delta: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """E(truth) - E(negative), the checked weight and the distances without gradient (zeros for None)."""
    check_floating("energy_true", energy_true)
    check_like(energy_negative, energy_true, "energy_negative", "energy_true")
    if delta is None:
        delta = torch.zeros_like(energy_true)
    check_like(delta, energy_true, "delta", "energy_true")
    weight = check_frame_weight(weight, energy_true, "energy_true")
    gap = masked(energy_true, weight) - masked(energy_negative, weight)
    return gap, weight, masked(delta.detach(), weight)


def weighted_mean(value: Tensor, weight: Tensor | None) -> Tensor:
    """The weighted mean of everything, 0 where there is nothing to weigh; 0 still carries a graph for `backward`."""
    if weight is None:
        return value.sum() / max(value.numel(), 1)
    total = weight.sum()
    return (weight * value).sum() / torch.where(total > 0, total, 1.0)
