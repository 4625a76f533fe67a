"""STCFormer: spatial and temporal attention side by side, each on half of the channels.

Source: Tang, Qiu, Hao, Hong, Yao, "3D Human Pose Estimation with Spatio-Temporal Criss-cross Attention", CVPR 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check_choice
from .base import Backbone
from .blocks import MLP, DropPath, attend, check_rates, check_ratio, check_size, check_sizes
from .blocks.memory import recomputed
from .official import Source
from .registry import family

__all__ = ["STCFormer"]


@dataclass(frozen=True)
class _Setup:
    """What differs between the network for Human3.6M and the older one for MPI-INF-3DHP.

    Attributes:
        parts: the part of the body that each joint belongs to.
        rows: of the table of part embeddings.
        padding: row of the table that stays as it is, 0 when fresh.
        shares: factors of the part embedding in the spatial and in the temporal half.
        scale_of: the scores' scale is 1/√ of this share of the channels.
        spare_norm: whether a level has a layer norm that nothing uses.
        names: ours and the published names of the network's entries, and of a level's.
    """

    parts: tuple[int, ...]
    rows: int
    padding: int | None
    shares: tuple[float, float]
    scale_of: float
    spare_norm: bool
    names: dict[str, str]


# The temporal factor is far below float32's resolution of the values it is added to, but trains the embedding.
_SETUPS = {
    "h36m": _Setup(
        parts=(0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 3, 3, 3, 4, 4, 4),
        rows=5,
        padding=None,
        shares=(1e-4, 1e-9),
        scale_of=0.5,
        spare_norm=False,
        names={
            "embed": "pose_emb",
            "head": "regress_head",
            "blocks": "stcformer.stc_block",
            "norm1": "stc_att.layer_norm",
            "attn": "stc_att",
            "conv": "sep2",
            "norm2": "layer_norm",
            "mlp": "mlp",
        },
    ),
    "mpi_inf_3dhp": _Setup(
        parts=(0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 0, 0, 0),
        rows=20,
        padding=0,
        shares=(1e-4, 0.0),
        scale_of=1.0,
        spare_norm=True,
        names={
            "embed": "pose_emb",
            "head": "pose_lift",
            "blocks": "mlpmixer.mixerblocks",
            "norm1": "cross_att.layer_norm",
            "attn": "cross_att",
            "conv": "gate",
            "norm2": "layer_norm1",
            "spare_norm": "layer_norm2",
            "mlp": "mlp1",
        },
    ),
}


class _CrissCross(nn.Module):
    """Attention over the joints of a frame with one half of the channels, over a joint's frames with the other.

    Channels are ordered head, half, width: a head's spatial channels are followed by its temporal ones, and the
    published depthwise convolutions of the values, one for each half, are one.
    """

    parts: Tensor

    def __init__(self, dim: int, heads: int, setup: _Setup, drop: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim * setup.scale_of) ** -0.5
        self.shares = setup.shares
        self.qkv = nn.Linear(dim, 3 * dim)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.emb = nn.Embedding(setup.rows, dim // (2 * heads), padding_idx=setup.padding)
        self.register_buffer("parts", torch.tensor(setup.parts), persistent=False)
        self.emb_drop = DropPath(drop)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Of `norm(x)`, which is not kept for the backward pass; `[B, T, J, C]`."""
        batch, frames, joints, channels = x.shape
        projected = recomputed(norm, x, self.qkv)
        halves = projected.view(batch, frames, joints, 3, self.heads, 2, channels // (2 * self.heads))
        spatial, temporal = self._over_joints(halves[..., 0, :]), self._over_frames(halves[..., 1, :])
        mixed = torch.cat((spatial, temporal), dim=-1) + self._part_embedding(projected.dtype)
        # As an image, frames high and joints wide: in memory its channels are last, as the convolution likes them.
        values = projected[..., 2 * channels :].permute(0, 3, 1, 2)
        return self.proj(mixed.view(x.shape) + self.conv(values).permute(0, 2, 3, 1))

    def _over_joints(self, half: Tensor) -> Tensor:
        """`[B, T, J, 3, heads, width]`, queries, keys and values, to `[B, T, J, heads, width]`."""
        batch, frames, joints, _, heads, width = half.shape
        q, k, v = half.permute(3, 0, 1, 4, 2, 5).reshape(3, batch * frames, heads, joints, width).unbind(0)
        out = attend(q, k, v, scale=self.scale)
        return out.view(batch, frames, heads, joints, width).transpose(2, 3)

    def _over_frames(self, half: Tensor) -> Tensor:
        batch, frames, joints, _, heads, width = half.shape
        q, k, v = half.permute(3, 0, 2, 4, 1, 5).reshape(3, batch * joints, heads, frames, width).unbind(0)
        out = attend(q, k, v, scale=self.scale)
        return out.view(batch, joints, heads, frames, width).permute(0, 3, 1, 2, 4)

    def _part_embedding(self, dtype: torch.dtype) -> Tensor:
        """`[J, 1, 2 * width]`, for all clips, frames and heads; each half drops it as a whole or not at all."""
        spatial, temporal = self.emb_drop(self.emb(self.parts).expand(2, -1, -1))
        return torch.cat((self.shares[0] * spatial, self.shares[1] * temporal), dim=-1)[:, None].to(dtype)

    def published_order(self, parts: int) -> tuple[int, ...]:
        """Our row for each published row of `parts` interleaved projections: half, head, width, part there."""
        width = self.emb.embedding_dim
        return tuple(
            part * 2 * self.heads * width + (2 * head + half) * width + i
            for half in range(2)
            for head in range(self.heads)
            for i in range(width)
            for part in range(parts)
        )


class _Block(nn.Module):
    """x + criss-cross attention, then x + MLP; no stochastic depth."""

    def __init__(self, dim: int, heads: int, hidden: int, setup: _Setup, drop: float, emb_drop: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _CrissCross(dim, heads, setup, emb_drop)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, hidden, drop=drop, bias=False)
        if setup.spare_norm:  # in the published files, but no output depends on it
            self.spare_norm = nn.LayerNorm(dim).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x, self.norm1)
        return x + self.mlp(x, norm=self.norm2)


_LARGE = {"params": 18_933_184, "note": "The paper has the large network at 243 frames only; its width is the paper's."}


@family(
    "stcformer",
    {
        "27": {
            "params": 4_748_000,
            "macs": 2_203_787_520,
            "published": {
                "params_M": 4.75,
                "macs_G": 2.173,
                "h36m_mpjpe_mm_cpn": 44.1,
                "h36m_mpjpe_mm_cpn_released": 44.08,
                "h36m_pa_mpjpe_mm_cpn_released": 34.76,
            },
            "frame_step": 3,
            "arguments": {"frames": 27, "depth": 6},
        },
        "81": {
            "params": 4_748_000,
            "macs": 6_725_576_448,
            "published": {
                "params_M": 4.75,
                "macs_G": 6.52,
                "h36m_mpjpe_mm_cpn": 42.0,
                "h36m_pa_mpjpe_mm_cpn": 32.7,
                "h36m_mpjpe_mm_cpn_released": 41.72,
                "h36m_pa_mpjpe_mm_cpn_released": 32.94,
                "h36m_mpjpe_mm_gt2d": 25.7,
            },
            "frame_step": 3,
            "arguments": {"frames": 81, "depth": 6},
        },
        "243": {
            "params": 4_748_000,
            "macs": 21_204_654_336,
            "published": {
                "params_M": 4.75,
                "macs_G": 19.561,
                "h36m_mpjpe_mm_cpn": 41.0,
                "h36m_pa_mpjpe_mm_cpn": 32.0,
                "h36m_mpjpe_mm_gt2d": 22.0,
            },
            "frame_step": 2,
            "arguments": {"frames": 243, "depth": 6},
        },
        "l-27": _LARGE
        | {
            "recipe": "",
            "macs": 8_739_242_496,
            "published": {"params_M": 18.91},
            "frame_step": 3,
            "arguments": {"frames": 27, "depth": 6, "dim": 512},
        },
        "l-81": _LARGE
        | {
            "recipe": "",
            "macs": 26_446_155_264,
            "published": {"params_M": 18.91},
            "frame_step": 3,
            "arguments": {"frames": 81, "depth": 6, "dim": 512},
        },
        "l-243": _LARGE
        | {
            "macs": 81_394_315_776,
            "published": {
                "params_M": 18.91,
                "macs_G": 78.107,
                "h36m_mpjpe_mm_cpn": 40.5,
                "h36m_pa_mpjpe_mm_cpn": 31.8,
            },
            "frame_step": 2,
            "arguments": {"frames": 243, "depth": 6, "dim": 512},
        },
        "3dhp-81": {
            "params": 4_754_432,
            "macs": 6_725_576_448,
            "skeleton": "mpi_inf_3dhp",
            "published": {
                "mpi_inf_3dhp_pck_gt2d": 98.7,
                "mpi_inf_3dhp_auc_gt2d": 83.9,
                "mpi_inf_3dhp_mpjpe_mm_gt2d": 23.1,
            },
            "note": "An older version of the network: four heads, another scale, table and use of the part embedding.",
            "arguments": {"frames": 81, "depth": 6, "num_heads": 4, "skeleton": "mpi_inf_3dhp"},
        },
    },
    flagship="243",
    paper="Tang et al., 3D Human Pose Estimation with Spatio-Temporal Criss-cross Attention, CVPR 2023",
    kind="sequence",
    keeps="centre",
    file_entry="",
    file_prefix="",
)
class STCFormer(Backbone):
    """Levels of criss-cross attention: joints of a frame and frames of a joint, in parallel, on half the channels each.

    Source: Tang et al., CVPR 2023. Where the tokens are is told by a depthwise convolution of the values over frames
    and joints and by an embedding of body parts. No weight depends on the clip's length, so any T is taken.

    Args:
        frames: length of the clips that it is trained on.
        skeleton: `"h36m"`, or `"mpi_inf_3dhp"` for the authors' network for that data set, an older version with
            other parts, scale of attention and part embedding.
        dim: channels C, a multiple of 2 * `num_heads`.
        depth: levels.
        num_heads: attention heads, each with C / 2 / `num_heads` channels for joints and as many for frames.
        mlp_ratio: hidden width of the MLPs over C.
        drop_rate: dropout in the MLPs.
        emb_drop_rate: stochastic depth of the part embedding: one draw for the whole batch, for each of its uses.

    Raises:
        ArgumentError: an impossible size or rate, or another skeleton.
    """

    def __init__(
        self,
        *,
        frames: int = 243,
        skeleton: str = "h36m",
        dim: int = 256,
        depth: int = 6,
        num_heads: int = 8,
        mlp_ratio: float = 4,
        drop_rate: float = 0.1,
        emb_drop_rate: float = 0.5,
    ) -> None:
        check_sizes(depth=depth, num_heads=num_heads)
        check_size("dim", dim, multiple_of=2 * num_heads)
        check_rates(drop_rate=drop_rate, emb_drop_rate=emb_drop_rate)
        hidden = check_ratio("mlp_ratio", mlp_ratio, dim, "dim")
        setup = _SETUPS[check_choice("skeleton", skeleton, tuple(_SETUPS))]
        super().__init__(kind="sequence", frames=frames, joints=(len(setup.parts),), shortest=1)
        self._names = setup.names
        self.embed = nn.Linear(2, dim, bias=False)
        self.blocks = nn.ModuleList(
            _Block(dim, num_heads, hidden, setup, drop_rate, emb_drop_rate) for _ in range(depth)
        )
        self.head = nn.Linear(dim, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Lift a clip.

        Args:
            x: `[B, T, J, C]`, any T; C = 2 (x, y) or 3 (the confidence is ignored). Image coordinates scaled by half
                the image width and centred, so about [-1, 1].

        Returns:
            `[B, T, J, 3]`, in the unit of the training target (published: metres relative to the root, for
            `mpi_inf_3dhp` millimetres). The published test keeps the centre frame.

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        h = F.gelu(self.embed(self.prepare(x)))
        for block in self.blocks:
            h = self.run(block, h)
        return self.head(h)

    def official(self, key: str) -> str | Source:
        """The published names; projections are interleaved there, q, k and v of a channel side by side, and a half's
        convolution is separate."""
        first, *rest = key.split(".")
        if first != "blocks":
            return ".".join((self._names[first], *rest))
        level, module, *rest = rest
        name = f"{self._names['blocks']}.{level}.{self._names[module]}"
        if module == "attn" and rest[0] in ("qkv", "conv"):
            attn = cast(_Block, self.blocks[int(level)]).attn
            if rest[0] == "qkv":
                return Source((f"{name}.qkv.{rest[1]}",), order=attn.published_order(3))
            keys = tuple(f"{name}.{self._names['conv']}_{half}.{rest[1]}" for half in "st")
            return Source(keys, order=attn.published_order(1))
        return ".".join((name, *rest))
