"""Four short clips of real motion to try things with: keypoints as a detector gives them, and the motion itself.

Wherever a file of keypoints or of motion is expected, `sample:dance` stands for one of these. Where they come from,
what they may be used for, and whom to acknowledge says `README.md` in this folder; `python -m bench.samples`, in the
repository, makes them.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UnknownNameError, check_choice, shown

__all__ = ["KINDS", "names", "path", "resolve"]

KINDS = ("keypoints", "motion")
"""What there is of a sample: 2D keypoints over time, and a clip archive of the motion that was filmed."""

_FOLDER = Path(__file__).parent
_MARK = "sample:"


def names() -> tuple[str, ...]:
    """The samples, such as "dance", in the order of the alphabet."""
    return tuple(sorted(_keypoints()))


def _keypoints() -> dict[str, Path]:
    """Name -> file or folder."""
    found = (_FOLDER / "keypoints").iterdir()
    return {path.stem: path for path in found if not path.name.startswith(".")}


def path(name: str, kind: str = "keypoints") -> Path:
    """Where a sample is: a file or, of keypoints, a folder.

    Args:
        name: one of :func:`names`.
        kind: one of :data:`KINDS`.

    Raises:
        UnknownNameError: there is no sample of this name.
        ArgumentError: another kind.
    """
    check_choice("kind", kind, KINDS)
    if name not in (known := names()):
        raise UnknownNameError(f"unknown sample {shown(name)}: expected one of {', '.join(known)}.")
    if kind == "motion":
        return _FOLDER / "motion" / f"{name}.npz"
    return _keypoints()[name]


def resolve(told: str | os.PathLike[str], kind: str) -> Path:
    """The path that a user told: that of a sample for "sample:NAME", any other as it is.

    Args:
        told: a path, or "sample:" and one of :func:`names`.
        kind: one of :data:`KINDS`.

    Raises:
        UnknownNameError: there is no sample of this name; the message lists them.
    """
    text = os.fspath(told)
    return path(text.removeprefix(_MARK), kind) if text.startswith(_MARK) else Path(told)
