"""The operators as citizens of torch: compile, opcheck, autocast, no_grad, double backward, modules."""

import copy
import pickle

import pytest
import torch
from compare import value_and_grad

import structloss
from structloss.errors import ArgumentError

BACKENDS = [name for name in ("torch", "cpp") if structloss.backends()[name]]
ALL = {"mpjpe": 1.0, "depth_ranking_joints": 0.7, "depth_ranking_frames": 2.5}


def poses(*shape):
    pred = torch.randn(*shape, 3)
    return pred, pred + torch.randn(*shape, 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("need_grad", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_opcheck(dtype, weighted, need_grad, backend):
    pred, target = (x.to(dtype) for x in poses(2, 9, 5))
    weight = torch.rand(2, 9, 5).to(dtype) if weighted else None
    lam = torch.rand(2).to(torch.float64 if dtype == torch.float64 else torch.float32) if weighted else None
    args = (pred, target, weight, lam, [1.0, 2.0], "mpjpe,depth_ranking_frames", "mean", need_grad, backend)
    torch.library.opcheck(torch.ops.structloss.objective.default, args)
    rows = [None if x is None else x.reshape(-1, 5) for x in (pred[..., 2], target[..., 2], weight)]
    torch.library.opcheck(torch.ops.structloss.ranking_hinge.default, (*rows, "sum", need_grad, backend))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_compile_fullgraph_without_recompiling_over_batch_sizes(backend):
    torch._dynamo.reset()

    def step(pred, target, weight, lam):
        weights = {**ALL, "depth_ranking_joints": lam}
        rows = structloss.ranking_hinge(pred[..., 0], target[..., 0], backend=backend)
        return structloss.objective(pred, target, weights, weight=weight, backend=backend).total * 2 + rows

    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for batch in (2, 3, 5, 8):
        pred, target = poses(batch, 27, 17)
        weight = torch.rand(batch, 27, 17)
        results = []
        for function in (step, compiled):
            leaf, lam = pred.clone().requires_grad_(), torch.tensor(0.7, requires_grad=True)
            value = function(leaf, target, weight, lam)
            value.backward()
            results.append((value.detach(), leaf.grad, lam.grad))
        for eager, graph in zip(*results, strict=True):
            torch.testing.assert_close(graph, eager, rtol=1e-6, atol=1e-9)
        if batch == 3:  # one graph for the first size and its generalisation; from here on none may be added
            torch.compiler.set_stance("fail_on_recompile")
    torch.compiler.set_stance("default")


@pytest.mark.slow
def test_compiled_model_trains_like_the_eager_one():
    torch._dynamo.reset()
    target = torch.randn(4, 27, 17, 3)
    curves = []
    model = torch.nn.Linear(2, 3)
    for compiled in (False, True):
        net = copy.deepcopy(model)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

        def loss(net=net):
            return structloss.objective(net(target[..., :2]), target, ALL).total

        function = torch.compile(loss, fullgraph=True) if compiled else loss
        curve = []
        for _ in range(5):
            optimizer.zero_grad()
            value = function()
            value.backward()
            optimizer.step()
            curve.append(value.item())
        curves.append(curve)
    assert curves[0][0] > curves[0][-1]
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_leaves_the_dtypes_to_us(backend):
    pred, target = poses(2, 27, 17)
    expected, gradient = value_and_grad(structloss.objective, pred, target, ALL, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, found_gradient = value_and_grad(structloss.objective, pred, target, ALL, backend=backend)
        # what a bf16 network hands over arrives as bf16, and its target need not be
        half, _ = value_and_grad(structloss.objective, pred.bfloat16(), target, ALL, backend=backend)
    assert found == expected and torch.equal(found_gradient, gradient)
    assert half == structloss.objective(pred.bfloat16().float(), target, ALL, backend=backend).total


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gradient_is_computed_when_none_is_needed(backend, monkeypatch):
    from structloss.ops import library

    asked = []
    launch = library.launch_objective
    monkeypatch.setattr(library, "launch_objective", lambda *a: asked.append(a[7]) or launch(*a))
    pred, target = poses(2, 9, 17)
    assert not structloss.objective(pred, target, ALL, backend=backend).total.requires_grad
    pred.requires_grad_()
    with torch.no_grad():
        assert not structloss.mpjpe(pred, target, backend=backend).requires_grad
    with torch.inference_mode():
        structloss.mpjpe(pred, target, backend=backend)
    assert structloss.mpjpe(pred, target, backend=backend).requires_grad
    assert asked == [False, False, False, True]


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_backward_is_refused_in_words(backend):
    pred, target = poses(2, 9, 17)
    pred.requires_grad_()
    total = structloss.objective(pred, target, ALL, backend=backend).total
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(total, pred, create_graph=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_twice_and_scaled(backend):
    """A kept graph gives the same gradient again, and none of the calls spoils the saved one."""
    pred, target = poses(2, 9, 17)
    leaf = (pred.clone() * 1.0).requires_grad_()
    total = structloss.objective(leaf, target, ALL, backend=backend).total
    total.backward(retain_graph=True)
    first = leaf.grad.clone()
    leaf.grad.mul_(0)
    (total * 3).backward(retain_graph=True)
    torch.testing.assert_close(leaf.grad, 3 * first)
    leaf.grad = None
    total.backward()
    assert torch.equal(leaf.grad, first)


def test_input_is_never_written():
    pred, target = poses(2, 400, 17)
    weight = torch.rand(2, 400, 17)
    kept = [x.clone() for x in (pred, target, weight)]
    for backend in BACKENDS:
        value_and_grad(structloss.objective, pred, target, ALL, weight=weight, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(kept, (pred, target, weight), strict=True))


def test_modules():
    pred, target = poses(2, 9, 17)
    lam = torch.nn.Parameter(torch.tensor(0.5))
    module = structloss.nn.Objective({"mpjpe": 1.0, "depth_ranking_frames": lam})
    assert [name for name, _ in module.named_parameters()] == ["lambda_depth_ranking_frames"]
    pred.requires_grad_()
    result = module(pred, target)
    result.total.backward()
    assert lam.grad == result.terms["depth_ranking_frames"]
    assert structloss.nn.MPJPE()(pred, target) == structloss.mpjpe(pred, target)
    for over in ("joints", "frames"):
        expected = structloss.depth_ranking(pred, target, over=over, reduction="sum")
        assert structloss.nn.DepthRanking(over, reduction="sum")(pred, target) == expected
    rows = structloss.nn.RankingHinge()(pred[..., 0], target[..., 0])
    assert rows == structloss.ranking_hinge(pred[..., 0], target[..., 0])
    again = pickle.loads(pickle.dumps(module))
    assert again(pred, target).total == result.total
    again.load_state_dict({"lambda_depth_ranking_frames": torch.tensor(7.0)})
    assert (
        again(pred, target).total
        == structloss.objective(pred, target, {**module.weights, "depth_ranking_frames": 7.0}).total
    )
    with pytest.raises(ArgumentError, match="reduction is 'median'"):
        structloss.nn.MPJPE(reduction="median")
