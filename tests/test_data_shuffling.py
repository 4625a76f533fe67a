"""Epochs of any number of windows: their order, and where windows are, without a list of them."""

import time
import tracemalloc

import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from structloss.data import shuffling
from structloss.data.cutting import Cut, WindowTable
from structloss.data.loading import EpochSampler
from structloss.data.shuffling import Shuffle
from structloss.errors import DataError


class Sized:
    """A data set of which nothing but the length is needed."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size


@pytest.mark.parametrize(("replicas", "done"), [(1, 0), (3, 0), (3, 7), (8, 2)])
def test_the_order_is_that_of_earlier_versions(replicas, done):
    """Also of runs that resume, and where there are fewer samples than processes."""
    for size in (1, 5, 100, 1003):
        for rank in range(replicas):
            before = DistributedSampler(Sized(size), replicas, rank, shuffle=True, seed=3 * 1_000_003)
            before.set_epoch(4)
            sampler = EpochSampler(Sized(size), 3, replicas, rank)
            sampler.resume(4, done)
            assert list(sampler) == list(before)[done:]
            sampler.set_epoch(5)
            before.set_epoch(5)
            assert list(sampler) == list(before) and len(sampler) == len(before)


def test_an_order_that_was_begun_stays(monkeypatch):
    sampler = EpochSampler(Sized(50), 0)
    expected = list(sampler)
    order = iter(sampler)
    sampler.set_epoch(1)
    assert list(order) == expected != list(sampler)


@pytest.mark.parametrize("size", [2, 3, 16, 17, 1000, 4097, 65_536])
def test_every_sample_comes_once_in_computed_orders(size, monkeypatch):
    monkeypatch.setattr(shuffling, "LISTED", 1)
    orders = [Shuffle(size, seed).at(np.arange(size)) for seed in range(3)]
    for order in orders:
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(size))
    if size > 100:
        assert not np.array_equal(orders[0], orders[1])
        np.testing.assert_array_equal(Shuffle(size, 1).at(np.array([5, 3])), orders[1][[5, 3]])


def test_computed_orders_look_random(monkeypatch):
    """Neighbours are as far from each other as those of a random order, places and samples have no correlation, and a
    sample's place is even over seeds."""
    monkeypatch.setattr(shuffling, "LISTED", 1)
    size = 100_003
    order = Shuffle(size, 7).at(np.arange(size)).astype(np.float64)
    assert np.abs(np.diff(order)).mean() / size == pytest.approx(1 / 3, abs=0.01)
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 0.015
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.015
    low = order.astype(np.int64) & 15
    assert np.bincount(low[: size // 2], minlength=16).std() < 0.03 * size / 32
    found = np.array([Shuffle(1000, seed).at(np.array([0, 1])) for seed in range(2000)])
    for place in found.T:  # chi-square of 10 bins, 9 degrees of freedom: above 27.9 in one of 1000
        counts = np.histogram(place, bins=10, range=(0, 1000))[0]
        assert ((counts - 200) ** 2 / 200).sum() < 27.9
    assert (found[:, 0] != found[:, 1]).all() and abs(np.corrcoef(found.T)[0, 1]) < 0.1


def test_shares_of_computed_orders_make_up_the_whole(monkeypatch):
    monkeypatch.setattr(shuffling, "LISTED", 1)
    shares = [list(EpochSampler(Sized(1000), 0, 3, rank)) for rank in range(3)]
    assert sorted(shares[0] + shares[1] + shares[2]) == sorted(
        [*range(1000), *(shares[i % 3][i // 3] for i in range(2))]
    )
    whole = list(EpochSampler(Sized(1000), 0))
    assert [whole[i % 1000] for i in range(1002)] == [shares[i % 3][i // 3] for i in range(1002)]
    sampler = EpochSampler(Sized(1000), 0, 3, 1)
    sampler.resume(0, 100)
    assert list(sampler) == shares[1][100:]


def test_a_billion_samples_begin_at_once():
    """The first thousand, and those of a run that resumes near the end."""
    sampler = EpochSampler(Sized(10**9), 0)
    tracemalloc.start()
    began = time.thread_time()
    order = iter(sampler)
    first = [next(order) for _ in range(1000)]
    sampler.resume(0, 10**9 - 5)
    last = list(iter(sampler))  # of the sampler itself, list would make room for a billion
    seconds, (_, peak) = time.thread_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 1 and peak < 20e6
    assert len(set(first + last)) == 1005 and max(first) > 9e8 and min(first) < 1e8


def literal(cut, frames):
    """(start, first frame that counts) of every window of a view, written out."""
    window, step = cut.window - 2 * cut.context, cut.step
    if cut.sampling == "centred":
        step = step if cut.split == "train" else 1
        found = [(centre - window // 2 * cut.frame_step, window // 2) for centre in range(0, frames, step)]
    elif cut.sampling == "chunks" and cut.split == "train":
        count = -(-frames // window)
        found = [(n * window - (count * window - frames) // 2, 0) for n in range(count)]
    elif frames < window:
        found = [(0, 0)] if cut.short_clips == "pad" else []
    else:
        starts = list(range(0, frames - window + 1, step))
        if cut.split == "test" and cut.tails == "cover" and starts[-1] + window < frames:
            starts.append(frames - window)
        found, scored = [], 0
        for start in starts:
            found.append((start, 0 if cut.split == "train" else max(0, scored - start)))
            scored = start + window
    return [(start - cut.context, fresh + cut.context) for start, fresh in found]


CUTS = [
    Cut(split, window, stride, sampling, context, frame_step, short, tails)
    for split in ("train", "test")
    for window, stride in ((1, 1), (9, 4), (9, None), (10, 10))
    for sampling in ("windows", "centred", "chunks")
    for context in (0, 2)
    for frame_step in (1, 3)
    for short in ("pad", "skip")
    for tails in ("cover", "drop")
    if not (context and (sampling == "centred" or window - 2 * context < (stride or 1)))
    if frame_step == 1 or sampling == "centred"
    if sampling != "chunks" or stride is None
]


def test_windows_are_where_their_definition_says():
    frames = np.array([1, 5, 8, 9, 10, 11, 27, 28, 40, 3])
    for cut in CUTS:
        table = WindowTable(cut, frames, str)
        expected = [(view, *span) for view, count in enumerate(frames.tolist()) for span in literal(cut, count)]
        assert len(table) == len(expected), cut
        np.testing.assert_array_equal(table[:], np.array(expected).reshape(-1, 3), err_msg=str(cut))
        if expected:
            some = np.array([len(expected) - 1, 0, len(expected) // 2])
            np.testing.assert_array_equal(table[some], np.array(expected)[some])
    with pytest.raises(IndexError):
        table[np.array([len(table)])]
    with pytest.raises(DataError, match="clip 'view 1' has 5 frames, fewer than the window of 9"):
        WindowTable(Cut(window=9, short_clips="error"), frames[1:], lambda view: f"view {view + 1}")


def test_a_table_holds_nothing_per_window():
    frames = np.full(1000, 1_000_000)
    tracemalloc.start()
    table = WindowTable(Cut(window=27, sampling="centred"), frames, str)
    found = table[np.array([10**9 - 1, 0, 123_456_789])]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == 10**9 and peak < 1e6
    np.testing.assert_array_equal(found[:, :2], [[999, 999_986], [0, -13], [123, 456_776]])
