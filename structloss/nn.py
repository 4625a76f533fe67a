"""The losses as modules."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from . import functional, skeletons
from .errors import ArgumentError, check_choice
from .terms import check_term

__all__ = ["MPJPE", "DepthRanking", "Objective", "RankingHinge"]


class Objective(nn.Module):
    """Any weighted subset of the loss terms in one pass; module form of :func:`structloss.objective`.

    Args:
        weights: term name (see `structloss.TERMS`) -> lambda, a number or a 0-d tensor. Parameters among them are
            registered, so that an optimizer finds them.
        skeleton: name of the skeleton.
        reduction: "mean" or "sum".
        backend: see :func:`structloss.use_backend`.

    Shape: pred, target [..., T, J, 3], weight [..., T, J]; returns `structloss.Objective(total, terms)`.
    """

    def __init__(
        self,
        weights: Mapping[str, float | Tensor],
        skeleton: str = "h36m",
        reduction: str = "mean",
        backend: str | None = None,
    ) -> None:
        super().__init__()
        if not weights:
            raise ArgumentError("weights is empty, expected at least one term and its weight.")
        for name in weights:
            check_term(name)
        skeletons.get(skeleton)
        self.weights = dict(weights)
        self.skeleton = skeleton
        self.reduction = check_choice("reduction", reduction, functional.REDUCTIONS)
        self.backend = backend
        for name, value in self.weights.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(f"lambda_{name}", value)
            elif isinstance(value, Tensor):
                self.register_buffer(f"lambda_{name}", value)

    def forward(self, pred: Tensor, target: Tensor | None, weight: Tensor | None = None) -> functional.Objective:
        # Read back what is registered: .to() and load_state_dict may have replaced it.
        weights = {name: getattr(self, f"lambda_{name}", value) for name, value in self.weights.items()}
        return functional.objective(
            pred,
            target,
            weights,
            skeleton=self.skeleton,
            weight=weight,
            reduction=self.reduction,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"{self.weights}, skeleton={self.skeleton!r}, reduction={self.reduction!r}"


class _Loss(nn.Module):
    def __init__(self, reduction: str = "mean", backend: str | None = None) -> None:
        super().__init__()
        self.reduction = check_choice("reduction", reduction, functional.REDUCTIONS)
        self.backend = backend

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class MPJPE(_Loss):
    """Module form of :func:`structloss.mpjpe`: pred, target [..., T, J, 3], weight [..., T, J]."""

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return functional.mpjpe(pred, target, weight=weight, reduction=self.reduction, backend=self.backend)


class RankingHinge(_Loss):
    """Module form of :func:`structloss.ranking_hinge`: pred, target and weight [..., N]."""

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return functional.ranking_hinge(pred, target, weight=weight, reduction=self.reduction, backend=self.backend)


class DepthRanking(_Loss):
    """Module form of :func:`structloss.depth_ranking`: pred, target [..., T, J, 3], weight [..., T, J].

    Args:
        over: "joints" (L_S) or "frames" (L_T).
    """

    def __init__(self, over: str, reduction: str = "mean", backend: str | None = None) -> None:
        super().__init__(reduction, backend)
        self.over = check_choice("over", over, ("joints", "frames"))

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return functional.depth_ranking(
            pred, target, over=self.over, weight=weight, reduction=self.reduction, backend=self.backend
        )

    def extra_repr(self) -> str:
        return f"over={self.over!r}, {super().extra_repr()}"
