"""PoseFormerV2 (Zhao et al., CVPR 2023) as its paper prints it; transforms by the fast Fourier transform."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import Weights, attention, layer_norm, linear, mlp
from .poseformer import head, spatial_stage


def dct(x: Tensor) -> Tensor:
    """X_k = 2·Σ_t x_t·cos(πk(2t + 1) / 2N) along axis 1, from the spectrum of the signal and its mirror image."""
    length = x.shape[1]
    spectrum = torch.fft.fft(torch.cat((x, x.flip(1)), dim=1), dim=1)[:, :length]
    phase = math.pi / (2 * length) * torch.arange(length, dtype=x.dtype, device=x.device)[:, None]
    return spectrum.real * phase.cos() + spectrum.imag * phase.sin()


def idct(y: Tensor) -> Tensor:
    """The inverse of `dct`: the mirrored signal's whole spectrum, transformed back."""
    length = y.shape[1]
    phase = math.pi / (2 * length) * torch.arange(length, dtype=y.dtype, device=y.device)[:, None]
    half = torch.complex(y * phase.cos(), y * phase.sin())
    upper = half[:, 1:].flip(1).conj()
    return torch.fft.ifft(torch.cat((half, torch.zeros_like(half[:, :1]), upper), dim=1), dim=1).real[:, :length]


def mixed_block(w: Weights, name: str, h: Tensor, heads: int) -> Tensor:
    """Attention; an MLP on the first N // 2 tokens, one between DCT and inverse on the others."""
    h = h + attention(w, f"{name}.attn", layer_norm(w, f"{name}.norm1", h), heads)
    middle = h.shape[1] // 2
    u, v = h[:, :middle], h[:, middle:]
    u = u + mlp(w, f"{name}.mlp1", layer_norm(w, f"{name}.norm2", u))
    v = v + idct(mlp(w, f"{name}.mlp2", dct(layer_norm(w, f"{name}.norm3", v))))
    return torch.cat((u, v), dim=1)


def forward(
    w: Weights, x: Tensor, *, frames_kept: int, coefficients: int, depth: int = 4, num_heads: int = 8, **_
) -> Tensor:
    """`[B, F, J, 2]` -> `[B, 1, J, 3]`."""
    batch, frames, _, _ = x.shape
    middle = (frames - 1) // 2
    near = x[:, middle - frames_kept // 2 : middle + frames_kept // 2 + 1]
    near = spatial_stage(w, "Joint_embedding", near, depth, num_heads) + w["Temporal_pos_embed"]
    low = linear(w, "Freq_embedding", dct(x.reshape(batch, frames, -1))[:, :coefficients]) + w["Temporal_pos_embed_"]
    h = torch.cat((low, near), dim=1)
    for level in range(depth):
        h = mixed_block(w, f"blocks.{level}", h, num_heads)
    h = layer_norm(w, "Temporal_norm", h)
    low = F.conv1d(h[:, :coefficients], w["weighted_mean.weight"], w["weighted_mean.bias"])
    near = F.conv1d(h[:, coefficients:], w["weighted_mean_.weight"], w["weighted_mean_.bias"])
    return head(w, torch.cat((low, near), dim=-1))
