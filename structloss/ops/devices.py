"""Where a kernel is queued: the current device and stream."""

from __future__ import annotations

import contextlib

import torch

__all__ = ["device_guard", "stream_of"]


def device_guard(device: torch.device) -> contextlib.AbstractContextManager:
    """Makes a CUDA device the current one; nothing for others, or where it is already."""
    # Torch's own guard: the kernels' library would leave a context behind on the device that was current before.
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def stream_of(device: torch.device) -> int:
    """The current stream of a CUDA device; 0 for others."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
