"""`structloss predict --split`: a trained network's predictions for its own data, to train a refiner on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import samples
from ..errors import ArgumentError, DataError, StructlossError, needs_extra
from ..text import visible
from ._imports import import_torchmetrics
from ._parser import with_flags
from ._predict_settings import OF_FRAMES, PredictSettings, check_places, chosen_device

if TYPE_CHECKING:
    from ..harness.split_prediction import PredictedSplit

__all__ = ["run_predict_split"]

#: what belongs to keypoints of a video, as attributes of the settings
_OF_VIDEOS = ("bvh", "video", "variant", "image_size", "refine", "fit_skeleton")
#: what belongs to images that are predicted one by one
_OF_IMAGES = ("network", "colours", "boxes", "box", "overlay")
#: what people in image files have, and clips have not
_OF_PEOPLE = ("images", "missing", "fps")


def run_predict_split(settings: PredictSettings, flags: Mapping[str, str] | None = None) -> Path:
    """Predict, write, and print what was written; returns the file.

    Args:
        settings: what to do.
        flags: argument -> flag that sets it, for notes that say what to set.

    Raises:
        StructlossError: see :func:`structloss.harness.split_prediction.predict_split` and, for a network from images,
            :func:`structloss.harness.image_split.predict_image_split`; options that belong to keypoints of a video, no
            checkpoint, or no file to write.
    """
    if settings.ckpt is None:
        raise ArgumentError(
            f"--split is {settings.split!r} without --ckpt, expected a checkpoint, which knows its data."
        )
    _refuse(settings, _OF_VIDEOS, "with keypoints of a video")
    _refuse(settings, _OF_IMAGES, "with images instead")
    _refuse(settings, OF_FRAMES, "with frames instead")
    if settings.floor:
        raise ArgumentError("--floor is given with --split, expected it with keypoints of a video.")
    path = _output(settings)
    with needs_extra("harness"):
        import_torchmetrics()
        from ..harness.load import trained_arguments
        from ..harness.systems import IMAGES, LIFTING
    from ..data._words import count, some

    assert settings.split is not None  # that is how we got here
    device = chosen_device(settings.device)
    system = trained_arguments(settings.ckpt)[0]
    if system not in (LIFTING, IMAGES):
        raise ArgumentError(
            f"--split is {settings.split!r} with --ckpt {settings.ckpt}, a checkpoint of {system.says}, expected one "
            f"of {LIFTING.says} or of {IMAGES.says}."
        )
    if system == LIFTING:
        _refuse(settings, _OF_PEOPLE, f"with {IMAGES.says}")
    try:
        made = _of_images(settings, path, device) if system == IMAGES else _of_clips(settings, path, device)
    except StructlossError:  # some are OSErrors
        raise
    except OSError as error:
        raise DataError(f"{path} can't be written: {error.strerror or error}.") from error
    print(
        f"{count(made.clips, 'clip')} of {some(made.subjects, 12)}, {count(made.frames, 'frame')}, "
        f"MPJPE {made.mpjpe:.1f} mm",
        flush=True,
    )
    for note in made.notes:
        print(f"  note: {visible(with_flags(note, flags or {}, argument=False))}", flush=True)
    print(f"  wrote {visible(path)}", flush=True)
    if settings.split == "train":
        print(f"next: structloss fit --config tpnet --data.predictions {visible(path)}", flush=True)
    return path


def _of_clips(settings: PredictSettings, path: Path, device: str) -> PredictedSplit:
    from ..harness.split_prediction import predict_split

    return predict_split(
        str(settings.ckpt), path, split=str(settings.split), data=settings.input, flip=settings.flip,
        batch_size=settings.batch_size, device=device, progress=True,
    )  # fmt: skip


def _of_images(settings: PredictSettings, path: Path, device: str) -> PredictedSplit:
    from ..harness.image_split import predict_image_split

    try:
        return predict_image_split(
            str(settings.ckpt), path, split=str(settings.split), data=settings.input, images=settings.images,
            missing=settings.missing, fps=settings.fps, flip=settings.flip, batch_size=settings.batch_size,
            device=device, progress=True,
        )  # fmt: skip
    except (ArgumentError, DataError) as error:  # what is the data's is the command's input
        if (text := re.sub(r"^(val_)?data is ", "the input is ", str(error))) == str(error):
            raise
        raise type(error)(text) from error


def _refuse(settings: PredictSettings, names: Sequence[str], where: str) -> None:
    for name in names:
        if (value := getattr(settings, name)) is not None:
            flag, told = f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else repr(value)
            raise ArgumentError(f"{flag} is {told} with --split, expected it {where}.")


def _output(settings: PredictSettings) -> Path:
    path = _named(settings)
    given = None if settings.input is None else str(samples.resolve(settings.input, "motion"))
    check_places(replace(settings, input=given), path)
    return path


def _named(settings: PredictSettings) -> Path:
    if (settings.npz is None) == (settings.out is None):
        raise ArgumentError("expected either --npz, a file, or --out, a folder or file, for what --split predicts.")
    if settings.npz is not None:
        if Path(settings.npz).suffix.lower() != ".npz":
            raise ArgumentError(f"--npz is {settings.npz!r}, expected a name that ends in .npz.")
        return Path(settings.npz)
    folder = Path(str(settings.out))
    if folder.suffix.lower() == ".npz" and not folder.is_dir():
        return folder
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"--out is {str(folder)!r}, a file, expected a folder.")
    return folder / f"predictions-{settings.split}.npz"
