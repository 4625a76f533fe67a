"""What the networks of shape templates share: images normalised, a template, and from numbers to joints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ... import shape_templates
from ...backbones.blocks import check_size
from ...errors import ArgumentError, check_choice, check_same_shape
from ...functional.parts import render_parts
from ..normalization import DEVIATION, MEAN
from ..template_losses import TemplateTerms
from .base import ImageNetwork, check_image
from .motion import Motion, compose, move
from .template_drawing import draw, warp

__all__ = ["CHANNEL_ORDERS", "RENDERS", "TemplateNetwork", "TemplateOutput"]

RENDERS = ("analytic", "sample")
"""How moved parts are drawn: evaluated where they are, by `structloss.render_parts`, or sampled from the drawn template
as published, once per step."""

CHANNEL_ORDERS = ("rgb", "bgr")
"""Order of the channels that the network sees; images are given as RGB in any case. Published networks see BGR."""


class TemplateOutput(NamedTuple):
    """What a network of shape templates gives.

    Attributes:
        parameters: the network's numbers, `[B, 18, 2, 3]` (affine), `[B, 20, 2, 3]` (coarse-to-fine), `[B, 62]` or
            `[B, 61]` (constrained, official or similarity).
        matrices: `[steps, B, 18, 2, 3]` of each step, pixels. They map (x, y, 1) of the template, the second step's of
            the template that the first has moved.
        anchors: `[B, 32, 2]`, (x, y) of the moved anchors, pixels.
        joints: `[B, 15, 2]`, (x, y) in pixels, named by `structloss.shape_templates.JOINTS`.
        template: `[B, 18, S, S]`, the moved parts.
        reconstruction: `[B, 3, S, S]`, the frame as the translator reconstructs it, normalised and with its channels as
            the network sees them (:meth:`TemplateNetwork.picture` gives RGB); None without a reference.
    """

    parameters: Tensor
    matrices: Tensor
    anchors: Tensor
    joints: Tensor
    template: Tensor
    reconstruction: Tensor | None


class TemplateNetwork(ImageNetwork):
    """Base class of the networks of shape templates.

    Args:
        template: "original" (arms out sideways) or "natural" (arms down).
        motion, constraint: see :class:`~structloss.images.networks.motion.Motion`.
        render: one of :data:`RENDERS`.
        channel_order: one of :data:`CHANNEL_ORDERS`.
        normalize: subtract ImageNet's mean and divide by its deviation. Without, images are taken to be normalised
            already.
        input_size: S, pixels. At other sizes than 256 the template is scaled by S / 256 [ours].

    Attributes:
        template, motion: as given, the template's name and the motion model.
        render, channel_order, normalize, input_size: as given.
        joints: 15.
    """

    anchors: Tensor
    parts: Tensor
    drawn: Tensor
    readout: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        template: str,
        motion: str,
        constraint: str | None,
        render: str,
        channel_order: str,
        normalize: bool,
        input_size: int,
    ) -> None:
        check_choice("template", template, shape_templates.names())
        check_choice("render", render, RENDERS)
        check_choice("channel_order", channel_order, CHANNEL_ORDERS)
        if not isinstance(normalize, bool):
            raise ArgumentError(f"normalize is {normalize!r}, expected True or False.")
        check_size("input_size", input_size)
        super().__init__(input_size=input_size, joints=len(shape_templates.JOINTS))
        self.template, self.render = template, render
        self.channel_order, self.normalize = channel_order, normalize
        self.motion = Motion(motion, constraint, input_size)
        self._set_constants(torch.get_default_dtype(), None)

    #: whether the drawn template is needed beside its parameters
    @property
    def _draws(self) -> bool:
        return self.render == "sample"

    def _set_constants(self, dtype: torch.dtype, device: torch.device | None) -> None:
        """The template's numbers and what else is fixed, from their exact values: in single precision at least, and no
        part of the weights."""
        if dtype not in (torch.float32, torch.float64):
            dtype = torch.float32
        table = shape_templates.get(self.template).at(self.input_size)
        readout = [
            [1 / len(anchors) if i in anchors else 0 for i in range(len(table.anchors))]
            for anchors in shape_templates.JOINT_ANCHORS
        ]
        values: dict[str, Any] = {"anchors": table.anchors, "parts": table.parameters, "readout": readout}
        values |= {"mean": MEAN, "deviation": DEVIATION}
        for name, value in values.items():
            self.register_buffer(name, torch.tensor(value, dtype=dtype, device=device), persistent=False)
        if self._draws:
            self.register_buffer("drawn", draw(self.parts, self.input_size), persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> TemplateNetwork:
        super()._apply(fn, recurse)
        weight = next(self.parameters())
        self._set_constants(weight.dtype, weight.device)  # not rounded twice, where the dtype changes
        return self

    def normalized(self, image: Tensor) -> Tensor:
        """RGB in 0..1 as the network sees it, `[B, 3, S, S]`: channels in its order and, unless `normalize` is off,
        normalised. Means and deviations are applied in the same order to BGR, as in published code."""
        if self.channel_order == "bgr":
            image = image.flip(1)
        if not self.normalize:
            return image
        return ((image - self.mean[:, None, None]) / self.deviation[:, None, None]).to(image.dtype)

    def picture(self, image: Tensor) -> Tensor:
        """The inverse of :meth:`normalized`, such as a reconstruction as RGB in 0..1; values outside are cut off if
        the network normalises."""
        if self.normalize:
            image = (image * self.deviation[:, None, None] + self.mean[:, None, None]).clamp(0, 1)
        return image.flip(1) if self.channel_order == "bgr" else image

    def prepare_pair(self, frame: Tensor, reference: Tensor | None) -> None:
        """Check the images that `forward` is given, and their number in training."""
        self.prepare(frame, "frame")
        if reference is not None:
            check_image(reference, next(self.parameters()), size=self.input_size, argument="reference")
            check_same_shape("reference", reference, "frame", frame)
        if self.training and frame.shape[0] == 1:
            raise ArgumentError(
                "frame has 1 image, expected 2 or more in training, which batch normalisation needs where features are "
                "single values."
            )

    def through(self, layers: nn.Sequential, x: Tensor) -> Tensor:
        """`layers(x)`, each layer under gradient checkpointing if that is on."""
        for layer in layers:
            x = self.run(layer, x)
        return x

    def moved(self, numbers: Tensor) -> TemplateOutput:
        """All of the output but the reconstruction, from the numbers `[B, outputs]` that the motion model takes."""
        if numbers.dtype in (torch.float16, torch.bfloat16):
            numbers = numbers.float()
        parameters, matrices = self.motion(numbers)
        anchors = self.step_anchors(matrices)[-1]
        joints = (self.readout[:, :, None] * anchors[:, None]).sum(2)
        return TemplateOutput(parameters, matrices, anchors, joints, self.rendered(matrices), None)

    def step_anchors(self, matrices: Tensor) -> Tensor:
        """The anchors after each step: `[steps, B, 18, 2, 3]` -> `[steps, B, 32, 2]`, (x, y) in pixels."""
        points, found = self.anchors.expand(matrices.shape[1], -1, -1), []
        parts = list(shape_templates.ANCHOR_PARTS)
        for step in matrices:
            points = move(step[:, parts], points)
            found.append(points)
        return torch.stack(found)

    def rendered(self, matrices: Tensor) -> Tensor:
        """The template moved by all steps: `[steps, B, 18, 2, 3]` -> `[B, 18, S, S]`."""
        if self.render == "analytic":
            return render_parts(compose(matrices), self.parts, self.input_size)
        images = self.drawn.expand(matrices.shape[1], -1, -1, -1)
        for step in matrices:
            images = warp(images.flatten(0, 1), step.flatten(0, 1)).view_as(images)
        return images

    def losses(
        self,
        output: TemplateOutput,
        frame: Tensor,
        weights: Mapping[str, float] | None = None,
        *,
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        boundary: str = "all",
    ) -> dict[str, Tensor]:
        """The terms of the loss, not weighted, each a scalar: the caller sums `weights[name] * term`.

        Args:
            output: of this network, for `frame`.
            frame: the image that was to be reconstructed, as it was given to the network.
            weights: by term, see :data:`~structloss.images.template_losses.WEIGHTS`, which None stands for. What is
                absent or 0 is not computed.
            perceptual: (reconstruction, image) -> scalar, see
                :func:`~structloss.images.perceptual.perceptual_loss`.
            boundary: "all" or "core", see :func:`~structloss.images.template_losses.boundary_loss`.

        Raises:
            UnknownNameError: an unknown term.
            ArgumentError: a weight that is no number of at least 0; perceptual or mse without a reconstruction;
                perceptual without a function to compute it.
        """
        terms = TemplateTerms(weights, boundary=boundary, perceptual=perceptual)
        self.prepare(frame, "frame")
        image = self.normalized(frame)
        return terms(self.step_anchors(output.matrices), self.input_size, output.reconstruction, image)
