"""The two-layer perceptron of transformer blocks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import check_choice

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

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        hidden = F.gelu(hidden) if self.activation == "gelu" else F.relu(hidden)
        return self.drop(self.fc2(self.drop(hidden)))
