"""Calls that take checks and layout from an earlier one: never from one that differs, never what has changed since."""

import itertools
import sys
import threading

import numpy as np
import pytest
import torch
from backends import FAST
from torch.autograd import forward_ad

import structloss
from structloss import nn
from structloss.errors import ArgumentError, UnknownNameError
from structloss.functional import _call, _plans
from structloss.ops import cpp_impl, torch_impl

TERMS = {"mpjpe": 1.0, "velocity": 0.5, "depth_ranking_frames": 2.0}
has_cpp = pytest.mark.skipif(not structloss.backends()["cpp"], reason="no compiled module")


@pytest.fixture(autouse=True)
def no_plans(monkeypatch):
    """Each test starts without plans."""
    monkeypatch.setattr(_plans, "_plans", {})


@pytest.fixture
def checked(monkeypatch):
    """The names of the terms of each call that went through all checks."""
    found = []
    run = _call.run
    for module in (_call, sys.modules["structloss.functional.fused"]):
        monkeypatch.setattr(module, "run", lambda terms, *rest: found.append(terms) or run(terms, *rest))
    return found


def poses(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred, noise = (torch.randn(*shape, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return pred.to(dtype), (pred + noise).to(dtype)


def outcome(function, pred, *arguments, **keywords):
    """Value, term values and gradient of a call, or the error that it raised."""
    leaf = pred.detach().requires_grad_(pred.is_floating_point())
    try:
        result = function(leaf, *arguments, **keywords)
        total, terms = (result, {}) if isinstance(result, torch.Tensor) else result
        total.backward()
    except (ArgumentError, UnknownNameError, TypeError, RuntimeError) as error:
        return type(error), str(error)
    assert leaf.grad.shape == pred.shape and leaf.grad.dtype == pred.dtype
    return total.detach(), terms, leaf.grad


def same(a, b):
    if isinstance(a, dict):
        return [*a] == [*b] and all(map(same, a.values(), b.values()))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b) and a.requires_grad == b.requires_grad
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, tuple) else a == b


def calls():
    """Calls of all kinds, each of which differs from another in one thing."""
    pred, target = poses(2, 9, 17)
    other = poses(2, 9, 17, seed=1)[1]
    mask = torch.arange(17).remainder(3).gt(0).expand(2, 9, 17)
    joints = [2.0] + [1.0] * 16
    objective = structloss.objective
    for weights in (TERMS, dict(reversed(TERMS.items())), {"mpjpe": 1.0}, {**TERMS, "mpjpe": 3.0}, {"mpjpe": 1}):
        yield objective, (pred, target, weights), {}
    yield objective, (pred, target, {"mpjpe": torch.tensor(0.5, requires_grad=True), "velocity": 1.0}), {}
    for shape in ((1, 9, 17), (9, 17), (2, 1, 9, 17), (3, 3, 17), (2, 9, 5), (0, 9, 17)):
        yield objective, (*poses(*shape), TERMS), {}
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        yield objective, (pred.to(dtype), target.to(dtype), TERMS), {}
        yield objective, (pred, target.to(dtype), TERMS), {}
    for strided in (pred.transpose(0, 1).contiguous().transpose(0, 1), pred.flip(1).contiguous().flip(1)):
        yield objective, (strided, target, TERMS), {}
        yield objective, (target, strided, TERMS), {}
    wide = torch.cat([pred, pred], -1)
    yield objective, (wide[..., :3], target, TERMS), {}
    yield objective, (wide[..., 1:4], target, TERMS), {}
    five = torch.stack([pred] * 3, 1)  # [2, 3, 9, 17, 3], and with clips that no view can put in a row
    yield objective, (five, five.flip(0), TERMS), {}
    yield objective, (five.transpose(0, 1), five.flip(0).transpose(0, 1), TERMS), {}
    yield objective, (pred, other, TERMS), {}
    for weight in (mask.float(), mask, mask.double(), mask[0], mask[0, :1], mask[..., :1].float(), mask.float() - 0.1):
        yield objective, (pred, target, TERMS), {"weight": weight}
    for keywords in ({"reduction": "sum"}, {"reduction": "median"}, {"backend": "torch"}, {"check_finite": True}):
        yield objective, (pred, target, TERMS), keywords
    bones = {"bone_symmetry": 1.0, "illegal_angle": 1.0, "bone_ratio": 1.0}
    for options in (
        None,
        {},
        {"bone_symmetry": {"pairs": "six"}},
        {"bone_symmetry": {"squared": True}},
        {"bone_symmetry": {"squared": 1}},
        {"illegal_angle": {"normalize_bones": True}},
        {"illegal_angle": {"scale": 1}},
        {"illegal_angle": {"scale": True}},
        {"illegal_angle": {"scale": 2.0}},
        {"mpjpe": {}},
        [],
    ):
        yield objective, (pred, None, bones), {"options": options}
    still = {"temporal_consistency": 1.0}
    yield objective, (pred, target.abs(), still), {}
    yield objective, (pred, None, still), {}
    yield objective, (pred, None, still), {"weight": target.abs()}
    yield objective, (pred, None, bones), {"skeleton": "coco"}
    yield objective, (pred, None, bones), {"skeleton": "mpii"}
    yield objective, (pred, None, bones), {"skeleton": ["h36m"]}
    for given in (joints, tuple(joints), [*joints[:-1], True], np.array(joints), torch.tensor(joints), joints[1:]):
        yield structloss.weighted_mpjpe, (pred, target), {"joint_weight": given}
        yield structloss.temporal_consistency, (pred,), {"joint_weight": given}
        options = {"weighted_mpjpe": {"joint_weight": given}}
        yield objective, (pred, target, {"weighted_mpjpe": 1.0}), {"options": options}
    for function in (structloss.mpjpe, structloss.velocity, structloss.n_mpjpe, structloss.ranking_hinge):
        yield function, (pred, target), {}
        yield function, (pred, target), {"reduction": "sum"}
    yield structloss.mpjpe, (pred, target), {"root": 3}
    for over in ("joints", "frames", "limbs"):
        yield structloss.depth_ranking, (pred, target), {"over": over}
        yield structloss.depth_ranking, (pred, target), {"over": over, "weight": mask.float()}
    for weight in (torch.rand(2, 9, 17, 3), -torch.ones(3), torch.ones(4)):
        yield structloss.ranking_hinge, (pred, target), {"weight": weight}
    yield objective, (pred, target, {}), {"skeleton": ""}
    for rows in (pred[..., 0], pred[..., 0].contiguous(), pred.transpose(1, 3), pred[0, 0, 0]):
        yield structloss.ranking_hinge, (rows, rows.flip(-1)), {}
    nan = target.clone()
    nan[0, 0, 0, 0] = float("nan")
    for bad in (
        pred.requires_grad_(),
        nan,
        pred.detach().to("meta"),
        target[1:],
        target.int(),
        target.to_sparse(),
        None,
        3,
    ):
        yield objective, (pred.detach(), bad, TERMS), {"check_finite": True}
        yield structloss.mpjpe, (pred.detach(), bad), {"check_finite": True}
        yield structloss.ranking_hinge, (pred.detach(), bad), {"check_finite": True}
    for weights in ({"mpjpe": -1.0}, {"mpjpe": float("nan")}, {"mpjpe": "1"}, ["mpjpe"], {}, {"mpjp": 1.0}):
        yield objective, (pred.detach(), target, weights), {}


@pytest.mark.filterwarnings("ignore:pred has bodies of")
@pytest.mark.parametrize("backend", FAST)
def test_a_call_gives_what_it_gives_without_earlier_ones(backend):
    """Whatever was called before, in whatever order: values, gradients and errors, bit for bit."""
    cases = [(f, a, {"backend": backend, **k}) for f, a, k in calls()]
    alone = []
    for function, arguments, keywords in cases:
        _plans._plans.clear()
        alone.append(outcome(function, *arguments, **keywords))
    assert sum(isinstance(found[0], type) for found in alone) > 20  # errors
    for order in (cases, cases, cases[::-1]):
        expected = alone if order is cases else alone[::-1]
        for (function, arguments, keywords), wanted in zip(order, expected, strict=True):
            found = outcome(function, *arguments, **keywords)
            assert same(found, wanted), (function.__name__, arguments, keywords, found, wanted)
    if backend == "cpp":
        assert len(_plans._plans) > 40


@has_cpp
def test_a_second_call_is_not_checked_again(checked):
    pred, target = poses(2, 9, 17)
    module = nn.Objective(TERMS, options={"velocity": {}})
    for _ in range(3):
        structloss.objective(pred, target, TERMS)
        structloss.mpjpe(pred, target)
        module(pred, target)
    assert checked == [tuple(TERMS), ("mpjpe",), tuple(TERMS)]
    structloss.mpjpe(*poses(2, 8, 17))
    assert checked[3:] == [("mpjpe",)]


def test_a_module_encodes_nothing_after_its_first_call(monkeypatch):
    weights = {"illegal_angle": 1.0, "weighted_mpjpe": 1.0, "bone_symmetry": 1.0}
    options = {"illegal_angle": {"normalize_bones": True}, "weighted_mpjpe": {"joint_weight": [1.0, 2.0] * 8 + [3.0]}}
    module = nn.Objective(weights, options=options)
    pred, target = poses(2, 9, 17)
    expected = module(pred, target)
    for name in ("encode", "_encode_single", "encode_options", "check_options"):
        monkeypatch.setattr(_call, name, None)
    monkeypatch.setattr(sys.modules["structloss.functional.fused"], "encode", None)
    assert same(tuple(module(pred, target)), tuple(expected))


def test_a_module_sees_what_was_changed_in_place():
    pred, target = poses(2, 9, 17)
    lam, fixed = torch.nn.Parameter(torch.tensor(0.5)), torch.tensor(2.0)
    module = nn.Objective({"velocity": lam, "n_mpjpe": fixed, "weighted_mpjpe": 1.0, "bone_symmetry": 1.0})

    def check(function, **expected):
        function()
        names = module.weights
        numbers = {name: float(torch.as_tensor(value).detach()) for name, value in module.current_weights().items()}
        assert numbers == {**numbers, **expected}
        for _ in range(2):
            wanted = structloss.objective(pred, target, numbers, options=module.options, reduction=module.reduction)
            found = module(pred, target)
            torch.testing.assert_close(found.total, wanted.total, check_dtype=False)
            assert [*found.terms] == [*names]
        return found.total.detach()

    start = check(lambda: None, velocity=0.5, n_mpjpe=2.0, weighted_mpjpe=1.0)
    state = {"lambda_velocity": torch.tensor(7.0), "lambda_n_mpjpe": torch.tensor(3.0)}
    assert check(lambda: module.load_state_dict(state), velocity=7.0, n_mpjpe=3.0) != start
    check(lambda: module.to(torch.float64), velocity=7.0)
    assert module.current_weights()["velocity"].dtype == torch.float64
    check(lambda: setattr(module, "lambda_velocity", torch.nn.Parameter(torch.tensor(1.5))), velocity=1.5)
    check(lambda: module.weights.update(weighted_mpjpe=0.25), weighted_mpjpe=0.25)
    check(lambda: setattr(module, "lambda_weighted_mpjpe", 4.0), weighted_mpjpe=4.0)
    before = check(lambda: setattr(module, "reduction", "mean"))
    assert check(lambda: setattr(module, "reduction", "sum")) != before
    before = check(lambda: module.options.update(bone_symmetry={"pairs": "four", "squared": False}))
    assert check(lambda: module.options["bone_symmetry"].update(squared=True)) != before
    module.options["bone_symmetry"]["squared"] = 1
    with pytest.raises(ArgumentError, match=r"options\['bone_symmetry'\]\['squared'\] is 1, expected True or False"):
        module(pred, target)


def test_options_that_change_in_place_are_read_again():
    pred, target = poses(2, 9, 17)
    for factors in ([1.0] * 17, np.ones(17), torch.ones(17)):
        before = structloss.weighted_mpjpe(pred, target, joint_weight=factors)
        assert structloss.weighted_mpjpe(pred, target, joint_weight=factors) == before
        factors[3] = 100.0
        assert structloss.weighted_mpjpe(pred, target, joint_weight=factors) > before


@pytest.mark.parametrize("function", [structloss.mpjpe, structloss.ranking_hinge])
def test_values_are_looked_at_in_every_call(function):
    pred, target = poses(2, 9, 17)
    weight = torch.ones(2, 9, 17) if function is structloss.mpjpe else torch.ones(2, 9, 17, 3)
    for _ in range(2):
        function(pred, target, weight=weight, check_finite=True)
    for value in (-1.0, float("nan")):
        weight[0, 0, 0] = value
        with pytest.raises(ArgumentError, match=r"^weight has the value"):
            function(pred, target, weight=weight)
    weight.fill_(1)
    target[0, 0, 0, 0] = float("nan")
    with pytest.raises(ArgumentError, match=r"^target has 1 NaN"):
        function(pred, target, weight=weight, check_finite=True)
    with pytest.raises(ArgumentError, match=r"^target requires grad"):
        function(pred, target.requires_grad_(), weight=weight)


def test_tensors_that_are_not_plain_do_not_take_the_plan_of_those_that_are():
    pred, target = poses(2, 9, 17)
    expected = structloss.mpjpe(-pred, target)
    opposite = torch.complex(target, pred).conj().imag
    plain = torch.complex(target, -pred).imag
    assert plain.stride() == opposite.stride() and opposite.is_neg()
    for _ in range(2):
        assert structloss.mpjpe(plain, target) == structloss.mpjpe(opposite, target) == expected
        assert structloss.mpjpe(target, plain) == structloss.mpjpe(target, opposite) == expected


def test_tensors_without_values_do_not_either():
    pred, target = poses(2, 9, 17)
    mode = torch._subclasses.fake_tensor.FakeTensorMode()
    for change in (lambda x: x.to("meta"), mode.from_tensor):
        for function, given in ((structloss.mpjpe, (pred, target)), (structloss.temporal_consistency, (pred,))):
            results = []
            for _ in range(2):
                results += [function(*given), function(*map(change, given))]
            assert results[2] == results[0] and not results[2].is_meta
            assert (
                type(results[3]) is type(results[1]) and results[3].device == results[1].device == change(pred).device
            )


def test_subclasses_of_tensors_are_asked_in_every_call():
    asked = []

    class Poses(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            asked.append(str(function))
            return super().__torch_function__(function, types, args, kwargs)

    pred, target = poses(2, 9, 17)
    expected = structloss.mpjpe(pred, target)
    for arguments in ((pred.as_subclass(Poses), target), (pred, target.as_subclass(Poses))) * 2:
        asked.clear()
        assert structloss.mpjpe(*arguments) == expected
        assert "structloss.objective" in asked


def test_transforms_of_torch_func():
    pred, target = poses(2, 9, 17)
    expected, escaped = structloss.mpjpe(pred, target), []
    for plans in (_plans._plans.copy(), {}):
        _plans._plans.clear()
        _plans._plans.update(plans)
        with pytest.raises(ArgumentError, match=r"^pred is inside a transform of torch\.func"):
            torch.vmap(structloss.mpjpe)(torch.stack([pred] * 3), torch.stack([target] * 3))
        with pytest.raises(ArgumentError, match=r"^pred is inside a transform of torch\.func"):
            torch.func.grad(lambda x: x * structloss.mpjpe(pred, target))(torch.ones(()))
        torch.func.grad(lambda p: escaped.append(p.detach()) or p.sum())(pred)
        for arguments in ((escaped[-1], target), (target, escaped[-1])):  # outside, they are tensors again
            assert structloss.mpjpe(*arguments) == expected


@has_cpp
def test_forward_mode_is_refused_after_a_call_without_it():
    pred, target = torch.randn(2, 1, 5, 17, 3)
    weights = {"mpjpe": 1.0, "depth_ranking_frames": 1.0}
    for function in (lambda p, d: structloss.objective(p, d, weights), structloss.mpjpe):
        function(pred, target)
        with forward_ad.dual_level():
            moving = forward_ad.make_dual(target, torch.ones_like(target))
            with pytest.raises(NotImplementedError):
                function(pred, moving)


def test_a_term_by_itself_does_not_stand_for_an_objective_without_a_skeleton():
    pred, target = torch.randn(2, 1, 5, 17, 3)
    structloss.mpjpe(pred, target)
    with pytest.raises(structloss.errors.UnknownNameError, match="skeleton"):
        structloss.objective(pred, target, {"mpjpe": 1.0}, skeleton="")


def test_the_backend_is_that_of_the_call(monkeypatch):
    """What use_backend says counts, not what it said when the plan was made."""
    pred, target = poses(2, 9, 17)
    served = []
    fill = cpp_impl.ObjectivePlan.fill
    monkeypatch.setattr(cpp_impl.ObjectivePlan, "fill", lambda *a: served.append("cpp") or fill(*a))
    run_torch = torch_impl.objective
    monkeypatch.setattr(torch_impl, "objective", lambda *a: served.append("torch") or run_torch(*a))
    for name in ("cpp", "torch", "auto") * 2:
        with structloss.use_backend(name):
            structloss.objective(pred, target, TERMS)
        structloss.objective(pred, target, TERMS, backend=name)
        assert served == [name if name != "auto" else "cpp"] * 2
        served.clear()


@has_cpp
def test_double_backward_and_kept_graphs():
    pred, target = poses(2, 9, 17)
    pred.requires_grad_()
    for _ in range(2):
        total = structloss.objective(pred, target, TERMS).total
        (first,) = torch.autograd.grad(total, pred, retain_graph=True)
        (second,) = torch.autograd.grad(3 * total, pred, retain_graph=True)
        torch.testing.assert_close(second, 3 * first)
        with pytest.raises(RuntimeError, match="differentiable once"):
            torch.autograd.grad(total, pred, create_graph=True)
        torch.autograd.grad(total, pred)
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            torch.autograd.grad(total, pred)


def test_learned_weights_receive_the_terms_values():
    pred, target = poses(2, 9, 17)
    pred.requires_grad_()
    for frozen, _ in itertools.product((False, True), range(2)):
        lam = torch.tensor(0.5, requires_grad=True)
        leaf = pred.detach() if frozen else pred
        result = structloss.objective(leaf, target, {"mpjpe": lam, "velocity": 1.0})
        result.total.backward()
        assert lam.grad == result.terms["mpjpe"]
        assert not result.terms["mpjpe"].requires_grad


def test_a_result_can_be_changed_in_place():
    pred, target = poses(2, 9, 17)
    pred.requires_grad_()
    for _ in range(2):
        result = structloss.objective(pred, target, TERMS)
        total, value = result.total, result.total.item()
        total += 1
        total.mul_(2).backward()
        assert total.item() == pytest.approx(2 * (value + 1))


def test_plans_are_bounded(monkeypatch):
    monkeypatch.setattr(_plans, "MOST", 5)
    for frames in (*range(1, 12), *range(1, 12)):
        pred, target = poses(1, frames, 17)
        assert structloss.mpjpe(pred, target) == pytest.approx((pred - target).norm(dim=-1).mean().item(), rel=1e-5)
        assert len(_plans._plans) <= 5
    assert sum(key[5][1] == 11 for key in _plans._plans) == 1  # the newest is kept
    for made in (cpp_impl._objective_plan, cpp_impl._ranking_plan, cpp_impl._structure):
        assert made.cache_info().maxsize == 256


def test_threads_share_plans(monkeypatch):
    """Many threads, few plans, more layouts than are kept: every value is its own."""
    monkeypatch.setattr(_plans, "MOST", 3)
    cases = [poses(1, frames, 17, seed=frames) for frames in range(1, 9)]
    expected = [structloss.objective(*case, TERMS).total.item() for case in cases]
    wrong, start = [], threading.Barrier(4)

    def work(offset):
        start.wait()
        for turn in range(150):
            at = (turn * (offset + 1)) % len(cases)
            try:
                value = structloss.objective(*cases[at], TERMS).total.item()
            except Exception as error:
                value = error
            if value != expected[at]:
                wrong.append((at, value))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert len(_plans._plans) <= 3
