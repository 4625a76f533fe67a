"""The hinge of long rows on the CPU, which are dealt into buckets and sorted, on what buckets do not like."""

import math

import pytest
import torch
from backends import CPP
from compare import assert_close_gradients, assert_close_values, hinge_and_grad, value_and_grad
from reference import pairwise

import structloss

RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-5}
TINY = 1e-42  # a subnormal float


def noise(n):
    return torch.randn(n, dtype=torch.float64)


def walk(n):
    return 0.01 * noise(n).cumsum(0)


def uniform(n):
    return torch.rand(n, dtype=torch.float64)


def with_outliers(n):
    x = uniform(n)
    x[0], x[n // 2], x[-1] = 1e30, -3e12, 5.0
    return x


def two_scales(n):  # linear buckets and those by the bits both come out crowded
    return torch.where(uniform(n) < 0.5, 1 + 1e-6 * uniform(n), -1e20 * uniform(n))


def organ_pipe(n):
    return torch.minimum(torch.arange(n), n - torch.arange(n)).double()


KINDS = {
    "uniform": uniform,
    "normal": noise,
    "walk": walk,
    "wave": lambda n: torch.sin(0.0317 * torch.arange(n, dtype=torch.float64)),
    "sorted": lambda n: torch.arange(n, dtype=torch.float64),
    "reversed": lambda n: -torch.arange(n, dtype=torch.float64),
    "organ pipe": organ_pipe,
    "constant": lambda n: torch.full((n,), 0.25, dtype=torch.float64),
    "two values": lambda n: (uniform(n) < 0.3).double(),
    "40 values": lambda n: (40 * uniform(n)).floor() / 40,
    "half zero": lambda n: torch.where(uniform(n) < 0.5, 0.0, noise(n)),
    "signed zeros": lambda n: torch.where(uniform(n) < 0.9, torch.where(uniform(n) < 0.5, 0.0, -0.0), noise(n)),
    "outliers": with_outliers,
    "two scales": two_scales,
    "lognormal": lambda n: (6 * noise(n)).exp(),
    "subnormal": lambda n: TINY * (50 * noise(n)).round(),
    "far away": lambda n: 4096 + 1e-3 * noise(n),
}


def row(kind, n):
    """Values of float32, so that both dtypes see the same ties."""
    return KINDS[kind](n).float().double()


def weights(kind, n):
    if kind == "none":
        return None
    return uniform(n) * (uniform(n) > 0.2) if kind == "confidence" else (uniform(n) > 0.3).double()


def check(pred, target, weight):
    value, gradient = pairwise.ranking_hinge_by_blocks(pred, target, weight=weight)
    # What the dot product of the gradient and pred - pred[0] rounds away, in float64 for every dtype.
    rounding = 2.0**-51 * float(((pred - pred[0]).abs() * gradient.abs()).sum())
    for dtype, relative in RELATIVE.items():
        found, found_gradient = hinge_and_grad(dtype, pred, target, weight, reduction="sum", backend="cpp")
        assert_close_values(found, value, relative=relative, absolute=rounding, what=str(dtype))
        if weight is None:  # the numbers of pairs, exactly
            assert torch.equal(found_gradient.double(), gradient), dtype
        else:
            assert_close_gradients(found_gradient, gradient, relative=relative, what=str(dtype))


@pytest.mark.parametrize("backend", [CPP])
@pytest.mark.parametrize("weight", ["none", "mask", "confidence"])
@pytest.mark.parametrize("kind", KINDS)
def test_pred_and_target_of_every_kind(kind, weight, backend):
    n = 1500
    w = weights(weight, n)
    if w is not None:
        w = w.float().double()
    for other in ("normal", "40 values", kind):
        check(row(kind, n), row(other, n), w)
        check(row(other, n), row(kind, n), w)


@pytest.mark.parametrize("backend", [CPP])
# On both sides of the lengths of a lane's block, a group of blocks, a window, and of their sums.
@pytest.mark.parametrize("n", [1025, 1040, 1041, 1151, 1153, 2032, 2047, 2048, 2049, 2064, 2065, 3000])
def test_lengths(n, backend):
    for kind in ("uniform", "40 values"):
        check(row(kind, n), row("walk", n), None)
        check(row("walk", n), row(kind, n), None)


@pytest.mark.parametrize("backend", [CPP])
@pytest.mark.parametrize("target", ["two values", "constant", "half zero", "two scales"])
def test_more_ties_than_a_small_buffer_takes(target, backend):
    n = 6000
    check(row("normal", n), row(target, n), None)
    check(row("40 values", n), row(target, n), None)


@pytest.mark.parametrize("backend", [CPP])
def test_values_that_only_float64_tells_apart(backend):
    n = 3000
    pred = 1 + 1e-12 * noise(n)
    target = torch.where(uniform(n) < 0.5, 1e-9 * (20 * noise(n)).round(), noise(n))
    target[7], target[8] = 1e9, -1e9
    for p, d in ((pred, target), (target, pred)):
        value, gradient = pairwise.ranking_hinge_by_blocks(p, d)
        found, found_gradient = value_and_grad(structloss.ranking_hinge, p, d, reduction="sum", backend="cpp")
        assert_close_values(found, value, relative=1e-12)
        assert torch.equal(found_gradient, gradient)


@pytest.mark.parametrize("backend", [CPP])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_infinite_targets_are_ordered_like_others(dtype, backend):
    n = 2500
    pred, target = row("normal", n), row("uniform", n)
    target[::7], target[::11] = math.inf, -math.inf
    _, gradient = pairwise.ranking_hinge_by_blocks(pred, target)
    depths = pred.to(dtype), target.to(dtype)
    _, found = value_and_grad(structloss.ranking_hinge, *depths, reduction="sum", backend="cpp")
    assert torch.equal(found.double(), gradient)


@pytest.mark.parametrize("backend", [CPP])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_nan_takes_its_row_only(dtype, backend):
    pred, target = (torch.stack([noise(2000) for _ in range(3)]).to(dtype) for _ in range(2))
    target[1, 1999] = math.nan
    value, gradient = value_and_grad(structloss.ranking_hinge, pred, target, backend="cpp")
    assert value.isnan() and gradient[1].isnan().all() and gradient[[0, 2]].isfinite().all()


@pytest.mark.parametrize("backend", [CPP])
@pytest.mark.parametrize("kind", ["normal", "40 values", "half zero"])
def test_a_very_long_row_equals_the_torch_backend(kind, backend):
    n = 70_000  # beyond 2^16 elements
    pred, target = row("walk", n), row(kind, n)
    for weight in (None, uniform(n)):
        value, gradient = value_and_grad(
            structloss.ranking_hinge, pred, target, weight=weight, reduction="sum", backend="torch"
        )
        found, found_gradient = value_and_grad(
            structloss.ranking_hinge, pred, target, weight=weight, reduction="sum", backend="cpp"
        )
        assert_close_values(found, value, relative=1e-11)
        assert_close_gradients(found_gradient, gradient, relative=1e-11)


@pytest.mark.parametrize("backend", [CPP])
@pytest.mark.parametrize("weighted", [False, True])
def test_bitwise_the_same_for_any_number_of_threads(weighted, backend):
    pred = torch.stack([row(kind, 1300) for kind in KINDS if kind not in ("two scales", "outliers")]).float()
    target = pred.flip(0)
    weight = torch.rand(pred.shape) if weighted else None
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 1):
            torch.set_num_threads(count)
            results.append(value_and_grad(structloss.ranking_hinge, pred, target, weight=weight, backend="cpp"))
    finally:
        torch.set_num_threads(threads)
    for value, gradient in results[1:]:
        assert value == results[0][0] and torch.equal(gradient, results[0][1])
