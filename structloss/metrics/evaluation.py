"""What an evaluation found, as plain data: the harness fills it in, reports show it."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ROOTS", "Evaluation"]

#: What a published evaluation makes of the predicted root -> what that means, in words
ROOTS = {
    "kept": "the predicted root is kept, and measured against a true root of 0",
    "zeroed": "the predicted root is set to 0, the other joints stay where they are",
    "subtracted": "the predicted root is subtracted from every joint",
}


@dataclass
class Evaluation:
    """Results over all held-out windows. Keys are those of :data:`structloss.metrics.measures.MEASURES` but for the
    protocol's.

    Attributes:
        metrics: of the groups "accuracy" and "hypotheses"; for a network that is being pre-trained and predicts no
            poses, "loss".
        per_joint: MPJPE of each joint of the skeleton, mm, relative to the pelvis; NaN for one that the network doesn't
            predict.
        per_action: MPJPE of each action, mm, relative to the pelvis, the mean over its frames.
        per_action_pa: PA-MPJPE likewise.
        protocol: the numbers that are published for the data set: "p1", "p2", "p3" (MPJPE, PA-MPJPE and N-MPJPE,
            mm) and "mpjve" (mm per frame), means over actions; or "pck", "auc", "mpjpe" (MPI-INF-3DHP), or H3WB's six.
        structure: of the predicted skeletons, of the groups "structure" and "limb": "lse", ... (mm),
            "illegal_angle_rate" (share); and part by part "symmetry/LIMB", "spread/LIMB" (mm) for the limbs of
            `structloss.metrics.LIMBS` and "illegal/HINGE" (share). Spreads are over whole views.
        truth: the same of the true poses, as far as it needs no target.
        by_action: "p1", "p2", "p3" (mm) and "mpjve" (mm per frame) of each action, as published evaluations measure and
            average them: positions by frame, velocities by video and its length, with the predicted root as `root`
            says. `test.json` calls it "per_action", and what is `per_action` here "per_action_mpjpe".
        by_subject: of each scored subject, "mpjpe" and "pa_mpjpe" (mm, pooled over its frames, relative to the pelvis)
            and the protocol's numbers: "p1", "p2", "p3", "mpjve", means over the subject's actions, or "pck" and "auc"
            (%). `test.json` calls it "per_subject".
        tested: what was scored: "test", the held-out subjects, or "train", those that are trained on.
        repeats: whether the protocol's measures lay windows end to end, so that frames of a video's last window count
            twice where it overlaps the one before, as MixSTE's evaluation has it.
        root: what these and the protocol's measures make of the predicted root, one of
            :data:`structloss.harness.roots.ROOTS`.
    """

    metrics: dict[str, float]
    per_joint: list[float] = field(default_factory=list)
    per_action: dict[str, float] = field(default_factory=dict)
    per_action_pa: dict[str, float] = field(default_factory=dict)
    protocol: dict[str, float] = field(default_factory=dict)
    structure: dict[str, float] = field(default_factory=dict)
    truth: dict[str, float] = field(default_factory=dict)
    by_action: dict[str, dict[str, float]] = field(default_factory=dict)
    by_subject: dict[str, dict[str, float]] = field(default_factory=dict)
    tested: str = "test"
    repeats: bool = False
    root: str = "subtracted"
