"""Human3.6M as VideoPose3D prepares it: poses in the world in one npz file, 2D keypoints of four cameras in another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import ArgumentError, DataError, MissingFileError, shown
from ...reading import existing
from ...skeletons import convert
from ..cameras import H36M_SUBJECTS, Camera, h36m_cameras, normalize_screen
from ..store import PoseStore, View
from ._assemble import Frames, assemble, checked, member
from .candidate import Candidate
from .registry import FORMATS, Format, Option
from .unpickle import load_npz_objects

__all__ = ["action_of", "camera_view", "read_h36m_npz"]

#: Of the 32 recorded joints, those of the 17-joint skeleton, in its order.
_KEPT = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
_LAYOUTS = {"h36m": 17, "coco": 17, "mpii": 16}
_CORRUPT = ("S11", "Directions")  # the video stands still
_RENAMED = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}
_2D = "data_2d_h36m_"


def read_h36m_npz(
    path: str | os.PathLike[str],
    keypoints: str | os.PathLike[str] | None = None,
    *,
    variant: str | None = None,
    progress: bool = False,
) -> PoseStore:
    """Read `data_3d_h36m.npz` and a file of 2D keypoints that goes with it.

    Poses are turned into each camera's frame. S11's "Directions", whose video is corrupt, is left out. Keypoints may go
    on for some frames after the poses end; those are cut off. A third channel is taken for the detector's confidence.
    COCO and MPII keypoints (16 joints) are converted to the 17 joints, see :func:`structloss.skeletons.convert`.

    Args:
        path: the 3D file, or the folder it is in.
        keypoints: the 2D file, or NAME of `data_2d_h36m_NAME.npz` beside the 3D file: "gt", "cpn_ft_h36m_dbb". None
            takes the only such file.
        variant: of the conversion.
        progress: show a progress bar on a terminal.

    Returns:
        Skeleton "h36m", 50 frames per second, one view per camera; poses absolute.

    Raises:
        MissingFileError: a file does not exist, or several 2D files to choose from.
        DataError: keypoints are missing for a motion, or shorter than it; other shapes; another kind of file.
        ArgumentError: an unknown variant.
    """
    path = existing(path, "data_3d_h36m.npz")
    if path.is_dir():
        path = existing(path / "data_3d_h36m.npz", "the poses of Human3.6M")
    second = _keypoints_file(path, keypoints)
    poses = member(load_npz_objects(path), "positions_3d", str(path))
    content = load_npz_objects(second)
    points = member(content, "positions_2d", str(second))
    layout = _layout(second, content.get("metadata"), points)

    pieces: list[tuple[View, Callable[[], Frames]]] = []
    for subject in _subjects(path, poses):
        actions = member(poses, subject, f"positions_3d of {path}")
        if subject not in points:
            raise DataError(f"positions_2d of {second} has no subject {shown(subject)}, which {path.name} has.")
        for action in actions:
            if (subject, action) == _CORRUPT:
                continue
            world = _world(actions[action], f"positions_3d[{shown(subject)}][{shown(action)}] of {path}")
            what = f"positions_2d[{shown(subject)}][{shown(action)}] of {second}"
            seen = member(points[subject], action, f"positions_2d[{shown(subject)}] of {second}")
            cameras = h36m_cameras(subject)
            if not isinstance(seen, (list, tuple, np.ndarray)) or len(seen) != len(cameras):
                count = f"{len(seen)} cameras" if hasattr(seen, "__len__") else f"a {type(seen).__name__}"
                raise DataError(f"{what} has {count}, expected a list of {len(cameras)}.")
            for index, (camera, pixels) in enumerate(zip(cameras, seen, strict=True)):
                pixels = _pixels(pixels, f"{what}, camera {camera.id},", _LAYOUTS[layout], len(world), path.name)
                view = camera_view(camera, index, subject, action_of(action), action, len(world))
                pieces.append((view, partial(_frames, camera, world, pixels, layout, variant)))
    if not pieces:
        raise DataError(f"positions_3d of {path} has no motions, expected those of {', '.join(H36M_SUBJECTS)}.")
    name = second.stem.removeprefix(_2D)
    source = {"format": "h36m-npz", "protocol": "h36m", "poses": path.name, "keypoints": name, "layout": layout}
    return assemble(pieces, skeleton="h36m", source=source, progress=progress)


def action_of(name: str) -> str:
    """The action of a sequence: "Walking 1" is "Walking"; "Sitting" is not "SittingDown"."""
    action = name.split(" ")[0]
    return _RENAMED.get(action, action)


def camera_view(camera: Camera, index: int, subject: str, action: str, name: str, frames: int) -> View:
    """The view of one of Human3.6M's cameras."""
    fx, fy, cx, cy = map(float, camera.screen_intrinsics())
    size = float(camera.width), float(camera.height)
    return View(subject, action, name, camera.id, index, 0, frames, 50.0, size, (fx, fy, cx, cy))


def _keypoints_file(path: Path, keypoints: str | os.PathLike[str] | None) -> Path:
    found = sorted(path.parent.glob(f"{_2D}*.npz"))
    names = ", ".join(file.stem.removeprefix(_2D) for file in found) or "none"
    if keypoints is None:
        if len(found) == 1:
            return found[0]
        raise MissingFileError(
            f"{path.parent} has {len(found)} files {_2D}NAME.npz, expected one; choose keypoints by NAME ({names}) or "
            "give a file."
        )
    beside = path.parent / f"{_2D}{keypoints}.npz"
    if beside.is_file():
        return beside
    file = Path(keypoints)
    if file.suffix == ".npz" or os.sep in str(keypoints):
        return existing(file, "2D keypoints of Human3.6M")
    raise MissingFileError(
        f"{beside} does not exist; choose keypoints by the NAME of a file there ({names}) or give a file."
    )


def _layout(path: Path, metadata: object, points: object) -> str:
    """Skeleton of the keypoints; ground truth does not say, and is in Human3.6M's order."""
    name = metadata.get("layout_name", "h36m") if isinstance(metadata, Mapping) else "h36m"
    if not isinstance(name, str) or name not in _LAYOUTS:
        raise DataError(f"metadata of {path} has layout {shown(name)}, expected one of {', '.join(_LAYOUTS)}.")
    if not isinstance(points, Mapping) or not all(isinstance(entry, Mapping) for entry in points.values()):
        raise DataError(f"positions_2d of {path} is no dictionary of dictionaries, expected subject, then action.")
    return name


def _subjects(path: Path, poses: object) -> list[str]:
    """The subjects in the order of the usual lists."""
    if not isinstance(poses, Mapping) or not all(isinstance(entry, Mapping) for entry in poses.values()):
        raise DataError(f"positions_3d of {path} is no dictionary of dictionaries, expected subject, then action.")
    unknown = [subject for subject in poses if subject not in H36M_SUBJECTS]
    if unknown:
        raise DataError(
            f"positions_3d of {path} has subject {shown(unknown[0])}, expected those with published cameras: "
            f"{', '.join(H36M_SUBJECTS)}."
        )
    return [subject for subject in H36M_SUBJECTS if subject in poses]


def _world(value: object, what: str) -> np.ndarray:
    """Poses `[T, 17, 3]` from all 32 joints or the 17."""
    joints = value.shape[1] if isinstance(value, np.ndarray) and value.ndim == 3 else 32
    array = checked(value, what, (None, 17 if joints == 17 else 32, 3))
    return array if joints == 17 else array[:, _KEPT]


def _pixels(value: object, what: str, joints: int, frames: int, poses: str) -> np.ndarray:
    """Keypoints `[T, J, 2 or more]`, as many as there are poses."""
    channels = value.shape[2] if isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[2] > 2 else 2
    array = checked(value, what, (None, joints, channels))
    if len(array) < frames:
        raise DataError(f"{what} has {len(array)} frames, expected at least the {frames} of {poses}.")
    return array[:frames]


def _frames(camera: Camera, world: np.ndarray, pixels: np.ndarray, layout: str, variant: str | None) -> Frames:
    scored = pixels.shape[2] > 2
    points = pixels[..., : 2 + scored].astype(np.float64)
    if layout != "h36m":
        points = convert(points, layout, "h36m", variant=variant, confidence=scored)
    elif variant is not None:
        raise ArgumentError(f"variant is {variant!r}, expected None: the keypoints are in Human3.6M's order.")
    screen = normalize_screen(points[..., :2], camera.width, camera.height)
    if not np.isfinite(world).all():
        world = np.where(np.isfinite(world), world, np.nan)
    return Frames(screen, camera.to_camera(world), points[..., 2] if scored else None)


def _hint(candidate: Candidate) -> str | None:
    """What to say of a file of 2D keypoints alone."""
    known = "has 2D keypoints only, expected data_3d_h36m.npz, to which they are given as keypoints"
    return known if "positions_2d" in candidate.arrays else None


def _problems(store: PoseStore) -> list[str]:
    found = []
    for subject in store.subjects:
        count = len({view.name for view in store.views if view.subject == subject})
        expected = 30 - (subject == _CORRUPT[0])
        if count != expected:
            found.append(f"{subject} has {count} motions, expected {expected}")
    return found


FORMATS.register(
    Format(
        "h36m-npz",
        "Human3.6M as VideoPose3D's data_3d_h36m.npz with a data_2d_h36m_NAME.npz",
        read_h36m_npz,
        arrays=("positions_3d",),
        folder=("data_3d_h36m.npz",),
        hint=_hint,
        options=(Option("keypoints", "file of the 2D keypoints, or NAME of data_2d_h36m_NAME", metavar="NAME"),),
        problems=_problems,
    )
)
