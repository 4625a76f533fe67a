"""Windows of frames: the samples that lifting networks train on and are scored on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import ArgumentError, DataError, check_choice
from ..skeletons import Skeleton, get
from .augment import flip_batch
from .clips import Clip
from .cutting import SAMPLINGS, TAILS, Cut, WindowTable
from .image_space import TARGETS, relative, to_image_space
from .observation import observe
from .shards import ShardedArray
from .store import PoseStore
from .views import columns, motion_numbers, names

__all__ = ["SAMPLINGS", "TAILS", "PoseWindows"]

_PIECE = 2**16  # frames that statistics take at a time


class PoseWindows(Dataset[dict[str, Tensor]]):
    """What cameras saw, cut into windows.

    Training data are cut by `sampling`:

    - `"windows"` (MotionBERT): windows start every `stride` frames; a tail shorter than a window is dropped.
    - `"centred"` (VideoPose3D and other networks of one pose per window): a window around every `stride`-th frame, the
      view's first and last frames repeated beyond its ends.
    - `"chunks"` (MixSTE): ceil(frames / window) windows side by side, centred on the view, ends repeated likewise.

    Test windows cover every frame: for `"centred"`, one around every frame, in which only the centre has weight.
    Otherwise the last window is shifted back to end with the view, and frames that an earlier window has scored already
    have weight 0 there, so every test frame has weight 1 in exactly one window; with `tails="drop"` there is no such
    window, and those frames are not scored (MotionBERT's protocol). A view shorter than the window is padded at its end
    with its last frame, at weight 0 (`short_clips="pad"`).

    A sample is a dict of float32 tensors, T = `window`:

    - `input` `[T, J, 3]`: detected x', y' on the normalised screen, confidence.
    - `target` `[T, J, 3]`: see :mod:`~structloss.data.image_space`.
    - `weight` `[T, J]`: 1 to train on or score, 0 not to (padding; already scored; pose not known).
    - `root_depth` `[T]`: depth of the root joint, metres; absent with published targets, whose scale `factor` tells.
    - `intrinsics` `[4]`: pinhole f_x, f_y, c_x, c_y in normalised-screen units.
    - `factor` `[T]`: millimetres per normalised unit of depth.
    - `camera_pose` `[T, J, 3]`: ground truth, camera space, absolute (as published, with published targets), mm.
    - `weight_again` `[T, J]`: of test windows that are not "centred", 1 where an earlier window has scored the frame
      already, and on padding, for evaluations that count all frames of a window.

    and int64 scalars `subject`, `action` (index into `subjects`, `actions`), `clip` (index into `motions`), `view`
    (index of the camera), `start` (first frame) and `index` (of the sample). Windows are cut out on access, from memory
    or from the mapped files of a store.

    Args:
        source: a :class:`~structloss.data.store.PoseStore`, or clips, of which
            :func:`~structloss.data.observation.observe` makes one.
        split: "train" or "test"; decides on the stride's default, on what happens to tails, and on cameras for clips.
        window: frames of a sample.
        stride: frames between window starts, at most `window`; None is window // 3 for training and `window` for test,
            1 for "centred". "chunks" has none.
        sampling: one of :data:`SAMPLINGS`.
        context: frames at both ends of a window that are input only: windows are cut as if they were shorter by
            them, then grow by them, over a view's ends by repeating the end frames. For networks of one pose per window
            that train on several in a row (VideoPose3D's chunks): half of the receptive field.
        frame_step: take every n-th frame into a "centred" window, which then spans more time.
        mirrored: have every window twice, as it is and mirrored, as VideoPose3D and its successors train.
        target: one of :data:`~structloss.data.image_space.TARGETS`.
        short_clips: views shorter than the window: "pad", "skip" or "error".
        tails: one of :data:`TAILS`.
        subjects, actions: names for the indices; None takes the sorted names of `source`. A train and a test set that
            share indices get the same lists.
        observing: keywords of :func:`~structloss.data.observation.observe` where `source` is clips.

    Raises:
        ArgumentError: an argument out of range, a subject or action that is not listed, a target that the source can't
            give, or windows of several frames out of single poses.
        DataError: no clips, no clip as long as the window, a clip too short with `short_clips="error"`, or a person
            behind a camera or closer to it than 0.3 m.
        UnknownNameError: an unknown skeleton.
    """

    def __init__(
        self,
        source: PoseStore | Sequence[Clip],
        split: str = "train",
        *,
        window: int = 243,
        stride: int | None = None,
        sampling: str = "windows",
        context: int = 0,
        frame_step: int = 1,
        mirrored: bool = False,
        target: str = "global",
        short_clips: str = "pad",
        tails: str = "cover",
        subjects: Sequence[str] | None = None,
        actions: Sequence[str] | None = None,
        **observing: Any,
    ) -> None:
        check_choice("target", target, TARGETS)
        cut = Cut(split, window, stride, sampling, context, frame_step, short_clips, tails)
        if not isinstance(source, PoseStore):
            source = observe(source, split, **observing)
        elif observing:
            raise ArgumentError(f"{min(observing)} is given with a pose store, expected it with clips only.")
        self.store = source
        self.skeleton: Skeleton = get(source.skeleton)
        self.split, self.window, self.stride, self.target = split, window, cut.step, target
        self.context, self.sampling, self.frame_step, self.mirrored = context, sampling, frame_step, mirrored
        self._check_source()
        frames = columns(source.views, "frames")
        longest = int(frames.argmax())
        if not (source.source.get("unlabelled") and short_clips == "pad"):  # images go with videos there
            cut.check_longest(int(frames[longest]), source.views[longest].motion)
        of_subject, of_action = names(source.views, "subject"), names(source.views, "action")
        self.subjects = tuple(subjects) if subjects is not None else of_subject[0]
        self.actions = tuple(actions) if actions is not None else of_action[0]
        self._views = np.stack(
            [
                _indices("subjects", self.subjects, *of_subject),
                _indices("actions", self.actions, *of_action),
                motion_numbers(source.views)[0],
                columns(source.views, "index"),
                columns(source.views, "start"),
                frames,
            ],
            axis=-1,
        )  # [views, 6]
        self._intrinsics = columns(source.views, "intrinsics").astype(np.float32)  # [views, 4]
        # (view, start, first frame of the window to count) of each window, computed when it is asked for
        self._windows: WindowTable | np.ndarray = WindowTable(cut, frames, lambda v: source.views[v].motion)

    @cached_property
    def motions(self) -> tuple[str, ...]:
        """`subject/name` of each motion."""
        return self.store.motions

    def _check_source(self) -> None:
        """Raise if windows of this kind can't be cut from the store."""
        store = self.store
        if not store.views:
            raise DataError("the pose store has no views, expected at least one.")
        if not store.temporal and self.window > 1:
            raise ArgumentError(
                f"window is {self.window}, expected 1: {store.source.get('format', 'the data')} has single poses whose "
                "order is not that of time."
            )
        if self.target == "camera" and store.label is not None:
            raise ArgumentError(
                "target is 'camera', expected 'global' or 'root_relative' with published targets in image space."
            )
        if self.target != "camera" and store.label is None:
            known = np.isfinite(columns(store.views, "intrinsics")).all(-1)
            if not known.all():
                raise ArgumentError(
                    f"target is {self.target!r}, expected 'camera': the intrinsics of camera "
                    f"{store.views[int(known.argmin())].camera!r} are not known."
                )

    @property
    def moves(self) -> bool:
        """Whether there are frames that follow each other in time."""
        return self.store.temporal and bool((self._views[:, 5] > 1).any())

    @property
    def single(self) -> bool:
        """Whether one frame of a window counts at most when it is scored."""
        return self.sampling == "centred" or self.window - 2 * self.context == 1

    def __len__(self) -> int:
        return len(self._windows) * (2 if self.mirrored else 1)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        index = range(len(self))[index]  # negative indices, and an IndexError past the end
        return {key: value[0] for key, value in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The samples of some indices (0 to the length - 1), stacked: what collating them gives, at once."""
        chosen = np.asarray(indices, dtype=np.int64)
        mirror, window = np.divmod(chosen, max(1, len(self._windows)))
        view, start, fresh = self._windows[window].T
        subject, action, motion, camera, first, frames = self._views[view].T
        wanted = start[:, None] + self.frame_step * np.arange(self.window)  # [B, T]
        where = first[:, None] + wanted.clip(0, frames[:, None] - 1)
        store, k = self.store, torch.from_numpy(self._intrinsics[view])
        store.check_unchanged()
        sample = {"input": _take(store.input, where)}
        pose = _take(store.pose, where)
        if store.label is not None:
            label = _take(store.label, where)
            assert store.factor is not None  # they go together
            root = relative(label, self.skeleton.pelvis) if self.target == "root_relative" else label
            sample |= {"target": root, "factor": _take(store.factor, where)}
        else:
            sample |= self._target(pose, k)
        sample |= self._weights(wanted, where, frames, fresh)
        numbers = {"subject": subject, "action": action, "clip": motion, "view": camera, "start": start}
        return self._finished(sample, pose, k, numbers | {"index": chosen}, mirror > 0)

    def _target(self, pose: Tensor, k: Tensor) -> dict[str, Tensor]:
        """The target of camera-space poses `[B, T, J, 3]` in metres, and what brings it back to millimetres."""
        depth = pose[..., list(self.skeleton.pelvis), 2].mean(-1)
        target = to_image_space(pose, k, self.target, root=self.skeleton.pelvis)
        return {"target": target, "root_depth": depth, "factor": depth * (1000 / k[:, :1])}

    def _finished(
        self, sample: dict[str, Tensor], pose: Tensor, k: Tensor, numbers: dict[str, np.ndarray], mirrored: np.ndarray
    ) -> dict[str, Tensor]:
        """A batch with its poses, cameras and numbers, those samples mirrored that bool `mirrored` `[B]` says."""
        sample |= {"intrinsics": k, "camera_pose": pose * 1000}
        sample |= {key: torch.tensor(values) for key, values in numbers.items()}
        if mirrored.any():
            keys = ("input", "target", "weight")
            sample |= flip_batch({key: sample[key] for key in keys}, torch.from_numpy(mirrored), self.skeleton)
        return sample

    def _weights(
        self, wanted: np.ndarray, where: np.ndarray, frames: np.ndarray, fresh: np.ndarray
    ) -> dict[str, Tensor]:
        """`[B, T, J]` weights of windows whose frames are `wanted` `[B, T]`, in views of `frames` `[B]` frames."""
        if self.store.weight is None:
            weight = torch.ones(*wanted.shape, self.skeleton.num_joints)
        else:
            weight = _take(self.store.weight, where).float()
        if self.split == "train" and self.sampling != "windows":
            return {"weight": weight}  # repeated frames count like others in the published losses
        position = np.arange(self.window)
        scored = position < fresh[:, None]
        outside = (position >= self.window - self.context) | (position < self.context)
        if self.sampling == "centred":
            outside = outside | (position > fresh[:, None])
        again = scored | (wanted >= frames[:, None])
        whole = weight.clone()
        weight[torch.from_numpy(again | outside)] = 0
        if self.split == "train" or self.sampling == "centred":
            return {"weight": weight}
        whole[torch.from_numpy(~again | outside)] = 0
        return {"weight": weight, "weight_again": whole}

    def within(self, indices: Sequence[int]) -> Tensor:
        """bool `[B, T]`: which frames of the samples of some indices are their clip's own, and no repetition of its
        first or last one."""
        window = np.asarray(indices, dtype=np.int64) % max(1, len(self._windows))
        view, start, _ = self._windows[window].T
        wanted = start[:, None] + self.frame_step * np.arange(self.window)
        return torch.from_numpy((wanted >= 0) & (wanted < self._views[view, 5][:, None]))

    def statistics(self) -> dict[str, Tensor]:
        """Mean and standard deviation of every coordinate over all frames of all views: "input_mean" and "input_std"
        `[J, 2]`, "target_mean" and "target_std" `[J, 3]`; what SimpleBaseline standardises by. A frame counts once,
        however many windows it is in, and not mirrored. For a target that depends on a window's other frames ("global",
        in which the depth is relative to the first root), a view is taken as one window."""
        sums: dict[str, Tensor] = {}
        count = 0
        for seen, target in self._pieces():
            count += len(seen)
            for key, values in (("input", seen.double()), ("target", target.double())):
                for name, part in ((key, values.sum(0)), (f"{key}_squares", values.square().sum(0))):
                    sums[name] = sums[name] + part if name in sums else part
        out: dict[str, Tensor] = {}
        for key in ("input", "target"):
            mean = sums[key] / count
            variance = (sums[f"{key}_squares"] - count * mean.square()) / max(1, count - 1)
            # What is left of a constant coordinate is rounding.
            variance = torch.where(variance > 1e-12 * mean.square(), variance, 0.0)
            out |= {f"{key}_mean": mean.float(), f"{key}_std": variance.sqrt().float()}
        return out

    def _pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        """2D `[T, J, 2]` and targets `[T, J, 3]` of every view; of a long one in several pieces, so that neither the
        views nor the frames of one need fit in memory."""
        store, root = self.store, self.skeleton.pelvis
        views = zip(self._views[:, 4].tolist(), self._views[:, 5].tolist(), self._intrinsics, strict=True)
        for start, frames, intrinsics in views:
            for begin in range(start, start + frames, _PIECE):
                rows = slice(begin, min(begin + _PIECE, start + frames))
                if store.label is not None:
                    target = torch.from_numpy(np.array(store.label[rows]))
                    target = relative(target, root) if self.target == "root_relative" else target
                else:
                    # after the view's first frame, whose depth "global" is relative to
                    pose = torch.from_numpy(np.concatenate([store.pose[start : start + 1], store.pose[rows]]))
                    target = to_image_space(pose, torch.from_numpy(intrinsics), self.target, root=root)[1:]
                yield torch.from_numpy(np.array(store.input[rows, :, :2])), target


def _take(array: np.ndarray | ShardedArray, where: np.ndarray) -> Tensor:
    """Rows of an array, also of one on disk, as a tensor of their own."""
    return torch.from_numpy((array if isinstance(array, ShardedArray) else np.asarray(array))[where])


def _indices(argument: str, listed: tuple[str, ...], found: tuple[str, ...], number: np.ndarray) -> np.ndarray:
    """The index in a list of each view's name, int64 `[V]`, where `found[number]` are the names."""
    place = {name: i for i, name in reversed(list(enumerate(listed)))}
    for name in found:
        if name not in place:
            raise ArgumentError(f"{argument} does not list {name!r} of the clips, expected all of them.")
    return np.array([place[name] for name in found], dtype=np.int64)[number]
