"""Readers of published data sets, on made-up files whose values are worked out a second time here."""

import json
import math
import pickle
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import fake_data
import numpy as np
import pytest

from structloss.data.formats.detect import FORMATS, detect
from structloss.data.formats.h3wb import read_h3wb
from structloss.data.formats.h36m_clips import read_h36m_clips
from structloss.data.formats.h36m_npz import read_h36m_npz
from structloss.data.formats.h36m_pickle import read_h36m_pickle
from structloss.data.formats.mpi_inf_3dhp import FRAMES, read_mpi_inf_3dhp
from structloss.data.opening import open_data
from structloss.data.store import open_store, save_store
from structloss.errors import ArgumentError, DataError, MissingFileError, StructlossError
from structloss.skeletons import convert

RAW = Path(__file__).resolve().parents[2] / "shared" / "data" / "raw"
needs_raw = pytest.mark.skipif(not RAW.is_dir(), reason="the raw motion capture is not at ../shared/data/raw")

# S1's second and S9's fourth camera: quaternion, centre in mm, focal length, principal point, radial, tangential, size.
CALIBRATION = {
    ("S1", 1): (
        (0.6157188, -0.7648363, -0.14833826, 0.11794741), (1761.2786, -5078.007, 1606.265), (1149.6757, 1147.5917),
        (508.84863, 508.0649), (-0.19421363, 0.24040854, 0.0068199756), (-0.0016190266, -0.0027408944), (1000, 1000),
    ),
    ("S9", 3): (
        (0.5879399, -0.7823407, 0.14276144, -0.1479487), (-1696.0435, -3827.0999, 1591.4127), (1145.5114, 1144.7739),
        (514.9682, 501.88202), (-0.19838409, 0.21832368, -0.008947807), (-0.0005872056, -0.001813362), (1000, 1002),
    ),
}  # fmt: skip


def in_camera(world, quaternion, centre):
    """R(q)^T (X - t), the rotation by v + 2 w (u x v) + 2 u x (u x v) with the conjugate quaternion."""
    w, u = quaternion[0], -np.array(quaternion[1:])
    v = world - np.array(centre) / 1000
    turned = np.cross(u, v)
    return v + 2 * w * turned + 2 * np.cross(u, turned)


def seen_by(points, focal, centre, radial, tangential):
    p = points[..., :2] / points[..., 2:]
    r2 = (p * p).sum(-1)
    gain = 1 + radial[0] * r2 + radial[1] * r2**2 + radial[2] * r2**3 + tangential[0] * p[..., 0]
    gain = gain + tangential[1] * p[..., 1]
    return (p * gain[..., None] + r2[..., None] * np.array(tangential)) * np.array(focal) + np.array(centre)


def on_screen(pixels, width, height):
    return np.stack([2 * pixels[..., 0] / width - 1, 2 * pixels[..., 1] / width - height / width], axis=-1)


def rows(store, view):
    return slice(view.start, view.start + view.frames)


def find(store, **wanted):
    (view,) = [v for v in store.views if all(getattr(v, key) == value for key, value in wanted.items())]
    return view


def fails(call, *parts, kind=DataError):
    """The one sentence that a call fails with; it has all the parts."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and text[-1] in ".?" and len(text) < 600, text
    for part in parts:
        assert part in text, text
    return text


# Human3.6M, VideoPose3D's npz ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subject", "index"), CALIBRATION)
def test_h36m_poses_and_keypoints_by_the_written_formulas(subject, index, tmp_path):
    worlds = fake_data.write_h36m_npz(tmp_path)
    store = read_h36m_npz(tmp_path / "data_3d_h36m.npz")
    quaternion, centre, focal, principal, radial, tangential, (width, height) = CALIBRATION[subject, index]
    view = find(store, subject=subject, name="Photo 1", index=index)
    pose = in_camera(worlds[subject]["Photo 1"], quaternion, centre)
    np.testing.assert_allclose(store.pose[rows(store, view)], pose, atol=2e-6)
    pixels = seen_by(pose, focal, principal, radial, tangential)
    np.testing.assert_allclose(store.input[rows(store, view), :, :2], on_screen(pixels, width, height), atol=2e-6)
    assert (store.input[..., 2] == 1).all() and store.weight is None and store.label is None
    assert (view.action, view.camera, view.fps, view.size) == ("Photo", fake_data.CAMERAS[index], 50, (width, height))
    expected = [2 * focal[0] / width, 2 * focal[1] / width, 2 * principal[0] / width - 1]
    np.testing.assert_allclose(view.intrinsics, [*expected, 2 * principal[1] / width - height / width], rtol=1e-12)


def test_h36m_views_frames_and_actions(tmp_path):
    actions = ("Sitting", "SittingDown 1", "Directions", "Directions 1", "WalkingDog")
    fake_data.write_h36m_npz(tmp_path, subjects=("S11", "S5"), actions=actions, frames=7)
    store = read_h36m_npz(tmp_path, "gt")
    assert store.subjects == ("S11", "S5") and store.views[0].subject == "S5"
    assert {v.name for v in store.views if v.subject == "S11"} == set(actions) - {"Directions"}
    assert {v.name: v.action for v in store.views} == {
        "Sitting": "Sitting", "SittingDown 1": "SittingDown", "Directions": "Directions", "Directions 1": "Directions",
        "WalkingDog": "WalkDog",
    }  # fmt: skip
    assert len(store.views) == (5 + 4) * 4 and store.frames == 36 * 7 and all(v.frames == 7 for v in store.views)
    assert [v.start for v in store.views] == list(range(0, 36 * 7, 7))
    assert store.source["protocol"] == "h36m" and store.source["keypoints"] == "gt"


def test_h36m_files_of_keypoints(tmp_path):
    fake_data.write_h36m_npz(tmp_path, keypoints=("gt", "cpn_ft_h36m_dbb"), frames=3)
    path = tmp_path / "data_3d_h36m.npz"
    fails(lambda: read_h36m_npz(path), "2 files", "cpn_ft_h36m_dbb, gt", kind=MissingFileError)
    fails(lambda: read_h36m_npz(path, "cnp"), "data_2d_h36m_cnp.npz", "cpn_ft_h36m_dbb, gt", kind=MissingFileError)
    fails(lambda: read_h36m_npz(path, tmp_path / "x.npz"), "x.npz does not exist", kind=MissingFileError)
    fails(lambda: read_h36m_npz(tmp_path / "y.npz"), "y.npz does not exist", kind=MissingFileError)
    by_name, by_path = (
        read_h36m_npz(path, which) for which in ("cpn_ft_h36m_dbb", tmp_path / "data_2d_h36m_cpn_ft_h36m_dbb.npz")
    )
    np.testing.assert_array_equal(by_name.input, by_path.input)
    (tmp_path / "data_2d_h36m_gt.npz").unlink()
    assert read_h36m_npz(path).source["keypoints"] == "cpn_ft_h36m_dbb"


def rewrite(path, change):
    """Load an npz of dictionaries that this test wrote, change it, write it back."""
    with np.load(path, allow_pickle=True) as archive:
        content = {key: archive[key].item() for key in archive.files}
    np.savez(path, **(change(content) or content))
    return path


def test_h36m_confidence_and_missing_keypoints(tmp_path):
    fake_data.write_h36m_npz(tmp_path, frames=5, noise=2.0, confidence=True)
    two = tmp_path / "data_2d_h36m_gt.npz"

    def damage(content):
        content["positions_2d"]["S9"]["Walking"][2][3, 4, 0] = np.nan

    rewrite(two, damage)
    store = read_h36m_npz(tmp_path)
    with np.load(two, allow_pickle=True) as archive:
        pixels = archive["positions_2d"].item()["S9"]["Walking"][2][:5]
    view = find(store, subject="S9", name="Walking", index=2)
    seen = store.input[rows(store, view)]
    assert seen[3, 4].tolist() == [0, 0, 0] and store.source["missing"] == {"keypoints": 1, "joints": 0}
    keep = np.ones((5, 17), bool)
    keep[3, 4] = False
    np.testing.assert_allclose(seen[keep, 2], pixels[keep, 2])
    np.testing.assert_allclose(seen[keep, :2], on_screen(pixels, 1000, 1000)[keep], atol=1e-6)


def test_h36m_missing_joints_of_poses(tmp_path):
    fake_data.write_h36m_npz(tmp_path, frames=5)

    def damage(content):
        content["positions_3d"]["S1"]["Walking"][2, 3] = np.nan  # kept: the right ankle
        content["positions_3d"]["S1"]["Walking"][4] = np.inf
        content["positions_3d"]["S1"]["Walking"][1, 5] = np.nan  # not one of the 17

    rewrite(tmp_path / "data_3d_h36m.npz", damage)
    store = read_h36m_npz(tmp_path)
    view = find(store, subject="S1", name="Walking", index=0)
    weight, pose = store.weight[rows(store, view)], store.pose[rows(store, view)]
    expected = np.ones((5, 17))
    expected[2, 3] = expected[4] = 0
    np.testing.assert_array_equal(weight, expected)
    assert store.source["missing"]["joints"] == 18 * 4 and int(store.weight.sum()) == store.weight.size - 18 * 4
    np.testing.assert_allclose(pose[2, 3], np.delete(pose[2], 3, axis=0).mean(0), rtol=1e-6)
    assert np.isfinite(pose).all() and (pose[..., 2] > 0).all()


@pytest.mark.parametrize(("layout", "joints"), [("coco", 17), ("mpii", 16)])
def test_h36m_keypoints_of_other_layouts(layout, joints, tmp_path):
    fake_data.write_h36m_npz(tmp_path, subjects=("S5",), actions=("Posing",), frames=4)
    pixels = [np.random.default_rng(i).uniform(0, 1000, (6, joints, 2)).astype(np.float32) for i in range(4)]
    metadata = {"layout_name": layout, "num_joints": joints}
    np.savez(tmp_path / "data_2d_h36m_sh.npz", positions_2d={"S5": {"Posing": pixels}}, metadata=metadata)
    store = read_h36m_npz(tmp_path, "sh")
    expected = on_screen(convert(pixels[1][:4].astype(np.float64), layout, "h36m"), 1000, 1000)
    np.testing.assert_allclose(store.input[rows(store, store.views[1]), :, :2], expected, atol=1e-6)
    assert store.source["layout"] == layout
    if layout == "coco":
        demo = read_h36m_npz(tmp_path, "sh", variant="demo")
        assert abs(demo.input - store.input)[..., [7, 8, 9, 10], :].max() > 1e-3
        np.testing.assert_array_equal(demo.input[:, :7], store.input[:, :7])
    fails(lambda: read_h36m_npz(tmp_path, "sh", variant="x"), "variant is 'x'", kind=ArgumentError)
    fails(lambda: read_h36m_npz(tmp_path, "gt", variant="demo"), "expected None", kind=ArgumentError)


def test_h36m_file_reduced_to_17_joints(tmp_path):
    fake_data.write_h36m_npz(tmp_path, frames=4)
    before = read_h36m_npz(tmp_path).pose

    def reduce(content):
        for actions in content["positions_3d"].values():
            for name in actions:
                actions[name] = actions[name][:, fake_data.KEPT]

    rewrite(tmp_path / "data_3d_h36m.npz", reduce)
    np.testing.assert_array_equal(read_h36m_npz(tmp_path).pose, before)


def _pop(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def _put(value, *keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


H36M_DAMAGE = [
    ("3d", _pop("positions_3d"), ["data_3d_h36m.npz has no 'positions_3d', it has 'x'"]),
    ("3d", _put(3, "positions_3d"), ["positions_3d", "subject, then action"]),
    ("3d", _put({}, "positions_3d"), ["has no motions"]),
    ("3d", _put({}, "positions_3d", "S3"), ["subject 'S3'", "S1, S5"]),
    ("3d", _put(np.zeros((4, 16, 3)), "positions_3d", "S9", "Walking"),
     ["positions_3d['S9']['Walking'] of", "float64 [4, 16, 3], expected numbers [T, 32, 3]"]),
    ("3d", _put(np.zeros((0, 32, 3)), "positions_3d", "S9", "Walking"), ["[0, 32, 3]"]),
    ("3d", _put(np.array(["a"]), "positions_3d", "S9", "Walking"), ["expected numbers"]),
    ("3d", _put(None, "positions_3d", "S9", "Walking"), ["is None, expected an array [T, 32, 3]"]),
    ("2d", _pop("positions_2d"), ["data_2d_h36m_gt.npz has no 'positions_2d'"]),
    ("2d", _pop("positions_2d", "S9"), ["data_2d_h36m_gt.npz has no subject 'S9'"]),
    ("2d", _pop("positions_2d", "S9", "Walking"), ["positions_2d['S9'] of", "has no 'Walking', it has 'Photo 1'"]),
    ("2d", _put([], "positions_2d", "S9", "Walking"), ["has 0 cameras, expected a list of 4"]),
    ("2d", _put(3, "positions_2d", "S9", "Walking"), ["has a int, expected a list of 4"]),
    ("2d", _put(np.zeros((3, 17, 2)), "positions_2d", "S1", "Walking", 2),
     ["positions_2d['S1']['Walking'] of", "camera 58860488", "3 frames, expected at least the 4 of data_3d_h36m.npz"]),
    ("2d", _put(np.zeros((4, 16, 2)), "positions_2d", "S1", "Walking", 2), ["[4, 16, 2], expected numbers [T, 17, 2]"]),
    ("2d", _put({"layout_name": "halpe"}, "metadata"), ["layout 'halpe'", "h36m, coco, mpii"]),
    ("2d", _put({"layout_name": "mpii"}, "metadata"), ["[4, 17, 2], expected numbers [T, 16, 2]"]),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(H36M_DAMAGE)))
def test_damaged_h36m_files(case, tmp_path):
    which, change, parts = H36M_DAMAGE[case]
    fake_data.write_h36m_npz(tmp_path, frames=4)
    path = tmp_path / {"3d": "data_3d_h36m.npz", "2d": "data_2d_h36m_gt.npz"}[which]

    def apply(content):
        change(content)
        return {"x": 1, **content}

    rewrite(path, apply)
    assert path.name in fails(lambda: read_h36m_npz(tmp_path), *parts)


# Human3.6M, MotionBERT's pickle --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content():
    return fake_data.h36m_pickle()


def test_pickle_by_the_written_formulas(content, tmp_path):
    path = fake_data.write_pickle(tmp_path / "h36m.pkl", content)
    store = read_h36m_pickle(path)
    assert [(v.subject, v.action, v.name, v.camera, v.index, v.frames) for v in store.views] == [
        ("S1", "Directions", "s_01_act_02_subact_01", "54138969", 0, 600),
        ("S5", "Discussion", "s_05_act_03_subact_01", "55011271", 1, 100),
        ("S9", "Greeting", "s_09_act_05_subact_02", "54138969", 0, 500),
        ("S11", "Directions", "s_11_act_02_subact_01", "60457274", 3, 486),
        ("S11", "Discussion", "s_11_act_03_subact_01", "58860488", 2, 260),
    ]
    assert store.source["protocol"] == "h36m-2.5d" and store.weight is None and all(v.fps == 50 for v in store.views)
    sizes = {"54138969": 1002, "55011271": 1000, "58860488": 1000, "60457274": 1002}
    for split, views in (("train", store.views[:2]), ("test", store.views[2:])):
        half, at = content[split], 0
        for view in views:
            here, height = slice(at, at + view.frames), sizes[view.camera]
            at += view.frames
            seen, label = store.input[rows(store, view)], store.label[rows(store, view)]
            assert view.size == (1000, height)
            np.testing.assert_allclose(seen[..., :2], on_screen(half["joint_2d"][here], 1000, height), atol=1e-6)
            np.testing.assert_allclose(seen[..., 2], half["confidence"][here, :, 0], rtol=1e-6)
            target = half["joint3d_image"][here]
            np.testing.assert_allclose(label[..., :2], on_screen(target, 1000, height), atol=1e-6)
            np.testing.assert_allclose(label[..., 2], target[..., 2] / 500, atol=1e-6)
            assert abs(label[:, 0, 2]).max() == 0
            pose, factor = store.pose[rows(store, view)], store.factor[rows(store, view)]
            if split == "train":
                assert np.isnan(factor).all() and not pose.any()
                continue
            np.testing.assert_allclose(pose * 1000, half["joints_2.5d_image"][here], rtol=1e-5, atol=1e-3)
            # The way that predictions are scored: de-normalise, times the factor, minus the root.
            scored = np.stack(
                [(label[..., 0] + 1) * 500, (label[..., 1] + height / 1000) * 500, label[..., 2] * 500], -1
            )
            scored = scored * half["2.5d_factor"][here][:, None, None]
            truth = half["joints_2.5d_image"][here]
            np.testing.assert_allclose(scored - scored[:, :1], truth - truth[:, :1], atol=2e-2)
            relative = label - label[:, :1]
            np.testing.assert_allclose(relative * factor[:, None, None], truth - truth[:, :1], atol=2e-2)


@pytest.mark.parametrize("how", ["arrays", "numbers", "lower case", "no confidence", "flat confidence", "float32"])
def test_other_ways_to_write_the_pickle(how, content, tmp_path):
    expected = read_h36m_pickle(fake_data.write_pickle(tmp_path / "a.pkl", content))
    other = {split: dict(half) for split, half in content.items()}
    for half in other.values():
        if how == "arrays":
            half |= {key: np.array(value) for key, value in half.items() if isinstance(value, list)}
        elif how == "numbers":
            half["action"] = np.array([int(source[9:11]) for source in half["source"]])
        elif how == "lower case":
            half["action"] = [action.lower() for action in half["action"]]
        elif how == "no confidence":
            del half["confidence"]
        elif how == "flat confidence":
            half["confidence"] = half["confidence"][..., 0]
        else:
            half |= {k: v.astype(np.float32) for k, v in half.items() if isinstance(v, np.ndarray)}
    store = read_h36m_pickle(fake_data.write_pickle(tmp_path / "b.pkl", other))
    assert store.views == expected.views or repr(store.views) == repr(expected.views)
    np.testing.assert_allclose(store.label, expected.label, atol=1e-6)
    np.testing.assert_allclose(store.input[..., :2], expected.input[..., :2], atol=1e-6)
    score = np.ones_like(store.input[..., 2]) if how == "no confidence" else expected.input[..., 2]
    np.testing.assert_allclose(store.input[..., 2], score, rtol=1e-6)


PICKLE_DAMAGE = [
    (_pop("test"), ["has no 'test', it has 'train'"]),
    (_put(3, "train"), ["'train' of", "is 3, expected a dictionary"]),
    (_pop("train", "joint_2d"), ["'train' of", "has no 'joint_2d'"]),
    (_pop("test", "2.5d_factor"), ["'test' of", "has no '2.5d_factor'"]),
    (_pop("test", "joints_2.5d_image"), ["has no 'joints_2.5d_image'"]),
    (_put(np.zeros((700, 16, 2)), "train", "joint_2d"), ["joint_2d in 'train'", "[700, 16, 2]", "numbers [T, 17, 2]"]),
    (_put(np.zeros((700, 17)), "train", "joint3d_image"), ["joint3d_image in 'train'", "numbers [700, 17, 3]"]),
    (_put(np.zeros((700, 17, 2)), "train", "confidence"), ["confidence in 'train'", "[700, 17, 1]"]),
    (_put(np.zeros(3), "test", "2.5d_factor"), ["2.5d_factor in 'test'", "[3]", "[1246]"]),
    (_put(["a"], "train", "source"), ["source in 'train'", "has shape [1], expected [700]"]),
    (_put(["S1"] * 700, "train", "source"), ["source of frame 0 in 'train'", "'S1'", "s_.._act_.._subact_.._ca_.."]),
    (_put("12345", "train", "camera_name", 0), ["camera_name in 'train'", "changes within", "s_01_act_02"]),
    (_put(["12345"] * 700, "train", "camera_name"), ["'12345'", "54138969"]),
    (_put("Eating", "test", "action", 600), ["action in 'test'", "changes within"]),
    (_put(["s_09_act_02_subact_01_ca_01"] * 700, "train", "source"), ["camera_name in 'train'", "changes within"]),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(PICKLE_DAMAGE)))
def test_damaged_pickles(case, content, tmp_path):
    change, parts = PICKLE_DAMAGE[case]
    damaged = pickle.loads(pickle.dumps(content))
    change(damaged)
    path = fake_data.write_pickle(tmp_path / "bad.pkl", damaged)
    fails(lambda: read_h36m_pickle(path), str(path), *parts)


def test_a_subject_in_both_halves(tmp_path):
    videos = dict.fromkeys(("train", "test"), (("s_09_act_02_subact_01_ca_01", 5),))
    path = fake_data.write_pickle(tmp_path / "bad.pkl", fake_data.h36m_pickle(videos))
    fails(lambda: read_h36m_pickle(path), "S9 in 'train' and in 'test'")


# Human3.6M, clips ----------------------------------------------------------------------------------------------------


def test_clips_with_their_reference(content, tmp_path):
    path = fake_data.write_pickle(tmp_path / "h36m.pkl", content)
    clips = fake_data.write_h36m_clips(tmp_path / "clips", content, 243)
    assert [len(clips[split]) for split in ("train", "test")] == [5, 5]
    store, whole = read_h36m_clips(tmp_path / "clips", path), read_h36m_pickle(path)
    starts = [0, 81, 162, 243, 324, 700, 943, 1200, 1443, 1686]  # frames of the whole file, train and then test
    assert len(store.views) == len(starts) and all(v.frames == 243 for v in store.views)
    for view, start in zip(store.views, starts, strict=True):
        here, there = rows(store, view), slice(start, start + 243)
        for name in ("input", "label", "pose", "factor"):
            np.testing.assert_allclose(getattr(store, name)[here], getattr(whole, name)[there], atol=1e-6)
    assert [v.motion for v in store.views[4:7]] == [
        "S1/s_01_act_02_subact_01@324", "S9/s_09_act_05_subact_02@0", "S9/s_09_act_05_subact_02@243",
    ]  # fmt: skip


def test_stretched_clips_find_their_frames(tmp_path):
    videos = {
        "train": (("s_01_act_02_subact_01_ca_01", 60), ("s_05_act_03_subact_01_ca_02", 10)),
        "test": (("s_09_act_02_subact_01_ca_01", 17), ("s_11_act_04_subact_01_ca_02", 54)),
    }
    content = fake_data.h36m_pickle(videos)
    path = fake_data.write_pickle(tmp_path / "h36m.pkl", content)
    fake_data.write_h36m_clips(tmp_path / "clips", content, 27)
    store, whole = read_h36m_clips(tmp_path / "clips", path), read_h36m_pickle(path)
    view = find(store, name="s_09_act_02_subact_01")
    assert view.frames == 27 and {v.motion for v in store.views if v.subject == "S5"} == set()
    label, original = store.label[rows(store, view)], whole.label[70:87]
    frames = [int(np.abs(original - one).max((1, 2)).argmin()) for one in label]
    assert len(set(frames)) < 27 and min(frames) >= 0 and frames == sorted(frames)
    np.testing.assert_array_equal(store.pose[rows(store, view)], whole.pose[70:87][frames])
    np.testing.assert_array_equal(store.factor[rows(store, view)], whole.factor[70:87][frames])


def test_clips_without_reference_or_input(content, tmp_path):
    clips = fake_data.write_h36m_clips(tmp_path, content, 243)
    for number in range(2):
        label = clips["train"][number]["data_label"]
        fake_data.write_pickle(tmp_path / "train" / f"{number:08d}.pkl", {"data_input": None, "data_label": label})
    store = read_h36m_clips(tmp_path)
    assert [v.subject for v in store.views] == ["train"] * 5 + ["test"] * 5
    assert np.isnan(store.factor).all() and not store.pose.any() and all(math.isnan(v.fps) for v in store.views)
    first = slice(0, 486)
    np.testing.assert_array_equal(store.input[first, :, :2], store.label[first, :, :2])
    assert (store.input[first, :, 2] == 1).all()
    np.testing.assert_array_equal(store.input[486:729], clips["train"][2]["data_input"])
    assert any("not known without" in note for note in store.source["notes"])


def test_clips_that_do_not_fit(content, tmp_path):
    path = fake_data.write_pickle(tmp_path / "h36m.pkl", content)
    folder = tmp_path / "clips"
    clips = fake_data.write_h36m_clips(folder, content, 243)
    last = folder / "test" / "00000004.pkl"
    good = clips["test"][4]

    def read(reference=path):
        return read_h36m_clips(folder, reference)

    shifted = {"data_input": good["data_input"], "data_label": np.roll(good["data_label"], 1, axis=0)}
    fake_data.write_pickle(last, shifted)
    fails(read, str(last), "frames 986 to 1229", "s_11_act_03_subact_01", "58860488")
    fake_data.write_pickle(last, {key: value[:100] for key, value in good.items()})
    fails(read, str(last), "100 frames, expected 243")
    fake_data.write_pickle(last, {"data_label": good["data_label"]})
    fails(read, str(last), "no 'data_input'")
    fake_data.write_pickle(last, {"data_input": good["data_input"][:, :16], "data_label": good["data_label"]})
    fails(read, "data_input of", str(last), "[243, 16, 3]")
    last.unlink()
    fails(read, "4 clips of 243 frames, expected the 5", "'test'")
    fails(lambda: read_h36m_clips(tmp_path / "none"), "does not exist", kind=MissingFileError)
    fails(lambda: read_h36m_clips(tmp_path), "no clips")
    fails(lambda: read(tmp_path / "none.pkl"), "does not exist", kind=MissingFileError)


# MPI-INF-3DHP --------------------------------------------------------------------------------------------------------


def test_3dhp_by_the_written_formulas(tmp_path):
    train, test = fake_data.write_3dhp(tmp_path)
    store = read_mpi_inf_3dhp(tmp_path)
    assert len(store.views) == 3 * 8 + 6 and store.skeleton == "mpi_inf_3dhp"
    assert store.source["annotation"] == "univ_annot3" and store.source["protocol"] == "mpi_inf_3dhp"
    view = find(store, subject="S1", name="Seq2", camera="6")
    arrays = train["S1 Seq2"][0]["6"]
    np.testing.assert_allclose(store.pose[rows(store, view)], arrays["data_3d"] / 1000, rtol=1e-6)
    seen = store.input[rows(store, view)]
    np.testing.assert_allclose(seen[..., :2], arrays["data_2d"] / 1024 - 1, atol=1e-6)
    assert (seen[..., 2] == 1).all() and (store.weight[rows(store, view)] == 1).all()
    assert view.fps == 50 and view.index == 5 and find(store, subject="S2", camera="0").fps == 25
    for name, (width, height) in {"TS2": (2048, 2048), "TS5": (1920, 1080)}.items():
        view = find(store, subject=name)
        screen = on_screen(test[name]["data_2d"], width, height)
        np.testing.assert_allclose(store.input[rows(store, view), :, :2], screen, atol=1e-6)
        np.testing.assert_array_equal(store.weight[rows(store, view)], np.repeat(test[name]["valid"][:, None], 17, 1))
        assert view.size == (width, height) and np.isnan(view.intrinsics).all() and math.isnan(view.fps)


def test_3dhp_true_poses_have_cameras(tmp_path):
    _, test = fake_data.write_3dhp(tmp_path, sequences=(), suffix="_ori")
    test["TS6"]["data_2d"] = test["TS6"]["data_2d"] + 50
    np.savez(tmp_path / "data_test_3dhp_ori.npz", data=test)
    store = read_mpi_inf_3dhp(tmp_path)
    assert store.source["annotation"] == "annot3" and store.subjects == tuple(f"TS{i}" for i in range(1, 7))
    view = find(store, subject="TS5")
    pose = store.pose[rows(store, view)].astype(np.float64)
    fx, fy, cx, cy = view.intrinsics
    x, y = fx * pose[..., 0] / pose[..., 2] + cx, fy * pose[..., 1] / pose[..., 2] + cy
    np.testing.assert_allclose(np.stack([x, y], -1), store.input[rows(store, view), :, :2], atol=1e-5)
    assert np.isnan(find(store, subject="TS6").intrinsics).all(), "keypoints are elsewhere: the camera is not believed"


def test_3dhp_single_files_shapes_and_empty_frames(tmp_path):
    _, test = fake_data.write_3dhp(tmp_path, tests=("TS1",))
    assert read_mpi_inf_3dhp(tmp_path / "data_train_3dhp.npz").subjects == ("S1", "S2")
    test["TS1"]["valid"] = test["TS1"]["valid"][:, None]
    test["TS1"]["data_3d"][5] = 0
    np.savez(tmp_path / "data_test_3dhp.npz", data=test)
    store = read_mpi_inf_3dhp(tmp_path / "data_test_3dhp.npz")
    expected = test["TS1"]["valid"][:, 0].copy()
    expected[5] = 0
    np.testing.assert_array_equal(store.weight[:, 3], expected)
    assert (store.pose[5, :, 2] > 0).all()


def test_3dhp_activities(tmp_path):
    h5py = pytest.importorskip("h5py")
    fake_data.write_3dhp(tmp_path, sequences=(), tests=("TS1", "TS5", "TS6"))
    for name, runs in {"TS5": [(1, 50), (4, 40), (5, 10)], "TS6": [(7, 99)]}.items():
        (tmp_path / name).mkdir()
        with h5py.File(tmp_path / name / "annot_data.mat", "w") as file:
            activity = np.repeat([a for a, _ in runs], [n for _, n in runs])
            file["activity_annotation"] = activity[:, None].astype(float)
    source = read_mpi_inf_3dhp(tmp_path).source
    assert source["activity"] == {"TS5": [[1, 50], [4, 40], [5, 10]]}
    assert source["notes"] == ["activities of TS6 were left out: annot_data.mat has 99 frames"]
    (tmp_path / "TS6" / "annot_data.mat").write_bytes(b"no")
    fails(lambda: read_mpi_inf_3dhp(tmp_path), "TS6", "activity_annotation")


def test_3dhp_table_of_frames():
    assert len(FRAMES) == 16 and sum(FRAMES.values()) == 131_592 and FRAMES["S8", "Seq2"] == 6054


DHP_DAMAGE = [
    ("train", _put({}, "data"), ["'data' of", "expected a dictionary of sequences"]),
    ("train", _put([1], "data", "S1 Seq1"), ["data['S1 Seq1']", "expected [cameras, frames per second]"]),
    ("train", _put(1, "data", "odd"), ["'odd'", "'S1 Seq1' or 'TS1'"]),
    ("train", _put("fast", "data", "S1 Seq1", 1), ["'fast' frames per second"]),
    ("train", _pop("data", "S1 Seq1", 0, "4", "data_2d"), ["data['S1 Seq1']", "camera '4'", "no 'data_2d'"]),
    ("train", _put(np.zeros((9, 17, 2)), "data", "S1 Seq1", 0, "4", "data_2d"), ["[9, 17, 2]", "numbers [90, 17, 2]"]),
    ("train", _put(np.zeros((90, 28, 3)), "data", "S1 Seq1", 0, "4", "data_3d"), ["[90, 28, 3]", "numbers [T, 17, 3]"]),
    ("test", _pop("data", "TS1", "valid"), ["data['TS1']", "no 'valid'"]),
    ("test", _put(np.ones(3), "data", "TS1", "valid"), ["valid of data['TS1']", "[3]", "[100]"]),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(DHP_DAMAGE)))
def test_damaged_3dhp_files(case, tmp_path):
    which, change, parts = DHP_DAMAGE[case]
    fake_data.write_3dhp(tmp_path, sequences=("S1 Seq1",), tests=("TS1",))
    path = rewrite(tmp_path / f"data_{which}_3dhp.npz", change)
    fails(lambda: read_mpi_inf_3dhp(tmp_path), str(path), *parts)


def test_3dhp_folder_without_files(tmp_path):
    fails(lambda: read_mpi_inf_3dhp(tmp_path), "neither data_train_3dhp.npz", kind=MissingFileError)


# H3WB ----------------------------------------------------------------------------------------------------------------


def test_h3wb_npz(tmp_path):
    halves = fake_data.write_h3wb_npz(tmp_path)
    store = read_h3wb(tmp_path)
    assert store.skeleton == "h3wb" and not store.temporal and store.subjects == ("S1", "S5", "S8")
    assert len(store.views) == 3 * 2 * 4 and store.weight is None
    for half, subject in (("train", "S5"), ("test", "S8")):
        view = find(store, subject=subject, name="Directions 1", index=3)
        entry = halves[half][subject]["Directions 1"]["60457274"]
        assert entry["camera_3d"].shape == (30, 1, 133, 3), "the file has an axis more for this camera"
        np.testing.assert_allclose(store.pose[rows(store, view)], entry["camera_3d"][:, 0] / 1000, rtol=1e-6)
        seen = store.input[rows(store, view)]
        np.testing.assert_allclose(seen[..., :2], on_screen(entry["pose_2d"], 1000, 1002), atol=1e-6)
        assert view.action == "Directions" and view.size == (1000, 1002) and math.isnan(view.fps)
        expected = [2 * 1.1455114, 2 * 1.1447739, 2 * 0.5149682 - 1, 2 * 0.50188202 - 1.002]
        np.testing.assert_allclose(view.intrinsics, expected, rtol=1e-6)
    assert read_h3wb(tmp_path / "h3wb_train.npz").subjects == ("S1", "S5")
    assert read_h3wb(tmp_path / "task1_test_3d.npz").subjects == ("S8",)


def test_h3wb_calibration_of_the_file_counts(tmp_path):
    fake_data.write_h3wb_npz(tmp_path, frames=3)

    def change(content):
        content["metadata"]["S1"]["54138969"]["K"] = np.diag([2.0, 3.0, 1.0])[None]

    rewrite(tmp_path / "h3wb_train.npz", change)
    view = read_h3wb(tmp_path).views[0]
    np.testing.assert_allclose(view.intrinsics, [4, 6, -1, -1.002])


def test_h3wb_json_with_missing_points(tmp_path):
    samples, pixels, pose = fake_data.h3wb_samples([3, 1, 2])
    del samples["1"]["keypoints_2d"]["5"]
    samples["2"]["keypoints_2d"]["6"] = {"x": 0.0, "y": 0.0}
    samples["3"]["keypoints_2d"]["132"]["x"] = None
    del samples["3"]["keypoints_3d"]["90"]
    store = read_h3wb(fake_data.write_json(tmp_path / "2Dto3D_train.json", samples))
    order = [1, 2, 0]  # by number: 1, 2, 3
    assert [(v.subject, v.action, v.camera, v.frames) for v in store.views] == [("train", "unknown", "unknown", 3)]
    missing = np.zeros((3, 133), bool)
    missing[[0, 1, 2], [5, 6, 132]] = True
    np.testing.assert_array_equal(store.input[..., 2] == 0, missing)
    expected = on_screen(pixels[order], 1000, 1000)
    np.testing.assert_allclose(store.input[~missing][:, :2], expected[~missing], atol=1e-6)
    known = np.ones((3, 133))
    known[2, 90] = 0
    np.testing.assert_array_equal(store.weight, known)
    np.testing.assert_allclose(store.pose[known > 0], pose[order][known > 0] / 1000, rtol=1e-6)
    assert store.source["missing"] == {"keypoints": 3, "joints": 1}


def test_h3wb_json_parts_pairs_and_image_paths(tmp_path):
    paths = ("S1/S1_Directions_1.54138969_{:06d}.jpg", "data/S8/Images/WalkingDog.58860488/{}.jpg")
    for part in range(1, 6):
        numbers = range((part - 1) * 4, part * 4)
        fake_data.write_json(
            tmp_path / f"2Dto3D_train_part{part}.json", fake_data.h3wb_samples(numbers, path=paths[0])[0]
        )
    numbers = [8 * (i // 4) + i % 4 for i in range(10)]
    for half, options in {"2d": {"poses": False, "path": paths[1]}, "3d": {"points": False}}.items():
        samples, _, pose = fake_data.h3wb_samples(numbers, **options)
        fake_data.write_json(tmp_path / f"2Dto3D_test_{half}.json", samples)
    store = read_h3wb(tmp_path)
    assert [(v.subject, v.action, v.name, v.camera, v.frames) for v in store.views] == [
        ("S1", "Directions", "Directions 1", "54138969", 20), ("S8", "WalkDog", "WalkingDog", "58860488", 10),
    ]  # fmt: skip
    np.testing.assert_allclose(store.pose[20:], pose / 1000, rtol=1e-6)
    assert read_h3wb(tmp_path / "2Dto3D_train_part3.json").frames == 20
    assert read_h3wb(tmp_path / "2Dto3D_test_3d.json").frames == 10
    (tmp_path / "2Dto3D_train_part4.json").unlink()
    fails(lambda: read_h3wb(tmp_path / "2Dto3D_train_part1.json"), "part4.json does not exist", kind=MissingFileError)
    (tmp_path / "2Dto3D_test_3d.json").unlink()
    fails(lambda: read_h3wb(tmp_path / "2Dto3D_test_2d.json"), "test_3d.json does not exist", kind=MissingFileError)


def test_damaged_h3wb_files(tmp_path):
    path = tmp_path / "2Dto3D_train.json"
    good, *_ = fake_data.h3wb_samples([0, 1])
    for change, parts in (
        (_pop("1", "keypoints_3d"), ["sample 1", "no keypoints_3d", "133 points of 3"]),
        (_put({"0": {"x": 1, "y": 2, "z": 3}}, "1", "keypoints_2d"), ["malformed keypoints_2d"]),
        (_put({"x": 1, "y": 2}, "1", "keypoints_2d", "133"), ["keypoint '133', expected 0 to 132"]),
        (_put({"x": "a", "y": 2}, "1", "keypoints_2d", "13"), ["no JSON object of numbered samples"]),
        (_put({}, "one"), ["no JSON object of numbered samples", "'one'"]),
    ):
        samples = json.loads(json.dumps(good))
        change(samples)
        fails(lambda: read_h3wb(fake_data.write_json(path, samples)), "2Dto3D_train.json", *parts)  # noqa: B023
    for text in ("", "[1, 2]", '{"1": 3}', json.dumps(good)[:5000], "[" * 100_000):
        path.write_text(text)
        fails(lambda: read_h3wb(path), "no JSON object of numbered samples")
    path.write_text("{}")
    fails(lambda: read_h3wb(path), "no samples")
    fails(lambda: read_h3wb(tmp_path / "x.npz"), "does not exist", kind=MissingFileError)
    path.unlink()
    fails(lambda: read_h3wb(tmp_path), "none of h3wb_train.npz", kind=MissingFileError)
    fake_data.write_h3wb_npz(tmp_path, frames=3)
    train = tmp_path / "h3wb_train.npz"
    original = train.read_bytes()
    where = ("train_data", "S1", "Walking")
    for change, parts in (
        (_put(3, "train_data"), ["'train_data' of", "is array(3)"]),
        (_put(3, "train_data", "S1"), ["train_data['S1']", "dictionary of actions"]),
        (_put({"global_3d": 1}, *where), ["train_data['S1']['Walking']", "none of the cameras 54138969"]),
        (_pop(*where, "55011271", "pose_2d"), ["camera 55011271", "no 'pose_2d'"]),
        (_put(np.zeros((3, 17, 2)), *where, "55011271", "pose_2d"), ["pose_2d of", "expected numbers [T, 133, 2]"]),
        (_put(np.zeros((2, 133, 2)), *where, "55011271", "pose_2d"), ["has 2 frames, expected 3"]),
    ):
        train.write_bytes(original)
        rewrite(train, change)
        fails(lambda: read_h3wb(train), str(train), *parts)


# Any format ----------------------------------------------------------------------------------------------------------


def test_formats_are_told_apart(content, tmp_path):
    def folder(name):
        (tmp_path / name).mkdir()
        return tmp_path / name

    fake_data.write_h36m_npz(folder("h36m"), frames=2)
    fake_data.write_3dhp(folder("3dhp"), frames=2, test_frames=8)
    fake_data.write_h3wb_npz(folder("h3wb"), frames=2)
    fake_data.write_json(tmp_path / "2Dto3D_train.json", {})
    fake_data.write_h36m_clips(tmp_path / "clips", content, 243)
    fake_data.write_pickle(tmp_path / "sh.pkl", content)
    save_store(read_h36m_npz(tmp_path / "h36m"), tmp_path / "a.poses")
    for name in ("a.bvh", "b.AMC", "c.c3d"):
        (folder(f"mocap-{name[-3:].lower()}") / name).touch()
    expected = {
        "h36m": "h36m-npz", "h36m/data_3d_h36m.npz": "h36m-npz", "3dhp": "mpi_inf_3dhp",
        "3dhp/data_test_3dhp.npz": "mpi_inf_3dhp", "h3wb": "h3wb", "h3wb/h3wb_train.npz": "h3wb",
        "h3wb/task1_test_3d.npz": "h3wb", "2Dto3D_train.json": "h3wb", "clips": "h36m-clips", "sh.pkl": "h36m-pickle",
        "a.poses": "store", "mocap-bvh": "bvh", "mocap-amc": "amc", "mocap-c3d": "c3d", "mocap-amc/b.AMC": "amc",
    }  # fmt: skip
    assert {name: detect(tmp_path / name) for name in expected} == expected
    assert set(expected.values()) | {"archive"} <= set(FORMATS)  # test_every_format_has_a_test sees to others
    fails(lambda: detect(tmp_path / "h36m" / "data_2d_h36m_gt.npz"), "2D keypoints only")
    (tmp_path / "mocap-bvh" / "x.amc").touch()
    fails(lambda: detect(tmp_path / "mocap-bvh"), "several formats, amc, bvh")
    fails(lambda: detect(folder("empty")), "no file of a known format")
    np.savez(tmp_path / "odd.npz", a=1, b=2)
    fails(lambda: detect(tmp_path / "odd.npz"), "arrays a, b", "positions_3d")
    (tmp_path / "x.asf").touch()
    fails(lambda: detect(tmp_path / "x.asf"), "skeleton of .amc files")
    (tmp_path / "x.txt").touch()
    fails(lambda: detect(tmp_path / "x.txt"), "no known format")
    (tmp_path / "x.npz").write_bytes(b"PK")
    fails(lambda: detect(tmp_path / "x.npz"), "not a complete npz")
    fails(lambda: detect(tmp_path / "nothing"), "does not exist", kind=MissingFileError)


@needs_raw
def test_open_motion_capture(tmp_path):
    (clip,) = open_data(RAW / "16_02.amc")
    assert (clip.subject, clip.name, clip.fps, len(clip)) == ("16", "16_02", 120, 466)
    (slow,) = open_data(RAW / "16_02.amc", fps=50)
    assert slow.fps == 50 and len(slow) == 194
    np.testing.assert_allclose(slow.positions[5], clip.positions[12], atol=1e-5)
    (fixed,) = open_data(RAW / "16_02.amc", source_fps=60)
    assert fixed.fps == 60 and len(fixed) == 466
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("16.asf", "16_02.amc", "16_16.amc"):
        (tmp_path / "a" / "b" / name).write_bytes((RAW / name).read_bytes())
    assert [c.key for c in open_data(tmp_path)] == ["16/16_02", "16/16_16"]
    for name in ("16.asf", "16_02.amc"):
        (tmp_path / "a" / name).write_bytes((RAW / name).read_bytes())
    fails(lambda: open_data(tmp_path), "two files called 16_02.amc")
    for option in ({"keypoints": "gt"}, {"reference": "x.pkl"}):
        fails(lambda: open_data(RAW / "16_02.amc", **option), f"{min(option)} is given", kind=ArgumentError)  # noqa: B023


def test_options_that_a_format_has_no_use_for(tmp_path):
    fake_data.write_h36m_npz(tmp_path, frames=2)
    for option in ({"fps": 50}, {"scale": 1.0}, {"up": "z"}, {"joints": "auto"}, {"asf": "x"}, {"reference": "x"}):
        text = fails(lambda: open_data(tmp_path, **option), str(tmp_path), kind=ArgumentError)  # noqa: B023
        assert text.startswith(f"{min(option)} is given")


def open_each(content, folder):
    """A store of every reader."""
    for name in ("h36m", "3dhp", "h3wb"):
        (folder / name).mkdir()
    fake_data.write_h36m_npz(folder / "h36m", frames=9)
    fake_data.write_3dhp(folder / "3dhp", frames=9, test_frames=20)
    fake_data.write_h3wb_npz(folder / "h3wb", frames=4)
    path = fake_data.write_pickle(folder / "sh.pkl", content)
    fake_data.write_h36m_clips(folder / "clips", content, 243)
    return {
        "h36m": open_data(folder / "h36m"), "3dhp": open_data(folder / "3dhp"), "h3wb": open_data(folder / "h3wb"),
        "pickle": open_data(path), "clips": open_data(folder / "clips", reference=path),
    }  # fmt: skip


def test_every_reader_survives_a_store(content, tmp_path):
    for name, store in open_each(content, tmp_path).items():
        back = open_store(save_store(store, tmp_path / f"{name}.poses"))
        assert repr(back.views) == repr(store.views) and back.source == store.source, name
        assert (back.skeleton, back.temporal) == (store.skeleton, store.temporal)
        sent = pickle.loads(pickle.dumps(back))
        for array in ("input", "pose", "weight", "label", "factor"):
            here, there, again = (getattr(s, array) for s in (store, back, sent))
            if here is None:
                assert there is None and again is None
                continue
            np.testing.assert_array_equal(here, there)
            np.testing.assert_array_equal(here, again)
            assert isinstance(there, np.memmap) and isinstance(again, np.memmap) and not again.flags.writeable
        assert len(pickle.dumps(back)) < 20_000 + 400 * len(back.views), "workers map the files themselves"


def test_opening_a_store_takes_neither_time_nor_memory(tmp_path):
    """Two gigabytes, most of it holes in the files: 5 million frames are opened and one of them is read."""
    fake_data.write_h36m_npz(tmp_path, frames=4)
    small = save_store(read_h36m_npz(tmp_path), tmp_path / "big.poses")
    frames = 5_000_000
    meta = json.loads((small / "meta.json").read_text())
    meta["views"] = [meta["views"][0] | {"frames": frames}]
    (small / "meta.json").write_text(json.dumps(meta))
    for name in ("input", "pose"):
        with open(small / f"{name}.npy", "wb") as file:
            form = {"descr": "<f4", "fortran_order": False, "shape": (frames, 17, 3)}
            np.lib.format.write_array_header_1_0(file, form)
            file.truncate(file.tell() + frames * 17 * 3 * 4)
    code = (
        "import resource, sys, time\n"
        "from structloss.data.store import open_store\n"
        "before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()\n"
        "store = open_store(sys.argv[1])\n"
        "value = float(store.pose[4_999_999].sum()) + store.frames\n"
        "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, value)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(small)], capture_output=True, text=True, check=True)
    seconds, kilobytes, value = map(float, done.stdout.split())
    assert value == frames and seconds < 0.5 and kilobytes < 50_000


def test_reading_takes_the_source_and_one_copy(tmp_path):
    """The pickle's own 43 MB, and the store's 25; beyond that a view or two at a time."""
    videos = {
        split: [(f"s_{subject}_act_{act:02d}_subact_01_ca_01", 1000) for act in range(2, 17) for subject in subjects]
        for split, subjects in (("train", ("01", "05")), ("test", ("09",)))
    }
    content = fake_data.h36m_pickle(videos)
    path = fake_data.write_pickle(tmp_path / "a.pkl", content)
    del content
    tracemalloc.start()
    try:
        store = read_h36m_pickle(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    arrays = sum(getattr(store, name).nbytes for name in ("input", "pose", "label", "factor"))
    assert arrays > 20e6
    assert peak < path.stat().st_size + arrays + 10e6, (peak, path.stat().st_size, arrays)


def test_the_restricted_readers_are_used_everywhere(tmp_path):
    """A file that wants to run code is refused whatever format it claims to be."""

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.empty((), object)
    trap[()] = {"S1": Trap()}
    np.savez(tmp_path / "data_3d_h36m.npz", positions_3d=trap)
    np.savez(tmp_path / "data_2d_h36m_gt.npz", positions_2d=trap)
    np.savez(tmp_path / "data_train_3dhp.npz", data=trap)
    np.savez(tmp_path / "h3wb_train.npz", train_data=trap)
    fake_data.write_pickle(tmp_path / "a.pkl", {"train": Trap()})
    fake_data.write_pickle(tmp_path / "clips" / "train" / "0.pkl", {"data_label": Trap()})
    for name in ("data_3d_h36m.npz", "data_train_3dhp.npz", "h3wb_train.npz", "a.pkl", "clips"):
        fails(lambda: open_data(tmp_path / name), "unsafe")  # noqa: B023
    assert not (tmp_path / "sprung").exists()


def test_truncated_files_of_every_format(content, tmp_path):
    fake_data.write_h36m_npz(tmp_path, frames=4)
    fake_data.write_3dhp(tmp_path, frames=4, test_frames=8)
    fake_data.write_h3wb_npz(tmp_path, frames=3)
    fake_data.write_pickle(tmp_path / "sh.pkl", content)
    start = time.perf_counter()
    for name in ("data_3d_h36m.npz", "data_2d_h36m_gt.npz", "data_train_3dhp.npz", "h3wb_train.npz", "sh.pkl"):
        path = tmp_path / name
        data = path.read_bytes()
        for share in (0.0, 0.3, 0.7, 0.999):
            path.write_bytes(data[: int(len(data) * share)])
            target = tmp_path / "data_3d_h36m.npz" if name.startswith("data_2d") else path
            with pytest.raises(StructlossError) as caught:
                open_data(target)
            assert "\n" not in str(caught.value) and name in str(caught.value)
        path.write_bytes(data)
    assert time.perf_counter() - start < 10
