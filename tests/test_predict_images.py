"""`structloss predict` of images and videos: joints mapped back to where they are, pictures, videos, and refusals."""

import json
import math
import weakref
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("lightning")
pytest.importorskip("cv2")
pytest.importorskip("av")

import av
import cv2
import lightning as L

from structloss import images, skeletons
from structloss.cli import main
from structloss.errors import ArgumentError, CheckpointError, DataError
from structloss.harness import LiftingModule
from structloss.harness.checkpoint_io import SafeCheckpointIO
from structloss.harness.image_load import load_image_network
from structloss.harness.image_prediction import ImageNetwork, predict_people
from structloss.harness.image_training import ImageModule
from structloss.harness.predict import Prediction
from structloss.harness.refining import RefineModule
from structloss.images.image_files import read_image
from structloss.images.overlay import encode_png
from structloss.images.overlays import overlay_frames, write_picture
from structloss.images.people import Person
from structloss.reports.encoders import write_mp4

SMALL = {"features": 16, "stacks": 1, "modules": 1, "depth_modules": 1, "levels": 2, "input_size": 32}
SIZE = 64  # of the input of a network that finds marks
#: joint -> colour of its mark, and the cell of 16 x 16 that it lies in: no two beside each other
COLOURS = np.array([[80 + 55 * (j % 4), 80 + 55 * (j // 4), 255] for j in range(16)], np.uint8)
CELLS = np.array([[2 + 3 * (j % 4) + (j // 4) % 2, 2 + 3 * (j // 4)] for j in range(16)])
DEPTH = torch.linspace(-0.3, 0.3, 16)
#: Human3.6M's joints of MPII's, the two that are made by the pair that they are the middle of
H36M = (6, 2, 1, 0, 3, 4, 5, (6, 8), 8, (8, 9), 9, 13, 14, 15, 12, 11, 10)


class Marks(nn.Module):
    """A network that finds joints by the colours of their marks, and has the same depths for everybody."""

    input_size = SIZE

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.batches = []

    def forward(self, image):
        assert image.shape[1:] == (3, SIZE, SIZE) and image.min() >= 0 and image.max() <= 1
        self.batches.append(len(image))
        # The four pixels in the middle of a cell: those at its edges are mixed with others when an image is shrunk.
        cells = nn.functional.avg_pool2d(image[..., 1:, 1:], 2, 4)[:, None]  # [B, 1, 3, 16, 16]
        colours = torch.from_numpy(COLOURS / np.float32(255))[None, :, :, None, None]
        heatmaps = (1 - 3 * (cells - colours).abs().sum(2)).clamp(min=0)
        return images.SAPOutput(heatmaps[None], (DEPTH - DEPTH[6]).expand(len(image), 16))


def network(**changes):
    return ImageNetwork(**{"model": Marks().eval(), "name": "marks", "flip": False, "source": "f/w.ckpt", **changes})


def marked(width, height, squares):
    """An image with the marks of people, each in the square (left, top, pixels per pixel of the input); and where their
    marks are, `[people, 17, 2]`."""
    image = np.full((height, width, 3), 20, np.uint8)
    found = []
    for left, top, k in squares:
        for (x, y), colour in zip(CELLS, COLOURS, strict=True):
            image[top + 4 * k * y : top + 4 * k * (y + 1), left + 4 * k * x : left + 4 * k * (x + 1)] = colour
        middle = np.array([left, top]) + 4 * k * (CELLS + 0.5) - 0.5
        found.append([middle[list(j)].mean(0) if isinstance(j, tuple) else middle[j] for j in H36M])
    return image, np.array(found)


def box(left, top, k):
    """The box whose surrounding, a quarter wider, is the square of `marked`."""
    side = SIZE * k / 1.25
    return [left + (SIZE * k - side) / 2, top + (SIZE * k - side) / 2, side, side]


def save(path, module):
    trainer = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, plugins=[SafeCheckpointIO()])
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    return save(tmp_path_factory.mktemp("run") / "last.ckpt", ImageModule(network_args=SMALL, flip_test=False))


@pytest.fixture
def planted(monkeypatch, checkpoint):
    """The command's network finds marks, whatever the checkpoint holds."""
    found = network()
    monkeypatch.setattr("structloss.harness.image_load.load_image_network", lambda *args, **options: found)
    return found


def predicted(capsys, *arguments):
    """What the command prints."""
    code = main(["predict", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def refused(capsys, *arguments):
    """The one sentence that the command stops with."""
    assert main(["predict", *map(str, arguments)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("structloss: error: ") and err.count("\n") == 1 and err.endswith(".\n"), err
    return err.removeprefix("structloss: error: ").rstrip()


# ---- from an image to joints ---------------------------------------------------------------------------------------


def test_joints_are_where_they_were_found(tmp_path):
    """Two people in an image, boxes partly outside of it, images of two sizes: pixels of the image as it is."""
    squares = {"a.png": [(40, 10, 2), (200, 5, 1)], "b.png": [(-8, -4, 3)]}
    true = []
    for name, size in (("a.png", (300, 150)), ("b.png", (170, 190))):
        image, where = marked(*size, [square for square in squares[name] if square[0] > 0])
        if name == "b.png":  # a person whose square sticks out on all sides
            big, where = marked(300, 300, [(52, 56, 3)])
            image, where = big[60:250, 60:230], where - 60
        (tmp_path / name).write_bytes(encode_png(image))
        true.extend(where)
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({name: [box(*of) for of in found] for name, found in squares.items()}))
    people = images.open_images(tmp_path, boxes=boxes)
    found = predict_people(network(), people, batch_size=2)
    np.testing.assert_allclose(found.keypoints, true, atol=1e-3)
    np.testing.assert_allclose(found.confidence, 1, atol=1e-5)
    assert found.keypoints.dtype == found.positions.dtype == found.confidence.dtype == np.float32
    assert (found.name, found.skeleton, found.width, found.height) == (tmp_path.name, "h36m", 300, 190)
    assert found.meta["images"] == ["a.png", "a.png", "b.png"]
    assert found.meta["squares"] == [[40, 10, 128], [200, 5, 64], [-8, -4, 192]]
    assert found.meta["image_sizes"] == [[300, 150], [300, 150], [170, 190]]
    assert [note.partition(",")[0] for note in found.notes] == [
        "the frame rate is not known",
        "the images are of different sizes",
    ]
    # the same person thrice, whatever the box: in metres, with bones of canonical length
    np.testing.assert_allclose(found.positions, found.positions[[0]].repeat(3, 0), atol=1e-6)
    assert (found.positions[:, 0] == 0).all()
    x = (CELLS[:, 0] + 0.5) / 8 - 1
    pose = np.stack([x, (CELLS[:, 1] + 0.5) / 8 - 1, DEPTH.numpy()], 1)
    length = sum(np.linalg.norm(pose[a] - pose[b]) for a, b in images.joints.CANONICAL_BONES)
    np.testing.assert_allclose(found.scale, 4.29699 / length, rtol=1e-5)
    for joint, of in enumerate(H36M):
        at = pose[list(of)].mean(0) if isinstance(of, tuple) else pose[of]
        np.testing.assert_allclose(found.positions[0, joint], (at - pose[6]) * found.scale[0], atol=1e-5)


def test_a_joint_that_is_made_of_two_is_as_certain_as_the_lesser(tmp_path):
    image, _ = marked(64, 64, [(0, 0, 1)])
    cells = image.reshape(16, 4, 16, 4, 3)
    for joint, fainter in ((8, 30), (0, 45)):  # neck and right foot
        x, y = CELLS[joint]
        cells[y, :, x] -= np.uint8(fainter) * np.array([0, 0, 1], np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(image))
    (certain,) = predict_people(network(), images.open_images(tmp_path / "a.png")).confidence
    expected = np.ones(17)
    expected[[7, 8, 9]], expected[3] = 1 - 3 * 30 / 255, 1 - 3 * 45 / 255
    np.testing.assert_allclose(certain, expected, atol=1e-5)


class Counted:
    """People whose images are not to be kept."""

    labelled, source, fps = False, "people", 10.0

    def __init__(self, count):
        self.count, self.alive, self.most = count, [], 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = marked(SIZE, SIZE, [(0, 0, 1)])[0]
        self.alive = [ref for ref in self.alive if ref() is not None] + [weakref.ref(image)]
        self.most = max(self.most, len(self.alive))
        nothing = np.zeros(16, bool)
        centre = np.float32([31.5, 31.5])
        return Person(image, centre, 64.0, np.zeros((16, 2), np.float32), nothing, nothing, name=f"{index}")


def test_images_are_not_kept():
    people = Counted(90)
    net = network()
    found = predict_people(net, people, batch_size=8)
    assert len(found.positions) == 90 and max(net.model.batches) == 8 and people.most <= 3
    assert found.fps == 10 and not found.notes
    people.most = 0
    for image in overlay_frames(people, found.keypoints, found.confidence):
        assert image.shape == (SIZE, SIZE, 3)
    assert people.most <= 3
    with pytest.raises(ArgumentError, match=r"expected \[90, J, 2\]"):
        overlay_frames(people, found.keypoints[1:], found.confidence[1:])


def test_meta_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr("structloss.harness.image_prediction._TOLD", 2)
    image, _ = marked(64, 64, [(0, 0, 1)])
    for name in "abcd":
        (tmp_path / f"{name * 150}.png").write_bytes(encode_png(image))
    meta = predict_people(network(), images.open_images(tmp_path)).meta
    assert meta["people"] == 4 and [len(name) for name in meta["images"]] == [154, 154]
    assert meta["squares"] == [0, 0, 64] and meta["image_sizes"] == [64, 64] and "first 2" in meta["left_out"]


def test_what_is_no_pose_and_no_frame_rate(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(marked(64, 64, [(0, 0, 1)])[0]))
    people = images.open_images(tmp_path / "a.png")
    broken = network()
    broken.model.forward = lambda image: images.SAPOutput(
        torch.full((1, len(image), 16, 16, 16), math.nan), torch.zeros(len(image), 16)
    )
    with pytest.raises(CheckpointError, match=r"marks with f/w\.ckpt predicts NaN"):
        predict_people(broken, people)
    for fps in (0.0, -5.0, math.nan, math.inf):
        with pytest.raises(ArgumentError, match=r"fps is .*, expected a positive number"):
            predict_people(network(), people, fps=fps)


# ---- the command ---------------------------------------------------------------------------------------------------


def test_a_folder_of_images(tmp_path, planted, checkpoint, capsys):
    """Names are kept, people of one image are in one picture, the input stays as it is."""
    image, where = marked(300, 150, [(40, 10, 2), (200, 5, 1)])
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name, ending in (("a2.png", ".png"), ("sub/a10.JPG", ".jpg"), ("a2.webp", ".webp")):
        (folder / name).write_bytes(bytes(cv2.imencode(ending, np.ascontiguousarray(image[..., ::-1]))[1]))
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    boxes = {name: [box(40, 10, 2), box(200, 5, 1)] for name in ("sub/a10.JPG", "a2.webp", "a2.png")}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    out = tmp_path / "out"
    text = predicted(capsys, folder, "--ckpt", checkpoint, "--boxes", tmp_path / "boxes.json", "--out", out)
    assert text.startswith("in: 6 people in 3 images\n") and f"wrote 3 pictures in {out / 'overlay'}\n" in text
    assert "frame rate" not in text  # nobody asked
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*.*"))
    assert files == ["in.npz", "overlay/a2.png", "overlay/a2.webp.png", "overlay/sub/a10.JPG"]
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    drawn = read_image(out / "overlay/a2.png")
    assert drawn.shape == image.shape
    for person in where:
        for joint, (x, y) in enumerate(person.round().astype(int)):
            assert (drawn[y, x] != image[y, x]).any(), joint
    body = skeletons.get("h36m")
    knee = drawn[tuple(where[0][body.joint_names.index("RKnee")].round().astype(int)[::-1])]
    assert knee[0] > 150 > 100 > knee[2]  # orange: right
    assert (drawn[:, :40] == image[:, :40]).all()  # and nothing elsewhere
    with np.load(out / "in.npz") as found:
        meta = json.loads(str(found["meta"]))
        assert found["positions"].shape == (6, 17, 3)
        np.testing.assert_allclose(found["keypoints"][:2], where, atol=1e-3)
    assert meta["images"] == ["a2.png"] * 2 + ["a2.webp"] * 2 + ["sub/a10.JPG"] * 2 and not meta["frames_follow"]
    one = tmp_path / "one.jpg"
    text = predicted(capsys, folder / "a2.png", "--ckpt", checkpoint, "--overlay", one, "--box", *box(40, 10, 2))
    assert text == f"a2.png: 1 person in 1 image\n  wrote {one}\n" and read_image(one).shape == image.shape


def test_frames_in_a_folder_that_follow_each_other(tmp_path, planted, checkpoint, capsys):
    image, _ = marked(64, 64, [(0, 0, 1)])
    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / f"in/{n}.png").write_bytes(encode_png(image))
    predicted(capsys, tmp_path / "in", "--ckpt", checkpoint, "--out", tmp_path / "out", "--fps", 12.5)
    assert (tmp_path / "out/in.bvh").read_text().count("Frame Time: 0.08") == 1
    meta = json.loads(str(np.load(tmp_path / "out/in.npz")["meta"]))
    assert meta["fps"] == 12.5 and meta["frames_follow"] and len(list((tmp_path / "out/overlay").iterdir())) == 3


def frames_of(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate
        return rate, [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


def walk(path, count, rate):
    """A video of a person who moves; where the joints are, `[count, 17, 2]`."""
    made = [marked(200, 180, [(8 + 4 * n, 20, 2)]) for n in range(count)]
    write_mp4(path, (image for image, _ in made), rate)
    return np.concatenate([where for _, where in made])


def test_a_video(tmp_path, planted, checkpoint, capsys):
    """Size, frame rate and number of frames are kept; joints are drawn where they are, frame by frame."""
    path, out = tmp_path / "walk.mp4", tmp_path / "out"
    where = walk(path, 10, 30000 / 1001)
    boxes = {str(n): box(8 + 4 * n, 20, 2) for n in range(10)}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    text = predicted(capsys, path, "--ckpt", checkpoint, "--boxes", tmp_path / "boxes.json", "--out", out)
    assert text.startswith("walk.mp4: 10 frames of 200 x 180 pixels, 29.97 per second\n") and "note" not in text
    assert sorted(file.name for file in out.iterdir()) == ["walk-overlay.mp4", "walk.bvh", "walk.npz"]
    with np.load(out / "walk.npz") as found:
        keypoints, meta = found["keypoints"], json.loads(str(found["meta"]))
    # H.264 blurs colours, which moves a quarter of a cell: 2 pixels of the image
    assert np.abs(keypoints - where).max() < 2.1
    assert meta["fps"] == pytest.approx(30000 / 1001) and (meta["width"], meta["height"]) == (200, 180)
    _, before = frames_of(path)
    rate, after = frames_of(out / "walk-overlay.mp4")
    assert rate == Fraction(30000, 1001) and len(after) == 10 and after[0].shape == (180, 200, 3)
    ankles = [skeletons.get("h36m").joint_names.index(name) for name in ("RFoot", "LFoot")]
    for n in (0, 9):
        changed = np.abs(after[n].astype(int) - before[n]).sum(-1) > 90
        for x, y in keypoints[n].round().astype(int):
            assert changed[y - 1 : y + 2, x - 1 : x + 2].any()
        left, right = keypoints[n][:, 0].min() - 8, keypoints[n][:, 0].max() + 8
        assert not changed[:, : max(0, int(left))].any() and not changed[:, math.ceil(right) :].any()
        (xr, yr), (xl, yl) = keypoints[n][ankles].round().astype(int)
        assert after[n][yr, xr, 0] > after[n][yr, xr, 2] and after[n][yl, xl, 2] > after[n][yl, xl, 0]


def test_refined_with_constant_bones(tmp_path, planted, checkpoint, capsys):
    refiner = save(tmp_path / "tpnet.ckpt", RefineModule(refiner_args={"hidden": 16}, past=3))
    path = tmp_path / "walk.mp4"
    walk(path, 6, 25)
    arguments = [path, "--ckpt", checkpoint, "--box", *box(16, 20, 2), "--refine", refiner]
    predicted(capsys, *arguments, "--npz", tmp_path / "a.npz")
    text = predicted(capsys, *arguments, "--fit-skeleton", "--npz", tmp_path / "b.npz", "--overlay", tmp_path / "b.mp4")
    assert f"wrote {tmp_path / 'b.mp4'}" in text
    refined, fitted = (np.load(tmp_path / name) for name in ("a.npz", "b.npz"))
    meta = json.loads(str(fitted["meta"]))
    assert meta["refiner"] == "tpnet" and meta["bone_lengths_from"] == "the median of this prediction"
    body = skeletons.get("h36m")

    def lengths(poses):
        return np.stack([np.linalg.norm(poses[:, a] - poses[:, b], axis=-1) for a, b in body.tree_bones], 1)

    assert (
        np.ptp(lengths(fitted["positions"]), axis=0).max() < 1e-5 < np.ptp(lengths(refined["positions"]), axis=0).max()
    )
    np.testing.assert_array_equal(refined["keypoints"], fitted["keypoints"])


def test_annotated_people(tmp_path, planted, checkpoint, capsys):
    """COCO's boxes are a quarter wider, too; joints that are annotated don't matter."""
    image, where = marked(300, 150, [(40, 10, 2), (200, 5, 1)])
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(encode_png(image))
    entry = {"image_id": 1, "keypoints": [5, 5, 2] * 17, "num_keypoints": 17, "area": 9, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 300, "height": 150}],
        "annotations": [{**entry, "bbox": box(40, 10, 2)}, {**entry, "bbox": box(200, 5, 1)}],
    }
    (tmp_path / "people.json").write_text(json.dumps(content))
    predicted(
        capsys, tmp_path / "people.json", "--ckpt", checkpoint, "--images", tmp_path / "pictures",
        "--npz", tmp_path / "a.npz",
    )  # fmt: skip
    np.testing.assert_allclose(np.load(tmp_path / "a.npz")["keypoints"], where, atol=1e-3)


def test_the_network_of_a_checkpoint(tmp_path, checkpoint, capsys):
    """Nothing planted: the file's own weights answer."""
    rng = np.random.default_rng(0)
    (tmp_path / "a.png").write_bytes(encode_png(rng.integers(0, 256, (32, 32, 3), np.uint8)))
    predicted(capsys, tmp_path / "a.png", "--ckpt", checkpoint, "--npz", tmp_path / "a.npz", "--flip")
    found = load_image_network(checkpoint)
    image = torch.from_numpy(read_image(tmp_path / "a.png")).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        straight, mirrored = found.model(image), found.model(image.flip(-1))
    mirror = list(images.joints.MIRROR)
    heatmaps = (straight.heatmaps[-1] + mirrored.heatmaps[-1].flip(-1)[:, mirror]) / 2
    depth = (straight.depth + mirrored.depth[:, mirror]) / 2
    expected = images.to_h36m(images.decode(heatmaps, depth)) / 1000
    np.testing.assert_allclose(np.load(tmp_path / "a.npz")["positions"], expected, atol=1e-5)


def test_memory_is_laid_out_as_is_fastest_and_the_poses_are_the_same(checkpoint):
    people = images.RenderedPeople(3, size=32)
    model = images.create("sapnet", **SMALL).eval()
    image = torch.stack([images.sample_of(people[i], 32)["image"] for i in range(3)])
    with torch.no_grad():
        expected = images.to_h36m(images.decode(*model(image))) / 1000
    found = predict_people(network(model=model), people)
    convolutions = [weight for weight in model.parameters() if weight.dim() == 4 and min(weight.shape[1:3]) > 1]
    assert convolutions and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convolutions)
    np.testing.assert_allclose(found.positions, expected, atol=1e-5)


def test_published_weights(tmp_path, checkpoint, capsys):
    """They see blue first, unless told otherwise; what would be executed and our own checkpoints are refused."""
    torch.manual_seed(0)
    model = images.create("sapnet-tiny")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    torch.save(model, tmp_path / "module.pth")
    (tmp_path / "a.png").write_bytes(encode_png(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)))
    arguments = [tmp_path / "a.png", "--network", "sapnet-tiny", "--weights"]
    found = {}
    for colours in ("bgr", "rgb", None):
        told = ["--colours", colours] if colours else []
        predicted(capsys, *arguments, tmp_path / "w.pth", *told, "--npz", tmp_path / "a.npz")
        found[colours] = np.load(tmp_path / "a.npz")["positions"]
    image = torch.from_numpy(read_image(tmp_path / "a.png")).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        for name, given in (("bgr", image.flip(1)), ("rgb", image)):
            expected = images.to_h36m(images.decode(*model.eval()(given))) / 1000
            np.testing.assert_allclose(found[name], expected, atol=1e-5)
    np.testing.assert_array_equal(found[None], found["bgr"])
    assert not np.allclose(found["rgb"], found["bgr"], atol=1e-3)
    npz = ["--npz", tmp_path / "b.npz"]
    assert "module.pth" in refused(capsys, *arguments, tmp_path / "module.pth", *npz)
    own = refused(capsys, *arguments, checkpoint, *npz)
    assert own.startswith("--weights is ") and "(--ckpt)" in own
    told = refused(capsys, tmp_path / "a.png", "--ckpt", checkpoint, "--colours", "rgb", *npz)
    assert told == "--colours is 'rgb', expected it with published weights only."


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, checkpoint):
    """A folder to run commands in."""
    folder = tmp_path_factory.mktemp("inputs")
    image = marked(64, 48, [])[0]
    for name in ("in/a.png", "in/b.png", "broken/a.png", "broken/cut.png", "broken/inside.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(encode_png(image))
    noise = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    content = bytearray(encode_png(noise))
    content[60:400] = b"\x55" * 340
    (folder / "broken/inside.png").write_bytes(content)
    (folder / "broken/cut.png").write_bytes((folder / "broken/a.png").read_bytes()[:-20])
    (folder / "empty").mkdir()
    write_mp4(folder / "clip.mp4", (image for _ in range(3)), 25)
    (folder / "no.mp4").write_bytes((folder / "clip.mp4").read_bytes()[:200])
    np.save(folder / "keypoints.npy", np.ones((3, 17, 3)))
    for name, boxes in (
        ("unknown", {"z.png": [0, 0, 9, 9]}),
        ("outside", {"a.png": [64, 0, 9, 9], "b.png": [0, 0, 9, 9]}),
        ("several", {"a.png": [[0, 0, 9, 9]] * 2, "b.png": [0, 0, 9, 9]}),
        ("late", {"0": [0, 0, 9, 9], "3": [0, 0, 9, 9]}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(boxes))
    save(folder / "lifter.ckpt", LiftingModule(backbone="repose-tiny"))
    (folder / "last.ckpt").write_bytes(checkpoint.read_bytes())
    (folder / "cut.ckpt").write_bytes(checkpoint.read_bytes()[:-900])
    return folder


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("empty --out o", ["empty has no images, expected an image, a folder of images, a video"]),
        ("no.mp4 --out o", ["no.mp4 ", "video"]),
        ("gone.png --out o", ["gone.png does not exist"]),
        ("keypoints.npy --out o", ["keypoints.npy has no images", "the network of --ckpt starts from images"]),
        ("broken --out o", ["1 of 3 images of broken can't be used: cut.png is cut off; set --missing to 'skip'"]),
        ("broken/inside.png --out o", ["inside.png is damaged"]),
        ("in --out o --boxes unknown.json", ["--boxes names 1 image that in does not have: z.png"]),
        ("in --out o --boxes outside.json", ["--boxes has [64, 0, 9, 9] for a.png, which has 64 x 48 pixels"]),
        ("in --out o --boxes gone.json", ["gone.json does not exist"]),
        ("in --out o --box 0 48 9 9", ["--box has [0, 48, 9, 9] for a.png"]),
        ("in --out o --box 0 4 9 0", ["--box is 0 4 9 0, expected x, y, width and height"]),
        ("in --out o --box 0 4 9 nan", ["--box is 0 4 9 nan"]),
        ("in --out o --box 0 4 9 9 --boxes outside.json", ["--box is given with --boxes"]),
        ("clip.mp4 --out o --box -9 4 9 9", ["--box has [-9, 4, 9, 9] for frame 0 of clip.mp4"]),
        ("clip.mp4 --out o --boxes late.json", ["--boxes has frames 0 to 3", "none after 2"]),
        ("clip.mp4 --out o --missing skip", ["--missing is given for clip.mp4 (video)"]),
        ("in --out o --fps 0", ["--fps is 0, expected a positive number"]),
        ("in --out o --fps 9 --boxes several.json", ["--fps is 9, and in has several people in an image"]),
        ("in --out o --fit-skeleton --boxes several.json", ["--fit-skeleton has no file, and in has several people"]),
        ("in --bvh a.bvh", ["--bvh is 'a.bvh' with in", "images of one person each with --fps"]),
        ("in --video a.mp4", ["--video is 'a.mp4' with in"]),
        ("in --out o --refine a.ckpt", ["--refine is 'a.ckpt' with in"]),
        (
            "in --out o --layout coco",
            ["--layout is 'coco' with a network from images, expected it with a file of keypoints"],
        ),
        ("in --out o --person 1", ["--person is 1 with"]),
        ("in --out o --image-size 4 5", ["--image-size is [4, 5] with"]),
        ("in --out o --variant demo", ["--variant is 'demo' with"]),
        ("in --out o --target camera", ["--target is 'camera' with"]),
        ("in --out o --weights w", ["--weights is 'w' with --ckpt, expected it with --network"]),
        ("in", ["nothing is to be written", "--overlay"]),
        ("in --overlay in", ["--overlay puts pictures into in, where they would be images of in"]),
        ("in --out in/new", ["--out puts pictures into in/new/overlay"]),
        ("in --overlay a.png", ["--overlay is 'a.png', expected a folder for the pictures of 2 images"]),
        ("in --overlay a.mp4", ["--overlay is 'a.mp4', expected a folder for the pictures of images"]),
        ("in --overlay last.ckpt", ["--overlay is 'last.ckpt', expected a folder"]),
        ("in/a.png --overlay in/a.png", ["in/a.png is an image of the input"]),
        ("in/a.png --overlay in", ["in/a.png is an image of the input"]),
        ("clip.mp4 --overlay clip.mp4", ["clip.mp4 is the input"]),
        ("clip.mp4 --overlay folder", ["--overlay is 'folder', expected a name that ends in .mp4 for a video"]),
        ("in --npz last.ckpt/a.npz", ["last.ckpt/a.npz can't be written", "last.ckpt is no folder"]),
        ("in --overlay last.ckpt/a", ["last.ckpt/a/a.png can't be written"]),
        (f"in --npz {'n' * 300}.npz", ["can't be written: File name too long"]),
        (f"{'n' * 300}.png --out o", ["nnn.png", "File name too long"]),
    ],
)
def test_what_is_refused(inputs, monkeypatch, capsys, command, parts):
    monkeypatch.chdir(inputs)
    before = sorted(map(str, inputs.rglob("*")))
    text = refused(capsys, *command.split(), "--ckpt", "last.ckpt")
    for part in parts:
        assert part in text, text
    assert sorted(map(str, inputs.rglob("*"))) == before  # found out before anything was written


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("in --ckpt lifter.ckpt --out o --images in", "--images is 'in' with frames and a lifting network"),
        ("clip.mp4 --ckpt lifter.ckpt --npz a.npz --boxes b.json", "--boxes is 'b.json' with frames and a lifting net"),
        ("clip.mp4 --ckpt last.ckpt --out o --frames 3", "--frames is 3 with a network from images, expected it with"),
        ("in/a.png --backbone repose-tiny --weights w --out o", "--weights: w does not exist"),
        ("in --ckpt gone.ckpt --out o", "--ckpt: gone.ckpt does not exist"),
        ("in --ckpt cut.ckpt --out o", "--ckpt: cut.ckpt can't be read, expected one written by structloss fit"),
        ("keypoints.npy --ckpt cut.ckpt --layout h36m --image-size 9 9 --out o", "--ckpt: cut.ckpt can't be read"),
        ("--split train --ckpt cut.ckpt --out o", "--ckpt: cut.ckpt can't be read"),
        ("--split train --ckpt in/a.png --out o", "--ckpt: in/a.png can't be read"),
        ("clip.mp4 --ckpt last.ckpt --out o --refine lifter.ckpt", "--refine: lifter.ckpt is not of a refiner"),
        ("clip.mp4 --ckpt last.ckpt --out o --refine gone", "--refine: gone does not exist"),
        ("clip.mp4 --ckpt last.ckpt --out o --fit-skeleton gone", "--fit-skeleton: gone does not exist"),
        (
            "in --network sapnet --weights cut.ckpt --out o",
            "--weights: cut.ckpt is damaged, truncated or no PyTorch file",
        ),
        (
            "keypoints.npy --ckpt lifter.ckpt --overlay o",
            "--overlay is 'o' with keypoints, expected it with images or a video, or --v",
        ),
        ("keypoints.npy --ckpt lifter.ckpt --out o --box 0 0 4 4", "--box is (0.0, 0.0, 4.0, 4.0) with keypoints"),
        ("in --network sapnet --out o", "--network is 'sapnet' without --weights"),
        ("in --network sapnet --ckpt last.ckpt --out o", "expected --ckpt, or --backbone or --network with --weights"),
        ("--split train --ckpt last.ckpt --npz a.npz --overlay o", "--overlay is 'o' with --split, expected it with"),
        ("--split train --ckpt last.ckpt --npz a.npz", "last.ckpt doesn't say what data it was trained on"),
        ("--split train --ckpt lifter.ckpt --npz a.npz --fps 9", "--fps is 9 with --split, expected it with a network"),
        ("--ckpt last.ckpt --npz a.npz", "no input is given, expected an image, a folder of images, or a video"),
    ],
)
def test_networks_and_inputs_that_do_not_belong_together(inputs, monkeypatch, capsys, command, part):
    monkeypatch.chdir(inputs)
    text = refused(capsys, *command.split())
    assert part in text, text


def test_broken_images_are_skipped_on_request(inputs, tmp_path, checkpoint, capsys):
    """Counted and named, those too that are damaged inside."""
    out = tmp_path / "out"
    with pytest.warns(UserWarning, match=r"2 of 3 images of .*: cut\.png is cut off, inside\.png is damaged"):
        text = predicted(capsys, inputs / "broken", "--ckpt", checkpoint, "--out", out, "--missing", "skip")
    assert text.startswith("broken: 1 person in 1 image\n")
    assert [path.name for path in (out / "overlay").iterdir()] == ["a.png"]
    assert json.loads(str(np.load(out / "broken.npz")["meta"]))["images_left_out"] == 2


def test_boxes_of_a_turned_photograph(tmp_path, checkpoint, capsys):
    """Boxes, keypoints and the picture are those of the image as viewers show it, which EXIF says."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    content = cv2.imencode(".jpg", noise)[1].tobytes()
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06" + bytes(6)
    (tmp_path / "a.jpg").write_bytes(content[:2] + b"\xff\xe1" + bytes([0, len(turned) + 2]) + turned + content[2:])
    arguments = [tmp_path / "a.jpg", "--ckpt", checkpoint, "--overlay", tmp_path / "b.png"]
    text = refused(capsys, *arguments, "--box", 45, 0, 9, 9)
    assert text.startswith("--box has [45, 0, 9, 9] for a.jpg, which has 40 x 60 pixels")
    predicted(capsys, *arguments, "--box", 0, 45, 9, 9)
    assert read_image(tmp_path / "b.png").shape == (60, 40, 3)


def test_a_missing_extra(inputs, monkeypatch, capsys):
    monkeypatch.chdir(inputs)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    for command in ("clip.mp4 --out o", "in --fps 5 --video a.mp4"):
        text = refused(capsys, *command.split(), "--ckpt", "last.ckpt")
        assert "av" in text and "not installed" in text and "video" in text


def test_pictures_that_cannot_be_written(tmp_path):
    image = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(ArgumentError, match=r"expected a name that ends in \.jpeg, \.jpg, \.png"):
        write_picture(tmp_path / "a.webp", image)
    with pytest.raises(ArgumentError, match="can't hold an image of 70000 x 1 pixels"):
        write_picture(tmp_path / "a.jpg", np.zeros((1, 70000, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_nothing(tmp_path, planted, checkpoint, monkeypatch, capsys):
    (tmp_path / "a.png").write_bytes(encode_png(marked(64, 64, [(0, 0, 1)])[0]))

    def full(self, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Prediction, "save", full)
    text = refused(capsys, tmp_path / "a.png", "--ckpt", checkpoint, "--npz", tmp_path / "a.npz")
    assert text == f"{tmp_path / 'a.npz'} can't be written: No space left on device."


def test_a_damaged_image_is_named_whoever_asks(inputs):
    people = images.open_images(inputs / "broken/inside.png")
    with pytest.raises(DataError, match=r"inside\.png is damaged"):
        predict_people(network(), people)
