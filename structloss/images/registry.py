"""The registry of networks that start from pixels: as that of the backbones, with families in `networks/`.

Published weights are read as a backbone's are: `load_published`, which executes no code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..backbones.checkpoints import LoadReport, load_published, save_checkpoint
from ..backbones.families import Families
from .networks.base import ImageNetwork

__all__ = [
    "IMAGE_NETWORKS",
    "ImageNetworkInfo",
    "LoadReport",
    "create",
    "family",
    "info",
    "load_published",
    "names",
    "save_checkpoint",
]


@dataclass(frozen=True, kw_only=True)
class ImageNetworkInfo:
    """What is known about one variant. Without a default is what every one has to say.

    Attributes:
        name: registry name.
        family: name of the family, which is that of its flagship.
        paper: authors, title, venue.
        input_size: height and width of the images that it was trained on, pixels.
        joints: joints that it predicts.
        kind: "images", beside the kinds of backbones.
        skeleton: name in `structloss.skeletons` of their order; empty if it has no name.
        params: number of parameters.
        macs: multiply-accumulates of an image, matrix products of convolutions and linear layers.
        published: figures of the paper, named as those of `structloss.backbones.BackboneInfo`. Empty for variants that
            no paper has.
        arguments: constructor arguments of this variant; `create` takes others as overrides.
        note: what else one should know, in a sentence; empty for most.
    """

    name: str
    family: str
    paper: str
    input_size: int
    joints: int
    params: int
    macs: int
    kind: str = "images"
    skeleton: str = ""
    published: Mapping[str, float] = field(default_factory=dict, hash=False)
    note: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)


IMAGE_NETWORKS: Families[ImageNetworkInfo, ImageNetwork] = Families(
    "image network", ImageNetworkInfo, f"{__package__}.networks"
)

family = IMAGE_NETWORKS.family
"""Decorator of a family's builder, see :meth:`~structloss.backbones.families.Families.family`."""


def names() -> tuple[str, ...]:
    """Names of all variants, sorted."""
    return IMAGE_NETWORKS.names()


def info(name: str) -> ImageNetworkInfo:
    """Facts about a variant.

    Raises:
        UnknownNameError: the name is not registered.
    """
    return IMAGE_NETWORKS.entry(name)[0]


def create(name: str, *, gradient_checkpointing: bool = False, **overrides: Any) -> ImageNetwork:
    """Build a network that starts from pixels, with fresh weights.

    Args:
        name: a variant, such as `"sapnet"` or `"sapnet-tiny"`.
        gradient_checkpointing: in training, recompute the network's levels in the backward pass instead of keeping
            their activations: less memory, about a third more time.
        **overrides: constructor arguments to use instead of the variant's.

    Returns:
        A module, in training mode. What it takes and gives is said in its class.

    Raises:
        UnknownNameError: the name is not registered.
        ArgumentError: an override that the family doesn't have, or that has an impossible value.
    """
    model = IMAGE_NETWORKS.build(name, overrides)
    model.gradient_checkpointing = gradient_checkpointing
    return model
