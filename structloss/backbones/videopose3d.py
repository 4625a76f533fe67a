"""VideoPose3D, temporal convolutions over a whole receptive field.

Source: Pavllo, Feichtenhofer, Grangier, Auli, "3D human pose estimation in video with temporal convolutions and
semi-supervised training", CVPR 2019.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from .base import Backbone
from .blocks import TokenBatchNorm, check_batch_statistics, check_rate, check_sizes, has_length
from .official import Source
from .registry import family

__all__ = ["VideoPose3D"]


class _Convolution(nn.Module):
    """Valid convolution over the frames of `[B, T, C]`, without bias, as one matrix product.

    The weight has the published shape `[C_out, C_in, taps]`; in memory the channels come last, so that the matrix
    `[C_out, taps * C_in]` which multiplies windows of channels-last frames is a view of it.
    """

    def __init__(self, c_in: int, c_out: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, taps, c_in).permute(0, 2, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.weight[0].numel())  # PyTorch's default for convolutions
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, h: Tensor, dilation: int | None = None) -> Tensor:
        """`[B, T, C]` to `[B, T - (taps - 1) * dilation, C_out]`; without dilation, the taps are also the stride."""
        batch, frames, channels = h.shape
        taps = self.weight.shape[2]
        if dilation is None:
            windows = h.reshape(batch, frames // taps, taps * channels)
        else:
            length = frames - (taps - 1) * dilation
            windows = torch.cat([h[:, k * dilation : k * dilation + length] for k in range(taps)], dim=-1)
        return F.linear(windows, self.weight.permute(0, 2, 1).flatten(1))


class _Block(nn.Module):
    """A convolution over frames, one of a single frame, and the frames of the input that they predict for."""

    def __init__(self, dim: int, taps: int, dilation: int, causal: bool, drop: float) -> None:
        super().__init__()
        self.taps = taps
        self.dilation = dilation
        self.causal = causal
        self.conv = _Convolution(dim, dim, taps)
        self.conv_norm = TokenBatchNorm(dim)
        self.mix = nn.Linear(dim, dim, bias=False)
        self.mix_norm = TokenBatchNorm(dim)
        self.drop = nn.Dropout(drop)

    def forward(self, h: Tensor, strided: bool) -> Tensor:
        batch, frames, channels = h.shape
        if strided:
            windows = h.view(batch, frames // self.taps, self.taps, channels)
            residual = windows[:, :, self.taps - 1 if self.causal else self.taps // 2]
            z = self.conv(h)
        else:
            reach = (self.taps - 1) * self.dilation
            first = reach if self.causal else reach // 2
            residual = h[:, first : first + frames - reach]
            z = self.conv(h, self.dilation)
        z = self.drop(F.relu(self.conv_norm(z)))
        return residual + self.drop(F.relu(self.mix_norm(self.mix(z))))


def _variant(widths: Sequence[int], params: int, macs: int, **fields: object) -> dict[str, object]:
    return {
        "frames": math.prod(widths),
        "params": params,
        "macs": macs,
        "arguments": {"filter_widths": tuple(widths)},
    } | fields


@family(
    "videopose3d",
    {
        "27": _variant(
            (3, 3, 3),
            8_555_571,
            17_769_472,
            published={
                "h36m_mpjpe_mm_cpn": 48.8,
                "h36m_pa_mpjpe_mm_cpn": 38.0,
                "h36m_mpjpe_mm_gt2d_mmpose": 40.1,
            },
            note="The published CPN figures are for ground-truth boxes.",
        ),
        "81": _variant(
            (3, 3, 3, 3),
            12_753_971,
            57_398_272,
            published={
                "h36m_mpjpe_mm_cpn": 47.7,
                "h36m_pa_mpjpe_mm_cpn": 37.2,
                "h36m_mpjpe_mm_gt2d_mmpose": 39.1,
            },
            note="The published CPN figures are for ground-truth boxes.",
        ),
        "243": _variant(
            (3, 3, 3, 3, 3),
            16_952_371,
            176_284_672,
            published={
                "h36m_mpjpe_mm_cpn": 46.8,
                "h36m_pa_mpjpe_mm_cpn": 36.5,
                "h36m_mpjpe_mm_cpn_gt_boxes": 47.1,
                "h36m_pa_mpjpe_mm_cpn_gt_boxes": 36.8,
                "h36m_mpjpe_mm_mask_rcnn": 51.6,
                "h36m_pa_mpjpe_mm_mask_rcnn": 40.3,
                "h36m_mpjpe_mm_gt2d": 37.2,
                "h36m_pa_mpjpe_mm_gt2d": 27.2,
                "h36m_mpjpe_mm_gt2d_mmpose": 37.6,
            },
            note="The published CPN figures are for Mask R-CNN boxes, or ground-truth boxes where their name says so.",
        ),
        "27-long": _variant(
            (3, 3, 3),
            8_555_571,
            17_769_472,
            recipe="",
            note="The network of videopose3d-27; its golden file has 40 frames, which exercises the dilated form.",
        ),
        "27-causal": _variant(
            (3, 3, 3),
            8_555_571,
            17_769_472,
            recipe="",
            arguments={"filter_widths": (3, 3, 3), "causal": True},
            note="The weights of videopose3d-27 fit; predicts the newest frame; its golden file has 40 frames.",
        ),
        "27-humaneva15": _variant(
            (3, 3, 3),
            8_537_133,
            17_652_736,
            recipe="",
            joints_in=(15,),
            joints_out=15,
            skeleton="",
            published={"humaneva_mpjpe_mm_mask_rcnn": 33.0},
            arguments={"filter_widths": (3, 3, 3), "num_joints": 15},
            note="The 15 joints of HumanEva-I, a skeleton that structloss.skeletons does not have.",
        ),
    },
    flagship="243",
    paper="Pavllo et al., 3D human pose estimation in video with temporal convolutions and semi-supervised training, "
    "CVPR 2019",
    kind="centre",
    file_prefix="",
)
class VideoPose3D(Backbone):
    """Fully convolutional network over time: R frames in, the pose of the middle one out; more frames in, more poses
    out.

    Clips of exactly R frames run in the strided form, which computes only what the one output needs: the same weights
    and, to rounding, the same numbers as the dilated form, for a 5th to a 15th of the work. In training the two differ
    in their batch statistics; published training with one output per clip uses the strided form too.

    Source: Pavllo et al., CVPR 2019.

    Args:
        filter_widths: frames that each level's convolution combines, odd; their product is the receptive field R.
        channels: channels D.
        num_joints: joints J of the input.
        joints_out: joints of the output; None is `num_joints`. 1 makes the trajectory network, which predicts the
            root's position in camera space.
        causal: predict the newest frame of a receptive field, not the middle one. Weights are interchangeable.
        dropout: rate after every activation.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(
        self,
        *,
        filter_widths: Sequence[int] = (3, 3, 3, 3, 3),
        channels: int = 1024,
        num_joints: int = 17,
        joints_out: int | None = None,
        causal: bool = False,
        dropout: float = 0.25,
    ) -> None:
        widths = _check_widths(filter_widths)
        joints_out = num_joints if joints_out is None else joints_out
        check_sizes(channels=channels, num_joints=num_joints, joints_out=joints_out)
        check_rate("dropout", dropout)
        field = math.prod(widths)
        super().__init__(
            kind="centre",
            frames=field,
            joints=(num_joints,),
            shortest=field,
            centre=field - 1 if causal else None,
        )
        self.joints_out = joints_out
        self.expand = _Convolution(2 * num_joints, channels, widths[0])
        self.expand_norm = TokenBatchNorm(channels)
        dilations = [math.prod(widths[:level]) for level in range(1, len(widths))]
        self.blocks = nn.ModuleList(
            _Block(channels, taps, dilation, causal, dropout)
            for taps, dilation in zip(widths[1:], dilations, strict=True)
        )
        self.shrink = nn.Linear(channels, 3 * joints_out)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Lift a clip.

        Args:
            x: `[B, T, J, C]`, T >= R, C = 2 (x, y) or 3 (the confidence is ignored); image coordinates divided by half
                the image width and centred, so about [-1, 1].

        Returns:
            `[B, T - R + 1, joints_out, 3]`, in the unit of the training target: published, metres in camera space,
            root-relative. Frame 0 belongs to input frame `centre`: R // 2, or R - 1 if causal.

        Raises:
            ArgumentError: a wrong shape or device, or a single output in training mode.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        x = self.prepare(x)
        batch, frames = x.shape[:2]
        check_batch_statistics(self.training, batch * (frames - self.frames + 1), "output frame")
        strided = has_length(x, self.frames)
        h = self.expand(x.flatten(2), None if strided else 1)
        h = self.drop(F.relu(self.expand_norm(h)))
        for block in self.blocks:
            h = self.run(block, h, strided)
        return self.shrink(h).unflatten(-1, (self.joints_out, 3))

    def official(self, key: str) -> str | Source:
        key = re.sub(r"^expand\.", "expand_conv.", key).replace("expand_norm.", "expand_bn.")
        if key == "shrink.weight":
            return Source((key,), (3 * self.joints_out, self.shrink.in_features, 1))
        match = re.fullmatch(r"blocks\.(\d+)\.(conv|mix)(_norm)?\.(\w+)", key)
        if match is None:
            return key
        level, part, norm, entry = match.groups()
        index = 2 * int(level) + (part == "mix")
        if norm:
            return f"layers_bn.{index}.{entry}"
        name = f"layers_conv.{index}.{entry}"
        return Source((name,), (*self.shrink.weight.shape[1:] * 2, 1)) if part == "mix" else name


def _check_widths(widths: object) -> tuple[int, ...]:
    found = tuple(widths) if isinstance(widths, Sequence) and not isinstance(widths, str) else ()
    if not found or not all(isinstance(w, int) and not isinstance(w, bool) and w > 0 and w % 2 for w in found):
        raise ArgumentError(f"filter_widths is {widths!r}, expected one or more odd positive integers.")
    return found
