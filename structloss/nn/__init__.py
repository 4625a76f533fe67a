"""The losses as modules, and weights that are learned with the model."""

from . import fused, learned_weights, terms

# Every public name of a module is one of the package's.
from .fused import *  # noqa: F403
from .learned_weights import *  # noqa: F403
from .terms import *  # noqa: F403

__all__: list[str] = []
__all__ += fused.__all__ + learned_weights.__all__ + terms.__all__
