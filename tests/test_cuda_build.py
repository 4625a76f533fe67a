"""The compiled CUDA library: it is there where there is a compiler, for all GPUs, and keeps its budget of registers."""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from structloss.kernels import native

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
# Registers a thread: three blocks of the nine warps that rank 17 joints share a multiprocessor's 65536.
CLIP_REGISTERS = 72
# Four blocks of eight warps share one.
PARTS_REGISTERS = 64

needs_library = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler")


def tool():
    """cuobjdump: that of the CUDA toolkit, or the one that Triton brings."""
    if found := shutil.which("cuobjdump"):
        return found
    spec = find_spec("triton")
    path = Path(spec.origin).parent / "backends/nvidia/bin/cuobjdump" if spec else None
    if path is None or not path.exists():
        pytest.skip("no cuobjdump")
    return str(path)


def dump(*options):
    path = native.cuda_library()._name
    return subprocess.run([tool(), *options, path], capture_output=True, text=True, check=True).stdout


@needs_library
def test_where_there_is_a_compiler_there_is_the_library():
    assert native.cuda_library() is not None, native.cuda_problem()


@needs_library
def test_machine_code_for_every_generation_and_ptx_for_the_next():
    cubins = dump("-lelf")
    for architecture in ARCHITECTURES:
        assert f"{architecture}.cubin" in cubins
    assert "sm_100.ptx" in dump("-lptx")


def resources():
    """(architecture, mangled name) -> registers, stack bytes, of each kernel."""
    found, architecture = {}, ""
    for line in dump("-res-usage").splitlines():
        if match := re.search(r"arch\s*=\s*(sm_\d+)", line):
            architecture = match[1]
        elif match := re.search(r"Function (\S+):", line):
            name = match[1]
        elif match := re.search(r"REG:(\d+) STACK:(\d+)", line):
            found[architecture, name] = int(match[1]), int(match[2])
    return found


@needs_library
def test_registers_and_spills():
    usage = resources()
    # L_S + L_T + MPJPE of up to 256 frames, float32, without weights: clip_kernel<float, 8, false>.
    for architecture in ARCHITECTURES:
        kernels = {n: x for (a, n), x in usage.items() if a == architecture and "clip_kernelIfLi8ELb0E" in n}
        assert len(kernels) == 1
        ((registers, stack),) = kernels.values()
        assert stack == 0, f"{architecture}: {stack} bytes of spilled registers"
        assert registers <= CLIP_REGISTERS, f"{architecture}: {registers} registers"
    # Parts in float32, and 16 bytes at once: draw_parts_kernel<float, 4>, sum_parts_kernel<float>. A few bytes of stack
    # are the table for sines of angles beyond 1e5.
    for name in ("draw_parts_kernelIfLi4E", "sum_parts_kernelIfE"):
        kernels = {key: x for key, x in usage.items() if name in key[1]}
        assert {architecture for architecture, _ in kernels} == set(ARCHITECTURES)
        for (architecture, _), (registers, stack) in kernels.items():
            assert registers <= PARTS_REGISTERS and stack <= 48, f"{architecture}, {name}: {registers}, {stack} bytes"
    # The other kernels may keep a few bytes on the stack, none of them much.
    for (architecture, name), (registers, stack) in usage.items():
        assert registers <= 192 and stack <= 512, f"{architecture}, {name}: {registers} registers, {stack} bytes"
