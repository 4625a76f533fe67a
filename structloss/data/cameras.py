"""Cameras: the four of Human3.6M, world to camera to pixels and back to the normalised screen.

Camera frame: x right, y down, z forward. World: right-handed, z up. Lengths in metres, images in pixels. Sources:
Human3.6M's calibration; projection and normalisation as in VideoPose3D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import ArgumentError, check_name

if TYPE_CHECKING:
    import torch

__all__ = ["H36M_SUBJECTS", "Camera", "denormalize_screen", "h36m_cameras", "normalize_screen"]

Points = TypeVar("Points", np.ndarray, "torch.Tensor")


def normalize_screen(xy: Points, w: float, h: float) -> Points:
    """Pixels `[..., 2]` to the screen where x runs from -1 to 1 and y keeps the aspect: both are divided by the width.

    x' = 2x/w - 1, y' = 2y/w - h/w. Dtype and type (numpy or torch) are kept.
    """
    _check_screen(xy, w, h)
    return xy * (2 / w) - _offset(xy, w, h)


def denormalize_screen(xy: Points, w: float, h: float) -> Points:
    """Inverse of :func:`normalize_screen`: normalised screen `[..., 2]` to pixels of a w x h image."""
    _check_screen(xy, w, h)
    return (xy + _offset(xy, w, h)) * (w / 2)


def _offset(xy: Points, w: float, h: float) -> Points:
    if isinstance(xy, np.ndarray):
        return np.array([1.0, h / w], dtype=xy.dtype)
    return xy.new_tensor([1.0, h / w])


def _check_screen(xy: Points, w: float, h: float) -> None:
    if xy.shape[-1:] != (2,):
        raise ArgumentError(f"xy has shape {list(xy.shape)}, expected [..., 2].")
    if not (w > 0 and h > 0):
        raise ArgumentError(f"the image is {w} x {h} pixels, expected a positive width and height.")


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera with radial and tangential lens distortion.

    Attributes:
        id: name of the camera.
        width, height: image size, pixels.
        focal: (f_x, f_y), pixels.
        center: principal point (c_x, c_y), pixels.
        radial: (k1, k2, k3).
        tangential: (t1, t2), in VideoPose3D's order: t1 goes with x (OpenCV exchanges them).
        rotation: float64 `[3, 3]`, world to camera: its rows are the camera's axes in the world.
        position: float64 `[3]`, the camera's centre in the world, metres.
    """

    id: str
    width: int
    height: int
    focal: tuple[float, float]
    center: tuple[float, float]
    radial: tuple[float, float, float]
    tangential: tuple[float, float]
    rotation: np.ndarray
    position: np.ndarray

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points `[..., 3]` (metres) to the camera frame, float64."""
        points = np.asarray(points, dtype=np.float64)
        if points.shape[-1:] != (3,):
            raise ArgumentError(f"points has shape {list(points.shape)}, expected [..., 3].")
        return (points - self.position) @ self.rotation.T

    @property
    def up(self) -> tuple[float, float, float]:
        """The world's vertical, upward, in the camera's frame."""
        x, y, z = self.rotation[:, 2].tolist()
        return x, y, z

    def project(self, camera_points: np.ndarray, distort: bool = True) -> np.ndarray:
        """Camera points `[..., 3]` (metres) to pixels `[..., 2]`, float64.

        X/Z and Y/Z are clamped to [-1, 1] as in VideoPose3D, so far outside of the image the result only tells the
        side. Points must lie in front of the camera (z > 0) to mean anything.

        Args:
            distort: apply the lens distortion; without it this is the pinhole f * p + c.
        """
        points = np.asarray(camera_points, dtype=np.float64)
        if points.shape[-1:] != (3,):
            raise ArgumentError(f"camera_points has shape {list(points.shape)}, expected [..., 3].")
        p = np.clip(points[..., :2] / points[..., 2:], -1.0, 1.0)
        if distort:
            k1, k2, k3 = self.radial
            t = np.array(self.tangential)
            r2 = (p * p).sum(-1, keepdims=True)
            p = p * (1 + r2 * (k1 + r2 * (k2 + r2 * k3)) + (p @ t)[..., None]) + r2 * t
        return p * np.array(self.focal) + np.array(self.center)

    def screen_intrinsics(self) -> np.ndarray:
        """float64 `[4]`: the pinhole's (f_x, f_y, c_x, c_y) in units of the normalised screen."""
        (fx, fy), (cx, cy), w, h = self.focal, self.center, self.width, self.height
        return np.array([2 * fx / w, 2 * fy / w, 2 * cx / w - 1, 2 * cy / w - h / w])


def _world_to_camera(quaternion: tuple[float, float, float, float]) -> np.ndarray:
    """Transpose of the rotation matrix of (w, x, y, z): the table gives camera to world."""
    w, x, y, z = np.array(quaternion) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
            [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
            [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def h36m_cameras(subject: str) -> tuple[Camera, ...]:
    """The four cameras around a Human3.6M subject, in the order 54138969, 55011271, 58860488, 60457274.

    They stand 4 to 5.5 m from the origin at 1.5 m height and look at it.

    Raises:
        UnknownNameError: not one of :data:`H36M_SUBJECTS`; S2, S3 and S4 have no published extrinsics.
    """
    check_name("Human3.6M subject", subject, _EXTRINSICS)
    return tuple(
        Camera(*intrinsics, rotation=_world_to_camera(quaternion), position=np.array(millimetres) / 1000)
        for intrinsics, (quaternion, millimetres) in zip(_INTRINSICS, _EXTRINSICS[subject], strict=True)
    )


# id, width, height, focal length, principal point, radial k1..k3, tangential t1, t2; pixels.
_INTRINSICS = (
    (
        "54138969", 1000, 1002, (1145.0494, 1143.7811), (512.5415, 515.4515),
        (-0.20709892, 0.24777518, -0.0030751503), (-0.0009756989, -0.0014244716),
    ),
    (
        "55011271", 1000, 1000, (1149.6757, 1147.5917), (508.84863, 508.0649),
        (-0.19421363, 0.24040854, 0.0068199756), (-0.0016190266, -0.0027408944),
    ),
    (
        "58860488", 1000, 1000, (1149.1407, 1148.799), (519.81586, 501.40265),
        (-0.20833819, 0.255488, -0.0024604974), (0.001484387, -0.0007599993),
    ),
    (
        "60457274", 1000, 1002, (1145.5114, 1144.7739), (514.9682, 501.88202),
        (-0.19838409, 0.21832368, -0.008947807), (-0.0005872056, -0.001813362),
    ),
)  # fmt: skip

# Subject -> per camera: orientation quaternion (w, x, y, z) of camera to world, centre in millimetres.
_EXTRINSICS = {
    "S1": (
        ((0.14070565, -0.15007018, -0.7552408, 0.62232804), (1841.107, 4955.2847, 1563.4454)),
        ((0.6157188, -0.7648363, -0.14833826, 0.11794741), (1761.2786, -5078.007, 1606.265)),
        ((0.14651473, -0.14647852, 0.76530236, -0.60941756), (-1846.7777, 5215.0464, 1491.9724)),
        ((0.58340085, -0.7853162, 0.14548823, -0.14749594), (-1794.7897, -3722.699, 1574.8927)),
    ),
    "S5": (
        ((0.14673772, -0.16237096, -0.7551893, 0.6178939), (2097.3916, 4880.945, 1605.7324)),
        ((0.61597586, -0.7626792, -0.15728192, 0.1189815), (2031.7008, -5167.933, 1612.9231)),
        ((0.14291371, -0.12907842, 0.7678385, -0.6110143), (-1620.5948, 5171.6587, 1496.437)),
        ((0.592048, -0.7814218, 0.12747486, -0.15036418), (-1637.1737, -3867.3174, 1547.0332)),
    ),
    "S6": (
        ((0.13378978, -0.15692396, -0.75710905, 0.61988795), (1935.4518, 4950.2456, 1618.0839)),
        ((0.61471975, -0.7628813, -0.16174768, 0.11819245), (1969.804, -5128.739, 1632.7788)),
        ((0.15299481, -0.13529131, 0.76460963, -0.6112781), (-1769.5964, 5185.3613, 1476.9934)),
        ((0.59161013, -0.7804774, 0.1283227, -0.15615939), (-1721.6687, -3884.1313, 1540.4879)),
    ),
    "S7": (
        ((0.14352418, -0.16313368, -0.75483286, 0.6188825), (1974.513, 4926.3545, 1597.8326)),
        ((0.6141673, -0.76382625, -0.15966456, 0.117792994), (1937.0585, -5119.79, 1631.5665)),
        ((0.1455006, -0.12874816, 0.76605165, -0.61271393), (-1741.8112, 5208.2495, 1464.8246)),
        ((0.5912848, -0.78217643, 0.12445474, -0.15196487), (-1734.7106, -3832.4214, 1548.583)),
    ),
    "S8": (
        ((0.14110588, -0.15589868, -0.75619173, 0.61964405), (2150.6519, 4896.161, 1611.9047)),
        ((0.61696017, -0.7647668, -0.1484635, 0.11158158), (2219.9656, -5148.453, 1613.0441)),
        ((0.1471444, -0.1337712, 0.76701283, -0.61003697), (-1571.2216, 5137.0186, 1498.1761)),
        ((0.59278244, -0.78258705, 0.12147816, -0.14631996), (-1476.9133, -3896.7412, 1547.9722)),
    ),
    "S9": (
        ((0.15540588, -0.15548216, -0.75320953, 0.6199595), (2044.4585, 4935.117, 1481.2275)),
        ((0.6187845, -0.7634735, -0.14132239, 0.11933968), (1990.9597, -5123.8105, 1568.8048)),
        ((0.13357827, -0.13671005, 0.76894546, -0.61007386), (-1670.9922, 5211.986, 1528.388)),
        ((0.5879399, -0.7823407, 0.14276144, -0.1479487), (-1696.0435, -3827.0999, 1591.4127)),
    ),
    "S11": (
        ((0.15232472, -0.1544232, -0.75475633, 0.619107), (2098.4402, 4926.5547, 1500.2786)),
        ((0.61894494, -0.7600917, -0.15300633, 0.12552583), (2083.1824, -4912.173, 1561.0786)),
        ((0.14943229, -0.15650228, 0.7681234, -0.60263044), (-1609.8153, 5177.336, 1537.8967)),
        ((0.58942515, -0.7818877, 0.13991211, -0.14715362), (-1590.738, -3854.169, 1578.0176)),
    ),
}

H36M_SUBJECTS = tuple(_EXTRINSICS)
"""Subjects with published extrinsics: S1, S5, S6, S7, S8 (training), S9, S11 (test)."""
