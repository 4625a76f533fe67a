"""The 15 joints that are read from shape templates as a skeleton, to draw them."""

from __future__ import annotations

from ..shape_templates import JOINTS
from ..skeletons import Skeleton

__all__ = ["TEMPLATE_BODY"]

_PARENTS = {"abdomen": "", "chest": "abdomen", "neck": "chest", "hip": "abdomen", "knee": "hip", "ankle": "knee"}
_PARENTS |= {"shoulder": "chest", "elbow": "shoulder", "wrist": "elbow"}


def _parent(name: str) -> int:
    if name in _PARENTS:
        above = _PARENTS[name]
        return JOINTS.index(above) if above else -1
    above, side = _PARENTS[name[:-1]], name[-1]
    return JOINTS.index(above if above in JOINTS else above + side)


TEMPLATE_BODY = Skeleton(
    name="shape_template",
    joint_names=JOINTS,
    parents=tuple(map(_parent, JOINTS)),
    left=tuple(JOINTS.index(f"{name[:-1]}L") for name in JOINTS if name.endswith("R")),
    right=tuple(i for i, name in enumerate(JOINTS) if name.endswith("R")),
)
"""Left and right are sides of the image. In no registry: it is a body in images alone, without lengths to measure."""
