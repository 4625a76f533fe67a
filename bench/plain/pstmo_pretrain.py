"""Masked pose modelling of P-STMO (Shan et al., ECCV 2022) as its paper prints it."""

from __future__ import annotations

import torch
from torch import Tensor

from .common import Weights, linear
from .pstmo import head, spatial_encoder, std_norm, transformer


def forward(
    w: Weights,
    x: Tensor,
    *,
    temporal_mask: Tensor,
    spatial_mask: Tensor,
    depth: int = 4,
    decoder_depth: int = 3,
    num_heads: int = 8,
    **_,
) -> Tensor:
    """`[B, F, J, 2]` -> `[B, F, J, 2]`, visible frames first."""
    batch = x.shape[0]
    x = x.clone()
    x[:, spatial_mask] = w["spatial_mask_token"][0]
    h = spatial_encoder(w, x) + w["Transformer.pos_embedding"]
    h = transformer(w, "Transformer", h[:, ~temporal_mask], depth, num_heads)
    h = linear(w, "encoder_to_decoder", std_norm(w, "encoder_LN", h))
    position = w["dec_pos_embedding"].expand(batch, -1, -1)
    visible, masked = position[:, ~temporal_mask], position[:, temporal_mask]
    h = torch.cat((h + visible, w["mask_token"] + masked), dim=1)
    return head(w, "fcn_dec", transformer(w, "Transformer_dec", h, decoder_depth, num_heads), 2)
