"""SemGCN (Zhao et al., CVPR 2019) as its paper prints it, on the 16 joints of h36m without neck/nose."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import Weights, batch_norm

_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 8, 10, 11, 8, 13, 14)
_ORDER = (2, 3, 5, 6, 1, 4, 0, 7, 8, 9, 14, 15, 11, 12, 10, 13)


def _graph_convolution(w: Weights, name: str, x: Tensor) -> Tensor:
    mask = torch.eye(16, dtype=torch.bool, device=x.device)
    for child, parent in enumerate(_PARENTS):
        if parent >= 0:
            mask[child, parent] = mask[parent, child] = True
    scores = torch.full((16, 16), -9e15, dtype=x.dtype, device=x.device)
    scores[mask] = w[f"{name}.e"][0]
    a = scores.softmax(dim=1)
    eye = torch.eye(16, dtype=x.dtype, device=x.device)
    h0, h1 = x @ w[f"{name}.W"][0], x @ w[f"{name}.W"][1]
    return (a * eye) @ h0 + (a * (1 - eye)) @ h1 + w[f"{name}.bias"]


def _layer(w: Weights, name: str, x: Tensor) -> Tensor:
    h = _graph_convolution(w, f"{name}.gconv", x).transpose(1, 2)
    return torch.relu(batch_norm(w, f"{name}.bn", h).transpose(1, 2))


def _non_local(w: Weights, name: str, h: Tensor) -> Tensor:
    x = h[:, list(_ORDER)].transpose(1, 2)  # [N, C, 16]
    theta = F.conv1d(x, w[f"{name}.theta.weight"], w[f"{name}.theta.bias"])
    phi = F.max_pool1d(F.conv1d(x, w[f"{name}.phi.0.weight"], w[f"{name}.phi.0.bias"]), 2)
    g = F.max_pool1d(F.conv1d(x, w[f"{name}.g.0.weight"], w[f"{name}.g.0.bias"]), 2)
    pairs = torch.cat(
        (theta[:, :, :, None].expand(-1, -1, 16, 8), phi[:, :, None, :].expand(-1, -1, 16, 8)), dim=1
    )  # [N, C, 16, 8]
    f = torch.relu(F.conv2d(pairs, w[f"{name}.concat_project.0.weight"]))[:, 0]
    y = (f / 8 @ g.transpose(1, 2)).transpose(1, 2)
    z = x + batch_norm(w, f"{name}.W.1", F.conv1d(y, w[f"{name}.W.0.weight"], w[f"{name}.W.0.bias"]))
    out = torch.empty_like(h)
    out[:, list(_ORDER)] = z.transpose(1, 2)
    return out


def forward(w: Weights, x: Tensor, *, depth: int = 4, non_local: bool = True, **_) -> Tensor:
    """`[B, T, 17 or 16, 2]` -> `[B, T, 16, 3]`."""
    batch, frames, joints, _ = x.shape
    keep = [j for j in range(joints) if joints == 16 or j != 9]
    h = _layer(w, "gconv_input.0", x[:, :, keep].reshape(batch * frames, 16, 2))
    if non_local:
        h = _non_local(w, "gconv_input.1.nonlocal", h)
    for level in range(depth):
        name = f"gconv_layers.{2 * level if non_local else level}"
        h = h + _layer(w, f"{name}.gconv2", _layer(w, f"{name}.gconv1", h))
        if non_local:
            h = _non_local(w, f"gconv_layers.{2 * level + 1}.nonlocal", h)
    return _graph_convolution(w, "gconv_output", h).reshape(batch, frames, 16, 3)
