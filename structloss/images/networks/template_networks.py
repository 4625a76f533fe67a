"""The networks of shape templates: from an image to the numbers of the parts' matrices, and from a second image and the
moved template back to the first image.

Source: Schmidtke et al., "Unsupervised Human Pose Estimation through Transforming Shape Templates", CVPR 2021, whose
published checkpoint has an older network, :class:`LegacyRegressor`; Yoo and Russakovsky, "Efficient, Self-Supervised
Human Pose Estimation with Inductive Prior Tuning", ICCV 2023 workshop. State-dict keys are those of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["LegacyRegressor", "Regressor", "Translator"]


def _block(channels_in: int, channels_out: int, *, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    """3 x 3 convolution with padding 1, batch normalisation, leaky ReLU."""
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, dilation=dilation)
    return [convolution, nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.01, inplace=True)]


def _narrow(linear: nn.Linear) -> None:
    """Weights of deviation 0.001 and no bias [ours]: matrices start near the identity, the template in its place.
    PyTorch's usual weights, which the other layers have, start half an image away."""
    nn.init.normal_(linear.weight, std=1e-3)
    nn.init.zeros_(linear.bias)


class Regressor(nn.Module):
    """Image `[B, 3, S, S]` -> `[B, outputs]`.

    A block to `widths[0]` channels, then for each next width a block and one of stride 2; a 1 x 1 convolution **with
    padding 1** to half the channels, which adds a border of biases; two linear layers.

    Args:
        widths: channels at each resolution; it is halved between them.
        hidden: channels between the linear layers.
        outputs: numbers it gives.
        input_size: S, a multiple of 2^(resolutions - 1).
    """

    def __init__(self, widths: Sequence[int], hidden: int, outputs: int, input_size: int) -> None:
        super().__init__()
        rows: list[nn.Module] = [nn.Sequential(*_block(3, widths[0]))]
        for here, below in pairwise(widths):
            rows += [nn.Sequential(*_block(here, here)), nn.Sequential(*_block(here, below, stride=2))]
        half = max(widths[-1] // 2, 1)
        side = (input_size >> (len(widths) - 1)) + 2
        head = nn.Sequential(
            nn.Conv2d(widths[-1], half, 1, padding=1),
            nn.BatchNorm2d(half),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Flatten(),
            nn.Linear(half * side * side, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(0.01, inplace=True),
            last := nn.Linear(hidden, outputs),
        )
        _narrow(last)
        self.layers = nn.Sequential(*rows, head)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class Translator(nn.Module):
    """Another image of the person beside the moved template, `[B, channels, S, S]` -> image `[B, 3, S, S]`.

    Down as the regressor, then up: a block, and one behind bilinear interpolation to twice the size; at last a
    convolution without activation.

    Args:
        channels: of its input.
        widths: channels at each resolution, see :class:`Regressor`.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        rows: list[nn.Module] = [nn.Sequential(*_block(channels, widths[0]))]
        for here, below in pairwise(widths):
            rows += [nn.Sequential(*_block(here, here)), nn.Sequential(*_block(here, below, stride=2))]
        for here, above in pairwise(widths[::-1]):
            twice = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            rows += [nn.Sequential(*_block(here, here)), nn.Sequential(twice, *_block(here, above))]
        self.layers = nn.Sequential(*rows, nn.Conv2d(widths[0], 3, 3, padding=1))

    def forward(self, image_and_template: Tensor) -> Tensor:
        return self.layers(image_and_template)


class LegacyRegressor(nn.Module):
    """The network of Schmidtke's published checkpoint: image and template `[B, 21, 256, 256]` -> `[B, 108]`.

    Thirteen convolutions, two of them dilated by 4 and 8 with padding 1 (256, 250, 125, 111, 56, 28, 14, 7, 4 pixels),
    then two linear layers. A second branch gives a depth per part, which nothing uses: it is computed by
    :meth:`depths` alone. Rows of the output are in an order of its own, `structloss.shape_templates.LEGACY_ORDER`.

    Args:
        parts: 18.
    """

    WIDTHS = (32, 32, 64, 64, 128, 128, 256, 256, 256, 256, 256, 256, 256)

    def __init__(self, parts: int) -> None:
        super().__init__()
        rows: list[nn.Module] = []
        before = 3 + parts
        for place, width in enumerate(self.WIDTHS):
            stride = 2 if place > 0 and place % 2 == 0 else 1
            rows += _block(before, width, stride=stride, dilation={1: 4, 3: 8}.get(place, 1))
            before = width
        self.main = nn.Sequential(*rows)
        self.param_branch = nn.Sequential(
            nn.Flatten(),
            nn.Linear(before * 16, 512),
            nn.BatchNorm1d(512),
            nn.LeakyReLU(0.01, inplace=True),
            last := nn.Linear(512, 6 * parts),
        )
        self.depth_branch = nn.Sequential(*_block(before, 128), *_block(128, 128), nn.Conv2d(128, parts, kernel_size=4))
        _narrow(last)

    def forward(self, x: Tensor) -> Tensor:
        return self.param_branch(self.main(x))

    def depths(self, x: Tensor) -> Tensor:
        """`[B, 21, 256, 256]` -> `[B, 18]`, the branch that nothing uses."""
        return torch.flatten(self.depth_branch(self.main(x)), 1)
