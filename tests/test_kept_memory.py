"""The memory of large images, kept for the next: never while anybody holds it, never too much, and given back."""

import gc
import multiprocessing
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import memory
import pytest
import torch
from backends import CPP
from test_render_parts import moved

import structloss
from structloss.errors import ArgumentError
from structloss.ops.parts import kept_memory

MB = 10**6


@pytest.fixture(autouse=True, scope="module")
def no_garbage():
    gc.collect()  # tensors of earlier tests


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.delenv("STRUCTLOSS_KEPT_MB", raising=False)
    kept_memory.give_back()
    yield
    kept_memory.give_back()


def block(megabytes=4, dtype=torch.float32):
    return kept_memory.tensor((megabytes, MB // dtype.itemsize), dtype)


def test_what_is_freed_serves_the_next():
    first, fresh = block()
    assert fresh and not first.any() and first.is_contiguous() and first.dtype == torch.float32
    place = first.data_ptr()
    first.fill_(torch.nan)
    del first
    assert kept_memory.kept_bytes() == 4 * MB
    smaller, fresh = block(2, torch.float64)
    assert smaller.data_ptr() == place and not fresh and smaller.shape == (2, MB // 8)
    assert kept_memory.kept_bytes() == 0
    del smaller
    for megabytes in (1, 5):  # it would hold more than twice as much as is asked for, or less than that
        other, fresh = block(megabytes)
        assert fresh and other.data_ptr() != place
        del other
    assert kept_memory.kept_bytes() == (4 + 1 + 5) * MB


def test_what_somebody_holds_is_nobody_elses():
    """Views, NumPy arrays, storages, DLPack, graphs: each keeps the memory, also where the tensor itself is gone."""
    holders = {
        "view": lambda x: x[1, 2:3],
        "NumPy": lambda x: x[0].numpy(),
        "storage": lambda x: x.untyped_storage(),
        "DLPack": torch.utils.dlpack.to_dlpack,
        "graph": lambda x: x * torch.ones((), requires_grad=True),
        "detached": lambda x: torch.nn.Parameter(x).detach(),
    }
    for name, hold in holders.items():
        tensor, _ = block()
        place = tensor.data_ptr()
        held = hold(tensor)
        del tensor
        assert kept_memory.kept_bytes() == 0, name
        other, fresh = block()
        assert fresh and other.data_ptr() != place, name
        del held, other
        assert kept_memory.give_back() == 8 * MB, name


def test_memory_that_is_shared_leaves_its_block():
    """As a worker of a DataLoader does with what it sends."""
    tensor, _ = block()
    tensor.fill_(3)
    tensor.share_memory_()
    assert kept_memory.kept_bytes() == 4 * MB
    other, _ = block()
    other.fill_(7)
    assert (tensor == 3).all()


def test_a_bound_and_a_switch(monkeypatch):
    def kept_of(*sizes):
        tensors = [block(each)[0] for each in sizes]
        while tensors:
            del tensors[0]
        return kept_memory.give_back()

    monkeypatch.setenv("STRUCTLOSS_KEPT_MB", "9")
    assert kept_of(4, 5) == 9 * MB
    assert kept_of(4, 5, 3) == 8 * MB  # those that were freed last
    assert kept_of(4, 10) == 4 * MB  # what is larger than all that may be kept costs no other its place
    monkeypatch.setenv("STRUCTLOSS_KEPT_MB", "0")
    assert kept_of(4, 5) == 0
    for wrong in ("many", "-1", "nan", "inf", ""):
        monkeypatch.setenv("STRUCTLOSS_KEPT_MB", wrong)
        with pytest.raises(ArgumentError, match=r"STRUCTLOSS_KEPT_MB is '.*', expected a number of megabytes, 0 or mo"):
            block()


def test_memory_that_there_is_not(monkeypatch):
    """What is kept is given back before a call is refused."""
    block()  # freed at once
    kept = kept_memory.kept_bytes()
    tries = []

    def no_memory(length):
        tries.append(kept_memory.kept_bytes())
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(kept_memory, "_map", no_memory)
    with pytest.raises(MemoryError, match=r"the images take 64,000,000 bytes, more than the system has"):
        block(64)
    assert tries == [kept, 0] and kept == 4 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_it_is_given_back():
    tensor, _ = block(64)
    tensor.fill_(1)
    full = memory.resident_bytes()
    del tensor
    assert kept_memory.give_back() == 64 * MB and kept_memory.kept_bytes() == 0
    assert full - memory.resident_bytes() > 60 * MB


def test_threads_take_and_free_at_once():
    """No two hold the same memory, whichever thread frees it; in all no more is mapped than was in use at once."""
    places, wrong = set(), []
    gate = threading.Barrier(4)

    def work(number):
        gate.wait()
        for turn in range(60):
            tensor, _ = block(1)
            places.add(tensor.data_ptr())
            tensor.fill_(100 * number + turn)
            if not (tensor == 100 * number + turn).all():
                wrong.append((number, turn))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert not wrong and kept_memory.kept_bytes() == len(places) * MB <= 8 * MB


# ---- images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [CPP])
@pytest.mark.parametrize(("dtype", "size", "batch"), [(torch.float32, 250, 8), (torch.float64, 256, 4)])
def test_images_in_memory_that_was_used(dtype, size, batch, backend):
    """The same bits as in new memory, whatever its last user wrote; rows that fill no whole lines of a cache, too."""
    matrices = moved(batch, size=size, dtype=dtype)
    matrices[0, :2] = 0  # covers nothing
    matrices[0, 2, 0, 0] = torch.nan
    matrices[0, 3, :, 2] += 0.45 * size  # cut by the border
    images = structloss.render_parts(matrices, size=size, backend=backend)
    assert images.nbytes >= kept_memory.FROM_BYTES
    expected, place = images.clone(), images.data_ptr()
    images.numpy()[:] = torch.nan
    del images
    for fewer in (0, 1):
        again = structloss.render_parts(matrices[fewer:], size=size, backend=backend)
        assert again.data_ptr() == place or again.nbytes < kept_memory.FROM_BYTES
        torch.testing.assert_close(again, expected[fewer:], rtol=0, atol=0, equal_nan=True)
        again.fill_(-1)
        del again


@pytest.mark.parametrize("backend", [CPP])
def test_training_takes_no_new_memory(backend):
    """Each step's images lie where the last step's lay; gradients are those of memory of their own."""
    matrices, places = moved(8, size=250), set()
    weights = torch.randn(8, 18, 250, 250)
    for step in range(3):
        leaf = (matrices + 0.1 * step).requires_grad_()
        images = structloss.render_parts(leaf, size=250, backend=backend)
        places.add(images.data_ptr())
        (images.square() * weights).sum().backward()
        made = images.detach().clone()
        del images
    assert len(places) == 1
    expected = structloss.render_parts(leaf, size=250, backend="torch")
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    (exact,) = torch.autograd.grad(expected, leaf, 2 * made * weights)
    torch.testing.assert_close(leaf.grad, exact, rtol=1e-3, atol=1e-4 * float(exact.abs().max()))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("backend", [CPP])
def test_peaks(backend):
    """New images take their own size, the next ones nothing: what is kept counts once."""
    matrices = moved(8, size=256)
    structloss.render_parts(matrices[:1], backend=backend)
    allowed = torch.get_num_threads() * MB + MB  # the measure is exact to 1 MB
    images = []

    def render():
        images.append(structloss.render_parts(matrices, backend=backend))

    def forget():
        images.clear()
        kept_memory.give_back()

    extra = memory.least_peak_of(render, undo=forget)
    size = images[0].nbytes
    assert 0.9 * size < extra <= size + allowed, f"{extra / MB:.1f} MB"
    images.clear()
    extra = memory.least_peak_of(render, undo=images.clear)
    assert extra <= allowed, f"{extra / MB:.1f} MB"


def _in_a_child(matrices, expected, kept, answers):
    torch.set_num_threads(1)  # as a DataLoader's worker does
    before = kept_memory.kept_bytes()
    found = structloss.render_parts(matrices, backend="cpp")
    right = torch.equal(found, expected) and not (kept == -5).logical_not().any()
    found.fill_(1)
    kept.fill_(2)
    del found
    answers.put((before, kept_memory.kept_bytes(), right))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("backend", [CPP])
def test_a_child_of_a_fork_writes_into_its_own(backend):
    matrices = moved(8, size=256)
    first = structloss.render_parts(matrices, backend=backend)
    kept = structloss.render_parts(matrices, backend=backend).fill_(-5)
    expected, size = first.clone(), first.nbytes
    del first
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_in_a_child, args=(matrices, expected, kept, answers))
    child.start()
    child.join(60)
    assert child.exitcode == 0 and answers.get() == (size, size, True)
    assert (kept == -5).all() and kept_memory.kept_bytes() == size
    assert torch.equal(structloss.render_parts(matrices, backend=backend), expected)
