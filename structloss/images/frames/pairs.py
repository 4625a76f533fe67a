"""Pairs of frames of one folder: which are trained on, which are tested, and which are mirrored.

Source: the official code of Schmidtke et al. (CVPR 2021) and of Yoo and Russakovsky (ICCV 2023 workshop).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ArgumentError

__all__ = ["scored_pairs", "trained_pairs"]

# Keep these random numbers apart from those of other orders.
_ORDER, _TEST = 2, 3


def _frames(lengths: Sequence[int]) -> list[int]:
    found = [int(length) for length in lengths]
    if not found or min(found) < 1:
        raise ArgumentError(f"lengths is {found}, expected at least one folder, with at least one frame each.")
    return found


def trained_pairs(lengths: Sequence[int], *, flip: bool = False, shuffle: bool = False, seed: int = 0) -> np.ndarray:
    """The pairs that are trained on: two consecutive frames of a folder, no frame twice; the last frame of an odd
    folder is left out.

    Args:
        lengths: frames of each folder, in the order of the files' names.
        flip: take the first half of the pairs of each folder, one more than the other where they are odd in number,
            and then the same pairs mirrored, both frames; so there are as many pairs as before, or one more.
        shuffle: pair the frames of a folder in an order drawn from the seed. Names of the published sets' files are
            random, so that the order of their names is a random one; of the frames of a video, in order, two
            consecutive ones hardly differ.
        seed: of that order.

    Returns:
        int64 `[N, 4]`: folder, frame to estimate, reference frame (numbers within the folder), 1 where mirrored.

    Raises:
        ArgumentError: no folders, or one without frames.
    """
    rows = []
    for folder, length in enumerate(_frames(lengths)):
        order = np.arange(length)
        if shuffle:
            order = np.random.default_rng([seed, folder, _ORDER]).permutation(length)
        pairs = order[: length - length % 2].reshape(-1, 2)
        if flip:
            half = pairs[: (len(pairs) + 1) // 2]
            pairs = np.concatenate([half, half])
        mirrored = np.arange(len(pairs)) >= len(pairs) / 2 if flip else np.zeros(len(pairs), bool)
        rows.append(np.column_stack([np.full(len(pairs), folder), pairs, mirrored]))
    return np.concatenate(rows).astype(np.int64)


def scored_pairs(lengths: Sequence[int], *, seed: int = 0) -> np.ndarray:
    """The pairs that are tested: per folder all frames in order, then all frames shuffled; every second one of this
    list, from the first, is estimated, with the one after it as its reference.

    Args:
        lengths: frames of each folder.
        seed: of the shuffles.

    Returns:
        int64 `[N, 4]` as of :func:`trained_pairs`, none mirrored: as many pairs as there are frames.

    Raises:
        ArgumentError: no folders, or one without frames.
    """
    rows = []
    for folder, length in enumerate(_frames(lengths)):
        shuffled = np.random.default_rng([seed, folder, _TEST]).permutation(length)
        pairs = np.concatenate([np.arange(length), shuffled]).reshape(-1, 2)
        rows.append(np.column_stack([np.full(length, folder), pairs, np.zeros(length)]))
    return np.concatenate(rows).astype(np.int64)
