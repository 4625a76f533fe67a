"""A backbone over a video of any length: clips or sliding windows, padding, overlap, mirrored averaging, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import skeletons
from ..errors import ArgumentError, check_choice, check_floating
from .base import Backbone
from .blocks.checks import check_size

__all__ = ["predict_video"]

# Outputs of one call of a network that slides over longer inputs; its inputs overlap by the receptive field.
_STRETCH = 1024

Track = Callable[[Iterable[Tensor]], Iterable[Tensor]]


@dataclass(frozen=True)
class _Plan:
    """Which frames each window reads and writes.

    Attributes:
        reads: `[W, L]` frame numbers, within the video.
        writes: `[W, M]` frame number of each output, or -1 for one that is not kept.
        weights: `[M]` of the outputs where windows overlap.
    """

    reads: Tensor
    writes: Tensor
    weights: Tensor


@torch.no_grad()
def predict_video(
    model: Backbone,
    keypoints: Tensor,
    *,
    flip: bool = True,
    skeleton: str = "h36m",
    overlap: int = 0,
    keep: str | None = None,
    frame_step: int | None = None,
    batch_size: int = 16,
    lift: Callable[[Tensor], Tensor] | None = None,
    track: Track | None = None,
) -> Tensor:
    """Lift a whole video, every frame once.

    Networks of one pose a window (`"centre"`) see a window around every frame, with the first and last frames repeated
    beyond the ends; one that slides, such as VideoPose3D, runs over long stretches instead. Networks of sequences
    (`"sequence"`) see consecutive clips, the last of which ends with the video; a shorter video goes in as it is where
    the network takes it, and is continued with its last frame otherwise. Frames that several clips hold are averaged,
    with weights that fall towards the ends of a clip.

    Args:
        model: a backbone; it is run in evaluation mode and left in the mode it was in.
        keypoints: `[T, J, C]` or `[N, T, J, C]` (videos of one length), normalised as in training; any T of at least 1.
        flip: average with the un-mirrored prediction of the mirrored input, as published tests do.
        skeleton: joint order of the keypoints, for `flip`. A network that leaves out joints of it can't be flipped.
        overlap: frames that neighbouring clips share; 0 as published, more for smoother seams. Ignored where every
            frame has its own window.
        keep: `"all"` keeps every pose of a clip; `"centre"` gives every frame its own window and keeps the centre.
            None is what the published test does (`model.keeps`).
        frame_step: take every so manieth frame into a window of which the centre is kept; None is what the model was
            published with (`model.frame_step`).
        batch_size: windows of one call.
        lift: what to call instead of the model, `[B, L, J, C]` -> `[B, M, J, 3]`, such as the mean of several
            hypotheses.
        track: wraps the iteration over batches to show progress, such as `tqdm.tqdm`.

    Returns:
        `[T, J_out, 3]` or `[N, T, J_out, 3]`, in the space of the training target.

    Raises:
        ArgumentError: another shape, no frames, or an impossible option.
        DtypeError: not floating point.
    """
    check_floating("keypoints", keypoints)
    if keypoints.dim() not in (3, 4) or keypoints.shape[-3] < 1:
        raise ArgumentError(
            f"keypoints has shape {list(keypoints.shape)}, expected [T, J, C] or [N, T, J, C] with T of at least 1."
        )
    if model.kind not in ("sequence", "centre", "frame"):
        raise ArgumentError(f"model is of kind {model.kind!r}, expected a network that lifts keypoints to poses.")
    check_size("batch_size", batch_size)
    keep = check_choice("keep", model.keeps if keep is None else keep, ("all", "centre"))
    videos = keypoints if keypoints.dim() == 4 else keypoints[None]
    step = model.frame_step if frame_step is None else frame_step
    check_size("frame_step", step)
    plan = _plan(model, videos.shape[1], overlap, keep, step)
    body = skeletons.get(skeleton)

    training = model.training
    model.eval()
    try:
        poses = _run(plan, videos, lift or model, batch_size, track)
        if flip:
            mirrored = _run(plan, skeletons.flip(videos, body), lift or model, batch_size, track)
            poses = (poses + skeletons.flip(mirrored, body)) / 2
    finally:
        model.train(training)
    return poses if keypoints.dim() == 4 else poses[0]


def _plan(model: Backbone, frames: int, overlap: int, keep: str, step: int) -> _Plan:
    every = torch.arange(frames)
    if model.kind == "frame":
        return _side_by_side(every, min(frames, model.frames if model.frames > 1 else 256), 0)
    if model.kind == "centre" and model.longest is None and step == 1:
        length = min(_STRETCH, frames)
        starts = torch.arange(0, frames, length)[:, None]
        writes = starts + torch.arange(length)
        reads = starts - model.centre + torch.arange(length + model.frames - 1)
        writes[writes >= frames] = -1
        return _Plan(reads.clamp(0, frames - 1), writes, torch.ones(length))
    if model.kind == "centre" or keep == "centre":
        reads = every[:, None] + step * (torch.arange(model.frames) - model.centre)
        writes = every[:, None]
        if model.kind == "sequence":
            writes = torch.full((frames, model.frames), -1)
            writes[:, model.centre] = every
        return _Plan(reads.clamp(0, frames - 1), writes, torch.ones(writes.shape[1]))
    if not 0 <= overlap < model.frames:
        raise ArgumentError(f"overlap is {overlap}, expected 0 to {model.frames - 1}, less than a clip's frames.")
    if frames <= model.frames:
        length = max(frames, model.shortest)
        writes = torch.arange(length)
        reads = writes.clamp(max=frames - 1)
        return _Plan(reads[None], torch.where(writes < frames, writes, -1)[None], torch.ones(length))
    return _side_by_side(every, model.frames, overlap)


def _side_by_side(every: Tensor, length: int, overlap: int) -> _Plan:
    """Clips of one length that cover all frames, the last one shifted back to end with the video."""
    last = len(every) - length
    starts = torch.cat([torch.arange(0, last, length - overlap), torch.tensor([last])])
    reads = starts[:, None] + torch.arange(length)
    rise = torch.arange(1, length + 1).float()
    return _Plan(reads, reads, torch.minimum(rise, rise.flip(0)))


def _run(plan: _Plan, videos: Tensor, lift: Callable[[Tensor], Tensor], batch_size: int, track: Track | None) -> Tensor:
    count, frames = videos.shape[:2]
    sums = weights = None
    # Every video takes part in a batch of windows, so that videos side by side cost no more calls than one.
    batches = torch.arange(len(plan.reads)).split(max(1, batch_size // max(1, count)))
    for windows in track(batches) if track else batches:
        reads, writes = plan.reads[windows].to(videos.device), plan.writes[windows].to(videos.device)
        out = lift(videos[:, reads].flatten(0, 1))
        out = out.view(count, len(windows), *out.shape[1:])
        if sums is None or weights is None:
            sums = out.new_zeros(count, frames, *out.shape[-2:])
            weights = out.new_zeros(frames)
        kept = writes >= 0
        share = plan.weights.to(out)[None].expand(writes.shape)[kept]
        sums.index_add_(1, writes[kept], out[:, kept] * share[:, None, None])
        weights.index_add_(0, writes[kept], share)
    assert sums is not None and weights is not None
    return sums / weights[:, None, None]
