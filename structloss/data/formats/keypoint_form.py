"""What a form of keypoint files is, and the registry that knows all of them.

A form is one file in `keypoint_forms/`, which ends in

    FORMS.register(KeypointForm("name", "what it is", read, ...))
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..registry import Registry
from ._json import load_json
from .candidate import Candidate, Recognised

__all__ = ["FORMS", "KeypointFile", "KeypointForm"]


class KeypointFile(Candidate):
    """A file or folder of keypoints. What is read to tell its form is kept for its reader.

    Attributes:
        path: where it is.
        image_size: width and height in pixels, as the user says; None leaves it to the file.
    """

    def __init__(self, path: Path, image_size: tuple[int, int] | None = None) -> None:
        super().__init__(path)
        self.image_size = image_size

    @cached_property
    def json(self) -> Any:
        """The content of a .json file; None of anything else.

        Raises:
            DataError: it is not valid JSON.
        """
        return load_json(self.path) if self.suffix == ".json" else None


@dataclass(frozen=True)
class KeypointForm(Recognised[KeypointFile]):
    """A form of keypoint files.

    Its `read(file, layout, person)` makes the tracks of a :class:`KeypointFile`. `layout` is one of
    :data:`~structloss.data.formats.keypoint_maps.LAYOUTS`, or None for what the file says; `person` is that of
    :func:`~structloss.data.formats.read_keypoints`. `says` stands after "expected" in messages.
    """


FORMS: Registry[KeypointForm] = Registry(f"{__package__}.keypoint_forms", "form of keypoints")
"""Every form by name."""
