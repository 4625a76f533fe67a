"""Where a detector's face is: the 17 joints of COCO from those of Human3.6M."""

from __future__ import annotations

import numpy as np

from ..errors import ArgumentError

__all__ = ["to_coco"]

# Places of COCO's face in metres from the neck (joint 9), of an adult: forward, to the left, up along the head.
_FACE = {
    0: (0.105, 0.0, 0.045),
    1: (0.08, 0.032, 0.08),
    2: (0.08, -0.032, 0.08),
    3: (0.0, 0.075, 0.06),
    4: (0.0, -0.075, 0.06),
}
_LIMBS = {5: 11, 6: 14, 7: 12, 8: 15, 9: 13, 10: 16, 11: 4, 12: 1, 13: 5, 14: 2, 15: 6, 16: 3}  # COCO's: Human3.6M's


def to_coco(
    poses: np.ndarray,
    yaw: np.ndarray | float = 0.0,
    face: np.ndarray | float = 1.0,
    hips: np.ndarray | float = 1.25,
    lift: np.ndarray | float = 0.02,
) -> np.ndarray:
    """COCO's joints of people of whom Human3.6M's are known.

    Limbs are copied, but for the hips: annotators of pictures set them further out and higher than the centres of the
    joints are. The face is made: motion capture knows the neck and the top of the head, and the shoulders tell where
    forward is. The figures are our choice.

    Args:
        poses: `[..., 17, 3]`, metres, in any right-handed frame.
        yaw: by which angle the face is turned to the left of where the shoulders point, radians; `[...]`.
        face: factor of the face's size; `[...]`.
        hips: factor of the distance between the hips; `[...]`.
        lift: metres by which the hips are higher, towards the thorax; `[...]`.

    Returns:
        `[..., 17, 3]` of the poses' dtype, in COCO's order.

    Raises:
        ArgumentError: another shape.
    """
    if poses.shape[-2:] != (17, 3):
        raise ArgumentError(f"poses has shape {list(poses.shape)}, expected [..., 17, 3].")
    neck = poses[..., 9, :]
    up = _unit(poses[..., 10, :] - poses[..., 8, :])
    ahead = _unit(np.cross(poses[..., 11, :] - poses[..., 14, :], up))
    left = np.cross(up, ahead)
    turn = np.asarray(yaw, dtype=poses.dtype)[..., None]
    ahead, left = np.cos(turn) * ahead + np.sin(turn) * left, np.cos(turn) * left - np.sin(turn) * ahead
    size, wide, high = (np.asarray(v, dtype=poses.dtype)[..., None] for v in (face, hips, lift))
    out = np.empty_like(poses)
    for joint, (x, y, z) in _FACE.items():
        out[..., joint, :] = neck + size * (x * ahead + y * left + z * up)
    for joint, of in _LIMBS.items():
        out[..., joint, :] = poses[..., of, :]
    middle = (poses[..., 1, :] + poses[..., 4, :]) / 2
    raised = middle + high * _unit(poses[..., 8, :] - middle)
    for joint in (11, 12):
        out[..., joint, :] = raised + wide * (out[..., joint, :] - middle)
    return out


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)
