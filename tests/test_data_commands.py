"""`structloss data`, the report of `inspect`, and how protocols split data."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fake_data
import numpy as np
import pytest
from test_mocap_formats import LABELS, marker_points, write_c3d

from structloss.cli import main
from structloss.commands import data as commands
from structloss.data import generate_clips, load_archive, open_store, save_archive, save_store
from structloss.data.formats import read_c3d, write_bvh
from structloss.data.formats.h36m_npz import read_h36m_npz
from structloss.data.formats.h36m_pickle import EXCLUDED, read_h36m_pickle
from structloss.data.inspection import inspect_data, inspect_loaded
from structloss.data.observation import observe
from structloss.data.opening import open_data
from structloss.data.protocols import CMU_VAL_SUBJECTS, PROTOCOLS, held_out, split
from structloss.data.store import PoseStore, View
from structloss.errors import ArgumentError, DataError, StructlossError, UnknownNameError

RAW = Path(__file__).resolve().parents[2] / "shared" / "data" / "raw"
needs_raw = pytest.mark.skipif(not RAW.is_dir(), reason="the raw motion capture is not at ../shared/data/raw")


@pytest.fixture(scope="module")
def clips():
    return generate_clips(3, 2, 60, seed=4)


def run(capsys, *arguments):
    """Output and errors of a command that succeeds."""
    code = main(["data", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def refused(capsys, *arguments):
    """The one line that a command fails with."""
    assert main(["data", *map(str, arguments)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("structloss: error: ")
    return err


# Commands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("inspect",), ("convert",), ("synthetic",), ("formats",)], ids=" ".join)
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["data", *arguments, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "examples:\n  structloss data" in text
    assert main(["data"]) == 0 and "inspect" in capsys.readouterr().out


def test_synthetic(tmp_path, capsys):
    out, _ = run(capsys, "synthetic", tmp_path / "a.npz", "--subjects", 2, "--clips", 3, "--frames", 20, "--seed", 5)
    assert out.startswith(f"wrote {tmp_path / 'a.npz'}: 6 clips, 120 frames at 50 fps, ")
    made, meta = load_archive(tmp_path / "a.npz")
    for clip, expected in zip(made, generate_clips(2, 3, 20, seed=5), strict=True):
        np.testing.assert_array_equal(clip.positions, expected.positions)
        assert clip.key == expected.key
    assert meta["source"] == "synthetic motion, seed 5"
    run(
        capsys,
        "synthetic",
        tmp_path / "a.poses",
        "--subjects",
        2,
        "--clips",
        3,
        "--frames",
        20,
        "--seed",
        5,
        "--views",
        2,
    )
    store, expected = open_store(tmp_path / "a.poses"), observe(made, views=2, seed=5)
    np.testing.assert_array_equal(store.input, expected.input)
    np.testing.assert_array_equal(store.pose, expected.pose)
    assert len(store.views) == 12 and store.source["data"] == "synthetic motion, seed 5"


def test_convert_human36m(tmp_path, capsys):
    fake_data.write_h36m_npz(tmp_path, keypoints=("gt", "cpn"), frames=6)
    source = tmp_path / "data_3d_h36m.npz"
    out, _ = run(capsys, "convert", source, tmp_path / "a.poses", "--keypoints", "cpn")
    assert out.startswith(f"wrote {tmp_path / 'a.poses'}: 4 motions in 16 views, 96 frames, ")
    store, expected = open_store(tmp_path / "a.poses"), read_h36m_npz(source, "cpn")
    np.testing.assert_array_equal(store.pose, expected.pose)
    np.testing.assert_array_equal(store.input, expected.input)
    assert store.source["keypoints"] == "cpn" and store.views == expected.views
    assert sorted(os.listdir(tmp_path)) == [
        "a.poses", "data_2d_h36m_cpn.npz", "data_2d_h36m_gt.npz", "data_3d_h36m.npz",
    ]  # fmt: skip
    assert "choose --keypoints by NAME (cpn, gt)" in refused(capsys, "convert", source, tmp_path / "b.poses")
    assert "expected an output ending in .poses" in refused(
        capsys, "convert", source, tmp_path / "b.npz", "--keypoints", "gt"
    )
    assert "detections is given" in refused(
        capsys, "convert", source, tmp_path / "b.poses", "--keypoints", "gt", "--detections", "exact"
    )
    assert "fps is given" in refused(
        capsys, "convert", source, tmp_path / "b.poses", "--keypoints", "gt", "--fps", "50"
    )


def test_convert_clips_with_their_reference(tmp_path, capsys):
    content = fake_data.h36m_pickle()
    path = fake_data.write_pickle(tmp_path / "sh.pkl", content)
    fake_data.write_h36m_clips(tmp_path / "clips", content, 243)
    out, _ = run(capsys, "convert", tmp_path / "clips", tmp_path / "a.poses", "--reference", path)
    assert "10 views, 2430 frames" in out and "note: poses in millimetres are published for the test" in out
    store = open_store(tmp_path / "a.poses")
    assert store.subjects == ("S1", "S11", "S9") and np.isfinite(store.factor[5 * 243 :]).all()


@needs_raw
def test_convert_motion_capture(tmp_path, capsys):
    out, _ = run(capsys, "convert", RAW / "16_02.amc", tmp_path / "a.npz")
    assert "1 clip, 194 frames at 50 fps" in out
    (clip,), meta = load_archive(tmp_path / "a.npz")
    np.testing.assert_array_equal(clip.positions, open_data(RAW / "16_02.amc", fps=50)[0].positions)
    assert meta["source"] == "16_02.amc (amc)"
    run(capsys, "convert", RAW / "16_02.amc", tmp_path / "b.npz", "--fps", "25")
    assert load_archive(tmp_path / "b.npz")[0][0].fps == 25
    arguments = ("--views", 1, "--detections", "exact", "--source-fps", 100)
    run(capsys, "convert", RAW / "16_02.amc", tmp_path / "a.poses", *arguments)
    store = open_store(tmp_path / "a.poses")
    assert len(store.views) == 1 and store.frames == 233 and store.source["detections"] == "exact"
    _, err = run(capsys, "convert", RAW / "01_01.bvh", tmp_path / "c.npz")
    assert err.count("\n") == 1 and err.startswith("structloss: warning: ") and "pass --asf, the subject" in err
    _, err = run(capsys, "convert", RAW / "01_01.bvh", tmp_path / "d.npz", "--asf", RAW / "01.asf")
    assert err == ""
    with_thorax, without = (load_archive(tmp_path / name)[0][0].positions for name in ("d.npz", "c.npz"))
    lifted = np.linalg.norm(with_thorax[:, 10] - without[:, 10], axis=-1)
    assert 0.1 < lifted.mean() < 0.13


def test_messages_name_flags(tmp_path, capsys):
    """Also where the reader knows the argument by another name, and in warnings and notes."""
    write_bvh(tmp_path / "a.bvh", fake_data.world(20, "flags"), 50)
    bvh = (tmp_path / "a.bvh").read_text()
    for options, expected in (
        (("--source-fps", "-1"), "--source-fps is -1.0, expected a positive number of frames per second."),
        (("--scale", "0"), "--scale is 0.0, expected a positive number of metres per unit of the file."),
        (("--scale", "1", "--reference", "x"), "--reference is given for"),
        (("--joints", "cmu"), "--joints is 'cmu', expected 'auto', 'cmu-bvh', 'h36m', 'mixamo'"),
        (("--fps", "0"), "--fps is 0.0, expected a positive number of frames per second."),
    ):
        assert expected in refused(capsys, "convert", tmp_path / "a.bvh", tmp_path / "a.npz", *options)
    (tmp_path / "b.bvh").write_text(bvh.replace("JOINT Head\n", "JOINT Crown\n"))
    text = refused(capsys, "inspect", tmp_path / "b.bvh")
    assert "for Head (Head) of the joint map 'h36m'" in text and "; pass --joints, a map of joint names" in text
    (tmp_path / "a.amc").touch()
    assert "pass --asf, its path" in refused(capsys, "inspect", tmp_path / "a.amc")


def test_c3d_messages_name_the_flag(tmp_path, capsys):
    write_c3d(tmp_path / "a.c3d", marker_points() * 1000, labels=["x", *LABELS[1:]])
    text = refused(capsys, "inspect", tmp_path / "a.c3d")
    assert "no marker for Hip (LFWT)" in text and "; pass --joints, a map of joint names" in text
    with pytest.raises(DataError, match="; pass joints, a map of joint names"):
        open_data(tmp_path / "a.c3d")
    with pytest.raises(DataError, match="; pass markers, a map of joint names"):
        read_c3d(tmp_path / "a.c3d")


def test_convert_an_archive(clips, tmp_path, capsys):
    save_archive(tmp_path / "a.npz", clips, {"licence": "free", "source": "made"})
    run(capsys, "convert", tmp_path / "a.npz", tmp_path / "b.npz", "--fps", "25")
    half, meta = load_archive(tmp_path / "b.npz")
    assert meta["licence"] == "free" and meta["fps"] == 25 and all(len(c) == 30 for c in half)
    np.testing.assert_allclose(half[0].positions, clips[0].positions[::2], atol=1e-6)
    run(capsys, "convert", tmp_path / "a.npz", tmp_path / "c.poses", "--seed", "3")
    np.testing.assert_array_equal(open_store(tmp_path / "c.poses").input, observe(clips, seed=3).input)
    assert "views is given" in refused(capsys, "convert", tmp_path / "a.npz", tmp_path / "d.npz", "--views", "2")


def test_outputs_are_never_overwritten_by_accident(clips, tmp_path, capsys):
    save_archive(tmp_path / "a.npz", clips)
    small = ("--subjects", 1, "--clips", 1, "--frames", 5)
    before = (tmp_path / "a.npz").read_bytes()
    assert "exists already, expected a new name; set --overwrite to replace it" in refused(
        capsys, "synthetic", tmp_path / "a.npz", *small
    )
    assert (tmp_path / "a.npz").read_bytes() == before
    run(capsys, "synthetic", tmp_path / "a.npz", *small, "--overwrite")
    assert len(load_archive(tmp_path / "a.npz")[0]) == 1
    run(capsys, "synthetic", tmp_path / "a.poses", *small)
    assert "exists already" in refused(capsys, "synthetic", tmp_path / "a.poses", *small)
    run(capsys, "synthetic", tmp_path / "a.poses", *small, "--overwrite", "--views", 1)
    assert len(open_store(tmp_path / "a.poses").views) == 1
    np.savez(tmp_path / "data_3d_h36m.npz", positions_3d=1)
    (tmp_path / "folder.poses").mkdir()
    for name in ("data_3d_h36m.npz", "folder.poses"):
        assert "is something else" in refused(capsys, "synthetic", tmp_path / name, *small, "--overwrite")
    assert "ends in .poses (pose store) or .npz" in refused(capsys, "synthetic", tmp_path / "a.txt", *small)
    (tmp_path / "file").touch()
    assert "can't be written" in refused(capsys, "synthetic", tmp_path / "file" / "a.npz", *small)
    assert "can't be written" in refused(capsys, "synthetic", tmp_path / "file" / "a.poses", *small)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_failed_conversion_leaves_nothing(tmp_path, capsys, monkeypatch):
    fake_data.write_h36m_npz(tmp_path, frames=3)
    before = sorted(os.listdir(tmp_path))

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("structloss.data.store.os.fsync", full)
    error = refused(capsys, "convert", tmp_path / "data_3d_h36m.npz", tmp_path / "a.poses")
    assert "a.poses can't be written: No space left on device." in error
    assert sorted(os.listdir(tmp_path)) == before


def test_errors_take_one_line(tmp_path, capsys):
    assert "does not exist" in refused(capsys, "inspect", tmp_path / "nothing")
    assert "no known format" in refused(capsys, "inspect", __file__)
    with pytest.raises(StructlossError):
        main(["data", "inspect", str(tmp_path / "nothing"), "--debug"])
    for line in ("inspect", "convert a", "synthetic a.npz --subjects 0", "convert a b --up w", "look a"):
        with pytest.raises(SystemExit) as stopped:
            main(["data", *line.split()])
        assert stopped.value.code == 2
        capsys.readouterr()


def test_the_command_as_a_process(clips, tmp_path):
    """Nothing but the text when piped: no progress bar, no warnings; and no heavy imports."""
    save_store(observe(clips, views=1), tmp_path / "a.poses")
    code = (
        "import sys\nfrom structloss.cli import main\n"
        f"assert main(['data', 'inspect', {str(tmp_path / 'a.poses')!r}]) == 0\n"
        "heavy = [m for m in ('lightning', 'matplotlib', 'h5py', 'scipy') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.startswith(f"path       {tmp_path / 'a.poses'}\n") and done.stdout.endswith("none found\n")


# The report ----------------------------------------------------------------------------------------------------------


def test_report_of_a_store(tmp_path, capsys):
    worlds = fake_data.write_h36m_npz(tmp_path, frames=12)
    out, _ = run(capsys, "inspect", tmp_path, "--json")
    report = json.loads(out)
    assert report["format"] == "h36m-npz" and report["kind"] == "views" and report["skeleton"] == "h36m"
    assert (report["motions"], report["sequences"], report["frames"]) == (4, 16, 192)
    assert report["subjects"] == ["S1", "S9"] and report["actions"] == ["Photo", "Walking"]
    assert report["lengths"] == {"shortest": 12, "median": 12, "longest": 12} and report["fps"] == [50]
    assert report["seconds"] == pytest.approx(4 * 12 / 50), "each motion once, not once a camera"
    assert report["image_sizes"] == [[1000, 1000], [1000, 1002]] and report["known"] == 1
    both = np.concatenate(list(worlds["S1"].values())).astype(np.float64)
    thigh = np.linalg.norm(both[:, 2] - both[:, 1], axis=-1)
    column = [(10, 9), (9, 8), (8, 7), (7, 0)]
    legs = [(2, 1), (3, 2), (5, 4), (6, 5)]

    def length(a, b):
        return np.linalg.norm(both[:, a] - both[:, b], axis=-1).mean()

    height = sum(length(*bone) for bone in column) + sum(length(*bone) for bone in legs) / 2
    assert report["heights"]["S1"] == pytest.approx(height, abs=1e-3)
    other = np.concatenate(list(worlds["S9"].values()))
    mean = (thigh.mean() + np.linalg.norm(other[:, 2] - other[:, 1], axis=-1).mean()) / 2
    assert report["bones"]["RHip-RKnee"]["mean_mm"] == pytest.approx(mean * 1000, abs=0.06)
    store = read_h36m_npz(tmp_path)
    for i, axis in enumerate("xyz"):
        expected = [store.pose[..., i].min(), store.pose[..., i].max()]
        np.testing.assert_allclose(report["extent"][axis], expected, atol=6e-4)
    for i, axis in enumerate("xy"):
        expected = [store.input[..., i].min(), store.input[..., i].max()]
        np.testing.assert_allclose(report["keypoints"][axis], expected, atol=6e-4)
    assert report["problems"] == [
        "training subjects S5, S6, S7, S8 of protocol 'h36m' are missing",
        "test subject S11 of protocol 'h36m' is missing",
        "S1 has 2 motions, expected 30",
        "S9 has 2 motions, expected 30",
    ]
    text, _ = run(capsys, "inspect", tmp_path)
    assert "16 views" in text and "PROBLEM    S1 has 2 motions, expected 30" in text


def test_report_of_clips(clips, tmp_path, capsys):
    save_archive(tmp_path / "a.npz", clips)
    report = inspect_data(tmp_path / "a.npz")
    assert report.kind == "clips" and report.problems == [] and report.motions == 6 and report.frames == 360
    assert report.extent["z"][0] == pytest.approx(min(c.positions[..., 2].min() for c in clips), abs=1e-3)
    text, _ = run(capsys, "inspect", tmp_path / "a.npz")
    assert "6 in 6 clips" in text and "problems   none found" in text


@needs_raw
def test_warnings_become_notes():
    report = inspect_data(RAW / "01_01.bvh")
    assert len(report.notes) == 1 and "thorax" in report.notes[0] and report.fps == [120]


def changed(store, view=None, **arrays):
    """A copy of a store with other arrays, and a change of every view."""
    views = store.views if view is None else tuple(map(view, store.views))
    full = {name: np.array(getattr(store, name)) for name in ("input", "pose")}
    return replace(store, views=views, **{**full, **arrays}, path=None)


def test_problems_of_views(clips):
    good = observe(clips, views=2)
    assert inspect_loaded(good, "store").problems == []
    pose, seen = np.array(good.pose), np.array(good.input)
    mirror = np.arange(17)
    mirror[[1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16]] = [4, 5, 6, 1, 2, 3, 14, 15, 16, 11, 12, 13]
    order = np.random.default_rng(0).permutation(17)
    first = good.views[0]
    still = pose.copy()
    still[: first.frames] = pose[0]
    nan = pose.copy()
    nan[7, 3] = np.nan
    repeated = pose.copy()
    for start in range(2, 60, 2):
        repeated[start] = repeated[start - 1]
    jump = pose.copy()
    jump[30] += [0, 1, 0]
    twin = pose.copy()
    twin[60:120] = pose[:60]
    score = seen.copy()
    score[..., 2] *= 90
    unseen = seen.copy()
    unseen[..., 2] = 0
    shifted = seen + np.array([0.2, 0, 0], np.float32)
    cases = [
        (changed(good, pose=pose * 1000), "body height of syn01 is", "the numbers look like millimetres"),
        (changed(good, pose=pose * 100), "the numbers look like centimetres"),
        (changed(good, pose=pose / 1000), "as if metres had been taken for millimetres"),
        (changed(good, pose=pose * 2), "expected 1.2 to 2.1 m (and of 2 more)"),
        (changed(good, pose=pose[:, order]), "changes its length by", "the joints may be in another order"),
        (changed(good, pose=nan), "3 NaN or infinite values in pose, first in syn01/walk_01 of camera 54138969"),
        (changed(good, pose=-pose), f"{pose.size // 3} joints behind the camera"),
        (changed(good, pose=pose[:, mirror], input=seen[:, mirror]), "knees bend backwards"),
        (changed(good, pose=pose * np.array([-1, 1, 1], np.float32)), "knees bend backwards"),
        (changed(good, input=seen[:, mirror]), f"exchanged in {len(good.views)} views, the first is syn01/walk_01"),
        (changed(good, input=shifted), f"far from the poses' image in {len(good.views)} views"),
        (changed(good, input=seen * np.array([4, 4, 1], np.float32)), "keypoints are outside the image"),
        (changed(good, input=seen * 500 + 500), "half image widths from the centre: the image's size may be wrong"),
        (changed(good, input=score), "confidence is", "expected 0 to 1"),
        (changed(good, input=unseen), "100% of the keypoints have confidence 0"),
        (changed(good, pose=still), "nothing moves in 1 sequence, the first is syn01/walk_01"),
        (changed(good, pose=repeated), "of the frames repeat the one before exactly, most of them in syn01/walk_01"),
        (changed(good, pose=jump), "a joint moves at", "(syn01/walk_01 of camera 54138969, frame 3"),
        (changed(good, pose=twin), "the poses of another again in 1 sequence, the first is syn01/walk_01 of camera 55"),
        (changed(good, view=lambda v: replace(v, camera="a")), "the same motion and camera more than once, in 6 cases"),
        (replace(good, source={"protocol": "h36m"}), "subjects syn01, syn02, syn03 are not in protocol 'h36m'"),
        (replace(good, source={"protocol": "own"}), "protocol is 'own', expected one of h36m"),
    ]
    for store, *parts in cases:
        problems = inspect_loaded(store, "store").problems
        assert any(all(part in problem for part in parts) for problem in problems), (parts, problems)
        json.dumps(inspect_loaded(store, "store").to_dict(), allow_nan=False)


def test_masked_joints_are_no_problem(clips):
    good = observe(clips, views=1)
    pose, weight = np.array(good.pose), np.ones(good.pose.shape[:2], np.uint8)
    pose[50:70, 6] = 1e5
    weight[50:70, 6] = 0
    report = inspect_loaded(replace(good, pose=pose, weight=weight), "store")
    assert report.problems == [] and report.known == pytest.approx(1 - 20 / weight.size)


def test_problems_of_clips(clips):
    for change, part in (
        (lambda p: p[..., [0, 2, 1]] * np.array([1, -1, 1]), "z does not point up: heads are"),
        (lambda p: p[..., [0, 2, 1]] * np.array([1, -1, 1]), "-y seems to"),
        (lambda p: p + np.array([0, 0, 3]), "the lowest ankle is at 3.0"),
        (lambda p: p * 1000, "the numbers look like millimetres"),
        (lambda p: p * np.array([-1, 1, 1]), "knees bend backwards"),
    ):
        problems = inspect_loaded([replace(c, positions=change(c.positions)) for c in clips], "archive").problems
        assert any(part in problem for problem in problems), (part, problems)


def test_reports_of_all_readers(tmp_path):
    for name in ("3dhp", "h3wb"):
        (tmp_path / name).mkdir()
    fake_data.write_3dhp(tmp_path / "3dhp", frames=20, test_frames=20)
    fake_data.write_h3wb_npz(tmp_path / "h3wb", frames=5)
    fake_data.write_pickle(tmp_path / "sh.pkl", fake_data.h36m_pickle())
    report = inspect_data(tmp_path / "3dhp")
    assert "S1/Seq2 has 20 frames per camera, expected 12430" in report.problems and report.fps == [25, 50]
    assert report.known == pytest.approx(1 - 6 * 3 / 600) and any("several frame rates" in n for n in report.notes)
    report = inspect_data(tmp_path / "h3wb")
    assert any("single poses" in note for note in report.notes) and report.fps == [] and report.joints == 133
    assert "S1, S5, S6, S7, train have 80 frames, the published file 80000" in str(report)
    assert "\nlegs       3: S1 0." in str(report) and "\nbodies" not in str(report), "no head top"
    report = inspect_data(tmp_path / "sh.pkl")
    assert "S9, S11 have 1246 frames, the published file 566920" in report.problems
    assert set(report.heights) == {"S9", "S11"}, "poses of the training half are not published"
    assert not any("bone" in p or "exchanged" in p or "far from" in p for p in report.problems)


# Protocols -----------------------------------------------------------------------------------------------------------


def stored(*subjects, names=("a",), **source):
    """A store of two frames a view."""
    views = [View(s, "x", name, "c", 0, 0, 2) for s in subjects for name in names]
    views = tuple(replace(view, start=2 * i) for i, view in enumerate(views))
    arrays = (np.zeros((2 * len(views), 17, 3), np.float32) for _ in range(2))
    return PoseStore(views, *arrays, source=source)


def subjects_of(parts):
    return tuple(sorted({view.subject for view in part.views}) for part in parts)


def test_splits_of_the_published_protocols():
    h36m = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
    for protocol in ("h36m", "h36m-2.5d"):
        assert subjects_of(split(stored(*h36m, protocol=protocol))) == (["S1", "S5", "S6", "S7", "S8"], ["S11", "S9"])
    dhp = [f"S{i}" for i in range(1, 9)], [f"TS{i}" for i in range(1, 7)]
    assert subjects_of(split(stored(*dhp[0], *dhp[1], protocol="mpi_inf_3dhp"))) == dhp
    assert subjects_of(split(stored("S1", "S5", "S6", "S7", "S8"), "h3wb")) == (["S1", "S5", "S6", "S7"], ["S8"])
    assert subjects_of(split(stored("train", "test"), "h36m-2.5d")) == (["train"], ["test"])
    names = ("s_09_act_05_subact_02", "s_09_act_05_subact_02@243", "s_09_act_05_subact_01")
    tested = split(stored("S9", "S11", names=names), "h36m-2.5d")[1]
    assert [v.motion for v in tested.views if v.subject == "S9"] == ["S9/s_09_act_05_subact_01"]
    assert PROTOCOLS["h36m-2.5d"].excluded == tuple(f"S9/{name}" for name in EXCLUDED)
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name and protocol.tails in ("cover", "drop") and protocol.score == name
        assert not set(protocol.train) & set(protocol.test)


def test_splits_by_chosen_subjects():
    h36m = stored("S1", "S5", "S8", "S9", "S11", protocol="h36m")
    assert subjects_of(split(h36m, val_subjects=["S8"])) == (["S1", "S5"], ["S8"]), "test subjects stay unseen"
    people = stored(*(f"p{i}" for i in range(8)))
    assert subjects_of(split(people)) == ([f"p{i}" for i in range(6)], ["p6", "p7"])
    assert subjects_of(split(people, val_subjects=["p0"])) == ([f"p{i}" for i in range(1, 8)], ["p0"])
    assert held_out(["a"]) == ("a",) and held_out([*CMU_VAL_SUBJECTS, "cmu01", "zz"]) == CMU_VAL_SUBJECTS
    train, test = split(stored("S9", protocol="h36m"))
    assert not train.views and len(test.views) == 1, "a file of test subjects alone can be scored"
    with pytest.raises(ArgumentError, match="val_subjects has 'S7', expected subjects of the data: S1, S11, S5"):
        split(h36m, val_subjects=["S7"])
    with pytest.raises(UnknownNameError, match="unknown protocol 'h36'"):
        split(h36m, "h36")
    with pytest.raises(DataError, match=r"no subject is one of protocol 'mpi_inf_3dhp'.*the data has a, b"):
        split(stored("a", "b"), "mpi_inf_3dhp")


def test_splits_share_the_arrays(tmp_path):
    store = open_store(save_store(read_h36m_pickle(
        fake_data.write_pickle(tmp_path / "a.pkl", fake_data.h36m_pickle())), tmp_path / "a.poses"))  # fmt: skip
    train, test = split(store)
    assert train.pose is store.pose and test.pose is store.pose and store.source["protocol"] == "h36m-2.5d"
    assert [v.subject for v in test.views] == ["S11", "S11"], "the motion of S9 is one of those left out"


def test_commands_are_functions_too(tmp_path, capsys):
    commands.synthetic(tmp_path / "a.npz", subjects=1, clips=1, frames=4)
    commands.inspect(tmp_path / "a.npz")
    commands.convert(tmp_path / "a.npz", tmp_path / "a.poses", views=1)
    assert len(open_store(tmp_path / "a.poses").views) == 1
