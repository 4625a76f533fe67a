"""The losses of shape templates against their literal definitions, and what compares images without a download."""

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from structloss import images
from structloss import shape_templates as st
from structloss.errors import ArgumentError, CheckpointError, DtypeError, MissingFileError, UnknownNameError
from structloss.images.normalization import DEVIATION, MEAN
from structloss.images.perceptual import FeatureLoss, LaplacianPyramid, VGGPrefix, perceptual_loss
from structloss.images.template_losses import WEIGHTS, TemplateTerms, anchor_loss, boundary_loss

CONVOLUTIONS = (0, 2, 5, 7, 10, 12)


def anchors(*shape, seed=0, size=64):
    generator = torch.Generator().manual_seed(seed)
    return size * (1.6 * torch.rand(*shape, 32, 2, generator=generator, dtype=torch.float64) - 0.3)


def pair(size=24, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, 3, size, size, generator=generator, dtype=torch.float64).unbind(0)


# Anchors


def test_anchor_loss_is_its_definition():
    points = anchors(2, 3)
    total = 0.0
    for step in points:
        for a, b in st.ANCHOR_PAIRS:
            for person in step:
                apart = (person[a] - person[b]) / 64
                total += float(apart[0] ** 2 + apart[1] ** 2) / (3 * 3)
    assert float(anchor_loss(points, 64)) == pytest.approx(total, rel=1e-12)
    by_step = sum(anchor_loss(step, 64) for step in points)
    torch.testing.assert_close(anchor_loss(points, 64), by_step)


@pytest.mark.parametrize("boundary", ["all", "core"])
def test_boundary_loss_is_its_definition(boundary):
    points = anchors(2, 3)
    kept = range(32) if boundary == "all" else [0, 1, 2] * 3
    total = 0.0
    for step in points:
        for person in step:
            for anchor in kept:
                for value in person[anchor].tolist():
                    w = 2 * value / 64 - 1
                    total += abs(w) / (3 * 3) if abs(w) > 1 else 0
    assert total > 0
    assert float(boundary_loss(points, 64, boundary)) == pytest.approx(total, rel=1e-12)


def test_no_penalty_inside_and_none_for_none():
    inside = 64 * torch.rand(2, 32, 2)
    assert float(boundary_loss(inside, 64)) == 0
    assert float(boundary_loss(torch.full((1, 32, 2), 64.0), 64)) == 0  # the border itself: w = 1
    for loss in (anchor_loss, boundary_loss):
        assert float(loss(torch.zeros(0, 32, 2), 64)) == 0


@pytest.mark.parametrize("loss", [anchor_loss, boundary_loss, lambda a, size: boundary_loss(a, size, "core")])
def test_gradients_of_anchors(loss):
    points = anchors(2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, 64), (points,))


# Terms


def test_terms_are_those_with_a_weight():
    reconstruction, image = pair()
    points = anchors(1, 2)
    terms = TemplateTerms({"mse": 1, "anchor": 0.5, "perceptual": 0}, boundary="core")
    assert terms.weights == {"mse": 1.0, "anchor": 0.5}
    found = terms(points, 64, reconstruction, image)
    assert set(found) == {"mse", "anchor"}
    torch.testing.assert_close(found["mse"], F.mse_loss(reconstruction, image))
    everything = TemplateTerms(perceptual=perceptual_loss("ssim"))(points, 64, reconstruction, image)
    assert set(everything) == set(WEIGHTS) == {"perceptual", "mse", "anchor", "boundary"}
    assert TemplateTerms({})(points, 64, None, image) == {}
    core = TemplateTerms({"boundary": 1}, boundary="core")(points, 64, None, image)
    torch.testing.assert_close(core["boundary"], boundary_loss(points, 64, "core"))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"weights": {"mce": 1}}, UnknownNameError, "unknown term of shape templates 'mce': did you mean 'mse'"),
        ({"weights": {"mse": -1}}, ArgumentError, "the weight of mse is -1, expected a number of at least 0"),
        ({"weights": {"mse": math.nan}}, ArgumentError, "the weight of mse is nan, expected"),
        ({"weights": {"mse": "1"}}, ArgumentError, "the weight of mse is '1', expected"),
        ({"weights": ["mse"]}, ArgumentError, "weights is .*, expected a weight by term: perceptual, mse"),
        (
            {"weights": {"mse": 1}, "boundary": "limbs"},
            ArgumentError,
            "boundary is 'limbs', expected one of 'all', 'core'",
        ),
        ({}, ArgumentError, "perceptual is None, expected what structloss.images.perceptual_loss gives"),
    ],
)
def test_bad_terms(arguments, kind, message):
    with pytest.raises(kind, match=message) as raised:
        TemplateTerms(**arguments)
    assert str(raised.value).endswith((".", "?")) and "\n" not in str(raised.value)


def test_bad_tensors():
    reconstruction, image = pair()
    with pytest.raises(ArgumentError, match="output has no reconstruction, expected one, which mse needs"):
        TemplateTerms({"mse": 1})(anchors(1, 2), 64, None, image)
    with pytest.raises(ArgumentError, match=r"reconstruction has shape .*, expected .*, the shape of frame"):
        TemplateTerms({"mse": 1})(anchors(1, 2), 64, reconstruction[:1], image)
    for loss in (anchor_loss, boundary_loss):
        with pytest.raises(ArgumentError, match=r"anchors has shape \[2, 15, 2\], expected \[B, 32, 2\], or \[steps"):
            loss(torch.zeros(2, 15, 2), 64)
        with pytest.raises(DtypeError, match=r"anchors has dtype torch\.int64"):
            loss(torch.zeros(2, 32, 2).long(), 64)


def test_a_model_gives_its_terms():
    torch.manual_seed(0)
    sizes = {"regressor_widths": (4, 4), "translator_widths": (4, 4), "hidden": 4, "input_size": 32}
    model = images.create("shape-template", motion="coarse-to-fine", **sizes).eval()
    frame, reference = torch.rand(2, 2, 3, 32, 32).unbind(0)
    output = model(frame, reference)
    terms = model.losses(output, frame, perceptual=perceptual_loss("laplacian"))
    assert set(terms) == set(WEIGHTS) and all(term.dim() == 0 for term in terms.values())
    torch.testing.assert_close(terms["mse"], F.mse_loss(output.reconstruction, model.normalized(frame)))
    steps = model.step_anchors(output.matrices)
    torch.testing.assert_close(terms["anchor"], anchor_loss(steps[0], 32) + anchor_loss(steps[1], 32))
    assert torch.equal(steps[1], output.anchors)
    with pytest.raises(ArgumentError, match="output has no reconstruction, expected one, which perceptual needs"):
        model.losses(model(frame), frame, {"perceptual": 1}, perceptual=perceptual_loss("none"))
    assert set(model.losses(model(frame), frame, {"anchor": 1, "boundary": 1})) == {"anchor", "boundary"}


# Perceptual


@pytest.mark.parametrize("kind", ["random", "laplacian", "ssim", "none"])
def test_kinds(kind):
    """Zero for equal images, a gradient for the reconstruction alone, no state that would end up in a checkpoint."""
    loss = perceptual_loss(kind).double()
    reconstruction, image = (x.requires_grad_() for x in pair())
    assert abs(float(loss(image, image).detach())) < 1e-12
    value = loss(reconstruction, image)
    (gradient,) = torch.autograd.grad(value, reconstruction)
    value = value.detach()
    assert value.dim() == 0 and torch.isfinite(gradient).all()
    if kind == "none":
        assert float(value) == 0 and float(gradient.abs().max()) == 0
    else:
        assert float(value) > 0.01 and float(gradient.abs().max()) > 0
    assert not any(p.requires_grad for p in loss.parameters())


def test_random_features_are_the_same_for_the_same_seed():
    weights = [perceptual_loss("random", seed=seed).features.features[0].weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    x = torch.randn(1, 3, 32, 32)
    (features,) = perceptual_loss("random").features(x)
    assert features.shape == (1, 256, 8, 8) and 0.1 < float(features.square().mean().sqrt()) < 10


def ssim_literally(x, y):
    """Equation 13 of Wang et al., window by window."""
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for a, b in zip(x.reshape(-1, *x.shape[-2:]), y.reshape(-1, *y.shape[-2:]), strict=True):
        for r in range(a.shape[0] - 10):
            for c in range(a.shape[1] - 10):
                p, q = a[r : r + 11, c : c + 11], b[r : r + 11, c : c + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                covariance = (window * (p - mp) * (q - mq)).sum()
                top = (2 * mp * mq + 0.01**2) * (2 * covariance + 0.03**2)
                values.append(top / ((mp**2 + mq**2 + 0.01**2) * (vp + vq + 0.03**2)))
    return np.mean(values)


def test_ssim_is_its_definition():
    generator = np.random.default_rng(0)
    x = generator.random((2, 3, 14, 13))
    y = np.clip(x + 0.2 * generator.normal(size=x.shape), 0, 1)
    normal = [
        (torch.from_numpy(image) - torch.tensor(MEAN)[:, None, None].double())
        / torch.tensor(DEVIATION).double()[:, None, None]
        for image in (x, y)
    ]
    got = float(perceptual_loss("ssim")(*normal))
    assert got == pytest.approx(1 - ssim_literally(x, y), abs=1e-6) and 0.05 < got < 0.95


def test_gradient_of_ssim():
    reconstruction, image = pair(size=12, batch=1)
    loss = perceptual_loss("ssim")
    assert torch.autograd.gradcheck(lambda r: loss(r, image), (reconstruction.requires_grad_(),), fast_mode=True)


def test_laplacian_pyramid():
    """Four maps that add up to the image again; a constant is in the last alone; the term weighs them by 2^-l."""
    pyramid = LaplacianPyramid().double()
    x, y = pair(size=37)
    maps = pyramid(x)
    assert [tuple(m.shape[-2:]) for m in maps] == [(37, 37), (18, 18), (9, 9), (4, 4)]
    again = maps[-1]
    for level in maps[-2::-1]:
        again = level + F.interpolate(again, size=level.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(again, x)
    constant = pyramid(torch.full((1, 3, 32, 32), 2.0, dtype=torch.float64))
    assert max(float(m.abs().max()) for m in constant[:-1]) < 1e-12
    torch.testing.assert_close(constant[-1], torch.full_like(constant[-1], 2.0))
    want = sum(0.5**level * (a - b).abs().mean() for level, (a, b) in enumerate(zip(maps, pyramid(y), strict=True)))
    torch.testing.assert_close(perceptual_loss("laplacian").double()(x, y), want)
    offset = perceptual_loss("laplacian").double()(x + 0.5, x)  # seen by the last map, an eighth of it
    assert float(offset) == pytest.approx(0.5 / 8)


def test_an_extractor_of_your_own():
    x, y = pair()
    one = FeatureLoss(lambda images: images.mean((2, 3)))
    torch.testing.assert_close(one(x, y), (x.mean((2, 3)) - y.mean((2, 3))).abs().mean())
    two = FeatureLoss(lambda images: [images, images[:, :1]], [0.5, 2])
    want = 0.5 * (x - y).abs().mean() + 2 * (x - y)[:, :1].abs().mean()
    torch.testing.assert_close(two(x, y), want)
    with pytest.raises(ArgumentError, match="features gave 2 maps, expected 1, as many as weights"):
        FeatureLoss(lambda images: [images, images], [1])(x, y)
    with pytest.raises(ArgumentError, match="features is 'vgg', expected a callable"):
        FeatureLoss("vgg")
    with pytest.raises(ArgumentError, match="weights has -1, expected numbers of at least 0"):
        FeatureLoss(lambda images: images, [-1])


# VGG-19 from a file


def vgg_state(seed=0, **changes):
    """As torchvision's, cut down: the layers that are read, a further one and the classifier's last."""
    generator = torch.Generator().manual_seed(seed)
    state = {key: torch.randn(value.shape, generator=generator) for key, value in VGGPrefix().state_dict().items()}
    state |= {"features.14.weight": torch.zeros(256, 256, 3, 3), "classifier.6.bias": torch.zeros(1000)}
    return {key: value for key, value in (state | changes).items() if value is not None}


def test_vgg_keys():
    shapes = {key: tuple(value.shape) for key, value in VGGPrefix().state_dict().items()}
    assert set(shapes) == {f"features.{i}.{kind}" for i in CONVOLUTIONS for kind in ("weight", "bias")}
    assert sum(p.numel() for p in VGGPrefix().parameters()) == 1_145_408


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_vgg19_from_a_file(tmp_path, suffix, monkeypatch):
    state, path = vgg_state(), tmp_path / f"vgg19.{suffix}"
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    loss = perceptual_loss("vgg19", vgg19=path)
    x = torch.randn(2, 3, 16, 16)
    want = x
    for i in range(14):  # VGG's own order: convolutions, ReLUs, two poolings
        if i in CONVOLUTIONS:
            want = F.conv2d(want, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1)
        else:
            want = F.max_pool2d(want, 2) if i in (4, 9) else want.relu()
    torch.testing.assert_close(loss.features(x)[0], want)
    assert want.shape == (2, 256, 4, 4)
    monkeypatch.setenv("STRUCTLOSS_VGG19", str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for found in (perceptual_loss(), perceptual_loss("vgg19"), perceptual_loss(vgg19=path)):
            assert torch.equal(found.features.features[12].weight, state["features.12.weight"])


def test_without_a_file_there_is_another_term_and_a_warning(monkeypatch):
    monkeypatch.delenv("STRUCTLOSS_VGG19", raising=False)
    with pytest.warns(UserWarning, match="the perceptual term is 'laplacian' instead of 'vgg19'") as caught:
        loss = perceptual_loss()
    assert len(caught) == 1 and isinstance(loss.features, LaplacianPyramid)
    with pytest.raises(ArgumentError, match=r"vgg19 is None and STRUCTLOSS_VGG19 is not set, expected a file"):
        perceptual_loss("vgg19")


class Whole(torch.nn.Module):
    def __setstate__(self, state):
        raise AssertionError("code of a file was run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (vgg_state(**{"features.10.bias": None}), r"vgg\.pth has no features\.10\.bias, expected weights of VGG-19"),
        (
            vgg_state(**{"features.2.weight": torch.zeros(64, 64, 1, 1)}),
            r"has features\.2\.weight of shape \[64, 64, 1, 1\], expected \[64, 64, 3, 3\], that of VGG-19",
        ),
        (
            vgg_state(**{"features.0.bias": torch.zeros(64).long()}),
            r"has features\.0\.bias of dtype torch\.int64, expected torch\.float32",
        ),
        (
            {"conv1.weight": torch.zeros(64, 3, 7, 7)},
            r"vgg\.pth has no features\.0\.weight, expected weights of VGG-19 by the names of torchvision or timm: "
            r"features\.\{0,2,5,7,10,12\}\.weight and \.bias",
        ),
        (
            vgg_state(**{"features.5.bias": torch.full((128,), math.nan)}),
            r"vgg\.pth has NaN or infinite values in features\.5\.bias, expected finite weights",
        ),
        (Whole(), "it was not loaded, since running code from a checkpoint is unsafe"),
        (None, r"vgg\.pth does not exist"),
    ],
)
def test_bad_vgg_files(tmp_path, content, message):
    path = tmp_path / "vgg.pth"
    if content is not None:
        torch.save(content, path)
    with pytest.raises((CheckpointError, MissingFileError), match=message) as raised:
        perceptual_loss("vgg19", vgg19=path)
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: perceptual_loss("vgg16"), "kind is 'vgg16', expected one of 'vgg19', 'random', 'laplacian', 'ssim'"),
        (lambda: perceptual_loss("ssim", vgg19="x.pth"), "vgg19 is 'x.pth', expected it with the kind 'vgg19' only"),
        (lambda: perceptual_loss("ssim")(*pair(size=10)), "images are 10 x 10, expected at least 11 x 11 pixels"),
        (lambda: perceptual_loss("laplacian")(*pair(size=15)), "images are 15 x 15, expected at least 16 x 16 pixels"),
        (
            lambda: perceptual_loss("none")(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)),
            r"image has shape \[2, 1, 8, 8\], expected \[B, 3, H, W\]",
        ),
        (
            lambda: perceptual_loss("none")(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 9, 9)),
            r"reconstruction has shape \[2, 3, 8, 8\], expected \[2, 3, 9, 9\], the shape of image",
        ),
    ],
)
def test_bad_perceptual_input(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
