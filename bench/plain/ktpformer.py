"""KTPFormer (Peng et al., CVPR 2024) as its paper prints it."""

from __future__ import annotations

import torch
from torch import Tensor

from .common import Weights, attention, batch_norm, frames_first, joints_first, layer_norm, mlp
from .mixste import alternate, head

_BONES = (
    (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9), (9, 10),
    (8, 11), (11, 12), (12, 13), (8, 14), (14, 15), (15, 16),
)  # fmt: skip


def forward(w: Weights, x: Tensor, *, depth: int = 7, num_heads: int = 8, **_) -> Tensor:
    """`[B, T, 17, 2]` -> `[B, T, 17, 3]`."""
    batch, frames, joints, _ = x.shape
    skeleton = _topology(joints, _BONES, x)
    chain = _topology(frames, [(t, t + 1) for t in range(frames - 1)], x)

    h = _graph(w, "kpattention.attn.kpa", x.reshape(batch * frames, joints, 2), skeleton)
    h = _block(w, "kpattention", h + w["kpattention.attn.Spatial_pos_embed"], num_heads)
    h = frames_first(layer_norm(w, "Spatial_norm", h), batch)

    graph = "tpattention.attn.tpa"
    h = h + _graph(w, f"{graph}.gconv2", _graph(w, f"{graph}.gconv1", h, chain), chain)
    h = _block(w, "tpattention", h + w["tpattention.attn.Temporal_pos_embed"], num_heads)
    h = joints_first(layer_norm(w, "Temporal_norm", h), batch)
    return head(w, alternate(w, h, batch, depth, num_heads), batch)


def _topology(nodes: int, edges, like: Tensor) -> Tensor:
    """Neighbours, each row divided by its sum, and a diagonal of ones."""
    adjacency = like.new_zeros(nodes, nodes)
    for i, j in edges:
        adjacency[i, j] = adjacency[j, i] = 1
    return adjacency / adjacency.sum(dim=1, keepdim=True) + torch.eye(nodes).to(like)


def _graph(w: Weights, name: str, x: Tensor, topology: Tensor) -> Tensor:
    """ReLU(BN(diag(B)·(M ∘ XW₀) + (B − diag(B))·(M ∘ XW₁) + b)) on `[N, nodes, C]`."""
    adjacency = topology + w[f"{name}.gconv.adj2"]
    adjacency = (adjacency + adjacency.T) / 2
    own = w[f"{name}.gconv.M"] * torch.matmul(x, w[f"{name}.gconv.W"][0])
    others = w[f"{name}.gconv.M"] * torch.matmul(x, w[f"{name}.gconv.W"][1])
    diagonal = torch.diag(torch.diag(adjacency))
    out = torch.matmul(diagonal, own) + torch.matmul(adjacency - diagonal, others) + w[f"{name}.gconv.bias"]
    return torch.relu(batch_norm(w, f"{name}.bn", out.transpose(1, 2))).transpose(1, 2)


def _block(w: Weights, name: str, h: Tensor, heads: int) -> Tensor:
    """A transformer block whose first norm has another eps, and belongs to the attention."""
    h = h + attention(w, f"{name}.attn", layer_norm(w, f"{name}.attn.norm1", h, 1e-5), heads)
    return h + mlp(w, f"{name}.mlp", layer_norm(w, f"{name}.norm2", h))
