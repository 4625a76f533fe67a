"""The objective as a module."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .. import functional, skeletons
from ..errors import check_choice
from ..functional._call import check_weights, encode
from ..ops.structure import structure_of
from ..terms import TERMS, check_options

__all__ = ["Objective"]


class Objective(nn.Module):
    """Any weighted subset of the loss terms in one pass; module form of :func:`structloss.objective`.

    Args:
        weights: term name (see `structloss.TERMS`) -> lambda, a number or a 0-d tensor. Parameters among them are
            registered, so that an optimizer finds them. For weights that balance themselves take
            :class:`structloss.nn.LearnedWeights` instead of this module.
        skeleton: name of the skeleton.
        options: term name -> the keywords of its own function.
        reduction: "mean" or "sum".
        backend: see :func:`structloss.use_backend`.

    Shape: pred, target [..., T, J, 3], weight [..., T, J]; returns `structloss.ObjectiveResult(total, terms)`.
    `target` may be None if no term needs one. In evaluation mode a ranking term's `resolution` has a fixed offset.
    """

    def __init__(
        self,
        weights: Mapping[str, float | Tensor],
        skeleton: str = "h36m",
        options: Mapping[str, Mapping[str, object]] | None = None,
        reduction: str = "mean",
        backend: str | None = None,
    ) -> None:
        super().__init__()
        check_weights(weights)
        skeletons.get(skeleton)
        structure_of(tuple(weights), skeleton, encode(tuple(weights), options))  # raises for what they can't be
        self.weights = dict(weights)
        self.skeleton = skeleton
        # In plain Python, so that a compiled graph can take them for constants.
        self.options = {name: check_options(TERMS[name], given) for name, given in (options or {}).items()}
        self.reduction = check_choice("reduction", reduction, functional.REDUCTIONS)
        self.backend = backend
        for name, value in self.weights.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(f"lambda_{name}", value)
            elif isinstance(value, Tensor):
                self.register_buffer(f"lambda_{name}", value)

    def current_weights(self) -> dict[str, float | Tensor]:
        """Term name -> lambda, as it is now."""
        # Read back what is registered: .to() and load_state_dict may have replaced it. A number is nowhere registered,
        # and to find that out by getattr with a default takes as long as a small loss.
        if torch.compiler.is_compiling():
            return {name: getattr(self, f"lambda_{name}", value) for name, value in self.weights.items()}
        parameters, buffers, attributes = self._parameters, self._buffers, vars(self)
        current = dict(self.weights)
        for name in current:
            key = f"lambda_{name}"
            if key in parameters or key in buffers or key in attributes:
                current[name] = getattr(self, key)
        return current

    def forward(self, pred: Tensor, target: Tensor | None, weight: Tensor | None = None) -> functional.ObjectiveResult:
        return functional.objective(
            pred,
            target,
            self.current_weights(),
            skeleton=self.skeleton,
            weight=weight,
            options=self.options or None,
            reduction=self.reduction,
            backend=self.backend,
            training=self.training,
        )

    def extra_repr(self) -> str:
        return f"{self.weights}, skeleton={self.skeleton!r}, reduction={self.reduction!r}"
