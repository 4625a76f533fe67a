"""Open any data set: its format is told from the path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import samples
from ..errors import ArgumentError, check_name
from .clips import check_rate
from .formats.detect import recognise
from .formats.registry import FORMATS, Format

if TYPE_CHECKING:
    from .clips import Clip
    from .store import PoseStore

__all__ = ["check_options", "open_data", "open_motion"]


def open_data(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    fps: float | None = None,
    progress: bool = False,
    **options: Any,
) -> PoseStore | list[Clip]:
    """Read a file or folder of any format that :func:`~structloss.data.formats.detect.detect` knows.

    Args:
        path: what to read. A folder of motion-capture files is searched with all its subfolders. "sample:NAME" is the
            motion of one of :func:`structloss.samples.names`.
        format: name of the format, where the path may be of several; None tells it from the path.
        fps: resample clips to this rate; None leaves them as they are.
        progress: show a progress bar on a terminal.
        options: those of the format, see `options` of its :class:`~structloss.data.formats.registry.Format`; None is
            as good as absent. Today: `keypoints` of Human3.6M's npz, `reference` of a folder of clips, and of motion
            capture `joints`, `scale` (metres per unit of the file), `up`, `source_fps`, `asf` and `skip_bad` (leave out
            recordings that can't be read, with a warning).

    Returns:
        Clips for motion in the world (clip archives, motion capture), otherwise a pose store: mapped if it is one on
        disk, in memory if it was converted.

    Raises:
        MissingFileError: there is no such path, or a file that belongs to it is missing.
        DataError: no known format, or a file that is damaged or does not have what its format says.
        ArgumentError: an option that the format has no use for.
        UnknownNameError: an option that no format has, an unknown format, or an unknown sample.
    """
    path = samples.resolve(path, "motion")
    if fps is not None:
        check_rate(fps)
    form = recognise(path, format)
    given = {name: value for name, value in options.items() if value is not None}
    check_options(path, form, fps, given)
    found = form.read(path, progress=progress, **given)
    return [clip.resampled(fps) for clip in found] if fps is not None and isinstance(found, list) else found


def open_motion(motion: str | os.PathLike[str], *, progress: bool = False) -> list[Clip]:
    """Clips in the world for an argument called `motion`.

    Args:
        motion: what to read, of any format that :func:`open_data` reads.
        progress: show a progress bar on a terminal.

    Raises:
        ArgumentError: it holds poses as cameras see them.
        MissingFileError, DataError: as :func:`open_data`.
    """
    found = open_data(motion, progress=progress)
    if not isinstance(found, list):
        raise ArgumentError(
            f"motion is {os.fspath(motion)!r}, which holds poses seen by cameras, expected clips in the world."
        )
    return found


def check_options(path: Path, form: Format, fps: float | None, given: Mapping[str, Any]) -> None:
    """Raise for an option that the format has no use for."""
    known = dict.fromkeys(option.name for f in FORMATS.values() for option in f.options)
    takers = {check_name("option", name, known): [f.name for f in FORMATS.values() if f.takes(name)] for name in given}
    if fps is not None:
        takers["fps"] = [f.name for f in FORMATS.values() if f.clips]
    for name, formats in takers.items():
        if form.name not in formats:
            raise ArgumentError(
                f"{name} is given for {path} ({form.name}), expected it with {', '.join(formats)} only."
            )
