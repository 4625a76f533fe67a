"""PyTorch forms of the terms: TermInput -> (sum, its gradient for all channels [B, T, J, 3] or for depth [B, T, J]).

A term's form is the function of its name in one of these modules, and in their `__all__`.
"""

from collections.abc import Callable

from torch import Tensor

from ...terms import TERMS
from . import anatomy, limbs, motion, position, ranking
from .common import TermInput

__all__ = ["TERM_FUNCTIONS"]

_FORMS = {name: getattr(home, name) for home in (anatomy, limbs, motion, position, ranking) for name in home.__all__}
TERM_FUNCTIONS: dict[str, Callable[[TermInput], tuple[Tensor, Tensor]]] = {name: _FORMS[name] for name in TERMS}
