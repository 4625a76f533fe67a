"""Choice of the backend, the environment variable, and what importing costs."""

import asyncio
import contextvars
import importlib.util
import os
import subprocess
import sys
import textwrap
import threading

import pytest
import torch

import structloss
from structloss.errors import BackendError
from structloss.ops import backend, cuda_impl
from structloss.ops.backend import BACKENDS, current_backend, resolve

POSES = torch.zeros(1, 4, 17, 3)


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_backends_tells_why_not():
    status = structloss.backends()
    assert tuple(status) == BACKENDS
    assert status["torch"] and status["auto"]
    for name, entry in status.items():
        assert bool(entry) == entry.available
        assert entry.reason.endswith(".") or not entry.available, name
        assert "\n" not in entry.reason


def test_use_backend_nests_and_is_a_plain_call():
    before = current_backend()
    with structloss.use_backend("torch"):
        assert current_backend() == "torch" == resolve(None, POSES.device)
        with structloss.use_backend("auto"):
            assert current_backend() == "auto"
        assert current_backend() == "torch"
    assert current_backend() == before
    structloss.use_backend("torch")
    try:
        assert current_backend() == "torch"
    finally:
        structloss.use_backend(before)


def test_threads_choose_for_themselves():
    """Two threads in `with` blocks that overlap (the barriers): each has its own backend, then the one before."""
    seen, entered, left = {}, threading.Barrier(2), threading.Barrier(2)

    def work(name):
        with structloss.use_backend(name):
            entered.wait(10)
            seen[name] = current_backend()
            left.wait(10)
        seen[f"after {name}"] = current_backend()

    before = current_backend()
    threads = [threading.Thread(target=work, args=(name,)) for name in ("torch", "auto")]
    with structloss.use_backend("torch"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert current_backend() == "torch"
    assert seen == {"torch": "torch", "auto": "auto", "after torch": before, "after auto": before}
    assert current_backend() == before


def test_tasks_choose_for_themselves():
    async def work(name):
        with structloss.use_backend(name):
            await asyncio.sleep(0)
            return current_backend()

    async def both():
        return [*await asyncio.gather(work("torch"), work("auto")), current_backend()]

    assert asyncio.run(both()) == ["torch", "auto", current_backend()]


def test_a_plain_call_of_the_main_thread_is_for_threads_without_a_choice(monkeypatch):
    """A `with` block is not, nor is a plain call in another thread; a notebook's cells may each have a context."""
    monkeypatch.setattr(backend, "_of_process", current_backend())
    seen = []

    def look():
        seen.append(current_backend())

    def choose():
        structloss.use_backend("auto")
        look()

    contextvars.copy_context().run(structloss.use_backend, "torch")
    for target in (look, choose, look):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert seen == ["torch", "auto", "torch"] and contextvars.Context().run(current_backend) == "torch"


def test_use_backend_twice_and_in_another_order():
    before = current_backend()
    chosen = structloss.use_backend("torch")
    for _ in range(2):
        with chosen, chosen:
            assert current_backend() == "torch"
        assert current_backend() == before


def test_use_backend_fails_at_once_where_it_cannot_serve(monkeypatch):
    before = current_backend()
    monkeypatch.setattr(backend, "_PROBLEMS", {**backend._PROBLEMS, "cuda": lambda: "there is no GPU."})
    with pytest.raises(BackendError, match="backend 'cuda' can't be used here: there is no GPU"):
        structloss.use_backend("cuda")
    assert current_backend() == before


def test_use_backend_restores_after_an_exception():
    before = current_backend()
    with pytest.raises(ZeroDivisionError), structloss.use_backend("torch"):
        raise ZeroDivisionError
    assert current_backend() == before


def test_backend_environment_variable():
    code = "import structloss; from structloss.ops.backend import current_backend; print(current_backend())"
    assert run(code, STRUCTLOSS_BACKEND="torch").stdout.strip() == "torch"
    bad = run(
        "import torch, structloss; p = torch.zeros(1, 2, 3, 3); structloss.mpjpe(p, p)", STRUCTLOSS_BACKEND="numpy"
    )
    assert bad.returncode != 0 and "unknown backend 'numpy'" in bad.stderr


def test_without_the_compiled_module():
    """Where no compiler worked, "auto" serves in PyTorch, "cpp" says why it can't, and nothing else changes."""
    done = run(
        """
        import sys
        sys.modules["structloss.kernels._cpu"] = None  # what an import of a missing module meets
        import torch, structloss
        status = structloss.backends()["cpp"]
        assert not status and "compile" in status.reason, status
        p = torch.randn(2, 9, 17, 3, requires_grad=True)
        structloss.objective(p, p.detach() + 1, {"mpjpe": 1.0, "depth_ranking_frames": 1.0}).total.backward()
        try:
            structloss.mpjpe(p, p.detach(), backend="cpp")
        except structloss.errors.BackendError as error:
            print(error)
        """,
        STRUCTLOSS_BACKEND="auto",
    )
    assert done.returncode == 0, done.stderr
    assert "backend 'cpp' can't serve this call" in done.stdout


def test_explicit_backend_on_another_device_raises():
    pred = torch.zeros(1, 4, 17, 3, device="meta")
    if structloss.backends()["cpp"]:
        with pytest.raises(BackendError, match="CPU tensors"):
            structloss.mpjpe(pred, pred, backend="cpp")
    assert resolve("auto", pred.device) == "torch"


@pytest.fixture
def gpu_backends(monkeypatch):
    """Both GPU backends as if this machine had what they need; the GPU's generation can be set."""
    generation = [(9, 0)]
    monkeypatch.setattr(backend, "_PROBLEMS", {**backend._PROBLEMS, "cuda": lambda: "", "triton": lambda: ""})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: generation[0])
    monkeypatch.setattr(
        cuda_impl, "problem_of", lambda device: "its driver is too old." if generation[0] == (9, 9) else ""
    )
    backend.unavailable_reason.cache_clear()
    yield generation
    backend.unavailable_reason.cache_clear()


def test_the_choice_on_a_gpu(gpu_backends, monkeypatch):
    gpu = torch.device("cuda", 0)
    assert resolve("auto", gpu, ("mpjpe",), 256) == "cuda"
    assert resolve("auto", gpu, ("mpjpe",), 257) == "torch"
    for name in ("cuda", "triton"):
        assert resolve(name, gpu, ("mpjpe",), 256) == name
        with pytest.raises(BackendError, match="up to 256 joints, and these poses have 257"):
            resolve(name, gpu, ("mpjpe",), 257)
        with pytest.raises(BackendError, match="GPU tensors, and these are on cpu"):
            resolve(name, torch.device("cpu"), ("mpjpe",), 17)
    with pytest.raises(BackendError, match="CPU tensors, and these are on cuda"):
        resolve("cpp", gpu, ("mpjpe",), 17)
    gpu_backends[0] = (7, 5)
    backend.unavailable_reason.cache_clear()
    with pytest.raises(BackendError, match=r"compute capability 8.0, and cuda:0 has 7.5"):
        resolve("cuda", gpu, ("mpjpe",), 17)
    assert resolve("auto", gpu, ("mpjpe",), 17) == "triton"
    gpu_backends[0] = (9, 9)
    backend.unavailable_reason.cache_clear()
    assert resolve("auto", gpu, ("mpjpe",), 17) == "triton"
    with pytest.raises(BackendError, match="its driver is too old"):
        resolve("cuda", gpu, ("mpjpe",), 17)


def test_import_is_light():
    done = run(
        """
        import sys, torch
        before = set(sys.modules)
        import structloss
        loaded = {name.split(".")[0] for name in set(sys.modules) - before}
        heavy = {"triton", "lightning", "matplotlib", "torchmetrics", "jsonargparse", "plotly", "rich", "scipy"}
        assert not heavy & loaded, heavy & loaded
        assert "structloss.kernels._cpu" not in sys.modules and "structloss.kernels.native" not in sys.modules
        assert not torch.cuda.is_initialized()
        """
    )
    assert done.returncode == 0, done.stderr


def test_lazy_subpackages_and_unknown_attributes():
    assert structloss.skeletons.get("h36m").num_joints == 17
    assert structloss.metrics.MPJPE is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = structloss.nothing


def test_term_table():
    for name, term in structloss.TERMS.items():
        assert term.name == name and term.source and term.formula and term.count


@pytest.mark.skipif(not structloss.backends()["cpp"], reason="no compiled module")
def test_the_term_tables_of_python_and_cpp_are_one():
    """Names in the same order, for places are numbers; which of them need a target; what their means divide by."""
    from structloss.kernels import native

    from structloss.terms import Denominator

    python = [(name, term.needs_target, term.denominator.name.lower()) for name, term in structloss.TERMS.items()]
    assert native.cpu_module().term_traits() == python
    assert native.cpu_module().denominators() == [kind.name.lower() for kind in Denominator]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_triton_numbers_terms_by_their_places():
    from structloss.kernels import triton_joints
    from structloss.kernels.triton_math import denominator_numbers, term_numbers

    from structloss.ops.triton_impl import _KINDS, _NUMBERS
    from structloss.terms import Denominator

    assert [x.value for x in term_numbers(*structloss.TERMS)] == list(_NUMBERS.values()) == list(range(len(_NUMBERS)))
    kinds = [kind.name.lower() for kind in Denominator]
    assert [x.value for x in denominator_numbers(*kinds)] == list(_KINDS.values()) == list(range(len(kinds)))
    for name, number in _NUMBERS.items():
        assert getattr(triton_joints, name.upper()).value == number, "the main kernel computes it"
    with pytest.raises(ValueError):
        term_numbers("no_such_term")


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_packed_numbers_have_a_byte_each_and_no_other():
    """Of any number of terms; a number that would run into the next one is refused."""
    from structloss.kernels.triton_math import packed

    numbers = [(7 * k) % 256 for k in range(100)]
    constant = packed(numbers)
    assert [constant >> 8 * k & 255 for k in range(100)] == numbers
    for wrong in (-1, 256):
        with pytest.raises(ValueError, match=f"a packed number is {wrong}, expected 0 to 255"):
            packed([3, wrong])
