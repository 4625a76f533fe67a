"""`structloss predict` of images and videos: people's poses in 3D, and pictures with what was found drawn over them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, DataError, StructlossError, needs_extra
from ..text import visible
from ._imports import import_torchmetrics
from ._parser import with_flags
from ._predict_footage import shows_frames
from ._predict_output import after_network, file_name, named_files, without_rate, write_prediction
from ._predict_settings import OF_FRAMES, OWN, PredictSettings, check_places, chosen_device

if TYPE_CHECKING:
    from ..harness.predict import Prediction
    from ..harness.template_prediction import FoundJoints
    from ..images import People
    from ..images.image_people import ImagePeople

__all__ = ["are_of_images", "run_predict_images"]

#: what belongs to keypoints, and what it is when it is not given
_OF_KEYPOINTS = {"target": None, "layout": "auto", "variant": None, "image_size": None, "person": "longest"}
#: what belongs to images
_OF_IMAGES = ("boxes", "box", "images", "missing", "overlay", "colours")
_FOLLOWING = "expected it with frames that follow each other: a video, or images of one person each with --fps"


@dataclass
class _Files:
    """What to write: kinds of :func:`write_prediction`, a video to draw over, or pictures by the image's name."""

    named: dict[str, Path] = field(default_factory=dict)
    video: Path | None = None
    pictures: dict[str, Path] = field(default_factory=dict)


def are_of_images(settings: PredictSettings) -> bool:
    """Whether the network starts from images rather than from keypoints.

    Raises:
        ArgumentError: options of images or frames are given with keypoints.
        StructlossError: the checkpoint can't be read, where the input is of images.
    """
    if settings.network is not None:
        _check_dimensions(settings, 3)
        return True
    pixels = shows_frames(settings.input)
    if settings.ckpt is not None and settings.backbone is None:
        with needs_extra("harness"):
            import_torchmetrics()
            from ..harness.load import trained_arguments
            from ..harness.systems import IMAGES, TEMPLATES
        try:
            system = trained_arguments(settings.ckpt)[0]
        except StructlossError:
            if pixels:
                raise
            return False  # who lifts keypoints says so, after what is wrong with them
        _check_dimensions(settings, 2 if system == TEMPLATES else 3)
        if system in (IMAGES, TEMPLATES):
            return True
    _check_dimensions(settings, 3)
    for name in () if pixels else (*_OF_IMAGES, *OF_FRAMES):
        if (value := getattr(settings, name)) is not None:
            where = "frames and a lifting network" if name in OF_FRAMES else "a network from images"
            where = "images or a video, or --video, which shows keypoints and poses" if name == "overlay" else where
            raise ArgumentError(f"--{name} is {value!r} with keypoints, expected it with {where}.")
    return False


def _check_dimensions(settings: PredictSettings, dimensions: int) -> None:
    """Raise :class:`ArgumentError` for what a network that answers in so many dimensions has no use for."""
    names = ("json",) if dimensions == 3 else ("bvh", "video", "refine", "fit_skeleton", "floor")
    for name in names:
        if (value := getattr(settings, name)) not in (None, False):
            flag = f"--{name.replace('_', '-')}"
            told = "is given" if value is True else f"is {value!r}"
            other = "of shape templates" if dimensions == 3 else "that answers in 3D"
            raise ArgumentError(f"{flag} {told}, expected it with a network {other}.")


def run_predict_images(settings: PredictSettings, flags: Mapping[str, str] | None = None) -> list[Path]:
    """Predict, write, and print a few lines. What can't be written is found out before predicting.

    Args:
        settings: what to do.
        flags: argument -> flag that sets it, for notes that say what to set.

    Returns:
        The files written; of pictures in a folder, the folder.

    Raises:
        StructlossError: see :func:`structloss.images.open_images`, and :mod:`structloss.harness.image_prediction`;
            options of keypoints, nothing to write, or a file that can't be written or is the input.
    """
    _check_options(settings)
    named, everywhere = named_files(settings)
    if not (named or settings.out or settings.overlay):
        kinds = "--npz, --json or --overlay" if _of_templates(settings) else "--npz, --bvh, --video or --overlay"
        raise ArgumentError(f"nothing is to be written, expected a folder for --out, or a file for {kinds}.")
    device = chosen_device(settings.device)
    people = _opened(settings)
    files = _files(settings, people, named, everywhere)
    _check_following(settings, people, files)
    if any(path is not None and path.suffix.lower() == ".mp4" for path in (*files.named.values(), files.video)):
        from ..reports.encoders import check_encoder

        check_encoder()
    with needs_extra("harness"):
        import_torchmetrics()
    made = (_found_joints if _of_templates(settings) else _found_poses)(settings, people, device)
    made = _told_apart(made, people, _follow(settings, people))
    for note in made.notes:
        print(f"  note: {visible(with_flags(note, flags or {}, argument=False))}", flush=True)
    return _write_all(files, made, people, settings)


def _of_templates(settings: PredictSettings) -> bool:
    """Whether the checkpoint is of shape templates, which answer with joints in the image."""
    if settings.ckpt is None:
        return False
    from ..harness.load import trained_arguments
    from ..harness.systems import TEMPLATES

    return trained_arguments(settings.ckpt)[0] == TEMPLATES


def _found_poses(settings: PredictSettings, people: People, device: str) -> Prediction:
    from ..harness.image_load import load_image_network
    from ..harness.image_prediction import predict_people

    network = load_image_network(
        settings.ckpt, network=settings.network, weights=settings.weights, colours=settings.colours
    )
    after = after_network(settings, "h36m", device)
    print(_said(settings, people), flush=True)
    made = predict_people(
        network, people, name=_name(settings), fps=settings.fps, flip=settings.flip,
        batch_size=settings.batch_size or 16, device=device, progress=True,
    )  # fmt: skip
    for step in after:
        made = step(made)
    return made


def _found_joints(settings: PredictSettings, people: People, device: str) -> FoundJoints:
    from ..harness.template_prediction import load_template_finder, predict_joints

    if settings.colours is not None:
        raise ArgumentError(f"--colours is {settings.colours!r} with --ckpt, expected it with --weights.")
    finder = load_template_finder(str(settings.ckpt))
    print(_said(settings, people), flush=True)
    return predict_joints(
        finder, people, name=_name(settings), fps=settings.fps, flip=bool(settings.flip),
        batch_size=settings.batch_size or 16, device=device, progress=True,
    )  # fmt: skip


# ---- what is asked for ---------------------------------------------------------------------------------------------


def _check_options(settings: PredictSettings) -> None:
    if settings.backbone is not None or (settings.ckpt is None) != (settings.network is not None):
        raise ArgumentError("expected --ckpt, or --backbone or --network with --weights.")
    if settings.network is not None and settings.weights is None:
        raise ArgumentError(f"--network is {settings.network!r} without --weights, expected a file of its weights.")
    if settings.network is None and settings.weights is not None:
        raise ArgumentError(f"--weights is {settings.weights!r} with --ckpt, expected it with --network.")
    for name, usual in _OF_KEYPOINTS.items():
        if (value := getattr(settings, name)) != usual:
            flag, told = f"--{name.replace('_', '-')}", list(value) if isinstance(value, tuple) else value
            raise ArgumentError(f"{flag} is {told!r} with a network from images, expected it with a file of keypoints.")
    for name in OF_FRAMES:
        if (value := getattr(settings, name)) is not None:
            raise ArgumentError(
                f"--{name} is {value!r} with a network from images, expected it with frames and a lifting network."
            )
    if not settings.input:
        raise ArgumentError("no input is given, expected an image, a folder of images, or a video.")
    if settings.box is not None:
        if settings.boxes is not None:
            raise ArgumentError(f"--box is given with --boxes {settings.boxes!r}, expected one of them.")
        if not (all(map(math.isfinite, settings.box)) and min(settings.box[2:]) > 0):
            told = " ".join(f"{value:g}" for value in settings.box)
            raise ArgumentError(f"--box is {told}, expected x, y, width and height in pixels, the last two above 0.")
    if settings.fps is not None and not (math.isfinite(settings.fps) and settings.fps > 0):
        raise ArgumentError(f"--fps is {settings.fps:g}, expected a positive number.")


def _opened(settings: PredictSettings) -> People:
    from ..data.formats.candidate import surest
    from ..images import open_images
    from ..images.source import SOURCES, SourceFile
    from ..reading import existing

    assert settings.input is not None  # checked with the options
    file = SourceFile(existing(Path(settings.input), "an image, a folder of images, or a video"))
    sources = surest(file, SOURCES.values())
    if not sources:
        how = f"--network {settings.network}" if settings.network else "--ckpt"
        raise DataError(
            f"{settings.input} has no images, expected an image, a folder of images, a video, or annotations of MPII, "
            f"COCO or SPIN, since the network of {how} starts from images."
        )
    told: dict[str, Any] = {"boxes": settings.boxes if settings.box is None else list(settings.box)}
    if settings.missing == "skip":
        # Images that are damaged inside are left out, too: it costs decoding all of them before.
        told |= {"missing": "skip", "check": "decode"}
    try:
        people = open_images(file.path, images=settings.images, progress=True, **told)
    except (ArgumentError, DataError) as error:
        flag = "--boxes" if settings.box is None else "--box"
        if str(error).startswith("boxes "):  # of either flag
            raise type(error)(f"{flag}{str(error).removeprefix('boxes')}") from error
        raise
    if not (_is_video(people) or hasattr(people, "annotations")):
        raise DataError(f"{settings.input} has neither images nor frames that could be drawn over, expected some.")
    return people


def _is_video(people: Any) -> bool:
    return hasattr(people, "frame")


def _name(settings: PredictSettings) -> str:
    return Path(str(settings.input)).name or Path(str(settings.input)).resolve().name or "images"


def _said(settings: PredictSettings, people: Any) -> str:
    from ..data._words import count

    name = visible(_name(settings))
    if _is_video(people):
        width, height = people.size
        rate = "" if math.isnan(people.fps) else f", {people.fps:.4g} per second"
        return f"{name}: {count(len(people), 'frame')} of {width} x {height} pixels{rate}"
    images = len({*people.annotations.file.tolist()})
    of = "1 person" if len(people) == 1 else f"{len(people)} people"
    return f"{name}: {of} in {count(images, 'image')}"


def _follow(settings: PredictSettings, people: Any) -> bool:
    """Whether one person is seen in frame after frame."""
    return _is_video(people) or (settings.fps is not None and not _several(people))


def _several(people: Any) -> bool:
    """Whether there are several people in an image."""
    return not _is_video(people) and len({*people.annotations.file.tolist()}) < len(people)


def _check_following(settings: PredictSettings, people: Any, files: _Files) -> None:
    if settings.fps is not None and _several(people):
        raise ArgumentError(
            f"--fps is {settings.fps:g}, and {settings.input} has several people in an image, expected one in each."
        )
    if not _follow(settings, people):
        asked = {kind: path for kind, path in files.named.items() if kind not in ("npz", "json")}
        for name, value in {**asked, "refine": settings.refine}.items():
            if value is not None:
                raise ArgumentError(f"--{name} is {str(value)!r} with {settings.input}, {_FOLLOWING}.")
    if settings.fit_skeleton == OWN and _several(people):
        raise ArgumentError(
            f"--fit-skeleton has no file, and {settings.input} has several people in an image, expected one in each, "
            "or a file of bone lengths."
        )


# ---- where it goes -------------------------------------------------------------------------------------------------


def _files(settings: PredictSettings, people: Any, named: Mapping[str, Path], everywhere: str | None) -> _Files:
    """The files to write, none of which is the input's."""
    video, found = _is_video(people), _Files(dict(named))
    overlay, flag = None if settings.overlay is None else Path(settings.overlay), "--overlay"
    if settings.out:
        stem = file_name(_name(settings), set())
        folder = Path(settings.out)
        found.named.setdefault("npz", folder / f"{stem}.npz")
        if _of_templates(settings):
            found.named.setdefault("json", folder / f"{stem}.json")
        elif _follow(settings, people):
            found.named.setdefault("bvh", folder / f"{stem}.bvh")
        if everywhere:
            found.named["video"] = folder / f"{stem}.{everywhere}"
        if overlay is None:
            overlay, flag = folder / (f"{stem}-overlay.mp4" if video else "overlay"), "--out"
    if overlay is not None and video:
        if overlay.suffix.lower() != ".mp4":
            raise ArgumentError(f"--overlay is {str(overlay)!r}, expected a name that ends in .mp4 for a video.")
        found.video = overlay
    elif overlay is not None:
        found.pictures = _pictures(overlay, flag, people, Path(str(settings.input)))
    _check_apart(found, people, Path(str(settings.input)))
    check_places(settings, *found.named.values(), *([] if found.video is None else [found.video]))
    return found


def _pictures(overlay: Path, flag: str, people: ImagePeople, given: Path) -> dict[str, Path]:
    """Name of each image -> the picture of it."""
    from ..images.overlays import PICTURES, people_of

    names = [people.annotations.files[file] for file in people_of(people)]
    if overlay.suffix.lower() in PICTURES and not overlay.is_dir():
        if len(names) > 1:
            raise ArgumentError(
                f"{flag} is {str(overlay)!r}, expected a folder for the pictures of {len(names)} images."
            )
        return {names[0]: overlay}
    if overlay.suffix.lower() in (".mp4", ".gif") or (overlay.exists() and not overlay.is_dir()):
        raise ArgumentError(f"{flag} is {str(overlay)!r}, expected a folder for the pictures of images.")
    if given.is_dir() and overlay.resolve().is_relative_to(given.resolve()):
        raise ArgumentError(
            f"{flag} puts pictures into {overlay}, where they would be images of {given}, expected a folder outside of "
            "it."
        )
    # Formats that are not written become PNG, under their whole name, since a.webp may lie beside a.png.
    return {name: overlay / (name if Path(name).suffix.lower() in PICTURES else f"{name}.png") for name in names}


def _check_apart(files: _Files, people: Any, given: Path) -> None:
    """Raise where a file to write is one that is read, or where none can be made."""
    images = {path: people.folder / name for name, path in files.pictures.items()}
    videos = [] if files.video is None else [files.video]
    for path in (*files.named.values(), *videos, *images):
        try:
            above = next(folder for folder in path.absolute().parents if folder.exists())
            if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
                raise DataError(f"{path} can't be written: {above} is no folder that files can be made in.")
            image = images.get(path, given)
            if path.exists() and image.exists() and path.samefile(image):
                what = "an image of the input" if path in images else "the input"
                raise ArgumentError(f"{path} is {what}, expected another file or folder for the output.")
        except (OSError, ValueError) as error:
            if isinstance(error, StructlossError):
                raise
            raise DataError(f"{path} can't be written: {getattr(error, 'strerror', None) or error}.") from error


# ---- what is written -----------------------------------------------------------------------------------------------


def _told_apart(made: Prediction | FoundJoints, people: Any, follow: bool) -> Prediction | FoundJoints:
    """The prediction with what its meta doesn't know yet, and without notes on a frame rate that nobody needs."""
    told: dict[str, Any] = {"frames_follow": follow}
    if skipped := getattr(people, "skipped", ()):
        told["images_left_out"] = len(skipped)
    notes = made.notes if follow else without_rate(made.notes)
    return replace(made, meta={**made.meta, **told}, notes=notes)


def _write_all(files: _Files, made: Prediction | FoundJoints, people: Any, settings: PredictSettings) -> list[Path]:
    from ..data._words import count
    from ..images.overlays import overlay_frames, overlay_pictures, write_picture
    from ..progress import track

    written: list[Path] = []
    path = Path()

    def wrote(text: str = "") -> None:
        written.append(path)
        print(f"  wrote {text}{visible(path)}", flush=True)

    try:
        for kind, path in files.named.items():
            write_prediction(kind, path, made, settings.floor)
            wrote()
        if files.video is not None:
            from ..reports.encoders import write_mp4

            path = files.video
            frames = overlay_frames(people, made.keypoints, made.confidence, skeleton=made.skeleton)
            rate = people.fps if math.isfinite(people.fps) else made.fps
            write_mp4(path, frames, rate, count=len(people), progress=True)
            wrote()
        pictures: Iterator[Any] = iter(())
        if files.pictures:
            pictures = overlay_pictures(people, made.keypoints, made.confidence, skeleton=made.skeleton)
        for _ in track(range(len(files.pictures)), "Drawing", True):
            name, picture = next(pictures)
            path = files.pictures[name]
            write_picture(path, picture)
        if len(files.pictures) == 1:
            wrote()
        elif files.pictures:
            path = Path(settings.overlay) if settings.overlay else Path(str(settings.out)) / "overlay"
            wrote(f"{count(len(files.pictures), 'picture')} in ")
    except StructlossError:  # some are OSErrors
        raise
    except OSError as error:
        raise DataError(f"{path} can't be written: {error.strerror or error}.") from error
    return written
