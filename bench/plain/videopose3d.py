"""VideoPose3D (Pavllo et al., CVPR 2019) as its paper prints it: convolutions over `[B, channels, T]`.

A clip of one receptive field runs in the strided form, as published training does, longer ones in the dilated form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import Weights, batch_norm


def forward(
    w: Weights, x: Tensor, *, filter_widths: Sequence[int] = (3, 3, 3, 3, 3), causal: bool = False, **_
) -> Tensor:
    """`[B, T, J, 2]` -> `[B, T - R + 1, J_out, 3]`."""
    batch, frames, joints, channels = x.shape
    field = 1
    for taps in filter_widths:
        field *= taps
    strided = frames == field
    h = x.reshape(batch, frames, joints * channels).permute(0, 2, 1)
    h = F.conv1d(h, w["expand_conv.weight"], stride=filter_widths[0] if strided else 1)
    h = torch.relu(batch_norm(w, "expand_bn", h))
    dilation = filter_widths[0]
    for i, taps in enumerate(filter_widths[1:]):
        pad = (taps - 1) * dilation // 2
        if strided:
            r = h[:, :, (taps - 1 if causal else taps // 2) :: taps]
            h = F.conv1d(h, w[f"layers_conv.{2 * i}.weight"], stride=taps)
        else:
            r = h[:, :, 2 * pad :] if causal else h[:, :, pad : h.shape[2] - pad]
            h = F.conv1d(h, w[f"layers_conv.{2 * i}.weight"], dilation=dilation)
        h = torch.relu(batch_norm(w, f"layers_bn.{2 * i}", h))
        h = F.conv1d(h, w[f"layers_conv.{2 * i + 1}.weight"])
        h = r + torch.relu(batch_norm(w, f"layers_bn.{2 * i + 1}", h))
        dilation *= taps
    out = F.conv1d(h, w["shrink.weight"], w["shrink.bias"])
    return out.permute(0, 2, 1).reshape(batch, out.shape[2], -1, 3)
