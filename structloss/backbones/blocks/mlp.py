"""The two-layer perceptron of transformer blocks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import check_choice
from .memory import recomputed

__all__ = ["MLP"]


class MLP(nn.Module):
    """`fc2(act(fc1(x)))` with dropout after both layers, on `[..., C]`.

    Args:
        dim: channels C.
        hidden: width between the layers.
        drop: dropout rate.
        activation: `"gelu"` (exact, by erf) or `"relu"`.
        bias: whether the layers have biases.
    """

    def __init__(
        self, dim: int, hidden: int, *, drop: float = 0.0, activation: str = "gelu", bias: bool = True
    ) -> None:
        super().__init__()
        self.activation = check_choice("activation", activation, ("gelu", "relu"))
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.fc2 = nn.Linear(hidden, dim, bias=bias)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Of `norm(x)` if `norm` is given; neither that nor the activation's output is kept for the backward pass."""
        hidden = self.fc1(x) if norm is None else recomputed(norm, x, self.fc1)
        activation = F.gelu if self.activation == "gelu" else F.relu
        if self.drop.p and self.training:  # the mask is drawn once
            return self.drop(self.fc2(self.drop(activation(hidden))))
        return recomputed(activation, hidden, self.fc2)
