"""Conversions in pieces: by several processes, and going on where a killed one was.

What is done lies in `OUT.partial` beside the output until all of it is: the clips of every few recordings (`clips/`),
the store's files, of which pieces are written in place (`store/`), and a note of each finished piece (`done/`), which
tells of what it was made. A piece depends on its input alone, and its place on the lengths of all clips, so that the
result is the same for any number of processes and of restarts. The store takes its name when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, DataError, MissingFileError
from ..files import held, new_file, put_folder, sweep, write_json
from ..reading import read_json
from .cameras import h36m_cameras
from .clips import Clip
from .formats.registry import FORMATS, Format
from .observation import default_rigs, seen_by, source_of, view_by, weight_of
from .parallel import in_parallel
from .shards import Layout, lay_out
from .store import ARRAYS, PoseStore, StoreFiles, check_free, open_store, write_description
from .views import View, columns

__all__ = [
    "Head",
    "Partial",
    "gathered_clips",
    "is_finished",
    "load_clips",
    "opened",
    "partial_folder",
    "put_aside",
    "write_observed",
    "write_store",
]

_FILES = 8  # recordings of a piece
_FRAMES = 50_000  # frames of a piece of a store, about


def partial_folder(target: Path) -> Path:
    """Where what is done of a conversion lies until all of it is."""
    return target.with_name(f"{target.name}.partial")


class Partial:
    """The folder of an unfinished conversion.

    Args:
        folder: of :func:`partial_folder`.
        overwrite: whether the output may replace a store.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        self.folder, self.overwrite = folder, overwrite

    def result(self, step: str, made_of: Any) -> Any:
        """What a finished step returned that was made of the same; None where it is to be done."""
        file = self.folder / "done" / f"{step}.json"
        if not file.is_file():
            return None
        try:
            found = read_json(file, "a note of a conversion")
        except DataError:
            return None
        return found.get("result") if isinstance(found, dict) and found.get("of") == made_of else None

    def finish(self, step: str, made_of: Any, result: Any) -> Any:
        """Note that a step is done; returns its result."""
        write_json(self.folder / "done" / f"{step}.json", {"of": made_of, "result": result})
        return result


def is_finished(target: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a conversion with these settings was killed when all was done but to remove what it left; that is removed
    now.

    Raises:
        ArgumentError: it is at work.
    """
    folder = partial_folder(target)
    if not target.exists() or not (folder / "done" / "finished.json").exists() or (folder / "store").exists():
        return False
    with _alone(folder):
        if _settings_in(folder) != json.loads(json.dumps(settings)):
            return False
        _clear(folder)
    return True


#: what is in the folder of a conversion, in the order in which it goes: the notes that it is finished last
_PARTS = ("clips", "store", "done", "settings.json")


def _settings_in(folder: Path) -> Any:
    """The settings of the conversion that a folder is of; None where it is of none."""
    file = folder / "settings.json"
    return read_json(file, "the settings of a conversion") if file.exists() else None


def _check_ours(folder: Path) -> None:
    """Raise where a folder that is there, and that will go, holds something of somebody else."""
    if not os.path.lexists(folder):
        return
    ours = folder.is_dir() and not folder.is_symlink()
    if ours:
        sweep(folder)
        # what begins with a dot another process is writing at this moment
        if found := {name for name in os.listdir(folder) if not name.startswith(".")}:
            told = _settings_in(folder)
            ours = found <= {*_PARTS} and isinstance(told, dict) and {"data", "format"} <= {*told}
    if not ours:
        raise ArgumentError(f"{folder} exists and is of no conversion, expected another name of the output.")


def _clear(folder: Path) -> None:
    """Remove what a conversion left, and its folder unless somebody put something there."""
    _empty(folder)
    with suppress(OSError):
        folder.rmdir()


def _empty(folder: Path) -> None:
    for name in _PARTS:
        entry = folder / name
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder of a conversion."""
    try:
        with held(folder):
            yield
    except BlockingIOError as error:
        raise ArgumentError(f"{folder} is at work in another process, expected one conversion at a time.") from error


@contextmanager
def opened(target: Path, settings: Mapping[str, Any], overwrite: bool) -> Iterator[Partial]:
    """The folder of a conversion to `target`, made or found again, held by this process; it goes when the block ends
    without an error.

    Raises:
        ArgumentError: an unfinished conversion with other settings is there, or one that is at work.
    """
    folder = partial_folder(target)
    _check_ours(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = Partial(folder, overwrite)
    with _alone(folder):
        if (before := _settings_in(folder)) is not None:
            now = json.loads(json.dumps(settings))
            if before != now:
                keys = [key for key in now if not isinstance(before, dict) or before.get(key) != now[key]]
                if not overwrite:
                    raise ArgumentError(
                        f"{folder} is of a conversion with another {' and another '.join(keys) or 'setting'}, "
                        "expected the same to go on with it; remove it or set overwrite to start anew."
                    )
                _empty(folder)
        write_json(folder / "settings.json", settings)
        (folder / "done").mkdir(exist_ok=True)
        (folder / "clips").mkdir(exist_ok=True)
        try:
            yield found
        except BaseException:
            if not any((folder / "done").iterdir()):  # there is nothing to go on with
                _clear(folder)
            raise
        _clear(folder)


# ---- recordings


@dataclass(frozen=True)
class Head:
    """A clip without its positions.

    Attributes:
        clip: the clip, standing still for one frame.
        frames: how many it has.
        file, name: where its positions are.
        state: what tells its positions from others.
    """

    clip: Clip
    frames: int
    file: str
    name: str
    state: Any = None

    @property
    def key(self) -> str:
        """`subject/name`."""
        return self.clip.key


@dataclass(frozen=True)
class _Reading:
    """Recordings to read."""

    folder: Path
    step: str
    form: str
    files: tuple[Path, ...]
    fps: float | None
    given: tuple[tuple[str, Any], ...]


def gathered_clips(
    path: Path, form: Format, done: Partial, *, jobs: int, fps: float | None, skip_bad: bool, progress: bool,
    given: Mapping[str, Any],
) -> list[Head]:  # fmt: skip
    """Read the recordings of a folder into `clips/`, those that were not read before.

    Args:
        path: the folder.
        form: its format, one with `files`.
        done: what was done before.
        jobs: processes.
        fps: frames per second to resample to.
        skip_bad: leave out files that can't be read.
        progress: show a bar on a terminal.
        given: further options of the format.
    """
    assert form.files is not None and form.gather is not None
    files = form.files(path)
    options = tuple(sorted(given.items()))
    tasks = [
        _Reading(
            done.folder, f"clips-{first // _FILES:06d}", form.name, tuple(files[first : first + _FILES]), fps, options
        )
        for first in range(0, len(files), _FILES)
    ]
    notes: dict[Path, Any] = {}
    for task, found in zip(
        tasks, in_parallel(_read, tasks, jobs, f"reading .{form.name} files", progress), strict=True
    ):
        for number, (file, note) in enumerate(zip(task.files, found, strict=True)):
            notes[file] = {**note, "place": (f"{task.step}.npz", str(number))}
    heads: list[Head] = form.gather(path, files, partial(_head, notes), skip_bad)
    return heads


def _read(task: _Reading) -> list[dict[str, Any]]:
    """Read some recordings, or find that they were read; a note of each, its error and its warnings in it."""
    done = Partial(task.folder)
    made_of = [_state_of(file) for file in task.files]
    if (before := done.result(task.step, made_of)) is not None:
        return list(before)
    read = FORMATS[task.form].read_file
    assert read is not None
    notes: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for number, file in enumerate(task.files):
        note: dict[str, Any] = {"warnings": []}
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                clip = read(file, **dict(task.given))
                clip = clip if task.fps is None else clip.resampled(task.fps)
                arrays[str(number)] = clip.positions
                note |= {key: getattr(clip, key) for key in ("subject", "action", "name", "fps", "unknown")}
                note["frames"] = len(clip)
            except (DataError, MissingFileError) as error:
                note |= {"error": str(error), "missing": isinstance(error, MissingFileError)}
        note["state"] = made_of[number]
        note["warnings"] = [str(warning.message) for warning in said]
        notes.append(note)
    with new_file(task.folder / "clips" / f"{task.step}.npz") as out:
        np.savez(out, **arrays)
    return list(json.loads(json.dumps(done.finish(task.step, made_of, notes))))


def _state_of(file: Path) -> list[Any]:
    """What changes when a file does."""
    status = file.stat()
    return [str(file), status.st_size, status.st_mtime_ns]


def _head(notes: Mapping[Path, Mapping[str, Any]], file: Path) -> Head:
    """The clip of a file, as if it was read now."""
    note = notes[file]
    for text in note["warnings"]:
        warnings.warn(text, UserWarning, stacklevel=2)
    if "error" in note:
        raise (MissingFileError if note["missing"] else DataError)(note["error"])
    still = np.zeros((1, 17, 3), dtype=np.float32)
    clip = Clip(still, note["subject"], note["action"], note["name"], note["fps"], tuple(note["unknown"]))
    place, name = note["place"]
    return Head(clip, note["frames"], place, name, note["state"])


def load_clips(done: Partial, heads: Sequence[Head]) -> Iterator[Clip]:
    """The clips with their positions."""
    file, arrays = "", None
    for head in heads:
        if head.file != file or arrays is None:
            file, arrays = head.file, np.load(done.folder / "clips" / head.file)
        yield replace(head.clip, positions=arrays[head.name])


def put_aside(clips: Sequence[Clip], done: Partial) -> list[Head]:
    """Clips of the memory of this process, written where others find them."""
    heads = []
    for first in range(0, len(clips), 64):
        part, name = clips[first : first + 64], f"all-{first // 64:06d}.npz"
        with new_file(done.folder / "clips" / name) as out:
            arrays: dict[str, Any] = {str(number): clip.positions for number, clip in enumerate(part)}
            np.savez(out, **arrays)
        for number, clip in enumerate(part):
            state = zlib.crc32(clip.positions.reshape(-1).view(np.uint8).data)
            heads.append(Head(replace(clip, positions=clip.positions[:1]), len(clip), name, str(number), state))
    return heads


# ---- stores


@dataclass(frozen=True)
class _Piece:
    """Views to write: all arguments of a process."""

    folder: Path
    step: str
    plan: str
    layout: Layout
    kept: tuple[str, ...]
    skeleton: str
    work: Any


def write_observed(
    heads: Sequence[Head], target: Path, done: Partial, data: str, *, jobs: int, shard_frames: int, progress: bool,
    detections: str = "simulated", seed: int = 0, views: int | None = None,
) -> None:  # fmt: skip
    """Write clips as cameras see them, as :func:`~structloss.data.observation.observe` does; `data` is what they are
    from."""
    rigs = [list(h36m_cameras(name))[:views] for name in default_rigs([head.clip.subject for head in heads])]
    seen: list[View] = []
    firsts, start = [], 0
    for head, rig in zip(heads, rigs, strict=True):
        firsts.append(len(seen))
        for number, camera in enumerate(rig):
            seen.append(view_by(head.clip, camera, number, start, head.frames))
            start += head.frames
    known = all(weight_of(head.clip, "h36m").all() for head in heads)
    kept = ("input", "pose") if known else ("input", "pose", "weight")
    clips = _grouped([head.frames * len(rig) for head, rig in zip(heads, rigs, strict=True)])
    names = default_rigs([head.clip.subject for head in heads])
    work = [
        (
            slice(firsts[first], firsts[end] if end < len(heads) else len(seen)),
            partial(_observe, tuple(heads[first:end]), tuple(names[first:end]), views, detections, seed),
        )
        for first, end in clips
    ]
    moved: dict[str, int] = {}

    def about(notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        for note in notes:
            moved.update(note)
        return {"skeleton": "h36m", "temporal": True, "source": {**source_of(detections, seed, moved), "data": data}}

    plan = [[head.key, head.frames, list(head.clip.unknown), head.state] for head in heads]
    _write(seen, kept, "h36m", plan, work, target, done, about, jobs, shard_frames, progress)


def write_store(
    store: PoseStore, target: Path, done: Partial, *, jobs: int, shard_frames: int, progress: bool, state: Any
) -> None:
    """Write a store's views; `state` tells its content from what it may have been before."""
    kept = tuple(name for name in ARRAYS if getattr(store, name) is not None)
    starts, frames = columns(store.views, "start"), columns(store.views, "frames")
    mapped = store.path is not None
    if not mapped:
        jobs = 1  # what is in the memory of this process
    work = []
    for first, end in _grouped(frames.tolist()):
        rows = list(zip(starts[first:end].tolist(), frames[first:end].tolist(), strict=True))
        source = str(store.path) if mapped else store
        work.append((slice(first, end), partial(_copied, source, kept, rows)))
    about = {"skeleton": store.skeleton, "temporal": store.temporal, "source": store.source}
    _write(store.views, kept, store.skeleton, state, work, target, done, lambda _: about, jobs, shard_frames, progress)


def _write(
    views: Sequence[View], kept: tuple[str, ...], skeleton: str, state: Any, work: Sequence[tuple[slice, Any]],
    target: Path, done: Partial, about: Callable[[Sequence[Any]], dict[str, Any]], jobs: int, shard_frames: int,
    progress: bool,
) -> None:  # fmt: skip
    """Write all pieces that are not written, then describe them, and give the store its name."""
    frames = columns(views, "frames")
    layout = lay_out(frames, shard_frames)
    told = json.dumps([state, frames.tolist(), layout.frames, kept, skeleton], sort_keys=True)
    plan = hashlib.sha256(told.encode()).hexdigest()
    folder = done.folder / "store"
    if done.result("plan", plan) is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        done.finish("plan", plan, True)
    tasks = [
        _Piece(
            done.folder, f"store-{number:06d}", plan, Layout(layout.start[part], layout.shard[part], layout.frames),
            kept, skeleton, one,
        )
        for number, (part, one) in enumerate(work)
    ]  # fmt: skip
    found = list(in_parallel(_write_piece, tasks, jobs, "writing poses", progress))
    said = about([note for _, note in found])
    write_description(folder, views, layout, [crc for crcs, _ in found for crc in crcs], kept, said)
    check_free(target, done.overwrite)  # once more: it may have come meanwhile
    done.finish("finished", plan, True)
    put_folder(folder, target)


def _write_piece(piece: _Piece) -> tuple[list[int], Any]:
    """Write some views, or find that they were; their checksums, and what is to be noted."""
    done = Partial(piece.folder)
    if (before := done.result(piece.step, piece.plan)) is not None:
        return tuple(before)
    crcs: list[int] = []
    notes: dict[str, Any] = {}
    with StoreFiles(piece.folder / "store", piece.layout, piece.kept, piece.skeleton) as files:
        for number, arrays in enumerate(piece.work(done, notes)):
            crcs.append(files.write(number, arrays))
    done.finish(piece.step, piece.plan, [crcs, notes])  # what was written is on the disk
    return crcs, notes


def _observe(
    heads: Sequence[Head], rigs: Sequence[str], views: int | None, detections: str, seed: int, done: Partial,
    notes: dict[str, Any],
) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
    for clip, rig in zip(load_clips(done, heads), rigs, strict=True):
        clip = clip.centred()
        for number, camera in enumerate(list(h36m_cameras(rig))[:views]):
            pose, seen, away = seen_by(clip, camera, number, detections, seed, "h36m", "move")
            if away:
                notes[clip.key] = notes.get(clip.key, 0) + 1
            yield {"input": seen, "pose": pose, "weight": np.broadcast_to(weight_of(clip, "h36m"), seen.shape[:2])}


def _copied(
    source: str | PoseStore, kept: Sequence[str], rows: Sequence[tuple[int, int]], _: Partial, __: dict[str, Any]
) -> Iterator[dict[str, np.ndarray]]:
    store = _opened(source) if isinstance(source, str) else source
    for start, frames in rows:
        store.check_unchanged()
        yield {name: getattr(store, name)[start : start + frames] for name in kept}


@lru_cache(maxsize=1)
def _opened(path: str) -> PoseStore:
    return open_store(path)


def _grouped(frames: Sequence[int]) -> list[tuple[int, int]]:
    """(first, end) of runs of :data:`_FRAMES` frames, about."""
    found, first, total = [], 0, 0
    for number, count in enumerate(frames):
        total += count
        if total >= _FRAMES or number + 1 == len(frames):
            found.append((first, number + 1))
            first, total = number + 1, 0
    return found
