"""What commands import of Lightning's and torchmetrics' optional packages: no more than they use."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

__all__ = ["import_torchmetrics"]

_SIGNAL = "scipy.signal"


def import_torchmetrics() -> None:
    """Import torchmetrics, if it is there, without scipy.signal.

    Where SciPy is installed, torchmetrics loads all of `scipy.signal`, which takes as long as half of PyTorch, to see
    whether it has a `hamming` for an audio package to find. For as long as that takes, it finds one in an empty module.
    """
    if "torchmetrics" in sys.modules or _SIGNAL in sys.modules:
        return
    stand_in = ModuleType(_SIGNAL)
    stand_in.hamming = None  # type: ignore[attr-defined]  # what is looked for
    sys.modules[_SIGNAL] = stand_in
    try:
        importlib.import_module("torchmetrics")
    except ImportError:
        pass  # whoever needs it asks again, and is told
    finally:
        del sys.modules[_SIGNAL]
