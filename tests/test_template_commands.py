"""`structloss demo shape-template` and `structloss ablate shape-template`, as small as they can be; the questions."""

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lightning")
pytest.importorskip("cv2")

from structloss.commands._demo_shape_template import ShapeTemplateDemoSettings, run_shape_template_demo
from structloss.commands.ablate import run_ablation
from structloss.errors import ArgumentError
from structloss.harness.recipe_files import recipe_path
from structloss.harness.template_ladder import (
    ARMS,
    LadderSettings,
    TemplateGrid,
    evaluate_templates,
    frames_of,
    run_template_grid,
    train_arm,
)
from structloss.reading import read_yaml
from structloss.reports.panels import plot_panels
from structloss.reports.questions import POSTER, Claim, answer, answers_text

cv2 = pytest.importorskip("cv2")

KEYS = ("reconstruction", "pdj", "normalized_l2", "bplp_c")


@pytest.mark.slow(seconds=12)
def test_demo_trains_both_templates_and_writes_a_report(tmp_path, capsys):
    out = tmp_path / "demo"
    summary = run_shape_template_demo(ShapeTemplateDemoSettings(steps=2, count=2, batch_size=4, out=str(out)))
    said = capsys.readouterr().out
    assert [arm.name for arm in summary.arms] == ["T_orig", "T_new"]
    for head in ("T_orig", "T_new", "Reconstruction", "PDJ@0.05", "L2", "BPLP-C"):
        assert head in said
    assert all(np.isfinite(arm.metrics[key]) for arm in summary.arms for key in KEYS)
    assert sorted(path.name for path in out.iterdir()) == ["curves.png", "metrics.json", "panels.png", "report.html"]
    for name in ("curves.png", "panels.png"):
        assert cv2.imread(str(out / name)).std() > 10  # something is drawn
    page = (out / "report.html").read_text()
    assert "Frames that were not trained on" in page and "PDJ@0.05" in page
    assert json.loads((out / "metrics.json").read_text())["settings"]["command"].startswith("structloss demo shape-tem")


def test_demo_refuses_another_folder(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ArgumentError, match="a folder with other content"):
        run_shape_template_demo(ShapeTemplateDemoSettings(out=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture
def grid():
    small = {"input_size": 32, "regressor_widths": [8, 8], "translator_widths": [8, 8], "hidden": 8}
    settings = LadderSettings(steps=2, network_args=small, size=32, batch_size=4, count=2, val_count=1, frames=6)
    return TemplateGrid(settings=settings, seeds=(0, 1))


def test_the_ladder_has_the_posters_rows_and_goes_on_where_it_stopped(tmp_path, grid):
    lines = []
    run_ablation(grid, tmp_path, say=lines.append)
    table = (tmp_path / "table.md").read_text()
    rows = re.findall(r"^\| (baseline|\+ [^|]+?|T_new) \|", table, re.M)
    assert rows == [*ARMS] == ["baseline", "+ MSE", "T_new", "+ coarse-to-fine", "+ flip", "+ constrained"]
    for head in ("Reconstruction, MSE", "PDJ@0.05, %", "L2, %", "BPLP-C", "Left/right gap, %"):
        assert head in table
    answers = (tmp_path / "answers.md").read_text()
    assert all(question.text in answers for question in POSTER) and "over 2 seeds" in answers
    assert cv2.imread(str(tmp_path / "plot.png")).std() > 10 and (tmp_path / "table.csv").exists()
    cells = sorted((tmp_path / "cells").glob("*.json"))
    assert len(cells) == 12
    kept = {path: path.read_text() for path in cells}
    for path in cells[::3]:
        path.unlink()
    told = []
    run_template_grid(grid, tmp_path / "cells", report=lambda done, total, result: told.append((done, total)))
    assert told == [(number, 12) for number in range(1, 13)]
    for path in cells:
        found, before = (json.loads(text) for text in (path.read_text(), kept[path]))
        assert found["metrics"] == before["metrics"], path.name  # bitwise what it was


def test_rows_of_one_seed_share_frames_and_differ_in_their_pairs(grid):
    data = frames_of(grid.settings, progress=False)
    plain, flipped = data.with_flip(False), data.with_flip(True)
    assert plain.train_dataset.frames is flipped.train_dataset.frames and plain.val_dataset is flipped.val_dataset
    mirrored = flipped.train_dataset.pairs[:, 3]
    assert not plain.train_dataset.pairs[:, 3].any() and 0 < mirrored.sum() < len(mirrored)
    assert flipped.flip and not plain.flip


def test_the_ladder_is_trained_as_the_recipe():
    recipe, settings = read_yaml(recipe_path("shape-template-tiny"), "a recipe"), LadderSettings()
    network = dict(recipe["model"]["shape_network_args"])
    assert (network.pop("template"), network.pop("motion")) == (ARMS["T_new"].template, ARMS["T_new"].motion)
    assert network == settings.network_args and recipe["trainer"]["max_steps"] == settings.steps
    model = {"lr": settings.lr, "schedule": "one_cycle"}
    assert model.items() <= recipe["model"].items()
    for name in ("size", "batch_size", "count", "val_count", "frames"):
        assert recipe["data"][name] == getattr(settings, name)


def test_ablation_names_flags_that_it_has_no_use_for(commands, tmp_path):
    done = commands.run(tmp_path, "ablate", "shape-template", "--views", "2")
    assert done.returncode == 1 and "--views is given, expected it with grids of lifting networks" in done.stderr
    assert not [*tmp_path.iterdir()]


# ---- questions -----------------------------------------------------------------------------------------------------


def results(**rows):
    """Results by row: a measure's numbers, one per seed."""
    return [
        SimpleNamespace(
            cell=SimpleNamespace(backbone="n", objective=name, seed=seed), metrics={key: value}, structure={}
        )
        for name, (key, values) in rows.items()
        for seed, value in enumerate(values)
    ]


def test_an_answer_is_the_interval_of_the_paired_differences():
    claim = Claim("pdj", "a", "b")
    found = answer(claim, results(a=("pdj", [10.0, 20.0, 30.0]), b=("pdj", [12.0, 23.0, 34.0])))
    # differences 2, 3, 4: mean 3, deviation 1, t of two degrees of freedom 4.303
    assert found.change == pytest.approx(3.0) and found.margin == pytest.approx(4.303 / math.sqrt(3))
    assert found.verdict == "yes" and found.seeds == 3
    assert str(found) == "PDJ@0.05, b against a: +3.00 ± 2.48 % over 3 seeds (better: yes)"
    worse = Claim("pdj", "a", "b", better=False)
    assert answer(worse, results(a=("pdj", [10.0, 20.0, 30.0]), b=("pdj", [12.0, 23.0, 34.0]))).verdict == "no"
    wide = results(a=("pdj", [10.0, 20.0, 30.0]), b=("pdj", [11.0, 19.0, 35.0]))
    assert answer(claim, wide).verdict == "not shown"
    lower = Claim("normalized_l2", "a", "b")  # for which less is better
    fell = results(a=("normalized_l2", [5.0, 6.0]), b=("normalized_l2", [4.0, 5.0]))
    assert answer(lower, fell).verdict == "yes"


@pytest.mark.parametrize(
    "rows",
    [
        {"a": ("bplp_c", [1.0]), "b": ("bplp_c", [5.0])},  # one seed has no interval
        {"a": ("bplp_c", [1.0, 2.0]), "b": ("bplp_c", [math.inf, math.nan])},
        {"a": ("bplp_c", [1.0, 2.0])},
    ],
)
def test_nothing_is_shown_where_there_is_no_interval(rows):
    found = answer(Claim("bplp_c", "a", "b"), results(**rows))
    assert found.verdict == "not shown" and "not shown" in str(found)


def test_a_question_is_answered_by_all_of_its_claims():
    both = {"baseline": [2.0, 2.1, 2.0], "+ MSE": [1.0, 1.1, 1.0]}
    found = results(**{name: ("reconstruction", values) for name, values in both.items()})
    for one, value in zip(found, [30.0, 31.0, 30.0, 20.0, 21.1, 20.0], strict=True):
        one.metrics["pdj"] = value
    text = answers_text(found, POSTER[:1])
    assert text.startswith("- **Does + MSE alone improve the reconstruction and worsen PDJ?** Yes.")
    for one in found[:3]:
        one.metrics["pdj"] = 10.0
    assert answers_text(found, POSTER[:1]).startswith(f"- **{POSTER[0].text}** No.")
    assert answers_text(found, POSTER[2:]).count("Not shown.") == 2


def test_panels_have_as_many_pictures_in_each_column(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    path = plot_panels({"frame": [picture] * 2, "T*, T_new": [picture] * 2}, tmp_path / "a.png", title="both")
    assert cv2.imread(str(path)).std() > 10
    with pytest.raises(ArgumentError, match=r"columns has \[1, 2\] pictures, expected as many in each"):
        plot_panels({"a": [picture], "b": [picture] * 2}, tmp_path / "b.png")


# ---- learning ------------------------------------------------------------------------------------------------------


@pytest.mark.slow(seconds=20)
def test_a_few_hundred_steps_without_labels_find_joints_in_folders_that_were_not_trained_on():
    network = {
        "input_size": 32, "regressor_widths": [16, 24, 48, 64], "translator_widths": [16, 32], "hidden": 32,
    }  # fmt: skip
    settings = LadderSettings(
        steps=280, network_args=network, size=32, count=24, val_count=6, frames=16, perceptual_weight=0.0, lr=2e-3
    )
    data = frames_of(settings, progress=False)
    untrained = train_arm(replace(settings, steps=2, lr=1e-9), ARMS["T_new"], data, validations=0, quiet=True)
    before = evaluate_templates(untrained.module, data)
    made = train_arm(settings, ARMS["T_new"], data, validations=0, quiet=True)
    after = made.evaluation.metrics
    loss = made.curves["train_loss"]
    assert np.mean(loss[-20:]) < 0.4 * np.mean(loss[:5])
    assert after["normalized_l2"] < 0.95 * before.metrics["normalized_l2"]
    assert after["pdj"] > 1.1 * before.metrics["pdj"]
    assert after["reconstruction"] < 0.5 * before.metrics["reconstruction"]
