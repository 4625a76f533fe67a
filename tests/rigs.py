"""BVH files of a person who stands and moves, with the names of any program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

#: role -> parent and offset in centimetres, y up; the left is +x. Head's End Site is apart.
BODY: dict[str, tuple[str | None, tuple[float, float, float]]] = {
    "hips": (None, (0, 95, 0)),
    "lhip": ("hips", (10, -4, 0)), "lknee": ("lhip", (0, -43, 0)), "lfoot": ("lknee", (0, -42, 0)),
    "rhip": ("hips", (-10, -4, 0)), "rknee": ("rhip", (0, -43, 0)), "rfoot": ("rknee", (0, -42, 0)),
    "low": ("hips", (0, 10, 0)), "spine": ("low", (0, 14, 0)), "neck": ("spine", (0, 26, 0)),
    "head": ("neck", (0, 12, 1)),
    "lcollar": ("spine", (4, 22, 0)), "lshoulder": ("lcollar", (12, 0, 0)), "lelbow": ("lshoulder", (30, 0, 0)),
    "lwrist": ("lelbow", (25, 0, 0)),
    "rcollar": ("spine", (-4, 22, 0)), "rshoulder": ("rcollar", (-12, 0, 0)), "relbow": ("rshoulder", (-30, 0, 0)),
    "rwrist": ("relbow", (-25, 0, 0)),
}  # fmt: skip
TOP = (0.0, 11.0, 0.0)
#: Human3.6M joint -> roles whose mean it is
JOINTS = {
    "Hip": ("lhip", "rhip"), "RHip": ("rhip",), "RKnee": ("rknee",), "RFoot": ("rfoot",), "LHip": ("lhip",),
    "LKnee": ("lknee",), "LFoot": ("lfoot",), "Spine": ("spine",), "Thorax": ("neck",), "Neck/Nose": ("head",),
    "Head": ("top",), "LShoulder": ("lshoulder",), "LElbow": ("lelbow",), "LWrist": ("lwrist",),
    "RShoulder": ("rshoulder",), "RElbow": ("relbow",), "RWrist": ("rwrist",),
}  # fmt: skip


def names(text: str) -> dict[str, str]:
    """Role -> name, from "hips low spine neck head | hip knee foot collar shoulder elbow wrist | left right", in which
    "*" is the side and "~" a blank."""
    middle, limbs, sides = (part.split() for part in text.split("|"))
    out = dict(zip(("hips", "low", "spine", "neck", "head"), middle, strict=True))
    for letter, side in zip("lr", sides, strict=True):
        for role, name in zip(("hip", "knee", "foot", "collar", "shoulder", "elbow", "wrist"), limbs, strict=True):
            out[letter + role] = name.replace("*", side)
    return {role: name.replace("~", " ") for role, name in out.items()}


def write(
    path: Path,
    called: Mapping[str, str],
    *,
    top: tuple[float, float, float] | None = TOP,
    scale: float = 1.0,
    frames: int = 3,
    turned: Mapping[str, float] | None = None,
    frame_time: str = "0.033333",
) -> dict[str, np.ndarray]:
    """Write the body as BVH; returns where each role is, `[frames, 3]`, metres, z up.

    Args:
        path: to write.
        called: role -> name in the file.
        top: offset of the End Site of the head, cm; None has none.
        scale: units of the file per centimetre.
        frames: of which each is 5 cm farther along z than the one before.
        turned: role -> degrees by which the joint is turned about x.
        frame_time: as printed.
    """
    turned = turned or {}
    lines, columns = ["HIERARCHY"], []
    places: dict[str, np.ndarray] = {}
    turns: dict[str, np.ndarray] = {}

    def add(role: str, depth: int) -> None:
        parent, offset = BODY[role]
        tab = "  " * depth
        angle = np.radians(turned.get(role, 0.0))
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        lines.append(f"{tab}{'ROOT' if parent is None else 'JOINT'} {called[role]}\n{tab}{{")
        lines.append(f"{tab}  OFFSET {' '.join(str(x * scale) for x in ((0, 0, 0) if parent is None else offset))}")
        position = "" if parent else "Xposition Yposition Zposition "
        lines.append(f"{tab}  CHANNELS {3 if parent else 6} {position}Zrotation Yrotation Xrotation")
        if parent is None:
            columns.extend(np.array(offset)[:, None] * scale + np.outer((0, 0, 5 * scale), np.arange(frames)))
            places[role] = np.array(offset) + np.outer(np.arange(frames), (0, 0, 5))
            turns[role] = turn
        else:
            places[role] = places[parent] + turns[parent] @ np.array(offset, float)
            turns[role] = turns[parent] @ turn
        columns.extend([np.zeros(frames), np.zeros(frames), np.full(frames, turned.get(role, 0.0))])
        children = [child for child, (above, _) in BODY.items() if above == role]
        for child in children:
            add(child, depth + 1)
        if role == "head" and top is not None:
            places["top"] = places[role] + turns[role] @ np.array(top)
            lines.append(f"{tab}  End Site\n{tab}  {{ OFFSET {' '.join(str(x * scale) for x in top)} }}")
        lines.append(f"{tab}}}")

    add("hips", 0)
    lines += ["MOTION", f"Frames: {frames}", f"Frame Time: {frame_time}"]
    lines += [" ".join(f"{value:.6f}" for value in row) for row in np.array(columns).T]
    path.write_text("\n".join(lines) + "\n")
    return {role: np.stack([p[:, 0], -p[:, 2], p[:, 1]], -1) / 100 for role, p in places.items()}


def expected(places: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Human3.6M joint -> `[frames, 3]`, of those that the roles tell."""
    return {
        joint: np.mean([places[role] for role in roles], axis=0)
        for joint, roles in JOINTS.items()
        if all(role in places for role in roles)
    }
