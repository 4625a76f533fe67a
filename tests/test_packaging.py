"""What the wheel and the source distribution hold."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("scikit_build_core")

ROOT = Path(__file__).resolve().parents[1]
# The build backend that pip would start, without compiling: nothing here is about what the compilers make.
BUILD = """
import sys
from scikit_build_core.build import build_sdist, build_wheel
print(build_sdist(sys.argv[1]))
print(build_wheel(sys.argv[1], {"wheel.cmake": "false"}))
"""


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """File names of the wheel, and of the source distribution without its leading folder."""
    folder, copy = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("copy")
    for path in ROOT.iterdir():  # the environment and what was built in the repository take long to look through
        if path.is_dir() and path.name not in ("build", "dist", "runs") and (path.name[0] != "." or path.name == ".ci"):
            shutil.copytree(path, copy / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.is_file():
            shutil.copy(path, copy)
    done = subprocess.run([sys.executable, "-c", BUILD, folder], capture_output=True, text=True, cwd=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        in_wheel = set(file.namelist())
    with tarfile.open(source) as file:
        in_source = {name.partition("/")[2] for name in file.getnames()}
    return in_wheel, in_source


def tracked(*patterns):
    """Files of the repository, as git or, outside of a clone, the folders have them."""
    found = {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return {name for name in found if "__pycache__" not in name}


def test_the_wheel_holds_every_package_and_what_it_reads(contents):
    wheel, _ = contents
    expected = tracked("structloss/**/*")
    assert {
        "structloss/py.typed",
        "structloss/harness/recipes/repose-h36m.yaml",
        "structloss/reports/page.css",
        "structloss/samples/README.md",
        "structloss/samples/keypoints/dance.json",
        "structloss/samples/keypoints/kick/kick_000000000000_keypoints.json",
        "structloss/samples/motion/dance.npz",
    } <= expected
    assert any(name.startswith("structloss/harness/grids/") for name in expected)
    assert expected - wheel == set()
    sources = {f"structloss/{name}" for name in tracked("kernels/**/*", "csrc/**/*")}
    assert "structloss/kernels/native.py" in sources and "structloss/csrc/params.h" in sources
    assert sources - wheel == set()
    information = {name for name in wheel if ".dist-info/" in name}
    assert {name.rpartition("/")[2] for name in information} >= {"METADATA", "entry_points.txt", "LICENSE"}
    assert wheel - expected - sources - information == set(), "nothing else: no benchmarks, no tests, no reference"


def test_the_wheel_holds_no_benchmarks_and_no_tests(contents):
    wheel, _ = contents
    assert not [name for name in wheel if {"bench", "tests", "reference", "examples"} & {*name.split("/")}]
    assert not [name for name in wheel if name.rpartition("/")[2].startswith(("test_", "gpu_check"))]


def test_the_source_distribution_builds_and_benchmarks(contents):
    """What the wheel is made from, and the benchmarks with the definitions that they compare with."""
    _, source = contents
    needed = tracked("structloss/**/*", "kernels/**/*", "csrc/**/*", "bench/*.py", "bench/plain/*.py", "bench/*.sh")
    needed |= tracked("tests/reference/*.py") | {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO"}
    assert "bench/run.py" in needed and "tests/reference/terms.py" in needed
    assert needed - source == set()
    assert not [name for name in source if name.startswith((".", "build/", "runs/")) or "__pycache__" in name]
    assert not [name for name in source if name.startswith("tests/") and not name.startswith("tests/reference/")]
