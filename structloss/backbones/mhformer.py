"""MHFormer: three hypotheses of a pose sequence are generated, refined and made to interact.

Source: Li, Liu, Tang, Wang, Van Gool, "MHFormer: Multi-Hypothesis Transformer for 3D Human Pose Estimation", CVPR 2022.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .base import Backbone
from .blocks import (
    MLP,
    Attention,
    DropPath,
    TokenBatchNorm,
    TransformerBlock,
    attend,
    check_rates,
    check_size,
    check_sizes,
    drop_path_rates,
)
from .blocks.attention import merge_heads, split_heads
from .official import Source
from .registry import family

__all__ = ["MHFormer"]

_EPS = 1e-6  # of every LayerNorm but those before the generators
_SHORT_CLIP = 27  # up to this many frames the embeddings are normalised


# Our names and the published ones: the first pattern that a key begins with
_PUBLISHED = (
    (r"norms\.(\d)", r"norm_\1"),
    (r"generators\.(\d)", r"Transformer_encoder_\1"),
    (r"embeddings\.(\d)", r"embedding_\1"),
    (r"positions\.(\d)", r"Transformer_hypothesis.pos_embed_\1"),
    (r"refine\.(\d+)\.(norm1|attn)\.(\d)", r"Transformer_hypothesis.SHR_blocks.\1.\2_\3"),
    (r"refine", r"Transformer_hypothesis.SHR_blocks"),
    (r"interact\.cross\.(\d)\.norm_q", r"Transformer_hypothesis.CHI_blocks.0.norm3_\g<1>1"),
    (r"interact\.cross\.(\d)\.norm_k", r"Transformer_hypothesis.CHI_blocks.0.norm3_\g<1>2"),
    (r"interact\.cross\.(\d)\.norm_v", r"Transformer_hypothesis.CHI_blocks.0.norm3_\g<1>3"),
    (r"interact\.cross\.(\d)", r"Transformer_hypothesis.CHI_blocks.0.attn_\1"),
    (r"interact", r"Transformer_hypothesis.CHI_blocks.0"),
    (r"norm\b", r"Transformer_hypothesis.norm"),
)


def _three(make: Callable[[], nn.Module]) -> nn.ModuleDict:
    """One module for each hypothesis, by its number in the paper."""
    return nn.ModuleDict({number: make() for number in "123"})


def _positions(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(1, *shape))


class _Generator(nn.Module):
    """Transformer over the coordinates of all joints: a token is one coordinate's course over the F frames."""

    def __init__(self, tokens: int, frames: int, heads: int, depth: int, drop: float, path: float) -> None:
        super().__init__()
        self.pos_embed = _positions(tokens, frames)
        self.drop = nn.Dropout(drop)
        self.blocks = nn.ModuleList(
            TransformerBlock(frames, heads, 2 * frames, eps=_EPS, drop=drop, path=rate)
            for rate in drop_path_rates(path, depth)
        )
        self.norm = nn.LayerNorm(frames, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _Mixing(nn.Module):
    """What both levels end with: a residual MLP over the channels of all hypotheses together."""

    def __init__(self, dim: int, hidden: int, drop: float, path: float) -> None:
        super().__init__()
        self.norm2 = nn.LayerNorm(3 * dim, eps=_EPS)
        self.mlp = MLP(3 * dim, hidden, drop=drop)
        self.drop_path = DropPath(path)  # every branch draws for itself

    def mix(self, h: Tensor) -> Tensor:
        return h + self.drop_path(self.mlp(h, norm=self.norm2))


class _SelfRefinement(_Mixing):
    """Self-hypothesis refinement (SHR): attention over the frames within every hypothesis."""

    def __init__(self, dim: int, heads: int, hidden: int, drop: float, path: float) -> None:
        super().__init__(dim, hidden, drop, path)
        self.norm1 = _three(lambda: nn.LayerNorm(dim, eps=_EPS))
        self.attn = _three(lambda: Attention(dim, heads, proj_drop=drop))

    def forward(self, h: Tensor) -> Tensor:
        hypotheses = zip(h.chunk(3, dim=-1), self.norm1.values(), self.attn.values(), strict=True)
        return self.mix(h + torch.cat([self.drop_path(attn(one, norm=norm)) for one, norm, attn in hypotheses], dim=-1))


class _CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int, drop: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_q, self.linear_q = nn.LayerNorm(dim, eps=_EPS), nn.Linear(dim, dim)
        self.norm_k, self.linear_k = nn.LayerNorm(dim, eps=_EPS), nn.Linear(dim, dim)
        self.norm_v, self.linear_v = nn.LayerNorm(dim, eps=_EPS), nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries, keys and values `[B, F, C]` of three hypotheses."""
        (q,) = split_heads(self.linear_q(self.norm_q(query)), 1, self.heads)
        (k,) = split_heads(self.linear_k(self.norm_k(key)), 1, self.heads)
        (v,) = split_heads(self.linear_v(self.norm_v(value)), 1, self.heads)
        return self.proj_drop(self.proj(merge_heads(attend(q, k, v), value.shape)))


class _CrossInteraction(_Mixing):
    """Cross-hypothesis interaction (CHI): every hypothesis is weighted by how the two others match.

    One after the other: the second reads the first as updated, the third both.
    """

    def __init__(self, dim: int, heads: int, hidden: int, drop: float, path: float) -> None:
        super().__init__(dim, hidden, drop, path)
        self.cross = _three(lambda: _CrossAttention(dim, heads, drop))

    def forward(self, h: Tensor) -> Tensor:
        first, second, third = h.chunk(3, dim=-1)
        first = first + self.drop_path(self.cross["1"](second, third, first))
        second = second + self.drop_path(self.cross["2"](first, third, second))
        third = third + self.drop_path(self.cross["3"](first, second, third))
        return self.mix(torch.cat((first, second, third), dim=-1))


@family(
    "mhformer",
    {
        "27": {
            "params": 19_184_517,
            "macs": 522_980_064,
            "published": {"params_M": 18.92, "h36m_mpjpe_mm_cpn": 45.9, "h36m_mpjpe_mm_gt2d": 34.3},
            "note": "The paper's parameter count is 0.26 M below that of the released code.",
            "arguments": {"frames": 27, "depth": 3},
        },
        "81": {
            "params": 19_837_545,
            "macs": 1_623_527_712,
            "published": {
                "params_M": 19.67,
                "macs_G": 1.561,
                "h36m_mpjpe_mm_cpn": 44.5,
                "h36m_mpjpe_mm_gt2d": 32.7,
            },
            "arguments": {"frames": 81, "depth": 3},
        },
        "243": {
            "params": 25_165_077,
            "macs": 5_361_870_816,
            "published": {
                "params_M": 24.72,
                "macs_G": 4.812,
                "h36m_mpjpe_mm_cpn": 43.2,
                "h36m_mpjpe_mm_gt2d": 30.9,
            },
            "arguments": {"frames": 243, "depth": 3},
        },
        "351": {
            "params": 31_516_125,
            "macs": 8_218_016_352,
            "published": {
                "params_M": 30.9,
                "macs_G": 7.0,
                "h36m_mpjpe_mm_cpn": 43.0,
                "h36m_pa_mpjpe_mm_cpn": 34.4,
                "h36m_mpjpe_mm_gt2d": 30.5,
            },
            "arguments": {"frames": 351, "depth": 3},
        },
    },
    flagship="351",
    paper="Li et al., MHFormer: Multi-Hypothesis Transformer for 3D Human Pose Estimation, CVPR 2022",
    kind="sequence",
    keeps="centre",
    file_entry="",
    file_prefix="",
)
class MHFormer(Backbone):
    """Generates three hypotheses in a residual chain (MHG), refines each (SHR), lets them interact (CHI).

    Source: Li et al., MHFormer, CVPR 2022. The generators attend over the coordinates, 2 per joint, whose features are
    their F values over time; the other levels attend over frames.

    Args:
        frames: clip length F, a multiple of `mhg_heads`; other lengths are not taken. Up to 27 frames, batch
            normalisation, ReLU and dropout follow the embedding of a hypothesis.
        num_joints: joints J.
        dim: channels of a hypothesis, a multiple of `num_heads`.
        hidden: hidden width of the MLPs over all hypotheses.
        depth: levels after generation: all but the last refine, the last interacts.
        num_heads: attention heads of these.
        mhg_depth: levels of each generator.
        mhg_heads: attention heads of the generators.
        drop_rate: dropout after position embeddings, after attention and in the MLPs.
        embed_drop_rate: dropout of the embeddings up to 27 frames.
        drop_path_rate: stochastic depth of the last level, from 0 at the first, in every generator and again in the
            levels after them; drops whole clips, for every branch by itself.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(
        self,
        *,
        frames: int = 351,
        num_joints: int = 17,
        dim: int = 512,
        hidden: int = 1024,
        depth: int = 3,
        num_heads: int = 8,
        mhg_depth: int = 4,
        mhg_heads: int = 9,
        drop_rate: float = 0.1,
        embed_drop_rate: float = 0.25,
        drop_path_rate: float = 0.2,
    ) -> None:
        check_sizes(num_joints=num_joints, hidden=hidden, depth=depth, mhg_depth=mhg_depth)
        check_sizes(num_heads=num_heads, mhg_heads=mhg_heads)
        check_size("dim", dim, multiple_of=num_heads)
        check_size("frames", frames, multiple_of=mhg_heads)
        check_rates(drop_rate=drop_rate, embed_drop_rate=embed_drop_rate, drop_path_rate=drop_path_rate)
        super().__init__(kind="sequence", frames=frames, joints=(num_joints,))
        tokens = 2 * num_joints

        def embedding() -> nn.Module:
            linear = nn.Linear(tokens, dim)
            if frames > _SHORT_CLIP:
                return linear
            return nn.Sequential(linear, TokenBatchNorm(dim), nn.ReLU(), nn.Dropout(embed_drop_rate))

        self.norms = _three(lambda: nn.LayerNorm(frames))
        self.generators = _three(lambda: _Generator(tokens, frames, mhg_heads, mhg_depth, drop_rate, drop_path_rate))
        self.embeddings = _three(embedding)
        self.positions = nn.ParameterDict({number: _positions(frames, dim) for number in "123"})
        self.drop = nn.Dropout(drop_rate)
        *refining, interacting = drop_path_rates(drop_path_rate, depth)
        self.refine = nn.ModuleList(_SelfRefinement(dim, num_heads, hidden, drop_rate, path) for path in refining)
        self.interact = _CrossInteraction(dim, num_heads, hidden, drop_rate, interacting)
        self.norm = nn.LayerNorm(3 * dim, eps=_EPS)
        self.regression = nn.Sequential(TokenBatchNorm(3 * dim), nn.Linear(3 * dim, 3 * num_joints))

    def forward(self, x: Tensor) -> Tensor:
        """Lift a clip.

        Args:
            x: `[B, F, J, C]`, exactly F = `frames`; C = 2 (x, y) or 3 (the confidence is ignored). Image coordinates
                scaled by half the image width and centred, so about [-1, 1].

        Returns:
            `[B, F, J, 3]`, in the unit of the training target (published: metres, relative to the root). The published
            test keeps the centre frame.

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        x = self.prepare(x)
        h = torch.cat(self._hypotheses(x), dim=-1)
        for level in self.refine:
            h = self.run(level, h)
        h = self.norm(self.run(self.interact, h))
        return self.regression(h).view(*x.shape[:3], 3)

    def _hypotheses(self, x: Tensor) -> list[Tensor]:
        """The embedded hypotheses, each `[B, F, C]`: every generator corrects what the one before has made."""
        chain = x.flatten(2).transpose(1, 2).contiguous()  # [B, 2J, F], x and y of a joint side by side
        found = []
        for number, position in self.positions.items():
            chain = chain + self.run(self.generators[number], self.norms[number](chain))
            found.append(self.drop(self.embeddings[number](chain.transpose(1, 2)) + position))
        return found

    def official(self, key: str) -> str | Source:
        """The published name; the linear layers of the embeddings and of the head are convolutions there."""
        name = key
        for ours, published in _PUBLISHED:
            if re.match(ours, key):
                name = re.sub(ours, published, key, count=1)
                break
        if re.fullmatch(r"(embeddings|regression)\..*weight", key) and self.get_parameter(key).dim() == 2:
            return Source((name,), shape=(*self.get_parameter(key).shape, 1))
        return name
