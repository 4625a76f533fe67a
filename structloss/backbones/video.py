"""A backbone over a video of any length: clips or sliding windows, padding, overlap, mirrored averaging, in batches."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from .. import skeletons
from ..errors import ArgumentError, check_choice, check_floating
from .base import Backbone
from .blocks.checks import check_size

__all__ = ["predict_stream", "predict_video"]

# Outputs of one call of a network that slides over longer inputs; its inputs overlap by the receptive field.
_STRETCH = 1024
# Coordinates from -1 to 1 are on the screen; no person is this far off it.
_OFF_SCREEN = 10.0

Track = Callable[[Sequence[range]], Iterable[range]]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class _Plan:
    """Which frames each window reads and writes; nothing in it grows with the video.

    Attributes:
        count: number of windows.
        step: frames from the start of a window to that of the next.
        last: start of the last window, which may be nearer to the one before.
        reads: `[L]` frames that a window reads, counted from its start; beyond the video's ends its first and last
            frames are repeated.
        kept: `[M]` which of its outputs are kept.
        writes: `[M]` the frames that they are of, counted from its start; those beyond the video's end are dropped.
        weights: `[M]` of the outputs where windows overlap.
    """

    count: int
    step: int
    last: int
    reads: Tensor
    kept: Tensor
    writes: Tensor
    weights: Tensor

    def start(self, window: int) -> int:
        """Start of a window; the starts never fall."""
        return self.last if window >= self.count - 1 else window * self.step


def predict_stream(
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
) -> Iterator[Tensor]:
    """What :func:`predict_video` returns, in pieces: consecutive poses as soon as no later window changes them.

    Besides the keypoints, memory holds the activations of one batch of windows and the poses since the last piece,
    however long the video is. Arguments, warnings and errors are those of :func:`predict_video`; they are checked at
    once, while windows are run as pieces are asked for.

    Yields:
        `[n, J_out, 3]` or `[N, n, J_out, 3]`, n >= 1, which together have every frame once, in order.
    """
    check_floating("keypoints", keypoints)
    if keypoints.dim() not in (3, 4) or keypoints.shape[-3] < 1:
        raise ArgumentError(
            f"keypoints has shape {list(keypoints.shape)}, expected [T, J, C] or [N, T, J, C] with T of at least 1."
        )
    if model.kind not in ("sequence", "centre", "frame"):
        raise ArgumentError(f"model is of kind {model.kind!r}, expected a network that lifts keypoints to poses.")
    check_size("batch_size", batch_size)
    _warn_of_odd(keypoints)
    keep = check_choice("keep", model.keeps if keep is None else keep, ("all", "centre"))
    videos = keypoints if keypoints.dim() == 4 else keypoints[None]
    step = model.frame_step if frame_step is None else frame_step
    check_size("frame_step", step)
    plan = _plan(model, videos.shape[1], overlap, keep, step)
    body = skeletons.get(skeleton) if flip else None
    # Every video takes part in a batch of windows, so that videos side by side cost no more calls than one.
    size = max(1, batch_size // max(1, len(videos)))
    batches = [range(i, min(i + size, plan.count)) for i in range(0, plan.count, size)]
    pieces = _run(plan, model, videos, body, lift or model, track(batches) if track else batches)
    return pieces if keypoints.dim() == 4 else (piece[0] for piece in pieces)


def _warn_of_odd(keypoints: Tensor) -> None:
    """Warn of what a network answers without a complaint: places that are none, and pixels."""
    if keypoints.numel() == 0:
        return
    if not torch.isfinite(keypoints).all():
        odd = "has NaN or infinite values, expected places; the poses of all frames that see them will be NaN"
    elif (largest := float(keypoints[..., :2].abs().amax())) > _OFF_SCREEN:
        odd = f"reaches {largest:.4g}, expected about -1 to 1; pixels go through structloss.data.normalize_screen first"
    else:
        return
    warnings.warn(f"keypoints {odd}.", UserWarning, stacklevel=4)


def _with_arguments_of(source: Callable[P, object]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Decorator: the function takes what `source` takes, and says so to `help` and to type checkers."""

    def take(function: Callable[..., R]) -> Callable[P, R]:
        returned = inspect.signature(function).return_annotation
        setattr(function, "__signature__", inspect.signature(source).replace(return_annotation=returned))  # noqa: B010
        return cast(Callable[P, R], function)

    return take


@_with_arguments_of(predict_stream)
def predict_video(*arguments: Any, **options: Any) -> Tensor:
    """Lift a whole video, every frame once.

    Networks of one pose per window (`"centre"`) see a window around every frame, with the first and last frames
    repeated beyond the ends; one that slides, such as VideoPose3D, runs over long stretches instead. Networks of
    sequences (`"sequence"`) see consecutive clips, the last of which ends with the video; a shorter video goes in as it
    is where the network takes it, and is continued with its last frame otherwise. Frames that several clips hold are
    averaged, with weights that fall towards the ends of a clip.

    Args:
        model: a backbone; it is run in evaluation mode and left in the mode it was in.
        keypoints: `[T, J, C]` or `[N, T, J, C]` (videos of one length), normalised as in training; any T of at least 1.
        flip: average with the un-mirrored prediction of the mirrored input, as published tests do.
        skeleton: joint order of the keypoints, for `flip`. A network that leaves out joints of it can't be flipped.
        overlap: frames that neighbouring clips share; 0 as published, more for smoother seams. Ignored where every
            frame has its own window.
        keep: `"all"` keeps every pose of a clip; `"centre"` gives every frame its own window and keeps the centre.
            None is what the published test does (`model.keeps`).
        frame_step: take every n-th frame into a window of which the centre is kept; None is what the model was
            published with (`model.frame_step`).
        batch_size: windows of one call.
        lift: what to call instead of the model, `[B, L, J, C]` -> `[B, M, J, 3]`, such as the mean of several
            hypotheses.
        track: wraps the iteration over batches (a sequence of ranges of windows) to show progress, such as `tqdm.tqdm`.

    Returns:
        `[T, J_out, 3]` or `[N, T, J_out, 3]`, in the space of the training target.

    Warns:
        UserWarning: NaN or infinite keypoints, or keypoints that look like pixels.

    Raises:
        ArgumentError: another shape, no frames, or an impossible option.
        DtypeError: not floating point.
    """
    return torch.cat(list(predict_stream(*arguments, **options)), dim=-3)


def _plan(model: Backbone, frames: int, overlap: int, keep: str, step: int) -> _Plan:
    if model.kind == "frame":
        return _side_by_side(frames, min(frames, model.frames if model.frames > 1 else 256), 0)
    if model.kind == "centre" and model.longest is None and step == 1:
        length = min(_STRETCH, frames)
        reads, writes = torch.arange(length + model.frames - 1) - model.centre, torch.arange(length)
        count = -(-frames // length)
        return _Plan(count, length, (count - 1) * length, reads, writes, writes, torch.ones(length))
    if model.kind == "centre" or keep == "centre":
        reads = step * (torch.arange(model.frames) - model.centre)
        kept = torch.tensor([model.centre if model.kind == "sequence" else 0])
        return _Plan(frames, 1, frames - 1, reads, kept, torch.zeros(1, dtype=torch.long), torch.ones(1))
    if not 0 <= overlap < model.frames:
        raise ArgumentError(f"overlap is {overlap}, expected 0 to {model.frames - 1}, less than a clip's frames.")
    if frames <= model.frames:
        every = torch.arange(max(frames, model.shortest))
        return _Plan(1, 0, 0, every, every, every, torch.ones(len(every)))
    return _side_by_side(frames, model.frames, overlap)


def _side_by_side(frames: int, length: int, overlap: int) -> _Plan:
    """Clips of one length that cover all frames, the last one shifted back to end with the video."""
    last, step = frames - length, length - overlap
    every = torch.arange(length)
    rise = torch.arange(1, length + 1).float()
    return _Plan(-(-last // step) + 1, step, last, every, every, every, torch.minimum(rise, rise.flip(0)))


@torch.no_grad()
def _run(
    plan: _Plan,
    model: Backbone,
    videos: Tensor,
    body: skeletons.Skeleton | None,
    lift: Callable[[Tensor], Tensor],
    batches: Iterable[range],
) -> Iterator[Tensor]:
    """Finished poses `[N, n, J_out, 3]`; averaged with those of the mirrored input if `body` is given."""
    count, frames = videos.shape[:2]
    done = 0  # frames before are finished
    sums = weights = None  # of the frames from `done` on
    training = model.training
    model.eval()
    try:
        for windows in batches:
            starts = torch.tensor([plan.start(window) for window in windows])[:, None]
            inputs = videos[:, (starts + plan.reads).clamp(0, frames - 1).to(videos.device)].flatten(0, 1)
            poses = lift(inputs)
            if body is not None:
                poses = (poses + skeletons.flip(lift(skeletons.flip(inputs, body)), body)) / 2
            poses = poses.view(count, len(windows), *poses.shape[1:])[:, :, plan.kept.to(poses.device)]
            writes = starts + plan.writes
            inside = (writes < frames).to(poses.device)
            if sums is None or weights is None:
                sums, weights = poses.new_zeros(count, 0, *poses.shape[-2:]), poses.new_zeros(0)
            more = min(frames, int(writes.max()) + 1) - done - len(weights)
            sums = torch.cat([sums, poses.new_zeros(count, more, *poses.shape[-2:])], dim=1)
            weights = torch.cat([weights, poses.new_zeros(more)])
            share = plan.weights.to(poses)[None].expand(inside.shape)[inside]
            where = (writes - done).to(poses.device)[inside]
            sums.index_add_(1, where, poses[:, inside] * share[:, None, None])
            weights.index_add_(0, where, share)
            finished = (plan.start(windows[-1] + 1) if windows[-1] + 1 < plan.count else frames) - done
            if finished:
                yield sums[:, :finished] / weights[:finished, None, None]
                sums, weights, done = sums[:, finished:], weights[finished:], done + finished
    finally:
        model.train(training)
