"""The learned loss: its weight, its gradient on predictions, the loss network's own training, states and processes."""

import copy
import doctest
import importlib
import math
import pickle
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import structloss
from structloss.errors import ArgumentError, DataError, DtypeError, UnknownNameError
from structloss.learned import VARIANTS, LearnedLoss, LossNet
from structloss.learned.objectives import OBJECTIVES
from structloss.learned.weighting import EnergyWeight
from structloss.skeletons import get

H36M = get("h36m")
# A standing person in metres, x right, y down, in the order of the joints
BODY = torch.tensor(
    [
        *(
            [0, 0, 0],
            [-0.13, 0, 0],
            [-0.13, 0.45, 0.02],
            [-0.13, 0.9, 0],
            [0.13, 0, 0],
            [0.13, 0.45, 0.02],
            [0.13, 0.9, 0],
        ),
        *([0, -0.25, 0], [0, -0.5, 0], [0, -0.6, -0.05], [0, -0.7, 0], [0.16, -0.47, 0], [0.2, -0.2, 0.03]),
        *([0.22, 0.04, -0.05], [-0.16, -0.47, 0], [-0.2, -0.2, 0.03], [-0.22, 0.04, -0.05]),
    ],
    dtype=torch.float64,
)


def scene(*lead, dtype=torch.float32, seed=0, noise=0.05):
    """2D, true and predicted poses of people that face anywhere."""
    g = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(*lead, generator=g, dtype=torch.float64)
    turned = torch.stack(
        [
            angle.cos(),
            0 * angle,
            angle.sin(),
            0 * angle,
            0 * angle + 1,
            0 * angle,
            -angle.sin(),
            0 * angle,
            angle.cos(),
        ],
        -1,
    )
    y = BODY @ turned.view(*lead, 3, 3) + 0.02 * torch.randn(*lead, 17, 3, generator=g, dtype=torch.float64)
    y = y - y[..., :1, :]
    pred = y + noise * torch.randn(*lead, 17, 3, generator=g, dtype=torch.float64)
    return (y[..., :2] / 2).to(dtype), y.to(dtype), pred.to(dtype)


def made(variant="graph-small", seed=1, dtype=torch.float32, net=None, **options):
    torch.manual_seed(seed)
    small = {"width": 24} if variant.startswith("linear") else {"dim": 16, "heads": 2, "depth": 1}
    net = LossNet("h36m", variant, **{**small, **(net or {})}).to(dtype)
    return LearnedLoss(net, **{"weight": 0.5, "negatives": ("prediction",), **options})


def weights_of(loss):
    return {key: value.clone() for key, value in loss.net.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def hinge(delta, gap):
    return (delta + gap).clamp(min=0)


@pytest.mark.parametrize("module", ["structloss.learned.loss_net", "structloss.learned.learned_loss"])
def test_examples(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted >= 4 and not result.failed


# The pose-net's side


@pytest.mark.parametrize("variant", ["graph-small", "linear", "graph-temporal"])
def test_gradient_is_that_of_the_mean_energy(variant):
    loss = made(variant, dtype=torch.float64, weight=0.25)
    x, _, pred = scene(3, 4, dtype=torch.float64)
    x.requires_grad_(), pred.requires_grad_()
    energy = loss.net.eval()(x.detach(), pred).mean()
    (expected,) = torch.autograd.grad(energy, pred)
    loss.net.train()  # dropout and batch statistics are not the pose-net's business
    before = weights_of(loss)
    value = loss(x, pred)
    value.backward()
    torch.testing.assert_close(value, 0.25 * energy, rtol=1e-12, atol=0)
    torch.testing.assert_close(pred.grad, 0.25 * expected, rtol=1e-12, atol=1e-18)
    torch.testing.assert_close(loss.energy, energy, rtol=1e-12, atol=0)
    assert expected.abs().max() > 1e-4 and not loss.energy.requires_grad
    assert x.grad is None and all(p.grad is None for p in loss.parameters()) and same(loss.net.state_dict(), before)


def test_gradient_goes_on_to_the_network():
    loss = made(dtype=torch.float64)
    x, _, _ = scene(2, 3, dtype=torch.float64)
    pose_net = torch.nn.Linear(2, 3).double()
    loss(x, pose_net(x)).backward()
    expected = torch.autograd.grad(0.5 * loss.net(x, pose_net(x)).mean(), list(pose_net.parameters()))
    for p, g in zip(pose_net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-10, atol=1e-14)


def test_scaled_losses_scale_gradients():
    """A gradient scaler, or the share of an accumulated batch."""
    loss = made()
    x, _, pred = scene(2, 3)
    grads = []
    for factor in (1.0, 1024.0, 0.25):
        leaf = pred.clone().requires_grad_()
        (factor * loss(x, leaf)).backward()
        grads.append(leaf.grad / factor)
    assert torch.equal(grads[0], grads[1]) and torch.equal(grads[0], grads[2])


def test_without_grad_there_is_a_value_only():
    loss = made()
    x, _, pred = scene(2, 3)
    expected = loss(x, pred.clone().requires_grad_()).detach()
    with torch.no_grad():
        value = loss(x, pred.clone().requires_grad_())
    assert not value.requires_grad and torch.equal(value, expected)
    assert not loss(x, pred).requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight", [0.5, "auto:0.05"])
def test_gradients_have_the_predictions_dtype(dtype, weight):
    loss = made(weight=weight)
    x, y, pred = scene(2, 3)
    leaf, single = pred.to(dtype).requires_grad_(), pred.clone().requires_grad_()
    for one in (leaf, single):
        position = structloss.mpjpe(one, y.to(one.dtype))
        value = copy.deepcopy(loss)(x, one, position)
        assert value.dtype == torch.float32
        value.backward()
    assert leaf.grad.dtype == dtype
    size = float(single.grad.abs().max())
    loose = {torch.float64: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(leaf.grad.float(), single.grad, rtol=0, atol=loose * size)


def test_small_gradients_of_float16_survive_until_they_are_scaled():
    """The mean over many frames of a weak force is below what float16 holds, before the scaler's factor."""
    loss = made(weight=1e-5)
    x, _, pred = scene(8, 32)
    half = pred.half().requires_grad_()
    (65536 * loss(x, half)).backward()
    single = half.detach().float().requires_grad_()
    (65536 * loss(x, single)).backward()
    assert single.grad.abs().max() / 65536 < 6e-8
    torch.testing.assert_close(half.grad.float(), single.grad, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(dtype):
    loss = made(weight="auto:0.1", negatives=("prediction", "bone_rotation"))
    x, y, pred = scene(2, 3)
    single = pred.clone().requires_grad_()
    wanted = copy.deepcopy(loss)(x, single, structloss.mpjpe(single, y))
    wanted.backward()
    leaf = pred.clone().requires_grad_()
    with torch.autocast("cpu", dtype):
        value = loss(x, leaf, structloss.mpjpe(leaf, y))
        seen = loss.update(x, y, leaf)
    value.backward()
    assert value.dtype == torch.float32 and torch.isfinite(seen["loss"])
    if dtype == torch.float16:  # no scaler for the loss network's gradients: computed in float32
        assert torch.equal(leaf.grad, single.grad)
    else:
        torch.testing.assert_close(leaf.grad, single.grad, rtol=0, atol=0.1 * float(single.grad.abs().max()))


def pulls(loss, x, y, pred):
    """|∂L| and |∂E|, by hand."""
    pred = pred.clone().requires_grad_()
    (position,) = torch.autograd.grad((pred - y).norm(dim=-1).mean(), pred)
    (energy,) = torch.autograd.grad(loss.net.eval()(x, pred).mean(), pred)
    return float(position.norm()), float(energy.norm())


def test_auto_weight_is_a_share_of_the_force():
    loss = made(weight="auto:0.05", dtype=torch.float64)
    ratio = None
    for step in range(4):
        x, y, pred = scene(2, 3, dtype=torch.float64, seed=step, noise=0.02 * (step + 1))
        position, energy = pulls(loss, x, y, pred)
        now = position / energy
        ratio = now if ratio is None else 0.99 * ratio + 0.01 * now
        leaf = pred.clone().requires_grad_()
        loss(x, leaf, structloss.mpjpe(leaf, y)).backward()
        assert float(loss.force.ratio) == pytest.approx(ratio, rel=1e-6)
        assert float(loss.force.value) == pytest.approx(0.05 * ratio, rel=1e-6)
        assert float(leaf.grad.norm()) == pytest.approx(0.05 * ratio * energy, rel=1e-6)
        if step == 0:
            assert float(leaf.grad.norm()) == pytest.approx(0.05 * position, rel=1e-6)


def test_auto_weight_of_a_module_made_float64():
    loss = made(weight="auto:0.2").double()
    x, y, pred = scene(2, 3, dtype=torch.float64)
    for _ in range(2):
        pred = pred.detach().requires_grad_()
        position = structloss.mpjpe(pred, y)
        (force,) = torch.autograd.grad(position, pred, retain_graph=True)
        (pull,) = torch.autograd.grad(loss(x, pred, position), pred)
        # The ratio is measured in float32, to which the sums of squares are sent between processes.
        assert pull.norm() / force.norm() == pytest.approx(0.2, rel=1e-5)
        assert pull.dtype == loss.force.ratio.dtype == torch.float64


@pytest.mark.parametrize("warmup", [-1, 1.5, "10", True])
def test_warmup_is_a_whole_number(warmup):
    with pytest.raises(ArgumentError, match=r"^warmup is .*, expected a whole number of at least 0"):
        made(warmup=warmup)


def test_warmup_is_a_line_and_a_number_is_taken_as_it_is():
    loss = made(weight=0.4, warmup=3)
    x, _, pred = scene(2, 3)
    values = [float(loss(x, pred) / loss.energy) for _ in range(6)]
    assert values == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rel=1e-5)
    auto = made(weight="auto:0.4", warmup=1)
    leaf = pred.requires_grad_()
    values = [float(auto(x, leaf, leaf.square().sum()).detach() / auto.energy / auto.force.ratio) for _ in range(3)]
    assert values == pytest.approx([0.2, 0.4, 0.4], rel=1e-5)
    assert float(made(weight=0)(x, pred.detach())) == 0


def test_no_gradient_leaves_the_ratio():
    force = EnergyWeight("auto:0.5")
    pred = torch.ones(2, 3, requires_grad=True)

    def call(pull, gradient):
        return float(force(torch.full((2, 3), gradient), pred, (pull * pred).sum()))

    assert call(0.0, 1.0) == 0  # no ratio yet, so no force
    assert call(6.0, 2.0) == pytest.approx(1.5)
    assert call(0.0, 2.0) == call(6.0, 0.0) == call(math.nan, 1.0) == call(math.inf, 1.0) == pytest.approx(1.5)
    assert call(12.0, 2.0) == pytest.approx(0.5 * (0.99 * 3 + 0.01 * 6))
    assert float(force(torch.ones(2, 3), pred.detach(), torch.tensor(1.0))) == float(force.value) > 1.5


def test_position_loss_can_be_used_afterwards():
    """Ours are fused and keep buffers for one backward pass; its gradient is wanted twice here."""
    x, y, pred = scene(2, 9)
    terms = {"mpjpe": 1.0, "velocity": 0.5, "bone_symmetry": 0.1, "limb_length": 0.2}
    for position in (lambda p: structloss.mpjpe(p, y), lambda p: structloss.objective(p, y, terms).total):
        loss = made(weight="auto:0.05")
        leaf, apart = pred.clone().requires_grad_(), pred.clone().requires_grad_()
        first = position(leaf)
        (first + loss(x, leaf, first)).backward()
        (pull,) = torch.autograd.grad(position(apart), apart)
        (energy,) = torch.autograd.grad(loss.net(x, apart).mean(), apart)
        expected = pull + 0.05 * pull.norm() / energy.norm() * energy
        torch.testing.assert_close(leaf.grad, expected, rtol=1e-4, atol=1e-7)


def test_two_backward_passes_add_up():
    loss = made(weight="auto:0.05")
    x, y, pred = scene(2, 3)
    leaf = pred.clone().requires_grad_()
    position = structloss.mpjpe(leaf, y)
    total = position + loss(x, leaf, position)
    total.backward(retain_graph=True)
    once = leaf.grad.clone()
    total.backward()
    torch.testing.assert_close(leaf.grad, 2 * once)


# The loss network's side


def test_update_changes_the_loss_net_only():
    loss = made(negatives=("prediction", "noise"))
    x, y, _ = scene(2, 3)
    pose_net = torch.nn.Linear(2, 3)
    before, pose_before = weights_of(loss), copy.deepcopy(pose_net.state_dict())
    x.requires_grad_(), y.requires_grad_()
    pred = pose_net(x)
    seen = loss.update(x, y, pred)
    assert not same(loss.net.state_dict(), before) and same(pose_net.state_dict(), pose_before)
    assert all(p.grad is None for p in (*loss.parameters(), *pose_net.parameters(), x, y))
    assert all(value.dim() == 0 and not value.requires_grad for value in seen.values())
    assert set(seen) == {"loss", "energy", "active", "gap/prediction", "rank/prediction", "gap/noise", "rank/noise"}
    pred.sum().backward()  # its graph is untouched


def test_update_under_no_grad_and_on_read_only_poses():
    a, b = made(), made()
    x, y, pred = scene(2, 3)
    a.update(x, y, pred)
    with torch.no_grad():
        b.update(x.expand(2, 3, 17, 2), y, pred)
    assert same(a.net.state_dict(), b.net.state_dict())


@pytest.mark.parametrize("distance", ["mpjpe", "mse", "l1"])
@pytest.mark.parametrize("delta", ["sample", "batch"])
def test_margin_by_hand(distance, delta):
    loss = made(dtype=torch.float64, distance=distance, delta=delta, margin=30.0)
    x, y, pred = scene(3, 4, dtype=torch.float64)
    pred *= torch.linspace(0.5, 3, 12, dtype=torch.float64).view(3, 4, 1, 1)
    pred = pred + 1  # moved to the pelvis first
    off = pred - pred[..., :1, :] - y
    apart = {"mpjpe": off.norm(dim=-1).mean(-1), "mse": off.square().mean((-2, -1)), "l1": off.abs().mean((-2, -1))}[
        distance
    ]
    if delta == "batch":
        apart = apart.mean().expand(3, 4)
    with torch.no_grad():
        true, negative = loss.net(x, y), loss.net(x, pred)
    seen = loss.update(x, y, pred)
    expected = {
        "loss": hinge(30 * apart, true - negative).mean(),
        "energy": true.mean(),
        "gap/prediction": (negative - true).mean(),
        "rank/prediction": (negative > true).double().mean(),
        "active": (30 * apart + true > negative).double().mean(),
    }
    assert set(seen) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(seen[name], value, rtol=1e-10, atol=1e-12, msg=name)
    assert distance == "mse" or expected["loss"] > 0.1


def test_negatives_add_up_and_share_a_batch():
    """Two negatives that are both the prediction: the loss twice; with batch statistics of all three."""
    one, two = made(dtype=torch.float64), made(dtype=torch.float64, negatives=("prediction", "prediction"))
    x, y, pred = scene(2, 3, dtype=torch.float64)
    torch.testing.assert_close(two.update(x, y, pred)["loss"], 2 * one.update(x, y, pred)["loss"])
    norm = made("linear", dtype=torch.float64, net={"dropout": 0.0})
    net = copy.deepcopy(norm.net).train()
    with torch.no_grad():
        true, negative = net(torch.stack([x, x]), torch.stack([y, pred]))
    delta = (pred - pred[..., :1, :] - y).norm(dim=-1).mean(-1)
    torch.testing.assert_close(norm.update(x, y, pred)["loss"], hinge(delta, true - negative).mean())


def test_nce_with_densities_by_hand():
    loss = made(dtype=torch.float64, objective="nce_ranking", temperature=0.3, density=40.0)
    x, y, pred = scene(2, 3, dtype=torch.float64, noise=0.01)
    with torch.no_grad():
        true, negative = loss.net(x, y), loss.net(x, pred)
        squares = (pred - pred[..., :1, :] - y).square().sum((-2, -1))
        # q(prediction) = 1 and q(y) = exp(-|y - prediction|² / 2 sigma²) up to a constant
        score = torch.exp(-true / 0.3) / torch.exp(-squares / (2 * 0.04**2))
        expected = -torch.log(score / (score + torch.exp(-negative / 0.3))).mean()
    torch.testing.assert_close(loss.update(x, y, pred)["loss"], expected, rtol=1e-9, atol=1e-12)
    plain = made(dtype=torch.float64, objective="nce_ranking", temperature=0.3)
    assert abs(plain.update(x, y, pred)["loss"] - expected) > 1e-3


def test_pair_term_by_hand():
    """Four frames have two windows of three, so whichever is drawn first the pair is the same."""
    weight, kappa = 7.0, 0.01
    options = {"pair_weight": weight, "pair_kappa": kappa}
    x, y, pred = scene(3, 4, dtype=torch.float64)
    with torch.no_grad():
        energy = made(dtype=torch.float64).net(x, pred)
    moved = (y[:, :3].mean(1) - y[:, 1:].mean(1)).norm(dim=-1).mean(-1)
    pair = hinge(-kappa * moved, (energy[:, :3].mean(1) - energy[:, 1:].mean(1)).abs())
    assert pair.min() > 0
    bare = made(dtype=torch.float64).update(x, y, pred)["loss"]
    loss = made(dtype=torch.float64, **options).update(x, y, pred)["loss"]
    torch.testing.assert_close(loss - bare, weight * pair.mean(), rtol=1e-10, atol=1e-12)
    # A clip with a frame that is left out counts 0.
    seen = torch.ones(3, 4, 17)
    seen[1, 2, 5] = 0
    bare = made(dtype=torch.float64).update(x, y, pred, weight=seen)["loss"]
    loss = made(dtype=torch.float64, **options).update(x, y, pred, weight=seen)["loss"]
    torch.testing.assert_close(loss - bare, weight * (pair[0] + pair[2]) / 3, rtol=1e-10, atol=1e-12)
    # Too short for two windows
    bare, loss = (made(dtype=torch.float64, **o).update(x[:, :3], y[:, :3], pred[:, :3])["loss"] for o in ({}, options))
    assert torch.equal(bare, loss)


def test_penalty_by_hand():
    x, y, pred = scene(3, 4, dtype=torch.float64)
    seen = torch.ones(3, 4, 17)
    seen[0] = 0
    with torch.no_grad():
        energy = made(dtype=torch.float64).net(x, y)
    for weight, expected in ((None, energy.square().mean()), (seen, energy[1:].square().mean())):
        bare = made(dtype=torch.float64).update(x, y, pred, weight=weight)["loss"]
        loss = made(dtype=torch.float64, penalty=3.0).update(x, y, pred, weight=weight)["loss"]
        torch.testing.assert_close(loss - bare, 3 * expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("variant", ["graph-small", "linear-small"])
def test_objectives_are_learned(objective, variant):
    loss = made(variant, seed=2, objective=objective, lr=1e-3)
    x, y, pred = scene(4, 4)
    curve = [loss.update(x, y, pred) for _ in range(70)]
    first, last = float(curve[0]["loss"]), float(curve[-1]["loss"])
    assert last < 0.8 * first, (first, last)
    assert curve[-1]["rank/prediction"] > 0.9 and curve[-1]["gap/prediction"] > 0
    assert ("active" in curve[0]) == (objective == "margin")


@pytest.mark.parametrize("name", ["bone_rotation", "limb_swap", "noise"])
def test_corruptions_are_told_from_the_truth(name):
    """Drawn anew at every step, so none of them can be remembered; nothing is predicted."""
    loss = made(negatives=(name,), lr=2e-3, margin=3.0, net={"dim": 32})
    rank = []
    for step in range(100):
        x, y, _ = scene(16, 4, seed=step)
        rank.append(float(loss.update(x, y, lr_factor=1 - step / 100)[f"rank/{name}"]))
    assert sum(rank[-10:]) / 10 > 0.85 and sum(rank[:3]) / 3 < 0.75, rank


def test_margins_below_zero_have_no_hinge():
    loss = made(dtype=torch.float64, margin=-1.0)
    x, y, pred = scene(2, 3, dtype=torch.float64)
    with torch.no_grad():
        expected = (loss.net(x, y) - loss.net(x, pred)).mean()
    seen = loss.update(x, y, pred)
    torch.testing.assert_close(seen["loss"], expected)
    assert "active" not in seen


def test_clip_and_rate():
    """AdamW's first step is the rate for every weight, whatever the gradient; its state holds the clipped gradient."""
    x, y, pred = scene(2, 3)
    norms = {}
    for clip in (0.0, 1e-3):
        loss = made(clip=clip, lr=1e-2, margin=10.0)
        before = weights_of(loss)
        loss.update(x, y, pred, lr_factor=0.25)
        state = loss.optimizer.state
        norms[clip] = float(torch.cat([state[p]["exp_avg"].flatten() for p in state]).norm()) / 0.1
        moved = (loss.net.body.in_proj.weight - before["body.in_proj.weight"]).abs()
        assert float(moved.max()) == pytest.approx(2.5e-3, rel=1e-3)
    assert norms[0.0] > 0.1 and norms[1e-3] == pytest.approx(1e-3, rel=1e-2)


# Which frames count


@pytest.mark.parametrize("variant", ["graph-small", "graph-temporal"])
@pytest.mark.parametrize("frames", [None, 2])
def test_frames_of_weight_zero_may_hold_anything(variant, frames):
    x, y, pred = scene(3, 5)
    seen = torch.ones(3, 5, 17)
    seen[0, 1] = 0
    seen[2, 4, 7] = 0
    out = (seen == 0).any(-1)
    results = []
    for value in (math.nan, 7.0, math.inf):
        xs, ys, ps = (torch.where(out[..., None, None], value, t) for t in (x, y, pred))
        kinds = ("prediction", "bone_rotation", "limb_swap")
        loss = made(variant, weight="auto:0.1", negatives=kinds, frames=frames, penalty=0.1, delta="batch")
        torch.manual_seed(3)
        numbers = loss.update(xs, ys, ps, weight=seen)
        leaf = ps.clone().requires_grad_()
        position = torch.where(out[..., None, None], 0.0, leaf - ys).square().sum()
        loss(xs, leaf, position, weight=seen).backward()
        assert torch.isfinite(leaf.grad).all() and (leaf.grad[out] == 0).all() and leaf.grad.abs().max() > 0
        results.append((numbers | {"force": loss.force.value}, leaf.grad, weights_of(loss)))
        assert all(torch.isfinite(number) for number in numbers.values())
    for numbers, gradient, weights in results[1:]:
        assert same(results[0][0], numbers) and torch.equal(gradient, results[0][1]) and same(results[0][2], weights)


def test_frames_of_weight_zero_are_left_out():
    x, y, pred = scene(3, 5, dtype=torch.float64)
    seen = torch.ones(3, 5, 17, dtype=torch.int64)
    seen[0, 1:] = 0
    seen[2, 4, 7] = 0
    kept = seen.bool().all(-1)
    part = [t[kept][None] for t in (x, y, pred)]
    for delta in ("sample", "batch"):
        a, b = made(dtype=torch.float64, delta=delta), made(dtype=torch.float64, delta=delta)
        some, whole = a.update(x, y, pred, weight=seen), b.update(*part)
        for name in whole:
            torch.testing.assert_close(some[name], whole[name], msg=name)
        leaf, small = pred.clone().requires_grad_(), part[2].clone().requires_grad_()
        # Adam's first step is a sign, wherever the gradient is not nearly 0.
        torch.testing.assert_close(a(x, leaf, weight=seen), b(part[0], small), rtol=1e-4, atol=1e-6)
        a.net.load_state_dict(b.net.state_dict())
        a(x, leaf, weight=seen).backward(), b(part[0], small).backward()
        torch.testing.assert_close(leaf.grad[kept], small.grad[0])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_frames_at_all(objective):
    """A batch without a frame that counts, or without any: 0, finite, and no sign of a collapse."""
    loss = made(objective=objective, weight="auto:0.1", negatives=("prediction", "bone_rotation"), delta="batch")
    x, y, pred = scene(2, 3)
    before = weights_of(loss)
    nothing = torch.zeros(2, 3, 17)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(52):
            if step % 2:
                seen = loss.update(x, y, pred * math.nan, weight=nothing)
            else:
                seen = loss.update(x[:0], y[:0], pred[:0])
            assert all(float(value) == 0 for value in seen.values())
    assert same(loss.net.state_dict(), before) and float(loss.rank) == pytest.approx(1) and float(loss.level) < 10
    for inputs, weight in (((x, pred.clone()), nothing), ((x[:0], pred[:0]), None)):
        leaf = inputs[1].requires_grad_()
        value = loss(inputs[0], leaf, leaf.square().sum(), weight=weight)
        value.backward()
        assert float(value.detach()) == 0 and (leaf.grad == 0).all()


@pytest.mark.parametrize("variant", ["graph-small", "graph-temporal"])
def test_a_draw_of_frames(variant):
    loss = made(variant, frames=3)
    x, _, pred = scene(2, 9)
    drawn = set()
    for _ in range(12):
        leaf = pred.clone().requires_grad_()
        loss(x, leaf).backward()
        where = leaf.grad.abs().amax((-2, -1)) > 0
        assert where.sum(1).tolist() == [3, 3] and torch.equal(where[0], where[1])
        drawn.add(tuple(where[0].nonzero().flatten().tolist()))
        at = where[0]
        torch.testing.assert_close(loss.energy, loss.net(x[:, at], pred[:, at]).mean().detach())
    runs = [set(frames) == set(range(min(frames), min(frames) + 3)) for frames in drawn]
    assert len(drawn) > 3 and (all(runs) if variant == "graph-temporal" else not all(runs))
    all_of_them = made(variant, frames=9)
    assert torch.equal(all_of_them(x, pred), made(variant)(x, pred))
    assert all_of_them.update(x, pred, pred + 0.1)["loss"] == made(variant).update(x, pred, pred + 0.1)["loss"]


def test_the_loss_nets_step_takes_a_draw_of_frames():
    seen = []
    loss = made(frames=3, negatives=("prediction", "noise"))
    loss.net.body.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    x, y, pred = scene(2, 9)
    loss.update(x, y, pred)
    assert [shape[:2].numel() for shape in seen] == [3 * 2 * 3]  # truth and two negatives, two clips, three frames


def test_temporal_nets_learn_the_order_of_frames():
    loss = made("graph-temporal", negatives=("shuffled_frames",), lr=3e-3)
    g = torch.Generator().manual_seed(2)
    x, y, _ = scene(6, 9)
    drift = torch.linspace(0, 1, 9).view(9, 1, 1) * 0.5 * torch.randn(6, 1, 17, 3, generator=g)
    y = y[:, :1] + drift
    x = (y[..., :2] / 2).clone()
    curve = [float(loss.update(x, y)["loss"]) for _ in range(60)]
    assert sum(curve[-5:]) < 0.5 * sum(curve[:5]), curve


# Units and joints


@pytest.mark.parametrize("unit", [0.25, torch.tensor([[0.5, 1.0, 2.0], [0.25, 4.0, 1.0]])])
def test_units(unit):
    x, y, pred = scene(2, 3, dtype=torch.float64)
    factor = unit[..., None, None].double() if isinstance(unit, torch.Tensor) else unit
    unit = unit.double() if isinstance(unit, torch.Tensor) else unit
    kinds = ("prediction", "noise")
    a, b = (made(dtype=torch.float64, negatives=kinds, frames=2) for _ in range(2))
    results = []
    for loss, scale, u in ((a, 1.0, 1.0), (b, factor, unit)):
        torch.manual_seed(5)
        seen = loss.update(x, y / scale, pred / scale, unit=u)
        leaf = (pred / scale).requires_grad_()
        value = loss(x, leaf, unit=u)
        value.backward()
        results.append((seen, value, leaf.grad / scale))
    for name, value in results[0][0].items():
        torch.testing.assert_close(results[1][0][name], value, msg=name)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(results[1][2], results[0][2], rtol=1e-5, atol=1e-9)


WITHOUT_NECK = tuple(j for j in range(17) if j != 9)


@pytest.mark.parametrize("planar", [16, 17])
def test_left_out_joints_are_put_between_their_neighbours(planar):
    x, y, pred = scene(2, 3, dtype=torch.float64)
    part = list(WITHOUT_NECK)

    def whole(clip):
        full = clip.clone()
        full[..., 9, :] = (full[..., 8, :] + full[..., 10, :]) / 2
        return full

    a, b = made(dtype=torch.float64, joints=part), made(dtype=torch.float64)
    xs = (x, x) if planar == 17 else (x[..., part, :], whole(x))
    seen, want = a.update(xs[0], y[..., part, :], pred[..., part, :]), b.update(xs[1], whole(y), whole(pred))
    for name, value in want.items():
        torch.testing.assert_close(seen[name], value, msg=name)
    a.net.load_state_dict(b.net.state_dict())
    leaf, full = pred[..., part, :].clone().requires_grad_(), pred.clone().requires_grad_()
    a(xs[0], leaf).backward()
    b(xs[1], whole(full)).backward()
    torch.testing.assert_close(leaf.grad, full.grad[..., part, :])
    weight = torch.ones(2, 3, 16)
    weight[0, 0, 15] = 0
    broken = pred[..., part, :].clone()
    broken[0, 0, 15] = math.nan
    leaf = broken.requires_grad_()
    a(xs[0], leaf, weight=weight).backward()
    assert torch.isfinite(leaf.grad).all() and (leaf.grad[0, 0] == 0).all() and leaf.grad[0, 1].abs().max() > 0


def test_ends_and_other_orders_of_joints():
    """The head hangs on its one neighbour; poses may come in any order."""
    order = [16, 3, 0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15]
    x, _, pred = scene(2, 3, dtype=torch.float64)
    full = pred.clone()
    full[..., 10, :] = full[..., 9, :]
    a, b = made(dtype=torch.float64, joints=order), made(dtype=torch.float64)
    torch.testing.assert_close(a(x, pred[..., order, :]), b(x, full))
    assert made(joints=range(17)).inputs.completion is None


def test_made_joints_are_not_rounded_under_autocast():
    loss, seen = made(joints=WITHOUT_NECK), []
    loss.net.register_forward_pre_hook(lambda module, inputs: seen.append([t.detach().clone() for t in inputs]))
    x, y, pred = (t[..., WITHOUT_NECK, :] for t in scene(2, 3))
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss(x, pred)
            loss.update(x, y, pred)
    for plain, cast in zip([*seen[0], *seen[1]], [*seen[2], *seen[3]], strict=True):
        assert torch.equal(plain, cast)
    pose = seen[0][1]
    torch.testing.assert_close(pose[..., 9, :], (pose[..., 8, :] + pose[..., 10, :]) / 2, rtol=0, atol=1e-7)


# State


def run(loss, steps, start=0):
    """What training records, and the gradient on predictions, in the steps' own random numbers."""
    found = []
    for step in range(start, start + steps):
        torch.manual_seed(100 + step)
        x, y, pred = scene(2, 5, seed=step)
        seen = loss.update(x, y, pred, lr_factor=1 - step / 20)
        leaf = pred.clone().requires_grad_()
        loss(x, leaf, structloss.mpjpe(leaf, y)).backward()
        found.append({**seen, "gradient": leaf.grad, "force": loss.force.value.clone()})
    return found


STATEFUL = {
    "weight": "auto:0.1",
    "warmup": 6,
    "negatives": ("prediction", "bone_rotation", "noise"),
    "frames": 3,
    "lr": 1e-2,
}


@pytest.mark.parametrize("variant", ["graph-small", "linear"])
def test_state_goes_on_bit_by_bit(tmp_path, variant):
    loss = made(variant, **STATEFUL)
    run(loss, 4)
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    copied, thawed = copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))
    fresh = made(variant, seed=9, **STATEFUL)
    assert fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    wanted = run(loss, 3, 4)
    for other in (fresh, copied, thawed):
        assert all(same(a, b) for a, b in zip(wanted, run(other, 3, 4), strict=True))
        assert same(weights_of(loss), weights_of(other))
    assert float(fresh.force.calls) == 7 and fresh._updates == 7


def test_same_seed_same_training():
    assert all(same(a, b) for a, b in zip(run(made(**STATEFUL), 4), run(made(**STATEFUL), 4), strict=True))
    torch.manual_seed(100)
    assert not same(run(made(**STATEFUL), 2)[-1], run(made(seed=2, **STATEFUL), 2)[-1])


def test_a_copy_is_trained_apart():
    loss = made(lr=1e-2)
    x, y, pred = scene(2, 3)
    loss.update(x, y, pred)
    other, before = copy.deepcopy(loss), weights_of(loss)
    other.update(x, y, pred)
    assert same(loss.net.state_dict(), before) and not same(other.net.state_dict(), before)


def test_frozen_is_frozen():
    loss = made(weight="auto:0.1")
    x, y, pred = scene(2, 3)
    loss.update(x, y, pred)
    loss.freeze()
    before = weights_of(loss)
    assert loss.update(x, y) == {} and same(loss.net.state_dict(), before)
    leaf = pred.clone().requires_grad_()
    loss(x, leaf, leaf.square().sum()).backward()
    assert leaf.grad.abs().max() > 0
    other = made(weight="auto:0.1")
    other.load_state_dict(loss.state_dict())
    assert other.frozen and other.update(x, y, pred) == {}


# Trouble


def updates(loss, count, x, y, pred):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(count):
            loss.update(x, y, pred)
    return caught


def test_a_collapse_is_told_once():
    """Predictions that are the truth can't be told from it."""
    loss = made()
    x, y, pred = scene(1, 2)
    caught = updates(loss, 110, x, y, y.clone())
    assert [str(w.message) for w in caught] == [
        "the loss network ranks only 36% of the negatives above the truth (chance: 50%): it has collapsed, and its "
        "gradient improves no pose. Try another lr, other negatives (now prediction), or penalty > 0."
    ]
    assert caught[0].filename == __file__
    # Once it has recovered it may collapse again.
    loss.lr, loss.margin = 3e-3, 5.0
    assert not updates(loss, 140, x, y, pred) and float(loss.rank) > 0.6
    loss.lr = 1e-9
    assert len(updates(loss, 100, x, y, y.clone())) == 1


def test_energies_that_run_away_are_told_once():
    loss = made(lr=3e-3, margin=5.0)
    x, y, pred = scene(1, 2)
    assert not updates(loss, 60, x, y, pred)
    with torch.no_grad():
        loss.net.body.head[-1].bias += 1e5
    caught = updates(loss, 120, x, y, pred)
    assert (
        len(caught) == 1
        and "gives energies of" in str(caught[0].message)
        and "grow without bound" in str(caught[0].message)
    )


@pytest.mark.parametrize("where", ["x", "target", "prediction"])
def test_what_is_not_finite_is_an_error_soon(where):
    loss = made()
    poses = dict(zip(("x", "target", "prediction"), scene(1, 2), strict=True))
    poses[where][0, 1, 3, 0] = math.nan
    for _ in range(49):
        loss.update(*poses.values())
    with pytest.raises(DataError, match=r"energies are nan after 50 updates, expected finite numbers"):
        loss.update(*poses.values())


# Processes


def shared_run(clips, clip):
    loss = made(dtype=torch.float64, weight="auto:0.1", lr=1e-2, clip=clip, penalty=0.1, delta="sample")
    found = {}
    for step in range(4):
        x, y, pred = (t[clips] for t in scene(4, 3, dtype=torch.float64, seed=step))
        loss.update(x, y, pred)
        leaf = pred.clone().requires_grad_()
        loss(x, leaf, structloss.mpjpe(leaf, y)).backward()
        found[f"gradient {step}"] = leaf.grad
        found[f"lambda {step}"] = loss.force.value.clone()
    return found | weights_of(loss)


def _worker(rank, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        torch.set_num_threads(1)
        torch.save([shared_run(slice(2 * rank, 2 * rank + 2), clip) for clip in (0.0, 1e-2)], f"{results}.{rank}")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow(seconds=8)
def test_two_processes_equal_one(tmp_path):
    """Each with half of the batch: the same loss networks, the same λ and, averaged as DDP does, the same gradients."""
    mp.spawn(_worker, args=(tmp_path / "store", tmp_path / "values"), nprocs=2)
    for i, clip in enumerate((0.0, 1e-2)):
        expected = shared_run(slice(None), clip)
        for rank in range(2):
            found = torch.load(f"{tmp_path / 'values'}.{rank}", weights_only=True)[i]
            for key, value in expected.items():
                if key.startswith("gradient"):
                    value = 2 * value[2 * rank : 2 * rank + 2]
                torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-9, msg=key)


# Where training begins


@pytest.mark.parametrize("variant", VARIANTS)
def test_first_gradients_are_finite(variant):
    """Predictions that are all zeros, the truth itself, or far off, in the first step of a fresh loss."""
    torch.manual_seed(0)
    loss = LearnedLoss(variant, negatives=("prediction", "bone_rotation", "bone_scaling", "mirrored_depth"))
    x, y, pred = scene(1, 2)
    for guess in (torch.zeros_like(y), y.clone(), 100 * pred):
        leaf = guess.requires_grad_()
        loss.update(x, y, leaf)
        position = (leaf - y).square().sum()
        value = loss(x, leaf, position)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(leaf.grad).all()
        assert all(torch.isfinite(p).all() for p in loss.parameters())


def test_defaults():
    loss = LearnedLoss()
    assert loss.net.variant == "graph" and loss.negatives == ("prediction", "bone_rotation")
    assert loss.force.share == 0.05 and loss.lr == 1e-4
    assert LearnedLoss("linear-small", skeleton="mpii").net.skeleton == get("mpii")


# Bad input

X, Y, P = scene(2, 3)
N = LossNet("h36m", "graph-small", dim=8, heads=2, depth=1)


def fresh(**options):
    return LearnedLoss(copy.deepcopy(N), **{"weight": 1.0, **options})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fresh(weight=-0.1), ArgumentError, r"weight is -0.1, expected a finite number >= 0 or 'auto:SHARE'"),
        (lambda: fresh(weight="auto:x"), ArgumentError, "weight is 'auto:x'"),
        (lambda: fresh(weight="auto"), ArgumentError, "weight is 'auto'"),
        (lambda: fresh(weight="auto:-1"), ArgumentError, "weight is 'auto:-1'"),
        (lambda: fresh(weight="auto:inf"), ArgumentError, "weight is 'auto:inf'"),
        (lambda: fresh(weight=math.nan), ArgumentError, "weight is nan"),
        (lambda: fresh(weight=None), ArgumentError, "weight is None"),
        (lambda: fresh(warmup=-1), ArgumentError, "warmup is -1, expected a whole number of at least 0"),
        (lambda: fresh(objective="hinge"), ArgumentError, "objective is 'hinge', expected one of 'margin', 'nce'"),
        (lambda: fresh(negatives=()), ArgumentError, "negatives is empty"),
        (
            lambda: fresh(negatives=("predictions",)),
            UnknownNameError,
            "unknown negative 'predictions': did you mean 'prediction'",
        ),
        (
            lambda: fresh(negatives=("shuffled_frames",)),
            ArgumentError,
            "'shuffled_frames', expected a temporal loss network",
        ),
        (lambda: fresh(distance="l2"), ArgumentError, "distance is 'l2', expected one of 'mpjpe', 'mse', 'l1'"),
        (lambda: fresh(delta="frame"), ArgumentError, "delta is 'frame', expected one of 'sample', 'batch'"),
        (lambda: fresh(temperature=0), ArgumentError, "temperature is 0, expected a number > 0"),
        (lambda: fresh(lr=0.0), ArgumentError, r"lr is 0.0, expected a number > 0"),
        (lambda: fresh(lr=math.nan), ArgumentError, "lr is nan"),
        (lambda: fresh(objective="nce_ranking", density=0), ArgumentError, "density is 0, expected a number > 0"),
        (lambda: fresh(density=20.0), ArgumentError, "density is 20.0, expected None with the objective 'margin'"),
        (lambda: fresh(pair_weight=-1), ArgumentError, "pair_weight is -1, expected a number >= 0"),
        (lambda: fresh(pair_weight=0.1, frames=3), ArgumentError, r"pair_weight is 0.1, expected 0 unless all frames"),
        (lambda: fresh(pair_weight=0.1, negatives=("noise",)), ArgumentError, r"pair_weight is 0.1, expected 0 unless"),
        (lambda: fresh(penalty=-1), ArgumentError, "penalty is -1"),
        (lambda: fresh(clip=-1), ArgumentError, "clip is -1"),
        (lambda: fresh(frames=0), ArgumentError, "frames is 0, expected None or a whole number of at least 1"),
        (lambda: fresh(frames=2.5), ArgumentError, "frames is 2.5"),
        (
            lambda: fresh(joints=(0, 0, 1)),
            ArgumentError,
            r"joints is \[0, 0, 1\], expected different numbers from 0 to 16",
        ),
        (lambda: fresh(joints=range(18)), ArgumentError, "expected different numbers from 0 to 16"),
        (lambda: fresh(joints=range(15)), ArgumentError, "joints lacks 16 and all of its neighbours"),
        (lambda: LearnedLoss("graf"), UnknownNameError, "unknown loss network 'graf': did you mean 'graph'"),
        (lambda: LearnedLoss("graph", skeleton="h3"), UnknownNameError, "unknown skeleton 'h3'"),
        (
            lambda: fresh().update(X, Y),
            ArgumentError,
            r"prediction is None, expected poses like target's \[2, 3, 17, 3\]",
        ),
        (
            lambda: fresh(objective="nce_ranking", density=9.0, negatives=("noise",)).update(X, Y),
            ArgumentError,
            "prediction is None",
        ),
        (
            lambda: fresh().update(X, Y, P[:1]),
            ArgumentError,
            r"prediction has shape \[1, 3, 17, 3\], expected \[2, 3, 17, 3\]",
        ),
        (
            lambda: fresh().update(X, Y[0, 0], P[0, 0]),
            ArgumentError,
            r"target has shape \[17, 3\], expected \[\.\.\., T, J, 3\]",
        ),
        (lambda: fresh().update(X, Y.long(), P), DtypeError, "target has dtype torch.int64"),
        (lambda: fresh().update(X.long(), Y, P), DtypeError, "x has dtype torch.int64"),
        (
            lambda: fresh().update(X[:, :2], Y, P),
            ArgumentError,
            r"x has shape \[2, 2, 17, 2\], expected \[2, 3, 17\] and 2 or 3",
        ),
        (lambda: fresh().update(X[0], Y, P), ArgumentError, r"x has shape \[3, 17, 2\]"),
        (
            lambda: fresh().update(X[..., :16, :], Y, P),
            ArgumentError,
            r"x has shape \[2, 3, 16, 2\], expected \[2, 3, 17\]",
        ),
        (lambda: fresh().update(X[..., :1], Y, P), ArgumentError, r"x has shape \[2, 3, 17, 1\]"),
        (lambda: fresh(frames=2)(X[:, :1], P), ArgumentError, r"x has shape \[2, 1, 17, 2\]"),
        (
            lambda: fresh().update(X, Y, P, weight=torch.ones(2, 3)),
            ArgumentError,
            r"weight has shape \[2, 3\], expected \[2, 3, 17\]",
        ),
        (lambda: fresh()(X, P, weight=torch.ones(2, 3, 16)), ArgumentError, r"weight has shape \[2, 3, 16\]"),
        (
            lambda: fresh()(X, P, unit=torch.ones(2)),
            ArgumentError,
            r"unit has shape \[2\], expected \[2, 3\] or a number",
        ),
        (lambda: fresh()(X[..., :16, :], P[..., :16, :]), ArgumentError, r"y has shape \[2, 3, 16, 3\], expected"),
        (lambda: fresh(joints=WITHOUT_NECK)(X, P), ArgumentError, "a pose has 17 joints, expected 16"),
        (lambda: fresh()(X, P[0, 0]), ArgumentError, r"prediction has shape \[17, 3\], expected \[\.\.\., T, J, 3\]"),
        (lambda: fresh()(X, P.long()), DtypeError, "prediction has dtype torch.int64"),
        (lambda: fresh(weight="auto:0.1")(X, P), ArgumentError, "position_loss is None, expected the other losses"),
        (
            lambda: fresh(weight="auto:0.1")(X, P, 3.0),
            DtypeError,
            "position_loss is a float, expected a floating-point tensor",
        ),
        (
            lambda: fresh(weight="auto:0.1")(X, P.clone().requires_grad_(), torch.ones(1, requires_grad=True).sum()),
            ArgumentError,
            "position_loss does not depend on prediction",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.gpu
def test_on_a_gpu_as_on_the_cpu():
    torch.manual_seed(0)
    loss = LearnedLoss("graph-small", negatives=["prediction"], weight="auto:0.1")
    twin = copy.deepcopy(loss).cuda()
    x, y = torch.randn(4, 9, 17, 2), torch.randn(4, 9, 17, 3)
    pred = (y + 0.1 * torch.randn_like(y)).requires_grad_()
    other = pred.detach().cuda().requires_grad_()
    here = loss.update(x, y, pred.detach())
    there = twin.update(x.cuda(), y.cuda(), other.detach())
    for key, value in here.items():
        torch.testing.assert_close(there[key].cpu(), value, rtol=1e-3, atol=1e-4)
    loss(x, pred, structloss.mpjpe(pred, y)).backward()
    twin(x.cuda(), other, structloss.mpjpe(other, y.cuda())).backward()
    torch.testing.assert_close(other.grad.cpu(), pred.grad, rtol=1e-2, atol=1e-5)
