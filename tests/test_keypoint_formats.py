"""2D keypoints: every file form, conversion to Human3.6M against the definitions, tracks, and what was not seen."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structloss.data.formats import Keypoints, read_keypoints
from structloss.data.formats.keypoint_maps import LAYOUTS, keypoints_to_h36m, layout_of_size
from structloss.errors import ArgumentError, DataError, MissingFileError, StructlossError, UnknownNameError
from structloss.skeletons import get

LEFT_H36M, RIGHT_H36M = [4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]
COCO = {name: j for j, name in enumerate(get("coco").joint_names)}
# The public list of OpenPose's BODY_25.
BODY25 = [
    "Nose",
    "Neck",
    "RShoulder",
    "RElbow",
    "RWrist",
    "LShoulder",
    "LElbow",
    "LWrist",
    "MidHip",
    "RHip",
    "RKnee",
    "RAnkle",
    "LHip",
    "LKnee",
    "LAnkle",
]
BODY25 += ["REye", "LEye", "REar", "LEar", "LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"]


def points(frames=5, joints=17, seed=0):
    """Pixels and confidences `[T, J, 3]`."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(50, 450, (frames, joints, 2)), rng.uniform(0.2, 1, (frames, joints, 1))], -1)


def complains(error, function, *arguments, **keywords):
    with pytest.raises(error) as caught:
        function(*arguments, **keywords)
    text = str(caught.value)
    assert "\n" not in text and text[-1] in ".?"
    return text


# ------------------------------------------------------------------------------------------------------ conversion


def limbs(x):
    """What every variant copies, of a layout with COCO's points in front."""
    names = ["right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"]
    names += [f"{side}_{part}" for side in ("left", "right") for part in ("shoulder", "elbow", "wrist")]
    return dict(zip([1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16], (x[:, COCO[n]] for n in names), strict=True))


def demo(x):
    """The table's column for the MHFormer and MotionAGFormer demos, x and y of 17 COCO points."""
    nose, eyes, shoulders, hips = x[:, 0], x[:, 1:3], x[:, 5:7], x[:, 11:13]
    hip, neck = hips.mean(1), shoulders.mean(1)
    thorax = neck + (nose - neck) / 3
    spine = np.concatenate([shoulders, hips], 1).mean(1)
    spine[:, 0] += 0.3 * (spine[:, 0] - (hip[:, 0] + thorax[:, 0]) / 2)
    thorax[:, 1] -= (eyes[:, :, 1].mean(1) - nose[:, 1]) * 2 / 3
    head = np.stack([x[:, 1:5, 0].mean(1), eyes[:, 0, 1] + eyes[:, 1, 1] - nose[:, 1]], 1)
    return {0: hip, 7: spine, 8: thorax, 9: nose - (nose - neck) / 4, 10: head, **limbs(x)}


def motionbert(x):
    hip, thorax = (x[:, 11] + x[:, 12]) / 2, (x[:, 5] + x[:, 6]) / 2
    return {0: hip, 7: (hip + thorax) / 2, 8: thorax, 9: x[:, 0], 10: (x[:, 1] + x[:, 2]) / 2, **limbs(x)}


def halpe(x):
    return {0: x[:, 19], 7: (x[:, 18] + x[:, 19]) / 2, 8: x[:, 18], 9: x[:, 0], 10: x[:, 17], **limbs(x)}


def posetrack(x):
    hip = (x[:, 11] + x[:, 12]) / 2
    return {0: hip, 7: (hip + x[:, 1]) / 2, 8: x[:, 1], 9: x[:, 0], 10: x[:, 2], **limbs(x)}


def mpii(x):
    rows = dict(zip([3, 2, 1, 4, 5, 6, 0, 8, 9, 10, 16, 15, 14, 11, 12, 13], (x[:, j] for j in range(16)), strict=True))
    return {**rows, 7: x[:, [2, 3, 12, 13]].mean(1)}


def from_body25(way):
    def made(x):
        coco = np.zeros((len(x), 17, 2))
        for name, j in COCO.items():
            side, _, part = name.rpartition("_")
            coco[:, j] = x[:, BODY25.index(side[:1].upper() + part.capitalize())]
        return way(coco)

    return made


@pytest.mark.parametrize(
    ("layout", "variant", "definition"),
    [
        ("coco", None, motionbert),
        ("coco", "motionbert", motionbert),
        ("coco", "demo", demo),
        ("h3wb", "demo", demo),
        ("halpe26", None, halpe),
        ("halpe26", "demo", demo),
        ("posetrack", None, posetrack),
        ("posetrack", "demo", posetrack),  # there is only one way
        ("mpii", "motionbert", mpii),
        ("body25", None, from_body25(motionbert)),
        ("body25", "demo", from_body25(demo)),
        ("h36m", "demo", lambda x: {j: x[:, j] for j in range(17)}),
    ],
)
def test_conversions_are_the_definitions(layout, variant, definition):
    x = points(joints=LAYOUTS[layout].size)
    got = keypoints_to_h36m(x, layout, variant)
    want = definition(x[..., :2])
    assert sorted(want) == list(range(17)) and got.shape == (5, 17, 3) and got.dtype == x.dtype
    for joint, place in want.items():
        np.testing.assert_allclose(got[:, joint, :2], place, rtol=1e-6, err_msg=str(joint))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_confidence_is_the_least_of_the_parents(layout):
    """Found by moving every keypoint and looking which joints move; a joint's confidence is the least of those."""
    size = LAYOUTS[layout].size
    x = points(1, size)
    for variant in LAYOUTS[layout].variants:
        got = keypoints_to_h36m(x, layout, variant)
        parents = [[] for _ in range(17)]
        for j in range(min(size, 30)):
            moved = x.copy()
            moved[0, j, :2] += (7, 11)
            for joint in np.flatnonzero(
                np.abs(keypoints_to_h36m(moved, layout, variant) - got)[0, :, :2].max(-1) > 1e-6
            ):
                parents[joint].append(j)
        assert all(parents)
        want = np.array([x[0, js, 2].min() for js in parents])
        want[list(LAYOUTS[layout].left_out)] = 0  # placed, not seen
        np.testing.assert_array_equal(got[0, :, 2], want)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mirrored_keypoints_make_the_mirrored_pose(layout):
    entry = LAYOUTS[layout]
    x = points(2, entry.size)
    mirrored = x[:, list(entry.mirror)] * (-1, 1, 1)
    assert [entry.mirror[j] for j in entry.mirror] == list(range(entry.size))
    for variant in entry.variants:
        want = keypoints_to_h36m(x, layout, variant)[:, list(get("h36m").mirror)] * (-1, 1, 1)
        np.testing.assert_allclose(keypoints_to_h36m(mirrored, layout, variant), want, rtol=1e-9)


def test_conversion_errors():
    assert "[5, 16, 3]" in complains(ArgumentError, keypoints_to_h36m, points(joints=16), "coco")
    assert "variant is 'x'" in complains(ArgumentError, keypoints_to_h36m, points(), "coco", "x")
    assert "unknown layout 'cocoa'" in complains(UnknownNameError, keypoints_to_h36m, points(), "cocoa")
    assert [layout_of_size(n) for n in (16, 17, 25, 26, 133, 4)] == ["mpii", None, "body25", "halpe26", "h3wb", None]


# ------------------------------------------------------------------------------------------------- VideoPose3D npz


def videopose3d(path, positions, **metadata):
    np.savez_compressed(path, positions_2d=np.array(positions, dtype=object), metadata=np.array(metadata, dtype=object))
    return path


def test_videopose3d_of_human36m(tmp_path):
    arrays = [points(6 + i % 2, 17, i)[..., :2].astype(np.float32) for i in range(4)]
    symmetry = [LEFT_H36M, RIGHT_H36M]
    path = videopose3d(tmp_path / "gt.npz", {"S9": {"Walking 1": arrays, "Photo": arrays[:2]}}, num_joints=17,
                       keypoints_symmetry=symmetry)  # fmt: skip
    tracks = read_keypoints(path)
    assert [t.name for t in tracks] == [*(f"S9/Walking 1/{i}" for i in range(4)), "S9/Photo/0", "S9/Photo/1"]
    assert [(t.width, t.height, len(t)) for t in tracks[:4]] == [(1000, 1002, 6), (1000, 1000, 7), (1000, 1000, 6),
                                                                (1000, 1002, 7)]  # fmt: skip
    np.testing.assert_array_equal(tracks[1].keypoints, arrays[1])
    assert (tracks[0].confidence == 1).all() and tracks[0].skeleton == "h36m" and tracks[0].fps is None
    assert read_keypoints(path, person=5)[0].name == "S9/Photo/1"
    assert "has no person 6, expected 0 to 5" in complains(DataError, read_keypoints, path, person=6)


@pytest.mark.parametrize("nested", ["list", "array", "single"])
def test_videopose3d_of_own_videos(tmp_path, nested):
    x = points(8)
    value = {"list": [x], "array": x[None], "single": x}[nested]
    sizes = {"clip.mp4": {"w": 640, "h": 360}}
    path = videopose3d(tmp_path / "own.npz", {"clip.mp4": {"custom": value}}, layout_name="coco", num_joints=17,
                       keypoints_symmetry=[[1], [2]], video_metadata=sizes)  # fmt: skip
    (track,) = read_keypoints(path, fps=30)
    assert (track.name, track.width, track.height, track.skeleton, track.fps) == ("clip.mp4", 640, 360, "coco", 30)
    np.testing.assert_allclose(track.keypoints, x[..., :2], rtol=1e-6)
    np.testing.assert_allclose(track.confidence, x[..., 2], rtol=1e-6)
    (track,) = read_keypoints(path, image_size=(100, 50), layout="mpi_inf_3dhp")
    assert (track.width, track.height, track.skeleton) == (100, 50, "mpi_inf_3dhp")


def test_videopose3d_layouts_and_damage(tmp_path):
    path = tmp_path / "a.npz"
    left = {"coco": range(1, 17, 2), "mpii": [3, 4, 5, 13, 14, 15]}
    for layout, joints in left.items():
        x = points(3, LAYOUTS[layout].size)
        videopose3d(path, {"S1": {"Posing": [x]}}, keypoints_symmetry=[list(joints), []])
        assert read_keypoints(path)[0].skeleton == layout
    for positions, metadata, expected in (
        ({"S1": {"Posing": [points()]}}, {}, "doesn't say what its 17 keypoints are"),
        ({"S1": {"Posing": [points(joints=16)]}}, {"layout_name": "coco"}, "has 16 keypoints, expected 17"),
        ({"S1": {"Posing": [points()[..., :1]]}}, {"layout_name": "coco"}, "shape [5, 17, 1]"),
        ({"S1": [points()]}, {}, "positions_2d['S1'] of"),
        ({"S1": {"Posing": 3}}, {}, "positions_2d['S1']['Posing']"),
        ([1], {}, "positions_2d of"),
        ({}, {}, "has no arrays"),
        ({"S1": {"Posing": [points() * np.nan]}}, {"layout_name": "coco"}, "no keypoint with a confidence above 0"),
    ):
        videopose3d(path, positions, **metadata)
        assert expected in complains(DataError, read_keypoints, path)


def test_no_code_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    np.savez(tmp_path / "trap.npz", positions_2d=np.array({"S1": Trap()}, dtype=object))
    complains(DataError, read_keypoints, tmp_path / "trap.npz")
    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    complains(DataError, read_keypoints, tmp_path / "trap.npy")
    assert not (tmp_path / "sprung").exists()


# ------------------------------------------------------------------------------------------------------ bare arrays


def test_bare_arrays(tmp_path):
    x = points(6, 26)
    np.save(tmp_path / "a.npy", x)
    (track,) = read_keypoints(tmp_path / "a.npy", image_size=(640, 480))
    assert (track.name, track.skeleton, track.width, track.height) == ("a", "halpe26", 640, 480)
    np.savez(tmp_path / "b.npz", anything=x[..., :2].astype(np.float32))
    (track,) = read_keypoints(tmp_path / "b.npz")
    assert (track.confidence == 1).all() and track.width is None
    np.savez(tmp_path / "c.npz", keypoints=x[..., :2], confidence=x[..., 2], fps=24, width=320, height=240, other=x)
    (track,) = read_keypoints(tmp_path / "c.npz")
    assert (track.fps, track.width, track.height) == (24, 320, 240)
    np.testing.assert_allclose(track.confidence, x[..., 2], rtol=1e-6)
    meta = json.dumps({"skeleton": "h36m", "fps": 50, "width": 1000, "height": 1002})
    np.savez(tmp_path / "d.npz", keypoints=points()[..., :2], meta=np.array(meta))
    (track,) = read_keypoints(tmp_path / "d.npz")
    assert (track.skeleton, track.fps, track.height) == ("h36m", 50, 1002)
    np.save(tmp_path / "e.npy", np.stack([x, x + 1]))
    assert [t.name for t in read_keypoints(tmp_path / "e.npy")] == ["e/0", "e/1"]


def test_bare_arrays_that_cannot_be_told(tmp_path):
    for array, expected in (
        (points(), "doesn't say which; set layout, one of h36m, coco, mpi_inf_3dhp, posetrack"),
        (points(joints=4), "has 4 keypoints and doesn't say which"),
        (points()[0], "float64 of shape [17, 3], expected numbers [T, J, 2]"),
        (np.zeros((0, 26, 2)), "shape [0, 26, 2]"),
        (np.zeros((3, 26, 2), dtype=complex), "complex128 of shape"),
    ):
        np.save(tmp_path / "a.npy", array)
        assert expected in complains(DataError, read_keypoints, tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", points())
    told = complains(DataError, read_keypoints, tmp_path / "a.npy")
    assert told.endswith("; nor how large its images are: set image_size, in pixels, too."), "all at once"
    told = complains(DataError, read_keypoints, tmp_path / "a.npy", image_size=(640, 480))
    assert told.endswith("posetrack.")
    np.savez(tmp_path / "a.npz", a=points(), b=points())
    assert "holds a [5, 17, 3], b [5, 17, 3]" in complains(DataError, read_keypoints, tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", keypoints=points()[..., :2], confidence=np.ones(3))
    assert "confidence of" in complains(DataError, read_keypoints, tmp_path / "a.npz")
    (tmp_path / "b.npy").write_bytes(b"hello")
    complains(DataError, read_keypoints, tmp_path / "b.npy")
    assert "does not exist" in complains(MissingFileError, read_keypoints, tmp_path / "none.npz")
    (tmp_path / "a.txt").write_text("")
    assert "ends in '.txt'" in complains(DataError, read_keypoints, tmp_path / "a.txt")
    assert "layout is 'x'" in complains(ArgumentError, read_keypoints, tmp_path / "a.npz", layout="x")
    np.save(tmp_path / "c.npy", points(joints=26))
    assert "person is 'x'" in complains(ArgumentError, read_keypoints, tmp_path / "c.npy", person="x")


# ------------------------------------------------------------------------------------------------------------- COCO


def coco(path, annotations, images=None, categories=None):
    images = images or [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in (7, 8)]
    content = {"images": images, "annotations": annotations, "categories": categories or []}
    path.write_text(json.dumps(content))
    return path


def annotation(image, x, v=2, **more):
    values = np.concatenate([x[..., :2], np.broadcast_to(np.asarray(v), (len(x),))[:, None]], -1)
    labelled = int((values[:, 2] > 0).sum())
    return {"image_id": image, "category_id": 1, "keypoints": values.ravel().tolist(), "num_keypoints": labelled,
            "area": 5000.0, "iscrowd": 0, "bbox": [0, 0, 1, 1], "id": 1, **more}  # fmt: skip


def test_coco_annotations(tmp_path):
    small, large = points(1)[0], points(1, seed=1)[0]
    small[:, :2] /= 4
    seen = np.array([2] * 14 + [1, 0, 0])
    hidden = large.copy()
    hidden[seen == 0, :2] = 0
    rows = [annotation(7, small), annotation(7, hidden, seen), annotation(8, small)]
    rows += [annotation(8, large, iscrowd=1), annotation(8, large, num_keypoints=0)]  # neither counts
    path = coco(tmp_path / "c.json", rows)
    first, second = read_keypoints(path)
    assert (first.name, first.width, first.height, len(first), first.skeleton) == ("7.jpg", 640, 480, 1, "coco")
    np.testing.assert_allclose(first.keypoints[0, :15], large[:15, :2], rtol=1e-6)  # the larger person
    np.testing.assert_allclose(first.confidence[0], seen / 2)
    np.testing.assert_allclose(first.keypoints[0, 16], large[:15, :2].mean(0), rtol=1e-6)  # in the middle: both unseen
    np.testing.assert_allclose(second.keypoints[0], small[:, :2], rtol=1e-6)
    assert len(read_keypoints(path, person="all")) == 3
    assert [t.name for t in read_keypoints(path, person="all")] == ["7.jpg/0", "7.jpg/1", "8.jpg"]


def test_posetrack_annotations(tmp_path):
    categories = [{"name": "person", "keypoints": ["nose", "head_bottom", "head_top", "left_ear"]}]
    images = [{"id": 100 + i, "file_name": f"v/{i:06d}.jpg", "vid_id": "v1", "frame_id": i} for i in range(6)]
    images.append({"id": 900, "file_name": "w/000000.jpg", "vid_id": "v2", "frame_id": 0})
    x = points(6)
    rows = [annotation(100 + i, x[i], track_id=3) for i in (0, 1, 2, 5)]
    rows += [annotation(101, x[1] * 2, track_id=4), annotation(900, x[0], track_id=0)]
    path = coco(tmp_path / "p.json", rows, images, categories)
    first, second = read_keypoints(path)
    assert (first.name, second.name, first.skeleton, len(first), first.gaps) == ("v1", "v2", "posetrack", 6, ((3, 5),))
    np.testing.assert_allclose(first.keypoints[[0, 1, 2, 5]], x[[0, 1, 2, 5], :, :2], rtol=1e-6)
    np.testing.assert_allclose(first.keypoints[3], (2 * x[2] + x[5])[:, :2] / 3, rtol=1e-6)
    assert (first.confidence[3:5] == 0).all() and (first.confidence[[0, 5]] == 1).all()
    (only,) = read_keypoints(path, person=4)
    assert only.start == 1 and len(only) == 1
    assert "has no person 9" in complains(DataError, read_keypoints, path, person=9)


def test_a_rate_among_what_coco_says_of_the_file(tmp_path):
    rows = [annotation(i, points(3)[i], track_id=0) for i in range(3)]
    images = [{"id": i, "file_name": f"v_{i:06d}.jpg", "width": 640, "height": 480} for i in range(3)]
    path = coco(tmp_path / "v.json", rows, images)
    content = json.loads(path.read_text())
    for said, fps in (({"description": "v"}, None), ({"fps": 25}, 25.0), ({"fps": "often"}, None), ([25], None)):
        path.write_text(json.dumps(content | {"info": said}))
        (track,) = read_keypoints(path)
        assert (track.name, len(track), track.width, track.fps) == ("v", 3, 640, fps)


# -------------------------------------------------------------------------------------------------- result lists


def result(image, x, **more):
    return {"image_id": image, "category_id": 1, "keypoints": x.ravel().tolist(), "score": 2.5, **more}


@pytest.mark.parametrize("names", ["{}.jpg", "frame_{:06d}.png", None])
@pytest.mark.parametrize("size", [17, 26, 136])
def test_alphapose(tmp_path, names, size):
    x, other = points(12, size), points(12, size, seed=3)
    other[..., :2] = other[..., :2] / 10 + 500

    def frame(t):
        return t if names is None else names.format(t)

    rows = [result(frame(t), x[t], idx=2) for t in range(12) if t not in (4, 5)]
    rows += [result(frame(t), other[t], idx=1) for t in range(3, 10)]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows[::-1]))
    (track,) = read_keypoints(path)
    layout = "coco" if size == 17 else "halpe26"
    assert (track.name, track.skeleton, len(track), track.gaps) == ("results", layout, 12, ((4, 6),))
    count = LAYOUTS[layout].size
    np.testing.assert_allclose(track.keypoints[[0, 3, 6, 11]], x[[0, 3, 6, 11], :count, :2], rtol=1e-6)
    np.testing.assert_allclose(track.confidence[0], x[0, :count, 2], rtol=1e-6)
    np.testing.assert_allclose(track.keypoints[4], (2 * x[3] + x[6])[:count, :2] / 3, rtol=1e-6)
    assert (track.confidence[4:6] == 0).all()
    (track,) = read_keypoints(path, person=1)
    assert track.start == 3 and len(track) == 7
    assert [t.name for t in read_keypoints(path, person="all")] == ["results/2", "results/1"]
    assert "has no person 0, expected one of 1, 2" in complains(DataError, read_keypoints, path, person=0)


def walkers(frames=40):
    """Two people who pass each other at some distance, and a third who comes late."""
    base = points(1)[0]
    out = np.repeat(base[None], 3 * frames, 0).reshape(3, frames, 17, 3)
    t = np.arange(frames)[:, None]
    out[0, ..., 0] += 5 * t
    out[1, ..., 0] += 600 - 5 * t
    out[1, ..., 1] += 450
    out[2, ..., 0] += 2000
    return out


@pytest.mark.parametrize("identity", [{}, {"idx": 0}, {"idx": [1.0]}])
def test_people_without_identities_are_tracked_by_overlap(tmp_path, identity):
    people = walkers()
    rng = np.random.default_rng(0)
    rows = []
    for t in range(40):
        here = [0, 1] + [2] * (t >= 25)
        if t in (10, 11, 12):
            here.remove(0)
        rows += [result(t, people[p, t], **identity) for p in rng.permutation(here)]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(rows))
    tracks = {t.start: t for t in read_keypoints(path, person="all") if len(t) < 40 or t.gaps}
    whole = [t for t in read_keypoints(path, person="all") if len(t) == 40]
    assert len(whole) == 2 and list(tracks)[-1] == 25
    by_gap = {t.gaps: t for t in whole}
    assert set(by_gap) == {(), ((10, 13),)}
    np.testing.assert_allclose(by_gap[()].keypoints, people[1, ..., :2], rtol=1e-6)
    np.testing.assert_allclose(by_gap[((10, 13),)].keypoints, people[0, ..., :2], rtol=1e-6)  # lines are exact here
    assert read_keypoints(path)[0].gaps == ()  # the most detections


def test_largest_and_longest(tmp_path):
    near, far = points(3), points(8)
    far[..., :2] /= 3
    rows = [result(t, near[t], idx=1) for t in range(3)] + [result(t, far[t], idx=2) for t in range(8)]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(rows))
    assert len(read_keypoints(path, person="largest")[0]) == 3
    assert len(read_keypoints(path, person="longest")[0]) == 8
    assert "person is 'nearest'" in complains(ArgumentError, read_keypoints, path, person="nearest")
    assert "person is True" in complains(ArgumentError, read_keypoints, path, person=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100000, "is not valid JSON"),
        ("3", "holds 3, expected COCO annotations"),
        ("{}", "holds an object with nothing"),
        ("[]", "holds a list of 0"),
        ('[{"image_id": 1, "keypoints": [1, 2, 1]}, 3]', "entry 1 of"),
        ('[{"image_id": 1, "keypoints": [1, 2]}]', "keypoints of entry 0"),
        ('[{"image_id": 1, "keypoints": ["a", 2, 3]}]', "keypoints of entry 0"),
        ('[{"image_id": 1, "keypoints": null}]', "keypoints of entry 0"),
        ('[{"image_id": 1, "keypoints": [1, 2, 1]}]', "has 1 keypoints per person, expected 16, 17, 18, 25, 26"),
        ('[{"image_id": "a.jpg", "keypoints": [1, 2, 1]}]', "expected a number in its name"),
        ('[{"image_id": 1, "keypoints": [1, 2, 1]}, {"image_id": 999, "keypoints": [1, 2, 1]}]', "consecutive frames"),
        ('[{"image_id": 1, "keypoints": [1, 2, 1]}, {"image_id": 2, "keypoints": [1,2,1,1,2,1]}]', "1 and 2 keypoints"),
        ('{"images": [], "annotations": []}', "no annotation with labelled keypoints"),
        ('{"images": [1], "annotations": []}', "malformed images"),
        (
            '{"images": [], "annotations": [{"image_id": 5, "keypoints": [1, 2, 2]}]}',
            "the image 5, which is not listed",
        ),
    ],
)
def test_malformed_json(tmp_path, content, expected):
    path = tmp_path / "bad.json"
    path.write_text(content)
    assert expected in complains(DataError, read_keypoints, path)


# ---------------------------------------------------------------------------------------------------------- OpenPose


def openpose(folder, frames):
    folder.mkdir(exist_ok=True)
    for t, people in frames.items():
        content = {
            "version": 1.3,
            "people": [{"person_id": [-1], "pose_keypoints_2d": p.ravel().tolist()} for p in people],
        }
        (folder / f"clip_{t:012d}_keypoints.json").write_text(json.dumps(content))
    return folder


def test_openpose_folder(tmp_path):
    x = points(9, 25)
    x[2, 4] = 0  # OpenPose's way to say that a keypoint was not found
    x[:, 17] = 0  # the right ear never
    folder = openpose(tmp_path / "clip", {t: [x[t]] if t not in (5, 6) else [] for t in range(9)})
    (track,) = read_keypoints(folder, image_size=(1280, 720), fps=25)
    assert (track.name, track.skeleton, len(track), track.gaps) == ("clip", "body25", 9, ((5, 7),))
    np.testing.assert_allclose(track.keypoints[2, 4], (x[1, 4] + x[3, 4])[:2] / 2, rtol=1e-6)
    assert track.confidence[2, 4] == 0 and (track.confidence[:, 17] == 0).all()
    np.testing.assert_allclose(track.keypoints[:4, 17], x[:4, 18, :2], rtol=1e-6)  # where the left ear is
    pose = track.to_h36m("demo")
    assert pose.skeleton == "h36m" and pose.keypoints.shape == (9, 17, 2) and (pose.width, pose.fps) == (1280, 25)
    assert pose.gaps == track.gaps and (pose.confidence[:, 10] == 0).all()


def test_broken_openpose_folders(tmp_path):
    (tmp_path / "none").mkdir()
    assert "has no *_keypoints.json" in complains(DataError, read_keypoints, tmp_path / "none")
    folder = openpose(tmp_path / "empty", {0: [], 1: []})
    assert "has no people in any frame" in complains(DataError, read_keypoints, folder)
    (folder / "clip_000000000001_keypoints.json").write_text("{}")
    assert "has no list 'people'" in complains(DataError, read_keypoints, folder)
    folder = openpose(tmp_path / "zero", {0: [np.zeros((25, 3))]})
    assert "no keypoint with a confidence above 0" in complains(DataError, read_keypoints, folder)


# -------------------------------------------------------------------------------------------------------- the track


def test_tracks_are_checked():
    xy, c = points()[..., :2], points()[..., 2]
    for arguments, expected in (
        ((xy[0], c), "keypoints has shape [17, 2]"),
        ((xy, c[:2]), "confidence has shape [2, 17], expected [5, 17]"),
        ((xy * np.nan, c), "NaN"),
        ((xy, c + 1), "outside of 0 to 1"),
        ((xy, c, 0), "width is 0"),
        ((xy, c, 5, -1), "height is -1"),
        ((xy, c, 5, 5, float("nan")), "fps is nan"),
    ):
        assert expected in complains(ArgumentError, Keypoints, "n", *arguments)


@given(st.integers(1, 12), st.integers(0, 10**6))
def test_filling_keeps_what_was_seen(frames, seed):
    from structloss.data.formats._tracks import fill

    rng = np.random.default_rng(seed)
    x = points(frames, 17, seed)
    missing = rng.random((frames, 17)) < rng.choice([0.1, 0.5, 0.95])
    holes = x.copy()
    holes[missing] = rng.choice([0.0, np.nan])
    got = fill(holes, LAYOUTS["coco"].mirror)
    np.testing.assert_array_equal(got[~missing], x[~missing])
    assert np.isfinite(got).all() and (got[missing][:, 2] == 0).all()
    for j in np.flatnonzero(missing.any(0) & ~missing.all(0)):
        times = np.flatnonzero(~missing[:, j])
        for t in np.flatnonzero(missing[:, j]):
            before, after = times[times < t], times[times > t]
            ends = [before[-1] if len(before) else after[0], after[0] if len(after) else before[-1]]
            share = 0 if ends[0] == ends[1] else (t - ends[0]) / (ends[1] - ends[0])
            np.testing.assert_allclose(got[t, j, :2], (x[ends[0]] + share * (x[ends[1]] - x[ends[0]]))[j, :2])


def test_garbled_json_is_read_or_refused(tmp_path):
    import re

    x = points(3)
    path = tmp_path / "g.json"
    coco(path, [annotation(7, x[0], track_id=1), annotation(8, x[1])], categories=[{"keypoints": ["nose"]}])
    rng = np.random.default_rng(0)
    for text in (path.read_text(), json.dumps([result(t, x[t], idx=t % 2) for t in range(3)])):
        words, refused = re.split(r'([\[\]{},:]|"[^"]*")', text), 0
        for _ in range(200):
            garbled = list(words)
            other = ["", "null", "-1", "1e999", '"a"', "[]", "{}", "true", words[rng.integers(len(words))]]
            garbled[rng.integers(len(words))] = str(rng.choice(other))
            path.write_text("".join(garbled))
            try:
                read_keypoints(path)
            except StructlossError as error:
                refused += 1
                assert "\n" not in str(error)
        assert 20 < refused < 200
