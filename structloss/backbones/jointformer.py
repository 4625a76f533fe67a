"""Jointformer: attention over the joints of one frame, poses and their errors after every level, and a second stage.

Source: Lutz, Blythman, Ghosal, Moynihan, Simms, Smolic, "Jointformer: Single-Frame Lifting Transformer with Error
Prediction and Refinement for 3D Human Pose Estimation", ICPR 2022; the sizes for 133 joints are those of the H3WB
benchmark (Zhu, Samet, Picard, ICCV 2023).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from .base import Backbone, Supervision
from .blocks import MLP, Attention, check_clip, check_rates, check_ratio, check_sizes
from .official import Source
from .registry import family

__all__ = ["Jointformer", "JointformerCascade", "JointformerRefinement"]


class _EncoderLayer(nn.Module):
    """Post-norm: LN(x + attention(x)), then LN(a + mlp(a)), over the joints of `[..., J, D]`."""

    def __init__(self, dim: int, heads: int, head_dim: int, hidden: int, attn_drop: float, drop: float) -> None:
        super().__init__()
        inner = heads * head_dim
        self.attn = Attention(
            dim, heads, inner=inner, qkv_bias=False, proj_bias=False, attn_drop=attn_drop, proj_drop=drop
        )
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, hidden, activation="relu")
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm1(x + self.attn(x))
        return self.norm2(a + self.drop(self.mlp(a)))


class _Head(nn.Module):
    """Three numbers per joint from all joints at once: `[..., J, D]` to `[..., J, 3]`."""

    def __init__(self, joints: int, dim: int, drop: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(joints * dim)
        self.linear = nn.Linear(joints * dim, 3 * joints)
        self.drop = nn.Dropout(drop)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(self.drop(self.norm(h.flatten(-2)))).unflatten(-1, (h.shape[-2], 3))


class _Level(nn.Module):
    """A layer, whose output is added to its input."""

    def __init__(self, layer: _EncoderLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, r: Tensor) -> Tensor:
        return F.relu(self.layer(r) + r)


class _PredictingLevel(nn.Module):
    """A layer, the pose that its output predicts, and what that pose adds to the next level's input."""

    def __init__(self, layer: _EncoderLayer, joints: int, dim: int, drop: float) -> None:
        super().__init__()
        self.layer = layer
        self.pose = _Head(joints, dim, drop)
        self.feedback = nn.Linear(3 * joints, joints * dim)

    def forward(self, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next level's input, the layer's output and the pose."""
        h = self.layer(r)
        pose = self.pose(h)
        return F.relu(h + self.feedback(pose.flatten(-2)).view(h.shape) + r), h, pose


class _JointEncoder(Backbone):
    """What both stages share: embedding, levels, poses; their docstrings tell of the arguments."""

    def __init__(
        self,
        kind: str,
        channels: int,
        intermediate: bool,
        *,
        dim_feat: int,
        depth: int,
        mlp_ratio: float,
        pred_drop_rate: float,
        num_joints: int = 17,
        num_heads: int = 8,
        head_dim: int = 64,
        attn_drop_rate: float = 0.1,
        drop_rate: float = 0.0,
    ) -> None:
        check_sizes(num_joints=num_joints, dim_feat=dim_feat, depth=depth, num_heads=num_heads, head_dim=head_dim)
        check_rates(pred_drop_rate=pred_drop_rate, attn_drop_rate=attn_drop_rate, drop_rate=drop_rate)
        hidden = check_ratio("mlp_ratio", mlp_ratio, dim_feat, "dim_feat")
        super().__init__(kind=kind, frames=1, joints=(num_joints,), channels=channels, shortest=1)

        def level() -> nn.Module:
            layer = _EncoderLayer(dim_feat, num_heads, head_dim, hidden, attn_drop_rate, drop_rate)
            return _PredictingLevel(layer, num_joints, dim_feat, pred_drop_rate) if intermediate else _Level(layer)

        self.embed = nn.Linear(channels, dim_feat)
        self.norm = nn.LayerNorm(dim_feat, eps=1e-6)
        self.levels = nn.ModuleList(level() for _ in range(depth))
        if intermediate:  # the last pose is fed back to no level: published, and never used
            cast(_PredictingLevel, self.levels[-1]).feedback.requires_grad_(False)
        self.decoder = None if intermediate else _Head(num_joints, dim_feat, pred_drop_rate)

    def reset_parameters(self) -> None:
        """Xavier-uniform matrices, each projection of attention by itself; the rest as PyTorch makes it."""
        for name, p in self.named_parameters():
            if p.dim() > 1:
                for part in p.detach().chunk(3) if ".qkv." in name else (p,):
                    nn.init.xavier_uniform_(part)

    def _levels(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Every level's pose `[B, T, J, 3]`, and what it is predicted from, `[B, T, J, D]`."""
        h = self.norm(self.embed(x))
        if self.decoder is not None:
            for level in self.levels:
                h = self.run(level, h)
            return [self.decoder(h)], [h]
        poses, features = [], []
        *levels, last = cast(list[_PredictingLevel], list(self.levels))
        for level in levels:
            h, feature, pose = self.run(level, h)
            poses.append(pose)
            features.append(feature)
        feature = self.run(last.layer, h)  # nothing needs the last level's feedback
        return [*poses, last.pose(feature)], [*features, feature]

    def official(self, key: str) -> str | Source:
        if key == "embed.weight":
            return Source(("embedding.weight",), (*self.embed.weight.shape, 1))
        key = re.sub(r"^embed\.", "embedding.", re.sub(r"^norm\.", "layer_norm.", key))
        key = re.sub(r"^levels\.(\d+)\.pose\.", r"intermediate_pred.\1.", key)
        key = re.sub(r"^levels\.(\d+)\.feedback\.", r"intermediate_enc.\1.", key)
        key = re.sub(r"^errors\.(\d+)\.", r"intermediate_error.\1.", key)
        if key.startswith(("intermediate_pred", "intermediate_error", "decoder")):
            return key.replace(".norm.", ".0.").replace(".linear.", ".2.")
        layer = re.fullmatch(r"levels\.(\d+)\.layer\.(.*)", key)
        if layer is None:
            return key
        name = f"layer_stack.{layer[1]}"
        if layer[2] == "attn.qkv.weight":
            return Source(tuple(f"{name}.slf_attn.w_{part}s.weight" for part in "qkv"))
        part, entry = layer[2].rsplit(".", 1)
        parts = {"attn.proj": "slf_attn.fc", "norm1": "slf_attn.layer_norm"}
        parts |= {"mlp.fc1": "pos_ffn.w_1", "mlp.fc2": "pos_ffn.w_2", "norm2": "pos_ffn.layer_norm"}
        return f"{name}.{parts[part]}.{entry}"


_PAPER = (
    "Lutz et al., Jointformer: Single-Frame Lifting Transformer with Error Prediction and Refinement for 3D Human Pose "
    "Estimation, ICPR 2022"
)
_H3WB = {
    "paper": f"{_PAPER}; 133 joints: Zhu et al., H3WB, ICCV 2023",
    "joints_in": (133,),
    "joints_out": 133,
    "skeleton": "h3wb",
    "file_entry": "",
}


@family(
    "jointformer",
    {
        "h36m": {
            "params": 1_478_104,
            "macs": 14_943_680,
            "arguments": {"num_joints": 17, "dim_feat": 64, "depth": 4, "mlp_ratio": 8},
        },
        "h3wb": _H3WB
        | {
            "params": 83_432_696,
            "macs": 329_227_136,
            "arguments": {"num_joints": 133, "dim_feat": 128, "depth": 4, "mlp_ratio": 4},
        },
    },
    flagship="h36m",
    paper=_PAPER,
    kind="frame",
    frames=1,
    file_entry="state_dict",
    file_prefix="",
)
class Jointformer(_JointEncoder):
    """The pose network: single frames, tokens are joints. Every level predicts the pose and the absolute error of that
    prediction; the pose is fed back, the error is for training and for the second stage.

    Source: Lutz et al., ICPR 2022.

    Args:
        num_joints: joints J.
        dim_feat: channels D.
        depth: levels.
        num_heads, head_dim: attention heads and the channels of each, whatever D is.
        mlp_ratio: hidden width of the MLPs over D.
        pred_drop_rate: dropout before the predictions.
        attn_drop_rate: dropout on the attention weights.
        drop_rate: dropout after attention and MLP; 0 in all published models.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(
        self,
        *,
        dim_feat: int = 64,
        depth: int = 4,
        mlp_ratio: float = 8,
        pred_drop_rate: float = 0.2,
        **others: Any,
    ) -> None:
        others |= {"dim_feat": dim_feat, "depth": depth, "mlp_ratio": mlp_ratio, "pred_drop_rate": pred_drop_rate}
        super().__init__("frame", 2, True, **others)
        (joints,) = self.joints
        self.errors = nn.ModuleList(_Head(joints, dim_feat, pred_drop_rate) for _ in range(depth))
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Lift every frame of a clip.

        Args:
            x: `[B, T, J, C]`, C = 2 (x, y) or 3 (the confidence is ignored); image coordinates divided by half the
                image width and centred, so about [-1, 1].

        Returns:
            `[B, T, J, 3]`, the last level's pose, in the unit of the training target: published, metres in camera
            space, root-relative. The root is predicted like any other joint.

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        return self._levels(self.prepare(x))[0][-1]

    def predictions(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Every level's pose and predicted error of it, both `[B, T, J, 3]`; takes and raises what `forward` does."""
        poses, features = self._levels(self.prepare(x))
        return [(pose, error(h)) for pose, error, h in zip(poses, self.errors, features, strict=True)]

    def refinable(self, x: Tensor) -> Tensor:
        """The input of the second stage, `[B, T, J, 8]`: x, y, the last level's pose and error."""
        x = self.prepare(x)
        poses, features = self._levels(x)
        pose, error = poses[-1], self.errors[-1](features[-1])
        return torch.cat((x.to(pose.dtype), pose, error), dim=-1)

    def supervise(self, x: Tensor, target: Tensor, weight: Tensor | None = None) -> list[Supervision]:
        """Every level's pose against the target, and its predicted error against the error that it has: the mean over
        levels of half their sum. The errors are not told which way the pose should go."""
        levels = self.predictions(x)
        share = 0.5 / len(levels)
        pairs = []
        for pose, error in levels:
            pairs.append(Supervision(pose, target, weight, share))
            pairs.append(Supervision(error, (pose.detach() - target).abs(), weight, share, pose=False))
        return pairs


@family(
    "jointformer",
    {
        "h36m-refine": {
            "params": 2_335_283,
            "macs": 36_500_224,
            "arguments": {
                "num_joints": 17,
                "dim_feat": 256,
                "depth": 2,
                "mlp_ratio": 4,
                "intermediate": False,
                "pred_drop_rate": 0.1,
            },
        },
        "h3wb-refine": _H3WB
        | {
            "params": 56_125_372,
            "macs": 329_329_280,
            "published": {
                "h3wb_mpjpe_mm_whole_body": 88.3,
                "h3wb_mpjpe_mm_body": 84.9,
                "h3wb_mpjpe_mm_face": 66.5,
                "h3wb_mpjpe_mm_face_nose_aligned": 17.8,
                "h3wb_mpjpe_mm_hands": 125.3,
                "h3wb_mpjpe_mm_hands_wrist_aligned": 43.7,
            },
            "arguments": {
                "num_joints": 133,
                "dim_feat": 128,
                "depth": 4,
                "mlp_ratio": 4,
                "intermediate": True,
                "pred_drop_rate": 0.2,
            },
            "note": "The published figures are of both stages together.",
        },
    },
    flagship="h36m",
    paper=_PAPER,
    kind="refine",
    channels=("x", "y", *(f"{what}_{axis}" for what in ("pose", "error") for axis in "xyz")),
    frames=1,
    file_entry="state_dict",
    file_prefix="",
)
class JointformerRefinement(_JointEncoder):
    """The second stage: the same encoder on the 2D joints and the pose and error that the first stage predicts.

    Source: Lutz et al., ICPR 2022.

    Args:
        intermediate: predict a pose after every level and feed it back, as the network for H3WB does; otherwise one
            pose after the last.
        dim_feat, depth, mlp_ratio, pred_drop_rate, **others: those of :class:`Jointformer`.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(
        self,
        *,
        dim_feat: int = 256,
        depth: int = 2,
        intermediate: bool = False,
        mlp_ratio: float = 4,
        pred_drop_rate: float = 0.1,
        **others: Any,
    ) -> None:
        others |= {"dim_feat": dim_feat, "depth": depth, "mlp_ratio": mlp_ratio, "pred_drop_rate": pred_drop_rate}
        super().__init__("refine", 8, intermediate, **others)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Refine every frame of a clip.

        Args:
            x: `[B, T, J, 8]`: x, y as for the pose network, its pose as predicted, not root-centred, and its error as
                predicted, maybe negative.

        Returns:
            `[B, T, J, 3]`, the last level's pose.

        Raises:
            ArgumentError: a wrong shape or device.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        return self.predictions(x)[-1]

    def after(self, pose: Backbone) -> JointformerCascade:
        """Both stages as one network, with `pose`, a trained :class:`Jointformer`, first and frozen."""
        return JointformerCascade(pose, self)

    def predictions(self, x: Tensor) -> list[Tensor]:
        """Every level's pose, one without `intermediate`; takes and raises what `forward` does."""
        check_clip(x, self._any_weight(), joints=self.joints, channels=(8,))
        return self._levels(x)[0]


class JointformerCascade(Backbone):
    """Both stages as one network. Training trains the second one: the first is frozen.

    Published training keeps the dropouts of the frozen stage active, so the second learns from poses that vary; that is
    the default here too.

    Source: Lutz et al., ICPR 2022.

    Args:
        pose: the trained first stage, a :class:`Jointformer`; its parameters are frozen.
        refinement: the second stage, a :class:`JointformerRefinement` for the same joints.
        pose_dropout: keep the first stage's dropouts active in training.

    Raises:
        ArgumentError: stages of another kind, or for other joints.
    """

    def __init__(self, pose: Backbone, refinement: Backbone, *, pose_dropout: bool = True) -> None:
        if not isinstance(pose, Jointformer):
            raise ArgumentError(f"pose is a {type(pose).__name__}, expected a Jointformer.")
        if not isinstance(refinement, JointformerRefinement):
            raise ArgumentError(f"refinement is a {type(refinement).__name__}, expected a JointformerRefinement.")
        if pose.joints != refinement.joints:
            raise ArgumentError(
                f"refinement takes {refinement.joints[0]} joints, expected {pose.joints[0]}, those of pose."
            )
        super().__init__(kind="frame", frames=1, joints=pose.joints, channels=2, shortest=1)
        self.pose = pose.requires_grad_(False)
        self.refinement = refinement
        self.pose_dropout = pose_dropout
        self.train(refinement.training)

    def train(self, mode: bool = True) -> JointformerCascade:
        super().train(mode)
        self.pose.train(mode and self.pose_dropout)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Lift every frame of a clip: `[B, T, J, C]` to `[B, T, J, 3]`, as :class:`Jointformer` does."""
        return self.refinement(self.pose.refinable(x))

    def official(self, key: str) -> str | Source:
        """The published names of each stage, under `pose.` and `refinement.`."""
        stage, rest = key.split(".", 1)
        name = getattr(self, stage).official(rest)
        if isinstance(name, Source):
            return replace(name, keys=tuple(f"{stage}.{published}" for published in name.keys))
        return f"{stage}.{name}"
