"""Training harness on Lightning: the lifting module, callbacks, recipes and the fit / validate / test commands.

Needs the `harness` extra; parts load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import lazy
from ..errors import needs_extra

if TYPE_CHECKING:
    from .lifting import LiftingModule
    from .recipe_files import recipe_names, recipe_path
    from .training import train

__all__ = ["LiftingModule", "recipe_names", "recipe_path", "train"]

_HOMES = {"lifting": ("LiftingModule",), "recipe_files": ("recipe_names", "recipe_path"), "training": ("train",)}

_get, __dir__ = lazy(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    with needs_extra("harness"):
        return _get(name)
