"""The terms that shape templates are trained with.

Sources: Schmidtke et al., "Unsupervised Human Pose Estimation through Transforming Shape Templates", CVPR 2021; Yoo
and Russakovsky, "Efficient, Self-Supervised Human Pose Estimation with Inductive Prior Tuning", ICCV 2023 workshop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ..errors import ArgumentError, check_choice, check_floating, check_name, check_same_shape, shown
from ..shape_templates import ANCHOR_PAIRS, ANCHOR_PARTS, CORE_ANCHORS

__all__ = ["BOUNDARIES", "WEIGHTS", "TemplateTerms", "anchor_loss", "boundary_loss"]

WEIGHTS: Mapping[str, float] = MappingProxyType({"perceptual": 1.0, "mse": 1.0, "anchor": 0.5, "boundary": 1.0})
"""The terms, and their weights in Yoo and Russakovsky. Schmidtke et al. have no mse."""

BOUNDARIES = ("all", "core")
"""Which anchors must stay inside the image, see :func:`boundary_loss`."""

# An anchor is (x, y, 1) in the published code, whose means are over three rows.
_ROWS = 3


def anchor_loss(anchors: Tensor, size: int) -> Tensor:
    """How far apart the parts are where they must meet.

    Sum over the steps and the 17 pairs (a', a'') of the mean over the batch of |(a' - a'') / size|^2 / 3.

    Args:
        anchors: `[steps, B, 32, 2]` or `[B, 32, 2]`, moved anchors, (x, y) in pixels.
        size: of the image, pixels.

    Returns:
        A scalar; 0 for a batch of none.

    Raises:
        DtypeError: not a floating-point tensor.
        ArgumentError: another shape.

    Source: Schmidtke et al., CVPR 2021; over both steps: Yoo and Russakovsky, ICCV 2023 workshop.
    """
    batch = _check_anchors(anchors)
    first, second = (list(side) for side in zip(*ANCHOR_PAIRS, strict=True))
    apart = (anchors[..., first, :] - anchors[..., second, :]) / size
    return apart.square().sum() / (_ROWS * batch)


def boundary_loss(anchors: Tensor, size: int, boundary: str = "all") -> Tensor:
    """How far anchors are outside the image: |w| where |w| > 1, w = 2 a' / size - 1, for x and y.

    Sum over the steps and the anchors of the mean over the batch, divided by 3. It is not continuous: at the border it
    jumps from 0 to 1.

    Args:
        anchors: `[steps, B, 32, 2]` or `[B, 32, 2]`, moved anchors, (x, y) in pixels.
        size: of the image, pixels.
        boundary: "all" anchors, or "core", which reproduces a mistake of the code of Schmidtke et al.: the core's three
            anchors, three times, and none of the limbs'.

    Returns:
        A scalar; 0 for a batch of none.

    Raises:
        DtypeError: not a floating-point tensor.
        ArgumentError: another shape, or another `boundary`.

    Source: Yoo and Russakovsky, ICCV 2023 workshop; "core": Schmidtke et al., CVPR 2021.
    """
    check_choice("boundary", boundary, BOUNDARIES)
    batch = _check_anchors(anchors)
    if boundary == "core":
        anchors = anchors[..., list(CORE_ANCHORS), :]
    w = (2 / size * anchors - 1).abs()
    outside = torch.where(w > 1, w, 0).sum() / (_ROWS * batch)
    return 3 * outside if boundary == "core" else outside


def _check_anchors(anchors: Tensor) -> int:
    """Batch size, at least 1."""
    check_floating("anchors", anchors)
    if anchors.dim() not in (3, 4) or tuple(anchors.shape[-2:]) != (len(ANCHOR_PARTS), 2):
        raise ArgumentError(
            f"anchors has shape {list(anchors.shape)}, expected [B, {len(ANCHOR_PARTS)}, 2], or [steps, B, "
            f"{len(ANCHOR_PARTS)}, 2]."
        )
    return max(anchors.shape[-3], 1)


class TemplateTerms:
    """The terms of a training of shape templates, of those that have a weight.

    Args:
        weights: by term, of :data:`WEIGHTS`, which None stands for; what is absent or 0 is not computed.
        boundary: see :func:`boundary_loss`.
        perceptual: (reconstruction, image) -> scalar, see :func:`~structloss.images.perceptual.perceptual_loss`; needed
            where perceptual has a weight.

    Attributes:
        weights: those that are not 0.

    Raises:
        UnknownNameError: an unknown term.
        ArgumentError: a weight that is no number of at least 0, another `boundary`, or no `perceptual` where it is
            needed.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        boundary: str = "all",
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        weights = WEIGHTS if weights is None else weights
        if not isinstance(weights, Mapping):
            raise ArgumentError(f"weights is {shown(weights)}, expected a weight by term: {', '.join(WEIGHTS)}.")
        for name, weight in weights.items():
            check_name("term of shape templates", name, WEIGHTS)
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                raise ArgumentError(f"the weight of {name} is {shown(weight)}, expected a number of at least 0.")
        check_choice("boundary", boundary, BOUNDARIES)
        self.weights = {name: float(weights[name]) for name in WEIGHTS if weights.get(name)}
        if "perceptual" in self.weights and perceptual is None:
            raise ArgumentError(
                "perceptual is None, expected what structloss.images.perceptual_loss gives, since weights has the term "
                "perceptual."
            )
        self.boundary, self.perceptual = boundary, perceptual

    def __call__(self, anchors: Tensor, size: int, reconstruction: Tensor | None, image: Tensor) -> dict[str, Tensor]:
        """The terms, not weighted.

        Args:
            anchors: `[steps, B, 32, 2]` after each step, pixels.
            size: of the image, pixels.
            reconstruction: `[B, 3, S, S]`, normalised; None where nothing was reconstructed.
            image: what should have been reconstructed, normalised likewise.

        Raises:
            ArgumentError: a term needs a reconstruction and there is none, or it has another shape than the image.
        """
        found: dict[str, Tensor] = {}
        for name in self.weights:
            if name == "anchor":
                found[name] = anchor_loss(anchors, size)
            elif name == "boundary":
                found[name] = boundary_loss(anchors, size, self.boundary)
            else:
                if reconstruction is None:
                    raise ArgumentError(f"output has no reconstruction, expected one, which {name} needs.")
                check_same_shape("reconstruction", reconstruction, "frame", image)
                if name == "mse":
                    found[name] = (image - reconstruction).square().mean()
                else:
                    assert self.perceptual is not None
                    found[name] = self.perceptual(reconstruction, image)
        return found
