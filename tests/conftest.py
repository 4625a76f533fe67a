"""Session-wide settings and helpers of the tests."""

import os
import sys
from pathlib import Path

import memory
import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings

from structloss.ops.backend import interpreted

sys.path.insert(0, str(Path(__file__).parent))  # tests/reference and tests/golden, without making tests a package

settings.register_profile(
    "ci", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")

# Uninitialised memory holds NaN, so that a kernel that leaves an element unwritten is found out.
torch.use_deterministic_algorithms(True, warn_only=True)
torch.utils.deterministic.fill_uninitialized_memory = True

os.environ.setdefault("MPLBACKEND", "Agg")

# Test processes side by side share the cores instead of each taking all of them.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def pytest_configure(config):
    if not interpreted():
        from interpreter import Interpreter

        config.pluginmanager.register(Interpreter())


def _seconds(item):
    """What a test is known to take: about ten seconds if it is marked slow, unless the mark says how many."""
    mark = item.get_closest_marker("slow")
    return mark.kwargs.get("seconds", 10) if mark else 0


def _longest_first(items):
    """Files by their longest test, in a file the longest first, so that no process is left alone with it at the end.

    A file stays in one piece, since its fixtures are made anew wherever it is entered again.
    """
    longest = {}
    for item in items:
        longest[item.path] = max(longest.get(item.path, 0), _seconds(item))
    places = {path: place for place, path in enumerate(longest)}
    items.sort(key=lambda item: (-longest[item.path], places[item.path], -_seconds(item)))


def pytest_addoption(parser):
    parser.addoption(
        "--check",
        action="store_true",
        help="run a cut through all tests, in minutes: of each test the fewest cases that show every value of every "
        "parameter once, one case of each term, one variant of each backbone family; nothing slow (tests/cut.py)",
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("check"):
        from cut import cut

        kept = set(cut(items))
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]
    _longest_first(items)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no NVIDIA GPU")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


_kept = 2**30


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    global _kept
    if memory.resident_bytes() > _kept:
        memory.give_back()
        _kept = memory.resident_bytes() + 2**29


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def commands():
    """The `structloss` command in processes of their own."""
    pytest.importorskip("lightning")
    if not hasattr(os, "fork"):
        pytest.skip("the processes are forked")
    from fit_server import Commands

    server = Commands()
    yield server
    server.close()


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """`once(name, fill)`: a folder that one test process fills and all read."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name, fill):
        done, unfinished = shared / name, shared / f"{name}.part"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                unfinished.mkdir()
                fill(unfinished)
                unfinished.rename(done)
        return done

    return folder


@pytest.fixture(scope="session")
def real_mocap():
    """The real motion clips; they are not part of the repository."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data" / "real_mocap.npz"
    if not path.exists():
        pytest.skip(f"real motion not found at {path}")
    return path


@pytest.fixture(autouse=True)
def _emulated(request):
    """The GPU's kernels on the CPU, for tests that are marked so."""
    if "emulated" not in request.keywords:
        yield None
        return
    from backends import Emulation

    with Emulation() as emulation:
        yield emulation
