"""What refiners have in common: poses of clips in, poses of the same frames out, or one pose at a time as they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, DtypeError, check_choice, check_floating, check_same_device

__all__ = ["BORDERS", "PoseStream", "Refiner", "check_count", "refine_every"]

BORDERS = ("repeat", "zero")
"""What is beyond a clip's ends: its first and last poses again, or the origin."""

_VALUES = 1 << 22  # of the widest layer, in one call without gradients


class Refiner(nn.Module, ABC):
    """A network that takes 3D poses and gives poses of the same frames.

    Args:
        num_joints: joints of a pose.
        past: frames before the one that is refined that the network sees; None is all since the clip began.
        future: frames after it; None is all to the clip's end, 0 is causal.
        residual: the network's answer is added to the pose that came in, instead of standing for it.
        root: joint that is set to 0 in what comes out, which is where it is in root-relative poses; None leaves it as
            the network predicts it.
        border: one of :data:`BORDERS`.

    Raises:
        ArgumentError: a number out of range, or another border.
    """

    def __init__(
        self,
        num_joints: int,
        past: int | None,
        future: int | None,
        residual: bool = False,
        root: int | None = None,
        border: str = "repeat",
    ) -> None:
        super().__init__()
        check_count("num_joints", num_joints, 1)
        for name, value in (("past", past), ("future", future)):
            if value is not None:
                check_count(name, value, 0)
        if root is not None and not (isinstance(root, int) and 0 <= root < num_joints):
            raise ArgumentError(f"root is {root!r}, expected None or a joint from 0 to {num_joints - 1}.")
        self.num_joints, self.past, self.future = num_joints, past, future
        self.residual, self.root = residual, root
        kept = torch.ones(num_joints, 3)
        if root is not None:
            kept[root] = 0
        self.register_buffer("kept", kept.flatten(), persistent=False)
        self.border = check_choice("border", border, BORDERS)

    kept: Tensor

    @abstractmethod
    def predict(self, windows: Tensor) -> Tensor:
        """`[B, past + M + future, J * 3]`, of which the M frames in the middle are to be refined, to `[B, M, J * 3]`:
        what the network itself answers. Where `past` or `future` is None, there are no frames before or after."""

    @abstractmethod
    def step(self, window: Tensor, state: Any) -> tuple[Tensor, Any]:
        """What a stream asks: the answer `[B, J * 3]` for the newest `past + 1 + future` poses `[B, N, J * 3]` (one
        where `past` is None), and what the network remembers until the next; that is None at first."""

    def forward(self, poses: Tensor) -> Tensor:
        """Refine clips.

        Without gradients a clip goes through in pieces, so that memory does not grow with its length but for the
        result.

        Args:
            poses: `[B, T, J, 3]`, floating point, T >= 1, relative to the root, in the unit of the training (metres).

        Returns:
            `[B, T, J, 3]`.

        Raises:
            ArgumentError, DtypeError: another shape, dtype or device than the network's.
        """
        self.check_poses(poses, "[B, T, J, 3]", 4)
        before, after = self.past or 0, self.future or 0
        flat = poses.flatten(2)
        padded = torch.cat([self._beyond(flat[:, :1], before), flat, self._beyond(flat[:, -1:], after)], dim=1)
        frames = poses.shape[1]
        if not isinstance(frames, int):  # a free length of an exported network, of which there are no pieces to count
            return self.finish(self.predict(padded), flat).unflatten(2, (self.num_joints, 3))
        piece = self._piece(poses)
        parts = [
            self.predict(padded[:, start : min(start + piece, frames) + before + after])
            for start in range(0, frames, piece)
        ]
        answer = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        return self.finish(answer, flat).unflatten(2, (self.num_joints, 3))

    def refine(self, windows: Tensor) -> Tensor:
        """The refined poses of windows that bring their own neighbours, as training samples do.

        Args:
            windows: `[B, past + M + future, J, 3]`, M >= 1; where `past` or `future` is None, none are brought.

        Returns:
            `[B, M, J, 3]`, of the frames in the middle.

        Raises:
            ArgumentError, DtypeError: another shape, fewer frames, or another dtype or device.
        """
        self.check_poses(windows, "[B, L, J, 3]", 4)
        before, after = self.past or 0, self.future or 0
        if windows.shape[1] <= before + after:
            raise ArgumentError(
                f"windows has {windows.shape[1]} frames, expected at least {before + 1 + after}: {before} come before "
                f"and {after} after."
            )
        flat = windows.flatten(2)
        middle = flat[:, before : flat.shape[1] - after]
        return self.finish(self.predict(flat), middle).unflatten(2, (self.num_joints, 3))

    def stream(self) -> PoseStream:
        """An object that takes one pose at a time, see :class:`PoseStream`.

        Raises:
            ArgumentError: the network must see a clip's end first.
        """
        if self.future is None:
            raise ArgumentError("future is None, expected a number: a network that must see a clip's end can't stream.")
        return PoseStream(self)

    def _beyond(self, end: Tensor, frames: int) -> Tensor:
        """What is beyond a clip's first or last pose `[B, 1, D]`."""
        beyond = end.expand(-1, frames, -1)
        return beyond if self.border == "repeat" else torch.zeros_like(beyond)

    def _piece(self, poses: Tensor) -> int:
        """Frames of a clip that go through at once."""
        whole = poses.shape[1]
        if self.past is None or self.future is None or torch.is_grad_enabled() or not isinstance(poses.shape[0], int):
            return whole  # of an exported network's free batch there is no number, either
        return max(1, min(whole, _VALUES // (self._width() * max(1, len(poses)))))

    def _width(self) -> int:
        """Numbers per frame of the widest layer, the windows themselves among them."""
        return ((self.past or 0) + 1 + (self.future or 0)) * self.num_joints * 3

    def finish(self, answer: Tensor, poses: Tensor) -> Tensor:
        """What comes out, of what the network says of poses `[B, M, J * 3]`."""
        if self.residual:
            answer = answer + poses
        if self.root is not None:
            answer = answer * self.kept
        return answer

    def check_poses(self, poses: Tensor, expected: str, dims: int) -> None:
        """Raise unless poses have `dims` dimensions, as in the shape `expected`, and the network's joints, dtype and
        device."""
        check_floating("poses", poses)
        if poses.dim() != dims or tuple(poses.shape[-2:]) != (self.num_joints, 3) or poses.shape[-3] < 1:
            raise ArgumentError(
                f"poses has shape {list(poses.shape)}, expected {expected} with J = {self.num_joints} and at least one "
                "frame."
            )
        weight = next(self.parameters())
        check_same_device("poses", poses, "the network", weight)
        if poses.dtype != weight.dtype and not torch.is_autocast_enabled(poses.device.type):
            raise DtypeError(f"poses has dtype {poses.dtype}, expected {weight.dtype}, that of the network.")


class PoseStream:
    """Poses refined as they come: the same as a clip's, frame by frame, but for the rounding of sums.

    A network that sees the future answers `lag` frames late. What it needs of the past is in a ring of
    `past + 1 + future` poses (or in the state of a network that has one), so a stream may go on for ever.

    >>> import torch
    >>> from structloss.refine import TPNet
    >>> stream = TPNet(past=2, future=1, hidden=8).stream()
    >>> poses = torch.zeros(3, 17, 3)
    >>> [None if pose is None else list(pose.shape) for pose in map(stream, poses)]
    [None, [17, 3], [17, 3]]
    >>> list(stream.flush().shape)  # the last one, now that no more come
    [1, 17, 3]

    Attributes:
        lag: frames by which answers are late.
    """

    def __init__(self, refiner: Refiner) -> None:
        assert refiner.future is not None  # as Refiner.stream has checked
        self._refiner = refiner
        self._before = refiner.past or 0
        self.lag = refiner.future
        self.reset()

    def reset(self) -> None:
        """Forget what was seen: the next pose is the first of another clip."""
        self._ring: Tensor | None = None
        self._place = self._seen = 0
        self._single = True

    @torch.no_grad()
    def __call__(self, pose: Tensor) -> Tensor | None:
        """Take the next pose, or the next one of each of B clips.

        Args:
            pose: `[J, 3]` or `[B, J, 3]`, always the same.

        Returns:
            The refined pose of `lag` frames before, of the same shape; None as long as there is no such frame.

        Raises:
            ArgumentError, DtypeError: another shape than the first pose's, or another dtype or device than the
                network's.
        """
        single = pose.dim() == 2
        self._refiner.check_poses(pose[None, None] if single else pose[:, None], "[J, 3] or [B, J, 3]", 4)
        batch = pose[None] if single else pose
        if self._ring is None:
            self._single = single
            self._begin(batch)
        assert self._ring is not None
        if single != self._single or len(batch) != len(self._ring):
            shape = [self._refiner.num_joints, 3]
            expected = shape if self._single else [len(self._ring), *shape]
            raise ArgumentError(f"pose has shape {list(pose.shape)}, expected {expected}, that of the first.")
        self._seen += 1
        answer = self._push(batch.flatten(1))
        if self._seen <= self.lag:
            return None
        return answer[0] if single else answer

    @torch.no_grad()
    def flush(self) -> Tensor:
        """The poses that are still due, `[n, J, 3]` or `[n, B, J, 3]` with n <= `lag`, as at the end of a clip; the
        stream then begins anew."""
        joints = self._refiner.num_joints
        if self._ring is None:
            return torch.zeros(0, joints, 3)
        last = self._newest()
        beyond = last if self._refiner.border == "repeat" else torch.zeros_like(last)
        due = []
        for frame in range(self._seen - self.lag, self._seen):
            answer = self._push(beyond)
            if frame >= 0:
                due.append(answer[0] if self._single else answer)
        shape = (joints, 3) if self._single else (len(last), joints, 3)
        found = torch.stack(due) if due else last.new_zeros(0, *shape)
        self.reset()
        return found

    # The ring is written twice, half its length apart, so that the newest poses are always in one piece: no copies.

    def _begin(self, batch: Tensor) -> None:
        length = self._before + 1 + self.lag
        first = batch.flatten(1)
        filled = first if self._refiner.border == "repeat" else torch.zeros_like(first)
        self._ring = filled[:, None].repeat(1, 2 * length, 1)
        self._place = 0
        self._state: Any = None

    def _newest(self) -> Tensor:
        assert self._ring is not None
        length = self._ring.shape[1] // 2
        return self._ring[:, (self._place - 1) % length].clone()

    def _push(self, pose: Tensor) -> Tensor:
        """Write a pose `[B, J * 3]` and refine the frame `lag` before it, `[B, J, 3]`."""
        ring, refiner = self._ring, self._refiner
        assert ring is not None
        length = ring.shape[1] // 2
        ring[:, self._place] = pose
        ring[:, self._place + length] = pose
        self._place = (self._place + 1) % length
        window = ring[:, self._place : self._place + length]  # oldest first
        answer, self._state = refiner.step(window, self._state)
        return refiner.finish(answer[:, None], window[:, self._before, None])[:, 0].unflatten(1, (-1, 3))


def refine_every(refiner: Refiner, poses: Tensor, step: int = 1) -> Tensor:
    """Refine clips whose frames follow each other faster than those that the network was trained on.

    Every `step`-th frame belongs to a clip of its own, from the first, the second, ... frame on: so each frame is
    refined, by neighbours at the distance in time that the network knows.

    Args:
        refiner: the network.
        poses: `[B, T, J, 3]`, as for the network.
        step: frames from one to the next that the network is to see.

    Returns:
        `[B, T, J, 3]`.
    """
    check_count("step", step, 1)
    if step == 1 or poses.shape[1] <= 1:
        return refiner(poses)
    refined = torch.empty_like(poses) if not torch.is_grad_enabled() else None
    if refined is None:
        phases = [refiner(poses[:, phase::step]) for phase in range(min(step, poses.shape[1]))]
        order = torch.cat([torch.arange(phase, poses.shape[1], step) for phase in range(len(phases))])
        return torch.cat(phases, dim=1)[:, torch.argsort(order).to(poses.device)]
    for phase in range(min(step, poses.shape[1])):
        refined[:, phase::step] = refiner(poses[:, phase::step])
    return refined


def check_count(argument: str, value: object, least: int) -> None:
    """Raise unless `value` is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"{argument} is {value!r}, expected a whole number of at least {least}.")
