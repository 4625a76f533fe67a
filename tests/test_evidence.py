"""Kinds of 2D, arms and other names in ablations, and the two stages of `structloss ablate evidence`."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("lightning")

from bench import evidence
from structloss.cli import main
from structloss.commands._ablate_evidence import run_evidence
from structloss.errors import ArgumentError, UnknownNameError
from structloss.harness.ablation import CellResult, Grid, run_grid, settings_of
from structloss.harness.evidence import COARSE, best_objectives, coarse_grid, final_grids
from structloss.reports.ablation import by_condition, summarise

TINY = {"window": 9, "batch_size": 4, "num_subjects": 3, "clips_per_subject": 1, "frames": 36, "views": 1}
SMALL = {"backbone_args": {"frames": 3, "channels": 16}}


def flags(**given):
    names = ("backbones", "objectives", "init_from", "keypoints", "views", "data", "out", "steps", "seeds")
    return argparse.Namespace(**{name: given.get(name) for name in names}, jobs=1)


def made_up(grid: Grid, best: str, by: float = 5.0) -> list[CellResult]:
    """Results of which one objective is better by some millimetres under noise, and the last far worse on exact 2D."""
    found = []
    for cell in grid.cells():
        number = list(grid.objectives).index(cell.objective)
        noisy = {"mpjpe": 60.0 + number - (by * len(grid.objectives) if cell.objective == best else 0)}
        found.append(CellResult(cell, {"mpjpe": 50.0 + number}, {}, {}, {}, 1.0, dict.fromkeys(grid.conditions, noisy)))
    return found


def test_cells_are_scored_on_every_kind_of_2d_and_arms_have_settings_of_their_own(tmp_path):
    grid = Grid(
        {"MPJPE": {"mpjpe": 1.0}, "learned": {"mpjpe": 1.0, "velocity": 0.5}},
        {"small lift": {"backbone": "lift-27", "model": {**SMALL, "ema": None}}},
        data={**TINY, "context": 1, "target": "camera", "detections": "exact", "random_views": False},
        arms={"learned": {"learn_weights": True}},
        conditions=("noise:40", "dropped:0.5"),
        seeds=(0,),
        steps=2,
    )
    assert (
        settings_of(grid, grid.cells()[1])[0]["learn_weights"]
        and "learn_weights" not in settings_of(grid, grid.cells()[0])[0]
    )
    found = run_grid(grid, tmp_path)
    for result in found:
        assert set(result.conditions) == {"noise:40", "dropped:0.5"}
        assert result.conditions["noise:40"]["mpjve"] > 1.5 * result.metrics["mpjve"]  # what is noise jumps
        assert {"mpjpe", "lse", "illegal_angle_rate"} <= set(result.conditions["dropped:0.5"])
    again = run_grid(grid, tmp_path)
    assert [r.conditions for r in again] == [r.conditions for r in found] and again[0].seconds == found[0].seconds
    shown, rows = by_condition(grid, found, "exact", grid.conditions)
    assert list(shown.backbones) == ["small lift, exact", "small lift, noise:40", "small lift, dropped:0.5"]
    error = next(s for s in summarise(shown, rows) if s.backbone.endswith("noise:40") and s.measure.key == "mpjpe")
    assert error.values == (found[0].conditions["noise:40"]["mpjpe"],)
    # a result of before there were kinds of 2D is trained again when some are asked for
    assert run_grid(replace(grid, conditions=()), tmp_path)[0].conditions == {}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"conditions": ("noise",)}, ArgumentError, "detections is 'noise', expected simulated"),
        ({"finetune_lr": -1.0}, ArgumentError, "finetune_lr is -1.0, expected a positive number or null"),
        ({"arms": {"MPJE": {}}}, UnknownNameError, "objective of arms"),
        ({"backbones": {"mine": {"backbone": "lift-28"}}}, UnknownNameError, "lift-28"),
    ],
)
def test_impossible_grids(changes, error, message):
    with pytest.raises(error) as raised:
        Grid(**{"objectives": {"MPJPE": {"mpjpe": 1.0}}, "backbones": {"lift-27": {}}, **changes})
    assert message in str(raised.value)


def test_the_best_are_those_of_all_kinds_of_2d():
    grid = coarse_grid("coarse", None)
    found = made_up(grid, "+ learned loss")
    best = best_objectives(grid, found, but=("+ L_S + L_T",))
    assert best == ("+ learned loss", "+ L_S", "+ L_T")  # then in order, since each is worse than the one before
    assert best_objectives(grid, made_up(grid, "+ L_S + L_T"))[0] == "+ L_S + L_T"


def test_the_second_stage_is_scored_on_subjects_that_nothing_was_chosen_by():
    first = coarse_grid("coarse", "motion.npz")
    grids = final_grids(first, ("+ L_S + L_T, 20 mm", "+ learned loss"), "motion.npz")
    assert list(grids) == ["scratch", "finetune"]
    for grid in grids.values():
        kept = [*grid.data["val_subjects"]]
        assert sorted(kept) == sorted(first.data["without_subjects"])
        assert sorted(grid.data["without_subjects"]) == sorted(first.data["val_subjects"])
        assert list(grid.objectives) == ["MPJPE", "+ L_S + L_T", "+ L_S + L_T, 20 mm", "+ learned loss"]
        assert len(grid.seeds) >= 5 and grid.steps >= 4000 and grid.data["data"] == "motion.npz"
    cell = next(cell for cell in grids["scratch"].cells() if cell.objective == "+ L_S + L_T, 20 mm")
    assert settings_of(grids["scratch"], cell)[0]["objective_options"]["depth_ranking_joints"] == {"resolution": 0.02}
    assert grids["finetune"].init_from == {"lift-27": "lift-27"} and not grids["scratch"].init_from


def test_both_stages_run_one_after_the_other(tmp_path):
    ran, said = {}, []

    def run(grid, folder):
        ran[folder.name] = grid
        return made_up(grid, "+ L_T")

    run_evidence(flags(data="motion.npz", out=str(tmp_path), steps=7, seeds=[3, 4]), run, said.append)
    assert list(ran) == [*COARSE, "scratch", "finetune"]
    assert all(grid.steps == 7 and grid.seeds == (3, 4) for grid in ran.values())
    assert ran["coarse-image"].pretrain_steps == 7 and ran["coarse"].pretrain_steps == 0
    assert "+ L_T" in ran["finetune"].objectives
    assert (tmp_path / "chosen.md").read_text() == "".join(said) and "+ L_T; + L_S;" in said[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--data is not given, expected a clip archive"),
        (["--data", "m.npz", "--init-from", "lift-27=a"], "--init-from is ['lift-27=a'] with evidence"),
        (["--data", "m.npz", "--views", "2"], "--views is 2 with evidence, expected it with a single grid"),
        (["--data", "/none/m.npz", "--out", "OUT"], "/none/m.npz"),
    ],
)
def test_bad_input_of_the_command(tmp_path, capsys, options, message):
    options = [str(tmp_path) if option == "OUT" else option for option in options]
    assert main(["ablate", "evidence", *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("structloss: error: ") and message in error and error.count("\n") == 1


def test_the_page_shows_what_was_measured():
    root = Path(__file__).resolve().parent.parent
    page = (root / "docs" / "evidence.md").read_text(encoding="utf-8")
    stages = re.findall(r"<!-- python -m bench\.evidence show (\w+) -->\n((?:\|.*\n)+)", page)
    assert stages and stages[0][0] == "coarse"
    for stage, table in stages:
        assert table == evidence.short_table(stage)


def test_short_tables_have_paired_differences(tmp_path, monkeypatch, capsys):
    kinds = ("simulated", "exact", "noise:5", "dropped:0.3")
    rows = ["backbone,objective,measure,unit,seed,value,change"]
    for kind in kinds:
        for key in ("mpjpe", "mpjve", "depth_order_frames", "lse"):
            for seed, change in enumerate((-1.0, -1.2, -0.8)):
                rows.append(f'"lift-27, {kind}",MPJPE,{key},mm,{seed},{50 + seed},')
                rows.append(f'"lift-27, {kind}",+ L_T,{key},mm,{seed},{50 + seed + change},{change}')
                rows.append(f'"lift-27, {kind}",+ L_S,{key},mm,{seed},{50 + seed + 10 * change},{(seed - 1) * 10}')
    (tmp_path / "coarse").mkdir()
    (tmp_path / "coarse" / "table.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(evidence, "RESULTS", tmp_path)
    evidence.main(["keep", str(tmp_path)])
    evidence.main(["show", "coarse"])
    told, head, _, base, better, unsure = capsys.readouterr().out.splitlines()
    assert told.endswith("evidence_coarse.csv") and head.startswith("| | MPJPE, exact | MPJPE, 5 px of noise |")
    assert base.split(" | ")[1] == "51.0"
    assert better.split(" | ")[1] == "**-1.00 ± 0.50**"  # Student's t of two degrees of freedom: 4.303 * 0.2 / sqrt(3)
    assert unsure.split(" | ")[1] == "+0.00 ± 24.84"
