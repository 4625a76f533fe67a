"""P-STMO, a many-to-one network with a head for all frames beside the centre frame's, and its refinement head.

Source: Shan, Liu, Zhang, Wang, Ma, Gao, "P-STMO: Pre-trained Spatial Temporal Many-to-One Model for 3D Human Pose
Estimation", ECCV 2022.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError, check_floating, check_same_device, check_same_shape
from .base import Backbone, Supervision
from .blocks import (
    MLP,
    Attention,
    ResidualUnit,
    StdNorm,
    TokenBatchNorm,
    check_batch_statistics,
    check_clip,
    check_rate,
    check_size,
    check_sizes,
)
from .checkpoints import LoadReport
from .official import Source
from .registry import family

__all__ = ["PSTMO", "RefinementHead", "back_project"]

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
    """h + attn(norm1(h)), then h + mlp(norm2(h)) on `[B, T, C]`; with a stride, on every so manieth token from the
    first one on."""

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
        first = self.layers[0]
        for qkv, proj in zip(first.attn.qkv.parameters(), first.attn.proj.parameters(), strict=True):
            qkv.copy_(torch.cat([proj] * 3))
        for layer in self.layers[1:]:
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


@torch.no_grad()
def draw_weights(model: nn.Module) -> None:
    """Fresh weights as published: layers as PyTorch makes them, embeddings and tokens standard normal, and stacks that
    start as copies."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.BatchNorm1d, StdNorm)):
            module.reset_parameters()
    for module in model.modules():
        if isinstance(module, TemporalStack):
            module.copy_first()
    for parameter in model.parameters(recurse=False):
        nn.init.normal_(parameter)


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
    """What `Backbone.official` gives for the modules of this file."""
    name = key
    for ours, published in _RENAMED:
        name = ours.sub(published, name)
    stack, attention, part = name.partition(".attn.qkv.")
    if attention:
        return Source(tuple(f"{stack}.self_attn.linears.{i}.{part}" for i in range(3)))
    if _CONVOLUTIONS.fullmatch(name):  # a convolution over single frames
        return Source((name,), shape=(*model.get_parameter(key).shape, 1))
    return name


_LONG = {"frames": 243, "strides": (3, 3, 3, 3, 3)}


@family(
    "pstmo",
    {
        "243": {
            "frames": 243,
            "frame_step": 2,
            "params": 7_009_382,
            "macs": 1_018_364_160,
            "published": {
                "params_M": 6.7,
                "macs_G": 0.8685,
                "h36m_mpjpe_mm_cpn": 42.8,
                "h36m_pa_mpjpe_mm_cpn": 34.4,
            },
            "arguments": {"depth": 4, **_LONG},
        },
        "s-243": {
            "frames": 243,
            "frame_step": 2,
            "params": 6_482_278,
            "macs": 860_729_088,
            "published": {
                "params_M": 6.2,
                "macs_G": 0.741,
                "h36m_mpjpe_mm_cpn": 43.0,
                "h36m_mpjpe_mm_gt2d": 29.3,
            },
            "arguments": {"depth": 3, **_LONG},
        },
        "s-3dhp-81": {
            "frames": 81,
            "skeleton": "mpi_inf_3dhp",
            "params": 5_527_142,
            "macs": 258_680_064,
            "published": {
                "params_M": 5.4,
                "macs_G": 0.2465,
                "mpi_inf_3dhp_mpjpe_mm_gt2d": 32.2,
                "mpi_inf_3dhp_pck_gt2d": 97.9,
                "mpi_inf_3dhp_auc_gt2d": 75.8,
                "h36m_mpjpe_mm_cpn": 44.1,
            },
            "note": "The figure for Human3.6M is that of the same network with every third frame.",
            "arguments": {"depth": 3, "frames": 81, "strides": (3, 3, 3, 3)},
        },
    },
    flagship="243",
    paper=PAPER,
    kind="centre",
    channels=("x", "y"),
    joints_in=(17,),
    joints_out=17,
)
class PSTMO(Backbone):
    """A perceptron on every frame (SEM), a transformer over the frames (TEM), and one whose strides leave a single
    token (MOFA), from which the centre frame's pose is read.

    Source: Shan et al., P-STMO, ECCV 2022. Training also predicts the poses of all frames, from the TEM's tokens. The
    strides keep the first token of every level, so the last one descends from the first frame and sees the others
    through attention and convolutions alone, as published.

    Args:
        frames: receptive field F; the network takes exactly that many frames.
        strides: of the MOFA's layers, which must bring F down to 1; published ones are 3 three to five times for 27, 81
            and 243 frames, (1, 3, 3) for 9 and (3, 9, 13) for 351.
        depth: layers of the TEM.
        dim: channels C, a multiple of `num_heads`.
        hidden: width between the two layers of the MLPs.
        encoder_width: channels of the SEM.
        num_heads: attention heads.
        num_joints: joints J.
        drop_rate: dropout in the SEM, on the attention weights, after attention and in the MLPs.

    Raises:
        ArgumentError: an impossible size or rate, or strides that don't fit the frames.
    """

    def __init__(
        self,
        *,
        frames: int = 243,
        strides: Sequence[int] = (3, 3, 3, 3, 3),
        depth: int = 4,
        dim: int = 256,
        hidden: int = 512,
        encoder_width: int = 512,
        num_heads: int = 8,
        num_joints: int = 17,
        drop_rate: float = 0.1,
    ) -> None:
        check_sizes(frames=frames, depth=depth, hidden=hidden, encoder_width=encoder_width)
        check_sizes(num_heads=num_heads, num_joints=num_joints)
        check_size("dim", dim, multiple_of=num_heads)
        check_rate("drop_rate", drop_rate)
        _check_strides(strides, frames)
        super().__init__(kind="centre", frames=frames, joints=(num_joints,))
        self.encoder = SpatialEncoder(num_joints, encoder_width, dim, drop_rate)
        self.pos_embedding = nn.Parameter(torch.empty(1, frames, dim))
        self.tem = TemporalStack(dim, num_heads, hidden, drop_rate, [None] * depth)
        for level in range(1, min(len(strides), 3) + 1):
            self.register_parameter(f"pos_embedding_{level}", nn.Parameter(torch.empty(1, frames, dim)))
        self.mofa = TemporalStack(dim, num_heads, hidden, drop_rate, strides)
        self.fcn = FrameHead(dim, num_joints, 3)
        self.fcn_1 = FrameHead(dim, num_joints, 3)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights as published: position embeddings standard normal, layers of a stack as copies of its
        first one (but for the MOFA's MLPs), queries, keys, values and output of attention as copies of each other."""
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Lift the centre frame.

        Args:
            x: `[B, F, J, C]`, exactly F = `frames`; C = 2 (x, y) or 3 (the confidence is ignored). Image coordinates
                scaled by half the image width and centred, so about [-1, 1].

        Returns:
            `[B, 1, J, 3]`, in the unit of the training target (published: metres for Human3.6M and millimetres for
            MPI-INF-3DHP, relative to the root).

        Raises:
            ArgumentError: a wrong shape or device, or a single clip in training mode.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        return self._centre(self._tokens(x))

    def forward_all(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The centre frame's pose `[B, 1, J, 3]` and the auxiliary poses of all frames (VTE) `[B, F, J, 3]`; takes and
        raises what `forward` does."""
        tokens = self._tokens(x)
        return self._centre(tokens), self.fcn_1(tokens)

    def supervise(self, x: Tensor, target: Tensor, weight: Tensor | None = None) -> list[Supervision]:
        """All frames and the centre frame, of equal weight."""
        centre, every = self.forward_all(x)
        return [
            Supervision(every, target, weight),
            Supervision(centre, self.match(target), None if weight is None else self.match(weight)),
        ]

    def load_first_stage(self, checkpoint: Mapping[str, Any] | str | os.PathLike[str]) -> LoadReport:
        """Start from the encoders of a pre-training checkpoint, see :func:`~.pstmo_pretrain.transfer`."""
        from .pstmo_pretrain import transfer  # which builds on this module

        return transfer(checkpoint, self)

    def _tokens(self, x: Tensor) -> Tensor:
        x = self.prepare(x)
        check_batch_statistics(self.training, x.shape[0], "clip")
        h = self.encoder(x) + self.pos_embedding
        for layer in self.tem.layers:
            h = self.run(layer, h)
        return h

    def _centre(self, h: Tensor) -> Tensor:
        for level, layer in enumerate(self.mofa.layers, start=1):
            if level <= 3:
                h = h + self.get_parameter(f"pos_embedding_{level}")[:, : h.shape[1]]
            h = self.run(layer, h)
        return self.fcn(h)

    def official(self, key: str) -> str | Source:
        return published_name(self, key)


def _check_strides(strides: Sequence[int], frames: int) -> None:
    left = frames
    for stride in strides:
        check_size("strides", stride)
        left = -(-left // stride)
    if not strides or left != 1:
        raise ArgumentError(
            f"strides is {tuple(strides)}, which brings {frames} frames down to {left}, expected strides that leave 1."
        )


@family(
    "pstmo",
    {
        "refine": {
            "params": 140_322,
            "macs": 139_264,
            "published": {"h36m_mpjpe_mm_cpn": 42.1},
            "note": "The figure is that of P-STMO with 243 frames before it; it needs the true depth of the root.",
            "arguments": {"hidden": 1024},
        }
    },
    flagship="243",
    paper=PAPER,
    kind="refine",
    frames=1,
    channels=("x", "y", "z"),
    joints_in=(17,),
    joints_out=17,
    recipe="",
)
class RefinementHead(Backbone):
    """Mixes x and y of a predicted pose with those that follow from the keypoints at the predicted depth.

    Source: Shan et al., P-STMO, ECCV 2022. It is trained together with the network before it, on the refined poses
    alone.

    Args:
        hidden: width between the two layers.
        drop_rate: dropout between them.
        num_joints: joints J.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(self, *, hidden: int = 1024, drop_rate: float = 0.5, num_joints: int = 17) -> None:
        check_sizes(hidden=hidden, num_joints=num_joints)
        check_rate("drop_rate", drop_rate)
        super().__init__(kind="refine", frames=1, joints=(num_joints,), channels=3, shortest=1)
        self.post_refine = nn.Sequential(
            nn.Linear(6 * num_joints, hidden), nn.ReLU(), nn.Dropout(drop_rate), nn.Linear(hidden, 2 * num_joints)
        )

    def forward(self, x: Tensor, reprojected: Tensor) -> Tensor:
        """Refine poses, each by itself.

        Args:
            x: `[B, T, J, 3]` predicted poses, relative to the root.
            reprojected: `[B, T, J, 3]`, :func:`back_project` of the same poses.

        Returns:
            `[B, T, J, 3]`: x and y between those of both poses, z of `x`.

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        check_clip(x, self._any_weight(), joints=self.joints, channels=(3,), shortest=1)
        check_floating("reprojected", reprojected)
        check_same_shape("reprojected", reprojected, "x", x)
        check_same_device("reprojected", reprojected, "x", x)
        score = torch.sigmoid(self.post_refine(torch.cat((x, reprojected), dim=-1).flatten(2)))
        score = score.unflatten(-1, (x.shape[2], 2)).to(x.dtype)
        return torch.cat((torch.lerp(reprojected[..., :2].to(x.dtype), x[..., :2], score), x[..., 2:]), dim=-1)

    def supervise(  # a second input, hence another signature than the base class's
        self, x: Tensor, target: Tensor, weight: Tensor | None = None, *, reprojected: Tensor
    ) -> list[Supervision]:
        """The refined poses against their targets."""
        return [Supervision(self(x, reprojected), target, weight)]


def back_project(keypoints: Tensor, pose: Tensor, root_depth: Tensor, intrinsics: Tensor, root: int = 0) -> Tensor:
    """The pose whose joints lie on the camera rays of the keypoints, at the depths of a predicted pose.

    z is the root's depth plus the predicted z, x = (u - c_x)·z / f_x and y = (v - c_y)·z / f_y, then the root joint is
    subtracted. Source: Shan et al., P-STMO, ECCV 2022.

    Args:
        keypoints: `[B, T, J, 2]`, (u, v) on the normalised screen.
        pose: `[B, T, J, 3]`, relative to the root; only z is used, and the root's is taken to be 0.
        root_depth: `[B, T]`, z of the root in the camera frame, in the unit of `pose`.
        intrinsics: `[4]` or `[B, 4]`, (f_x, f_y, c_x, c_y) in units of the normalised screen.
        root: index of the root joint.

    Returns:
        `[B, T, J, 3]`, relative to the root, in the unit of `pose`.

    Raises:
        ArgumentError: shapes that don't fit.
    """
    if pose.dim() != 4 or pose.shape[-1] != 3:
        raise ArgumentError(f"pose has shape {list(pose.shape)}, expected [B, T, J, 3].")
    batch, frames, joints, _ = pose.shape
    for argument, found, expected in (
        ("keypoints", keypoints, [[batch, frames, joints, 2]]),
        ("root_depth", root_depth, [[batch, frames]]),
        ("intrinsics", intrinsics, [[4], [batch, 4]]),
    ):
        if list(found.shape) not in expected:
            raise ArgumentError(
                f"{argument} has shape {list(found.shape)}, expected {' or '.join(map(str, expected))} for a pose of "
                f"shape {list(pose.shape)}."
            )
    if not 0 <= root < joints:
        raise ArgumentError(f"root is {root}, expected a joint index from 0 to {joints - 1}.")
    others = torch.arange(joints, device=pose.device) != root
    z = (torch.where(others, pose[..., 2], 0.0) + root_depth[..., None])[..., None]
    focal, centre = intrinsics.view(-1, 1, 1, 4).chunk(2, dim=-1)
    camera = torch.cat(((keypoints - centre) / focal * z, z), dim=-1)
    return camera - camera[:, :, root : root + 1]
