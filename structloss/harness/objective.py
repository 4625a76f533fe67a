"""What training minimises: the fused objective, the plain squared error of older recipes, the square of the total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .. import nn as losses
from ..backbones import Supervision
from ..errors import ArgumentError

__all__ = ["SQUARED_ERROR", "TrainingLoss"]

#: Name of the mean squared error over coordinates (SimpleBaseline, SemGCN, Jointformer). It has no structure and stays
#: outside of the fused terms.
SQUARED_ERROR = "mse"


class TrainingLoss(nn.Module):
    """Σ share · (Σ λ · term) over the predictions that a backbone trains on.

    Args:
        weights: term of :data:`structloss.TERMS`, or `"mse"`, -> lambda.
        skeleton: name of the skeleton.
        options: term -> its own function's keywords, such as `joint_weight`.
        squared: minimise half of the total's square, as MixSTE's published training does: its backward pass starts
            with the loss's own value.
        learn_weights: learn the lambdas with the model, from these on (:class:`structloss.nn.LearnedWeights`).

    Raises:
        ArgumentError: no term, a weight that is not a number >= 0 (> 0 where they are learned), or lambdas to learn for
            the squared error.
        UnknownNameError: an unknown term or skeleton.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        skeleton: str = "h36m",
        options: Mapping[str, Mapping[str, object]] | None = None,
        squared: bool = False,
        learn_weights: bool = False,
    ) -> None:
        super().__init__()
        weights = dict(weights)
        self.squared_error = float(weights.pop(SQUARED_ERROR, 0.0))
        if not self.squared_error >= 0:
            raise ArgumentError(f"objective[{SQUARED_ERROR!r}] is {self.squared_error}, expected a number >= 0.")
        if learn_weights and (self.squared_error or squared):
            raise ArgumentError("learn_weights is True, expected False with the squared error or a squared objective.")
        self.squared = squared
        kind = losses.LearnedWeights if learn_weights else losses.Objective
        self.terms = kind(weights, skeleton=skeleton, options=options) if weights else None
        if self.terms is None and not self.squared_error:
            raise ArgumentError("objective has no term, expected at least one with a weight.")

    def forward(self, predictions: Sequence[Supervision]) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and every term's value without its lambda, summed over the predictions by their shares."""
        total: Tensor | float = 0.0
        values: dict[str, Tensor] = {}
        for one in predictions:
            loss, parts = self._of(one)
            total = total + one.share * loss
            for name, part in parts.items():
                value = one.share * part.detach()
                values[name] = values[name] + value if name in values else value
        assert isinstance(total, Tensor)  # there is a prediction
        return (total.square() / 2 if self.squared else total), values

    def _of(self, one: Supervision) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a prediction, and its terms without their lambdas."""
        parts: dict[str, Tensor] = {}
        loss: Tensor | float = 0.0
        if self.terms is not None:
            loss, fused = self.terms(one.prediction, one.target, one.weight)
            parts |= fused
        if self.squared_error:
            parts[SQUARED_ERROR] = _mean_squared_error(one)
            loss = loss + self.squared_error * parts[SQUARED_ERROR]
        assert isinstance(loss, Tensor)  # the constructor wants a term
        return loss, parts

    def current_lambdas(self) -> dict[str, Tensor]:
        """Term -> lambda as it is now, detached, where they are learned; empty otherwise."""
        if not isinstance(self.terms, losses.LearnedWeights):
            return {}
        return {name: torch.as_tensor(value).detach() for name, value in self.terms.current_weights().items()}


def _mean_squared_error(one: Supervision) -> Tensor:
    error = (one.prediction - one.target).square()
    if one.weight is None:
        return error.mean()
    weight = one.weight[..., None].to(error.dtype)
    return (error * weight).sum() / (weight.sum() * error.shape[-1]).clamp(min=torch.finfo(error.dtype).tiny)
