"""Draws 2D skeletons over images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import skeletons
from ..errors import ArgumentError
from ._opencv import one_thread, opencv

__all__ = ["draw_pose", "encode_png"]

# RGB; orange and blue as in the other figures, but brighter: images are often dark.
_COLOURS = {"right": (255, 116, 24), "left": (40, 144, 255), "centre": (250, 250, 250)}
_SHIFT = 4  # bits of OpenCV's fixed point: joints lie between pixels


def draw_pose(
    image: NDArray[np.uint8],
    joints: np.ndarray,
    annotated: np.ndarray | None = None,
    visible: np.ndarray | None = None,
    *,
    skeleton: str | skeletons.Skeleton = "mpii",
    thickness: float | None = None,
) -> NDArray[np.uint8]:
    """A copy of an image with a skeleton on it: right limbs orange, left limbs blue, the middle white; hidden joints
    are hollow, and bones that end in one are thin.

    Args:
        image: uint8 RGB `[H, W, 3]`.
        joints: `[J, 2]`, pixels (x, y); the centre of the first pixel is (0, 0).
        annotated: bool `[J]`, joints to draw; None draws all. Those that are not finite are left out.
        visible: bool `[J]`; None takes all for seen.
        skeleton: joint order, by its name or as it is.
        thickness: of bones, pixels; None suits the image's size.

    Raises:
        ArgumentError: an image or joints of another shape or dtype.
        UnknownNameError: an unknown skeleton.
        MissingDependencyError: the `images` extra (OpenCV) is not installed.
    """
    body = skeleton if isinstance(skeleton, skeletons.Skeleton) else skeletons.get(skeleton)
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ArgumentError(f"image is {image.dtype} of shape {list(image.shape)}, expected uint8 [H, W, 3].")
    joints = np.asarray(joints, dtype=np.float64)
    if joints.shape != (body.num_joints, 2):
        raise ArgumentError(f"joints has shape {list(joints.shape)}, expected [{body.num_joints}, 2].")
    flags = []
    for name, given in (("annotated", annotated), ("visible", visible)):
        flag = np.ones(body.num_joints, dtype=bool) if given is None else np.asarray(given)
        if flag.shape != (body.num_joints,) or flag.dtype != bool:
            raise ArgumentError(f"{name} is {flag.dtype} of shape {list(flag.shape)}, expected bool [{len(joints)}].")
        flags.append(flag)
    known, seen = flags[0] & np.isfinite(joints).all(1), flags[1]

    cv2 = opencv()
    out = np.ascontiguousarray(image).copy()
    width = max(1.0, min(image.shape[:2]) / 90) if thickness is None else max(1.0, float(thickness))
    # Far outside of the image OpenCV's integers would overflow; where exactly a bone leaves it does not matter then.
    far = 8.0 * max(image.shape[:2])
    points = np.round(np.clip(np.where(known[:, None], joints, 0.0), -far, far) * (1 << _SHIFT)).astype(int)
    with one_thread():
        for child, parent in body.bones:
            if known[child] and known[parent]:
                thick = width if seen[child] and seen[parent] else width / 2
                cv2.line(out, tuple(points[child].tolist()), tuple(points[parent].tolist()),
                         _COLOURS[_side(body, child, parent)], max(1, round(thick)), cv2.LINE_AA, _SHIFT)  # fmt: skip
        radius = round((0.6 * width + 0.6) * (1 << _SHIFT))
        for joint in np.flatnonzero(known).tolist():
            colour = tuple(round(0.8 * c) for c in _COLOURS[_side(body, joint)])
            cv2.circle(out, tuple(points[joint].tolist()), radius, colour, -1 if seen[joint] else 1, cv2.LINE_AA,
                       _SHIFT)  # fmt: skip
    return out


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """An image, uint8 RGB `[H, W, 3]`, as the content of a PNG file.

    Raises:
        ArgumentError: another shape or dtype.
        MissingDependencyError: the `images` extra (OpenCV) is not installed.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ArgumentError(f"image is {image.dtype} of shape {list(image.shape)}, expected uint8 [H, W, 3].")
    done, content = opencv().imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    assert done  # PNG holds any image
    return bytes(content)


def _side(body: skeletons.Skeleton, *joints: int) -> str:
    for name, side in (("right", body.right), ("left", body.left)):
        if set(joints) & set(side):
            return name
    return "centre"
