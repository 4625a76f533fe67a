"""Stochastic depth."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["DropPath", "drop_path_rates"]


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): in training, zero a residual branch and scale the survivors.

    Published code draws one mask value per element of the first axis of its tensors, which are `[B*T, J, C]` for
    attention over joints and `[B*J, T, C]` for attention over frames; `shared` says the same for `[B, T, J, C]`.

    Args:
        rate: probability of dropping, 0 <= rate < 1.
        shared: axes that share one draw. `(-2, -1)` drops single frames of `[B, T, J, C]` and whole clips of
            `[B, N, C]`; `(1, -1)` drops single joints' trajectories of `[B, T, J, C]`.
    """

    def __init__(self, rate: float = 0.0, shared: tuple[int, ...] = (-2, -1)) -> None:
        super().__init__()
        self.rate = rate
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        if not self.rate or not self.training:
            return x
        keep = 1.0 - self.rate
        shape = list(x.shape)
        for axis in self.shared:
            shape[axis] = 1
        return x * x.new_empty(shape).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}, shared={self.shared}"


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Rates of `depth` levels: evenly spaced from 0 at the first to `last` at the last."""
    return [last * level / max(depth - 1, 1) for level in range(depth)]
