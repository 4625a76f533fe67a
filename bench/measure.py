"""Interleaved timing and peak memory.

Time. Providers take turns in rounds, in a rotated order, so that a change of the machine's speed hits all of them, and
ratios are taken within a round. A turn is as many calls as fill about 2 ms; its figure is the mean call. The caches
hold whatever the provider before it left there, as they do after a network's backward pass. A provider whose turns
would exceed its time budget sits out rounds (every other, three of four, ...).

Memory on a CPU. For each provider a fresh process runs one tiny call (which loads libraries), resets the kernel's
high-water mark of resident memory (`/proc/self/clear_refs`), makes one call at the measured shape and reads the mark
(`VmHWM`). The difference to the resident memory before is the peak extra memory: everything counts, whoever allocated
it, scratch kept for later calls included, inputs not. The allocator is told to return freed blocks at once, otherwise
earlier calls would hide memory. Exact to about 1 MB, the pages of code that are touched for the first time included.
What torch.compile needs to compile doesn't count: its first call at the shape comes before the reset. Where the mark
can't be reset (not Linux), the growth of `getrusage`'s maximum is taken instead.

Time on CUDA. Events around the calls of a turn, enqueued one after another: where the kernels are shorter than what
Python takes to launch them, it is that which is measured. `replayed` puts the calls into a CUDA graph instead.

Memory on CUDA: `max_memory_allocated` beyond what was allocated before the call, in this process.

    python -m bench.measure '{"provider": "torch", "mode": "forward", "shape": [8, 243, 17], ...}'

is the fresh process; `run.py` starts it.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

import structloss

__all__ = [
    "available_memory",
    "in_turn",
    "interleave",
    "median_ratio",
    "percentiles",
    "peak_in_fresh_process",
    "peak_of_call",
    "replayed",
    "seconds_of",
]

MEGABYTE = 1e6
TURN_SECONDS = 2e-3
MAX_REPEATS = 50
WARM_UP = 3
MIN_ROUNDS = 3


def seconds_of(call: Callable[[], object], repeats: int, device: str) -> float:
    """Mean seconds of a call, of `repeats` in a row."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def in_turn(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """A call that makes the next of `calls`, of different inputs, each time: none finds its own in the cache."""
    following = itertools.cycle(calls)
    return lambda: next(following)()


def replayed(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """One CUDA graph of all `calls`, one after another: what they take without the launching."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what is compiled or allocated once must not be captured
        for call in (*calls[:1], *calls):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph.replay


def interleave(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    budget: float,
    device: str,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, dict[int, float]], dict[str, str]]:
    """Time `calls` by turns.

    Args:
        calls: name -> what to time.
        rounds: turns of a provider that is fast enough.
        budget: seconds that a provider may take; a slower one gets fewer turns, though at least three of them.
        device: "cpu" or "cuda".
        progress: receives a line now and then.

    Returns:
        name -> round -> seconds of a call; name -> why a call failed, for those that did.
    """
    plan: dict[str, tuple[int, int]] = {}
    failures: dict[str, str] = {}
    for name, call in calls.items():
        progress(f"warming up {name}")
        try:
            seconds = seconds_of(call, 1, device)
            if seconds < budget / 10:  # the first call may have compiled or loaded something
                seconds = min(seconds_of(call, 1, device) for _ in range(WARM_UP))
        except Exception as error:
            failures[name] = one_line(error)
            _give_back(device)
            continue
        repeats = min(max(math.ceil(TURN_SECONDS / max(seconds, 1e-9)), 1), MAX_REPEATS)
        # Powers of two, so that the rounds of the slower of two are among those of the faster and ratios exist.
        stride = 1
        while seconds * repeats * rounds / stride > budget and rounds // (2 * stride) >= MIN_ROUNDS:
            stride *= 2
        plan[name] = (repeats, stride)
    times: dict[str, dict[int, float]] = {name: {} for name in plan}
    names = list(plan)
    for index in range(rounds):
        progress(f"round {index + 1} of {rounds}")
        for position in range(len(names)):
            name = names[(position + index) % len(names)]
            repeats, stride = plan[name]
            if name in failures or index % stride:
                continue
            try:
                # The turn before may have emptied the caches and given memory back; that is not this one's cost.
                if repeats > 1:
                    seconds_of(calls[name], 1, device)
                times[name][index] = seconds_of(calls[name], repeats, device)
            except Exception as error:
                failures[name] = one_line(error)
                _give_back(device)
    return {name: found for name, found in times.items() if name not in failures}, failures


def _give_back(device: str) -> None:
    """What a call that failed, often for want of memory, left in torch's cache."""
    if device == "cuda":
        torch.cuda.empty_cache()


def percentiles(values: Mapping[int, float]) -> tuple[float, float, float]:
    """20th, 50th and 80th percentile."""
    p20, p50, p80 = np.percentile(list(values.values()), [20, 50, 80])
    return float(p20), float(p50), float(p80)


def median_ratio(baseline: Mapping[int, float] | None, values: Mapping[int, float]) -> float | None:
    """Median over the rounds that both ran of baseline / value: how many times faster than the baseline."""
    common = baseline.keys() & values.keys() if baseline else ()
    return float(np.median([baseline[index] / values[index] for index in common])) if common else None


def one_line(error: BaseException) -> str:
    """An exception as one line without its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def available_memory(device: str) -> int:
    """Free bytes: of the GPU, or of the machine and of its control group, whichever is less."""
    if device == "cuda":  # what torch's allocator keeps for later is free, too
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    free = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists() and (found := re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())):
        free.append(int(found[1]) * 1024)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        free.append(max(int(text) - int(used.read_text()), 0))
    return min(free, default=8 << 30)


def _resident(key: str) -> int:
    return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def _maximum_by_getrusage() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_of_call(call: Callable[[], object], device: str) -> int:
    """Bytes in use at the peak of one call, beyond those in use before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0) if hasattr(ctypes.CDLL(None), "malloc_trim") else None
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        before = _maximum_by_getrusage()
        call()
        return _maximum_by_getrusage() - before
    before = _resident("VmRSS")
    call()
    return max(_resident("VmHWM") - before, 0)


def peak_in_fresh_process(request: Mapping[str, object], module: str = "bench.measure", timeout: float = 600) -> float:
    """Peak extra megabytes on the CPU, by `module` in a fresh process; RuntimeError if it fails.

    Args:
        request: "provider", "mode", "shape", "dtype" and "threads".
        module: answers the request, JSON in its argument, with {"bytes": ...} on the last line of its output.
        timeout: seconds.
    """
    # The structloss that is measured here, wherever it is installed, and this package.
    folders = [str(Path(package).resolve().parents[1]) for package in (structloss.__file__, __file__)]
    # Fixed thresholds keep glibc from raising them after the first large block is freed.
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "PYTHONPATH": os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, json.dumps(request)],
            env=environment,
            cwd=tempfile.gettempdir(),  # -m looks in the working directory first
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no result after {timeout:.0f} s") from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()
        raise RuntimeError(reason[-1] if reason else f"the process ended with code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])["bytes"] / MEGABYTE


def _answer(request: dict) -> int:
    from . import providers
    from .inputs import Shape, make_input

    torch.set_num_threads(request["threads"])
    provider, dtype, mode = providers.PROVIDERS[request["provider"]], getattr(torch, request["dtype"]), request["mode"]
    shape = Shape(*request["shape"])
    loss = provider.build("cpu", shape.joints)
    # One clip of two frames: enough to load libraries, too few to leave scratch memory behind.
    first = shape if provider.name.endswith("compiled") else Shape(1, 2, shape.joints)
    providers.bind(loss, *make_input(first, dtype), mode)()
    return peak_of_call(providers.bind(loss, *make_input(shape, dtype), mode), "cpu")


if __name__ == "__main__":
    print(json.dumps({"bytes": _answer(json.loads(sys.argv[1]))}))
