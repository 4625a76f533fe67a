"""MHFormer (Li et al., CVPR 2022) as its paper prints it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import Weights, attention, batch_norm, block, layer_norm, linear, mlp, softmax_attention

# Of each hypothesis' cross attention: the numbers of the hypotheses that give queries, keys and values.
_CROSS = ((2, 3, 1), (1, 3, 2), (1, 2, 3))


def _convolution(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _generate(w: Weights, name: str, x: Tensor, depth: int, heads: int) -> Tensor:
    x = x + w[f"{name}.pos_embed"]
    for level in range(depth):
        x = block(w, f"{name}.blocks.{level}", x, heads)
    return layer_norm(w, f"{name}.norm", x)


def _embed(w: Weights, name: str, x: Tensor) -> Tensor:
    """`[B, 2J, F]` -> `[B, F, C]`."""
    if f"{name}.weight" in w:
        return _convolution(w, name, x).transpose(1, 2)
    return torch.relu(batch_norm(w, f"{name}.1", _convolution(w, f"{name}.0", x))).transpose(1, 2)


def _mix(w: Weights, name: str, h: dict[int, Tensor]) -> dict[int, Tensor]:
    z = torch.cat([h[m] for m in (1, 2, 3)], dim=-1)
    z = z + mlp(w, f"{name}.mlp", layer_norm(w, f"{name}.norm2", z))
    return dict(enumerate(z.chunk(3, dim=-1), start=1))


def forward(
    w: Weights, x: Tensor, *, depth: int = 3, num_heads: int = 8, mhg_depth: int = 4, mhg_heads: int = 9, **_
) -> Tensor:
    """`[B, F, J, 2]` -> `[B, F, J, 3]`."""
    batch, frames, joints, _ = x.shape
    x = x.reshape(batch, frames, 2 * joints).permute(0, 2, 1)
    top = "Transformer_hypothesis"
    h = {}
    for m in (1, 2, 3):
        x = x + _generate(w, f"Transformer_encoder_{m}", layer_norm(w, f"norm_{m}", x, 1e-5), mhg_depth, mhg_heads)
        h[m] = _embed(w, f"embedding_{m}", x) + w[f"{top}.pos_embed_{m}"]
    for level in range(depth - 1):
        name = f"{top}.SHR_blocks.{level}"
        for m in (1, 2, 3):
            h[m] = h[m] + attention(w, f"{name}.attn_{m}", layer_norm(w, f"{name}.norm1_{m}", h[m]), num_heads)
        h = _mix(w, name, h)
    name = f"{top}.CHI_blocks.0"
    for m, sources in enumerate(_CROSS, start=1):
        q, k, v = (
            linear(w, f"{name}.attn_{m}.linear_{part}", layer_norm(w, f"{name}.norm3_{m}{n}", h[source]))
            for n, (part, source) in enumerate(zip("qkv", sources, strict=True), start=1)
        )
        h[m] = h[m] + linear(w, f"{name}.attn_{m}.proj", softmax_attention(q, k, v, num_heads))
    h = _mix(w, name, h)
    z = layer_norm(w, f"{top}.norm", torch.cat([h[m] for m in (1, 2, 3)], dim=-1))
    z = _convolution(w, "regression.1", batch_norm(w, "regression.0", z.permute(0, 2, 1)))
    return z.permute(0, 2, 1).reshape(batch, frames, joints, 3)
