"""2D keypoints from files: what detectors and annotators write, as tracks of one person each."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import ArgumentError, DataError, MissingFileError
from .keypoint_maps import LAYOUTS, keypoints_to_h36m

__all__ = ["Keypoints", "read_keypoints"]


@dataclass(frozen=True)
class Keypoints:
    """One person in a video, or in an image (T = 1).

    Attributes:
        name: of the video, image or track.
        keypoints: float32 `[T, J, 2]`: x right, y down, pixels. Finite everywhere.
        confidence: float32 `[T, J]`, 0 to 1; 0 where a keypoint was not detected and its place is interpolated.
        width, height: of the image, pixels; None where the file doesn't say.
        fps: frames per second; None where the file doesn't say.
        skeleton: the layout, one of :data:`~structloss.data.formats.keypoint_maps.LAYOUTS`.
        start: number of the first frame in the video.
        gaps: (first, end) of the frames between, counted from `start`, in which the person was not seen at all.

    Raises:
        ArgumentError: arrays whose shapes don't belong together, that are empty or hold NaN or infinite values, a
            confidence outside of 0 to 1, or an image size that is not positive.
    """

    name: str
    keypoints: np.ndarray
    confidence: np.ndarray
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    skeleton: str = "h36m"
    start: int = 0
    gaps: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        keypoints = np.ascontiguousarray(self.keypoints, dtype=np.float32)
        confidence = np.ascontiguousarray(self.confidence, dtype=np.float32)
        if keypoints.ndim != 3 or keypoints.shape[2] != 2 or 0 in keypoints.shape:
            raise ArgumentError(f"keypoints has shape {list(keypoints.shape)}, expected [T, J, 2] with T, J >= 1.")
        if confidence.shape != keypoints.shape[:2]:
            raise ArgumentError(
                f"confidence has shape {list(confidence.shape)}, expected {list(keypoints.shape[:2])}, one a keypoint."
            )
        if not np.isfinite(keypoints).all():
            raise ArgumentError(f"keypoints of {self.name!r} has NaN or infinite values, expected finite pixels.")
        if not ((confidence >= 0) & (confidence <= 1)).all():
            raise ArgumentError(f"confidence of {self.name!r} has values outside of 0 to 1.")
        for argument, value in (("width", self.width), ("height", self.height), ("fps", self.fps)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ArgumentError(f"{argument} is {value!r}, expected a positive number.")
        object.__setattr__(self, "keypoints", keypoints)
        object.__setattr__(self, "confidence", confidence)

    def __len__(self) -> int:
        return len(self.keypoints)

    def to_h36m(self, variant: str | None = None) -> Keypoints:
        """The same person in the 17 joints of Human3.6M.

        Args:
            variant: "motionbert" or "demo", the custom that the network was trained with; None is the layout's default.
                See :mod:`~structloss.data.formats.keypoint_maps`.

        Raises:
            ArgumentError: a custom that the layout can't follow.
        """
        joined = np.concatenate([self.keypoints, self.confidence[..., None]], axis=-1)
        made = keypoints_to_h36m(joined, self.skeleton, variant)
        return replace(self, keypoints=made[..., :2], confidence=made[..., 2], skeleton="h36m")


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
    - `.json` results of AlphaPose, or of other detectors that write COCO's result lists: one track a person.
    - a folder of OpenPose's `*_keypoints.json`, a file a frame.

    People are told apart by the identities that the file gives, or else by the overlap of their boxes from frame to
    frame. Frames and keypoints without a detection are interpolated and have confidence 0; COCO's "labelled, not
    visible" has 0.5.

    Args:
        path: file or folder.
        layout: "auto", or one of :data:`~structloss.data.formats.keypoint_maps.LAYOUTS` to overrule what the file says.
        image_size: (width, height) in pixels, where the file doesn't say or is wrong.
        person: whom to take in every video or image: "longest" (the most detections, then the largest), "largest" (by
            the mean area of the box), "all", or a track's number: the identity in the file, else the order of first
            appearance. NumPy files hold a person an array: all are taken, or the one with this number.
        fps: frames per second, where the file doesn't say.

    Returns:
        One or more tracks, in the order of the file.

    Raises:
        MissingFileError: there is no such file or folder.
        DataError: an unknown or damaged file, a layout that can't be told (17 keypoints in a bare array), no people.
        ArgumentError: an unknown `layout` or `person`.
    """
    path = Path(path)
    if layout != "auto" and layout not in LAYOUTS:
        raise ArgumentError(f"layout is {layout!r}, expected 'auto' or one of {', '.join(map(repr, LAYOUTS))}.")
    if not path.exists():
        raise MissingFileError(f"{path} does not exist, expected 2D keypoints (.npz, .npy, .json or a folder).")
    suffix = path.suffix.lower()
    if path.is_dir():
        from ._keypoint_json import read_openpose as read
    elif suffix == ".json":
        from ._keypoint_json import read_json as read
    elif suffix in (".npz", ".npy"):
        from ._keypoint_arrays import read_arrays as read
    else:
        raise DataError(f"{path} ends in {suffix!r}, expected .npz, .npy, .json or a folder of OpenPose's files.")
    found = read(path, None if layout == "auto" else layout, person)
    if image_size is not None:
        width, height = image_size
        found = [replace(track, width=width, height=height) for track in found]
    return [replace(track, fps=fps) for track in found] if fps is not None else found
