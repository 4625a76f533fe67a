"""The fully connected single-frame baseline, and its versions for the 133 joints of H3WB.

Sources: Martinez, Hossain, Romero, Little, "A simple yet effective baseline for 3d human pose estimation", ICCV 2017;
state-dict keys of its usual PyTorch version, also used with other sizes by Zhao et al., "Semantic Graph Convolutional
Networks for 3D Human Pose Regression", CVPR 2019. Zhu, Samet, Picard, "H3WB: Human3.6M 3D WholeBody Dataset and
Benchmark", ICCV 2023.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError
from .base import Backbone, Supervision
from .blocks import ResidualUnit, check_batch_statistics, check_rate, check_sizes, without_neck
from .registry import family

__all__ = ["SimpleBaseline", "WholeBodyBaseline"]

_Numbers = Tensor | Sequence[Sequence[float]]


@family(
    "simplebaseline",
    {
        "16j": {
            "joints_out": 17,
            "params": 4_291_632,
            "macs": 4_276_224,
            "published": {"params_M": 4.29, "h36m_mpjpe_mm_gt2d": 45.5},
            "arguments": {"neck": True, "depth": 2},
        },
        "semgcn": {
            "joints_out": 16,
            "params": 4_288_557,
            "macs": 4_273_152,
            "published": {
                "params_M": 4.29,
                "h36m_mpjpe_mm_gt2d": 44.4,
                "h36m_mpjpe_mm_sh": 63.48,
                "h36m_pa_mpjpe_mm_gt2d": 35.25,
                "h36m_pa_mpjpe_mm_sh": 48.15,
            },
            "arguments": {"neck": False, "depth": 2},
        },
    },
    flagship="16j",
    paper="Martinez et al., A simple yet effective baseline for 3d human pose estimation, ICCV 2017",
    kind="frame",
    frames=1,
    joints_in=(17, 16),
    file_entry="state_dict",
    file_prefix="",
)
class SimpleBaseline(Backbone):
    """Residual fully connected network on single frames; batch normalisation runs over all B * T frames.

    The network itself works on flat vectors (`forward_flat`): 16 joints in, the 17 of h36m without neck/nose (9), and
    the joints without the hip out. `forward` adapts it to clips.

    Args:
        neck: True (`16j`): 16 joints out, h36m 1..16. False (`semgcn`): 15 joints out, neck/nose missing too.
        linear_size: width of the hidden layers.
        depth: residual stages of two layers each.
        dropout: rate after every hidden layer.
        input_mean, input_std: `[16, 2]`, statistics of the 2D training data by which `forward` standardises its input;
            given together. The published `16j` network expects standardised pixels.
        output_mean, output_std: `[16, 3]` (`[15, 3]` without neck), statistics of the 3D training data (published: mm,
            hip-relative, `mean[dim_use]` and `std[dim_use]` of the file `stat_3d`) by which `forward` brings its output
            back to their unit; given together. Without them the output is in standard deviations for `16j`, and in
            the unit of the training target (metres) for `semgcn`, which uses no statistics.

    The statistics are non-persistent buffers: they follow the model to its device and are not in the state dict, whose
    keys stay the published ones.

    Raises:
        ArgumentError: an impossible size or rate, or statistics of a wrong shape.
    """

    input_mean: Tensor | None
    input_std: Tensor | None
    output_mean: Tensor | None
    output_std: Tensor | None

    def __init__(
        self,
        *,
        neck: bool = True,
        linear_size: int = 1024,
        depth: int = 2,
        dropout: float = 0.5,
        input_mean: _Numbers | None = None,
        input_std: _Numbers | None = None,
        output_mean: _Numbers | None = None,
        output_std: _Numbers | None = None,
    ) -> None:
        super().__init__(kind="frame", frames=1, joints=(17, 16), shortest=1)
        check_sizes(linear_size=linear_size, depth=depth)
        check_rate("dropout", dropout)
        self.neck = neck
        self.joints_predicted = 16 if neck else 15
        self.w1 = nn.Linear(2 * 16, linear_size)
        self.batch_norm1 = nn.BatchNorm1d(linear_size)
        self.linear_stages = nn.ModuleList(ResidualUnit(linear_size, dropout) for _ in range(depth))
        self.w2 = nn.Linear(linear_size, 3 * self.joints_predicted)
        self.drop = nn.Dropout(dropout)
        self._statistics("input", input_mean, input_std, (16, 2))
        self._statistics("output", output_mean, output_std, (self.joints_predicted, 3))
        self.reset_parameters()

    def _statistics(self, side: str, mean: _Numbers | None, std: _Numbers | None, shape: tuple[int, int]) -> None:
        if (mean is None) != (std is None):
            lacking = "mean" if mean is None else "std"
            raise ArgumentError(f"{side}_{lacking} is None, expected {side}_mean and {side}_std together or neither.")
        for kind, given in (("mean", mean), ("std", std)):
            values = None if given is None else torch.as_tensor(given).to(self.w1.weight, copy=True)
            if values is not None and values.shape != shape:
                raise ArgumentError(f"{side}_{kind} has shape {list(values.shape)}, expected {list(shape)}.")
            if values is not None and kind == "std" and not bool((values > 0).all()):
                raise ArgumentError(f"{side}_std has the value {float(values.min()):g}, expected values > 0.")
            self.register_buffer(f"{side}_{kind}", values, persistent=False)

    def reset_parameters(self) -> None:
        """Kaiming-normal weights (fan-in, ReLU gain) as published; biases and batch norms as PyTorch makes them."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                bound = 1 / math.sqrt(module.in_features)
                nn.init.uniform_(module.bias, -bound, bound)
            elif isinstance(module, nn.BatchNorm1d):
                module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Lift every frame of a clip.

        Args:
            x: `[B, T, J, C]`: J = 17 (h36m, neck/nose is ignored) or 16 (h36m without it), C = 2 (x, y) or 3 (the
                confidence is ignored). Coordinates normalised as in training, or raw if `input_mean` was given.

        Returns:
            `[B, T, 17, 3]` for `16j`; `[B, T, 16, 3]`, in the order of the 16 input joints, for `semgcn`. The root
            comes first and is exactly (0, 0, 0). Unit: see the class.

        Raises:
            ArgumentError: a wrong shape or device, or a single frame in training mode.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        out = self._standardised(x)
        if self.output_mean is not None and self.output_std is not None:
            out = out * self.output_std + self.output_mean
        return F.pad(out, (0, 0, 1, 0))

    def _standardised(self, x: Tensor) -> Tensor:
        """What the published network predicts from a clip, `[B, T, 16 or 15, 3]`."""
        x = self.prepare(x)
        batch, frames = x.shape[:2]
        check_batch_statistics(self.training, batch * frames, "frame")
        x = without_neck(x)
        if self.input_mean is not None and self.input_std is not None:
            x = (x - self.input_mean) / self.input_std
        return self.forward_flat(x.reshape(batch * frames, 32)).view(batch, frames, self.joints_predicted, 3)

    def forward_flat(self, x: Tensor) -> Tensor:
        """The published network: `[N, 32]` to `[N, 48]` (`[N, 45]` without neck), joint-major, without statistics."""
        y = self.drop(torch.relu(self.batch_norm1(self.w1(x))))
        for stage in self.linear_stages:
            y = self.run(stage, y)
        return self.w2(y)

    def match(self, clip: Tensor) -> Tensor:
        """The joints that the network predicts: all 17, or the 16 without neck/nose, of 17 or 16."""
        return clip if self.neck else without_neck(clip)

    def supervise(self, x: Tensor, target: Tensor, weight: Tensor | None = None) -> list[Supervision]:
        """As every backbone; with statistics of the output, prediction and target are standardised, as published."""
        if self.output_mean is None or self.output_std is None:
            return super().supervise(x, target, weight)
        target = (self.match(target)[:, :, 1:] - self.output_mean) / self.output_std
        prediction, target = (F.pad(joints, (0, 0, 1, 0)) for joints in (self._standardised(x), target))
        return [Supervision(prediction, target, None if weight is None else self.match(weight))]

    def set_statistics(
        self, *, input_mean: _Numbers, input_std: _Numbers, target_mean: _Numbers, target_std: _Numbers
    ) -> None:
        """Standardise by the statistics of clips: `[J, 2]` of the input and `[J, 3]` of the target, J = 17 or 16 as in
        `forward`, the root among them.

        Raises:
            ArgumentError: a wrong shape, or a deviation of 0.
        """
        sides = (("input", input_mean, input_std, 0), ("output", target_mean, target_std, 1))
        for side, mean, std, first in sides:
            shape = (self.joints_predicted, 3) if first else (16, 2)
            mean, std = (self._of_joints(values, drop_neck=not first or not self.neck) for values in (mean, std))
            self._statistics(side, mean[first:], std[first:], shape)

    def _of_joints(self, values: _Numbers, drop_neck: bool) -> Tensor:
        values = torch.as_tensor(values)
        return without_neck(values[None, None])[0, 0] if drop_neck and len(values) == 17 else values


class _LeakyUnit(nn.Module):
    """leaky(x + leaky(l2(leaky(l1(x))))): unlike `ResidualUnit` without normalisation, and the sum is activated."""

    def __init__(self, width: int, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = slope
        self.l1 = nn.Linear(width, width)
        self.l2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.l2(F.leaky_relu(self.l1(x), self.slope)), self.slope)
        return F.leaky_relu(x + y, self.slope)


@family(
    "simplebaseline",
    {
        "h3wb": {
            "params": 4_888_975,
            "macs": 4_875_264,
            "published": {
                "h3wb_mpjpe_mm_whole_body": 125.4,
                "h3wb_mpjpe_mm_body": 125.7,
                "h3wb_mpjpe_mm_face": 115.9,
                "h3wb_mpjpe_mm_face_nose_aligned": 24.6,
                "h3wb_mpjpe_mm_hands": 140.7,
                "h3wb_mpjpe_mm_hands_wrist_aligned": 42.5,
            },
            "arguments": {"large": False, "depth": 2},
            "note": "The published evaluation left dropout on, so its figures are of a random network.",
        },
        "h3wb-large": {
            "params": 6_979_983,
            "macs": 6_972_416,
            "published": {
                "h3wb_mpjpe_mm_whole_body": 112.3,
                "h3wb_mpjpe_mm_body": 112.6,
                "h3wb_mpjpe_mm_face": 110.6,
                "h3wb_mpjpe_mm_face_nose_aligned": 14.6,
                "h3wb_mpjpe_mm_hands": 114.8,
                "h3wb_mpjpe_mm_hands_wrist_aligned": 31.7,
            },
            "arguments": {"large": True, "depth": 3},
        },
    },
    flagship="16j",
    paper="Zhu et al., H3WB: Human3.6M 3D WholeBody Dataset and Benchmark, ICCV 2023",
    kind="frame",
    frames=1,
    joints_in=(133,),
    joints_out=133,
    skeleton="h3wb",
    file_entry="",
    file_prefix="",
)
class WholeBodyBaseline(Backbone):
    """The fully connected networks of the H3WB benchmark, on single frames: the simple baseline's residual stages
    between two bare linear layers, or more stages of another make, without batch normalisation and dropout.

    The published code of the smaller network never switches its dropout off; here `eval()` does.

    Source: Zhu et al., ICCV 2023.

    Args:
        large: stages without normalisation and dropout, their sum activated by a leaky ReLU.
        num_joints: joints J.
        linear_size: width of the hidden layers.
        depth: residual stages of two layers each.
        dropout: rate after every layer of a stage, where stages have dropout.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(
        self,
        *,
        large: bool = False,
        num_joints: int = 133,
        linear_size: int = 1024,
        depth: int = 2,
        dropout: float = 0.5,
    ) -> None:
        check_sizes(num_joints=num_joints, linear_size=linear_size, depth=depth)
        check_rate("dropout", dropout)
        super().__init__(kind="frame", frames=1, joints=(num_joints,), shortest=1)
        self.large = large
        self.upscale = nn.Linear(2 * num_joints, linear_size)
        self.stages = nn.ModuleList(
            _LeakyUnit(linear_size) if large else ResidualUnit(linear_size, dropout) for _ in range(depth)
        )
        self.head = nn.Linear(linear_size, 3 * num_joints)

    def forward(self, x: Tensor) -> Tensor:
        """Lift every frame of a clip.

        Args:
            x: `[B, T, J, C]`, C = 2 (x, y) or 3 (the confidence is ignored), normalised as in training.

        Returns:
            `[B, T, J, 3]`, in the unit of the training target.

        Raises:
            ArgumentError: a wrong shape or device, or, where there is batch normalisation, a single frame in training
                mode.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        x = self.prepare(x)
        batch, frames, joints, _ = x.shape
        check_batch_statistics(self.training and not self.large, batch * frames, "frame")
        y = self.upscale(x.reshape(batch * frames, 2 * joints))
        for stage in self.stages:
            y = self.run(stage, y)
        return self.head(y).view(batch, frames, joints, 3)

    def official(self, key: str) -> str:
        if self.large:
            key = re.sub(r"^stages\.(\d+)", lambda m: f"res_{int(m[1]) + 1}", key)
            return key.replace("head.", "pose3d.")
        part = re.fullmatch(r"stages\.(\d+)\.(w|batch_norm)([12])\.(\w+)", key)
        if part is None:
            return key.replace("head.", "outputlayer.")
        stage, kind, layer, entry = part.groups()
        return f"{'fc' if kind == 'w' else 'bn'}{2 * int(stage) + int(layer)}.{entry}"
