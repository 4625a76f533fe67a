"""Jointformer (Lutz et al., ICPR 2022) as its paper prints it: both stages, tokens are the joints of a frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import Weights, layer_norm, linear, softmax_attention


def _encoder_layer(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    q, k, v = (linear(w, f"{name}.slf_attn.w_{part}s", x) for part in "qkv")
    a = x + linear(w, f"{name}.slf_attn.fc", softmax_attention(q, k, v, heads))
    a = layer_norm(w, f"{name}.slf_attn.layer_norm", a)
    o = a + linear(w, f"{name}.pos_ffn.w_2", torch.relu(linear(w, f"{name}.pos_ffn.w_1", a)))
    return layer_norm(w, f"{name}.pos_ffn.layer_norm", o)


def _predict(w: Weights, name: str, h: Tensor) -> Tensor:
    return linear(w, f"{name}.2", layer_norm(w, f"{name}.0", h.reshape(len(h), -1), eps=1e-5))


def forward(w: Weights, x: Tensor, *, depth: int = 4, num_heads: int = 8, **_) -> Tensor:
    """`[B, T, J, 2]` (pose network) or `[B, T, J, 8]` (refinement) -> `[B, T, J, 3]`.

    Published code computes every level's error too, which no pose depends on.
    """
    batch, frames, joints, channels = x.shape
    h = F.conv1d(
        x.reshape(batch * frames, joints, channels).transpose(1, 2), w["embedding.weight"], w["embedding.bias"]
    )
    h = layer_norm(w, "layer_norm", h.transpose(1, 2))
    pose = h
    for level in range(depth):
        r = h
        h = _encoder_layer(w, f"layer_stack.{level}", h, num_heads)
        if "decoder.0.weight" in w:
            h = torch.relu(h + r)
            continue
        pose = _predict(w, f"intermediate_pred.{level}", h)
        if f"intermediate_error.{level}.0.weight" in w:
            _predict(w, f"intermediate_error.{level}", h)
        h = torch.relu(h + linear(w, f"intermediate_enc.{level}", pose).reshape(h.shape) + r)
    if "decoder.0.weight" in w:
        pose = _predict(w, "decoder", h)
    return pose.reshape(batch, frames, joints, 3)
