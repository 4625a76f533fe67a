"""A simulated 2D keypoint detector: self-occlusion, errors that grow with it, and scores that know about the errors.

What a lifting network has to cope with is not white noise: a hidden joint is guessed, the guess is wrong by
centimetres, wrong in the same direction for a while, and the detector is less sure of it. All of that is modelled here;
the figures (some 3 px for visible joints of a person 5 m away in a 1000 px image) are our choice, of the order of
fine-tuned detectors on Human3.6M.
"""

from __future__ import annotations

import numpy as np

from ..errors import ArgumentError
from ..skeletons import get
from .cameras import Camera

__all__ = ["occlusion", "simulate_detections"]

_H36M = get("h36m")

# Radius in metres of the flesh around the bone that ends in each joint: legs, trunk, neck and head, arms.
_RADIUS = {
    1: 0.09, 2: 0.075, 3: 0.05, 4: 0.09, 5: 0.075, 6: 0.05, 7: 0.12, 8: 0.13, 9: 0.06, 10: 0.09,
    11: 0.06, 12: 0.045, 13: 0.035, 14: 0.06, 15: 0.045, 16: 0.035,
}  # fmt: skip
_CLEARANCE = 0.05  # metres behind a bone's axis, beyond half its radius, at which a joint counts as half hidden
_EDGE = 0.05  # metres over which covering fades out at a limb's edge, and over which depth order fades in
_SWAPS = (((5, 6), (2, 3)), ((12, 13), (15, 16)))  # joints that a detector exchanges between the sides: legs, arms


def _step(x: np.ndarray) -> np.ndarray:
    """0 to 1 as x goes from -1 to 1; a cubic, since an exponential would dominate the time."""
    s = np.clip(0.5 * x + 0.5, 0.0, 1.0)
    return s * s * (3 - 2 * s)


def occlusion(camera_points: np.ndarray) -> np.ndarray:
    """How much each joint is hidden behind the person's own body.

    Bones are capsules of flesh. A bone hides a joint that it covers in the image and that lies behind it in depth, both
    fading smoothly; several bones hide more than one: 1 - prod(1 - covered * behind). The bones that meet at a joint do
    not hide it.

    Args:
        camera_points: `[..., 17, 3]`, camera frame (z is depth), metres, in front of the camera.

    Returns:
        float32 `[..., 17]` from 0 (in full view) to 1 (hidden).

    Raises:
        ArgumentError: another shape.
    """
    points = np.asarray(camera_points, dtype=np.float32)
    if points.shape[-2:] != (17, 3):
        raise ArgumentError(f"camera_points has shape {list(points.shape)}, expected [..., 17, 3].")
    depth = np.ascontiguousarray(points.reshape(-1, 17, 3)[..., 2].T)  # [J, N]: long rows are what numpy is fast on
    x, y = (np.ascontiguousarray(points.reshape(-1, 17, 3)[..., i].T) / depth for i in range(2))
    clear = np.ones_like(depth)  # product of what each bone leaves visible
    for child, parent in _H36M.bones:
        radius = _RADIUS[child]
        along_x, along_y = x[child] - x[parent], y[child] - y[parent]
        length2 = np.maximum(along_x * along_x + along_y * along_y, 1e-12)
        to_x, to_y = x - x[parent], y - y[parent]
        # The bone's point that is nearest to the joint in the image, its depth, and the distance there in metres.
        s = np.clip((to_x * along_x + to_y * along_y) / length2, 0.0, 1.0)
        z = depth[parent] + s * (depth[child] - depth[parent])
        distance = np.hypot(to_x - s * along_x, to_y - s * along_y) * z
        hidden = _step((radius - distance) / _EDGE) * _step((depth - z - (0.5 * radius + _CLEARANCE)) / _EDGE)
        hidden[[child, parent]] = 0.0
        clear *= 1 - hidden
    return np.ascontiguousarray(1 - clear.T).reshape(points.shape[:-1])


def _ar1(rng: np.random.Generator, shape: tuple[int, ...], memory: float) -> np.ndarray:
    """Unit-variance first-order autoregression along axis 0 with a time constant of `memory` frames, float32.

    The recurrence y(t) = a y(t-1) + e(t) is summed by doubling (a power of two of past terms after each pass), which
    needs log2(T) passes instead of a loop over frames.
    """
    a = float(np.exp(-1 / memory))
    y = rng.standard_normal(shape, dtype=np.float32)
    y[1:] *= np.sqrt(1 - a * a)  # the first frame is already stationary
    reach = 1
    while reach < shape[0] and a**reach > 1e-7:
        y[reach:] += np.float32(a**reach) * y[:-reach]  # numpy buffers overlapping operands
        reach *= 2
    return y


def simulate_detections(
    camera_points: np.ndarray,
    pixels: np.ndarray,
    camera: Camera,
    rng: np.random.Generator,
    *,
    fps: float = 50.0,
    jitter: float = 1.2,
    drift: float = 2.0,
    hidden: float = 4.0,
    swaps: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints and scores as a detector would give them.

    Noise is white jitter plus a slowly varying error (time constant 0.25 s), both for a person 5 m away and scaled
    with the person's size in the image; the slow part grows to `1 + hidden` times for a hidden joint. Now and then the
    legs or arms are exchanged for some frames while one hides the other. The score falls with occlusion and with the
    error that was actually made, as those of real detectors do, with noise of its own.

    Args:
        camera_points: `[T, 17, 3]`, camera frame, metres.
        pixels: `[T, 17, 2]`, their true image (see :meth:`Camera.project`).
        camera: supplies the image scale.
        rng: source of all randomness.
        fps: frames per second; sets the time constants.
        jitter, drift: standard deviation per axis in pixels of the white and the slow error of a visible joint.
        hidden: additional growth of the slow error for a fully hidden joint.
        swaps: exchange sides now and then.

    Returns:
        keypoints float32 `[T, 17, 2]` in pixels, confidence float32 `[T, 17]` in (0, 1), occlusion float32 `[T, 17]`
        in [0, 1].

    Raises:
        ArgumentError: other shapes.
    """
    camera_points = np.asarray(camera_points, dtype=np.float32)
    if camera_points.ndim != 3 or camera_points.shape[1:] != (17, 3):
        raise ArgumentError(f"camera_points has shape {list(camera_points.shape)}, expected [T, 17, 3].")
    frames = len(camera_points)
    if pixels.shape != (frames, 17, 2):
        raise ArgumentError(f"pixels has shape {list(pixels.shape)}, expected {[frames, 17, 2]}.")
    memory = 0.25 * fps
    occluded = occlusion(camera_points)
    # A detector works on a crop of the person, so its error in pixels grows with the person's size in them.
    scale = np.float32(camera.focal[0] / 229) / camera_points[:, :1, 2]  # [T, 1]; 229 px per metre is 5 m away
    growth = 1 + hidden * occluded
    error = drift * growth[..., None] * _ar1(rng, (frames, 17, 2), memory)
    error += jitter * np.sqrt(growth)[..., None] * rng.standard_normal((frames, 17, 2), dtype=np.float32)
    truth = pixels.astype(np.float32)
    keypoints = truth + error * scale[..., None]
    if swaps:
        mood = _ar1(rng, (frames, len(_SWAPS)), 2 * memory)  # long episodes rather than single frames
        for k, (left, right) in enumerate(_SWAPS):
            hiding = occluded[:, left + right].max(axis=1) > 0.6
            near = np.linalg.norm(truth[:, left[0]] - truth[:, right[0]], axis=-1) < 50 * scale[:, 0]
            frame = np.nonzero(hiding & near & (mood[:, k] > 1.8))[0][:, None]
            keypoints[frame, left + right] = keypoints[frame, right + left]
    wrong = np.linalg.norm(keypoints - truth, axis=-1) / scale
    # A confused detector is not aware of a gross error, so beyond 25 px the score falls no further.
    doubt = 2.1 * occluded + 0.13 * np.minimum(wrong, 25.0)
    doubt += 0.35 * _ar1(rng, (frames, 17), memory) + 0.2 * rng.standard_normal((frames, 17), dtype=np.float32)
    confidence = 1 / (1 + np.exp(doubt - 3.0))
    return keypoints, confidence.astype(np.float32), occluded
