"""Training harness on Lightning: the lifting module, callbacks, recipes and the fit / validate / test commands.

Needs the `harness` extra; parts load when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingDependencyError

__all__ = ["LiftingModule", "recipe_names", "recipe_path", "train"]

_HOME = {"LiftingModule": "lifting", "recipe_names": "recipe_files", "recipe_path": "recipe_files", "train": "training"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("lightning", "jsonargparse", "rich"):
            raise MissingDependencyError(
                f"{error.name} is not installed, expected the training extra: pip install 'structloss[harness]'."
            ) from error
        raise
