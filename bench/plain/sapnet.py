"""SAP-Net (Dabral et al., ECCV 2018), the network of Zhou et al. (ICCV 2017), as printed: every map written out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import Weights, batch_norm, linear


def conv(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)


def residual(w: Weights, name: str, x: Tensor) -> Tensor:
    y = x
    for norm, layer in (("bn", "conv1"), ("bn1", "conv2"), ("bn2", "conv3")):
        y = conv(w, f"{name}.{layer}", torch.relu(batch_norm(w, f"{name}.{norm}", y)))
    return (conv(w, f"{name}.conv4", x) if f"{name}.conv4.weight" in w else x) + y


def row(w: Weights, name: str, x: Tensor, count: int, first: int = 0) -> Tensor:
    for index in range(first, first + count):
        x = residual(w, f"{name}.{index}", x)
    return x


def hourglass(w: Weights, name: str, x: Tensor, levels: int, modules: int) -> Tensor:
    low = row(w, f"{name}.low1_", F.max_pool2d(x, 2), modules)
    low = (
        hourglass(w, f"{name}.low2", low, levels - 1, modules) if levels > 1 else row(w, f"{name}.low2_", low, modules)
    )
    low = row(w, f"{name}.low3_", low, modules)
    up = low.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    return row(w, f"{name}.up1_", x, modules) + up


def forward(
    w: Weights, image: Tensor, *, stacks: int = 2, modules: int = 2, depth_modules: int = 2, levels: int = 4, **_
) -> tuple[Tensor, Tensor]:
    """`[B, 3, S, S]` -> heatmaps `[stacks, B, J, S / 4, S / 4]`, depth `[B, J]`."""
    x = torch.relu(batch_norm(w, "bn1", conv(w, "conv1_", image, stride=2)))
    x = F.max_pool2d(residual(w, "r1", x), 2)
    x = residual(w, "r5", residual(w, "r4", x))
    heatmaps = []
    for stack in range(stacks):
        y = row(w, "Residual", hourglass(w, f"hourglass.{stack}", x, levels, modules), modules, stack * modules)
        y = torch.relu(batch_norm(w, f"lin_.{stack}.1", conv(w, f"lin_.{stack}.0", y)))
        heatmaps.append(conv(w, f"tmpOut.{stack}", y))
        x = x + conv(w, f"ll_.{stack}", y) + conv(w, f"tmpOut_.{stack}", heatmaps[-1])
    for level in range(levels):
        x = F.max_pool2d(row(w, "reg_", x, depth_modules, level * depth_modules), 2)
    return torch.stack(heatmaps), linear(w, "reg", x.flatten(1))
