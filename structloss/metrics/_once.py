"""What several metrics need of one batch, computed once for all of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from torch import Tensor

__all__ = ["computed_once", "once"]

T = TypeVar("T")

# (function, arguments) -> the arguments, which keeps the tensors that their numbers stand for, and what it returned
_RESULTS: ContextVar[dict[Hashable, tuple[Any, Any]] | None] = ContextVar("_RESULTS", default=None)


@contextmanager
def computed_once() -> Iterator[None]:
    """While it lasts, functions that are marked by :func:`once` give what they gave before for the same tensors and
    options. The tensors must not be written to until it ends, and are kept until then."""
    token = _RESULTS.set({})
    try:
        yield
    finally:
        _RESULTS.reset(token)


def once(function: Callable[..., T]) -> Callable[..., T]:
    """Mark a function that depends on nothing but its arguments: tensors, which are told apart by identity, and what
    can be hashed."""

    signature = inspect.signature(function)

    @functools.wraps(function)
    def found(*args: Any, **kwargs: Any) -> T:
        results = _RESULTS.get()
        if results is None:
            return function(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        values = tuple(given.arguments.values())
        key = (function, *map(_key, values))
        if key not in results:
            results[key] = values, function(*args, **kwargs)
        return results[key][1]

    return found


def _key(value: object) -> Hashable:
    return (Tensor, id(value)) if isinstance(value, Tensor) else value
