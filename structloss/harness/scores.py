"""What is scored on held-out windows: the measures of the table, breakdowns, and the protocol's own numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from ..backbones import Backbone
from ..data.image_space import relative
from ..data.protocols import PROTOCOLS
from ..metrics import LIMBS, MPJPE, NMPJPE, PAMPJPE, H3WBScore, MPIINF3DHPScore, PerAction, PerJoint
from ..metrics._once import computed_once
from ..metrics.evaluation import Evaluation
from ..metrics.measures import MEASURES, Measure, measure
from ..skeletons import Skeleton
from .videos import WholeVideos

__all__ = [
    "Compared",
    "Evaluation",
    "Scored",
    "Scores",
    "compared",
    "depths_of",
    "frames_of_videos",
    "kept",
    "scoring",
    "validation_metrics",
    "with_all_joints",
]


@dataclass(frozen=True)
class Compared:
    """A batch beside what a network predicts of it: the frames and joints that it predicts.

    Attributes:
        prediction: `[B, T, J, 3]`, in the space of the target.
        batch: the batch with those frames and joints alone.
        poses, target: `[B, T, J, 3]`, mm, relative to the pelvis.
        weight: `[B, T, J]`; a frame whose pelvis has no weight has none: there is nothing to measure from.
    """

    prediction: Tensor
    batch: dict[str, Tensor]
    poses: Tensor
    target: Tensor
    weight: Tensor

    def update(self, positions: MetricCollection, order: MetricCollection) -> None:
        """Add it to the collections of :func:`validation_metrics`.

        The depth order is scored as predicted: the conversion to mm multiplies each frame by its true scale, and the
        order over frames would come from that.
        """
        positions.update(self.poses, self.target, self.weight)
        order.update(self.prediction, self.batch["target"], self.batch["weight"])

    def of_all_joints(self, module: Scored, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """:func:`with_all_joints` of it, the tensors themselves where the network predicts all joints."""
        if self.poses.shape[-2] == batch["weight"].shape[2]:
            return self.poses, self.target, self.weight
        return with_all_joints(module, self.poses, batch)


@contextmanager
def scoring() -> Iterator[None]:
    """For the scoring of a batch: what several metrics need of it is computed once, and by one thread.

    Metrics are hundreds of operations on small tensors. A second thread would wait for its share of each most of the
    time, and burn a core waiting.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), computed_once():
            yield
    finally:
        torch.set_num_threads(threads)


class Scored(Protocol):
    """What scoring asks of a lifting module: its network, and the skeleton of its poses."""

    @property
    def model(self) -> Backbone: ...

    @property
    def skeleton(self) -> Skeleton: ...


class _Measuring(Scored, Protocol):
    """And what its predictions are in mm."""

    @property
    def root(self) -> str: ...

    def matched(self, batch: dict[str, Tensor]) -> dict[str, Tensor]: ...

    def to_millimetres(self, prediction: Tensor, batch: dict[str, Tensor]) -> Tensor: ...

    def measured(self, prediction: Tensor, batch: dict[str, Tensor]) -> Tensor: ...


_OF_VIDEOS = {"mpjve"}  # measured along whole videos, by WholeVideos


def validation_metrics(skeleton: str, prefix: str) -> tuple[MetricCollection, MetricCollection]:
    """The measures that are computed of batches at every validation: of root-relative poses in mm, and in the space of
    the target.

    Args:
        skeleton: of the poses.
        prefix: of the names that they are logged under, such as "val/".
    """

    def collection(space: str) -> MetricCollection:
        chosen = [row for row in MEASURES.values() if row.validation == space and row.key not in _OF_VIDEOS]
        return MetricCollection({row.key: row.make(skeleton) for row in chosen}, prefix=prefix, compute_groups=False)

    return collection("millimetres"), collection("target")


class Scores:
    """Adds up what an :class:`Evaluation` holds besides the module's own metrics; under DDP over all processes.

    Args:
        body: the skeleton.
        actions: names of the batches' action numbers.
        subjects: names of the batches' subject numbers.
        protocol: name in :data:`~structloss.data.protocols.PROTOCOLS`.
        device: where batches are.
        root: what the published measures make of the predicted root, one of :data:`structloss.harness.roots.ROOTS`.
        temporal: whether frames that follow each other in a view do so in time.
        repeats: whether the published measures lay windows end to end, see :class:`WholeVideos`.
        tested: what is scored, see :class:`Evaluation`.
    """

    def __init__(
        self,
        body: Skeleton,
        actions: Sequence[str],
        subjects: Sequence[str] = (),
        protocol: str = "subjects",
        device: torch.device | str = "cpu",
        root: str = "subtracted",
        temporal: bool = True,
        repeats: bool = False,
        tested: str = "test",
    ) -> None:
        self.body, self.rules, self.root, self.temporal = body, PROTOCOLS[protocol].score, root, temporal
        self.repeats, self.tested = repeats, tested
        self.actions, self.subjects = tuple(actions), tuple(subjects)
        groups = [f"{subject}\n{action}" for subject in self.subjects or ("",) for action in self.actions]
        self.by_joint = PerJoint(MPJPE(), joints=body.num_joints).to(device)
        names = ("p1", "p2", "p3")
        self.by_action = {
            name: PerAction(metric, groups).to(device)
            for name, metric in zip(names, (MPJPE(), PAMPJPE(), NMPJPE()), strict=True)
        }
        # P2 moves poses where they fit best, so that only a root set to 0 makes a difference.
        every = (MPJPE, PAMPJPE, NMPJPE)
        again = every if repeats else {"kept": (MPJPE, NMPJPE), "zeroed": every}.get(root, ())
        self.published = self.by_action | {
            name: PerAction(kind(), groups).to(device)
            for name, kind in zip(names, (MPJPE, PAMPJPE, NMPJPE), strict=True)
            if kind in again
        }
        self.videos = WholeVideos(len(groups)).to(device)
        self.videos_as_published = WholeVideos(len(groups), repeats).to(device) if again else self.videos
        self.single = True  # whether no window has had more than one frame to score
        chosen = [row for row in MEASURES.values() if row.metric and not row.validation]
        self.predicted = _Measured(chosen, body, torch.device(device))
        self.true = _Measured([row for row in chosen if row.group in _OF_SKELETONS], body, torch.device(device))
        self.own: Any = None
        if self.rules == "mpi_inf_3dhp":
            self.own = MPIINF3DHPScore(sequences=tuple(subjects)).to(device)
        elif self.rules == "h3wb":
            self.own = H3WBScore().to(device)

    def update(self, module: _Measuring, compared: Compared, batch: dict[str, Tensor]) -> None:
        """Add a batch and what the module makes of it. Call it within :func:`scoring`."""
        group = batch["action"]
        if self.subjects:
            group = group + len(self.actions) * batch["subject"]
        for metric in self.by_action.values():
            metric.update(compared.poses, compared.target, compared.weight, action=group)
        as_published, again = compared.poses, compared.weight
        if self.root != "subtracted":
            as_published = module.measured(compared.prediction, compared.batch)
        if self.repeats and "weight_again" in batch:
            again = _from_pelvis(module, again + module.model.match(batch["weight_again"]))
        for name, metric in self.published.items():
            if metric is not self.by_action[name]:
                metric.update(as_published, compared.target, again, action=group)
        poses, target, weight = compared.of_all_joints(module, batch)
        if self.temporal:
            place = {"action": group, **frames_of_videos(module, batch)}
            self.single = self.single and bool((weight > 0).any(-1).sum(-1).le(1).all())
            depth = depths_of(module, compared, batch) if self.single else None
            self.videos.update(poses - target, weight, depth, **place)
            if self.videos_as_published is not self.videos:
                error = _of_all_joints(module, as_published, batch, math.nan) - target
                weights = _of_all_joints(module, again, batch, 0.0)
                self.videos_as_published.update(error, weights, **place, window=batch["start"])
        self.by_joint.update(poses, target, weight)
        views = batch["clip"] * 1000 + batch["view"]
        self.predicted.update(poses, target, weight, views)
        self.true.update(target, None, weight, views)
        if self.rules == "mpi_inf_3dhp":
            valid = (weight > 0).all(-1)
            self.own.update(poses, target, sequence=batch["subject"], valid=valid)
        elif self.rules == "h3wb":
            self.own.update(poses, target, weight)

    def compute(self, metrics: dict[str, float]) -> Evaluation:
        """All of it, and the module's own metrics."""
        videos = _computed(self.videos, self.body.num_joints) if self.temporal else None
        by_action, means, by_subject = self._as_published(videos)
        protocol = means
        if self.own is not None:
            protocol = {name: float(value) for name, value in self.own.compute().items()}
        plain = {
            "mpjpe": _sums(self.by_action["p1"], self.places),
            "pa_mpjpe": _sums(self.by_action["p2"], self.places),
        }
        if videos is not None:
            _, steps, order, _ = videos
            # Neighbours in time are those of the video, also across the borders of windows.
            metrics = metrics | {"mpjve": float(steps)}
            if not order.isnan():
                metrics["depth_order_frames"] = float(order)
        else:
            metrics = metrics | dict.fromkeys(("mpjve", "depth_order_frames"), math.nan)
        found = self.predicted.compute()
        of_skeletons = {key: value for key, value in found.items() if measure(key).group in _OF_SKELETONS}
        return Evaluation(
            metrics=metrics | {key: value for key, value in found.items() if key not in of_skeletons},
            per_joint=self.by_joint.compute().tolist(),
            per_action=self._named(plain["mpjpe"]),
            per_action_pa=self._named(plain["pa_mpjpe"]),
            protocol=protocol,
            structure=of_skeletons,
            truth=self.true.compute(),
            by_action=by_action,
            by_subject=self._by_subject(plain, by_subject),
            tested=self.tested,
            repeats=self.repeats,
            root=self.root,
        )

    def _as_published(
        self, videos: _Videos | None
    ) -> tuple[dict[str, dict[str, float]], dict[str, float], dict[str, dict[str, float]]]:
        """P1, P2, P3 and MPJVE of each action, their means over the actions, and over the actions of each subject, from
        what the videos come to."""
        parts = {name: _sums(metric, self.places) for name, metric in self.published.items()}
        if videos is not None and self.videos_as_published is not self.videos:
            videos = _computed(self.videos_as_published, self.body.num_joints)
        parts["mpjve"] = torch.zeros(2, *self.places) if videos is None else _speeds(videos, self.places)
        of_actions = {name: self._named(sums, every=True) for name, sums in parts.items()}
        scored = self._named(parts["p1"])
        by_action = {action: {name: of[action] for name, of in of_actions.items()} for action in scored}
        means = {name: _mean([found[name] for found in by_action.values()]) for name in parts}
        by_subject = {}
        for number, subject in enumerate(self.subjects):
            if parts["p1"][1, number].any():
                values = {name: (sums[0, number] / sums[1, number]).tolist() for name, sums in parts.items()}
                by_subject[subject] = {name: _mean(of) for name, of in values.items()}
        return by_action, means, by_subject

    @property
    def places(self) -> tuple[int, int]:
        """How many subjects there are, and actions."""
        return max(1, len(self.subjects)), len(self.actions)

    def _named(self, sums: Tensor, every: bool = False) -> dict[str, float]:
        """Value of each action from sums `[2, S, A]`; without those that have no frame unless `every` is set."""
        total, count = sums.sum(1)
        values = (total / count).tolist()
        return {name: x for name, x, n in zip(self.actions, values, count.tolist(), strict=True) if every or n > 0}

    def _by_subject(
        self, plain: dict[str, Tensor], published: dict[str, dict[str, float]]
    ) -> dict[str, dict[str, float]]:
        """Of each scored subject: what its frames come to, and the protocol's numbers."""
        if self.rules == "mpi_inf_3dhp":
            sequences = self.own.breakdown()["sequences"]
            own = {name: {key: of[key] for key in ("pck", "auc")} for name, of in sequences.items()}
        else:
            own = {} if self.own is not None else published
        found = {}
        for number, subject in enumerate(self.subjects):
            sums = {name: of[:, number].sum(-1) for name, of in plain.items()}
            if sums["mpjpe"][1] > 0:
                pooled = {name: float(total / count) for name, (total, count) in sums.items()}
                found[subject] = pooled | own.get(subject, {})
        return found


def _sums(metric: PerAction, places: tuple[int, int]) -> Tensor:
    """What a metric adds up, and by what that is divided, of every subject and action: `[2, S, A]`, float64, of all
    processes."""
    with metric.sync_context(dist_sync_fn=metric.dist_sync_fn):
        return torch.stack([metric.factor * metric.total, metric.count]).reshape(2, *places).cpu()


_Videos = tuple[Tensor, Tensor, Tensor, Tensor]  # what `WholeVideos.compute` returns


def _speeds(videos: _Videos, places: tuple[int, int]) -> Tensor:
    """The same of the velocity error, by frames of videos."""
    value, _, _, frames = videos
    value, frames = value.reshape(places).cpu(), frames.reshape(places).cpu()
    return torch.stack([torch.where(frames > 0, value * frames, 0.0), frames])


def _computed(videos: WholeVideos, joints: int) -> _Videos:
    videos.pad(joints)
    return videos.compute()


def _mean(values: Sequence[float]) -> float:
    """Of the numbers among them: an action whose videos have a single frame has no steps."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


_OF_SKELETONS = ("structure", "limb")  # groups that true poses are measured by too


class _Measured:
    """The metrics of some measures, of the predicted poses or of the true ones."""

    def __init__(self, rows: Iterable[Measure], body: Skeleton, device: torch.device) -> None:
        self.metrics: dict[str, Metric] = {row.key: row.make(body.name).to(device) for row in rows}
        self.parts = {"limbs": LIMBS, "hinges": tuple(hinge.name for hinge in body.hinges)}

    def update(self, pose: Tensor, target: Tensor | None, weight: Tensor, views: Tensor) -> None:
        """Add poses `[B, T, J, 3]`; without a target, to those metrics that need none."""
        for metric in self.metrics.values():
            if target is None and getattr(metric, "needs_target", True):
                continue
            extra = {"sequence": views} if getattr(metric, "sequences", False) else {}
            metric.update(pose, target, weight, **extra)

    def compute(self) -> dict[str, float]:
        """Key, or KEY/PART, -> number, of the metrics that were given anything."""
        found: dict[str, float] = {}
        for key, metric in self.metrics.items():
            if metric.update_called:
                parts = MEASURES[key].parts
                names = [f"{key}/{part}" for part in self.parts[parts]] if parts else [key]
                found |= dict(zip(names, metric.compute().reshape(-1).tolist(), strict=True))
        return found


def kept(module: Scored, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the frames and of the joints that the network predicts of clips `[B, T, J, ...]`."""
    frames, joints = clip.shape[1:3]
    every = torch.arange(frames * joints, device=clip.device).reshape(1, frames, joints)
    matched = module.model.match(every)[0]
    return matched[:, 0] // joints, matched[0] % joints


def with_all_joints(module: Scored, poses: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction and target relative to the pelvis, `[B, T, J, 3]`, and weight, for all joints of the skeleton.

    What the network doesn't predict is NaN of weight 0, and a frame whose pelvis has no weight has none.
    """
    pelvis = list(module.skeleton.pelvis)
    frames, joints = kept(module, batch["weight"])
    target, weight = batch["camera_pose"][:, frames], batch["weight"][:, frames]
    weight = _of_all_joints(module, weight[..., joints], batch, 0.0)
    poses = _of_all_joints(module, poses, batch, math.nan)
    return relative(poses, pelvis), relative(target, pelvis), _from_pelvis(module, weight)


def compared(module: _Measuring, prediction: Tensor, batch: dict[str, Tensor]) -> Compared:
    """A batch beside what a module predicts of it, in the space of the target."""
    matched, pelvis = module.matched(batch), list(module.skeleton.pelvis)
    poses = relative(module.to_millimetres(prediction, matched), pelvis)
    target = relative(matched["camera_pose"], pelvis)
    return Compared(prediction, matched, poses, target, _from_pelvis(module, matched["weight"]))


def _from_pelvis(module: Scored, weight: Tensor) -> Tensor:
    """Weights `[B, T, J]` of frames, 0 where the pelvis has none: there is nothing to measure from."""
    known = (weight[..., list(module.skeleton.pelvis)] > 0).all(-1, keepdim=True)
    return torch.where(known, weight, 0.0)


def frames_of_videos(module: Scored, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """`video` `[B]` and `frame` `[B, T]`, as :class:`~structloss.harness.videos.WholeVideos` takes them, of the frames
    that the network predicts."""
    frames, _ = kept(module, batch["weight"])
    return {"video": batch["clip"] * 1000 + batch["view"], "frame": batch["start"][:, None] + frames}


def depths_of(module: Scored, compared: Compared, batch: dict[str, Tensor]) -> Tensor:
    """Predicted and true depth in the space of the target, `[B, T, J, 2]`, for all joints of the skeleton."""
    both = torch.stack([compared.prediction[..., 2], compared.batch["target"][..., 2]], -1)
    return _of_all_joints(module, both, batch, math.nan)


def _of_all_joints(module: Scored, values: Tensor, batch: dict[str, Tensor], missing: float) -> Tensor:
    """`[B, T, J, ...]` of what the network predicts, and a number for joints that it doesn't."""
    _, joints = kept(module, batch["weight"])
    every = batch["weight"].shape[2]
    if len(joints) == every:
        return values
    return values.new_full((*values.shape[:2], every, *values.shape[3:]), missing).index_copy(2, joints, values)
