"""The versions that pyproject.toml allows: what they bound is there, and each lower bound is written once more.

Lightning's bounds come from names that are not part of its public interface, which test_private_calls.py watches over;
before another version is allowed, that file and test_restart.py must pass with it.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_lower_bounds_are_those_of_the_package():
    """constraints/lower-bounds.txt names the first version of each requirement, and of nothing else."""
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {}
    for line in sum(project["optional-dependencies"].values(), project["dependencies"]):
        if match := re.match(r"([\w.-]+)(?:\[[\w,]+\])?([^;]*)", line):
            name, bounds = match[1], match[2]
            if found := re.search(r">=\s*([\w.]+)", bounds):
                wanted[name] = [int(part) for part in found[1].split(".")]
    wanted.pop("torch")  # make's TORCH
    lines = (ROOT / "constraints" / "lower-bounds.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pinned.keys() == wanted.keys()
    for name, version in pinned.items():
        parts = [int(part) for part in version.split(".")]
        length = max(len(parts), len(wanted[name]))
        padded = [x + [0] * (length - len(x)) for x in (parts, wanted[name])]
        assert padded[0] == padded[1], f"{name}=={version}"
