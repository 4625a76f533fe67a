"""The table of measures: what it says of every metric, and that a new metric is three files."""

import doctest
import importlib
import inspect
import json
import math
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from structloss import metrics
from structloss.errors import ArgumentError
from structloss.metrics.measures import GROUPS, MEASURES, Measure, exported, group, measure, register

REPOSITORY = Path(__file__).resolve().parents[1]
#: where the recipe is: in the assembled page, or the part that it is made from
RECIPES = [REPOSITORY / "docs" / name for name in ("adding.md", "_adding_metric.md.part")]
TINY = {"dim_feat": 16, "depth": 1, "num_heads": 2, "dim_rep": 16, "predict_offset": False}
SMALL = {"num_subjects": 3, "clips_per_subject": 2, "frames": 27, "window": 9, "views": 1, "batch_size": 16}


# The table


def test_rows_make_metrics_that_agree_with_them():
    for key, row in MEASURES.items():
        assert row.key == key and row.group in GROUPS and row.title and row.unit
        assert not row.meaning.endswith("."), "becomes a part of a sentence"
        if row.group in ("accuracy", "structure", "limb"):
            made = row.make("h36m")
            assert made.higher_is_better == row.higher_is_better
            assert bool(row.parts) == (row.group == "limb")
            assert row.validation == "" or row.group == "accuracy"
        if row.function:
            module, _, name = row.function.rpartition(".")
            assert getattr(importlib.import_module(f"structloss.metrics.{module}"), name) is getattr(metrics, name)


def test_keys_that_files_hold_are_there():
    """`metrics.csv`, `test.json` and the JSON of results hold them since before there was a table."""
    accuracy = ["mpjpe", "pa_mpjpe", "n_mpjpe", "mpjve", "depth_order_joints", "depth_order_frames"]
    structure = ["lse", "bsle", "lle", "bone_length_spread", "illegal_angle_rate"]
    assert [row.key for row in group("accuracy")][:6] == accuracy
    assert [row.key for row in group("structure")][:5] == structure
    assert {row.key for row in group("limb")} >= {"symmetry", "spread", "illegal"}
    assert measure("illegal/left_knee") is MEASURES["illegal"]


def test_values_are_shown_in_their_unit():
    found = SimpleNamespace(
        metrics={"mpjpe": 50.0, "depth_order_joints": 0.9},
        structure={"illegal_angle_rate": 0.02, "illegal/left_knee": 0.01, "lse": math.nan},
        loss_share=0.25,
    )
    shown = {"mpjpe": 50, "depth_order_joints": 90, "illegal_angle_rate": 2, "loss_share": 25}
    for key in MEASURES:
        assert measure(key).value(found) == pytest.approx(shown.get(key, math.nan), nan_ok=True)
    assert measure("illegal").by_part(found.structure) == {"left_knee": 1.0}


def test_the_table_loads_nothing_heavy():
    code = "import sys; from structloss.metrics import measures; print(*{'torch', 'torchmetrics'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_what_rows_name_is_handed_on():
    for module, name in exported():
        assert name in dir(metrics) and module != name, "a module would hide the function of its name"
        found = getattr(metrics, name)
        assert found is getattr(importlib.import_module(f"structloss.metrics.{module}"), name)
    assert set(metrics.__all__) <= set(dir(metrics))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "mpjpe"}, "key is 'mpjpe', which is taken"),
        ({"group": "precision"}, "group is 'precision', expected one of 'accuracy'"),
        ({"parts": "fingers"}, "parts is 'fingers', expected one of ''"),
        ({"validation": "metres"}, "validation is 'metres', expected one of ''"),
    ],
)
def test_rows_that_can_not_be_registered(changes, message):
    with pytest.raises(ArgumentError, match=message):
        register(Measure(**{"key": "new", "title": "New", "unit": "mm", **changes}))
    assert "new" not in MEASURES


# A made-up metric, at run time


def worst_values(pred, target, weight, *, root):
    error = torch.where(weight > 0, (pred - target).norm(dim=-1), 0)
    return error.amax(-1, keepdim=True).double(), (weight > 0).any(-1, keepdim=True).double()


@pytest.fixture
def made_up():
    """Two measures that nothing in the package knows of: of accuracy, and of the predicted skeleton alone."""
    from structloss.metrics._base import RootRelative, WeightedMean

    class Worst(RootRelative):
        part, errors = None, staticmethod(worst_values)

    class Span(WeightedMean):
        part, needs_target, needs_skeleton, higher_is_better = None, False, True, True

        def __init__(self, skeleton):
            super().__init__()
            self.skeleton = skeleton

        def values(self, pred, target, weight):
            assert target is None or target.shape == pred.shape
            return (pred[..., 13, :] - pred[..., 16, :]).norm(dim=-1)[..., None].double(), weight[..., :1].double()

    rows = [
        Measure("worst", "Worst joint", "cm", decimals=3, factor=0.1, meaning="made up", metric=Worst, headline=True),
        Measure("span", "Span of arms", "m", True, 3, 1e-3, "structure", "wrist to wrist", Span, validation=""),
    ]
    for row in rows:
        register(row)
    yield rows
    for row in rows:
        del MEASURES[row.key]


def test_a_measure_registered_at_run_time_is_everywhere(made_up, tmp_path):
    pytest.importorskip("lightning")
    from rich.console import Console

    from structloss import reports
    from structloss.data import MotionDataModule
    from structloss.harness.ablation import CellResult, Grid
    from structloss.harness.evaluation import evaluate
    from structloss.harness.lifting import LiftingModule
    from structloss.harness.scores import with_all_joints
    from structloss.reports.ablation import ablation_csv, ablation_table, plot_ablation, summarise
    from structloss.reports.breakdown import breakdown

    data = MotionDataModule(**SMALL, progress=False)
    data.setup()
    torch.manual_seed(0)
    module = LiftingModule(backbone_args=TINY)
    found = evaluate(module, data.val_dataloader(), data.actions)

    worst, spans, true_spans = [], [], []
    for batch in data.val_dataloader():
        poses, target, weight = with_all_joints(module, module.predict_step(batch, 0).detach(), batch)
        for pose, truth, counts in zip(poses.flatten(0, 1), target.flatten(0, 1), weight.flatten(0, 1), strict=True):
            if counts.any():
                worst.append(float((pose - truth).norm(dim=-1).max()))
                spans.append(float((pose[13] - pose[16]).norm()))
                true_spans.append(float((truth[13] - truth[16]).norm()))
    assert found.metrics["worst"] == pytest.approx(sum(worst) / len(worst), rel=1e-5)
    assert found.structure["span"] == pytest.approx(sum(spans) / len(spans), rel=1e-5)
    assert found.truth["span"] == pytest.approx(sum(true_spans) / len(true_spans), rel=1e-5)
    assert "worst" not in found.truth and "worst" not in found.structure

    shown = f"{found.metrics['worst'] / 10:.3f}"
    arms = [reports.ArmResult(name) for name in ("first", "second")]
    for arm in arms:
        arm.take(found)
    arms[1].metrics = {**found.metrics, "worst": found.metrics["worst"] + 10}
    arms[0].clips, arms[1].clips = ({"worst": {str(i): i + k for i in range(3)}} for k in (0, 10))
    summary = reports.RunSummary("Made up", arms)
    (line,) = [line for line in reports.plain_table(summary).splitlines() if line.startswith("first")]
    assert f" {shown}*" in line and "↓ cm" in reports.plain_table(summary)
    console = Console(width=200, record=True, file=(tmp_path / "console").open("w"))
    console.print(reports.table(summary))
    printed = console.export_text()
    assert shown in printed and "+1.000" in printed
    page = reports.run_report(summary, tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"<td class=best>{shown}</td>" in page and "Worst<br>joint" in page and "Worst joint: made up." in page
    assert "worst joint +1.000 ± 0.000 cm" in page, "in the sentence at the top"
    assert f"{found.structure['span'] / 1000:.3f}" in page and f"{found.truth['span'] / 1000:.3f}" in page
    assert "Span of<br>arms" in page and "↑ m" in page

    structure = next(line for line in breakdown(found).splitlines() if line.startswith("Span of arms"))
    assert structure.split()[3:] == [f"{x / 1000:.3f}" for x in (found.structure["span"], found.truth["span"])] + ["m"]

    grid = Grid({"MPJPE": {"mpjpe": 1.0}, "other": {"mpjpe": 2.0}}, {"repose-tiny": {}}, seeds=(0, 1))
    results = [CellResult(cell, arms[cell.seed].metrics, found.structure, {}, {}, 1.0) for cell in grid.cells()]
    summaries = summarise(grid, results)
    table = ablation_table(grid, summaries)
    assert "Worst joint, cm ↓" in table and "Span of arms, m ↑" in table
    assert f"{found.metrics['worst'] / 10 + 0.5:.3f} ± 0.707" in table
    assert ",worst,cm,0," in ablation_csv(summaries, grid.seeds)
    assert plot_ablation(grid, summaries, tmp_path / "plot.png").is_file()


def test_a_registered_measure_is_logged_in_training_and_test(made_up, tmp_path):
    """One that is validated at every validation, one at test alone."""
    L = pytest.importorskip("lightning")
    from structloss.data import MotionDataModule
    from structloss.harness.lifting import LiftingModule

    register(Measure("often", "Often", "mm", metric=made_up[0].metric, validation="millimetres"))
    try:
        module, data = LiftingModule(backbone_args=TINY), MotionDataModule(**SMALL, progress=False)
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
        trainer = L.Trainer(**options, enable_model_summary=False, default_root_dir=tmp_path)
        (validated,) = trainer.validate(module, data, verbose=False)
        (tested,) = trainer.test(module, data, verbose=False)
    finally:
        del MEASURES["often"]
    assert validated["val/often"] >= validated["val/mpjpe"] and "val/worst" not in validated
    assert tested["test/often"] == pytest.approx(tested["test/worst"], rel=1e-5)
    assert tested["test/worst"] == pytest.approx(module.evaluation.metrics["worst"], rel=1e-5)
    assert tested["test/span"] == pytest.approx(module.evaluation.structure["span"], rel=1e-5)


# The recipe of docs/adding.md, carried out


def recipe():
    """File -> code block of the section on metrics."""
    text = next(text for path in RECIPES if path.is_file() and "## A metric\n" in (text := path.read_text("utf-8")))
    section = re.split(r"^## ", text.partition("## A metric\n")[2], flags=re.M)[0]
    return dict(re.findall(r"^\*\*\d\. `([^`]+)`\*\*.*?^```python\n(.*?)^```", section, flags=re.M | re.S)), section


@pytest.mark.slow(seconds=6)
def test_the_recipe_of_the_documentation_adds_a_metric_in_three_files(tmp_path):
    """In a copy of the tree, with nothing changed but the three files of the recipe."""
    files, section = recipe()
    names = ["structloss/metrics/worst.py", "structloss/metrics/measures.py", "tests/test_metrics_worst.py"]
    assert list(files) == names
    assert f"Files touched, and no others: {', '.join(f'`{name}`' for name in names)}." in " ".join(section.split())
    tree = tmp_path / "tree"
    for source, copy in (("structloss", "structloss"), ("kernels", "structloss/kernels")):
        for path in (REPOSITORY / source).rglob("*"):
            if path.suffix in (".py", ".css", ".js", ".yaml", ".npz"):
                to = tree / copy / path.relative_to(REPOSITORY / source)
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(path.read_bytes())
    new, table, test = (tree / name for name in names)
    assert not new.exists()
    new.write_text(files[names[0]])
    rows, end = table.read_text(encoding="utf-8"), "\n)\n\nMEASURES"
    assert rows.count(end) == 1
    table.write_text(rows.replace(end, f"\n{files[names[1]]}{end[1:]}"), encoding="utf-8")
    test.parent.mkdir()
    test.write_text(files[names[2]])
    (tree / "main.py").write_text(_MAIN)
    done = subprocess.run([sys.executable, "main.py"], cwd=tree, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["where"]).is_relative_to(tree) and found["tests"] == 0 and found["examples"] == [5, 0]
    assert found["value"] > found["mpjpe"] > 0
    assert "Worst" in found["table"] and f"{found['value']:.1f}" in found["table"]
    assert (
        "Worst joint: error of the worst joint of a frame." in found["page"]
        and f"{found['value']:.1f}" in found["page"]
    )
    assert "Worst joint, mm ↓" in found["ablation"]


_MAIN = f"""
import doctest, inspect, json, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "skbc_structloss" not in type(finder).__module__]
sys.path.insert(0, ".")
import pytest
from structloss import metrics, reports
from structloss.data import MotionDataModule
from structloss.harness.ablation import CellResult, Grid
from structloss.harness.evaluation import evaluate
from structloss.harness.lifting import LiftingModule
from structloss.reports.ablation import ablation_table, summarise

data = MotionDataModule(**{SMALL}, progress=False)
data.setup()
found = evaluate(LiftingModule(backbone_args={TINY}), data.val_dataloader(), data.actions)
arm = reports.ArmResult("arm")
arm.take(found)
summary = reports.RunSummary("t", [arm])
grid = Grid({{"a": {{"mpjpe": 1.0}}}}, {{"repose-tiny": {{}}}}, seeds=(0,))
cells = [CellResult(cell, found.metrics, found.structure, {{}}, {{}}, 1.0) for cell in grid.cells()]
runner = doctest.DocTestRunner()
for case in doctest.DocTestFinder().find(inspect.unwrap(metrics.worst_joint), module=False, globs={{}}):
    runner.run(case)
print(json.dumps({{
    "where": metrics.__file__,
    "tests": int(pytest.main(["-q", "-p", "no:cacheprovider", "tests/test_metrics_worst.py"])),
    "examples": [runner.tries, runner.failures],
    "value": found.metrics["worst_joint"],
    "mpjpe": found.metrics["mpjpe"],
    "table": reports.plain_table(summary),
    "page": reports.write_html(summary, {{}}, "r.html").read_text("utf-8"),
    "ablation": ablation_table(grid, summarise(grid, cells)),
}}))
"""


# Examples in docstrings


def modules():
    return [f"structloss.metrics.{module.name}" for module in pkgutil.iter_modules(metrics.__path__)]


@pytest.mark.parametrize("module", modules())
def test_examples_in_docstrings(module):
    """Those of functions too, which a decorator hides from doctest."""
    home = importlib.import_module(module)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for name, value in vars(home).items():
        if getattr(value, "__module__", None) == module:
            for case in finder.find(inspect.unwrap(value), name, module=False, globs={}):
                runner.run(case)
    assert runner.failures == 0


def test_every_public_function_has_an_example():
    functions = [name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))]
    assert len(functions) >= 15
    lacking = [name for name in functions if ">>> " not in getattr(metrics, name).__doc__]
    assert lacking == []


def test_spread_of_a_single_clip_by_bones():
    """Without a batch dimension, too."""
    torch.manual_seed(0)
    pose = torch.randn(9, 17, 3)
    for parts, count in (("bones", 16), ("limbs", 4)):
        found = metrics.bone_length_spread(pose, reduction=parts)
        assert found.shape == (count,)
        torch.testing.assert_close(found, metrics.bone_length_spread(pose[None], reduction=parts))
