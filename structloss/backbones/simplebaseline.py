"""The fully connected single-frame baseline.

Source: Martinez, Hossain, Romero, Little, "A simple yet effective baseline for 3d human pose estimation", ICCV 2017;
state-dict keys of its usual PyTorch version, also used with other sizes by Zhao et al., "Semantic Graph Convolutional
Networks for 3D Human Pose Regression", CVPR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from .base import Backbone
from .blocks import check_rate, check_size
from .registry import family

__all__ = ["SimpleBaseline"]

_NECK_NOSE = 9  # the joint of h36m that the networks never see
_Numbers = Tensor | Sequence[Sequence[float]]


class _Stage(nn.Module):
    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, width)
        self.batch_norm1 = nn.BatchNorm1d(width)
        self.w2 = nn.Linear(width, width)
        self.batch_norm2 = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(drop)

    def forward(self, y: Tensor) -> Tensor:
        z = self.drop(torch.relu(self.batch_norm1(self.w1(y))))
        z = self.drop(torch.relu(self.batch_norm2(self.w2(z))))
        return y + z


@family(
    "simplebaseline",
    {
        "16j": {
            "joints_out": 17,
            "params": 4_291_632,
            "macs": 4_276_224,
            "published": {"params_M": 4.29, "h36m_mpjpe_mm_gt2d": 45.5},
            "arguments": {"neck": True},
        },
        "semgcn": {
            "recipe": "",
            "joints_out": 16,
            "params": 4_288_557,
            "macs": 4_273_152,
            "published": {
                "params_M": 4.29,
                "h36m_mpjpe_mm_gt2d": 44.4,
                "h36m_mpjpe_mm": 63.48,
                "h36m_pa_mpjpe_mm_gt2d": 35.25,
                "h36m_pa_mpjpe_mm": 48.15,
            },
            "arguments": {"neck": False},
        },
    },
    flagship="16j",
    paper="Martinez et al., A simple yet effective baseline for 3d human pose estimation, ICCV 2017",
    kind="frame",
    frames=1,
    channels=("x", "y"),
    joints_in=(17, 16),
)
class SimpleBaseline(Backbone):
    """Residual fully connected network on single frames; batch normalisation runs over all B * T frames.

    The network itself works on flat vectors (`forward_flat`): 16 joints in, the 17 of h36m without neck/nose (9), and
    the joints without the hip out. `forward` adapts it to clips.

    Args:
        neck: True (`16j`): 16 joints out, h36m 1..16. False (`semgcn`): 15 joints out, neck/nose missing too.
        linear_size: width of the hidden layers.
        num_stage: residual stages of two layers each.
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

    def __init__(
        self,
        *,
        neck: bool = True,
        linear_size: int = 1024,
        num_stage: int = 2,
        dropout: float = 0.5,
        input_mean: _Numbers | None = None,
        input_std: _Numbers | None = None,
        output_mean: _Numbers | None = None,
        output_std: _Numbers | None = None,
    ) -> None:
        super().__init__(kind="frame", frames=1, joints=(17, 16), shortest=1)
        check_size("linear_size", linear_size)
        check_size("num_stage", num_stage)
        check_rate("dropout", dropout)
        self.neck = neck
        self.joints_predicted = 16 if neck else 15
        self.w1 = nn.Linear(2 * 16, linear_size)
        self.batch_norm1 = nn.BatchNorm1d(linear_size)
        self.linear_stages = nn.ModuleList(_Stage(linear_size, dropout) for _ in range(num_stage))
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
            values = None if given is None else torch.as_tensor(given, dtype=self.w1.weight.dtype).clone()
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
        x = self.prepare(x)
        batch, frames, joints, _ = x.shape
        if self.training and batch * frames == 1:
            raise ArgumentError(
                "x has 1 frame in all, expected 2 or more in training, which batch normalisation needs."
            )
        if joints == 17:
            x = torch.cat((x[:, :, :_NECK_NOSE], x[:, :, _NECK_NOSE + 1 :]), dim=2)
        if self.input_mean is not None:
            x = (x - self.input_mean) / self.input_std
        out = self.forward_flat(x.reshape(batch * frames, 32)).view(batch, frames, self.joints_predicted, 3)
        if self.output_mean is not None:
            out = out * self.output_std + self.output_mean
        return nn.functional.pad(out, (0, 0, 1, 0))

    def forward_flat(self, x: Tensor) -> Tensor:
        """The published network: `[N, 32]` to `[N, 48]` (`[N, 45]` without neck), joint-major, without statistics."""
        y = self.drop(torch.relu(self.batch_norm1(self.w1(x))))
        for stage in self.linear_stages:
            y = stage(y)
        return self.w2(y)
