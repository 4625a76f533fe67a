"""What makes evaluation cheap changes no number: batches, pairs counted directly, what is computed once, imports."""

import importlib.util
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from structloss import metrics
from structloss.metrics import functional
from structloss.metrics._once import computed_once, once
from structloss.metrics.depth_order import _SHORT, _count, _count_pairs


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31), rows=st.integers(1, 5), n=st.integers(1, 40), ties=st.booleans(), holes=st.booleans()
)
def test_depth_order_pair_by_pair_and_by_sorting_are_the_same_numbers(seed, rows, n, ties, holes):
    torch.manual_seed(seed)
    p, t = torch.randn(2, rows, n, dtype=torch.float64) * 3
    if ties:
        p, t = p.round(), t.round()
    weight = torch.randint(2, (rows, n)).double() if holes else torch.ones(rows, n, dtype=torch.float64)
    p[0, 0] = float("nan")
    for found, expected in zip(_count_pairs(p, t, weight), _count(p, t, weight), strict=True):
        assert torch.equal(found.nan_to_num(-1), expected.nan_to_num(-1))


def test_longest_rows_that_are_counted_pair_by_pair_overflow_nothing():
    rising = torch.arange(_SHORT, dtype=torch.float64)[None]
    every = _SHORT * (_SHORT - 1) / 2
    for p, right in ((rising, every), (-rising, 0.0), (torch.zeros_like(rising), every / 2)):
        found = _count_pairs(p, rising, torch.ones_like(rising))
        assert [float(part) for part in found] == [right, every]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), frames=st.integers(1, 12), weighted=st.booleans())
def test_a_batch_of_frames_scores_as_they_do_one_by_one(seed, frames, weighted):
    """Also frames that are mirrored, flat or all in one point, beside others."""
    torch.manual_seed(seed)
    pred, target = torch.randn(2, frames, 17, 3, dtype=torch.float64)
    pred[0] *= torch.tensor([-1.0, 1.0, 1.0])
    pred[-1, :, 2] = 0.0
    target[frames // 2] = target[frames // 2, :1]
    weight = torch.rand(frames, 17, dtype=torch.float64) if weighted else None
    for function in (metrics.mpjpe, metrics.pa_mpjpe, metrics.n_mpjpe):
        together = function(pred, target, weight=weight, reduction="none")
        alone = [
            function(pred[i, None], target[i, None], weight=None if weight is None else weight[i, None])
            for i in range(frames)
        ]
        torch.testing.assert_close(together, torch.stack(alone), rtol=1e-12, atol=1e-12)
    for function in (metrics.lse, metrics.illegal_angle_rate):
        together = function(pred, weight=weight, reduction="none")
        alone = [function(pred[i, None], weight=None if weight is None else weight[i, None]) for i in range(frames)]
        torch.testing.assert_close(together, torch.stack(alone), rtol=1e-12, atol=1e-12)


def test_once_is_by_tensor_and_option_and_ends_with_the_context():
    calls = []

    @once
    def double(x, factor=2):
        calls.append(factor)
        return factor * x

    x, same = torch.ones(3), torch.ones(3)
    with computed_once():
        first = double(x)
        assert double(x, 2) is first and double(x, factor=2) is first and calls == [2]
        assert double(same) is not first and double(x, 3) is not first and calls == [2, 2, 3]
    assert double(x) is not first
    x.zero_()
    with computed_once():
        assert not double(x).any(), "nothing is kept from one context to the next"


def test_metrics_share_what_they_need_of_a_batch(monkeypatch):
    fits = []
    fit = functional.procrustes.fit
    monkeypatch.setattr(functional.procrustes, "fit", lambda *poses: fits.append(1) or fit(*poses))
    pred, target = torch.randn(2, 4, 9, 17, 3)

    def values():
        every = metrics.PAMPJPE(), metrics.PerAction(metrics.PAMPJPE(), ["a", "b"])
        every[0].update(pred, target)
        every[1].update(pred, target, action=torch.tensor([0, 1, 1, 0]))
        return [metric.compute() for metric in every]

    apart = values()
    assert len(fits) == 2
    with computed_once():
        assert torch.equal(torch.stack(values()), torch.stack(apart)) and len(fits) == 3


def test_scoring_takes_one_thread_and_gives_the_others_back():
    pytest.importorskip("lightning")
    from structloss.harness.scores import scoring

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with scoring():
            assert torch.get_num_threads() == 1 and not torch.is_grad_enabled()
        with pytest.raises(ZeroDivisionError), scoring():
            1 / 0  # noqa: B018
        assert torch.get_num_threads() == 2 and torch.is_grad_enabled()
    finally:
        torch.set_num_threads(threads)


def test_pieces_of_videos_side_by_side_score_as_one_after_the_other(monkeypatch):
    pytest.importorskip("lightning")
    from structloss.harness import videos

    torch.manual_seed(0)
    lengths = [1, 40, 7, 3 * videos.PIECE + 5, 40]
    video = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    frame = torch.cat([torch.arange(n) for n in lengths])
    depth, weight = torch.randn(len(video), 4, 2), torch.randint(2, (len(video), 4)).float()
    together = videos._order(depth, weight, video, frame)
    monkeypatch.setattr(videos, "_PIECES", 1)
    assert torch.equal(together, videos._order(depth, weight, video, frame))


def test_clips_are_added_up_beside_the_evaluation():
    pytest.importorskip("lightning")
    from structloss.data import MotionDataModule
    from structloss.harness.clip_values import ClipValues, clip_values
    from structloss.harness.evaluation import evaluate
    from structloss.harness.lifting import LiftingModule

    data = MotionDataModule(num_subjects=4, clips_per_subject=2, frames=70, window=27, views=1, progress=False)
    data.setup()
    module = LiftingModule(
        backbone_args={"dim_feat": 16, "depth": 1, "num_heads": 2, "dim_rep": 16, "predict_offset": False}
    )
    apart = clip_values(module, data.val_dataset)
    clips = ClipValues(module, data.val_dataset)
    evaluate(module, data.val_dataloader(), data.actions, clips=clips)
    found = clips.compute()
    assert found.keys() == apart.keys() and "bone_length_spread" in found and "mpjve" in found
    for key, values in apart.items():
        assert found[key] == pytest.approx(values, rel=1e-9), key


@pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="SciPy is not installed")
def test_commands_do_without_scipys_signal_processing_and_leave_it_usable():
    pytest.importorskip("torchmetrics")
    code = """
import sys
from structloss.commands._imports import import_torchmetrics
import_torchmetrics()
assert "torchmetrics" in sys.modules and "scipy.signal" not in sys.modules
import scipy.signal
assert scipy.signal.windows.hamming(3).size == 3 and sys.modules["scipy.signal"] is scipy.signal
from torchmetrics.functional.audio import signal_noise_ratio
"""
    subprocess.run([sys.executable, "-c", code], check=True)
