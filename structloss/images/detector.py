"""Detectors of people's 2D keypoints: what one is, and the registry that knows all of them.

A detector is one file in `detectors/`, which ends in

    DETECTORS.register(Detector("name", "what it is", "layout", open))

Somebody's own needs no file here: it is a function, named by its module (:func:`load_detector`).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.formats.keypoint_maps import LAYOUTS
from ..data.registry import Registry
from ..errors import ArgumentError, check_name, shown

__all__ = ["DETECTORS", "Detect", "Detector", "load_detector"]

Detect = Callable[[np.ndarray], Any]
"""From a frame, uint8 RGB `[H, W, 3]`, to keypoints `[J, 3]` (x right, y down in pixels; confidence from 0 to 1), those
of several people `[P, J, 3]`, or None where nobody is seen. With a method `close`, it is closed after the last frame.
"""


@dataclass(frozen=True)
class Detector:
    """A detector.

    Attributes:
        name: in messages and files.
        says: what it is, in a few words.
        layout: of its keypoints, one of :data:`~structloss.data.formats.keypoint_maps.LAYOUTS`; None is told by their
            number, as in keypoint files (17 are COCO's).
        open: `open(fps)` makes it ready for frames that follow each other, so many a second, or for a single image
            (None).
        check: raises :class:`~structloss.errors.MissingDependencyError` where what it needs is not installed.
    """

    name: str
    says: str
    layout: str | None
    open: Callable[[float | None], Detect]
    check: Callable[[], object] = lambda: None


DETECTORS: Registry[Detector] = Registry(f"{__package__}.detectors", "detector")
"""Every detector by name."""


def load_detector(name: str, *, layout: str | None = None) -> Detector:
    """A registered detector, or somebody's own function.

    Args:
        name: one of :data:`DETECTORS`; or "package.module:function", a :data:`Detect`, whose attribute `layout` may say
            what its keypoints are. The module is imported, from where Python finds modules or from the current
            folder: its code runs. So the name must come from the user, never from a file.
        layout: of the keypoints; None is what the detector says.

    Raises:
        UnknownNameError: no detector is called so.
        ArgumentError: no such module or function, something that can't be called, or an unknown layout.
        MissingDependencyError: a package that the detector needs is not installed.
    """
    if layout is not None:
        check_name("layout", layout, LAYOUTS)
    if ":" not in name:
        found = DETECTORS[check_name("detector", name, DETECTORS)]
        if layout is not None and layout != found.layout:
            raise ArgumentError(f"layout is {layout!r} with detector {name!r}, expected {found.layout!r}.")
        found.check()
        return found
    function = _imported(name)
    own = getattr(function, "layout", None)
    if own is not None and (not isinstance(own, str) or own not in LAYOUTS):
        raise ArgumentError(
            f"detector is {name!r}, whose layout is {shown(own)}, expected one of {', '.join(LAYOUTS)}."
        )
    return Detector(name, "a function", layout or own, lambda fps: function)


def _imported(name: str) -> Detect:
    place, _, attribute = name.partition(":")
    expected = "expected a name of structloss's detectors, or module:function"
    if not all(part.isidentifier() for part in (*place.split("."), attribute)):
        raise ArgumentError(f"detector is {name!r}, {expected}.")
    try:
        with _from_here():
            module = importlib.import_module(place)
    except Exception as error:  # somebody's own code: whatever it raises
        if isinstance(error, ModuleNotFoundError) and f"{place}.".startswith(f"{error.name}."):
            raise ArgumentError(f"detector is {name!r}, and there is no module {error.name}, {expected}.") from error
        raise ArgumentError(
            f"detector is {name!r}, and importing {place} failed with {type(error).__name__}: "
            f"{str(error).rstrip('.')}, expected a module that can be imported."
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        found = "has no such name" if function is None else f"has {shown(function)} under it"
        raise ArgumentError(f"detector is {name!r}, and {place} {found}, expected a function of a frame.")
    made: Detect = function
    return made


@contextmanager
def _from_here() -> Iterator[None]:
    """The current folder among the places of modules, the last of them: nothing that is installed is replaced."""
    here = os.getcwd()
    sys.path.append(here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)
