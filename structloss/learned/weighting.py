"""The weight λ of an energy, and how its gradient reaches the predictions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from .distributed import averaged

__all__ = ["EnergyWeight", "surrogate"]

_SMOOTHING = 0.99


class EnergyWeight(nn.Module):
    """λ of an energy: a number, or the one that gives its gradient a share of the other losses' gradient.

    With `"auto:SHARE"`, λ = SHARE · |∂L/∂ŷ| / |∂E/∂ŷ|, the ratio a moving average over calls (0.99); under DDP it is
    that of the gradients of all processes.

    Args:
        weight: λ >= 0, or `"auto:SHARE"`.
        warmup: calls over which λ rises from 0 along a line.

    Attributes:
        ratio: |∂L/∂ŷ| / |∂E/∂ŷ| as averaged; 0 before the first call.
        value: λ of the last call.

    Raises:
        ArgumentError: another weight, or a negative warm-up.
    """

    ratio: Tensor
    calls: Tensor
    value: Tensor

    def __init__(self, weight: float | str, warmup: int = 0) -> None:
        super().__init__()
        self.share: float | None = None
        try:
            if isinstance(weight, str) and weight.startswith("auto:"):
                self.share = number = float(weight.removeprefix("auto:"))
            else:
                number = float(weight)
        except (TypeError, ValueError):
            number = -1.0
        if not 0 <= number < float("inf"):
            raise ArgumentError(
                f"weight is {weight!r}, expected a finite number >= 0 or 'auto:SHARE' such as auto:0.05."
            )
        if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0:
            raise ArgumentError(f"warmup is {warmup!r}, expected a whole number of at least 0.")
        self.fixed, self.warmup = number, warmup
        for name in ("ratio", "calls", "value"):
            self.register_buffer(name, torch.tensor(0.0))

    @torch.no_grad()
    def forward(self, gradient: Tensor, prediction: Tensor, others: Tensor | None) -> Tensor:
        """λ for a call, 0-d.

        Args:
            gradient: ∂E/∂ŷ.
            prediction: ŷ, in the graph of `others`.
            others: L, the losses that the share is of; unused with a fixed λ.
        """
        factor: float | Tensor = self.fixed
        if self.share is not None:
            self._follow(gradient, prediction, others)
            factor = self.share * self.ratio
        self.calls += 1
        rise = (self.calls / (self.warmup + 1)).clamp(max=1.0)
        self.value.copy_(factor * rise)
        return self.value.clone()

    def _follow(self, gradient: Tensor, prediction: Tensor, others: Tensor | None) -> None:
        assert others is not None
        if not (others.requires_grad and prediction.requires_grad):
            return
        with torch.enable_grad():
            (pull,) = torch.autograd.grad(others, prediction, retain_graph=True, allow_unused=True)
        if pull is None:
            raise ArgumentError("position_loss does not depend on prediction, expected a loss of it.")
        squares = torch.stack([pull.float().square().sum(), gradient.float().square().sum()])
        averaged(squares)
        # Where either has no gradient (a loss that is 0) there is no ratio: the last one stays.
        known = (squares > 0).all() & squares.isfinite().all()
        now = (squares[0] / squares[1].clamp(min=torch.finfo(torch.float32).tiny)).sqrt().to(self.ratio)
        now = torch.where(self.ratio > 0, self.ratio.lerp(now, 1 - _SMOOTHING), now)
        self.ratio.copy_(torch.where(known, now, self.ratio))


class _Surrogate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, prediction: Tensor, value: Tensor, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(gradient)
        ctx.dtype = prediction.dtype
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, scale: Tensor):  # type: ignore[no-untyped-def]
        (gradient,) = ctx.saved_tensors
        return (gradient * scale).to(ctx.dtype), None, None


def surrogate(prediction: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """A scalar of this `value` whose gradient with respect to `prediction` is `gradient`, computed before."""
    return _Surrogate.apply(prediction, value, gradient)
