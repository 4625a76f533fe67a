"""`structloss predict` of one input, keypoints or frames, with a lifting network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..errors import ArgumentError, DataError
from ..text import visible
from ._imports import import_torchmetrics
from ._parser import with_flags
from ._predict_footage import look, overlay_ending, shows_frames, write_overlay
from ._predict_output import after_network, file_name, named_files, without_rate, write_prediction
from ._predict_settings import PredictSettings, check_network, check_places, chosen_device

if TYPE_CHECKING:
    from ..data.formats import Keypoints
    from ..harness.predict import Lifter, Prediction

__all__ = ["Networks", "Predicted", "load_networks", "predict_input"]

#: a network, and what is done with each of its predictions
Networks: TypeAlias = "tuple[Lifter, list[Callable[[Prediction], Prediction]]]"


@dataclass(frozen=True)
class Predicted:
    """What was predicted of an input.

    Attributes:
        written: the files.
        tracks, frames: how many.
        notes: what the user should know, a sentence each.
    """

    written: list[Path]
    tracks: int
    frames: int
    notes: list[str]


def predict_input(
    settings: PredictSettings,
    flags: Mapping[str, str] | None,
    networks: Callable[[PredictSettings, str], Networks],
    *,
    overlay: bool = True,
    progress: bool = True,
) -> Predicted:
    """Predict, write, and print a few lines for each track. What can't be written is found out before predicting.

    Args:
        settings: what to do.
        flags: argument -> flag that sets it, for notes that say what to set.
        networks: gives the network and what is done with its predictions, as :func:`load_networks` does.
        overlay: write what was found, drawn over frames, into the folder of `settings.out`.
        progress: show progress bars on a terminal.

    Raises:
        StructlossError: see the functions that `settings` names; nothing to write, one file for several tracks, or a
            file that can't be written.
    """
    import_torchmetrics()
    from ..data._words import count
    from ..data.formats import read_keypoints
    from ..harness.predict import predict

    device = chosen_device(settings.device)
    check_network(settings)
    if not settings.input:
        raise ArgumentError("no input is given, expected a file of keypoints, or --split train or test.")
    seen = None
    if shows_frames(settings.input):  # which takes long: the network is read before
        lifter, after = networks(settings, device)
        seen = look(settings, overlay=overlay, progress=progress)
        tracks = seen.tracks
    else:
        tracks = read_keypoints(
            settings.input, layout=settings.layout, image_size=settings.image_size, person=settings.person,
            fps=settings.fps,
        )  # fmt: skip
    outputs = _outputs(settings, tracks, overlay_ending(seen) if seen is not None and overlay else None)
    if any(path.suffix.lower() == ".mp4" for paths in outputs for path in paths.values()):
        from ..reports.encoders import check_encoder

        check_encoder()
    if seen is None:
        lifter, after = networks(settings, device)
    written, notes = [] if seen is None else list(seen.written), []
    for number, (track, paths) in enumerate(zip(tracks, outputs, strict=True), start=1):
        of = f" ({number} of {len(tracks)})" if len(tracks) > 1 else ""
        print(f"{visible(track.name)}{of}: {count(len(track), 'frame')}, {track.skeleton} keypoints", flush=True)
        made = predict(
            lifter, track, variant=settings.variant, flip=settings.flip, fps=settings.fps,
            batch_size=settings.batch_size or 16, device=device, progress=progress,
        )  # fmt: skip
        for step in after:
            made = step(made)
        if seen is not None and not seen.footage.moving:
            made = replace(made, notes=without_rate(made.notes))
        for note in made.notes:
            notes.append(visible(with_flags(note, flags or {}, argument=False)))
            print(f"  note: {notes[-1]}", flush=True)
        for kind, path in paths.items():
            try:
                if seen is not None and kind == "overlay":
                    written.append(write_overlay(path, made, seen))
                else:
                    written.append(write_prediction(kind, path, made, settings.floor))
            except OSError as error:
                raise DataError(f"{path} can't be written: {error.strerror or error}.") from error
            print(f"  wrote {visible(path)}", flush=True)
    return Predicted(written, len(tracks), sum(map(len, tracks)), notes)


def load_networks(settings: PredictSettings, device: str) -> Networks:
    """The network that lifts, and what is done with its predictions."""
    from ..harness.predict import load_lifter

    lifter = load_lifter(settings.ckpt, backbone=settings.backbone, weights=settings.weights, target=settings.target)
    if settings.ckpt is None and settings.weights is None:
        print(f"network: {lifter.name}, with the weights of this package", flush=True)
    return lifter, after_network(settings, lifter.skeleton, device)


def _outputs(
    settings: PredictSettings, tracks: Sequence[Keypoints], overlay: str | None = None
) -> list[dict[str, Path]]:
    """For each track: "npz", "bvh", "video" and, where it has an ending, "overlay" -> the file to write. Messages name
    the flags."""
    named, everywhere = named_files(settings)
    if overlay is not None and settings.overlay is not None:
        named["overlay"] = Path(settings.overlay)
    if not (named or settings.out or settings.keypoints):
        raise ArgumentError(
            "nothing is to be written, expected a folder for --out, or a file for --npz, --bvh or --video."
        )
    if named and len(tracks) > 1:
        raise DataError(
            f"{settings.input} has {len(tracks)} tracks, expected one for --{' and --'.join(named)}; give --out, a "
            "folder, or choose one with --person."
        )
    folder = Path(settings.out) if settings.out else None
    found: list[dict[str, Path]] = []
    taken: set[str] = set()
    for track in tracks:
        paths = dict(named)
        if folder is not None:
            stem = file_name(track.name, taken)
            paths.setdefault("npz", folder / f"{stem}.npz")
            paths.setdefault("bvh", folder / f"{stem}.bvh")
            if everywhere:
                paths["video"] = folder / f"{stem}.{everywhere}"
            if overlay is not None:
                paths.setdefault("overlay", folder / f"{stem}-overlay{overlay}")
        found.append(paths)
    for path in (path for paths in found for path in paths.values()):
        check_places(settings, path)
    return found
