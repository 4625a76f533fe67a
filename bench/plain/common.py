"""The equations of transformer blocks as papers print them, on a published state dict.

The functions of this folder are what the backbones are compared with: plain eager PyTorch, every intermediate tensor
written out, evaluation mode. `w` is a state dict by its published keys.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def layer_norm(w: Weights, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.layer_norm(x, weight.shape, weight, w[f"{name}.bias"], eps)


def batch_norm(w: Weights, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    """`[N, C]` or `[N, C, L]`, by the running statistics."""
    mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, w[f"{name}.weight"], w[f"{name}.bias"], eps=eps)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float | None = None) -> Tensor:
    """softmax(q·kᵀ·scale)·v on `[B, N, C]`, the N x N matrix of every head written out."""
    batch, tokens, channels = q.shape
    q, k, v = (t.reshape(batch, -1, heads, channels // heads).permute(0, 2, 1, 3) for t in (q, k, v))
    weights = (q @ k.transpose(-2, -1) * (scale or (channels // heads) ** -0.5)).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(batch, tokens, channels)


def attention(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    """Self-attention on `[B, N, C]` with the projections `qkv` and `proj`."""
    q, k, v = linear(w, f"{name}.qkv", x).chunk(3, dim=-1)
    return linear(w, f"{name}.proj", softmax_attention(q, k, v, heads))


def mlp(w: Weights, name: str, x: Tensor) -> Tensor:
    return linear(w, f"{name}.fc2", F.gelu(linear(w, f"{name}.fc1", x)))


def block(w: Weights, name: str, x: Tensor, heads: int, eps: float = 1e-6) -> Tensor:
    """x + attn(norm1(x)), then x + mlp(norm2(x))."""
    x = x + attention(w, f"{name}.attn", layer_norm(w, f"{name}.norm1", x, eps), heads)
    return x + mlp(w, f"{name}.mlp", layer_norm(w, f"{name}.norm2", x, eps))


def frames_first(x: Tensor, batch: int) -> Tensor:
    """`[B*T, J, C]` -> `[B*J, T, C]`."""
    _, joints, channels = x.shape
    return x.reshape(batch, -1, joints, channels).transpose(1, 2).reshape(batch * joints, -1, channels)


def joints_first(x: Tensor, batch: int) -> Tensor:
    """`[B*J, T, C]` -> `[B*T, J, C]`."""
    _, frames, channels = x.shape
    return x.reshape(batch, -1, frames, channels).transpose(1, 2).reshape(batch * frames, -1, channels)
