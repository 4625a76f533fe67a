"""The denoiser of D3DP (Shan et al., ICCV 2023) as its paper prints it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import Weights, linear
from .mixste import alternate, head


def forward(
    w: Weights, x: Tensor, *, noisy: Tensor, timestep: Tensor, depth: int = 8, num_heads: int = 8, **_
) -> Tensor:
    """`[B, T, J, 2]`, noisy `[B, T, J, 3]` and timestep `[B]` -> `[B, T, J, 3]`."""
    w = {key.removeprefix("pose_estimator."): value for key, value in w.items()}
    batch, frames, joints, _ = x.shape
    channels = w["Spatial_pos_embed"].shape[-1]
    frequency = torch.exp(-math.log(10000) / (channels // 2 - 1) * torch.arange(channels // 2, device=x.device))
    angle = timestep[:, None] * frequency[None, :]
    time = torch.cat((angle.sin(), angle.cos()), dim=-1).to(x.dtype)
    time = linear(w, "time_mlp.3", F.gelu(linear(w, "time_mlp.1", time)))

    h = linear(w, "Spatial_patch_to_embedding", torch.cat((x, noisy), dim=-1).reshape(batch * frames, joints, 5))
    h = h + w["Spatial_pos_embed"]
    h = (h.reshape(batch, frames, joints, channels) + time[:, None, None, :]).reshape(-1, joints, channels)
    return head(w, alternate(w, h, batch, depth, num_heads, w["Temporal_pos_embed"]), batch)
