"""Synthetic human motion: people of realistic proportions who walk, reach, squat, turn, sit down and move at random.

It needs no download and no licence, every frame is anatomically legal (rigid bones, knees and elbows bend the right way
within their limits), and it is deterministic by seed. It stands in for motion capture where none is at hand: to try the
library, to test, to pre-train. It is no substitute in a published comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ArgumentError, check_name
from ...progress import track
from .._checks import at_least, positive
from ..clips import Clip
from .actions import GENERATORS
from .body import sample_body

__all__ = ["ACTIONS", "check_people", "generate_clips"]

ACTIONS: tuple[str, ...] = tuple(GENERATORS)
"""Names of the actions."""


def check_people(num_subjects: int, clips_per_subject: int, frames: int, seed: int) -> None:
    """Raise :class:`ArgumentError` for numbers that :func:`generate_clips` can't take."""
    at_least(1, num_subjects=num_subjects, clips_per_subject=clips_per_subject, frames=frames)
    at_least(0, seed=seed)


def generate_clips(
    num_subjects: int = 24,
    clips_per_subject: int = 6,
    frames: int = 500,
    seed: int = 0,
    fps: float = 50.0,
    actions: Sequence[str] = ACTIONS,
    progress: bool = False,
    asymmetry: float = 0.005,
) -> list[Clip]:
    """Synthetic clips of several people.

    Subject and clip have a random stream of their own: the same seed gives the same first subjects and clips, however
    many are asked for.

    Args:
        num_subjects: people, named syn01, syn02, ...; each has its own bone lengths.
        clips_per_subject: clips of each, cycling through `actions`.
        frames: length of every clip.
        seed: not negative.
        fps: frames per second.
        actions: some of :data:`ACTIONS`.
        progress: show a progress bar on a terminal.
        asymmetry: standard deviation of the length difference of left and right limbs, as a fraction of the limb; 0 for
            exactly symmetric people.

    Returns:
        Clips sorted by subject: float32 metres, z up, floor at z = 0, within about 2 m of the origin, the lowest ankle
        0.04 to 0.09 m above the floor (in "random" a knee or hand may touch the floor instead).

    Raises:
        ArgumentError: a count, seed or rate out of range.
        UnknownNameError: an unknown action.
    """
    check_people(num_subjects, clips_per_subject, frames, seed)
    positive("fps", fps, "frames per second")
    if not 0 <= asymmetry <= 0.1:
        raise ArgumentError(f"asymmetry is {asymmetry}, expected a fraction from 0 to 0.1.")
    if isinstance(actions, str) or not actions:
        raise ArgumentError(f"actions is {actions!r}, expected a non-empty sequence of names.")
    for action in actions:
        check_name("action", action, ACTIONS)

    t = np.arange(frames) / fps
    digits = max(2, len(str(num_subjects)))
    clips = []
    for s in track(range(num_subjects), "synthetic motion", progress):
        body = sample_body(np.random.default_rng([seed, s]), asymmetry)
        for c in range(clips_per_subject):
            action = actions[c % len(actions)]
            rng = np.random.default_rng([seed, s, 1 + c, ACTIONS.index(action)])
            positions = GENERATORS[action](rng, body, t).astype(np.float32)
            clips.append(Clip(positions, f"syn{s + 1:0{digits}d}", action, f"{action}_{c + 1:02d}", fps))
    return clips
