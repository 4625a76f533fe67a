"""What a number of a pose measures, and whether poses look as if they measured something else."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from .errors import ArgumentError, shown

__all__ = ["METRES", "check_unit", "extent", "glance", "is_due", "warn_of_size"]

METRES: Mapping[str, float] = MappingProxyType({"mm": 1e-3, "cm": 1e-2, "m": 1.0})
"""Metres per unit."""

# A person measures half a metre to two metres, a face or a hand alone a tenth. Beyond these it is another unit.
SMALLEST, LARGEST = 0.02, 20.0


def check_unit(unit: object) -> float:
    """Metres per unit, of "mm", "cm" or "m", or of the number itself, as in :mod:`structloss.learned`.

    Raises:
        ArgumentError: anything else.
    """
    if isinstance(unit, str) and unit in METRES:
        return METRES[unit]
    number = float(unit) if isinstance(unit, (int, float)) and not isinstance(unit, bool) else math.nan
    if not 0 < number < math.inf:
        names = ", ".join(map(repr, METRES))
        raise ArgumentError(f"unit is {shown(unit)}, expected one of {names}, or metres per unit as a number above 0.")
    return number


def extent(pose: Tensor, seen: Tensor | None = None) -> float:
    """How far a body reaches: the largest difference of a coordinate between its joints, of `[..., J, C]` the median
    over frames. Joints that are not `seen` `[..., J]` or not finite, and frames whose joints coincide, do not count.
    NaN where nothing does."""
    pose = pose.detach()
    known = pose.isfinite() if seen is None else pose.isfinite() & seen[..., None]
    if not pose.numel():
        return math.nan
    high = torch.where(known, pose, -math.inf).amax(-2)
    low = torch.where(known, pose, math.inf).amin(-2)
    spread = (high - low).amax(-1).flatten()
    spread = spread[(spread > 0) & spread.isfinite()]
    return float(spread.median()) if spread.numel() else math.nan


def glance(pose: Tensor) -> float:
    """:func:`extent` of the first and the last frame of `[..., J, C]` alone, the larger: microseconds on the CPU.

    NaN elsewhere and in a compiled graph: a GPU would be waited for, a graph broken.
    """
    if torch.compiler.is_compiling() or pose.device.type != "cpu" or not pose.numel():
        return math.nan
    try:
        frames = [pose.detach()[(at,) * (pose.dim() - 2)].tolist() for at in (0, -1)]
    except RuntimeError:  # what torch.func transforms has no values to read
        return math.nan
    reach = (max(max(axis) - min(axis) for axis in zip(*frame, strict=True)) for frame in frames)
    return max((size for size in reach if 0 < size < math.inf), default=math.nan)


def is_due(where: str) -> bool:
    """Whether this call of a loss is one of those that look at their poses: the first, second, fourth, eighth, ... of
    `where` in this process. A training's unit does not change, and a look costs a loss a tenth of its time. Never in
    a compiled graph."""
    if torch.compiler.is_compiling():
        return False
    calls = _calls[where] = _calls.get(where, 0) + 1
    return calls & (calls - 1) == 0


_calls: dict[str, int] = {}


def looks_like(size: float) -> str:
    """The unit in which a body of this extent is a person, in words."""
    return min(_WORDS, key=lambda word: abs(math.log(size * _WORDS[word])))


_WORDS = {"millimetres": 1e-3, "metres": 1.0}


def warn_of_size(argument: str, size: float, metres: float, remedy: str, *, small: bool = True, depth: int = 3) -> None:
    """Warn if bodies of this extent, in a unit of so many metres, are none.

    Args:
        argument: name of the poses.
        size: from :func:`extent`; NaN says nothing.
        metres: per unit of the poses.
        remedy: what to do, the end of the sentence.
        small: whether poses may also be too small; an untrained network's are.
        depth: of the call for which the warning is.
    """
    if size * metres > LARGEST or (small and size * metres < SMALLEST):
        warnings.warn(
            f"{argument} has bodies of {size:.4g}, {size * metres:.4g} m in the unit taken; they look like "
            f"{looks_like(size)}: {remedy}.",
            UserWarning,
            stacklevel=depth,
        )
