"""THE skeleton registry: joints, bones, left/right pairs and groups, and conversion between skeletons."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import check_name

__all__ = ["Skeleton", "get", "names"]


@dataclass(frozen=True)
class Skeleton:
    """A kinematic tree.

    Attributes:
        name: registry name.
        joint_names: one name a joint.
        parents: index of each joint's parent; -1 for the root.
        left, right: joints of the left and right side, of equal length and in matching order.
        root: index of the root joint.
    """

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    root: int = 0

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)


_H36M = Skeleton(
    name="h36m",
    joint_names=(
        "Hip",
        "RHip",
        "RKnee",
        "RFoot",
        "LHip",
        "LKnee",
        "LFoot",
        "Spine",
        "Thorax",
        "Neck/Nose",
        "Head",
        "LShoulder",
        "LElbow",
        "LWrist",
        "RShoulder",
        "RElbow",
        "RWrist",
    ),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    left=(4, 5, 6, 11, 12, 13),
    right=(1, 2, 3, 14, 15, 16),
)

_REGISTRY = {s.name: s for s in (_H36M,)}


def names() -> tuple[str, ...]:
    """Names of all skeletons."""
    return tuple(_REGISTRY)


def get(name: str) -> Skeleton:
    """The skeleton called `name`; raises UnknownNameError for an unknown one."""
    return _REGISTRY[check_name("skeleton", name, _REGISTRY)]
