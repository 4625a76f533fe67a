"""Which implementation serves a call, and why another can't."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from ..errors import BackendError, check_name

__all__ = [
    "BACKENDS",
    "BackendStatus",
    "backends",
    "choose",
    "current_backend",
    "interpreted",
    "resolve",
    "use_backend",
]

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


def _triton_problem() -> str:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)."
    if interpreted() or torch.cuda.is_available():
        return ""
    return "it needs a GPU, and torch finds none (TRITON_INTERPRET=1 runs the kernels, slowly, on the CPU)."


def _cuda_problem() -> str:
    from ..kernels import native

    if problem := native.cuda_problem():
        return problem
    if torch.version.cuda is None or not torch.cuda.is_available():
        return "it needs an NVIDIA GPU, and torch finds none."
    return ""


def interpreted() -> bool:
    """Whether Triton kernels run in Triton's interpreter, which takes CPU tensors too."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


_PROBLEMS: dict[str, Callable[[], str]] = {
    "auto": lambda: "",
    "torch": lambda: "",
    "cpp": _cpp_problem,
    "triton": _triton_problem,
    "cuda": _cuda_problem,
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


# What a thread or async task chose for itself; where it chose nothing, the process's choice holds.
_chosen: ContextVar[str | None] = ContextVar("structloss_backend", default=None)
_of_process: str = _initial()


def current_backend() -> str:
    """The backend of calls that name none: set by :class:`use_backend`, else by STRUCTLOSS_BACKEND, else "auto"."""
    return _chosen.get() or _of_process


class use_backend:
    """Choose the default backend: a plain call sets it, a `with` block restores the one before.

    Each thread and each async task has a choice of its own and sees that of no other. A plain call in the main thread
    is also the choice of the threads and tasks that make none.

    Args:
        name: "auto", "torch", "cpp", "triton" or "cuda". "auto" takes the first that can serve a call: on the CPU
            "cpp", on a GPU "cuda" (compute capability 8.0 or more, up to 256 joints), then "triton" (up to 256 joints),
            and "torch" where none can.

    Raises:
        UnknownNameError: there is no such backend.
        BackendError: the backend can't be used on this machine. Nothing has changed then.

    Example:
        >>> import structloss
        >>> with structloss.use_backend("torch"):
        ...     pass
    """

    def __init__(self, name: str) -> None:
        global _of_process
        self._name = check_name("backend", name, BACKENDS)
        if problem := _PROBLEMS[name]():
            raise BackendError(f"backend {name!r} can't be used here: {problem}")
        # Until a `with` says otherwise this is a plain call.
        self._before_call: tuple[str | None, str] | None = (_chosen.get(), _of_process)
        self._before: list[str | None] = []  # of the blocks that are open
        _chosen.set(name)
        if threading.current_thread() is threading.main_thread():
            _of_process = name

    def __enter__(self) -> use_backend:
        global _of_process
        before = _chosen.get()
        if self._before_call is not None:
            before, of_process = self._before_call
            self._before_call = None
            if threading.current_thread() is threading.main_thread():
                _of_process = of_process
        self._before.append(before)
        _chosen.set(self._name)
        return self

    def __exit__(self, *exception: object) -> None:
        _chosen.set(self._before.pop())


# Joints per frame that the GPU kernels take.
_MOST_JOINTS = 256
# The oldest GPU generation (compute capability) that the CUDA library is compiled for.
_LEAST_CAPABILITY = (8, 0)
# What "auto" tries, by the kind of device; the first that can serve does.
_AUTO = {"cpu": ("cpp",), "cuda": ("cuda", "triton")}


@functools.cache
def unavailable_reason(name: str, device: torch.device, terms: tuple[str, ...], joints: int) -> str:
    """The eligibility rule: empty if backend `name` can serve the call, otherwise one sentence that says why not."""
    problem = _PROBLEMS[name]()
    if problem or name in ("torch", "auto"):
        return problem
    if name == "cpp":
        if device.type != "cpu":
            return f"it works on CPU tensors, and these are on {device.type}."
        from .cpp_impl import TERM_NUMBERS

        missing = [term for term in terms if term not in TERM_NUMBERS()]
        return f"the installed native library lacks the term {missing[0]!r}; reinstall structloss." if missing else ""
    if device.type != "cuda" and not (name == "triton" and device.type == "cpu" and interpreted()):
        return f"it works on GPU tensors, and these are on {device.type}."
    if joints > _MOST_JOINTS:
        return f"it takes up to {_MOST_JOINTS} joints, and these poses have {joints}."
    if name == "cuda" and (found := torch.cuda.get_device_capability(device)) < _LEAST_CAPABILITY:
        needed = ".".join(map(str, _LEAST_CAPABILITY))
        return f"it needs compute capability {needed}, and {device} has {found[0]}.{found[1]}."
    if name == "cuda":
        from .cuda_impl import problem_of

        return problem_of(device)
    return ""


def resolve(name: str | None, device: torch.device, terms: tuple[str, ...] = (), joints: int = 0) -> str:
    """The backend ("torch", "cpp", "triton" or "cuda") for a call.

    Args:
        name: a backend's name; None stands for the current default. "auto" falls back silently, logged at debug level.
        device: where the tensors are.
        terms: names of the terms asked for.
        joints: of the poses; 0 for rows.

    Raises:
        UnknownNameError: there is no such backend.
        BackendError: a backend asked for by name can't serve the call.
    """
    return choose(name, device, lambda candidate: unavailable_reason(candidate, device, terms, joints))


def choose(name: str | None, device: torch.device, reason: Callable[[str], str]) -> str:
    """As :func:`resolve`, for any operator: `reason` tells why a backend can't serve the call, "" for one that can."""
    name = check_name("backend", current_backend() if name is None else name, BACKENDS)
    if name != "auto":
        if problem := reason(name):
            raise BackendError(f"backend {name!r} can't serve this call: {problem}")
        return name
    for candidate in _AUTO.get(device.type, ()):
        problem = reason(candidate)
        if not problem:
            return candidate
        if _log.isEnabledFor(logging.DEBUG):  # this is on the path of every call
            _log.debug("backend auto: %s can't serve: %s", candidate, problem)
    return "torch"
