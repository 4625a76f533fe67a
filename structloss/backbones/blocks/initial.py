"""Initialisation shared by families."""

from __future__ import annotations

from torch import nn

__all__ = ["init_truncated_normal"]


def init_truncated_normal(module: nn.Module, std: float = 0.02) -> None:
    """Initialise as vision transformers do; pass it to `Module.apply`.

    Linear weights: normal with `std`, truncated at ±2 (absolute); linear biases 0; LayerNorm 1 and 0.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
