"""Which implementation serves a call, and why another can't."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import BackendError, check_name

__all__ = ["BACKENDS", "BackendStatus", "backends", "current_backend", "resolve", "use_backend"]

_log = logging.getLogger("structloss")

BACKENDS = ("auto", "torch", "cpp", "triton", "cuda")


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend can be used on this machine; true in a boolean context if it can.

    Attributes:
        available: usable at all on this machine.
        reason: if not, why, in one sentence; if so, what it is.
    """

    available: bool
    reason: str

    def __bool__(self) -> bool:
        return self.available


def _cpp_problem() -> str:
    from ..kernels import native  # the first touch of the native library is here

    return native.cpu_problem()


def _no_gpu_kernels() -> str:
    return "this version of structloss has no GPU kernels yet; on a GPU the torch backend serves."


_PROBLEMS: dict[str, Callable[[], str]] = {
    "auto": lambda: "",
    "torch": lambda: "",
    "cpp": _cpp_problem,
    "triton": _no_gpu_kernels,
    "cuda": _no_gpu_kernels,
}
_DESCRIPTIONS = {
    "auto": "the fastest backend that can serve the call.",
    "torch": "pure PyTorch, any device.",
    "cpp": "fused C++ kernels for CPU tensors.",
    "triton": "fused Triton kernels for GPU tensors.",
    "cuda": "fused CUDA kernels for GPU tensors.",
}


def backends() -> dict[str, BackendStatus]:
    """Every backend by name: whether it is available on this machine and, if not, why, in one sentence."""
    status = {}
    for name in BACKENDS:
        problem = _PROBLEMS[name]()
        status[name] = BackendStatus(not problem, problem or _DESCRIPTIONS[name])
    return status


def _initial() -> str:
    # Checked at first use rather than at import, so that a typo in the environment breaks no unrelated program.
    return os.environ.get("STRUCTLOSS_BACKEND", "auto")


_current: str = _initial()


def current_backend() -> str:
    """The backend of calls that name none: set by :class:`use_backend`, else by STRUCTLOSS_BACKEND, else "auto"."""
    return _current


class use_backend:
    """Choose the default backend: a plain call sets it for the process, a `with` block restores the one before.

    Args:
        name: "auto", "torch", "cpp", "triton" or "cuda".

    Raises:
        UnknownNameError: there is no such backend.

    Example:
        >>> import structloss
        >>> with structloss.use_backend("torch"):
        ...     pass
    """

    def __init__(self, name: str) -> None:
        global _current
        check_name("backend", name, BACKENDS)
        self._previous = _current
        _current = name

    def __enter__(self) -> use_backend:
        return self

    def __exit__(self, *exception: object) -> None:
        global _current
        _current = self._previous


@functools.cache
def _cannot_serve(name: str, device_type: str, terms: tuple[str, ...]) -> str:
    """THE eligibility rule: empty if backend `name` can serve the call, otherwise one sentence that says why not."""
    problem = _PROBLEMS[name]()
    if problem or name in ("torch", "auto"):
        return problem
    if device_type != "cpu":  # only "cpp" comes this far
        return f"it works on CPU tensors, and these are on {device_type}."
    from .cpp_impl import TERM_NUMBERS

    missing = [term for term in terms if term not in TERM_NUMBERS()]
    return f"the installed native library lacks the term {missing[0]!r}; reinstall structloss." if missing else ""


def resolve(name: str | None, device: torch.device, terms: tuple[str, ...] = ()) -> str:
    """The backend ("torch" or "cpp") for a call.

    Args:
        name: a backend's name; None stands for the current default. "auto" falls back silently, logged at debug level.
        device: where the tensors are.
        terms: names of the terms asked for.

    Raises:
        UnknownNameError: there is no such backend.
        BackendError: a backend asked for by name can't serve the call.
    """
    name = check_name("backend", _current if name is None else name, BACKENDS)
    if name == "auto":
        problem = _cannot_serve("cpp", device.type, terms)
        if problem and _log.isEnabledFor(logging.DEBUG):  # this is on the path of every call
            _log.debug("backend auto: torch, since cpp can't serve: %s", problem)
        return "torch" if problem else "cpp"
    problem = _cannot_serve(name, device.type, terms)
    if problem:
        raise BackendError(f"backend {name!r} can't serve this call: {problem}")
    return name
