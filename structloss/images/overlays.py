"""Images and frames of videos with what was found in them drawn over, one at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from ..errors import ArgumentError
from ..files import write_bytes
from ..skeletons import Skeleton
from ._opencv import one_thread, opencv
from .footage import Footage
from .image_people import ImagePeople
from .overlay import draw_pose
from .people import People

__all__ = [
    "LEAST",
    "PICTURES",
    "SURE",
    "overlay_footage",
    "overlay_frames",
    "overlay_pictures",
    "people_of",
    "write_picture",
]

LEAST = 0.05
"""Confidence below which a joint is not drawn [ours]."""
SURE = 0.3
"""Confidence below which a joint is drawn hollow, and bones to it thin [ours]."""
_THIN = 150  # bones' share of a frame, in which people are often small
PICTURES = {".jpeg": ".jpg", ".jpg": ".jpg", ".png": ".png"}
"""Endings of pictures that :func:`write_picture` writes -> what OpenCV calls them."""


def overlay_frames(
    people: People, keypoints: np.ndarray, confidence: np.ndarray, *, skeleton: str | Skeleton = "h36m"
) -> Generator[np.ndarray, None, None]:
    """Each person's image with their skeleton, uint8 RGB `[H, W, 3]`, as for a video; one at a time is in memory.

    Args:
        people: who they are; images are decoded again.
        keypoints: `[N, J, 2]`, pixels of the images, for each of them.
        confidence: `[N, J]`; below :data:`LEAST` a joint is left out, below :data:`SURE` it is hollow.
        skeleton: order of the joints, by its name or as it is.

    Raises:
        ArgumentError: arrays that are not of these people.
        MissingFileError, DataError: an image is gone or damaged.
    """
    _check(people, keypoints, confidence)
    return (_drawn(people, [index], keypoints, confidence, skeleton) for index in range(len(people)))


def overlay_pictures(
    people: ImagePeople, keypoints: np.ndarray, confidence: np.ndarray, *, skeleton: str | Skeleton = "h36m"
) -> Generator[tuple[str, np.ndarray], None, None]:
    """The name of each image and its picture, uint8 RGB `[H, W, 3]`, with all people in it; one at a time is in memory.

    Args and raises: see :func:`overlay_frames`.
    """
    _check(people, keypoints, confidence)
    files = people.annotations.files
    return (
        (files[file], _drawn(people, rows, keypoints, confidence, skeleton)) for file, rows in people_of(people).items()
    )


def overlay_footage(
    footage: Footage,
    keypoints: np.ndarray,
    confidence: np.ndarray,
    *,
    skeleton: str | Skeleton = "h36m",
    start: int = 0,
    height: int | None = None,
) -> Generator[np.ndarray, None, None]:
    """Frames with one person's skeleton, uint8 RGB, one at a time in memory. A frame that is left out is black.

    Args:
        footage: the frames, which are read again.
        keypoints: `[T, J, 2]`, pixels of the frames.
        confidence: `[T, J]`; below :data:`LEAST` a joint is left out, below :data:`SURE` it is hollow.
        skeleton: order of the joints, by its name or as it is.
        start: number of the first frame that they are of.
        height: of what is given, pixels, where the frames are higher; None leaves them as they are.

    Raises:
        ArgumentError: keypoints of more frames than there are.
        MissingFileError, DataError: a frame is gone or damaged.
    """
    if confidence.shape != keypoints.shape[:-1] or not 0 <= start <= len(footage) - len(keypoints):
        raise ArgumentError(
            f"keypoints and confidence have shapes {list(keypoints.shape)} and {list(confidence.shape)} from frame "
            f"{start} on, expected [T, J, 2] and [T, J] within {len(footage)} frames."
        )
    scale = 1.0 if height is None else min(1.0, height / footage.height)
    return (
        _of_frame(footage, number, scale, joints, certain, skeleton)
        for number, (joints, certain) in enumerate(zip(keypoints, confidence, strict=True), start=start)
    )


def _of_frame(
    footage: Footage, number: int, scale: float, joints: np.ndarray, certain: np.ndarray, skeleton: str | Skeleton
) -> np.ndarray:
    frame = footage.read(number)
    if frame is None:
        frame = np.zeros((footage.height, footage.width, 3), np.uint8)
    if scale < 1:
        cv2 = opencv()
        size = max(1, round(footage.width * scale)), max(1, round(footage.height * scale))
        with one_thread():
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    thickness = min(frame.shape[:2]) / _THIN
    return draw_pose(frame, scale * joints, certain >= LEAST, certain >= SURE, skeleton=skeleton, thickness=thickness)


def people_of(people: ImagePeople) -> dict[int, list[int]]:
    """Number of an image among the annotations' files -> numbers of the people in it, in order."""
    found: dict[int, list[int]] = {}
    for index, file in enumerate(people.annotations.file.tolist()):
        found.setdefault(file, []).append(index)
    return found


def _check(people: People, keypoints: np.ndarray, confidence: np.ndarray) -> None:
    if len(keypoints) != len(people) or confidence.shape != keypoints.shape[:-1]:
        raise ArgumentError(
            f"keypoints and confidence have shapes {list(keypoints.shape)} and {list(confidence.shape)}, expected "
            f"[{len(people)}, J, 2] and [{len(people)}, J]."
        )


def _drawn(
    people: People, rows: Sequence[int], keypoints: np.ndarray, confidence: np.ndarray, skeleton: str | Skeleton
) -> np.ndarray:
    image = people[rows[0]].image
    for row in rows:
        certain = confidence[row]
        image = draw_pose(image, keypoints[row], certain >= LEAST, certain >= SURE, skeleton=skeleton)
    return image


def write_picture(path: Path, image: np.ndarray) -> Path:
    """Write a PNG or JPEG file, as the name ends; it appears complete or not at all.

    Args:
        path: with an ending of :data:`PICTURES`.
        image: uint8 RGB `[H, W, 3]`.

    Raises:
        ArgumentError: another ending.
        MissingDependencyError: the `images` extra (OpenCV) is not installed.
        OSError: the file can't be written there.
    """
    ending = PICTURES.get(path.suffix.lower())
    if ending is None:
        raise ArgumentError(f"path is {str(path)!r}, expected a name that ends in {', '.join(PICTURES)}.")
    cv2 = opencv()
    settings = [cv2.IMWRITE_JPEG_QUALITY, 92] if ending == ".jpg" else []
    done, content = cv2.imencode(ending, np.ascontiguousarray(image[..., ::-1]), settings)
    if not done:  # JPEG has no more than 65535 pixels a side
        raise ArgumentError(f"{path} can't hold an image of {image.shape[1]} x {image.shape[0]} pixels, expected .png.")
    return write_bytes(path, bytes(content))
