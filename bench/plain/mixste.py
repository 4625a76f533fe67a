"""MixSTE (Zhang et al., CVPR 2022) as its paper prints it, and the alternation that D3DP and KTPFormer share."""

from __future__ import annotations

from torch import Tensor

from .common import Weights, block, frames_first, joints_first, layer_norm, linear


def forward(w: Weights, x: Tensor, *, depth: int = 8, num_heads: int = 8, **_) -> Tensor:
    """`[B, T, J, 2]` -> `[B, T, J, 3]`."""
    batch, frames, joints, features = x.shape
    h = linear(w, "Spatial_patch_to_embedding", x.reshape(batch * frames, joints, features)) + w["Spatial_pos_embed"]
    return head(w, alternate(w, h, batch, depth, num_heads, w["Temporal_pos_embed"]), batch)


def alternate(w: Weights, h: Tensor, batch: int, depth: int, heads: int, position: Tensor | None = None) -> Tensor:
    """The levels on `[B*T, J, C]`; `position` is added before the first temporal block."""
    for level in range(depth):
        h = layer_norm(w, "Spatial_norm", block(w, f"STEblocks.{level}", h, heads))
        h = frames_first(h, batch)
        if level == 0 and position is not None:
            h = h + position
        h = layer_norm(w, "Temporal_norm", block(w, f"TTEblocks.{level}", h, heads))
        h = joints_first(h, batch)
    return h


def head(w: Weights, h: Tensor, batch: int) -> Tensor:
    out = linear(w, "head.1", layer_norm(w, "head.0", h, 1e-5))
    return out.reshape(batch, -1, *out.shape[1:])
