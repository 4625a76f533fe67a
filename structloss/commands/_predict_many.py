"""`structloss predict` of many inputs: several in a piece of work, and a manifest of what became of each."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__, samples
from ..errors import ArgumentError, BackendError, DataError, StructlossError, check_choice
from ..files import scratch_folder
from ..progress import track
from ..text import visible
from ._engine import print_line
from ._manifest import Manifest, Record
from ._many_inputs import OneInput, find_inputs, is_one
from ._parser import with_flags
from ._predict_keypoints import Networks, load_networks, predict_input
from ._predict_settings import DEVICES, OWN, PredictSettings, check_network

if TYPE_CHECKING:
    from ..harness.engines import Engine, Piece

__all__ = ["predict_piece", "run_predict_many"]

#: what is of one input, as attributes of the settings
_OF_ONE = ("npz", "bvh", "json", "overlay", "keypoints", "network", "colours", "boxes", "box", "images")
_MOST = 32  # inputs of a piece
_BYTES = 16 << 20  # of them, so that one task is seconds of work and a video has one to itself
_SAY_SECONDS = 10.0
_FILES = ("ckpt", "weights", "refine", "fit_skeleton")


def run_predict_many(
    settings: PredictSettings, flags: Mapping[str, str], engine: Engine, threads: int = 1
) -> list[Record]:
    """Predict all inputs of a folder or list that are not done yet, into `settings.out`, and print what is done.

    Args:
        settings: what to do with each; `input` is the folder or list.
        flags: argument -> flag that sets it, for notes that say what to set.
        engine: where it is done.
        threads: of each piece. Poses do not depend on the engine, but the last digit of some networks' does on this.

    Returns:
        The record of each input, in their order.

    Raises:
        StructlossError: options of one input; a network that can't be read; inputs that failed, after all others are
            done.
    """
    _check(settings)
    out = Path(str(settings.out))
    inputs = find_inputs(str(settings.input), settings.out)
    if settings.ckpt is not None:
        _check_lifts(settings.ckpt)
    with Manifest(out) as manifest:
        keys = {one.name: _key(settings, one, threads) for one in inputs}
        left = [one for one in inputs if manifest.done(one.name, keys[one.name]) is None]
        before = len(inputs) - len(left)
        print_line(f"{len(inputs)} inputs" + (f", {before} of them done before" if before else ""))
        if left:
            load_networks(settings, "cpu")  # what is wrong with it is told once, before anything begins
        progress = _Progress(len(left))
        lost = _predict_all(settings, flags, left, keys, engine, threads, manifest, progress)
        if lost:  # whose piece never came to an end: one of them did it, so each is a piece of its own
            again = _predict_all(settings, flags, lost, keys, engine, threads, manifest, progress, alone=True)
            for one in again:
                progress.failed += 1
                manifest.add(Record(one.name, "failed", "its process was killed, perhaps for want of memory.",
                                    key=keys[one.name]))  # fmt: skip
        progress.end()
    manifest.tidy([one.name for one in inputs])
    records = [manifest.records[one.name] for one in inputs]
    print_line(f"wrote {visible(out)}: {visible(manifest.path.name)} tells what became of each input")
    failed = [record for record in records if record.status != "done"]
    if failed:
        raise DataError(
            f"{len(failed)} of {len(inputs)} inputs failed, which {manifest.path} tells of; the first: {failed[0].why}"
        )
    return records


def _check(settings: PredictSettings) -> None:
    """Raise for what has no meaning with many inputs."""
    if settings.out is None:
        raise ArgumentError(
            f"--out is not given with {settings.input}, expected a folder for the results of its inputs."
        )
    if Path(settings.out).exists() and not Path(settings.out).is_dir():
        raise ArgumentError(f"--out is {settings.out!r}, a file, expected a folder.")
    for name in _OF_ONE:
        if (value := getattr(settings, name)) is not None:
            raise ArgumentError(f"--{name} is {value!r} with many inputs, expected it with one.")
    if settings.video is not None and settings.video.lower() not in ("mp4", "gif"):
        raise ArgumentError(f"--video is {settings.video!r} with many inputs, expected mp4 or gif.")
    check_choice("device", settings.device, DEVICES)
    check_network(settings)


def _check_lifts(checkpoint: str) -> None:
    from ..harness.load import trained_arguments
    from ..harness.systems import LIFTING

    system = trained_arguments(checkpoint)[0]
    if system != LIFTING:
        raise ArgumentError(
            f"--ckpt is {checkpoint!r}, a checkpoint of {system.says}, expected {LIFTING.says} with many inputs."
        )


def _key(settings: PredictSettings, one: OneInput, threads: int) -> str:
    """What a prediction depends on."""
    own = asdict(replace(settings, input=None, out=None))
    files = {}
    for name in _FILES:
        path = own[name]
        if path is not None and path != OWN and os.path.exists(path):
            stat = os.stat(path)
            files[name] = [stat.st_size, stat.st_mtime_ns]
    parts = [__version__, own, files, threads, one.input, one.state]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _predict_all(
    settings: PredictSettings, flags: Mapping[str, str], inputs: Sequence[OneInput], keys: Mapping[str, str],
    engine: Engine, threads: int, manifest: Manifest, progress: _Progress, alone: bool = False,
) -> list[OneInput]:  # fmt: skip
    """Predict inputs; returns those that nothing is known of, since their process was lost again and again."""
    from ..harness.engines import Piece, paths_in

    own = paths_in(replace(settings, input=None, fit_skeleton=_unless_own(settings.fit_skeleton)))
    pieces: list[Piece] = []
    for part in [[one] for one in inputs] if alone else _parts(inputs):
        # not a folder that is none, such as "/" in a list: the reader refuses it, and all of it would travel
        reads = tuple(one.input for one in part if os.path.isfile(one.input) or is_one(Path(one.input)))
        name = part[0].name if len(part) == 1 else f"{part[0].name} and {len(part) - 1} more"
        given = (replace(settings, input=None, out=None), tuple(part), dict(flags), threads)
        pieces.append(Piece(name, predict_piece, given, (*own, *reads)))
    known: set[str] = set()
    if not pieces:
        return []
    with contextlib.closing(_results(engine, pieces, manifest.path.parent)) as results:
        for record in progress.over(results):
            known.add(record.input)
            manifest.add(replace(record, key=keys[record.input]))
    return [one for one in inputs if one.name not in known]


def _results(engine: Engine, pieces: Sequence[Piece], out: Path) -> Generator[Record, None, None]:
    def lost(number: int, error: BackendError) -> None:
        print_line(f"  {error}")

    for _, record in engine.run(pieces, out, lost):
        yield record


def _unless_own(lengths: str | None) -> str | None:
    return None if lengths == OWN else lengths


def _parts(inputs: Sequence[OneInput]) -> Iterator[list[OneInput]]:
    """Inputs next to each other, as many as a piece has."""
    most = min(_MOST, max(1, len(inputs) // 16))  # some for every worker
    part: list[OneInput] = []
    for one in inputs:
        if part and (len(part) == most or sum(other.size for other in part) + one.size > _BYTES):
            yield part
            part = []
        part.append(one)
    if part:
        yield part


class _Progress:
    """A bar on a terminal, lines elsewhere: how many of all are done, and how fast.

    Args:
        total: inputs to do.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.failed, self.frames = total, 0, 0, 0
        self._started = self._said = time.monotonic()

    def over(self, results: Iterator[Record]) -> Iterator[Record]:
        """The results, counted."""
        for _ in track(range(self.total - self.done), "Predicting", True):
            record = next(results, None)
            if record is None:
                return
            self.done += 1
            self.failed += record.status != "done"
            self.frames += record.frames
            yield record
            if time.monotonic() - self._said >= _SAY_SECONDS and not sys.stderr.isatty():
                self._said = time.monotonic()
                print_line(f"  {self._told()}")
        yield from results  # none: it lets the engine come to its end

    def end(self) -> None:
        if self.total:
            print_line(self._told())

    def _told(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._started)
        failed = f", {self.failed} failed" if self.failed else ""
        return (
            f"{self.done} of {self.total} inputs{failed}, {self.frames} frames in {seconds:.0f} s: "
            f"{self.done / seconds:.3g} inputs and {self.frames / seconds:.4g} frames per second"
        )


# ---- in a worker ---------------------------------------------------------------------------------------------------

_loaded: dict[str, Networks] = {}


def _networks(settings: PredictSettings, device: str) -> Networks:
    """The networks of the piece before, where they are the same: reading them takes longer than most inputs."""
    parts = [device, settings.backbone, settings.target, *(getattr(settings, name) for name in _FILES)]
    states = [os.stat(p).st_mtime_ns for p in parts if isinstance(p, str) and os.path.isfile(p)]
    key = json.dumps([*parts, states])
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load_networks(settings, device)
    return _loaded[key]


def predict_piece(
    settings: PredictSettings, inputs: Sequence[OneInput], flags: Mapping[str, str], threads: int, folder: Path
) -> Iterator[Record]:
    """Predict inputs one after the other, and write what is made of each into a folder of its name.

    Args:
        settings: for each.
        inputs: where they are here.
        flags: argument -> flag that sets it.
        threads: to compute with.
        folder: of all results.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for one in inputs:
            yield _predict_one(settings, one, flags, folder)
    finally:
        torch.set_num_threads(before)


def _predict_one(settings: PredictSettings, one: OneInput, flags: Mapping[str, str], folder: Path) -> Record:
    from ..harness.engines import told_text
    from ._refusals import bounded_memory_and_disk

    started = time.perf_counter()
    target = folder / one.name
    try:
        with bounded_memory_and_disk(), scratch_folder(target) as scratch, contextlib.redirect_stdout(io.StringIO()):
            told = replace(settings, input=str(samples.resolve(one.input, "keypoints")), out=str(scratch))
            made = predict_input(told, flags, _networks, overlay=False, progress=False)
            target.mkdir(parents=True, exist_ok=True)
            files = []
            for path in made.written:
                os.replace(path, target / path.name)
                files.append((Path(one.name) / path.name).as_posix())
    except StructlossError as error:
        why = told_text(with_flags(str(error), flags))
        return Record(one.name, "failed", why, seconds=round(time.perf_counter() - started, 3))
    seconds = round(time.perf_counter() - started, 3)
    return Record(one.name, "done", None, files, made.tracks, made.frames, seconds, made.notes)
