"""The demo's trainings with several seeds as one row, and where its data come from."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("lightning")

from structloss.commands._demo_motion import HELD_OUT, demo_motion, window_of
from structloss.commands._demo_seeds import averaged
from structloss.commands.demo import DemoSettings
from structloss.reports import plain_table
from structloss.reports.results import ArmResult, RunSummary


def arm(name: str, error: float, order: float) -> ArmResult:
    return ArmResult(
        name,
        {"mpjpe": 1.0},
        {"mpjpe": error, "depth_order_joints": order},
        curves={"step": [1.0], "train_loss": [error]},
        per_joint_mpjpe=[error, 2 * error],
        per_action={"walk": error},
        structure={"lse": error / 10},
        clips_per_second=100.0 + error,
        loss_share=0.01,
    )


def test_a_row_is_the_mean_over_seeds_and_its_spread_is_theirs():
    first = averaged([arm("MPJPE", e, 0.8) for e in (50.0, 53.0, 56.0)], (4, 5, 6))
    last = averaged([arm("+ L_S", e, 0.9) for e in (48.0, 52.0, 53.0)], (4, 5, 6))
    assert first.metrics == {"mpjpe": 53.0, "depth_order_joints": pytest.approx(0.8)}
    assert first.per_joint_mpjpe == [53.0, 106.0] and first.structure["lse"] == pytest.approx(5.3)
    assert first.curves["train_loss"] == [50.0] and first.clips["mpjpe"] == {
        "seed 4": 50.0,
        "seed 5": 53.0,
        "seed 6": 56.0,
    }
    text = plain_table(RunSummary("Comparison", [first, last]))
    # differences -2, -1, -3: mean -2, standard deviation 1, Student's t for two degrees of freedom 4.303
    assert "−2.0" in text and f"±{4.303 / math.sqrt(3):.1f}" in text and "± over 3 seeds" in text
    assert "Means over the seeds" in " ".join(text.split()) and "of one training each" not in text
    assert averaged([arm("MPJPE", 50.0, 0.8)], (0,)).pairs == "clips"
    assert ArmResult.from_json(first.to_json()) == first


def test_windows_go_with_the_backbone():
    assert window_of("lift-27", 27) == {"window": 53, "context": 13, "target": "camera"}
    assert window_of("lift-s", 9) == {"window": 9, "context": 0, "target": "camera"}
    assert window_of("repose-tiny", 27) == {"window": 27, "context": 0, "target": "global"}


def test_data_are_samples_and_synthetic_people_and_two_samples_are_held_out(tmp_path):
    from structloss.data import load_sample

    data = demo_motion(tmp_path, {"seed": 0, "batch_size": 4, **window_of("lift-27", 9)}, 36)
    held_out = {load_sample(name).clip.subject for name in HELD_OUT}
    assert set(data.val_dataset.store.subjects) == held_out
    assert held_out.isdisjoint(data.train_dataset.store.subjects)
    assert {name[:3] for name in data.train_dataset.store.subjects} == {"cmu", "syn"}
    (tmp_path / "motion.npz").unlink()  # everything is read
    assert data.train_dataset.batch([(0, 0)])["input"].shape == (1, 35, 17, 3)


def test_settings_count_the_seeds():
    settings = DemoSettings(seed=3, seeds=2)
    assert list(settings.all_seeds) == [3, 4] and "--seeds 2" in settings.command() and "--lr" not in settings.command()
    assert "--lr 0.001" in DemoSettings(lr=1e-3).command()
