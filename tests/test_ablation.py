"""Ablations: grids, paired statistics against scipy, cells that are trained once, and what the command writes."""

import csv
import json
import math
import time
from dataclasses import replace

import fake_data
import numpy as np
import pytest
import torch
from scipy import stats

pytest.importorskip("lightning")

from structloss.cli import main
from structloss.errors import ArgumentError, DataError, MissingFileError, UnknownNameError
from structloss.harness import ablation
from structloss.harness.ablation import Cell, CellResult, Grid, grid_names, load_grid, run_grid, settings_of
from structloss.harness.evidence import COARSE
from structloss.metrics.measures import MEASURES
from structloss.reports.ablation import ablation_csv, ablation_table, plot_ablation, summarise

OBJECTIVES = {"MPJPE": {"mpjpe": 1.0}, "+ L_S": {"mpjpe": 1.0, "depth_ranking_joints": 1.0}}
TINY = Grid(
    objectives=OBJECTIVES,
    backbones={
        "repose-tiny": {"model": {"backbone_args": {"dim_feat": 16, "dim_rep": 16, "depth": 1, "num_heads": 2}}}
    },
    data={
        "window": 9,
        "stride": 9,
        "batch_size": 4,
        "num_subjects": 3,
        "clips_per_subject": 1,
        "frames": 36,
        "views": 1,
    },
    seeds=(0, 1),
    steps=3,
)


def results(grid, seed=0):
    """Made-up scores."""
    rng = np.random.default_rng(seed)
    return [
        CellResult(
            cell, {"mpjpe": rng.normal(50, 5), "mpjve": rng.normal(5, 1)}, {"lse": rng.normal(9, 1)}, {}, {}, 1.0
        )
        for cell in grid.cells()
    ]


@pytest.mark.parametrize("seeds", [2, 3, 7, 25])
def test_paired_statistics_are_those_of_scipy(seeds):
    grid = Grid(OBJECTIVES, {"repose-tiny": {}, "simplebaseline-16j": {}}, seeds=tuple(range(seeds)))
    found = results(grid, seeds)
    for summary in summarise(grid, found):
        values = [
            summary.measure.value(r)
            for r in found
            if (r.cell.backbone, r.cell.objective) == (summary.backbone, summary.objective)
        ]
        base = [
            summary.measure.value(r)
            for r in found
            if (r.cell.backbone, r.cell.objective) == (summary.backbone, "MPJPE")
        ]
        assert summary.mean == pytest.approx(np.mean(values)) and summary.deviation == pytest.approx(
            np.std(values, ddof=1)
        )
        if summary.objective == "MPJPE":
            assert not summary.changes and math.isnan(summary.change) and not summary.verdict
            continue
        low, high = stats.ttest_rel(values, base).confidence_interval(0.95)
        assert summary.change == pytest.approx((low + high) / 2)
        # from 17 seeds on the normal's quantile stands for Student's: 5 % narrower at most
        assert summary.margin == pytest.approx((high - low) / 2, rel=2e-4 if seeds < 17 else 0.06)
        if seeds < 17:
            assert bool(summary.verdict) == (low > 0 or high < 0)


def test_the_better_direction_is_the_measures():
    grid = Grid(OBJECTIVES, {"repose-tiny": {}}, seeds=(0, 1, 2))
    made = [
        CellResult(
            cell,
            {"mpjpe": 50 + cell.seed + up, "depth_order_joints": 0.5 + 0.01 * cell.seed + up / 10},
            {},
            {},
            {},
            1.0,
        )
        for cell, up in ((c, 1.0 + 0.01 * c.seed if c.objective != "MPJPE" else 0.0) for c in grid.cells())
    ]
    verdicts = {s.measure.key: s.verdict for s in summarise(grid, made) if s.changes}
    assert verdicts == {"mpjpe": "worse", "depth_order_joints": "better"}
    table = ablation_table(grid, summarise(grid, made))
    assert "| + L_S | 52.0 ± 1.0 (**+1.0**) |" in table and "61.10 ± 1.10 (**+10.10**)" in table


def test_one_seed_has_no_spread():
    grid = Grid(OBJECTIVES, {"repose-tiny": {}}, seeds=(4,))
    summaries = summarise(grid, results(grid))
    assert all(math.isnan(s.deviation) and math.isnan(s.margin) and not s.verdict for s in summaries)
    assert " ± " not in ablation_table(grid, summaries).split("\n\n")[1]


def test_csv_and_plot(tmp_path):
    grid = Grid(OBJECTIVES, {"repose-tiny": {}, "videopose3d-27": {}}, seeds=(0, 1, 2))
    summaries = summarise(grid, results(grid))
    rows = list(csv.DictReader(ablation_csv(summaries, grid.seeds).splitlines()))
    assert len(rows) == 2 * 2 * 3 * 3  # backbones, objectives, measures, seeds
    assert {row["measure"] for row in rows} == {"mpjpe", "mpjve", "lse"} < set(MEASURES)
    assert all((row["change"] == "") == (row["objective"] == "MPJPE") for row in rows)
    assert plot_ablation(grid, summaries, tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_cells_are_trained_once_and_again_when_their_settings_change(tmp_path, monkeypatch):
    trained = []
    real = ablation._train_cell
    monkeypatch.setattr(
        ablation, "_train_cell", lambda grid, cell, *rest: trained.append(cell) or real(grid, cell, *rest)
    )
    seen = []
    first = run_grid(TINY, tmp_path, report=lambda done, total, result: seen.append((done, total)))
    assert seen == [(k, 4) for k in range(1, 5)] and trained == TINY.cells()
    again = run_grid(TINY, tmp_path)
    assert trained == TINY.cells() and [r.metrics for r in again] == [r.metrics for r in first]
    (tmp_path / TINY.cells()[1].file).write_text("{")  # a damaged result is made again, and comes out the same
    assert [r.metrics for r in run_grid(TINY, tmp_path)] == [r.metrics for r in first] and len(trained) == 5
    more = Grid(**{**vars(TINY), "objectives": {**OBJECTIVES, "+ L_S": {"mpjpe": 1.0, "depth_ranking_joints": 2.0}}})
    with pytest.warns(
        UserWarning, match="results of other settings are there for 2 of 4 cells, which are trained anew"
    ):
        run_grid(more, tmp_path)
    assert [cell.objective for cell in trained[5:]] == ["+ L_S"] * 2
    before = run_grid(TINY, tmp_path)  # the earlier ones are there still
    assert [r.metrics for r in before] == [r.metrics for r in first] and len(trained) == 7
    assert len(list(tmp_path.glob("*.json"))) == 6
    base, other = first[0], first[1]
    assert base.curves["train_loss"][0] == pytest.approx(other.curves["train_mpjpe"][0])  # the same weights and batch
    assert all(math.isfinite(base.metrics[key]) for key in ("mpjpe", "pa_mpjpe", "mpjve")) and base.structure["lse"] > 0


def test_options_go_to_the_objectives_that_have_their_term(tmp_path):
    """Whatever cells of the group are done already."""
    objectives = {"MPJPE": {"mpjpe": 1.0}, "+ angles": {"mpjpe": 1.0, "illegal_angle": 0.01}}
    base = {**vars(TINY), "seeds": (0,), "objectives": objectives}
    options = {"objective_options": {"illegal_angle": {"normalize_bones": True}}}
    grid = Grid(**{**base, "model": options})
    assert "objective_options" not in settings_of(grid, grid.cells()[0])[0]
    assert settings_of(grid, grid.cells()[1])[0]["objective_options"] == options["objective_options"]
    plain, unit = run_grid(Grid(**base), tmp_path / "plain"), run_grid(grid, tmp_path / "unit")
    assert unit[0].metrics == plain[0].metrics
    assert unit[1].curves["train_illegal_angle"][0] > 2 * plain[1].curves["train_illegal_angle"][0]


def test_fine_tuning_starts_from_one_trained_network(tmp_path):
    grid = Grid(**{**vars(TINY), "pretrain_steps": 4, "seeds": (0,), "finetune_lr": 1e-4})
    torch.manual_seed(5)
    tuned = run_grid(grid, tmp_path)
    torch.manual_seed(6)
    again = run_grid(grid, tmp_path / "again")
    assert [r.metrics for r in again] == [r.metrics for r in tuned]  # the grid's seeds are all that it depends on
    assert tuned[0].curves["train_mpjpe"][0] == pytest.approx(tuned[1].curves["train_mpjpe"][0])
    fresh = run_grid(Grid(**{**vars(TINY), "seeds": (0,)}), tmp_path / "fresh")
    assert tuned[0].curves["train_mpjpe"][0] != pytest.approx(fresh[0].curves["train_mpjpe"][0])


def test_packaged_grids_fit_their_backbones():
    assert set(grid_names()) >= {"finetune", "losses"}
    for name in grid_names():
        grid = load_grid(name)
        assert next(iter(grid.objectives)) == "MPJPE" and len(grid.seeds) >= (1 if name in COARSE.values() else 3)
        for cell in grid.cells():
            model, data = settings_of(grid, cell)
            assert model["backbone"] == cell.backbone and model["seed"] == data["seed"] == cell.seed


def test_cell_files_differ():
    names = {Cell("a", objective, 0).file for objective in ("+ L_S", "L_S", "L S", "+ L_S + L_T", "Δ")}
    assert len(names) == 5 and all(name.endswith("__seed0.json") and "/" not in name for name in names)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("[1]", DataError, "holds a list, expected a mapping"),
        ("objectives: {a: {mpjpe: 1}}\nbackbones: [repose-tiny]\nlr: 1", DataError, "has 'lr', expected only"),
        ("backbones: [repose-tiny]", DataError, "is no grid"),
        ("objectives: {a: {mpjpe: 1}}\nbackbones: [nobody]", UnknownNameError, "'nobody'"),
        ("objectives: {a: {mpjpe: 1}}\nbackbones: {}", ArgumentError, "backbones is empty"),
        ("objectives: {a: {mpjpe: 1}}\nbackbones: [repose-tiny]\nsteps: 0", ArgumentError, "steps is 0"),
        ("objectives: {a: {mpjpe: 1}}\nbackbones: [repose-tiny]\nseeds: [1, 1]", ArgumentError, "seeds has"),
        ("a: [", DataError, "is not valid YAML"),
        ("backbones: 3", DataError, "is no grid: backbones is 3, expected a mapping or a list of names"),
        ("backbones: {lift-27: 3}", DataError, r"backbones\['lift-27'\] is 3, expected a mapping"),
        (
            "backbones: {lift-27: {model: x}}",
            DataError,
            r"backbones\['lift-27'\]\['model'\] is 'x', expected a mapping",
        ),
        ("objectives: [a]", DataError, r"objectives is \['a'\], expected a mapping"),
        ("objectives: {a: mpjpe}", DataError, r"objectives\['a'\] is 'mpjpe', expected a mapping"),
        ("arms: {a: 1}", DataError, r"arms\['a'\] is 1, expected a mapping"),
        ("data: [1]", DataError, r"data is \[1\], expected a mapping"),
        ("conditions: exact", DataError, "conditions is 'exact', expected a list"),
        ("seeds: 1", DataError, "seeds is 1, expected a list"),
        ("steps: 1.5", DataError, "steps is 1.5, expected a whole number"),
        ("finetune_lr: x", DataError, "finetune_lr is 'x', expected a number"),
    ],
)
def test_bad_grids(tmp_path, content, error, message):
    (tmp_path / "grid.yaml").write_text(content)
    with pytest.raises(error, match=message):
        load_grid(str(tmp_path / "grid.yaml"))


def test_absent_grids(tmp_path):
    with pytest.raises(MissingFileError):
        load_grid(str(tmp_path / "none.yaml"))
    with pytest.raises(UnknownNameError, match="loses"):
        load_grid("loses")


def test_command(tmp_path, capsys):
    grid = tmp_path / "grid.yaml"
    content = {key: value for key, value in vars(TINY).items() if key != "init_from"}
    grid.write_text(json.dumps(content | {"seeds": [0, 1]}))  # JSON is YAML
    arguments = ["ablate", str(grid), "--out", str(tmp_path / "out"), "--steps", "2", "--seeds", "0", "1"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "4/4  repose-tiny, + L_S, seed 1" in out and "### repose-tiny" in out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"cells", "table.md", "table.csv", "plot.png"}
    assert main([*arguments, "--init-from", "repose-tiny"]) == 1
    assert "--init-from is 'repose-tiny', expected BACKBONE=FILE" in capsys.readouterr().err
    assert main([*arguments, "--objectives", "L_Q"]) == 1
    assert "'L_Q'" in capsys.readouterr().err


def test_command_chooses_the_keypoints_of_a_folder(tmp_path, capsys):
    fake_data.write_h36m_npz(
        tmp_path, subjects=("S1", "S9"), actions=("Walking",), frames=20, keypoints=("gt", "cpn_x")
    )
    grid = tmp_path / "grid.json.yaml"
    content = {key: value for key, value in vars(TINY).items() if key != "init_from"}
    grid.write_text(json.dumps(content | {"seeds": [0], "steps": 1}))
    arguments = ["ablate", str(grid), "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--objectives", "MPJPE"]
    found = set()
    for name in ("cpn_x", "gt"):
        assert main([*arguments, "--keypoints", name]) == 0
        (cell,) = (path for path in (tmp_path / "out" / "cells").iterdir() if path.name.count(".") == 1)
        found.add(json.loads(cell.read_text())["fingerprint"])
    assert len(found) == 2, "another cell, trained again"
    capsys.readouterr()
    assert main([*arguments, "--keypoints", "mask"]) == 1
    error = capsys.readouterr().err
    assert "mask" in error and "gt" in error and "cpn_x" in error and error.count("\n") == 1


def test_an_objective_over_time_is_refused_before_anything_is_trained(tmp_path):
    terms = {"mpjpe": 1.0, "depth_ranking_frames": 1.0}
    grid = replace(TINY, objectives={**OBJECTIVES, "+ L_T": terms}, data={**TINY.data, "window": 1, "stride": 1})
    with pytest.raises(
        ArgumentError, match=r"^repose-tiny, seed 0: objective has \['depth_ranking_frames'\], 0 on one"
    ):
        run_grid(grid, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def one_and_the_next(folder, seed):
    """A result, and another when that has been told."""
    cell = Cell("repose-tiny", "MPJPE", seed)
    yield CellResult(cell, {"mpjpe": 1.0}, {}, {}, {}, 1.0)
    until = time.monotonic() + 60
    while not (folder / str(seed)).exists():
        if time.monotonic() > until:
            raise DataError("nobody was told of the first result.")
        time.sleep(0.05)
    yield CellResult(cell, {"mpjpe": 2.0}, {}, {}, {}, 1.0)


def test_what_processes_have_is_told_before_their_group_is_done(tmp_path):
    found = []
    for result in ablation.side_by_side(one_and_the_next, [(tmp_path, 0), (tmp_path, 1)], 2):
        (tmp_path / str(result.cell.seed)).touch()
        found.append((result.cell.seed, result.metrics["mpjpe"]))
    assert sorted(found) == [(0, 1.0), (0, 2.0), (1, 1.0), (1, 2.0)]


def test_an_error_of_a_process_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no result"):
        list(ablation.side_by_side(nothing, [(1,), (2,)], 2))


def nothing(number):
    yield from ()
    raise DataError(f"no result of {number}.")


def test_processes_side_by_side_come_to_the_same(tmp_path):
    alone = run_grid(TINY, tmp_path / "alone")
    beside = run_grid(TINY, tmp_path / "beside", jobs=2)
    for a, b in zip(alone, beside, strict=True):
        assert a.cell == b.cell and a.metrics["mpjpe"] == pytest.approx(b.metrics["mpjpe"], rel=1e-5)
