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
