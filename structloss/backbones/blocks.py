"""Building blocks that several backbones share, and the checks of their input.

Tokens are `[..., N, C]` or, for clips, `[B, T, J, C]` (batch, frames, joints, channels). That layout is kept
through the whole network: only attention over frames has to bring the frames next to the channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError, DtypeError, check_floating, check_same_device

__all__ = ["MLP", "Attention", "DropPath", "attend", "check_clip", "check_rate", "check_size", "init_truncated_normal"]

# Up to this many tokens plain matrix products beat the fused CPU kernel, forward + backward: 3 times at 17 tokens and
# 1.3 times at 81, while at 243 the fused kernel is 1.7 to 2.8 times faster (two Zen cores, head width 8 to 32).
_SHORT = 96


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Softmax attention of `[B, H, N, d]` queries, keys and values, scaled by 1/√d; returns `[B, H, N, d]`.

    Four dimensions matter: with five, PyTorch leaves its fused kernels. `dropout` is the rate on the attention weights.
    """
    if q.device.type == "cpu" and k.shape[-2] <= _SHORT:
        weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
        return (F.dropout(weights, dropout) if dropout else weights) @ v
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


class Attention(nn.Module):
    """Multi-head self-attention with one projection `qkv` (rows q, k, v; heads contiguous in each) and `proj`.

    Args:
        dim: channels C, a multiple of `heads`.
        heads: number of heads.
        qkv_bias: whether `qkv` has a bias.
        attn_drop, proj_drop: dropout rates on the attention weights and after `proj`.
    """

    def __init__(
        self, dim: int, heads: int = 8, *, qkv_bias: bool = True, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, over: str = "tokens") -> Tensor:
        """Attend over axis -2 of `x` `[..., N, C]` (`over="tokens"`), or over axis 1 of `[B, T, J, C]` (`"frames"`)."""
        width = x.shape[-1] // self.heads  # spelled out in the views below, where -1 would fail on an empty batch
        dropout = self.attn_drop if self.training else 0.0
        qkv = self.qkv(x)
        if over == "frames":
            batch, frames, joints, _ = x.shape
            split = qkv.view(batch, frames, joints, 3, self.heads, width).permute(3, 0, 2, 4, 1, 5)
            q, k, v = split.reshape(3, batch * joints, self.heads, frames, width).unbind(0)
            out = attend(q, k, v, dropout).view(batch, joints, self.heads, frames, width).permute(0, 3, 1, 2, 4)
        else:
            tokens = x.shape[-2]
            rows = math.prod(x.shape[:-2])
            q, k, v = qkv.view(rows, tokens, 3, self.heads, width).permute(2, 0, 3, 1, 4).unbind(0)
            out = attend(q, k, v, dropout).transpose(1, 2)
        return self.proj_drop(self.proj(out.reshape(x.shape)))


class MLP(nn.Module):
    """`fc2(gelu(fc1(x)))` with the exact (erf) GELU and dropout after both layers, on `[..., C]`."""

    def __init__(self, dim: int, hidden: int, *, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): in training, zero a residual branch and scale the survivors.

    Args:
        rate: probability of dropping, 0 <= rate < 1.
        axes: how many leading axes draw their own mask: 1 drops whole clips, 2 drops single frames of `[B, T, J, C]`.
    """

    def __init__(self, rate: float = 0.0, axes: int = 1) -> None:
        super().__init__()
        self.rate = rate
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        if not self.rate or not self.training:
            return x
        keep = 1.0 - self.rate
        shape = list(x.shape[: self.axes]) + [1] * (x.dim() - self.axes)
        return x * x.new_empty(shape).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}, axes={self.axes}"


def init_truncated_normal(module: nn.Module, std: float = 0.02) -> None:
    """Initialise as vision transformers do; pass it to `Module.apply`.

    Linear weights: normal with `std`, truncated at ±2 (absolute); linear biases 0; LayerNorm 1 and 0.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def check_size(argument: str, value: object, *, multiple_of: int = 1) -> None:
    """Raise unless `value` is a positive integer and a multiple of `multiple_of`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or value % multiple_of:
        kind = "a positive integer" if multiple_of == 1 else f"a positive multiple of {multiple_of}"
        raise ArgumentError(f"{argument} is {value!r}, expected {kind}.")


def check_rate(argument: str, value: object) -> None:
    """Raise unless `value` is a number in [0, 1)."""
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ArgumentError(f"{argument} is {value!r}, expected a rate, 0 <= rate < 1.")


def check_clip(
    x: object, weight: Tensor, *, joints: Sequence[int], channels: Sequence[int] = (2, 3), frames: int | None = None
) -> None:
    """Check the input `x` of a backbone: `[B, T, J, C]`, floating point, dtype and device of `weight`.

    Args:
        x: what the caller passed.
        weight: any parameter of the model. Its dtype must be that of `x`, except under autocast.
        joints, channels: the values of J and C that the model takes.
        frames: the largest T, or None for any.

    Raises:
        DtypeError: not a floating-point tensor, or of another dtype than the weights.
        ArgumentError: a wrong shape or device.
    """
    check_floating("x", x)
    assert isinstance(x, Tensor)
    j, c = (" or ".join(map(str, allowed)) for allowed in (joints, channels))
    if x.dim() != 4 or x.shape[2] not in joints or x.shape[3] not in channels:
        raise ArgumentError(f"x has shape {list(x.shape)}, expected [B, T, J, C] with J = {j} and C = {c}.")
    if x.shape[1] < 1 or (frames is not None and x.shape[1] > frames):
        expected = "at least 1" if frames is None else f"1 to {frames}"
        raise ArgumentError(f"x has {x.shape[1]} frames (shape {list(x.shape)}), expected {expected} for this model.")
    check_same_device("x", x, "the model", weight)
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise DtypeError(f"x has dtype {x.dtype}, expected {weight.dtype}, the dtype of the model's weights.")
