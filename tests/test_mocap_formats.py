"""Motion-capture files: the real trials, hand-made files of every odd form, damaged ones, and those we write."""

import json
import re
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from structloss.data import Clip, load_archive
from structloss.data.formats import JOINT_MAPS, parse_bvh, parse_c3d, read_amc, read_asf, read_bvh, read_c3d, write_bvh
from structloss.errors import ArgumentError, DataError, MissingFileError, StructlossError
from structloss.skeletons import get

RAW = Path(__file__).resolve().parents[2] / "shared" / "data" / "raw"
needs_raw = pytest.mark.skipif(not RAW.is_dir(), reason="the motion-capture files are not at ../shared/data/raw")
H36M = get("h36m")
J = {name: j for j, name in enumerate(H36M.joint_names)}


def complains(error, function, *arguments, **keywords):
    """The one-line message of the error."""
    with pytest.raises(error) as caught:
        function(*arguments, **keywords)
    text = str(caught.value)
    assert "\n" not in text and text[-1] in ".?"
    return text


# ------------------------------------------------------------------------------------------------ the real trials


@needs_raw
def test_walk_has_the_published_positions():
    clip = read_amc(RAW / "16_16.amc")
    assert (clip.subject, clip.name, clip.action, clip.fps) == ("16", "16_16", "unknown", 120.0)
    assert clip.positions.shape == (510, 17, 3)
    first = clip.positions[0]
    np.testing.assert_allclose(first[J["Hip"]], (0.1007, 1.5338, 0.8996), atol=6e-5)
    np.testing.assert_allclose(first[J["Head"]], (0.0955, 1.5349, 1.6430), atol=6e-5)
    np.testing.assert_allclose(first[J["RWrist"]], (-0.1175, 1.4454, 0.8299), atol=6e-5)
    assert abs(clip.positions[:, J["Head"], 2].max() - 1.6478) < 6e-5


@needs_raw
def test_the_jump_falls_freely():
    """Scale and rate together: the crude centre of mass falls with 10.2 m/s^2 while both feet are off the floor."""
    clip = read_amc(RAW / "16_02.amc", subject="s", action="jump", name="n")
    assert clip.key == "s/n" and clip.action == "jump"
    p = clip.positions.astype(np.float64)
    parts = [("Head", "Thorax", 0.08), ("Thorax", "Hip", 0.5)]
    for side in "LR":
        parts += [(f"{side}Shoulder", f"{side}Elbow", 0.027), (f"{side}Elbow", f"{side}Wrist", 0.022)]
        parts += [(f"{side}Hip", f"{side}Knee", 0.1), (f"{side}Knee", f"{side}Foot", 0.061)]
    mass = sum(share * (p[:, J[a]] + p[:, J[b]]) / 2 for a, b, share in parts) / sum(share for *_, share in parts)
    feet = p[:, [J["LFoot"], J["RFoot"]], 2].min(axis=1)
    flight = np.flatnonzero(feet > np.quantile(feet, 0.02) + 0.15)
    assert len(flight) > 30 and np.all(np.diff(flight) == 1)
    assert abs(-2 * np.polyfit(flight / clip.fps, mass[flight, 2], 2)[0] - 10.2) < 0.05


@needs_raw
def test_bvh_and_amc_of_one_trial_agree():
    amc = read_amc(RAW / "01_01.amc")  # CR LF line ends
    with pytest.warns(UserWarning, match="lost the segments lwrist, rwrist, thorax"):
        lossy = read_bvh(RAW / "01_01.bvh")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = read_bvh(RAW / "01_01.bvh", asf=RAW / "01.asf")
    assert len(amc) == len(lossy) == len(whole) == 2751 and whole.fps == 120  # the added T-pose is gone
    distance = np.linalg.norm(whole.positions - amc.positions, axis=-1) * 1000
    assert distance.max() < 0.01
    distance = np.linalg.norm(lossy.positions - amc.positions, axis=-1).max(axis=0)
    lower = [J[name] for name in ("Hip", "RHip", "RKnee", "RFoot", "LHip", "LKnee", "LFoot", "Spine")]
    assert distance[lower].max() < 1e-5
    np.testing.assert_allclose(distance[[J["Thorax"], J["Head"], J["LElbow"]]], 0.1166, atol=1e-4)


@needs_raw
@pytest.mark.parametrize("trial", ["16_16", "16_02", "01_01"])
def test_resampled_trials_are_the_clips_of_the_archive(trial, real_mocap):
    """The archive was cut from the same trials by a cubic spline, after which limbs got their lengths back."""
    archive, meta = load_archive(real_mocap)
    key = f"cmu{trial[:2]}/{trial}"
    (want,) = (clip for clip in archive if clip.key == key)
    (entry,) = (entry for entry in meta["clips"] if entry["key"] == key)
    start, end = entry["source_frames_120hz"]
    clip = read_amc(RAW / f"{trial}.amc")
    got = Clip(clip.positions[start:end], clip.subject, clip.action, clip.name, clip.fps).resampled(50)
    assert got.fps == 50 and len(got) == len(want)
    distance = np.linalg.norm(got.positions - want.positions, axis=-1) * 1000
    assert distance.max() < 0.25 and distance.mean() < 0.001


@needs_raw
def test_dropping_the_first_frame():
    kept = read_bvh(RAW / "01_01.bvh", asf=RAW / "01.asf", drop_first=False)
    assert len(kept) == 2752
    left, right = (kept.positions[0, J[f"{side}Wrist"]] - kept.positions[0, J[f"{side}Shoulder"]] for side in "LR")
    assert abs(left[2]) < 0.06 and abs(right[2]) < 0.06 and left @ right < -0.2  # arms spread: the T-pose
    assert "expected one of 'auto'" in complains(
        ArgumentError, read_bvh, RAW / "01_01.bvh", asf=RAW / "01.asf", drop_first="yes"
    )
    assert "expected 'cmu-bvh'" in complains(
        ArgumentError, read_bvh, RAW / "01_01.bvh", joints="mixamo", scale=0.05, asf=RAW / "01.asf"
    )


@needs_raw
def test_wrong_scale_up_and_rate():
    text = complains(DataError, read_bvh, RAW / "01_01.bvh", joints="mixamo")
    assert "tall with scale 0.01, expected 1 to 2.5 m; set scale" in text
    with pytest.warns(UserWarning, match=r"m tall with scale 1, expected 1 to 2.5"):  # asked for, so a warning
        tall = read_amc(RAW / "16_16.amc", scale=1.0)
    normal = read_amc(RAW / "16_16.amc", fps=60)
    assert normal.fps == 60
    np.testing.assert_allclose(tall.positions * (0.0254 / 0.45), normal.positions, rtol=1e-5, atol=1e-6)
    raw = read_amc(RAW / "16_16.amc", up="z").positions  # the file's own axes
    np.testing.assert_allclose(np.stack([raw[..., 0], -raw[..., 2], raw[..., 1]], -1), normal.positions, atol=1e-6)
    assert "scale is -1" in complains(ArgumentError, read_amc, RAW / "16_16.amc", scale=-1)
    assert "up is 'w'" in complains(ArgumentError, read_amc, RAW / "16_16.amc", up="w")


# ------------------------------------------------------------------------------------------------------ resampling


@settings(max_examples=30)
@given(st.integers(1, 40), st.sampled_from([20, 50, 119.88, 120, 240]), st.integers(0, 99))
def test_resampling_is_the_cubic_spline(frames, fps, seed):
    clip = Clip(np.random.default_rng(seed).normal(size=(frames, 17, 3)), "s", "a", "n", 120)
    got = clip.resampled(fps)
    times = np.arange(frames) / 120
    want = np.arange(len(got)) / fps
    assert want[-1] <= times[-1] + 1e-9 < want[-1] + 1 / fps + 2e-9
    if frames == 1:
        np.testing.assert_array_equal(got.positions, clip.positions)
    else:
        np.testing.assert_allclose(got.positions, CubicSpline(times, clip.positions)(want), atol=2e-5)
    assert (got.subject, got.action, got.name, got.fps) == ("s", "a", "n", fps)
    assert "fps is 0" in complains(ArgumentError, clip.resampled, 0)


# ------------------------------------------------------------------------------------------------------------ BVH

ORDERS = ["ZYX", "XYZ", "YXZ", "ZXY", "Y", "XZ"]


@st.composite
def bvh_files(draw):
    """A random tree with any channels: text, and (name, parent, offset, channels) and values to pose it by hand."""
    count = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    parents = [-1] + [draw(st.integers(0, i - 1)) for i in range(1, count)]
    joints = []
    for i, parent in enumerate(parents):
        channels = [f"{axis}rotation" for axis in draw(st.sampled_from(ORDERS))]
        if i == 0 or draw(st.booleans()):
            channels += [f"{axis}position" for axis in draw(st.sampled_from(["XYZ", "ZXY", "Y"]))]
            channels = draw(st.permutations(channels))
        joints.append((f"j{i}", parent, rng.normal(size=3).round(3), channels))
    frames = draw(st.integers(1, 4))
    order = []  # depth first, as in the file
    space, end = draw(st.sampled_from([(" ", "\n"), ("\t", "\r\n"), (" ", " ")]))
    parts = ["HIERARCHY"]

    def write(i):
        order.append(i)
        name, parent, offset, channels = joints[i]
        parts.append(f"{'JOINT' if parent >= 0 else 'ROOT'}{space}{name}{end}{{{end}OFFSET{space}")
        parts.append(f"{offset[0]} {offset[1]} {offset[2]}{end}CHANNELS {len(channels)} {space.join(channels)}")
        below = [k for k, p in enumerate(parents) if p == i]
        for k in below:
            write(k)
        if not below:
            parts.append(f"End Site {{ OFFSET{space}0 1 0 }}")
        parts.append("}")

    write(0)
    joints = [(joints[i][0], order.index(joints[i][1]) if i else -1, *joints[i][2:]) for i in order]
    values = rng.uniform(-200, 200, (frames, sum(len(channels) for *_, channels in joints))).round(4)
    parts.append(f"MOTION{end}Frames: {frames}{end}Frame Time: 0.02")
    numbers = space.join(map(str, values.ravel())) if draw(st.booleans()) else end.join(map(str, values.ravel()))
    return end.join(parts) + end + numbers + draw(st.sampled_from(["", "\n", " \r\n"])), joints, values


@settings(max_examples=60)
@given(bvh_files())
def test_any_tree_and_channels(tmp_path_factory, case):
    text, joints, values = case
    path = tmp_path_factory.mktemp("bvh") / "any.bvh"
    path.write_bytes(text.encode())
    motion = parse_bvh(path)
    got = motion.positions()
    assert motion.fps == 50 and got.shape[0] == len(values)
    for t, row in enumerate(values):
        row, turns, places = list(row), [], []
        for name, parent, offset, channels in joints:
            local, turn = offset.copy(), Rotation.identity()
            for channel in channels:
                value = row.pop(0)
                if channel.endswith("position"):
                    local["XYZ".index(channel[0])] = value
                else:
                    turn = turn * Rotation.from_euler(channel[0], value, degrees=True)
            places.append(local if parent < 0 else places[parent] + turns[parent].apply(local))
            turns.append(turn if parent < 0 else turns[parent] * turn)
            np.testing.assert_allclose(got[t, motion.names.index(name)], places[-1], atol=1e-8)


TINY = """HIERARCHY
ROOT A
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT B b
  {
    OFFSET 1 0 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    End Site
    {
      OFFSET 0 1 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.01
0 0 0 0 0 0 0 0 0
0 0 0 90 0 0 0 0 0
"""


def test_names_with_spaces_and_end_sites(tmp_path):
    path = tmp_path / "tiny.bvh"
    path.write_text(TINY)
    motion = parse_bvh(path)
    assert motion.names == ("A", "B b", "B b.end") and motion.parents == (-1, 0, 1) and motion.fps == 100
    np.testing.assert_allclose(motion.positions()[1], [[0, 0, 0], [0, 1, 0], [-1, 1, 0]], atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("HIERARCHY", "BVH", "starts with 'BVH', expected HIERARCHY"),
        ("MOTION", "", "has no MOTION"),
        ("Frames: 2", "Frames: two", "'two' as its number of frames"),
        ("Frames: 2", "Frames: 0", "'0' as its number of frames"),
        ("Frames: 2", "Frames: 4", "has 18 values, expected 36: 4 frames of 9 channels; is it truncated"),
        ("0 0 0 0\n", "", "has 14 values, expected 18: 2 frames of 9 channels; is it truncated"),
        (
            "0 0 0 0\n",
            "0 0 0 0 0\n",
            "has 19 values, expected 18: 2 frames of 9 channels; it has more frames or channels",
        ),
        ("Frames: 2", "Frames: 9" + 5000 * "9", "as its number of frames, expected a positive integer"),
        ("0.01", "1e-320", "frame time '1e-320', expected 1e-05 to 10000 seconds"),
        ("0.01", "0", "frame time '0'"),
        ("0.01", "nan", "frame time 'nan'"),
        ("0 0 0 90", "0 0 0 9O", "has '9O' in frame 1, value 3"),
        ("0 0 0 90", "0 0 0 nan", "infinite value in frame 1, Zrotation of 'A'"),
        ("OFFSET 1 0 0", "OFFSET 1 0", "OFFSET of 'B b'"),
        ("OFFSET 1 0 0", "OFFSET 1 x 0", "OFFSET of 'B b' in"),
        ("CHANNELS 3", "CHANNELS 4", "CHANNELS of 'B b'"),
        ("CHANNELS 3", "CHANNELS 2", "unexpected 'Xrotation' in 'B b'"),
        ("CHANNELS 3 Zrotation", "CHANNELS 3 Xrotation", "different of Xposition"),
        ("CHANNELS 3", "CHANNELS three", "CHANNELS of 'B b'"),
        ("}\nMOTION", "MOTION", "lacks a '}' for 'A'"),
        ("ROOT A", "JOINT A", "JOINT A in the wrong place"),
        ("JOINT B b\n  {", "JOINT B b\n", "CHANNELS"),
    ],
)
def test_malformed_bvh(tmp_path, old, new, expected):
    path = tmp_path / "bad.bvh"
    assert old in TINY
    path.write_text(TINY.replace(old, new, 1))
    text = complains(DataError, parse_bvh, path)
    assert (expected in text or old == "JOINT B b\n  {") and str(path) in text


@pytest.mark.parametrize("length", [0, 5, 60, 150, 230, 260, 290])
def test_truncated_bvh(tmp_path, length):
    path = tmp_path / "cut.bvh"
    path.write_text(TINY[:length])
    complains(DataError, parse_bvh, path)
    assert "does not exist" in complains(MissingFileError, parse_bvh, tmp_path / "none.bvh")
    assert "is a directory" in complains(MissingFileError, parse_bvh, tmp_path)


# -------------------------------------------------------------------------------------------------- writing BVH


def person(rng, frames):
    """A pose of random directions, moved and turned rigidly: constant bones."""
    pose = np.zeros((17, 3))
    for child, parent in enumerate(H36M.parents):
        if parent >= 0:
            step = rng.normal(size=3)
            pose[child] = pose[parent] + step / np.linalg.norm(step) * rng.uniform(0.1, 0.5)
    turns = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.3, (frames, 3)), axis=0))
    return np.stack([turn.apply(pose) for turn in turns]) + rng.normal(0, 2, (frames, 1, 3))


def read_back(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random people are of any height
        return read_bvh(path, scale=0.01, **options).positions


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from(["z", "-y", "y"]))
def test_rigid_motion_is_written_exactly(tmp_path_factory, seed, frames, up):
    path = tmp_path_factory.mktemp("rigid") / "rigid.bvh"
    p = person(np.random.default_rng(seed), frames)
    write_bvh(path, p, 30, up=up)
    to_z = {"z": p, "-y": p[..., [0, 2, 1]] * (1, 1, -1), "y": p[..., [0, 2, 1]] * (1, -1, 1)}[up]
    np.testing.assert_allclose(read_back(path), to_z, atol=2e-6)


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_moving_limbs_of_constant_length_are_written_exactly(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("limbs") / "limbs.bvh"
    rng = np.random.default_rng(seed)
    p = np.stack([person(np.random.default_rng(seed), 1)[0], *(np.zeros((17, 3)) for _ in range(4))])
    lengths = {child: np.linalg.norm(p[0, child] - p[0, parent]) for child, parent in H36M.bones}
    for t in range(1, 5):
        for child, parent in H36M.bones:
            step = rng.normal(size=3)
            p[t, child] = p[t, parent] + step / np.linalg.norm(step) * lengths[child]
    write_bvh(path, p, 30)
    np.testing.assert_allclose(read_back(path), p, atol=2e-6)


def test_straight_poses_have_no_undefined_turns(tmp_path):
    """Every bone along one axis, against its rest direction, or of no length at all."""
    path = tmp_path / "straight.bvh"
    for axis in (*np.eye(3), *-np.eye(3)):
        p = np.zeros((3, 17, 3))
        for child, parent in H36M.bones:
            p[:2, child] = p[:2, parent] + axis * 0.3
        p[2] = p[1]
        write_bvh(path, p, 30)
        np.testing.assert_allclose(read_back(path), p, atol=2e-6)
    write_bvh(path, np.zeros((2, 17, 3)), 30)
    np.testing.assert_allclose(parse_bvh(path).positions(), 0, atol=1e-9)


@needs_raw
def test_a_written_trial_differs_by_its_bones_variation_only(tmp_path):
    p = read_amc(RAW / "16_16.amc").positions.astype(np.float64)
    write_bvh(tmp_path / "walk.bvh", p, 120)
    clip = read_bvh(tmp_path / "walk.bvh")  # knows its own names and units
    assert clip.fps == 120
    lengths = np.stack([np.linalg.norm(p[:, c] - p[:, q], axis=-1) for c, q in H36M.bones], axis=1)
    variation = np.abs(lengths - lengths.mean(axis=0))
    allowed = np.zeros(p.shape[:2])
    for (child, parent), one in zip(H36M.bones, variation.T, strict=True):
        allowed[:, child] = allowed[:, parent] + one
    assert (np.linalg.norm(clip.positions - p, axis=-1) <= allowed + 2e-6).all()
    assert variation.max() > 1e-3  # the spine of the source does change its length


@needs_raw
def test_another_reader_agrees_with_what_we_write(tmp_path):
    pybvh = pytest.importorskip("pybvh")
    write_bvh(tmp_path / "jump.bvh", read_amc(RAW / "16_02.amc").positions, 120)
    theirs = pybvh.read_bvh_file(str(tmp_path / "jump.bvh"))
    ours = parse_bvh(tmp_path / "jump.bvh")
    assert abs(theirs.frame_time - 1 / 120) < 1e-9 and theirs.frame_count == 466
    np.testing.assert_allclose(theirs.node_positions(), ours.positions(), atol=1e-9)
    values = parse_bvh(tmp_path / "jump.bvh").values[:, 3:]
    assert np.abs(np.diff(values, axis=0)).max() < 180  # no jumps of a whole turn


def test_write_errors_and_atomicity(tmp_path, monkeypatch):
    path = tmp_path / "out.bvh"
    good = person(np.random.default_rng(0), 2)
    nan = good.copy()
    nan[1, 2, 0] = np.nan
    for bad, options, expected in (
        (good[:, :16], {}, "positions has shape [2, 16, 3]"),
        (good[:0], {}, "positions has shape [0, 17, 3]"),
        (nan, {}, "NaN or infinite"),
        (good, {"fps": 0}, "fps is 0"),
        (good, {"units_per_metre": -1}, "units_per_metre is -1"),
        (good, {"skeleton": "coco"}, "skeleton is 'coco'"),
        (good, {"up": "q"}, "up is 'q'"),
    ):
        assert expected in complains(ArgumentError, write_bvh, path, bad, **{"fps": 30, **options})
    assert "folder" in complains(MissingFileError, write_bvh, tmp_path / "no" / "out.bvh", good, 30)
    assert list(tmp_path.iterdir()) == []
    write_bvh(path, good, 30)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_bvh(path, good[:1], 30)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["out.bvh"]


def test_another_skeleton_is_converted(tmp_path):
    from structloss.skeletons import convert

    p = person(np.random.default_rng(3), 3)
    write_bvh(tmp_path / "a.bvh", convert(p, "h36m", "mpi_inf_3dhp"), 30, skeleton="mpi_inf_3dhp")
    np.testing.assert_allclose(read_back(tmp_path / "a.bvh"), p, atol=2e-6)


# ------------------------------------------------------------------------------------------------------ joint maps


def table(**changes):
    joints = {name: (list(rows) if len(rows) > 1 else rows[0]) for name, rows in JOINT_MAPS["h36m"].joints.items()}
    return {name: rows for name, rows in {**joints, **changes}.items() if rows is not None}


@pytest.fixture
def written(tmp_path):
    rng = np.random.default_rng(5)
    p = person(rng, 4)
    write_bvh(tmp_path / "p.bvh", p, 25)
    return tmp_path / "p.bvh", p


def test_own_joint_maps(written, tmp_path):
    path, p = written
    own = {**table(), "Hip": ["LHip", "RHip"], "Head": "none|Head"}
    (tmp_path / "map.json").write_text(json.dumps(own))
    (tmp_path / "map.yaml").write_text("\n".join(f"{joint}: {json.dumps(rows)}" for joint, rows in own.items()))
    for joints in (own, tmp_path / "map.json", str(tmp_path / "map.yaml")):
        got = read_back(path, joints=joints)
        np.testing.assert_allclose(got[:, 0], (p[:, 1] + p[:, 4]) / 2, atol=2e-6)
        np.testing.assert_allclose(got[:, 1:], p[:, 1:], atol=2e-6)


def test_mixamo_names_with_a_prefix(written, tmp_path):
    path, p = written
    text = path.read_text()
    for side, letter in (("Left", "L"), ("Right", "R")):
        for ours, theirs in (("Hip", "UpLeg"), ("Knee", "Leg"), ("Foot", "Foot"), ("Shoulder", "Arm"),
                             ("Elbow", "ForeArm"), ("Wrist", "Hand")):  # fmt: skip
            text = text.replace(f"JOINT {letter}{ours}\n", f"JOINT mixamorig:{side}{theirs}\n")
    for ours, theirs in (("Head", "HeadTop_End"), ("Neck", "Head"), ("Thorax", "Neck"), ("Spine", "Spine1")):
        text = text.replace(f"JOINT {ours}\n", f"JOINT mixamorig:{theirs}\n")
    (tmp_path / "mixamo.bvh").write_text(text)
    got = read_back(tmp_path / "mixamo.bvh")
    np.testing.assert_allclose(got[:, 0], (p[:, 1] + p[:, 4]) / 2, atol=2e-6)  # midpoint of the hips
    np.testing.assert_allclose(got[:, 1:], p[:, 1:], atol=2e-6)


@pytest.mark.parametrize(
    ("joints", "expected"),
    [
        (table(Head="Crown"), "no joint for Head (Crown) of the joint map 'joints'"),
        (table(Head=None), "joints lacks Head"),
        ({**table(), "Tail": "Hip"}, "joints has unknown Tail"),
        (table(Head=[]), "Head in joints is []"),
        (table(Head=3), "Head in joints is 3"),
        (table(Head=["Neck", 3]), "Head in joints is ['Neck', 3]"),
        ("cmu", "joints is 'cmu', expected 'auto', 'cmu-bvh', 'h36m', 'mixamo'"),
        (7, "joints is 7"),
        ("mixamo", "no joint for Hip (LeftUpLeg)"),
    ],
)
def test_wrong_joint_maps(written, joints, expected):
    error = ArgumentError if joints in ("cmu", 7) else DataError
    assert expected in complains(error, read_bvh, written[0], joints=joints)


def test_unreadable_joint_maps(written, tmp_path):
    path, _ = written
    assert "does not exist" in complains(MissingFileError, read_bvh, path, joints=tmp_path / "no.json")
    for name, content, expected in (("a.json", "{", "not valid JSON"), ("b.yaml", "a: [", "not valid YAML"),
                                    ("c.yml", "- a", "holds a list")):  # fmt: skip
        (tmp_path / name).write_text(content)
        assert expected in complains(DataError, read_bvh, path, joints=tmp_path / name)
    text = complains(DataError, read_bvh, _tiny(tmp_path))
    assert "pass joints, a map of joint names" in text and "it has A, B b" in text


def _tiny(folder):
    path = folder / "tiny.bvh"
    path.write_text(TINY)
    return path


# --------------------------------------------------------------------------------------------------------- ASF/AMC

ASF = """# made up
:version 1.10
:units
  mass 1.0
  length 0.45
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 1 2 3
   orientation 0 0 0
:bonedata
  begin
    id 1
    name thigh
    direction 0 -1 0
    length 2
    axis 10 20 30 XYZ
    dof rx ry rz
    limits (-1 1)
      (-1 1)
  end
  begin
    id 2
    name shin
    direction 0 0 1
    length 3
    axis 0 0 -40 XYZ
    dof rx rz
  end
  begin
    id 3
    name toe
    direction 1 0 0
    length 1
    axis 0 0 0 XYZ
  end
:hierarchy
  begin
    root thigh
    thigh shin
    shin toe
  end
"""
AMC = """#!OML:ASF x.ASF
:FULLY-SPECIFIED
:DEGREES
1
root 1 0 0 10 20 30
shin 15 -25
thigh 1 2 3
2
root 0 1 0 0 0 0
shin 90 0
thigh 0 0 0
"""


def _acclaim(folder, asf=ASF, amc=AMC):
    (folder / "p.asf").write_text(asf)
    (folder / "p_1.amc").write_text(amc)
    return folder / "p_1.amc"


def test_acclaim_against_rotations_by_hand(tmp_path):
    from structloss.data.formats.asf_amc import _forward_kinematics, _read_motion

    path = _acclaim(tmp_path)
    skeleton = read_asf(tmp_path / "p.asf")
    assert list(skeleton.bones) == ["thigh", "shin", "toe"]
    np.testing.assert_array_equal(skeleton.vector("shin"), [0, 0, 3])
    assert "no bone 'tail'" in complains(DataError, skeleton.vector, "tail")
    points = _forward_kinematics(skeleton, _read_motion(path, path.read_text(), skeleton))

    def turn(x, y, z):  # extrinsic xyz: x first, R = Rz Ry Rx
        return Rotation.from_euler("xyz", [x, y, z], degrees=True)

    for t, (root, thigh, shin, place) in enumerate(
        [((10, 20, 30), (1, 2, 3), (15, 0, -25), (2, 2, 3)), ((0, 0, 0), (0, 0, 0), (90, 0, 0), (1, 3, 3))]
    ):
        c = turn(10, 20, 30)
        first = turn(*root) * c * turn(*thigh) * c.inv()
        c = turn(0, 0, -40)
        second = first * c * turn(*shin) * c.inv()
        knee = place + first.apply([0, -2, 0])
        ankle = knee + second.apply([0, 0, 3])
        np.testing.assert_allclose(points[t], [place, knee, ankle, ankle + second.apply([1, 0, 0])], atol=1e-12)

    radians = AMC.replace(":DEGREES", ":RADIANS").replace("90 0", f"{np.pi / 2} 0").splitlines()
    path = _acclaim(tmp_path, amc="\r\n".join(radians))
    again = _forward_kinematics(skeleton, _read_motion(path, path.read_text(), skeleton))
    np.testing.assert_allclose(again[1], points[1], atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (":root", ":rood", "has no :root"),
        (":bonedata", ":bones", "has no :bonedata"),
        ("length 0.45", "length 0", "length of :units"),
        ("length 0.45", "length x", "length of :units"),
        ("order TX TY TZ RX RY RZ", "order TX TY TZ", "order of :root"),
        ("orientation 0 0 0", "orientation 0 9 0", "orientation of :root"),
        ("dof rx rz", "dof rx l", "degree of freedom 'l'"),
        ("direction 0 0 1", "direction 0 0", "direction of bone 'shin'"),
        ("direction 0 0 1", "direction 0 x 1", "direction of bone 'shin'"),
        ("    axis 0 0 -40 XYZ\n", "", "bone 'shin' of"),
        ("-40 XYZ", "-40 XXZ", "has the order 'XXZ'"),
        ("    shin toe\n", "    shin tow\n", "the bone 'tow' without bone data"),
        ("    shin toe\n", "    shin thigh\n", "the bone 'thigh' twice"),
        ("    root thigh\n", "", "has no bones under 'root'"),
        ("    dof rx rz\n  end\n", "    dof rx rz\n", "unexpected 'begin' after 2 bones"),
    ],
)
def test_malformed_asf(tmp_path, old, new, expected):
    assert old in ASF
    _acclaim(tmp_path, asf=ASF.replace(old, new, 1))
    text = complains(DataError, read_asf, tmp_path / "p.asf")
    assert expected in text and "p.asf" in text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("2\nroot 0", "3\nroot 0", "frame 2 of"),
        ("thigh 0 0 0\n", "thigh 0 0\n", "frame 2 of"),
        ("thigh 0 0 0\n", "", "frame 2 of"),
        ("shin 90 0\nthigh 0 0 0\n", "thigh 0 0 0\nshin 90 0\n", "frame 2 of"),
        ("shin 90 0", "shin 9O 0", "a value of 'shin'"),
        ("shin 90 0", "shin nan 0", "frame 2 of"),
        ("shin 15 -25\n", "", "the first frame of"),
        ("shin 15 -25\n", "tail 15 -25\n", "no 'thigh', but 'tail'"),
    ],
)
def test_malformed_amc(tmp_path, old, new, expected):
    from structloss.data.formats.asf_amc import _read_motion

    path = _acclaim(tmp_path, amc=AMC.replace(old, new, 1))
    assert old in AMC
    text = complains(DataError, _read_motion, path, path.read_text(), read_asf(tmp_path / "p.asf"))
    assert expected in text and "p_1.amc" in text
    assert "no bone for Hip (lhipjoint)" in complains(DataError, read_amc, _acclaim(tmp_path))


def test_garbled_text_is_read_or_refused(tmp_path):
    """Words lost, exchanged, cut or replaced: nothing but our own one-line errors."""
    from structloss.data.formats.asf_amc import _read_motion

    rng = np.random.default_rng(0)
    _acclaim(tmp_path)
    skeleton, target = read_asf(tmp_path / "p.asf"), tmp_path / "garbled"

    def read_motion(path):
        return _read_motion(path, path.read_text(), skeleton)

    for text, read in ((TINY, parse_bvh), (ASF, read_asf), (AMC, read_motion)):
        refused = 0
        for _ in range(300):
            words = re.split(r"(\s+)", text)
            at = rng.integers(len(words))
            other = rng.choice(
                ["", "-1", "1e400", "²", "nan", "{", "}", "x", "#", "\0", words[rng.integers(len(words))]]
            )
            words[at] = str(other)
            target.write_text("".join(words))
            try:
                read(target)
            except StructlossError as error:
                refused += 1
                assert "\n" not in str(error)
        assert 50 < refused < 300


def test_missing_skeleton(tmp_path):
    path = _acclaim(tmp_path)
    (tmp_path / "p.asf").unlink()
    assert "no skeleton p.asf beside it; pass asf" in complains(MissingFileError, read_amc, path)
    assert "does not exist" in complains(MissingFileError, read_amc, tmp_path / "q_1.amc")


# ------------------------------------------------------------------------------------------------------------- C3D

LABELS = [f"{s}{m}" for s in "LR" for m in ("FWT", "BWT", "KNE", "ANK", "SHO", "ELB", "WRA", "WRB", "FHD", "BHD")]
LABELS += ["T10", "STRN", "C7", "CLAV"]


def marker_points(frames=30):
    """A standing person's markers, swaying, `[T, M, 3]` in metres, z up."""
    heights = {"FWT": 1.0, "BWT": 1.0, "KNE": 0.5, "ANK": 0.1, "SHO": 1.45, "ELB": 1.15, "WRA": 0.9, "WRB": 0.9,
               "FHD": 1.65, "BHD": 1.68, "T10": 1.2, "STRN": 1.22, "C7": 1.48, "CLAV": 1.42}  # fmt: skip
    rng = np.random.default_rng(1)
    points = np.zeros((frames, len(LABELS), 3))
    for m, label in enumerate(LABELS):
        side = {"L": 0.2, "R": -0.2}[label[0]] if label[1:] in heights else 0.0
        points[:, m] = (side, rng.normal(0, 0.1), heights.get(label[1:], heights.get(label)))
    return points + np.cumsum(rng.normal(0, 0.01, (frames, 1, 3)), axis=0)


def write_c3d(path, points, units="mm", rate=100.0, labels=LABELS):
    ezc3d = pytest.importorskip("ezc3d")
    file = ezc3d.c3d()
    parameters = file["parameters"]["POINT"]
    parameters["RATE"]["value"], parameters["LABELS"]["value"], parameters["UNITS"]["value"] = [rate], labels, [units]
    file["data"]["points"] = np.concatenate([points, np.ones((*points.shape[:2], 1))], -1).transpose(2, 1, 0)
    file.write(str(path))
    return path


def test_c3d_written_by_a_library(tmp_path):
    points = marker_points()
    path = write_c3d(tmp_path / "5_7.c3d", points * 1000)
    recorded = parse_c3d(path)
    assert recorded.labels == tuple(LABELS) and recorded.fps == 100 and recorded.units == "mm"
    np.testing.assert_allclose(recorded.points, points * 1000, rtol=1e-6)
    with pytest.warns(UserWarning, match="markers on the skin"):
        clip = read_c3d(path)
    assert (clip.subject, clip.name, clip.fps, len(clip)) == ("5", "5_7", 100.0, 30)
    at = {label: points[:, m] for m, label in enumerate(LABELS)}
    np.testing.assert_allclose(clip.positions[:, J["RKnee"]], at["RKNE"], atol=1e-6)
    np.testing.assert_allclose(clip.positions[:, J["LWrist"]], (at["LWRA"] + at["LWRB"]) / 2, atol=1e-6)
    hip = (at["LFWT"] + at["LBWT"] + at["RFWT"] + at["RBWT"]) / 4
    np.testing.assert_allclose(clip.positions[:, J["Hip"]], hip, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*markers on the skin.*")
def test_c3d_units_axes_and_prefixes(tmp_path):
    points = marker_points()
    want = read_c3d(write_c3d(tmp_path / "a.c3d", points * 1000)).positions
    turned = np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)  # y up
    path = write_c3d(tmp_path / "b.c3d", turned * 100, "cm", labels=[f"Anna:{label}" for label in LABELS])
    np.testing.assert_allclose(read_c3d(path, up="y").positions, want, atol=1e-6)
    path = write_c3d(tmp_path / "c.c3d", points / 0.3, "rod")
    assert "units 'rod'" in complains(DataError, read_c3d, path)
    np.testing.assert_allclose(read_c3d(path, scale=0.3, fps=60).positions, want, atol=1e-5)
    path = write_c3d(tmp_path / "d.c3d", points, "mm")
    assert "the person of" in complains(DataError, read_c3d, path)
    path = write_c3d(tmp_path / "e.c3d", points * 1000, labels=["x", *LABELS[1:]])
    assert "no marker for Hip (LFWT)" in complains(DataError, read_c3d, path, markers="cmu-markers")
    assert "pass markers" in complains(DataError, read_c3d, path)


@pytest.mark.filterwarnings("ignore:.*markers on the skin.*")
def test_c3d_gaps(tmp_path):
    points = marker_points(60) * 1000
    knee, toe = LABELS.index("RKNE"), LABELS.index("LBHD")
    whole = read_c3d(write_c3d(tmp_path / "whole.c3d", points))
    holes = points.copy()
    holes[10:20, knee] = np.nan  # 0.1 s
    holes[30:33, knee] = np.nan
    path = write_c3d(tmp_path / "gap.c3d", holes)
    assert np.isnan(parse_c3d(path).points[[10, 19, 30], knee]).all()
    got = read_c3d(path)
    track = points[:, knee] / 1000
    step = (track[20] - track[9]) / 11
    np.testing.assert_allclose(got.positions[10:20, J["RKnee"]], track[9] + step * np.arange(1, 11)[:, None], atol=1e-6)
    others = [j for j in range(17) if j != J["RKnee"]]
    np.testing.assert_allclose(got.positions[:, others], whole.positions[:, others], atol=1e-6)
    text = complains(DataError, read_c3d, path, max_gap=0.09)
    assert "marker 'RKNE' of" in text and "missing in frames 10 to 19" in text and "longer than max_gap" in text
    holes[:3, toe] = np.nan
    path = write_c3d(tmp_path / "start.c3d", holes)
    assert "marker 'LBHD'" in complains(DataError, read_c3d, path)
    assert "frames 0 to 2" in complains(DataError, read_c3d, path)
    clip = read_c3d(path, frames=(3, 60))
    np.testing.assert_allclose(clip.positions, got.positions[3:], atol=1e-6)
    assert "frames is (3, 61)" in complains(ArgumentError, read_c3d, path, frames=(3, 61))


def encode(points, processor, *, integers, labels=("A", "B"), frames=None, long=None, analogue=0):
    """A C3D file by hand, points `[T, 2, 4]`: x, y, z, status; each processor's way of storing numbers."""
    order = ">" if processor == 86 else "<"

    def short(*values):
        return struct.pack(f"{order}{len(values)}H", *(v & 0xFFFF for v in values))

    def single(*values):
        if processor != 85:
            return struct.pack(f"{order}{len(values)}f", *values)
        out = b""
        for value in values:
            word = struct.unpack("<I", struct.pack("<f", value * 4))[0] if value else 0
            out += struct.pack("<HH", word >> 16, word & 0xFFFF)
        return out

    def record(name, group, content, kind=None, shape=()):
        body = bytes([0]) if kind is None else struct.pack("bB", kind, len(shape)) + bytes(shape) + content + b"\0"
        return struct.pack("bb", len(name), group) + name.encode() + short(len(body) + 2) + body

    scale = 0.5 if integers else -1.0
    parameters = record("POINT", -1, b"")
    parameters += record("SCALE", 1, single(scale), 4) + record("RATE", 1, single(60.0), 4)
    parameters += record("UNITS", 1, b"mm  ", -1, (4,))
    parameters += record("LABELS", 1, b"".join(label.ljust(4).encode() for label in labels), -1, (4, len(labels)))
    parameters += record("DATA_START", 1, short(3), 2)
    if long:
        parameters += record("TRIAL", -2, b"") + record("ACTUAL_START_FIELD", 2, short(1, 0), 2, (2,))
        parameters += record("ACTUAL_END_FIELD", 2, short(long & 0xFFFF, long >> 16), 2, (2,))
    parameters = bytes([1, 0x50, 1, processor]) + parameters + b"\0\0"
    last = min(frames or len(points), 65535)
    header = bytes([2, 0x50]) + short(2, analogue, 1, last, 10) + single(scale) + short(3, 1) + single(60.0)
    rows = np.concatenate([points.reshape(len(points), -1), np.full((len(points), analogue), 7.0)], 1).ravel()
    if integers:
        rows = short(*(round(v / scale) if i % (8 + analogue) % 4 != 3 and i % (8 + analogue) < 8 else int(v)
                       for i, v in enumerate(rows)))  # fmt: skip
    else:
        rows = single(*rows)
    return header.ljust(512, b"\0") + parameters.ljust(512, b"\0") + rows


@pytest.mark.parametrize("processor", [84, 85, 86])
@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("analogue", [0, 3])
def test_c3d_of_every_processor(tmp_path, processor, integers, analogue):
    rng = np.random.default_rng(2)
    points = np.zeros((7, 2, 4))
    points[..., :3] = rng.integers(-3000, 3000, (7, 2, 3)) / 2
    points[2, 1, 3] = points[4, 0, 3] = -1
    path = tmp_path / "p.c3d"
    path.write_bytes(encode(points, processor, integers=integers, analogue=analogue))
    recorded = parse_c3d(path)
    assert recorded.labels == ("A", "B") and recorded.fps == 60 and recorded.units == "mm"
    want = np.where(points[..., 3:] < 0, np.nan, points[..., :3])
    np.testing.assert_array_equal(recorded.points, want)


def test_c3d_of_more_frames_than_its_header_counts(tmp_path):
    points = np.zeros((70000, 2, 4))
    points[:, 0, 0] = np.arange(70000)
    path = tmp_path / "long.c3d"
    path.write_bytes(encode(points, 84, integers=False, long=70000))
    assert parse_c3d(path).points.shape == (70000, 2, 3) and parse_c3d(path).points[-1, 0, 0] == 69999


def test_damaged_c3d(tmp_path):
    path = tmp_path / "p.c3d"
    data = encode(np.zeros((7, 2, 4)), 84, integers=False)
    for cut in [0, 1, 511, 513, 515, 530, 600, len(data) - 1]:
        path.write_bytes(data[:cut])
        assert str(path) in complains(DataError, parse_c3d, path)
    assert "expected 1248 for 7 frames of 2 markers; is it truncated" in complains(DataError, parse_c3d, path)
    for at, value, expected in ((1, 0x51, "no C3D file"), (515, 83, "no C3D parameters"), (2, 0, "0 markers")):
        path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
        assert expected in complains(DataError, parse_c3d, path)
    rng = np.random.default_rng(0)
    for at in rng.integers(0, 720, 300):  # whatever byte is wrong, it is read or refused, and always ends
        path.write_bytes(data[:at] + bytes([rng.integers(256)]) + data[at + 1 :])
        try:
            assert parse_c3d(path).points.shape[2] == 3
        except StructlossError as error:
            assert "\n" not in str(error)
    assert "does not exist" in complains(MissingFileError, parse_c3d, tmp_path / "none.c3d")
