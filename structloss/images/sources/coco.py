"""COCO's `person_keypoints_*.json`: people with 17 keypoints, 2D only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...data.formats.candidate import CERTAIN, NO
from ...errors import DataError, shown
from ..image_people import Annotations, ImagePeople, folder_of, gathered, inside, numbers
from ..joint_layouts import LAYOUTS, to_mpii
from ..source import CHECK, IMAGES, MISSING, SOURCES, Settings, Source, SourceFile

__all__ = ["read_coco"]

_KEYPOINTS = 17
_AROUND = 1.25  # side of the square box, in those of the annotated one; MPII's
_SETS = ("train2017", "val2017", "test2017")


def _sniff(file: SourceFile) -> int:
    content = file.json
    return CERTAIN if isinstance(content, Mapping) and "annotations" in content and "images" in content else NO


def read_coco(file: SourceFile, settings: Settings) -> ImagePeople:
    """Read COCO's annotations of people.

    Taken are those with `num_keypoints` > 0, `area` > 0 and `iscrowd` 0; keypoints with v > 0 are annotated, those with
    2 visible. Coordinates are pixels, 0-based. In MPII's joints, pelvis and thorax are the middles of hips and of
    shoulders, the upper neck is half way from there to the nose, the top of the head is not annotated. The box is
    square, 1.25 times as wide as the longer side of `bbox`, around its centre.

    Args:
        file: the JSON file.
        settings: `images` (None looks in the usual folders), `missing`, `check`, `progress`, see
            :func:`~structloss.images.opening.open_images`.

    Raises:
        MissingFileError, DataError: no such folder, annotations that are none, or images that can't be used.
    """
    path, content = file.path, file.json
    listed, found = (content.get(key) if isinstance(content, Mapping) else None for key in ("images", "annotations"))
    if not isinstance(listed, list) or not isinstance(found, list):
        raise DataError(f"images and annotations of {path} are no lists, expected those of COCO.")
    images = {_number(image, "id", f"image {n} of {path}"): n for n, image in enumerate(listed)}
    names = [inside(image.get("file_name"), f"image {n} of {path}") for n, image in enumerate(listed)]
    sizes = np.array([[_pixels(image.get(key)) for key in ("width", "height")] for image in listed], np.int64)
    kept = [(n, one) for n, one in enumerate(found) if _usable(one, f"annotation {n} of {path}")]
    if not kept:
        raise DataError(f"{path} has no person with labelled keypoints, expected some among {len(found)} annotations.")
    keypoints, boxes = np.zeros((len(kept), _KEYPOINTS, 3)), np.zeros((len(kept), 4))
    of = np.zeros(len(kept), np.int64)
    for row, (number, one) in enumerate(kept):
        where = f"annotation {number} of {path}"
        keypoints[row] = _keypoints(one["keypoints"], where)
        boxes[row] = numbers(one.get("bbox"), f"bbox of {where}", (4,))
        image = _number(one, "image_id", where)
        if image not in images:
            raise DataError(f"{where} has the image_id {shown(image)}, which is not listed.")
        of[row] = images[image]
    known, points, seen = to_mpii(
        LAYOUTS["coco"], keypoints[..., 2] > 0, keypoints[..., :2].copy(), keypoints[..., 2] > 1
    )
    annotations = Annotations(
        files=names,
        file=of,
        # A box begins at the edge of its first pixel; coordinates are those of pixels' centres.
        centre=boxes[:, :2] + boxes[:, 2:] / 2 - 0.5,
        side=_AROUND * boxes[:, 2:].max(1),
        joints=points,
        annotated=known,
        visible=known & seen,
        sizes=sizes,
        notes=_left_out(len(found) - len(kept), len(found)),
    )
    usual = [path.stem.rpartition("_")[2], *_SETS]
    folders = [Path(), Path("images"), Path("../images")] + [Path(at) / name for name in usual for at in (".", "..")]
    folder = folder_of(path, settings.get("images"), [names[n] for n in dict.fromkeys(of.tolist())], folders)
    options = {key: settings[key] for key in ("missing", "check", "progress") if key in settings}
    return gathered(annotations, folder, str(path), **options)


def _left_out(number: int, of: int) -> tuple[str, ...]:
    if not number:
        return ()
    return (f"{number} of {of} annotations are left out: crowds, and people without keypoints or area",)


def _usable(one: Any, where: str) -> bool:
    if not isinstance(one, Mapping):
        raise DataError(f"{where} is {shown(one)}, expected an object with keypoints and bbox.")
    keypoints, labelled = one.get("keypoints") or [], one.get("num_keypoints")
    if labelled is None:
        labelled = sum(v > 0 for v in _keypoints(keypoints, where)[:, 2]) if keypoints else 0
    area = one.get("area")
    for value, key in ((labelled, "num_keypoints"), (area, "area")):
        if value is not None and not isinstance(value, (int, float, np.integer)):
            raise DataError(f"{key} of {where} is {shown(value)}, expected a number.")
    return bool(keypoints) and labelled > 0 and (area is None or area > 0) and not one.get("iscrowd", 0)


def _keypoints(values: Any, where: str) -> np.ndarray:
    """`[17, 3]`: x, y and how visible it is."""
    count = len(values) if isinstance(values, list) else 0
    if count != 3 * _KEYPOINTS:
        found = f"{count} numbers" if count else shown(values)
        raise DataError(f"keypoints of {where} are {found}, expected {3 * _KEYPOINTS}, COCO's {_KEYPOINTS} keypoints.")
    return numbers(values, f"keypoints of {where}", (3 * _KEYPOINTS,)).reshape(_KEYPOINTS, 3)


def _number(one: Any, key: str, where: str) -> int | float | str:
    value = one.get(key) if isinstance(one, Mapping) else None
    if not isinstance(value, (int, float, str)):
        raise DataError(f"{where} has the {key} {shown(value)}, expected a number or a name.")
    return value


def _pixels(value: Any) -> int:
    """A size that the file tells, or 0."""
    return value if isinstance(value, int) and 0 < value < 1 << 31 else 0


SOURCES.register(
    Source(
        "coco",
        "COCO's person_keypoints_*.json",
        read_coco,
        suffixes=(".json",),
        sniff=_sniff,
        options=(IMAGES, MISSING, CHECK),
    )
)
