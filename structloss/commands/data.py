"""`structloss data inspect | convert | synthetic`."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..data.archive import load_archive, save_archive
from ..data.clips import Clip
from ..data.formats.detect import MOCAP, detect
from ..data.formats.unpickle import npz_members
from ..data.inspection import inspect_data
from ..data.observation import observe
from ..data.opening import open_data
from ..data.store import SUFFIX, PoseStore, is_store, save_store
from ..data.synthetic import generate_clips
from ..errors import ArgumentError, DataError, StructlossError

__all__ = ["convert", "inspect", "synthetic"]

RATE = 50.0
"""Frames per second that motion capture is resampled to, those of Human3.6M."""


def inspect(path: str, *, as_json: bool = False, **options: Any) -> None:
    """Print what a data set holds and what looks wrong with it; see :func:`~structloss.data.opening.open_data`."""
    report = inspect_data(path, progress=True, **options)
    print(json.dumps(report.to_dict(), indent=2, allow_nan=False) if as_json else report)


def convert(
    path: str,
    out: str,
    *,
    views: int | None = None,
    detections: str | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    fps: float | None = None,
    **options: Any,
) -> None:
    """Write a data set as a pose store, or motion in the world as a clip archive.

    Args:
        path: any file or folder that :func:`~structloss.data.opening.open_data` reads.
        out: ends in `.poses` (pose store; clips are seen by cameras) or `.npz` (clip archive).
        views, detections, seed: of :func:`~structloss.data.observation.observe`, for clips that become a store.
        overwrite: replace what is at `out`.
        fps: rate of the clips; None resamples motion capture to :data:`RATE` and leaves archives as they are.
        options: further ones of :func:`~structloss.data.opening.open_data`.

    Raises:
        ArgumentError: another ending of `out`, something is there already, or an option that has no use here.
        DataError, MissingFileError: as :func:`~structloss.data.opening.open_data`; `out` can't be written.
    """
    target = _checked_out(out, overwrite)
    kind = detect(path)
    observing = {"views": views, "detections": detections, "seed": seed}
    given = {name: value for name, value in observing.items() if value is not None}
    with _short_warnings():
        if kind in MOCAP and fps is None:
            fps = RATE
        data = open_data(path, fps=fps, progress=True, **options)
    if isinstance(data, PoseStore):
        if given:
            raise ArgumentError(
                f"{min(given)} is given for {path} ({kind}), which has its own; expected it with clips."
            )
        if target.suffix == ".npz":
            raise ArgumentError(
                f"{path} ({kind}) is what cameras saw, not motion in the world; expected an output ending in {SUFFIX}."
            )
        _write(data, target, overwrite)
    else:
        meta = load_archive(path)[1] if kind == "archive" else {"source": f"{Path(path).name} ({kind})"}
        _write_clips(data, target, overwrite, meta, given)


def synthetic(
    out: str,
    *,
    subjects: int = 24,
    clips: int = 6,
    frames: int = 500,
    seed: int = 0,
    views: int | None = None,
    detections: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write synthetic motion as a clip archive or, seen by cameras, as a pose store.

    Args:
        out: ends in `.npz` or `.poses`.
        subjects, clips, frames, seed: of :func:`~structloss.data.generate_clips`; clips is per subject.
        views, detections: of :func:`~structloss.data.observation.observe`.
        overwrite: replace what is at `out`.
    """
    target = _checked_out(out, overwrite)
    made = generate_clips(subjects, clips, frames, seed, progress=True)
    observing = {"views": views, "detections": detections}
    given = {name: value for name, value in observing.items() if value is not None}
    if target.suffix == SUFFIX:
        given["seed"] = seed
    _write_clips(made, target, overwrite, {"source": f"synthetic motion, seed {seed}"}, given)


def _checked_out(out: str | os.PathLike[str], overwrite: bool) -> Path:
    """The output, before minutes are spent on reading the input."""
    path = Path(out)
    if path.suffix not in (".npz", SUFFIX):
        raise ArgumentError(
            f"the output is {str(out)!r}, expected a name that ends in {SUFFIX} (pose store) or .npz (clip archive)."
        )
    if path.exists():
        ours = is_store(path) if path.suffix == SUFFIX else path.is_file() and "meta" in npz_members(path)
        if not ours:
            raise ArgumentError(f"{path} exists already and is something else, expected a new name.")
        if not overwrite:
            raise ArgumentError(f"{path} exists already, expected a new name, or --overwrite.")
    return path


def _write_clips(
    clips: Sequence[Clip], target: Path, overwrite: bool, meta: dict[str, Any], observing: dict[str, Any]
) -> None:
    if target.suffix == SUFFIX:
        store = observe(clips, progress=True, **observing)
        store.source["data"] = meta.get("source", "")
        _write(store, target, overwrite)
        return
    if observing:
        raise ArgumentError(f"{min(observing)} is given, expected it with an output that ends in {SUFFIX}.")
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        save_archive(target, clips, meta)
    frames = sum(map(len, clips))
    print(f"wrote {target}: {len(clips)} clips, {frames} frames at {clips[0].fps:g} fps, {_size(target)}")


def _write(store: PoseStore, target: Path, overwrite: bool) -> None:
    with _writing(target):
        save_store(store, target, overwrite=overwrite)
    content = f"{len(store.motions)} motions in {len(store.views)} views, {store.frames} frames"
    print(f"wrote {target}: {content}, {_size(target)}")
    for note in store.source.get("notes", []):
        print(f"note: {note}")
    if missing := store.source.get("missing"):
        print(f"note: {missing['keypoints']} keypoints and {missing['joints']} joints of poses are missing")


def _size(path: Path) -> str:
    files = path.iterdir() if path.is_dir() else [path]
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except StructlossError:
        raise
    except OSError as error:
        raise DataError(f"{target} can't be written: {error.strerror or error}.") from error


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Warnings on one line each, without the code that they come from."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(" ".join(str(warning.message).split()) for warning in said):
        print(f"structloss: warning: {text}", file=sys.stderr)
