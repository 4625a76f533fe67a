"""What real and hostile keypoint files hold besides keypoints: frames with odd names, identities in odd forms, numbers
that are none, people who are fast, hidden or many, and things that are no files."""

import json
import os
import time

import numpy as np
import pytest
from test_keypoint_formats import annotation, coco, complains, openpose, points, result, walkers
from test_keypoint_readers import H36M, write

from structloss.data.formats import _tracks, read_keypoints
from structloss.data.formats._frame_numbers import frame_numbers
from structloss.data.formats._tracks import Detection, Track, make_tracks, seen_in
from structloss.errors import DataError, MissingFileError, StructlossError

GOLDEN = os.path.join(os.path.dirname(__file__), "golden", "faults")


def moving(frames=50, step=2.0, x0=0.0, size=1.0):
    """Somebody who moves to the right, `[T, 17, 3]`."""
    out = np.repeat(points(1), frames, 0)
    out[..., :2] *= size
    out[..., 0] += x0 + step * np.arange(frames)[:, None]
    return out


# ------------------------------------------------------------------------------------------------ numbers that are none


@pytest.mark.parametrize("bad", [float("nan"), None, float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_keypoint_that_is_no_place_was_not_seen(tmp_path, bad, column):
    """With a confidence above 0 in every second frame; DeepLabCut and others write NaN."""
    x = moving()
    rows = [result(t, one) for t, one in enumerate(x)]
    for row in rows[::2]:
        row["keypoints"][9 + column] = bad
    (track,) = read_keypoints(write(tmp_path / "a.json", rows))
    assert len(track) == 50
    if not (column == 2 and bad == 1e300):  # a confidence above 1 is 1
        assert (track.confidence[::2, 3] == 0).all() and (track.confidence[1::2, 3] > 0).all()
    np.testing.assert_allclose(track.keypoints[2:49], x[2:49, :, :2], rtol=1e-5)  # straight lines are exact here


def test_areas_are_those_of_what_was_seen(tmp_path):
    small, large = moving(9, size=0.2), moving(9, x0=900)
    rows = [result(t, x[t], idx=person) for person, x in ((1, small), (2, large)) for t in range(9)]
    rows[0]["keypoints"][0] = float("nan")
    (track,) = read_keypoints(write(tmp_path / "a.json", rows), person="largest")
    np.testing.assert_allclose(track.keypoints, large[..., :2], rtol=1e-6)
    holes = large[0].copy()
    holes[3, 0] = np.inf
    holes[4, 2] = np.nan
    holes[5] = [-1e7, 0, 1]
    assert seen_in(holes).tolist() == [j not in (3, 4, 5) for j in range(17)]
    rest = np.delete(holes, [3, 4, 5], axis=0)[:, :2]
    assert Track(0, [Detection(0, holes)]).area == pytest.approx(np.ptp(rest, axis=0).prod())


# ---------------------------------------------------------------------------------------------------- names of frames


@pytest.mark.parametrize(
    "name",
    [
        "{i}.jpg", "clip_{i:04d}_1080p.jpg", "{i:06d}_v2.jpg", "frame_{i} (1).jpg", "frame_{i:06d}_cam1.jpg",
        "shot01.{i:04d}.png", "S1_C2_{i}_1920x1080_60fps", "video/walk3/{i:05d}.jpg", "take_01_02_03_{i:03d}.jpg",
        "{i}_of_30", "v1.2_{i:03d}.png", "2018-07-04T12_08_21_{i:06d}.jpg", "f{i:03d}_t{s:.3f}.png",
        "20240131_{i:06d}.jpg", "img{i}.jpg.predictions.json", "t{s:.3f}_{i:06d}.png", "{h}_{i}.jpg", "{i}_{h}.jpg",
    ],
)  # fmt: skip
def test_the_number_is_the_group_of_digits_that_differs(tmp_path, name):
    x = moving(30)
    rows = [result(name.format(i=t, s=t / 30, h=7919 * t % 1000), one) for t, one in enumerate(x)]
    (track,) = read_keypoints(write(tmp_path / "a.json", rows[::-1]))
    assert (len(track), track.start, track.gaps, track.fps) == (30, 0, (), None)
    np.testing.assert_allclose(track.keypoints, x[..., :2], rtol=1e-6)
    (track,) = read_keypoints(write(tmp_path / "a.json", rows[:3] + rows[6:]))
    assert (len(track), track.gaps) == (30, ((3, 6),))


@pytest.mark.parametrize(
    "time_of",
    [
        lambda t: f"t{t / 25:.3f}.jpg", lambda t: f"{t / 25:.2f}", lambda t: str(t / 25), lambda t: t / 25,
        lambda t: f"2018-07-04T12_08_{20 + t // 25:02d}.{40 * (t % 25):03d}.png",
        lambda t: f"2018-07-04 12-59-{20 + t // 25:02d}-{40000 * (t % 25):06d}.png",
        lambda t: f"20180704_{('125958', '125959', '130000')[t // 25]}_{40 * (t % 25):03d}.jpg",
        lambda t: f"00:00:{t // 25:02d},{40 * (t % 25):03d}", lambda t: 1530706101072 + 40 * t,
        lambda t: f"cam_{1530706101072956 + 40000 * t}.png", lambda t: str(1530706101072956123 + 40_000_000 * t),
        lambda t: f"{1530706101 + t // 25}.{40000 * (t % 25):06d}.jpg",
        lambda t: f"rgb_{7 + t // 25}_{40 * (t % 25):03d}",
        lambda t: f"x{(999_990_000_000 + 40_003 * t) / 1e6:.6f}.png",
        lambda t: f"2018-07-04T12:08:{t // 25:02d}" + (f".{40000 * (t % 25):06d}" if t % 25 else "") + ".png",
    ],
)  # fmt: skip
def test_time_stamps(tmp_path, time_of):
    """In any unit; the order and the usual distance of the names, not their digits, number the frames."""
    x = moving(60)
    rows = [result(time_of(t), one) for t, one in enumerate(x) if t not in (20, 21, 22)]
    path = write(tmp_path / "a.json", rows)
    (track,) = read_keypoints(path)
    assert (len(track), track.gaps) == (60, ((20, 23),)) and track.fps == pytest.approx(25, rel=1e-3)
    np.testing.assert_allclose(track.keypoints, x[..., :2], rtol=1e-6)
    assert "numbered by the times in their names, about 25 per second; set fps" in track.notes[0]
    assert read_keypoints(path, fps=50)[0].fps == 50


def test_time_stamps_of_files():
    (track,) = read_keypoints(os.path.join(GOLDEN, "timestamps_ms.json"))
    assert (len(track), track.gaps) == (30, ()) and track.fps == pytest.approx(29 / 2.873, rel=1e-3)
    (track,) = read_keypoints(os.path.join(GOLDEN, "timestamps_us.json"))
    assert len(track) - sum(b - a for a, b in track.gaps) == 5 and track.fps == pytest.approx(17 / 1.017044, rel=1e-3)
    (track,) = read_keypoints(os.path.join(GOLDEN, "cam_suffix.json"))
    assert (len(track), track.start, track.gaps) == (5, 0, ())


@pytest.mark.parametrize("fps", [60, 90, 100, 119.88, 120, 144, 240, 480])
def test_milliseconds_of_fast_cameras(tmp_path, fps):
    """Steps of 2 to 17 ms, whole numbers that alternate: every frame has its number, behind a long gap, too."""
    kept = [t for t in range(300) if t not in (5, 6, 100) and not 180 <= t < 270]
    for name in ("cam_{0}.jpg", "{0}", "cam1_{0}_rgb.png"):
        stamps = [name.format(1530706101072 + round(1000 * t / fps)) for t in kept]
        found = frame_numbers(tmp_path / "a.json", stamps)
        assert found.numbers == kept and found.fps == pytest.approx(fps, rel=2e-3), name
    found = frame_numbers(tmp_path / "a.json", [f"t{round(1000 * t / fps)}ms.png" for t in kept])
    assert found.numbers == kept and found.fps == pytest.approx(fps, rel=2e-3)
    rows = [result(1530706101072 + round(1000 * t / fps), one) for t, one in enumerate(moving(40))]
    (track,) = read_keypoints(write(tmp_path / "a.json", rows))
    assert (len(track), track.gaps) == (40, ()) and track.fps == pytest.approx(fps, rel=0.02)


def test_a_step_a_number_is_a_frame_whatever_its_length(tmp_path):
    """Thirteen digits that count by one are no milliseconds: no camera takes a thousand frames a second here."""
    found = frame_numbers(tmp_path / "a.json", [f"{1530706101072 + t}.jpg" for t in range(9)])
    assert found.fps is None and found.numbers == [1530706101072 + t for t in range(9)]


def test_milliseconds_that_may_be_steps(tmp_path):
    rows = [result(round(1000 * t / 30), one) for t, one in enumerate(moving(30))]
    (track,) = read_keypoints(write(tmp_path / "a.json", rows))
    assert (len(track), track.fps) == (30, None) and "in steps of about 33" in track.notes[0]
    rows = [result(5 * t, one) for t, one in enumerate(moving(30, 5))]  # every fifth frame
    (track,) = read_keypoints(write(tmp_path / "a.json", rows))
    assert len(track) == 146 and track.notes == ()


def test_several_videos_are_named(tmp_path):
    folder = tmp_path / "two"
    folder.mkdir()
    for video, x in (("a", moving(5)), ("b", moving(5, x0=900))):
        for t, one in enumerate(x):
            people = [{"pose_keypoints_2d": one.ravel().tolist()}]
            write(folder / f"{video}_{t:012d}_keypoints.json", {"people": people})
    text = complains(DataError, read_keypoints, folder)
    assert "has frames of 2 videos, 'a_*', 'b_*', expected those of one; put each into" in text
    for names, expected in (
        (["walk/0001.jpg", "run/0001.jpg"], "'walk/*', 'run/*'"),
        ([f"f_{t:03d}_cam{c}" for t in range(9) for c in (0, 1)], "'f_*_cam0', 'f_*_cam1'"),
        ([f"p{c}_{t}" for t in range(9) for c in range(6)], "6 videos, 'p0_*', 'p1_*', 'p2_*', 'p3_*' and 2 more"),
    ):
        assert expected in complains(DataError, frame_numbers, tmp_path / "a.json", names)


@pytest.mark.parametrize("ending", ["", ".jpg", "_cam1"])
def test_two_names_of_one_number_are_named(tmp_path, ending):
    """They are not frames "of 1 videos"."""
    names = [f"f_{number}{ending}" for number in ("06", "7", "8", "007", "9")]
    text = complains(DataError, frame_numbers, tmp_path / "a.json", names)
    stem = ending.removesuffix(".jpg")
    assert text.endswith(
        f"has the frames 'f_7{stem}' and 'f_007{stem}', both number 7, expected one name for each frame."
    )
    assert frame_numbers(tmp_path / "a.json", [name for name in names if "_007" not in name]).numbers == [6, 7, 8, 9]


@pytest.mark.parametrize("name", [None, True, [1], {}, float("nan"), float("inf"), 10**400, "9" * 5000, "cat.jpg"])
def test_frames_without_a_number(tmp_path, name):
    assert "has the frame" in complains(DataError, frame_numbers, tmp_path / "a.json", [1, name])


# --------------------------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize("form", [int, float, lambda p: [float(p)], lambda p: [[p]], str, lambda p: f" {p}.0 "])
def test_the_number_inside_is_the_identity(tmp_path, form):
    people = [(7, moving(9)), (3, moving(9, x0=900))]
    rows = [result(t, x[t], idx=form(p)) for t in range(9) for p, x in people]
    (track,) = read_keypoints(write(tmp_path / "a.json", rows), person=3)
    np.testing.assert_allclose(track.keypoints, people[1][1][..., :2], rtol=1e-6)
    images = [{"id": t, "frame_id": t, "width": 640, "height": 480} for t in range(9)]
    rows = [annotation(t, x[t], track_id=form(p)) for t in range(9) for p, x in people]
    (track,) = read_keypoints(coco(tmp_path / "b.json", rows, images), person=3)
    np.testing.assert_allclose(track.keypoints, people[1][1][..., :2], rtol=1e-6)


@pytest.mark.parametrize("nobody", [-1, None, [], [[-1.0]], "-1", ""])
def test_no_identity(tmp_path, nobody):
    """Two people one after the other, whom no tracker followed: two tracks, told by their places."""
    rows = [result(t, one, track_id=nobody) for t, one in enumerate(np.concatenate([moving(20), moving(20, x0=900)]))]
    tracks = read_keypoints(write(tmp_path / "a.json", rows), person="all")
    assert [(t.name, len(t), t.start) for t in tracks] == [("a/0", 20, 0), ("a/1", 20, 20)]
    images = [{"id": t, "frame_id": t} for t in range(9)]
    rows = [annotation(t, one, track_id=nobody) for t, one in enumerate(moving(9))]
    assert len(read_keypoints(coco(tmp_path / "b.json", rows, images))[0]) == 9


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300, 0.5, "a", True, [1, 2], {}, [None, 1]])
def test_what_is_no_identity(tmp_path, bad):
    rows = [result(t, one, idx=bad) for t, one in enumerate(moving(3))]
    assert "expected a whole number" in complains(DataError, read_keypoints, write(tmp_path / "a.json", rows))
    images = [{"id": t, "frame_id": t} for t in range(3)]
    rows = [annotation(t, one, track_id=bad) for t, one in enumerate(moving(3))]
    assert "track_id of annotation 1" in complains(DataError, read_keypoints, coco(tmp_path / "b.json", rows, images))
    people = [{"person_id": bad, "pose_keypoints_2d": points(1, 25).ravel().tolist()}]
    folder = openpose(tmp_path / "c", {})
    write(folder / "c_000000000000_keypoints.json", {"people": people})
    assert "person_id in" in complains(DataError, read_keypoints, folder)


def test_an_identity_that_is_lost_for_a_while(tmp_path):
    people, who = walkers(30)[:2], (7, 3)
    rows = [result(t, people[p, t], idx=who[p]) for t in range(30) for p in (0, 1)]
    for row in rows[11:19:2]:
        assert row["idx"] == 3
        row["idx"] = None
    for person, want in ((7, people[0]), (3, people[1])):
        (track,) = read_keypoints(write(tmp_path / "a.json", rows), person=person)
        np.testing.assert_allclose(track.keypoints, want[..., :2], rtol=1e-6)
        assert (track.confidence > 0).all()
    # Somebody who gets an identity later keeps the frames before, too.
    rows = [result(t, people[p, t], idx=-1 if t < 5 else who[p]) for t in range(30) for p in (0, 1)]
    assert len(read_keypoints(write(tmp_path / "a.json", rows), person=3)[0]) == 30


def test_files_of_idle_words():
    assert "the identity of entry 0" in complains(DataError, read_keypoints, os.path.join(GOLDEN, "idx_inf.json"))
    path = os.path.join(GOLDEN, "width_text.json")
    text = complains(DataError, read_keypoints, path)
    assert "the width of the image 1" in text and "is 'x', expected a number of pixels; image_size overrules it" in text


@pytest.mark.parametrize(
    ("where", "key", "value", "expected"),
    [
        ("images", "width", "x", "the width of the image 0"),
        ("images", "height", -3, "the height of the image 0"),
        ("images", "width", float("nan"), "the width of the image 0"),
        ("images", "width", [640], "the width of the image 0"),
        ("images", "vid_id", [1], "the vid_id [1]"),
        ("images", "id", [1], "has the image 0, which is not listed"),
        ("annotations", "image_id", [1], "has the image [1], which is not listed"),
        ("annotations", "image_id", None, "has the image None, which is not listed"),
        ("annotations", "keypoints", "abc", "keypoints of annotation 1"),
        ("annotations", "num_keypoints", "abc", "malformed"),
    ],
)
def test_annotations_of_idle_words(tmp_path, where, key, value, expected):
    images = [{"id": t, "vid_id": 1, "frame_id": t, "width": 640, "height": 480} for t in range(3)]
    content = {"images": images, "annotations": [annotation(t, one, track_id=0) for t, one in enumerate(moving(3))]}
    content[where][0][key] = value
    path = write(tmp_path / "a.json", content)
    assert expected in complains(DataError, read_keypoints, path)
    if key in ("width", "height"):
        (track,) = read_keypoints(path, image_size=(320, 240))
        assert (track.width, track.height) == (320, 240)
    content[where][0].pop(key)
    if key in ("width", "num_keypoints"):
        read_keypoints(write(path, content))


def test_confidences_in_place_of_visibility(tmp_path):
    """A detector's output in COCO's form has confidences where annotations have 0, 1 or 2."""
    x = moving(3)
    images = [{"id": t, "frame_id": t} for t in range(3)]
    rows = [annotation(t, one, v=one[:, 2], track_id=0) for t, one in enumerate(x)]
    (track,) = read_keypoints(coco(tmp_path / "a.json", rows, images))
    np.testing.assert_allclose(track.confidence, x[..., 2], rtol=1e-6)


def test_tracks_of_annotation_tools(tmp_path):
    rows = [annotation(t, one, attributes={"track_id": 4, "occluded": False}) for t, one in enumerate(moving(5))]
    images = [{"id": t, "file_name": f"frame_{t:06d}.PNG"} for t in range(5)]
    assert len(read_keypoints(coco(tmp_path / "a.json", rows, images), person=4)[0]) == 5


# ------------------------------------------------------------------------------------------------------------- people


@pytest.mark.parametrize("step", [250, 2000])
def test_who_is_alone_is_one_track(tmp_path, step):
    """Somebody fast in a video of few frames per second, and somebody who was hidden for long."""
    x = moving(20, step)
    (track,) = read_keypoints(write(tmp_path / "a.json", [result(t, one) for t, one in enumerate(x)]))
    assert len(track) == 20 and track.notes == () and track.gaps == ()
    np.testing.assert_allclose(track.keypoints, x[..., :2], rtol=1e-6)
    x = moving(220)
    rows = [result(t, x[t]) for t in (*range(100), *range(140, 220))]
    (track,) = read_keypoints(write(tmp_path / "a.json", rows))
    assert (len(track), track.gaps, track.notes) == (220, ((100, 140),), ())


def test_a_false_detection_is_not_who_is_alone(tmp_path):
    x = moving(40)
    x[17, :, 0] += 3000
    (track,) = read_keypoints(write(tmp_path / "a.json", [result(t, one) for t, one in enumerate(x)]))
    assert (len(track), track.gaps) == (40, ((17, 18),))
    np.testing.assert_allclose(track.keypoints, moving(40)[..., :2], rtol=1e-6)
    assert track.notes == ("1 other track with 1 detection was left out; set person to 'all' to keep every track",)


def test_somebody_fast_beside_others(tmp_path):
    fast, still = moving(20, 250), moving(20, 0, x0=-5000)
    rows = [result(t, x[t]) for t in range(20) for x in (fast, still)]
    tracks = read_keypoints(write(tmp_path / "a.json", rows), person="all")
    assert [len(t) for t in tracks] == [20, 20]
    np.testing.assert_allclose(tracks[0].keypoints, fast[..., :2], rtol=1e-6)


def test_what_is_left_out_is_said(tmp_path):
    people = walkers(40)
    rows = [result(t, people[p, t]) for t in range(40) for p in range(3) if p < 2 or t >= 25]
    path = write(tmp_path / "a.json", rows)
    (track,) = read_keypoints(path)
    assert track.notes == ("2 other tracks with 55 detections were left out; set person to 'all' to keep every track",)
    assert track.to_h36m().notes == track.notes
    assert all(t.notes == () for t in (*read_keypoints(path, person="all"), *read_keypoints(path, person=1)))


def test_following_takes_time_in_proportion_to_the_frames(monkeypatch):
    """Boxes are compared with those of people who are still there, not with all there have been. (A second for 40,000
    frames on an idle machine; the bound is wide, and the square of the frames took half a minute.)"""
    x, compared = moving(50), 0
    overlap = _tracks._iou

    def counted(a, b):
        nonlocal compared
        compared += 1
        return overlap(a, b)

    monkeypatch.setattr(_tracks, "_iou", counted)
    for frames in (1000, 2000):
        compared = 0
        two = [Detection(t, x[t % 50] + [900.0 * p, 0, 0]) for t in range(frames) for p in (0, 1)]
        assert [len(track.detections) for track in make_tracks(two)] == [frames, frames]
        assert compared == 4 * (frames - 1)
    crowd = [Detection(t, x[0]) for t in range(2) for _ in range(400)]  # all in one place
    start = time.thread_time()
    assert len(make_tracks(crowd)) == 400 and time.thread_time() - start < 12
    with pytest.raises(
        DataError, match=r"frame 3 has 1001 people, expected at most 1000 to follow from frame to frame"
    ):
        make_tracks([Detection(3, x[0])] * 1001)
    for identity in (None, 1):
        found = [Detection(t, x[t % 50], identity) for t in range(40_000)]
        start = time.thread_time()
        (track,) = make_tracks(found)
        assert len(track.detections) == 40_000 and time.thread_time() - start < 8


# -------------------------------------------------------------------------------------------------------- other things


def test_human36m_is_read_by_its_names():
    (track,) = read_keypoints(os.path.join(GOLDEN, "h36m_names.json"))
    assert track.skeleton == "h36m"
    pose = track.to_h36m().keypoints[0]
    assert pose[H36M.index("Head"), 1] < pose[H36M.index("Hip"), 1] < pose[H36M.index("RFoot"), 1]  # y points down


def test_mmpose_demo_of_the_field():
    (track,) = read_keypoints(os.path.join(GOLDEN, "mmpose_demo.json"))
    assert (len(track), track.start, track.skeleton) == (3, 1, "coco")
    np.testing.assert_allclose(track.keypoints[:, 0], [[100, 50]] * 3)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    os.symlink("/dev/zero", tmp_path / "zero.npy")
    os.symlink("/dev/zero", tmp_path / "zero.json")
    os.symlink(tmp_path / "nothing", tmp_path / "gone.npz")
    for name in ("pipe.json", "zero.npy", "zero.json"):
        assert "is not a regular file, expected 2D keypoints" in complains(DataError, read_keypoints, tmp_path / name)
    complains(MissingFileError, read_keypoints, tmp_path / "gone.npz")
    folder = openpose(tmp_path / "op", {0: [points(1, 25)[0]]})
    os.mkfifo(folder / "clip_000000000001_keypoints.json")
    assert "is not a regular file" in complains(DataError, read_keypoints, folder)


def test_what_cannot_be_read(tmp_path, monkeypatch):
    import structloss.reading

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a.json", [result(0, points(1)[0])])
    monkeypatch.setattr(structloss.reading, "open", refused, raising=False)
    assert "can't be read: Permission denied" in complains(DataError, read_keypoints, path)


def test_arrays_that_promise_more_than_there_is(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, points(3))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(3, 17, 3), }          ", b"(300000000000, 17, 3), }")[: len(content)])
    assert "is no readable array" in complains(DataError, read_keypoints, path, layout="coco")


def test_arrays_without_confidence(tmp_path):
    x = moving(9)[..., :2]
    holes = x.copy()
    holes[4, 3] = 0
    np.save(tmp_path / "a.npy", holes)
    (track,) = read_keypoints(tmp_path / "a.npy", layout="coco")
    assert track.confidence[4, 3] == 0 and track.confidence.sum() == 9 * 17 - 1
    np.testing.assert_allclose(track.keypoints, x, rtol=1e-6)


def test_arrays_of_mediapipe(tmp_path):
    x = points(4, 33)
    depth = np.random.default_rng(0).normal(size=(4, 33, 1))
    np.save(tmp_path / "a.npy", np.concatenate([x[..., :2] / (640, 480), depth, x[..., 2:]], axis=-1))
    (track,) = read_keypoints(tmp_path / "a.npy", image_size=(640, 480))
    np.testing.assert_allclose(track.keypoints, x[..., :2], rtol=1e-5)
    np.testing.assert_allclose(track.confidence, x[..., 2], rtol=1e-5)
    np.save(tmp_path / "b.npy", np.concatenate([x[..., :2] / (640, 480), depth], axis=-1))
    assert (read_keypoints(tmp_path / "b.npy", image_size=(640, 480))[0].confidence == 1).all()
    assert "expected image_size" in complains(DataError, read_keypoints, tmp_path / "b.npy")


def test_escape_sequences_stay_in_the_file(tmp_path):
    """Names in a file reach messages and notes without control characters."""
    bad = "\x1b]owned\x07"
    for content in (
        [result(f"{bad}.jpg", points(1)[0])],
        [{"image_id": 1, "keypoints": {bad: 1}}],
        {bad: 1},
        {"images": [{"id": bad}], "annotations": [annotation(f"{bad}1", points(1)[0])]},
        {"meta_info": {"keypoint_id2name": dict(enumerate([bad] * 17))},
         "instance_info": [{"frame_id": 1, "instances": [{"keypoints": points(1)[0].tolist()}]}]},
    ):  # fmt: skip
        text = complains(DataError, read_keypoints, write(tmp_path / "a.json", content))
        assert "\x1b" not in text and "\x07" not in text


SOUND = {
    "mmpose": {"meta_info": {"dataset_name": "coco"}, "instance_info": [
        {"frame_id": 1, "instances": [{"keypoints": points(1)[0, :, :2].tolist(), "track_id": 1,
                                       "keypoint_scores": points(1)[0, :, 2].tolist()}]}]},
    "mediapipe": [{"frame": t, "landmarks": [{"x": 0.5, "y": 0.01 * j, "z": 0.1, "visibility": 0.9} for j in range(33)]}
                  for t in range(2)],
    "yolo": [[{"class": 0, "track_id": 1, "keypoints": {"x": [*range(17)], "y": [*range(17)], "visible": [0.5] * 17}}]],
    "gastnet": {"data": [{"frame_index": 1, "skeleton": [{"pose": [*range(9, 43)], "score": [0.5] * 17}]}]},
    "frames": {"fps": 30, "frames": [{"frame": 1, "people": [{"pose_keypoints_2d": points(1, 25).ravel().tolist()}]}]},
}  # fmt: skip


@pytest.mark.parametrize("form", SOUND)
def test_garbled_files_are_read_or_refused(tmp_path, form):
    import re

    path = write(tmp_path / "g.json", SOUND[form])
    read_keypoints(path, image_size=(640, 480))
    words = re.split(r'([\[\]{},:]|"[^"]*")', path.read_text())
    rng, refused = np.random.default_rng(0), 0
    for _ in range(300):
        garbled = list(words)
        other = ["", "null", "-1", "1e999", '"a"', "[]", "{}", "true", "[[]]", words[rng.integers(len(words))]]
        garbled[rng.integers(len(words))] = str(rng.choice(other))
        path.write_text("".join(garbled))
        try:
            read_keypoints(path, image_size=(640, 480))
        except StructlossError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 20 < refused < 300
    text = json.dumps(SOUND[form])
    for cut in rng.integers(1, len(text) - 1, 20):
        path.write_text(text[:cut])
        complains(DataError, read_keypoints, path)


ODD = [None, True, -1, 0, 1e300, float("nan"), 10**30, "", "a", "1", [], {}, [[]], [1], {"x": 1}, {"x": [1], "y": [2]}]


def places(content, path=()):
    """Every place in some JSON, but not each of many numbers in a row."""
    yield path
    if isinstance(content, dict):
        for key in content:
            yield from places(content[key], (*path, key))
    elif isinstance(content, list):
        for i in range(min(len(content), 3)):
            yield from places(content[i], (*path, i))


@pytest.mark.parametrize("form", [*SOUND, "results", "coco"])
def test_files_with_odd_values_are_read_or_refused(tmp_path, form):
    x = moving(3)
    images = [{"id": t, "vid_id": 1, "frame_id": t, "width": 640, "height": 480} for t in range(3)]
    others = {
        "results": [result(f"{t}.jpg", one, idx=t % 2) for t, one in enumerate(x)],
        "coco": {"images": images, "categories": [{"id": 1, "keypoints": ["nose"]}],
                 "annotations": [annotation(t, one, track_id=0) for t, one in enumerate(x)]},
    }  # fmt: skip
    sound = json.dumps(SOUND.get(form) or others[form])
    rng, refused = np.random.default_rng(0), 0
    wheres = list(places(json.loads(sound)))[1:]
    for _ in range(300):
        content = json.loads(sound)
        *way, last = wheres[rng.integers(len(wheres))]
        inner = content
        for key in way:
            inner = inner[key]
        inner[last] = ODD[rng.integers(len(ODD))]
        person = ["longest", "largest", "all", 0][rng.integers(4)]
        try:
            read_keypoints(write(tmp_path / "a.json", content), image_size=(640, 480), person=person)
        except StructlossError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 20 < refused < 300


@pytest.mark.parametrize(
    ("rate", "fps"), [(25, 25.0), (0, None), (None, None), (-3, "-3"), ("fast", "'fast'"), (True, "True")]
)
def test_the_rate_that_a_file_tells(tmp_path, rate, fps):
    """0 is a rate that a program didn't know; what is no rate is no silence."""
    frames = [{"frame": i, "people": [{"keypoints": [[10.0 + i, 20.0, 1.0]] * 17}]} for i in range(3)]
    path = tmp_path / "told.json"
    path.write_text(json.dumps({"width": 640, "height": 480, "fps": rate, "frames": frames}))
    if not isinstance(fps, str):
        assert read_keypoints(path, layout="coco")[0].fps == fps
        return
    with pytest.raises(DataError) as error:
        read_keypoints(path, layout="coco")
    assert str(error.value) == f"fps in {path} is {fps}, expected a positive number of frames per second."
