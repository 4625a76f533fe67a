"""The simple baseline (Martinez et al., ICCV 2017) and the networks of H3WB (Zhu et al., ICCV 2023) as printed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import Weights, batch_norm, linear


def forward(w: Weights, x: Tensor, *, depth: int = 2, neck: bool | None = None, large: bool = False, **_) -> Tensor:
    """`[B, T, J, 2]` -> `[B, T, J_out, 3]`; `neck` is None for the H3WB networks."""
    if neck is None:
        flat = x.reshape(-1, 2 * x.shape[2])
        out = _large(w, flat, depth) if large else _whole_body(w, flat, depth)
        return out.reshape(*x.shape[:3], 3)
    batch, frames, joints, _ = x.shape
    keep = [j for j in range(joints) if joints == 16 or j != 9]
    y = torch.relu(batch_norm(w, "batch_norm1", linear(w, "w1", x[:, :, keep].reshape(-1, 32))))
    for stage in range(depth):
        name = f"linear_stages.{stage}"
        z = torch.relu(batch_norm(w, f"{name}.batch_norm1", linear(w, f"{name}.w1", y)))
        z = torch.relu(batch_norm(w, f"{name}.batch_norm2", linear(w, f"{name}.w2", z)))
        y = y + z
    out = linear(w, "w2", y).reshape(batch, frames, -1, 3)
    return torch.cat((torch.zeros_like(out[:, :, :1]), out), dim=2)


def _whole_body(w: Weights, x: Tensor, depth: int) -> Tensor:
    x = linear(w, "upscale", x)
    for stage in range(depth):
        y = x
        for layer in (2 * stage + 1, 2 * stage + 2):
            y = torch.relu(batch_norm(w, f"bn{layer}", linear(w, f"fc{layer}", y)))
        x = x + y
    return linear(w, "outputlayer", x)


def _large(w: Weights, x: Tensor, depth: int) -> Tensor:
    x = linear(w, "upscale", x)
    for stage in range(1, depth + 1):
        y = F.leaky_relu(linear(w, f"res_{stage}.l1", x), 0.01)
        y = F.leaky_relu(linear(w, f"res_{stage}.l2", y), 0.01)
        x = F.leaky_relu(x + y, 0.01)
    return linear(w, "pose3d", x)
