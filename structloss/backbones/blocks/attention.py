"""Multi-head attention over the joints of a frame or over the frames of a joint."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from .memory import recomputed

__all__ = ["Attention", "attend", "merge_heads", "split_heads"]

# Up to this many tokens plain matrix products beat the fused CPU kernel, forward + backward: 3 times at 17 tokens and
# 1.3 times at 81, while at 243 the fused kernel is 1.7 to 2.8 times faster (two Zen cores, head width 8 to 32).
_SHORT = 96


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout: float = 0.0,
    scale: float | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Softmax attention of `[B, H, N, d]` queries, keys and values; returns `[B, H, N, d]`.

    Four dimensions matter: with five, PyTorch leaves its fused kernels.

    Args:
        q, k, v: `[B, H, N, d]`; keys and values may have another N than the queries.
        dropout: rate on the attention weights.
        scale: of the scores; None is 1/√d.
        mask: boolean `[N]` over the keys, the same for all queries: False leaves a key out. None keeps all.
        bias: added to the scores, `[N, N]` or `[H, N, N]`, instead of a mask.
    """
    tokens = k.shape[-2]
    if q.device.type == "cpu" and isinstance(tokens, int) and tokens <= _SHORT:  # not of a free length in an export
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        scores = (q * factor) @ k.transpose(-2, -1)
        if bias is not None:
            scores = scores + bias
        weights = (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)
        return (F.dropout(weights, dropout) if dropout else weights) @ v
    shared = bias if mask is None else mask.expand(q.shape[-2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=shared, dropout_p=dropout, scale=scale)


def split_heads(x: Tensor, parts: int, heads: int, over: str = "tokens") -> tuple[Tensor, ...]:
    """Projected tokens `[..., N, parts * heads * d]` as `parts` tensors `[rows, heads, N, d]`, ready for `attend`.

    Args:
        x: channels ordered part, head, d. For `over="frames"`, `[B, T, J, ...]`.
        parts: 3 for queries, keys and values of one projection.
        heads: number of heads.
        over: `"tokens"` attends over axis -2, rows are everything before it; `"frames"` attends over axis 1, rows are
            clips x joints.
    """
    width = x.shape[-1] // (parts * heads)  # spelled out in the views below, where -1 would fail on an empty batch
    if over == "frames":
        batch, frames, joints, _ = x.shape
        split = x.view(batch, frames, joints, parts, heads, width).permute(3, 0, 2, 4, 1, 5)
        return split.reshape(parts, batch * joints, heads, frames, width).unbind(0)
    rows = math.prod(x.shape[:-2])
    return x.view(rows, x.shape[-2], parts, heads, width).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(x: Tensor, shape: tuple[int, ...], over: str = "tokens") -> Tensor:
    """The way back: `[rows, heads, N, d]` to `shape`, `[..., N, heads * d]`."""
    if over == "frames":
        batch, frames, joints, _ = shape
        x = x.view(batch, joints, x.shape[1], frames, x.shape[-1]).permute(0, 3, 1, 2, 4)
    else:
        x = x.transpose(1, 2)
    return x.reshape(shape)


class Attention(nn.Module):
    """Multi-head self-attention with one projection `qkv` (rows q, k, v; heads contiguous in each) and `proj`.

    Args:
        dim: channels C, a multiple of `heads` unless `inner` is given.
        heads: number of heads.
        over: `"tokens"` attends over axis -2 of `[..., N, C]`, `"frames"` over axis 1 of `[B, T, J, C]`.
        inner: channels of queries, keys and values, a multiple of `heads`; None is `dim`.
        qkv_bias, proj_bias: whether `qkv` and `proj` have a bias.
        attn_drop, proj_drop: dropout rates on the attention weights and after `proj`.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 8,
        *,
        over: str = "tokens",
        inner: int | None = None,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        inner = dim if inner is None else inner
        self.heads = heads
        self.over = over
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
        self.proj = nn.Linear(inner, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, mask: Tensor | None = None, norm: nn.Module | None = None) -> Tensor:
        """Attend.

        Args:
            x: tokens `[..., N, C]`, or `[B, T, J, C]` with `over="frames"`.
            mask: boolean `[N]`: False leaves a token out of what the others attend to.
            norm: attend to `norm(x)`, which is not kept for the backward pass.
        """
        qkv = self.qkv(x) if norm is None else recomputed(norm, x, self.qkv)
        q, k, v = split_heads(qkv, 3, self.heads, self.over)
        out = attend(q, k, v, self.attn_drop if self.training else 0.0, mask=mask)
        shape = (*x.shape[:-1], self.proj.in_features)
        return self.proj_drop(recomputed(lambda out: merge_heads(out, shape, self.over), out, self.proj))
