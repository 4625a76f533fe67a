"""Graph convolution over joints or frames: a weight for the node itself, another for its neighbours."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["graph_convolution", "init_graph_weight", "neighbours"]


def graph_convolution(
    x: Tensor,
    weight: Tensor,
    adjacency: Tensor,
    bias: Tensor | None = None,
    modulation: Tensor | None = None,
    over: str = "tokens",
) -> Tensor:
    """diag(A)·(X·W₀) + (A − diag(A))·(X·W₁) + b, with a node's own features weighted by W₀, its neighbours' by W₁.

    Source: Zhao et al. (SemGCN), CVPR 2019, Section 3.2; with modulation, Peng et al. (KTPFormer), CVPR 2024.

    Args:
        x: `[..., N, C_in]`.
        weight: `[2, C_in, C_out]`, W₀ and W₁.
        adjacency: `[N, N]`, A.
        bias: `[C_out]`.
        modulation: `[N, C_out]`, multiplies both products.
        over: `"tokens"`: nodes are axis -2. `"frames"`: nodes are axis 1 of `[B, T, J, C_in]`.

    Returns:
        `[..., N, C_out]`, for `over="frames"` `[B, T, J, C_out]`.
    """
    # One product with both weights side by side reads x once.
    own, others = (x @ torch.cat((weight[0], weight[1]), dim=-1)).chunk(2, dim=-1)
    diagonal = adjacency.diagonal()
    between = adjacency - diagonal.diag()
    scale = diagonal[:, None]
    if modulation is not None:
        # One small product instead of another pass over the nodes' own features.
        scale = scale * modulation
        others = others * (modulation if over == "tokens" else modulation[:, None])
    if over == "tokens":
        mixed = between @ others
    else:  # a frame's joints and channels side by side: the frames meet without being brought next to the channels
        mixed = (between @ others.flatten(2)).view_as(others)
        scale = scale[:, None]
    out = torch.addcmul(mixed, own, scale)
    return out if bias is None else out + bias


def init_graph_weight(weight: Tensor, bias: Tensor | None = None) -> None:
    """Draw W as the published code does, and b.

    Uniform ±1.414·√(6 / (C_in·C_out + 2·C_out)), what a Xavier initialisation with gain 1.414 makes of a
    three-dimensional tensor; the bias uniform ±1/√C_out.
    """
    _, c_in, c_out = weight.shape
    bound = 1.414 * math.sqrt(6 / (c_in * c_out + 2 * c_out))
    nn.init.uniform_(weight, -bound, bound)
    if bias is not None:
        nn.init.uniform_(bias, -1 / math.sqrt(c_out), 1 / math.sqrt(c_out))


def neighbours(parents: tuple[int, ...] | list[int]) -> Tensor:
    """Symmetric adjacency `[N, N]` (0 or 1, float32, no self loops) of a tree given by the parent of each node, -1 at
    the root."""
    adjacency = torch.zeros(len(parents), len(parents))
    for child, parent in enumerate(parents):
        if parent >= 0:
            adjacency[child, parent] = adjacency[parent, child] = 1
    return adjacency
