"""The pre-norm transformer block of most families."""

from __future__ import annotations

from torch import Tensor, nn

from .attention import Attention
from .drop_path import DropPath
from .mlp import MLP

__all__ = ["TransformerBlock"]


class TransformerBlock(nn.Module):
    """h + DropPath(attn(norm1(h))), then h + DropPath(mlp(norm2(h))), on `[..., N, C]` or over the frames of a clip.

    Args:
        dim: channels C, a multiple of `heads`.
        heads: number of heads.
        hidden: hidden width of the MLP.
        eps: of both LayerNorms.
        over: `"tokens"` attends over axis -2, `"frames"` over axis 1 of `[B, T, J, C]`.
        drop: dropout after `proj` and in the MLP.
        path: stochastic depth of both branches; drops a whole sequence of tokens (see :class:`DropPath`).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        *,
        eps: float = 1e-6,
        over: str = "tokens",
        drop: float = 0.0,
        path: float = 0.0,
    ) -> None:
        super().__init__()
        self.over = over
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, over=over, proj_drop=drop)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, hidden, drop=drop)
        self.drop_path = DropPath(path, (1, -1) if over == "frames" else (-2, -1))

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.drop_path(self.attn(h, norm=self.norm1))
        return h + self.drop_path(self.mlp(h, norm=self.norm2))
