"""MPII as the JSON of the hourglass repositories: a list of people with their joints, 2D only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...data.formats.candidate import CERTAIN, NO
from ...errors import DataError, shown
from ..image_people import Annotations, ImagePeople, folder_of, gathered, inside, numbers
from ..source import CHECK, IMAGES, MISSING, SOURCES, Settings, Source, SourceFile

__all__ = ["read_mpii"]

_JOINTS = 16
_HEIGHT = 200.0  # pixels of a body of scale 1
_DOWN, _WIDER = 15.0, 1.25  # customary: the annotated centre is high on the body, and its box is tight
_FOLDERS = (Path(), Path("images"), Path("../images"))


def _sniff(file: SourceFile) -> int:
    content = file.json
    first = content[0] if isinstance(content, list) and content else None
    return CERTAIN if isinstance(first, Mapping) and {"image", "center", "scale"} <= set(first) else NO


def read_mpii(file: SourceFile, settings: Settings) -> ImagePeople:
    """Read `[{image, joints [16][2], joints_vis [16], center [2], scale}, ...]`; `joints_vis` may be missing.

    Coordinates are 1-based in the file and 0-based here. Joints with a coordinate of 0 or less are absent; `joints_vis`
    of 0 makes one hidden. The box is a square of 1.25 · 200 · `scale` pixels around the centre, which is moved down by
    15 · `scale`.

    Args:
        file: the JSON file.
        settings: `images` (None looks beside the file and in "images"), `missing`, `check`, `progress`, see
            :func:`~structloss.images.opening.open_images`.

    Raises:
        MissingFileError, DataError: no such folder, people that are none, or images that can't be used.
    """
    path, content = file.path, file.json
    if not isinstance(content, list) or not content:
        raise DataError(f"{path} has {shown(content)}, expected a list of people.")
    names: dict[str, int] = {}
    of, size = np.zeros(len(content), np.int64), len(content)
    centre, scale = np.zeros((size, 2)), np.zeros(size)
    joints, seen = np.zeros((size, _JOINTS, 2)), np.ones((size, _JOINTS), bool)
    for number, person in enumerate(content):
        where = f"person {number} of {path}"
        if not isinstance(person, Mapping):
            raise DataError(f"{where} is {shown(person)}, expected an object with image, joints, center and scale.")
        name = inside(_part(person, "image", where), where)
        of[number] = names.setdefault(name, len(names))
        centre[number] = numbers(_part(person, "center", where), f"center of {where}", (2,))
        scale[number] = numbers(_part(person, "scale", where), f"scale of {where}", ())
        joints[number] = numbers(_part(person, "joints", where), f"joints of {where}", (_JOINTS, 2))
        if person.get("joints_vis") is not None:
            seen[number] = numbers(person["joints_vis"], f"joints_vis of {where}", (_JOINTS,)) > 0
    annotated = np.all(joints > 0, axis=-1)  # false of NaN, too
    centre[:, 1] += _DOWN * scale
    annotations = Annotations(
        files=list(names),
        file=of,
        centre=centre - 1,
        side=_WIDER * _HEIGHT * scale,
        joints=joints - 1,
        annotated=annotated,
        visible=annotated & seen,
    )
    folder = folder_of(path, settings.get("images"), annotations.files, _FOLDERS)
    options = {key: settings[key] for key in ("missing", "check", "progress") if key in settings}
    return gathered(annotations, folder, str(path), **options)


def _part(person: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in person:
        raise DataError(f"{where} has no {key}, expected image, joints, center and scale.")
    return person[key]


SOURCES.register(
    Source(
        "mpii",
        "MPII as the JSON of the hourglass repositories",
        read_mpii,
        suffixes=(".json",),
        sniff=_sniff,
        options=(IMAGES, MISSING, CHECK),
    )
)
