"""The pairwise temporal term: a loss network's energy changes over time no faster than the motion does.

Source: appendix ablation of SCoTL-pose (Kim et al.) as in its first author's code, which adds it to the loss network's
objective with the weight 1e-3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ArgumentError, check_floating, check_same_device, check_tensor, shown
from ._frames import check_number

__all__ = ["pair_starts", "pairwise_temporal"]


def _whole(argument: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(f"{argument} is {shown(value)}, expected a whole number of at least {least}.")
    return value


def pair_starts(
    frames: int,
    window: int,
    batch: int,
    generator: torch.Generator | None = None,
    *,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Two different starts of a window for each clip, all pairs equally likely.

    Args:
        frames: T, frames of a clip.
        window: frames of a window.
        batch: B, number of clips.
        generator: of the random numbers, on any device; None is torch's global one.
        device: where the starts are needed.

    Returns:
        Two int64 tensors `[B]`. Clips too short for two starts get zeros, and :func:`pairwise_temporal` is 0 for them.

    Raises:
        ArgumentError: a size that is not a whole number, a negative one, or an empty window.
    """
    starts = _whole("frames", frames, 0) - _whole("window", window, 1) + 1
    _whole("batch", batch, 0)
    if starts < 2:
        return torch.zeros(batch, dtype=torch.long, device=device), torch.zeros(batch, dtype=torch.long, device=device)
    where = device if generator is None else generator.device
    first = torch.randint(starts, (batch,), generator=generator, device=where)
    further = torch.randint(1, starts, (batch,), generator=generator, device=where)  # never a whole turn
    return first.to(device), ((first + further) % starts).to(device)


def pairwise_temporal(
    energy: Tensor, target: Tensor, starts_t: Tensor, starts_s: Tensor, *, window: int = 3, kappa: float = 1.0
) -> Tensor:
    """max(0, |E_t - E_s| - kappa MPJPE(y_t, y_s)) for two windows of a clip: E, y are means of energy and true pose.

    Args:
        energy: energies of predictions, `[B, T]`; the gradient flows to them alone.
        target: true poses `[B, T, J, 3]`, metres, relative to their root.
        starts_t, starts_s: first frames of the two windows, int64 `[B]`; see :func:`pair_starts`.
        window: frames of a window.
        kappa: energy per metre, at least 0.

    Returns:
        The mean over clips, a scalar; 0 where there are no clips, one frame, or no room for two windows.

    Raises:
        ArgumentError: tensors that don't fit each other, a start outside of the clip, or an option out of range.
        DtypeError: energies or poses that are not floating point.
    """
    check_floating("energy", energy)
    check_floating("target", target)
    _whole("window", window, 1)
    kappa = check_number("kappa", kappa, "a finite number >= 0", lambda x: x >= 0)
    check_same_device("target", target, "energy", energy)
    if energy.dim() != 2 or target.dim() != 4 or target.shape[:2] != energy.shape or target.shape[-1] != 3:
        raise ArgumentError(
            f"energy has shape {list(energy.shape)} and target {list(target.shape)}, expected [B, T] and [B, T, J, 3]."
        )
    batch, frames = energy.shape
    for argument, starts in (("starts_t", starts_t), ("starts_s", starts_s)):
        _check_starts(argument, starts, energy, frames - window)
    if batch == 0 or frames - window + 1 < 2:
        return energy[:, :0].sum()  # 0, with a graph all the same

    def mean(values: Tensor, starts: Tensor) -> Tensor:
        at = starts[:, None] + torch.arange(window, device=energy.device)
        return values[torch.arange(batch, device=energy.device)[:, None], at].mean(1)

    moved = torch.linalg.vector_norm(mean(target.detach(), starts_t) - mean(target.detach(), starts_s), dim=-1)
    changed = (mean(energy, starts_t) - mean(energy, starts_s)).abs()
    return F.relu(changed - kappa * moved.mean(-1)).mean()


def _check_starts(argument: str, starts: Tensor, energy: Tensor, last: int) -> None:
    check_tensor("starts", starts)
    if starts.dtype != torch.long or starts.shape != energy.shape[:1]:
        found = f"{starts.dtype} {list(starts.shape)}"
        raise ArgumentError(f"{argument} is {found}, expected torch.int64 [{energy.shape[0]}], one start per clip.")
    check_same_device(argument, starts, "energy", energy)
    # On a GPU the look would wait for the device; there an index out of range stops the kernel.
    if not torch.compiler.is_compiling() and starts.device.type == "cpu" and starts.numel() and last >= 1:
        low, high = (int(x) for x in starts.aminmax())
        if low < 0 or high > last:
            raise ArgumentError(f"{argument} has values from {low} to {high}, expected 0 to {last}.")
