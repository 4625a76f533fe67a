"""PoseFormer: attention over the joints of a frame, then over the frames, then a weighted mean.

Source: Zheng, Zhu, Mendieta, Yang, Chen, Ding, "3D Human Pose Estimation with Spatial and Temporal Transformers", ICCV
2021.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .base import Backbone
from .blocks import TransformerBlock, check_rate, check_ratio, check_size, check_sizes, drop_path_rates
from .official import Source
from .registry import family

__all__ = ["PoseFormer", "TwoStages", "WeightedMean"]

EPS = 1e-6  # of every LayerNorm but the head's


class WeightedMean(nn.Linear):
    """Σ_i w_i·h_i + b over the tokens of `[B, N, C]`, with one b for all channels; returns `[B, 1, C]`."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens, 1)

    def forward(self, h: Tensor) -> Tensor:
        return self.weight.expand(h.shape[0], -1, -1) @ h + self.bias


class TwoStages(Backbone):
    """What PoseFormer and its successor share: every frame's joints become one vector, by attention among them; blocks
    behind that mix tokens of J·c channels, and a head answers for the centre frame.

    A subclass makes `blocks`, `Temporal_norm` and `head`, and says what the blocks' tokens are (:meth:`tokens`) and how
    they become one (:meth:`pooled`). Its `weighted_mean`s are published as convolutions.

    Attributes:
        joint_dim: channels c of a joint.
        dim, heads, hidden: channels of a token, attention heads and hidden width of the MLPs of the second stage.
        paths: stochastic depth of its blocks.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    blocks: nn.ModuleList
    Temporal_norm: nn.LayerNorm
    head: nn.Sequential

    def __init__(
        self,
        *,
        frames: int,
        embed_dim_ratio: int = 32,
        depth: int = 4,
        num_heads: int = 8,
        mlp_ratio: float = 2,
        num_joints: int = 17,
        drop_path_rate: float = 0.1,
    ) -> None:
        check_sizes(frames=frames, depth=depth, num_heads=num_heads, num_joints=num_joints)
        check_size("embed_dim_ratio", embed_dim_ratio, multiple_of=num_heads)
        check_rate("drop_path_rate", drop_path_rate)
        hidden = check_ratio("mlp_ratio", mlp_ratio, embed_dim_ratio, "embed_dim_ratio")
        super().__init__(kind="centre", frames=frames, joints=(num_joints,), centre=(frames - 1) // 2)
        self.Spatial_pos_embed = nn.Parameter(torch.zeros(1, num_joints, embed_dim_ratio))
        self.Spatial_blocks = nn.ModuleList(
            TransformerBlock(embed_dim_ratio, num_heads, hidden, eps=EPS, path=path)
            for path in drop_path_rates(drop_path_rate, depth)
        )
        self.Spatial_norm = nn.LayerNorm(embed_dim_ratio, eps=EPS)
        self.joint_dim, self.dim = embed_dim_ratio, num_joints * embed_dim_ratio
        self.heads, self.hidden = num_heads, int(self.dim * mlp_ratio)
        self.paths = drop_path_rates(drop_path_rate, depth)

    def forward(self, x: Tensor) -> Tensor:
        """Lift the centre frame of a clip.

        Args:
            x: `[B, F, J, C]`, C = 2 (x, y) or 3 (the confidence is ignored); image coordinates divided by half the
                image width and centred, so about [-1, 1].

        Returns:
            `[B, 1, J, 3]`, the pose of frame `(F - 1) // 2`, in the unit of the training target: metres, relative
            to the root, which is predicted too.

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        x = self.prepare(x)
        h = self.tokens(x)
        for block in self.blocks:
            h = self.run(block, h)
        return self.head(self.pooled(self.Temporal_norm(h))).unflatten(-1, (x.shape[2], 3))

    def tokens(self, x: Tensor) -> Tensor:
        """Clips `[B, F, J, 2]` to the second stage's tokens `[B, N, J * c]`."""
        raise NotImplementedError

    def pooled(self, h: Tensor) -> Tensor:
        """Its normalised output `[B, N, J * c]` to what the head takes, `[B, 1, ...]`."""
        raise NotImplementedError

    def frame_vectors(self, tokens: Tensor) -> Tensor:
        """Embedded joints `[B, T, J, c]` to frames `[B, T, J * c]`, joint by joint."""
        h = tokens + self.Spatial_pos_embed
        for block in self.Spatial_blocks:
            h = self.run(block, h)
        return self.Spatial_norm(h).flatten(2)

    def official(self, key: str) -> str | Source:
        if key in ("weighted_mean.weight", "weighted_mean_.weight"):
            return Source((key,), shape=(1, -1, 1))
        return key


@family(
    "poseformer",
    {
        "27": {
            "params": 9_573_455,
            "macs": 275_971_200,
            "published": {"h36m_mpjpe_mm_cpn": 47.0},
            "arguments": {"frames": 27, "depth": 4},
        },
        "81": {
            "params": 9_602_885,
            "macs": 846_893_760,
            "published": {"h36m_mpjpe_mm_cpn": 44.3, "h36m_mpjpe_mm_gt2d": 31.3},
            "arguments": {"frames": 81, "depth": 4},
        },
    },
    flagship="81",
    paper="Zheng et al., 3D Human Pose Estimation with Spatial and Temporal Transformers, ICCV 2021",
    kind="centre",
)
class PoseFormer(TwoStages):
    """Transformer over joints, transformer over frames, and the centre frame's pose from a weighted mean of them.

    Source: Zheng et al., ICCV 2021. State-dict keys are the published ones; the weighted mean over the frames is a
    linear layer here and a convolution there.

    Args:
        frames: receptive field F; the network takes exactly that many frames.
        embed_dim_ratio: channels c of a joint, a multiple of `num_heads`; a frame has J·c.
        depth: blocks of either stage.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLPs over their channels.
        num_joints: joints J.
        drop_path_rate: stochastic depth of the last block of either stage, from 0 at the first; drops single frames in
            the spatial stage and whole clips in the temporal one.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(self, *, frames: int = 81, **others: Any) -> None:
        super().__init__(frames=frames, **others)
        self.Spatial_patch_to_embedding = nn.Linear(2, self.joint_dim)
        self.Temporal_pos_embed = nn.Parameter(torch.zeros(1, frames, self.dim))
        self.blocks = nn.ModuleList(
            TransformerBlock(self.dim, self.heads, self.hidden, eps=EPS, path=path) for path in self.paths
        )
        self.Temporal_norm = nn.LayerNorm(self.dim, eps=EPS)
        self.weighted_mean = WeightedMean(frames)
        # A shift of all channels, which the LayerNorm behind it takes away: its gradient is nothing but rounding.
        self.weighted_mean.bias.requires_grad_(False)
        self.head = nn.Sequential(nn.LayerNorm(self.dim), nn.Linear(self.dim, 3 * self.joints[0]))

    def tokens(self, x: Tensor) -> Tensor:
        return self.frame_vectors(self.Spatial_patch_to_embedding(x)) + self.Temporal_pos_embed

    def pooled(self, h: Tensor) -> Tensor:
        return self.weighted_mean(h)
