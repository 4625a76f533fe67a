"""MixSTE, and the alternation of attention over joints and over frames that D3DP and KTPFormer build on.

Source: Zhang, Tu, Yang, Chen, Yuan, "MixSTE: Seq2seq Mixed Spatio-Temporal Encoder for 3D Human Pose Estimation in
Video", CVPR 2022.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .base import Backbone
from .blocks import TransformerBlock, check_rate, check_ratio, check_size, check_sizes, drop_path_rates
from .registry import family

__all__ = ["AlternatingTransformer", "MixSTE"]

_EPS = 1e-6  # of every LayerNorm but the head's


class AlternatingTransformer(Backbone):
    """Spatial block, norm, temporal block, norm, level after level, and a head for every frame.

    The norms are two LayerNorms for the whole network, one after spatial and one after temporal blocks; they stand in
    the residual stream itself. A subclass embeds clips and runs the levels (:meth:`encoded`).

    Args:
        num_joints: joints J.
        levels_before: levels that a subclass puts in front, which the steps of `drop_path_rate` count too.
        frames, embed_dim, depth, num_heads, mlp_ratio: those of :class:`MixSTE`.
        drop_path_rate: stochastic depth of the last level, in even steps from 0 at the first. A spatial block drops
            single frames, a temporal one single joints' trajectories.

    Attributes:
        dim, heads, hidden: channels C, attention heads and hidden width of the MLPs.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(
        self,
        num_joints: int,
        levels_before: int = 0,
        *,
        frames: int = 243,
        embed_dim: int = 512,
        depth: int = 8,
        num_heads: int = 8,
        mlp_ratio: float = 2,
        drop_path_rate: float = 0.1,
    ) -> None:
        check_sizes(num_joints=num_joints, num_heads=num_heads, depth=depth)
        check_rate("drop_path_rate", drop_path_rate)
        check_size("embed_dim", embed_dim, multiple_of=num_heads)
        hidden = check_ratio("mlp_ratio", mlp_ratio, embed_dim, "embed_dim")
        super().__init__(kind="sequence", frames=frames, joints=(num_joints,))
        self.dim, self.heads, self.hidden = embed_dim, num_heads, hidden
        paths = drop_path_rates(drop_path_rate, levels_before + depth)[levels_before:]
        self.STEblocks = nn.ModuleList(TransformerBlock(embed_dim, num_heads, hidden, path=path) for path in paths)
        self.TTEblocks = nn.ModuleList(
            TransformerBlock(embed_dim, num_heads, hidden, over="frames", path=path) for path in paths
        )
        self.Spatial_norm = nn.LayerNorm(embed_dim, eps=_EPS)
        self.Temporal_norm = nn.LayerNorm(embed_dim, eps=_EPS)
        self.head = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Lift a clip.

        Args:
            x: `[B, T, J, C]`, T = `frames`, C = 2 (x, y) or 3 (the confidence is ignored); image coordinates on the
                screen normalised to [-1, 1] in x.

        Returns:
            `[B, T, J, 3]`, root-relative, in the unit of the training target (published: metres).

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        return self.head(self.encoded(self.prepare(x)))

    def encoded(self, x: Tensor) -> Tensor:
        """A clip `[B, T, J, 2]` to what the head reads the poses from, `[B, T, J, C]`."""
        raise NotImplementedError

    def level(self, h: Tensor, spatial: nn.Module, temporal: nn.Module, position: Tensor | None = None) -> Tensor:
        """One level on `[B, T, J, C]`; `position`, `[1, T, C]`, is added before the temporal block."""
        h = self.Spatial_norm(self.run(spatial, h))
        if position is not None:
            h = h + position[:, :, None]
        return self.Temporal_norm(self.run(temporal, h))

    def levels(self, h: Tensor, position: Tensor | None = None) -> Tensor:
        """All levels; the frames' `position` enters in the first only."""
        for spatial, temporal in zip(self.STEblocks, self.TTEblocks, strict=True):
            h = self.level(h, spatial, temporal, position)
            position = None
        return h


@family(
    "mixste",
    {
        "27": {
            "params": 33_673_219,
            "macs": 15_568_104_960,
            "published": {"params_M": 33.61, "macs_G": 15.402, "h36m_mpjpe_mm_cpn": 45.1},
            "arguments": {"frames": 27, "depth": 8},
        },
        "81": {
            "params": 33_700_867,
            "macs": 47_313_455_616,
            "published": {
                "params_M": 33.61,
                "macs_G": 46.208,
                "h36m_mpjpe_mm_cpn": 42.4,
                "h36m_pa_mpjpe_mm_cpn": 33.9,
                "h36m_mpjpe_mm_gt2d": 25.9,
            },
            "arguments": {"frames": 81, "depth": 8},
        },
        "243": {
            "params": 33_783_811,
            "macs": 147_422_633_472,
            "published": {
                "params_M": 33.7,
                "macs_G": 138.623,
                "h36m_mpjpe_mm_cpn": 40.9,
                "h36m_pa_mpjpe_mm_cpn": 32.6,
                "h36m_mpjve_mm_cpn": 2.3,
                "h36m_mpjpe_mm_gt2d": 21.6,
                "h36m_mpjpe_mm_hrnet": 39.8,
            },
            "arguments": {"frames": 243, "depth": 8},
        },
    },
    flagship="243",
    paper="Zhang et al., MixSTE: Seq2seq Mixed Spatio-Temporal Encoder for 3D Human Pose Estimation in Video, "
    "CVPR 2022",
    kind="sequence",
)
class MixSTE(AlternatingTransformer):
    """Mixed spatio-temporal encoder: attention over the joints of a frame and over the frames of a joint, alternately.

    Source: Zhang et al., CVPR 2022. State-dict keys and shapes are those of the published checkpoints.

    Args:
        frames: clip length T.
        num_joints: joints J.
        embed_dim: channels C, a multiple of `num_heads`.
        depth: levels, each a spatial and a temporal block.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLPs over C.
        drop_path_rate: stochastic depth of the last level, from 0 at the first.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    #: numbers per joint that the embedding takes
    _features = 2

    def __init__(self, *, num_joints: int = 17, **others: Any) -> None:
        super().__init__(num_joints, **others)
        self.Spatial_patch_to_embedding = nn.Linear(self._features, self.dim)
        self.Spatial_pos_embed = nn.Parameter(torch.zeros(1, num_joints, self.dim))
        self.Temporal_pos_embed = nn.Parameter(torch.zeros(1, self.frames, self.dim))

    def encoded(self, x: Tensor) -> Tensor:
        return self.levels(self.Spatial_patch_to_embedding(x) + self.Spatial_pos_embed, self.Temporal_pos_embed)
