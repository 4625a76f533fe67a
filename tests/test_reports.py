"""Reports: JSON, tables, figures and the HTML page."""

import base64
import json
import math
import os
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from structloss import files, reports, skeletons
from structloss.errors import (
    ArgumentError,
    DataError,
    MissingDependencyError,
    MissingFileError,
    UnknownNameError,
)
from structloss.metrics.measures import measure
from structloss.reports import ArmResult, PoseSamples, RunSummary
from structloss.reports.curves import smooth


def make_clips(metrics, spread=0.01):
    """Ten clips whose values scatter about those of the whole, alike in all arms but for a tenth of the scatter."""
    rng = np.random.default_rng(0)
    return {
        key: {f"clip {i}": value * (1 + spread * (rng.normal() + 0.1 * math.sin(7 * i + value))) for i in range(10)}
        for key, value in metrics.items()
    }


def make_arm(name, k=0, joints=17):
    steps = list(range(1, 101))
    arm = ArmResult(
        name=name,
        objective={"mpjpe": 1.0, "ranking_hinge": 0.1 * k},
        metrics={
            "mpjpe": 60.0 - 4 * k,
            "pa_mpjpe": 45.0 - k,
            "n_mpjpe": 58.0,
            "mpjve": 8.25 - k,
            "depth_order_joints": 0.85 + 0.03 * k,
            "depth_order_frames": math.nan,
        },
        clips_per_second=1412.0 - 100 * k,
        loss_share=0.01 + 0.02 * k,
        curves={
            "step": steps,
            "train_loss": [300 / s + k for s in steps],
            "train_mpjpe": [300 / s + 40 for s in steps],
            "val_step": [50, 100],
            "val_mpjpe": [70.0, 60.0 - 4 * k],
            "val_depth_order_joints": [0.8, 0.85],
            "val_depth_order_frames": [math.nan, 0.7],
        },
        per_joint_mpjpe=[50.0 + j for j in range(joints)],
        per_action={"walk": 50.0 - k, "sit": 70.0 + k},
        per_action_pa={"walk": 40.0 - k, "sit": 50.0 + k},
        structure={
            "lse": 12.0 - k,
            "bsle": 20.0,
            "lle": 30.0 + k,
            "bone_length_spread": math.nan,
            "illegal_angle_rate": 0.034 + 0.01 * k,
            "symmetry/upper leg": 8.0 + k,
            "illegal/left_knee": 0.02,
        },
        truth={"lse": 1.25, "illegal_angle_rate": 0.001, "symmetry/upper leg": 0.5, "illegal/left_knee": 0.0},
        config=f"model:\n  backbone: tiny # {k}\n",
        settings={"checkpoint": f"best-{k}.ckpt"},
    )
    arm.clips = make_clips({key: value for key, value in {**arm.metrics, **arm.structure}.items() if value == value})
    return arm


def make_summary(count=2, **changes):
    fields = {
        "title": "Depth order & MPJPE",
        "arms": [make_arm(f"arm {k}", k) for k in range(count)],
        "settings": {"steps": 100, "seed": 0, "command": "structloss demo --steps 100 --seed 0"},
        "data": {"source": "synthetic", "clips": 12},
        "machine": {"device": "cpu", "versions": {"torch": "2.13"}},
    }
    return RunSummary(**{**fields, **changes})


def make_samples(count=2, skeleton="h36m", frames=3, **clip):
    joints = skeletons.get(skeleton).num_joints
    rng = np.random.default_rng(0)
    target = rng.normal(0, 300, (frames, joints, 3))
    return PoseSamples(
        input=target[..., :2] / 1000,
        confidence=rng.uniform(0, 1, (frames, joints)),
        target=target,
        predictions={f"arm {k}": target + rng.normal(0, 60, target.shape) for k in range(count)},
        labels=[f"frame {f}" for f in range(frames)],
        skeleton=skeleton,
        **clip,
    )


def unpacked(page):
    """The player's data in a page, with the poses of the first clip as arrays in mm."""
    data = json.loads(re.search(r'id="pose-data">(.*?)</script>', page, re.S).group(1))
    clip = data["clips"][0]
    shape = (len(clip["labels"]), data["joints"], 3)
    data["poses"] = [
        text and np.frombuffer(base64.b64decode(text), "<i2").reshape(shape).astype(float) for text in clip["poses"]
    ]
    for pose in data["poses"]:
        if pose is not None:
            pose[pose == -32768] = math.nan
            pose *= clip["unit"]
    return data


def pixels(path):
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    return (imread(path)[..., :3] * 255).round().astype(np.uint8)


def assert_drawn(path, least=400):
    image = pixels(path)
    assert min(image.shape[:2]) >= least and max(image.shape[:2]) < 4000
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100
    ink = (image < 250).any(axis=-1)
    assert 0.005 < ink.mean() < 0.6
    for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]):  # nothing is cut off
        assert not edge.any()


# ---------------------------------------------------------------------------------------------------------- results


def test_json_round_trip_keeps_everything_and_writes_nan_as_null(tmp_path):
    summary = make_summary()
    path = reports.write_json(summary, tmp_path / "new" / "run.json")
    text = path.read_text(encoding="utf-8")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(text, parse_constant=refuse)
    assert content["arms"][0]["metrics"]["depth_order_frames"] is None
    back = reports.read_json(path)
    assert math.isnan(back.arms[0].metrics["depth_order_frames"])
    assert back.to_json() == summary.to_json()
    assert RunSummary.from_json(text).to_json() == summary.to_json()
    arm = ArmResult.from_json(json.dumps(summary.arms[1].to_json()))
    assert arm.curves == {**summary.arms[1].curves, "val_depth_order_frames": arm.curves["val_depth_order_frames"]}
    assert math.isnan(arm.curves["val_depth_order_frames"][0])


def test_json_takes_tensors_numpy_and_foreign_objects(tmp_path):
    settings = {"a": np.float32(1.5), "b": torch.tensor([1.0, math.inf]), "c": tmp_path, "d": (1, 2), "e": True}
    content = make_summary(settings=settings).to_json()["settings"]
    assert content == {"a": 1.5, "b": [1.0, None], "c": str(tmp_path), "d": [1, 2], "e": True}


def test_samples_round_trip_and_take_tensors():
    samples = make_samples()
    samples.target[0, 3] = math.nan
    back = PoseSamples.from_json(json.dumps(samples.to_json(), allow_nan=False))
    np.testing.assert_allclose(back.target, samples.target, atol=0.051)
    assert back.labels == samples.labels and list(back.predictions) == list(samples.predictions)
    pose = torch.zeros(1, 17, 3, requires_grad=True)
    made = PoseSamples(pose[..., :2], pose[..., 0], pose, {"a": pose + 2}, ["x"])
    assert made.target.dtype == np.float32
    np.testing.assert_allclose(made.errors("a"), 2 * math.sqrt(3), rtol=1e-6)


@pytest.mark.parametrize(
    "text, word",
    [("{", "not valid JSON"), ("[]", "list"), ("{}", "format"), ('{"format": "structloss.run_summary"}', "version"),
     ('{"format": "structloss.run_summary", "version": 1}', "title"),
     ('{"format": "structloss.run_summary", "version": 1, "title": "", "arms": [{"name": "a", "metrics": {"x": "y"}}]}',
      "not a number")],
)  # fmt: skip
def test_reading_something_else_is_a_data_error(tmp_path, text, word):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=word):
        reports.read_json(path)


def test_bad_input():
    with pytest.raises(MissingFileError, match=r"none\.json"):
        reports.read_json("none.json")
    pose = np.zeros((2, 17, 3))
    good = {"input": pose[..., :2], "confidence": pose[..., 0], "target": pose, "predictions": {}, "labels": ["a", "b"]}
    for change, word in [
        ({"input": pose}, "input has shape"),
        ({"confidence": pose}, "confidence has shape"),
        ({"target": pose[:, :5]}, "input|target"),
        ({"target": pose[:0]}, "F >= 1"),
        ({"predictions": {"x": pose[:1]}}, r"predictions\['x'\]"),
        ({"labels": ["a"]}, "labels has 1"),
    ]:
        with pytest.raises(ArgumentError, match=word):
            PoseSamples(**{**good, **change})
    with pytest.raises(UnknownNameError):
        PoseSamples(**good, skeleton="h37m")
    for function in (reports.table, reports.plain_table):
        with pytest.raises(ArgumentError, match="no arms"):
            function(make_summary(0))


# ------------------------------------------------------------------------------------------------------------ files


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    reports.write_json(make_summary(), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    for function in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises(OSError, match="disk full"):
                reports.write_json(make_summary(3), path)
            with pytest.raises(OSError, match="disk full"):
                reports.write_html(make_summary(), {}, tmp_path / "r.html")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            reports.plot_poses(make_samples(1, frames=1), tmp_path / "c.png", dpi=30)
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
    assert path.read_bytes() == before


def test_write_bytes_refuses_a_folder_and_gives_ordinary_permissions(tmp_path):
    with pytest.raises(ArgumentError, match="folder"):
        files.write_bytes(tmp_path, b"x")
    plain = tmp_path / "plain"
    plain.write_bytes(b"x")
    written = files.write_text(tmp_path / "a" / "b.txt", "é\n")
    assert written.read_bytes() == "é\n".encode()
    assert written.stat().st_mode == plain.stat().st_mode


# ----------------------------------------------------------------------------------------------------------- tables


def test_plain_table_marks_the_best_and_ends_with_the_difference():
    lines = reports.plain_table(make_summary()).splitlines()
    assert lines[0] == "Depth order & MPJPE"
    header = " ".join(" ".join(lines[2:5]).split())
    for word in ("MPJPE", "PA-MPJPE", "N-MPJPE", "MPJVE", "↓ mm/frame", "joints", "↑ %", "↑ clips/s", "↓ %"):
        assert word in header
    assert "frames" not in header, "no arm has a depth order of frames"
    rows = {line[:10].strip(): line[10:].split() for line in lines[5:] if not line.startswith("-")}
    assert rows["arm 0"] == ["60.0", "45.0", "58.0", "8.25", "85.0", "1,412", "1.0"]
    assert rows["arm 1"] == ["56.0*", "44.0*", "58.0", "7.25*", "88.0*", "1,312", "3.0"]
    assert rows["Difference"] == ["−4.0*", "−1.0*", "0.0", "−1.00*", "+3.0*", "–", "–"]
    ends = {line.rstrip("* ").rindex(line.rstrip("* ")[-1]) for line in lines[6:8]}
    assert len(ends) == 1  # the last column is aligned


def test_a_difference_within_its_spread_is_not_judged():
    """Student's interval of the paired differences, computed here: what leaves zero out is marked, nothing else is."""
    from statistics import fmean, stdev

    from structloss.reports._interval import paired
    from structloss.reports.tables import cells

    mpjpe, order = measure("mpjpe"), measure("depth_order_joints")
    arms = [ArmResult("a", metrics={"mpjpe": 60.0}), ArmResult("b", metrics={"mpjpe": 59.0})]
    for changes, good in (([-1.0] * 4 + [-1.5] * 4, True), ([-9.0, 7.0, -8.0, 6.0], None), ([2.0, 2.5, 3.0], False)):
        arms[0].clips = {"mpjpe": {f"c{i}": 60.0 + 9 * i for i in range(len(changes))} | {"elsewhere": 1.0}}
        arms[1].clips = {"mpjpe": {f"c{i}": 60.0 + 9 * i + change for i, change in enumerate(changes)} | {"new": 5.0}}
        t = {8: 2.365, 4: 3.182, 3: 4.303}[len(changes)]
        expected = fmean(changes), t * stdev(changes) / math.sqrt(len(changes)), len(changes)
        assert paired(mpjpe, *arms) == pytest.approx(expected)
        values, change = cells(mpjpe, arms)
        assert change.good is good and change.spread == f"{expected[1]:.1f}"
        assert [value.good for value in values] == [True if good is False else None, True if good else None]
    assert cells(order, arms)[1].good is None, "no values"
    arms[0].clips = {}
    values, change = cells(mpjpe, arms)
    assert (change.text, change.good, change.spread) == ("−1.0", None, "") and not any(v.good for v in values)
    assert "not judged" in reports.plain_table(RunSummary("t", arms))


@pytest.mark.parametrize("clips", [True, False])
def test_page_colours_what_is_beyond_its_spread_and_no_speed(tmp_path, clips):
    summary = make_summary()
    for arm in summary.arms:
        arm.clips = arm.clips if clips else {}
    text = reports.write_html(summary, {}, tmp_path / "r.html").read_text(encoding="utf-8")
    marks = [text.count(mark) for mark in ("<td class=best>", "<td class=better>", "<td class=worse>")]
    assert all(marks) if clips else not any(marks)
    lead = re.search(r'class="lead">(.*?)</p>', text)[1]
    assert "speed" not in lead and ("MPJPE −4.0 ± 0." in lead) == clips
    assert ("± over 10 clips" in text) == clips and ("the differences are not judged" in text) == (not clips)
    assert "−100" not in text, "no difference of speeds"


def test_a_value_that_one_arm_lacks_is_a_dash():
    summary = make_summary()
    summary.arms[1].metrics["depth_order_frames"] = 0.7
    rows = {line[:10].strip(): line[10:].split() for line in reports.plain_table(summary).splitlines()}
    assert rows["arm 0"][5:] == ["–", "1,412", "1.0"] and rows["arm 1"][5:] == ["70.0", "1,312", "3.0"]
    assert rows["Difference"][5] == "–"
    nothing = reports.plain_table(RunSummary("t", [ArmResult("a")]))
    assert "Loss" in nothing and nothing.count("–") == 8, "the usual columns where there is nothing at all"


def test_plain_table_of_one_and_three_arms():
    one = reports.plain_table(make_summary(1))
    assert "*" not in one and "Difference" not in one
    three = reports.plain_table(make_summary(3))
    assert "Difference (last − first)" in three and "−8.0" in three


def test_names_can_not_break_the_tables():
    summary = make_summary(arms=[make_arm("[bold]a\nb\x1b[31m"), make_arm("[/x]", 1)])
    lines = reports.plain_table(summary).splitlines()
    assert any(line.startswith("[bold]a b [31m ") for line in lines)
    from rich.console import Console

    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(reports.table(summary))
    text = console.export_text()
    assert "[bold]a b" in text and "[/x]" in text


def test_rich_table_has_bold_best_values_and_fits_80_columns():
    from rich.console import Console

    table = reports.table(make_summary())
    assert [len(list(column.cells)) for column in table.columns] == [4] * 8
    mpjpe = list(table.columns[1].cells)
    assert [cell.plain for cell in mpjpe][:3] == ["60.0", "56.0", "−4.0"] and mpjpe[3].plain.startswith("±0.")
    assert [str(cell.style) for cell in mpjpe][:3] == ["", "bold", "green"]
    speed = list(table.columns[6].cells)
    assert [str(cell.style) for cell in speed][:3] == ["", "", ""] and speed[2].plain == "–"
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table)
    text = console.export_text()
    assert "…" not in text
    for cell in ("60.0", "44.0", "58.0", "8.25", "85.0", "1,412", "+3.0", "mm/frame", "Difference"):
        assert cell in text


# ---------------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("count", [1, 3])
def test_curves(tmp_path, count):
    assert_drawn(reports.plot_curves(make_summary(count), tmp_path / "curves.png", dpi=50), 300)


def test_curves_with_gaps_missing_panels_and_mathematics_in_names(tmp_path):
    arms = [make_arm("$x_"), make_arm("b$", 1)]
    arms[0].curves = {"step": [1, 2], "train_other": [math.nan, 1.0]}
    arms[1].curves = {}
    assert_drawn(reports.plot_curves(make_summary(arms=arms, title="$\\frac"), tmp_path / "a.png", dpi=60), 200)
    arms[0].curves = {}
    pixels(reports.plot_curves(make_summary(arms=arms), tmp_path / "b.png", dpi=30))
    arms[0].curves = {"step": [1], "train_loss": [1.0, 2.0]}
    with pytest.raises(ArgumentError, match=r"train_loss.*has 2 values, expected 1"):
        reports.plot_curves(make_summary(arms=arms), tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


@pytest.fixture
def drawn(monkeypatch):
    """The figure that was drawn last, laid out."""
    from structloss.reports import _style

    kept, png = [], _style.png

    def keep(figure, dpi):
        kept.append(figure)
        return png(figure, dpi)

    monkeypatch.setattr(_style, "png", keep)
    return kept


@pytest.mark.parametrize("count", [1, 2, 6])
def test_numbers_at_the_ends_of_curves_stay_in_the_axes(tmp_path, count, drawn):
    """Also where many lines end high or low, side by side; and they don't lie on each other."""
    summary = make_summary(count)
    for k, arm in enumerate(summary.arms):
        arm.curves |= {"val_mpjpe": [1170.0, 1160.0 + 0.01 * k], "val_depth_order_frames": [0.5, 0.852]}
    reports.plot_curves(summary, tmp_path / "c.png")
    renderer, found = drawn[-1].canvas.get_renderer(), 0
    for axes in drawn[-1].axes:
        inside, boxes = axes.get_window_extent(renderer), [t.get_window_extent(renderer) for t in axes.texts]
        for box in boxes:
            assert inside.x0 <= box.x0 and box.x1 <= inside.x1
            assert inside.y0 - 4 <= box.y0 and box.y1 <= inside.y1 + 4
        boxes.sort(key=lambda box: box.y0)
        assert all(low.y1 <= high.y0 + 4 for low, high in pairwise(boxes))
        found += len(boxes)
    assert found == 3 * count


def test_labels_of_rows_are_broken_at_commas_and_stay_beside_the_panels(tmp_path, drawn):
    samples = make_samples(2)
    samples.labels = [f"syn16/random_06, random, camera 1, frame {f}" for f in range(3)]
    reports.plot_poses(samples, tmp_path / "p.png")
    figure = drawn[-1]
    renderer = figure.canvas.get_renderer()
    labels = [text for text in figure.texts if "syn16" in text.get_text()]
    assert len(labels) == 3
    left = min(axes.get_window_extent(renderer).x0 for axes in figure.axes)
    for text, label in zip(labels, samples.labels, strict=True):
        assert text.get_text().replace("\n", " ") == label
        assert all(line.endswith(",") for line in text.get_text().split("\n")[:-1])
        box = text.get_window_extent(renderer)
        assert box.x0 >= 2 and box.x1 <= left - 2


def test_a_pose_under_another_is_seen(tmp_path):
    """Two predictions that coincide: beside the thin line of the second the first shows."""
    samples = make_samples(2)
    samples.predictions["arm 1"] = samples.predictions["arm 0"].copy()
    image = pixels(reports.plot_poses(samples, tmp_path / "p.png")).astype(int)
    front = image[200:, image.shape[1] // 4 : image.shape[1] // 2]  # from the camera
    near = [(np.abs(front - np.array(colour)).sum(-1) < 60).sum() for colour in ((213, 94, 0), (0, 114, 178))]
    assert min(near) > 300 and near[0] > 0.3 * near[1]


def test_smoothing_keeps_constants_and_lines_and_skips_nan():
    line = np.arange(50.0)
    np.testing.assert_allclose(smooth(line, 3)[10:-10], line[10:-10], atol=1e-9)
    values = np.full(50, 7.0)
    values[[0, 20, 21]] = math.nan
    np.testing.assert_allclose(smooth(values, 2), 7.0)
    assert np.isnan(smooth(np.full(9, math.nan), 2)).all()


@pytest.mark.parametrize("count, skeleton", [(1, "h36m"), (3, "mpi_inf_3dhp"), (1, "h3wb")])
def test_poses(tmp_path, count, skeleton):
    path = reports.plot_poses(make_samples(count, skeleton, frames=1), tmp_path / "poses.png", dpi=50)
    assert_drawn(path, 180)


def test_poses_picks_frames_and_takes_missing_joints(tmp_path):
    samples = make_samples(1, frames=9)
    samples.target[:, 16] = math.nan
    samples.input[:, 4] = math.nan
    samples.confidence[:, 5] = math.nan
    heights = [
        pixels(reports.plot_poses(samples, tmp_path / f"{n}.png", max_frames=n, dpi=40)).shape[0] for n in (1, 2)
    ]
    assert heights[1] > 1.5 * heights[0]
    with pytest.raises(ArgumentError, match="max_frames"):
        reports.plot_poses(samples, tmp_path / "x.png", max_frames=0)
    samples.target[0] = math.nan
    with pytest.raises(ArgumentError, match="frame 0"):
        reports.plot_poses(samples, tmp_path / "x.png")
    samples.predictions = {}
    with pytest.raises(ArgumentError, match="no predictions"):
        reports.plot_poses(samples, tmp_path / "x.png")


def test_poses_draw_down_as_down_and_depth_to_the_right(tmp_path, monkeypatch):
    """The head is above the feet, the far joint right of the near one, in what reaches the axes."""
    from structloss.reports import poses

    seen = []
    monkeypatch.setattr(poses, "draw_limbs", lambda axes, skeleton, points, *rest: seen.append(points.copy()))
    samples = make_samples(1, frames=1)
    reports.plot_poses(samples, tmp_path / "x.png", dpi=40)
    target = samples.target[0]
    np.testing.assert_allclose(seen[1], target[:, :2] * [1, -1], rtol=1e-6)
    np.testing.assert_allclose(seen[3], target[:, [2, 1]] * [1, -1], rtol=1e-6)


# ------------------------------------------------------------------------------------------------------------- page


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    return {"Curves": reports.plot_curves(make_summary(), folder / "c.png", dpi=50)}


def assert_self_contained(text):
    assert not re.search(r"<link|<iframe|@import|url\(|https?://", text, re.I)
    for source in re.findall(r"""\b(?:src|href)\s*=\s*["']?([^"' >]+)""", text):
        assert source.startswith("data:image/png;base64,")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_page_is_self_contained_and_complete(tmp_path, figures, count):
    path = reports.write_html(
        make_summary(count), figures, tmp_path / "r.html", make_samples(count), captions={"Curves": "What they show."}
    )
    text = path.read_text(encoding="utf-8")
    assert_self_contained(text)
    (image,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert base64.b64decode(image, validate=True) == figures["Curves"].read_bytes()
    for part in (
        "Depth order &amp; MPJPE",
        "What they show.",
        "walk",
        "prefers-color-scheme: dark",
        "@media print",
        "structloss demo --steps 100 --seed 0",
        "versions / torch",
        "Neck/Nose",
        "Illegal<br>angles",
        "True poses",
        "PA-MPJPE",
        "Mean over actions",
        "upper leg",
        "left knee",
        "<details>",
        "backbone: tiny # 0",
        "best-0.ckpt",
        "<svg",
        "<canvas",
    ):
        assert part in text
    assert ("Difference" in text) == (count > 1)
    data = unpacked(text)
    assert data["names"] == ["true pose", *(f"arm {k}" for k in range(count))]
    assert data["colours"] == ["--target", *(f"--arm{k}" for k in range(count))]
    samples = make_samples(count)
    for pose, packed in zip([samples.target, *samples.predictions.values()], data["poses"], strict=True):
        np.testing.assert_allclose(packed, pose, atol=0.051)  # tenths of a millimetre
    for name, errors in zip(samples.predictions, data["clips"][0]["errors"][1:], strict=True):
        np.testing.assert_allclose(errors, samples.errors(name).mean(-1), atol=0.051)
    assert data["clips"][0]["fps"] is None and data["clips"][0]["labels"] == samples.labels
    assert data["bones"][0] == [1, 0, "R"] and data["bones"][3] == [4, 0, "L"] and data["bones"][6] == [7, 0, ""]
    assert {line.count("<script") for line in [text]} == {2}


def test_page_offers_several_clips(tmp_path):
    clips = [make_samples(2, frames=5, title="walking", fps=50.0), make_samples(1, frames=2)]
    clips[1].predictions["stranger"] = clips[1].target
    text = reports.write_html(make_summary(), {}, tmp_path / "r.html", clips).read_text(encoding="utf-8")
    data = unpacked(text)
    assert [(clip["title"], clip["fps"]) for clip in data["clips"]] == [("walking", 50.0), ("clip 2", None)]
    assert data["names"] == ["true pose", "arm 0", "arm 1", "stranger"]
    assert data["colours"][3] == "--arm2", "a colour that no arm has"
    assert [pose is None for pose in data["clips"][1]["poses"]] == [False, False, True, False]
    assert data["clips"][0]["poses"][3] is None and data["clips"][0]["errors"][3] is None
    seen = np.frombuffer(base64.b64decode(data["clips"][0]["confidence"]), np.uint8).reshape(5, 17)
    np.testing.assert_allclose(seen / 255, clips[0].confidence, atol=0.003)
    where = np.frombuffer(base64.b64decode(data["clips"][0]["input"]), "<i2").reshape(5, 17, 2) / 8192
    np.testing.assert_allclose(where, clips[0].input, atol=1e-4)
    clips[1] = make_samples(1, "mpi_inf_3dhp")
    with pytest.raises(ArgumentError, match="clips of 'h36m' and 'mpi_inf_3dhp', expected one skeleton"):
        reports.write_html(make_summary(), {}, tmp_path / "x.html", clips)
    assert not (tmp_path / "x.html").exists()


def test_page_of_poses_far_away_keeps_them_all(tmp_path):
    """Whole millimetres or coarser where 16 bits would not do."""
    samples = make_samples(1, frames=2)
    samples.predictions["arm 0"] = samples.target * 500
    text = reports.write_html(make_summary(1), {}, tmp_path / "r.html", samples).read_text(encoding="utf-8")
    largest = np.abs(samples.predictions["arm 0"]).max()
    assert largest > 1e5
    np.testing.assert_allclose(unpacked(text)["poses"][1], samples.predictions["arm 0"], atol=largest / 32000)


def test_structure_says_what_the_true_poses_are_like(tmp_path):
    def rows(summary):
        page = reports.write_html(summary, {}, tmp_path / "r.html").read_text(encoding="utf-8")
        found = re.search(r"<h2>Structure.*?</section>", page, re.S)
        return found and re.findall(r"<tr.*?</tr>", found.group(0))

    summary = make_summary()
    head, *arms, difference, spread, truth = rows(summary)
    assert "spread" not in head and "LSE" in head, "no arm has a spread"
    numbers = [re.findall(r"<td[^>]*>([^<]+)</td>", row) for row in arms]
    assert numbers == [["12.0", "20.0", "30.0", "3.40"], ["11.0", "20.0", "31.0", "4.40"]]
    assert "± over 10 clips" in spread and spread.count("<td>±") == 5
    assert "−1.0" in difference and "True poses<" in truth and "1.2" in truth and "0.10" in truth
    summary.arms[1].truth = {**summary.arms[1].truth, "lse": 2.5}  # scored on other poses
    assert [row.count("True poses of arm 1") for row in rows(summary)] == [0, 0, 0, 0, 0, 0, 1]
    for arm in summary.arms:
        arm.structure = arm.truth = {}
    assert rows(summary) is None


def test_page_of_shape_templates_has_each_joint_and_the_true_joints(tmp_path):
    arms = [
        ArmResult(
            name,
            metrics={"reconstruction": 0.5, "pdj": 20.0 + k, "normalized_l2": 8.0, "bplp_c": 40.0},
            structure={"pdj/neck": 30.0 + k, "normalized_l2/neck": 7.0 - k, "left_right_gap/wrist": 2.5},
            truth={"bplp_c": 29.666},
        )
        for k, name in enumerate(("affine", "fine"))
    ]
    path = reports.write_html(RunSummary("t", arms, skeleton=""), {}, tmp_path / "r.html")
    rows = ["|".join(re.findall(r"<td[^>]*>(.*?)</td>", row)) for row in re.findall(r"<tr.*?</tr>", path.read_text())]
    assert rows.count("True joints|–|–|–|29.67") == 1
    found = [row for row in rows if row.startswith(("neck", "wrist"))]
    assert found == ["neck|30.00|31.00|+1.00", "neck|7.00|6.00|−1.00", "wrist|2.50|2.50|0.00"]
    assert "skeleton" not in path.read_text()
    arms[1].truth = {"bplp_c": 31.0}
    text = reports.write_html(RunSummary("t", arms, skeleton=""), {}, tmp_path / "r.html").read_text()
    assert text.count("True joints") == 2 and "True joints of fine</td><td>–</td><td>–</td><td>–</td><td>31.00" in text


def test_notes_stand_at_the_top(tmp_path):
    summary = make_summary(notes=["Scored on different data."])
    text = reports.write_html(summary, {}, tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.index("Scored on different data.") < text.index("<h2>")


def test_page_without_extras_has_no_script(tmp_path):
    arms = [ArmResult("only")]
    text = reports.write_html(RunSummary("t", arms), {}, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in text and "<svg" not in text and "Run it again" not in text
    assert_self_contained(text)


def test_page_escapes_everything(tmp_path, figures):
    evil = "</script><script>alert('x')</script>\"'&"
    arm = make_arm(evil)
    arm.objective = {evil: 1.0}
    arm.per_action = arm.per_action_pa = {evil: 1.0}
    arm.structure[f"illegal/{evil}"] = 1.0
    arm.config, arm.settings = evil, {evil: evil}
    summary = make_summary(
        title=evil,
        arms=[arm, make_arm("b", 1)],
        settings={evil: evil, "command": evil},
        data={evil: [evil]},
        machine={evil: {evil: evil}},
        notes=[evil],
    )
    samples = make_samples(1, title=evil)
    samples.predictions = {evil: samples.target}
    samples.labels = [evil] * 3
    text = reports.write_html(
        summary, {evil: figures["Curves"]}, tmp_path / "r.html", samples, captions={evil: evil}
    ).read_text(encoding="utf-8")
    assert "<script>alert" not in text and "alert('x')\"" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert unpacked(text)["clips"][0]["labels"][0] == evil


def test_page_refuses_what_it_can_not_show(tmp_path, figures):
    path = tmp_path / "r.html"
    (tmp_path / "x.png").write_bytes(b"GIF")
    with pytest.raises(ArgumentError, match="no PNG"):
        reports.write_html(make_summary(), {"x": tmp_path / "x.png"}, path)
    with pytest.raises(MissingFileError):
        reports.write_html(make_summary(), {"x": tmp_path / "y.png"}, path)
    with pytest.raises(ArgumentError, match="captions"):
        reports.write_html(make_summary(), figures, path, captions={"Other": ""})
    with pytest.raises(ArgumentError, match="per_joint_mpjpe"):
        reports.write_html(make_summary(arms=[make_arm("a", joints=5)]), {}, path)
    assert not path.exists()


def test_page_of_another_skeleton_and_missing_values(tmp_path):
    samples = make_samples(2, "mpi_inf_3dhp")
    samples.predictions["arm 0"][1] = math.nan
    summary = make_summary(skeleton="mpi_inf_3dhp")
    summary.arms[1].per_joint_mpjpe[3] = math.nan
    text = reports.write_html(summary, {}, tmp_path / "r.html", samples).read_text(encoding="utf-8")
    assert "HeadTop" in text and "NaN" not in text and ">nan" not in text
    data = unpacked(text)
    assert data["clips"][0]["errors"][1][1] is None and np.isnan(data["poses"][1][1]).all()
    assert np.isfinite(data["poses"][1][0]).all()


# ---------------------------------------------------------------------------------------------------------- imports


def test_importing_loads_no_optional_package_and_their_absence_is_explained():
    code = """
import sys
from itertools import pairwise
before = set(sys.modules)
import structloss.reports as reports
from structloss.reports import ArmResult, RunSummary, plain_table, write_html, plot_curves, plot_poses
assert not {m.split(".")[0] for m in sys.modules} & {"matplotlib", "rich", "lightning", "PIL"}, "loaded"
assert set(reports.__all__) <= set(dir(reports))
plain_table(RunSummary("t", [ArmResult("a")]))
sys.modules["matplotlib"] = sys.modules["rich"] = sys.modules["rich.table"] = sys.modules["rich.box"] = None
for call in (lambda: plot_curves(RunSummary("t", [ArmResult("a")]), "x.png"), lambda: reports.table(RunSummary("t", [ArmResult("a")]))):
    try:
        call()
    except reports.results.MissingFileError.__mro__[1] as error:
        assert type(error).__name__ == "MissingDependencyError", type(error)
        assert 'pip install -e ".[harness]"' in str(error)
    else:
        raise AssertionError("no error")
"""  # noqa: E501
    assert issubclass(MissingDependencyError, ImportError)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_unknown_names():
    with pytest.raises(AttributeError, match="nothing"):
        _ = reports.nothing
