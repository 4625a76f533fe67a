"""Joint positions to a BVH file that animation programs open."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ...errors import ArgumentError, MissingFileError, check_choice
from ...files import write_text
from ...skeletons import convert, get
from .._checks import positive
from ._named import rotate_from_z_up, rotate_to_z_up
from ._rates import frame_time

__all__ = ["write_bvh"]

# y up, facing z, so that the left is +x: the T-pose. Joint -> direction of its bone, parents first.
_REST = {
    "RHip": (-1, 0, 0), "RKnee": (0, -1, 0), "RFoot": (0, -1, 0),
    "LHip": (1, 0, 0), "LKnee": (0, -1, 0), "LFoot": (0, -1, 0),
    "Spine": (0, 1, 0), "Thorax": (0, 1, 0), "Neck/Nose": (0, 1, 0), "Head": (0, 1, 0),
    "LShoulder": (1, 0, 0), "LElbow": (1, 0, 0), "LWrist": (1, 0, 0),
    "RShoulder": (-1, 0, 0), "RElbow": (-1, 0, 0), "RWrist": (-1, 0, 0),
}  # fmt: skip
# Where bones fork, the joint itself turns with the body's frame: its x from the first joint to the second, up from
# the third to the fourth. Every bone that leaves it has a joint of no length of its own, which turns it.
_FRAMES = {"Hip": ("RHip", "LHip", "Hip", "Spine"), "Thorax": ("RShoulder", "LShoulder", "Thorax", "Neck/Nose")}
_HELPERS = {
    "RHip": "RHipJoint", "LHip": "LHipJoint", "Spine": "LowerBack",
    "Neck/Nose": "LowerNeck", "LShoulder": "LCollar", "RShoulder": "RCollar",
}  # fmt: skip
_TINY = 1e-9


def write_bvh(
    path: str | os.PathLike[str],
    positions: np.ndarray,
    fps: float,
    *,
    skeleton: str = "h36m",
    up: str = "z",
    units_per_metre: float = 100.0,
) -> Path:
    """Write joint positions as a BVH file: a hierarchy with rotations and the root's translation.

    Every bone has its mean length over all frames and the direction it has in the frame, so rigid bones come back
    exactly and others up to the variation of the lengths along the chain from the hip. Positions don't tell how a bone
    is turned about itself: pelvis and chest follow hips and shoulders, other bones turn the shortest way from their
    parent. The file is y up with a T-pose at rest; :func:`~structloss.data.formats.read_bvh` reads it back.

    Args:
        path: file to write, in an existing folder; appears complete or not at all.
        positions: `[T, 17, 3]`, metres, right-handed.
        fps: frames per second.
        skeleton: "h36m", or "mpi_inf_3dhp", which is converted to it.
        up: axis of `positions` that points up: "z" for clips, "-y" for camera space (x right, y down, z forward).
        units_per_metre: 100 writes centimetres, which most programs expect.

    Returns:
        The path.

    Raises:
        ArgumentError: another shape, no frames, NaN or infinite values, a rate or scale that is not positive, or
            another skeleton.
        MissingFileError: the folder does not exist.
    """
    path = Path(path)
    check_choice("skeleton", skeleton, ("h36m", "mpi_inf_3dhp"))
    positions = np.asarray(positions, dtype=np.float64)
    if positions.ndim != 3 or positions.shape[1:] != (17, 3) or len(positions) == 0:
        raise ArgumentError(f"positions has shape {list(positions.shape)}, expected [T, 17, 3] with T >= 1.")
    if not np.isfinite(positions).all():
        raise ArgumentError("positions has NaN or infinite values, expected finite metres.")
    for argument, value in (("fps", fps), ("units_per_metre", units_per_metre)):
        positive(argument, value)
    if not path.parent.is_dir():
        raise MissingFileError(f"the folder {path.parent} does not exist, expected one to write {path.name} to.")
    upright = rotate_from_z_up(rotate_to_z_up(convert(positions, skeleton, "h36m"), up), "y")
    hierarchy, columns = _rig(upright * units_per_metre)
    head = [*hierarchy, "MOTION", f"Frames: {len(positions)}", f"Frame Time: {frame_time(fps)}"]
    rows = [" ".join(f"{value:.6f}" for value in row) for row in columns]

    return write_text(path, "\n".join([*head, *rows, ""]))


def _rig(points: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The HIERARCHY's lines, and the channels' values `[T, C]`; points are `[T, 17, 3]`, y up."""
    body = get("h36m")
    index = {name: j for j, name in enumerate(body.joint_names)}
    parent = {name: body.joint_names[body.parents[j]] for name, j in index.items() if body.parents[j] >= 0}
    children = {name: [child for child in parent if parent[child] == name] for name in index}
    bones = {name: points[:, index[name]] - points[:, index[p]] for name, p in parent.items()}
    lengths = {name: float(np.linalg.norm(bone, axis=-1).mean()) for name, bone in bones.items()}
    lines: list[str] = ["HIERARCHY"]
    columns: list[np.ndarray] = []

    def turned(name: str, before: np.ndarray) -> np.ndarray:
        """The rotation of the joint that the bone `name` leaves: the shortest way to its direction."""
        return _shortest(before @ np.array(_REST[name], dtype=np.float64), bones[name]) @ before

    def add(name: str, before: np.ndarray, depth: int) -> None:
        """Write the joint, whose parent is turned by `before` `[T, 3, 3]`, and all below it."""
        tab = "\t" * depth
        offset = np.array(_REST[name]) * lengths[name] if name in _REST else np.zeros(3)
        lines.extend([f"{tab}{'JOINT' if depth else 'ROOT'} {_written(name)}", f"{tab}{{", _offset(tab, offset)])
        moves = "" if depth else "Xposition Yposition Zposition "
        lines.append(f"{tab}\tCHANNELS {3 if depth else 6} {moves}Zrotation Yrotation Xrotation")
        if not depth:
            columns.append(points[:, index[name]])
        if name in _FRAMES:
            now = _frame(*(points[:, index[joint]] for joint in _FRAMES[name]))
        else:
            now = turned(children[name][0], before) if children[name] else before
        columns.append(_euler_zyx(before.transpose(0, 2, 1) @ now))
        for child in children[name]:
            if child in _HELPERS:
                own = turned(child, now)
                inner = f"{tab}\t"
                lines.extend([f"{inner}JOINT {_HELPERS[child]}", f"{inner}{{", _offset(inner, np.zeros(3))])
                lines.append(f"{inner}\tCHANNELS 3 Zrotation Yrotation Xrotation")
                columns.append(_euler_zyx(now.transpose(0, 2, 1) @ own))
                add(child, own, depth + 2)
                lines.append(f"{inner}}}")
            else:
                add(child, now, depth + 1)
        if not children[name]:  # programs draw a bone up to its End Site, so the last one gets a short one
            lines.extend([f"{tab}\tEnd Site", f"{tab}\t{{", _offset(f"{tab}\t", offset / 4), f"{tab}\t}}"])
        lines.append(f"{tab}}}")

    add(body.joint_names[body.root], np.broadcast_to(np.eye(3), (len(points), 3, 3)), 0)
    return lines, np.concatenate(columns, axis=1)


def _written(name: str) -> str:
    return name.split("/")[0]


def _offset(tab: str, offset: np.ndarray) -> str:
    return f"{tab}\tOFFSET {offset[0]:.6f} {offset[1]:.6f} {offset[2]:.6f}"


def _unit(vectors: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Unit vectors `[T, 3]`; where there is no direction, `otherwise`."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(norm > _TINY, vectors / np.maximum(norm, _TINY), otherwise)


def _shortest(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The smallest rotations `[T, 3, 3]` that turn unit vectors `start` `[T, 3]` into the direction of `end`."""
    a, b = start, _unit(end, start)
    axis, cosine = np.cross(a, b), (a * b).sum(-1)
    # Opposite directions have no shortest way: turn half round about any axis at a right angle.
    other = np.eye(3)[np.abs(a).argmin(-1)]
    square = _unit(np.cross(a, other), other)
    cross = np.zeros((len(a), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]] = axis
    cross[:, [1, 2, 0], [2, 0, 1]] = -axis
    turn = np.eye(3) + cross + cross @ cross / np.maximum(1 + cosine, _TINY)[:, None, None]
    half = 2 * square[:, :, None] * square[:, None, :] - np.eye(3)
    return np.where((cosine < -1 + 1e-12)[:, None, None], half, turn)


def _frame(right: np.ndarray, left: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The body's frame `[T, 3, 3]`: x to the left, y up at a right angle to it, z forward."""
    x = _unit(left - right, np.array([1.0, 0.0, 0.0]))
    up = _unit(high - low, np.array([0.0, 1.0, 0.0]))
    z = _unit(np.cross(x, up), _unit(np.cross(x, np.array([0.0, 0.6, 0.8])), np.array([0.0, 0.0, 1.0])))
    return np.stack([x, np.cross(z, x), z], axis=-1)


def _euler_zyx(turn: np.ndarray) -> np.ndarray:
    """Degrees `[T, 3]` about z, y, x with R = Rz Ry Rx, without jumps of 360 from frame to frame."""
    flat = np.hypot(turn[:, 0, 0], turn[:, 1, 0])
    locked = flat < 1e-9  # z and x turn about the same axis: x stays 0
    y = np.arctan2(-turn[:, 2, 0], flat)
    z = np.where(locked, np.arctan2(-turn[:, 0, 1], turn[:, 1, 1]), np.arctan2(turn[:, 1, 0], turn[:, 0, 0]))
    x = np.where(locked, 0.0, np.arctan2(turn[:, 2, 1], turn[:, 2, 2]))
    return np.degrees(np.unwrap(np.stack([z, y, x], axis=1), axis=0))
