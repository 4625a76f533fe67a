"""Protocols: who of a data set is trained on, who is scored, and by which rules the published figures were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ArgumentError, DataError, check_name
from ._words import some
from .store import PoseStore, View

__all__ = ["CMU_VAL_SUBJECTS", "PROTOCOLS", "Protocol", "held_out", "rules_of", "scored_subjects", "split"]

CMU_VAL_SUBJECTS = ("cmu03", "cmu35", "cmu127")
"""Held-out subjects of the real clips: walking, running and stunts of people whose other clips are not trained on."""


@dataclass(frozen=True)
class Protocol:
    """The rules of a data set.

    Attributes:
        name: what `source["protocol"]` of a :class:`~structloss.data.store.PoseStore` calls it.
        train, test: subjects; empty where they are chosen from those of the data.
        excluded: `subject/name` of motions that are not scored.
        tails: what becomes of test frames after the last whole window: "cover" or "drop", see
            :class:`~structloss.data.windows.PoseWindows`.
        score: how errors are measured and averaged: "h36m", "h36m-2.5d", "mpi_inf_3dhp", "h3wb" or "subjects".
        text: the rules in words.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    excluded: tuple[str, ...]
    tails: str
    score: str
    text: str

    def trains(self, view: View) -> bool:
        """Whether a view is trained on."""
        return view.subject in self.train

    def tests(self, view: View) -> bool:
        """Whether a view is scored."""
        # A clip that was cut from a motion is called MOTION@FRAME.
        return view.subject in self.test and view.motion.partition("@")[0] not in self.excluded


_H36M_TRAIN, _H36M_TEST = ("S1", "S5", "S6", "S7", "S8"), ("S9", "S11")

PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            "h36m",
            _H36M_TRAIN,
            _H36M_TEST,
            ("S11/Directions",),
            "cover",
            "h36m",
            "Human3.6M in camera space: train on S1, S5, S6, S7, S8, score every frame of S9 and S11 in all four "
            "cameras, root-relative; mean over the frames of each of 15 actions, then over the actions.",
        ),
        Protocol(
            "h36m-2.5d",
            (*_H36M_TRAIN, "train"),
            (*_H36M_TEST, "test"),
            ("S9/s_09_act_05_subact_02", "S9/s_09_act_10_subact_02", "S9/s_09_act_13_subact_01"),
            "drop",
            "h36m-2.5d",
            "Human3.6M in image space (MotionBERT): as h36m, but predictions are scaled to millimetres by the "
            "published factor and compared with the published poses, three motions of S9 are left out, and tails "
            "shorter than a window are not scored.",
        ),
        Protocol(
            "mpi_inf_3dhp",
            tuple(f"S{i}" for i in range(1, 9)),
            tuple(f"TS{i}" for i in range(1, 7)),
            (),
            "cover",
            "mpi_inf_3dhp",
            "MPI-INF-3DHP: train on S1 to S8, score the valid frames of TS1 to TS6, all frames pooled: MPJPE over 17 "
            "joints relative to the pelvis, PCK and AUC over 14.",
        ),
        Protocol(
            "h3wb",
            ("S1", "S5", "S6", "S7", "train"),
            ("S8", "test"),
            (),
            "cover",
            "h3wb",
            "H3WB: train on S1, S5, S6, S7, score S8: errors of body, face and hands relative to the pelvis, and of "
            "face and hands relative to nose and wrists.",
        ),
        Protocol(
            "subjects",
            (),
            (),
            (),
            "cover",
            "subjects",
            "Held-out subjects: the last quarter of the subjects by name, or those asked for; every frame is scored.",
        ),
    )
}
"""The protocols by name."""


def held_out(subjects: Sequence[str]) -> tuple[str, ...]:
    """Whom "subjects" holds out: :data:`CMU_VAL_SUBJECTS` if all are there, else the last quarter by name."""
    if set(CMU_VAL_SUBJECTS) <= set(subjects):
        return CMU_VAL_SUBJECTS
    return tuple(sorted(subjects)[-max(1, round(len(subjects) / 4)) :])


def scored_subjects(
    subjects: Sequence[str],
    val_subjects: Sequence[str] | None,
    source: str = "the data",
    motions: Sequence[str] = (),
) -> set[str]:
    """The subjects to score: those asked for, or those that "subjects" holds out.

    Args:
        subjects: all that there are.
        val_subjects: those asked for; None is :func:`held_out`.
        source: what they are of, for messages.
        motions: all that there are, `subject/name`, which may be asked for like subjects.

    Raises:
        ArgumentError: `val_subjects` that are not there.
    """
    for name in val_subjects or ():
        if name not in subjects and name not in motions:
            raise ArgumentError(f"val_subjects has {name!r}, expected subjects of {source}: {some(subjects, 12)}.")
    return set(held_out(subjects) if val_subjects is None else val_subjects)


def rules_of(store: PoseStore, protocol: str | None = None) -> Protocol:
    """The rules of one of :data:`PROTOCOLS`; None is the store's own.

    Raises:
        UnknownNameError: an unknown protocol.
    """
    return PROTOCOLS[check_name("protocol", protocol or store.source.get("protocol", "subjects"), PROTOCOLS)]


def split(
    store: PoseStore, protocol: str | None = None, val_subjects: Sequence[str] | None = None
) -> tuple[PoseStore, PoseStore]:
    """What is trained on, and what is scored, on the arrays of the store.

    One of the two may come out empty: a file with a data set's test subjects only is good for scoring. The joints'
    order makes no difference, so a store whose joints were converted is split like any other.

    Args:
        store: any.
        protocol: one of :data:`PROTOCOLS`; None is the store's own.
        val_subjects: subjects, or motions (`subject/name`), to score instead of the protocol's subjects. Its other
            training subjects and motions are trained on; its test subjects never are.

    Raises:
        UnknownNameError: an unknown protocol.
        ArgumentError: `val_subjects` that the store does not have.
        DataError: neither part has a view.
    """
    rules = rules_of(store, protocol)
    subjects = store.subjects
    if val_subjects is None and rules.test:
        parts = store.select(rules.trains, "subject"), store.select(rules.tests, "motion")
    else:
        scored = scored_subjects(subjects, val_subjects, motions=store.motions if val_subjects else ())
        others = set(rules.train or subjects) - scored
        parts = (
            store.select(lambda view: view.subject in others and view.motion not in scored, "motion"),
            store.select(
                lambda view: (
                    not scored.isdisjoint((view.subject, view.motion))
                    and view.motion.partition("@")[0] not in rules.excluded
                ),
                "motion",
            ),
        )
    if not any(part.views for part in parts):
        raise DataError(
            f"no subject is one of protocol {rules.name!r} (train {some(rules.train)}; test {some(rules.test)}), the "
            f"data has {some(subjects)}."
        )
    return parts
