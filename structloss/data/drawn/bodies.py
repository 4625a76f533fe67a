"""People of other proportions: bones lengthened and shortened, their directions kept."""

from __future__ import annotations

import numpy as np

from ...errors import ArgumentError
from ...skeletons import get
from .._checks import check_shape

__all__ = ["GROUPS", "reshape_bodies"]

_H36M = get("h36m")

GROUPS: tuple[tuple[int, ...], ...] = ((1, 4), (2, 5), (3, 6), (7,), (8,), (9,), (10,), (11, 14), (12, 15), (13, 16))
"""Bones that get one factor, named by the joint that they end in: left and right alike."""

_LEGS = (1, 2)  # of the groups: what the height of the hips goes with


def reshape_bodies(poses: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Poses of the same motion by people of other proportions.

    Every bone keeps its direction, and its length is multiplied by the factor of its group. The root's path is
    multiplied by the mean factor of thighs and shins, so that feet which stood on the floor still do, about.

    Args:
        poses: `[B, T, 17, 3]`, metres, in any frame.
        factors: `[B, 10]`, positive, of :data:`GROUPS`.

    Returns:
        `[B, T, 17, 3]` of the poses' dtype.

    Raises:
        ArgumentError: other shapes.
    """
    check_shape("poses", poses, (None, None, 17, 3), "[B, T, 17, 3]")
    check_shape("factors", factors, (len(poses), len(GROUPS)), str([len(poses), len(GROUPS)]))
    if not np.issubdtype(poses.dtype, np.floating):
        raise ArgumentError(f"poses is of {poses.dtype}, expected floating point, metres.")
    if not (factors > 0).all():
        raise ArgumentError("factors has values that are not positive, expected positive numbers.")
    factors = factors.astype(poses.dtype)
    out = np.empty_like(poses)
    first = poses[:, :1, 0]
    out[:, :, 0] = first + (poses[:, :, 0] - first) * factors[:, list(_LEGS)].mean(-1)[:, None, None]
    of_joint = {joint: group for group, joints in enumerate(GROUPS) for joint in joints}
    for child, parent in _H36M.bones:  # parents come before their children
        bone = poses[:, :, child] - poses[:, :, parent]
        out[:, :, child] = out[:, :, parent] + bone * factors[:, of_joint[child], None, None]
    return out
