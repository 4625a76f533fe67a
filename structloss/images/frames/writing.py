"""Write videos as folders of frames, by the crop rule of the published shape templates."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data._checks import at_least
from ...data._words import count
from ...data.formats.unpickle import load_npz_arrays
from ...errors import ArgumentError, DataError, shown
from ...files import new_file, write_bytes, write_json
from ...progress import track
from ...reading import existing, read_json
from .._opencv import one_thread, opencv
from ..image_people import numbers
from ..video import VIDEO_SUFFIXES, VideoPeople, video_frames
from .boxes import FrameBoxes, read_frame_boxes
from .crops import SnappedBox
from .videos import boxes_of, cropped, grouped, labelled_crop, videos_in

__all__ = ["H36M_ACTIONS", "H36M_SUBJECTS", "WrittenFrames", "h36m_video", "write_frames"]

H36M_SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
"""Those that the published sets have; S9 and S11 are tested."""
H36M_ACTIONS = (
    *("Waiting", "Posing", "Greeting", "Directions", "Discussion", "Walking", "Photo", "Purchases"),
    *("WalkTogether", "WalkDog"),
)
"""Actions that the published sets have, by the names of Human3.6M's videos."""
_OTHER_NAMES = {"TakingPhoto": "Photo", "WalkingTogether": "WalkTogether", "WalkingDog": "WalkDog"}

_NAME = re.compile(r"(?P<action>[A-Za-z]+)(?: \d)?\.(?P<camera>\d{8})")
_STATE = ".frames"  # folder of what was written
_QUALITY = 95


@dataclass(frozen=True)
class WrittenFrames:
    """What :func:`write_frames` wrote.

    Attributes:
        path: the folder.
        folders, frames, labelled: how many folders, frames, and frames with joints there are now.
        videos: that were read; others had been before.
        skipped: videos that are of other subjects or actions.
        alone: frames that were left out, since nobody else has their snapped box.
    """

    path: Path
    folders: int
    frames: int
    labelled: int
    videos: int
    skipped: int
    alone: int


def h36m_video(path: Path) -> tuple[str, str, str] | None:
    """Subject, action and camera of one of Human3.6M's videos, `S1/Videos/Directions 1.54138969.mp4`; None of others.
    Actions have one name each, whatever the release calls them."""
    found = _NAME.fullmatch(path.stem)
    subject = next((part for part in reversed(path.parts) if re.fullmatch(r"S\d{1,2}", part)), None)
    if found is None or subject is None:
        return None
    action = found["action"]
    return subject, _OTHER_NAMES.get(action, action), found["camera"]


def write_frames(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    boxes: str | os.PathLike[str] | Sequence[float] | None = None,
    size: int = 256,
    step: int = 1,
    progress: bool = False,
) -> WrittenFrames:
    """Write the frames of videos, cropped, into a folder of folders, each of one person before one background.

    The frames of a folder have one snapped box (:mod:`structloss.images.frames.crops`). Of Human3.6M's videos
    (:func:`h36m_video`) those of the published subjects and actions are taken, numbered trials like others, and the
    folder is that of subject, camera and box; otherwise each video has folders of its own. Names of the files are drawn
    from those of video and frame, so that their order is a random one, the same every time. Joints that come with the
    boxes are written to `joints.npz`.

    Files appear whole or not at all. Started again after it was stopped, it goes on with the videos that were not
    finished.

    Args:
        path: a video, or a folder of videos.
        out: the folder to write; one that holds something else is refused.
        boxes: as of :class:`~structloss.images.frames.videos.VideoFolders`; for Human3.6M also a folder with its
            videos' names as seen from `path`.
        size: width and height of the frames, pixels.
        step: take every so many-th frame of a video.
        progress: show a progress bar on a terminal.

    Raises:
        MissingFileError: no such path, or no boxes of a video.
        DataError: no videos that are wanted, one that can't be read, or boxes that are none.
        ArgumentError: a number out of range, or an `out` that holds something else, or frames of other settings or
            boxes.
        MissingDependencyError: OpenCV or PyAV is not installed.
    """
    at_least(1, size=size, step=step)
    top = existing(path, "a video, or a folder of videos")
    videos = videos_in(top)
    if not videos:
        raise DataError(f"{top} has no videos, expected files that end in {', '.join(VIDEO_SUFFIXES)}.")
    wanted = [video for video in videos if _is_wanted(video)]
    if not wanted:
        raise DataError(
            f"{top} has {count(len(videos), 'video')}, of none of the subjects {', '.join(H36M_SUBJECTS)} and the "
            f"actions {', '.join(H36M_ACTIONS)}, expected at least one."
        )
    folder, settings = Path(out), {"size": size, "step": step}
    _refuse_other(folder, settings)
    read = alone = 0
    for video in track(wanted, "writing frames", progress):
        state = folder / _STATE / f"{_key(video, top)}.npz"
        told = read_of(video, top, boxes, len(videos) == 1)
        if state.exists():
            if str(load_npz_arrays(state).get("told", "")) != _digest(told):
                raise ArgumentError(
                    f"out is {out}, which holds frames of {video.name} by other boxes, expected the same boxes or a "
                    "new folder."
                )
            continue
        opened = VideoPeople(video)
        known = read_frame_boxes(told, len(opened), str(video), opened.size)
        _record(folder, settings)  # not before something can be written
        names, joints, annotated, diagonal = _write_video(opened, video, top, folder, known, size, step)
        with new_file(state) as file:
            np.savez_compressed(
                file, names=names, joints=joints, annotated=annotated, diagonal=diagonal, told=_digest(told)
            )
        read += 1
    labels = [load_npz_arrays(folder / _STATE / f"{_key(video, top)}.npz") for video in wanted]
    kept, alone = _without_single(folder, labels)
    labelled = _write_labels(folder, labels, kept)
    folders = {name.rpartition("/")[0] for name in kept}
    if not folders:
        raise DataError(f"{top} has {count(alone, 'frame')}, each with a snapped box of its own, expected two of one.")
    return WrittenFrames(folder, len(folders), len(kept), labelled, read, len(videos) - len(wanted), alone)


def read_of(
    video: Path, top: Path, boxes: str | os.PathLike[str] | Sequence[float] | None, alone: bool
) -> str | os.PathLike[str] | Sequence[float] | None:
    """Where a video's boxes are, see :func:`~structloss.images.frames.videos.boxes_of`; in a folder of boxes they may
    lie as the videos do in theirs."""
    if isinstance(boxes, str | os.PathLike) and Path(boxes).is_dir() and top.is_dir():
        inner = Path(boxes) / video.parent.relative_to(top)
        if inner.is_dir():
            return boxes_of(video, inner, alone)
    return boxes_of(video, boxes, alone)


def _is_wanted(video: Path) -> bool:
    found = h36m_video(video)
    return found is None or (found[0] in H36M_SUBJECTS and found[1] in H36M_ACTIONS)


def _key(video: Path, top: Path) -> str:
    """The video's name in the record of what is done."""
    name = video.relative_to(top).as_posix() if top.is_dir() else video.name
    return hashlib.sha256(name.encode()).hexdigest()[:24]


def _digest(told: str | os.PathLike[str] | Sequence[float] | None) -> str:
    """What tells boxes from others: that of a file's content, or the box itself."""
    if told is None:
        return ""
    if isinstance(told, str | os.PathLike):
        return hashlib.sha256(existing(told, "a file of boxes").read_bytes()).hexdigest()
    return str(numbers(list(told), "boxes", (4,)).tolist())


def _refuse_other(out: Path, settings: dict[str, Any]) -> None:
    """Raise where the folder to write holds frames of other settings, or something else."""
    record = out / _STATE / "settings.json"
    if record.exists():
        found = read_json(record, "the settings of frames")
        if found != settings:
            raise ArgumentError(f"out is {out}, which holds frames of {shown(found)}, expected {shown(settings)}.")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArgumentError(f"out is {out}, which holds something else, expected a new or an empty folder.")


def _record(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder, with a record of the settings."""
    record = out / _STATE / "settings.json"
    if not record.exists():
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, settings)


def _write_video(
    opened: VideoPeople, video: Path, top: Path, out: Path, boxes: FrameBoxes | None, size: int, step: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Names, joints, annotated and diagonals of the frames that were written."""
    crops: dict[int, SnappedBox | None] = {}
    for crop, frames in grouped(boxes, len(opened), opened.size).items():
        crops |= dict.fromkeys((frame for frame in frames if frame % step == 0), crop)
    key, names, labels = _key(video, top), [], []
    for number, image in enumerate(video_frames(video)):
        if number not in crops:
            continue
        crop = crops[number]
        picture, matrix = cropped(image, crop, size)
        name = f"{_folder(video, top, crop)}/{hashlib.sha256(f'{key} {number}'.encode()).hexdigest()[:16]}.jpg"
        if not (out / name).exists():
            (out / name).parent.mkdir(exist_ok=True)
            write_bytes(out / name, _jpeg(picture))
        names.append(name)
        labels.append(_label(boxes, number, matrix))
    joints, annotated, diagonal = (np.array(part) for part in zip(*labels, strict=True)) if labels else _nothing()
    return np.array(names, dtype=str), joints, annotated, diagonal


def _label(boxes: FrameBoxes | None, number: int, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    joints = np.full((15, 2), np.nan) if boxes is None or boxes.joints is None else boxes.joints[number]
    diagonal = np.nan if boxes is None else np.hypot(*boxes.boxes[number, 2:]) * matrix[0, 0]
    return *labelled_crop(joints, matrix), float(diagonal)


def _nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((0, 15, 2), np.float32), np.zeros((0, 15), bool), np.zeros(0)


def _folder(video: Path, top: Path, crop: SnappedBox | None) -> str:
    known = h36m_video(video)
    within = video.relative_to(top) if top.is_dir() else Path(video.name)
    name = "-".join(within.with_suffix("").parts) if known is None else f"{known[0]}-{known[2]}"
    return name if crop is None else f"{name}-{crop.name}"


def _jpeg(image: np.ndarray) -> bytes:
    cv2 = opencv()
    with one_thread():
        done, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done  # an image of this kind can be written
    return bytes(content)


def _without_single(folder: Path, labels: list[dict[str, np.ndarray]]) -> tuple[set[str], int]:
    """Names of the frames without those that are alone in their folder, which go; and how many of these."""
    every = [str(name) for part in labels for name in part["names"] if (folder / str(name)).exists()]
    number: dict[str, int] = {}
    for name in every:
        number[name.rpartition("/")[0]] = number.get(name.rpartition("/")[0], 0) + 1
    single = [name for name in every if number[name.rpartition("/")[0]] == 1]
    for name in single:
        (folder / name).unlink(missing_ok=True)
        if (folder / name).parent.is_dir() and not any((folder / name).parent.iterdir()):
            (folder / name).parent.rmdir()
    return set(every) - set(single), len(single)


def _write_labels(folder: Path, labels: list[dict[str, np.ndarray]], kept: set[str]) -> int:
    """Write `joints.npz`, if anybody's joints are known; returns of how many frames."""
    keys = ("names", "joints", "annotated", "diagonal")
    arrays = {key: np.concatenate([part[key] for part in labels]) for key in keys}
    rows = arrays["annotated"].any(1) & np.isin(arrays["names"], list(kept))
    if rows.any():
        with new_file(folder / "joints.npz") as file:
            np.savez_compressed(file, **{key: array[rows] for key, array in arrays.items()})  # type: ignore[arg-type]
    return int(rows.sum())
