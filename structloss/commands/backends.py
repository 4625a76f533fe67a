"""`structloss backends`: which kernels work here, and what was compiled when structloss was installed."""

from __future__ import annotations

import argparse

from ._parser import command

__all__ = ["add"]

ORDER = 85

_AGAIN = "pip install --force-reinstall --no-deps --no-cache-dir, of what structloss was installed from"


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "backends",
        "tell which kernels work on this machine, why the others don't, and what was compiled for it",
        "  structloss backends\n",
    )
    parser.set_defaults(run=_backends)


def _backends(arguments: argparse.Namespace) -> None:
    from ..ops.backend import backends

    for name, status in backends().items():
        print(f"{name:8}{_yes(status.available)}{status.reason}")
    print("\ncompiled when structloss was installed:")
    for name, problem, note in _compiled():
        print(f"{name:14}{_yes(not problem)}{problem or note}")


def _yes(there: bool) -> str:
    return "yes  " if there else "no   "


def _compiled() -> list[tuple[str, str, str]]:
    """(what, why it is not there and what to do, what it is) of each compiled library."""
    import torch

    from ..kernels import native

    cpu, module = native.cpu_problem(), native.cpu_module()
    if cpu:
        cpu = f"{cpu.rstrip('.')}. Install a C++ compiler, such as g++ or clang, and structloss again: {_AGAIN}."
    cuda = native.cuda_problem()
    if cuda and torch.version.cuda is None:
        cuda = f"{cuda.rstrip('.')}. It is not needed here: torch is built without CUDA."
    elif cuda:
        cuda = (
            f"{cuda.rstrip('.')}. The triton backend serves GPUs without it; for the last of the speed put nvcc of the "
            f"CUDA toolkit on the PATH, and install structloss again: {_AGAIN}."
        )
    return [
        ("CPU module", cpu, f"the cpp backend, with {module.instruction_set()} here." if module is not None else ""),
        (
            "CUDA library",
            cuda,
            f"the cuda backend, {native.cuda_built() or 'of a version that does not tell for which GPUs'}.",
        ),
    ]
