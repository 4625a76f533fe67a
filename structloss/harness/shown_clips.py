"""Whole clips of held-out motion as trained networks see them: what players and figures show."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data import PoseWindows
from .evaluation import poses_of
from .lifting import LiftingModule
from .scores import kept, with_all_joints

__all__ = ["PredictedClip", "choose_views", "predict_clips"]

_BATCH = 64  # windows predicted at a time for a clip


@dataclass
class PredictedClip:
    """Some frames of one view, as networks see them.

    Attributes:
        motion: `subject/name`.
        action: what the person does.
        view: number of the camera; -1 where the frames are single poses.
        fps: frames per second; NaN where not known, or where the frames are single poses.
        frames: number of each frame in the view, `[F]`, or of each pose in the data set.
        input: `[F, J, 3]`: x', y' on the normalised screen, confidence.
        target: `[F, J, 3]`, mm, camera axes, relative to the pelvis.
        predictions: name -> `[F, J, 3]` likewise; NaN for joints that the network doesn't predict.
    """

    motion: str
    action: str
    view: int
    fps: float
    frames: Tensor
    input: Tensor
    target: Tensor
    predictions: dict[str, Tensor]


def choose_views(dataset: PoseWindows, count: int) -> list[tuple[str, int]]:
    """Motions and cameras to show: another action each time, as far as there are, and another camera."""
    views = dataset.store.views
    by_action: dict[str, list[str]] = {}
    for view in views:
        motions = by_action.setdefault(view.action, [])
        if view.motion not in motions:
            motions.append(view.motion)
    # The first motion of every action, then the second, ...; evenly spread where there are more than wanted.
    depth = max(map(len, by_action.values()))
    motions = [by_action[a][i] for i in range(depth) for a in sorted(by_action) if i < len(by_action[a])]
    first = motions[: max(count, len(by_action))]
    count = min(count, len(first))
    spread = [first[i * len(first) // count] for i in range(count)]
    cameras = {motion: [view.index for view in views if view.motion == motion] for motion in spread}
    return [(motion, cameras[motion][i % len(cameras[motion])]) for i, motion in enumerate(spread)]


@torch.no_grad()
def predict_clips(
    modules: Mapping[str, tuple[LiftingModule, PoseWindows]], *, count: int = 4, frames: int = 243
) -> list[PredictedClip]:
    """Whole clips of held-out motion, each as every network sees it.

    Args:
        modules: name -> trained module and the test windows to take its input from. Networks are shown together where
            their windows are cut from the same poses; those that predict no poses are left out.
        count: clips to show; of different actions and cameras, as far as there are.
        frames: of each clip at most, from its beginning; of a data set of single poses, a tenth as many in all.
    """
    clips: list[PredictedClip] = []
    for name, (module, dataset) in modules.items():
        if module.model.kind == "pretrain":
            continue
        module.eval()
        if dataset.store.temporal:
            present = {(view.motion, view.index) for view in dataset.store.views}
            known = dict.fromkeys((clip.motion, clip.view) for clip in clips)  # those that earlier networks showed
            wanted = [view for view in known if view in present] or choose_views(dataset, count)
            found = [_predict_clip(name, module, dataset, *view, frames) for view in wanted]
        else:
            found = [_predict_single(name, module, dataset, max(1, frames // 10))]
        for clip in filter(None, found):
            same = next((c for c in clips if _same(c, clip)), None)
            if same is not None:
                same.predictions |= clip.predictions
            else:
                clips.append(clip)
    return clips


def _same(a: PredictedClip, b: PredictedClip) -> bool:
    """Whether two clips are of the same poses."""
    if (a.motion, a.view) != (b.motion, b.view) or not torch.equal(a.frames, b.frames):
        return False
    return torch.allclose(a.target, b.target, atol=0.5, equal_nan=True)


def _predict_clip(
    name: str, module: LiftingModule, dataset: PoseWindows, motion: str, view: int, frames: int
) -> PredictedClip | None:
    order = {(v.motion, v.index): i for i, v in enumerate(dataset.store.views)}
    number = order[motion, view]

    def view_of(window: int) -> int:  # windows come view by view
        batch = dataset.batch([window])
        return order[dataset.motions[int(batch["clip"])], int(batch["view"])]

    windows = range(len(dataset))
    first, last = (bisect.bisect_left(windows, n, key=view_of) for n in (number, number + 1))
    parts: list[dict[str, Tensor]] = []
    while first < last and sum(len(part["frames"]) for part in parts) < frames:
        parts.append(_predict_windows(module, dataset, windows[first : min(first + _BATCH, last)]))
        first += _BATCH
    if not sum(len(part["frames"]) for part in parts):
        return None
    whole = {key: torch.cat([part[key] for part in parts])[:frames] for key in parts[0]}
    prediction = whole.pop("prediction")
    seen = dataset.store.views[number]
    return PredictedClip(motion, seen.action, view, seen.fps, **whole, predictions={name: prediction})


def _predict_single(name: str, module: LiftingModule, dataset: PoseWindows, frames: int) -> PredictedClip:
    windows = torch.linspace(0, len(dataset) - 1, min(frames, len(dataset))).long().tolist()
    parts = [(window, _predict_windows(module, dataset, [window])) for window in windows]
    whole = {key: torch.cat([part[key] for _, part in parts]) for key in ("input", "target", "prediction")}
    numbers = torch.tensor([window for window, part in parts for _ in part["frames"]])
    prediction = whole.pop("prediction")
    return PredictedClip("single poses", "", -1, math.nan, numbers, **whole, predictions={name: prediction})


def _predict_windows(module: LiftingModule, dataset: PoseWindows, windows: Sequence[int]) -> dict[str, Tensor]:
    """The frames that some windows score, one after the other, on the CPU."""
    batch = {key: value.to(module.device) for key, value in dataset.batch(windows).items()}
    poses, target, weight = with_all_joints(module, poses_of(module, batch), batch)
    frames, _ = kept(module, batch["weight"])
    scored = (weight > 0).any(-1)
    found = {
        "frames": batch["start"][:, None] + dataset.frame_step * frames,
        "input": batch["input"][:, frames],
        "target": target,
        "prediction": poses,
    }
    return {key: value[scored].cpu() for key, value in found.items()}
