"""What all networks that start from pixels share: the images they take, and how their levels are run."""

from __future__ import annotations

import torch
from torch import Tensor

from ...backbones.blocks import RunsLevels, check_size
from ...errors import ArgumentError, DtypeError, check_floating, check_same_device

__all__ = ["ImageNetwork", "check_image"]


class ImageNetwork(RunsLevels):
    """Base class of the networks that start from pixels: square RGB images `[B, 3, S, S]` in 0..1.

    A subclass calls `super().__init__` with the size it takes, starts `forward` with :meth:`prepare`, and runs its
    repeated levels through :meth:`run`, which is all that gradient checkpointing needs.

    Args:
        input_size: S, pixels.
        joints: number of joints it predicts.

    Attributes:
        input_size, joints: as given.
        gradient_checkpointing: recompute levels in the backward pass instead of keeping their activations.
    """

    def __init__(self, *, input_size: int, joints: int) -> None:
        check_size("input_size", input_size)
        check_size("joints", joints)
        super().__init__()
        self.input_size = input_size
        self.joints = joints

    def prepare(self, image: Tensor, argument: str = "image") -> Tensor:
        """Check an image, see :func:`check_image`, and return it."""
        check_image(image, next(self.parameters()), size=self.input_size, argument=argument)
        return image


def check_image(image: object, weight: Tensor, *, size: int, argument: str = "image") -> None:
    """Check the input of a network: `[B, 3, size, size]`, floating point, dtype and device of `weight`.

    Args:
        image: what the caller passed.
        weight: any parameter of the model. Its dtype must be that of `image`, except under autocast.
        size: height and width, pixels.
        argument: what it is called in messages.

    Raises:
        DtypeError: not a floating-point tensor, or of another dtype than the weights.
        ArgumentError: a wrong shape or device.
    """
    if isinstance(image, Tensor) and image.dtype == torch.uint8:
        raise DtypeError(f"{argument} has dtype torch.uint8, expected floating point, 0 to 1: {argument} / 255.")
    check_floating(argument, image)
    assert isinstance(image, Tensor)
    if image.dim() != 4 or image.shape[1] != 3 or image.shape[2] != size or image.shape[3] != size:
        raise ArgumentError(
            f"{argument} has shape {list(image.shape)}, expected [B, 3, {size}, {size}], RGB images of this model's "
            "size."
        )
    check_same_device(argument, image, "the model", weight)
    if image.dtype != weight.dtype and not torch.is_autocast_enabled(image.device.type):
        raise DtypeError(
            f"{argument} has dtype {image.dtype}, expected {weight.dtype}, the dtype of the model's weights."
        )
