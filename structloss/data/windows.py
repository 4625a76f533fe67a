"""Windows of frames, seen by cameras: the samples that lifting networks train on and are scored on."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import ArgumentError, DataError, check_choice
from ..skeletons import Skeleton, convert, get
from ._progress import track
from .augment import flip_batch
from .cameras import Camera, h36m_cameras, normalize_screen
from .clips import Clip
from .detections import simulate_detections
from .image_space import TARGETS, to_image_space

__all__ = ["SAMPLINGS", "PoseWindows"]

Cameras = Callable[[int, Clip], Sequence[Camera]] | Sequence[Sequence[Camera]]

_RIGS = {"train": ("S1", "S5", "S6", "S7", "S8"), "test": ("S9", "S11")}
_NEAREST = 0.3  # metres; closer to the image plane, the pinhole's image and the image scale mean nothing


SAMPLINGS = ("windows", "centred", "chunks")
"""How clips are cut, see :class:`PoseWindows`."""


class PoseWindows(Dataset[dict[str, Tensor]]):
    """Clips x cameras, cut into windows.

    Training data are cut by `sampling`:

    - `"windows"` (MotionBERT): windows start every `stride` frames; a tail shorter than a window is dropped.
    - `"centred"` (VideoPose3D and other networks of one pose a window): a window around every `stride`-th frame, the
      clip's first and last frames repeated beyond its ends.
    - `"chunks"` (MixSTE): ceil(frames / window) windows side by side, centred on the clip, ends repeated likewise.

    Test windows cover every frame: for `"centred"`, one around every frame, in which only the centre has weight.
    Otherwise the last window is shifted back to end with the clip, and frames that an earlier window has scored already
    have weight 0 there, so every test frame has weight 1 in exactly one window. A clip shorter than the window is
    padded at its end with its last frame, at weight 0 (`short_clips="pad"`).

    A sample is a dict of float32 tensors, T = `window`, J = 17:

    - `input` `[T, J, 3]`: detected x', y' on the normalised screen, confidence.
    - `target` `[T, J, 3]`: see :mod:`~structloss.data.image_space`.
    - `weight` `[T, J]`: 1 to train on or score, 0 not to (padding; already scored).
    - `root_depth` `[T]`: depth of the root joint, metres.
    - `intrinsics` `[4]`: pinhole f_x, f_y, c_x, c_y in normalised-screen units.
    - `factor` `[T]`: millimetres per normalised unit of depth.
    - `camera_pose` `[T, J, 3]`: ground truth, camera space, absolute, millimetres.

    and int64 scalars `subject`, `action` (index into `subjects`, `actions`), `clip` (index into `clips`), `view` (index
    of the camera) and `start` (first frame). Clips x views are stored once, windows are cut out of them on access.

    Args:
        clips: what to cut; all must have the skeleton's 17 joints.
        split: "train" or "test"; decides on the stride's default, on what happens to tails, and on the default cameras.
        cameras: `cameras(clip index, clip)` or one sequence per clip. Default: the four Human3.6M cameras of a subject;
            training subjects cycle through the rigs of S1, S5, S6, S7, S8, test subjects through S9, S11.
        window: frames of a sample.
        stride: frames between window starts, at most `window`; None is window // 3 for training and `window` for test,
            1 for "centred". "chunks" has none.
        sampling: one of :data:`SAMPLINGS`.
        frame_step: take every so manieth frame into a "centred" window, which then spans more time.
        mirrored: have every window twice, as it is and mirrored, as VideoPose3D and its successors train.
        target: one of :data:`~structloss.data.image_space.TARGETS`.
        detections: "simulated" (see :mod:`~structloss.data.detections`; seen through the distorting lens), or "exact":
            the target's own x', y' with confidence 1, the published "ground-truth 2D".
        seed: of the simulated detections. They depend on it, the clip's subject and name, and the view only.
        short_clips: "pad", "skip" or "error".
        skeleton: joint order of the samples: "h36m", that of clips, or one that it converts to: "mpi_inf_3dhp".
        views: use the first so many cameras of each clip; None for all.
        recentre: move each clip so that its mean hip stands on the origin, where the cameras look.
        subjects, actions: names for the indices; None takes the sorted names of `clips`. A train and a test set that
            share indices get the same lists.
        progress: show a progress bar on a terminal while preparing.

    Raises:
        ArgumentError: an argument out of range, or a clip whose subject or action is not listed.
        DataError: no clips, no clip as long as the window, a clip too short with `short_clips="error"`, or a person
            behind a camera or closer to it than 0.3 m.
        UnknownNameError: an unknown skeleton.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        split: str = "train",
        *,
        cameras: Cameras | None = None,
        window: int = 243,
        stride: int | None = None,
        sampling: str = "windows",
        frame_step: int = 1,
        mirrored: bool = False,
        target: str = "global",
        detections: str = "simulated",
        seed: int = 0,
        short_clips: str = "pad",
        skeleton: str = "h36m",
        views: int | None = None,
        recentre: bool = True,
        subjects: Sequence[str] | None = None,
        actions: Sequence[str] | None = None,
        progress: bool = False,
    ) -> None:
        check_choice("split", split, tuple(_RIGS))
        check_choice("sampling", sampling, SAMPLINGS)
        check_choice("target", target, TARGETS)
        check_choice("detections", detections, ("simulated", "exact"))
        check_choice("short_clips", short_clips, ("pad", "skip", "error"))
        self.skeleton: Skeleton = get(skeleton)
        if self.skeleton.name not in ("h36m", "mpi_inf_3dhp"):
            raise ArgumentError(
                f"skeleton is {skeleton!r}, expected 'h36m', the joint order of clips, or 'mpi_inf_3dhp'."
            )
        if window < 1:
            raise ArgumentError(f"window is {window}, expected at least 1 frame.")
        if frame_step < 1 or (frame_step > 1 and sampling != "centred"):
            raise ArgumentError(f"frame_step is {frame_step}, expected 1, or more with sampling 'centred'.")
        if stride is None and sampling == "centred":
            stride = 1
        elif stride is None:
            stride = max(1, window // 3) if split == "train" and sampling == "windows" else window
        if sampling == "chunks" and stride != window:
            raise ArgumentError(f"stride is {stride}, expected None with sampling 'chunks', which lie side by side.")
        if not 1 <= stride <= window:
            raise ArgumentError(f"stride is {stride}, expected 1 to {window}, the window.")
        if seed < 0:
            raise ArgumentError(f"seed is {seed}, expected at least 0.")
        if views is not None and views < 1:
            raise ArgumentError(f"views is {views}, expected at least 1 camera.")
        if not clips:
            raise DataError("clips is empty, expected at least one clip.")
        longest = max(clips, key=len)
        if len(longest) < window and sampling == "windows":
            raise DataError(
                f"no clip is as long as the window of {window} frames, the longest is {longest.key!r} with "
                f"{len(longest)}; choose a window of at most {len(longest)} frames."
            )

        self.clips = [clip.centred() for clip in clips] if recentre else list(clips)
        self.split, self.window, self.stride, self.target, self.seed = split, window, stride, target, seed
        self.sampling, self.frame_step, self.mirrored = sampling, frame_step, mirrored
        self.subjects = tuple(subjects) if subjects is not None else tuple(sorted({c.subject for c in clips}))
        self.actions = tuple(actions) if actions is not None else tuple(sorted({c.action for c in clips}))
        self._labels = [
            (_index("subjects", self.subjects, clip.subject), _index("actions", self.actions, clip.action))
            for clip in clips
        ]

        self._windows: list[tuple[int, int, int]] = []  # (sequence, start, first frame of the window to count)
        poses, inputs, intrinsics = [], [], []
        self._sequences: list[tuple[int, int, int, int]] = []  # (clip, view, first frame in the stores, frames)
        rigs = self._rigs(cameras, views)
        offset = 0
        for c, clip in track(list(enumerate(self.clips)), "2D detections", progress):
            spans = self._spans(clip, short_clips)
            if not spans:
                continue
            for v, camera in enumerate(rigs[c]):
                pose, seen, k = _observe(clip, camera, v, detections, seed)
                pose, seen = (convert(x, "h36m", self.skeleton.name) for x in (pose, seen))
                self._windows += [(len(self._sequences), start, fresh) for start, fresh in spans]
                self._sequences.append((c, v, offset, len(clip)))
                offset += len(clip)
                poses.append(pose)
                inputs.append(seen)
                intrinsics.append(k)
        self._pose = torch.from_numpy(np.concatenate(poses))  # [N, 17, 3] camera space, metres
        self._input = torch.from_numpy(np.concatenate(inputs))  # [N, 17, 3]
        self._intrinsics = torch.from_numpy(np.stack(intrinsics))  # [sequences, 4]

    def _rigs(self, cameras: Cameras | None, views: int | None) -> list[Sequence[Camera]]:
        """The cameras of each clip."""
        if cameras is None:
            names = _RIGS[self.split]
            order = {s: i for i, s in enumerate(sorted({c.subject for c in self.clips}))}
            rigs: list[Sequence[Camera]] = [h36m_cameras(names[order[c.subject] % len(names)]) for c in self.clips]
        elif callable(cameras):
            rigs = [cameras(i, clip) for i, clip in enumerate(self.clips)]
        else:
            if len(cameras) != len(self.clips):
                raise ArgumentError(f"cameras has {len(cameras)} entries, expected {len(self.clips)}, one per clip.")
            rigs = list(cameras)
        for clip, rig in zip(self.clips, rigs, strict=True):
            if len(rig) < (views or 1):
                raise ArgumentError(f"clip {clip.key!r} has {len(rig)} cameras, expected at least {views or 1}.")
        return [rig[:views] for rig in rigs]

    def _spans(self, clip: Clip, short_clips: str) -> list[tuple[int, int]]:
        """(start, first frame of the window that counts) of a clip's windows."""
        frames, window = len(clip), self.window
        if self.sampling == "centred":
            before = window // 2 * self.frame_step
            stride = self.stride if self.split == "train" else 1
            return [(centre - before, window // 2) for centre in range(0, frames, stride)]
        if self.sampling == "chunks" and self.split == "train":
            count = -(-frames // window)
            return [(-((count * window - frames) // 2) + i * window, 0) for i in range(count)]
        if frames < window:
            if short_clips == "error":
                raise DataError(
                    f"clip {clip.key!r} has {frames} frames, fewer than the window of {window}; choose a shorter "
                    "window, or short_clips 'pad' or 'skip'."
                )
            return [(0, 0)] if short_clips == "pad" else []
        starts = list(range(0, frames - window + 1, self.stride))
        if self.split == "train":
            return [(start, 0) for start in starts]
        if starts[-1] + window < frames:
            starts.append(frames - window)
        ends = [0] + [start + window for start in starts[:-1]]
        return [(start, max(0, end - start)) for start, end in zip(starts, ends, strict=True)]

    def __len__(self) -> int:
        return len(self._windows) * (2 if self.mirrored else 1)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        index = range(len(self))[index]  # negative indices, and an IndexError past the end
        mirror, index = divmod(index, len(self._windows))
        sequence, start, fresh = self._windows[index]
        clip, view, offset, frames = self._sequences[sequence]
        wanted = start + self.frame_step * torch.arange(self.window)
        where = offset + wanted.clamp(0, frames - 1)
        pose, seen = self._pose[where], self._input[where]
        k = self._intrinsics[sequence]
        root = pose[:, self.skeleton.root, 2].clone()
        subject, action = self._labels[clip]
        sample = {
            "input": seen,
            "target": to_image_space(pose, k, self.target, root=self.skeleton.root),
            "weight": self._weight(wanted, frames, fresh),
            "root_depth": root,
            "intrinsics": k.clone(),
            "factor": root * (1000 / k[0]),
            "camera_pose": pose * 1000,
            "subject": torch.tensor(subject),
            "action": torch.tensor(action),
            "clip": torch.tensor(clip),
            "view": torch.tensor(view),
            "start": torch.tensor(start),
        }
        if mirror:
            single = {key: sample[key][None] for key in ("input", "target", "weight")}
            sample |= {k: v[0] for k, v in flip_batch(single, torch.tensor([True]), self.skeleton).items()}
        return sample

    def _weight(self, wanted: Tensor, frames: int, fresh: int) -> Tensor:
        """`[T, J]` weights of a window whose frames are `wanted`, in a clip of so many frames."""
        weight = torch.ones(self.window, self.skeleton.num_joints)
        if self.split == "train" and self.sampling != "windows":
            return weight  # repeated frames count like others in the published losses
        weight[:fresh] = 0
        if self.sampling == "centred":
            weight[fresh + 1 :] = 0
        weight[wanted >= frames] = 0
        return weight

    def statistics(self) -> dict[str, Tensor]:
        """Mean and standard deviation of every coordinate over all frames of all views: "input_mean" and "input_std"
        `[J, 2]`, "target_mean" and "target_std" `[J, 3]`; what SimpleBaseline standardises by. A frame counts once,
        however many windows it is in, and not mirrored. For a target that depends on a window's other frames ("global",
        in which the depth is relative to the first root), a sequence is taken as one window."""
        targets = [
            to_image_space(self._pose[offset : offset + frames], k, self.target, root=self.skeleton.root)
            for (_, _, offset, frames), k in zip(self._sequences, self._intrinsics, strict=True)
        ]
        out = {}
        for key, values in (("input", self._input[..., :2]), ("target", torch.cat(targets))):
            out |= {f"{key}_mean": values.double().mean(0).float(), f"{key}_std": values.double().std(0).float()}
        return out


def _index(argument: str, names: tuple[str, ...], name: str) -> int:
    if name not in names:
        raise ArgumentError(f"{argument} does not list {name!r} of the clips, expected all of them.")
    return names.index(name)


def _observe(
    clip: Clip, camera: Camera, view: int, detections: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a camera sees: pose `[T, 17, 3]` in its frame, network input `[T, 17, 3]`, intrinsics `[4]`; float32."""
    points = camera.to_camera(clip.positions)
    nearest = points[..., 2].min()
    if not nearest >= _NEAREST:
        raise DataError(
            f"clip {clip.key!r} comes within {nearest:.2f} m of the image plane of camera {camera.id}, expected at "
            f"least {_NEAREST} m; leave the clip out, or pass cameras farther away."
        )
    k = camera.screen_intrinsics()
    if detections == "exact":
        # Not Camera.project: that clamps far outside of the image, the target does not.
        screen = points[..., :2] / points[..., 2:] * k[:2] + k[2:]
        confidence = np.ones(points.shape[:-1])
    else:
        # Keyed by name, so a clip looks the same whatever else is in the set, and in whatever order it is prepared.
        rng = np.random.default_rng([seed, zlib.crc32(clip.key.encode()), view])
        pixels = camera.project(points)
        keypoints, confidence, _ = simulate_detections(points, pixels, camera, rng, fps=clip.fps)
        screen = normalize_screen(keypoints, camera.width, camera.height)
    seen = np.concatenate([screen, confidence[..., None]], axis=-1)
    return points.astype(np.float32), seen.astype(np.float32), k.astype(np.float32)
