"""Refiners of poses over time, as clips and as streams; bone lengths and poses that are given them; sensitivity."""

import doctest
import importlib

import numpy as np
import pytest
import torch

from structloss import skeletons
from structloss.errors import ArgumentError, DtypeError, UnknownNameError
from structloss.refine import LSTMRefiner, TPNet, bone_lengths, fit_skeleton, refine_every, sensitivity_matrices

H36M = skeletons.get("h36m")


def poses(*shape, joints=17, dtype=torch.float32):
    return 0.3 * torch.randn(*shape, joints, 3, dtype=dtype)


def whole_numbers(refiner):
    """Weights of -1, 0 and 1: with small whole numbers as input, sums are exact in any order."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in refiner.parameters():
            weight.copy_(torch.randint(-1, 2, weight.shape, generator=generator))
    return refiner


REFINERS = {
    "online": lambda **more: TPNet(past=4, future=0, hidden=32, **more),
    "semi-online": lambda **more: TPNet(past=2, future=3, hidden=32, **more),
    "two hidden layers": lambda **more: TPNet(past=3, future=1, hidden=16, hidden_layers=2, **more),
    "one frame": lambda **more: TPNet(past=0, future=0, hidden=16, **more),
    "lstm": lambda **more: LSTMRefiner(hidden=16, layers=2, **more),
    "bi-lstm": lambda **more: LSTMRefiner(hidden=16, bidirectional=True, past=2, future=3, **more),
    "bi-lstm, whole": lambda **more: LSTMRefiner(hidden=16, bidirectional=True, past=None, future=None, **more),
}
WINDOWED = [name for name in REFINERS if name not in ("lstm", "bi-lstm, whole")]
STREAMING = [name for name in REFINERS if name != "bi-lstm, whole"]


# ----------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("joints", "layers", "parameters"),
    [(16, 1, 4_132_912), (17, 1, 4_390_963), (16, 2, 20_914_224), (17, 2, 21_172_275)],
)
def test_the_size_of_the_network(joints, layers, parameters):
    with torch.device("meta"):
        model = TPNet(num_joints=joints, hidden_layers=layers)
    assert sum(p.numel() for p in model.parameters()) == parameters
    names = [f"fc.{layer}.{kind}" for layer in range(layers + 1) for kind in ("weight", "bias")]
    assert list(model.state_dict()) == names
    assert model.fc[0].weight.shape == (4096, 20 * joints * 3) and model.fc[-1].weight.shape == (joints * 3, 4096)


@pytest.mark.parametrize("border", ["repeat", "zero"])
def test_a_frame_is_made_of_its_window(border):
    """By hand: 6 poses one after the other, oldest first, joint by joint, x, y, z; two layers of weights."""
    model, clip = TPNet(past=2, future=3, hidden=8, border=border).double(), poses(2, 9, dtype=torch.float64)
    first, second = model.fc
    with torch.no_grad():
        got = model(clip)
        for frame in range(9):
            window = []
            for t in range(frame - 2, frame + 4):
                beyond = not 0 <= t < 9
                pose = clip[:, min(max(t, 0), 8)]
                window.append(torch.zeros_like(pose) if beyond and border == "zero" else pose)
            flat = torch.stack(window, 1).reshape(2, -1)
            hidden = (flat @ first.weight.T + first.bias).clamp_min(0)
            want = (hidden @ second.weight.T + second.bias).reshape(2, 17, 3)
            torch.testing.assert_close(got[:, frame], want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", REFINERS)
def test_residual_and_root(name):
    torch.manual_seed(3)
    plain = REFINERS[name]()
    torch.manual_seed(3)
    other = REFINERS[name](residual=True, root=7)
    clip = poses(2, 8)
    with torch.no_grad():
        want = plain(clip) + clip
        want[:, :, 7] = 0
        torch.testing.assert_close(other(clip), want)
        assert plain(clip)[:, :, 7].abs().max() > 0


@pytest.mark.parametrize("name", REFINERS)
def test_what_a_frame_depends_on(name):
    """Causal networks see no frame that comes later, others as many as they say; and none before the window."""
    model = REFINERS[name]().double()
    clip = poses(1, 12, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(model(clip)[0, 6].sum(), clip)
    seen = gradient[0].abs().sum((-1, -2)) > 0
    first = 0 if model.past is None else 6 - model.past
    last = 11 if model.future is None else 6 + model.future
    assert seen.tolist() == [first <= t <= last for t in range(12)]


@pytest.mark.parametrize("name", ["online", "lstm"])
def test_later_frames_change_nothing(name):
    model, clip = REFINERS[name](), poses(1, 12)
    later = clip.clone()
    later[:, 7:] = poses(1, 5)
    with torch.no_grad():
        before, after = model(clip), model(later)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-6)
    assert (before[:, 7:] - after[:, 7:]).abs().amax((-1, -2)).min() > 1e-3


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_of_training_are_those_of_clips(name):
    model, clip = REFINERS[name](), poses(2, 15)
    before, after = model.past, model.future
    with torch.no_grad():
        whole = model(clip)
        one = model.refine(clip[:, 3 : 3 + before + 1 + after])
        several = model.refine(clip[:, 3 : 3 + before + 4 + after])
    assert one.shape == (2, 1, 17, 3) and several.shape == (2, 4, 17, 3)
    torch.testing.assert_close(one, whole[:, 3 + before, None])
    torch.testing.assert_close(several, whole[:, 3 + before : 7 + before])


def test_long_clips_go_through_in_pieces(monkeypatch):
    """Without gradients, no copy of a long clip's windows is made, and the poses are the same."""
    from structloss.refine import base

    model, clip = TPNet(past=4, future=2, hidden=32), poses(2, 50)
    with torch.no_grad():
        whole = model(clip)
        monkeypatch.setattr(base, "_VALUES", 7 * 51 * 2 * 8)  # eight frames of both clips
        sizes = []
        model.fc[0].register_forward_hook(lambda layer, args, out: sizes.append(args[0].shape[:-1].numel()))
        pieces = model(clip)
    assert max(sizes) == 16 and sum(sizes) == 100
    torch.testing.assert_close(pieces, whole)


@pytest.mark.parametrize("name", REFINERS)
@pytest.mark.parametrize("step", [2, 3])
def test_every_other_frame(name, step):
    """Frames that come faster than in training are refined in turns."""
    model, clip = REFINERS[name](), poses(2, 10)
    with torch.no_grad():
        got = refine_every(model, clip, step)
        for phase in range(step):
            torch.testing.assert_close(got[:, phase::step], model(clip[:, phase::step]))
    with_gradients = refine_every(model, clip, step)
    torch.testing.assert_close(with_gradients.detach(), got)
    assert with_gradients.requires_grad


def test_it_learns_to_smooth():
    """Adam on noisy poses of a body that sways: closer to the truth, and much steadier."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(800) / 25
    truth = 0.3 * torch.sin(2 * time[:, None, None] + 6 * torch.rand(17, 3, generator=generator))

    def noisy():
        return truth + 0.05 * torch.randn(truth.shape, generator=generator)

    model = TPNet(past=9, future=0, hidden=64)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(150):
        optimiser.zero_grad()
        (model(noisy()[None, :600]) - truth[None, :600]).square().mean().backward()
        optimiser.step()
    test, right = noisy()[600:], truth[600:]
    with torch.no_grad():
        refined = model(test[None])[0]

    def error(x):
        return float((x - right)[10:].norm(dim=-1).mean())

    def jitter(x):
        return float((x - right)[10:].diff(dim=0).norm(dim=-1).mean())

    assert error(refined) < 0.7 * error(test) and jitter(refined) < 0.7 * jitter(test)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TPNet(past=-1), "past is -1, expected a whole number of at least 0"),
        (lambda: TPNet(future=1.5), "future is 1.5"),
        (lambda: TPNet(past=None), "past is None"),
        (lambda: TPNet(hidden_layers=0), "hidden_layers is 0, expected a whole number of at least 1"),
        (lambda: TPNet(dropout=1), "dropout is 1, expected a share"),
        (lambda: TPNet(root=17), "root is 17, expected None or a joint from 0 to 16"),
        (lambda: TPNet(border="mirror"), "border is 'mirror', expected"),
        (lambda: LSTMRefiner(past=3), "past is 3 and future 0, expected None and 0 without bidirectional"),
        (lambda: LSTMRefiner(bidirectional=True), "past is None and future 0, expected numbers, or None for both"),
        (lambda: LSTMRefiner(bidirectional=True, past=None, future=None).stream(), "future is None, expected a number"),
        (
            lambda: TPNet(hidden=8)(torch.zeros(2, 5, 16, 3)),
            r"poses has shape \[2, 5, 16, 3\], expected \[B, T, J, 3\]",
        ),
        (lambda: TPNet(hidden=8)(torch.zeros(2, 0, 17, 3)), "at least one frame"),
        (lambda: TPNet(hidden=8)(torch.zeros(2, 5, 17, 3).double()), "dtype torch.float64, expected torch.float32"),
        (lambda: TPNet(hidden=8)(np.zeros((2, 5, 17, 3))), "poses is a numpy array"),
        (lambda: TPNet(hidden=8).refine(torch.zeros(2, 19, 17, 3)), "has 19 frames, expected at least 20"),
        (lambda: refine_every(TPNet(hidden=8), torch.zeros(2, 5, 17, 3), 0), "step is 0"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


# ------------------------------------------------------------------------------------------------------------ streams


def streamed(model, clip):
    """All that a stream gives of a clip `[T, ...]`."""
    stream = model.stream()
    found = [stream(pose) for pose in clip]
    late = sum(pose is None for pose in found)
    assert late == min(model.future, len(clip)) and all(pose is None for pose in found[:late])
    rest = stream.flush()
    assert len(rest) == late
    return torch.stack([*found[late:], *rest])


@pytest.mark.parametrize("border", ["repeat", "zero"])
@pytest.mark.parametrize("name", [name for name in STREAMING if "lstm" not in name])
@pytest.mark.parametrize("frames", [1, 3, 40])
def test_streams_give_what_clips_give(name, frames, border):
    """Exactly: with whole numbers, where the order of sums makes no difference, bit by bit."""
    model = whole_numbers(REFINERS[name](border=border))
    clip = torch.randint(-3, 4, (frames, 2, 17, 3)).float()
    with torch.no_grad():
        assert torch.equal(streamed(model, clip).transpose(0, 1), model(clip.transpose(0, 1)))
        assert torch.equal(streamed(model, clip[:, 0]), model(clip[None, :, 0])[0])


@pytest.mark.parametrize("name", STREAMING)
def test_streams_of_real_numbers(name):
    """And with others to the rounding of the sums."""
    model, clip = REFINERS[name](residual=True, root=0), poses(23, 3)
    with torch.no_grad():
        torch.testing.assert_close(streamed(model, clip).transpose(0, 1), model(clip.transpose(0, 1)))
        model.double()
        got, want = streamed(model, clip.double()[:, 0]), model(clip.double()[None, :, 0])[0]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-14)


def test_streams_begin_anew():
    model = TPNet(past=3, future=2, hidden=8)
    stream, clip = model.stream(), poses(9)
    assert stream.lag == 2
    for pose in poses(5):
        stream(pose)
    stream.reset()
    again = torch.stack([pose for pose in map(stream, clip) if pose is not None])
    rest = stream.flush()
    torch.testing.assert_close(torch.cat([again, rest]), streamed(model, clip))
    assert len(stream.flush()) == 0 and stream(clip[0]) is None


def test_streams_keep_little():
    stream = TPNet(past=3, future=1, hidden=8).stream()
    for pose in poses(50):
        stream(pose)
    assert stream._ring.shape == (1, 10, 51)


def test_what_streams_refuse():
    stream = TPNet(past=3, hidden=8).stream()
    with pytest.raises(ArgumentError, match=r"poses has shape \[1, 1, 16, 3\], expected \[J, 3\] or \[B, J, 3\]"):
        stream(torch.zeros(16, 3))
    stream(torch.zeros(17, 3))
    with pytest.raises(ArgumentError, match=r"pose has shape \[2, 17, 3\], expected \[17, 3\], that of the first"):
        stream(torch.zeros(2, 17, 3))


# -------------------------------------------------------------------------------------------------------------- bones


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("skeleton", ["h36m", "mpii", "mpi_inf_3dhp"])
def test_fitted_poses_have_the_lengths_and_the_directions(kind, skeleton):
    body = skeletons.get(skeleton)
    generator = np.random.default_rng(0)
    clip = generator.normal(size=(2, 5, body.num_joints, 3))
    lengths = generator.uniform(0.1, 0.5, size=(2, 1, body.num_joints - 1))
    if kind == "torch":
        clip, lengths = torch.from_numpy(clip), torch.from_numpy(lengths)
    fitted = fit_skeleton(clip, lengths, skeleton)
    again = fit_skeleton(fitted, lengths, skeleton)
    assert type(fitted) is type(clip) and fitted.dtype == clip.dtype and fitted.shape == clip.shape
    clip, fitted, again, lengths = (np.asarray(x) for x in (clip, fitted, again, lengths))
    np.testing.assert_allclose(again, fitted, atol=1e-14)
    np.testing.assert_array_equal(fitted[..., body.root, :], clip[..., body.root, :])
    for number, (child, parent) in enumerate(body.tree_bones):
        before, after = (x[..., child, :] - x[..., parent, :] for x in (clip, fitted))
        norms = np.linalg.norm(after, axis=-1)
        np.testing.assert_allclose(norms, np.broadcast_to(lengths[..., number], norms.shape))
        cosine = (before * after).sum(-1) / np.linalg.norm(before, axis=-1) / norms
        np.testing.assert_allclose(cosine, 1, atol=1e-12)


def test_bones_without_length_follow_the_one_above():
    pose = np.random.default_rng(0).normal(size=(17, 3))
    pose[3] = pose[2]  # the right shin
    pose[4] = pose[0]  # the left hip, whose parent is the root
    fitted = fit_skeleton(pose, np.full(16, 0.4))
    thigh = pose[2] - pose[1]
    np.testing.assert_allclose(fitted[3] - fitted[2], 0.4 * thigh / np.linalg.norm(thigh))
    np.testing.assert_allclose(fitted[4] - fitted[0], [0, 0.4, 0])
    np.testing.assert_allclose(
        fit_skeleton(torch.from_numpy(pose), torch.full((16,), 0.4, dtype=torch.float64)), fitted
    )
    # No length at all is fine as well: everything is where the root is.
    np.testing.assert_array_equal(fit_skeleton(pose, np.zeros(16)), np.broadcast_to(pose[0], (17, 3)))


def test_gradients_of_fitted_poses():
    generator = torch.Generator().manual_seed(0)
    pose = torch.randn(2, 17, 3, dtype=torch.float64, generator=generator).requires_grad_()
    lengths = torch.rand(16, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(fit_skeleton, (pose, lengths))
    still = torch.zeros(17, 3, dtype=torch.float64, requires_grad=True)
    fit_skeleton(still, lengths).sum().backward()
    assert torch.isfinite(still.grad).all() and torch.isfinite(lengths.grad).all()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_bone_lengths_are_medians_of_both_sides(kind):
    generator = np.random.default_rng(1)
    lengths = generator.uniform(0.1, 0.5, size=16)
    clip = fit_skeleton(generator.normal(size=(3, 40, 17, 3)), lengths)
    clip[:, 7] *= 10  # a wild frame
    given = clip if kind == "numpy" else torch.from_numpy(clip)
    found = bone_lengths(given, symmetric=False)
    assert type(found) is type(given) and found.shape == (3, 16)
    np.testing.assert_allclose(np.asarray(found), np.broadcast_to(lengths, (3, 16)))
    both = np.asarray(bone_lengths(given))
    assert H36M.tree_bones[1] == (2, 1) and H36M.tree_bones[4] == (5, 4)  # the thighs
    np.testing.assert_allclose(both[:, 1], (lengths[1] + lengths[4]) / 2)
    np.testing.assert_allclose(both[:, 4], both[:, 1])
    np.testing.assert_allclose(both[:, 6:10], np.broadcast_to(lengths[6:10], (3, 4)))  # spine to head
    spread = np.linalg.norm(np.diff(clip[0, 8:, [2, 1]], axis=0)[0], axis=-1).std()
    assert spread < 1e-12


def test_an_even_number_of_frames_has_two_in_the_middle():
    clip = torch.zeros(4, 17, 3)
    clip[:, 10, 1] = torch.tensor([4.0, 1.0, 3.0, 2.0])
    assert float(bone_lengths(clip)[9]) == 2.5 and float(bone_lengths(clip.numpy())[9]) == 2.5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fit_skeleton(np.zeros((4, 16, 3)), np.ones(16)), ArgumentError, r"poses has shape \[4, 16, 3\]"),
        (lambda: fit_skeleton(np.zeros((4, 17, 3)), np.ones(17)), ArgumentError, r"lengths has shape \[17\], expected"),
        (lambda: fit_skeleton(np.zeros((4, 17, 3)), np.ones((3, 16))), ArgumentError, r"lengths has shape \[3, 16\]"),
        (lambda: fit_skeleton(np.zeros((17, 3)), -np.ones(16)), ArgumentError, "lengths has values from -1 to -1"),
        (lambda: fit_skeleton(np.zeros((17, 3)), np.full(16, np.nan)), ArgumentError, "expected finite ones"),
        (
            lambda: fit_skeleton(np.zeros((17, 3)), torch.ones(16)),
            DtypeError,
            "lengths is a Tensor and poses a ndarray",
        ),
        (lambda: fit_skeleton(np.zeros((17, 3), int), np.ones(16)), DtypeError, "poses has dtype int64"),
        (lambda: fit_skeleton([[0]], np.ones(16)), DtypeError, "poses is a list"),
        (lambda: fit_skeleton(np.zeros((17, 3)), np.ones(16), "coco"), ArgumentError, "skeleton is 'coco', whose tree"),
        (lambda: fit_skeleton(np.zeros((17, 3)), np.ones(16), "h37m"), UnknownNameError, "h37m"),
        (lambda: bone_lengths(np.zeros((17, 3))), ArgumentError, r"expected \[..., T, 17, 3\]"),
        (lambda: bone_lengths(np.zeros((0, 17, 3))), ArgumentError, r"poses has shape \[0, 17, 3\]"),
    ],
)
def test_what_bones_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()


# -------------------------------------------------------------------------------------------------------- sensitivity


def test_sensitivity_of_a_linear_map():
    """Where each joint of the answer is a sum of joints times numbers, these numbers are the matrices."""
    numbers = torch.randn(4, 5, 5, dtype=torch.float64)  # [N, J, J]
    windows = poses(30, 4, joints=5, dtype=torch.float64)
    found = sensitivity_matrices(
        lambda x: torch.einsum("nij,bnjc->bic", numbers, x), windows, past=2, draws=3, sigma=0.02
    )
    assert found.offsets == (-2, -1, 0, 1) and (found.draws, found.poses, found.sigma) == (3, 30, 0.02)
    np.testing.assert_allclose(found.matrices, numbers.abs().numpy(), rtol=1e-9)
    np.testing.assert_array_equal(found.at(-1), found.matrices[1])
    np.testing.assert_allclose(found.curves(), numbers.abs().mean(1).numpy(), rtol=1e-9)
    one = sensitivity_matrices(
        lambda x: torch.einsum("nij,bnjc->bic", numbers, x), windows, past=2, offsets=[0], draws=1
    )
    np.testing.assert_allclose(one.matrices[0], numbers[2].abs().numpy(), rtol=1e-9)
    with pytest.raises(ArgumentError, match="offset is -1, expected one of 0"):
        one.at(-1)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_shortcut_through_the_first_layer(layers, monkeypatch):
    """TP-Net is not run for every draw; the matrices are those of a function that is, in pieces and at once."""
    model = TPNet(past=2, future=1, hidden=12, hidden_layers=layers, residual=True, root=0).double()
    windows = poses(20, 4, dtype=torch.float64)
    short = sensitivity_matrices(model, windows, draws=4, offsets=[-2, 0, 1])
    long = sensitivity_matrices(lambda x: model.refine(x)[:, 0], windows, past=2, draws=4, offsets=[-2, 0, 1])
    np.testing.assert_allclose(short.matrices, long.matrices, rtol=1e-9, atol=1e-12)
    assert (short.matrices[:, 0] == 0).all() and (short.matrices[:, 1:].max() > 0).all()
    monkeypatch.setattr("structloss.refine.sensitivity._VALUES", 12 * 4 * 7)
    pieces = sensitivity_matrices(model, windows, draws=4, offsets=[-2, 0, 1])
    np.testing.assert_allclose(pieces.matrices, short.matrices, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sensitivity_matrices(TPNet(hidden=8), torch.zeros(3, 5, 17, 3)), "windows has 5 frames, expected 20"),
        (
            lambda: sensitivity_matrices(TPNet(hidden=8), torch.zeros(3, 17, 3)),
            r"windows has shape \[3, 17, 3\], expected",
        ),
        (lambda: sensitivity_matrices(len, torch.zeros(3, 5, 17, 3), sigma=0), "sigma is 0, expected"),
        (lambda: sensitivity_matrices(len, torch.zeros(3, 5, 17, 3), draws=0), "draws is 0, expected"),
        (
            lambda: sensitivity_matrices(REFINERS["bi-lstm, whole"](), torch.zeros(3, 5, 17, 3)),
            "refiner takes whole clips, expected",
        ),
        (
            lambda: sensitivity_matrices(TPNet(past=1, hidden=8), torch.zeros(3, 2, 17, 3), offsets=[1]),
            "offsets has 1, expected -1 to 0",
        ),
    ],
)
def test_what_sensitivity_refuses(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.parametrize("name", ["base", "bones", "lstm", "tpnet"])
def test_the_numbers_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"structloss.refine.{name}"))
    assert result.attempted > 0 and result.failed == 0
