"""The package's samples with what is known of them: keypoints, the motion that was filmed, and the camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import samples
from ..errors import DataError
from .archive import load_archive
from .cameras import Camera
from .clips import Clip
from .formats.keypoints import Keypoints, read_keypoints

__all__ = ["Sample", "camera_to_meta", "load_sample"]


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample and its truth.

    Attributes:
        name: one of :func:`structloss.samples.names`.
        keypoints: as a detector gives them, see :func:`~structloss.data.formats.read_keypoints`.
        clip: the motion in the world, with a frame for each of the video.
        camera: that filmed it.
    """

    name: str
    keypoints: Keypoints
    clip: Clip
    camera: Camera

    @property
    def truth(self) -> np.ndarray:
        """float32 `[T, 17, 3]`: the pose in each frame of `keypoints`, in the camera's frame, metres, Human3.6M's
        joints. A prediction is relative to the pelvis: compare it with `truth - truth[:, :1]`."""
        first = self.keypoints.start
        positions = self.clip.positions[first : first + len(self.keypoints)]
        return self.camera.to_camera(positions).astype(np.float32)


def load_sample(name: str) -> Sample:
    """Read a sample.

    Args:
        name: one of :func:`structloss.samples.names`.

    Raises:
        UnknownNameError: there is no sample of this name.
        DataError: files of the package that somebody changed.
    """
    path = samples.path(name, "motion")
    clips, meta = load_archive(path)
    (keypoints,) = read_keypoints(samples.path(name, "keypoints"))
    try:
        camera = _camera_of_meta(meta["camera"])
        (clip,) = clips
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not as it was installed, expected one clip and its camera.") from error
    return Sample(name, keypoints, clip, camera)


def camera_to_meta(camera: Camera) -> dict[str, Any]:
    """A camera as plain numbers and lists, for the `meta` of a clip archive."""
    return {
        "id": camera.id,
        "width": camera.width,
        "height": camera.height,
        "focal": list(camera.focal),
        "center": list(camera.center),
        "radial": list(camera.radial),
        "tangential": list(camera.tangential),
        "rotation": camera.rotation.tolist(),
        "position": camera.position.tolist(),
    }


def _camera_of_meta(told: Mapping[str, Any]) -> Camera:
    (fx, fy), (cx, cy), (k1, k2, k3) = told["focal"], told["center"], told["radial"]
    t1, t2 = told["tangential"]
    return Camera(
        str(told["id"]), int(told["width"]), int(told["height"]), (fx, fy), (cx, cy), (k1, k2, k3), (t1, t2),
        np.array(told["rotation"], dtype=np.float64).reshape(3, 3),
        np.array(told["position"], dtype=np.float64).reshape(3),
    )  # fmt: skip
