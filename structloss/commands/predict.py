"""`structloss predict`: keypoints of a video in, 3D poses as npz, BVH and video out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import skeletons
from ..data.formats import Keypoints, read_keypoints, write_bvh
from ..errors import ArgumentError, DataError, check_choice
from ..harness.predict import Prediction, load_lifter, predict
from ..reports.pose_video import FORMATS, check_encoder, write_pose_video

__all__ = ["PredictSettings", "run_predict"]

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class PredictSettings:
    """What to predict, with what, and where to write it. Names and defaults are those of the command's options.

    Attributes:
        input: 2D keypoints, see :func:`~structloss.data.formats.read_keypoints`.
        ckpt, backbone, weights, target: see :func:`~structloss.harness.predict.load_lifter`.
        out: folder for `NAME.npz` and `NAME.bvh` of every track; None writes only what is named.
        npz, bvh: files to write, for an input of one track.
        video: an MP4 or GIF to write, for an input of one track; or "mp4" or "gif": one for every track, in `out`.
        layout, image_size, person, fps: see :func:`~structloss.data.formats.read_keypoints`.
        variant, flip, batch_size: see :func:`~structloss.harness.predict.predict`.
        device: "cpu", "cuda" or "auto".
    """

    input: str
    ckpt: str | None = None
    backbone: str | None = None
    weights: str | None = None
    target: str | None = None
    out: str | None = None
    npz: str | None = None
    bvh: str | None = None
    video: str | None = None
    layout: str = "auto"
    image_size: tuple[int, int] | None = None
    person: str | int = "longest"
    fps: float | None = None
    variant: str | None = None
    flip: bool | None = None
    batch_size: int = 16
    device: str = "auto"


def run_predict(settings: PredictSettings) -> list[Path]:
    """Predict, write, and print a few lines for each track. What can't be written is found out before predicting.

    Returns:
        The files written.

    Raises:
        StructlossError: see the functions that `settings` names; nothing to write, one file for several tracks, or a
            file that can't be written.
    """
    check_choice("device", settings.device, DEVICES)
    tracks = read_keypoints(
        settings.input, layout=settings.layout, image_size=settings.image_size, person=settings.person, fps=settings.fps
    )
    outputs = _outputs(settings, tracks)
    if any(path.suffix.lower() == ".mp4" for paths in outputs for path in paths.values()):
        check_encoder()
    lifter = load_lifter(settings.ckpt, backbone=settings.backbone, weights=settings.weights, target=settings.target)
    device = "cuda" if settings.device == "auto" and torch.cuda.is_available() else settings.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("device is 'cuda', but PyTorch finds no NVIDIA GPU, expected 'cpu' or 'auto'.")
    written = []
    for number, (track, paths) in enumerate(zip(tracks, outputs, strict=True), start=1):
        of = f" ({number} of {len(tracks)})" if len(tracks) > 1 else ""
        print(f"{track.name}{of}: {len(track)} frames, {track.skeleton} keypoints", flush=True)
        made = predict(
            lifter, track, variant=settings.variant, flip=settings.flip, fps=settings.fps,
            batch_size=settings.batch_size, device="cpu" if device == "auto" else device, progress=True,
        )  # fmt: skip
        for note in made.notes:
            print(f"  note: {note}", flush=True)
        for kind, path in paths.items():
            try:
                written.append(_write(kind, path, made))
            except OSError as error:
                raise DataError(f"{path} can't be written: {error.strerror or error}.") from error
            print(f"  wrote {path}", flush=True)
    return written


def _outputs(settings: PredictSettings, tracks: Sequence[Keypoints]) -> list[dict[str, Path]]:
    """For each track: "npz", "bvh" and "video" -> the file to write."""
    named = {kind: getattr(settings, kind) for kind in ("npz", "bvh", "video") if getattr(settings, kind)}
    everywhere = named.pop("video").lower() if str(named.get("video")).lower() in ("mp4", "gif") else None
    if everywhere and not settings.out:
        raise ArgumentError(f"video is {everywhere!r} without out, expected a folder, or a file's name for the video.")
    if not (named or settings.out):
        raise ArgumentError("nothing is to be written, expected out, a folder, or a file for npz, bvh or video.")
    endings = {"npz": (".npz",), "bvh": (".bvh",), "video": FORMATS}
    for kind, name in named.items():
        if Path(name).suffix.lower() not in endings[kind]:
            raise ArgumentError(f"{kind} is {name!r}, expected a name that ends in {' or '.join(endings[kind])}.")
    if named and len(tracks) > 1:
        raise DataError(
            f"{settings.input} has {len(tracks)} tracks, expected one for {' and '.join(named)}; give out, a folder, "
            "or choose one with person."
        )
    folder = Path(settings.out) if settings.out else None
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ArgumentError(f"out is {str(folder)!r}, a file, expected a folder.")
    found: list[dict[str, Path]] = []
    taken: set[str] = set()
    for track in tracks:
        paths = {kind: Path(name) for kind, name in named.items()}
        if folder is not None:
            stem = _file_name(track.name, taken)
            paths.setdefault("npz", folder / f"{stem}.npz")
            paths.setdefault("bvh", folder / f"{stem}.bvh")
            if everywhere:
                paths["video"] = folder / f"{stem}.{everywhere}"
        found.append(paths)
    return found


def _file_name(name: str, taken: set[str]) -> str:
    """A file's name for a track, not used before: "S9/Walking 1/0" -> "S9_Walking_1_0", "clip.mp4" -> "clip"."""
    name = re.sub(r"\.(mp4|avi|mov|mkv|webm|jpe?g|png)$", "", name, flags=re.IGNORECASE)
    base = re.sub(r"[^\w.-]+", "_", name).strip("._") or "track"
    stem, number = base, 2
    while stem.lower() in taken:
        stem, number = f"{base}_{number}", number + 1
    taken.add(stem.lower())
    return stem


def _write(kind: str, path: Path, made: Prediction) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "npz":
        return made.save(path)
    if kind == "bvh":
        poses, skeleton = made.positions, made.skeleton
        if skeleton not in ("h36m", "mpi_inf_3dhp"):
            poses, skeleton = skeletons.convert(poses.astype(np.float64), skeleton, "h36m"), "h36m"
        return write_bvh(path, poses, made.fps, skeleton=skeleton, up="-y")
    title = f"{made.name} – {made.meta['model']}"
    return write_pose_video(
        path, made.keypoints, made.confidence, made.positions, fps=made.fps, skeleton=made.skeleton, title=title,
        progress=True,
    )  # fmt: skip
