"""MotionAGFormer (Mehraban et al., WACV 2024) as its paper prints it."""

from __future__ import annotations

import torch
from torch import Tensor

from .common import Weights, attention, batch_norm, frames_first, joints_first, layer_norm, linear, mlp

EPS = 1e-5
# joint -> joints that it reads from
READS = {
    0: [1, 7],
    1: [0, 2],
    2: [1, 3],
    3: [2],
    4: [0, 5],
    5: [4, 6],
    6: [5],
    7: [0, 8],
    8: [7, 9],
    9: [8, 10],
    10: [9],
    11: [8, 12],
    12: [11, 13],
    13: [12],
    14: [8, 15],
    15: [14, 16],
    16: [15],
}


def joint_graph(x: Tensor) -> Tensor:
    """The fixed adjacency `[1, J, J]`."""
    adjacency = x.new_zeros(1, len(READS), len(READS))
    for joint, read in READS.items():
        adjacency[0, joint, read] = 1
    return adjacency


def frame_graph(x: Tensor, neighbours: int) -> Tensor:
    """`[S, T, C]` -> `[S, T, T]`: 1 where an inner product is among the largest of its row."""
    similarity = x @ x.transpose(1, 2)
    least = similarity.topk(neighbours, dim=-1).values[..., -1:]
    return (similarity >= least).to(x.dtype)


def graph_convolution(w: Weights, name: str, x: Tensor, adjacency: Tensor) -> Tensor:
    """ReLU(x + BN(D^-½·A·D^-½·V(x) + U(x))) on `[S, n, C]`, the normalised matrix written out."""
    scale = torch.diag_embed(adjacency.sum(dim=-1) ** -0.5)
    normalised = scale @ adjacency @ scale
    y = normalised @ linear(w, f"{name}.V", x) + linear(w, f"{name}.U", x)
    return torch.relu(x + batch_norm(w, f"{name}.batch_norm", y))


def block(w: Weights, name: str, x: Tensor, heads: int, neighbours: int) -> Tensor:
    """The mixer that the name tells, then the MLP, each scaled by channel, on `[S, n, C]`."""
    h = layer_norm(w, f"{name}.norm1", x, EPS)
    if ".att_" in name:
        h = attention(w, f"{name}.mixer", h, heads)
    else:
        adjacency = joint_graph(h) if name.endswith("spatial") else frame_graph(h, neighbours)
        h = graph_convolution(w, f"{name}.mixer", h, adjacency)
    x = x + w[f"{name}.layer_scale_1"] * h
    return x + w[f"{name}.layer_scale_2"] * mlp(w, f"{name}.mlp", layer_norm(w, f"{name}.norm2", x, EPS))


def forward(w: Weights, x: Tensor, *, depth: int, num_heads: int = 8, neighbours: int = 2, **_) -> Tensor:
    """`[B, T, J, 3]` -> `[B, T, J, 3]`."""
    batch, frames, joints, _ = x.shape
    h = linear(w, "joints_embed", x.reshape(batch * frames, joints, 3)) + w["pos_embed"]
    for level in range(depth):
        streams = []
        for kind in ("att", "graph"):
            u = block(w, f"layers.{level}.{kind}_spatial", h, num_heads, neighbours)
            u = block(w, f"layers.{level}.{kind}_temporal", frames_first(u, batch), num_heads, neighbours)
            streams.append(joints_first(u, batch))
        share = linear(w, f"layers.{level}.fusion", torch.cat(streams, dim=-1)).softmax(dim=-1)
        h = share[..., :1] * streams[0] + share[..., 1:] * streams[1]
    out = linear(w, "head", torch.tanh(linear(w, "rep_logit.fc", layer_norm(w, "norm", h, EPS))))
    return out.reshape(batch, frames, joints, 3)
