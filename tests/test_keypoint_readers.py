"""Readers of detectors' output, one by one: MMPose, MediaPipe, YOLO-pose, GAST-Net, frames of people in one file. Each
is read from a file in the form that its program writes, and gives the pixels that were put in."""

import json

import numpy as np
import pytest
from test_keypoint_formats import BODY25, complains, points, walkers

from structloss.data.formats import read_keypoints
from structloss.data.formats._joint_names import layout_of_names, plain_name
from structloss.data.formats.keypoint_maps import LAYOUTS, keypoints_to_h36m
from structloss.errors import DataError
from structloss.skeletons import get

COCO = list(get("coco").joint_names)
H36M = list(get("h36m").joint_names)
SIZE = (640, 480)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def is_read(path, want, skeleton="coco", **options):
    """The only track of a file has these keypoints `[T, J, 3]`."""
    (track,) = read_keypoints(path, **options)
    np.testing.assert_allclose(track.keypoints, want[..., :2], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(track.confidence, want[..., 2], rtol=1e-4)
    assert track.skeleton == skeleton
    return track


# ------------------------------------------------------------------------------------------------------------- MMPose


def instance(x, **more):
    return {"keypoints": x[:, :2].tolist(), "keypoint_scores": x[:, 2].tolist(), "bbox": [[0, 0, 9, 9]], **more}


def mmpose(frames, **meta):
    listed = [{"frame_id": 1 + t, "instances": people} for t, people in enumerate(frames)]
    return {"meta_info": meta, "instance_info": listed}


def test_mmpose_demo(tmp_path):
    x = points(6)
    path = tmp_path / "results_walk.json"
    demo = mmpose([[instance(one)] for one in x], dataset_name="coco", keypoint_id2name={})
    track = is_read(write(path, demo), x, image_size=SIZE)
    assert (track.name, track.start, track.width, track.fps) == ("results_walk", 1, 640, None)
    is_read(write(path, demo["instance_info"]), x)  # as the inferencer writes it
    is_read(write(path, demo["instance_info"][2]), x[2:3])
    is_read(write(path, {"predictions": demo["instance_info"]}), x)
    is_read(write(path, {"meta_info": {}, "instance_info": demo["instance_info"][0]["instances"]}), x[:1])
    is_read(write(path, demo["instance_info"][0]["instances"]), x[:1])
    sure = mmpose([[instance(x[0] * [1, 1, 9])]])
    assert (read_keypoints(write(path, sure))[0].confidence == 1).all()  # scores of classified coordinates exceed 1


def test_mmpose_names_its_keypoints(tmp_path):
    x = points(4, 26)
    names = [*COCO, "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe"]
    names += ["left_heel", "right_heel"]
    frames = [[instance(one)] for one in x]
    path = tmp_path / "a.json"
    is_read(write(path, mmpose(frames, keypoint_id2name=dict(enumerate(names)))), x, "halpe26")
    order = np.random.default_rng(0).permutation(26)
    shuffled = [[instance(one[order])] for one in x]
    named = {str(i): names[j] for i, j in enumerate(order)}
    is_read(write(path, mmpose(shuffled, keypoint_id2name=named)), x, "halpe26")
    h36m = mmpose([[instance(one)] for one in x[:, :17]], dataset_name="h36m")
    is_read(write(path, h36m), x[:, :17], "h36m")
    is_read(write(path, h36m), x[:, :17], "coco", layout="coco")
    lifted = mmpose([[{**instance(x[0]), "keypoints": np.zeros((26, 3)).tolist()}]])
    assert "shape [26, 3] beside 26 scores, expected x and y" in complains(
        DataError, read_keypoints, write(path, lifted)
    )


def test_people_of_mmpose_are_followed(tmp_path):
    people = walkers(20)
    path = write(tmp_path / "a.json", mmpose([[instance(people[1, t]), instance(people[0, t])] for t in range(20)]))
    first, second = read_keypoints(path, person="all")
    np.testing.assert_allclose(first.keypoints, people[1, :20, :, :2], rtol=1e-6)
    np.testing.assert_allclose(second.keypoints, people[0, :20, :, :2], rtol=1e-6)
    assert first.notes == () and "1 other track with 20 detections was left out" in read_keypoints(path)[0].notes[0]
    tracked = mmpose([[instance(people[p, t], track_id=7 - p) for p in (0, 1)] for t in range(20)])
    (seven,) = read_keypoints(write(path, tracked), person=7)
    np.testing.assert_allclose(seven.keypoints, people[0, :20, :, :2], rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------- MediaPipe


def sided(*parts):
    return [part.format(side) for part in parts for side in ("left", "right")]


MEDIAPIPE = ["nose", *(f"{side} eye{part}" for side in ("left", "right") for part in (" (inner)", "", " (outer)"))]
MEDIAPIPE += sided("{} ear", "mouth ({})", "{} shoulder", "{} elbow", "{} wrist", "{} pinky", "{} index", "{} thumb")
MEDIAPIPE += sided("{} hip", "{} knee", "{} ankle", "{} heel", "{} foot index")


def landmarks(x, size=SIZE, names=False):
    """One person's points, as MediaPipe's objects say them."""
    return [{"x": p[0] / size[0], "y": p[1] / size[1], "z": -0.3, "visibility": p[2],
             **({"name": name.upper().replace(" ", "_")} if names else {})}
            for p, name in zip(x.tolist(), MEDIAPIPE, strict=True)]  # fmt: skip


def forms(x):
    """Files that people write of the same landmarks `[T, 33, 3]`."""
    frames = [landmarks(one) for one in x]
    yield "frames", [{"frame": t, "landmarks": one} for t, one in enumerate(frames)]
    yield "timed", [{"timestamp_ms": 40 * t, "pose_landmarks": one} for t, one in enumerate(frames)]
    yield "tasks", [{"pose_landmarks": [one], "pose_world_landmarks": [one]} for one in frames]
    yield "javascript", [{"poseLandmarks": one} for one in frames]
    yield "protobuf", [{"landmark": one} for one in frames]
    yield "lists", frames
    yield "inside", {"fps": 25, "width": 640, "height": 480, "frames": [{"landmarks": one} for one in frames]}
    yield "one list", {"pose_landmarks": frames}
    yield "by number", {str(t): one for t, one in enumerate(frames)}
    yield "by file", {f"frame_{t:04d}.png": {"landmarks": one} for t, one in enumerate(frames)}
    yield "by name", [{"frame": t, "landmarks": {p["name"]: p for p in landmarks(one, names=True)}}
                      for t, one in enumerate(x)]  # fmt: skip
    yield "rows", [[[p["x"], p["y"], p["z"], p["visibility"]] for p in one] for one in frames]
    yield "flat", [[v for p in one for v in (p["x"], p["y"], p["z"], p["visibility"])] for one in frames]
    yield "pixels", [{"frame": t, "landmarks": landmarks(one, (1, 1))} for t, one in enumerate(x)]


@pytest.mark.parametrize("form", [name for name, _ in forms(points(1, 33))])
def test_mediapipe(tmp_path, form):
    x = points(8, 33)
    path = write(tmp_path / "walk.json", dict(forms(x))[form])
    track = is_read(path, x, "mediapipe", image_size=SIZE)
    assert (track.width, track.height, track.name) == (640, 480, "walk")
    assert track.fps == (25 if form in ("timed", "inside") else None)
    if form == "inside":
        is_read(path, x, "mediapipe")  # the file says how large its images are
    elif form != "pixels":
        assert "coordinates from 0 to 1, expected image_size" in complains(DataError, read_keypoints, path)


def test_mediapipe_without_anybody(tmp_path):
    x = points(8, 33)
    for nobody in (None, [], {"landmarks": None}, {"landmarks": []}):
        frames = [landmarks(one) if t in (1, 2, 6) else nobody for t, one in enumerate(x)]
        (track,) = read_keypoints(write(tmp_path / "a.json", frames), image_size=SIZE)
        assert (track.start, len(track), track.gaps) == (1, 6, ((2, 5),))
        np.testing.assert_allclose(track.keypoints[[0, 1, 5]], x[[1, 2, 6], :, :2], rtol=1e-4)


def test_mediapipe_to_human36m():
    x = points(3, 33)
    coco = x[:, [MEDIAPIPE.index(name.replace("_", " ")) for name in COCO]]
    for variant in ("motionbert", "demo"):
        np.testing.assert_allclose(keypoints_to_h36m(x, "mediapipe", variant), keypoints_to_h36m(coco, "coco", variant))


def test_points_with_names_in_pixels(tmp_path):
    """TensorFlow.js: MoveNet's, BlazePose's and, with a position, PoseNet's."""
    x = points(5)
    named = [{"score": 0.8, "keypoints": [{"x": p[0], "y": p[1], "score": p[2], "name": name}
              for p, name in zip(one.tolist(), COCO, strict=True)]} for one in x]  # fmt: skip
    track = is_read(write(tmp_path / "a.json", named), x)
    assert "taken as one person's frames" in track.notes[0]
    posenet = [{"keypoints": [{"part": name, "position": {"x": p[0], "y": p[1]}, "score": p[2]}
                              for p, name in zip(one.tolist(), COCO, strict=True)]} for one in x]  # fmt: skip
    is_read(write(tmp_path / "a.json", posenet), x)


# ----------------------------------------------------------------------------------------------------------- YOLO-pose


def yolo(x, size=None, **more):
    w, h = size or (1, 1)
    keypoints = {"x": (x[:, 0] / w).tolist(), "y": (x[:, 1] / h).tolist(), "visible": x[:, 2].tolist()}
    box = {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}
    return {"name": "person", "class": 0, "confidence": 0.9, "box": box, "keypoints": keypoints, **more}


def test_yolo_results(tmp_path):
    x = points(6)
    path = tmp_path / "a.json"
    is_read(write(path, [[yolo(one)] for one in x]), x)
    is_read(write(path, [json.dumps([yolo(one)]) for one in x]), x)  # what to_json gives is text
    is_read(write(path, [[yolo(one, SIZE)] for one in x]), x, image_size=SIZE)
    is_read(write(path, [yolo(x[0])]), x[:1])  # an image
    is_read(write(path, [{"frame": t, "detections": [yolo(one)]} for t, one in enumerate(x)]), x)
    (track,) = read_keypoints(write(path, [[], [yolo(x[0])], [], [yolo(x[1])], []]))
    assert (track.start, len(track), track.gaps) == (1, 3, ((1, 2),))
    folder = tmp_path / "results"
    folder.mkdir()
    for t, one in enumerate(x):
        write(folder / f"clip_{t}.json", [yolo(one, track_id=4), yolo(one + 900, track_id=9)])
    track = is_read(folder, x, person=4)
    assert track.name == "results"
    lost = x.copy()
    lost[2, 3] = [0, 0, 0.3]  # places of low confidence are set to zero
    (track,) = read_keypoints(write(path, [[yolo(one)] for one in lost]))
    assert track.confidence[2, 3] == 0
    np.testing.assert_allclose(track.keypoints[2, 3], x[[1, 3], 3, :2].mean(0), rtol=1e-6)


def label(x, *behind, width=3):
    keypoints = x * [1 / SIZE[0], 1 / SIZE[1], 1]
    return " ".join(f"{v:.6g}" for v in (0, 0.5, 0.5, 0.2, 0.4, *keypoints[:, :width].ravel(), *behind))


@pytest.mark.parametrize("behind", [(), (0.91,), (3,), (0.91, 3)])
@pytest.mark.parametrize("width", [2, 3])
def test_yolo_labels(tmp_path, behind, width):
    x = points(7)
    if width == 2:
        x[..., 2] = 1
    folder = tmp_path / "labels"
    folder.mkdir()
    for t, one in enumerate(x):
        if t != 4:  # no file where nobody was found
            (folder / f"clip_{t + 1}.txt").write_text(label(one, *behind, width=width) + "\n")
    (folder / "classes.txt").write_text("person\n")
    (folder / "._clip_1.txt").write_bytes(b"\x00\x05\x16\x07")
    (track,) = read_keypoints(folder, image_size=SIZE, person=3 if 3 in behind else "longest")
    assert (track.name, track.start, track.gaps) == ("labels", 1, ((4, 5),))
    seen = [0, 1, 2, 3, 5, 6]
    np.testing.assert_allclose(track.keypoints[seen], x[seen, :, :2], rtol=1e-4)
    np.testing.assert_allclose(track.confidence[seen], x[seen, :, 2], rtol=1e-4)
    assert "coordinates from 0 to 1, expected image_size" in complains(DataError, read_keypoints, folder)


def test_broken_yolo_folders(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "clip_1.txt").write_text("0 0.1 0.2 0.3\n")
    assert "has no *_keypoints.json, *.txt, *.json" in complains(DataError, read_keypoints, folder)
    (folder / "clip_1.txt").write_text(label(points(1)[0]) + "\n0 1 2 3\n")
    text = complains(DataError, read_keypoints, folder, image_size=SIZE)
    assert "line 2 of" in text and "'0 1 2 3', expected a class, a box" in text
    (folder / "clip_1.txt").write_text(label(points(1)[0]).replace("0.5", "half") + "\n")
    assert "line 1 of" in complains(DataError, read_keypoints, folder, image_size=SIZE)
    (folder / "clip_1.txt").write_text("\n")
    assert "has no *_keypoints.json" in complains(DataError, read_keypoints, folder)


# ------------------------------------------------------------------------------------------------------------ GAST-Net


@pytest.mark.parametrize("nested", [False, True])
def test_gastnet(tmp_path, nested):
    x = points(6)
    frames = []
    for t, one in enumerate(x):
        pose = one[:, :2].tolist() if nested else one[:, :2].ravel().tolist()
        score = one[:, 2:].tolist() if nested else one[:, 2].tolist()
        frames.append({"frame_index": t + 1, "skeleton": [{"pose": pose, "score": score, "bbox": [0, 0, 1, 1]}]})
    content = {"data": frames, "label": "unknown", "label_index": -1}
    track = is_read(write(tmp_path / "baseball.json", content), x)
    assert (track.name, track.start) == ("baseball", 1)
    frames[3]["skeleton"] = []
    (track,) = read_keypoints(write(tmp_path / "a.json", content))
    assert track.gaps == ((3, 4),)


def test_kinetics_skeletons(tmp_path):
    """The form of GAST-Net's files, with OpenPose's 18 keypoints from 0 to 1."""
    x = points(4, 18)
    people = [{"pose": (one[:, :2] / SIZE).round(6).ravel().tolist(), "score": one[:, 2].tolist()} for one in x]
    frames = [{"frame_index": t + 1, "skeleton": [one]} for t, one in enumerate(people)]
    is_read(write(tmp_path / "a.json", {"data": frames, "label": "yoga"}), x, "openpose18", image_size=SIZE)


# ------------------------------------------------------------------------------------- OpenPose, and frames of people


def body(x, key="pose_keypoints_2d"):
    return {key: x.ravel().tolist()}


def test_openpose_models(tmp_path):
    """18 keypoints of the COCO model, 25 of BODY_25, 15 of MPI; the key of version 1.1."""
    for size, layout, key in ((18, "openpose18", "pose_keypoints_2d"), (25, "body25", "pose_keypoints")):
        x = points(3, size)
        folder = tmp_path / str(size)
        folder.mkdir()
        for t, one in enumerate(x):
            write(folder / f"clip_{t:012d}_keypoints.json", {"version": 1.1, "people": [body(one, key)]})
        (folder / "._clip_000000000000_keypoints.json").write_bytes(
            b"\x00\x05\x16\x07"
        )  # as macOS leaves on other disks
        is_read(folder, x, layout)
        assert f"has {size} keypoints per person, expected 17 for the layout 'coco'" in complains(
            DataError, read_keypoints, folder, layout="coco"
        )
    x = points(3, 15)
    for t, one in enumerate(x):
        write(folder / f"clip_{t:012d}_keypoints.json", {"people": [body(one)]})
    assert "set layout to openpose15" in complains(DataError, read_keypoints, folder)
    is_read(folder, x, "openpose15", layout="openpose15")


def test_openpose_with_the_size_and_rate_of_the_video(tmp_path):
    x = points(3, 25)
    told = {"canvas_width": 640, "canvas_height": 480, "fps": 25}
    for t, one in enumerate(x):
        write(tmp_path / f"clip_{t:012d}_keypoints.json", {"people": [body(one)]} | (told if t == 0 else {}))
    track = is_read(tmp_path, x, "body25")
    assert (track.width, track.height, track.fps) == (640, 480, 25.0)
    track = is_read(tmp_path, x, "body25", image_size=(1280, 720), fps=50)
    assert (track.width, track.height, track.fps) == (1280, 720, 50)
    write(tmp_path / "clip_000000000000_keypoints.json", {"people": [body(x[0])], "canvas_width": "wide"})
    assert "the width in " in complains(DataError, read_keypoints, tmp_path)
    is_read(tmp_path, x, "body25", image_size=(1280, 720))


def test_a_folder_of_hidden_files(tmp_path):
    (tmp_path / "._clip_000000000000_keypoints.json").write_bytes(b"\x00\x05\x16\x07")
    assert "has no people in any frame" in complains(DataError, read_keypoints, tmp_path)


def test_openpose18_is_its_public_list():
    names = [
        "Nose",
        "Neck",
        "RShoulder",
        "RElbow",
        "RWrist",
        "LShoulder",
        "LElbow",
        "LWrist",
        "RHip",
        "RKnee",
        "RAnkle",
    ]
    names += ["LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar"]
    x = points(2, 18)
    in_body25 = np.zeros((2, 25, 3))
    in_body25[:, [BODY25.index(name) for name in names]] = x
    for variant in ("motionbert", "demo"):
        np.testing.assert_array_equal(
            keypoints_to_h36m(x, "openpose18", variant), keypoints_to_h36m(in_body25, "body25", variant)
        )


def test_frames_of_people_in_one_file(tmp_path):
    x, small = points(5, 18), points(5)
    path = tmp_path / "a.json"
    posed = [{"people": [body(one)], "canvas_width": 640, "canvas_height": 480} for one in x]
    assert is_read(write(path, posed), x, "openpose18").width == 640
    is_read(write(path, posed[0]), x[:1], "openpose18")
    alphapose = {f"{t}.jpg": {"version": 0.1, "people": [body(one)]} for t, one in enumerate(x)}
    is_read(write(path, alphapose), x, "openpose18")
    cmu = {f"{t}.jpg": {"version": 0.1, "bodies": [body(one, "joints")]} for t, one in enumerate(small)}
    is_read(write(path, cmu), small)
    own = {
        "fps": 30,
        "frames": [{"frame": 10 + t, "persons": [{"keypoints": one.tolist()}]} for t, one in enumerate(small)],
    }
    track = is_read(write(path, own), small)
    assert (track.fps, track.start) == (30, 10)
    lines = [
        {"frame": t, "predictions": [{"keypoints": one.ravel().tolist(), "id_": 5}]} for t, one in enumerate(small)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))  # OpenPifPaf's video
    is_read(path, small, person=5)
    path.write_text("\n".join([*map(json.dumps, lines), "{nothing"]))
    assert "line 6 of" in complains(DataError, read_keypoints, path)


# -------------------------------------------------------------------------------------------------------- joint names


@pytest.mark.parametrize(
    ("spelling", "plain"),
    [("LShoulder", "l_shoulder"), ("Shoulder.L", "l_shoulder"), ("left knee", "l_knee"), ("lshoulder", "l_shoulder"),
     ("RIGHT_FOOT_INDEX", "r_big_toe"), ("leftBigToe", "l_big_toe"), ("root (pelvis)", "pelvis"), ("MidHip", "pelvis"),
     ("Hip", "pelvis"), ("RHip", "r_hip"), ("Neck/Nose", "neck_nose"), ("top_head", "head_top"), ("Thrx", "thorax"),
     ("rank", "r_ankle"), ("mouth (left)", "l_mouth"), ("Rear", "r_ear"), ("tail", "tail")],
)  # fmt: skip
def test_spellings(spelling, plain):
    assert plain_name(spelling) == plain


def named(path, names, x, categories_more=()):
    """A COCO file whose keypoints are these."""
    images = [{"id": t, "file_name": f"{t}.jpg", "width": 640, "height": 480} for t in range(len(x))]
    rows = [{"id": t, "image_id": t, "category_id": 1, "track_id": 0, "area": 9.0, "iscrowd": 0,
             "keypoints": one.ravel().tolist()} for t, one in enumerate(x)]  # fmt: skip
    people = {"id": 1, "name": "person", "keypoints": list(names)}
    return write(path, {"images": images, "annotations": rows, "categories": [*categories_more, people]})


@pytest.mark.parametrize("layout", ["h36m", "coco", "mpii", "mpi_inf_3dhp", "body25", "mediapipe"])
def test_layouts_by_names_in_any_order(tmp_path, layout):
    names = {"body25": BODY25, "mediapipe": MEDIAPIPE}.get(layout) or get(layout).joint_names
    x = points(3, len(names))
    order = np.random.default_rng(1).permutation(len(names))
    dog = {"id": 7, "name": "dog", "keypoints": ["nose", "tail"]}
    path = named(tmp_path / "a.json", [names[i] for i in order], x[:, order], [dog])
    is_read(path, x, layout)


def test_human36m_by_the_names_of_mmpose():
    """Human3.6M's names in MMPose: the head stays above the feet."""
    names = ["root (pelvis)", "right_hip", "right_knee", "right_foot", "left_hip", "left_knee", "left_foot", "spine"]
    names += ["thorax", "neck_base", "head", *sided("{}_shoulder", "{}_elbow", "{}_wrist")[::2]]
    names += sided("{}_shoulder", "{}_elbow", "{}_wrist")[1::2]
    found = layout_of_names("a.json", names, 17)
    assert (found.layout, found.order, found.missing) == ("h36m", tuple(range(17)), ())
    assert layout_of_names("a.json", ["Pelvis", *H36M[1:7], "Torso", "Neck", "Nose", *H36M[10:]]).order == tuple(
        range(17)
    )


def test_maps_that_leave_a_joint_out(tmp_path):
    x = points(3)
    path = named(
        tmp_path / "a.json", [n for n in COCO if "ear" not in n], x[:, [j for j in range(17) if j not in (3, 4)]]
    )
    (track,) = read_keypoints(path)
    assert track.skeleton == "coco" and track.notes == (
        "the file has no left ear, right ear: placed by the others, with confidence 0",
    )
    assert (track.confidence[:, 3:5] == 0).all() and (track.confidence[:, 5:] > 0).all()
    np.testing.assert_allclose(track.keypoints[:, 3], x[:, 0, :2], rtol=1e-6)  # at the nose
    sixteen = named(tmp_path / "b.json", [n for n in H36M if n != "Neck/Nose"], np.delete(x, 9, axis=1))
    (track,) = read_keypoints(sixteen)
    assert track.skeleton == "h36m" and (track.confidence[:, 9] == 0).all()
    np.testing.assert_allclose(track.keypoints[:, 9], x[:, [8, 10], :2].mean(1), rtol=1e-6)
    limbs = named(tmp_path / "c.json", COCO[5:], x[:, 5:])
    (track,) = read_keypoints(limbs)
    pose = track.to_h36m()
    assert track.skeleton == "limbs" and track.notes[0].startswith("the file has no Neck/Nose, Head")
    assert (pose.confidence[:, 9:11] == 0).all() and (np.delete(pose.confidence, [9, 10], axis=1) > 0).all()
    hips, shoulders = x[:, 11:13, :2].mean(1), x[:, 5:7, :2].mean(1)
    np.testing.assert_allclose(pose.keypoints[:, 0], hips, rtol=1e-5)
    np.testing.assert_allclose(pose.keypoints[:, 10], shoulders + 0.43 * (shoulders - hips), rtol=1e-5, atol=1e-3)
    no_toes = named(tmp_path / "e.json", BODY25[:19], points(2, 19))
    (track,) = read_keypoints(no_toes)
    assert (track.skeleton, track.notes) == ("body25", ())  # nothing is made of toes
    crowd = named(tmp_path / "d.json", [*COCO[5:], "top_head", "neck"], points(3, 14))
    assert read_keypoints(crowd)[0].skeleton == "crowdpose"


def test_names_of_no_layout(tmp_path):
    x = points(3)
    for names, expected in (
        ([f"kp{j}" for j in range(17)], "names the joints kp0, kp1, kp2, kp3, kp4, kp5 and 11 more"),
        ([*COCO[:16], "tail"], "names the joints tail, which are of no known layout; set layout"),
        ([*H36M[:7], "navel", *H36M[8:]], "names the joints navel"),
    ):
        path = named(tmp_path / "a.json", names, x)
        assert expected in complains(DataError, read_keypoints, path)
        is_read(path, x, "coco", layout="coco")
    path = named(tmp_path / "b.json", ["a", "b", "c"], x)  # fewer than there are, which tell nothing
    is_read(path, x, "coco")


def test_every_layout_but_one_has_names():
    from structloss.data.formats._joint_names import _JOINTS

    assert set(LAYOUTS) - set(_JOINTS) == {"h3wb", "openpose15"}
    assert all(len(joints) == LAYOUTS[name].size for name, joints in _JOINTS.items())
    assert layout_of_names("a.json", get("h3wb").joint_names).layout == "h3wb"
