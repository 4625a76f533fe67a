"""`structloss predict` of frames (a video, images, a camera) with a network for keypoints: a detector finds them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, DataError, StructlossError
from ..text import visible
from ._predict_output import file_name, named_files
from ._predict_settings import PredictSettings, check_places

if TYPE_CHECKING:
    from ..data.formats import Keypoints
    from ..harness.predict import Prediction
    from ..images.footage import Footage

__all__ = ["DETECTOR", "Seen", "camera_of", "look", "overlay_ending", "shows_frames", "write_overlay"]

DETECTOR = "mediapipe"
"""The detector where none is named."""
#: what a detector's keypoints leave no room for, and frames tell themselves
_NEEDLESS = ("image_size", "boxes", "box", "images", "colours")


@dataclass(frozen=True)
class Seen:
    """Frames, and who was found in them.

    Attributes:
        footage: the frames.
        tracks: the chosen people's keypoints.
        written: files that were written already: the keypoints.
    """

    footage: Footage
    tracks: list[Keypoints]
    written: list[Path]


def shows_frames(path: str | None) -> bool:
    """Whether an input is a video, an image, a folder of images and of nothing that keypoints could be in, or the
    number of a camera."""
    from ..images.image_files import SUFFIXES
    from ..images.video import VIDEO_SUFFIXES

    if not path:
        return False
    if camera_of(path) is not None:
        return True
    place = Path(path)
    try:
        if not place.is_dir():
            return place.suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES)
        endings = {inner.suffix.lower() for inner in place.iterdir()}
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return False
    return bool(endings & {*SUFFIXES}) and not endings & {".json", ".npy", ".npz", ".txt", ".csv"}


def camera_of(path: str) -> int | None:
    """The number of a camera, where an input is one and no file of that name exists."""
    return int(path) if path.isascii() and path.isdecimal() and len(path) < 4 and not os.path.exists(path) else None


def look(settings: PredictSettings, *, overlay: bool = True, progress: bool = True) -> Seen:
    """Find the people of the input, and print a few lines; their keypoints are written where they are asked for.

    Args:
        settings: what is asked for.
        overlay: the frames are drawn over in the folder of results.
        progress: show progress bars on a terminal.

    Raises:
        StructlossError: see :mod:`structloss.images.footage` and :mod:`structloss.images.detection`; options that
            belong to something else, or a file that can't be written.
    """
    from ..images.detection import find_keypoints
    from ..images.detector import load_detector

    for name in _NEEDLESS:
        if (value := getattr(settings, name)) is not None:
            told = " ".join(f"{part:g}" for part in value) if isinstance(value, tuple) else repr(value)
            where = (
                "expected it with a file of keypoints"
                if name == "image_size"
                else "expected it with a network from images"
            )
            raise ArgumentError(f"--{name.replace('_', '-')} is {told} with frames and a lifting network, {where}.")
    target = _keypoints_file(settings)
    _check_places(settings, target)
    layout = None if settings.layout == "auto" else settings.layout
    detector = load_detector(DETECTOR if settings.detector is None else settings.detector, layout=layout)
    footage = _footage(settings)
    if footage.moving and ((settings.out and overlay) or settings.overlay):
        from ..reports.encoders import check_encoder

        check_encoder()
    print(_said(footage), flush=True)
    found = find_keypoints(footage, detector, progress=progress)
    print(f"  somebody is seen in {found.seen} of {len(footage)} by {visible(detector.name)}", flush=True)
    written = []
    if target is not None:
        try:
            written.append(found.save(target))
        except OSError as error:
            if isinstance(error, StructlossError):
                raise
            raise DataError(f"{target} can't be written: {error.strerror or error}.") from error
        print(f"  wrote {visible(target)}", flush=True)
    return Seen(footage, found.tracks(settings.person), written)


def _keypoints_file(settings: PredictSettings) -> Path | None:
    """Where the keypoints go; nowhere without --keypoints and --out."""
    if settings.keypoints is not None:
        if Path(settings.keypoints).suffix.lower() != ".json":
            raise ArgumentError(f"--keypoints is {settings.keypoints!r}, expected a name that ends in .json.")
        return Path(settings.keypoints)
    return None if settings.out is None else Path(settings.out) / f"{_stem(settings)}-keypoints.json"


def _stem(settings: PredictSettings) -> str:
    """A file's name for the whole input, beside those of its tracks."""
    assert settings.input is not None  # it shows frames
    camera = camera_of(settings.input)
    name = f"camera-{camera}" if camera is not None else Path(settings.input).resolve().name
    return file_name(name, set())


def _check_places(settings: PredictSettings, keypoints: Path | None) -> None:
    """Raise where nothing is to be written, or a file can't be made where it is to go: finding people takes long."""
    named, _ = named_files(settings)
    overlay = None if settings.overlay is None else Path(settings.overlay)
    asked = [path for path in (*named.values(), keypoints, overlay) if path is not None]
    if not asked:
        raise ArgumentError(
            "nothing is to be written, expected a folder for --out, or a file for --npz, --bvh, --video, --overlay or "
            "--keypoints."
        )
    if overlay is not None and overlay.suffix.lower() not in (".mp4", ".png"):
        raise ArgumentError(f"--overlay is {str(overlay)!r}, expected a name that ends in .mp4, or .png for an image.")
    for path in asked:
        try:
            above = next(folder for folder in path.absolute().parents if folder.exists())
            if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
                raise DataError(f"{path} can't be written: {above} is no folder that files can be made in.")
            check_places(settings, path)
        except (OSError, ValueError) as error:
            if isinstance(error, StructlossError):
                raise
            raise DataError(f"{path} can't be written: {getattr(error, 'strerror', None) or error}.") from error


def _footage(settings: PredictSettings) -> Footage:
    from ..images.camera import record_camera
    from ..images.footage import open_footage

    assert settings.input is not None  # it shows frames
    camera = camera_of(settings.input)
    if camera is None:
        return open_footage(
            settings.input, frames=settings.frames, fps=settings.fps, missing=settings.missing or "error"
        )
    if settings.missing is not None:
        raise ArgumentError(f"--missing is {settings.missing!r} with a camera, expected it with a folder of images.")
    until = f"{settings.frames} frames, or Ctrl-C" if settings.frames else "Ctrl-C, or --frames N"

    def started(width: int, height: int) -> None:
        print(f"camera {camera}: recording {width} x {height} pixels until {until}", flush=True)

    return record_camera(camera, frames=settings.frames, fps=settings.fps, progress=True, started=started)


def _said(footage: Footage) -> str:
    from ..data._words import count

    rate = "" if footage.fps is None else f", {footage.fps:.4g} per second"
    return f"{visible(footage.name)}: {count(len(footage), 'frame')} of {footage.width} x {footage.height} pixels{rate}"


def overlay_ending(seen: Seen) -> str:
    """The ending of the files that the frames are drawn into."""
    return ".mp4" if seen.footage.moving else ".png"


def write_overlay(path: Path, made: Prediction, seen: Seen) -> Path:
    """The frames with the 2D joints drawn over, the 3D poses beside them: a video, or of a single image a picture.

    Raises:
        ArgumentError: another ending than that.
        OSError: the file can't be written there.
    """
    from ..images import overlay_footage, write_picture
    from ..reports.pose_video import PANEL_PIXELS, pose_frames, write_pose_video

    ending = overlay_ending(seen)
    if path.suffix.lower() != ending:
        of = "frames that follow each other" if seen.footage.moving else "a single image"
        raise ArgumentError(f"--overlay is {str(path)!r}, expected a name that ends in {ending} for {of}.")
    first = int(made.meta["first_frame"])
    drawn = overlay_footage(
        seen.footage, made.keypoints, made.confidence, skeleton=made.skeleton, start=first, height=PANEL_PIXELS
    )
    arrays = made.keypoints, made.confidence, made.positions
    told: dict[str, Any] = {
        "fps": made.fps, "skeleton": made.skeleton, "title": visible(f"{made.name} – {made.meta['model']}"),
        "pictures": drawn, "progress": True,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    if seen.footage.moving:
        return write_pose_video(path, *arrays, **told)
    return write_picture(path, next(pose_frames(*arrays, **told)))
