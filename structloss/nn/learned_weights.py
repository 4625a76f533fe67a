"""An objective whose weights are learned with the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from ..errors import ArgumentError
from ..functional._call import check_weights
from ..terms import check_term
from .fused import Objective

__all__ = ["LearnedWeights"]


class LearnedWeights(Objective):
    """The objective with uncertainty-weighted lambdas: each term's weight is learned with the model.

    total = sum_k (lambda0_k * exp(-s_k) * L_k + s_k), with one parameter s_k per term (`log_variance`, starting at 0).
    This is the negative log-likelihood of Laplace-distributed errors of scale exp(s_k) / lambda0_k, up to a constant;
    the s_k keep the weights from going to zero, and for a fixed model the optimum is lambda_k = 1 / L_k: every term
    then adds the same to the total. Give the parameters no weight decay. The total may become negative.

    Args:
        weights: term name -> lambda at the start (> 0, a number), or names of terms, which start at 1.
        skeleton, options, reduction, backend: as in :class:`structloss.nn.Objective`.

    Shape: as :class:`structloss.nn.Objective`; `terms` of the result holds the unweighted values.

    Source: Kendall et al., CVPR 2018, for the weighting; RePOSE (Sun et al., ECCV 2024) leaves adaptive lambda_S and
    lambda_T to future work.

    Example:
        >>> import torch, structloss
        >>> loss = structloss.nn.LearnedWeights(["mpjpe", "depth_ranking_joints", "depth_ranking_frames"])
        >>> pred = torch.randn(2, 27, 17, 3, requires_grad=True)
        >>> loss(pred, torch.zeros(2, 27, 17, 3)).total.backward()
        >>> loss.log_variance.grad.shape
        torch.Size([3])
    """

    def __init__(
        self,
        weights: Mapping[str, float] | Iterable[str],
        skeleton: str = "h36m",
        options: Mapping[str, Mapping[str, object]] | None = None,
        reduction: str = "mean",
        backend: str | None = None,
    ) -> None:
        if not isinstance(weights, Mapping) and isinstance(weights, Iterable) and not isinstance(weights, str):
            weights = {check_term(name).name: 1.0 for name in weights}
        check_weights(weights)
        assert isinstance(weights, Mapping)
        start: Mapping[str, Any] = weights
        for name, value in start.items():
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number or not 0 < value < float("inf"):
                raise ArgumentError(f"weights[{name!r}] is {value!r}, expected a finite number > 0 to start from.")
        super().__init__({name: float(value) for name, value in start.items()}, skeleton, options, reduction, backend)
        self.log_variance = nn.Parameter(torch.zeros(len(self.weights)))

    def current_weights(self) -> dict[str, float | Tensor]:
        """Term name -> lambda, as it is now: 0-d tensors that gradients flow through."""
        lambdas = torch.exp(-self.log_variance)
        return {name: start * lam for (name, start), lam in zip(self.weights.items(), lambdas.unbind(), strict=True)}

    def forward(self, pred: Tensor, target: Tensor | None, weight: Tensor | None = None) -> functional.ObjectiveResult:
        weighted = super().forward(pred, target, weight)
        return functional.ObjectiveResult(weighted.total + self.log_variance.sum(), weighted.terms)
