"""Work for the tests of engines: functions that processes and workers import."""

import os
import signal
import time
from pathlib import Path


def doubled(numbers, folder):
    """Each number twice, and a file of it."""
    for number in numbers:
        (folder / f"{number}.txt").write_text(str(2 * number))
        yield 2 * number


def read(settings, folder):
    """The text of the file that the settings name, and how it is told and found."""
    from structloss.harness.engines import as_told

    yield Path(settings["data"]).read_text(), as_told(settings)["data"], settings["data"]


def killed_once(number, folder):
    """Is killed after it kept something, and the next time goes on from there."""
    kept = folder / f"kept-{number}.txt"
    if not kept.exists():
        kept.with_name(f".kept-{number}.tmp").write_text(str(number))
        kept.with_name(f".kept-{number}.tmp").rename(kept)
        yield "begun"
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    yield "begun"
    yield kept.read_text()


def killed(number, folder):
    """Is killed whenever it begins."""
    yield from ()
    os.kill(os.getpid(), signal.SIGKILL)


def failing(folder):
    from structloss.errors import DataError

    yield 1
    raise DataError("the data of this piece is wrong.")


def slept(seconds, folder):
    time.sleep(seconds)
    yield "slept"
