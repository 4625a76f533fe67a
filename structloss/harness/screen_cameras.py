"""The cameras of a set of windows, to project predicted poses with."""

from __future__ import annotations

import numpy as np

from ..data import PoseWindows
from ..data.cameras import h36m_cameras

__all__ = ["cameras_of"]


def cameras_of(windows: PoseWindows) -> dict[tuple[int, int], tuple[float, ...]]:
    """(clip, view) of a batch -> the camera that its 2D input was seen with, for `project`, on the normalised screen.

    Stores keep the pinhole, which is NaN where it is not known. The lens distortion is that of Human3.6M's cameras,
    where a view is of one of them and its 2D is not the exact pinhole image; of other cameras it is 0.
    """
    lenses = {camera.id: camera for camera in h36m_cameras("S1")}  # the same for all subjects
    exact = windows.store.source.get("detections") == "exact"
    clips = {motion: number for number, motion in enumerate(windows.motions)}
    found: dict[tuple[int, int], tuple[float, ...]] = {}
    for view in windows.store.views:
        lens, distortion = lenses.get(view.camera), (0.0, 0.0, 0.0, 0.0, 0.0)
        if lens is not None and not exact and np.allclose(lens.screen_intrinsics(), view.intrinsics, atol=1e-6):
            distortion = (*lens.radial, *lens.tangential)
        found[clips[view.motion], view.index] = (*view.intrinsics, *distortion)
    return found
