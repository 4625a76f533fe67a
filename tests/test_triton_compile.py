"""The Triton kernels compiled ahead of time, without a GPU: registers and spills of the usual configurations.

A kernel that spills, or takes so many registers that few programs fit on a multiprocessor, still gives right results;
only this notices. Compilation runs in a process of its own, where the kernels are not interpreted.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ARCHITECTURES = (80, 90, 100)
# Registers a thread: (configuration, kernel) -> budget. 64K registers a multiprocessor make 4 programs of 128 threads
# at 128, of 256 threads at 64.
BUDGET = {
    ("ranking", "row_kernel"): 112,
    ("ranking", "joint_kernel"): 64,
    ("ranking", "scale_kernel"): 64,
    ("ranking", "value_kernel"): 96,
    ("seven", "joint_kernel"): 80,
    ("seven", "value_kernel"): 128,
    ("parts", "place_kernel"): 64,
    ("parts", "draw_kernel"): 48,
    ("parts", "sum_kernel"): 80,
    ("parts", "chain_kernel"): 64,
}
# Bytes of stack, where there may be some: sines of float64 have a table there, for angles beyond 1e5.
STACK = {("parts", "place_kernel"): 64, ("parts", "chain_kernel"): 64}
TERMS = {
    "ranking": ("mpjpe", "depth_ranking_joints", "depth_ranking_frames"),
    "seven": (
        *("mpjpe", "velocity", "depth_ranking_joints", "depth_ranking_frames"),
        *("bone_symmetry", "illegal_angle", "bone_ratio"),
    ),
}


def call(configuration):
    """The module whose kernels a call launches, and the call: float32, T = 243, J = 17, or images of 256 pixels."""
    import torch

    if configuration == "parts":
        from structloss.ops.parts import triton_impl

        matrices, template = torch.zeros(2, 18, 2, 3), torch.zeros(18, 6)

        def both():
            triton_impl.backward(triton_impl.forward(matrices, template, 256), matrices, template, 256)

        return triton_impl, both
    from structloss.ops import triton_impl

    pred, target = torch.zeros(2, 2, 243, 17, 3)
    terms = TERMS[configuration]
    ones = [1.0] * len(terms)
    return triton_impl, lambda: triton_impl.objective(pred, target, None, ones, terms, "h36m", "", "mean", True)


def compiled(configuration, arch, folder):
    """Compile the kernels of a call that have a budget; name -> path of machine code."""
    import torch
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    module, run = call(configuration)

    types = {torch.float32: "*fp32", torch.float64: "*fp64", torch.float16: "*fp16", torch.int32: "*i32"}
    paths = {}

    def recorded(kernel):
        """Compile what a launch would run; the arguments are those of the launch."""

        def launch(*arguments, num_warps=4, enable_fp_fusion=True, **constants):
            if (configuration, kernel.__name__) not in BUDGET:
                return
            signature, divisible = {}, {}
            for place, parameter in enumerate(kernel.params):
                if place >= len(arguments):
                    signature[parameter.name] = "constexpr"
                    continue
                value = arguments[place]
                if isinstance(value, torch.Tensor):
                    signature[parameter.name] = types[value.dtype]
                    divisible[(place,)] = [["tt.divisibility", 16]]
                elif value == 1 and not parameter.do_not_specialize:
                    signature[parameter.name] = "constexpr"
                    constants[parameter.name] = 1
                else:
                    signature[parameter.name] = "i64" if parameter.annotation_type == "i64" else "i32"
                    if value % 16 == 0 and not parameter.do_not_specialize:
                        divisible[(place,)] = [["tt.divisibility", 16]]
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=divisible)
            options = {"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion}
            binary = compile(source, target=GPUTarget("cuda", arch, 32), options=options)
            path = Path(folder) / f"{kernel.__name__}.cubin"
            path.write_bytes(binary.asm["cubin"])
            paths[kernel.__name__] = str(path)

        return launch

    class Recorder:
        def __init__(self, kernel):
            self.recorded_kernel = kernel

        def __getitem__(self, grid):
            return recorded(self.recorded_kernel)

    for name in {name for of, name in BUDGET if of == configuration}:
        kernel = getattr(module, name)
        setattr(module, name, Recorder(getattr(kernel, "recorded_kernel", kernel)))
    run()
    return paths


def resources(cubin):
    """Registers, and bytes of stack and local memory, a thread."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    output = subprocess.run([str(tool), "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", output)
    return [int(x) for x in found.groups()]


def missing():
    spec = importlib.util.find_spec("triton")
    if spec is None:
        return "triton is not installed"
    if not (Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump").exists():
        return "triton carries no cuobjdump here"
    return ""


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_spills_and_registers_within_budget(arch, tmp_path):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, __file__, str(arch), str(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    found = {tuple(key.split("/")): value for key, value in json.loads(run.stdout.splitlines()[-1]).items()}
    assert found.keys() == BUDGET.keys()
    for key, (registers, stack, local) in found.items():
        allowed = STACK.get(key, 0)
        assert stack <= allowed and local == 0, f"{key} for sm_{arch}: {stack} bytes of stack, {local} of local memory"
        assert registers <= BUDGET[key], f"{key} for sm_{arch}: {registers} registers, allowed {BUDGET[key]}"


if __name__ == "__main__":
    report = {}
    for configuration in dict.fromkeys(of for of, _ in BUDGET):
        folder = Path(sys.argv[2]) / configuration
        folder.mkdir(parents=True, exist_ok=True)
        for kernel, path in compiled(configuration, int(sys.argv[1]), folder).items():
            report[f"{configuration}/{kernel}"] = resources(path)
    print(json.dumps(report))
