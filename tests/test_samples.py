"""The package's samples: they are read right, they are what a detector makes of their truth, every path takes them, and
the archive they were made from gives them again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.samples import FILMED, detect, main, to_body25
from structloss import backbones, cli, samples
from structloss.commands._pose_files import read_pose_sequences
from structloss.data import load_archive, load_sample
from structloss.data.conversion import convert_data
from structloss.data.drawn import to_coco
from structloss.data.formats import read_keypoints
from structloss.data.formats.detect import detect as detect_format
from structloss.data.inspection import inspect_data
from structloss.data.opening import open_data
from structloss.data.unlabelled import has_keypoints_alone, read_unlabelled
from structloss.errors import ArgumentError, UnknownNameError

ROOT = Path(__file__).resolve().parents[1]
#: name -> subject, frames, frames a second, width, height, layout, frames in which nobody is found
WHAT = {
    "dance": ("cmu05", 91, 25.0, 1920, 1080, "coco", ((58, 62),)),
    "kick": ("cmu11", 84, 25.0, 1280, 720, "body25", ((31, 34),)),
    "roll": ("cmu127", 141, 50.0, 1920, 1080, "coco", ((57, 65),)),
    "walk": ("cmu35", 185, 50.0, 1080, 1920, "coco", ()),
}
IN_BODY25 = [0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11]  # COCO's 17 among OpenPose's


def test_names():
    assert samples.names() == tuple(WHAT) == tuple(sorted(FILMED))
    for name in samples.names():
        assert samples.path(name).stem == name and samples.path(name, "motion").suffix == ".npz"


def test_asking_where_they_are_loads_nothing_heavy():
    code = "import sys, structloss; structloss.samples.path('dance'); print({'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("name", WHAT)
def test_keypoints_are_read_with_size_and_rate(name):
    subject, frames, fps, width, height, layout, gaps = WHAT[name]
    (track,) = read_keypoints(f"sample:{name}")
    assert (track.name, len(track), track.start, track.fps) == (name, frames, 0, fps)
    assert (track.width, track.height, track.skeleton, track.gaps) == (width, height, layout, gaps)
    assert track.notes == ()
    assert 2 <= frames / fps <= 6
    found = load_sample(name)
    np.testing.assert_array_equal(found.keypoints.keypoints, track.keypoints)
    clip, camera = found.clip, found.camera
    assert (clip.subject, len(clip), clip.fps) == (subject, frames, fps)
    assert (camera.id, camera.width, camera.height) == (name, width, height)
    for first, end in gaps:
        assert (track.confidence[first:end] == 0).all()
    some = np.ones(frames, dtype=bool)
    some[[frame for gap in gaps for frame in range(*gap)]] = False
    assert 0.001 < (track.confidence[some] == 0).mean() < 0.1, "some joints are not found, most are"


@pytest.mark.parametrize("name", WHAT)
def test_keypoints_are_near_the_truth_through_the_camera(name):
    """Errors in pixels of a person 5 m in front of Human3.6M's cameras, in which the detector's are said."""
    found = load_sample(name)
    body = found.camera.project(found.truth)
    assert (body > 20).all() and (body < [found.camera.width - 20, found.camera.height - 20]).all(), "in the picture"
    assert found.truth[..., 2].min() > 2, "metres away"
    true = found.camera.project(to_coco(found.truth.astype(np.float64), yaw=np.radians(8.0)))
    order = IN_BODY25 if name == "kick" else list(range(17))
    seen, confidence = found.keypoints.keypoints[:, order], found.keypoints.confidence[:, order]
    unit = found.camera.focal[0] / 229 / found.truth[:, :1, 2]
    wrong = np.linalg.norm(seen - true, axis=-1) / unit
    there = confidence > 0
    assert 2 < np.median(wrong[there]) < 4
    assert 4 < np.quantile(wrong[there], 0.95) < 10
    sure = wrong[confidence > 0.9]
    assert len(sure) > 0.4 * wrong.size and np.median(sure) < np.median(wrong[there])
    assert np.corrcoef(wrong[there], confidence[there])[0, 1] < -0.25, "the detector knows some of its errors"
    shuffled = np.linalg.norm(seen - np.roll(true, 1, axis=1), axis=-1) / unit
    assert np.median(shuffled) > 5 * np.median(wrong), "joints are in their order"


def test_errors_come_with_hidden_joints():
    """The detector itself: of a joint behind the body, larger errors and lower scores; exactly repeated by its seed."""
    found = load_sample("dance")
    made = [detect(found.clip.positions, found.camera, 25.0, np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(made[0][1], made[1][1])
    other = detect(found.clip.positions, found.camera, 25.0, np.random.default_rng(6))
    np.testing.assert_array_equal(made[0][0], other[0])
    assert not np.array_equal(made[0][1], other[1])
    # from behind, the face is hidden, and from the front it is not
    facing = np.cross(*(found.clip.positions[0, [11, 8]] - found.clip.positions[0, [14, 0]]))
    facing = facing[:2] / np.linalg.norm(facing[:2])
    scores = {}
    for side in (1, -1):
        middle = found.clip.positions[0, 0]
        place = tuple((middle + np.append(4 * side * facing, 0.4)).tolist())
        camera = (
            FILMED["dance"]
            .__class__(key="", step=1, size=(1920, 1080), focal=1500.0, position=place, target=tuple(middle.tolist()))
            .camera("test")
        )
        still = np.repeat(found.clip.positions[:1], 400, axis=0)
        true, seen = detect(still, camera, 25.0, np.random.default_rng(1), swaps=False)
        scores[side] = seen[:, :3, 2].mean(), np.linalg.norm(seen[..., :2] - true, axis=-1)[:, :3].mean()
    assert scores[1][0] > 0.85 > 0.6 > scores[-1][0] and scores[-1][1] > 1.5 * scores[1][1]


def test_the_feet_of_openpose_are_below_the_ankles():
    found = load_sample("kick")
    points, truth = found.keypoints.keypoints, found.clip.positions
    standing = points[:20]
    assert (standing[:, 19:, 1] > standing[:, [14, 14, 14, 11, 11, 11], 1]).mean() > 0.95
    in_coco = found.camera.project(to_coco(found.truth.astype(np.float64)))
    exact = to_body25(np.concatenate([in_coco, np.ones((84, 17, 1))], axis=-1), truth, found.camera)
    assert (exact[:, 19:, 2] < 1).all() and (exact[:, 8, :2] == in_coco[:, 11:13].mean(1)).all()
    lost = np.concatenate([in_coco, np.ones((84, 17, 1))], axis=-1)
    lost[:, [6, 15]] = 0
    made = to_body25(lost, truth, found.camera)
    assert (made[:, [1, 2, 14, 19, 20, 21]] == 0).all() and (made[:, 22:, 2] > 0).all()


def test_truth_is_in_the_camera_s_frame():
    found = load_sample("roll")
    np.testing.assert_allclose(found.truth, found.camera.to_camera(found.clip.positions), atol=1e-5)
    rotation = found.camera.rotation
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(rotation) > 0 and found.camera.up[1] < -0.8, "upright: y points down"


# --------------------------------------------------------------------------------------------- wherever there is a path


def test_every_reader_takes_them(tmp_path):
    (clip,) = open_data("sample:walk")
    assert clip.key == "cmu35/35_16" and len(open_data("sample:walk", fps=25)[0]) == 93
    assert detect_format("sample:walk") == "archive"
    report = inspect_data("sample:walk")
    assert (report.path, report.frames, report.subjects, report.problems) == ("sample:walk", 185, ["cmu35"], [])
    convert_data("sample:walk", tmp_path / "walk.npz")
    clips, meta = load_archive(tmp_path / "walk.npz")
    assert np.array_equal(clips[0].positions, clip.positions) and "NSF EIA-0196217" in meta["acknowledgement"]
    assert [len(sequence.poses) for sequence in read_pose_sequences("sample:walk")] == [185]
    assert has_keypoints_alone("sample:kick")
    store = read_unlabelled("sample:kick")
    assert len(store.input) == 84 and store.views[0].size == (1280.0, 720.0)


def test_the_data_module_takes_them():
    """One clip is not two splits, which is said as of any file."""
    pytest.importorskip("lightning")
    from structloss.data import MotionDataModule
    from structloss.errors import DataError

    with pytest.raises(DataError, match=r"split of sample:dance is empty, expected at least one subject in each split"):
        MotionDataModule("sample:dance", window=27).setup()
    module = MotionDataModule(
        num_subjects=4, clips_per_subject=1, frames=60, window=27, views=1, unlabelled="sample:walk", progress=False
    )
    assert module.unlabelled_dataset.store.views[0].frames == 185
    assert module.hparams["unlabelled"] == "sample:walk", "a run's configuration holds no path of this machine"


def test_commands_take_them(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["data", "inspect", "sample:dance"]) == 0
    assert "91; 91 to 91 per clip" in capsys.readouterr().out
    backbones.save_checkpoint(backbones.create("repose-tiny"), "weights.safetensors")
    network = ["--backbone", "repose-tiny", "--weights", "weights.safetensors"]
    for _ in range(2):  # the second time, there are files to replace
        assert cli.main(["predict", "sample:dance", *network, "--out", "dance"]) == 0
    assert "the person is missing in 4 of 91 frames" in capsys.readouterr().out
    with np.load("dance/dance.npz") as made:
        meta = json.loads(str(made["meta"]))
        assert made["positions"].shape == (91, 17, 3)
    assert (meta["fps"], meta["width"], meta["height"], meta["gaps"]) == (25.0, 1920, 1080, [[58, 62]])
    assert (tmp_path / "dance" / "dance.bvh").stat().st_size > 10_000


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "sample:danse", "--backbone", "repose-tiny", "--weights", "none.safetensors", "--out", "x"),
        ("data", "inspect", "sample:danse"),
        ("data", "convert", "sample:danse", "x.npz"),
        ("demo", "--data", "sample:danse", "--out", "x"),
    ],
)
def test_an_unknown_name_is_one_sentence_with_the_names(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(list(words)) != 0
    said = capsys.readouterr().err
    assert said == "structloss: error: unknown sample 'danse': expected one of dance, kick, roll, walk.\n"
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_and_kinds():
    for function in (samples.path, load_sample):
        for name in ("", "Dance", "../README", "README", None):
            with pytest.raises(UnknownNameError, match=r"expected one of dance, kick, roll, walk\.$"):
                function(name)
    with pytest.raises(UnknownNameError, match="unknown sample ''"):
        read_keypoints("sample:")
    with pytest.raises(ArgumentError, match="kind is 'video', expected one of 'keypoints', 'motion'"):
        samples.path("dance", "video")
    assert samples.resolve("motion/sample:dance", "motion") == Path("motion/sample:dance")
    assert samples.resolve(Path("sample:dance"), "motion") == samples.path("dance", "motion")


# ---------------------------------------------------------------------------------------------- where they are from


def plain(text):
    return " ".join(text.replace("\n> ", " ").split())


def test_the_acknowledgement_stands_beside_them():
    beside = plain((samples.path("dance").parents[1] / "README.md").read_text(encoding="utf-8"))
    page = plain((ROOT / "docs" / "data.md").read_text(encoding="utf-8"))
    for name, (subject, *_) in WHAT.items():
        (clip,), meta = load_archive(samples.path(name, "motion"))
        assert meta["acknowledgement"] in beside and meta["acknowledgement"] in page
        assert "may not be resold" in meta["licence"] and "may not be resold" in beside
        assert f"| `{name}` |" in beside and clip.key in beside and clip.key.startswith(f"{subject}/")
        if samples.path(name).is_file():
            assert meta["acknowledgement"] in json.loads(samples.path(name).read_text())["info"]["source"]


def test_the_archive_gives_them_again(real_mocap, tmp_path, capsys):
    assert main([str(real_mocap), "--out", str(tmp_path)]) == 0
    ours = samples.path("dance").parents[1]
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {path.relative_to(ours) for kind in samples.KINDS for path in (ours / kind).rglob("*") if path.is_file()}
    assert made == kept and len(made) == 3 + 84 + 4
    clips = {clip.key: clip for clip in load_archive(real_mocap)[0]}
    for path in sorted(made):
        if path.suffix == ".json":
            assert (tmp_path / path).read_bytes() == (ours / path).read_bytes(), path
        else:  # how zlib packs an array is its own affair
            with np.load(tmp_path / path) as new, np.load(ours / path) as old:
                assert new.files == old.files and str(new["meta"]) == str(old["meta"])
                (key,) = set(new.files) - {"meta"}
                np.testing.assert_array_equal(new[key], old[key])
                np.testing.assert_array_equal(old[key], clips[key].positions[:: FILMED[path.stem].step])


def test_they_are_small():
    ours = samples.path("dance").parents[1]
    assert sum(path.stat().st_size for path in ours.rglob("*") if path.is_file()) < 500_000
