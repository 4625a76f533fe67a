"""DSTformer, the dual-stream spatio-temporal transformer of MotionBERT and RePOSE.

Source: Zhu et al., "MotionBERT: A Unified Perspective on Learning Human Motion Representations", ICCV 2023. RePOSE (Sun
et al., ECCV 2024) is the network of MotionBERT-lite trained with relational depth losses.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone
from .blocks import (
    MLP,
    Attention,
    DropPath,
    Representation,
    check_rates,
    check_ratio,
    check_size,
    check_sizes,
    drop_path_rates,
    fuse,
    init_truncated_normal,
)
from .registry import family

__all__ = ["DSTformer"]

_EPS = 1e-6  # of every LayerNorm, not PyTorch's 1e-5


class _Block(nn.Module):
    """Spatial and temporal attention, each with its MLP, in the order `order` ("st" or "ts")."""

    def __init__(
        self, dim: int, heads: int, hidden: int, order: str, drop: float, attn_drop: float, path: float
    ) -> None:
        super().__init__()
        self.order = order

        def attention(over: str) -> Attention:
            return Attention(dim, heads, over=over, attn_drop=attn_drop, proj_drop=drop)

        self.norm1_s, self.attn_s = nn.LayerNorm(dim, eps=_EPS), attention("tokens")
        self.norm2_s, self.mlp_s = nn.LayerNorm(dim, eps=_EPS), MLP(dim, hidden, drop=drop)
        self.norm1_t, self.attn_t = nn.LayerNorm(dim, eps=_EPS), attention("frames")
        self.norm2_t, self.mlp_t = nn.LayerNorm(dim, eps=_EPS), MLP(dim, hidden, drop=drop)
        self.drop_path = DropPath(path)

    def forward(self, h: Tensor) -> Tensor:
        for axis in self.order:
            h = self._spatial(h) if axis == "s" else self._temporal(h)
        return h

    def _spatial(self, h: Tensor) -> Tensor:
        h = h + self.drop_path(self.attn_s(h, norm=self.norm1_s))
        return h + self.drop_path(self.mlp_s(h, norm=self.norm2_s))

    def _temporal(self, h: Tensor) -> Tensor:
        h = h + self.drop_path(self.attn_t(h, norm=self.norm1_t))
        return h + self.drop_path(self.mlp_t(h, norm=self.norm2_t))


_LITE = {"dim_feat": 256, "mlp_ratio": 4, "depth": 5}
_COMMON: dict[str, Any] = {"kind": "sequence", "frames": 243, "channels": ("x", "y", "confidence")}


@family(
    "motionbert",
    {
        "full": {
            "params": 42_466_317,
            "macs": 185_402_981_376,
            "published": {
                "params_M": 42.5,
                "macs_G": 174.7,
                "h36m_mpjpe_mm_sh_scratch": 39.2,
                "h36m_mpjpe_mm_sh_finetuned": 37.2,
                "h36m_mpjpe_mm_gt2d_scratch": 17.8,
                "h36m_mpjpe_mm_gt2d_finetuned": 16.9,
            },
            "arguments": {"dim_feat": 512, "mlp_ratio": 2, "depth": 5},
        },
        "lite": {"params": 16_001_549, "macs": 71_046_326_016, "arguments": _LITE},
    },
    flagship="full",
    paper="Zhu et al., MotionBERT: A Unified Perspective on Learning Human Motion Representations, ICCV 2023",
    **_COMMON,
)
@family(
    "repose",
    {
        "h36m": {
            "paper": "Sun et al., RePOSE, ECCV 2024",
            "params": 16_001_549,
            "macs": 71_046_326_016,
            "published": {
                "params_M": 16.0,
                "macs_G": 43.7,
                "h36m_mpjpe_mm_sh": 36.5,
                "h36m_pa_mpjpe_mm_sh": 30.7,
                "h36m_mpjpe_mm_gt2d": 15.7,
                "h36m_mpjpe_mm_sh_without_depth_losses": 37.9,
                "h36m_pa_mpjpe_mm_sh_without_depth_losses": 32.5,
            },
            "arguments": _LITE,
        },
        "tiny": {
            "paper": "structloss: our own small DSTformer, sized to train on two CPU cores",
            "params": 223_623,
            "macs": 1_382_728_320,
            "arguments": {
                "dim_feat": 64,
                "mlp_ratio": 1,
                "depth": 2,
                "num_heads": 2,
                "dim_rep": 64,
                "predict_offset": True,
            },
        },
    },
    flagship="h36m",
    **_COMMON,
)
class DSTformer(Backbone):
    """Dual-stream transformer: every level runs a space-then-time and a time-then-space block on the same input and
    mixes them by a softmax over two scores per token.

    Source: Zhu et al., MotionBERT, ICCV 2023. State-dict keys and shapes are those of the published checkpoints.

    Args:
        dim_feat: channels C, a multiple of `num_heads`.
        dim_rep: channels of the representation.
        depth: levels.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLPs over C.
        maxlen: longest clip, in frames.
        num_joints: joints J.
        drop_rate: dropout after the embedding, after attention and in the MLPs.
        attn_drop_rate: dropout on the attention weights.
        drop_path_rate: stochastic depth of the last level, from 0 at the first; drops single frames. All published
            models have the three rates 0.
        predict_offset: add the input's x and y to the output, so that the head predicts their correction; False in all
            published models.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(
        self,
        *,
        dim_feat: int = 512,
        dim_rep: int = 512,
        depth: int = 5,
        num_heads: int = 8,
        mlp_ratio: float = 2,
        maxlen: int = 243,
        num_joints: int = 17,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        predict_offset: bool = False,
    ) -> None:
        check_sizes(dim_rep=dim_rep, depth=depth, num_heads=num_heads, maxlen=maxlen, num_joints=num_joints)
        check_size("dim_feat", dim_feat, multiple_of=num_heads)
        check_rates(drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate)
        hidden = check_ratio("mlp_ratio", mlp_ratio, dim_feat, "dim_feat")
        super().__init__(kind="sequence", frames=maxlen, joints=(num_joints,), channels=3, shortest=1, longest=maxlen)
        self.predict_offset = predict_offset

        paths = drop_path_rates(drop_path_rate, depth)

        def stream(order: str) -> nn.ModuleList:
            return nn.ModuleList(
                _Block(dim_feat, num_heads, hidden, order, drop_rate, attn_drop_rate, path) for path in paths
            )

        self.temp_embed = nn.Parameter(torch.empty(1, maxlen, 1, dim_feat))
        self.pos_embed = nn.Parameter(torch.empty(1, num_joints, dim_feat))
        self.joints_embed = nn.Linear(3, dim_feat)
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks_st = stream("st")
        self.blocks_ts = stream("ts")
        self.norm = nn.LayerNorm(dim_feat, eps=_EPS)
        self.pre_logits = Representation(dim_feat, dim_rep)
        self.head = nn.Linear(dim_rep, 3)
        self.ts_attn = nn.ModuleList(nn.Linear(2 * dim_feat, 2) for _ in range(depth))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights as the published code does; the fusion starts as the plain average of the streams."""
        self.apply(init_truncated_normal)
        for embedding in (self.temp_embed, self.pos_embed):
            nn.init.trunc_normal_(embedding, std=0.02)
        for fusion in self._fusions():
            nn.init.zeros_(fusion.weight)
            nn.init.constant_(fusion.bias, 0.5)

    def _fusions(self) -> list[nn.Linear]:
        return cast(list[nn.Linear], list(self.ts_attn))

    def forward(self, x: Tensor) -> Tensor:
        """Lift a clip.

        Args:
            x: `[B, T, J, C]`, T <= maxlen, C = 3 (x, y, confidence) or 2 (confidence 1 is appended); image coordinates
                divided by half the image width and centred, so about [-1, 1].

        Returns:
            `[B, T, J, 3]`, in the unit of the training target. MotionBERT and RePOSE predict x, y and depth in the
            normalised image scale of the input ("2.5D").

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        pose = self.head(self.represent(x))
        if self.predict_offset:  # the image position is all but known: only depth starts from nothing
            pose = pose + F.pad(x[..., :2], (0, 1)).to(pose.dtype)
        return pose

    def represent(self, x: Tensor) -> Tensor:
        """The motion representation `[B, T, J, dim_rep]`, in (-1, 1); takes and raises what `forward` does."""
        x = self.prepare(x)
        # Both embeddings are summed before they meet the batch: one pass over [B, T, J, C], forward and backward.
        h = self.pos_drop(self.joints_embed(x) + (self.pos_embed[:, None] + self.temp_embed[:, : x.shape[1]]))
        for st, ts, fusion in zip(self.blocks_st, self.blocks_ts, self._fusions(), strict=True):
            h = fuse(self.run(st, h), self.run(ts, h), fusion)
        return self.pre_logits(self.norm(h))
