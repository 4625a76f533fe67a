"""Predictions of a network for whole clips, beside the true poses: what refiners are trained on.

One npz file without pickles, uncompressed: `meta`, a JSON string, and per clip `predicted/N` and `true/N`, float32
`[T, J, 3]`, and `weight/N`, uint8 `[T, J]`. It is written clip by clip.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import skeletons
from ..data.formats.unpickle import load_npz_arrays
from ..errors import ArgumentError, DataError, check_name, shown
from ..files import new_file, plain
from ..reading import parse_json

__all__ = ["PredictedClip", "PredictionWriter", "Predictions", "read_predictions", "writing_predictions"]

_FORMAT, _VERSION = "structloss predictions", 1
_ARRAYS = ("predicted", "true", "weight")


@dataclass(frozen=True, eq=False)
class PredictedClip:
    """What a network made of one clip of one camera.

    Attributes:
        predicted: float32 `[T, J, 3]`, metres relative to the pelvis, camera frame (x right, y down, z forward).
        true: the same, of the true poses.
        weight: uint8 `[T, J]`: 1 where the true pose is known and counts; None is 1 everywhere.
        subject: the person; data are split by it.
        action: what the person does.
        name: of the motion, unique among the subject's.
        view: name of the camera.
        fps: frames per second; NaN where unknown.

    Raises:
        ArgumentError: arrays of other shapes or dtypes, no frames, or values that are not finite (of true poses, where
            they count).
    """

    predicted: np.ndarray
    true: np.ndarray
    weight: np.ndarray | None = None
    subject: str = "unknown"
    action: str = "unknown"
    name: str = ""
    view: str = ""
    fps: float = math.nan

    def __post_init__(self) -> None:
        shape = self.predicted.shape
        if len(shape) != 3 or shape[0] < 1 or shape[2] != 3 or self.predicted.dtype != np.float32:
            raise ArgumentError(
                f"predicted is {self.predicted.dtype} {list(shape)}, expected float32 [T, J, 3] with T of at least 1."
            )
        if self.true.shape != shape or self.true.dtype != np.float32:
            raise ArgumentError(f"true is {self.true.dtype} {list(self.true.shape)}, expected float32 {list(shape)}.")
        weight = self.weight
        if weight is not None and (weight.shape != shape[:2] or weight.dtype != np.uint8):
            raise ArgumentError(f"weight is {weight.dtype} {list(weight.shape)}, expected uint8 {list(shape[:2])}.")
        counts = np.ones(shape[:2], bool) if weight is None else weight > 0
        for what, finite in (
            ("predicted", np.isfinite(self.predicted).all(-1)),
            ("true", np.isfinite(self.true).all(-1) | ~counts),
        ):
            if not finite.all():
                frame = int(np.nonzero(~finite.all(-1))[0][0])
                raise ArgumentError(f"{what} has NaN or infinite values, first in frame {frame}, expected poses.")

    def __len__(self) -> int:
        return len(self.predicted)

    @property
    def motion(self) -> str:
        """`subject/name`, the same for all views of a motion."""
        return f"{self.subject}/{self.name}"


@dataclass(frozen=True)
class Predictions:
    """What a file of predictions holds.

    Attributes:
        clips: the clips, in order.
        skeleton: name of the joints' order.
        source: what made them: "model", "checkpoint", "data", "split", ...
        path: the file.
    """

    clips: tuple[PredictedClip, ...]
    skeleton: str = "h36m"
    source: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""


class PredictionWriter:
    """Takes clips one after the other; see :func:`writing_predictions`."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, skeleton: str) -> None:
        self._archive, self._path = archive, path
        self._joints = skeletons.get(skeleton).num_joints
        self.entries: list[dict[str, Any]] = []

    def add(self, clip: PredictedClip) -> None:
        """Write a clip.

        Raises:
            ArgumentError: its poses have another number of joints.
        """
        if clip.predicted.shape[1] != self._joints:
            raise ArgumentError(f"clip has {clip.predicted.shape[1]} joints, expected {self._joints}.")
        number = len(self.entries)
        for name in _ARRAYS:
            array = getattr(clip, name)
            if array is not None:
                self._write(f"{name}/{number}", array)
        told = {name: getattr(clip, name) for name in ("subject", "action", "name", "view", "fps")}
        self.entries.append(told | {"frames": len(clip)})

    def _write(self, name: str, array: np.ndarray) -> None:
        with self._archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)

    def finish(self, skeleton: str, source: Mapping[str, Any]) -> None:
        """Write what describes the clips."""
        if not self.entries:
            raise DataError(f"there are no clips to write to {self._path}, expected at least one.")
        body = skeletons.get(skeleton)
        meta = {
            "format": _FORMAT,
            "version": _VERSION,
            "units": "metre",
            "frame": "camera: x right, y down, z forward; relative to the pelvis",
            "skeleton": skeleton,
            "joint_names": list(body.joint_names),
            "source": dict(source),
            "clips": self.entries,
        }
        self._write("meta", np.array(json.dumps(plain(meta), allow_nan=False)))


@contextmanager
def writing_predictions(
    path: str | os.PathLike[str], skeleton: str = "h36m", source: Mapping[str, Any] | None = None
) -> Iterator[PredictionWriter]:
    """A writer of a file of predictions, which appears complete when the block ends, or not at all. No more than one
    clip is in memory.

    Args:
        path: the file to write; an existing one is replaced.
        skeleton: name of the joints' order.
        source: what made the predictions; JSON.

    Raises:
        UnknownNameError: an unknown skeleton.
        ArgumentError: `path` is a folder, a pipe or a device.
        DataError: no clip was added.
        OSError: the file can't be written.
    """
    path = Path(path)
    skeletons.get(skeleton)
    with new_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        writer = PredictionWriter(archive, path, skeleton)
        yield writer
        writer.finish(skeleton, source or {})


def read_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Read a file that :func:`writing_predictions` wrote. Nothing is unpickled.

    Raises:
        MissingFileError: there is no such file.
        DataError: no such archive, damaged, of a newer version, or its arrays and its description don't agree.
        UnknownNameError: an unknown skeleton.
    """
    arrays = load_npz_arrays(path)
    raw = arrays.get("meta")
    if raw is None or raw.shape != () or raw.dtype.kind != "U":
        raise DataError(f"{path} has no 'meta' text, expected predictions written by structloss predict --split.")
    meta = parse_json(str(raw), f"'meta' of {path}")
    if not isinstance(meta, dict) or meta.get("format") != _FORMAT:
        raise DataError(f"{path} holds no predictions, expected a file written by structloss predict --split.")
    if meta.get("version") != _VERSION or meta.get("units") != "metre":
        raise DataError(
            f"{path} has version {shown(meta.get('version'))} and units {shown(meta.get('units'))}, expected "
            f"{_VERSION} and 'metre'."
        )
    skeleton = check_name("skeleton", meta.get("skeleton"), skeletons.names())
    entries = meta.get("clips")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"clips in 'meta' of {path} is malformed, expected a list of objects, at least one.")
    joints = skeletons.get(skeleton).num_joints
    clips = tuple(_clip(path, number, entry, arrays, joints) for number, entry in enumerate(entries))
    source = meta.get("source")
    return Predictions(clips, skeleton, source if isinstance(source, dict) else {}, str(path))


def _clip(
    path: str | os.PathLike[str], number: int, entry: Mapping[str, Any], arrays: dict[str, np.ndarray], joints: int
) -> PredictedClip:
    found = {name: arrays.pop(f"{name}/{number}", None) for name in _ARRAYS}
    for name in ("predicted", "true"):
        if found[name] is None:
            raise DataError(f"{path} has no array '{name}/{number}', expected one for each of its clips.")
    fps = entry.get("fps")
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < 1e9):
        raise DataError(f"fps of clip {number} of {path} is {shown(fps)}, expected a positive number.")
    told = {name: str(entry.get(name, "")) for name in ("subject", "action", "name", "view")}
    try:
        clip = PredictedClip(**found, **told, fps=math.nan if fps is None else float(fps))  # type: ignore[arg-type]
    except ArgumentError as error:
        raise DataError(f"clip {number} of {path} can't be used: {str(error).rstrip('.')}.") from error
    if clip.predicted.shape[1] != joints:
        raise DataError(f"clip {number} of {path} has {clip.predicted.shape[1]} joints, expected {joints}.")
    return clip


def rates_of(clips: Iterable[PredictedClip]) -> list[float]:
    """The frame rates of clips, sorted; without those that are not known."""
    return sorted({clip.fps for clip in clips if not math.isnan(clip.fps)})
