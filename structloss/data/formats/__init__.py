"""File formats of motion capture and keypoints. Everything is imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy

if TYPE_CHECKING:
    from .asf_amc import read_amc, read_asf
    from .bvh import parse_bvh, read_bvh
    from .bvh_writer import write_bvh
    from .c3d import parse_c3d, read_c3d
    from .joint_maps import JOINT_MAPS, JointMap
    from .keypoints import Keypoints, read_keypoints
    from .registry import FORMATS, Format, Option

_HOMES = {
    "asf_amc": ("read_amc", "read_asf"),
    "bvh": ("parse_bvh", "read_bvh"),
    "bvh_writer": ("write_bvh",),
    "c3d": ("parse_c3d", "read_c3d"),
    "joint_maps": ("JOINT_MAPS", "JointMap"),
    "keypoints": ("Keypoints", "read_keypoints"),
    "registry": ("FORMATS", "Format", "Option"),
}

__all__ = [
    # the registry
    "FORMATS",
    "Format",
    "Option",
    # motion capture
    "JOINT_MAPS",
    "JointMap",
    "parse_bvh",
    "parse_c3d",
    "read_amc",
    "read_asf",
    "read_bvh",
    "read_c3d",
    "write_bvh",
    # 2D keypoints
    "Keypoints",
    "read_keypoints",
]

__getattr__, __dir__ = lazy(__name__, _HOMES)
