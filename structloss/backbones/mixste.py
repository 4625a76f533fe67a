"""MixSTE, and the alternation of attention over joints and over frames that D3DP and KTPFormer build on.

Source: Zhang, Tu, Yang, Chen, Yuan, "MixSTE: Seq2seq Mixed Spatio-Temporal Encoder for 3D Human Pose Estimation in
Video", CVPR 2022.
"""

from __future__ import annotations

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
    the residual stream itself.

    Args:
        frames: clip length T.
        num_joints: joints J.
        embed_dim: channels C, a multiple of `num_heads`.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLPs over C.
        depth: levels, each a spatial and a temporal block.
        drop_path_rate: stochastic depth of the last level, in even steps from 0 at the first. A spatial block drops
            single frames, a temporal one single joints' trajectories.
        levels_before: levels that a subclass puts in front, which those steps count too.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(
        self,
        *,
        frames: int,
        num_joints: int,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float,
        depth: int,
        drop_path_rate: float,
        levels_before: int = 0,
    ) -> None:
        check_sizes(num_joints=num_joints, num_heads=num_heads, depth=depth)
        check_rate("drop_path_rate", drop_path_rate)
        check_size("embed_dim", embed_dim, multiple_of=num_heads)
        hidden = check_ratio("mlp_ratio", mlp_ratio, embed_dim, "embed_dim")
        super().__init__(kind="sequence", frames=frames, joints=(num_joints,))
        paths = drop_path_rates(drop_path_rate, levels_before + depth)[levels_before:]
        self.STEblocks = nn.ModuleList(TransformerBlock(embed_dim, num_heads, hidden, path=path) for path in paths)
        self.TTEblocks = nn.ModuleList(
            TransformerBlock(embed_dim, num_heads, hidden, over="frames", path=path) for path in paths
        )
        self.Spatial_norm = nn.LayerNorm(embed_dim, eps=_EPS)
        self.Temporal_norm = nn.LayerNorm(embed_dim, eps=_EPS)
        self.head = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, 3))

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
    """Mixed spatio-temporal encoder: attention over the joints of a frame and over the frames of a joint by turns.

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

    #: numbers that the embedding takes a joint
    _features = 2

    def __init__(
        self,
        *,
        frames: int = 243,
        num_joints: int = 17,
        embed_dim: int = 512,
        depth: int = 8,
        num_heads: int = 8,
        mlp_ratio: float = 2,
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__(
            frames=frames,
            num_joints=num_joints,
            embed_dim=embed_dim,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            depth=depth,
            drop_path_rate=drop_path_rate,
        )
        self.Spatial_patch_to_embedding = nn.Linear(self._features, embed_dim)
        self.Spatial_pos_embed = nn.Parameter(torch.zeros(1, num_joints, embed_dim))
        self.Temporal_pos_embed = nn.Parameter(torch.zeros(1, frames, embed_dim))

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
        h = self.Spatial_patch_to_embedding(self.prepare(x)) + self.Spatial_pos_embed
        return self.head(self.levels(h, self.Temporal_pos_embed))
