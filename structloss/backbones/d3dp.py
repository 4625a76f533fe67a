"""D3DP: MixSTE as the denoiser of a diffusion over poses; many hypotheses of one clip.

Source: Shan, Liu, Zhang, Wang, Han, Wang, Ma, Gao, "Diffusion-Based 3D Human Pose Estimation with Multi-Hypothesis
Aggregation", ICCV 2023.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor, nn

from .. import skeletons
from ..errors import ArgumentError, DtypeError, check_floating, check_same_device
from .base import Supervision
from .blocks import check_size
from .diffusion import Diffusion
from .mixste import MixSTE
from .registry import family

__all__ = ["D3DP"]


class _Sinusoids(nn.Module):
    """Timesteps `[B]` to `[B, C]`: sines of C/2 frequencies from 1 down to 1/10000, then their cosines."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.frequencies = dim // 2

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        # In bfloat16 neighbouring timesteps would be the same number.
        fine = torch.promote_types(dtype, torch.float32)
        k = torch.arange(self.frequencies, device=timestep.device, dtype=fine)
        angle = timestep.to(fine)[:, None] * torch.exp(k * (-math.log(10_000) / (self.frequencies - 1)))
        return torch.cat((angle.sin(), angle.cos()), dim=-1).to(dtype)


class _TimeEmbedding(nn.Sequential):
    """Sinusoids, linear, GELU, linear."""

    def __init__(self, dim: int) -> None:
        super().__init__(_Sinusoids(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, timestep: Tensor) -> Tensor:
        sinusoids, first, activation, second = self
        return second(activation(first(sinusoids(timestep, first.weight.dtype))))


@family(
    "d3dp",
    {
        "243": {
            "frames": 243,
            "params": 34_835_459,
            "macs": 147_430_027_264,
            "published": {
                "mpi_inf_3dhp_j_agg_pck": 97.72,
                "mpi_inf_3dhp_j_agg_auc": 78.11,
                "mpi_inf_3dhp_j_agg_mpjpe_mm": 29.77,
                "mpi_inf_3dhp_p_agg_pck": 97.69,
                "mpi_inf_3dhp_p_agg_auc": 78.02,
                "mpi_inf_3dhp_p_agg_mpjpe_mm": 30.05,
                "mpi_inf_3dhp_p_best_pck": 97.85,
                "mpi_inf_3dhp_p_best_auc": 78.32,
                "mpi_inf_3dhp_p_best_mpjpe_mm": 29.59,
                "mpi_inf_3dhp_j_best_pck": 98.07,
                "mpi_inf_3dhp_j_best_auc": 79.12,
                "mpi_inf_3dhp_j_best_mpjpe_mm": 28.23,
            },
            "arguments": {"frames": 243, "depth": 8},
            "note": "The figures are those of 20 hypotheses and 10 iterations; macs are of one denoising.",
        },
        "27": {
            "recipe": "",
            "frames": 27,
            "params": 34_724_867,
            "macs": 15_569_858_560,
            "arguments": {"frames": 27, "depth": 8},
            "note": "No published setting, a small case for tests.",
        },
        "ddim-tiny": {
            "recipe": "",
            "frames": 9,
            "params": 39_683,
            "macs": 5_565_952,
            "arguments": {"frames": 9, "embed_dim": 32, "depth": 2},
            "note": "No published setting, a small size for tests of the whole procedure.",
        },
    },
    flagship="243",
    paper="Shan et al., Diffusion-Based 3D Human Pose Estimation with Multi-Hypothesis Aggregation, ICCV 2023",
    kind="sequence",
    channels=("x", "y"),
    joints_in=(17,),
    joints_out=17,
)
class D3DP(MixSTE):
    """Denoiser that predicts the clean pose from the 2D clip, a noisy pose and its noise level; and its sampler.

    Source: Shan et al., ICCV 2023.

    Args:
        frames: clip length T.
        skeleton: name in `structloss.skeletons`, for the number of joints, the root and the sides; published:
            "h36m" and "mpi_inf_3dhp".
        embed_dim: channels C, a multiple of `num_heads` and of 4.
        depth: levels, each a spatial and a temporal block.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLPs over C.
        drop_path_rate: stochastic depth of the last level, from 0 at the first.
        timesteps: noise levels of the diffusion.
        scale: what poses are multiplied by before they are noised.

    Attributes:
        diffusion: the :class:`~structloss.backbones.diffusion.Diffusion`, schedule and sampler.
        skeleton: the :class:`~structloss.skeletons.Skeleton`.

    Raises:
        ArgumentError: an impossible size or rate.
        UnknownNameError: no such skeleton.
    """

    #: published files keep the schedule in 12 float64 buffers
    official_constants = (
        "betas|alphas_cumprod|alphas_cumprod_prev|sqrt_alphas_cumprod|sqrt_one_minus_alphas_cumprod|"
        "log_one_minus_alphas_cumprod|sqrt_recip_alphas_cumprod|sqrt_recipm1_alphas_cumprod|posterior_variance|"
        "posterior_log_variance_clipped|posterior_mean_coef1|posterior_mean_coef2"
    )
    _features = 5  # x and y, then the noisy x, y and z

    samples = True

    def __init__(
        self,
        *,
        frames: int = 243,
        skeleton: str = "h36m",
        embed_dim: int = 512,
        depth: int = 8,
        num_heads: int = 8,
        mlp_ratio: float = 2,
        drop_path_rate: float = 0.1,
        timesteps: int = 1000,
        scale: float = 1.0,
    ) -> None:
        check_size("embed_dim", embed_dim, multiple_of=4)
        check_size("timesteps", timesteps)
        person = skeletons.get(skeleton)
        super().__init__(
            frames=frames,
            num_joints=person.num_joints,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            drop_path_rate=drop_path_rate,
        )
        self.skeleton = person
        self.diffusion = Diffusion(timesteps, scale)
        self.time_mlp = _TimeEmbedding(embed_dim)

    def forward(self, x: Tensor, noisy: Tensor | None = None, timestep: Tensor | None = None) -> Tensor:
        """Denoise a pose, or lift a clip by one denoising of pure noise.

        Args:
            x: `[B, T, J, C]`, T = `frames`, C = 2 (x, y) or 3 (the confidence is ignored); image coordinates on the
                screen normalised to [-1, 1] in x.
            noisy: `[B, T, J, 3]`, or H hypotheses of each clip `[B, H, T, J, 3]`; root-relative, in metres. None is the
                validation of the paper, a sample of one hypothesis in one iteration: clamped normal noise at the last
                timestep, the prediction clamped too, its root at 0.
            timestep: integers `[B]`, the noise level of each clip, 0 <= t < `timesteps`; given with `noisy`.

        Returns:
            The clean pose, root-relative, in metres: `[B, T, J, 3]`, or `[B, H, T, J, 3]` for several hypotheses.

        Raises:
            ArgumentError: a wrong shape or device, or one of `noisy` and `timestep` without the other.
            DtypeError: not floating point, or not the weights' dtype outside autocast; a timestep that is no integer.
        """
        x = self.prepare(x)
        if noisy is None and timestep is None:
            noise = torch.randn((*x.shape[:3], 3), device=x.device, dtype=x.dtype)
            last = torch.full((x.shape[0],), self.diffusion.steps - 1, device=x.device)
            clean = self._denoise(x, self.diffusion.network_input(noise), last)
            return self._rooted(self.diffusion.limited(self.diffusion.scale * clean))
        return self._denoise(x, *_checked(x, noisy, timestep))

    def _denoise(self, x: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
        place = self.Spatial_pos_embed + self.time_mlp(timestep)[:, None, None]  # [B, 1, J, C]: small beside the clip
        if noisy.dim() == 5:
            x, place = x[:, None].expand(*noisy.shape[:-1], 2), place[:, None]
        h = self.Spatial_patch_to_embedding(torch.cat((x, noisy), dim=-1)) + place
        flat = h.flatten(0, 1) if noisy.dim() == 5 else h
        return self.head(self.levels(flat, self.Temporal_pos_embed)).view(noisy.shape)

    def _rooted(self, pose: Tensor) -> Tensor:
        pose[..., self.skeleton.root, :] = 0
        return pose

    def supervise(self, x: Tensor, target: Tensor, weight: Tensor | None = None) -> list[Supervision]:
        """Denoise the target, to which noise of a random level is added, one level a clip.

        Args:
            x: input clip, as for `forward`.
            target: `[B, T, J, 3]`, root-relative, in metres.
            weight: `[B, T, J]` or None.
        """
        timestep = torch.randint(0, self.diffusion.steps, target.shape[:1], device=target.device)
        noisy = self.diffusion.noised(target, torch.randn_like(target), timestep)
        return [Supervision(self(x, noisy, timestep), target, weight)]

    @torch.no_grad()
    def sample(
        self,
        x: Tensor,
        hypotheses: int = 1,
        iterations: int = 1,
        flip: bool = True,
        generator: torch.Generator | None = None,
        noise_init: Tensor | None = None,
        noise_steps: Tensor | None = None,
        progress: bool = False,
        *,
        at_once: int | None = None,
        zero_root: bool = True,
    ) -> Tensor:
        """Draw hypotheses of the pose by DDIM; call `eval()` before. Source: Section 3 of the paper.

        Args:
            x: `[B, T, J, C]`, as for `forward`.
            hypotheses: H. Published: 20, or 5 for speed.
            iterations: K, at most the number of timesteps. Published: 10, or 5.
            flip: denoise the mirrored clip and pose too, and average, as published.
            generator: of the noise, on the device of `x`; None is PyTorch's own.
            noise_init: `[B, H, T, J, 3]`, standard normal noise to start from, instead of a drawn one.
            noise_steps: `[K - 1, B, H, T, J, 3]`, the noise added after each iteration, instead of a drawn one.
            progress: write a line about each iteration to stderr.
            at_once: hypotheses that the network takes at a time, to bound memory; None is all of them. It holds
                B * `at_once` clips then, twice as many with `flip`.
            zero_root: set the root to 0, as the paper does before it aggregates and scores.

        Returns:
            `[B, K, H, T, J, 3]`: the clean poses, root-relative, in metres, after each iteration.

        Raises:
            ArgumentError: a wrong shape, device, number of hypotheses or iterations.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        x = self.prepare(x)
        check_size("hypotheses", hypotheses)
        at_once = hypotheses if at_once is None else at_once
        check_size("at_once", at_once)
        self.diffusion.times(iterations)  # checks
        shape = (x.shape[0], hypotheses, *x.shape[1:3], 3)
        for argument, noise, expected in (
            ("noise_init", noise_init, shape),
            ("noise_steps", noise_steps, (iterations - 1, *shape)),
        ):
            if noise is not None:
                _check_poses(argument, noise, x)
                if noise.shape != expected:
                    raise ArgumentError(f"{argument} has shape {list(noise.shape)}, expected {list(expected)}.")

        def draw() -> Tensor:
            return torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)

        views = torch.cat((x, skeletons.flip(x, self.skeleton))) if flip else x

        def denoise(noisy: Tensor, time: int) -> Tensor:
            # Both views in one batch; some hypotheses at a time if that is asked for.
            noisy = torch.cat((noisy, skeletons.flip(noisy, self.skeleton))) if flip else noisy
            timestep = torch.full((len(noisy),), time, device=x.device)
            parts = [self._denoise(views, part, timestep) for part in noisy.split(at_once, dim=1)]
            clean = (torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]).to(x.dtype)
            return (clean[: len(x)] + skeletons.flip(clean[len(x) :], self.skeleton)) / 2 if flip else clean

        poses = x.new_empty((x.shape[0], iterations, *shape[1:]))
        start = draw() if noise_init is None else noise_init
        steps = self.diffusion.ddim(
            denoise, start, iterations, lambda i: draw() if noise_steps is None else noise_steps[i]
        )
        for k, clean in enumerate(steps):
            poses[:, k] = clean
            if progress:
                print(f"D3DP: iteration {k + 1} of {iterations}", file=sys.stderr)
        return self._rooted(poses) if zero_root else poses

    def constants(self) -> dict[str, Tensor]:
        return self.diffusion.constants()

    def official(self, key: str) -> str:
        """The published denoiser is a member of the procedure."""
        return f"pose_estimator.{key}"


def _checked(x: Tensor, noisy: Tensor | None, timestep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Noisy poses and their levels, if they go with the clip and with each other."""
    if noisy is None or timestep is None:
        lacking = "noisy" if noisy is None else "timestep"
        raise ArgumentError(f"{lacking} is None, expected noisy and timestep together or neither.")
    _check_poses("noisy", noisy, x)
    batch, frames, joints, _ = x.shape
    if noisy.shape[:1] + noisy.shape[-3:] != (batch, frames, joints, 3) or noisy.dim() not in (4, 5):
        raise ArgumentError(
            f"noisy has shape {list(noisy.shape)}, expected {[batch, frames, joints, 3]} or "
            f"[{batch}, H, {frames}, {joints}, 3]."
        )
    if timestep.dtype not in (torch.int64, torch.int32):
        raise DtypeError(f"timestep has dtype {timestep.dtype}, expected torch.int64.")
    if timestep.shape != (batch,):
        raise ArgumentError(f"timestep has shape {list(timestep.shape)}, expected [{batch}], one per clip.")
    check_same_device("timestep", timestep, "x", x)
    return noisy, timestep


def _check_poses(argument: str, poses: object, x: Tensor) -> None:
    check_floating(argument, poses)
    assert isinstance(poses, Tensor)
    check_same_device(argument, poses, "x", x)
    if poses.dtype != x.dtype:
        raise DtypeError(f"{argument} has dtype {poses.dtype}, expected {x.dtype}, the dtype of x.")
