"""A person's 2D keypoints over time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ... import skeletons
from ...errors import ArgumentError
from .._checks import positive
from .keypoint_maps import keypoints_to_h36m

__all__ = ["Keypoints"]


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
        notes: what to know of how it was read, a sentence each: others that were left out, joints that the file lacks.

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
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keypoints = np.ascontiguousarray(self.keypoints, dtype=np.float32)
        confidence = np.ascontiguousarray(self.confidence, dtype=np.float32)
        if keypoints.ndim != 3 or keypoints.shape[2] != 2 or 0 in keypoints.shape:
            raise ArgumentError(f"keypoints has shape {list(keypoints.shape)}, expected [T, J, 2] with T, J >= 1.")
        if confidence.shape != keypoints.shape[:2]:
            expected = f"expected {list(keypoints.shape[:2])}, one per keypoint"
            raise ArgumentError(f"confidence has shape {list(confidence.shape)}, {expected}.")
        if not np.isfinite(keypoints).all():
            raise ArgumentError(f"keypoints of {self.name!r} has NaN or infinite values, expected finite pixels.")
        if not ((confidence >= 0) & (confidence <= 1)).all():
            raise ArgumentError(f"confidence of {self.name!r} has values outside of 0 to 1, expected none.")
        for argument, value in (("width", self.width), ("height", self.height), ("fps", self.fps)):
            if value is not None:
                positive(argument, value)
        object.__setattr__(self, "keypoints", keypoints)
        object.__setattr__(self, "confidence", confidence)

    def __len__(self) -> int:
        return len(self.keypoints)

    def to_h36m(self, variant: str | None = None) -> Keypoints:
        """The same person in the 17 joints of Human3.6M.

        Args:
            variant: "motionbert" or "demo", the convention that the network was trained with; None is the layout's
                default. See :mod:`~structloss.data.formats.keypoint_maps`.

        Raises:
            ArgumentError: a convention that the layout can't follow.
        """
        joined = np.concatenate([self.keypoints, self.confidence[..., None]], axis=-1)
        made = keypoints_to_h36m(joined, self.skeleton, variant)
        return replace(self, keypoints=made[..., :2], confidence=made[..., 2], skeleton="h36m")

    def in_skeleton(self, skeleton: str, variant: str | None = None) -> Keypoints:
        """The same person in the joints of a registered skeleton, by way of Human3.6M's where they are not these.

        Args:
            skeleton: "h36m", "mpi_inf_3dhp", or what the keypoints are in.
            variant: as in :meth:`to_h36m`.

        Raises:
            ArgumentError: there is no way from this layout to those joints, or a convention that it can't follow.
        """
        if self.skeleton == skeleton:
            return self
        if skeleton not in ("h36m", "mpi_inf_3dhp"):
            raise ArgumentError(f"{self.name} has the layout {self.skeleton!r}, expected {skeleton!r}.")
        made = self.to_h36m(variant)
        if skeleton == "h36m":
            return made
        joined = np.concatenate([made.keypoints, made.confidence[..., None]], axis=-1)
        joined = skeletons.convert(joined, "h36m", skeleton, confidence=True)
        return replace(made, keypoints=joined[..., :2], confidence=joined[..., 2], skeleton=skeleton)
