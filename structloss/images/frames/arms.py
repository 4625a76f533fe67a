"""Arms that hang, and arms that are stretched out sideways: the split of the tests on shape templates.

Source: the code of Yoo and Russakovsky (ICCV 2023 workshop). Of their test frames 80,178 have arms down, 2,039 out.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ... import shape_templates
from ...errors import ArgumentError, check_choice

__all__ = ["ARMS", "arms_down", "arms_out", "with_arms"]

ARMS = ("all", "down", "out")
"""Which frames to take."""

_OUT = math.tan(math.radians(20))


def _joint(name: str) -> int:
    return shape_templates.JOINTS.index(name)


_WRISTS = (_joint("wristR"), _joint("wristL"))
_SHOULDERS = (_joint("shoulderR"), _joint("shoulderL"))


def arms_down(joints: np.ndarray, annotated: np.ndarray | None = None) -> NDArray[np.bool_]:
    """Whether both arms hang: each wrist below its shoulder, |dy| >= |dx| tan 45 deg from one to the other.

    Args:
        joints: `[..., 15, 2]`, pixels, y down, in the order of :data:`structloss.shape_templates.JOINTS`.
        annotated: bool `[..., 15]`; without both wrists and shoulders the answer is no.

    Returns:
        bool `[...]`.

    Raises:
        ArgumentError: another shape.
    """
    across, down, known = _arms(joints, annotated)
    return ((down > 0) & (np.abs(down) >= np.abs(across))).all(-1) & known


def arms_out(joints: np.ndarray, annotated: np.ndarray | None = None) -> NDArray[np.bool_]:
    """Whether both arms are stretched out: the right wrist right of its shoulder in the image, the left one left of
    its own, |dy| <= |dx| tan 20 deg. So nobody who turns the back on the camera has arms out.

    Args, returns, raises: as :func:`arms_down`.
    """
    across, down, known = _arms(joints, annotated)
    outwards = across * np.array([1.0, -1.0])
    return ((outwards > 0) & (np.abs(down) <= np.abs(across) * _OUT)).all(-1) & known


def with_arms(arms: str, joints: np.ndarray, annotated: np.ndarray | None = None) -> NDArray[np.bool_]:
    """Which frames have arms "down" or "out"; "all" is every frame. Arguments: as of :func:`arms_down`."""
    check_choice("arms", arms, ARMS)
    if arms == "all":
        return np.ones(np.shape(joints)[:-2], bool)
    return (arms_down if arms == "down" else arms_out)(joints, annotated)


def _arms(joints: np.ndarray, annotated: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From shoulders to wrists, right and left, across and down `[..., 2]`; and whether they are annotated `[...]`."""
    found = np.asarray(joints, np.float64)
    expected = (len(shape_templates.JOINTS), 2)
    if found.shape[-2:] != expected:
        raise ArgumentError(f"joints has shape {list(found.shape)}, expected [..., {expected[0]}, {expected[1]}].")
    if annotated is not None and np.shape(annotated) != found.shape[:-1]:
        raise ArgumentError(f"annotated has shape {list(np.shape(annotated))}, expected {list(found.shape[:-1])}.")
    way = found[..., _WRISTS, :] - found[..., _SHOULDERS, :]
    known = np.asarray(np.isfinite(way).all((-2, -1)))
    if annotated is not None:
        known = known & np.asarray(annotated, bool)[..., [*_WRISTS, *_SHOULDERS]].all(-1)
    return way[..., 0], way[..., 1], known
