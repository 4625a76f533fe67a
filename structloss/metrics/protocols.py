"""The published scores of MPI-INF-3DHP and H3WB, each as one object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, check_tensor
from ..skeletons import get
from ._checks import check_body, check_labels, prepare
from ._precision import Sums, sums
from .functional import mpjpe_values
from .grouped import _check_names
from .thresholds import AUC_THRESHOLDS, SCALES, hits

__all__ = ["H3WBScore", "MPIINF3DHPScore"]

_ACTIVITIES = (
    "Standing/Walking",
    "Exercising",
    "Sitting",
    "Reaching/Crouching",
    "On The Floor",
    "Sports",
    "Miscellaneous",
)

# The 14 joints that count in PCK and AUC; pelvis, spine and head do not.
_GROUPS = {
    "head": ("HeadTop",),
    "neck": ("Neck",),
    "shoulder": ("RShoulder", "LShoulder"),
    "elbow": ("RElbow", "LElbow"),
    "wrist": ("RWrist", "LWrist"),
    "hip": ("RHip", "LHip"),
    "knee": ("RKnee", "LKnee"),
    "ankle": ("RAnkle", "LAnkle"),
}


class MPIINF3DHPScore(Sums):
    """PCK, AUC and MPJPE on MPI-INF-3DHP's test set, as its evaluation code defines them.

    Poses are relative to the pelvis, without alignment or scaling. PCK: share of errors below 150 mm; AUC: its mean
    over 0, 5, ..., 150 mm, so at most 96.77 %; both over 14 joints and in per cent. MPJPE: over all 17 joints, the
    pelvis's exact 0 included, in mm. All valid frames are pooled. A NaN error counts as wrong.

    >>> import torch
    >>> from structloss.metrics import MPIINF3DHPScore
    >>> score = MPIINF3DHPScore()
    >>> pose = torch.randn(2, 81, 17, 3)
    >>> score.update(pose, pose, sequence=torch.tensor([0, 5]))
    >>> {name: round(value.item(), 2) for name, value in score.compute().items()}["pck"]
    100.0

    Args:
        sequences: names of the sequences, in the order of the numbers that `update` takes.
        kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    passed: Tensor
    error: Tensor
    frames: Tensor

    def __init__(self, sequences: Sequence[str] = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6"), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sequences = _check_names("sequences", sequences)
        self._body = get("mpi_inf_3dhp")
        names = self._body.joint_names
        self._groups = {group: [names.index(joint) for joint in joints] for group, joints in _GROUPS.items()}
        # One cell per sequence and activity (the first: unknown), so that every breakdown is a sum of them.
        cells = (len(self.sequences), 1 + len(_ACTIVITIES))
        joints = self._body.num_joints
        for name, shape in {
            "passed": (*cells, 2, joints),  # thresholds that each joint passed, of PCK's one and of AUC's 31
            "error": (*cells, joints),
            "frames": cells,
        }.items():
            self.add_state(name, default=sums(*shape), dist_reduce_fx="sum")

    def update(
        self,
        pred: Tensor,
        target: Tensor,
        *,
        sequence: Tensor,
        activity: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            pred, target: `[..., T, 17, 3]`, mm.
            sequence: integers, one per clip, `[...]`, or one per frame, `[..., T]`.
            activity: 1 to 7 as in the annotation, one per clip or frame; None where it is not known.
            valid: `[..., T]`, 0 or False leaves a frame out.

        Raises:
            ArgumentError: a wrong shape, or a number out of range.
            DtypeError: poses that are not floating point.
        """
        check_body(pred, self._body.name)
        weight = None
        if valid is not None:
            check_tensor("valid", valid)
            if valid.shape != pred.shape[:-2]:
                raise ArgumentError(f"valid has shape {list(valid.shape)}, expected {list(pred.shape[:-2])}.")
            weight = (valid != 0)[..., None]
        with torch.no_grad():
            root = self._body.root
            passed, _ = zip(
                *(hits(pred, target, weight, scale, True, None, root) for scale in SCALES),
                strict=True,
            )
            error, counted = mpjpe_values(pred, target, weight, root=root)
            frames = counted.shape[:-1]
            cell = check_labels("sequence", sequence, frames, len(self.sequences), error.device) * self.frames.shape[1]
            if activity is not None:
                one = check_labels("activity", activity, frames, 1 + len(_ACTIVITIES), error.device)
                if one.numel() and int(one.min()) < 1:
                    raise ArgumentError(f"activity has the value 0, expected 1 to {len(_ACTIVITIES)}.")
                cell = cell + one
            cell = cell.flatten()
            for state, new in (
                ("passed", torch.stack(passed, -2)),
                ("error", error),
                ("frames", counted[..., 0]),
            ):
                old = getattr(self, state)
                new = new.flatten(0, len(frames) - 1)
                setattr(self, state, old.flatten(0, 1).index_add(0, cell, new.to(old.dtype)).reshape(old.shape))

    def compute(self) -> dict[str, Tensor]:
        """Scores over all frames, float64 scalars: `pck`, `auc`, `mpjpe`, and PCK and AUC of each group of joints:
        `pck_head`, `auc_head`, `pck_neck`, ... NaN where nothing was scored."""
        return self._scores(self.passed.sum((0, 1)), self.error.sum((0, 1)), self.frames.sum())

    def breakdown(self) -> dict[str, dict[str, dict[str, float]]]:
        """The same scores, and the number of frames, of each sequence and of each activity with a scored frame:
        `{"sequences": {name: scores}, "activities": {name: scores}}`, of all processes."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            states = self.passed, self.error, self.frames
        found: dict[str, dict[str, dict[str, float]]] = {}
        for kind, axis, names in (("sequences", 0, self.sequences), ("activities", 1, (None, *_ACTIVITIES))):
            sums = [state.sum(1 - axis) for state in states]
            found[kind] = {
                name: {key: float(value) for key, value in self._scores(*parts).items()} | {"frames": float(parts[2])}
                for name, *parts in zip(names, *sums, strict=True)
                if name is not None and parts[2] > 0
            }
        return found

    def _scores(self, passed: Tensor, error: Tensor, frames: Tensor) -> dict[str, Tensor]:
        scored = [joint for joints in self._groups.values() for joint in joints]
        scores = {}
        for name, hit, thresholds in (("pck", passed[0], 1), ("auc", passed[1], len(AUC_THRESHOLDS))):
            share = 100 * hit / (thresholds * frames)
            scores[name] = share[scored].mean()
            scores |= {f"{name}_{group}": share[joints].mean() for group, joints in self._groups.items()}
        return {**scores, "mpjpe": error.mean() / frames}


class H3WBScore(Sums):
    """The six numbers of H3WB's benchmark, mm, without scaling or rotation; lower is better.

    `whole_body`, `body` (feet included), `face` and `hands` are relative to the pelvis, the middle of the hips;
    `face_nose_aligned` to the nose; `hands_wrist_aligned` to each hand's root, the mean of the left and right hand's
    errors (the root's exact 0 included).

    >>> import torch
    >>> from structloss.metrics import H3WBScore
    >>> score = H3WBScore()
    >>> score.update(torch.zeros(4, 133, 3), torch.ones(4, 133, 3))
    >>> sorted(score.compute())[:3]
    ['body', 'face', 'face_nose_aligned']

    Args:
        kwargs: those of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        body = get("h3wb")
        names = body.joint_names
        left, right, face = (names.index(n) for n in ("left_hand_root", "right_hand_root", "face_0"))
        every, hands = range(body.num_joints), range(left, body.num_joints)
        # number -> joints that must be there to align on, joints scored
        self._rows: dict[str, tuple[tuple[int, ...], range]] = {
            "whole_body": (body.pelvis, every),
            "body": (body.pelvis, range(face)),
            "face": (body.pelvis, range(face, left)),
            "hands": (body.pelvis, hands),
            "face_nose_aligned": ((names.index("nose"),), range(face, left)),
            "left": ((left,), range(left, right)),
            "right": ((right,), range(right, body.num_joints)),
        }
        for name in ("total", "count"):
            self.add_state(name, default=sums(len(self._rows)), dist_reduce_fx="sum")

    def update(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch: poses `[..., T, 133, 3]` (single frames: `[N, 133, 3]`), mm, and weight `[..., T, 133]`, >= 0,
        or None. A frame that lacks the joint to align on does not count in that number.

        Raises:
            ArgumentError: a wrong shape or weight.
            DtypeError: poses that are not floating point.
        """
        with torch.no_grad():
            pred, target, weight = prepare(pred, target, weight)
            check_body(pred, "h3wb")
            difference = pred - target
            sums = []
            for origin, joints in self._rows.values():
                aligned = difference[..., joints, :] - difference[..., origin, :].mean(-2, keepdim=True)
                w = weight[..., joints] * (weight[..., origin] > 0).all(-1, keepdim=True)
                error = torch.linalg.vector_norm(aligned, dim=-1)
                sums.append(torch.stack([torch.where(w > 0, w * error, 0.0).sum(), w.sum()]))
        self.total = self.total + torch.stack(sums)[:, 0]
        self.count = self.count + torch.stack(sums)[:, 1]

    def compute(self) -> dict[str, Tensor]:
        """The six numbers, float64 scalars; NaN where nothing was scored."""
        found = dict(zip(self._rows, self.total / self.count, strict=True))
        left, right = found.pop("left"), found.pop("right")
        return {**found, "hands_wrist_aligned": (left + right) / 2}
