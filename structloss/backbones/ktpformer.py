"""KTPFormer: MixSTE's alternation behind two blocks that know the skeleton and the chain of frames.

Source: Peng, Zhou, Mok, "KTPFormer: Kinematics and Trajectory Prior Knowledge-Enhanced Transformer for 3D Human Pose
Estimation", CVPR 2024.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import skeletons
from .blocks import (
    TokenBatchNorm,
    TransformerBlock,
    graph_convolution,
    init_graph_weight,
    neighbours,
)
from .mixste import AlternatingTransformer
from .registry import family

__all__ = ["KTPFormer"]


def _topology(parents: tuple[int, ...] | list[int]) -> Tensor:
    """Each node's neighbours with weights that sum to 1, and itself with 1."""
    adjacency = neighbours(parents)
    return adjacency / adjacency.sum(1, keepdim=True).clamp(min=1) + torch.eye(len(parents))


class _GraphConvolution(nn.Module):
    """The prior topology plus a learned correction, made symmetric; each node scales its channels (M)."""

    topology: Tensor

    def __init__(self, c_in: int, c_out: int, topology: Tensor, over: str) -> None:
        super().__init__()
        nodes = len(topology)
        self.over = over
        self.W = nn.Parameter(torch.empty(2, c_in, c_out))
        self.M = nn.Parameter(torch.ones(nodes, c_out))
        self.adj2 = nn.Parameter(torch.full((nodes, nodes), 1e-6))
        self.bias = nn.Parameter(torch.empty(c_out))
        self.register_buffer("topology", topology, persistent=False)
        init_graph_weight(self.W, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        adjacency = self.topology + self.adj2
        adjacency = (adjacency + adjacency.T) / 2
        return graph_convolution(x, self.W, adjacency, self.bias, self.M, self.over)


class _Graph(nn.Module):
    """Graph convolution, batch norm over all clips, frames and joints, ReLU, on `[B, T, J, C]`."""

    def __init__(self, c_in: int, c_out: int, topology: Tensor, over: str = "tokens") -> None:
        super().__init__()
        self.gconv = _GraphConvolution(c_in, c_out, topology, over)
        self.bn = TokenBatchNorm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.gconv(x)))


class _Trajectory(nn.Module):
    """x + G(G(x)) over the frames."""

    def __init__(self, dim: int, topology: Tensor) -> None:
        super().__init__()
        self.gconv1 = _Graph(dim, dim, topology, "frames")
        self.gconv2 = _Graph(dim, dim, topology, "frames")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gconv2(self.gconv1(x))


class _PriorAttention(TransformerBlock):
    """A transformer block whose tokens come from a graph and carry a position embedding."""

    def __init__(self, dim: int, heads: int, hidden: int, prior: nn.Module, nodes: int, over: str) -> None:
        super().__init__(dim, heads, hidden, over=over)
        self.norm1 = nn.LayerNorm(dim)  # the published one has PyTorch's eps, 1e-5; norm2 has 1e-6
        self.prior = prior
        self.position = nn.Parameter(torch.zeros(1, nodes, dim))

    def forward(self, x: Tensor) -> Tensor:
        position = self.position if self.over == "tokens" else self.position[:, :, None]
        return super().forward(self.prior(x) + position)


@family(
    "ktpformer",
    {
        "27": {
            "recipe": "",
            "params": 34_765_014,
            "macs": 16_066_556_928,
            "arguments": {"frames": 27, "depth": 7},
            "note": "No published model, a small size for tests.",
        },
        "81": {
            "params": 34_859_622,
            "macs": 48_884_954_112,
            "arguments": {"frames": 81, "depth": 7},
        },
        "243": {
            "params": 35_213_430,
            "macs": 152_822_412_288,
            "arguments": {"frames": 243, "depth": 7},
        },
    },
    flagship="243",
    paper="Peng et al., KTPFormer: Kinematics and Trajectory Prior Knowledge-Enhanced Transformer for 3D Human Pose "
    "Estimation, CVPR 2024",
    kind="sequence",
)
class KTPFormer(AlternatingTransformer):
    """A kinematics block over the skeleton, a trajectory block over the chain of frames, then alternating attention.

    Source: Peng et al., CVPR 2024. The topologies are constants and not in the state dict.

    Args:
        frames: clip length T.
        skeleton: name in `structloss.skeletons`; its tree is the topology of the joints.
        embed_dim: channels C, a multiple of `num_heads`.
        depth: levels after the two prior blocks, each a spatial and a temporal block.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLPs over C.
        drop_path_rate: stochastic depth of the last level, in even steps from 0 at the two prior blocks.

    Raises:
        ArgumentError: an impossible size or rate.
        UnknownNameError: no such skeleton.
    """

    def __init__(self, *, skeleton: str = "h36m", depth: int = 7, **others: Any) -> None:
        parents = skeletons.get(skeleton).parents
        super().__init__(len(parents), 1, depth=depth, **others)
        chain = list(range(-1, self.frames - 1))
        kinematics = _Graph(2, self.dim, _topology(parents))
        trajectory = _Trajectory(self.dim, _topology(chain))
        sizes = self.dim, self.heads, self.hidden
        self.kpattention = _PriorAttention(*sizes, kinematics, len(parents), "tokens")
        self.tpattention = _PriorAttention(*sizes, trajectory, self.frames, "frames")

    def encoded(self, x: Tensor) -> Tensor:
        return self.levels(self.level(x, self.kpattention, self.tpattention))

    def official(self, key: str) -> str:
        """In the published modules everything of a prior block up to its MLP belongs to the attention."""
        block, _, rest = key.partition(".")
        published = {"kpattention": ("kpa", "Spatial_pos_embed"), "tpattention": ("tpa", "Temporal_pos_embed")}
        if block not in published:
            return key
        graph, position = published[block]
        if rest == "position":
            return f"{block}.attn.{position}"
        if rest.startswith("norm1."):
            return f"{block}.attn.{rest}"
        return f"{block}.{rest.replace('prior.', f'attn.{graph}.')}"
