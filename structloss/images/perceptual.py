"""How different two images look: the perceptual term of shape templates, without anything that is downloaded.

Images are `[B, 3, H, W]`, normalised as the networks see them: ImageNet's mean subtracted, divided by its deviation.

Sources: Schmidtke et al., CVPR 2021 (VGG-19, relu3_2); Johnson, Alahi, Fei-Fei, "Perceptual Losses for Real-Time Style
Transfer and Super-Resolution", ECCV 2016; Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code", 1983;
Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.checkpoints import MisfitError, load_published
from ..errors import ArgumentError, CheckpointError, check_choice, check_floating, check_same_shape, shown
from .normalization import DEVIATION, MEAN

__all__ = [
    "KINDS",
    "FeatureLoss",
    "LaplacianPyramid",
    "NoLoss",
    "SSIMLoss",
    "VGGPrefix",
    "perceptual_loss",
    "random_features",
    "vgg19_features",
]

KINDS = ("vgg19", "random", "laplacian", "ssim", "none")
"""What :func:`perceptual_loss` offers."""

VARIABLE = "STRUCTLOSS_VGG19"
"""Environment variable with the file of VGG-19's weights, for whoever has one."""

Features = Callable[[Tensor], "Sequence[Tensor] | Tensor"]


def perceptual_loss(
    kind: str | None = None, *, vgg19: str | os.PathLike[str] | None = None, seed: int = 0
) -> FeatureLoss | SSIMLoss | NoLoss:
    """What compares a reconstruction with its image: a module `(reconstruction, image) -> scalar`.

    - "vgg19": mean absolute difference of VGG-19's features of one layer, relu3_2 [Schmidtke et al.]; weights come from
      a file that the caller has.
    - "random": the same layers with fixed random weights [ours].
    - "laplacian": sum over the four levels l = 0 ... 3 of a Laplacian pyramid of 2^-l times the mean absolute
      difference [ours].
    - "ssim": 1 - SSIM [ours].
    - "none": 0.

    A feature extractor of your own: :class:`FeatureLoss`.

    Args:
        kind: one of :data:`KINDS`. None is "vgg19" if a file of its weights is given by `vgg19` or by the environment
            variable STRUCTLOSS_VGG19, and otherwise "laplacian", which a warning tells.
        vgg19: file with weights of VGG-19 as torchvision and timm name them, see :func:`vgg19_features`. None takes the
            file that STRUCTLOSS_VGG19 names.
        seed: of the weights of "random".

    Raises:
        ArgumentError: an unknown `kind`; "vgg19" without a file; a file with another kind.
        MissingFileError, CheckpointError: see :func:`vgg19_features`.
    """
    if kind is not None:
        check_choice("kind", kind, KINDS)
    if vgg19 is not None and kind not in (None, "vgg19"):
        raise ArgumentError(f"vgg19 is {str(vgg19)!r}, expected it with the kind 'vgg19' only, not {kind!r}.")
    if kind in (None, "vgg19"):
        file = vgg19 if vgg19 is not None else os.environ.get(VARIABLE)
        if file:
            return FeatureLoss(vgg19_features(file))
        if kind == "vgg19":
            raise ArgumentError(
                f"vgg19 is None and {VARIABLE} is not set, expected a file with weights of VGG-19, or another kind "
                f"than 'vgg19': {', '.join(KINDS[1:])}."
            )
        warnings.warn(
            f"no file with weights of VGG-19 is given, the perceptual term is 'laplacian' instead of 'vgg19'; name a "
            f"file by vgg19 or {VARIABLE}, or choose the kind 'laplacian'.",
            UserWarning,
            stacklevel=2,
        )
        kind = "laplacian"
    if kind == "random":
        return FeatureLoss(random_features(seed))
    if kind == "laplacian":
        return FeatureLoss(LaplacianPyramid(), [0.5**level for level in range(LaplacianPyramid.LEVELS)])
    return SSIMLoss() if kind == "ssim" else NoLoss()


class FeatureLoss(nn.Module):
    """Mean absolute difference of features: sum over the maps l of weight_l * mean |F_l(x) - F_l(y)|.

    Args:
        features: images `[B, 3, H, W]` -> a map or a list of maps.
        weights: of each map; None weighs each with 1.

    Raises:
        ArgumentError: `features` can't be called, a weight is no number of at least 0, or, when called, there are more
            or fewer maps than weights.
    """

    def __init__(self, features: Features, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not callable(features):
            raise ArgumentError(f"features is {shown(features)}, expected a callable: images -> list of maps.")
        for weight in weights or ():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                raise ArgumentError(f"weights has {shown(weight)}, expected numbers of at least 0.")
        self.features = features
        self.weights = None if weights is None else tuple(float(weight) for weight in weights)

    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """Compare `[B, 3, H, W]` with `[B, 3, H, W]`. The image gets no gradient."""
        _check_pair(reconstruction, image)
        with torch.no_grad():
            wanted = self._maps(image)
        found = self._maps(reconstruction)
        weights = self.weights or (1.0,) * len(found)
        if len(found) != len(weights):
            raise ArgumentError(f"features gave {len(found)} maps, expected {len(weights)}, as many as weights.")
        total = reconstruction.new_zeros(())
        for weight, a, b in zip(weights, found, wanted, strict=True):
            total = total + weight * (a - b).abs().mean()
        return total

    def _maps(self, images: Tensor) -> Sequence[Tensor]:
        maps = self.features(images)
        return [maps] if isinstance(maps, Tensor) else maps


class VGGPrefix(nn.Module):
    """The first 14 layers of VGG-19, up to relu3_2: `[B, 3, H, W]` -> `[B, 256, H / 4, W / 4]`. Its weights are fixed:
    they take no gradient.

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
    State-dict keys are those of torchvision and timm.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in (64, 64, 0, 128, 128, 0, 256, 256):
            if width:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
                before = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.features(images)]


def vgg19_features(file: str | os.PathLike[str]) -> VGGPrefix:
    """VGG-19 up to relu3_2, with weights from a file: nothing of it is executed, nothing is downloaded.

    Args:
        file: a state dict of VGG-19 with the names of torchvision or timm, `features.{0,2,5,7,10,12}.{weight,bias}`;
            what else it holds is not read. Safetensors by the suffix, otherwise a file of `torch.save`.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is unreadable or wants to run code, lacks one of these layers, or has it in another shape.
    """
    network = VGGPrefix()
    try:
        report = load_published(network, file, strict=False)
    except MisfitError as error:
        if error.report is None:
            raise
        report = error.report  # in the words of VGG-19
    if report.missing:
        raise CheckpointError(
            f"{report.source} has no {report.missing[0]}, expected weights of VGG-19 by the names of torchvision or "
            "timm: features.{0,2,5,7,10,12}.weight and .bias."
        )
    if report.mismatched:
        key, found, wanted = report.mismatched[0]
        raise CheckpointError(
            f"{report.source} has {key} of shape {list(found)}, expected {list(wanted)}, that of VGG-19."
        )
    if report.miscast:
        key, dtype, expected = report.miscast[0]
        raise CheckpointError(f"{report.source} has {key} of dtype {dtype}, expected {expected}.")
    if bad := [key for key, value in network.state_dict().items() if not bool(value.isfinite().all())]:
        raise CheckpointError(f"{report.source} has NaN or infinite values in {bad[0]}, expected finite weights.")
    return network


def random_features(seed: int = 0) -> VGGPrefix:
    """The layers of VGG-19 up to relu3_2 with random weights that keep the scale of what goes through: normal, of
    variance 2 / fan-in (He et al., 2015), no bias; the same for the same seed."""
    network = VGGPrefix()
    generator = torch.Generator().manual_seed(seed)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            normal = torch.randn(layer.weight.shape, generator=generator)
            with torch.no_grad():
                layer.weight.copy_(normal * math.sqrt(2 / fan_in))
                layer.bias.zero_()  # type: ignore[union-attr]  # these have one
    return network


class LaplacianPyramid(nn.Module):
    """`[B, C, H, W]` -> four maps: what each halving of the resolution loses, and what is left.

    Each halving blurs with (1, 4, 6, 4, 1) / 16 along both axes, edges repeated, and takes means of 2 x 2 pixels; it is
    undone by bilinear interpolation. H and W are at least 16.
    """

    LEVELS = 4
    taps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("taps", torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16, persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        if min(images.shape[-2:]) < 16:
            raise ArgumentError(
                f"images are {images.shape[-2]} x {images.shape[-1]}, expected at least 16 x 16 pixels."
            )
        maps = []
        for _ in range(self.LEVELS - 1):
            smaller = F.avg_pool2d(_blur(F.pad(images, (2, 2, 2, 2), mode="replicate"), self.taps), 2)
            size = [images.shape[-2], images.shape[-1]]
            maps.append(images - F.interpolate(smaller, size=size, mode="bilinear", align_corners=False))
            images = smaller
        return [*maps, images]


class SSIMLoss(nn.Module):
    """1 - SSIM, mean over channels and the places of an 11 x 11 Gaussian window of deviation 1.5 that lies inside.

    Images are brought back to 0..1 first, where the constants (0.01^2 and 0.03^2) are for: mean and deviation of
    ImageNet. H and W are at least 11.

    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004, equation 13.
    """

    WINDOW, SIGMA = 11, 1.5

    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """Compare `[B, 3, H, W]` with `[B, 3, H, W]`."""
        _check_pair(reconstruction, image)
        if min(image.shape[-2:]) < self.WINDOW:
            raise ArgumentError(
                f"images are {image.shape[-2]} x {image.shape[-1]}, expected at least {self.WINDOW} x {self.WINDOW} "
                "pixels."
            )
        places = [place - self.WINDOW // 2 for place in range(self.WINDOW)]
        taps = [math.exp(-(place**2) / (2 * self.SIGMA**2)) for place in places]
        window = image.new_tensor([tap / sum(taps) for tap in taps])
        deviation, mean = image.new_tensor(DEVIATION)[:, None, None], image.new_tensor(MEAN)[:, None, None]
        x, y = reconstruction * deviation + mean, image * deviation + mean
        # means, variances and covariance under the window, in one convolution
        x_mean, y_mean, xx, yy, xy = _blur(torch.cat((x, y, x * x, y * y, x * y), 1), window).chunk(5, 1)
        c1, c2 = 0.01**2, 0.03**2
        luminance = (2 * x_mean * y_mean + c1) / (x_mean.square() + y_mean.square() + c1)
        variances = xx - x_mean.square() + yy - y_mean.square()
        structure = (2 * (xy - x_mean * y_mean) + c2) / (variances + c2)
        return 1 - (luminance * structure).mean()


class NoLoss(nn.Module):
    """0, with a gradient of 0."""

    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        _check_pair(reconstruction, image)
        return 0 * reconstruction.sum()


def _blur(images: Tensor, taps: Tensor) -> Tensor:
    """Every channel convolved with `taps` along both axes, where they lie inside."""
    channels = images.shape[1]
    across = taps.to(images.dtype).expand(channels, 1, 1, -1)
    images = F.conv2d(images, across, groups=channels)
    return F.conv2d(images, across.transpose(2, 3), groups=channels)


def _check_pair(reconstruction: Tensor, image: Tensor) -> None:
    check_floating("reconstruction", reconstruction)
    check_floating("image", image)
    if image.dim() != 4 or image.shape[1] != 3:
        raise ArgumentError(f"image has shape {list(image.shape)}, expected [B, 3, H, W].")
    check_same_shape("reconstruction", reconstruction, "image", image)
