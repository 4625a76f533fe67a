"""The objective in plain PyTorch: the fallback on any device, and the readable reference for the compiled backends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..terms import TERMS, Denominator
from .denominators import count, weighted_count
from .structure import Structure, structure_of
from .torch_terms import TERM_FUNCTIONS
from .torch_terms.common import TermInput, accumulation_dtype
from .torch_terms.ranking import hinge

__all__ = ["TAKES_HALF_TYPES", "objective", "ranking_hinge"]

# Poses of half types arrive converted to float32.
TAKES_HALF_TYPES = False


def _inverse_count(kind: Denominator, x: TermInput) -> Tensor:
    """1 / what the mean divides by (0-d), 0 where there is nothing to average."""
    if x.weight is None:
        number = count(kind, (x.pred.shape[0], x.pred.shape[1], x.pred.shape[2]), x.structure)
        found = torch.full((), number, dtype=accumulation_dtype(x.pred.device), device=x.pred.device)
    else:
        found = weighted_count(kind, x.weight, x.structure).to(x.weight.dtype)
    return torch.where(found > 0, 1 / found, 0)


def objective(
    pred: Tensor,  # [B, T, J, 3]
    target: Tensor | None,  # [B, T, J, 3]
    weight: Tensor | None,  # [B, T, J]
    lambdas: Sequence[float] | Tensor,
    terms: tuple[str, ...],
    skeleton: str,
    options: str,
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Total, values [K] of the terms and, if asked for, the gradient [B, T, J, 3] of the total."""
    wide = accumulation_dtype(pred.device)
    total_grad = torch.zeros(pred.shape if need_grad else (0,), dtype=wide, device=pred.device)
    total = torch.zeros((), dtype=wide, device=pred.device)
    if weight is not None:
        masked = ~(weight > 0).unsqueeze(-1)  # whatever a masked joint holds, NaN included, takes no part
        pred, target = pred.masked_fill(masked, 0), None if target is None else target.masked_fill(masked, 0)
        weight = weight.to(wide)
    x = TermInput(pred, target, weight, structure_of(terms, skeleton, options))
    values = []
    for k, term in enumerate(terms):
        value, g = TERM_FUNCTIONS[term](x)
        if reduction == "mean":
            scale = _inverse_count(TERMS[term].denominator, x)
            value, g = value * scale, g * scale
        values.append(value)
        total = total + lambdas[k] * value
        if need_grad:
            channels = total_grad if g.dim() == pred.dim() else total_grad[..., 2]
            channels += lambdas[k] * g
    return total.to(pred.dtype), torch.stack(values).to(pred.dtype), total_grad.to(pred.dtype)


def ranking_hinge(
    pred: Tensor,  # [R, N]
    target: Tensor,  # [R, N]
    weight: Tensor | None,  # [R, N]
    reduction: str,
    need_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Scalar hinge over the rows and, if asked for, its gradient."""
    if weight is not None:
        masked = ~(weight > 0)
        pred, target, weight = (
            pred.masked_fill(masked, 0),
            target.masked_fill(masked, 0),
            weight.to(accumulation_dtype(pred.device)),
        )
    value, g = hinge(pred, target, weight)
    if reduction == "mean":  # rows are clips of one joint
        x = TermInput(pred[..., None, None], None, None if weight is None else weight.unsqueeze(-1), Structure())
        scale = _inverse_count(Denominator.FRAME_PAIRS, x)
        value, g = value * scale, g * scale
    return value.to(pred.dtype), (g if need_grad else g.new_empty(0)).to(pred.dtype)
