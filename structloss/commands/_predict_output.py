"""What is done with predictions of `structloss predict`, wherever they come from, and how they are written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArgumentError, needs_extra
from ..text import visible
from ._predict_settings import OWN, PredictSettings

if TYPE_CHECKING:
    from ..harness.predict import Prediction
    from ..harness.template_prediction import FoundJoints

__all__ = ["after_network", "file_name", "named_files", "without_rate", "write_prediction"]


def after_network(settings: PredictSettings, skeleton: str, device: str) -> list[Callable[[Prediction], Prediction]]:
    """What is done with a prediction, read before anything is predicted: refined over time, then given its bones."""
    steps: list[Callable[[Prediction], Prediction]] = []
    if settings.refine is None and settings.fit_skeleton is None:
        return steps  # prediction alone needs no Lightning
    with needs_extra("harness"):
        from ..harness.refined import fitted, read_lengths, refined
    if settings.refine is not None:
        from ..harness.refining import load_refiner

        refiner = load_refiner(settings.refine)
        if refiner.skeleton != skeleton:
            raise ArgumentError(
                f"--refine is {settings.refine!r}, a refiner of poses of {refiner.skeleton!r}, expected one for "
                f"{skeleton!r}, in which the network answers."
            )
        steps.append(lambda made: refined(made, refiner, device=device))
    if settings.fit_skeleton is not None:
        lengths = None if settings.fit_skeleton == OWN else read_lengths(settings.fit_skeleton, skeleton)
        steps.append(lambda made: fitted(made, lengths))
    return steps


def named_files(settings: PredictSettings) -> tuple[dict[str, Path], str | None]:
    """The files of --npz, --json, --bvh and --video, by what they are; and "mp4" or "gif" where --video asks for one
    in --out.

    Raises:
        ArgumentError: another ending, two outputs in one file, or --video without a file or a folder.
    """
    from ..reports.pose_video import FORMATS

    named = {kind: str(getattr(settings, kind)) for kind in ("npz", "json", "bvh", "video") if getattr(settings, kind)}
    everywhere = named.pop("video").lower() if str(named.get("video")).lower() in ("mp4", "gif") else None
    if everywhere and not settings.out:
        raise ArgumentError(
            f"--video is {everywhere!r} without --out, expected a folder, or a file's name for the video."
        )
    endings = {"npz": (".npz",), "json": (".json",), "bvh": (".bvh",), "video": FORMATS}
    for kind, name in named.items():
        if Path(name).suffix.lower() not in endings[kind]:
            raise ArgumentError(f"--{kind} is {name!r}, expected a name that ends in {' or '.join(endings[kind])}.")
    files = {flag: str(getattr(settings, flag)) for flag in ("npz", "json", "bvh", "video", "overlay", "keypoints")}
    places = {flag: os.path.realpath(name) for flag, name in files.items() if name != "None"}
    for flag, place in places.items():
        if twin := next((other for other in places if other != flag and places[other] == place), None):
            raise ArgumentError(f"--{flag} and --{twin} are both {files[flag]!r}, expected a file for each.")
    if settings.out and Path(settings.out).exists() and not Path(settings.out).is_dir():
        raise ArgumentError(f"--out is {settings.out!r}, a file, expected a folder.")
    return {kind: Path(name) for kind, name in named.items()}, everywhere


def file_name(name: str, taken: set[str]) -> str:
    """A file's name for a track, not used before: "S9/Walking 1/0" -> "S9_Walking_1_0", "clip.mp4" -> "clip"."""
    name = re.sub(r"\.(mp4|avi|mov|mkv|webm|jpe?g|png)$", "", name, flags=re.IGNORECASE)
    base = re.sub(r"[^\w.-]+", "_", name).strip("._") or "track"
    stem, number = base, 2
    while stem.lower() in taken:
        stem, number = f"{base}_{number}", number + 1
    taken.add(stem.lower())
    return stem


def without_rate(notes: Sequence[str]) -> tuple[str, ...]:
    """Notes of a prediction without those on a frame rate that nobody needs."""
    return tuple(note for note in notes if not note.startswith("the frame rate is not known"))


def write_prediction(kind: str, path: Path, made: Prediction | FoundJoints, floor: bool) -> Path:
    """Write "npz", "bvh" or "video"; of joints in the image "npz" or "json".

    Raises:
        OSError: the file can't be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "npz":
        return made.save(path)
    if hasattr(made, "save_json"):
        return made.save_json(path)
    if kind == "bvh":
        return _write_bvh(path, made, floor)
    from ..reports.pose_video import write_pose_video

    title = visible(f"{made.name} – {made.meta['model']}")
    return write_pose_video(
        path, made.keypoints, made.confidence, made.positions, fps=made.fps, skeleton=made.skeleton, title=title,
        progress=True,
    )  # fmt: skip


def _write_bvh(path: Path, made: Prediction, floor: bool) -> Path:
    import numpy as np

    from .. import skeletons
    from ..data.formats import write_bvh

    poses, skeleton = made.positions, made.skeleton
    if skeleton not in ("h36m", "mpi_inf_3dhp"):
        poses, skeleton = skeletons.convert(poses.astype(np.float64), skeleton, "h36m"), "h36m"
    if floor:
        poses = poses - poses[..., 1].max(axis=1)[:, None, None] * np.array([0, 1, 0], poses.dtype)  # y points down
    return write_bvh(path, poses, made.fps, skeleton=skeleton, up="-y")
