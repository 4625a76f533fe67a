"""Memory that a large test gives back: malloc would keep gigabytes of it in every test process."""

import ctypes
import gc
import os
import sys
from pathlib import Path


def resident_bytes():
    """What this process holds; 0 where that is not known."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def give_back():
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # glibc has it
    if trim is not None:
        trim(0)


def least_peak_of(call, undo=lambda: None, tries=3):
    """Bytes that `call` needs at its peak, by the least of some tries: what other threads of the process and the
    allocator take meanwhile comes on top of it in some, and never lowers it.

    Args:
        undo: brings back the state before the call, after each try but the last.
    """
    from bench.measure import peak_of_call

    peaks = []
    for attempt in range(tries):
        if attempt:
            undo()
        give_back()
        peaks.append(peak_of_call(call, "cpu"))
    return min(peaks)
