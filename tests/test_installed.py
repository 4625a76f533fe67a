"""What `structloss backends` says was compiled at installation, and the script that compiles the CUDA library."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from structloss.kernels import native

from structloss.cli import main

ROOT = Path(__file__).resolve().parents[1]


def compiled(capsys):
    """What is said of the CPU module and the CUDA library."""
    assert main(["backends"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("compiled when structloss was installed:")
    assert [line.split()[0] for line in lines[: at - 1]] == ["auto", "torch", "cpp", "triton", "cuda"]
    cpu, cuda = lines[at + 1 :]
    return cpu.removeprefix("CPU module    "), cuda.removeprefix("CUDA library  ")


def test_what_is_there(capsys, monkeypatch):
    monkeypatch.setattr(native, "cpu_problem", lambda: "")
    monkeypatch.setattr(native, "cpu_module", lambda: SimpleNamespace(instruction_set=lambda: "AVX2"))
    monkeypatch.setattr(native, "cuda_problem", lambda: "")
    monkeypatch.setattr(native, "cuda_built", lambda: "by nvcc 12.8, for compute capability 8.0, 9.0 and newer")
    assert compiled(capsys) == (
        "yes  the cpp backend, with AVX2 here.",
        "yes  the cuda backend, by nvcc 12.8, for compute capability 8.0, 9.0 and newer.",
    )


@pytest.mark.parametrize("version", [None, "12.8"])
def test_what_is_missing_and_what_to_do(version, capsys, monkeypatch):
    monkeypatch.setattr(native, "cpu_problem", lambda: "the compiled CPU module is missing (no compiler)")
    monkeypatch.setattr(native, "cuda_problem", lambda: "the compiled CUDA library is missing.")
    monkeypatch.setattr(torch.version, "cuda", version)
    cpu, cuda = compiled(capsys)
    assert cpu.startswith("no   the compiled CPU module is missing (no compiler). Install a C++ compiler")
    assert "pip install --force-reinstall" in cpu
    assert cuda.startswith("no   the compiled CUDA library is missing. ")
    if version is None:
        assert cuda.endswith("It is not needed here: torch is built without CUDA.")
    else:
        assert "triton backend serves" in cuda and "nvcc" in cuda and "pip install --force-reinstall" in cuda


def test_the_library_is_told_by_the_note_beside_it(tmp_path, monkeypatch):
    class Library:
        _name = str(tmp_path / "libstructloss_cuda.so")

    monkeypatch.setattr(native, "cuda_library", lambda: Library)
    assert native.cuda_built() == ""
    (tmp_path / "cuda_built.txt").write_text("by nvcc 12.8\n")
    assert native.cuda_built() == "by nvcc 12.8"
    monkeypatch.setattr(native, "cuda_library", lambda: None)
    assert native.cuda_built() == ""


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
@pytest.mark.parametrize(
    ("version", "architectures", "built"),
    [
        ("12.8", "", "by nvcc 12.8, for compute capability 8.0, 9.0, 10.0 and newer"),
        ("12.2", "", "by nvcc 12.2, for compute capability 8.0, 9.0 and newer"),
        ("12.8", "75,90a,120", "by nvcc 12.8, for compute capability 7.5, 9.0a, 12.0 and newer"),
        ("12.8", "1", None),
    ],
)
def test_the_script_that_compiles_says_for_what(version, architectures, built, tmp_path):
    """With a compiler that writes down its arguments, and refuses one architecture."""
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f"""#!{sys.executable}
import sys
if "--version" in sys.argv:
    print("Cuda compilation tools, release {version}, V{version}.1")
elif "-gencode=arch=compute_1,code=sm_1" in sys.argv:
    sys.exit("nvcc fatal   : Unsupported gpu architecture 'compute_1'")
else:
    open(sys.argv[sys.argv.index("-o") + 1], "w").write(" ".join(sys.argv))
""")
    nvcc.chmod(0o755)
    files = {name: tmp_path / name for name in ("LIBRARY", "BUILT", "PROBLEM")}
    files["BUILT"].write_text("of an earlier try")
    defined = {"NVCC": nvcc, "SOURCE": "objective.cu", "ARCHITECTURES": architectures} | files
    command = ["cmake", *(f"-D{key}={value}" for key, value in defined.items()), "-P"]
    subprocess.run([*command, str(ROOT / "csrc" / "compile_cuda.cmake")], check=True, capture_output=True)
    there = {name for name, path in files.items() if path.exists()}
    if built is None:
        assert there == {"PROBLEM"}
        assert files["PROBLEM"].read_text().endswith("nvcc fatal   : Unsupported gpu architecture 'compute_1'")
    else:
        assert there == {"LIBRARY", "BUILT"} and files["BUILT"].read_text() == built
        gencodes = files["LIBRARY"].read_text().count("-gencode")
        assert gencodes == built.split("capability")[1].count(".") + 1  # one more for the newer ones
