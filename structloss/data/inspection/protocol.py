"""Whether a data set has the subjects, sequences and frames that were published."""

from __future__ import annotations

from ..formats.registry import FORMATS
from ..protocols import PROTOCOLS
from ..store import PoseStore

__all__ = ["protocol_problems"]


def protocol_problems(store: PoseStore, form: str) -> list[str]:
    """Who is missing or unknown to the store's protocol, and what the format called `form` misses of its files."""
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
                of, are = ("subject", "is") if len(missing) == 1 else ("subjects", "are")
                found.append(f"{part} {of} {', '.join(missing)} of protocol {name!r} {are} missing")
        strange = [s for s in store.subjects if s not in known]
        if strange:
            found.append(f"subjects {', '.join(strange)} are not in protocol {name!r}: nobody trains on or scores them")
    problems = FORMATS[form].problems if form in FORMATS else None
    return found + ([] if problems is None else problems(store))
