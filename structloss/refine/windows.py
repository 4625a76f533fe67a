"""Samples to train refiners on, and whole clips to score them on, cut from predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .. import skeletons
from ..errors import ArgumentError, DataError, check_choice
from ..skeletons import relative
from .base import BORDERS, check_count
from .prediction_files import PredictedClip

__all__ = ["PredictionClips", "PredictionWindows"]


class _Frames:
    """Frames of clips in a row, every `frame_step`-th of a clip being a sequence of its own, from the first, the
    second, ... frame on: so each frame is in one sequence.

    Attributes:
        predicted, true: float32 `[N, J, 3]`, metres relative to the pelvis; unknown joints of the true pose are 0.
        weight: float32 `[N, J]`.
        sequences: int64 `[S, 4]`: clip, its first row, frame that the sequence starts at, and its length.
    """

    def __init__(self, clips: Sequence[PredictedClip], skeleton: str, frame_step: int) -> None:
        check_count("frame_step", frame_step, 1)
        if not clips:
            raise DataError("there are no clips of predictions, expected at least one.")
        pelvis = skeletons.get(skeleton).pelvis
        joints = skeletons.get(skeleton).num_joints
        if any(clip.predicted.shape[1] != joints for clip in clips):
            raise ArgumentError(f"skeleton is {skeleton!r}, expected that of the clips, which have other joints.")
        self.predicted = torch.cat([relative(torch.from_numpy(clip.predicted), pelvis) for clip in clips])
        weights = [
            torch.ones(clip.predicted.shape[:2]) if clip.weight is None else torch.from_numpy(clip.weight).float()
            for clip in clips
        ]
        self.weight = torch.cat(weights)
        true = torch.cat([relative(torch.from_numpy(clip.true), pelvis) for clip in clips])
        known = (self.weight[:, list(pelvis)] > 0).all(-1, keepdim=True)  # else there is nothing to measure from
        self.weight = torch.where(known, self.weight, 0.0)
        self.true = torch.where(self.weight[..., None] > 0, true, 0.0)
        self.frame_step = frame_step
        rows, first = [], 0
        for number, clip in enumerate(clips):
            for phase in range(min(frame_step, len(clip))):
                rows.append((number, first, phase, len(range(phase, len(clip), frame_step))))
            first += len(clip)
        self.sequences = np.array(rows, dtype=np.int64)


class PredictionWindows(Dataset[dict[str, Tensor]]):
    """Windows of predictions around poses to refine.

    A sample is a dict of tensors:

    - `input` float32 `[past + frames + future, J, 3]`: predicted poses, metres relative to the pelvis. Beyond a clip's
      ends they are its first or last pose, or 0.
    - `target` float32 `[frames, J, 3]`: true poses of the frames in the middle; 0 where unknown.
    - `weight` float32 `[frames, J]`: 1 where the true pose is known, 0 elsewhere and beyond the clip's end.
    - `clip`, `index` int64: numbers of the clip and of the sample.

    Args:
        clips: predictions, of one skeleton.
        past, future: frames before and after those that are refined; None is none: of networks that take whole clips.
        frames: poses of a sample that are refined.
        stride: frames from one sample to the next; None is `frames`, so that every pose is refined once. The last
            sample of a clip ends with it.
        frame_step: take every n-th frame, from each frame on.
        skeleton: name of the joints' order.
        border: "repeat" or "zero", as the network has it.

    Raises:
        ArgumentError: a number out of range, another border, or clips of other joints.
        DataError: no clips.
        UnknownNameError: an unknown skeleton.
    """

    def __init__(
        self,
        clips: Sequence[PredictedClip],
        *,
        past: int | None = 19,
        future: int | None = 0,
        frames: int = 1,
        stride: int | None = None,
        frame_step: int = 1,
        skeleton: str = "h36m",
        border: str = "repeat",
    ) -> None:
        check_count("frames", frames, 1)
        check_count("past", past or 0, 0)
        check_count("future", future or 0, 0)
        check_count("stride", frames if stride is None else stride, 1)
        self.border = check_choice("border", border, BORDERS)
        self._frames = _Frames(clips, skeleton, frame_step)
        self.past, self.future, self.frames = past or 0, future or 0, frames
        self.stride = stride or frames
        rows = []
        for sequence, length in enumerate(self._frames.sequences[:, 3].tolist()):
            last = max(0, length - frames)
            starts = [*range(0, last, self.stride), last]
            rows += [(sequence, start) for start in starts]
        self._windows = np.array(rows, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        index = range(len(self))[index]
        return {key: value[0] for key, value in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The samples of some indices (0 to the length - 1), stacked."""
        chosen = np.asarray(indices, dtype=np.int64)
        data = self._frames
        sequence, start = self._windows[chosen].T
        clip, first, phase, length = data.sequences[sequence].T[..., None]
        inside = start[:, None] + np.arange(-self.past, self.frames + self.future)
        places = first + phase + data.frame_step * inside.clip(0, length - 1)
        inputs = data.predicted[torch.from_numpy(places)]
        if self.border == "zero":
            beyond = torch.from_numpy((inside < 0) | (inside >= length))
            inputs[beyond] = 0
        middle = slice(self.past, self.past + self.frames)
        at = torch.from_numpy(places[:, middle])
        weight = data.weight[at]
        weight[torch.from_numpy(inside[:, middle] >= length)] = 0  # of a clip shorter than a sample
        return {
            "input": inputs,
            "target": data.true[at],
            "weight": weight,
            "clip": torch.from_numpy(clip[:, 0]),
            "index": torch.from_numpy(chosen),
        }


class PredictionClips(Dataset[dict[str, Tensor]]):
    """Whole clips of predictions, a sample each, every n-th frame of a clip being one: what refiners are scored on.

    A sample has the keys of :class:`PredictionWindows`, with `input` and `target` `[T, J, 3]`, `weight` `[T, J]`.

    Args:
        clips, frame_step, skeleton: as there.

    Raises:
        ArgumentError, DataError, UnknownNameError: as there.
    """

    def __init__(self, clips: Sequence[PredictedClip], *, frame_step: int = 1, skeleton: str = "h36m") -> None:
        self._frames = _Frames(clips, skeleton, frame_step)

    def __len__(self) -> int:
        return len(self._frames.sequences)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        index = range(len(self))[index]
        return {key: value[0] for key, value in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """One clip, as a batch of one: clips have different lengths."""
        (index,) = indices
        data = self._frames
        clip, first, phase, length = data.sequences[index].tolist()
        places = slice(first + phase, first + phase + data.frame_step * (length - 1) + 1, data.frame_step)
        return {
            "input": data.predicted[None, places],
            "target": data.true[None, places],
            "weight": data.weight[None, places],
            "clip": torch.tensor([clip]),
            "index": torch.tensor([index]),
        }
