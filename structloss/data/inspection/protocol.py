"""Whether a data set has the subjects, sequences and frames that were published."""

from __future__ import annotations

from ..formats.mpi_inf_3dhp import FRAMES
from ..protocols import PROTOCOLS
from ..store import PoseStore

__all__ = ["protocol_problems"]

#: Frames of the published files, by format: (subjects, frames).
_EXPECTED = {
    "h36m-pickle": ((("S1", "S5", "S6", "S7", "S8"), 1_559_752), (("S9", "S11"), 566_920)),
    "h3wb": ((("S1", "S5", "S6", "S7", "train"), 80_000), (("S8", "test"), 10_000)),
}


def protocol_problems(store: PoseStore, form: str) -> list[str]:
    """Who is missing or unknown to the store's protocol, and counts that are not those of the format `form`."""
    name = store.source.get("protocol", "subjects")
    rules = PROTOCOLS.get(name)
    if rules is None:
        return [f"protocol is {name!r}, expected one of {', '.join(PROTOCOLS)}, to split the data by"]
    found = []
    known = {*rules.train, *rules.test} - {"train", "test"}
    if known and not {"train", "test"} & set(store.subjects):
        for part, subjects in (("training", rules.train), ("test", rules.test)):
            missing = [s for s in subjects if s in known and s not in store.subjects]
            if missing:
                found.append(f"{part} subjects {', '.join(missing)} of protocol {name!r} are missing")
        strange = [s for s in store.subjects if s not in known]
        if strange:
            found.append(f"subjects {', '.join(strange)} are not in protocol {name!r}: nobody trains on or scores them")
    for subjects, expected in _EXPECTED.get(form, ()):
        frames = sum(view.frames for view in store.views if view.subject in subjects)
        if frames and frames != expected:
            found.append(f"{', '.join(subjects)} have {frames} frames, the published file {expected}")
    if form == "h36m-npz":
        for subject in store.subjects:
            count, expected = len({v.name for v in store.views if v.subject == subject}), 30 - (subject == "S11")
            if count != expected:
                found.append(f"{subject} has {count} motions, expected {expected}")
    return found + (_problems_of_3dhp(store) if form == "mpi_inf_3dhp" else [])


def _problems_of_3dhp(store: PoseStore) -> list[str]:
    differ: list[str] = []
    cameras: dict[str, set[str]] = {}
    for view in store.views:
        expected = FRAMES.get((view.subject, view.name))
        if expected is not None:
            cameras.setdefault(view.motion, set()).add(view.camera)
            if view.frames != expected:
                differ.append(f"{view.motion} has {view.frames} frames a camera, expected {expected}")
    few = [f"{motion} has {len(seen)} cameras, expected 8" for motion, seen in cameras.items() if len(seen) != 8]
    return list(dict.fromkeys(differ)) + few
