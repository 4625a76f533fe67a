"""Ranking terms with a resolution: pairs that are too close in the target to call count less."""

import importlib.util
import math

import pytest
import torch
from backends import BACKENDS, FAST
from compare import assert_close_gradients, assert_close_values, value_and_grad
from reference import pairwise

import structloss
from structloss.errors import ArgumentError

RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-5}
# Dimensions of the depths [..., T, J] along which there is one offset.
ALONG = {"joints": -1, "frames": -2}
WEIGHTS = {"mpjpe": 1.0, "depth_ranking_joints": 0.7, "depth_ranking_frames": 2.5}


def poses(*shape):
    """Prediction and target that are exact in float32, and in the target ties and pairs of every distance."""
    pred = torch.randn(*shape, 3, dtype=torch.float64)
    target = pred + 0.5 * torch.randn(*shape, 3, dtype=torch.float64)
    target[..., ::4, :] = (target[..., ::4, :] * 4).round() / 4
    return pred.float().double(), target.float().double()


def weight_of(kind, *shape):
    if kind == "none":
        return None
    weight = torch.rand(shape).double() * (torch.rand(shape) > 0.2)
    weight = (weight > 0).double() if kind == "mask" else weight.float().double()
    weight.view(-1)[0] = 1.0
    return weight


def literal(target, resolution, dim, generator=None):
    """The target that the definition asks for; with a generator, the offsets that it draws next."""
    shape = [1 if k == dim % target.dim() else n for k, n in enumerate(target.shape)]
    offset = 0.5 if generator is None else torch.rand(shape, dtype=torch.float64, generator=generator)
    return torch.floor((target + resolution * offset) / resolution)


def literal_poses(target, resolution, over, generator=None):
    found = target.clone()
    found[..., 2] = literal(target[..., 2], resolution, ALONG[over], generator)
    return found


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


def ramp(pred, target, resolution):
    """The hinge of one row [N] with pair weights min(1, |target_i - target_j| / resolution), pair by pair."""
    difference = pred.unsqueeze(-1) - pred.unsqueeze(-2)
    distance = target.unsqueeze(-2) - target.unsqueeze(-1)
    return (torch.relu(difference) * (distance > 0) * (distance / resolution).clamp(max=1)).sum()


@pytest.mark.parametrize("resolution", [0.05, 0.4, 3.0])
def test_the_expected_loss_and_gradient_are_those_of_the_ramp(resolution):
    """Within five standard errors of 20,000 draws, every component of the gradient."""
    n, draws = 12, 20_000
    pred = torch.randn(n, dtype=torch.float64)
    target = pred + torch.randn(n, dtype=torch.float64)
    value, gradient = value_and_grad(ramp, pred, target, resolution)
    rows = pred.expand(draws, n).clone().requires_grad_()
    keywords = {"reduction": "sum", "resolution": resolution, "generator": seeded(), "backend": "torch"}
    total = structloss.ranking_hinge(rows, target.expand(draws, n), **keywords)
    (found,) = torch.autograd.grad(total, rows)
    # The loss is the product of prediction and gradient, so that each row's own is known from its gradient.
    losses = (rows.detach() * found).sum(-1)
    assert_close_values(total, losses.sum(), relative=1e-10)
    for sample, expected in ((losses[:, None], value[None]), (found, gradient)):
        error = sample.std(0) / math.sqrt(draws)
        assert (error > 0).any(), "the draws differ"
        assert ((sample.mean(0) - expected).abs() <= 5 * error + 1e-12).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weights", ["none", "mask", "real"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("n", [1, 2, 17, 243, 400])
def test_ranking_hinge_is_that_of_the_coarse_target(n, training, weights, backend):
    pred, target = (x[..., 0] for x in poses(3, n))
    weight = weight_of(weights, 3, n)
    coarse = literal(target, 0.3, 1, seeded() if training else None)
    for reduction in ("mean", "sum"):
        value, gradient = value_and_grad(pairwise.ranking_hinge, pred, coarse, weight, reduction)
        for dtype, relative in RELATIVE.items():
            found, found_gradient = value_and_grad(
                structloss.ranking_hinge,
                pred.to(dtype),
                target.to(dtype),
                weight=None if weight is None else weight.to(dtype),
                reduction=reduction,
                resolution=0.3,
                training=training,
                generator=seeded(),
                backend=backend,
            )
            assert found.dtype == found_gradient.dtype == dtype
            assert_close_values(found, value, relative=relative, absolute=1e-15)
            assert_close_gradients(found_gradient, gradient, relative=relative)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weights", ["none", "mask", "real"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (31, 17), (2, 33, 17), (2, 2, 9, 5)])
@pytest.mark.parametrize("over", ["joints", "frames"])
def test_depth_ranking_is_that_of_the_coarse_target(over, shape, training, weights, backend):
    pred, target = poses(*shape)
    weight = weight_of(weights, *shape)
    coarse = literal_poses(target, 0.2, over, seeded() if training else None)
    value, gradient = value_and_grad(pairwise.depth_ranking, pred, coarse, over, weight)
    for dtype, relative in RELATIVE.items():
        given = None if weight is None else weight.to(dtype)
        keywords = {"weight": given, "training": training, "backend": backend}
        found, found_gradient = value_and_grad(
            structloss.depth_ranking,
            pred.to(dtype),
            target.to(dtype),
            over=over,
            resolution=0.2,
            generator=seeded(),
            **keywords,
        )
        assert_close_values(found, value, relative=relative, absolute=1e-15)
        assert_close_gradients(found_gradient, gradient, relative=relative)
        term = f"depth_ranking_{over}"
        options = {term: {"resolution": 0.2}}
        of_objective, its_gradient = value_and_grad(
            structloss.objective,
            pred.to(dtype),
            target.to(dtype),
            {term: 1.0},
            options=options,
            generator=seeded(),
            **keywords,
        )
        assert of_objective == found and torch.equal(its_gradient, found_gradient)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("coarse", [("joints",), ("frames",), ("frames", "joints")], ids="+".join)
def test_an_objective_in_part_with_a_resolution(coarse, backend):
    """Values stay in the order of the terms, and lambdas, learned ones too, with theirs."""
    pred, target = poses(2, 27, 17)
    weight = weight_of("real", 2, 27, 17)
    resolutions = {over: 0.1 + 0.2 * (over == "frames") for over in coarse}
    options = {f"depth_ranking_{over}": {"resolution": resolution} for over, resolution in resolutions.items()}
    expected = {"mpjpe": pairwise.mpjpe(pred, target, weight)}
    draws, leaf = seeded(), pred.clone().requires_grad_()
    for over in ALONG:
        aim = literal_poses(target, resolutions[over], over, draws) if over in coarse else target
        expected[f"depth_ranking_{over}"] = pairwise.depth_ranking(leaf, aim, over, weight)
    expected["mpjpe"] = pairwise.mpjpe(leaf, target, weight)
    total = sum(WEIGHTS[name] * value for name, value in expected.items())
    (gradient,) = torch.autograd.grad(total, leaf)
    learned = torch.tensor(WEIGHTS["depth_ranking_frames"], dtype=torch.float64, requires_grad=True)
    for weights in (WEIGHTS, {**WEIGHTS, "depth_ranking_frames": learned}):
        leaf = pred.clone().requires_grad_()
        found = structloss.objective(
            leaf, target, weights, weight=weight, options=options, generator=seeded(), backend=backend
        )
        found.total.backward()
        assert list(found.terms) == list(WEIGHTS)
        assert_close_values(found.total, total, relative=1e-12)
        assert_close_gradients(leaf.grad, gradient, relative=1e-12)
        for name, value in expected.items():
            assert_close_values(found.terms[name], value, relative=1e-12, what=name)
            assert not found.terms[name].requires_grad
    assert_close_values(learned.grad, expected["depth_ranking_frames"], relative=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_off_is_the_published_loss_bit_by_bit(backend):
    """And draws nothing, so that a run without a resolution goes on as it did."""
    pred, target = (x.float() for x in poses(2, 27, 17))
    for name in ("depth_ranking_joints", "depth_ranking_frames"):
        assert structloss.TERMS[name].options["resolution"].default == 0.0
    off = {name: {"resolution": 0} for name in WEIGHTS if name != "mpjpe"}
    before = torch.get_rng_state()
    plain = value_and_grad(structloss.objective, pred, target, WEIGHTS, backend=backend)
    given = value_and_grad(structloss.objective, pred, target, WEIGHTS, options=off, backend=backend)
    for over in ALONG:
        plain += value_and_grad(structloss.depth_ranking, pred, target, over=over, backend=backend)
        given += value_and_grad(structloss.depth_ranking, pred, target, over=over, resolution=0, backend=backend)
    rows = pred[..., 2], target[..., 2]
    plain += value_and_grad(structloss.ranking_hinge, *rows, backend=backend)
    given += value_and_grad(structloss.ranking_hinge, *rows, resolution=0.0, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(plain, given, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("over", ["joints", "frames"])
def test_seeds_repeat_the_draws(over):
    pred, target = poses(2, 9, 17)

    def loss(**keywords):
        return structloss.depth_ranking(pred, target, over=over, resolution=1.0, **keywords)

    generator = seeded()
    first, second = loss(generator=generator), loss(generator=generator)
    assert first != second, "each call draws anew"
    assert loss(generator=seeded()) == first
    torch.manual_seed(3)
    state = torch.get_rng_state()
    third, fourth = loss(), loss()
    torch.set_rng_state(state)
    assert loss() == third and loss() == fourth and third != fourth
    assert loss(training=False) == loss(training=False), "nothing is drawn in evaluation"


@pytest.mark.parametrize("backend", FAST)
def test_modules_draw_in_training_and_not_in_evaluation(backend):
    pred, target = poses(2, 9, 17)
    nn, resolution = structloss.nn, {"resolution": 0.5}
    options = {name: resolution for name in WEIGHTS if name != "mpjpe"}
    fused = {"weights": WEIGHTS, "options": options}
    cases = [
        (nn.DepthRanking("frames", **resolution, backend=backend), structloss.depth_ranking, {"over": "frames"}),
        (nn.RankingHinge(**resolution, backend=backend), structloss.ranking_hinge, {}),
        (nn.Objective(**fused, backend=backend), lambda *x, **k: structloss.objective(*x, **k, **fused).total, None),
        (
            nn.LearnedWeights(**fused, backend=backend),
            lambda *x, **k: structloss.objective(*x, **k, **fused).total,
            None,
        ),
    ]
    for module, function, own in cases:
        keywords = {} if own is None else {**own, **resolution}
        given = (pred[..., 2], target[..., 2]) if isinstance(module, nn.RankingHinge) else (pred, target)
        for training in (True, False):
            module.train(training)
            torch.manual_seed(7)
            found = module(*given)
            torch.manual_seed(7)
            expected = function(*given, training=training, backend=backend, **keywords)
            found = found.total if own is None else found
            assert_close_values(found.detach(), expected, relative=1e-6 if own is None else 0)
        assert own is None or "resolution=0.5" in repr(module)


def test_the_training_objective_draws_in_training_alone():
    pytest.importorskip("lightning")
    from structloss.backbones import Supervision
    from structloss.harness.objective import TrainingLoss

    pred, target = poses(2, 9, 17)
    loss = TrainingLoss(WEIGHTS, options={"depth_ranking_frames": {"resolution": 0.5}})
    shown = [Supervision(pred, target, None)]
    totals = [float(loss.train(mode)(shown)[0]) for mode in (True, True, False, False)]
    assert len({*totals}) == 3 and totals[2] == totals[3]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_masked_takes_no_part(backend):
    pred, target = poses(2, 12, 17)
    weight = torch.ones(2, 12, 17, dtype=torch.float64)
    weight[:, 9:] = 0
    dirty = target.clone()
    dirty[:, 9:] = math.nan
    keywords = {"over": "joints", "resolution": 0.3, "training": False, "backend": backend}
    clean, gradient = value_and_grad(structloss.depth_ranking, pred[:, :9], target[:, :9], **keywords)
    found, found_gradient = value_and_grad(structloss.depth_ranking, pred, dirty, weight=weight, **keywords)
    assert_close_values(found, clean, relative=1e-14)
    assert_close_gradients(found_gradient[:, :9], gradient, relative=1e-14)
    assert (found_gradient[:, 9:] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_gives_nan_and_infinite_depths_are_the_ends(backend):
    pred, target = (x[..., 0] for x in poses(3, 40))
    target[0, 0], target[0, 1] = math.inf, -math.inf
    coarse = literal(target, 0.3, 1)
    assert coarse[0, 0] == math.inf and coarse[0, 1] == -math.inf
    keywords = {"resolution": 0.3, "training": False, "backend": backend}
    assert_close_values(
        structloss.ranking_hinge(pred, target, **keywords), pairwise.ranking_hinge(pred, coarse), relative=1e-12
    )
    target[1, 5] = math.nan
    value, gradient = value_and_grad(structloss.ranking_hinge, pred, target, **keywords)
    assert value.isnan() and gradient[1].isnan().all() and gradient[[0, 2]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_far_root_costs_only_the_digits_of_the_depths(dtype):
    """Depths around 5 m, a tenth of a millimetre apart at the finest."""
    target = (5 + 0.02 * torch.randn(2, 60, 17, 3, dtype=torch.float64)).to(dtype)
    pred = (target.double() + 0.01 * torch.randn(2, 60, 17, 3, dtype=torch.float64)).to(dtype)
    coarse = literal_poses(target.double(), 1e-4, "frames", seeded())
    expected, gradient = value_and_grad(pairwise.depth_ranking, pred.double(), coarse, "frames")
    found, found_gradient = value_and_grad(
        structloss.depth_ranking, pred, target, over="frames", resolution=1e-4, generator=seeded()
    )
    assert_close_values(found, expected, relative=1e-5)
    assert_close_gradients(found_gradient, gradient, relative=1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("shape", [(0, 9, 17), (2, 0, 17), (2, 9, 0)])
def test_empty_is_zero(shape):
    pred = torch.zeros(*shape, 3)
    for over in ALONG:
        assert structloss.depth_ranking(pred, pred, over=over, resolution=0.1) == 0
    assert structloss.ranking_hinge(pred[..., 0], pred[..., 0], resolution=0.1) == 0


@pytest.mark.parametrize("wrong", [-1, True, None, "fine", math.nan, math.inf, 1e-40])
def test_what_a_resolution_cannot_be(wrong):
    pose = torch.zeros(1, 2, 17, 3)
    options = {"depth_ranking_frames": {"resolution": wrong}}
    said = r"is .*, expected 0 or a number from 1e-30 to 1e30\.$"
    for call in (
        lambda: structloss.depth_ranking(pose, pose, over="frames", resolution=wrong),
        lambda: structloss.ranking_hinge(pose, pose, resolution=wrong),
        lambda: structloss.nn.DepthRanking("frames", resolution=wrong),
        lambda: structloss.nn.RankingHinge(resolution=wrong),
    ):
        with pytest.raises(ArgumentError, match="^resolution " + said):
            call()
    for call in (
        lambda: structloss.objective(pose, pose, {"depth_ranking_frames": 1.0}, options=options),
        lambda: structloss.nn.Objective({"depth_ranking_frames": 1.0}, options=options),
    ):
        with pytest.raises(ArgumentError, match=r"^options\['depth_ranking_frames'\]\['resolution'\] " + said):
            call()


@pytest.mark.slow
@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dynamic", [None, True])
def test_it_compiles_into_one_graph(dynamic, backend):
    """In evaluation as in eager mode; in training with draws of the compiler's own, each call's anew."""
    torch._dynamo.reset()
    options = {name: {"resolution": 0.5} for name in WEIGHTS if name != "mpjpe"}
    objective = structloss.nn.Objective(WEIGHTS, options=options, backend=backend)

    def step(pred, target, resolution):
        training = objective.training
        single = structloss.depth_ranking(
            pred, target, over="joints", resolution=resolution, training=training, backend=backend
        )
        rows = structloss.ranking_hinge(
            pred[..., 0], target[..., 0], resolution=resolution, training=training, backend=backend
        )
        return objective(pred, target).total + single + rows

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic)
    objective.eval()
    for batch in (2, 3):
        pred, target = (x.float() for x in poses(batch, 9, 17))
        eager, graph = (value_and_grad(function, pred, target, 0.25) for function in (step, compiled))
        for a, b in zip(eager, graph, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-9)
    objective.train()
    torch.manual_seed(1)
    first, second = compiled(pred, target, 0.25), compiled(pred, target, 0.25)
    torch.manual_seed(1)
    assert compiled(pred, target, 0.25) == first != second
    assert first.isfinite()


@pytest.mark.parametrize("training", [True, False])
def test_it_can_be_exported(training):
    options = {"depth_ranking_frames": {"resolution": 0.5}}
    module = structloss.nn.Objective(WEIGHTS, options=options).train(training)

    class Total(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.objective = module

        def forward(self, pred, target):
            return self.objective(pred, target).total

    pred, target = (x.float() for x in poses(2, 9, 17))
    exported = torch.export.export(Total().train(training), (pred, target)).module()
    torch.manual_seed(2)
    expected = module(pred, target).total
    torch.manual_seed(2)
    assert_close_values(exported(pred, target), expected, relative=1e-6)


@pytest.mark.interpreted
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("weights", ["none", "real"])
def test_triton_reads_the_coarse_target(weights):
    pred, target = (x.float() for x in poses(2, 9, 17))
    weight = weight_of(weights, 2, 9, 17)
    options = {"depth_ranking_joints": {"resolution": 0.1}, "depth_ranking_frames": {"resolution": 0.3}}
    keywords = {"weight": weight, "options": options}
    value, gradient = value_and_grad(
        structloss.objective, pred, target, WEIGHTS, backend="torch", generator=seeded(), **keywords
    )
    found, found_gradient = value_and_grad(
        structloss.objective, pred, target, WEIGHTS, backend="triton", generator=seeded(), **keywords
    )
    assert_close_values(found, value, relative=1e-5)
    assert_close_gradients(found_gradient, gradient, relative=1e-5)
    rows = pred[..., 2], target[..., 2]
    value, gradient = value_and_grad(
        structloss.ranking_hinge, *rows, resolution=0.2, generator=seeded(), backend="torch"
    )
    found, found_gradient = value_and_grad(
        structloss.ranking_hinge, *rows, resolution=0.2, generator=seeded(), backend="triton"
    )
    assert_close_values(found, value, relative=1e-5)
    assert_close_gradients(found_gradient, gradient, relative=1e-5)
