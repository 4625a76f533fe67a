"""Poses out of any file that has some, for figures: predictions, data sets, plain arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, DataError

if TYPE_CHECKING:
    import numpy as np

    from ..data import Clip, PoseStore

__all__ = ["PoseSequence", "chosen_sequence", "read_pose_sequences"]


@dataclass(frozen=True, eq=False)
class PoseSequence:
    """Poses of one person, one after the other.

    Attributes:
        name: of the sequence.
        poses: `[T, J, 3]`, metres, x right, y down, z forward. Motion in the world is turned so that its up is -y.
        skeleton: name of the joints' order.
        weight: `[T, J]`, 0 where a joint is not known; None is 1 everywhere.
        keypoints: `[T, J, 3]`, 2D that the poses were made of and its confidence; None without any.
        true: `[T, J, 3]`, true poses beside predicted ones; None without any.
        fps: frames per second; NaN where unknown.
    """

    name: str
    poses: np.ndarray
    skeleton: str = "h36m"
    weight: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    true: np.ndarray | None = None
    fps: float = math.nan


def read_pose_sequences(path: str, **options: Any) -> list[PoseSequence]:
    """Read the poses of a file or folder.

    Args:
        path: an npz of `structloss predict`, of one person or (`--split`) of many clips; a data set of any format of
            `structloss data formats`; or an .npy or .npz with one array `[T, J, 3]` or `[J, 3]` in metres.
        options: of :func:`structloss.data.opening.open_data`.

    Raises:
        MissingFileError: there is no such path.
        DataError: none of these, or values that are not finite.
        ArgumentError: an option that is not this data set's.
    """
    import numpy as np

    from .. import samples
    from ..data.formats.candidate import Candidate
    from ..data.formats.unpickle import load_npz_arrays
    from ..data.opening import open_data
    from ..reading import existing

    candidate = Candidate(existing(samples.resolve(path, "motion"), "predictions, a data set or an array of poses"))
    arrays = set(candidate.arrays)
    if {"positions", "keypoints", "meta"} <= arrays:
        return [_of_prediction(path, load_npz_arrays(candidate.path))]
    if any(name.startswith("predicted/") for name in arrays):
        return _of_predictions(path)
    if candidate.suffix == ".npy" or (len(arrays) == 1 and "positions_3d" not in arrays and "meta" not in arrays):
        return [_of_array(path, _array(candidate, np))]
    found = open_data(path, **options)
    sequences = [_of_clip(clip) for clip in found] if isinstance(found, list) else _of_store(found)
    if not sequences:
        raise DataError(f"{path} has no poses, expected at least one sequence.")
    return sequences


def _array(candidate: Any, np: Any) -> np.ndarray:
    from ..data.formats.unpickle import load_npz_arrays
    from ..reading import opened

    if candidate.suffix == ".npz":
        return next(iter(load_npz_arrays(candidate.path).values()))
    try:
        with opened(candidate.path, "an array of poses") as file:
            return np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{candidate.path} can't be read: {str(error).splitlines()[0]}.") from error


def _of_array(path: str, array: np.ndarray) -> PoseSequence:
    poses = array[None] if array.ndim == 2 else array
    known = {16: "mpii", 17: "h36m", 133: "h3wb"}
    if poses.ndim != 3 or poses.shape[-1] != 3 or poses.shape[1] not in known or 0 in poses.shape:
        counts = ", ".join(map(str, known))
        raise DataError(
            f"{path} has an array of shape {list(array.shape)}, expected [T, J, 3] or [J, 3] with J of {counts}."
        )
    return PoseSequence(Path(path).stem, _finite(path, poses), known[poses.shape[1]])


def _of_prediction(path: str, arrays: dict[str, np.ndarray]) -> PoseSequence:
    import numpy as np

    from ..reading import parse_json

    meta = parse_json(str(arrays["meta"]), f"'meta' of {path}")
    skeleton = meta.get("skeleton", "h36m") if isinstance(meta, dict) else "h36m"
    name = meta.get("name") if isinstance(meta, dict) else None
    poses, points = _finite(path, arrays["positions"]), arrays["keypoints"]
    confidence = arrays.get("confidence", np.ones(points.shape[:2]))
    if poses.ndim != 3 or points.shape[:2] != poses.shape[:2] or confidence.shape != poses.shape[:2]:
        raise DataError(f"{path} has arrays that don't belong together, expected those of structloss predict.")
    rate = meta.get("fps") if isinstance(meta, dict) else None
    fps = float(rate) if isinstance(rate, (int, float)) and rate > 0 else math.nan
    seen = np.concatenate([points[..., :2], confidence[..., None]], axis=-1)
    return PoseSequence(str(name or Path(path).stem), poses, str(skeleton), keypoints=seen, fps=fps)


def _of_predictions(path: str) -> list[PoseSequence]:
    from ..refine import read_predictions

    found = read_predictions(path)
    return [
        PoseSequence(
            f"{clip.motion} {clip.view}".strip(), clip.predicted, found.skeleton, true=clip.true, fps=clip.fps
        )
        for clip in found.clips
    ]  # fmt: skip


def _of_clip(clip: Clip) -> PoseSequence:
    import numpy as np

    x, y, z = np.moveaxis(clip.positions, -1, 0)
    weight = None if clip.known.all() else np.broadcast_to(clip.known, clip.positions.shape[:2])
    return PoseSequence(clip.key, np.stack([x, -z, y], axis=-1), weight=weight, fps=clip.fps)


def _of_store(store: PoseStore) -> list[PoseSequence]:
    found = []
    for view in store.views:
        rows = slice(view.start, view.start + view.frames)
        weight = None if store.weight is None else store.weight[rows]
        name = f"{view.motion} {view.camera}".strip()
        # Slices of a mapped store are not in memory until they are drawn.
        found.append(PoseSequence(name, store.pose[rows], store.skeleton, weight, store.input[rows], fps=view.fps))
    return found


def _finite(path: str, poses: np.ndarray) -> np.ndarray:
    import numpy as np

    if poses.dtype.kind != "f" or not np.isfinite(poses).all():
        raise DataError(f"{path} has poses of {poses.dtype} or with NaN or infinite values, expected finite metres.")
    return poses


def chosen_sequence(sequences: list[PoseSequence], path: str, name: str | None) -> PoseSequence:
    """The sequence called `name`, or of this number; the first without a name.

    Raises:
        ArgumentError: there is none.
    """
    if name is None:
        return sequences[0]
    for number, one in enumerate(sequences):
        if name in (one.name, str(number)):
            return one
    known = ", ".join(one.name for one in sequences[:8]) + (", ..." if len(sequences) > 8 else "")
    raise ArgumentError(f"sequence is {name!r}, expected a number below {len(sequences)} or a name of {path}: {known}.")
