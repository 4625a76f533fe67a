"""Whole videos through backbones of every kind, against the network's answer frame by frame."""

import inspect

import pytest
import torch
from backbone_cases import filled
from torch import nn

from structloss import backbones, skeletons
from structloss.backbones.base import Backbone
from structloss.errors import ArgumentError, DtypeError


class Echo(Backbone):
    """Answers for a frame with its own input, moved by the mean of the window if asked to; counts its calls."""

    def __init__(self, context=False, **facts):
        super().__init__(**facts)
        self.weight = nn.Parameter(torch.zeros(()))
        self.context = context
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        assert not self.training
        x = self.prepare(x)
        out = torch.cat([x, x[..., :1]], -1)
        if self.context:
            out = out + x[:, :, :1, 1:].mean((1, 2, 3), keepdim=True)
        return self.match(out)


def video(frames, joints=17, channels=2):
    return torch.randn(frames, joints, channels)


KINDS = {
    "frame": {"kind": "frame", "frames": 1, "shortest": 1},
    "sequence": {"kind": "sequence", "frames": 9, "shortest": 1, "longest": 9},
    "exact sequence": {"kind": "sequence", "frames": 9},
    "centre": {"kind": "centre", "frames": 9},
    "sliding centre": {"kind": "centre", "frames": 9, "shortest": 9, "longest": None},
    "causal": {"kind": "centre", "frames": 9, "shortest": 9, "longest": None, "centre": 8},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 5, 9, 10, 31])
@pytest.mark.parametrize("overlap", [0, 4])
def test_every_frame_is_answered_once(kind, frames, overlap):
    model, x = Echo(**KINDS[kind]).train(), video(frames)
    out = backbones.predict_video(model, x, flip=False, overlap=overlap, batch_size=3)
    torch.testing.assert_close(out, torch.cat([x, x[..., :1]], -1))
    assert model.training  # as it was
    assert all(shape[0] <= 3 for shape in model.seen)


@pytest.mark.parametrize("step", [1, 2])
def test_windows_repeat_the_ends(step):
    """The mean of each window of a centre network, by an explicit loop over clamped frames."""
    model, x = Echo(context=True, **KINDS["centre"]), video(7)
    out = backbones.predict_video(model, x, flip=False, frame_step=step)
    for t in range(7):
        window = [min(max(t + step * k, 0), 6) for k in range(-4, 5)]
        want = torch.cat([x[t], x[t, :, :1]], -1) + x[window, 0, 1].mean()
        torch.testing.assert_close(out[t], want)


def test_sliding_equals_windows():
    """A network that slides gives the same with long inputs as with a window for every frame."""
    x = video(60)
    model = filled("videopose3d-27")
    slid = backbones.predict_video(model, x)
    windows = x[(torch.arange(60)[:, None] + torch.arange(27) - 13).clamp(0, 59)]
    with torch.no_grad():
        one = model(windows)[:, 0]
        other = model(skeletons.flip(windows, skeletons.get("h36m")))[:, 0]
    want = (one + skeletons.flip(other, skeletons.get("h36m"))) / 2
    torch.testing.assert_close(slid, want, rtol=1e-4, atol=1e-5)


def test_keeping_the_centre_of_sequences():
    model, x = Echo(context=True, **KINDS["exact sequence"]), video(20)
    model.keeps = "centre"
    out = backbones.predict_video(model, x, flip=False)
    windows = x[(torch.arange(20)[:, None] + torch.arange(9) - 4).clamp(0, 19)]
    want = torch.cat([x, x[..., :1]], -1) + windows[:, :, 0, 1].mean(1)[:, None, None]
    torch.testing.assert_close(out, want)


def test_overlap_blends_neighbouring_clips():
    """Clips 0..8 and 5..13 of 14 frames share 5..8; their weights there are 4, 3, 2, 1 and 1, 2, 3, 4."""
    model, x = Echo(context=True, **KINDS["exact sequence"]), video(14)
    out = backbones.predict_video(model, x, flip=False, overlap=4)
    plain = torch.cat([x, x[..., :1]], -1)
    means = [x[:9, 0, 1].mean(), x[5:, 0, 1].mean()]
    for t in range(14):
        first, second = max(0, min(t + 1, 9 - t)), max(0, min(t - 4, 14 - t))
        shift = (first * means[0] + second * means[1]) / (first + second)
        torch.testing.assert_close(out[t], plain[t] + shift)


def test_flip_averages_with_the_mirrored_prediction():
    model = filled("repose-tiny")
    x = video(30, channels=3)
    body = skeletons.get("h36m")
    got = backbones.predict_video(model, x)
    torch.testing.assert_close(skeletons.flip(backbones.predict_video(model, skeletons.flip(x, body)), body), got)
    plain = backbones.predict_video(model, x, flip=False)
    with torch.no_grad():
        torch.testing.assert_close(plain, model(x[None])[0])
    assert not torch.allclose(got, plain)


def test_many_videos_at_once():
    model = filled("repose-tiny", maxlen=9)
    x = torch.randn(3, 23, 17, 2)
    together = backbones.predict_video(model, x, batch_size=7, overlap=3)
    for one, want in zip(x, together, strict=True):
        torch.testing.assert_close(backbones.predict_video(model, one, overlap=3), want)
    shown = []
    backbones.predict_video(model, x, flip=False, track=lambda batches: shown.append(len(batches)) or batches)
    assert shown == [1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"overlap": 4}, {"overlap": 8}, {"keep": "centre"}], ids=str)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_pieces_are_the_same_poses_as_soon_as_they_are_known(kind, options, batch_size):
    """Poses of an explicit loop over windows: the sums of all, whatever the batches that they are run in."""
    frames = 31
    model, x = Echo(context=True, **KINDS[kind]), video(frames)
    if kind == "frame":
        starts, length, weights = [0], frames, [1.0] * frames
    elif KINDS[kind]["kind"] == "centre" or "keep" in options:
        starts, length, weights = [t - model.centre for t in range(frames)], 9, [0.0] * 9
        weights[model.centre] = 1.0
    else:
        last = frames - 9
        starts, length = [*range(0, last, 9 - options.get("overlap", 0)), last], 9
        weights = [float(min(i + 1, 9 - i)) for i in range(9)]
    sums, shares = torch.zeros(frames, 17, 3), torch.zeros(frames, 1, 1)
    for start in starts:
        window = [min(max(start + i, 0), frames - 1) for i in range(length)]
        mean = x[window, 0, 1].mean()
        for i, weight in enumerate(weights):
            if weight:
                sums[start + i] += weight * (torch.cat([x[start + i], x[start + i, :, :1]], -1) + mean)
                shares[start + i] += weight
    pieces = backbones.predict_stream(model.train(), x, flip=False, batch_size=batch_size, **options)
    assert not model.seen  # nothing is run before it is asked for
    got = []
    for piece in pieces:
        assert len(piece)
        got.append(piece)
        if len(model.seen) == 1 and len(starts) > batch_size and model.longest is not None and kind != "frame":
            assert sum(map(len, got)) == starts[batch_size] - (starts[0] if starts[0] < 0 else 0)
    assert model.training and all(shape[0] <= batch_size for shape in model.seen)
    if kind in ("sliding centre", "causal"):  # one long stretch: its window is the video
        want = torch.cat([x, x[..., :1]], -1)
        assert torch.cat(got).shape == want.shape
    else:
        torch.testing.assert_close(torch.cat(got), sums / shares)


def test_long_videos_come_in_small_pieces():
    model, x = Echo(**KINDS["exact sequence"]), video(2000)
    sizes = [len(piece) for piece in backbones.predict_stream(model, x, overlap=4, batch_size=4)]
    assert sum(sizes) == 2000 and max(sizes) <= 4 * 9 and len(sizes) > 90
    stopped = backbones.predict_stream(model.train(), x, batch_size=4)
    next(stopped)
    stopped.close()
    assert model.training
    several = list(backbones.predict_stream(model, torch.randn(2, 50, 17, 2), batch_size=4))
    assert all(piece.shape[0] == 2 for piece in several) and sum(piece.shape[1] for piece in several) == 50


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["repose-tiny", "videopose3d-27"])
def test_videos_on_a_gpu(name):
    model, x = filled(name), video(100, channels=3)
    want = backbones.predict_video(model, x, overlap=3 if name == "repose-tiny" else 0)
    got = backbones.predict_video(model.cuda(), x.cuda(), overlap=3 if name == "repose-tiny" else 0)
    torch.testing.assert_close(got.cpu(), want, rtol=1e-3, atol=1e-4)


def test_arguments_of_a_stream_are_checked_at_once():
    with pytest.raises(ArgumentError, match="overlap is 9"):
        backbones.predict_stream(Echo(**KINDS["sequence"]), video(20), overlap=9)


def test_a_video_and_a_stream_take_the_same_arguments():
    whole, pieces = (inspect.signature(f) for f in (backbones.predict_video, backbones.predict_stream))
    assert list(whole.parameters.values()) == list(pieces.parameters.values())
    assert whole.return_annotation == "Tensor" and pieces.return_annotation == "Iterator[Tensor]"
    with pytest.raises(TypeError, match="flipped"):
        backbones.predict_video(Echo(**KINDS["frame"]), video(3), flipped=True)


def test_another_function_may_lift():
    model = Echo(**KINDS["frame"])
    out = backbones.predict_video(model, video(4), flip=False, lift=lambda x: torch.ones(*x.shape[:3], 3))
    assert (out == 1).all() and not model.seen


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (torch.zeros(5, 17), {}, ArgumentError, r"keypoints has shape \[5, 17\], expected \[T, J, C\]"),
        (torch.zeros(0, 17, 2), {}, ArgumentError, "keypoints has shape"),
        (torch.zeros(5, 17, 2, dtype=torch.int64), {}, DtypeError, "keypoints has dtype torch.int64"),
        (torch.zeros(5, 17, 2), {"overlap": 9}, ArgumentError, "overlap is 9, expected 0 to 8"),
        (torch.zeros(5, 17, 2), {"keep": "first"}, ArgumentError, "keep is 'first'"),
        (torch.zeros(5, 17, 2), {"batch_size": 0}, ArgumentError, "batch_size is 0"),
        (torch.zeros(5, 17, 2), {"frame_step": 0}, ArgumentError, "frame_step is 0"),
    ],
)
def test_bad_videos(x, options, error, message):
    with pytest.raises(error, match=message):
        backbones.predict_video(Echo(**KINDS["sequence"]), x, **options)
    with pytest.raises(ArgumentError, match="model is of kind 'refine'"):
        backbones.predict_video(Echo(kind="refine", frames=1), torch.zeros(2, 17, 2))


def test_pixels_and_what_is_no_place_are_warned_of(recwarn):
    model, x = Echo(**KINDS["frame"]), video(4).clamp(-2, 2)
    backbones.predict_video(model, x)
    backbones.predict_video(model, x[None, :, :, :].expand(2, -1, -1, -1))
    backbones.predict_video(model, x[None][:0])
    backbones.predict_video(model, torch.cat([x, torch.full_like(x[..., :1], 99.0)], -1))  # what else a channel holds
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"^keypoints reaches 1080, expected about -1 to 1; pixels go .*screen"):
        backbones.predict_video(model, x / x.abs().max() * 1080)
    for bad in (float("nan"), float("inf")):
        y = x.clone()
        y[2, 3, 1] = bad
        with pytest.warns(UserWarning, match="^keypoints has NaN or infinite values, expected places") as caught:
            next(backbones.predict_stream(model, y))
        assert len(caught) == 1
