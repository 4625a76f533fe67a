"""STCFormer (Tang et al., CVPR 2023) as its paper prints it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .common import Weights, frames_first, joints_first, layer_norm, linear, mlp, softmax_attention

_EPS = 1e-5
_PARTS = {
    "h36m": [0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 3, 3, 3, 4, 4, 4],
    "mpi_inf_3dhp": [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 0, 0, 0],
}
# level, attention, its convolutions, norm of the MLP, MLP, head
_NAMES = {
    "h36m": ("stcformer.stc_block", "stc_att", "sep2", "layer_norm", "mlp", "regress_head"),
    "mpi_inf_3dhp": ("mlpmixer.mixerblocks", "cross_att", "gate", "layer_norm1", "mlp1", "pose_lift"),
}


def _depthwise(w: Weights, name: str, v: Tensor) -> Tensor:
    """A convolution of `[B, T, J, C]` for each channel, over frames and joints."""
    image = v.permute(0, 3, 1, 2)
    return F.conv2d(image, w[f"{name}.weight"], w[f"{name}.bias"], padding=1, groups=v.shape[-1]).permute(0, 2, 3, 1)


def _criss_cross(w: Weights, name: str, convolution: str, x: Tensor, heads: int, skeleton: str) -> Tensor:
    batch, frames, joints, channels = x.shape
    width = channels // 2 // heads
    h36m = skeleton == "h36m"
    scale = (channels / 2 if h36m else channels) ** -0.5
    z = linear(w, f"{name}.qkv", layer_norm(w, f"{name}.layer_norm", x, _EPS))
    z = z.reshape(batch, frames, joints, channels, 3)
    (q_s, q_t), (k_s, k_t), (v_s, v_t) = (z[..., i].chunk(2, dim=-1) for i in range(3))

    spatial = softmax_attention(*(t.flatten(0, 1) for t in (q_s, k_s, v_s)), heads, scale).reshape(v_s.shape)
    rows = (frames_first(t.flatten(0, 1), batch) for t in (q_t, k_t, v_t))
    temporal = joints_first(softmax_attention(*rows, heads, scale), batch).reshape(v_t.shape)

    part = w[f"{name}.emb.weight"][_PARTS[skeleton]].repeat(1, heads)  # the same for all heads
    spatial = spatial + _depthwise(w, f"{name}.{convolution}_s", v_s) + 1e-4 * part
    temporal = temporal + _depthwise(w, f"{name}.{convolution}_t", v_t)
    if h36m:
        temporal = temporal + 1e-9 * part
    out = torch.cat([t.reshape(batch, frames, joints, heads, width) for t in (spatial, temporal)], dim=-1)
    return linear(w, f"{name}.proj", out.reshape(x.shape))


def forward(w: Weights, x: Tensor, *, depth: int = 6, num_heads: int = 8, skeleton: str = "h36m", **_) -> Tensor:
    """`[B, T, J, 2]` -> `[B, T, J, 3]`."""
    blocks, attention, convolution, norm, perceptron, head = _NAMES[skeleton]
    h = F.gelu(linear(w, "pose_emb", x))
    for level in range(depth):
        name = f"{blocks}.{level}"
        h = h + _criss_cross(w, f"{name}.{attention}", convolution, h, num_heads, skeleton)
        h = h + mlp(w, f"{name}.{perceptron}", layer_norm(w, f"{name}.{norm}", h, _EPS))
    return linear(w, head, h)
