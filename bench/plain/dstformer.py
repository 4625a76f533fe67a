"""DSTformer (Zhu et al., MotionBERT, ICCV 2023) as its paper prints it."""

from __future__ import annotations

import torch
from torch import Tensor

from .common import Weights, attention, frames_first, joints_first, layer_norm, linear, mlp


def forward(w: Weights, x: Tensor, *, depth: int = 5, num_heads: int = 8, predict_offset: bool = False, **_) -> Tensor:
    """`[B, T, J, 3]` -> `[B, T, J, 3]`."""
    batch, frames, joints, _ = x.shape
    h = linear(w, "joints_embed", x.reshape(batch * frames, joints, 3)) + w["pos_embed"]
    channels = h.shape[-1]
    h = (h.reshape(batch, frames, joints, channels) + w["temp_embed"][:, :frames]).reshape(-1, joints, channels)
    for level in range(depth):
        streams = []
        for order in ("st", "ts"):
            u = h
            for axis in order:
                name = f"blocks_{order}.{level}"
                u = u if axis == "s" else frames_first(u, batch)
                u = u + attention(w, f"{name}.attn_{axis}", layer_norm(w, f"{name}.norm1_{axis}", u), num_heads)
                u = u + mlp(w, f"{name}.mlp_{axis}", layer_norm(w, f"{name}.norm2_{axis}", u))
                u = u if axis == "s" else joints_first(u, batch)
            streams.append(u)
        share = linear(w, f"ts_attn.{level}", torch.cat(streams, dim=-1)).softmax(dim=-1)
        h = share[..., :1] * streams[0] + share[..., 1:] * streams[1]
    out = linear(w, "head", torch.tanh(linear(w, "pre_logits.fc", layer_norm(w, "norm", h))))
    out = out.reshape(batch, frames, joints, 3)
    return torch.cat((out[..., :2] + x[..., :2], out[..., 2:]), dim=-1) if predict_offset else out
