"""Score a trained module on held-out windows, with the breakdowns and the clips that reports show."""

from __future__ import annotations

import bisect
import inspect
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data import PoseWindows
from ..data._progress import track
from ..data.image_space import relative
from ..errors import CheckpointError
from ..metrics import (
    BSLE,
    LIMBS,
    LLE,
    LSE,
    MPJPE,
    PAMPJPE,
    BoneLengthSpread,
    IllegalAngleRate,
    LimbSymmetry,
    PerAction,
    PerJoint,
)
from ..skeletons import Skeleton
from .checkpoint_io import SafeCheckpointIO
from .lifting import REPOSE_OBJECTIVE, LiftingModule

__all__ = ["Evaluation", "PredictedClip", "evaluate", "load_trained", "poses_of", "predict_clips"]

_BATCH = 64  # windows predicted at a time for a clip


@dataclass
class Evaluation:
    """Results over all held-out windows.

    Attributes:
        metrics: the module's test metrics (mm, mm per frame, shares); for a network that is being pre-trained and
            predicts no poses, "loss".
        per_joint: MPJPE of each joint of the skeleton, mm, relative to the pelvis; NaN for one that the network doesn't
            predict.
        per_action: MPJPE of each action, mm, relative to the pelvis, the mean over its frames.
        per_action_pa: PA-MPJPE likewise.
        structure: of the predicted skeletons: "lse", "bsle", "lle", "bone_length_spread" (mm), "illegal_angle_rate"
            (share); and part by part "symmetry/LIMB", "spread/LIMB" (mm) for the limbs of `structloss.metrics.LIMBS`
            and "illegal/HINGE" (share). Spreads are over whole views.
        truth: the same of the true poses, as far as it needs no target.
    """

    metrics: dict[str, float]
    per_joint: list[float] = field(default_factory=list)
    per_action: dict[str, float] = field(default_factory=dict)
    per_action_pa: dict[str, float] = field(default_factory=dict)
    structure: dict[str, float] = field(default_factory=dict)
    truth: dict[str, float] = field(default_factory=dict)


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


def load_trained(path: str | os.PathLike[str]) -> tuple[LiftingModule, dict[str, int]]:
    """The module of a training checkpoint, and the epoch and step that it was saved at.

    Nothing but the checkpoint is read: not the file that the training started from.

    Raises:
        MissingFileError, CheckpointError: no such file, unreadable, no training checkpoint, or not of the network that
            it says.
    """
    checkpoint = SafeCheckpointIO().load_checkpoint(path)
    stored = checkpoint.get("hyper_parameters")
    if not isinstance(stored, Mapping) or "backbone" not in stored or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} doesn't say which network it is of, expected one written by structloss fit.")
    known = inspect.signature(LiftingModule.__init__).parameters
    module = LiftingModule(**{**{key: value for key, value in stored.items() if key in known}, "init_from": None})
    module.on_load_checkpoint(checkpoint)
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} doesn't fit its own description of the network: {reason}.") from error
    return module.eval(), {"epoch": int(checkpoint.get("epoch", 0)), "step": int(checkpoint.get("global_step", 0))}


def objective_of(module: LiftingModule) -> dict[str, float]:
    """Loss term -> lambda: what was learned, or else what was set."""
    learned = {name: float(value) for name, value in module.loss.learned_weights().items()}
    return learned or {name: float(value) for name, value in (module.hparams.objective or REPOSE_OBJECTIVE).items()}


def poses_of(module: LiftingModule, batch: dict[str, Tensor]) -> Tensor:
    """Predicted camera-space poses of a batch, `[B, T, J, 3]`, mm."""
    return module.predict_step(batch, 0)


@torch.no_grad()
def evaluate(
    module: LiftingModule, batches: Iterable[dict[str, Tensor]], actions: Sequence[str], *, progress: str = ""
) -> Evaluation:
    """Run the module over batches of :class:`structloss.data.PoseWindows` and score them.

    Args:
        module: is switched to evaluation mode.
        batches: a validation or test loader.
        actions: names of the batches' action numbers.
        progress: label of a progress bar on a terminal; empty for none.
    """
    module.eval()
    batches = track(batches, progress, bool(progress))  # type: ignore[arg-type]
    if module.model.kind == "pretrain":
        losses = [module.loss(module.model.supervise(batch["input"].to(module.device), None))[0] for batch in batches]
        return Evaluation({"loss": float(torch.stack(losses).mean())})
    scores = module.test_metrics, module.test_order
    for metrics in scores:
        metrics.reset()
    body, device = module.skeleton, module.device
    by_joint = PerJoint(MPJPE(), joints=body.num_joints).to(device)
    by_action = [PerAction(metric, actions).to(device) for metric in (MPJPE(), PAMPJPE())]
    predicted, true = _Structure(body, device), _Structure(body, device)
    for batch in batches:
        batch = {key: value.to(device) for key, value in batch.items()}
        poses = module.score(batch, *scores)
        poses, target, weight = _with_all_joints(module, poses, batch)
        by_joint.update(poses, target, weight)
        for metric in by_action:
            metric.update(poses, target, weight, action=batch["action"])
        views = batch["clip"] * 1000 + batch["view"]
        predicted.update(poses, target, weight, views)
        true.update(target, None, weight, views)
    per_action, per_action_pa = (metric.per_action() for metric in by_action)
    return Evaluation(
        metrics={name.removeprefix("test/"): float(v) for metrics in scores for name, v in metrics.compute().items()},
        per_joint=by_joint.compute().tolist(),
        per_action=per_action,
        per_action_pa=per_action_pa,
        structure=predicted.compute(),
        truth=true.compute(),
    )


def _kept(module: LiftingModule, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the frames and of the joints that the network predicts of clips `[B, T, J, ...]`."""
    frames, joints = clip.shape[1:3]
    every = torch.arange(frames * joints, device=clip.device).reshape(1, frames, joints)
    matched = module.model.match(every)[0]
    return matched[:, 0] // joints, matched[0] % joints


def _with_all_joints(module: LiftingModule, poses: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction and target relative to the pelvis, `[B, T, J, 3]`, and weight, for all joints of the skeleton.

    What the network doesn't predict is NaN of weight 0, and a frame whose pelvis has no weight has none.
    """
    pelvis = list(module.skeleton.pelvis)
    frames, joints = _kept(module, batch["weight"])
    target, weight = batch["camera_pose"][:, frames], batch["weight"][:, frames]
    if len(joints) < target.shape[2]:
        poses = torch.full_like(target, torch.nan).index_copy(2, joints, poses)
        weight = torch.zeros_like(weight).index_copy(2, joints, weight[..., joints])
    known = (weight[..., pelvis] > 0).all(-1, keepdim=True)
    return relative(poses, pelvis), relative(target, pelvis), torch.where(known, weight, 0.0)


class _Structure:
    """The structural metrics, each as a mean and part by part."""

    def __init__(self, body: Skeleton, device: torch.device) -> None:
        name = body.name
        self.alone = {
            "lse": LSE(name),
            "illegal_angle_rate": IllegalAngleRate(name),
            "symmetry": LimbSymmetry(name),
            "illegal": IllegalAngleRate(name, reduction="hinges"),
        }
        self.compared = {"bsle": BSLE(name), "lle": LLE(name)}
        self.over_time = {
            "bone_length_spread": BoneLengthSpread(name, sequences=True),
            "spread": BoneLengthSpread(name, sequences=True, reduction="limbs"),
        }
        self.parts = {"symmetry": LIMBS, "spread": LIMBS, "illegal": tuple(hinge.name for hinge in body.hinges)}
        for metric in (*self.alone.values(), *self.compared.values(), *self.over_time.values()):
            metric.to(device)

    def update(self, pose: Tensor, target: Tensor | None, weight: Tensor, views: Tensor) -> None:
        for metric in (*self.alone.values(), *(self.compared.values() if target is not None else ())):
            metric.update(pose, target, weight)
        for metric in self.over_time.values():
            metric.update(pose, None, weight, sequence=views)

    def compute(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, metric in (self.alone | self.compared | self.over_time).items():
            if metric.update_called:
                value = metric.compute()
                names = [f"{name}/{part}" for part in self.parts[name]] if name in self.parts else [name]
                found |= dict(zip(names, value.reshape(-1).tolist(), strict=True))
        return found


def choose_views(dataset: PoseWindows, count: int) -> list[tuple[str, int]]:
    """Motions and cameras to look at: another action each time, as far as there are, and another camera."""
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
        count: how many clips; of different actions and cameras, as far as there are.
        frames: at most so many of each, from its beginning; of a data set of single poses, a tenth as many in all.
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
    poses, target, weight = _with_all_joints(module, poses_of(module, batch), batch)
    frames, _ = _kept(module, batch["weight"])
    scored = (weight > 0).any(-1)
    found = {
        "frames": batch["start"][:, None] + dataset.frame_step * frames,
        "input": batch["input"][:, frames],
        "target": target,
        "prediction": poses,
    }
    return {key: value[scored].cpu() for key, value in found.items()}
