"""A backbone over keypoints as they come: the pose of each frame once the frames that it needs are there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import skeletons
from ..errors import ArgumentError, check_floating
from .base import Backbone

__all__ = ["BackboneStream", "full_lag"]


def full_lag(model: Backbone) -> int:
    """Frames after a frame that a network looks at: 0 for one that is causal or takes single frames.

    Networks of sequences answer for every frame of a clip; here each frame gets a clip in the middle of which it is, as
    `keep="centre"` of :func:`~structloss.backbones.predict_video` has it.

    Raises:
        ArgumentError: a network that lifts no keypoints.
    """
    if model.kind not in ("sequence", "centre", "frame"):
        raise ArgumentError(f"model is of kind {model.kind!r}, expected a network that lifts keypoints to poses.")
    return 0 if model.kind == "frame" else (model.frames - 1 - model.centre) * model.frame_step


class BackboneStream:
    """Poses of keypoints that come one frame at a time, `lag` frames later.

    With the full lag the answers are those of :func:`~structloss.backbones.predict_video` to the rounding of sums,
    frame by frame; of networks of sequences those of `keep="centre"`. With a smaller lag a network of windows sees the
    newest frame in place of those that have not come yet, as at a video's end, and one of sequences answers for a frame
    nearer to its clip's end. What is needed of the past is in a ring, so a stream may go on for ever.

    >>> import torch
    >>> from structloss import backbones
    >>> stream = backbones.BackboneStream(backbones.create("lift-27").eval())
    >>> stream.lag
    13
    >>> answers = [stream(frame) for frame in torch.rand(20, 17, 3)]
    >>> [number for number, answer in enumerate(answers) if answer is not None]  # the first is of frame 0
    [13, 14, 15, 16, 17, 18, 19]
    >>> list(stream.flush().shape)  # the others, now that no more come
    [13, 17, 3]

    Args:
        model: a backbone that lifts; it is run in the mode that it is in, so call `eval()` before.
        lag: frames by which answers are late, 0 to :func:`full_lag`, which None is.
        flip: average with the un-mirrored prediction of the mirrored input.
        skeleton: joint order of the keypoints, for `flip`.
        lift: what to call instead of the model, `[B, L, J, C]` -> `[B, M, J, 3]`.

    Raises:
        ArgumentError: a network that lifts no keypoints, or a lag that it can't have.

    Attributes:
        lag: as above.
    """

    def __init__(
        self,
        model: Backbone,
        *,
        lag: int | None = None,
        flip: bool = True,
        skeleton: str = "h36m",
        lift: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        most = full_lag(model)
        lag = most if lag is None else lag
        if not isinstance(lag, int) or isinstance(lag, bool) or not 0 <= lag <= most:
            expected = f"0 to {most} frames" if most else "0, since the network looks at no later frame"
            raise ArgumentError(f"lag is {lag!r}, expected {expected}.")
        self.lag = lag
        self._lift = lift or model
        self._body = skeletons.get(skeleton) if flip else None
        self._samples, self._joints = model.samples, model.joints[0]
        step = model.frame_step
        if model.kind == "frame":
            past, reads, self._kept = 0, torch.zeros(1, dtype=torch.long), 0
        elif model.kind == "sequence" and step == 1:
            past = model.frames - 1 - lag
            reads, self._kept = torch.arange(model.frames), past
        else:
            past = step * model.centre
            reads = past + step * (torch.arange(model.frames) - model.centre)
            self._kept = model.centre if model.kind == "sequence" else 0
        self._length = past + 1 + lag
        self._reads = reads.clamp(max=self._length - 1)  # what has not come is the newest
        self.reset()

    def reset(self) -> None:
        """Forget what was seen: the next frame is the first of another video."""
        self._ring: Tensor | None = None
        self._place = self._seen = 0

    @torch.no_grad()
    def __call__(self, keypoints: Tensor) -> Tensor | None:
        """Take the next frame.

        Args:
            keypoints: `[J, C]`, normalised as in training, on the network's device and of its dtype.

        Returns:
            The pose `[J_out, 3]` of the frame `lag` before; None as long as there is no such frame.

        Raises:
            ArgumentError: another shape, or another one than the first frame's.
            DtypeError: not floating point, or not the network's dtype.
        """
        check_floating("keypoints", keypoints)
        expected = "[J, C]" if self._ring is None else str(list(self._ring.shape[1:]))
        if keypoints.dim() != 2 or (self._ring is not None and keypoints.shape != self._ring.shape[1:]):
            raise ArgumentError(f"keypoints has shape {list(keypoints.shape)}, expected {expected}.")
        if self._ring is None:
            self._ring = keypoints.repeat(2 * self._length, 1, 1)
        self._write(keypoints)
        self._seen += 1
        return self._answer() if self._seen > self.lag else None

    @torch.no_grad()
    def flush(self) -> Tensor:
        """The poses that are still due, `[n, J_out, 3]` with n <= `lag`, as at the end of a video; the stream then
        begins anew."""
        if self._ring is None:
            return torch.zeros(0, self._joints, 3)
        newest = self._ring[(self._place - 1) % self._length].clone()
        due: list[Tensor] = []
        for frame in range(self._seen - self.lag, self._seen):
            self._write(newest)
            if frame >= 0:
                due.append(self._answer())
        found = torch.stack(due) if due else newest.new_zeros(0, self._joints, 3)
        self.reset()
        return found

    # The ring is written twice, its length apart, so that the newest frames are always in one piece.

    def _write(self, keypoints: Tensor) -> None:
        assert self._ring is not None
        self._ring[self._place] = keypoints
        self._ring[self._place + self._length] = keypoints
        self._place = (self._place + 1) % self._length

    def _answer(self) -> Tensor:
        assert self._ring is not None
        window = self._ring[self._place : self._place + self._length]  # oldest first
        inputs = window[self._reads.to(window.device)][None]
        if self._body is None:
            return self._lift(inputs)[0, self._kept]
        mirrored = skeletons.flip(inputs, self._body)
        if self._samples:  # each call draws its own noise, as predict_video has it
            poses, turned = self._lift(inputs), self._lift(mirrored)
        else:
            poses, turned = self._lift(torch.cat([inputs, mirrored])).chunk(2)
        return ((poses + skeletons.flip(turned, self._body)) / 2)[0, self._kept]
