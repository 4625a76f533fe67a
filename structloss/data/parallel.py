"""Work in pieces by several processes; what they return comes in the order of the pieces."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import TypeVar

from ..errors import DataError
from ..progress import track

__all__ = ["follow_parent", "in_parallel"]

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(
    work: Callable[[T], R], tasks: Sequence[T], jobs: int, description: str, progress: bool = False
) -> Iterator[R]:
    """What `work` returns of each task, in their order.

    Args:
        work: a function of a module, which processes can import.
        tasks: its arguments, which can be pickled.
        jobs: processes; for 1 it works in this one.
        description: of the work, for the progress bar.
        progress: show one on a terminal.

    Raises:
        DataError: a process was killed, or there is not enough memory for one.
    """
    if jobs == 1 or len(tasks) < 2:
        for task in track(tasks, description, progress):
            yield work(task)
        return
    jobs = min(jobs, len(tasks))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=follow_parent) as pool:
        todo = iter(tasks)
        waiting: deque[Future[R]] = deque(pool.submit(work, task) for task in islice(todo, 2 * jobs))
        try:
            for _ in track(range(len(tasks)), description, progress):
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, task) for task in islice(todo, 1))
                yield result
        except BaseException as error:
            # A broken one ends at once, and an interpreter that ends before it has would trip over its closed pipe.
            pool.shutdown(wait=isinstance(error, BrokenProcessPool), cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise DataError(
                    f"one of {jobs} processes was killed, by the system for its memory as a rule, expected it to "
                    "live; start again with fewer to go on where it was."
                ) from error
            if isinstance(error, MemoryError):
                raise DataError(
                    f"there is not enough memory for {jobs} processes, expected enough; start again with fewer to go "
                    "on where it was."
                ) from error
            raise


def follow_parent() -> None:
    """End this process when the one that started it is killed."""
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
