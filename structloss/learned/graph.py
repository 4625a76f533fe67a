"""What the loss network knows of a skeleton: hop distances, degrees, kinds of links, as biases of attention scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..skeletons import Skeleton

__all__ = ["EDGE_TYPES", "AttentionBias", "adjacency", "hop_distance"]

EDGE_TYPES = ("link", "mirror", "other")
"""Kinds of joint pairs: joined by an edge, left and right of each other, neither."""


def adjacency(skeleton: Skeleton) -> Tensor:
    """Symmetric `[J, J]` of 0 and 1, float32, zeros on the diagonal: the skeleton's `graph_edges`."""
    found = torch.zeros(skeleton.num_joints, skeleton.num_joints)
    for a, b in skeleton.graph_edges:
        found[a, b] = found[b, a] = 1
    return found


def hop_distance(skeleton: Skeleton) -> Tensor:
    """Edges on the shortest path between joints, `[J, J]` int64.

    Joints that no path joins (H3WB's jaw and body) are one further apart than the two farthest that one does.
    """
    linked = adjacency(skeleton).bool()
    count = skeleton.num_joints
    found = torch.full((count, count), -1)
    reached, hops = torch.eye(count, dtype=torch.bool), 0
    while bool((reached & (found < 0)).any()):
        found[reached & (found < 0)] = hops
        reached, hops = reached.float() @ linked.float() > 0, hops + 1
    return torch.where(found < 0, found.max() + 1, found)


class AttentionBias(nn.Module):
    """B `[J + 1, J + 1]`, or `[H, J + 1, J + 1]`, added to attention scores; token 0 is the graph token.

    For joints i, j with hop distance d, degree g and adjacency a:

        B_ij = -gamma d_ij + beta [a_ij = 0] + kappa (g_i + g_j) / max g + sum_k w_k type_k(i, j)

    and one learned number each for graph token -> joint, joint -> graph token and graph token -> itself. All are
    learned; they start with gamma 0.8, beta -2, kappa 0.2 and zeros. Parameters and buffers have the names of the
    first author's code (SCoTL-pose / SEAL-pose, Kim et al.).

    Args:
        skeleton: gives the graph.
        heads: number of heads.
        edge_types: learn w, a weight for each of :data:`EDGE_TYPES`. Otherwise the sum over k is left out, as in the
            published code, and `edge_type_weight` is a constant that nothing reads.
        per_head: add a learned table over hop distances for each head (Graphormer), which starts with zeros.
        self_neighbour: a_ii = 1, so that a joint's own token is not held off by beta.
    """

    adj: Tensor
    deg: Tensor
    dist: Tensor
    types: Tensor

    def __init__(
        self,
        skeleton: Skeleton,
        heads: int,
        *,
        edge_types: bool = False,
        per_head: bool = False,
        self_neighbour: bool = False,
    ) -> None:
        super().__init__()
        linked, hops = adjacency(skeleton), hop_distance(skeleton)
        degree = linked.sum(1)
        if self_neighbour:
            linked = linked.clone().fill_diagonal_(1)
        self.register_buffer("adj", linked)
        self.register_buffer("deg", degree)
        self.register_buffer("dist", hops.float())
        count = len(EDGE_TYPES) if edge_types else 1
        self.edge_type_weight = nn.Parameter(torch.zeros(count), requires_grad=edge_types)
        self.noedge_bias = nn.Parameter(torch.tensor(-2.0))
        self.deg_scale = nn.Parameter(torch.tensor(0.2))
        self.gamma = nn.Parameter(torch.tensor(0.8))
        self.vnode_to_node, self.node_to_vnode, self.vnode_self = (nn.Parameter(torch.zeros(1)) for _ in range(3))
        self.hop_table = nn.Parameter(torch.zeros(heads, int(hops.max()) + 1)) if per_head else None
        types = _edge_types(skeleton) if edge_types else torch.empty(0)
        self.register_buffer("types", types, persistent=False)

    def forward(self) -> Tensor:
        degrees = (self.deg[:, None] + self.deg) / (self.deg.max() + 1e-6)
        bias = -self.gamma * self.dist + self.noedge_bias * (self.adj == 0) + self.deg_scale * degrees
        if len(self.types):
            bias = bias + (self.edge_type_weight[:, None, None] * self.types).sum(0)
        if self.hop_table is not None:
            bias = bias + self.hop_table[:, self.dist.long()]  # [H, J, J]
        size = (*bias.shape[:-2], 1, bias.shape[-1])
        top = torch.cat([self.vnode_self.expand(*size[:-1], 1), self.vnode_to_node.expand(size)], dim=-1)
        rest = torch.cat([self.node_to_vnode.expand(size).transpose(-2, -1), bias], dim=-1)
        return torch.cat([top, rest], dim=-2)


def _edge_types(skeleton: Skeleton) -> Tensor:
    """One-hot `[3, J, J]` in the order of :data:`EDGE_TYPES`; zero on the diagonal."""
    link = adjacency(skeleton)
    mirror = torch.zeros_like(link)
    for a, b in zip(skeleton.left, skeleton.right, strict=True):
        mirror[a, b] = mirror[b, a] = 1
    mirror *= 1 - link
    other = 1 - link - mirror - torch.eye(len(link))
    return torch.stack([link, mirror, other])
