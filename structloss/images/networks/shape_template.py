"""Shape templates: a regressor that moves 18 Gaussians over a person, and a translator that must reconstruct the image
from them and another image.

Sources: Schmidtke et al., "Unsupervised Human Pose Estimation through Transforming Shape Templates", CVPR 2021; Yoo
and Russakovsky, "Efficient, Self-Supervised Human Pose Estimation with Inductive Prior Tuning", ICCV 2023 workshop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ...backbones.blocks import check_size
from ...errors import ArgumentError, shown
from ...shape_templates import LEGACY_ORDER, PARTS
from ..registry import family
from .template_base import TemplateNetwork, TemplateOutput
from .template_networks import LegacyRegressor, Regressor, Translator

__all__ = ["LegacyShapeTemplateNet", "ShapeTemplateNet"]

_REGRESSOR, _TRANSLATOR = (32, 64, 128, 256, 512, 512, 512), (32, 64, 128, 256)
_PUBLISHED = {
    "input_size": 256,
    "regressor_widths": _REGRESSOR,
    "translator_widths": _TRANSLATOR,
    "hidden": 512,
}
_TINY = {
    "input_size": 64,
    "regressor_widths": (8, 24, 48, 96, 128),
    "translator_widths": (8, 16, 32),
    "hidden": 256,
}
_YOO = "Yoo and Russakovsky, Efficient, Self-Supervised Human Pose Estimation with Inductive Prior Tuning, ICCVW 2023"
_SCHMIDTKE = "Schmidtke et al., Unsupervised Human Pose Estimation through Transforming Shape Templates, CVPR 2021"


@family(
    "shape-template",
    {
        "": {
            "input_size": 256,
            "params": 18_458_927,
            "macs": 13_240_424_448,
            "note": "Published checkpoints of the network were trained on BGR images: channel_order='bgr'.",
            "arguments": _PUBLISHED,
        },
        "tiny": {"paper": "", "input_size": 64, "params": 930_095, "macs": 57_240_576, "arguments": _TINY},
    },
    flagship="",
    paper=_YOO,
    joints=15,
)
class ShapeTemplateNet(TemplateNetwork):
    """Where a person's parts are, learnt without labels: `(frame, reference)` -> :class:`TemplateOutput`.

    Both images show the same person before the same background in different poses. The translator can copy how things
    look from the reference, but must take the pose from the moved template.

    Images are RGB in 0..1, `[B, 3, S, S]`; the network normalises them.

    Args:
        template: "natural" (arms down) or "original" (arms out sideways).
        motion: "affine", "coarse-to-fine" or "constrained", see :class:`~structloss.images.networks.motion.Motion`.
        constraint: of "constrained" alone: "official" or "similarity"; None is "official".
        render: "analytic", or "sample" as published.
        channel_order: "rgb", or "bgr" for published weights.
        normalize: False takes images that are normalised already.
        input_size: S, pixels, a multiple of 2^(resolutions - 1) of either network.
        regressor_widths, translator_widths: channels at each resolution.
        hidden: channels between the regressor's linear layers.

    Attributes:
        regressor, translator: the two networks; their state-dict keys are the published ones.

    Raises:
        ArgumentError: an impossible value.
    """

    #: entries of a published checkpoint, and our keys under which they belong
    official_entries: ClassVar = {"regressor": "regressor.", "translator": "translator."}

    def __init__(
        self,
        *,
        template: str = "natural",
        motion: str = "affine",
        constraint: str | None = None,
        render: str = "analytic",
        channel_order: str = "rgb",
        normalize: bool = True,
        input_size: int = 256,
        regressor_widths: Sequence[int] = _REGRESSOR,
        translator_widths: Sequence[int] = _TRANSLATOR,
        hidden: int = 512,
    ) -> None:
        levels = max(_levels("regressor_widths", regressor_widths), _levels("translator_widths", translator_widths))
        check_size("hidden", hidden)
        check_size("input_size", input_size, multiple_of=2**levels)
        super().__init__(
            template=template,
            motion=motion,
            constraint=constraint,
            render=render,
            channel_order=channel_order,
            normalize=normalize,
            input_size=input_size,
        )
        self.regressor = Regressor(tuple(regressor_widths), hidden, self.motion.outputs, input_size)
        self.translator = Translator(3 + len(PARTS), tuple(translator_widths))

    def forward(self, frame: Tensor, reference: Tensor | None = None) -> TemplateOutput:
        """Find the parts, and reconstruct the frame.

        Args:
            frame: `[B, 3, S, S]`, the image whose pose is estimated, RGB in 0..1. B may be 0 in evaluation.
            reference: the same person in another pose, likewise; None leaves out the reconstruction.

        Returns:
            :class:`TemplateOutput`.

        Raises:
            ArgumentError: a wrong shape or device, or one image alone in training.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        self.prepare_pair(frame, reference)
        output = self.moved(self.through(self.regressor.layers, self.normalized(frame)))
        if reference is None:
            return output
        other = self.normalized(reference)
        both = torch.cat((other, output.template.to(other.dtype)), 1)
        return TemplateOutput(*output[:-1], self.through(self.translator.layers, both))


@family(
    "shape-template-legacy",
    {
        "": {
            "input_size": 256,
            "params": 6_766_430,
            "macs": 3_402_432_512,
            "note": "The published checkpoint was trained on BGR images: channel_order='bgr'.",
        }
    },
    flagship="",
    paper=_SCHMIDTKE,
    joints=15,
)
class LegacyShapeTemplateNet(TemplateNetwork):
    """The regressor of Schmidtke's published checkpoint, which sees the image and the template: `(frame)` ->
    :class:`TemplateOutput` without a reconstruction. "affine" motion, 256 pixels.

    Args:
        template, render, channel_order, normalize: see :class:`ShapeTemplateNet`; the published one is "original".

    Attributes:
        regressor: the network; its state-dict keys are the published ones.

    Raises:
        ArgumentError: an impossible value.
    """

    official_entries: ClassVar = {"regressor_network": "regressor."}

    def __init__(
        self,
        *,
        template: str = "original",
        render: str = "analytic",
        channel_order: str = "rgb",
        normalize: bool = True,
    ) -> None:
        super().__init__(
            template=template,
            motion="affine",
            constraint=None,
            render=render,
            channel_order=channel_order,
            normalize=normalize,
            input_size=256,
        )
        self.regressor = LegacyRegressor(len(PARTS))

    @property
    def _draws(self) -> bool:
        return True

    def forward(self, frame: Tensor, reference: None = None) -> TemplateOutput:
        """Find the parts.

        Args:
            frame: `[B, 3, 256, 256]`, RGB in 0..1. B may be 0 in evaluation.
            reference: None: this network reconstructs nothing.

        Raises:
            ArgumentError: a wrong shape or device, one image alone in training, or a reference.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        self._check_alone(reference)
        self.prepare_pair(frame, None)
        x = self.run(self.regressor.main, self._seen(frame))
        numbers = self.regressor.param_branch(x).unflatten(1, (-1, 6))
        return self.moved(numbers[:, list(LEGACY_ORDER)].flatten(1))

    def depths(self, frame: Tensor) -> Tensor:
        """What the published network gives beside the matrices and nothing uses, `[B, 18]`, in the order of the
        parts."""
        self.prepare_pair(frame, None)
        return self.regressor.depths(self._seen(frame))[:, list(LEGACY_ORDER)]

    def _seen(self, frame: Tensor) -> Tensor:
        image = self.normalized(frame)
        return torch.cat((image, self.drawn.to(image.dtype).expand(image.shape[0], -1, -1, -1)), 1)

    @staticmethod
    def _check_alone(reference: object) -> None:
        if reference is not None:
            raise ArgumentError(
                f"reference is {shown(reference)}, expected None: shape-template-legacy has no translator."
            )


def _levels(argument: str, widths: object) -> int:
    """How often a network of these widths halves the resolution."""
    if not isinstance(widths, Sequence) or isinstance(widths, str) or not 2 <= len(widths) <= 9:
        raise ArgumentError(f"{argument} is {shown(widths)}, expected 2 to 9 positive integers.")
    for width in widths:
        check_size(f"a width of {argument}", width)
    return len(widths) - 1
