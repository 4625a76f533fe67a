"""Micro-benchmarks by pytest-benchmark: the ranking hinge by row length, every single term, the whole objective.

pytest bench/test_micro.py --benchmark-only
pytest bench/test_micro.py --benchmark-only -k "cpp and not hinge" --benchmark-sort=mean --benchmark-json=micro.json

Forward + backward, float32, torch's own number of threads. Each is compared with the PyTorch form in float64 before it
is timed. To compare with other ways to compute the same, which take turns, use bench.run.
"""

import pytest
import torch

import structloss

from . import definition, providers
from .inputs import Shape, make_input

SHAPE = Shape(8, 243, 17)
ROWS, LENGTHS = 1 << 16, (17, 81, 243, 1024, 4096, 16384)
BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(bool(problem), reason=problem))
    for name in ("torch", "cpp")
    for problem in [providers.PROVIDERS[name].problem("cpu")]
]


def checked(loss, pred, target, backend, left_out=0):
    """The call to be timed, `loss(pred, target, backend)` and its gradient, compared with float64 before."""
    wide = pred.double().requires_grad_()
    expected = loss(wide, target.double(), "torch")
    (expected_gradient,) = torch.autograd.grad(expected, wide)
    leaf = pred.clone().requires_grad_()

    def call():
        value = loss(leaf, target, backend)
        return value, torch.autograd.grad(value, leaf)[0]

    value, gradient = call()
    definition.compare("value", backend, value, expected.detach())
    definition.compare("gradient", backend, gradient, expected_gradient, left_out)
    return call


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", LENGTHS)
def test_ranking_hinge(benchmark, backend, length):
    """Rows with 65,536 elements altogether."""
    pred, target = (x[:, :, 0, 2].contiguous() for x in make_input(Shape(ROWS // length, length, 1), torch.float32))

    def loss(pred, target, backend):
        return structloss.ranking_hinge(pred, target, backend=backend)

    benchmark.group = f"ranking_hinge, rows of {length}"
    benchmark.extra_info["elements"] = pred.numel()
    benchmark(checked(loss, pred, target, backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "terms",
    [*((name,) for name in structloss.TERMS), providers.OBJECTIVE],
    ids=lambda terms: terms[0] if len(terms) == 1 else "seven_terms",
)
def test_objective(benchmark, backend, terms):
    pred, target = make_input(SHAPE, torch.float32)
    weights = dict.fromkeys(terms, 1.0)

    def loss(pred, target, backend):
        return structloss.objective(pred, target, weights, backend=backend).total

    benchmark.group = "objective of seven terms" if len(terms) > 1 else terms[0]
    benchmark.extra_info["shape"] = str(SHAPE)
    left_out = SHAPE.elements // definition.KINK_SHARE if set(terms) & set(definition.KINKED) else 0
    benchmark(checked(loss, pred, target, backend, left_out))
