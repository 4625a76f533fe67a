"""Memory of large images on the CPU: when a tensor is freed, its block is kept for the next images.

Memory that is new from the system costs more than the images: the system clears every page that is touched first, and
a virtual machine may have to be given it by its host. A kept block is written whole, never believed: whoever held the
tensor may have written into it. It is kept only once nothing refers to the tensor's storage, be it views, NumPy arrays
or graphs of autograd. Where the system has huge pages, a kept block is marked as free (MADV_FREE): short of memory, the
system takes its pages without swapping, and the next images find new ones.

A process keeps up to STRUCTLOSS_KEPT_MB megabytes (default 512: two batches of 48 x 18 images of 256 px), the last that
were freed; 0 keeps none. No lock is taken, since a tensor may be freed anywhere: in the middle of this, in another
thread, after a fork. Each step is one operation of a dict.
"""

from __future__ import annotations

import functools
import math
import mmap
import os
import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import ArgumentError, shown

__all__ = ["FROM_BYTES", "give_back", "kept_bytes", "tensor"]

#: Images from this size on have such memory: malloc gives back to the system at once what is larger.
FROM_BYTES = 32 * 2**20
#: The environment variable, read in every call, and megabytes where it isn't set.
VARIABLE, DEFAULT_MB = "STRUCTLOSS_KEPT_MB", 512
_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# Blocks that no tensor uses, by id; the oldest first.
_kept: dict[int, mmap.mmap] = {}


def tensor(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, bool]:
    """A tensor whose elements must be written, contiguous and at a whole page, and whether it holds zeros now.

    Raises:
        ArgumentError: STRUCTLOSS_KEPT_MB is not a number of megabytes.
        MemoryError: the system has no such memory.
    """
    most = _most_bytes()
    count = math.prod(shape)
    block = _taken(count * dtype.itemsize)
    fresh = block is None
    if block is None:
        block = _mapped(count * dtype.itemsize)
    numbers = np.frombuffer(block, _DTYPES[dtype], count)
    # The tensor's storage holds this array and nobody else does: NumPy arrays of the tensor refer to the tensor.
    weakref.finalize(numbers, _keep, block, most).atexit = False
    return torch.from_numpy(numbers).view(shape), fresh


def give_back() -> int:
    """Give what is kept back to the system, and return how many bytes that were."""
    total = 0
    for key in list(_kept):
        if (block := _kept.pop(key, None)) is not None:
            total += len(block)
    return total


def kept_bytes() -> int:
    """Bytes that are kept now."""
    return sum(map(len, list(_kept.values())))


def _most_bytes() -> int:
    text = os.environ.get(VARIABLE, str(DEFAULT_MB))
    try:
        most = float(text)
    except ValueError:
        most = math.nan
    if not 0 <= most < math.inf:
        raise ArgumentError(f"{VARIABLE} is {shown(text)}, expected a number of megabytes, 0 or more.")
    return int(most * 1e6)


def _taken(length: int) -> mmap.mmap | None:
    """The smallest kept block with room for `length` bytes, of at most twice as many."""
    for size, key in sorted((len(block), key) for key, block in list(_kept.items())):
        if length <= size <= 2 * length and (block := _kept.pop(key, None)) is not None:
            return block
    return None


def _mapped(length: int) -> mmap.mmap:
    """New memory: zeros that the system provides when they are first touched."""
    try:
        block = _map(length)
    except OSError:
        give_back()
        try:
            block = _map(length)
        except OSError as error:
            raise MemoryError(f"the images take {length:,} bytes, more than the system has.") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        _advise(block, mmap.MADV_HUGEPAGE)
    return block


def _map(length: int) -> mmap.mmap:
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, length)
    return mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _keep(block: mmap.mmap, most: int) -> None:
    if len(block) > most:
        return
    if _has_huge_pages() and hasattr(mmap, "MADV_FREE"):  # page by page it would take longer than clearing
        _advise(block, mmap.MADV_FREE)
    _kept[id(block)] = block
    while kept_bytes() > most:
        oldest = next(iter(list(_kept)), None)
        if oldest is None:
            return
        _kept.pop(oldest, None)


def _advise(block: mmap.mmap, advice: int) -> None:
    try:
        block.madvise(advice)
    except OSError:  # a system that does without
        return


@functools.cache
def _has_huge_pages() -> bool:
    try:
        return "[never]" not in _HUGE_PAGES.read_text()
    except OSError:
        return False
