"""True joints of frames in files beside them, for scores: `joints.npz` or `joints.json`.

In `joints.npz`, N frames:

- `names` text `[N]`: names of the images, seen from the folder that the file is in
- `joints` `[N, K, 2]`, pixels of the images as they are stored, the first one's centre at (0, 0); NaN where a joint is
  not known. K is 15 (:data:`structloss.shape_templates.JOINTS`), 17 or 32 (Human3.6M's; left and right of the body, see
  :data:`~structloss.images.frames.folders.H36M17_JOINTS`)
- `annotated` bool `[N, K]`, optional
- `boxes` `[N, 4]` (x, y, width, height of the person) or `diagonal` `[N]` (of that box), pixels, optional: what errors
  are compared with; else the box around the joints is taken

In `joints.json`, an object of name -> {"joints": [[x, y] or null, ...], "box": [x, y, width, height] or "diagonal":
number}, of the same meaning. The file may be in the folder of the frames, or in the one above, of all folders.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ... import shape_templates
from ...data._words import count
from ...data.formats.unpickle import load_npz_arrays
from ...errors import DataError, shown
from ...reading import read_json
from ..image_people import inside, numbers
from .folders import H36M17_JOINTS, JOINT_COUNT, box_diagonal, unlabelled

__all__ = ["LABEL_FILES", "FrameLabels", "Label", "find_labels", "read_labels"]

LABEL_FILES = ("joints.npz", "joints.json")
"""Names of files of labels."""

_FAR = 1e6  # pixels
_ORDERS = {JOINT_COUNT: tuple(range(JOINT_COUNT)), 17: H36M17_JOINTS, 32: shape_templates.H36M_JOINTS}


@dataclass(frozen=True)
class Label:
    """What is known of a frame, as in :class:`~structloss.images.frames.folders.Frame`."""

    joints: np.ndarray
    annotated: np.ndarray
    diagonal: float


@dataclass(frozen=True)
class FrameLabels:
    """Labels by the names of frames, seen from `folder`.

    Attributes:
        path: of the file.
        folder: that it is in.
        rows: name -> label.
    """

    path: Path
    folder: Path
    rows: Mapping[str, Label]

    def of(self, path: Path) -> Label:
        """The label of an image; one without joints where the file has none."""
        name = Path(os.path.relpath(path, self.folder)).as_posix()
        return self.rows.get(name) or Label(*unlabelled(), float("nan"))


def find_labels(folder: Path, top: Path) -> Path | None:
    """The file of labels in a folder of frames or, for all folders, in the one that was asked for."""
    for place in dict.fromkeys((folder, top)):
        for name in LABEL_FILES:
            if (place / name).exists():
                return place / name
    return None


def read_labels(path: Path) -> FrameLabels:
    """Read a file of labels; what it has is told above.

    Raises:
        MissingFileError, DataError: no such file, or other content.
    """
    if path.suffix == ".json":
        rows = _of_json(path)
    else:
        rows = _of_arrays(path, load_npz_arrays(path))
    return FrameLabels(path, path.parent, rows)


def _of_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Label]:
    names, joints = arrays.get("names"), arrays.get("joints")
    if names is None or joints is None:
        raise DataError(f"{path} has {', '.join(arrays) or 'no arrays'}, expected names and joints.")
    rows = len(names) if names.ndim == 1 else -1
    if names.dtype.kind != "U" or rows < 0:
        raise DataError(f"names of {path} is {names.dtype} {list(names.shape)}, expected text [N].")
    if joints.dtype.kind not in "fiu" or joints.ndim != 3 or joints.shape[0] != rows or joints.shape[2] != 2:
        raise DataError(
            f"joints of {path} is {joints.dtype} {list(joints.shape)}, expected numbers [{rows}, K, 2], as many as "
            "names."
        )
    annotated = arrays.get("annotated", np.ones(joints.shape[:2], bool))
    if annotated.dtype != bool or annotated.shape != joints.shape[:2]:
        raise DataError(
            f"annotated of {path} is {annotated.dtype} {list(annotated.shape)}, expected bool {list(joints.shape[:2])}."
        )
    boxes, diagonal = arrays.get("boxes"), arrays.get("diagonal")
    for name, found, shape in (("boxes", boxes, (rows, 4)), ("diagonal", diagonal, (rows,))):
        if found is not None and (found.shape != shape or found.dtype.kind not in "fiu"):
            raise DataError(
                f"{name} of {path} is {found.dtype} {list(found.shape)}, expected numbers {list(shape)}, one per name."
            )
    labels: dict[str, Label] = {}
    for n, name in enumerate(names):
        own = None if diagonal is None else float(diagonal[n])
        box = None if boxes is None or diagonal is not None else boxes[n]
        key = inside(str(name), str(path))
        if key in labels:
            raise DataError(f"names of {path} has {name} twice, expected each image once.")
        labels[key] = _label(f"joints of {name} in {path}", joints[n], annotated[n], own, box)
    return labels


def _of_json(path: Path) -> dict[str, Label]:
    content = read_json(path, "a JSON file of joints")
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise DataError(f'{path} is no file of joints, expected an object of name -> {{"joints": [[x, y], ...]}}.')
    found = {}
    for name, entry in content.items():
        what = f"joints of {name} in {path}"
        points = entry.get("joints")
        if not isinstance(points, list):
            raise DataError(f"{what} is {shown(points)}, expected a list of [x, y] or null.")
        nothing = [float("nan")] * 2
        joints = numbers([nothing if point is None else point for point in points], what, (len(points), 2))
        diagonal = entry.get("diagonal")
        box = None
        if diagonal is not None:
            diagonal = float(numbers(diagonal, f"the diagonal of {name} in {path}", ()))
        elif "box" in entry:
            box = numbers(entry["box"], f"the box of {name} in {path}", (4,))
        found[inside(name, str(path))] = _label(what, joints, np.ones(len(joints), bool), diagonal, box)
    return found


def _label(
    what: str, joints: np.ndarray, annotated: np.ndarray, diagonal: float | None, box: np.ndarray | None
) -> Label:
    """The label of a frame. Where nobody is annotated, diagonal and box may be anything."""
    if len(joints) not in _ORDERS:
        *orders, last = map(str, _ORDERS)
        raise DataError(f"{what} is of {count(len(joints), 'joint')}, expected {', '.join(orders)} or {last}.")
    order = list(_ORDERS[len(joints)])
    points = np.asarray(joints, np.float64)[order]
    with np.errstate(invalid="ignore"):
        known = annotated[order] & (np.abs(points) < _FAR).all(-1)
    points = np.where(known[:, None], points, 0.0).astype(np.float32)
    if box is not None:
        good = bool(np.isfinite(box).all() and box[2:].min() > 0)
        if known.any() and not good:
            raise DataError(
                f"the box for {what} is {shown(box.tolist())}, expected x, y and a width and height above 0."
            )
        diagonal = float(np.hypot(*box[2:])) if good else float("nan")
    if diagonal is None:
        diagonal = box_diagonal(points, known)
    elif not 0 < diagonal < _FAR and known.any():
        raise DataError(f"the diagonal for {what} is {diagonal:g}, expected pixels above 0.")
    return Label(points, known, diagonal)
