"""Diffusion over poses: noise schedule, noising, DDIM sampling, and one pose or score from many hypotheses.

Nothing here knows a network. Poses are `[B, K, H, T, J, 3]` where there are several: K iterations of the sampler, H
hypotheses each.

Source: Shan et al., "Diffusion-Based 3D Human Pose Estimation with Multi-Hypothesis Aggregation" (D3DP), ICCV 2023;
schedule of Nichol and Dhariwal, ICML 2021; sampler of Song et al. (DDIM), ICLR 2021.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError
from .blocks import check_size

__all__ = [
    "MPI_INF_3DHP_TEST_CAMERAS",
    "Diffusion",
    "cosine_betas",
    "hypothesis_errors",
    "j_agg",
    "j_best",
    "p_agg",
    "p_best",
    "project",
    "select_by_reprojection",
]

_CLAMP = 1.1  # poses are kept within ± this, times the scale, before and after every denoising


def cosine_betas(steps: int, offset: float = 0.008) -> np.ndarray:
    """Variances β of the cosine schedule, float64 `[steps]`, at most 0.999.

    β_i = 1 − ᾱ(i + 1)/ᾱ(i) with ᾱ(u) = cos²((u/steps + s)/(1 + s)·π/2) and s the `offset`.
    """
    angle = (np.arange(steps + 1, dtype=np.float64) / steps + offset) / (1 + offset) * (math.pi / 2)
    kept = np.cos(angle) ** 2
    return np.clip(1 - kept[1:] / kept[:-1], 0, 0.999)


@functools.cache
def _alphas_cumprod(steps: int) -> np.ndarray:
    alphas = np.cumprod(1 - cosine_betas(steps))
    alphas.setflags(write=False)
    return alphas


class Diffusion:
    """A cosine schedule of `steps` noise levels, in float64, and what is computed with it.

    Args:
        steps: number of levels; level t keeps √A_t of the pose, A = `alphas_cumprod`.
        scale: S, what poses are multiplied by before they are noised.

    Raises:
        ArgumentError: no positive number of steps, or no positive scale.
    """

    def __init__(self, steps: int = 1000, scale: float = 1.0) -> None:
        check_size("steps", steps)
        if not isinstance(scale, (int, float)) or not scale > 0:
            raise ArgumentError(f"scale is {scale!r}, expected a positive number.")
        self.steps = steps
        self.scale = float(scale)

    # NumPy arrays follow neither a module's dtype nor a default device, so the schedule stays what it is.
    @property
    def betas(self) -> np.ndarray:
        return cosine_betas(self.steps)

    @property
    def alphas_cumprod(self) -> np.ndarray:
        """A, float64 `[steps]`: the running product of 1 − β."""
        return _alphas_cumprod(self.steps)

    def constants(self) -> dict[str, Tensor]:
        """The schedule as published files hold it: 12 float64 tensors `[steps]`, most of which no sampler reads."""
        betas, kept = torch.tensor(self.betas), torch.tensor(self.alphas_cumprod)
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        variance = betas * (1 - before) / (1 - kept)  # of the level below, given this one and the clean pose
        return {
            "betas": betas,
            "alphas_cumprod": kept,
            "alphas_cumprod_prev": before,
            "sqrt_alphas_cumprod": kept.sqrt(),
            "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(),
            "log_one_minus_alphas_cumprod": (1 - kept).log(),
            "sqrt_recip_alphas_cumprod": (1 / kept).sqrt(),
            "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
            "posterior_variance": variance,
            "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
            "posterior_mean_coef1": betas * before.sqrt() / (1 - kept),
            "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - kept),
        }

    def times(self, iterations: int) -> list[int]:
        """The `iterations + 1` levels that the sampler visits, from the noisiest to -1, which is the clean pose."""
        check_size("iterations", iterations)
        if iterations > self.steps:
            raise ArgumentError(f"iterations is {iterations}, expected at most {self.steps}, the levels there are.")
        levels = torch.linspace(-1, self.steps - 1, iterations + 1, dtype=torch.float32, device="cpu")
        return levels.int().tolist()[::-1]

    def limited(self, pose: Tensor) -> Tensor:
        """A scaled pose or sample, clamped to ±1.1·S."""
        return pose.clamp(-_CLAMP * self.scale, _CLAMP * self.scale)

    def network_input(self, sample: Tensor) -> Tensor:
        """What a denoiser is shown of a sample: clamped, and without the scale."""
        return self.limited(sample) / self.scale

    def noised(self, pose: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """√A_t·S·pose + √(1 − A_t)·noise as a denoiser is shown it.

        Args:
            pose, noise: `[B, ...]`, clean poses and standard normal noise.
            timestep: integers `[B]`, 0 <= t < steps.

        Returns:
            The shape and dtype of `pose`; computed in float64.
        """
        kept = torch.tensor(self.alphas_cumprod, device=pose.device)[timestep]
        kept = kept.view(-1, *[1] * (pose.dim() - 1))
        sample = kept.sqrt() * self.scale * pose.double() + (1 - kept).sqrt() * noise.double()
        return self.network_input(sample).to(pose.dtype)

    def step(self, sample: Tensor, clean: Tensor, now: int, then: int, noise: Tensor) -> Tensor:
        """One step of DDIM with η = 1 from level `now` to the lower level `then`.

        Args:
            sample: x_now, not clamped.
            clean: the scaled clean pose that the denoiser predicts from it.
            noise: standard normal, of the same shape.

        Returns:
            x_then = √A_then·clean + c·ε + σ·noise, with the ε that `sample` and `clean` imply.
        """
        a, b = float(self.alphas_cumprod[now]), float(self.alphas_cumprod[then])
        sigma = math.sqrt((1 - a / b) * (1 - b) / (1 - a))
        # ε = (sample − √a·clean)/√(1 − a), put into the sum: three terms instead of a tensor for ε.
        direction = math.sqrt(max(1 - b - sigma**2, 0.0)) / math.sqrt(1 - a)
        return (math.sqrt(b) - direction * math.sqrt(a)) * clean + direction * sample + sigma * noise

    def ddim(
        self,
        denoise: Callable[[Tensor, int], Tensor],
        sample: Tensor,
        iterations: int,
        noise: Callable[[int], Tensor],
    ) -> Iterator[Tensor]:
        """The clean poses that the sampler predicts, one after each of its iterations.

        Args:
            denoise: (network input, level) -> clean pose without scale, of the same shape.
            sample: standard normal noise to start from.
            iterations: K.
            noise: index 0 .. K - 2 of a step -> standard normal noise of the same shape.

        Yields:
            K scaled poses, clamped to ±1.1·S.
        """
        times = self.times(iterations)
        for i, (now, then) in enumerate(itertools.pairwise(times)):
            clean = self.limited(self.scale * denoise(self.network_input(sample), now))
            yield clean
            if then >= 0:
                sample = self.step(sample, clean, now, then, noise(i))


# One pose, or one error, from many hypotheses


def hypothesis_errors(poses: Tensor, target: Tensor) -> Tensor:
    """Distances `[B, K, H, T, J]` of hypotheses `[B, K, H, T, J, 3]` to a target `[B, T, J, 3]`."""
    return (poses - target[:, None, None]).norm(dim=-1)


def _mean(errors: Tensor, weight: Tensor | None) -> Tensor:
    """`[B, K, T, J]` to `[K]`."""
    if weight is None:
        return errors.mean(dim=(0, 2, 3))
    counted = torch.where(weight[:, None] > 0, weight[:, None] * errors, 0.0)
    return counted.sum(dim=(0, 2, 3)) / weight.sum()


# Each takes an optional weight `[B, T, J]`, >= 0: the mean is weighted by it, and what has weight 0 drops out.


def j_best(errors: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean error `[K]` if an oracle chooses the best hypothesis of every joint; takes `hypothesis_errors`."""
    return _mean(errors.amin(dim=2), weight)


def p_best(errors: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean error `[K]` of the one hypothesis that is best over the whole batch; takes `hypothesis_errors`.

    As published, the choice is one index for all clips of the batch, so the figure depends on the batch size (4 in the
    paper's evaluation).
    """
    each = torch.stack([_mean(of_one, weight) for of_one in errors.unbind(dim=2)])  # [H, K]
    return each.amin(dim=0)


def p_agg(poses: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean error `[K]` of the average `poses.mean(2)` of all hypotheses `[B, K, H, T, J, 3]`."""
    return _mean((poses.mean(dim=2) - target[:, None]).norm(dim=-1), weight)


def project(points: Tensor, camera: Tensor) -> Tensor:
    """Points in a camera's frame to its image, with lens distortion.

    Args:
        points: `[B, ..., 3]`; X/Z and Y/Z are clamped to [-1, 1].
        camera: `[9]` or one per clip `[B, 9]`: focal length (2), centre (2), radial (3) and tangential (2) distortion.

    Returns:
        `[B, ..., 2]` in the unit of focal length and centre: pixels, or the normalised screen.

    Raises:
        ArgumentError: a camera of another shape.
    """
    if camera.shape not in ((9,), (points.shape[0], 9)):
        raise ArgumentError(
            f"camera has shape {list(camera.shape)}, expected [9] or [{points.shape[0]}, 9]: focal length, centre, "
            "radial and tangential distortion."
        )
    if camera.dim() == 2:
        camera = camera.view(-1, *[1] * (points.dim() - 2), 9)
    focal, centre, radial, tangential = camera.split((2, 2, 3, 2), dim=-1)
    a = (points[..., :2] / points[..., 2:]).clamp(-1, 1)
    r2 = a.square().sum(dim=-1, keepdim=True)
    k1, k2, k3 = radial.split(1, dim=-1)
    stretch = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)) + (tangential * a).sum(dim=-1, keepdim=True)
    return focal * (a * stretch + tangential * r2) + centre


def select_by_reprojection(
    poses: Tensor, keypoints: Tensor, trajectory: Tensor, camera: Tensor
) -> tuple[Tensor, Tensor]:
    """J-Agg, the paper's joint-wise aggregation: of every joint the hypothesis that projects nearest to the input.

    It needs the true trajectory of the root and the camera, not the true pose.

    Args:
        poses: `[B, K, H, T, J, 3]`, root-relative.
        keypoints: `[B, T, J, 2]`, the network's input, in the unit of the camera.
        trajectory: `[B, T, 3]`, the root in the camera's frame, in the unit of the poses.
        camera: see :func:`project`.

    Returns:
        The combined poses `[B, K, T, J, 3]`, and the index of the hypothesis of each joint `[B, K, T, J]`.
    """
    image = project(poses + trajectory[:, None, None, :, None], camera)
    selected = (image - keypoints[:, None, None]).norm(dim=-1).argmin(dim=2)
    index = selected[:, :, None, :, :, None].expand(-1, -1, 1, -1, -1, 3)
    return poses.gather(2, index).squeeze(2), selected


def j_agg(
    poses: Tensor,
    target: Tensor,
    keypoints: Tensor,
    trajectory: Tensor,
    camera: Tensor,
    weight: Tensor | None = None,
) -> Tensor:
    """Mean error `[K]` of what :func:`select_by_reprojection` combines."""
    combined, _ = select_by_reprojection(poses, keypoints, trajectory, camera)
    return _mean((combined - target[:, None]).norm(dim=-1), weight)


def _pixel_camera(
    focal: float, offset: tuple[float, float], pixels: tuple[int, int], sensor: tuple[float, float]
) -> tuple[float, ...]:
    """A pinhole in pixels from focal length, offset of the centre and sensor in millimetres."""
    fx, fy = (focal * p / s for p, s in zip(pixels, sensor, strict=True))
    cx, cy = (o * p / s + p / 2 for o, p, s in zip(offset, pixels, sensor, strict=True))
    return (fx, fy, cx, cy, 0.0, 0.0, 0.0, 0.0, 0.0)


_STUDIO = _pixel_camera(7.32506, (-0.0322884, 0.0929296), (2048, 2048), (10, 10))
_OUTDOOR = _pixel_camera(8.770747185, (-0.104908645, 0.104899704), (1920, 1080), (10, 5.625))
MPI_INF_3DHP_TEST_CAMERAS = MappingProxyType(
    {**dict.fromkeys(("TS1", "TS2", "TS3", "TS4"), _STUDIO), **dict.fromkeys(("TS5", "TS6"), _OUTDOOR)}
)
"""Cameras of MPI-INF-3DHP's test sequences for :func:`project`, in pixels, without distortion."""
