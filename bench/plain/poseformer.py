"""PoseFormer (Zheng et al., ICCV 2021) as its paper prints it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .common import Weights, block, layer_norm, linear


def spatial_stage(w: Weights, embedding: str, x: Tensor, depth: int, heads: int) -> Tensor:
    """`[B, T, J, 2]` -> `[B, T, J * c]`: every frame is a sequence of J tokens."""
    batch, frames, joints, channels = x.shape
    h = linear(w, embedding, x.reshape(batch * frames, joints, channels)) + w["Spatial_pos_embed"]
    for level in range(depth):
        h = block(w, f"Spatial_blocks.{level}", h, heads)
    return layer_norm(w, "Spatial_norm", h).reshape(batch, frames, -1)


def head(w: Weights, h: Tensor) -> Tensor:
    """`[B, 1, C]` -> `[B, 1, J, 3]`."""
    out = linear(w, "head.1", layer_norm(w, "head.0", h, eps=1e-5))
    return out.reshape(len(out), 1, -1, 3)


def forward(w: Weights, x: Tensor, *, depth: int = 4, num_heads: int = 8, **_) -> Tensor:
    """`[B, F, J, 2]` -> `[B, 1, J, 3]`."""
    h = spatial_stage(w, "Spatial_patch_to_embedding", x, depth, num_heads) + w["Temporal_pos_embed"]
    for level in range(depth):
        h = block(w, f"blocks.{level}", h, num_heads)
    h = layer_norm(w, "Temporal_norm", h)
    return head(w, F.conv1d(h, w["weighted_mean.weight"], w["weighted_mean.bias"]))
