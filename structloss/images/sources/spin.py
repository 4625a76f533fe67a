"""The npz files of SPIN and MMPose: boxes, 2D joints and 3D joints of frames of Human3.6M, MPI-INF-3DHP and others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ...data.formats.h36m_npz import action_of
from ...data.formats.unpickle import load_npz_objects
from ...errors import DataError
from ..image_people import Annotations, ImagePeople, folder_of, gathered, inside
from ..joint_layouts import Layout, layout_of, to_mpii
from ..source import CHECK, IMAGES, JOINTS, MISSING, SOURCES, Settings, Source, SourceFile

__all__ = ["read_spin"]

_HEIGHT = 200.0  # pixels of a box of scale 1
_MILLIMETRES = 1000.0
_FAR = 1e6  # metres or pixels: no place
_ALIKE = 0.7  # least correlation of 3D and 2D coordinates
_COMPARED = 1000  # people
_PELVIS, _THORAX = 6, 7
_FOLDERS = (Path(), Path("images"), Path("../images"), Path(".."))
_SUBJECT = re.compile(r"(?<![A-Za-z0-9])((?:S|TS)\d{1,2})(?!\d)")

_ACTION = re.compile(r"(?:^|/)S\d{1,2}_([A-Z][A-Za-z]+)[^/]*$")  # of Human3.6M's frames


def read_spin(file: SourceFile, settings: Settings) -> ImagePeople:
    """Read `imgname` [N], `center` [N, 2], `scale` [N], `part` [N, K, 3] and, for 3D, `S` [N, K, 4].

    `part` has x, y in pixels and a confidence, `S` metres in the camera's frame (x right, y down, z forward) and a
    confidence; joints with confidence 0 are absent. The box is a square of 200 · `scale` pixels around `center`.
    Files of 24 joints have SPIN's order. Files of 17 (MMPose) may have Human3.6M's or MPI-INF-3DHP's, which nothing
    tells apart: set `joints`.

    In a file with 3D joints the thorax is the middle of the shoulders in 2D and in 3D; elsewhere it is the annotated
    one. The top of the head is the file's, or else Human3.6M's head. Where some people have 3D poses, those without a
    complete one are left out. Subjects and actions are what the
    images' names have for them ("S1", "TS6"; "S9_Posing_1.54138969_000001.jpg").

    Args:
        file: the npz file.
        settings: `joints` (see :func:`~structloss.images.joint_layouts.layout_of`), `images`, `missing`, `check`,
            `progress`, see :func:`~structloss.images.opening.open_images`.

    Raises:
        MissingFileError, DataError: no such folder, other arrays, 3D joints that don't belong to the 2D ones (of
            another order, or in the world's frame), or images that can't be used.
        UnknownNameError, ArgumentError: `joints` of unknown names.
    """
    path = file.path
    content = load_npz_objects(path)
    names = _names(content, path)
    part = _array(content, "part", path, (len(names), None, 3))
    layout = _layout(settings.get("joints"), part.shape[1], path)
    centre = _array(content, "center", path, (len(names), 2))
    scale = _array(content, "scale", path, (len(names),))
    solid = _array(content, "S", path, (len(names), part.shape[1], 4)) if "S" in content else None
    known = _there(part)
    notes: tuple[str, ...] = ()
    pose = complete = None
    found = None if solid is None else _solid(layout, known, part, solid)
    if found is not None and not found[1].any():
        notes, found = ("S lacks joints of everybody: 2D only",), None
    if found is None:
        annotated, joints = to_mpii(layout, known, part[..., :2].copy())
    else:
        pose, complete, annotated, joints = found
        _check_frame(pose, joints, annotated & complete[:, None], path)
    unique = {name: number for number, name in enumerate(dict.fromkeys(names))}
    annotations = Annotations(
        files=list(unique),
        file=np.array([unique[name] for name in names], np.int64),
        centre=centre,
        side=_HEIGHT * scale,
        joints=joints,
        annotated=annotated,
        visible=annotated,
        pose=pose,
        subjects=_told(_SUBJECT, names),
        actions=[action_of(name) for name in _told(_ACTION, names)],
        notes=notes,
    )
    if complete is not None:
        annotations = annotations.kept(complete, "S lacks some of their joints")
    folder = folder_of(path, settings.get("images"), annotations.files, _FOLDERS)
    options = {key: settings[key] for key in ("missing", "check", "progress") if key in settings}
    return gathered(annotations, folder, str(path), **options)


def _solid(
    layout: Layout, known: np.ndarray, part: np.ndarray, solid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Poses `[N, 16, 3]` in mm, which of them are complete, 2D joints that are known, and those; each joint is made
    from the same joints in 2D as in 3D."""
    there = _there(solid)
    flat = np.where(known[..., None], part[..., :2], 0.0)
    found, pose, joints, annotated = to_mpii(layout, there, solid[..., :3].copy(), flat, known, shoulders=True)
    pose = _MILLIMETRES * (pose - pose[:, _PELVIS : _PELVIS + 1])
    return pose, np.all(found, axis=1), annotated & found, joints


def _there(joints: np.ndarray) -> np.ndarray:
    """Joints `[N, K]` that have a confidence and a place; false of NaN, too."""
    known = (joints[..., -1] > 0) & np.all(np.abs(joints[..., :-1]) < _FAR, axis=-1)
    return np.asarray(known)


def _check_frame(pose: np.ndarray, joints: np.ndarray, known: np.ndarray, path: Path) -> None:
    """Raise where 3D joints don't look like the 2D ones: those of a camera's frame lie along its axes."""
    rows = np.flatnonzero(known.sum(1) >= 4)
    rows = rows[:: max(1, len(rows) // _COMPARED)]
    for axis, name in enumerate("xy"):
        alike = [_correlation(pose[row, known[row], axis], joints[row, known[row], axis]) for row in rows]
        alike = [value for value in alike if np.isfinite(value)]
        if alike and (median := float(np.median(alike))) < _ALIKE:
            raise DataError(
                f"{name} of S in {path} does not follow {name} of part (correlation {median:.2f}), expected the "
                "camera's frame, x right and y down, and the joints in the order that joints tells."
            )


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


def _layout(joints: Any, columns: int, path: Path) -> Layout:
    if joints is not None:
        layout, size = layout_of(joints)
        if size != columns:
            raise DataError(f"part of {path} has {columns} joints, expected {size}, those that joints tells.")
        return layout
    if columns == 24:
        return layout_of("spin")[0]
    hint = "; set joints to the order that they are in, such as h36m or mpi_inf_3dhp" if columns in (16, 17) else ""
    raise DataError(f"part of {path} has {columns} joints, expected 24, those of SPIN{hint}.")


def _names(content: dict[str, Any], path: Path) -> list[str]:
    names = content.get("imgname")
    if not isinstance(names, np.ndarray) or names.ndim != 1 or names.dtype.kind not in "USO":
        raise DataError(f"{path} has no list of names imgname, expected the arrays imgname, center, scale and part.")
    if not len(names):
        raise DataError(f"{path} has no people, expected at least one.")
    where = f"imgname of {path}"
    return [inside(name, where) for name in names.tolist()]


def _array(content: dict[str, Any], name: str, path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    found = content.get(name)
    wanted = f"[{', '.join('K' if size is None else str(size) for size in shape)}]"
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise DataError(f"{path} has no numbers {name}, expected an array {wanted}.")
    if found.ndim == len(shape) + 1 and found.shape[-1] == 1:  # written as columns
        found = found[..., 0]
    if found.ndim != len(shape) or any(
        size is not None and size != have for size, have in zip(shape, found.shape, strict=True)
    ):
        raise DataError(f"{name} of {path} has shape {list(found.shape)}, expected {wanted}.")
    return found.astype(np.float64)


def _told(pattern: re.Pattern[str], names: list[str]) -> list[str]:
    """What each name tells; nothing where some tell none."""
    found = [pattern.search(name) for name in names]
    return [match[1] for match in found if match is not None] if all(found) else []


SOURCES.register(
    Source(
        "spin",
        "npz of SPIN or MMPose (imgname, center, scale, part, S)",
        read_spin,
        arrays=("imgname",),
        options=(IMAGES, JOINTS, MISSING, CHECK),
        gives="2D and 3D",
    )
)
