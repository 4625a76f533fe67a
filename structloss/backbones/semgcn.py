"""SemGCN, graph convolutions with learned weights of a joint's neighbours.

Source: Zhao, Peng, Tian, Kapadia, Metaxas, "Semantic Graph Convolutional Networks for 3D Human Pose Regression",
CVPR 2019.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone
from .blocks import (
    TokenBatchNorm,
    check_rate,
    check_size,
    graph_convolution,
    init_graph_weight,
    neighbours,
    without_neck,
)
from .official import Source
from .registry import family

__all__ = ["SemGCN"]

_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 8, 10, 11, 8, 13, 14)  # h36m without neck/nose: the head is on the thorax
_PAIRS = ((2, 3), (5, 6), (1, 4), (0, 7), (8, 9), (14, 15), (11, 12), (10, 13))  # what the non-local block pools over


class _SemanticConvolution(nn.Module):
    """Graph convolution with a learned adjacency: each row is a softmax over a joint and its neighbours."""

    linked: Tensor
    link: Tensor

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        linked = neighbours(_PARENTS).bool() | torch.eye(len(_PARENTS), dtype=torch.bool)
        # Score k belongs to the k-th link in row-major order; where there is no link the index is never used.
        self.register_buffer("linked", linked, persistent=False)
        self.register_buffer("link", (linked.flatten().cumsum(0) - 1).clamp(min=0).view(linked.shape), persistent=False)
        self.weight = nn.Parameter(torch.empty(2, c_in, c_out))
        self.scores = nn.Parameter(torch.empty(1, 3 * len(_PARENTS) - 2))
        self.bias = nn.Parameter(torch.empty(c_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init_graph_weight(self.weight, self.bias)
        nn.init.ones_(self.scores)

    def adjacency(self) -> Tensor:
        """`[16, 16]`, rows sum to 1."""
        return self.scores[0][self.link].masked_fill(~self.linked, -torch.inf).softmax(dim=-1)

    def forward(self, h: Tensor) -> Tensor:
        return graph_convolution(h, self.weight, self.adjacency(), self.bias)


class _Layer(nn.Module):
    def __init__(self, c_in: int, c_out: int, drop: float) -> None:
        super().__init__()
        self.conv = _SemanticConvolution(c_in, c_out)
        self.norm = TokenBatchNorm(c_out)
        self.drop = nn.Dropout(drop)

    def forward(self, h: Tensor) -> Tensor:
        return self.drop(F.relu(self.norm(self.conv(h))))


class _NonLocal(nn.Module):
    """x + norm(out(y)), where y_i sums the values of eight pairs of joints, weighted by ReLU(u·[θ_i ; φ_n]) / 8.

    θ_i = `theta`(x_i) meets nothing but its half of u = `score`, so the product of the two maps x_i to a number, and θ
    is never computed. φ and the values are the larger of a pair's two joints in every channel.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = dim // 2
        self.theta = nn.Linear(dim, inner)
        self.phi_and_value = nn.Linear(dim, 2 * inner)
        self.score = nn.Linear(2 * inner, 1, bias=False)
        self.out = nn.Linear(inner, dim)
        self.norm = TokenBatchNorm(dim)
        first, second = torch.tensor(_PAIRS).T
        self.register_buffer("first", first.contiguous(), persistent=False)
        self.register_buffer("second", second.contiguous(), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-normal weights and zero biases; norm 0 and 0, so that the block starts as the identity."""
        for linear in (self.theta, self.phi_and_value, self.score, self.out):
            nn.init.kaiming_normal_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        of_theta, of_phi = self.score.weight.chunk(2, dim=-1)
        own = F.linear(x, of_theta @ self.theta.weight, of_theta @ self.theta.bias)
        both = self.phi_and_value(x)
        phi, value = torch.maximum(both[..., self.first, :], both[..., self.second, :]).chunk(2, dim=-1)
        weights = F.relu(own + F.linear(phi, of_phi).transpose(-2, -1)) / len(_PAIRS)
        return x + self.norm(self.out(weights @ value))


class _Level(nn.Module):
    def __init__(self, dim: int, non_local: bool, drop: float) -> None:
        super().__init__()
        self.first = _Layer(dim, dim, drop)
        self.second = _Layer(dim, dim, drop)
        self.non_local = _NonLocal(dim) if non_local else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        return self.non_local(h + self.second(self.first(h)))


@family(
    "semgcn",
    {
        "base": {
            "params": 267_343,
            "macs": 4_510_464,
            "published": {"params_M": 0.27, "h36m_mpjpe_mm_gt2d": 42.14, "h36m_pa_mpjpe_mm_gt2d": 33.53},
            "arguments": {"depth": 4, "non_local": False},
        },
        "nonlocal": {
            "params": 434_703,
            "macs": 6_571_264,
            "published": {
                "params_M": 0.43,
                "h36m_mpjpe_mm_gt2d": 40.78,
                "h36m_pa_mpjpe_mm_gt2d": 31.46,
                "h36m_mpjpe_mm_sh": 61.24,
                "h36m_pa_mpjpe_mm_sh": 47.71,
            },
            "arguments": {"depth": 4, "non_local": True},
        },
    },
    flagship="nonlocal",
    paper="Zhao et al., Semantic Graph Convolutional Networks for 3D Human Pose Regression, CVPR 2019",
    kind="frame",
    frames=1,
    joints_in=(17, 16),
    joints_out=16,
    file_entry="state_dict",
    file_prefix="",
    note="Predicts h36m without neck/nose (9), and the hip too: the published test subtracts it.",
)
class SemGCN(Backbone):
    """Residual graph convolutions on the 16 joints of h36m without neck/nose, every frame by itself; batch
    normalisation runs over all B * T * 16 joints.

    Source: Zhao et al., CVPR 2019.

    Args:
        dim_feat: channels C, even.
        depth: levels of two graph convolutions each.
        non_local: a non-local block after the first layer and after every level.
        dropout: rate after every layer but the last; published models have none.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(self, *, dim_feat: int = 128, depth: int = 4, non_local: bool = True, dropout: float = 0.0) -> None:
        check_size("dim_feat", dim_feat, multiple_of=2)
        check_size("depth", depth)
        check_rate("dropout", dropout)
        super().__init__(kind="frame", frames=1, joints=(17, 16), shortest=1)
        self.has_non_local = non_local
        self.embed = _Layer(2, dim_feat, dropout)
        self.embed_non_local = _NonLocal(dim_feat) if non_local else nn.Identity()
        self.levels = nn.ModuleList(_Level(dim_feat, non_local, dropout) for _ in range(depth))
        self.head = _SemanticConvolution(dim_feat, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Lift every frame of a clip.

        Args:
            x: `[B, T, J, C]`: J = 17 (h36m, neck/nose is ignored) or 16 (h36m without it), C = 2 (x, y) or 3 (the
                confidence is ignored); image coordinates divided by half the image width and centred, so about [-1, 1].

        Returns:
            `[B, T, 16, 3]`, in the order of the 16 input joints and the unit of the training target: published, metres
            in camera space, root-relative. The root is predicted like any other joint.

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        h = self.embed_non_local(self.embed(without_neck(self.prepare(x))))
        for level in self.levels:
            h = self.run(level, h)
        return self.head(h)

    def match(self, clip: Tensor) -> Tensor:
        """The 16 joints that the network predicts, of 17 or 16."""
        return without_neck(clip)

    def official(self, key: str) -> str | Source:
        module, _, entry = key.rpartition(".")
        stride = 2 if self.has_non_local else 1
        module = module.replace("embed_non_local", "gconv_input.1.nonlocal").replace("embed", "gconv_input.0")
        module = re.sub(r"levels\.(\d+)\.non_local", lambda m: f"gconv_layers.{2 * int(m[1]) + 1}.nonlocal", module)
        module = re.sub(r"levels\.(\d+)", lambda m: f"gconv_layers.{stride * int(m[1])}", module)
        module = module.replace("head", "gconv_output").replace(".first", ".gconv1").replace(".second", ".gconv2")
        if ".nonlocal" in module:
            block, part = module.rsplit(".", 1)
            return self._official_non_local(block, part, entry)
        module = module.replace(".conv", ".gconv").replace(".norm", ".bn")
        graph = module.endswith((".gconv", "gconv_output"))
        return f"{module}.{ {'weight': 'W', 'scores': 'e'}.get(entry, entry) if graph else entry }"

    def _official_non_local(self, block: str, part: str, entry: str) -> str | Source:
        names = {"theta": ("theta",), "phi_and_value": ("phi.0", "g.0"), "score": ("concat_project.0",)}
        names |= {"out": ("W.0",), "norm": ("W.1",)}
        keys = tuple(f"{block}.{name}.{entry}" for name in names[part])
        if entry != "weight" or part == "norm":
            return Source(keys)
        dim = self.head.weight.shape[1]
        inner = dim // 2
        shapes = {"score": (1, dim, 1, 1), "out": (dim, inner, 1)}
        return Source(keys, shapes.get(part, (inner, dim, 1)))
