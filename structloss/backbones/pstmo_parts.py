"""What the networks of P-STMO are made of: encoders of frames and clips, heads, and their published names.

Source: Shan, Liu, Zhang, Wang, Ma, Gao, "P-STMO: Pre-trained Spatial Temporal Many-to-One Model for 3D Human Pose
Estimation", ECCV 2022.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone
from .blocks import MLP, Attention, ResidualUnit, StdNorm, TokenBatchNorm
from .official import Source

__all__ = ["PAPER", "FrameHead", "SpatialEncoder", "Stage", "TemporalStack", "published_name"]

PAPER = "Shan et al., P-STMO: Pre-trained Spatial Temporal Many-to-One Model for 3D Human Pose Estimation, ECCV 2022"

_SLOPE = 0.2  # of the spatial encoder's leaky ReLUs


class SpatialEncoder(nn.Module):
    """A residual perceptron (SEM) on every frame: `[B, F, J, 2]` to `[B, F, C]`."""

    def __init__(self, joints: int, width: int, dim: int, drop: float) -> None:
        super().__init__()
        self.fc_1 = nn.Linear(2 * joints, width)
        self.bn_1 = nn.BatchNorm1d(width)
        self.layers = nn.ModuleList([ResidualUnit(width, drop, _SLOPE)])
        self.fc_2 = nn.Linear(width, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.fc_1(x.flatten(2).flatten(0, 1))
        rows = self.drop(F.leaky_relu(self.bn_1(rows), _SLOPE))
        for layer in self.layers:
            rows = layer(rows)
        return self.fc_2(rows).view(*x.shape[:2], self.fc_2.out_features)


class _StridedMLP(nn.Module):
    """A linear layer, ReLU and a strided convolution over three tokens: `[B, T, C]` to `[B, ⌈T / stride⌉, C]`."""

    def __init__(self, dim: int, hidden: int, drop: float, stride: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Conv1d(hidden, dim, 3, stride=stride, padding=1)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(F.relu(self.fc1(x)))
        # The convolution as a product with windows of three tokens that stay views: channels last, and from a stride of
        # 3 on no copy. What the last window doesn't reach is cut off.
        (stride,), tokens = self.fc2.stride, x.shape[1]
        after = -(-tokens // stride) * stride - 1 - tokens + max(3 - stride, 0)
        windows = F.pad(hidden, (0, 0, 1, after)).unfold(1, 3, stride).transpose(2, 3).flatten(2)
        return self.drop(F.linear(windows, self.fc2.weight.transpose(1, 2).flatten(1), self.fc2.bias))


class _Layer(nn.Module):
    """h + attn(norm1(h)), then h + mlp(norm2(h)) on `[B, T, C]`; with a stride, on every n-th token from the first
    one on."""

    def __init__(self, dim: int, heads: int, hidden: int, drop: float, stride: int | None) -> None:
        super().__init__()
        self.stride = stride
        self.norm1 = StdNorm(dim)
        self.attn = Attention(dim, heads, attn_drop=drop, proj_drop=drop)
        self.norm2 = StdNorm(dim)
        if stride is None:
            self.mlp: nn.Module = MLP(dim, hidden, drop=drop, activation="relu")
        else:
            self.mlp = _StridedMLP(dim, hidden, drop, stride)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        h = h + self.attn(self.norm1(h), mask=mask)
        kept = h if self.stride is None else h[:, :: self.stride]
        return kept + self.mlp(self.norm2(h))


class TemporalStack(nn.Module):
    """Layers over frames, without a norm after them.

    Args:
        strides: stride of each layer's MLP, None for a plain one.
    """

    def __init__(self, dim: int, heads: int, hidden: int, drop: float, strides: Sequence[int | None]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(dim, heads, hidden, drop, stride) for stride in strides)
        # Published and never applied.
        self.norm = StdNorm(dim).requires_grad_(False)

    @torch.no_grad()
    def copy_first(self) -> None:
        """The starts that published code gets by copying modules: a layer's queries, keys, values and output have the
        same weights, attention is the same in all layers, and so is the MLP unless it has a stride."""
        first, *others = cast(list[_Layer], list(self.layers))
        for qkv, proj in zip(first.attn.qkv.parameters(), first.attn.proj.parameters(), strict=True):
            qkv.copy_(torch.cat([proj] * 3))
        for layer in others:
            layer.attn.load_state_dict(first.attn.state_dict())
            if layer.stride is None:
                layer.mlp.load_state_dict(first.mlp.state_dict())


class FrameHead(nn.Sequential):
    """Batch norm and a linear layer: `[B, T, C]` to `[B, T, J, channels]`."""

    def __init__(self, dim: int, joints: int, channels: int) -> None:
        super().__init__(TokenBatchNorm(dim), nn.Linear(dim, joints * channels))
        self.shape = (joints, channels)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h).unflatten(-1, self.shape)


# Published names of parts, from the outside to the inside.
_RENAMED = tuple(
    (re.compile(ours), published)
    for ours, published in (
        (r"^pos_embedding$", "Transformer.pos_embedding"),
        (r"^pos_embedding_(\d)$", r"Transformer_reduce.model.pos_embedding_\1"),
        (r"^tem\.", "Transformer.model."),
        (r"^mofa\.", "Transformer_reduce.model."),
        (r"^decoder\.", "Transformer_dec.model."),
        (r"\.mlp\.fc", ".feed_forward.w_"),
        (r"\.attn\.proj\.", ".self_attn.linears.3."),
        (r"\.norm1\.", ".sublayer.0.norm."),
        (r"\.norm2\.", ".sublayer.1.norm."),
        (r"(\bnorm|\bencoder_LN)\.weight$", r"\1.a_2"),
        (r"(\bnorm|\bencoder_LN)\.bias$", r"\1.b_2"),
    )
)
_CONVOLUTIONS = re.compile(
    r"(encoder\.(fc_\d|layers\.0\.w\d)|fcn(_\w+)?\.1|Transformer_reduce\..*\.feed_forward\.w_1)\.weight"
)


def published_name(model: nn.Module, key: str) -> str | Source:
    """What `Backbone.official` gives for the modules of this file, and for networks that are made of them."""
    name = key
    for ours, published in _RENAMED:
        name = ours.sub(published, name)
    stack, attention, part = name.partition(".attn.qkv.")
    if attention:
        return Source(tuple(f"{stack}.self_attn.linears.{i}.{part}" for i in range(3)))
    if _CONVOLUTIONS.fullmatch(name):  # a convolution over single frames
        return Source((name,), shape=(*model.get_parameter(key).shape, 1))
    return name


class Stage(Backbone):
    """What both stages of training share: a perceptron on every frame (SEM), then a transformer over the frames (TEM).

    `encoder`, `pos_embedding` and `tem` are what pre-training hands on.
    """

    encoder: SpatialEncoder
    pos_embedding: nn.Parameter
    tem: TemporalStack

    def add_encoders(
        self, *, dim: int, hidden: int, encoder_width: int, num_heads: int, depth: int, drop_rate: float
    ) -> None:
        """Make the encoders, for this network's frames and joints; to be called once, in the constructor."""
        self.encoder = SpatialEncoder(self.joints[0], encoder_width, dim, drop_rate)
        self.pos_embedding = nn.Parameter(torch.empty(1, self.frames, dim))
        self.tem = TemporalStack(dim, num_heads, hidden, drop_rate, [None] * depth)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw fresh weights as published: layers as PyTorch makes them, embeddings and tokens standard normal, and
        stacks that start as copies (:meth:`TemporalStack.copy_first`)."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.BatchNorm1d, StdNorm)):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, TemporalStack):
                module.copy_first()
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter)

    def official(self, key: str) -> str | Source:
        return published_name(self, key)
