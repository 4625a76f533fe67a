"""Residual units and hourglasses on feature maps.

Source: Newell, Yang, Deng, "Stacked Hourglass Networks for Human Pose Estimation", ECCV 2016, with the biases, the
order of normalisations and the state-dict keys of Zhou, Huang, Sun, Xue, Wei, "Towards 3D Human Pose Estimation in the
Wild: a Weakly-supervised Approach", ICCV 2017, which SAP-Net starts from.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Hourglass", "Residual", "residuals"]


class Residual(nn.Module):
    """x + f(x), f = three times batch normalisation, ReLU, convolution: 1 x 1 to half the channels, 3 x 3, 1 x 1.

    Args:
        channels_in, channels_out: channels; where they differ, x goes through a 1 x 1 convolution of its own.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        inner = channels_out // 2
        self.bn = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels_out, 1)
        self.conv4 = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn(x), inplace=True))
        y = self.conv2(F.relu(self.bn1(y), inplace=True))
        y = self.conv3(F.relu(self.bn2(y), inplace=True))
        return y + (x if self.conv4 is None else self.conv4(x))


def residuals(channels: int, count: int) -> nn.Sequential:
    """`count` residual units in a row."""
    return nn.Sequential(*(Residual(channels, channels) for _ in range(count)))


class Hourglass(nn.Module):
    """Down by pooling and up again by repetition, level within level, with a branch at every resolution.

    Args:
        levels: how often the resolution is halved.
        modules: residual units at each place.
        channels: of all feature maps.
    """

    def __init__(self, levels: int, modules: int, channels: int) -> None:
        super().__init__()
        # published names: the branch that stays; the way down, the levels below, the way up
        self.up1_ = residuals(channels, modules)
        self.low1_ = residuals(channels, modules)
        if levels > 1:
            self.low2 = Hourglass(levels - 1, modules, channels)
        else:
            self.low2_ = residuals(channels, modules)
        self.low3_ = residuals(channels, modules)
        self.innermost = levels == 1

    def forward(self, x: Tensor) -> Tensor:
        below = self.low1_(F.max_pool2d(x, 2))
        below = self.low3_(self.low2_(below) if self.innermost else self.low2(below))
        return self.up1_(x) + F.interpolate(below, scale_factor=2.0, mode="nearest")
