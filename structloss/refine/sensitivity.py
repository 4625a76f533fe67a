"""How much each joint of each frame that a refiner sees moves each joint that it gives (Dabral et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ArgumentError, check_floating
from ..progress import track
from .base import Refiner, check_count
from .tpnet import TPNet

__all__ = ["Sensitivity", "sensitivity_matrices"]

_VALUES = 1 << 23  # in one call


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Matrices of sensitivity, Figure 5 of Dabral et al.

    Attributes:
        matrices: float64 `[F, J, J]`: `matrices[f, i, j]` is the mean distance by which joint i of the answer moves,
            divided by the mean distance by which joint j of frame f was moved.
        offsets: of each of the F frames, how far it is from the one that is refined: 0 is that frame, -1 the one
            before it.
        sigma: standard deviation of the noise on each coordinate, metres.
        draws, poses: how many draws of noise, of how many windows.
    """

    matrices: np.ndarray
    offsets: tuple[int, ...]
    sigma: float
    draws: int
    poses: int

    def at(self, offset: int) -> np.ndarray:
        """The matrix `[J, J]` of one frame.

        Raises:
            ArgumentError: there is none.
        """
        if offset not in self.offsets:
            raise ArgumentError(f"offset is {offset}, expected one of {', '.join(map(str, self.offsets))}.")
        return self.matrices[self.offsets.index(offset)]

    def curves(self) -> np.ndarray:
        """float64 `[F, J]`: of each joint j that is moved, the mean over all joints i of the answer."""
        return self.matrices.mean(axis=1)


@torch.no_grad()
def sensitivity_matrices(
    refiner: Refiner | Callable[[Tensor], Tensor],
    windows: Tensor,
    *,
    past: int | None = None,
    offsets: Sequence[int] | None = None,
    sigma: float = 0.01,
    draws: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> Sensitivity:
    """Move one joint of one frame by Gaussian noise and see by how much the answer moves.

    S_t[i, j] = mean |Δp_i| / mean |δ_j| over draws of isotropic noise δ on joint j of frame t, and over poses. The
    paper shows it as curves over t (:meth:`Sensitivity.curves`) and as matrices of t = 0 and t = -1; noise and numbers
    are not told there: 10 mm, 64 draws of 1000 poses are ours. Fewer draws do when there are many poses.

    Memory is bounded whatever the numbers. For TP-Net the first layer, which is nearly all of its work, is not run for
    every draw: noise on one joint adds three columns of its weights.

    Args:
        refiner: a network with a window, or any function of windows `[B, N, J, 3]` that gives poses `[B, J, 3]`. It is
            run in the mode that it is in.
        windows: `[P, N, J, 3]`, metres relative to the pelvis: what a network sees for P poses; see
            :class:`structloss.refine.PredictionWindows`.
        past: frames before the one that is refined; None is the network's, or N - 1 of a function.
        offsets: frames to move, relative to the one that is refined; None is all N.
        sigma: standard deviation of the noise on each coordinate, metres.
        draws: draws for each joint of each frame of each pose.
        seed: of the noise.
        progress: show a progress bar on a terminal.

    Raises:
        ArgumentError: another shape, a number out of range, or a network that takes whole clips.
        DtypeError: windows that are not floating point.
    """
    check_floating("windows", windows)
    if windows.dim() != 4 or windows.shape[-1] != 3 or 0 in windows.shape:
        raise ArgumentError(f"windows has shape {list(windows.shape)}, expected [P, N, J, 3].")
    count, frames, joints = windows.shape[:3]
    check_count("draws", draws, 1)
    if not 0 < sigma < float("inf"):
        raise ArgumentError(f"sigma is {sigma}, expected a number of metres above 0.")
    answer = _answer(refiner, frames)
    before = past if past is not None else getattr(refiner, "past", None)
    before = frames - 1 if before is None else before
    every = range(-before, frames - before)
    chosen = tuple(every) if offsets is None else tuple(offsets)
    for offset in chosen:
        if offset not in every:
            raise ArgumentError(f"offsets has {offset}, expected {every[0]} to {every[-1]}.")
    generator = torch.Generator().manual_seed(seed)
    matrices = np.zeros((len(chosen), joints, joints))
    places = [(row, joint) for row in range(len(chosen)) for joint in range(joints)]
    width = refiner.hidden if isinstance(refiner, TPNet) else frames * joints * 3
    pieces = windows.split(max(1, _VALUES // (width * draws)))
    moves = [_moves_tpnet(refiner, piece) if isinstance(refiner, TPNet) else _moves(answer, piece) for piece in pieces]
    still = [answer(piece) for piece in pieces]
    for row, joint in track(places, "Sensitivity", progress):
        noise = sigma * torch.randn(count, draws, 3, generator=generator).to(windows)
        total = torch.zeros(joints, dtype=torch.float64)
        for move, rest, part in zip(moves, still, noise.split(len(pieces[0])), strict=True):
            change = move(before + chosen[row], joint, part) - rest[:, None]
            total += change.norm(dim=-1).sum((0, 1)).double().cpu()
        matrices[row, :, joint] = total.numpy() / float(noise.norm(dim=-1).double().sum())
    return Sensitivity(matrices, chosen, sigma, draws, count)


def _answer(refiner: Refiner | Callable[[Tensor], Tensor], frames: int) -> Callable[[Tensor], Tensor]:
    if not isinstance(refiner, Refiner):
        return refiner
    if refiner.past is None or refiner.future is None:
        if refiner.future != 0:
            raise ArgumentError("refiner takes whole clips, expected one with a window, or a causal one.")
        return lambda windows: refiner.refine(windows)[:, -1]
    window = refiner.past + 1 + refiner.future
    if frames != window:
        raise ArgumentError(f"windows has {frames} frames, expected {window}, those of the network.")
    return lambda windows: refiner.refine(windows)[:, 0]


#: From the number of a frame, that of a joint and noise `[P, draws, 3]` on it to answers `[P, draws, J, 3]`
_Move = Callable[[int, int, Tensor], Tensor]


def _moves(answer: Callable[[Tensor], Tensor], windows: Tensor) -> _Move:
    """Of windows `[P, N, J, 3]`."""

    def move(frame: int, joint: int, noise: Tensor) -> Tensor:
        draws = noise.shape[1]
        changed = windows[:, None].repeat(1, draws, 1, 1, 1)
        changed[:, :, frame, joint] += noise
        return answer(changed.flatten(0, 1)).unflatten(0, (len(windows), draws))

    return move


def _moves_tpnet(refiner: TPNet, windows: Tensor) -> _Move:
    """The same of TP-Net: its first layer's sums change by what the three coordinates that move add to them."""
    layer = cast(nn.Linear, refiner.fc[0])
    sums = layer(windows.flatten(1))[:, None]

    def move(frame: int, joint: int, noise: Tensor) -> Tensor:
        first = 3 * (frame * refiner.num_joints + joint)
        pose = windows[:, None, refiner.past].repeat(1, noise.shape[1], 1, 1)
        if frame == refiner.past:
            pose[:, :, joint] += noise
        moved = refiner.after_first(sums + noise @ layer.weight[:, first : first + 3].t())
        return refiner.finish(moved, pose.flatten(2)).unflatten(-1, (refiner.num_joints, 3))

    return move
