"""The backends that the tests of the operators run on, on this machine."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from filelock import FileLock

import structloss
from structloss.ops import backend, library
from structloss.ops.parts import library as parts_library

SOURCES = Path(__file__).resolve().parents[1] / "csrc"
COMPILED = SOURCES.parent / "build" / "emulated"
# What no session has used for a week is deleted.
KEPT_SECONDS = 7 * 24 * 3600

TORCH = "torch"
CPP = pytest.param("cpp", marks=pytest.mark.skipif(not structloss.backends()["cpp"], reason="no compiled module"))
# The GPU's kernels, compiled for the CPU: conftest.py puts them where the marker stands.
EMULATED = pytest.param(
    "cuda", marks=[pytest.mark.emulated, pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")]
)
BACKENDS = [TORCH, CPP, EMULATED]
# Without the emulated kernels: for tests of many calls.
FAST = [TORCH, CPP]


def compile_for_the_cpu(source: Path, *options: str, more: Sequence[Path] = ()) -> ctypes.CDLL:
    """CUDA sources as C++, one library: their blocks run on the CPU, a thread after the other.

    Compiled once for all test processes and for later sessions: the file is named by what the compiler reads.
    """
    command = ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", f"-I{SOURCES}", *options]
    command += ["-x", "c++", str(source), *map(str, more)]
    version = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout
    text = subprocess.run([*command, "-E", "-P"], capture_output=True, check=False).stdout
    key = hashlib.sha256(b"\0".join([version, *map(str.encode, command), text])).hexdigest()[:16]
    COMPILED.mkdir(parents=True, exist_ok=True)
    file = COMPILED / f"{source.stem}-{key}.so"
    with FileLock(COMPILED / f"{source.stem}.lock"):  # the first process compiles, the others wait for it
        if not file.exists():
            unfinished = file.with_suffix(".part")
            done = subprocess.run([*command, "-o", str(unfinished)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            unfinished.rename(file)
        os.utime(file)
        for other in COMPILED.glob(f"{source.stem}-*.so"):
            if other.stat().st_mtime < file.stat().st_mtime - KEPT_SECONDS:
                other.unlink()
        return ctypes.CDLL(str(file))


@functools.cache
def emulated_library() -> ctypes.CDLL:
    """The GPU library for the CPU; half a minute where it is not yet compiled."""
    return compile_for_the_cpu(SOURCES / "cuda" / "objective.cu", more=[SOURCES / "cuda" / "parts.cu"])


class Emulation:
    """Within a `with` block, backend "cuda" takes CPU tensors and runs the kernels on the CPU."""

    def __init__(self) -> None:
        from structloss.ops import cuda_impl
        from structloss.ops.parts import cuda_impl as parts_impl

        self.module, self.parts_module = cuda_impl, parts_impl
        self.native = emulated_library()
        self.library, self.parts_library = cuda_impl.Library(self.native), parts_impl.Library(self.native)

    def order(self, seed: int) -> None:
        """Shuffle the order in which threads run between barriers; 0: as they come."""
        self.native.structloss_emulation_seed(ctypes.c_uint64(seed))

    def leave_out(self, barrier: int) -> None:
        """Leave out the barrier of a block with this number, in every thread; -1: none."""
        self.native.structloss_emulation_leave_out(ctypes.c_int32(barrier))

    def shared_memory(self, kilobytes: int) -> None:
        """Shared memory that a block may have; an H200 has 227 kB."""
        self.native.structloss_emulation_shared_bytes(ctypes.c_int64(kilobytes * 1024))

    def __enter__(self) -> "Emulation":
        self._before = self.module._library, self.parts_module._library, backend.unavailable_reason
        rule = backend.unavailable_reason

        def serves(name, device, terms, joints):
            if name == "cuda" and device.type == "cpu":
                return "" if joints <= 256 else "too many joints."
            return rule(name, device, terms, joints)

        self.module._library, self.parts_module._library = lambda: self.library, lambda: self.parts_library
        backend.unavailable_reason = serves
        self._forget()
        self.order(0)
        self.leave_out(-1)
        self.shared_memory(227)
        return self

    def __exit__(self, *exception: object) -> None:
        self.module._library, self.parts_module._library, backend.unavailable_reason = self._before
        self._forget()

    @staticmethod
    def _forget() -> None:
        """What has been found out about backends."""
        library._serving.cache_clear()
        parts_library.unavailable_reason.cache_clear()
