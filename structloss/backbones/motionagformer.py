"""MotionAGFormer: in every layer, attention beside graph convolution, both over joints and then over frames.

Source: Mehraban, Adeli, Taati, "MotionAGFormer: Enhancing 3D Human Pose Estimation with a Transformer-GCNFormer
Network", WACV 2024.
"""

from __future__ import annotations

import math
import re
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from .base import Backbone
from .blocks import MLP, Attention, Representation, check_ratio, check_size, check_sizes, fuse
from .official import Source
from .registry import family

__all__ = ["MotionAGFormer"]

# Whom each joint of h36m reads from, as published: pelvis (0) and thorax (8) don't read all that read them. The models
# for MPI-INF-3DHP use this table too, though that data numbers its joints otherwise.
_READS = (
    (1, 7),
    (0, 2),
    (1, 3),
    (2,),
    (0, 5),
    (4, 6),
    (5,),
    (0, 8),
    (7, 9),
    (8, 10),
    (9,),
    (8, 12),
    (11, 13),
    (12,),
    (8, 15),
    (14, 16),
    (15,),
)


class _Graph(nn.Module):
    """ReLU(x + BN(Ā·V(x) + U(x))) over the nodes of `[S, n, C]`, with Ā = D^-½·A·D^-½ and D the row sums of A; the
    batch normalisation is one of nodes, over samples and channels.

    Args:
        dim: channels C.
        nodes: n.
    """

    def __init__(self, dim: int, nodes: int) -> None:
        super().__init__()
        self.uv = nn.Linear(dim, 2 * dim)
        self.batch_norm = nn.BatchNorm1d(nodes)

    def aggregate(self, x: Tensor, others: Tensor) -> Tensor:
        """Ā·V(x), where V(x) is `others`."""
        raise NotImplementedError

    def convolve(self, x: Tensor) -> Tensor:
        own, others = self.uv(x).chunk(2, dim=-1)
        return torch.relu(x + self.batch_norm(own + self.aggregate(x, others)))


class _JointGraph(_Graph):
    """The nodes are the joints of a frame, A is fixed."""

    adjacency: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim, len(_READS))
        adjacency = torch.tensor([[float(j in row) for j in range(len(_READS))] for row in _READS])
        self.register_buffer("adjacency", adjacency, persistent=False)

    def aggregate(self, x: Tensor, others: Tensor) -> Tensor:
        # Normalised here and not once: a rounded matrix would not turn exact with the model's dtype.
        scale = self.adjacency.sum(dim=-1).rsqrt()
        return (scale[:, None] * self.adjacency * scale) @ others

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x.flatten(0, 1)).view(x.shape)


class _FrameGraph(_Graph):
    """The nodes are the frames of a joint; each reads from the `neighbours` frames most similar to it."""

    def __init__(self, dim: int, frames: int, neighbours: int) -> None:
        super().__init__(dim, frames)
        self.neighbours = neighbours

    def aggregate(self, x: Tensor, others: Tensor) -> Tensor:
        similarity = _products(x.detach())
        nearest = similarity >= similarity.topk(self.neighbours, dim=-1).values[..., -1:]  # more where frames tie
        scale = nearest.sum(dim=-1, keepdim=True, dtype=x.dtype).rsqrt()
        return scale * (nearest.to(others.dtype) @ (scale * others).to(others.dtype))

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, joints, channels = x.shape
        y = self.convolve(x.transpose(1, 2).flatten(0, 1))
        return y.view(batch, joints, frames, channels).transpose(1, 2)


def _products(x: Tensor) -> Tensor:
    """x·xᵀ of `[S, n, C]`, in float32 at least: in half precision the products of similar frames would tie."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if not torch.amp.is_autocast_available(x.device.type):
        return x @ x.mT
    with torch.autocast(x.device.type, enabled=False):
        return x @ x.mT


class _Block(nn.Module):
    """x + scale₁·mixer(norm1(x)), then x + scale₂·mlp(norm2(x)), with a learned scale for every channel."""

    def __init__(self, dim: int, hidden: int, mixer: nn.Module) -> None:
        super().__init__()
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), 1e-5))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), 1e-5))
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.addcmul(x, self.layer_scale_1, self.mixer(self.norm1(x)))
        return torch.addcmul(x, self.layer_scale_2, self.mlp(x, norm=self.norm2))


class _Layer(nn.Module):
    """Two streams from the same input, each over joints and then over frames, mixed token by token."""

    def __init__(self, dim: int, heads: int, hidden: int, frames: int, neighbours: int) -> None:
        super().__init__()
        self.att_spatial = _Block(dim, hidden, Attention(dim, heads, qkv_bias=False))
        self.att_temporal = _Block(dim, hidden, Attention(dim, heads, over="frames", qkv_bias=False))
        self.graph_spatial = _Block(dim, hidden, _JointGraph(dim))
        self.graph_temporal = _Block(dim, hidden, _FrameGraph(dim, frames, neighbours))
        self.fusion = nn.Linear(2 * dim, 2)

    @property
    def graphs(self) -> tuple[_Graph, _Graph]:
        """The mixers of the second stream, over joints and over frames."""
        return cast(_Graph, self.graph_spatial.mixer), cast(_Graph, self.graph_temporal.mixer)

    def forward(self, h: Tensor) -> Tensor:
        u = self.att_temporal(self.att_spatial(h))
        v = self.graph_temporal(self.graph_spatial(h))
        return fuse(u, v, self.fusion)


@family(
    "motionagformer",
    {
        "xsmall": {
            "params": 2_241_531,
            "macs": 1_065_261_888,
            "published": {
                "params_M": 2.2,
                "macs_G": 1.0,
                "h36m_mpjpe_mm_gt2d": 28.1,
                "mpi_inf_3dhp_mpjpe_mm_gt2d": 19.2,
            },
            "arguments": {"frames": 27, "dim_feat": 64, "depth": 12},
        },
        "small": {
            "params": 4_817_119,
            "macs": 7_363_711_296,
            "published": {
                "params_M": 4.8,
                "macs_G": 6.6,
                "h36m_mpjpe_mm_gt2d": 26.5,
                "mpi_inf_3dhp_pck_gt2d": 98.3,
                "mpi_inf_3dhp_auc_gt2d": 84.5,
                "mpi_inf_3dhp_mpjpe_mm_gt2d": 17.1,
            },
            "arguments": {"frames": 81, "dim_feat": 64, "depth": 26},
        },
        "base": {
            "params": 11_723_811,
            "macs": 56_598_797_952,
            "published": {
                "params_M": 11.7,
                "macs_G": 48.3,
                "h36m_mpjpe_mm_sh": 38.4,
                "h36m_mpjpe_mm_gt2d": 19.4,
            },
            "arguments": {"frames": 243, "dim_feat": 128, "depth": 16},
        },
        "large": {
            "params": 19_007_111,
            "macs": 91_798_883_712,
            "published": {
                "params_M": 19.0,
                "macs_G": 78.3,
                "h36m_mpjpe_mm_gt2d": 17.3,
            },
            "arguments": {"frames": 243, "dim_feat": 128, "depth": 26},
        },
        "base-3dhp": {
            "skeleton": "mpi_inf_3dhp",
            "params": 11_718_627,
            "macs": 17_038_843_776,
            "published": {
                "params_M": 11.7,
                "macs_G": 16.0,
                "mpi_inf_3dhp_auc_gt2d": 84.2,
                "mpi_inf_3dhp_mpjpe_mm_gt2d": 18.2,
            },
            "keeps": "centre",
            "note": "The graph over joints is the one of h36m, although the joints are numbered as in 3DHP.",
            "arguments": {"frames": 81, "dim_feat": 128, "depth": 16},
        },
    },
    flagship="base",
    paper="Mehraban et al., MotionAGFormer: Enhancing 3D HPE with a Transformer-GCNFormer Network, WACV 2024",
    kind="sequence",
    channels=("x", "y", "confidence"),
    file_entry="model",
)
class MotionAGFormer(Backbone):
    """Layers of two streams, attention and graph convolution, both over joints and then over frames, which are mixed by
    a softmax over two scores per token.

    The graph over frames joins each frame to those with the largest inner products. Rounding can change such an edge,
    and the outputs near it by some 0.01, in the published network as well as here; in float64 both agree.

    Source: Mehraban et al., WACV 2024. State-dict keys are the published ones, except that the graph convolutions'
    `U` and `V` are one layer here.

    Args:
        frames: clip length T; the network takes exactly that many frames, for each has its own batch statistics.
        dim_feat: channels C, a multiple of `num_heads`.
        dim_rep: channels of the representation.
        depth: layers.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLPs over C.
        neighbours: frames that a frame is joined to, itself among them.

    Raises:
        ArgumentError: an impossible size.
    """

    def __init__(
        self,
        *,
        frames: int = 243,
        dim_feat: int = 128,
        dim_rep: int = 512,
        depth: int = 16,
        num_heads: int = 8,
        mlp_ratio: float = 4,
        neighbours: int = 2,
    ) -> None:
        check_sizes(frames=frames, dim_rep=dim_rep, depth=depth, num_heads=num_heads, neighbours=neighbours)
        check_size("dim_feat", dim_feat, multiple_of=num_heads)
        hidden = check_ratio("mlp_ratio", mlp_ratio, dim_feat, "dim_feat")
        if neighbours > frames:
            raise ArgumentError(f"neighbours is {neighbours}, expected at most frames = {frames}.")
        super().__init__(kind="sequence", frames=frames, joints=(len(_READS),), channels=3)
        self.joints_embed = nn.Linear(3, dim_feat)
        self.pos_embed = nn.Parameter(torch.zeros(1, len(_READS), dim_feat))
        self.layers = nn.ModuleList(_Layer(dim_feat, num_heads, hidden, frames, neighbours) for _ in range(depth))
        self.norm = nn.LayerNorm(dim_feat)
        self.rep_logit = Representation(dim_feat, dim_rep)
        self.head = nn.Linear(dim_rep, 3)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of the graph convolutions normal with variance 2/C; the fusion starts as the plain average. All else
        is as PyTorch and the constructors make it."""
        for layer in cast(list[_Layer], list(self.layers)):
            for graph in layer.graphs:
                nn.init.normal_(graph.uv.weight, std=math.sqrt(2 / graph.uv.in_features))
            nn.init.zeros_(layer.fusion.weight)
            nn.init.constant_(layer.fusion.bias, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Lift a clip.

        Args:
            x: `[B, T, J, C]`, C = 3 (x, y, confidence) or 2 (confidence 1 is appended); image coordinates divided by
                half the image width and centred, so about [-1, 1].

        Returns:
            `[B, T, J, 3]`, in the unit of the training target: x, y and depth in the normalised image scale of the
            input ("2.5D"), relative to the root; for 3DHP, millimetres / 1024.

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        x = self.prepare(x)
        h = self.joints_embed(x) + self.pos_embed
        for layer in self.layers:
            h = self.run(layer, h)
        return self.head(self.rep_logit(self.norm(h)))

    def official(self, key: str) -> str | Source:
        if match := re.fullmatch(r"(.*\.mixer)\.uv\.(weight|bias)", key):
            mixer, what = match.groups()
            return Source((f"{mixer}.U.{what}", f"{mixer}.V.{what}"))
        return key
