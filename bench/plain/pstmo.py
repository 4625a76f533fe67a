"""P-STMO (Shan et al., ECCV 2022) and its refinement head as their paper prints them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import Weights, batch_norm, linear, softmax_attention


def convolution(w: Weights, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Over the last axis of `[B, C, F]`."""
    return F.conv1d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=stride, padding=padding)


def std_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    return w[f"{name}.a_2"] * (x - mean) / (std + 1e-6) + w[f"{name}.b_2"]


def spatial_encoder(w: Weights, x: Tensor) -> Tensor:
    """`[B, F, J, 2]` -> `[B, F, C]`."""
    h = x.flatten(2).permute(0, 2, 1)
    h = F.leaky_relu(batch_norm(w, "encoder.bn_1", convolution(w, "encoder.fc_1", h)), 0.2)
    y = h
    for layer in "12":
        y = convolution(w, f"encoder.layers.0.w{layer}", y)
        y = F.leaky_relu(batch_norm(w, f"encoder.layers.0.batch_norm{layer}", y), 0.2)
    return convolution(w, "encoder.fc_2", h + y).permute(0, 2, 1)


def attention_branch(w: Weights, name: str, h: Tensor, heads: int) -> Tensor:
    y = std_norm(w, f"{name}.sublayer.0.norm", h)
    q, k, v = (linear(w, f"{name}.self_attn.linears.{i}", y) for i in range(3))
    return linear(w, f"{name}.self_attn.linears.3", softmax_attention(q, k, v, heads))


def transformer(w: Weights, name: str, h: Tensor, depth: int, heads: int) -> Tensor:
    for i in range(depth):
        layer = f"{name}.model.layers.{i}"
        h = h + attention_branch(w, layer, h, heads)
        y = F.relu(linear(w, f"{layer}.feed_forward.w_1", std_norm(w, f"{layer}.sublayer.1.norm", h)))
        h = h + linear(w, f"{layer}.feed_forward.w_2", y)
    return h


def strided_transformer(w: Weights, h: Tensor, strides: Sequence[int], heads: int) -> Tensor:
    for i, stride in enumerate(strides):
        layer = f"Transformer_reduce.model.layers.{i}"
        if i < 3:
            h = h + w[f"Transformer_reduce.model.pos_embedding_{i + 1}"][:, : h.shape[1]]
        h = h + attention_branch(w, layer, h, heads)
        y = std_norm(w, f"{layer}.sublayer.1.norm", h).permute(0, 2, 1)
        y = F.relu(convolution(w, f"{layer}.feed_forward.w_1", y))
        y = convolution(w, f"{layer}.feed_forward.w_2", y, stride=stride, padding=1)
        h = F.max_pool1d(h.permute(0, 2, 1), 1, stride=stride) + y
        h = h.permute(0, 2, 1)
    return h


def head(w: Weights, name: str, h: Tensor, channels: int) -> Tensor:
    """`[B, F, C]` -> `[B, F, J, channels]`."""
    out = convolution(w, f"{name}.1", batch_norm(w, f"{name}.0", h.permute(0, 2, 1)))
    return out.permute(0, 2, 1).unflatten(-1, (-1, channels))


def forward(
    w: Weights,
    x: Tensor,
    *,
    depth: int = 4,
    strides: Sequence[int] = (3, 3, 3, 3, 3),
    num_heads: int = 8,
    reprojected: Tensor | None = None,
    **_,
) -> Tensor:
    """`[B, F, J, 2]` -> `[B, 1, J, 3]`; with `reprojected`, refine the poses `[B, T, J, 3]`."""
    if reprojected is not None:
        return refine(w, x, reprojected)
    h = spatial_encoder(w, x) + w["Transformer.pos_embedding"]
    h = transformer(w, "Transformer", h, depth, num_heads)
    return head(w, "fcn", strided_transformer(w, h, strides, num_heads), 3)


def refine(w: Weights, pose: Tensor, reprojected: Tensor) -> Tensor:
    h = torch.cat((pose, reprojected), dim=-1).flatten(2)
    h = F.relu(linear(w, "post_refine.0", h))
    score = torch.sigmoid(linear(w, "post_refine.3", h)).unflatten(-1, (-1, 2))
    xy = score * pose[..., :2] + (1 - score) * reprojected[..., :2]
    return torch.cat((xy, pose[..., 2:]), dim=-1)
