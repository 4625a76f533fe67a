"""The operators as citizens of torch: compile, opcheck, autocast, no_grad, double backward, modules."""

import contextlib
import copy
import functools
import json
import pickle

import pytest
import torch
from compare import value_and_grad

import structloss
from structloss.errors import ArgumentError

BACKENDS = [name for name in ("torch", "cpp") if structloss.backends()[name]]
ALL = {"mpjpe": 1.0, "depth_ranking_joints": 0.7, "depth_ranking_frames": 2.5}
EVERY_TERM = dict(zip(structloss.TERMS, torch.linspace(0.1, 1, len(structloss.TERMS)).tolist(), strict=True))
OPTIONS = {
    "weighted_mpjpe": {"joint_weight": [0.5, 2.0, *([1.0] * 15)]},
    "bone_symmetry": {"pairs": "six", "squared": True},
    "illegal_angle": {"normalize_bones": True, "tolerance": 0.1},
    "bone_angle": {"pairs": "all"},
}


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
    for terms, skeleton, options in (
        ("mpjpe,depth_ranking_frames", "", ""),
        ("weighted_mpjpe,temporal_consistency", "h36m", '{"weighted_mpjpe": {"joint_weight": [1, 2, 3, 4, 5]}}'),
    ):
        args = (pred, target, weight, lam, [1.0, 2.0], terms, skeleton, options, "mean", need_grad, backend)
        torch.library.opcheck(torch.ops.structloss.objective.default, args)
    rows = [None if x is None else x.reshape(-1, 5) for x in (pred[..., 2], target[..., 2], weight)]
    torch.library.opcheck(torch.ops.structloss.ranking_hinge.default, (*rows, "sum", need_grad, backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("need_grad", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_opcheck_of_every_term(weighted, need_grad, backend):
    pred, target = poses(2, 5, 17)
    weight = torch.rand(2, 5, 17) if weighted else None
    anatomical = [name for name, term in structloss.TERMS.items() if not term.needs_target]
    for given, names in ((target, [*EVERY_TERM]), (None, anatomical)):
        lam = torch.rand(len(names)) if weighted else None
        options = json.dumps({name: OPTIONS[name] for name in names if name in OPTIONS}) if weighted else ""
        args = (pred, given, weight, lam, [1.0] * len(names), ",".join(names), "h36m", options)
        torch.library.opcheck(torch.ops.structloss.objective.default, (*args, "sum", need_grad, backend))


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
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dynamic", [None, True])
def test_every_term_compiles_into_one_graph(dynamic, backend):
    """Alone, all at once, without a target, with learned weights; no batch size after the second recompiles."""
    torch._dynamo.reset()
    objective = structloss.nn.Objective(EVERY_TERM, options=OPTIONS, backend=backend)
    learned = structloss.nn.LearnedWeights(EVERY_TERM, options=OPTIONS, backend=backend)
    anatomical = {name: 1.0 for name, term in structloss.TERMS.items() if not term.needs_target}
    ratio = structloss.nn.BoneRatio(form="paper", backend=backend)

    def step(pred, target, weight, lam):
        weights = {**EVERY_TERM, "bone_angle": lam}
        options = {"illegal_angle": {"normalize_bones": True, "tolerance": 0.1}, "bone_symmetry": {"pairs": "six"}}
        total = structloss.objective(pred, target, weights, weight=weight, options=options, backend=backend).total
        total = total + structloss.objective(pred, None, anatomical, weight=weight, backend=backend).total
        total = total + structloss.illegal_angle(pred, normalize_bones=True, tolerance=0.1, backend=backend)
        total = total + structloss.weighted_mpjpe(pred, target, weight, joint_weight=[2.0] * 17, backend=backend)
        total = total + structloss.bone_angle_velocity(pred, target, pairs="all", backend=backend)
        return total + objective(pred, target, weight).total + learned(pred, target).total + ratio(pred)

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic)
    try:
        for batch in (2, 3, 5, 8):
            pred, target = poses(batch, 9, 17)
            weight = torch.rand(batch, 9, 17)
            results = []
            for function in (step, compiled):
                leaf, lam = pred.clone().requires_grad_(), torch.tensor(0.7, requires_grad=True)
                learned.zero_grad()
                value = function(leaf, target, weight, lam)
                value.backward()
                results.append((value.detach(), leaf.grad, lam.grad, learned.log_variance.grad))
            for eager, graph in zip(*results, strict=True):
                torch.testing.assert_close(graph, eager, rtol=1e-5, atol=1e-6)
            if batch == 3:
                torch.compiler.set_stance("fail_on_recompile")
    finally:
        torch.compiler.set_stance("default")


@pytest.mark.parametrize("name", EVERY_TERM)
def test_single_terms_compile_with_dynamic_shapes(name):
    """A function and its module, with the options' defaults and with other values."""
    torch._dynamo.reset()
    if name.startswith("depth_ranking_"):
        function = functools.partial(structloss.depth_ranking, over=name.removeprefix("depth_ranking_"))
        module = structloss.nn.DepthRanking(name.removeprefix("depth_ranking_"))
    else:
        function = getattr(structloss, name)
        classes = {x.lower(): x for x in structloss.nn.__all__}
        module = getattr(structloss.nn, classes[name.replace("_", "")])(**OPTIONS.get(name, {}))
    arguments = poses(2, 9, 17)[: 1 + structloss.TERMS[name].needs_target]

    def loss(*arguments):
        return function(*arguments) + function(*arguments, **OPTIONS.get(name, {})) + module(*arguments)

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="eager")
    torch.testing.assert_close(compiled(*arguments), loss(*arguments))


@pytest.mark.parametrize("dynamic", [None, False, True])
def test_options_kept_outside_of_a_compiled_function(dynamic):
    torch._dynamo.reset()
    pred, target = poses(2, 9, 17)

    def loss(pred, target):
        return structloss.objective(pred, target, EVERY_TERM, options=OPTIONS).total

    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="eager")
    torch.testing.assert_close(compiled(pred, target), loss(pred, target))


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
@pytest.mark.parametrize("name", EVERY_TERM)
def test_autocast_and_no_grad_for_every_term(name, backend):
    pred, target = poses(2, 9, 17)
    keywords = {"options": {name: OPTIONS.get(name, {})}, "backend": backend}
    weights = {name: 1.0}
    expected, gradient = value_and_grad(structloss.objective, pred, target, weights, **keywords)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, found_gradient = value_and_grad(structloss.objective, pred, target, weights, **keywords)
        half, half_gradient = value_and_grad(structloss.objective, pred.bfloat16(), target, weights, **keywords)
    assert found == expected and torch.equal(found_gradient, gradient)
    assert half.dtype == torch.float32 and half_gradient.dtype == torch.bfloat16
    assert half == structloss.objective(pred.bfloat16().float(), target, weights, **keywords).total
    pred.requires_grad_()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            value = structloss.objective(pred, target, weights, **keywords).total
            assert value == expected and not value.requires_grad


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gradient_is_computed_when_none_is_needed(backend, monkeypatch):
    from structloss.ops import cpp_impl, library

    asked = []
    if backend == "cpp":  # whose plans are called by themselves, too
        fill = cpp_impl.ObjectivePlan.fill
        monkeypatch.setattr(cpp_impl.ObjectivePlan, "fill", lambda *a: asked.append(a[5] is not None) or fill(*a))
    else:
        launch = library.launch_objective
        monkeypatch.setattr(library, "launch_objective", lambda *a: asked.append(a[9]) or launch(*a))
    pred, target = poses(2, 9, 17)
    assert not structloss.objective(pred, target, ALL, backend=backend).total.requires_grad
    pred.requires_grad_()
    with torch.no_grad():
        assert not structloss.mpjpe(pred, target, backend=backend).requires_grad
    with torch.inference_mode():
        structloss.mpjpe(pred, target, backend=backend)
    assert structloss.mpjpe(pred, target, backend=backend).requires_grad
    with torch.no_grad():
        structloss.bone_symmetry(pred, backend=backend)
    assert asked == [False, False, False, True, False]


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
        value_and_grad(structloss.objective, pred, target, EVERY_TERM, weight=weight, backend=backend)
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


def test_tensors_whose_memory_is_not_their_values(poses_of_views):
    pred, target = poses_of_views
    expected = structloss.mpjpe(-pred, target)
    # What .imag of a conjugate gives is the memory of its opposite.
    opposite = torch.complex(target, pred).conj().imag
    assert opposite.is_neg()
    assert structloss.mpjpe(opposite, target) == expected
    assert structloss.mpjpe(target, opposite) == expected
    assert structloss.ranking_hinge(opposite[..., 0, 2], target[..., 0, 2]) == structloss.ranking_hinge(
        -pred[..., 0, 2], target[..., 0, 2]
    )
    leaf = torch.complex(target, pred).requires_grad_()
    structloss.mpjpe(leaf.conj().imag, target).backward()
    plain = pred.clone().requires_grad_()
    structloss.mpjpe(-plain, target).backward()
    assert torch.equal(leaf.grad.imag, plain.grad)


@pytest.mark.parametrize("weighted", [False, True])
def test_fake_and_meta_tensors_give_shapes(poses_of_views, weighted):
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode()
    weight = torch.ones(2, 5, 17)
    for move, inside in ((mode.from_tensor, mode), (lambda x: x.to("meta"), contextlib.nullcontext())):
        pred, target = (move(x) for x in poses_of_views)
        pred.requires_grad_()
        given = move(weight) if weighted else None
        result = structloss.objective(pred, target, {"mpjpe": 1.0, "velocity": 1.0}, weight=given)
        assert result.total.shape == () and result.total.dtype == torch.float32
        with inside:
            result.total.backward()
        assert pred.grad.shape == (2, 5, 17, 3)


def test_transforms_of_torch_func_are_refused_in_a_sentence(poses_of_views):
    pred, target = poses_of_views
    for transformed in (
        lambda: torch.func.grad(lambda p: structloss.mpjpe(p, target))(pred),
        lambda: torch.vmap(structloss.mpjpe)(pred, target),
        lambda: torch.vmap(lambda p, w: structloss.mpjpe(p, target[0], weight=w))(pred, torch.ones(2, 5, 17)),
        lambda: torch.func.jvp(lambda p: structloss.mpjpe(p, target), (pred,), (pred,)),
        lambda: torch.vmap(structloss.ranking_hinge)(pred[..., 0], target[..., 0]),
    ):
        with pytest.raises(ArgumentError, match=r"^pred is inside a transform of torch\.func"):
            transformed()


def test_sparse_and_nested_tensors_are_refused_in_a_sentence(poses_of_views):
    pred, target = poses_of_views
    with pytest.raises(ArgumentError, match=r"^pred has the layout torch\.sparse_coo, expected a dense"):
        structloss.mpjpe(pred.to_sparse(), target)
    with pytest.raises(ArgumentError, match=r"^weight has the layout torch\.sparse_coo"):
        structloss.mpjpe(pred, target, weight=torch.ones(2, 5, 17).to_sparse())
    ragged = torch.nested.nested_tensor([*pred], layout=torch.jagged)
    with pytest.raises(ArgumentError, match=r"^pred is a nested tensor"):
        structloss.mpjpe(ragged, target)


@pytest.fixture
def poses_of_views():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 5, 17, 3, generator=generator), torch.randn(2, 5, 17, 3, generator=generator)
