"""Published state dicts and ours: where our modules are laid out differently, how one becomes the other.

A backbone says for each of its entries what the published entry is called, or how several make it up
(:class:`Source`). All of these maps permute, split and join numbers and never change them, so they hold for gradients
as well as for weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = ["Source", "from_official", "official_keys", "to_official"]


@dataclass(frozen=True)
class Source:
    """The published entries that make up one of ours.

    Attributes:
        keys: published keys, joined along the first axis in this order.
        shape: shape of each published entry; None if it is that of our entry's part. A 1x1 convolution's weight is
            that of a linear layer with an axis more.
        order: our rows in the published order: published row i is our row `order[i]`; None if the order is the same.
    """

    keys: tuple[str, ...]
    shape: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None

    def split(self, ours: Tensor) -> dict[str, Tensor]:
        """The published entries of our tensor."""
        if self.order is not None:
            ours = ours[list(self.order)]
        parts = ours.chunk(len(self.keys)) if len(self.keys) > 1 else (ours,)
        return {
            key: part if self.shape is None else part.reshape(self.shape)
            for key, part in zip(self.keys, parts, strict=True)
        }

    def join(self, published: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """Our tensor, of the given shape, from the published ones."""
        joined = torch.cat(list(published)) if len(published) > 1 else published[0]
        joined = joined.reshape(tuple(shape))
        if self.order is not None:
            out = torch.empty_like(joined)
            out[list(self.order)] = joined
            return out
        return joined


@runtime_checkable
class Published(Protocol):
    """A module that knows the published names of its entries."""

    def official(self, key: str) -> str | Source:
        """The published name of the state-dict entry `key`, or how the published entries make it up."""
        ...


def _source(model: nn.Module, key: str) -> Source:
    name = model.official(key) if isinstance(model, Published) else key
    return name if isinstance(name, Source) else Source((name,))


def to_official(model: nn.Module, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The state dict under its published names, in views where possible.

    Args:
        model: a backbone.
        tensors: by the model's own names, such as gradients; None is its state dict.
    """
    out: dict[str, Tensor] = {}
    for key, value in (model.state_dict() if tensors is None else tensors).items():
        out |= _source(model, key).split(value)
    return out


def from_official(model: nn.Module, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of the model's state dict that `published` holds completely, by the model's own names."""
    out = {}
    for key, value in model.state_dict().items():
        source = _source(model, key)
        if all(name in published for name in source.keys):
            out[key] = source.join([published[name] for name in source.keys], value.shape)
    return out


def official_keys(model: nn.Module, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`found` without the constants that published files keep beside the weights."""
    pattern = getattr(model, "official_constants", None)
    return {k: v for k, v in found.items() if pattern is None or not re.fullmatch(pattern, k)}
