"""A video: each frame is one person, in the whole frame or in a box that a file tells."""

from __future__ import annotations

from ...errors import ArgumentError
from ..source import BOXES, SOURCES, Settings, Source, SourceFile
from ..video import VIDEO_SUFFIXES, VideoPeople
from ._boxes import check_inside, read_boxes

__all__ = ["read_video"]


def read_video(file: SourceFile, settings: Settings) -> VideoPeople:
    """Open a video; see :class:`~structloss.images.video.VideoPeople`.

    Args:
        file: the video.
        settings: `boxes`: a box [x, y, width, height] for all frames; or JSON: such a box, a list with one for each,
            or an object of frame -> box; frames without a box have the last one before them.

    Raises:
        MissingFileError, DataError: no video, one without frames, or boxes that are none.
        ArgumentError: several people in a frame, or a box outside of the frames.
    """
    told = settings.get("boxes")
    if told is None:
        return VideoPeople(file.path)
    boxes = read_boxes(told)
    numbered = {}
    for name, value in boxes.items():
        if (name and not name.isdecimal()) or len(value) != 1:
            raise ArgumentError(f"boxes has {len(value)} for {name!r}, expected one box for each number of a frame.")
        numbered[int(name or 0)] = value[0]
    people = VideoPeople(file.path, boxes=numbered)
    for number, box in numbered.items():
        check_inside(box, people.size, f"frame {number} of {file.path}")
    return people


SOURCES.register(
    Source(
        "video",
        "a video, its frames",
        read_video,
        suffixes=VIDEO_SUFFIXES,
        options=(BOXES,),
        gives="no joints",
    )
)
