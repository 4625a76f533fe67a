"""Write videos as folders of frames, by the crop rule of the published shape templates."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...data._checks import at_least
from ...data._words import count
from ...errors import ArgumentError, DataError, shown
from ...files import new_file, write_bytes, write_json
from ...progress import track
from ...reading import existing, read_json
from .._opencv import one_thread, opencv
from ..image_people import numbers
from ..video import VIDEO_SUFFIXES, VideoPeople, video_frames
from .boxes import FrameBoxes, read_frame_boxes
from .crops import SnappedBox
from .states import (
    STATE,
    VideoState,
    check_folders,
    folder_of,
    read_state,
    remove_frames,
    video_of,
    write_state,
)
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
        anew: videos whose frames were written before, of another video of that name or with other boxes; those went.
    """

    path: Path
    folders: int
    frames: int
    labelled: int
    videos: int
    skipped: int
    alone: int
    anew: int = 0


@dataclass(frozen=True)
class _Video:
    """A video to write.

    Attributes:
        file: its path.
        key: its name in the records of what is written, and what names of its frames are drawn from.
        base: name of its folders, which the snapped box follows.
        owner: whose these folders are: the video's alone, or a subject's before a camera of Human3.6M.
    """

    file: Path
    key: str
    base: str
    owner: str


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
    finished. A video that is another than it was, by size or time, is written anew, and so is one that was not finished
    if its boxes are others; frames that were written of it go. Videos whose folders would have one name (`a.mp4` and
    `a.mov`, `b/c.mp4` and `b-c.mp4`) are refused.

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
        DataError: no videos that are wanted, two with one folder, one that can't be read, boxes that are none, or a
            damaged record of what was written.
        ArgumentError: a number out of range, or an `out` that holds something else, or frames of other settings or
            boxes, or of another video in the same folder.
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
    named = [_named(video, top) for video in wanted]
    _refuse_twins(named, top)
    owners = _owners(folder, named)
    read = anew = 0
    for video in track(named, "writing frames", progress):
        record = _record_of(folder, video)
        told = read_of(video.file, top, boxes, len(videos) == 1)
        before = read_state(record) if record.exists() else None
        now = VideoState(np.zeros(0, str), video_of(video.file), _digest(told), video.owner)
        if before is not None and before.done and before.video == now.video:
            if before.told != now.told:
                raise ArgumentError(
                    f"out is {out}, which holds frames of {video.file.name} by other boxes, expected the same boxes or "
                    "a new folder."
                )
            continue
        opened = VideoPeople(video.file)
        known = read_frame_boxes(told, len(opened), str(video.file), opened.size)
        crops = _crops(opened, known, step)
        names = {number: _frame(video, number, crop) for number, crop in crops.items()}
        now = replace(now, names=np.array([*names.values()], dtype=str))
        _refuse_owned(folder, now, owners)
        _make(folder, settings)  # not before something can be written
        goes_on = before is not None and (before.video, before.told) == (now.video, now.told)
        if before is not None and not goes_on:
            _remove(folder, record, before)
            anew += 1
        write_state(record, now)
        write_state(record, _write_video(video, folder, known, crops, now, size, goes_on))
        owners |= dict.fromkeys(now.folders, video.owner)
        read += 1
    states = [read_state(_record_of(folder, video)) for video in named]
    kept, alone = _without_single(folder, states)
    labelled = _write_labels(folder, states, kept)
    folders = set(map(folder_of, kept))
    if not folders:
        raise DataError(f"{top} has {count(alone, 'frame')}, each with a snapped box of its own, expected two of one.")
    return WrittenFrames(folder, len(folders), len(kept), labelled, read, len(videos) - len(wanted), alone, anew)


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


def _named(video: Path, top: Path) -> _Video:
    """The video with the names that come from its own, and from where it lies in the folder of videos."""
    within = video.relative_to(top) if top.is_dir() else Path(video.name)
    name = within.as_posix()
    key = hashlib.sha256(os.fsencode(name)).hexdigest()[:24]
    if known := h36m_video(video):
        return _Video(video, key, f"{known[0]}-{known[2]}", f"{known[0]} before camera {known[2]}")
    # A name that begins with a point would be hidden, or be that of the records or of the folder above.
    return _Video(video, key, "-".join(within.with_suffix("").parts).lstrip(".") or "video", name)


def _refuse_twins(videos: list[_Video], top: Path) -> None:
    """Raise where frames of two videos would come into one folder."""
    owners: dict[str, str] = {}
    for video in videos:
        other = owners.setdefault(video.base, video.owner)
        if other != video.owner:
            raise DataError(
                f"{top} has {other} and {video.owner}, whose frames would come into one folder, {video.base}, expected "
                "names that differ in more."
            )


def _owners(out: Path, videos: list[_Video]) -> dict[str, str]:
    """Folder of frames -> whose it is, by the records of videos that were written, others than these, too."""
    known = {_record_of(out, video): video for video in videos}
    owners: dict[str, str] = {}
    for record in sorted((out / STATE).glob("*.npz")):
        video = known.get(record)
        state = read_state(record)
        owners |= dict.fromkeys(state.folders, video.owner if video else state.owner or "another video")
    check_folders(out, owners)
    return owners


def _refuse_owned(out: Path, state: VideoState, owners: dict[str, str]) -> None:
    """Raise where a folder of a video's frames is another's, or a link."""
    for folder in sorted(state.folders):
        if (other := owners.get(folder, state.owner)) != state.owner:
            raise ArgumentError(
                f"out is {out}, where {folder} holds frames of {other}, expected a new folder for those of "
                f"{state.owner}, or another name."
            )
    check_folders(out, state.folders)


def _record_of(out: Path, video: _Video) -> Path:
    return out / STATE / f"{video.key}.npz"


def _remove(out: Path, record: Path, before: VideoState) -> None:
    """Remove frames that were written of a video. Its record is one of no video meanwhile: it goes on from there."""
    write_state(record, VideoState(before.names, (), "", before.owner))
    if before.annotated is not None and before.annotated.any():
        (out / "joints.npz").unlink(missing_ok=True)  # tells them, too, and is written again with what is left
    remove_frames(out, before.names)


def _digest(told: str | os.PathLike[str] | Sequence[float] | None) -> str:
    """What tells boxes from others: that of a file's content, or the box itself."""
    if told is None:
        return ""
    if isinstance(told, str | os.PathLike):
        return hashlib.sha256(existing(told, "a file of boxes").read_bytes()).hexdigest()
    return str(numbers(list(told), "boxes", (4,)).tolist())


def _refuse_other(out: Path, settings: dict[str, Any]) -> None:
    """Raise where the folder to write holds frames of other settings, or something else."""
    record = out / STATE / "settings.json"
    if record.exists():
        found = read_json(record, "the settings of frames")
        if found != settings:
            raise ArgumentError(f"out is {out}, which holds frames of {shown(found)}, expected {shown(settings)}.")
    elif out.exists() and (not out.is_dir() or any(map(_is_something, out.iterdir()))):
        raise ArgumentError(f"out is {out}, which holds something else, expected a new or an empty folder.")


def _is_something(path: Path) -> bool:
    """Whether it is more than what a process leaves that is killed before it records the settings."""
    return path.name != STATE or not path.is_dir() or any(part.suffix != ".tmp" for part in path.iterdir())


def _make(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder, with a record of the settings."""
    record = out / STATE / "settings.json"
    if not record.exists():
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # in a folder that is there and takes none, as /proc
            raise PermissionError(errno.EACCES, "nothing can be made in its folder", str(out)) from error
        write_json(record, settings)


def _crops(opened: VideoPeople, boxes: FrameBoxes | None, step: int) -> dict[int, SnappedBox | None]:
    """The snapped boxes of the frames to write, by number."""
    crops: dict[int, SnappedBox | None] = {}
    for crop, frames in grouped(boxes, len(opened), opened.size).items():
        crops |= dict.fromkeys((frame for frame in frames if frame % step == 0), crop)
    return crops


def _frame(video: _Video, number: int, crop: SnappedBox | None) -> str:
    """The name of a frame, with its folder."""
    folder = video.base if crop is None else f"{video.base}-{crop.name}"
    return f"{folder}/{hashlib.sha256(f'{video.key} {number}'.encode()).hexdigest()[:16]}.jpg"


def _write_video(
    video: _Video,
    out: Path,
    boxes: FrameBoxes | None,
    crops: dict[int, SnappedBox | None],
    state: VideoState,
    size: int,
    goes_on: bool,
) -> VideoState:
    """Write the frames, where it goes on those that are missing; returns the record with their labels."""
    names, labels = [], []
    for number, image in enumerate(video_frames(video.file)):
        if number not in crops:
            continue
        crop = crops[number]
        picture, matrix = cropped(image, crop, size)
        name = _frame(video, number, crop)
        if not (goes_on and (out / name).exists()):
            (out / name).parent.mkdir(exist_ok=True)
            write_bytes(out / name, _jpeg(picture))
        names.append(name)
        labels.append(_label(boxes, number, matrix))
    joints, annotated, diagonal = (np.array(part) for part in zip(*labels, strict=True)) if labels else _nothing()
    return replace(state, names=np.array(names, dtype=str), joints=joints, annotated=annotated, diagonal=diagonal)


def _label(boxes: FrameBoxes | None, number: int, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    joints = np.full((15, 2), np.nan) if boxes is None or boxes.joints is None else boxes.joints[number]
    diagonal = np.nan if boxes is None else np.hypot(*boxes.boxes[number, 2:]) * matrix[0, 0]
    return *labelled_crop(joints, matrix), float(diagonal)


def _nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((0, 15, 2), np.float32), np.zeros((0, 15), bool), np.zeros(0)


def _jpeg(image: np.ndarray) -> bytes:
    cv2 = opencv()
    with one_thread():
        done, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done  # an image of this kind can be written
    return bytes(content)


def _without_single(folder: Path, states: list[VideoState]) -> tuple[set[str], int]:
    """Names of the frames without those that are alone in their folder, which go; and how many of these."""
    every = [str(name) for state in states for name in state.names if (folder / str(name)).exists()]
    number = Counter(map(folder_of, every))
    single = [name for name in every if number[folder_of(name)] == 1]
    remove_frames(folder, single)
    return set(every) - set(single), len(single)


def _write_labels(folder: Path, states: list[VideoState], kept: set[str]) -> int:
    """Write `joints.npz`, if anybody's joints are known; returns of how many frames."""
    keys = ("names", "joints", "annotated", "diagonal")
    arrays = {key: np.concatenate([getattr(state, key) for state in states]) for key in keys}
    rows = arrays["annotated"].any(1) & np.isin(arrays["names"], list(kept))
    if rows.any():
        with new_file(folder / "joints.npz") as file:
            np.savez_compressed(file, **{key: array[rows] for key, array in arrays.items()})  # type: ignore[arg-type]
    return int(rows.sum())
