"""SAP-Net: stacked hourglasses with a module for depth, one image at a time.

Sources: Dabral, Mundhada, Kusupati, Afaque, Sharma, Jain, "Learning 3D Human Pose from Structure and Motion", ECCV
2018, whose network is that of Zhou, Huang, Sun, Xue, Wei, "Towards 3D Human Pose Estimation in the Wild: a
Weakly-supervised Approach", ICCV 2017 (pytorch-pose-hg-3d): sizes and state-dict keys are from there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...backbones.blocks import check_size, check_sizes
from ...errors import ArgumentError
from ..registry import family
from .base import ImageNetwork
from .hourglass import Hourglass, Residual, residuals

__all__ = ["SAPNet", "SAPOutput"]


class SAPOutput(NamedTuple):
    """What :class:`SAPNet` predicts.

    Attributes:
        heatmaps: `[stacks, B, joints, S / 4, S / 4]`, of every stack, the last one's last.
        depth: `[B, joints]`, depth relative to the pelvis in the unit of x and y mapped to [-1, 1].
    """

    heatmaps: Tensor
    depth: Tensor


@family(
    "sapnet",
    {
        "": {
            "input_size": 256,
            "params": 14_429_104,
            "macs": 16_164_913_152,
            "published": {
                "h36m_mpjpe_mm": 55.5,
                "h36m_pa_mpjpe_mm": 42.2,
                "mpi_inf_3dhp_pck": 76.7,
                "mpi_inf_3dhp_auc": 39.1,
                "mpi_inf_3dhp_mpjpe_mm": 103.8,
            },
            "note": "Published checkpoints of the network were trained on BGR images, as OpenCV reads them.",
            "arguments": {"stacks": 2, "modules": 2, "features": 256, "depth_modules": 2, "input_size": 256},
        },
        "tiny": {
            "paper": "",
            "input_size": 96,
            "params": 397_200,
            "macs": 91_487_232,
            "arguments": {
                "stacks": 2,
                "modules": 1,
                "features": 64,
                "depth_modules": 1,
                "input_size": 96,
                "levels": 3,
            },
        },
    },
    flagship="",
    paper="Dabral et al., Learning 3D Human Pose from Structure and Motion, ECCV 2018",
    joints=16,
    skeleton="mpii",
)
class SAPNet(ImageNetwork):
    """Heatmaps by stacked hourglasses, and the joints' depths from the features behind the last one.

    Input is RGB / 256 without subtraction of a mean [Zhou et al.]; images in 0..1 are as good.

    On a CPU, `model.to(memory_format=torch.channels_last)` is faster: `sapnet` by a fifth (one image, one thread), a
    training step of `sapnet-tiny` (16 images, two threads) by a fifth, too.

    Source: Dabral et al., ECCV 2018, Fig. 1; Zhou et al., ICCV 2017. Sizes other than the published ones are ours: the
    stem's widths are a quarter, half and all of `features`, and the depth module halves the resolution as often as an
    hourglass does.

    Args:
        stacks: hourglasses in a row.
        modules: residual units at each place of an hourglass, and behind it.
        features: channels of the feature maps, a multiple of 4.
        joints: joints, 16 in the order of MPII.
        depth_modules: residual units in each level of the depth module.
        input_size: height and width S of the images, a multiple of 4 * 2^levels.
        levels: how often an hourglass halves the resolution of its input, S / 4.

    Attributes:
        input_size, joints: as given.
        heatmap_size: S / 4.
        gradient_checkpointing: recompute hourglasses and residual units in the backward pass.

    Raises:
        ArgumentError: an impossible size.
    """

    def __init__(
        self,
        *,
        stacks: int = 2,
        modules: int = 2,
        features: int = 256,
        joints: int = 16,
        depth_modules: int = 2,
        input_size: int = 256,
        levels: int = 4,
    ) -> None:
        check_sizes(stacks=stacks, modules=modules, depth_modules=depth_modules, levels=levels)
        check_size("features", features, multiple_of=4)
        if levels > 8:
            raise ArgumentError(f"levels is {levels}, expected 1 to 8.")
        check_size("input_size", input_size, multiple_of=4 * 2**levels)
        super().__init__(input_size=input_size, joints=joints)
        self.heatmap_size = input_size // 4
        self.stacks, self.modules_per_place, self.depth_modules, self.levels = stacks, modules, depth_modules, levels
        quarter, half = features // 4, features // 2
        # The names of modules are the published ones.
        self.conv1_ = nn.Conv2d(3, quarter, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(quarter)
        self.r1 = Residual(quarter, half)
        self.r4 = Residual(half, half)
        self.r5 = Residual(half, features)
        self.hourglass = nn.ModuleList(Hourglass(levels, modules, features) for _ in range(stacks))
        self.Residual = residuals(features, stacks * modules)  # those behind all hourglasses
        self.lin_ = nn.ModuleList(
            nn.Sequential(nn.Conv2d(features, features, 1), nn.BatchNorm2d(features), nn.ReLU(inplace=True))
            for _ in range(stacks)
        )
        self.tmpOut = nn.ModuleList(nn.Conv2d(features, joints, 1) for _ in range(stacks))  # the heatmaps
        self.ll_ = nn.ModuleList(nn.Conv2d(features, features, 1) for _ in range(stacks))
        self.tmpOut_ = nn.ModuleList(nn.Conv2d(joints, features, 1) for _ in range(stacks))  # heatmaps back to features
        self.reg_ = residuals(features, levels * depth_modules)
        self.reg = nn.Linear(features * (self.heatmap_size >> levels) ** 2, joints)
        self.reset_heads()

    def reset_heads(self) -> None:
        """Heatmaps and depths that start near 0, which nearly all of a heatmap is to be: normal weights of deviation
        0.001, no bias [ours]. PyTorch's usual weights, which the other layers have, take long to be unlearnt here."""
        for head in (*self.tmpOut, self.reg):
            nn.init.normal_(head.weight, std=1e-3)
            nn.init.zeros_(head.bias)

    def forward(self, image: Tensor) -> SAPOutput:
        """Predict heatmaps and depths.

        Args:
            image: `[B, 3, S, S]`, RGB, 0..1. B may be 0.

        Returns:
            :class:`SAPOutput`: heatmaps `[stacks, B, joints, S / 4, S / 4]` and depth `[B, joints]`.

        Raises:
            ArgumentError: a wrong shape or device, or, in training, an image alone whose smallest feature map is a
                single value.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        heatmaps, x = self._stacks(image)
        for level in range(self.levels):
            for unit in self._run_of(self.reg_, level, self.depth_modules):
                x = self.run(unit, x)
            x = F.max_pool2d(x, 2)
        return SAPOutput(torch.stack(heatmaps), self.reg(x.flatten(1)))

    def heatmaps(self, image: Tensor) -> Tensor:
        """The heatmaps alone, `[stacks, B, joints, S / 4, S / 4]`: `forward` without the depth module, for a training
        of the hourglasses. Raises what `forward` raises."""
        return torch.stack(self._stacks(image)[0])

    def depth_parameters(self) -> list[nn.Parameter]:
        """The parameters that only depths depend on: the depth module, and the two convolutions that add the last
        stack's output back to the features that it takes."""
        modules = (self.reg_, self.reg, self.ll_[-1], self.tmpOut_[-1])
        return [parameter for module in modules for parameter in module.parameters()]

    def _stacks(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """Heatmaps of every stack, and the features behind the last."""
        image = self.prepare(image)
        smallest = self.heatmap_size >> self.levels
        if self.training and smallest == 1 and image.shape[0] == 1:
            raise ArgumentError(
                "image has 1 image, expected 2 or more in training, which batch normalisation needs where the smallest "
                "feature map is a single value."
            )
        x = F.relu(self.bn1(self.conv1_(image)), inplace=True)
        x = F.max_pool2d(self.run(self.r1, x), 2)
        x = self.run(self.r5, self.run(self.r4, x))
        heatmaps = []
        for stack in range(self.stacks):
            y = self.run(self.hourglass[stack], x)
            for unit in self._run_of(self.Residual, stack, self.modules_per_place):
                y = self.run(unit, y)
            y = self.lin_[stack](y)
            heatmap = self.tmpOut[stack](y)
            heatmaps.append(heatmap)
            x = x + self.ll_[stack](y) + self.tmpOut_[stack](heatmap)
        return heatmaps, x

    @staticmethod
    def _run_of(units: nn.Sequential, index: int, length: int) -> list[nn.Module]:
        """The units of one place in the published row of all."""
        return [units[index * length + i] for i in range(length)]
