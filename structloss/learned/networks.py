"""The networks inside of a loss network: joint features in, energies out. State-dict keys are the published ones."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.blocks import attend, check_rate, check_size
from ..errors import ArgumentError, check_choice
from ..skeletons import Skeleton
from .graph import AttentionBias

__all__ = ["GraphEnergy", "LinearEnergy"]

READOUTS = ("cls", "mean")


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, z: Tensor, bias: Tensor | None) -> Tensor:
        rows, tokens, dim = z.shape
        q, k, v = (
            part(z).view(rows, tokens, self.heads, dim // self.heads).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        out = attend(q, k, v, self.dropout if self.training else 0.0, bias=bias)
        return self.o(out.transpose(1, 2).reshape(rows, tokens, dim))


class _Block(nn.Module):
    """z + attention(LN z), then z + MLP(LN z), on `[rows, tokens, D]`."""

    def __init__(self, dim: int, heads: int, ratio: float, dropout: float) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = _Attention(dim, heads, dropout)
        hidden = int(dim * ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop = nn.Dropout(dropout)

    def forward(self, z: Tensor, bias: Tensor | None = None) -> Tensor:
        z = z + self.drop(self.attn(self.ln1(z), bias))
        return z + self.drop(self.mlp(self.ln2(z)))


class GraphEnergy(nn.Module):
    """A graph transformer over the joints of a frame; early fusion of the 2D and 3D joint.

    Args:
        skeleton: gives the graph.
        channels: numbers per joint, those of 2D before those of 3D, whose last three are the position.
        dim: channels D of a token, a multiple of `heads`.
        heads: number of attention heads.
        depth: number of blocks.
        ratio: width of a block's MLP as a multiple of D.
        dropout: rate on attention weights and on both branches of a block.
        readout: `"cls"` reads the energy off the graph token, `"mean"` off the mean of all joints' tokens.
        edge_types, per_head_bias, self_neighbour: see :class:`~structloss.learned.graph.AttentionBias`.
        temporal_depth: blocks over the frames of a clip behind the others (ours); 0 scores every frame by itself.

    Source: SCoTL-pose / SEAL-pose (Kim et al.); `temporal_depth` and the options of the bias are ours.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        channels: int,
        *,
        dim: int = 128,
        heads: int = 4,
        depth: int = 4,
        ratio: float = 2.0,
        dropout: float = 0.0,
        readout: str = "cls",
        edge_types: bool = True,
        per_head_bias: bool = False,
        self_neighbour: bool = False,
        temporal_depth: int = 0,
    ) -> None:
        super().__init__()
        check_size("dim", dim)
        check_size("heads", heads)
        check_size("depth", depth)
        check_rate("dropout", dropout)
        if dim % heads:
            raise ArgumentError(f"dim is {dim}, expected a multiple of heads, {heads}.")
        if not 1 <= dim * ratio < math.inf:
            raise ArgumentError(f"ratio is {ratio!r}, expected a number > 0 that leaves a block's MLP a channel.")
        if temporal_depth < 0:
            raise ArgumentError(f"temporal_depth is {temporal_depth}, expected at least 0.")
        self.readout = check_choice("readout", readout, READOUTS)
        self.temporal = temporal_depth > 0
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.joint_emb = nn.Embedding(skeleton.num_joints, 32)
        self.in_proj = nn.Linear(channels + 32, dim)
        self.bias_builder = AttentionBias(
            skeleton, heads, edge_types=edge_types, per_head=per_head_bias, self_neighbour=self_neighbour
        )
        self.blocks = nn.ModuleList(_Block(dim, heads, ratio, dropout) for _ in range(depth))
        self.time_blocks = nn.ModuleList(_Block(dim, heads, ratio, dropout) for _ in range(temporal_depth))
        self.ln_f = nn.LayerNorm(dim)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 1))

    def forward(self, features: Tensor) -> Tensor:
        """`[B, T, J, channels]` -> energies `[B, T]`."""
        batch, frames = features.shape[:2]
        embedded = self.joint_emb.weight.expand(batch, frames, -1, -1)
        h = self.in_proj(torch.cat([features, embedded.to(features.dtype)], dim=-1)).flatten(0, 1)
        z = torch.cat([self.cls.expand(batch * frames, -1, -1).to(h.dtype), h], dim=1)  # [B T, J + 1, D]
        bias = self.bias_builder().to(h.dtype)
        for block in self.blocks:
            z = block(z, bias)
        token = z[:, 0] if self.readout == "cls" else z[:, 1:].mean(1)
        if self.temporal:
            dim = token.shape[-1]
            token = token.view(batch, frames, dim) + _positions(frames, dim).to(token)
            for block in self.time_blocks:
                token = block(token)
        return self.head(self.ln_f(token)).view(batch, frames)


def _positions(frames: int, dim: int) -> Tensor:
    """Sines and cosines of the frame number, `[T, D]` (Vaswani et al., 2017)."""
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(10000.0) / dim))
    angle = torch.arange(frames)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim]


class _Stage(nn.Module):
    """u + (linear, norm, ReLU, dropout) twice."""

    def __init__(self, width: int, dropout: float, norm: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)
        self.bn1, self.bn2 = (nn.BatchNorm1d(width) if norm else nn.Identity() for _ in range(2))
        self.drop = nn.Dropout(dropout)

    def forward(self, u: Tensor) -> Tensor:
        v = self.drop(F.relu(self.bn1(self.fc1(u))))
        return u + self.drop(F.relu(self.bn2(self.fc2(v))))


class LinearEnergy(nn.Module):
    """A residual perceptron over all joints at once, 2D and 3D side by side.

    Args:
        skeleton: gives the number of joints.
        channels: numbers per joint, those of 2D before those of 3D, whose last three are the position.
        width: of the layers.
        stages: residual stages of two layers.
        dropout: rate behind every layer.
        batch_norm: batch normalisation. Truth and negatives go through it in one batch: normalised apart, they would
            be scored by different functions.

    Source: SCoTL-pose / SEAL-pose (Kim et al.), "MLP".
    """

    temporal = False

    def __init__(
        self,
        skeleton: Skeleton,
        channels: int,
        *,
        width: int = 1024,
        stages: int = 2,
        dropout: float = 0.5,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        check_size("width", width)
        check_size("stages", stages)
        check_rate("dropout", dropout)
        self.input_proj = nn.Linear(channels * skeleton.num_joints, width)
        self.input_bn = nn.BatchNorm1d(width) if batch_norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Stage(width, dropout, batch_norm) for _ in range(stages))
        self.head = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """`[B, T, J, channels]` -> energies `[B, T]`."""
        batch, frames = features.shape[:2]
        planar = features.shape[-1] - 3
        joined = torch.cat([features[..., :planar].flatten(2), features[..., planar:].flatten(2)], dim=-1)
        u = self.drop(F.relu(self.input_bn(self.input_proj(joined.flatten(0, 1)))))
        for stage in self.blocks:
            u = stage(u)
        return self.head(u).view(batch, frames)
