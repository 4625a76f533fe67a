"""From any data set to the project's own two formats: pose stores and clip archives."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import samples
from ..errors import ArgumentError, DataError, StructlossError
from ..files import check_apart, resolved, sweep
from ._checks import at_least
from ._words import count
from .archive import save_archive
from .cameras import h36m_cameras
from .clips import Clip, check_rate
from .formats._recordings import LeftOut
from .formats.detect import recognise
from .formats.registry import Format
from .formats.unpickle import npz_members
from .observation import check_observing, observe
from .opening import check_options, open_data
from .resumable import (
    Partial,
    gathered_clips,
    is_finished,
    load_clips,
    opened,
    partial_folder,
    put_aside,
    write_observed,
    write_store,
)
from .store import SHARD_FRAMES, SUFFIX, PoseStore, check_free, open_store, save_store
from .synthetic import generate_clips

__all__ = ["Written", "convert_data", "write_synthetic"]


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        path: the store or archive.
        content: what is in it, in a few words.
        notes: what to know of it, a sentence each.
    """

    path: Path
    content: str
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())


def convert_data(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    views: int | None = None,
    detections: str | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    format: str | None = None,
    fps: float | None = None,
    progress: bool = False,
    jobs: int | None = None,
    shard_frames: int = SHARD_FRAMES,
    **options: Any,
) -> Written:
    """Write a data set as a pose store, or motion in the world as a clip archive.

    Cameras that a clip comes too near to are moved back until they see it whole, and noted.

    With `jobs` it goes on where it was when it was killed or failed, started again with the same arguments: what is
    done lies in `OUT.partial` until all of it is. The result is the same for any number of jobs and of restarts, and
    that without them.

    Args:
        path: any file or folder that :func:`~structloss.data.opening.open_data` reads.
        out: ends in `.poses` (pose store; clips are seen by cameras) or `.npz` (clip archive).
        views, detections, seed: of :func:`~structloss.data.observation.observe`, for clips that become a store.
        overwrite: replace what was written there before.
        format: of :func:`~structloss.data.opening.open_data`.
        fps: frames per second of the clips; None is what their format is converted to: 50 for motion capture, its own
            for an archive.
        progress: show progress bars on a terminal.
        jobs: processes that read recordings of a folder and write pose stores; other data sets are read as a whole by
            one. None leaves nothing behind when it fails. Processes import the script that calls this: it needs the
            line `if __name__ == "__main__":` as with :mod:`multiprocessing`.
        shard_frames: of a pose store, see :func:`~structloss.data.store.save_store`; an archive takes none.
        options: further ones of :func:`~structloss.data.opening.open_data`.

    Raises:
        ArgumentError: another ending of `out`, something is there already, or an option that has no use here.
        DataError, MissingFileError: as :func:`~structloss.data.opening.open_data`; `out` can't be written.
    """
    observing = _given(views=views, detections=detections, seed=seed)
    _check_observing(observing)
    at_least(1, jobs=1 if jobs is None else jobs, shard_frames=shard_frames)
    path = samples.resolve(path, "motion")
    target = resolved(out)
    if jobs is not None and target.suffix == SUFFIX and target.exists() and partial_folder(target).exists():
        form = recognise(path, format)
        if is_finished(target, _settings(Path(path), form, fps, shard_frames, options, observing)):
            return _store_written(open_store(target), target, ())
    target = _checked(out, overwrite, observing, shard_frames)
    check_apart(target, input=path)
    form = recognise(path, format)
    if jobs is not None:
        settings = _settings(Path(path), form, fps, shard_frames, options, observing)
        with _writing(target, "; what is done is kept, the same command goes on with it"):
            return _convert_in_pieces(
                Path(path), form, target, observing, settings, jobs, shard_frames, overwrite, fps, progress, options
            )
    with _left_out() as notes:
        data = open_data(
            path, format=format, fps=form.convert_fps if fps is None else fps, progress=progress, **options
        )
    if isinstance(data, PoseStore):
        _check_store_target(Path(path), form, target, observing)
        return _write_store(data, target, overwrite, notes, shard_frames)
    meta = {"source": f"{Path(path).name} ({form.name})"} if form.meta is None else form.meta(Path(path))
    return _write_clips(data, target, overwrite, meta, observing, progress, notes, shard_frames)


def _convert_in_pieces(
    path: Path, form: Format, target: Path, observing: Mapping[str, Any], settings: Mapping[str, Any], jobs: int,
    shard_frames: int, overwrite: bool, fps: float | None, progress: bool, options: Mapping[str, Any],
) -> Written:  # fmt: skip
    """Convert a data set by several processes, or go on with it."""
    given = {name: value for name, value in options.items() if value is not None}
    check_options(path, form, fps, given)
    skip_bad = bool(given.pop("skip_bad", False)) if form.files is not None else False
    rate = form.convert_fps if fps is None else fps
    if rate is not None and form.clips:
        check_rate(rate)
    pieces: dict[str, Any] = {"jobs": jobs, "progress": progress}
    with opened(target, settings, overwrite) as done:
        if form.files is not None and path.is_dir():
            with _left_out() as notes:
                heads = gathered_clips(path, form, done, fps=rate, skip_bad=skip_bad, given=given, **pieces)
        else:
            with _left_out() as notes:
                data = open_data(path, format=form.name, fps=rate if form.clips else None, progress=progress, **given)
            if isinstance(data, PoseStore):
                return _store_in_pieces(data, path, form, target, observing, shard_frames, notes, done, pieces)
            heads = put_aside(data, done)
        meta = {"source": f"{path.name} ({form.name})"} if form.meta is None else form.meta(path)
        if target.suffix != SUFFIX:
            clips = list(load_clips(done, heads))
            save_archive(target, clips, meta)
            return _archive_written(target, clips, notes)
        data_source = str(meta.get("source", ""))
        write_observed(heads, target, done, data_source, shard_frames=shard_frames, **observing, **pieces)
    return _store_written(open_store(target), target, notes)


def _store_in_pieces(
    store: PoseStore, path: Path, form: Format, target: Path, observing: Mapping[str, Any], shard_frames: int,
    notes: Sequence[str], done: Partial, pieces: Mapping[str, Any],
) -> Written:  # fmt: skip
    _check_store_target(path, form, target, observing)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    state = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    write_store(store, target, done, shard_frames=shard_frames, state=state, **pieces)
    return _store_written(store, target, notes)


def _check_store_target(path: Path, form: Format, target: Path, observing: Mapping[str, Any]) -> None:
    if observing:
        raise ArgumentError(
            f"{min(observing)} is given for {path} ({form.name}), which has its own; expected it with clips."
        )
    if target.suffix != SUFFIX:
        raise ArgumentError(
            f"{path} ({form.name}) is what cameras saw, not motion in the world; expected an output ending in {SUFFIX}."
        )


def write_synthetic(
    out: str | os.PathLike[str],
    *,
    subjects: int = 24,
    clips: int = 6,
    frames: int = 500,
    seed: int = 0,
    views: int | None = None,
    detections: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Written:
    """Write synthetic motion as a clip archive or, seen by cameras, as a pose store.

    Args:
        out: ends in `.npz` or `.poses`.
        subjects: people.
        clips: clips of each person.
        frames: frames of each clip, 50 per second.
        seed: of the motion and of the simulated detections.
        views, detections: of :func:`~structloss.data.observation.observe`, for a pose store.
        overwrite: replace what was written there before.
        progress: show progress bars on a terminal.

    Raises:
        ArgumentError: another ending of `out`, something is there already, or an argument out of range.
        DataError: `out` can't be written.
    """
    observing = _given(views=views, detections=detections)
    _check_observing(observing)
    target = _checked(out, overwrite, observing)
    made = generate_clips(subjects, clips, frames, seed, progress=progress)
    meta = {"source": f"synthetic motion, seed {seed}"}
    return _write_clips(made, target, overwrite, meta, {**observing, "seed": seed}, progress)


def _settings(
    path: Path, form: Format, fps: float | None, shard_frames: int, options: Mapping[str, Any],
    observing: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """What the result of a conversion depends on."""
    given = _given(**options)
    if form.files is not None:
        given.pop("skip_bad", None)
    rate = form.convert_fps if fps is None else fps
    told = {"data": str(path.absolute()), "format": form.name, "fps": rate, "shard_frames": shard_frames}
    return {**told, **given, **observing}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_observing(given: Mapping[str, Any]) -> None:
    """Before minutes are spent on reading: what clips are seen by."""
    check_observing(**{"detections": "simulated", "seed": 0, "views": None, **given}, most=len(h36m_cameras("S1")))


@contextmanager
def _left_out() -> Iterator[list[str]]:
    """What is warned of files that are left out goes to the list, other warnings where they go."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield notes
    for warning in said:
        if issubclass(warning.category, LeftOut):
            notes.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _checked(
    out: str | os.PathLike[str], overwrite: bool, observing: Mapping[str, Any], shard_frames: int = SHARD_FRAMES
) -> Path:
    """The output, before minutes are spent on reading the input, and what is given for it."""
    path = resolved(out)
    if path.suffix not in (".npz", SUFFIX):
        found = repr(str(out)) if path == Path(out) else f"{str(out)!r}, a link to {str(path)!r}"
        raise ArgumentError(
            f"out is {found}, expected a name that ends in {SUFFIX} (pose store) or .npz (clip archive)."
        )
    if path.suffix != SUFFIX:
        if observing:
            raise ArgumentError(f"{min(observing)} is given, expected it with an output that ends in {SUFFIX}.")
        if shard_frames != SHARD_FRAMES:
            raise ArgumentError(f"shard_frames is {shard_frames}, expected it with an output that ends in {SUFFIX}.")
    if path.parent.is_dir():
        sweep(path.parent)
    if path.suffix == SUFFIX:
        check_free(path, overwrite)
    elif path.exists():
        if not path.is_file() or "meta" not in npz_members(path):
            raise ArgumentError(f"{path} exists already and is something else, expected a new name.")
        if not overwrite:
            raise ArgumentError(f"{path} exists already, expected a new name; set overwrite to replace it.")
    return path


def _write_clips(
    clips: Sequence[Clip],
    target: Path,
    overwrite: bool,
    meta: Mapping[str, Any],
    observing: Mapping[str, Any],
    progress: bool,
    notes: Sequence[str] = (),
    shard_frames: int = SHARD_FRAMES,
) -> Written:
    if target.suffix == SUFFIX:
        store = observe(clips, progress=progress, too_near="move", **observing)
        store.source["data"] = meta.get("source", "")
        return _write_store(store, target, overwrite, notes, shard_frames)
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        save_archive(target, clips, meta)
    return _archive_written(target, clips, notes)


def _archive_written(target: Path, clips: Sequence[Clip], notes: Sequence[str]) -> Written:
    frames = sum(map(len, clips))
    content = f"{count(len(clips), 'clip')}, {count(frames, 'frame')} at {clips[0].fps:g} fps"
    return Written(target, content, tuple(notes))


def _write_store(
    store: PoseStore, target: Path, overwrite: bool, notes: Sequence[str] = (), shard_frames: int = SHARD_FRAMES
) -> Written:
    with _writing(target):
        save_store(store, target, overwrite=overwrite, shard_frames=shard_frames)
    return _store_written(store, target, notes)


def _store_written(store: PoseStore, target: Path, notes: Sequence[str]) -> Written:
    notes = [*notes, *store.source.get("notes", [])]
    if missing := store.source.get("missing"):
        keypoints, joints = missing["keypoints"], missing["joints"]
        notes.append(f"missing: {count(keypoints, 'keypoint')} and {count(joints, 'joint')} of poses")
    views = f"{count(len(store.motions), 'motion')} in {count(len(store.views), 'view')}"
    return Written(target, f"{views}, {count(store.frames, 'frame')}", tuple(notes))


@contextmanager
def _writing(target: Path, kept: str = "") -> Iterator[None]:
    try:
        yield
    except StructlossError:
        raise
    except OSError as error:
        raise DataError(f"{target} can't be written: {error.strerror or error}{kept}.") from error
