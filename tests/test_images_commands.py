"""`structloss demo sapnet` and `structloss ablate sapnet`, as small as they can be."""

import json
import re

import numpy as np
import pytest

pytest.importorskip("lightning")
pytest.importorskip("cv2")

from structloss.commands._demo_sapnet import SAPNetDemoSettings, run_sapnet_demo
from structloss.commands.ablate import run_ablation
from structloss.errors import ArgumentError
from structloss.harness.image_ablation import ARMS, REFINED, ImageGrid, run_image_grid
from structloss.harness.image_stages import Schedule

cv2 = pytest.importorskip("cv2")

ROWS = ["stage 1: heatmaps", "stage 2: depth", "stage 3: structure", "stage 4: symmetry", "TP-Net on stage 4"]


@pytest.mark.slow(seconds=15)
def test_demo_goes_through_all_stages_and_writes_a_report(tmp_path, capsys):
    out = tmp_path / "demo"
    small = SAPNetDemoSettings(steps=(2, 2, 2, 2), epochs=1, count=8, runs=1, batch_size=4, out=str(out))
    summary = run_sapnet_demo(small)
    said = capsys.readouterr().out
    assert [arm.name for arm in summary.arms] == ROWS and all(row in said for row in ROWS)
    for name in ("joint_error_2d", "depth_error", "mpjpe"):
        assert all(np.isfinite(arm.metrics[name]) for arm in summary.arms if name in arm.metrics)
    assert "joint_error_2d" not in summary.arms[-1].metrics  # TP-Net sees no images
    assert all(np.isfinite(arm.structure["illegal_angle_rate"]) for arm in summary.arms)
    terms = [set(arm.objective) for arm in summary.arms[:4]]
    assert terms[0] == {"heatmaps"} and terms[1] == {"heatmaps", "depth"}
    assert terms[3] - terms[2] == {"bone_symmetry"}
    assert sorted(path.name for path in out.iterdir()) == [
        "curves.png",
        "metrics.json",
        "people.png",
        "poses.png",
        "report.html",
    ]
    for name in ("people.png", "curves.png", "poses.png"):
        assert cv2.imread(str(out / name)).std() > 10  # something is drawn
    page = (out / "report.html").read_text()
    assert all(row in page for row in ROWS) and "Joints found in strangers" in page
    assert json.loads((out / "metrics.json").read_text())["settings"]["command"].startswith("structloss demo sapnet")


def test_demo_refuses_another_folder(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ArgumentError, match="a folder with other content"):
        run_sapnet_demo(SAPNetDemoSettings(out=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture
def grid():
    schedule = Schedule(steps=(2, 2, 2, 2), batch_size=4, data={"count": 8, "val_count": 1, "progress": False})
    return ImageGrid(schedule=schedule, seeds=(0,), epochs=1, runs=1, frames=6)


def test_ablation_has_the_rows_of_the_paper_and_goes_on_where_it_stopped(tmp_path, grid):
    lines = []
    run_ablation(grid, tmp_path, say=lines.append)
    table = (tmp_path / "table.md").read_text()
    rows = re.findall(r"^\| (baseline|\+ [^|]+?) \|", table, re.M)
    assert rows == [*ARMS, *REFINED] == ["baseline", "+ geometry", "+ angle", "+ symmetry", "+ TP-Net", "+ semi-online"]
    for head in ("MPJPE, mm", "2D error, % of the box", "Illegal angles, %", "LSE, mm", "Bone-length spread, mm"):
        assert head in table
    assert cv2.imread(str(tmp_path / "plot.png")).std() > 10
    cells = sorted((tmp_path / "cells").glob("*.json"))
    kept = {path: path.read_text() for path in cells}
    gone = [path for path in cells if "TP-Net" in path.name or "angle" in path.name]
    for path in gone:
        path.unlink()
    again = run_image_grid(grid, tmp_path / "cells")
    assert len(again) == len(rows)
    for path in cells:
        found, before = (json.loads(text) for text in (path.read_text(), kept[path]))
        assert found["metrics"] == before["metrics"], path.name  # bitwise what it was


def test_ablation_names_flags_that_it_has_no_use_for(commands, tmp_path):
    done = commands.run(tmp_path, "ablate", "sapnet", "--views", "2")
    assert done.returncode == 1 and "--views is given, expected it with grids of lifting networks" in done.stderr
    assert not [*tmp_path.iterdir()]
