"""OpenCV, and how it is called here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import needs_extra

__all__ = ["one_thread", "opencv"]


def opencv() -> Any:
    """The module `cv2`.

    Raises:
        MissingDependencyError: the `images` extra is not installed.
    """
    with needs_extra("images"):
        import cv2
    return cv2


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV on the calling thread alone: its images here are small, a second thread costs more than it gives, and
    threads that a parent process started are gone in data-loader workers that were forked from it."""
    cv2 = opencv()
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
