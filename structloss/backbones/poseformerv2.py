"""PoseFormerV2: a few central frames, and the low frequencies of all frames.

Source: Zhao, Zheng, Liu, Wang, Chen, "PoseFormerV2: Exploring Frequency Domain for Efficient and Robust 3D Human Pose
Estimation", CVPR 2023.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from .blocks import MLP, Attention, DropPath, check_sizes, dct_matrix, inverse_dct_matrix
from .poseformer import EPS, TwoStages, WeightedMean
from .registry import family

__all__ = ["PoseFormerV2"]


class _MixedBlock(nn.Module):
    """Attention over all tokens; then an MLP on the first half of them and one on the second half's spectrum.

    The split is published at N // 2, wherever the coefficients end and the frames begin.
    """

    dct: Tensor
    idct: Tensor

    def __init__(self, dim: int, heads: int, hidden: int, tokens: int, path: float) -> None:
        super().__init__()
        self.halves = (tokens // 2, tokens - tokens // 2)
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp1 = MLP(dim, hidden)
        self.norm3 = nn.LayerNorm(dim, eps=EPS)
        self.mlp2 = MLP(dim, hidden)
        self.drop_path = DropPath(path)
        self.register_buffer("dct", dct_matrix(self.halves[1]), persistent=False)
        self.register_buffer("idct", inverse_dct_matrix(self.halves[1]), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.drop_path(self.attn(h, norm=self.norm1))
        u, v = h.split(self.halves, dim=1)
        u = u + self.drop_path(self.mlp1(u, norm=self.norm2))
        v = v + self.drop_path(self.idct @ self.mlp2(self.dct @ self.norm3(v)))
        return torch.cat((u, v), dim=1)


def _variant(
    frames: int, frames_kept: int, coefficients: int, params: int, macs: int, flops: float, mpjpe: float
) -> dict[str, Any]:
    return {
        "params": params,
        "macs": macs,
        "published": {"flops_M": flops, "h36m_mpjpe_mm_cpn": mpjpe},
        "arguments": {"frames": frames, "frames_kept": frames_kept, "coefficients": coefficients, "depth": 4},
    }


_SAME_SHAPES = {"note": "No weight depends on the receptive field, so a file does not tell 27 frames from 81."}


@family(
    "poseformerv2",
    {
        "27-1-3": _variant(27, 1, 3, 14_354_649, 38_714_882, 77.2, 48.7) | _SAME_SHAPES,
        "27-3-3": _variant(27, 3, 3, 14_355_739, 59_028_930, 117.3, 47.9) | _SAME_SHAPES,
        "81-1-3": _variant(81, 1, 3, 14_354_649, 38_720_390, 77.2, 47.6) | _SAME_SHAPES,
        "81-3-3": _variant(81, 3, 3, 14_355_739, 59_034_438, 117.3, 47.1) | _SAME_SHAPES,
        "81-9-9": _variant(81, 9, 9, 14_362_279, 178_167_378, 351.7, 46.0),
        "243-27-27": _variant(243, 27, 27, 14_381_899, 545_115_234, 1054.8, 45.2),
    },
    flagship="243-27-27",
    paper="Zhao et al., PoseFormerV2: Exploring Frequency Domain for Efficient and Robust 3D HPE, CVPR 2023",
    kind="centre",
)
class PoseFormerV2(TwoStages):
    """Tokens of a few central frames and of the lowest DCT coefficients of the whole clip, mixed by blocks that work
    on time and frequency; the centre frame's pose from a weighted mean of either kind.

    Source: Zhao et al., CVPR 2023. State-dict keys are the published ones; the weighted means are linear layers here
    and convolutions there. No parameter depends on `frames`.

    Args:
        frames: receptive field F; the network takes exactly that many frames.
        frames_kept: central frames f that go through the spatial stage, an odd number.
        coefficients: DCT coefficients n of the input's trajectories; None is `frames_kept`.
        embed_dim_ratio: channels c of a joint, a multiple of `num_heads`; a token has J·c.
        depth: blocks of either stage.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLPs over their channels.
        num_joints: joints J.
        drop_path_rate: stochastic depth of the last block of either stage, from 0 at the first; drops single frames in
            the spatial stage, and branches of whole clips behind it.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    dct: Tensor

    def __init__(
        self, *, frames: int = 243, frames_kept: int = 27, coefficients: int | None = None, **others: Any
    ) -> None:
        coefficients = frames_kept if coefficients is None else coefficients
        check_sizes(frames=frames, frames_kept=frames_kept, coefficients=coefficients)
        if frames_kept > frames or frames_kept % 2 == 0:
            raise ArgumentError(f"frames_kept is {frames_kept}, expected an odd number up to frames = {frames}.")
        if coefficients > frames:
            raise ArgumentError(f"coefficients is {coefficients}, expected at most frames = {frames}.")
        super().__init__(frames=frames, **others)
        first = self.centre - frames_kept // 2
        self.kept = slice(first, first + frames_kept)
        self.parts = (coefficients, frames_kept)
        self.Temporal_pos_embed = nn.Parameter(torch.zeros(1, frames_kept, self.dim))
        self.Temporal_pos_embed_ = nn.Parameter(torch.zeros(1, coefficients, self.dim))
        self.Joint_embedding = nn.Linear(2, self.joint_dim)
        self.Freq_embedding = nn.Linear(2 * self.joints[0], self.dim)
        self.blocks = nn.ModuleList(
            _MixedBlock(self.dim, self.heads, self.hidden, sum(self.parts), path) for path in self.paths
        )
        self.Temporal_norm = nn.LayerNorm(self.dim, eps=EPS)
        self.weighted_mean = WeightedMean(coefficients)
        self.weighted_mean_ = WeightedMean(frames_kept)
        self.head = nn.Sequential(nn.LayerNorm(2 * self.dim), nn.Linear(2 * self.dim, 3 * self.joints[0]))
        self.register_buffer("dct", dct_matrix(frames, coefficients), persistent=False)

    def tokens(self, x: Tensor) -> Tensor:
        near = self.frame_vectors(self.Joint_embedding(x[:, self.kept])) + self.Temporal_pos_embed
        spectrum = self.Freq_embedding(self.dct @ x.flatten(2)) + self.Temporal_pos_embed_
        return torch.cat((spectrum, near), dim=1)

    def pooled(self, h: Tensor) -> Tensor:
        spectrum, near = h.split(self.parts, dim=1)
        return torch.cat((self.weighted_mean(spectrum), self.weighted_mean_(near)), dim=-1)
