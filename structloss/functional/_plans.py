"""Calls like earlier ones: what was checked, encoded and laid out for their arguments is not done again.

The key of a call says everything that its checks and its layout depend on, but for values: its terms and
options, and of each tensor the shape, strides, dtype and device. A call whose key has a plan passes those checks. What
depends on values (signs of weights, NaN, whether a target asks for a gradient) is looked at in every call.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..ops import autograd
from ..ops.backend import current_backend

__all__ = ["Key", "Plan", "find", "options_key", "remember"]

Key = tuple[Any, ...]

# Plans that are kept, about a kilobyte each; the oldest goes first.
MOST = 512


class Plan(NamedTuple):
    """What is kept of a call.

    Attributes:
        launch: the backend's part; None where it keeps nothing, and then the call goes the way that any call goes.
        options: as text.
        units: terms that assume a unit, and their options.
        weight_shape: what the weight is expanded to; None if it is as it should be.
    """

    launch: autograd.Plan | None
    options: str = ""
    units: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    weight_shape: tuple[int, ...] | None = None


_plans: dict[Key, Plan] = {}
_writing = threading.Lock()  # reading needs none

# Tensors like any other; what a subclass does is its own affair.
_TENSORS = frozenset({Tensor, torch.nn.Parameter})
_CONSTANTS = frozenset({str, int, float, bool, type(None)})


def options_key(options: Mapping[str, object]) -> Key:
    """A term's options by name, type and value.

    Raises:
        TypeError: one is neither a constant nor a tuple or list of constants; a tensor or an array may change its
            value and stay the same object.
    """
    found: list[Any] = []
    for name, value in options.items():
        kind: Any = type(value)  # True, 1 and 1.0 are equal
        if kind in _CONSTANTS:
            found += name, kind, value
        elif isinstance(value, (tuple, list)) and _CONSTANTS.issuperset(kinds := tuple(map(type, value))):
            found += name, kind, kinds, tuple(value)
        else:
            raise TypeError(f"{name} is a {kind.__name__}, expected a constant.")
    return tuple(found)


def find(
    of: str,
    terms: tuple[str, ...],
    options: Mapping[str, Mapping[str, object]] | None,
    skeleton: str,
    reduction: str,
    backend: str | None,
    pred: Tensor,
    target: Tensor | None,
    weight: Tensor | None,
) -> tuple[Key | None, Plan | None]:
    """The key of a call and the plan for it, if there is one.

    The key is None where the call takes nothing from an earlier one and leaves nothing for a later: while a graph is
    compiled, within forward-mode AD, which is refused, and for tensors that are not plain ones. `of` is "poses", "rows"
    or "term": a term by itself, of which the skeleton may be "".
    """
    if torch.compiler.is_compiling() or type(pred) not in _TENSORS or pred.is_neg() or forward_ad._current_level >= 0:
        return None, None
    try:
        key: Key = (
            of,
            terms,
            skeleton,
            reduction,
            backend or current_backend(),
            pred.shape,
            pred.stride(),
            pred.dtype,
            pred.device,
        )
        pred.data_ptr()  # raises for what only wraps a tensor, as the transforms of torch.func do
        for x in (target, weight):
            if x is None:
                key += (None,)
            elif type(x) not in _TENSORS or x.requires_grad or x.is_neg():
                return None, None
            else:
                x.data_ptr()
                key += (x.shape, x.stride(), x.dtype, x.device)
        if options is not None:
            key += tuple((name, options_key(given)) for name, given in options.items())
        return key, _plans.get(key)
    # Sparse and nested tensors have no strides, lists no hash, what is no mapping has no items: the checks tell.
    except (RuntimeError, TypeError, AttributeError):
        return None, None


def remember(key: Key, plan: Plan) -> None:
    """Keep a plan for calls of this key."""
    with _writing:
        while len(_plans) >= MOST:
            del _plans[next(iter(_plans))]
        _plans[key] = plan
