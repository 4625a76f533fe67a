"""2D keypoints from files: what detectors and annotators write, as tracks of one person each."""

from __future__ import annotations

import os
from dataclasses import replace

from ... import samples
from ...errors import ArgumentError, DataError
from ...reading import regular
from ._json import described
from .candidate import surest
from .keypoint_form import FORMS, KeypointFile
from .keypoint_maps import LAYOUTS
from .keypoint_track import Keypoints

__all__ = ["Keypoints", "read_keypoints"]


def read_keypoints(
    path: str | os.PathLike[str],
    *,
    layout: str = "auto",
    image_size: tuple[int, int] | None = None,
    person: str | int = "longest",
    fps: float | None = None,
) -> list[Keypoints]:
    """Read 2D keypoints of any of these forms:

    - `.npz` of VideoPose3D (`positions_2d`): every array of every video or subject, action and camera. Nothing is
      unpickled that could run code.
    - `.npz` or `.npy` with an array `[T, J, 2]` or `[T, J, 3]` (x, y, confidence), or `[N, T, J, ...]`; in an npz it
      is the only one or called `keypoints`, with `confidence`, `fps`, `width` and `height` beside it if known.
    - `.json` of COCO: annotations of images (a track of one frame each), or with track identities (PoseTrack).
    - `.json` results of AlphaPose, or of other detectors that write COCO's result lists: one track per person.
    - `.json` of MMPose, MediaPipe, YOLO-pose, GAST-Net, or any with the people of each frame.
    - a folder of OpenPose's `*_keypoints.json`, one file per frame; a folder of YOLO-pose's labels or results.

    Frames are numbered by the digits that tell their names apart, or by times. People are told apart by the identities
    that the file gives; or by the overlap of their boxes from frame to frame; somebody who is alone in every frame is
    one track. Frames and keypoints without a detection, or that are no place in an image, are interpolated and have
    confidence 0; COCO's "labelled, not visible" has 0.5. Joints are known by their names where the file has them.

    Args:
        path: file or folder, or "sample:NAME" for one of :func:`structloss.samples.names`.
        layout: "auto", or one of :data:`~structloss.data.formats.keypoint_maps.LAYOUTS` to overrule what the file says.
        image_size: (width, height) in pixels, where the file doesn't say or is wrong. Coordinates from 0 to 1 need it.
        person: whom to take in every video or image: "longest" (the most detections, then the largest), "largest" (by
            the mean area of the box), "all", or a track's number: the identity in the file, else the order of first
            appearance. NumPy files hold one person per array: all are taken, or the one with this number.
        fps: frames per second, where the file doesn't say.

    Returns:
        One or more tracks, in the order of the file.

    Raises:
        MissingFileError, UnknownNameError: there is no such file or folder, or no such sample.
        DataError: an unknown or damaged file, a pipe or device, a layout that can't be told (17 keypoints in a bare
            array, unknown names), frames of several videos, no people.
        ArgumentError: an unknown `layout` or `person`.
    """
    path = samples.resolve(path, "keypoints")
    if layout != "auto" and layout not in LAYOUTS:
        raise ArgumentError(f"layout is {layout!r}, expected 'auto' or one of {', '.join(map(repr, LAYOUTS))}.")
    if not path.is_dir():
        regular(path, f"2D keypoints ({_endings()} or a folder)")
    file = KeypointFile(path, image_size)
    found = surest(file, FORMS.values())
    if len(found) != 1:
        raise DataError(_unknown(file, [form.name for form in found]))
    tracks = found[0].read(file, None if layout == "auto" else layout, person)
    if image_size is not None:
        width, height = image_size
        tracks = [replace(track, width=width, height=height) for track in tracks]
    return [replace(track, fps=fps) for track in tracks] if fps is not None else tracks


def _endings() -> str:
    return ", ".join(dict.fromkeys(suffix for form in FORMS.values() for suffix in form.suffixes))


def _unknown(file: KeypointFile, several: list[str]) -> str:
    """What to say of a file or folder that is of no form, or of several."""
    if several:
        return f"{file.path} is of several forms, {', '.join(several)}, expected one."
    if file.is_folder:
        forms = [form for form in FORMS.values() if form.folder]
        patterns = ", ".join(pattern for form in forms for pattern in form.folder)
        return f"the folder {file.path} has no {patterns}, expected {' or '.join(form.says for form in forms)}."
    alike = [form.says for form in FORMS.values() if file.suffix in form.suffixes]
    if alike:
        found = f"holds {described(file.json)}" if file.suffix == ".json" else "is of no known form"
        return f"{file.path} {found}, expected {' or '.join(alike)}."
    folders = " or ".join(form.says for form in FORMS.values() if form.folder)
    return f"{file.path} ends in {file.suffix!r}, expected {_endings()} or {folders}."
