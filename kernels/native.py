"""Lazy loader of the compiled libraries.

Nothing is opened at import. The first failure is kept and told again, whole, whenever the backend is asked for.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType

import torch

from ..errors import UnknownNameError

__all__ = ["cpu_module", "cpu_problem", "cuda_built", "cuda_library", "cuda_problem", "parallel_for_address"]


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    try:
        module = importlib.import_module("structloss.kernels._cpu")
    except ModuleNotFoundError:
        return None, "the compiled CPU module is missing (no working C++ compiler when structloss was installed)"
    except ImportError as error:  # built for another Python or C++ runtime
        return None, f"the compiled CPU module does not load here: {error}"
    try:
        module.instruction_set()
    except ValueError as error:
        raise UnknownNameError(str(error)) from None
    return module, ""


def cpu_module() -> ModuleType | None:
    """The compiled CPU module, or None where it is not installed or does not load."""
    return _load()[0]


def cpu_problem() -> str:
    """Why :func:`cpu_module` is None, in one sentence; empty where it is there."""
    return _load()[1]


@functools.cache
def _load_cuda() -> tuple[ctypes.CDLL | None, str]:
    name = {"win32": "structloss_cuda.dll"}.get(sys.platform, "libstructloss_cuda.so")
    # An editable install keeps the compiled files elsewhere, next to the CPU module.
    folders = [Path(__file__).parent]
    if (module := cpu_module()) is not None:
        folders.append(Path(module.__file__).parent)
    for folder in folders:
        if (folder / name).exists():
            try:
                return ctypes.CDLL(str(folder / name)), ""
            except OSError as error:
                return None, f"the compiled CUDA library does not load here: {error}"
        if (folder / "cuda_problem.txt").exists():
            return None, f"there are no CUDA kernels: {(folder / 'cuda_problem.txt').read_text().strip()}"
    why = "no CUDA compiler, or not asked for, when structloss was installed"
    return None, f"the compiled CUDA library is missing ({why})."


def cuda_library() -> ctypes.CDLL | None:
    """The compiled CUDA library, or None where it is not installed or does not load."""
    return _load_cuda()[0]


def cuda_problem() -> str:
    """Why :func:`cuda_library` is None, in one sentence; empty where it is there."""
    return _load_cuda()[1]


def cuda_built() -> str:
    """By what and for which GPUs :func:`cuda_library` was compiled; empty where it is not there or doesn't say."""
    library = cuda_library()
    note = Path(library._name).with_name("cuda_built.txt") if library is not None else None
    return note.read_text().strip() if note is not None and note.exists() else ""


@functools.cache
def parallel_for_address() -> int:
    """Address of torch's own parallel-for (a C symbol of libtorch since torch 2.10), 0 where there is none.

    The kernels run on torch's thread pool: there is no second OpenMP runtime, and `torch.set_num_threads` counts.
    """
    names = {"win32": "torch_cpu.dll", "darwin": "libtorch_cpu.dylib"}
    library = Path(torch.__file__).parent / "lib" / names.get(sys.platform, "libtorch_cpu.so")
    try:
        symbol = ctypes.CDLL(str(library)).torch_parallel_for
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(symbol, ctypes.c_void_p).value or 0
