"""`structloss predict --split`: a trained network's predictions for its own clips, to train a refiner on."""

from __future__ import annotations

from pathlib import Path

from ..errors import ArgumentError, DataError, StructlossError, needs_extra
from ..text import visible
from ._imports import import_torchmetrics
from ._predict_settings import PredictSettings, chosen_device

__all__ = ["run_predict_split"]

#: what belongs to keypoints of a video, as attributes of the settings
_OF_VIDEOS = ("bvh", "video", "variant", "image_size", "fps", "refine", "fit_skeleton")
#: what belongs to images
_OF_IMAGES = ("network", "colours", "boxes", "box", "images", "missing", "overlay")


def run_predict_split(settings: PredictSettings) -> Path:
    """Predict, write, and print what was written; returns the file.

    Raises:
        StructlossError: see :func:`structloss.harness.split_prediction.predict_split`; options that belong to keypoints
            of a video, no checkpoint, or no file to write.
    """
    if settings.ckpt is None:
        raise ArgumentError(
            f"--split is {settings.split!r} without --ckpt, expected a checkpoint, which knows its data."
        )
    for name in (*_OF_VIDEOS, *_OF_IMAGES):
        if (value := getattr(settings, name)) is not None:
            flag, what = f"--{name.replace('_', '-')}", "images" if name in _OF_IMAGES else "keypoints of a video"
            raise ArgumentError(f"{flag} is {value!r} with --split, expected it with {what}.")
    if settings.floor:
        raise ArgumentError("--floor is given with --split, expected it with keypoints of a video.")
    path = _output(settings)
    with needs_extra("harness"):
        import_torchmetrics()
        from ..harness.load import trained_arguments
        from ..harness.split_prediction import predict_split
        from ..harness.systems import LIFTING
    from ..data._words import count, some

    assert settings.split is not None  # that is how we got here
    device = chosen_device(settings.device)
    system = trained_arguments(settings.ckpt)[0]
    if system != LIFTING:
        raise ArgumentError(
            f"--split is {settings.split!r} with --ckpt {settings.ckpt}, a checkpoint of {system.says}, expected one "
            f"of {LIFTING.says}, whose data are clips."
        )
    try:
        made = predict_split(
            settings.ckpt, path, split=settings.split, data=settings.input, flip=settings.flip,
            batch_size=settings.batch_size, device=device, progress=True,
        )  # fmt: skip
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
        print(f"  note: {visible(note)}", flush=True)
    print(f"  wrote {visible(path)}", flush=True)
    if settings.split == "train":
        print(f"next: structloss fit --config tpnet --data.predictions {visible(path)}", flush=True)
    return path


def _output(settings: PredictSettings) -> Path:
    if (settings.npz is None) == (settings.out is None):
        raise ArgumentError("expected either --npz, a file, or --out, a folder, for what --split predicts.")
    if settings.npz is not None:
        if Path(settings.npz).suffix.lower() != ".npz":
            raise ArgumentError(f"--npz is {settings.npz!r}, expected a name that ends in .npz.")
        return Path(settings.npz)
    folder = Path(str(settings.out))
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"--out is {str(folder)!r}, a file, expected a folder.")
    return folder / f"predictions-{settings.split}.npz"
