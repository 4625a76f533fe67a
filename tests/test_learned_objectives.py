"""Objectives of a loss network: golden figures, definitions in numpy, gradients, weights and bad input."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.fill import fill_input
from hypothesis import given, settings
from hypothesis import strategies as st

from structloss.errors import ArgumentError, DtypeError, UnknownNameError
from structloss.learned import objectives as o

GOLDEN = np.load(Path(__file__).parent / "golden" / "learned_loss.npz")
NAN = math.nan


def tensor(value):
    return torch.as_tensor(value, dtype=torch.float64)


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, tensor(expected), rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def published():
    """Energies of truth and prediction, poses of truth and prediction."""
    truth, pred = (tensor(fill_input(name, (4, 27, 17, 3))) for name in ("loss-gt", "loss-pred"))
    return tensor(GOLDEN["objective_energy_gt"]), tensor(GOLDEN["objective_energy_pred"]), truth, pred


def drawn(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    true, negative = torch.randn(2, *shape, generator=g, dtype=torch.float64)
    return true, negative, torch.rand(*shape, generator=g, dtype=torch.float64)


# Published figures


def test_distances(published):
    _, _, truth, pred = published
    close(o.structured_distance(pred, truth), GOLDEN["delta_per_sample"])
    off = (pred - truth).numpy()
    close(o.structured_distance(pred, truth, "mse"), (off**2).reshape(4, 27, -1).mean(-1))
    close(o.structured_distance(pred, truth, "l1"), np.abs(off).reshape(4, 27, -1).mean(-1))
    close(o.structured_distance(pred[0, 0], truth[0, 0]), GOLDEN["delta_per_sample"][0, 0])
    assert not o.structured_distance(pred.clone().requires_grad_(), truth).requires_grad


def test_published_margin(published):
    true, negative, _, _ = published
    delta = tensor(GOLDEN["delta_per_sample"])
    close(o.margin(true, negative, delta), GOLDEN["margin_sample_mpjpe"])
    close(o.margin(true, negative, o.per_batch(delta)), GOLDEN["margin_batch_mpjpe"])
    close(o.margin(10 * true, 10 * negative, delta), GOLDEN["margin_sample_mpjpe_x10"])
    close(o.margin(10 * true, 10 * negative, o.per_batch(delta)), GOLDEN["margin_batch_mpjpe_x10"])
    close(o.margin(true, negative, delta, scale=-1), GOLDEN["margin_none"])


def test_published_nce(published):
    true, negative, _, _ = published
    close(o.nce(true, negative), GOLDEN["nce_tau1"])
    close(o.nce(true, negative, temperature=0.1), GOLDEN["nce_tau01"])
    energies, log_q = (tensor(fill_input(name, (108, 5))) for name in ("lossnet-E", "lossnet-logq"))
    close(o.ranking_nce(energies[:, 0], energies[:, 1:], temperature=0.5), GOLDEN["nce_multi"])
    dense = o.ranking_nce(energies[:, 0], energies[:, 1:], log_q=log_q, temperature=0.5)
    close(dense, GOLDEN["nce_multi_density"])


def test_published_pair_term(published):
    _, negative, truth, _ = published
    starts = (torch.from_numpy(GOLDEN["pair_start_t"]), torch.from_numpy(GOLDEN["pair_start_s"]))
    assert o.pairwise_temporal(negative, truth, *starts).item() == GOLDEN["pair_window3_kappa1"] == 0
    close(o.pairwise_temporal(negative, truth, *starts, kappa=0.01), GOLDEN["pair_window3_kappa001"])


# Definitions


def test_definitions_frame_by_frame():
    """Each objective as one sum over frames in plain Python, with weights."""
    true, negative, delta = drawn(3, 5)
    weight = torch.rand(3, 5, dtype=torch.float64)
    weight[0, :2] = 0

    def mean(frame):
        cells = torch.stack([true, negative, delta, weight], -1).view(-1, 4).tolist()
        return sum(w * frame(t, n, d) for t, n, d, w in cells) / sum(w for *_, w in cells)

    def entropy(t, n, d):
        p, oracle = 1 / (1 + math.exp(n)), math.exp(-d / 0.2)
        return -oracle * math.log(p) - (1 - oracle) * math.log(1 - p)

    k = {"weight": weight}
    close(o.margin(true, negative, delta, scale=2.5, **k), mean(lambda t, n, d: max(0, 2.5 * d + t - n)))
    close(o.margin(true, negative, delta, scale=-3.0, **k), mean(lambda t, n, d: t - n))
    close(o.nce(true, negative, temperature=0.7, **k), mean(lambda t, n, d: math.log(1 + math.exp((t - n) / 0.7))))
    close(
        o.ssvm_perceptron(true, negative, delta, scale=0.3, perceptron=0.4, **k),
        mean(lambda t, n, d: max(0, d / 0.3 + t - n) + 0.4 * max(0, t - n)),
    )
    close(o.regression(negative, delta, scale=0.2, **k), mean(entropy))
    close(o.per_batch(delta, weight), np.full((3, 5), mean(lambda t, n, d: d)))
    # One negative of equal density is the two-way contrast.
    close(o.ranking_nce(true, negative[..., None], temperature=0.7, **k), o.nce(true, negative, temperature=0.7, **k))


def test_density_moves_the_contrast():
    """q times c for one pose is energy + tau log c for it."""
    true, negative, _ = drawn(4, 6)
    log_q = torch.zeros(4, 6, 2, dtype=torch.float64)
    log_q[..., 1] = math.log(3.0)
    dense = o.ranking_nce(true, negative[..., None], log_q=log_q, temperature=0.5)
    close(dense, o.nce(true, negative + 0.5 * math.log(3.0), temperature=0.5))
    close(o.ranking_nce(true, negative[..., None], log_q=log_q + 7, temperature=0.5), dense)


def test_pair_term_clip_by_clip():
    g = torch.Generator().manual_seed(3)
    energy = torch.randn(6, 11, generator=g, dtype=torch.float64)
    pose = torch.randn(6, 11, 17, 3, generator=g, dtype=torch.float64)
    t, s = o.pair_starts(11, 4, 6, g)
    e, y = energy.numpy(), pose.numpy()
    terms = []
    for b, (i, j) in enumerate(zip(t.tolist(), s.tolist(), strict=True)):
        moved = np.linalg.norm(y[b, i : i + 4].mean(0) - y[b, j : j + 4].mean(0), axis=-1).mean()
        terms.append(max(0, abs(e[b, i : i + 4].mean() - e[b, j : j + 4].mean()) - 0.3 * moved))
    assert sum(x > 0 for x in terms) >= 2
    close(o.pairwise_temporal(energy, pose, t, s, window=4, kappa=0.3), np.mean(terms))


def test_starts_are_different_and_cover_all_pairs():
    t, s = o.pair_starts(6, 3, 4000, torch.Generator().manual_seed(1))
    assert t.dtype == s.dtype == torch.long
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (t.numpy(), s.numpy()), 1)
    assert (np.diag(counts) == 0).all()
    off = counts[~np.eye(4, dtype=bool)]
    assert off.min() > 250 and off.max() < 420  # 333 expected, standard deviation 17.5
    again = o.pair_starts(6, 3, 4000, torch.Generator().manual_seed(1))
    assert torch.equal(t, again[0]) and torch.equal(s, again[1])


@pytest.mark.parametrize("frames, window", [(0, 3), (1, 1), (2, 3), (3, 3)])
def test_no_room_for_two_windows(frames, window):
    t, s = o.pair_starts(frames, window, 5)
    energy = torch.randn(5, frames, requires_grad=True)
    term = o.pairwise_temporal(energy, torch.randn(5, frames, 17, 3), t, s, window=window)
    assert term.item() == 0
    term.backward()
    assert not energy.grad.any()


# One call for all


def test_uniform_entry():
    true, first, d1 = drawn(3, 4)
    _, second, d2 = drawn(3, 4, seed=1)
    weight = torch.rand(3, 4, dtype=torch.float64)
    negatives, k = [(first, d1), (second, d2)], {"weight": weight}

    def run(name, **given):
        return o.loss_net_objective(name, true, negatives, margin=1.7, temperature=0.6, **k, **given)

    close(run("margin"), o.margin(true, first, d1, scale=1.7, **k) + o.margin(true, second, d2, scale=1.7, **k))
    close(run("nce"), o.nce(true, first, temperature=0.6, **k) + o.nce(true, second, temperature=0.6, **k))
    two = sum(o.ssvm_perceptron(true, e, d, scale=1 / 1.7, **k) for e, d in negatives)
    close(run("ssvm"), two)
    log_q = torch.randn(3, 4, 3, dtype=torch.float64)
    stacked = torch.stack([first, second], -1)
    expected = o.ranking_nce(true, stacked, temperature=0.6, log_q=log_q, **k)
    close(run("nce_ranking", log_q=log_q), expected)
    close(run("regression"), sum(o.regression(e, d, **k) for e, d in [(true, torch.zeros_like(true)), *negatives]))
    assert set(o.OBJECTIVES) == {"margin", "nce", "nce_ranking", "ssvm", "regression"}


@pytest.mark.parametrize("name", o.OBJECTIVES)
def test_descent_ranks_the_truth_below(name):
    """Following the gradient, the energy of the truth sinks below the negatives', whatever the objective."""
    true, first, d1 = drawn(8)
    second = first.flip(0)
    energies = [x.clone().requires_grad_() for x in (true, first, second)]
    optimizer = torch.optim.SGD(energies, lr=4.0)
    for _ in range(60):
        optimizer.zero_grad()
        t, *rest = energies
        loss = o.loss_net_objective(name, t, [(e, d1) for e in rest])
        loss.backward()
        optimizer.step()
    assert (energies[0] < energies[1]).all() and (energies[0] < energies[2]).all()


# Gradients


@pytest.mark.parametrize("name", o.OBJECTIVES)
def test_gradcheck(name):
    true, first, d1 = drawn(2, 3)
    _, second, d2 = drawn(2, 3, seed=1)
    weight = torch.tensor([[0.0, 1.0, 0.5], [2.0, 0.0, 1.0]], dtype=torch.float64)

    def run(t, a, b):
        return o.loss_net_objective(name, t, [(a, d1), (b, d2)], weight=weight)

    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in (true, first, second)])


def test_gradcheck_pair_term():
    g = torch.Generator().manual_seed(0)
    energy = torch.randn(3, 7, generator=g, dtype=torch.float64, requires_grad=True)
    pose = 0.1 * torch.randn(3, 7, 17, 3, generator=g, dtype=torch.float64)
    starts = (torch.tensor([0, 4, 2]), torch.tensor([2, 1, 4]))
    assert o.pairwise_temporal(energy, pose, *starts).item() > 0
    assert torch.autograd.gradcheck(lambda e: o.pairwise_temporal(e, pose, *starts), energy)


@pytest.mark.parametrize("gap", [30.0, 60.0, 1e4])
@pytest.mark.parametrize("name", ["nce", "nce_ranking"])
def test_large_gaps_keep_their_gradient(name, gap):
    true = torch.full((4,), gap, requires_grad=True)
    loss = o.loss_net_objective(name, true, [(torch.zeros(4), torch.zeros(4))], temperature=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(2 * gap, rel=1e-6)
    torch.testing.assert_close(true.grad, torch.full((4,), 0.5))  # 1 / (4 tau)


def test_no_gradient_to_distances():
    true, negative, delta = (x.requires_grad_() for x in drawn(3))
    total = o.margin(true, negative, delta) + o.ssvm_perceptron(true, negative, delta) + o.regression(true, delta)
    total.backward()
    assert delta.grad is None and true.grad is not None


# Weights, empty input, shapes, compilation


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 2**16))
def test_masked_frames_drop_out(clips, frames, seed):
    true, negative, delta = drawn(clips, frames, seed=seed)
    seen = torch.rand(clips, frames, generator=torch.Generator().manual_seed(seed)) < 0.6
    hole = [torch.where(seen, x, NAN) for x in (true, negative, delta)]
    for name in o.OBJECTIVES:
        energies = [hole[0].clone().requires_grad_(), hole[1].clone().requires_grad_()]
        value = o.loss_net_objective(name, energies[0], [(energies[1], hole[2])], weight=seen)
        expected = (
            o.loss_net_objective(name, true[seen], [(negative[seen], delta[seen])]) if seen.any() else tensor(0.0)
        )
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
        value.backward()
        for energy in energies:
            assert torch.isfinite(energy.grad).all() and not energy.grad[~seen].any()


@pytest.mark.parametrize("shape", [(0,), (0, 9), (3, 0)])
@pytest.mark.parametrize("name", o.OBJECTIVES)
def test_empty_is_zero(name, shape):
    true = torch.zeros(shape, requires_grad=True)
    for weight in (None, torch.ones(shape)):
        value = o.loss_net_objective(name, true, [(torch.zeros(shape), torch.zeros(shape))], weight=weight)
        assert value.item() == 0
        value.backward()
    assert o.structured_distance(torch.zeros(*shape, 17, 3), torch.zeros(*shape, 17, 3)).shape == shape
    assert o.per_batch(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("name", o.OBJECTIVES)
def test_any_leading_shape_and_float32(name):
    true, negative, delta = drawn(2, 3, 4)
    value = o.loss_net_objective(name, true, [(negative, delta)])
    flat = o.loss_net_objective(name, true.flatten(), [(negative.flatten(), delta.flatten())])
    close(flat, value)
    single = o.loss_net_objective(name, true.float(), [(negative.float(), delta.float())])
    assert single.dtype == torch.float32 and single.item() == pytest.approx(value.item(), rel=1e-5)
    scalar = o.loss_net_objective(name, true[0, 0, 0], [(negative[0, 0, 0], delta[0, 0, 0])])
    assert scalar.shape == () and torch.isfinite(scalar)


@pytest.mark.parametrize("name", o.OBJECTIVES)
def test_compiles_without_a_break(name):
    true, negative, delta = drawn(2, 5)
    weight = torch.rand(2, 5, dtype=torch.float64)
    pose = torch.randn(2, 5, 17, 3, dtype=torch.float64)
    starts = (torch.tensor([0, 1]), torch.tensor([2, 0]))

    def run(t, e, d, w):
        pair = o.pairwise_temporal(e, pose, *starts)
        return o.loss_net_objective(name, t, [(e, d)], weight=w) + o.per_batch(d, w).sum() + pair

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    close(compiled(true, negative, delta, weight), run(true, negative, delta, weight))


# Bad input

E, N, D = torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3)
P, Z = torch.zeros(2, 9, 17, 3), torch.zeros(2, 9)
S = torch.zeros(2, dtype=torch.long)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: o.margin(E, N[..., None], D), ArgumentError, r"energy_negative has shape \[2, 3, 1\], expected"),
        (lambda: o.margin(E, N, D[:, :1]), ArgumentError, r"delta has shape \[2, 1\], expected \[2, 3\]"),
        (lambda: o.margin(E, N, D[0]), ArgumentError, r"delta has shape \[3\], expected \[2, 3\]"),
        (lambda: o.margin(E, N, D, scale=NAN), ArgumentError, "scale is nan, expected a finite number"),
        (lambda: o.margin(E.long(), N, D), DtypeError, "energy_true has dtype torch.int64"),
        (lambda: o.margin(E, N, 0.1), DtypeError, "delta is a float, expected a floating-point tensor"),
        (lambda: o.margin(E, N.to("meta"), D), ArgumentError, "energy_negative is on meta, expected cpu"),
        (lambda: o.margin(E, N, D, weight=D[:, :1]), ArgumentError, r"weight has shape \[2, 1\], expected \[2, 3\]"),
        (lambda: o.margin(E, N, D, weight=D - 1), ArgumentError, "weight has the value -1, expected values >= 0"),
        (lambda: o.margin(E, N, D, weight=D + NAN), ArgumentError, "weight has the value nan"),
        (lambda: o.margin(E, N, D, weight=2.0), DtypeError, "weight is a float, expected a real tensor"),
        (lambda: o.nce(E, N, temperature=0), ArgumentError, "temperature is 0, expected a finite number above 0"),
        (lambda: o.nce(E, N, temperature=True), ArgumentError, "temperature is True"),
        (lambda: o.nce(E, N[:1]), ArgumentError, r"energy_negative has shape \[1, 3\]"),
        (lambda: o.ranking_nce(E, N), ArgumentError, r"energies_negative has shape \[2, 3\], expected \[2, 3, 'K'\]"),
        (lambda: o.ranking_nce(E, N[..., :0, None]), ArgumentError, "energies_negative has shape"),
        (lambda: o.ranking_nce(E, torch.zeros(2, 3, 0)), ArgumentError, "with K >= 1"),
        (lambda: o.ranking_nce(E, N[..., None], log_q=D), ArgumentError, r"log_q has shape .*, expected \[2, 3, 2\]"),
        (lambda: o.ssvm_perceptron(E, N, D, scale=0), ArgumentError, "scale is 0, expected a finite number above 0"),
        (lambda: o.ssvm_perceptron(E, N, D, perceptron=-1), ArgumentError, "perceptron is -1"),
        (lambda: o.regression(E, D[0]), ArgumentError, r"delta has shape \[3\], .* the shape of energies"),
        (lambda: o.regression(E, D, scale=-0.05), ArgumentError, "scale is -0.05"),
        (lambda: o.structured_distance(P, P, "mpjep"), ArgumentError, "kind is 'mpjep', expected one of 'mpjpe'"),
        (lambda: o.structured_distance(P, P[:, :1]), ArgumentError, r"target has shape \[2, 1, 17, 3\], expected"),
        (lambda: o.structured_distance(P[..., :2], P[..., :2]), ArgumentError, r"expected \[\.\.\., J, 3\]"),
        (lambda: o.per_batch(D, D[0]), ArgumentError, r"weight has shape \[3\], expected \[2, 3\], the shape of delta"),
        (lambda: o.loss_net_objective("hinge", E, [(N, D)]), UnknownNameError, "unknown objective 'hinge'"),
        (lambda: o.loss_net_objective("nce", E, []), ArgumentError, "negatives is empty"),
        (
            lambda: o.loss_net_objective("nce", E, [(N, D), (N, D[0])]),
            ArgumentError,
            r"the distance of negatives\[1\] has shape \[3\]",
        ),
        (lambda: o.loss_net_objective("nce", E, [(N, D)], log_q=D), ArgumentError, "log_q is given for 'nce'"),
        (lambda: o.loss_net_objective("ssvm", E, [(N, D)], margin=0), ArgumentError, "margin is 0, expected"),
        (lambda: o.pair_starts(9, 0, 2), ArgumentError, "window is 0, expected a whole number of at least 1"),
        (lambda: o.pair_starts(9.0, 3, 2), ArgumentError, "frames is 9.0"),
        (lambda: o.pair_starts(9, 3, -1), ArgumentError, "batch is -1"),
        (lambda: o.pairwise_temporal(Z, P[:, :8], S, S), ArgumentError, r"energy has shape \[2, 9\] and target"),
        (lambda: o.pairwise_temporal(Z, P, S + 7, S), ArgumentError, "starts_t has values from 7 to 7, expected"),
        (lambda: o.pairwise_temporal(Z, P, S, S[:1]), ArgumentError, r"starts_s is torch.int64 \[1\], expected"),
        (lambda: o.pairwise_temporal(Z, P, S.int(), S), ArgumentError, "starts_t is torch.int32"),
        (lambda: o.pairwise_temporal(Z, P, S, S, kappa=-1), ArgumentError, "kappa is -1"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
